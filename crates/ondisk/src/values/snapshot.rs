//! Snapshots and the trees they form (spec 40 §13.1, §13.3, spec 80 §5.18).
//!
//! A snapshot is a node of a tree; ids shrink on the way down. A node with children is frozen history, a leaf is
//! what some subvolume writes to. Each tree has a record of its own, [`SnapshotTree`].

use super::problem::{Check, Problem, ensure};
use super::zero_extended;
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{SnapshotId, SubvolId};

/// A snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Flag bits, see the constants.
    pub flags: u32,
    /// Its parent, 0 for the root of a tree.
    pub parent: SnapshotId,
    /// Its children, the larger id first, 0 where there is none.
    pub children: [SnapshotId; 2],
    /// The subvolume that writes to it; 0 unless [`Snapshot::SUBVOL`] is set.
    pub subvol: SubvolId,
    /// The tree it belongs to.
    pub tree: u32,
    /// Distance from the root.
    pub depth: u32,
    /// Three ancestors, ascending, that make ancestor tests fast; 0 in roots.
    pub skip: [SnapshotId; 3],
    /// Time of creation in time units relative to the time base.
    pub btime: u128,
    /// Explicit state, stored since 1.39 only.
    pub state: Option<StateWord>,
}

/// A state as stored since 1.39: a code and a padding word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateWord {
    /// The code; see [`SnapshotState::from_code`] and [`super::subvolume::SubvolumeState::from_code`].
    pub code: u32,
    /// Must be 0.
    pub pad: u32,
}

impl StateWord {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<StateWord> {
        Ok(StateWord { code: r.u32()?, pad: r.u32()? })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.code);
        out.put_u32(self.pad);
    }
}

/// What may be done with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotState {
    /// Its keys are visible.
    Live,
    /// Its subvolume is gone; its keys are about to be deleted.
    WillDelete,
    /// An interior node without keys that only links its child to its ancestors.
    NoKeys,
    /// Deleted; its keys are invisible.
    Deleted,
}

impl SnapshotState {
    const CODES: [(SnapshotState, u32, &'static str); 4] = [
        (SnapshotState::Live, 0x757c_47a2, "live"),
        (SnapshotState::WillDelete, 0x3316_a8d2, "will_delete"),
        (SnapshotState::NoKeys, 0x372b_5a01, "no_keys"),
        (SnapshotState::Deleted, 0x7cd4_a225, "deleted"),
    ];

    /// The state with that code.
    pub fn from_code(code: u32) -> Option<SnapshotState> {
        Self::CODES.iter().find(|c| c.1 == code).map(|c| c.0)
    }

    /// The code stored.
    pub fn code(self) -> u32 {
        Self::CODES[self as usize].1
    }

    /// The name used in listings.
    pub fn name(self) -> &'static str {
        Self::CODES[self as usize].2
    }
}

/// Bytes up to the state.
const V1_13_BYTES: usize = 56;
/// Bytes of the longest known form.
const BYTES: usize = 64;

impl Snapshot {
    /// Flag: to be deleted (called will_delete since 1.39).
    pub const DELETED: u32 = 1;
    /// Flag: a subvolume points here.
    pub const SUBVOL: u32 = 2;
    /// Flag since 1.26: deleted for good.
    pub const DELETED_V2: u32 = 4;
    /// Flag since 1.26: an interior node without keys.
    pub const NO_KEYS: u32 = 8;

    /// Decodes the value; old ones end early, and the rest counts as 0.
    pub fn decode(value: &[u8]) -> Result<Snapshot> {
        let bytes = zero_extended::<BYTES>("snapshot", value, 24)?;
        let mut r = Reader::new("snapshot", &bytes);
        let mut s = Snapshot {
            flags: r.u32()?,
            parent: SnapshotId(r.u32()?),
            children: [SnapshotId(r.u32()?), SnapshotId(r.u32()?)],
            subvol: SubvolId(r.u32()?),
            tree: r.u32()?,
            depth: r.u32()?,
            skip: [SnapshotId(r.u32()?), SnapshotId(r.u32()?), SnapshotId(r.u32()?)],
            btime: u128::from_le_bytes(r.array()?),
            state: None,
        };
        if value.len() > V1_13_BYTES {
            s.state = Some(StateWord::decode(&mut r)?);
        }
        Ok(s)
    }

