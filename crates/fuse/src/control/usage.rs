//! What `usage` reports: what a volume's space is used for, as its accounting has it (spec 50 §2.8).
//!
//! The same report is made from a volume that is mounted and from one that is opened to be looked at, so there is one form to
//! read and one way to print it. All sizes are in bytes.

use frazil_device::DeviceSet;
use frazil_ondisk::DataType;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::{Member, Members};
use frazil_ondisk::superblock::sections::DiskGroups;
use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_volume::Usage;
use serde::{Deserialize, Serialize};

use super::status::SpaceReport;

/// What a volume's space is used for.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct UsageReport {
    /// The UUID that programs know it by.
    pub uuid: String,
    /// All of it.
    pub space: SpaceReport,
    /// By what is stored, and on which devices the copies are.
    pub replicas: Vec<ReplicasUse>,
    /// By type of compression.
    pub compression: Vec<CompressionUse>,
    /// By b-tree, largest first.
    pub btrees: Vec<BtreeUse>,
    /// By device.
    pub devices: Vec<DeviceReport>,
}

/// What has its copies on the same devices.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ReplicasUse {
    /// Kind of data.
    pub data_type: String,
    /// How many of the devices are needed to read it.
    pub required: u8,
    /// Indices of the devices.
    pub devices: Vec<u8>,
    /// All copies counted.
    pub bytes: u64,
}

/// What is compressed in one way. All copies are counted, but each extent is one.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct CompressionUse {
    /// How.
    pub compression: String,
    /// Extents.
    pub extents: u64,
    /// Size before.
    pub uncompressed: u64,
    /// Size after.
    pub compressed: u64,
}

/// The nodes of a b-tree.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct BtreeUse {
    /// Its name.
    pub btree: String,
    /// All copies counted.
    pub bytes: u64,
}

/// A device and what is on it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct DeviceReport {
    /// Its index.
    pub index: u8,
    /// Its path; none if it is missing.
    pub path: Option<String>,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// Whether it is read and written.
    pub state: String,
    /// Size of all its buckets.
    pub size: u64,
    /// Size of a bucket.
    pub bucket: u64,
    /// By kind of data.
    pub used: Vec<DeviceUse>,
}

/// What is on a device of one kind of data.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct DeviceUse {
    /// Kind of data; `free` is what nothing is in.
    pub data_type: String,
    /// Buckets.
    pub buckets: u64,
    /// In use in them.
    pub bytes: u64,
    /// In them, but not to be used until the bucket is emptied.
    pub fragmented: u64,
}

/// Sectors in bytes.
pub(crate) fn bytes(sectors: Sectors) -> u64 {
    sectors.0.saturating_mul(512)
}

impl UsageReport {
    /// Of a volume with this superblock and these members, of which `devices` are present.
    pub fn of(superblock: &Superblock, members: &Members, devices: &DeviceSet, usage: &Usage) -> UsageReport {
        let groups = superblock.sections.get::<DiskGroups>().ok().flatten().unwrap_or_default();
        let replicas = usage.replicas.iter().filter(|(_, sectors)| sectors.0 > 0);
        let compression = usage.compression.iter().filter(|(_, used)| used.extents > 0);
        let btrees = usage.btrees.iter().filter(|(_, sectors)| sectors.0 > 0);
        let mut btrees: Vec<BtreeUse> =
            btrees.map(|(id, sectors)| BtreeUse { btree: id.to_string(), bytes: bytes(*sectors) }).collect();
        btrees.sort_by_key(|used| std::cmp::Reverse(used.bytes));
        UsageReport {
            uuid: superblock.user_uuid.to_string(),
            space: SpaceReport::of(usage),
            replicas: replicas
                .map(|(entry, sectors)| ReplicasUse {
                    data_type: entry.data_type.to_string(),
                    required: entry.nr_required,
                    devices: entry.devs.iter().map(|dev| dev.0).collect(),
                    bytes: bytes(*sectors),
                })
                .collect(),
            compression: compression
                .map(|(ty, used)| CompressionUse {
                    compression: ty.to_string(),
                    extents: used.extents,
                    uncompressed: bytes(used.uncompressed),
                    compressed: bytes(used.compressed),
                })
                .collect(),
            btrees,
            devices: members
                .live()
                .map(|(dev, member)| device(dev, member, devices, &groups, usage))
                .collect(),
        }
    }
}

fn device(
    dev: DevIndex,
    member: &Member,
    devices: &DeviceSet,
    groups: &DiskGroups,
    usage: &Usage,
) -> DeviceReport {
    let of_this = usage.devices.iter().filter(|((of, _), _)| *of == dev);
    let mut used: Vec<DeviceUse> = of_this
        .filter(|((_, data_type), used)| used.buckets > 0 && *data_type != DataType::FREE)
        .map(|((_, data_type), used)| DeviceUse {
            data_type: data_type.to_string(),
            buckets: used.buckets,
            bytes: bytes(used.sectors),
            fragmented: bytes(used.fragmented),
        })
        .collect();
    let in_use: u64 = used.iter().map(|used| used.buckets).sum();
    let buckets = member.nbuckets.saturating_sub(member.first_bucket.into());
    // What the accounting has of free buckets is not kept by all versions; what is left is.
    let free = buckets.saturating_sub(in_use);
    let bucket = bytes(member.bucket_size());
    used.push(DeviceUse {
        data_type: DataType::FREE.to_string(),
        buckets: free,
        bytes: free.saturating_mul(bucket),
        fragmented: 0,
    });
    DeviceReport {
        index: dev.0,
        path: devices.get(dev.0).map(|device| device.name().to_string()),
        label: member.flags.group().and_then(|group| groups.path(group)),
        state: member.flags.state().name().to_owned(),
        size: buckets.saturating_mul(bucket),
        bucket,
        used,
    }
}
