//! First pass: what is in the buckets (spec 20 §5.2, §5.3).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use frazil_ondisk::jset::{BucketScan, ScanItem};
use frazil_ondisk::units::{BucketIndex, SECTOR_BYTES, Sectors, Seq};

use super::{Copy, Location, Options, Problem, ReadError, RingFound, Source};

/// Largest bucket read at once: 32 MiB is more than the 16-bit sector count of a member record can say.
const BUCKET_BYTES_MAX: u64 = 32 << 20;

/// What all buckets hold.
pub(super) struct Scanned {
    pub(super) copies: Vec<Copy>,
    pub(super) rings: Vec<RingFound>,
}

/// Scans every journal bucket of every source.
pub(super) fn scan_all(
    sources: &[Source<'_>],
    options: &Options<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Scanned, ReadError> {
    let mut out = Scanned { copies: Vec::new(), rings: Vec::new() };
    for source in sources {
        let ring = scan_ring(source, options, &mut out.copies, problems)?;
        out.rings.push(ring);
    }
    Ok(out)
}

fn scan_ring(
    source: &Source<'_>,
    options: &Options<'_>,
    copies: &mut Vec<Copy>,
    problems: &mut Vec<Problem>,
) -> Result<RingFound, ReadError> {
    let mut ring = RingFound {
        dev: source.dev,
        bucket_seq: vec![Seq(0); source.buckets.len()],
        cur_idx: 0,
        cur_offset: Sectors(0),
    };
    let mut newest = Seq(0);
    let mut buf = Vec::new();
    for (index, &bucket) in source.buckets.iter().enumerate() {
        if !read_bucket(source, bucket, &mut buf, problems) {
            continue;
        }
        let start = bucket.0 * source.bucket.0;
        for item in BucketScan::new(options.format, &buf) {
            let copy = copy_of(source, options, index as u32, start, &item)?;
            // A torn entry counts too: writing goes on behind it, and its number is not used again (spec 20 §5.3).
            ring.bucket_seq[index] = ring.bucket_seq[index].max(copy.header.seq);
            if copy.header.seq >= newest {
                newest = copy.header.seq;
                ring.cur_idx = index as u32;
                ring.cur_offset = Sectors((item.at.0 + copy.size.0).min(source.bucket.0));
            }
            copies.push(copy);
        }
    }
    Ok(ring)
}

/// Fills `buf` with the bucket. False if there is nothing to scan.
fn read_bucket(
    source: &Source<'_>,
    bucket: BucketIndex,
    buf: &mut Vec<u8>,
    problems: &mut Vec<Problem>,
) -> bool {
    let bytes = source.bucket.to_bytes().filter(|b| *b <= BUCKET_BYTES_MAX);
    let start = bucket.0.checked_mul(source.bucket.0).and_then(|s| s.checked_mul(SECTOR_BYTES));
    let (Some(bytes), Some(start)) = (bytes, start) else {
        problems.push(Problem::BucketOutside { dev: source.dev, bucket });
        return false;
    };
    if start.checked_add(bytes).is_none_or(|end| end > source.device.size_bytes()) {
        problems.push(Problem::BucketOutside { dev: source.dev, bucket });
        return false;
    }
    buf.resize(bytes as usize, 0);
    if let Err(error) = source.device.read_at(start, buf) {
        problems.push(Problem::UnreadableBucket { dev: source.dev, bucket, reason: error.to_string() });
        return false;
    }
    true
}

fn copy_of(
    source: &Source<'_>,
    options: &Options<'_>,
    ring_index: u32,
    bucket_start: u64,
    item: &ScanItem,
) -> Result<Copy, ReadError> {
    let header = *item.header();
    let block = Sectors(options.format.block_bytes as u64 / SECTOR_BYTES);
    let (size, damage, fingerprint) = match &item.jset {
        Ok(jset) => {
            let mut hasher = DefaultHasher::new();
            jset.as_bytes().hash(&mut hasher);
            (jset.sectors(), jset.checksum.as_ref().err().map(ToString::to_string), hasher.finish())
        }
        Err(_) => (block, Some("it claims to extend past the end of its bucket".to_owned()), 0),
    };
    // Only a header whose checksum is good can refuse the whole volume.
    let version = header.version;
    let readable = version >= u32::from(options.version_min.0)
        && frazil_ondisk::version::Version(u16::try_from(version).unwrap_or(u16::MAX)).major()
            <= frazil_ondisk::version::Version::READ_MAX.major();
    if damage.is_none() && !readable {
        return Err(ReadError::Version { seq: header.seq, version });
    }
    let location = Location { dev: source.dev, ring_index, sector: Sectors(bucket_start + item.at.0) };
    Ok(Copy { location, header, size, damage, after_gap: item.after_gap, fingerprint })
}
