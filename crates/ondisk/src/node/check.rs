//! The rules every key must obey, whatever its value (spec 30 §10.2), and the walk that finds the keys of a bset and
//! drops exactly those that break one (spec 60 §9.1).
//!
//! A bset is a run of keys, each saying its own length. Where bytes are damaged the walk drops the bad key alone, if
//! what follows it still is a plausible key; else it searches word by word for the next plausible one. A damaged position
//! shows as keys out of order, and it is the odd one out that is dropped, not the good ones behind it.

use super::format::KeyFormat;
use super::pack::{RawKey, RawKeyError};
use crate::bkey::Bkey;
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::fsck_errors::FsckErrorId;
use crate::key_type::KeyType;

/// What is wrong with a key, apart from its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyProblem {
    /// Not a key at all.
    #[error(transparent)]
    Raw(#[from] RawKeyError),
    /// Not above the key before it.
    #[error("{pos} is out of order (after {before})")]
    OutOfOrder {
        /// Position of the key.
        pos: Bpos,
        /// Position of its predecessor, or the one it does not fit in front of.
        before: Bpos,
    },
    /// The type may not occur in this b-tree or level.
    #[error("key type {ty} at {pos} is not allowed here")]
    Type {
        /// The type.
        ty: KeyType,
        /// Position of the key.
        pos: Bpos,
    },
    /// An extent of size 0.
    #[error("extent at {0} has size 0")]
    SizeZero(Bpos),
    /// An extent that would start before 0.
    #[error("extent at {pos} has size {size}, more than its offset")]
    SizeAboveOffset {
        /// Position of the key.
        pos: Bpos,
        /// Its size in sectors.
        size: u32,
    },
    /// A size where there must be none.
    #[error("key at {pos} has size {size}, must be 0")]
    SizeNonzero {
        /// Position of the key.
        pos: Bpos,
        /// Its size in sectors.
        size: u32,
    },
    /// Snapshot 0 in a b-tree with snapshots.
    #[error("key at {0} has no snapshot")]
    SnapshotZero(Bpos),
    /// A snapshot in a b-tree without.
    #[error("key at {0} has a snapshot, must be 0")]
    SnapshotNonzero(Bpos),
    /// At inode and offset `U64_MAX`, where no leaf key may be.
    #[error("key at {0}, the end of all positions")]
    AtPosMax(Bpos),
    /// Below the node's range.
    #[error("key at {0} lies before its node")]
    BeforeNode(Bpos),
    /// Above the node's range.
    #[error("key at {0} lies behind its node")]
    AfterNode(Bpos),
}

impl KeyProblem {
    /// The stable id of this inconsistency.
    pub fn id(&self) -> FsckErrorId {
        match self {
            KeyProblem::Raw(RawKeyError::PastEnd { .. }) => FsckErrorId::BTREE_NODE_BKEY_PAST_BSET_END,
            KeyProblem::Raw(RawKeyError::BadFormat(_)) => FsckErrorId::BTREE_NODE_BKEY_BAD_FORMAT,
            KeyProblem::Raw(RawKeyError::BadU64s { .. }) => FsckErrorId::BTREE_NODE_BKEY_BAD_U64S,
            KeyProblem::OutOfOrder { .. } => FsckErrorId::BTREE_NODE_BKEY_OUT_OF_ORDER,
            KeyProblem::Type { .. } => FsckErrorId::BKEY_INVALID_TYPE_FOR_BTREE,
            KeyProblem::SizeZero(_) => FsckErrorId::BKEY_EXTENT_SIZE_ZERO,
            KeyProblem::SizeAboveOffset { .. } => FsckErrorId::BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET,
            KeyProblem::SizeNonzero { .. } => FsckErrorId::BKEY_SIZE_NONZERO,
            KeyProblem::SnapshotZero(_) => FsckErrorId::BKEY_SNAPSHOT_ZERO,
            KeyProblem::SnapshotNonzero(_) => FsckErrorId::BKEY_SNAPSHOT_NONZERO,
            KeyProblem::AtPosMax(_) => FsckErrorId::BKEY_AT_POS_MAX,
            KeyProblem::BeforeNode(_) => FsckErrorId::BKEY_BEFORE_START_OF_BTREE_NODE,
            KeyProblem::AfterNode(_) => FsckErrorId::BKEY_AFTER_END_OF_BTREE_NODE,
        }
    }
}

