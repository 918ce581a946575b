//! Values as text, the way the reference's listings print them.
//!
//! Two styles exist, because the tools' own output changed with the format: volumes up to 1.13 are printed as the tools of
//! 1.13 do, newer ones as those of 1.39 do. Where a reference prints something of no use (1.13 prints the address of inline
//! data) this prints the newer tools' form.
//!
//! Some text needs to know more than the key: which bucket a sector lies in, what a target is called. A
//! [`ListContext`] answers; without an answer the number stands for itself.

mod extents;
mod space;

use std::fmt::{self, Display, Formatter};

use super::Value;
use super::accounting::AccountingPos;
use super::acl::{Acl, AclTag};
use super::dirent::{Dirent, DirentTarget};
use super::inode::Inode;
use super::positions::DevBucket;
use super::snapshot::Snapshot;
use super::subvolume::Subvolume;
use super::xattr::Xattr;
use crate::bkey::{Bkey, Key};
use crate::btree_id::BtreeId;
use crate::key_type::KeyType;
use crate::units::{DevIndex, Gen};
use crate::version::Version;

/// What a listing knows about the filesystem beyond the key.
pub trait ListContext {
    /// Version of the superblock: decides the style and how positions are read.
    fn version(&self) -> Version {
        Version::INODE_HAS_CHILD_SNAPSHOTS
    }

    /// Sectors of a device's buckets.
    fn bucket_sectors(&self, _dev: DevIndex) -> Option<u64> {
        None
    }

    /// How many copies a copy on this device counts for.
    fn durability(&self, _dev: DevIndex) -> u32 {
        1
    }

    /// Present generation of a bucket, to tell stale pointers.
    fn bucket_gen(&self, _at: DevBucket) -> Option<Gen> {
        None
    }

    /// Name of a device.
    fn device_name(&self, _dev: DevIndex) -> Option<String> {
        None
    }

    /// Name of a target (spec 10 §9.6).
    fn target_name(&self, _target: u16) -> Option<String> {
        None
    }

    /// Low bits of a backpointer's offset that hold the offset in the payload.
    fn backpointer_shift(&self) -> u32 {
        super::backpointer::SHIFT_1_13
    }
}

/// Knows nothing but the key; prints it as of version 1.13.
#[derive(Clone, Copy, Debug)]
pub struct NoContext;

impl ListContext for NoContext {}

/// A key and its value, for display: the line `u64s … type … POS len … ver …`, then `: ` and the value, which may go on
/// over several lines.
pub fn key<'a>(key: Key<'a>, cx: &'a dyn ListContext) -> impl Display + 'a {
    Shown(move |f: &mut Formatter<'_>| {
        write!(f, "{key}")?;
        match Value::decode(key) {
            Ok(Value::Empty) => Ok(()),
            Ok(value) => {
                f.write_str(": ")?;
                self::value(&value, &key.k, cx).fmt(f)
            }
            Err(e) => write!(f, ": (undecodable: {e})"),
        }
    })
}

/// A value alone, for display. `k` is its key's header.
pub fn value<'a>(value: &'a Value<'a>, k: &'a Bkey, cx: &'a dyn ListContext) -> impl Display + 'a {
    Shown(move |f: &mut Formatter<'_>| Lister { k, cx }.value(value, f))
}

/// Name of a b-tree under this version: number 18 got another purpose and name at 1.33.
pub fn btree_name(id: BtreeId, version: Version) -> String {
    if id == BtreeId::REBALANCE_WORK && version.has_reconcile() {
        return "reconcile_work".into();
    }
    id.to_string()
}

/// Text made by a function when it is shown.
struct Shown<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Shown<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0(f)
    }
}

struct Lister<'a> {
    k: &'a Bkey,
    cx: &'a dyn ListContext,
}

