//! The copies of an extent, each with what is in force for it (spec 40 §7.8).

use super::crc::Crc;
use super::entry::{Entries, Entry, EntrySizes, StripePtr};
use super::ptr::ExtentPtr;
use crate::error::Result;
use crate::units::Sectors;

/// One copy of an extent's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Where it is.
    pub ptr: ExtentPtr,
    /// How it is encoded and which part is live.
    pub crc: Crc,
    /// The stripe it is a block of.
    pub stripe: Option<StripePtr>,
    /// Sectors of file the key covers.
    pub live_size: u32,
}

impl Replica {
    /// Sectors on disk charged to this copy (spec 50 §4.1).
    pub fn disk_sectors(&self) -> u32 {
        self.crc.disk_sectors(self.live_size)
    }

    /// The sectors to read for `count` sectors of file from the `skip`-th of the key on, when the payload can be read in
    /// part ([`Crc::is_encoded`] is false): where they start on the device.
    pub fn plain_sector(&self, skip: u32) -> Sectors {
        Sectors(self.ptr.offset.0 + u64::from(self.crc.offset) + u64::from(skip))
    }
}

/// Yields the copies in the order of their pointers, which is the order of preference of the writer. After an error it ends.
#[derive(Clone, Debug)]
pub struct Pointers<'a> {
    entries: Entries<'a>,
    key_size: u32,
    crc: Crc,
    stripe: Option<StripePtr>,
}

impl<'a> Pointers<'a> {
    /// The copies listed by `entries` (as for [`Entries::new`]) in a key of `key_size` sectors.
    pub fn new(entries: &'a [u8], key_size: u32) -> Self {
        Self::with_sizes(entries, key_size, &EntrySizes::KNOWN)
    }

    /// As [`Pointers::new`], for a volume whose superblock lists entry sizes.
    pub fn with_sizes(entries: &'a [u8], key_size: u32, sizes: &'a EntrySizes) -> Self {
        Self {
            entries: Entries::with_sizes(entries, sizes),
            key_size,
            crc: Crc::plain(key_size),
            stripe: None,
        }
    }
}