    /// Appends the value: 56 bytes, or 64 with a state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for v in [
            self.flags,
            self.parent.0,
            self.children[0].0,
            self.children[1].0,
            self.subvol.0,
            self.tree,
            self.depth,
        ] {
            out.put_u32(v);
        }
        self.skip.iter().for_each(|s| out.put_u32(s.0));
        out.extend_from_slice(&self.btime.to_le_bytes());
        if let Some(state) = self.state {
            state.encode(out);
        }
    }

    /// The state: the explicit one, or else what the flags say; `None` for an unknown code.
    pub fn state(&self) -> Option<SnapshotState> {
        match self.state {
            Some(StateWord { code, .. }) if code != 0 => SnapshotState::from_code(code),
            _ if self.flags & Self::DELETED_V2 != 0 => Some(SnapshotState::Deleted),
            _ if self.flags & Self::NO_KEYS != 0 => Some(SnapshotState::NoKeys),
            _ if self.flags & Self::DELETED != 0 => Some(SnapshotState::WillDelete),
            _ => Some(SnapshotState::Live),
        }
    }

    /// Checks the node by itself (spec 40 §13.1).
    pub fn validate(&self, k: &Bkey) -> Check {
        let in_range = k.pos.inode == 0 && (1..=u64::from(u32::MAX)).contains(&k.pos.offset);
        ensure(in_range, E::SNAPSHOT_POS_BAD, || format!("at {}", k.pos))?;
        let id = SnapshotId(k.pos.offset as u32);
        ensure(self.parent.0 == 0 || self.parent > id, E::SNAPSHOT_PARENT_BAD, || {
            format!("parent {} of {id}", self.parent)
        })?;
        let [a, b] = self.children;
        ensure(a >= b, E::SNAPSHOT_CHILDREN_NOT_NORMALIZED, || format!("children {a} {b}"))?;
        ensure(a.0 == 0 || a != b, E::SNAPSHOT_CHILD_DUPLICATE, || format!("children {a} {b}"))?;
        for child in self.children {
            ensure(child < id, E::SNAPSHOT_CHILD_BAD, || format!("child {child} of {id}"))?;
        }
        let [x, y, z] = self.skip;
        ensure(x <= y && y <= z, E::SNAPSHOT_SKIPLIST_NOT_NORMALIZED, || format!("skiplist {x} {y} {z}"))?;
        for skip in self.skip {
            ensure(skip.0 == 0 || skip >= self.parent, E::SNAPSHOT_SKIPLIST_BAD, || {
                format!("skiplist entry {skip} below parent {}", self.parent)
            })?;
        }
        let Some(state) = self.state else { return Ok(()) };
        ensure(state.pad == 0, E::SNAPSHOT_PAD_NONZERO, || format!("pad {:#x}", state.pad))?;
        state_code(
            state.code,
            SnapshotState::CODES.map(|c| c.1),
            E::SNAPSHOT_STATE_BITFLIP,
            E::SNAPSHOT_STATE_BAD,
        )
    }
}

/// Checks a state code: one or two bits away from a legal one it was probably hit by a bit flip (spec 80 §5.18).
pub(super) fn state_code(code: u32, legal: impl IntoIterator<Item = u32>, flipped: E, bad: E) -> Check {
    let Some(distance) = legal.into_iter().map(|l| (l ^ code).count_ones()).min() else { return Ok(()) };
    match distance {
        _ if code == 0 => Ok(()),
        0 => Ok(()),
        1 | 2 => Err(Problem::new(flipped, format!("state {code:#x}"))),
        _ => Err(Problem::new(bad, format!("state {code:#x}"))),
    }
}

/// A tree of snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotTree {
    /// The subvolume that is not a snapshot of another; quotas count it alone.
    pub master_subvol: SubvolId,
    /// The root of the tree.
    pub root_snapshot: SnapshotId,
}

