//! Listings: `readdir`, and `readdirplus`, which looks up every name on the way.
//!
//! A listing is asked for in pieces of the caller's size. The kernel remembers where to go on by the cookie of the last entry it
//! took: 0 at the start, 1 after ".", 2 after "..", then those of the filesystem, which are 3 and more (spec 40 §5.4).
//!
//! An entry of a `readdirplus` counts as a lookup, to be forgotten by the kernel later, but for "." and "..": so nothing is
//! counted before it is certain that the entry fits.

use std::ops::ControlFlow::{self, Break, Continue};

use frazil_posix::{Attr, DirEntry, FileType, NodeId};

use crate::adapter::Adapter;
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::node_ids::FuseId;
use crate::reply::Reply;

/// Bytes of a name's record before the name (`fuse_dirent`).
const DIRENT_BYTES: usize = 24;
/// Bytes of the entry before it in a `readdirplus` (`fuse_entry_out`).
const ENTRY_BYTES: usize = 128;
/// Cookie after "..".
const AFTER_DOTS: u64 = 2;

/// Which piece of a listing.
pub(crate) struct Range {
    /// Cookie to go on from.
    pub(crate) offset: u64,
    /// Most bytes of reply.
    pub(crate) size: u32,
    /// Whether with attributes.
    pub(crate) plus: bool,
}

/// Fills the reply with entries. An error after the first entry waits for the next call, which starts with it.
pub(crate) fn list<F: Filesystem>(
    adapter: &Adapter<F>,
    dir: NodeId,
    range: Range,
    reply: &mut Reply,
) -> Result<(), Errno> {
    if let Break(()) = list_dots(adapter, dir, &range, reply)? {
        return Ok(());
    }
    let from = range.offset.max(AFTER_DOTS);
    let listed = if range.plus {
        adapter.fs.readdir_plus(dir, from, &mut |entry, attr| put_plus(adapter, &range, entry, attr, reply))
    } else {
        adapter.fs.readdir(dir, from, &mut |entry| {
            let id = adapter.ids.shown(entry.node);
            put(&range, id, entry.kind, entry.name, entry.next, reply)
        })
    };
    match listed {
        Err(error) if reply.len() == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

/// The two entries that are not stored.
fn list_dots<F: Filesystem>(
    adapter: &Adapter<F>,
    dir: NodeId,
    range: &Range,
    reply: &mut Reply,
) -> Result<ControlFlow<()>, Errno> {
    if range.offset == 0 && put_dot(range, adapter.ids.shown(dir), b".", 1, reply).is_break() {
        return Ok(Break(()));
    }
    if range.offset < AFTER_DOTS {
        // A directory whose parent cannot be found is still worth listing.
        let parent = adapter.fs.parent(dir).unwrap_or(dir);
        return Ok(put_dot(range, adapter.ids.shown(parent), b"..", AFTER_DOTS, reply));
    }
    Ok(Continue(()))
}

fn put_dot(range: &Range, id: FuseId, name: &[u8], next: u64, reply: &mut Reply) -> ControlFlow<()> {
    if !fits(range, name, reply) {
        return Break(());
    }
    if range.plus {
        reply.unknown_entry();
    }
    reply.dirent(id, FileType::Directory, name, next);
    Continue(())
}

fn put(
    range: &Range,
    id: FuseId,
    kind: FileType,
    name: &[u8],
    next: u64,
    reply: &mut Reply,
) -> ControlFlow<()> {
    if !fits(range, name, reply) {
        return Break(());
    }
    reply.dirent(id, kind, name, next);
    Continue(())
}

fn put_plus<F: Filesystem>(
    adapter: &Adapter<F>,
    range: &Range,
    entry: DirEntry<'_>,
    attr: Option<&Attr>,
    reply: &mut Reply,
) -> ControlFlow<()> {
    if !fits(range, entry.name, reply) {
        return Break(());
    }
    let id = match attr {
        Some(attr) => {
            let id = adapter.ids.looked_up(attr.node);
            reply.entry(id, attr, adapter.shown);
            id
        }
        None => {
            reply.unknown_entry();
            adapter.ids.shown(entry.node)
        }
    };
    reply.dirent(id, entry.kind, entry.name, entry.next);
    Continue(())
}

/// Whether an entry of this name fits what is left.
fn fits(range: &Range, name: &[u8], reply: &Reply) -> bool {
    let before = if range.plus { ENTRY_BYTES } else { 0 };
    reply.len() + before + (DIRENT_BYTES + name.len()).next_multiple_of(8) <= range.size as usize
}
