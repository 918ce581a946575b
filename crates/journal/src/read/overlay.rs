//! The keys to be replayed, as an overlay over the b-trees on disk (spec 60 §4.5, §4.6).

use std::collections::BTreeMap;
use std::fmt;

use frazil_ondisk::bkey::{BKEY_BYTES, Key};
use frazil_ondisk::bpos::Bpos;
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::bytes::Reader;
use frazil_ondisk::jset::{EntryType, Frames};
use frazil_ondisk::key_type::KeyType;
use frazil_ondisk::units::Seq;

use super::{Problem, Used};

/// Where a key is: byte `at` of `bytes`, all lists of the used entries back to back.
#[derive(Clone, Copy)]
struct Ref {
    pos: Bpos,
    seq: Seq,
    at: usize,
}

/// The newest key for each position, per b-tree and level, and the accounting differences.
#[derive(Default)]
pub struct Overlay {
    bytes: Vec<u8>,
    levels: BTreeMap<(BtreeId, u8), Vec<Ref>>,
    deltas: Vec<Ref>,
}

/// The overlay of one level of one b-tree, sorted by position. Deleted keys are in it: they hide what the b-tree has.
#[derive(Clone, Copy)]
pub struct LevelKeys<'a> {
    bytes: &'a [u8],
    refs: &'a [Ref],
}

/// A change of a counter of the accounting b-tree. Its key's version says whether the b-tree already has it (spec 50 §2.8).
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// The entry it stands in.
    pub seq: Seq,
    /// Position, version and difference.
    pub key: Key<'a>,
}

impl Overlay {
    /// Collects the keys of the used entries, which are in order. Clears the in-memory pointer of b-tree pointers on the way.
    pub(super) fn build(used: &mut [Used], problems: &mut Vec<Problem>) -> Overlay {
        let mut overlay = Overlay::default();
        for entry in used.iter() {
            let base = overlay.bytes.len();
            overlay.bytes.extend_from_slice(entry.jset.list());
            overlay.collect(entry, base, problems);
        }
        let Overlay { bytes, levels, deltas } = &mut overlay;
        for refs in levels.values_mut() {
            // Stable, so among equals the order of the journal remains and the last one is the newest (INV-2).
            refs.sort_by_key(|r| r.pos);
            keep_last(refs);
            for r in refs.iter() {
                clear_memory_pointer(&mut bytes[r.at..]);
            }
        }
        deltas.sort_by_key(|r| r.pos);
        overlay
    }

    fn collect(&mut self, entry: &Used, base: usize, problems: &mut Vec<Problem>) {
        for frame in Frames::new(entry.jset.list()).flatten() {
            if frame.header.ty != EntryType::BTREE_KEYS {
                continue;
            }
            let (btree, level) = (frame.header.btree, frame.header.level);
            let mut r = Reader::new("bkey", frame.payload);
            while r.remaining() > 0 {
                let at = base + frame.end() - r.remaining();
                let key = match Key::decode(&mut r) {
                    Ok(key) => key,
                    Err(error) => {
                        problems.push(Problem::BadSubEntry { seq: entry.seq, reason: error.to_string() });
                        break;
                    }
                };
                let found = Ref { pos: key.k.pos, seq: entry.seq, at };
                if btree == BtreeId::ACCOUNTING && level == 0 && key.k.ty == KeyType::ACCOUNTING {
                    self.deltas.push(found);
                } else {
                    self.levels.entry((btree, level)).or_default().push(found);
                }
            }
        }
    }

    /// The overlay of one level.
    pub fn level(&self, btree: BtreeId, level: u8) -> LevelKeys<'_> {
        let refs = self.levels.get(&(btree, level)).map_or(&[][..], Vec::as_slice);
        LevelKeys { bytes: &self.bytes, refs }
    }

    /// Which levels of which b-trees have keys.
    pub fn levels(&self) -> impl Iterator<Item = (BtreeId, u8)> + '_ {
        self.levels.keys().copied()
    }

    /// The accounting differences by position, those of one position in journal order.
    pub fn deltas(&self) -> impl ExactSizeIterator<Item = Delta<'_>> {
        self.deltas.iter().map(|r| Delta { seq: r.seq, key: key_at(&self.bytes, r.at) })
    }

    /// Whether there is nothing to replay.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.deltas.is_empty()
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<_> = self.levels.iter().map(|((b, l), refs)| (b, l, refs.len())).collect();
        f.debug_struct("Overlay").field("levels", &levels).field("deltas", &self.deltas.len()).finish()
    }
}

impl<'a> LevelKeys<'a> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.refs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// Index of the first key at or after `pos`.
    pub fn lower_bound(&self, pos: Bpos) -> usize {
        self.refs.partition_point(|r| r.pos < pos)
    }

    /// Position of the `i`-th key.
    pub fn pos(&self, i: usize) -> Bpos {
        self.refs[i].pos
    }

    /// The `i`-th key.
    pub fn key(&self, i: usize) -> Key<'a> {
        key_at(self.bytes, self.refs[i].at)
    }

    /// The entry the `i`-th key stands in.
    pub fn seq(&self, i: usize) -> Seq {
        self.refs[i].seq
    }

    /// The key at exactly `pos`.
    pub fn get(&self, pos: Bpos) -> Option<Key<'a>> {
        let i = self.lower_bound(pos);
        (i < self.len() && self.pos(i) == pos).then(|| self.key(i))
    }

    /// All keys in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Key<'a>> + ExactSizeIterator + use<'a> {
        let (bytes, refs) = (self.bytes, self.refs);
        refs.iter().map(move |r| key_at(bytes, r.at))
    }
}

fn key_at(bytes: &[u8], at: usize) -> Key<'_> {
    Key::decode(&mut Reader::new("bkey", &bytes[at..])).expect("decoded before, when the overlay was built")
}

/// Keeps the last of equal positions.
fn keep_last(refs: &mut Vec<Ref>) {
    let mut kept = 0;
    for i in 0..refs.len() {
        if i + 1 == refs.len() || refs[i].pos != refs[i + 1].pos {
            refs[kept] = refs[i];
            kept += 1;
        }
    }
    refs.truncate(kept);
}

/// The first value word of a `btree_ptr_v2` is somebody's memory address (spec 20 §3.2). `key` starts with a whole key.
fn clear_memory_pointer(key: &mut [u8]) {
    const TYPE_OFFSET: usize = 2;
    if key[TYPE_OFFSET] == KeyType::BTREE_PTR_V2.0 && usize::from(key[0]) * 8 >= BKEY_BYTES + 8 {
        key[BKEY_BYTES..BKEY_BYTES + 8].fill(0);
    }
}
