//! What a key implies: the derived data of a volume, as pure functions of the keys it derives from.
//!
//! Most of what a volume stores about its space is a sum over other keys. Each extent adds sectors to a bucket, has a
//! backpointer, and is counted in half a dozen accounting records; each bucket's state in turn implies its entries in the
//! freespace, need_discard, lru and bucket_gens b-trees (spec 50 §4). A writer keeps the sums in step by applying the
//! difference between the old and the new key inside the same transaction; a checker adds everything up and compares. Both
//! need the same function, and it stands here once:
//!
//! * [`of_key`] — what one key of any b-tree and level implies, as a stream of [`Implied`] facts. A pointer to a node is a key of
//!   the level above, a root's pointer one of the level above the root.
//! * [`bucket::Lists`] and [`bucket::usage`] — what one bucket's state implies.
//!
//! A fact holds while the key exists: who inserts the key adds it, who removes the key takes it back. The functions read
//! nothing but the key, the facts about the volume in [`Rules`], and two questions of the [`Context`]: is a cached pointer
//! stale, and which devices make up a stripe. Rules that changed with the version are asked of [`Version`].

pub mod bucket;
mod pointers;
mod rules;

use frazil_ondisk::units::{DevIndex, Gen, Inum, SnapshotId};
use frazil_ondisk::values::Value;
use frazil_ondisk::values::accounting::{AccountingPos, DevList};
use frazil_ondisk::values::backpointer::Backpointer;
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, DataType, DecodeError, Key, KeyType};

pub use rules::{Geometry, Rules};

/// How a pointer's sectors count in its bucket (spec 50 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Share {
    /// As dirty data.
    Dirty,
    /// As data that may be dropped.
    Cached,
    /// As data in a stripe.
    Stripe,
}

/// Sectors of a bucket that a key uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketUse {
    /// The bucket.
    pub at: DevBucket,
    /// The pointer, as stored.
    pub ptr: ExtentPtr,
    /// Kind of data.
    pub class: DataType,
    /// Which of the bucket's counts they belong to.
    pub share: Share,
    /// How many (spec 50 §4.1).
    pub sectors: u32,
}

/// One fact that follows from a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Implied {
    /// Sectors of a bucket are in use.
    Use(BucketUse),
    /// A stripe has a block in a bucket.
    StripeBlock {
        /// The bucket.
        at: DevBucket,
        /// The stripe.
        stripe: u64,
        /// How many of its blocks may be lost.
        redundancy: u8,
        /// The block holds parity.
        parity: bool,
    },
    /// Sectors of a stripe's block are in use.
    StripeUse {
        /// The stripe.
        stripe: u64,
        /// The block.
        block: u8,
        /// How many.
        sectors: u32,
    },
    /// There is a backpointer.
    Backpointer(Bpos, Backpointer),
    /// Counters grow. Unused counters are 0.
    Account(AccountingPos, [i64; 3]),
    /// There is a key of type `set`.
    Set(BtreeId, Bpos),
    /// A range of the reflink space, start and exclusive end, has one reference more.
    Reference(u64, u64),
}

/// The devices of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripeDevs {
    /// Blocks needed to read it.
    pub nr_required: u8,
    /// Its devices, ascending.
    pub devs: DevList,
}

/// What must be known beside the key.
pub trait Context {
    /// Whether the bucket was reused since a cached pointer with this generation was made.
    fn is_stale(&self, at: DevBucket, generation: Gen) -> bool;

    /// The devices of a stripe, if it exists.
    fn stripe(&self, idx: u64) -> Option<StripeDevs>;
}

