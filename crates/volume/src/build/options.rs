//! What a new volume shall be like, and the superblock that says so (spec 10 §16).
//!
//! [`FormatOptions`] and [`NewDevice`] are what a user asks for. [`prepare`] checks that it can be, fills in what was not said with what
//! the reference's formatter would choose, and makes the superblock of every device. Nothing is written here.

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::CompressionType;
use frazil_ondisk::crypto::{Crypt, Key, ScryptCost};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::superblock::layout::{Layout, SIZE_BITS_DEFAULT};
use frazil_ondisk::superblock::members::{Member, MemberFlags, Members};
use frazil_ondisk::superblock::options::{self, OptionSpec, Target};
use frazil_ondisk::superblock::sections::{DiskGroups, JournalV2};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::{BuildError, Result};
use super::random::{Random, secret};

/// Blocks of file data and metadata, unless asked for otherwise. The driver does not take larger ones (spec 10 §8.1).
const BLOCK_BYTES: u64 = 4096;
/// Larger blocks than a page are refused by the driver.
const BLOCK_BYTES_MAX: u64 = 4096;
/// Smaller nodes are asking for trouble (spec 30 §5).
const NODE_BYTES_MIN: u64 = 32 << 10;
const NODE_BYTES_MAX: u64 = 512 << 10;
const NODE_BYTES_DEFAULT: u64 = 256 << 10;
/// Where the search for a bucket size starts, and where it ends (spec 10 §16.1).
const BUCKET_BYTES_START: u64 = 128 << 10;
const BUCKET_BYTES_AUTO_MAX: u64 = 1 << 20;
/// The largest power of two that the field holds.
const BUCKET_BYTES_MAX: u64 = 16 << 20;
/// Fewest buckets of a device.
const BUCKETS_MIN: u64 = 64;
/// On less the reserves are larger than the device (spec 10 §16.1).
const DEVICE_BYTES_MIN: u64 = 32 << 20;
/// Longer encoded extents can have colliding backpointers (spec 50 §2.6).
const ENCODED_EXTENT_BYTES_MAX: u64 = 512 << 10;
/// Slots of a 1.13 superblock.
const DEVICES_MAX: usize = 64;

/// Whether and how a new volume is encrypted.
pub enum Encryption {
    /// Not.
    Off,
    /// Encrypted, with the key in clear beside it: for who wants to set a passphrase later.
    KeyInClear,
    /// Opened by this passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
}

