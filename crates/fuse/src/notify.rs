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
//! Notices about names and content wait for locks. That is also why a notice must never be sent by a thread that holds a lock or answers a request: the kernel may have to wait for
//! the answer to another request before the notice returns (spec 70 §10.3).

use frazil_posix::NodeId;

use crate::node_ids::NodeIds;

/// Something the kernel may have cached, and that is different now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice<'a> {
    /// What this name in this directory leads to, or that it leads nowhere.
    Entry { dir: NodeId, name: &'a [u8] },
    /// The attributes and the content or listing of this object.
    Inode(NodeId),
    /// The attributes of this object. It is open, so the kernel waits for nothing.
    Attributes(NodeId),
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
    }
}
