//! Subvolumes (spec 40 §13.2, spec 80 §5.18).

use super::problem::{Check, ensure};
use super::snapshot::{StateWord, state_code};
use super::zero_extended;
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{Inum, SnapshotId, SubvolId};

/// A subvolume: a directory tree that can be snapshotted; its data is what is visible from one leaf of a snapshot tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Subvolume {
    /// Flag bits, see the constants.
    pub flags: u32,
    /// The snapshot it writes to.
    pub snapshot: SnapshotId,
    /// Its root directory.
    pub inode: Inum,
    /// The subvolume it is a snapshot of, else 0.
    pub creation_parent: SubvolId,
    /// The subvolume that contains its dirent; 0 for the root subvolume.
    pub fs_path_parent: SubvolId,
    /// Time of creation in time units relative to the time base.
    pub otime: u128,
    /// Explicit state, stored since 1.39 only.
    pub state: Option<StateWord>,
}

/// Whether a subvolume can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SubvolumeState {
    /// In use.
    Live,
    /// Removed by the user; its keys are being deleted.
    Unlinked,
    /// Gone; the key stays until its snapshot is gone.
    Deleted,
}

impl SubvolumeState {
    const CODES: [(SubvolumeState, u32, &'static str); 3] = [
        (SubvolumeState::Live, 0x4ad5_447e, "live"),
        (SubvolumeState::Unlinked, 0x2d35_8e8f, "unlinked"),
        (SubvolumeState::Deleted, 0x3c6b_2d4c, "deleted"),
    ];

    /// The state with that code.
    pub fn from_code(code: u32) -> Option<SubvolumeState> {
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
const V1_13_BYTES: usize = 40;
/// Bytes of the longest known form.
const BYTES: usize = 48;

impl Subvolume {
    /// Flag: read-only.
    pub const RO: u32 = 1;
    /// Flag: made as a snapshot of another.
    pub const SNAP: u32 = 2;
    /// Flag: removed by the user.
    pub const UNLINKED: u32 = 4;

    /// Decodes the value; old ones end early, and the rest counts as 0.
    pub fn decode(value: &[u8]) -> Result<Subvolume> {
        let bytes = zero_extended::<BYTES>("subvolume", value, 16)?;
        let mut r = Reader::new("subvolume", &bytes);
        let mut s = Subvolume {
            flags: r.u32()?,
            snapshot: SnapshotId(r.u32()?),
            inode: Inum(r.u64()?),
            creation_parent: SubvolId(r.u32()?),
            fs_path_parent: SubvolId(r.u32()?),
            otime: u128::from_le_bytes(r.array()?),
            state: None,
        };
        if value.len() > V1_13_BYTES {
            s.state = Some(StateWord::decode(&mut r)?);
        }
        Ok(s)
    }

    /// Appends the value: 40 bytes, or 48 with a state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.flags);
        out.put_u32(self.snapshot.0);
        out.put_u64(self.inode.0);
        out.put_u32(self.creation_parent.0);
        out.put_u32(self.fs_path_parent.0);
        out.extend_from_slice(&self.otime.to_le_bytes());
        if let Some(state) = self.state {
            state.encode(out);
        }
    }

    /// The state: the explicit one, or else what the flags say; `None` for an unknown code.
    pub fn state(&self) -> Option<SubvolumeState> {
        match self.state {
            Some(StateWord { code, .. }) if code != 0 => SubvolumeState::from_code(code),
            _ if self.flags & Self::UNLINKED != 0 => Some(SubvolumeState::Unlinked),
            _ => Some(SubvolumeState::Live),
        }
    }

    /// Every modification of it must be refused.
    pub fn is_read_only(&self) -> bool {
        self.flags & Self::RO != 0
    }

    /// It was made as a snapshot of another.
    pub fn is_snapshot(&self) -> bool {
        self.flags & Self::SNAP != 0
    }

    /// Checks the key by itself (spec 40 §13.2).
    pub fn validate(&self, k: &Bkey) -> Check {
        let in_range = k.pos.inode == 0 && (1..=i32::MAX as u64).contains(&k.pos.offset);
        ensure(in_range, E::SUBVOL_POS_BAD, || format!("at {}", k.pos))?;
        ensure(self.snapshot.0 != 0, E::SUBVOL_SNAPSHOT_BAD, || "snapshot 0")?;
        ensure(self.inode.0 != 0, E::SUBVOL_INODE_BAD, || "root inode 0")?;
        let Some(state) = self.state else { return Ok(()) };
        ensure(state.pad == 0, E::SUBVOL_PAD_NONZERO, || format!("pad {:#x}", state.pad))?;
        state_code(
            state.code,
            SubvolumeState::CODES.map(|c| c.1),
            E::SUBVOL_STATE_BITFLIP,
            E::SUBVOL_STATE_BAD,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpos::Bpos;
    use crate::key_type::KeyType;
    use proptest::prelude::*;

    fn key(id: u64) -> Bkey {
        Bkey::new(KeyType::SUBVOLUME, Bpos::new(0, id, 0), 0)
    }

    fn round_trip(value: &[u8]) -> Subvolume {
        let s = Subvolume::decode(value).unwrap();
        let mut out = Vec::new();
        s.encode(&mut out);
        assert_eq!(out, value);
        s
    }

    /// Spec 40 §20 and spec 80 §12.
    #[test]
    fn examples_of_the_specification() {
        let mut root = vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x10, 0, 0, 0, 0, 0, 0];
        root.resize(40, 0);
        let s = round_trip(&root);
        assert_eq!((s.snapshot.0, s.inode, s.state()), (u32::MAX, Inum::ROOT, Some(SubvolumeState::Live)));
        assert_eq!(s.validate(&key(1)), Ok(()));
        root.extend([0x7e, 0x44, 0xd5, 0x4a, 0, 0, 0, 0]);
        assert_eq!(round_trip(&root).state(), Some(SubvolumeState::Live));

        let mut snap = vec![3, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff, 0x9d, 0, 0, 0x40, 0, 0, 0, 0];
        snap.extend([2, 0, 0, 0, 1, 0, 0, 0, 0x48, 0x32, 0x81, 0x66, 6, 0, 0, 0]);
        snap.resize(40, 0);
        let s = round_trip(&snap);
        assert!(s.is_read_only() && s.is_snapshot());
        assert_eq!((s.creation_parent.0, s.fs_path_parent.0, s.otime), (2, 1, 0x6_6681_3248));
    }

    #[test]
    fn every_rule_has_its_error() {
        let ok = Subvolume { snapshot: SnapshotId(9), inode: Inum(4096), ..Subvolume::default() };
        let check = |s: Subvolume, id| s.validate(&key(id)).map_err(|p| p.id);
        assert_eq!(check(ok, 1), Ok(()));
        assert_eq!(check(ok, 0), Err(E::SUBVOL_POS_BAD));
        assert_eq!(check(ok, 1 << 31), Err(E::SUBVOL_POS_BAD));
        assert_eq!(check(Subvolume { snapshot: SnapshotId(0), ..ok }, 1), Err(E::SUBVOL_SNAPSHOT_BAD));
        assert_eq!(check(Subvolume { inode: Inum(0), ..ok }, 1), Err(E::SUBVOL_INODE_BAD));
        let state = |code, pad| Subvolume { state: Some(StateWord { code, pad }), ..ok };
        assert_eq!(check(state(SubvolumeState::Live.code(), 2), 1), Err(E::SUBVOL_PAD_NONZERO));
        assert_eq!(check(state(SubvolumeState::Live.code() ^ 8, 0), 1), Err(E::SUBVOL_STATE_BITFLIP));
        assert_eq!(check(state(u32::MAX, 0), 1), Err(E::SUBVOL_STATE_BAD));
        assert_eq!(Subvolume { flags: Subvolume::UNLINKED, ..ok }.state(), Some(SubvolumeState::Unlinked));
    }

    proptest! {
        #[test]
        fn values_round_trip(value in proptest::collection::vec(any::<u8>(), 48), full: bool) {
            round_trip(&value[..if full { 48 } else { 40 }]);
        }

        #[test]
        fn any_bytes_are_a_subvolume_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Subvolume::decode(&value).is_ok(), value.len() >= 16);
        }
    }
}