/// Where a key is found, which decides what it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyRules {
    /// The b-tree.
    pub btree: BtreeId,
    /// Level of the node.
    pub level: u8,
}

impl KeyRules {
    /// Checks a key that is being read. Foreign and unknown types in leaves are tolerated: newer programs write them.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self, k: &Bkey) -> Result<(), KeyProblem> {
        let pos = k.pos;
        if self.level > 0 {
            let known = matches!(k.ty, KeyType::DELETED | KeyType::BTREE_PTR | KeyType::BTREE_PTR_V2);
            return match (known, k.size) {
                (false, _) => Err(KeyProblem::Type { ty: k.ty, pos }),
                (true, 0) => Ok(()),
                (true, size) => Err(KeyProblem::SizeNonzero { pos, size }),
            };
        }
        if self.btree.name().is_none() {
            return Ok(()); // A newer program's b-tree, of which we do not know the kind.
        }
        let covers_range =
            self.btree.is_extents() && k.ty != KeyType::DELETED && !k.ty.is_snapshot_whiteout();
        match (covers_range, k.size) {
            (true, 0) => return Err(KeyProblem::SizeZero(pos)),
            (true, size) if u64::from(size) > pos.offset => {
                return Err(KeyProblem::SizeAboveOffset { pos, size });
            }
            (false, size) if size != 0 => return Err(KeyProblem::SizeNonzero { pos, size }),
            _ => {}
        }
        if self.btree.has_snapshots() && pos.snapshot == 0 {
            return Err(KeyProblem::SnapshotZero(pos));
        }
        if !self.btree.has_snapshot_field() && pos.snapshot != 0 {
            return Err(KeyProblem::SnapshotNonzero(pos));
        }
        if pos.inode == u64::MAX && pos.offset == u64::MAX {
            return Err(KeyProblem::AtPosMax(pos));
        }
        Ok(())
    }

    /// Checks a key that is about to be written: as [`KeyRules::check`], and its type must be one of the b-tree's.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check_for_write(&self, k: &Bkey) -> Result<(), KeyProblem> {
        if self.level == 0 && !type_allowed(self.btree, k.ty) {
            return Err(KeyProblem::Type { ty: k.ty, pos: k.pos });
        }
        self.check(k)
    }
}

