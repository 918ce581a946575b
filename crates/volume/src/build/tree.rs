//! A b-tree from the bottom up.
//!
//! Keys come in ascending order and fill a leaf. When the next one would not fit, the leaf is written and a pointer to it becomes
//! a key of the level above, which fills in the same way. So at any moment one node of each level is open, nothing
//! that is written is ever changed, and the tree has the least possible depth.
//!
//! **How full.** Nodes are filled to three quarters: whoever changes the volume later appends to them, and a node without room
//! would have to be split at the first change. The estimate must be right before the node's key format is known: it counts the
//! words of every key under the format that the keys so far would get. The last node of each level ends at the largest
//! position there is, which needs a wider format; so a node also stays below its full size under *that* format.
//!
//! **Bounds.** A node ends at its last key and the next one begins right behind it; the first begins at the smallest position and the
//! last ends at the largest (spec 30 §8.2). The root is the node that is alone on its level.

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::node::{FormatBuilder, KeyFormat, LEVELS, NODE_HEADER_BYTES};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf};

use super::error::{BuildError, Result};

/// How full a node gets, as a fraction.
const FILL: (usize, usize) = (3, 4);
/// A bset's header counts its words with 16 bits.
const BSET_U64S_MAX: usize = u16::MAX as usize;

/// A node whose keys are complete.
pub(super) struct FullNode<'a> {
    pub(super) btree: BtreeId,
    pub(super) level: u8,
    pub(super) min: Bpos,
    pub(super) max: Bpos,
    pub(super) format: KeyFormat,
    keys: &'a [u8],
}

impl FullNode<'_> {
    /// The keys, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let mut r = Reader::new("key of a new node", self.keys);
        std::iter::from_fn(move || {
            (r.remaining() > 0).then(|| Key::decode(&mut r).expect("encoded by Level::push"))
        })
    }
}

/// Takes complete nodes and says where they are.
pub(super) trait NodeSink {
    /// Places a node, and returns the key that points to it.
    fn place(&mut self, node: &FullNode<'_>) -> Result<KeyBuf>;
}

/// The root of a finished tree: its level, and the pointer to it.
pub(super) type Root = (u8, KeyBuf);

/// A tree under construction.
pub(super) struct TreeBuilder {
    btree: BtreeId,
    limits: Limits,
    levels: Vec<Level>,
}

/// Words of keys that a node may have.
#[derive(Clone, Copy)]
struct Limits {
    /// Under the format its keys would get.
    wanted: usize,
    /// Under any bounds.
    most: usize,
}

impl TreeBuilder {
    /// An empty tree whose nodes have that size.
    pub(super) fn new(btree: BtreeId, node: Sectors) -> TreeBuilder {
        let room = (node.0 * SECTOR_BYTES) as usize - NODE_HEADER_BYTES;
        let most = (room / 8).min(BSET_U64S_MAX);
        let limits = Limits { wanted: most * FILL.0 / FILL.1, most };
        TreeBuilder { btree, limits, levels: Vec::new() }
    }

    /// Appends a key.
    ///
    /// # Panics
    /// If it is not above the last one.
    pub(super) fn push(&mut self, key: Key<'_>, sink: &mut impl NodeSink) -> Result<()> {
        self.push_at(0, key, sink)
    }

    fn push_at(&mut self, level: usize, key: Key<'_>, sink: &mut impl NodeSink) -> Result<()> {
        if level == self.levels.len() {
            if level == usize::from(LEVELS) {
                return Err(BuildError::TooDeep(self.btree));
            }
            self.levels.push(Level::new());
        }
        let open = &mut self.levels[level];
        assert!(open.last.is_none_or(|last| last < key.k.pos), "keys of {} out of order", self.btree);
        if !open.push(key, self.limits) {
            let max = open.last.expect("a key fits an empty node");
            let pointer = self.close(level, max, sink)?;
            self.push_at(level + 1, pointer.as_key(), sink)?;
            let min = max.successor().expect("there is a key behind it");
            self.levels[level].restart(min);
            assert!(self.levels[level].push(key, self.limits), "a key fits an empty node");
        }
        self.levels[level].last = Some(key.k.pos);
        Ok(())
    }

    fn close(&mut self, level: usize, max: Bpos, sink: &mut impl NodeSink) -> Result<KeyBuf> {
        let (btree, open) = (self.btree, &mut self.levels[level]);
        open.closed += 1;
        let mut format = open.format.clone();
        format.add_pos(max);
        let node = FullNode {
            btree,
            level: level as u8,
            min: open.min,
            max,
            format: format.build(),
            keys: &open.keys,
        };
        sink.place(&node)
    }

    /// Places what is still open. Nothing if no key came: an empty tree has no node (spec 30 §8.3).
    pub(super) fn finish(mut self, sink: &mut impl NodeSink) -> Result<Option<Root>> {
        let mut level = 0;
        while level < self.levels.len() {
            let pointer = self.close(level, Bpos::MAX, sink)?;
            if self.levels[level].closed == 1 {
                return Ok(Some((level as u8, pointer)));
            }
            self.push_at(level + 1, pointer.as_key(), sink)?;
            level += 1;
        }
        Ok(None)
    }
}

/// The open node of a level.
struct Level {
    min: Bpos,
    last: Option<Bpos>,
    /// Nodes that were closed.
    closed: u64,
    /// The keys, unpacked, back to back.
    keys: Vec<u8>,
    nr: usize,
    value_u64s: usize,
    /// What the keys and the lower bound ask of the format.
    format: FormatBuilder,
    /// What a packed key costs at present: with the last key as upper bound, and with the largest position as such.
    tight: KeyFormat,
    wide: KeyFormat,
    size_max: u32,
}

impl Level {
    fn new() -> Level {
        let mut level = Level {
            min: Bpos::MIN,
            last: None,
            closed: 0,
            keys: Vec::new(),
            nr: 0,
            value_u64s: 0,
            format: FormatBuilder::new(),
            tight: KeyFormat::CURRENT,
            wide: KeyFormat::CURRENT,
            size_max: 0,
        };
        level.restart(Bpos::MIN);
        level
    }

    /// Begins the next node.
    fn restart(&mut self, min: Bpos) {
        self.min = min;
        self.keys.clear();
        (self.nr, self.value_u64s, self.size_max) = (0, 0, 0);
        self.format = FormatBuilder::new();
        self.format.add_pos(min);
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.tight = self.format.build();
        let mut wide = self.format.clone();
        wide.add_pos(Bpos::MAX);
        self.wide = wide.build();
    }

    /// Appends the key if it fits.
    fn push(&mut self, key: Key<'_>, limits: Limits) -> bool {
        let before = self.format.clone();
        self.format.add_key(&key.k);
        // Room for growth is added to the size by its largest value, so a larger one may cost a word even if it packs.
        if !self.tight.packs(&key.k) || key.k.size > self.size_max {
            self.rebuild();
        }
        let (nr, values) = (self.nr + 1, self.value_u64s + key.value.len() / 8);
        let fits = nr * self.tight.key_u64s() + values <= limits.wanted
            && nr * self.wide.key_u64s() + values <= limits.most;
        if !fits {
            self.format = before;
            return false;
        }
        (self.nr, self.value_u64s, self.size_max) = (nr, values, self.size_max.max(key.k.size));
        key.encode(&mut self.keys);
        true
    }
}

#[cfg(test)]
mod tests;
