//! When something was last read.
//!
//! The kernel keeps no access times for FUSE, and it answers most reading from its caches, of which we are not told. So they are
//! kept only if somebody asks for it (mount options `relatime`, `strictatime`). Then the kernel has to ask at every open, and what is
//! opened for reading counts as read: that comes close to what programs expect of access times, and stays true of what is only read from caches or
//! through mapped memory. (By `strictatime` every read that the kernel does not answer itself counts, too.)
//!
//! It is noted after the reader has the answer, so reading never waits for it, and only if the volume can be changed at this moment: a frozen
//! volume stays as it is.

use frazil_posix::NodeId;
use frazil_posix::write::{AccessTimes, WriteFs};
use rustix::fs::OFlags;

use crate::reply::Reply;

/// Whose reading is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accesses {
    /// Of files and symbolic links, and of directories unless those are left out.
    pub files: AccessTimes,
    /// Whether listing a directory counts as well.
    pub directories: bool,
}

/// Nobody's.
impl Default for Accesses {
    fn default() -> Accesses {
        Accesses { files: AccessTimes::Never, directories: true }
    }
}

impl Accesses {
    /// Whether any times of files, and of directories, are kept.
    pub(crate) fn keeps(self) -> (bool, bool) {
        let any = self.files != AccessTimes::Never;
        (any, any && self.directories)
    }

    /// A file is opened.
    pub(crate) fn opened(self, node: NodeId, flags: OFlags, reply: &mut Reply) {
        if flags & OFlags::RWMODE == OFlags::RDONLY {
            self.read(node, flags, reply);
        }
    }

    /// A file or symbolic link is read.
    pub(crate) fn read(self, node: NodeId, flags: OFlags, reply: &mut Reply) {
        if self.keeps().0 && !flags.contains(OFlags::NOATIME) {
            reply.accessed = Some(node);
        }
    }

    /// A directory is listed.
    pub(crate) fn listed(self, node: NodeId, flags: OFlags, reply: &mut Reply) {
        if self.keeps().1 && !flags.contains(OFlags::NOATIME) {
            reply.accessed = Some(node);
        }
    }

    /// Notes an access. Whether its time has changed.
    pub(crate) fn note(self, fs: Option<&WriteFs>, node: NodeId) -> bool {
        // It may be removed by now, or there is no room: then it is not noted.
        fs.is_some_and(|fs| fs.accessed(node, self.files).unwrap_or(false))
    }
}