impl Lister<'_> {
    /// The style of the 1.39 tools.
    fn new_style(&self) -> bool {
        self.cx.version().lists_in_new_style()
    }

    fn value(&self, value: &Value<'_>, f: &mut Formatter<'_>) -> fmt::Result {
        match value {
            Value::Empty | Value::Error(None) => Ok(()),
            Value::Error(Some(reason)) => f.write_str(reason.name().unwrap_or("(unknown reason)")),
            Value::Cookie(v) => write!(f, "{v}"),
            Value::BtreePtr(entries) | Value::Extent(entries) => self.entries(entries, f),
            Value::BtreePtrV2(p) => {
                let updated = if p.range_updated { "R " } else { "" };
                write!(f, "seq {:x} written {} min_key {} {updated}", p.seq.0, p.sectors_written, p.min_key)?;
                self.entries(p.entries, f)
            }
            Value::Reservation(r) => write!(f, "generation {} replicas {}", r.generation, r.nr_replicas),
            Value::Inode(inode) => self.inode(inode, f),
            Value::InodeGeneration(g) => write!(f, "generation: {}", g.generation),
            Value::InodeAllocCursor(c) => write!(f, "idx {} generation {}", c.idx, c.generation),
            Value::Dirent(d) => dirent(d, f),
            Value::Xattr(x) => self.xattr(x, f),
            Value::Alloc(a) => self.alloc(a, f),
            Value::Quota(q) => {
                // The reference forgets the separator before "inodes".
                write!(f, "space hardlimit {} softlimit {}", q.space.hard, q.space.soft)?;
                write!(f, "inodes hardlimit {} softlimit {}", q.inodes.hard, q.inodes.soft)
            }
            Value::Stripe(s) => self.stripe(s, f),
            Value::ReflinkP(p) => {
                write!(f, "idx {} front_pad {} back_pad {}", p.idx, p.front_pad, p.back_pad)
            }
            Value::ReflinkV(r) => {
                write!(f, "refcount: {} ", r.refcount)?;
                self.entries(r.entries, f)
            }
            Value::InlineData(data) => inline(data, f),
            Value::IndirectInlineData(d) => {
                write!(f, "refcount {} ", d.refcount)?;
                inline(d.data, f)
            }
            Value::Subvolume(s) => self.subvolume(s, f),
            Value::Snapshot(s) => self.snapshot(s, f),
            Value::SnapshotTree(t) => {
                write!(f, "subvol {} root snapshot {}", t.master_subvol, t.root_snapshot)
            }
            Value::Lru(l) => write!(f, "idx {}", l.idx),
            Value::Backpointer(b) => self.backpointer(b, f),
            Value::BucketGens(g) => join(g.0.iter(), " ", f),
            Value::LoggedTruncate(op) => {
                write!(f, "subvol={} inum={} new_i_size={}", op.subvol, op.inum, op.new_size)
            }
            Value::LoggedFinsert(op) => {
                let (dst, src) = (op.dst_offset as i64, op.src_offset);
                write!(f, "subvol={} inum={} dst_offset={dst} src_offset={src}", op.subvol, op.inum)
            }
            Value::LoggedStripeUpdate(op) => write!(f, "old_idx {} new_idx {}", op.old_idx, op.new_idx),
            Value::Accounting(c) => {
                self.accounting(f)?;
                c.iter().try_for_each(|v| write!(f, " {v}"))
            }
            Value::Damage(d) => join(d.iter().map(|r| format!("{} {}", r.id, r.count)), ", ", f),
            Value::Unknown(v) => hex(v, f),
        }
    }

    fn inode(&self, inode: &Inode, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\n  mode={}", inode.mode)?;
        if self.new_style() {
            write!(f, " ({})", inode.file_type())?;
        }
        write!(f, "\n  flags={}({:x})", inode.flags, inode.flag_word() as u32)?;
        write!(f, "\n  journal_seq={}", inode.journal_seq)?;
        if self.new_style() {
            write!(f, "\n  hash_seed={:x}", inode.hash_seed)?;
            let name =
                crate::str_hash::StrHashType::from_raw(inode.str_hash).map_or("(unknown)", |t| t.name());
            write!(f, "\n  hash_type={name}")?;
        }
        write!(
            f,
            "\n  bi_size={}\n  bi_sectors={}\n  bi_version={}",
            inode.size, inode.sectors, inode.version
        )?;
        let fields = if self.new_style() { 28 } else { 24 };
        for (name, v) in inode.named_fields().take(fields) {
            write!(f, "\n  bi_{name}={v}")?;
        }
        f.write_str(if self.new_style() { "\n" } else { "" })
    }

    fn snapshot(&self, s: &Snapshot, f: &mut Formatter<'_>) -> fmt::Result {
        if s.state.is_none() {
            let (subvol, deleted) = (s.flags & Snapshot::SUBVOL != 0, s.flags & Snapshot::DELETED != 0);
            write!(f, "is_subvol {} deleted {} ", u8::from(subvol), u8::from(deleted))?;
        }
        let [a, b] = s.children.map(|c| c.0);
        write!(f, "parent {:>10} children {a:>10} {b:>10} subvol {} tree {}", s.parent.0, s.subvol, s.tree)?;
        let [x, y, z] = s.skip;
        write!(f, " depth {} skiplist {x} {y} {z}", s.depth)?;
        match s.state {
            Some(_) => write!(f, " {}", s.state().map_or("(unknown state)", |s| s.name())),
            None => Ok(()),
        }
    }

    fn subvolume(&self, s: &Subvolume, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "root {} snapshot id {}", s.inode, s.snapshot)?;
        write!(f, " creation_parent {} fs_parent {}", s.creation_parent, s.fs_path_parent)?;
        if s.state.is_none() {
            return Ok(());
        }
        f.write_str(if s.is_read_only() { " ro" } else { "" })?;
        f.write_str(if s.is_snapshot() { " snapshot" } else { "" })?;
        write!(f, " {}", s.state().map_or("(unknown state)", |s| s.name()))
    }

    /// What an accounting key counts.
    fn accounting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let version = self.cx.version();
        let order = super::accounting::Order::of(version);
        match AccountingPos::decode(self.k.pos, order) {
            Err(e) => write!(f, "({e})"),
            Ok(AccountingPos::NrInodes) => f.write_str("nr_inodes "),
            Ok(AccountingPos::PersistentReserved { nr_replicas }) => {
                write!(f, "persistent_reserved replicas={nr_replicas}")
            }
            Ok(AccountingPos::Replicas { data_type, nr_required, devs }) => {
                write!(f, "replicas {data_type}: {nr_required}/{} [", devs.len())?;
                join(devs.iter(), " ", f)?;
                f.write_str("]")
            }
            Ok(AccountingPos::DevDataType { dev, data_type }) => {
                write!(f, "dev_data_type dev={dev} data_type={data_type}")
            }
            Ok(AccountingPos::Compression { ty }) => write!(f, "compression {ty}"),
            Ok(AccountingPos::Snapshot { id, btree }) => {
                write!(f, "snapshot id={id}")?;
                if version.snapshot_accounting_per_btree() {
                    write!(f, " btree={}", BtreeId(btree as u8))?;
                }
                Ok(())
            }
            Ok(AccountingPos::Btree { id }) => {
                write!(f, "btree btree={}", btree_name(BtreeId(id as u8), version))
            }
            Ok(AccountingPos::RebalanceWork) => f.write_str("rebalance_work "),
            Ok(AccountingPos::Inum { .. }) => f.write_str("inum "),
            Ok(AccountingPos::ReconcileWork { ty }) => {
                write!(f, "reconcile_work {}", ty.name().unwrap_or("(unknown)"))
            }
            Ok(AccountingPos::DevLeaving { dev }) => {
                let name = u8::try_from(dev).ok().and_then(|d| self.cx.device_name(DevIndex(d)));
                write!(f, "dev_leaving {} ", name.unwrap_or_else(|| dev.to_string()))
            }
        }
    }

    /// Name and value up to the first NUL; ACLs also decoded.
    fn xattr(&self, x: &Xattr<'_>, f: &mut Formatter<'_>) -> fmt::Result {
        match x.ty.prefix() {
            Some(prefix) if !x.ty.is_acl() => f.write_str(prefix)?,
            _ => write!(f, "(type {})", x.ty.0)?,
        }
        let text = x.value.split(|b| *b == 0).next().unwrap_or_default();
        write!(f, "{}:", String::from_utf8_lossy(x.name))?;
        let text = String::from_utf8_lossy(text);
        for (i, line) in text.split('\n').enumerate() {
            f.write_str(if i > 0 { "\n" } else { "" })?;
            // The tools of 1.39 indent every line of what they print.
            f.write_str(if i > 0 && self.new_style() && !line.is_empty() { "  " } else { "" })?;
            f.write_str(line)?;
        }
        if !x.ty.is_acl() {
            return Ok(());
        }
        let Ok(acl) = Acl::decode(x.value) else { return f.write_str(" (bad acl)") };
        acl.0.iter().try_for_each(|e| match e.tag {
            AclTag::UserObj => write!(f, " user_obj {}", e.perm),
            AclTag::User(id) => write!(f, " user uid {id} {}", e.perm),
            AclTag::GroupObj => write!(f, " group_obj {}", e.perm),
            AclTag::Group(id) => write!(f, " group gid {id} {}", e.perm),
            AclTag::Mask => write!(f, " mask {}", e.perm),
            AclTag::Other => write!(f, " other {}", e.perm),
        })
    }
}

fn dirent(d: &Dirent<'_>, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "{}", String::from_utf8_lossy(d.name))?;
    if let Some(folded) = d.folded {
        write!(f, " (casefold {})", String::from_utf8_lossy(folded))?;
    }
    match d.target {
        DirentTarget::Inode(inum) => write!(f, " -> {inum} type {}", d.ty),
        DirentTarget::Subvol { child, parent } => write!(f, " -> {parent} -> {child} type {}", d.ty),
    }
}

/// Bytes of inline data shown.
const INLINE_SHOWN: usize = 32;

fn inline(data: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "datalen {}: ", data.len())?;
    hex(&data[..data.len().min(INLINE_SHOWN)], f)
}

fn hex(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn join<T: Display>(items: impl Iterator<Item = T>, separator: &str, f: &mut Formatter<'_>) -> fmt::Result {
    items.enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", if i == 0 { "" } else { separator }))
}

/// Whether a type's text cannot be compared with a listing of the 1.13 tools, which print a meaningless address there.
pub fn is_garbled_in_1_13_listings(ty: KeyType) -> bool {
    matches!(ty, KeyType::INLINE_DATA | KeyType::INDIRECT_INLINE_DATA)
}