impl SnapshotTree {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("snapshot_tree", value);
        Ok(Self { master_subvol: SubvolId(r.u32()?), root_snapshot: SnapshotId(r.u32()?) })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.master_subvol.0);
        out.put_u32(self.root_snapshot.0);
    }

    /// Checks the position (spec 40 §1.2).
    pub fn validate(&self, k: &Bkey) -> Check {
        let in_range = k.pos.inode == 0 && (1..=u64::from(u32::MAX)).contains(&k.pos.offset);
        ensure(in_range, E::SNAPSHOT_TREE_POS_BAD, || format!("at {}", k.pos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpos::Bpos;
    use crate::key_type::KeyType;
    use proptest::prelude::*;

    /// Spec 40 §20.
    const INTERIOR: [u32; 14] = [
        0,
        0xffff_fffe,
        0xffff_fffb,
        0xffff_fff6,
        0,
        2,
        1,
        0xffff_fffe,
        0xffff_fffe,
        0xffff_fffe,
        0x604e_4843,
        6,
        0,
        0,
    ];

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn key(id: u64) -> Bkey {
        Bkey::new(KeyType::SNAPSHOT, Bpos::new(0, id, 0), 0)
    }

    #[test]
    fn examples_of_the_specification() {
        let value = bytes(&INTERIOR);
        let s = Snapshot::decode(&value).unwrap();
        assert_eq!((s.parent.0, s.children[1].0, s.tree, s.depth), (0xffff_fffe, 0xffff_fff6, 2, 1));
        assert_eq!((s.btime, s.state()), (0x6_604e_4843, Some(SnapshotState::Live)));
        assert_eq!(s.validate(&key(4_294_967_292)), Ok(()));
        let mut out = Vec::new();
        s.encode(&mut out);
        assert_eq!(out, value);

        let mut with_state = vec![2, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        with_state.extend([0x757c_47a2, 0]);
        let value = bytes(&with_state);
        let s = Snapshot::decode(&value).unwrap();
        assert_eq!((s.state(), s.validate(&key(u32::MAX.into()))), (Some(SnapshotState::Live), Ok(())));
        let mut out = Vec::new();
        s.encode(&mut out);
        assert_eq!(out, value);

        let t = SnapshotTree::decode(&[2, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!((t.master_subvol.0, t.root_snapshot.0), (2, 0xffff_fffe));
    }

    #[test]
    fn old_short_values_read_as_zeros() {
        let value = bytes(&INTERIOR);
        for len in [24, 28, 40] {
            assert_eq!(Snapshot::decode(&value[..len]).unwrap().btime, 0);
        }
        assert!(Snapshot::decode(&value[..16]).is_err());
    }

    #[test]
    fn every_rule_has_its_error() {
        let s = Snapshot::decode(&bytes(&INTERIOR)).unwrap();
        let id = 4_294_967_292;
        let check = |s: Snapshot| s.validate(&key(id)).map_err(|p| p.id);
        assert_eq!(check(s), Ok(()));
        assert_eq!(s.validate(&key(0)).map_err(|p| p.id), Err(E::SNAPSHOT_POS_BAD));
        assert_eq!(check(Snapshot { parent: SnapshotId(5), ..s }), Err(E::SNAPSHOT_PARENT_BAD));
        let [a, b] = s.children;
        assert_eq!(check(Snapshot { children: [b, a], ..s }), Err(E::SNAPSHOT_CHILDREN_NOT_NORMALIZED));
        assert_eq!(check(Snapshot { children: [a, a], ..s }), Err(E::SNAPSHOT_CHILD_DUPLICATE));
        let own = SnapshotId(id as u32);
        assert_eq!(check(Snapshot { children: [own, a], ..s }), Err(E::SNAPSHOT_CHILD_BAD));
        let [x, ..] = s.skip;
        let zero = SnapshotId(0);
        assert_eq!(check(Snapshot { skip: [x, zero, zero], ..s }), Err(E::SNAPSHOT_SKIPLIST_NOT_NORMALIZED));
        assert_eq!(check(Snapshot { skip: [a, x, x], ..s }), Err(E::SNAPSHOT_SKIPLIST_BAD));
        let state = |code, pad| Snapshot { state: Some(StateWord { code, pad }), ..s };
        assert_eq!(check(state(0x757c_47a2, 1)), Err(E::SNAPSHOT_PAD_NONZERO));
        assert_eq!(check(state(0x757c_47a1, 0)), Err(E::SNAPSHOT_STATE_BITFLIP));
        assert_eq!(check(state(1, 0)), Err(E::SNAPSHOT_STATE_BAD));
        let tree = SnapshotTree { master_subvol: SubvolId(1), root_snapshot: own };
        assert_eq!(tree.validate(&key(0)).map_err(|p| p.id), Err(E::SNAPSHOT_TREE_POS_BAD));
    }

    #[test]
    fn flags_tell_the_state_where_there_is_none() {
        let state = |flags| Snapshot { flags, ..Snapshot::default() }.state();
        assert_eq!(state(Snapshot::SUBVOL), Some(SnapshotState::Live));
        assert_eq!(state(1), Some(SnapshotState::WillDelete));
        assert_eq!(state(8 | 1), Some(SnapshotState::NoKeys));
        assert_eq!(state(4 | 8 | 1), Some(SnapshotState::Deleted));
        for (s, code, _) in SnapshotState::CODES {
            assert_eq!((SnapshotState::from_code(code), s.code()), (Some(s), code));
        }
    }

    proptest! {
        #[test]
        fn values_round_trip(words in proptest::collection::vec(any::<u32>(), 16), full: bool) {
            let value = bytes(if full { &words } else { &words[..14] });
            let mut out = Vec::new();
            Snapshot::decode(&value).unwrap().encode(&mut out);
            prop_assert_eq!(out, value);
        }
    }
}
