//! What a key's value means: one module per family of key types (spec 40, spec 50 §2, spec 80 §5).
//!
//! The type of a key says how its value is laid out. Code that knows which type it wants decodes it directly
//! ([`dirent::Dirent::decode`], [`inode::Inode::decode`] …): those functions borrow from the value and allocate nothing.
//! Code that takes keys as they come (listings, checks) decodes to [`Value`], which has a variant for every type.
//!
//! Three steps are kept apart:
//!
//! * **decode** says whether the bytes are a value of that type at all;
//! * **validate** says whether a value that decodes may exist, and names the rule it breaks by its stable id
//!   ([`Problem`]); rules that need other keys or the devices are the business of the checker;
//! * **list** prints it the way the reference's listings do ([`mod@list`]).
//!
//! Encoding writes the form of the newest writer this crate has rules for, so an older form is upgraded when it is
//! rewritten; whatever the reference writes today encodes to the same bytes. Values shorter than their struct are
//! legal: the missing fields are zero (spec 40 §1.3).

pub mod accounting;
pub mod acl;
pub mod alloc;
pub mod backpointer;
pub mod damage;
pub mod dirent;
pub mod extent;
pub mod inline;
pub mod inode;
pub mod list;
pub mod logged_op;
pub mod positions;
mod problem;
pub mod quota;
pub mod reflink;
pub mod reservation;
pub mod snapshot;
pub mod stripe;
pub mod subvolume;
pub mod xattr;

use accounting::Counters;
use alloc::Alloc;
use backpointer::Backpointer;
use damage::Damage;
use dirent::Dirent;
use inode::{Inode, InodeAllocCursor, InodeGeneration};
use logged_op::{LoggedFinsert, LoggedStripeUpdate, LoggedTruncate};
use positions::{BucketGens, LegacyLru};
use problem::ensure;
pub use problem::{Check, Problem, Rules};
use quota::Quota;
use reflink::{IndirectInlineData, ReflinkP, ReflinkV};
use reservation::{LostReason, Reservation};
use snapshot::{Snapshot, SnapshotTree};
use stripe::Stripe;
use subvolume::Subvolume;
use xattr::Xattr;

use crate::bkey::Key;
use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId as E;
use crate::key_type::KeyType;
pub use crate::node::BtreePtrV2;

