//! Operations that take several transactions and are finished after a crash (spec 40 §14.1, spec 80 §5.16).

use super::zero_extended;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::units::{Inum, SubvolId};

/// A truncate: everything beyond the new size is being deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedTruncate {
    /// Subvolume of the file.
    pub subvol: SubvolId,
    /// Written as 0.
    pub pad: u32,
    /// The file.
    pub inum: Inum,
    /// Its new size in bytes.
    pub new_size: u64,
}

impl LoggedTruncate {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("logged_op_truncate", value);
        Ok(Self { subvol: SubvolId(r.u32()?), pad: r.u32()?, inum: Inum(r.u64()?), new_size: r.u64()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.subvol.0);
        out.put_u32(self.pad);
        out.put_u64(self.inum.0);
        out.put_u64(self.new_size);
    }
}

/// How far an insert or collapse of a range is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FinsertState(pub u8);

impl FinsertState {
    /// Size and times are to be changed (insert), or the range to be deleted (collapse).
    pub const START: FinsertState = FinsertState(0);
    /// Extents are being moved.
    pub const SHIFT_EXTENTS: FinsertState = FinsertState(1);
    /// The operation is to be deleted.
    pub const FINISH: FinsertState = FinsertState(2);
}

/// An insert or collapse of a range of a file; offsets in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedFinsert {
    /// How far it is.
    pub state: FinsertState,
    /// Subvolume of the file.
    pub subvol: SubvolId,
    /// The file.
    pub inum: Inum,
    /// Where the moved part goes; only the difference to `src_offset` counts, modulo 2⁶⁴.
    pub dst_offset: u64,
    /// Where the moved part begins.
    pub src_offset: u64,
    /// How far the move has come.
    pub pos: u64,
}

impl LoggedFinsert {
    /// Decodes the value; old ones end early, and the rest counts as 0.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let bytes = zero_extended::<40>("logged_op_finsert", value, 24)?;
        let mut r = Reader::new("logged_op_finsert", &bytes);
        let state = FinsertState(r.u8()?);
        r.skip(3)?;
        Ok(Self {
            state,
            subvol: SubvolId(r.u32()?),
            inum: Inum(r.u64()?),
            dst_offset: r.u64()?,
            src_offset: r.u64()?,
            pos: r.u64()?,
        })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.state.0);
        out.put_zeros(3);
        out.put_u32(self.subvol.0);
        for v in [self.inum.0, self.dst_offset, self.src_offset, self.pos] {
            out.put_u64(v);
        }
    }

    /// Sectors everything moves: forwards for an insert, backwards for a collapse.
    pub fn shift(&self) -> i64 {
        self.dst_offset.wrapping_sub(self.src_offset) as i64
    }
}

/// Data of one stripe being moved to another (1.37).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedStripeUpdate {
    /// Index of the stripe given up.
    pub old_idx: u64,
    /// Index of the stripe that replaces it.
    pub new_idx: u64,
    /// How many of `old_block_map` are in use.
    pub old_blocks_nr: u8,
    /// Which block of the new stripe each old block became.
    pub old_block_map: [u8; 16],
}

impl LoggedStripeUpdate {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("logged_op_stripe_update", value);
        Ok(Self { old_idx: r.u64()?, new_idx: r.u64()?, old_blocks_nr: r.u8()?, old_block_map: r.array()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.old_idx);
        out.put_u64(self.new_idx);
        out.put_u8(self.old_blocks_nr);
        out.extend_from_slice(&self.old_block_map);
        out.put_zeros(7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_collapse_shifts_backwards() {
        // The mid-way collapse of spec 40 §14.1: range [8, 16), src 8, dst 0, pos 32.
        let mut value = vec![1, 0, 0, 0, 1, 0, 0, 0];
        for v in [4146u64, 0, 8, 32] {
            value.put_u64(v);
        }
        let op = LoggedFinsert::decode(&value).unwrap();
        assert_eq!((op.state, op.shift(), op.pos), (FinsertState::SHIFT_EXTENTS, -8, 32));
        assert_eq!(LoggedFinsert { dst_offset: 24, src_offset: 16, ..op }.shift(), 8);
        assert_eq!(LoggedFinsert::decode(&value[..24]).unwrap().src_offset, 0);
    }

    proptest! {
        #[test]
        fn operations_round_trip(bytes in proptest::collection::vec(any::<u8>(), 40)) {
            let mut bytes = bytes;
            let mut out = Vec::new();
            LoggedTruncate::decode(&bytes[..24]).unwrap().encode(&mut out);
            prop_assert_eq!(&out[..], &bytes[..24]);
            bytes[33..].fill(0);
            out.clear();
            LoggedStripeUpdate::decode(&bytes).unwrap().encode(&mut out);
            prop_assert_eq!(&out, &bytes);
            bytes[1..4].fill(0);
            out.clear();
            LoggedFinsert::decode(&bytes).unwrap().encode(&mut out);
            prop_assert_eq!(&out, &bytes);
        }
    }
}