/// What a new volume shall be like.
pub struct FormatOptions {
    /// Its (external) UUID. If given, everything random derives from it, and equal input makes equal volumes; an encrypted volume
    /// is different each time nevertheless.
    pub uuid: Option<Uuid>,
    /// Its label, at most 31 bytes.
    pub label: String,
    /// When it is made, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Encryption.
    pub encryption: Encryption,
    /// Options of the superblock with their values; what is not listed gets its default.
    pub settings: Vec<(&'static OptionSpec, u64)>,
    /// Options that name devices: a device's path or number, or a label.
    pub targets: Vec<(&'static OptionSpec, String)>,
    /// Space for each copy of the superblock in bytes, a power of two; 1 MiB if not given.
    pub superblock_bytes: Option<u64>,
    /// Overwrite what is on the devices.
    pub force: bool,
}

impl Default for FormatOptions {
    /// All defaults; made in 1970.
    fn default() -> Self {
        FormatOptions {
            uuid: None,
            label: String::new(),
            created_ns: 0,
            encryption: Encryption::Off,
            settings: Vec::new(),
            targets: Vec::new(),
            superblock_bytes: None,
            force: false,
        }
    }
}

/// A device of the new volume.
pub struct NewDevice {
    /// Where to write.
    pub device: Arc<dyn Device>,
    /// Bucket size in bytes; chosen by the device's size if not given.
    pub bucket_bytes: Option<u64>,
    /// Label, such as `ssd.one`.
    pub label: Option<String>,
    /// What a copy here counts as: 0 to 2.
    pub durability: u8,
    /// Tell the device what is no longer used.
    pub discard: bool,
}

impl NewDevice {
    /// A device without special wishes.
    pub fn new(device: Arc<dyn Device>) -> NewDevice {
        NewDevice { device, bucket_bytes: None, label: None, durability: 1, discard: false }
    }
}

/// Everything about the volume that is known before its content.
pub(super) struct Prepared {
    /// The superblock of each device, without what the end of the build adds.
    pub(super) superblocks: Vec<Superblock>,
    pub(super) key: Option<Key>,
    pub(super) random: Random,
}

pub(super) fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(BuildError::Options(why.into()))
}

/// Checks the options and makes the superblocks.
pub(super) fn prepare(devices: &[NewDevice], options: &FormatOptions) -> Result<Prepared> {
    if devices.is_empty() || devices.len() > DEVICES_MAX {
        return bad(format!("a volume has 1 to {DEVICES_MAX} devices, not {}", devices.len()));
    }
    let geometry = Geometry::choose(devices, options)?;
    let mut random = match options.uuid {
        Some(uuid) => Random::seeded(uuid),
        None => Random::of_system()?,
    };
    let internal = random.uuid();
    let external = options.uuid.unwrap_or_else(|| random.uuid());
    let layouts = geometry.layouts(devices, options)?;
    let block_sectors = (geometry.block / SECTOR_BYTES) as u16;
    let mut sb = Superblock::new(internal, external, options.created_ns, block_sectors, layouts[0].clone());
    sb.set_label(&options.label)?;
    put_members(&mut sb, devices, &geometry, &mut random)?;
    set_options(&mut sb, devices, options, &geometry)?;
    let key = encrypt(&mut sb, &options.encryption)?;
    check_combinations(&sb, devices, &geometry)?;

    let members = sb.members()?;
    let mut superblocks = Vec::new();
    for (i, layout) in layouts.into_iter().enumerate() {
        let mut own = sb.clone();
        (own.dev_idx, own.layout) = (DevIndex(i as u8), layout);
        own.put_journal_buckets(&journal_buckets(&members.list[i], &own.layout));
        own.validate()?;
        superblocks.push(own);
    }
    Ok(Prepared { superblocks, key, random })
}

/// Sizes, in bytes.
struct Geometry {
    block: u64,
    node: u64,
    buckets: Vec<u64>,
}

impl Geometry {
    fn choose(devices: &[NewDevice], options: &FormatOptions) -> Result<Geometry> {
        let setting = |spec: &OptionSpec| options.settings.iter().rev().find(|s| s.0 == spec).map(|s| s.1);
        let block = setting(&options::BLOCK_SIZE).unwrap_or(BLOCK_BYTES);
        if block > BLOCK_BYTES_MAX {
            return bad(format!(
                "blocks of {block} bytes are more than the Linux driver takes; at most {BLOCK_BYTES_MAX}"
            ));
        }
        let node = setting(&options::BTREE_NODE_SIZE);
        if let Some(node) = node.filter(|n| !(NODE_BYTES_MIN..=NODE_BYTES_MAX).contains(n)) {
            return bad(format!(
                "b-tree nodes of {node} bytes; must be {NODE_BYTES_MIN} to {NODE_BYTES_MAX}"
            ));
        }
        for new in devices {
            let (name, bytes) = (new.device.name(), new.device.size_bytes());
            if bytes < DEVICE_BYTES_MIN {
                return bad(format!("{name} is too small with {bytes} bytes; at least 32 MiB are needed"));
            }
            if u64::from(new.device.logical_block_bytes()) > block {
                let sector = new.device.logical_block_bytes();
                return bad(format!("{name} has sectors of {sector} bytes; take --block-size {sector}"));
            }
        }
        let automatic = |new: &NewDevice| bucket_bytes(new.device.size_bytes(), block, node);
        let smallest = devices.iter().map(automatic).min().expect("there is a device");
        let mut buckets = Vec::new();
        for new in devices {
            let (name, bucket) = (new.device.name(), new.bucket_bytes.unwrap_or(smallest));
            if !bucket.is_power_of_two() || bucket < block || bucket > BUCKET_BYTES_MAX {
                return bad(format!(
                    "buckets of {bucket} bytes on {name}; must be a power of two from {block} to {BUCKET_BYTES_MAX}"
                ));
            }
            let most = new.device.size_bytes() / BUCKETS_MIN;
            if bucket > most {
                return bad(format!("buckets of {bucket} bytes are too large for {name}; at most {most}"));
            }
            if new.device.size_bytes() / bucket > Member::NBUCKETS_MAX {
                return bad(format!("buckets of {bucket} bytes are too small for {name}"));
            }
            buckets.push(bucket);
        }
        let bucket_min = buckets.iter().copied().min().expect("there is a device");
        let node = node.unwrap_or(bucket_min.min(NODE_BYTES_DEFAULT));
        if node > bucket_min || node < NODE_BYTES_MIN {
            return bad(format!(
                "buckets of {bucket_min} bytes are too small; at least {} are needed",
                node.max(NODE_BYTES_MIN)
            ));
        }
        Ok(Geometry { block, node, buckets })
    }

