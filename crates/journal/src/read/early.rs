//! The early pass: what recovery needs before it can look at any b-tree (spec 20 §3.2, spec 60 §4.4).
//!
//! The same sub-entries stand in the superblock's clean section, so [`Early::apply`] serves clean volumes too.

use std::collections::BTreeMap;
use std::ops::Range;

use frazil_ondisk::bkey::{Key, KeyBuf};
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::jset::{self, JsetEntry, UsageKind};
use frazil_ondisk::key_type::KeyType;
use frazil_ondisk::units::{Sectors, Seq};

use super::{ReadError, Used, has_rewind};

/// The root of a b-tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Level of the root node.
    pub level: u8,
    /// Pointer to it; `None`: there was a root, but it was lost.
    pub key: Option<KeyBuf>,
}

/// Roots, counters and blacklist entries; of each the last one applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Early {
    /// Roots by b-tree.
    pub roots: BTreeMap<BtreeId, Root>,
    /// Largest key version handed out.
    pub key_version: u64,
    /// Sectors read.
    pub read_clock: Sectors,
    /// Sectors written.
    pub write_clock: Sectors,
    /// Blacklisted ranges found in entries, end exclusive.
    pub blacklist: Vec<Range<Seq>>,
}

impl Early {
    /// Applies a list of sub-entries. Those that cannot be decoded, and those that do not matter here, are passed over.
    pub fn apply(&mut self, list: &[u8]) {
        for entry in jset::entries(list).flatten() {
            match entry {
                JsetEntry::BtreeRoot { btree, level, key } => {
                    self.roots.insert(btree, Root { level, key: key.map(root_key) });
                }
                JsetEntry::Usage { kind: UsageKind::KEY_VERSION, value } => self.key_version = value,
                JsetEntry::Clock { write: true, time } => self.write_clock = time,
                JsetEntry::Clock { write: false, time } => self.read_clock = time,
                JsetEntry::Blacklist { seq } => self.blacklist.push(seq..Seq(seq.0.saturating_add(1))),
                JsetEntry::BlacklistV2 { start, end } if start <= end => {
                    self.blacklist.push(start..Seq(end.0.saturating_add(1)));
                }
                _ => {}
            }
        }
    }
}

/// The key without the memory address in its first value word (spec 20 §3.2).
fn root_key(key: Key<'_>) -> KeyBuf {
    let mut key = key.to_owned();
    if key.k.ty == KeyType::BTREE_PTR_V2 && key.value.len() >= 8 {
        key.value[..8].fill(0);
    }
    key
}

/// The early pass over the used entries, in order.
pub(super) fn early(used: &[Used]) -> Result<Early, ReadError> {
    let mut early = Early::default();
    for entry in used {
        if has_rewind(entry.jset.list()) {
            return Err(ReadError::Rewind { seq: entry.seq });
        }
        early.apply(entry.jset.list());
    }
    Ok(early)
}