/// Tells `out` everything that follows from a key on `level` of `btree` (spec 50 §4.3). Keys in alloc and the other derived
/// b-trees imply nothing here; for buckets see [`bucket`].
///
/// # Errors
/// If the value cannot be decoded; nothing was told then.
pub fn of_key(
    rules: &Rules,
    context: &impl Context,
    btree: BtreeId,
    level: u8,
    key: Key<'_>,
    out: &mut impl FnMut(Implied),
) -> Result<(), DecodeError> {
    let k = &key.k;
    if level > 0 {
        let entries = match Value::decode(key)? {
            Value::BtreePtr(entries) => entries,
            Value::BtreePtrV2(ptr) => ptr.entries,
            _ => return Ok(()),
        };
        return pointers::of_node(rules, context, btree, level, k.pos, entries, out);
    }
    if btree.has_snapshots() && rules.version.snapshot_accounting_per_btree() {
        count_in_snapshot(btree, key, out);
    }
    match k.ty {
        KeyType::EXTENT | KeyType::REFLINK_V if matches!(btree, BtreeId::EXTENTS | BtreeId::REFLINK) => {
            let entries = match Value::decode(key)? {
                Value::Extent(entries) => entries,
                Value::ReflinkV(v) => v.entries,
                _ => return Ok(()),
            };
            pointers::of_extent(rules, context, btree, k, entries, out)
        }
        KeyType::RESERVATION if btree == BtreeId::EXTENTS => {
            let Value::Reservation(r) = Value::decode(key)? else { return Ok(()) };
            let what = AccountingPos::PersistentReserved { nr_replicas: r.nr_replicas };
            out(Implied::Account(what, [k.size.into(), 0, 0]));
            if rules.version.snapshot_accounting_per_btree() {
                let sectors = i64::from(k.size) * i64::from(r.nr_replicas);
                out(Implied::Account(snapshot_record(btree, k.pos.snapshot), [0, 0, sectors]));
            }
            Ok(())
        }
        KeyType::REFLINK_P if btree == BtreeId::EXTENTS => {
            let Value::ReflinkP(p) = Value::decode(key)? else { return Ok(()) };
            let (start, end) = p.padded_range(k.size);
            out(Implied::Reference(start, end));
            Ok(())
        }
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 if btree == BtreeId::INODES => {
            let Value::Inode(inode) = Value::decode(key)? else { return Ok(()) };
            out(Implied::Account(AccountingPos::NrInodes, [1, 0, 0]));
            if inode.is_dead() {
                out(Implied::Set(BtreeId::DELETED_INODES, k.pos));
            }
            Ok(())
        }
        KeyType::STRIPE if btree == BtreeId::STRIPES => {
            let Value::Stripe(stripe) = Value::decode(key)? else { return Ok(()) };
            pointers::of_stripe(rules, k.pos, &stripe, out)
        }
        KeyType::SUBVOLUME if btree == BtreeId::SUBVOLUMES => {
            let Value::Subvolume(subvol) = Value::decode(key)? else { return Ok(()) };
            if subvol.fs_path_parent.0 != 0 {
                let pos = Bpos::new(subvol.fs_path_parent.0.into(), k.pos.offset, 0);
                out(Implied::Set(BtreeId::SUBVOLUME_CHILDREN, pos));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The record of what a snapshot holds: of one b-tree from 1.39, of all before (spec 80 §5.18).
fn snapshot_record(btree: BtreeId, snapshot: u32) -> AccountingPos {
    AccountingPos::Snapshot { id: SnapshotId(snapshot), btree: btree.0.into() }
}

/// From 1.39 keys and their unpacked length are counted by snapshot and b-tree; whiteouts are not (spec 80 §5.18).
fn count_in_snapshot(btree: BtreeId, key: Key<'_>, out: &mut impl FnMut(Implied)) {
    let k = &key.k;
    if k.pos.snapshot == 0 || k.ty == KeyType::DELETED || k.ty.is_snapshot_whiteout() {
        return;
    }
    let bytes = (key.u64s() * 8) as i64;
    out(Implied::Account(snapshot_record(btree, k.pos.snapshot), [1, bytes, 0]));
}

/// The record of an inode's extents; those of the reflink space count under inode 0.
fn inum_record(pos: Bpos) -> AccountingPos {
    AccountingPos::Inum { inum: Inum(pos.inode) }
}

/// Devices in ascending order, as accounting records list them. More than fit a record are cut off; a key has at most a handful.
fn sorted(mut devs: Vec<DevIndex>) -> DevList {
    devs.sort_unstable();
    devs.truncate(DevList::MAX);
    DevList::new(&devs).expect("cut to the length of a list")
}

/// Versions whose `rebalance` entries mean what 1.13 says (spec 80 §5.15: their layout changed around 1.20).
fn rebalance_as_in_1_13(version: Version) -> bool {
    version <= Version::WRITE
}