    fn layouts(&self, devices: &[NewDevice], options: &FormatOptions) -> Result<Vec<Layout>> {
        let size_bits = match options.superblock_bytes {
            None => SIZE_BITS_DEFAULT,
            Some(bytes @ 4096..=0x200_0000) if bytes.is_power_of_two() => {
                (bytes / SECTOR_BYTES).ilog2() as u8
            }
            Some(bytes) => {
                return bad(format!(
                    "superblocks of {bytes} bytes; must be a power of two from 4096 to 32 MiB"
                ));
            }
        };
        let layout = |(new, bucket): (&NewDevice, &u64)| {
            let device = Sectors(new.device.size_sectors());
            Layout::standard(
                device,
                Sectors(bucket / SECTOR_BYTES),
                Sectors(self.block / SECTOR_BYTES),
                size_bits,
            )
        };
        Ok(devices.iter().zip(&self.buckets).map(layout).collect::<std::result::Result<_, _>>()?)
    }
}

/// The bucket size for a device of that size (spec 10 §16.1).
fn bucket_bytes(device: u64, block: u64, node: Option<u64>) -> u64 {
    let mut bucket = block.max(node.unwrap_or(0)).max(BUCKET_BYTES_START);
    let buckets = device / bucket;
    if buckets < BUCKETS_MIN {
        while device / bucket < BUCKETS_MIN && bucket > block {
            bucket /= 2;
        }
        return bucket;
    }
    let scale = u64::from((buckets / BUCKETS_MIN).ilog2() / 4).max(1);
    (bucket << scale.ilog2()).min(BUCKET_BYTES_AUTO_MAX.max(bucket))
}

fn put_members(
    sb: &mut Superblock,
    devices: &[NewDevice],
    geometry: &Geometry,
    random: &mut Random,
) -> Result<()> {
    let mut groups = DiskGroups::default();
    let mut list = Vec::new();
    for (new, bucket) in devices.iter().zip(&geometry.buckets) {
        let mut flags = MemberFlags::default();
        flags.set_discard(new.discard);
        if !flags.set_durability(new.durability) {
            return bad(format!("durability {} of {}; must be 0, 1 or 2", new.durability, new.device.name()));
        }
        if let Some(label) = &new.label {
            let group = groups.find_or_add(label)?;
            if !flags.set_group(Some(group)) {
                return bad(format!("too many labels: there is no room for '{label}'"));
            }
        }
        list.push(Member {
            uuid: random.uuid(),
            nbuckets: new.device.size_bytes() / bucket,
            bucket_sectors: (bucket / SECTOR_BYTES) as u16,
            flags,
            ..Member::default()
        });
    }
    sb.put_members(&Members::new(list));
    if !groups.0.is_empty() {
        sb.sections.put(&groups);
    }
    Ok(())
}

fn set_options(
    sb: &mut Superblock,
    devices: &[NewDevice],
    options: &FormatOptions,
    geometry: &Geometry,
) -> Result<()> {
    for (spec, value) in &options.settings {
        if !spec.applies_to(sb.version) {
            return bad(format!("{spec} is an option of newer versions than the one that is made"));
        }
        sb.set_option(spec, *value)?;
    }
    sb.set_option(&options::BTREE_NODE_SIZE, geometry.node)?;
    for (spec, name) in &options.targets {
        let target = find_target(sb, devices, name)
            .ok_or_else(|| BuildError::Options(format!("{spec}: there is no device or label '{name}'")))?;
        let raw = target.to_raw().ok_or_else(|| BuildError::Options(format!("{spec}: too many labels")))?;
        sb.set_option(spec, raw.into())?;
    }
    for option in [sb.compression(), sb.background_compression()] {
        sb.features = sb.features.union(compression_feature(option.compression_type()));
    }
    Ok(())
}

fn find_target(sb: &Superblock, devices: &[NewDevice], name: &str) -> Option<Target> {
    if name == "none" {
        return Some(Target::None);
    }
    if let Some(index) = devices.iter().position(|d| &**d.device.name() == name) {
        return Some(Target::Device(DevIndex(index as u8)));
    }
    let groups = sb.sections.get::<DiskGroups>().ok().flatten()?;
    Some(Target::Group(u16::try_from(groups.find(name)?).ok()?))
}

/// The feature that must be set before anything is compressed like that (spec 10 §6.1).
pub(super) fn compression_feature(ty: Option<CompressionType>) -> Features {
    match ty {
        Some(CompressionType::LZ4) => Features::LZ4,
        Some(CompressionType::GZIP) => Features::GZIP,
        Some(CompressionType::ZSTD) => Features::ZSTD,
        _ => Features::empty(),
    }
}

fn encrypt(sb: &mut Superblock, encryption: &Encryption) -> Result<Option<Key>> {
    let crypt = |key: &Key| match encryption {
        Encryption::Passphrase(text) if text.is_empty() => bad("the passphrase is empty"),
        Encryption::Passphrase(text) => Ok(Crypt::wrapped(key, text, ScryptCost::DEFAULT, &sb.uuid)?),
        Encryption::Off | Encryption::KeyInClear => Ok(Crypt::clear(key)),
    };
    if matches!(encryption, Encryption::Off) {
        return if sb.flags.wide_macs() {
            bad("wide_macs is about encryption; add --encrypted")
        } else {
            Ok(None)
        };
    }
    let key = secret()?;
    let crypt = crypt(&key)?;
    sb.sections.put(&crypt);
    sb.flags.set_encryption_type(1);
    Ok(Some(key))
}

fn check_combinations(sb: &Superblock, devices: &[NewDevice], geometry: &Geometry) -> Result<()> {
    let flags = &sb.flags;
    let durability = devices.iter().map(|d| d.durability).sum::<u8>();
    for (what, wanted, required) in [
        ("metadata", flags.metadata_replicas(), flags.metadata_replicas_required()),
        ("data", flags.data_replicas(), flags.data_replicas_required()),
    ] {
        if wanted > durability {
            let n = devices.len();
            return bad(format!(
                "{wanted} copies of {what} need as many devices, and there are {n}; add devices or lower --replicas"
            ));
        }
        if required > wanted {
            return bad(format!(
                "{what}_replicas_required is {required}, but there are only {wanted} copies"
            ));
        }
    }
    let bucket_min = geometry.buckets.iter().copied().min().unwrap_or(0);
    let encoded = sb.option(&options::ENCODED_EXTENT_MAX);
    if encoded > ENCODED_EXTENT_BYTES_MAX || encoded > bucket_min || encoded < geometry.block {
        let most = ENCODED_EXTENT_BYTES_MAX.min(bucket_min);
        return bad(format!("encoded_extent_max is {encoded}; must be {} to {most}", geometry.block));
    }
    if flags.erasure_code() != 0 {
        return bad("erasure_code cannot be turned on: it is unfinished in format 1.13");
    }
    Ok(())
}

/// The ring of journal buckets on a device (spec 20 §1.2).
pub(super) fn journal_buckets(member: &Member, layout: &Layout) -> JournalV2 {
    let size = member.bucket_size().0;
    let most = (1u64 << 24) / size;
    let wanted = (member.nbuckets >> 7).clamp(8, 8192.min(most).max(8));
    let reserved: Vec<_> = layout.reserved().collect();
    let free = |bucket: &u64| {
        let (start, end) = (bucket * size, (bucket + 1) * size);
        reserved.iter().all(|r| r.end <= start || end <= r.start)
    };
    JournalV2::from_buckets((1..member.nbuckets).filter(free).take(wanted as usize).map(BucketIndex))
}

#[cfg(test)]
mod tests;
