//! A journal on a device, without a filesystem around it.

use std::ops::Range;
use std::sync::Arc;

use frazil_device::Device;
use frazil_journal::engine::{
    DevSet, EntryImage, Format, Host, HostError, Journal, Member, Options, Position, Start, SystemClock,
};
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::units::{BucketIndex, DevIndex, Sectors, Seq};
use frazil_ondisk::version::Version;

/// Buckets of 4 MiB.
const BUCKET: Sectors = Sectors(8192);

/// Nobody to mark dirty, nothing to append.
struct Alone;

impl Host for Alone {
    fn common_words(&self) -> u32 {
        0
    }
    fn finish_entry(&self, _: &mut EntryImage) {}
    fn mark_dirty(&self) -> Result<(), HostError> {
        Ok(())
    }
    fn mark_replicas(&self, _: &DevSet) -> Result<(), HostError> {
        Ok(())
    }
    fn blacklist(&self, _: Range<Seq>) -> Result<(), HostError> {
        Ok(())
    }
}

/// A journal that uses all of `device`.
pub fn journal(device: Arc<dyn Device>, block_bytes: usize, entry_bytes_max: usize) -> Arc<Journal> {
    let buckets = (0..device.size_sectors() / BUCKET.0).map(BucketIndex).collect();
    let member = Member {
        dev: DevIndex(0),
        device,
        bucket: BUCKET,
        buckets,
        position: Position::Clean { index: 0, offset: Sectors(0) },
        writable: true,
        durability: 1,
        discard: false,
    };
    let format = Format {
        magic: 0x6265_6e63_686d_6172,
        version: Version::WRITE,
        csum_type: ChecksumType::Crc32c,
        key: None,
        block_bytes,
        has_overwrites: false,
    };
    let start = Start { first: Seq(1), replay_from: Seq(1) };
    let options = Options { entry_bytes_max, ..Options::default() };
    Journal::start(vec![member], format, options, start, Arc::new(Alone), Arc::new(SystemClock::default()))
}