/// Whether keys of this type belong in leaves of this b-tree (spec 30 §1, spec 80 §7.1); `false` for unknown b-trees.
pub fn type_allowed(btree: BtreeId, ty: KeyType) -> bool {
    use KeyType as T;
    let types: &[KeyType] = match btree {
        BtreeId::EXTENTS => &[
            T::WHITEOUT,
            T::EXTENT_WHITEOUT,
            T::ERROR,
            T::COOKIE,
            T::EXTENT,
            T::RESERVATION,
            T::REFLINK_P,
            T::INLINE_DATA,
        ],
        BtreeId::INODES => &[T::WHITEOUT, T::INODE, T::INODE_V2, T::INODE_V3, T::INODE_GENERATION],
        BtreeId::DIRENTS => &[T::WHITEOUT, T::HASH_WHITEOUT, T::DIRENT],
        BtreeId::XATTRS => &[T::WHITEOUT, T::COOKIE, T::HASH_WHITEOUT, T::XATTR],
        BtreeId::ALLOC => &[T::ALLOC, T::ALLOC_V2, T::ALLOC_V3, T::ALLOC_V4],
        BtreeId::QUOTAS => &[T::QUOTA],
        BtreeId::STRIPES => &[T::STRIPE],
        BtreeId::REFLINK => &[T::REFLINK_V, T::INDIRECT_INLINE_DATA, T::ERROR],
        BtreeId::SUBVOLUMES => &[T::SUBVOLUME],
        BtreeId::SNAPSHOTS => &[T::SNAPSHOT],
        BtreeId::BACKPOINTERS | BtreeId::STRIPE_BACKPOINTERS => &[T::BACKPOINTER],
        BtreeId::BUCKET_GENS => &[T::BUCKET_GENS],
        BtreeId::SNAPSHOT_TREES => &[T::SNAPSHOT_TREE],
        BtreeId::LOGGED_OPS => {
            &[T::LOGGED_OP_TRUNCATE, T::LOGGED_OP_FINSERT, T::LOGGED_OP_STRIPE_UPDATE, T::INODE_ALLOC_CURSOR]
        }
        BtreeId::REBALANCE_WORK => &[T::SET, T::COOKIE],
        BtreeId::ACCOUNTING => &[T::ACCOUNTING],
        BtreeId::RECONCILE_SCAN => &[T::COOKIE, T::BACKPOINTER],
        BtreeId::DAMAGE => &[T::WHITEOUT, T::DAMAGE],
        BtreeId::LRU
        | BtreeId::FREESPACE
        | BtreeId::NEED_DISCARD
        | BtreeId::DELETED_INODES
        | BtreeId::SUBVOLUME_CHILDREN
        | BtreeId::RECONCILE_HIPRI
        | BtreeId::RECONCILE_PENDING
        | BtreeId::RECONCILE_WORK_PHYS
        | BtreeId::RECONCILE_HIPRI_PHYS
        | BtreeId::BUCKET_TO_STRIPE => &[T::SET],
        _ => return false,
    };
    ty == T::DELETED || types.contains(&ty)
}

/// Walks the keys of one bset.
pub(crate) struct BsetWalk<'a> {
    pub(crate) format: &'a KeyFormat,
    pub(crate) keys: &'a [u8],
    pub(crate) rules: KeyRules,
    /// The node's bounds, unless keys outside them are to be dropped in silence later.
    pub(crate) bounds: Option<(Bpos, Bpos)>,
}

/// A key that passed.
#[derive(Clone, Copy)]
pub(crate) struct GoodKey {
    /// First byte in the bset.
    pub(crate) at: u32,
    /// A tombstone.
    pub(crate) deleted: bool,
    pub(crate) pos: Bpos,
}

impl<'a> BsetWalk<'a> {
    /// The good keys, in ascending order of position; bad ones are reported with the byte they start at.
    pub(crate) fn run(&self, mut report: impl FnMut(usize, KeyProblem)) -> Vec<GoodKey> {
        let mut good: Vec<GoodKey> = Vec::with_capacity(self.keys.len() / 24);
        let mut at = 0;
        while at < self.keys.len() {
            let raw = match RawKey::parse(self.format, &self.keys[at..]) {
                Ok(raw) => raw,
                Err(e) => {
                    report(at, e.into());
                    at = self.next_plausible(at + 8, good.last().map(|g| g.pos));
                    continue;
                }
            };
            let len = raw.bytes().len();
            let k = self.format.unpack(raw).k;
            let this = GoodKey { at: at as u32, pos: k.pos, deleted: k.ty == KeyType::DELETED };
            let checked = self.check(&k).and_then(|()| self.check_order(&mut good, this, len, &mut report));
            match checked {
                Ok(()) => {
                    good.push(this);
                    at += len;
                }
                Err(problem) => {
                    report(at, problem);
                    let last = good.last().map(|g| g.pos);
                    let behind = at + len;
                    let next_is_fine = behind == self.keys.len() || self.plausible(behind, last).is_some();
                    at = if next_is_fine { behind } else { self.next_plausible(at + 8, last) };
                }
            }
        }
        good
    }

