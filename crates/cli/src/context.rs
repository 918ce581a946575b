//! What a listing knows beside the key itself: names of targets and devices, bucket sizes, generations of buckets.

use frazil_btree::Btrees;
use frazil_device::DeviceSet;
use frazil_ondisk::BtreeId;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::superblock::options::Target;
use frazil_ondisk::superblock::sections::DiskGroups;
use frazil_ondisk::units::{DevIndex, Gen};
use frazil_ondisk::values::Value;
use frazil_ondisk::values::list::ListContext;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::version::Version;
use frazil_volume::{JournalView, Volume};

/// The surroundings of a key.
pub(crate) struct Context<'v> {
    superblock: &'v Superblock,
    members: &'v Members,
    devices: &'v DeviceSet,
    groups: DiskGroups,
    /// To look up generations of buckets; `None` where the b-trees are not open.
    btrees: Option<&'v Btrees>,
}

impl<'v> Context<'v> {
    /// That of an open volume.
    pub(crate) fn of_volume(volume: &'v Volume) -> Context<'v> {
        Context {
            superblock: volume.superblock(),
            members: volume.members(),
            devices: volume.devices(),
            groups: groups(volume.superblock()),
            btrees: Some(volume.btrees()),
        }
    }

    /// That of a journal.
    pub(crate) fn of_journal(journal: &'v JournalView) -> Context<'v> {
        Context {
            superblock: journal.superblock(),
            members: journal.members(),
            devices: journal.devices(),
            groups: groups(journal.superblock()),
            btrees: None,
        }
    }
}

/// The labels of the devices. Damaged ones are as good as none for a listing.
fn groups(superblock: &Superblock) -> DiskGroups {
    superblock.sections.get::<DiskGroups>().ok().flatten().unwrap_or_default()
}

impl ListContext for Context<'_> {
    fn version(&self) -> Version {
        self.superblock.version
    }

    fn bucket_sectors(&self, dev: DevIndex) -> Option<u64> {
        Some(self.members.get(dev)?.bucket_size().0)
    }

    fn durability(&self, dev: DevIndex) -> u32 {
        self.members.get(dev).map_or(0, |member| member.flags.durability().into())
    }

    /// A bucket without an alloc key has generation 0.
    fn bucket_gen(&self, at: DevBucket) -> Option<Gen> {
        let Some(handle) = self.btrees?.get(BtreeId::ALLOC, at.pos()).ok()? else { return Some(Gen(0)) };
        match Value::decode(handle.key()) {
            Ok(Value::Alloc(alloc)) => Some(alloc.generation),
            _ => None,
        }
    }

    fn device_name(&self, dev: DevIndex) -> Option<String> {
        match self.devices.get(dev.0) {
            Some(device) => Some(device.name().rsplit('/').next().unwrap_or_default().to_owned()),
            None => {
                let name = self.members.get(dev)?.device_name.split(|&byte| byte == 0).next()?;
                (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
            }
        }
    }

    fn target_name(&self, target: u16) -> Option<String> {
        match Target::from_raw(target) {
            Target::Group(group) => self.groups.path(group.into()),
            _ => None,
        }
    }

    fn backpointer_shift(&self) -> u32 {
        self.superblock.extent_bp_shift().into()
    }
}