impl Iterator for Pointers<'_> {
    type Item = Result<Replica>;

    fn next(&mut self) -> Option<Result<Replica>> {
        loop {
            match self.entries.next()? {
                Ok(Entry::Ptr(ptr)) => {
                    let stripe = self.stripe.take();
                    return Some(Ok(Replica { ptr, crc: self.crc, stripe, live_size: self.key_size }));
                }
                Ok(Entry::Crc(entry)) => self.crc = entry.crc,
                Ok(Entry::StripePtr(stripe)) => self.stripe = Some(stripe),
                Ok(_) => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::ChecksumType;
    use crate::compression::CompressionType;
    use crate::units::{DevIndex, Gen};

    fn copies(bytes: &[u8], size: u32) -> Vec<Replica> {
        Pointers::new(bytes, size).collect::<Result<_>>().unwrap()
    }

    fn reencoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Entries::new(bytes).for_each(|e| e.unwrap().encode(&mut out));
        out
    }

    /// The examples of spec 40 §7.2, each with the pointer's word completed.
    #[test]
    fn examples_of_the_specification() {
        let plain = [0x01, 0x10, 0x03, 0, 0, 0, 0, 0];
        let c = copies(&plain, 16)[0];
        assert_eq!((c.ptr.offset, c.crc), (Sectors(12544), Crc::plain(16)));
        assert_eq!(c.plain_sector(3), Sectors(12547));

        let crc32 = [0xbe, 0x5e, 0x00, 0x05, 0x09, 0xe2, 0xce, 0x2f, 0x01, 0x7d, 0x04, 0, 0, 0, 0, 0x02];
        let c = copies(&crc32, 48)[0];
        assert_eq!((c.crc.compressed_size, c.crc.uncompressed_size, c.crc.offset), (48, 48, 0));
        assert_eq!((c.crc.checksum_type(), c.crc.csum.lo), (Some(ChecksumType::Crc32c), 0x2fce_e209));
        assert_eq!((c.ptr.offset, c.ptr.generation, c.ptr.dev), (Sectors(18384), Gen(2), DevIndex(0)));
        assert_eq!(reencoded(&crc32), crc32);

        let crc64 = [
            0xfc, 0xf2, 0x05, 0, 0, 0x06, 0, 0, 0xdd, 0xef, 0x0f, 0xc7, 0x53, 0xcf, 0x0e, 0x2f, 0x01, 0x9a,
            0x05, 0, 0, 0, 0, 2,
        ];
        let c = copies(&crc64, 96)[0];
        assert_eq!((c.crc.compressed_size, c.crc.uncompressed_size), (96, 96));
        assert_eq!(
            (c.crc.checksum_type(), c.crc.csum.lo),
            (Some(ChecksumType::Crc64), 0x2f0e_cf53_c70f_efdd)
        );
        assert_eq!(reencoded(&crc64), crc64);

        let crc128 = [
            0x78, 0, 0x9e, 0x04, 0, 0, 0, 0x27, 0xa8, 0x16, 0xc6, 0xe5, 0x5b, 0x97, 0x53, 0x5a, 0, 0, 0, 0,
            0, 0, 0, 0, 0x81, 0xcb, 0x07, 0, 0, 0, 0, 0,
        ];
        let c = copies(&crc128, 592)[0];
        assert_eq!((c.crc.compressed_size, c.crc.uncompressed_size), (8, 592));
        assert_eq!(
            (c.crc.checksum_type(), c.crc.compression),
            (Some(ChecksumType::Xxhash), CompressionType::GZIP)
        );
        assert_eq!(reencoded(&crc128), crc128);

        let partial = [
            0x7c, 0xf0, 0x07, 0x03, 0, 0x47, 0, 0, 0xca, 0xfc, 0x6c, 0xa4, 0x4e, 0x6c, 0xd3, 0xa7, 0x81,
            0x54, 0x10, 0, 0, 0, 0, 0,
        ];
        let c = copies(&partial, 104)[0];
        assert_eq!((c.crc.compressed_size, c.crc.uncompressed_size, c.crc.offset), (16, 128, 24));
        assert_eq!(c.crc.compression, CompressionType::ZSTD);
        assert_eq!(c.disk_sectors(), 13);
        assert_eq!(reencoded(&partial), partial);

        let rebalance = [
            0xfe, 0xff, 0, 0x05, 0x0d, 0x3e, 0xb5, 0xa3, 0x01, 0xa8, 0x10, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0,
            0x53, 0, 0,
        ];
        assert_eq!(copies(&rebalance, 128).len(), 1);
        let Some(Ok(Entry::Rebalance(r))) = Entries::new(&rebalance).nth(2) else {
            panic!("no rebalance entry")
        };
        assert_eq!((r.compression().to_string(), r.target()), ("zstd:5".to_string(), 0));
        assert_eq!(reencoded(&rebalance), rebalance);
    }

    #[test]
    fn a_crc_entry_governs_what_follows_and_a_stripe_pointer_one_pointer() {
        let ptr = |dev| ExtentPtr::new(DevIndex(dev), Sectors(100), Gen(1));
        let crc = Crc { csum_type: 5, offset: 2, ..Crc::plain(16) };
        let stripe = StripePtr { block: 1, redundancy: 2, idx: 3 };
        let mut bytes = Vec::new();
        for entry in [
            Entry::Ptr(ptr(0)),
            Entry::Crc(crc.smallest_entry().expect("fits")),
            Entry::StripePtr(stripe),
            Entry::Ptr(ptr(1)),
            Entry::Ptr(ptr(2)),
        ] {
            entry.encode(&mut bytes);
        }
        let got: Vec<_> = copies(&bytes, 8).into_iter().map(|c| (c.ptr.dev.0, c.crc, c.stripe)).collect();
        assert_eq!(got, [(0, Crc::plain(8), None), (1, crc, Some(stripe)), (2, crc, None)]);
    }
}
