//! Access times (POSIX; mount(8) `relatime`, `strictatime`).
//!
//! Whoever reads may ask that it be noted when. That is a transaction, so it is never done for its own sake: not while the volume is
//! frozen, or cannot be changed, or is out of space (spec 70 R1), and by [`AccessTimes::Relative`] at most once a day unless the object
//! changed. Nothing else of the inode changes, ctime included.

use frazil_ondisk::values::inode::InodeFlags;
use frazil_volume::lifecycle::FrontKind;

use super::WriteFs;
use crate::attr::{Attr, NodeId, Timestamp};
use crate::error::Result;

/// With [`AccessTimes::Relative`], an access time that is at least so old is brought up to date.
const STALE_NS: i128 = 24 * 60 * 60 * 1_000_000_000;

/// Whose reading is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessTimes {
    /// Nobody's.
    #[default]
    Never,
    /// The first after a change, and one a day.
    Relative,
    /// Everybody's.
    Always,
}

impl AccessTimes {
    /// Whether an access now is to be noted at an object with these attributes.
    fn is_due(self, attr: &Attr, now: Timestamp) -> bool {
        let at = attr.atime.unix_ns();
        if attr.flags & InodeFlags::NOATIME.0 != 0 {
            return false;
        }
        match self {
            AccessTimes::Never => false,
            AccessTimes::Relative => {
                at <= attr.mtime.unix_ns() || at <= attr.ctime.unix_ns() || now.unix_ns() - at >= STALE_NS
            }
            AccessTimes::Always => at != now.unix_ns(),
        }
    }
}

impl WriteFs {
    /// Notes that an object was read just now, if that is to be noted, and can be. Whether its access time has changed. Does not wait for a thaw.
    ///
    /// # Errors
    /// The general ones.
    pub fn accessed(&self, node: NodeId, times: AccessTimes) -> Result<bool> {
        if times == AccessTimes::Never || !times.is_due(&self.getattr(node)?, self.now()) {
            return Ok(false);
        }
        let Ok(front) = self.try_front(FrontKind::Attributes) else { return Ok(false) };
        front.change(|op| {
            let mut object = op.writable(node)?;
            object.inode.atime = op.now();
            op.put(&object);
            Ok(true)
        })
    }
}
