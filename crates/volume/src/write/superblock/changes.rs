//! What the superblock is changed for (spec 10 §12.1). Each is on stable storage when the call returns; that is the point of each.

use std::ops::Range;

use frazil_btree::write::CommitError;
use frazil_journal::engine::CleanStop;
use frazil_ondisk::DecodeError;
use frazil_ondisk::data_type::DataType;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::bitmap::BtreeBitmap;
use frazil_ondisk::superblock::features::{CompatFeatures, Features};
use frazil_ondisk::superblock::sections::replicas::{Replicas, ReplicasEntry};
use frazil_ondisk::superblock::sections::{Clean, Ext, JournalSeqBlacklist, SectionType};
use frazil_ondisk::units::{DevIndex, Sectors, Seq, UnixSeconds};

use super::{SuperblockStore, SuperblockWriteError};
use crate::write::Superblocks;

/// What a clean shutdown leaves in the superblock.
#[derive(Debug, Clone)]
pub struct Closing {
    /// How the journal stopped.
    pub journal: CleanStop,
    /// The sub-entries of the clean section: key version, clocks, roots (spec 10 §9.7).
    pub entries: Vec<u8>,
}

impl SuperblockStore {
    /// The first write of a session: "not clean", mounted now, and, after a crash, the numbers that must not be used again. Always
    /// written: it finds out whether somebody else writes to the devices.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn begin_session(&self, blacklist: &[Range<Seq>]) -> Result<(), SuperblockWriteError> {
        let (now, online) = (self.now(), self.devices());
        self.rewrite(|sb| {
            add_to_blacklist(sb, blacklist)?;
            set_last_mount(sb, now, &online)?;
            set_dirty(sb);
            Ok(())
        })
    }

    /// Says that the volume is not clean: before anything else is written after a pause. Always written.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`]. If the devices would not take it, it can be tried again; until it succeeds nothing may be written (spec 70 R6).
    pub fn mark_dirty(&self) -> Result<(), SuperblockWriteError> {
        self.rewrite_first(|sb| {
            set_dirty(sb);
            Ok(())
        })
    }

    /// Says that the volume is clean: the last write. Everything else must be on stable storage, and nothing may be written before
    /// [`SuperblockStore::mark_dirty`] (spec 10 §13).
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn mark_clean(&self, closing: &Closing) -> Result<(), SuperblockWriteError> {
        self.rewrite(|sb| {
            sb.flags.set_clean(true);
            sb.compat = sb.compat.union(CompatFeatures::WHEN_CLEAN);
            sb.features = sb.features.difference(Features::WHEN_DIRTY);
            let size = sb.sections.raw(SectionType::CLEAN).map_or(0, |s| s.size()).max(Clean::SIZE_1_13);
            sb.sections.put(&Clean::new(closing.journal.seq, closing.entries.clone(), size));
            let mut members = sb.members()?;
            for &(dev, ring_index, used) in &closing.journal.positions {
                if let Some(member) = members.get_mut(dev) {
                    member.last_journal_bucket = ring_index;
                    // A bucket has at most 65535 sectors.
                    member.last_journal_bucket_offset = u32::try_from(used.0).unwrap_or(0);
                }
            }
            sb.put_members(&members);
            Ok(())
        })
    }

    /// Whether what is on stable storage says "clean".
    pub fn is_clean(&self) -> bool {
        self.view().superblock.flags.clean()
    }

    /// The numbers that must never be used or believed, ascending.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn blacklisted(&self) -> Result<Vec<Range<Seq>>, DecodeError> {
        let list = self.view().superblock.sections.get::<JournalSeqBlacklist>()?;
        Ok(list.map_or_else(Vec::new, |list| list.ranges().to_vec()))
    }

    /// Adds numbers that must never be used or believed.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn blacklist(&self, range: Range<Seq>) -> Result<(), SuperblockWriteError> {
        self.update(|sb| add_to_blacklist(sb, std::slice::from_ref(&range)))
    }

    /// Drops ranges of the blacklist for which `keep` says no. It must say yes unless every node of every b-tree has been looked at and none
    /// has a bset with such a number (spec 20 §6).
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn retain_blacklist(
        &self,
        keep: impl FnMut(&Range<Seq>) -> bool,
    ) -> Result<(), SuperblockWriteError> {
        self.update(|sb| {
            let Some(mut list) = sb.sections.get::<JournalSeqBlacklist>()? else { return Ok(()) };
            list.retain(keep);
            if list.is_empty() {
                sb.sections.remove(SectionType::JOURNAL_SEQ_BLACKLIST);
            } else {
                sb.sections.put(&list);
            }
            Ok(())
        })
    }

    /// Adds sets of devices that will hold something. Nothing is written if they are there.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn mark_replicas(&self, entries: &[ReplicasEntry]) -> Result<(), SuperblockWriteError> {
        let view = self.view();
        if entries.iter().all(|entry| view.has_replicas(entry)) {
            return Ok(());
        }
        self.update(|sb| {
            let mut replicas = Replicas::load(&sb.sections)?;
            for entry in entries {
                if !replicas.0.contains(entry) {
                    replicas.0.push(entry.clone());
                }
            }
            replicas.store(&mut sb.sections);
            Ok(())
        })
    }

    /// Drops sets of devices for which `keep` says no: nothing is there any more, nor will be (spec 50 §3.1).
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn retain_replicas(
        &self,
        keep: impl FnMut(&ReplicasEntry) -> bool,
    ) -> Result<(), SuperblockWriteError> {
        self.update(|sb| {
            let mut replicas = Replicas::load(&sb.sections)?;
            replicas.0.retain(keep);
            replicas.store(&mut sb.sections);
            Ok(())
        })
    }

    /// Says that there may be b-tree nodes in these sectors.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn mark_btree_nodes(
        &self,
        nodes: impl IntoIterator<Item = (DevIndex, Range<Sectors>)>,
    ) -> Result<(), SuperblockWriteError> {
        self.update(|sb| {
            let mut members = sb.members()?;
            let mut changed = false;
            for (dev, sectors) in nodes {
                if let Some(member) = members.get_mut(dev) {
                    changed |= member.btree_bitmap.mark(sectors);
                }
            }
            if changed {
                sb.put_members(&members);
            }
            Ok(())
        })
    }

    /// Says that a feature is in use: before the first key that needs it (spec 10 §6.1).
    ///
    /// # Errors
    /// See [`SuperblockWriteError`]; [`SuperblockWriteError::Invalid`] for a feature that format 1.13 does not have.
    pub fn use_features(&self, features: Features) -> Result<(), SuperblockWriteError> {
        self.update(|sb| {
            let newer = features.difference(Features::KNOWN_1_13);
            if !newer.is_empty() {
                let why = format!("features of a newer format: {newer}");
                return Err(DecodeError::unsupported("superblock", why));
            }
            sb.features = sb.features.union(features);
            Ok(())
        })
    }

    /// Recovery has come to its end without an error that is left: allocation information is complete, upgrades are done, and what
    /// was to be repaired in silence has been (spec 60 §4.9).
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn recovered(&self) -> Result<(), SuperblockWriteError> {
        self.update(|sb| {
            sb.flags.set_version_upgrade_complete(sb.version);
            sb.compat = sb.compat.union(CompatFeatures::ALLOC_INFO);
            if let Some(mut ext) = sb.sections.get::<Ext>()?
                && ext.silent().next().is_some()
            {
                ext.clear_silent();
                sb.sections.put(&ext);
            }
            Ok(())
        })
    }
}

