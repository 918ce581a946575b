//! Listings: `readdir`, and `readdirplus`, which looks up every name on the way.
//!
//! A listing is asked for in pieces of the caller's size. The kernel remembers where to go on by the cookie of the last entry it
//! took: 0 at the start, 1 after ".", 2 after "..", then those of the filesystem, which are 3 and more (spec 40 §5.4).
//!
//! An entry of a `readdirplus` counts as a lookup, to be forgotten by the kernel later, but for "." and "..": so nothing is
//! counted before it is certain that the entry fits.
//!
//! # With attributes or without
//!
//! Attributes cost 3 µs an entry, three times the name. A program that wants them (`ls -l`, `find -size`, `tar`) would pay for
//! a lookup each otherwise, 7 µs; one that does not (`ls`, `find -name`) pays for nothing. The kernel can guess which by
//! itself (`READDIRPLUS_AUTO`), but gives up after the first piece of a directory that is listed as a whole before
//! anything is looked up, as most programs do. So it asks for everything, and [`Demand`] decides here.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

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

/// One entry in so many goes without attributes, to see whether it is looked up.
const PROBE_EVERY: u32 = 16;
/// After so many of them that nobody looked up, nobody wants attributes.
const UNWANTED_MAX: u32 = 64;

/// Whether who lists directories wants attributes too. Some entries of every listing go without: if the kernel
/// then looks them up, attributes are wanted; if it never does, they are left out, until it does again. This is decided
/// when a listing begins, for the lookups may come after the end of the one before. Directories do not count: they always have
/// their attributes, because whoever goes through a tree looks them up in any case.
#[derive(Default)]
pub(crate) struct Demand {
    /// Entries without a directory behind them so far, modulo 2³².
    listed: AtomicU32,
    /// Entries that went without attributes since the last lookup.
    unwanted: AtomicU32,
    /// Nobody wants attributes.
    none: AtomicBool,
}

impl Demand {
    /// A listing begins.
    fn begin(&self) {
        self.none.store(self.unwanted.load(Relaxed) >= UNWANTED_MAX, Relaxed);
    }

    /// Whether anybody wants attributes.
    fn exists(&self) -> bool {
        !self.none.load(Relaxed)
    }

    /// Whether the next entry is to have its attributes, if anybody wants them.
    fn includes(&self, kind: FileType) -> bool {
        if kind == FileType::Directory {
            return true;
        }
        let probe = self.listed.fetch_add(1, Relaxed).is_multiple_of(PROBE_EVERY);
        if probe {
            self.unwanted.fetch_add(1, Relaxed);
        }
        !probe
    }

    /// An object was looked up by its name.
    pub(crate) fn looked_up(&self, kind: FileType) {
        if kind != FileType::Directory {
            self.unwanted.store(0, Relaxed);
        }
    }
}

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
    if range.offset == 0 {
        adapter.demand.begin();
    }
    let from = range.offset.max(AFTER_DOTS);
    let listed = if range.plus && adapter.demand.exists() {
        adapter.fs.readdir_plus(dir, from, &mut |entry, attr| {
            put(adapter, &range, entry, attr.filter(|_| adapter.demand.includes(entry.kind)), reply)
        })
    } else {
        adapter.fs.readdir(dir, from, &mut |entry| {
            let wanted = range.plus && entry.kind == FileType::Directory;
            let attr = wanted.then(|| adapter.fs.getattr(entry.node).ok()).flatten();
            put(adapter, &range, entry, attr.as_ref(), reply)
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

fn put<F: Filesystem>(
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
        Some(attr) => adapter.enter(attr, reply),
        None => {
            if range.plus {
                reply.unknown_entry();
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_left_out_while_nobody_looks_anything_up() {
        let demand = Demand::default();
        let list = |entries: u32| {
            demand.begin();
            (0..entries).filter(|_| demand.includes(FileType::Regular)).count()
        };
        assert_eq!(list(100 * PROBE_EVERY), 100 * (PROBE_EVERY as usize - 1));
        assert!(demand.exists(), "the lookups may be still to come");
        demand.looked_up(FileType::Directory);
        list(1);
        assert!(!demand.exists() && demand.includes(FileType::Directory));
        demand.looked_up(FileType::Symlink);
        list(1);
        assert!(demand.exists());
    }
}