    fn check(&self, k: &Bkey) -> Result<(), KeyProblem> {
        self.rules.check(k)?;
        match self.bounds {
            Some((min, _)) if k.pos < min => Err(KeyProblem::BeforeNode(k.pos)),
            Some((_, max)) if k.pos > max => Err(KeyProblem::AfterNode(k.pos)),
            _ => Ok(()),
        }
    }

    /// Checks that `this` (of `len` bytes) may follow the good keys. If it is rather the last of them that does not fit
    /// between its neighbours, takes that one back.
    fn check_order(
        &self,
        good: &mut Vec<GoodKey>,
        this: GoodKey,
        len: usize,
        report: &mut impl FnMut(usize, KeyProblem),
    ) -> Result<(), KeyProblem> {
        let Some(&last) = good.last() else { return Ok(()) };
        // Equal positions only as "deleted, then live" (spec 30 §5.8).
        if last.pos < this.pos || (last.pos == this.pos && last.deleted && !this.deleted) {
            return Ok(());
        }
        let fits_without_last = good.len() < 2 || good[good.len() - 2].pos < this.pos;
        let next = self.plausible(this.at as usize + len, Some(this.pos));
        if last.pos > this.pos && fits_without_last && next.is_some_and(|next| next <= last.pos) {
            good.pop();
            report(last.at as usize, KeyProblem::OutOfOrder { pos: last.pos, before: this.pos });
            return Ok(());
        }
        Err(KeyProblem::OutOfOrder { pos: this.pos, before: last.pos })
    }

    /// The position of the key at `at`, if there is one that could follow a key at `last`.
    fn plausible(&self, at: usize, last: Option<Bpos>) -> Option<Bpos> {
        let raw = RawKey::parse(self.format, self.keys.get(at..)?).ok()?;
        let k = self.format.unpack(raw).k;
        (self.check(&k).is_ok() && last.is_none_or(|last| k.pos > last)).then_some(k.pos)
    }

