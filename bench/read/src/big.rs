//! The volume with the large file.
//!
//! The real driver makes it: a file that holds nothing but superblocks is a volume that it initialises at the first mount
//! (spec 10 §16.2), and then writes the file, in the oracle's machine. That takes some minutes, so the image is kept.
//!
//! The file is the same noise sixteen times, because an emulated processor is slow to make noise. Nothing here is compressed
//! or shared, so that makes no difference. Checksums are the default, crc32c, each over 64 KiB.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::layout::Layout;
use frazil_ondisk::superblock::members::{Member, Members};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_oracle::{Job, Mount, Oracle, Writes};
use uuid::Uuid;

use frazil_bench_common::Outcome;

use crate::mounts;

/// Name of the file.
pub(crate) const FILE: &str = "big";
/// Its length.
pub(crate) const FILE_BYTES: u64 = 1 << 30;

const IMAGE_BYTES: u64 = 2 << 30;
/// Buckets and b-tree nodes of 256 KiB, as the formatter chooses for this size (spec 10 §16.1).
const BUCKET_SECTORS: u16 = 512;
/// Blocks of 4 KiB.
const BLOCK_SECTORS: u16 = 8;
/// Room for a superblock: 1 MiB (spec 10 §3.2).
const SUPERBLOCK_SIZE_BITS: u8 = 11;

/// How long an emulated machine on a busy host may take for it.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Makes the file, and hands back what it is made of.
const SCRIPT: &str = "\
head -c 67108864 /dev/urandom >/tmp/noise
cp /tmp/noise \"$OUT/noise\"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /tmp/noise; done >big
sync
";

/// The image, made now if it is not there.
pub(crate) fn find_or_make(dir: &Path) -> Outcome<PathBuf> {
    let image = dir.join("big.img");
    if !image.exists() {
        eprintln!(
            "making a volume with a file of 1 GiB by the Linux 6.12 driver: once, and it takes minutes"
        );
        let unfinished = dir.join("big.img.unfinished");
        write_uninitialised(&unfinished)?;
        let noise = fill(&unfinished)?;
        verify(&unfinished, &noise)?;
        std::fs::rename(&unfinished, &image)?;
    }
    Ok(image)
}

/// Writes a volume that was never started: superblocks and nothing else.
fn write_uninitialised(path: &Path) -> Outcome {
    let (size, bucket) = (Sectors(IMAGE_BYTES / SECTOR_BYTES), Sectors(BUCKET_SECTORS.into()));
    let layout = Layout::standard(size, bucket, Sectors(BLOCK_SECTORS.into()), SUPERBLOCK_SIZE_BITS)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut superblock =
        Superblock::new(random_uuid(), random_uuid(), u64::try_from(now.as_nanos())?, BLOCK_SECTORS, layout);
    let member = Member {
        uuid: random_uuid(),
        nbuckets: size.0 / bucket.0,
        bucket_sectors: BUCKET_SECTORS,
        ..Member::default()
    };
    superblock.put_members(&Members::new(vec![member]));
    superblock.flags.set_btree_node_size(bucket);
    superblock.flags.set_csum_type(1);
    let file = File::create(path)?;
    file.set_len(IMAGE_BYTES)?;
    let mut layout = Vec::new();
    superblock.layout.encode(&mut layout);
    file.write_all_at(&layout, 7 * SECTOR_BYTES)?;
    for sector in superblock.layout.copies() {
        file.write_all_at(&superblock.encode_copy(sector)?, sector.0 * SECTOR_BYTES)?;
    }
    Ok(())
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_le_bytes()).into_uuid()
}

/// Lets the driver initialise the volume and write the file; returns the noise.
fn fill(image: &Path) -> Outcome<Vec<u8>> {
    let mount = Mount::plain().script(SCRIPT);
    let job = Job::new("big", [image]).mount(mount).writes(Writes::InPlace).timeout(PATIENCE);
    let mut verdict = Oracle::new()?.ask(job)?;
    let objections = verdict.objections();
    match verdict.files.remove("noise") {
        Some(noise) if objections.is_empty() && !noise.is_empty() => Ok(noise),
        _ => Err(format!("the driver did not make the volume: {}", objections.join("; ")).into()),
    }
}

/// Makes sure that frazil reads what the driver wrote.
fn verify(image: &Path, noise: &[u8]) -> Outcome {
    let fs = mounts::open(image)?;
    let file = fs.lookup(fs.root(), FILE.as_bytes())?;
    let mut buffer = vec![0; noise.len()];
    let mut offset = 0;
    while offset < file.size {
        if fs.read(file.node, offset, &mut buffer)? != noise.len() || buffer != noise {
            return Err(format!("what is read differs from what was written behind byte {offset}").into());
        }
        offset += noise.len() as u64;
    }
    if offset == FILE_BYTES { Ok(()) } else { Err(format!("the file has {} bytes", file.size).into()) }
}
