//! Space that is allocated to a file and holds nothing (spec 40 §7.4), and data that was lost (spec 40 §7.6).

use super::problem::{Check, ensure};
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;

/// A promise that space exists; reads as zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// Written as 0.
    pub generation: u32,
    /// Copies the data will have.
    pub nr_replicas: u8,
    /// Written as 0.
    pub pad: [u8; 3],
}

impl Reservation {
    /// A reservation for that many copies.
    pub const fn new(nr_replicas: u8) -> Self {
        Self { generation: 0, nr_replicas, pad: [0; 3] }
    }

    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("reservation", value);
        Ok(Self { generation: r.u32()?, nr_replicas: r.u8()?, pad: r.array()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation);
        out.put_u8(self.nr_replicas);
        out.extend_from_slice(&self.pad);
    }

    /// Checks the number of copies, 1 … 4.
    pub fn validate(&self) -> Check {
        ensure((1..=4).contains(&self.nr_replicas), E::RESERVATION_KEY_NR_REPLICAS_INVALID, || {
            format!("{} replicas", self.nr_replicas)
        })
    }
}

/// Why data was lost; stored since 1.34 only (spec 80 §5.16, §7.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LostReason(pub u8);

impl LostReason {
    const NAMES: [&str; 19] = [
        "unknown",
        "device_removed",
        "double_allocation",
        "no_valid_pointers_repair",
        "exceeded_max_encoded_extent",
        "lz4_old",
        "lz4",
        "gzip",
        "gzip_size_mismatch",
        "zstd_src_len_bad",
        "zstd_size_mismatch",
        "zstd_corruption_detected",
        "zstd_checksum_wrong",
        "zstd_prefix_unknown",
        "zstd_src_size_wrong",
        "zstd_dst_size_too_small",
        "zstd_memory_allocation",
        "zstd_unknown",
        "decompress_unknown",
    ];

    /// The reason in words; `None` for one this version does not know.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }

    /// Decodes the value of an `error` key; empty up to 1.33.
    pub fn decode(value: &[u8]) -> Option<LostReason> {
        value.first().copied().map(LostReason)
    }

    /// Appends the value of an `error` key of 1.34 or later.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u64(self.0.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let value = [0, 0, 0, 0, 1, 0, 0, 0];
        let r = Reservation::decode(&value).unwrap();
        assert_eq!((r, r.validate()), (Reservation::new(1), Ok(())));
        let mut out = Vec::new();
        r.encode(&mut out);
        assert_eq!(out, value);
        for bad in [0, 5] {
            let id = Reservation::new(bad).validate().map_err(|p| p.id);
            assert_eq!(id, Err(E::RESERVATION_KEY_NR_REPLICAS_INVALID));
        }
    }

    #[test]
    fn reasons_are_one_byte() {
        assert_eq!(LostReason::decode(&[]), None);
        let mut out = Vec::new();
        LostReason(2).encode(&mut out);
        assert_eq!(out, [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(LostReason::decode(&out).and_then(LostReason::name), Some("double_allocation"));
        assert_eq!(LostReason(19).name(), None);
    }
}
