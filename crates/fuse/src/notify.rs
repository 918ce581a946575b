//! Telling the kernel that what it caches has changed without it.
//!
//! Names and attributes are the kernel's for ever ([`crate::adapter`]), because all changes come through it. The control channel is
//! the exception: it makes and deletes subvolumes. So after such a change the kernel is told of the name that came or went, and of
//! the directory whose times and listing changed. Changes and notices are not one step, but a lookup that meets
//! the old state holds the directory's lock in the kernel, and a notice about a name waits for that lock; so whatever was cached in
//! between is dropped, too.
//!
//! A request about an open file can change attributes of which the kernel does not expect it: a direct write takes set-id bits away, and
//! a control changes ctime. Then the notice goes before the reply, so that whoever made the request never sees the old ones.
//!
//! Notices about names and content wait for locks. That is also why such a notice must never be sent by a thread that holds a lock or has the turn to read requests: the kernel may
//! have to wait for the answer to another request before the notice returns (spec 70 §10.3).
//!
//! # Direct writes
//!
//! Before a direct write the kernel drops what it has cached of the range. If the write is asynchronous it does not do so again afterwards, and
//! who read the range meanwhile has put the old content back, for good (generic/451 of fstests shows it). So after a direct write to a file
//! that was read through the cache, the range is dropped once more, before the writer is told ([`ThroughCache`] knows which files those are:
//! for files that are only read directly, as databases do, this costs nothing).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use frazil_posix::NodeId;

use crate::node_ids::NodeIds;

/// Which files were read through the kernel's cache since they were mounted; now and then one more than that, as a file has one bit of [`MARKS`].
pub(crate) struct ThroughCache(Box<[AtomicU64]>);

/// As many bits as fit two pages of memory.
const MARKS: u64 = 1 << 16;

impl Default for ThroughCache {
    fn default() -> ThroughCache {
        ThroughCache((0..MARKS / 64).map(|_| AtomicU64::new(0)).collect())
    }
}

impl ThroughCache {
    fn place(&self, node: NodeId) -> (&AtomicU64, u64) {
        // Numbers of files that are in use together are close to each other.
        let mark = node.inum.0.wrapping_add(u64::from(node.subvol.0) << 9) % MARKS;
        (&self.0[(mark / 64) as usize], 1 << (mark % 64))
    }

    /// The file is about to be read, and the kernel will keep what it gets. (Before: who overwrites it meanwhile has to know.)
    pub(crate) fn read(&self, node: NodeId) {
        let (word, bit) = self.place(node);
        if word.load(SeqCst) & bit == 0 {
            word.fetch_or(bit, SeqCst);
        }
    }

    /// Whether the kernel may have something of the file.
    pub(crate) fn holds(&self, node: NodeId) -> bool {
        let (word, bit) = self.place(node);
        word.load(SeqCst) & bit != 0
    }
}

/// Something the kernel may have cached, and that is different now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice<'a> {
    /// What this name in this directory leads to, or that it leads nowhere.
    Entry { dir: NodeId, name: &'a [u8] },
    /// The attributes and the content or listing of this object.
    Inode(NodeId),
    /// The attributes of this object. It is open, so the kernel waits for nothing.
    Attributes(NodeId),
    /// The attributes of this object, and a range of its content: offset and length, which is not 0.
    Content(NodeId, u64, u64),
}

/// `FUSE_NOTIFY_INVAL_INODE`, `FUSE_NOTIFY_INVAL_ENTRY`: in the field of a reply that has the error, of a reply to nothing.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;

impl Notice<'_> {
    /// The whole message.
    pub(crate) fn encode(&self, ids: &NodeIds) -> Vec<u8> {
        let (code, body) = match *self {
            Notice::Inode(node) => {
                // From offset 0 to the end.
                let body = [ids.shown(node).0, 0, 0].map(u64::to_ne_bytes).concat();
                (INVAL_INODE, body)
            }
            Notice::Attributes(node) => {
                // A negative offset: no content.
                let body = [ids.shown(node).0, -1i64 as u64, 0].map(u64::to_ne_bytes).concat();
                (INVAL_INODE, body)
            }
            Notice::Content(node, offset, len) => {
                let body = [ids.shown(node).0, offset, len].map(u64::to_ne_bytes).concat();
                (INVAL_INODE, body)
            }
            Notice::Entry { dir, name } => {
                let mut body = ids.shown(dir).0.to_ne_bytes().to_vec();
                body.extend_from_slice(&(name.len() as u32).to_ne_bytes());
                body.extend_from_slice(&[0; 4]);
                body.extend_from_slice(name);
                body.push(0);
                (INVAL_ENTRY, body)
            }
        };
        let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&code.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&body);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_looks() {
        let ids = NodeIds::default();
        let entry = Notice::Entry { dir: NodeId::ROOT, name: b"new" }.encode(&ids);
        assert_eq!(entry.len(), 36);
        assert_eq!(entry[..8], [36u32.to_ne_bytes(), 3u32.to_ne_bytes()].concat());
        assert_eq!(entry[8..24], [0u64.to_ne_bytes(), 1u64.to_ne_bytes()].concat());
        assert_eq!(entry[24..], [&3u32.to_ne_bytes()[..], &[0; 4], b"new\0"].concat());
        let inode = Notice::Inode(NodeId::ROOT).encode(&ids);
        assert_eq!(inode[16..], [1u64, 0, 0].map(u64::to_ne_bytes).concat());
        let attributes = Notice::Attributes(NodeId::ROOT).encode(&ids);
        assert_eq!(attributes[16..], [1u64, u64::MAX, 0].map(u64::to_ne_bytes).concat());
        let content = Notice::Content(NodeId::ROOT, 4096, 512).encode(&ids);
        assert_eq!(content[16..], [1u64, 4096, 512].map(u64::to_ne_bytes).concat());
    }

    #[test]
    fn files_that_were_read_are_known() {
        let node = |inum| NodeId { inum: frazil_ondisk::units::Inum(inum), ..NodeId::ROOT };
        let through = ThroughCache::default();
        through.read(node(5000));
        assert!(through.holds(node(5000)) && !through.holds(node(5001)) && !through.holds(node(5064)));
    }
}
