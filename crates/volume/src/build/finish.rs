//! The end of the build: what is left of the b-trees, the journal entry, the superblocks.
//!
//! The order is what makes a crash harmless: everything else is stable before the first superblock is written, and until then there is
//! none. On each device the layout and the primary copy come first, then the backups, each stable before the next, so that
//! at any moment the device has no superblock, or one of a whole volume.

use std::collections::BTreeMap;

use frazil_ondisk::jset::{JsetBuilder, JsetEntry, JsetKind, Seal, UsageKind, jset_magic};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::features::{CompatFeatures, Features};
use frazil_ondisk::superblock::layout::LAYOUT_SECTOR;
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::superblock::sections::{Clean, Downgrade, Errors, Ext, Replicas};
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, Sectors, UnixSeconds};
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::{Bkey, BtreeId, DataType, Key, KeyType};

use super::derived::{TREES, lay_out, plan};
use super::facts::Both;
use super::write::Nodes;
use crate::derive::Rules;

use super::{Builder, Built, JOURNAL_SEQ, Result, Root, options};

/// Ring index of the first journal entry of a volume (spec 20 §2.3).
const FIRST_RING_INDEX: u32 = 1;

impl Builder {
    /// Writes what is left and, last of all, the superblocks.
    ///
    /// # Errors
    /// [`BuildError::Device`](super::BuildError), [`BuildError::NoSpace`](super::BuildError); the devices then hold no volume.
    pub fn finish(mut self) -> Result<Built> {
        for (btree, sorter) in std::mem::take(&mut self.deferred) {
            sorter.drain(|key| self.push_now(btree, key))?;
        }
        for (btree, list) in self.facts.take_sets() {
            for pos in list {
                self.push_now(btree, Key { k: Bkey::new(KeyType::SET, pos, 0), value: &[] })?;
            }
        }
        let (roots, counters) = self.finish_trees()?;
        let on = self.write_journal(&roots)?;
        self.writer.flush()?;
        let superblock = self.write_superblocks(&roots, &counters, &on)?;
        let levels = roots.iter().map(|(btree, root)| (*btree, root.0 + 1)).collect();
        Ok(Built { superblock, levels, nodes: self.writer.nodes })
    }

    /// Writes the open nodes of the b-trees from outside, then the b-trees about space. Returns all roots, and what is counted.
    fn finish_trees(&mut self) -> Result<(BTreeMap<BtreeId, Root>, Vec<AccountingPos>)> {
        let mut roots = BTreeMap::new();
        for (btree, tree) in std::mem::take(&mut self.trees) {
            let mut nodes = Nodes {
                sb: &self.superblocks[0],
                key: self.key.as_ref(),
                random: &mut self.random,
                rules: &self.rules,
                space: &mut self.space,
                facts: Some(&mut self.facts),
                writer: &mut self.writer,
            };
            roots.extend(tree.finish(&mut nodes)?.map(|root| (btree, root)));
        }
        self.facts.sort();
        let (planned_nodes, planned) = plan(&self.rules, &mut self.space, &self.facts, JOURNAL_SEQ)?;
        let both = Both { known: &self.facts, planned: &planned };
        let before = self.writer.nodes;
        let mut nodes = Nodes {
            sb: &self.superblocks[0],
            key: self.key.as_ref(),
            random: &mut self.random,
            rules: &self.rules,
            space: &mut self.space,
            facts: None,
            writer: &mut self.writer,
        };
        for btree in TREES {
            let root = lay_out(&self.rules, both, btree, JOURNAL_SEQ, &mut nodes)?;
            roots.extend(root.map(|root| (btree, root)));
        }
        assert_eq!(self.writer.nodes - before, planned_nodes.len() as u64, "nodes as planned");
        let counters = both.counters().into_keys().collect();
        mark_bitmaps(&mut self.superblocks[0], &self.rules, both)?;
        Ok((roots, counters))
    }

    /// Writes the journal's only entry, and returns the devices it is on.
    fn write_journal(&mut self, roots: &BTreeMap<BtreeId, Root>) -> Result<Vec<DevIndex>> {
        let sb = &self.superblocks[0];
        let mut entry = JsetBuilder::new();
        put_roots(roots, entry.out());
        JsetEntry::Datetime { seconds: seconds(sb).0 }.encode(entry.out());
        put_counters(self.key_version, entry.out());
        let seal = Seal {
            magic: jset_magic(&sb.uuid),
            seq: JOURNAL_SEQ,
            version: sb.version,
            kind: JsetKind::Flush { last_seq: JOURNAL_SEQ },
            has_overwrites: false,
            csum_type: sb.metadata_checksum()?.metadata_type(sb.encryption()),
            key: self.key.as_ref(),
        };
        let bytes = entry.finish(&seal, sb.block_bytes() as usize)?;
        let mut members = sb.members()?;
        let wanted = usize::from(sb.flags.metadata_replicas());
        let mut on = Vec::new();
        for index in 0..self.superblocks.len() {
            let (own, dev) = (&self.superblocks[index], DevIndex(index as u8));
            let member = members.get_mut(dev).expect("every device is a member");
            if on.len() == wanted || member.flags.durability() == 0 {
                continue;
            }
            let ring = own.journal_buckets()?;
            let bucket = ring.bucket(FIRST_RING_INDEX).expect("a ring has at least 8 buckets");
            let at = bucket.0 * member.bucket_size().0 * SECTOR_BYTES;
            self.writer.device(dev).write_at(at, &bytes)?;
            member.last_journal_bucket = FIRST_RING_INDEX;
            member.last_journal_bucket_offset = (bytes.len() as u64 / SECTOR_BYTES) as u32;
            on.push(dev);
        }
        self.superblocks[0].put_members(&members);
        Ok(on)
    }