/// The value of a key of any type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// `deleted`, `whiteout`, `hash_whiteout`, `set`, `extent_whiteout`: the type says it all.
    Empty,
    /// `error`: lost data, since 1.34 with the reason.
    Error(Option<LostReason>),
    /// `cookie`.
    Cookie(u64),
    /// `btree_ptr`: extent entries.
    BtreePtr(&'a [u8]),
    /// `btree_ptr_v2`.
    BtreePtrV2(BtreePtrV2<'a>),
    /// `extent`: extent entries.
    Extent(&'a [u8]),
    /// `reservation`.
    Reservation(Reservation),
    /// `inode`, `inode_v2`, `inode_v3`.
    Inode(Inode),
    /// `inode_generation`.
    InodeGeneration(InodeGeneration),
    /// `inode_alloc_cursor`.
    InodeAllocCursor(InodeAllocCursor),
    /// `dirent`.
    Dirent(Dirent<'a>),
    /// `xattr`.
    Xattr(Xattr<'a>),
    /// `alloc`, `alloc_v2`, `alloc_v3`, `alloc_v4`.
    Alloc(Alloc),
    /// `quota`.
    Quota(Quota),
    /// `stripe`.
    Stripe(Stripe<'a>),
    /// `reflink_p`.
    ReflinkP(ReflinkP),
    /// `reflink_v`.
    ReflinkV(ReflinkV<'a>),
    /// `inline_data`: the bytes, padded.
    InlineData(&'a [u8]),
    /// `indirect_inline_data`.
    IndirectInlineData(IndirectInlineData<'a>),
    /// `subvolume`.
    Subvolume(Subvolume),
    /// `snapshot`.
    Snapshot(Snapshot),
    /// `snapshot_tree`.
    SnapshotTree(SnapshotTree),
    /// `lru`.
    Lru(LegacyLru),
    /// `backpointer`.
    Backpointer(Backpointer),
    /// `bucket_gens`.
    BucketGens(BucketGens<'a>),
    /// `logged_op_truncate`.
    LoggedTruncate(LoggedTruncate),
    /// `logged_op_finsert`.
    LoggedFinsert(LoggedFinsert),
    /// `logged_op_stripe_update`.
    LoggedStripeUpdate(LoggedStripeUpdate),
    /// `accounting`: the counters; what they count is in the position ([`accounting::AccountingPos`]).
    Accounting(Counters<'a>),
    /// `damage`.
    Damage(Damage<'a>),
    /// A type this version does not know.
    Unknown(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Decodes the value of any key. A key of an unknown type is [`Value::Unknown`], not an error.
    ///
    /// # Errors
    /// If the value is not one of the key's type.
    pub fn decode(key: Key<'a>) -> Result<Value<'a>> {
        let v = key.value;
        Ok(match key.k.ty {
            KeyType::DELETED
            | KeyType::WHITEOUT
            | KeyType::HASH_WHITEOUT
            | KeyType::SET
            | KeyType::EXTENT_WHITEOUT => Value::Empty,
            KeyType::ERROR => Value::Error(LostReason::decode(v)),
            KeyType::COOKIE => Value::Cookie(Reader::new("cookie", v).u64()?),
            KeyType::BTREE_PTR => Value::BtreePtr(v),
            KeyType::BTREE_PTR_V2 => Value::BtreePtrV2(BtreePtrV2::decode(v)?),
            KeyType::EXTENT => Value::Extent(v),
            KeyType::RESERVATION => Value::Reservation(Reservation::decode(v)?),
            KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => {
                Value::Inode(Inode::decode(key.k.ty, v)?)
            }
            KeyType::INODE_GENERATION => Value::InodeGeneration(InodeGeneration::decode(v)?),
            KeyType::INODE_ALLOC_CURSOR => Value::InodeAllocCursor(InodeAllocCursor::decode(v)?),
            KeyType::DIRENT => Value::Dirent(Dirent::decode(v)?),
            KeyType::XATTR => Value::Xattr(Xattr::decode(v)?),
            KeyType::ALLOC | KeyType::ALLOC_V2 | KeyType::ALLOC_V3 | KeyType::ALLOC_V4 => {
                Value::Alloc(Alloc::decode(key.k.ty, v)?)
            }
            KeyType::QUOTA => Value::Quota(Quota::decode(v)?),
            KeyType::STRIPE => Value::Stripe(Stripe::decode(v)?),
            KeyType::REFLINK_P => Value::ReflinkP(ReflinkP::decode(v)?),
            KeyType::REFLINK_V => Value::ReflinkV(ReflinkV::decode(v)?),
            KeyType::INLINE_DATA => Value::InlineData(v),
            KeyType::INDIRECT_INLINE_DATA => Value::IndirectInlineData(IndirectInlineData::decode(v)?),
            KeyType::SUBVOLUME => Value::Subvolume(Subvolume::decode(v)?),
            KeyType::SNAPSHOT => Value::Snapshot(Snapshot::decode(v)?),
            KeyType::SNAPSHOT_TREE => Value::SnapshotTree(SnapshotTree::decode(v)?),
            KeyType::LRU => Value::Lru(LegacyLru::decode(v)?),
            KeyType::BACKPOINTER => Value::Backpointer(Backpointer::decode(v)?),
            KeyType::BUCKET_GENS => Value::BucketGens(BucketGens::decode(v)?),
            KeyType::LOGGED_OP_TRUNCATE => Value::LoggedTruncate(LoggedTruncate::decode(v)?),
            KeyType::LOGGED_OP_FINSERT => Value::LoggedFinsert(LoggedFinsert::decode(v)?),
            KeyType::LOGGED_OP_STRIPE_UPDATE => Value::LoggedStripeUpdate(LoggedStripeUpdate::decode(v)?),
            KeyType::ACCOUNTING => Value::Accounting(Counters::decode(v)?),
            KeyType::DAMAGE => Value::Damage(Damage::decode(v)?),
            _ => Value::Unknown(v),
        })
    }

    /// Appends the value, a whole number of words.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Empty | Value::Error(None) => {}
            Value::Error(Some(reason)) => reason.encode(out),
            Value::Cookie(v) => out.put_u64(*v),
            Value::BtreePtr(v) | Value::Extent(v) | Value::InlineData(v) | Value::Unknown(v) => {
                out.extend_from_slice(v)
            }
            Value::BtreePtrV2(v) => v.encode(out),
            Value::Reservation(v) => v.encode(out),
            Value::Inode(v) => v.encode(out),
            Value::InodeGeneration(v) => v.encode(out),
            Value::InodeAllocCursor(v) => v.encode(out),
            Value::Dirent(v) => v.encode(out),
            Value::Xattr(v) => v.encode(out),
            Value::Alloc(v) => v.encode(out),
            Value::Quota(v) => v.encode(out),
            Value::Stripe(v) => v.encode(out),
            Value::ReflinkP(v) => v.encode(out),
            Value::ReflinkV(v) => v.encode(out),
            Value::IndirectInlineData(v) => v.encode(out),
            Value::Subvolume(v) => v.encode(out),
            Value::Snapshot(v) => v.encode(out),
            Value::SnapshotTree(v) => v.encode(out),
            Value::Lru(v) => v.encode(out),
            Value::Backpointer(v) => v.encode(out),
            Value::BucketGens(v) => out.extend_from_slice(v.0),
            Value::LoggedTruncate(v) => v.encode(out),
            Value::LoggedFinsert(v) => v.encode(out),
            Value::LoggedStripeUpdate(v) => v.encode(out),
            Value::Accounting(v) => Counters::encode(v.iter(), out),
            Value::Damage(v) => Damage::encode(v.iter(), out),
        }
    }
}

/// Shortest legal value of a type, in bytes (spec 40 §1.3, spec 80 §5); `None` for an unknown type.
fn value_bytes_min(ty: KeyType) -> Option<usize> {
    Some(match ty {
        KeyType::COOKIE
        | KeyType::RESERVATION
        | KeyType::INODE_GENERATION
        | KeyType::XATTR
        | KeyType::ALLOC
        | KeyType::ALLOC_V2
        | KeyType::STRIPE
        | KeyType::REFLINK_V
        | KeyType::INDIRECT_INLINE_DATA
        | KeyType::LRU
        | KeyType::SNAPSHOT_TREE
        | KeyType::ACCOUNTING => 8,
        KeyType::INODE
        | KeyType::DIRENT
        | KeyType::REFLINK_P
        | KeyType::SUBVOLUME
        | KeyType::ALLOC_V3
        | KeyType::INODE_ALLOC_CURSOR => 16,
        KeyType::SNAPSHOT | KeyType::LOGGED_OP_TRUNCATE | KeyType::LOGGED_OP_FINSERT => 24,
        KeyType::QUOTA | KeyType::INODE_V2 | KeyType::BACKPOINTER => 32,
        KeyType::BTREE_PTR_V2 | KeyType::LOGGED_OP_STRIPE_UPDATE => 40,
        KeyType::ALLOC_V4 | KeyType::INODE_V3 => 48,
        KeyType::BUCKET_GENS => 256,
        _ if ty.name().is_some() => 0,
        _ => return None,
    })
}

/// Checks the length of a value (spec 40 §1.3).
fn validate_size(key: Key<'_>) -> Check {
    let len = key.value.len();
    let (max, min) = match (key.k.ty, value_bytes_min(key.k.ty)) {
        (_, None) => return Ok(()),
        (KeyType::HASH_WHITEOUT | KeyType::SET | KeyType::EXTENT_WHITEOUT, _) => (0, 0),
        // A reason was added at 1.34 (spec 80 §5.16).
        (KeyType::ERROR, _) => (8, 0),
        (_, Some(min)) => (usize::MAX, min),
    };
    ensure(len <= max, E::BKEY_VAL_SIZE_NONZERO, || format!("value of {len} bytes, at most {max} allowed"))?;
    if key.k.ty == KeyType::BUCKET_GENS {
        return ensure(len == min, E::BUCKET_GENS_VAL_SIZE_BAD, || format!("{len} bytes instead of {min}"));
    }
    ensure(len >= min, E::BKEY_VAL_SIZE_TOO_SMALL, || format!("value of {len} bytes, at least {min} needed"))
}

/// Checks the value of a key, as far as the key alone tells (spec 40 §2.8, §5.2, §6.1, §7.3 …). The rules every key obeys
/// whatever its type (allowed in the b-tree, size, snapshot) are those of [`crate::node`].
pub fn validate(btree: BtreeId, key: Key<'_>, rules: &Rules) -> Check {
    use extent::PointerKind;
    validate_size(key)?;
    let (k, v) = (&key.k, key.value);
    // Types whose rules speak of the encoded bytes.
    match k.ty {
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => return Inode::validate(k, v),
        KeyType::XATTR => return Xattr::validate(v),
        KeyType::ALLOC | KeyType::ALLOC_V2 | KeyType::ALLOC_V3 | KeyType::ALLOC_V4 => {
            return Alloc::validate(k.ty, v, rules.version);
        }
        KeyType::STRIPE => return Stripe::validate(k, v),
        KeyType::ACCOUNTING => return Counters::validate(k, v, rules.version),
        KeyType::EXTENT => return extent::validate(v, k.size, PointerKind::Extent, rules),
        KeyType::BTREE_PTR => return extent::validate(v, k.size, PointerKind::BtreeNode, rules),
        KeyType::SET if btree == BtreeId::LRU => return positions::LruEntry::validate(k),
        _ => {}
    }
    match Value::decode(key).map_err(Problem::undecodable(E::BKEY_VAL_SIZE_TOO_SMALL))? {
        Value::BtreePtrV2(p) => {
            p.check(k.pos, rules.writing)
                .map_err(|id| Problem::new(id, format!("node pointer at {}", k.pos)))?;
            extent::validate(p.entries, k.size, PointerKind::BtreeNode, rules)
        }
        Value::ReflinkV(r) => extent::validate(r.entries, k.size, PointerKind::Indirect, rules),
        Value::Reservation(r) => r.validate(),
        Value::InodeGeneration(_) => {
            ensure(k.pos.inode == 0, E::INODE_POS_INODE_NONZERO, || format!("at {}", k.pos))
        }
        Value::InodeAllocCursor(_) => {
            ensure(k.pos.inode == 1, E::INODE_ALLOC_CURSOR_INODE_BAD, || format!("at {}", k.pos))
        }
        Value::Dirent(d) => d.validate(k, v.len(), rules.writing),
        Value::Quota(q) => q.validate(k),
        Value::ReflinkP(p) => p.validate(),
        Value::Subvolume(s) => s.validate(k),
        Value::Snapshot(s) => s.validate(k),
        Value::SnapshotTree(t) => t.validate(k),
        Value::Backpointer(b) => b.validate(k),
        Value::Damage(d) => d.validate(),
        _ => Ok(()),
    }
}

/// The first `N` bytes of a value, zeros where it ends early; shorter than `min` it is cut.
fn zero_extended<const N: usize>(what: &'static str, value: &[u8], min: usize) -> Result<[u8; N]> {
    if value.len() < min {
        return Err(DecodeError::Truncated { what, need: min, have: value.len() });
    }
    let mut out = [0; N];
    let n = value.len().min(N);
    out[..n].copy_from_slice(&value[..n]);
    Ok(out)
}

#[cfg(test)]
mod tests;