    /// The first place from `at` on where a plausible key starts; the end of the bset if there is none.
    fn next_plausible(&self, at: usize, last: Option<Bpos>) -> usize {
        (at..self.keys.len())
            .step_by(8)
            .find(|&at| self.plausible(at, last).is_some())
            .unwrap_or(self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bkey::KeyBuf;
    use crate::node::testing::any_format;

    const FORMAT: KeyFormat = KeyFormat::FULL_POSITION;

    fn bset(offsets: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        for &offset in offsets {
            let key = KeyBuf::new(KeyType::XATTR, Bpos::new(7, offset, 9), 0, [0xee; 16]);
            FORMAT.encode_key(key.as_key(), &mut out);
        }
        out
    }

    fn walk(keys: &[u8]) -> (Vec<u64>, Vec<KeyProblem>) {
        let walk = BsetWalk {
            format: &FORMAT,
            keys,
            rules: KeyRules { btree: BtreeId::XATTRS, level: 0 },
            bounds: Some((Bpos::new(7, 0, 0), Bpos::new(7, 1000, u32::MAX))),
        };
        let mut problems = Vec::new();
        let good = walk.run(|_, p| problems.push(p));
        (good.iter().map(|g| g.pos.offset).collect(), problems)
    }

    /// Bytes of a key in [`bset`]: three words of header, two of value.
    const KEY: usize = 40;

    #[test]
    fn only_the_bad_key_is_dropped() {
        let clean = bset(&[1, 2, 3, 4, 5]);
        assert_eq!(walk(&clean), (vec![1, 2, 3, 4, 5], vec![]));
        let damaged = |at: usize, v: u8| {
            let mut keys = clean.clone();
            keys[2 * KEY + at] = v;
            walk(&keys)
        };
        let id = |v: &(Vec<u64>, Vec<KeyProblem>)| v.1.iter().map(KeyProblem::id).collect::<Vec<_>>();
        for (at, v, want) in [
            (0, 0, FsckErrorId::BTREE_NODE_BKEY_BAD_U64S),
            (0, 200, FsckErrorId::BTREE_NODE_BKEY_PAST_BSET_END),
            (1, 5, FsckErrorId::BTREE_NODE_BKEY_BAD_FORMAT),
            (4, 0, FsckErrorId::BKEY_SNAPSHOT_ZERO),
            (9, 7, FsckErrorId::BKEY_AFTER_END_OF_BTREE_NODE),
            (16, 0, FsckErrorId::BKEY_BEFORE_START_OF_BTREE_NODE),
            (8, 250, FsckErrorId::BTREE_NODE_BKEY_OUT_OF_ORDER),
            (8, 0, FsckErrorId::BTREE_NODE_BKEY_OUT_OF_ORDER),
        ] {
            let got = damaged(at, v);
            assert_eq!(got.0, [1, 2, 4, 5], "byte {at} = {v}");
            assert_eq!(id(&got), [want], "byte {at} = {v}");
        }
    }

    #[test]
    fn a_tombstone_may_stand_before_its_successor_at_the_same_place() {
        let pos = Bpos::new(7, 3, 9);
        let mut keys = Vec::new();
        FORMAT.encode_tombstone(pos, &mut keys);
        keys.extend(bset(&[3, 4]));
        assert_eq!(walk(&keys), (vec![3, 3, 4], vec![]));
        let twice = bset(&[3, 3, 4]);
        assert_eq!(walk(&twice).0, [3, 4]);
    }

    #[test]
    fn rules_by_btree_and_level() {
        let check = |btree, level, ty, pos, size| {
            KeyRules { btree, level }.check(&Bkey::new(ty, pos, size)).map_err(|p| p.id())
        };
        let at = Bpos::new(4096, 8, 1);
        let (e, ext) = (BtreeId::EXTENTS, KeyType::EXTENT);
        assert_eq!(check(e, 0, ext, at, 8), Ok(()));
        assert_eq!(check(e, 0, ext, at, 0), Err(FsckErrorId::BKEY_EXTENT_SIZE_ZERO));
        assert_eq!(check(e, 0, ext, at, 9), Err(FsckErrorId::BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET));
        assert_eq!(check(e, 0, KeyType::WHITEOUT, at, 0), Ok(()));
        assert_eq!(check(e, 0, KeyType::EXTENT_WHITEOUT, at, 8), Err(FsckErrorId::BKEY_SIZE_NONZERO));
        assert_eq!(check(e, 1, ext, at, 8), Err(FsckErrorId::BKEY_INVALID_TYPE_FOR_BTREE));
        assert_eq!(check(e, 1, KeyType::BTREE_PTR_V2, Bpos::MAX, 0), Ok(()));
        assert_eq!(
            check(BtreeId::ALLOC, 0, KeyType::ALLOC_V4, at, 0),
            Err(FsckErrorId::BKEY_SNAPSHOT_NONZERO)
        );
        assert_eq!(check(BtreeId::ACCOUNTING, 0, KeyType::ACCOUNTING, at, 0), Ok(()));
        assert_eq!(check(BtreeId::LRU, 0, KeyType::SET, Bpos::POS_MAX, 0), Err(FsckErrorId::BKEY_AT_POS_MAX));
        assert_eq!(check(BtreeId(40), 0, KeyType(99), Bpos::MAX, 5), Ok(()));
        let rules = KeyRules { btree: BtreeId::LRU, level: 0 };
        let foreign = Bkey::new(KeyType::DIRENT, Bpos::new(1, 1, 0), 0);
        assert!(rules.check(&foreign).is_ok(), "tolerated when reading");
        assert!(rules.check_for_write(&foreign).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_ordered_keys(
            format in any_format(),
            mut keys in proptest::collection::vec(0..8u8, 0..1200),
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        ) {
            for (at, v) in noise {
                if !keys.is_empty() {
                    let at = at.index(keys.len());
                    keys[at] = v;
                }
            }
            let rules = KeyRules { btree: BtreeId(40), level: 0 };
            let good = BsetWalk { format: &format, keys: &keys, rules, bounds: None }.run(|_, _| {});
            prop_assert!(good.is_sorted_by_key(|g| g.pos));
        }
    }
}