    fn write_superblocks(
        &mut self,
        roots: &BTreeMap<BtreeId, Root>,
        counters: &[AccountingPos],
        journal_on: &[DevIndex],
    ) -> Result<Superblock> {
        let mut sb = self.superblocks[0].clone();
        let compression = counters.iter().filter_map(|what| match what {
            AccountingPos::Compression { ty } => Some(options::compression_feature(Some(*ty))),
            _ => None,
        });
        sb.features = compression.fold(sb.features.union(self.features), Features::union);
        sb.features = sb.features.difference(Features::WHEN_DIRTY);
        sb.compat = CompatFeatures::WHEN_INITIALIZED.union(CompatFeatures::WHEN_CLEAN);
        sb.flags.set_initialized(true);
        sb.flags.set_clean(true);
        sb.flags.set_version_upgrade_complete(sb.version);
        replicas(counters, journal_on).store(&mut sb.sections);
        sb.sections.put(&Errors::default());
        sb.sections.put(&Ext::default());
        sb.sections.put(&Downgrade::of_1_13(false));
        let mut list = Vec::new();
        put_counters(self.key_version, &mut list);
        put_roots(roots, &mut list);
        sb.sections.put(&Clean::new(JOURNAL_SEQ, list, Clean::SIZE_1_13));

        let mut members = sb.members()?;
        members.list.iter_mut().for_each(|m| m.flags.set_freespace_initialized(true));
        sb.put_members(&members);
        self.publish(sb)?;
        for own in &self.superblocks {
            let mut layout = Vec::new();
            own.layout.encode(&mut layout);
            self.writer.device(own.dev_idx).write_at(LAYOUT_SECTOR.0 * SECTOR_BYTES, &layout)?;
        }
        self.write_copies()?;
        Ok(self.superblocks[0].clone())
    }

    /// Makes `sb` the superblock that all devices share.
    fn publish(&mut self, mut sb: Superblock) -> Result<()> {
        let online: Vec<DevIndex> = self.superblocks.iter().map(|s| s.dev_idx).collect();
        sb.stamp(seconds(&sb), &online)?;
        for own in &mut self.superblocks {
            *own = own.with_shared_from(&sb);
            own.validate()?;
        }
        Ok(())
    }

    /// Writes the copies round by round, as a running volume does it: a torn copy has an intact neighbour.
    fn write_copies(&mut self) -> Result<()> {
        let rounds = self.superblocks.iter().map(|s| s.layout.copies().len()).max().unwrap_or(0);
        for round in 0..rounds {
            for own in &self.superblocks {
                if let Some(sector) = own.layout.copies().nth(round) {
                    let mut bytes = own.encode_copy(sector)?;
                    bytes.resize(bytes.len().next_multiple_of(own.block_bytes() as usize), 0);
                    self.writer.device(own.dev_idx).write_at(sector.0 * SECTOR_BYTES, &bytes)?;
                }
            }
            self.writer.flush()?;
        }
        Ok(())
    }
}

/// Marks in each member the buckets with nodes (spec 10 §10).
fn mark_bitmaps(sb: &mut Superblock, rules: &Rules, both: Both<'_>) -> Result<()> {
    let mut members = sb.members()?;
    for (at, _) in both.buckets(rules).filter(|(_, alloc)| alloc.data_type == DataType::BTREE) {
        let member = members.get_mut(at.dev).expect("buckets are of members");
        let sectors = member.bucket_range(at.bucket).expect("the bucket exists");
        member.btree_bitmap.mark(Sectors(sectors.start)..Sectors(sectors.end));
    }
    sb.put_members(&members);
    Ok(())
}

/// The volume's time of creation.
fn seconds(sb: &Superblock) -> UnixSeconds {
    UnixSeconds(sb.time_base().base_ns / 1_000_000_000)
}

fn put_roots(roots: &BTreeMap<BtreeId, Root>, out: &mut Vec<u8>) {
    for (btree, (level, key)) in roots {
        JsetEntry::BtreeRoot { btree: *btree, level: *level, key: Some(key.as_key()) }.encode(out);
    }
}

/// The key version, and the clocks, which have not begun to run.
fn put_counters(key_version: u64, out: &mut Vec<u8>) {
    JsetEntry::Usage { kind: UsageKind::KEY_VERSION, value: key_version }.encode(out);
    for write in [false, true] {
        JsetEntry::Clock { write, time: Sectors(0) }.encode(out);
    }
}

/// Which sets of devices hold something (spec 50 §3.1).
fn replicas(counters: &[AccountingPos], journal_on: &[DevIndex]) -> Replicas {
    let counted = counters.iter().filter_map(|what| match *what {
        AccountingPos::Replicas { data_type, nr_required, devs } => {
            Some(ReplicasEntry { data_type, nr_required, devs: devs.iter().collect() })
        }
        _ => None,
    });
    let mut list: Vec<ReplicasEntry> = counted.collect();
    list.push(ReplicasEntry { data_type: DataType::JOURNAL, nr_required: 1, devs: journal_on.to_vec() });
    list.sort();
    Replicas(list)
}