/// Spec 10 §13: the clean section stays, and means nothing.
fn set_dirty(sb: &mut Superblock) {
    sb.flags.set_clean(false);
    sb.features = sb.features.union(Features::WHEN_READ_WRITE);
}

fn set_last_mount(sb: &mut Superblock, now: UnixSeconds, online: &[DevIndex]) -> Result<(), DecodeError> {
    let mut members = sb.members()?;
    for &dev in online {
        if let Some(member) = members.get_mut(dev) {
            member.last_mount = now;
        }
    }
    sb.put_members(&members);
    Ok(())
}

fn add_to_blacklist(sb: &mut Superblock, ranges: &[Range<Seq>]) -> Result<(), DecodeError> {
    let mut list = sb.sections.get::<JournalSeqBlacklist>()?.unwrap_or_default();
    let before = list.clone();
    ranges.iter().for_each(|range| list.add(range.clone()));
    if list != before {
        sb.features = sb.features.union(Features::JOURNAL_SEQ_BLACKLIST_V3);
        sb.sections.put(&list);
    }
    Ok(())
}

/// The replicas entry of a set of devices that hold copies of journal entries.
pub(in crate::write) fn journal_replicas(devices: impl IntoIterator<Item = DevIndex>) -> ReplicasEntry {
    ReplicasEntry { data_type: DataType::JOURNAL, nr_required: 1, devs: devices.into_iter().collect() }
}

impl Superblocks for SuperblockStore {
    fn has_replicas(&self, entry: &ReplicasEntry) -> bool {
        self.view().has_replicas(entry)
    }

    fn mark_replicas(&self, entry: &ReplicasEntry) -> Result<(), CommitError> {
        SuperblockStore::mark_replicas(self, std::slice::from_ref(entry)).map_err(not_written)
    }

    fn btree_bitmap(&self, dev: DevIndex) -> BtreeBitmap {
        self.view().members.get(dev).map(|m| m.btree_bitmap).unwrap_or_default()
    }

    fn mark_btree_nodes(&self, dev: DevIndex, sectors: Range<Sectors>) -> Result<(), CommitError> {
        SuperblockStore::mark_btree_nodes(self, [(dev, sectors)]).map_err(not_written)
    }
}

fn not_written(error: SuperblockWriteError) -> CommitError {
    CommitError::Device(error.to_string())
}
