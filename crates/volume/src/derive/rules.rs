//! What is the same for all keys of a volume.

use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::superblock::sections::disk_groups::DiskGroups;
use frazil_ondisk::units::{BucketIndex, DevIndex, Sectors};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::version::Version;

/// The buckets of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Sectors of a bucket; not 0.
    pub bucket: Sectors,
    /// First bucket.
    pub first: BucketIndex,
    /// One behind the last bucket.
    pub end: BucketIndex,
    /// A rotating disk (spec 80 §5.15).
    pub rotational: bool,
    /// Its label, as an index of the superblock's groups.
    pub group: Option<usize>,
}

impl Geometry {
    /// The bucket exists.
    pub fn contains(&self, bucket: BucketIndex) -> bool {
        self.first <= bucket && bucket < self.end
    }

    /// Number of buckets.
    pub fn buckets(&self) -> u64 {
        self.end.0 - self.first.0
    }
}

/// Facts about a volume that decide what keys imply.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Version of the superblock.
    pub version: Version,
    /// Sectors of a b-tree node.
    pub node: Sectors,
    /// Low bits of a backpointer's offset that hold the offset in the payload.
    pub backpointer_shift: u32,
    devices: Vec<Option<Geometry>>,
    groups: DiskGroups,
}

impl Rules {
    /// The rules of the volume with this superblock and these members.
    pub fn new(superblock: &Superblock, members: &Members) -> Rules {
        let mut devices = Vec::new();
        for (dev, member) in members.live() {
            let index = usize::from(dev.0);
            devices.resize(devices.len().max(index + 1), None);
            devices[index] = Some(Geometry {
                bucket: Sectors(member.bucket_size().0.max(1)),
                first: BucketIndex(member.first_bucket.into()),
                end: BucketIndex(member.nbuckets.max(member.first_bucket.into())),
                rotational: member.flags.rotational(),
                group: member.flags.group(),
            });
        }
        Rules {
            version: superblock.version,
            node: superblock.btree_node_size(),
            backpointer_shift: u32::from(superblock.extent_bp_shift()).min(u64::BITS - 1),
            devices,
            // A broken section was reported when the superblock was read; without it nothing is in a target.
            groups: superblock.sections.get::<DiskGroups>().ok().flatten().unwrap_or_default(),
        }
    }

    /// The buckets of a member; `None` if it does not exist.
    pub fn geometry(&self, dev: DevIndex) -> Option<&Geometry> {
        self.devices.get(usize::from(dev.0))?.as_ref()
    }

    /// Every member.
    pub fn devices(&self) -> impl Iterator<Item = (DevIndex, &Geometry)> {
        self.devices.iter().enumerate().filter_map(|(i, g)| Some((DevIndex(i as u8), g.as_ref()?)))
    }

    /// The bucket of a sector; `None` if the device does not exist. It may be behind the last one.
    pub fn bucket_of(&self, dev: DevIndex, sector: Sectors) -> Option<DevBucket> {
        let bucket = self.geometry(dev)?.bucket;
        Some(DevBucket { dev, bucket: BucketIndex(sector.0 / bucket.0) })
    }

    /// Whether a device belongs to a target; `None` if the target means no device at all (spec 10 §9.6).
    pub fn in_target(&self, dev: DevIndex, target: u16) -> Option<bool> {
        match target {
            0 => None,
            1..=256 => {
                let wanted = u8::try_from(target - 1).ok()?;
                self.geometry(DevIndex(wanted))?;
                Some(dev.0 == wanted)
            }
            _ => {
                let wanted = usize::from(target - 257);
                self.groups.get(wanted)?;
                let inside = |g: &Geometry| {
                    g.group.is_some_and(|leaf| self.groups.ancestry(leaf).any(|g| g == wanted))
                };
                self.devices().any(|(_, g)| inside(g)).then(|| self.geometry(dev).is_some_and(inside))
            }
        }
    }
}
