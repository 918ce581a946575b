//! The journal of a volume, as the devices have it: its rings, and a way to look into it without opening the volume.
//!
//! Recovery reads the journal through the rings collected here. [`JournalView`] shows the same entries to people, used or
//! not, also of volumes that were shut down cleanly (their old entries stay in the ring until they are overwritten) and of
//! journals too damaged to be replayed.

use std::ops::Range;
use std::sync::Arc;

use frazil_device::{Device, DeviceSet};
use frazil_journal::read::{self, Copy, ReadError, Survey};
use frazil_ondisk::crypto::Key;
use frazil_ondisk::jset::{Jset, JsetFormat, jset_magic};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::{MemberState, Members};
use frazil_ondisk::superblock::sections::JournalSeqBlacklist;
use frazil_ondisk::units::{BucketIndex, DevIndex, Sectors, Seq};

use super::{Assembled, OpenOptions, assemble, refuse, unlock};
use crate::error::{Notice, OpenError};

/// The journal of one member.
pub(crate) struct Ring {
    pub(crate) dev: DevIndex,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) bucket: Sectors,
    /// In ring order.
    pub(crate) buckets: Vec<BucketIndex>,
}

impl Ring {
    pub(crate) fn source(&self) -> read::Source<'_> {
        read::Source { dev: self.dev, device: &*self.device, bucket: self.bucket, buckets: &self.buckets }
    }
}

/// The rings of all members that may hold journal entries (spec 20 §5.2). Each device's own superblock describes its ring.
pub(crate) fn rings(assembled: &Assembled) -> Result<Vec<Ring>, OpenError> {
    let mut rings = Vec::new();
    for candidate in &assembled.online {
        let dev = candidate.superblock.dev_idx;
        let Some(member) = assembled.members.get(dev) else { continue };
        if !matches!(member.flags.state(), MemberState::ReadWrite | MemberState::ReadOnly) {
            continue;
        }
        let ring = candidate.superblock.journal_buckets().map_err(|source| refuse(candidate, source))?;
        ring.validate(member).map_err(|source| refuse(candidate, source))?;
        let device = Arc::clone(&candidate.device);
        rings.push(Ring { dev, device, bucket: member.bucket_size(), buckets: ring.buckets().collect() });
    }
    Ok(rings)
}

/// How entries of this volume are read.
pub(super) fn format<'k>(superblock: &Superblock, key: Option<&'k Key>) -> JsetFormat<'k> {
    JsetFormat { magic: jset_magic(&superblock.uuid), block_bytes: superblock.block_bytes() as usize, key }
}

/// The blacklisted ranges of the superblock.
pub(crate) fn blacklist(assembled: &Assembled) -> Result<Vec<Range<Seq>>, OpenError> {
    let section = assembled.newest.sections.get::<JournalSeqBlacklist>();
    let section = section.map_err(|why| assembled.refused(why))?;
    Ok(section.map_or_else(Vec::new, |list| list.ranges().to_vec()))
}

/// A journal to look at.
pub struct JournalView {
    superblock: Superblock,
    members: Members,
    devices: DeviceSet,
    key: Option<Key>,
    rings: Vec<Ring>,
    blacklist: Vec<Range<Seq>>,
    notices: Vec<Notice>,
}

impl JournalView {
    /// Assembles the devices and unlocks the volume.
    ///
    /// # Errors
    /// As [`super::open`], but for what is wrong with the journal itself.
    pub fn open(devices: Vec<Arc<dyn Device>>, options: OpenOptions<'_>) -> Result<JournalView, OpenError> {
        let mut notices = Vec::new();
        let assembled = assemble(devices, &options, &mut notices)?;
        assembled.newest.access().map_err(|why| assembled.refused(why))?;
        let key = unlock(&assembled.newest, options.passphrase)?;
        let (rings, blacklist) = (rings(&assembled)?, blacklist(&assembled)?);
        let devices = assembled.device_set();
        let Assembled { newest: superblock, members, .. } = assembled;
        Ok(JournalView { superblock, members, devices, key, rings, blacklist, notices })
    }

    /// The superblock that counts.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The members, present or not.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The devices that are present.
    pub fn devices(&self) -> &DeviceSet {
        &self.devices
    }

    /// What the user should know.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Looks through the journal.
    ///
    /// # Errors
    /// If there is an entry of a version this program cannot follow.
    pub fn survey(&self) -> Result<Survey, ReadError> {
        let sources: Vec<_> = self.rings.iter().map(Ring::source).collect();
        read::survey(&sources, &self.options())
    }

    /// The whole entry, read again.
    ///
    /// # Errors
    /// If the device fails, or the entry is no longer there.
    pub fn load(&self, copy: &Copy) -> Result<Jset, ReadError> {
        let ring = self.rings.iter().find(|ring| ring.dev == copy.location.dev);
        read::load_copy(&ring.ok_or(ReadError::Vanished)?.source(), &self.options(), copy)
    }

    fn options(&self) -> read::Options<'_> {
        read::Options {
            format: format(&self.superblock, self.key.as_ref()),
            version_min: self.superblock.version_min,
            blacklist: &self.blacklist,
            salvage: true,
        }
    }
}
