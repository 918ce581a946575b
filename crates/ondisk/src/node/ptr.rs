//! Pointers to nodes: the values of interior keys and of roots (spec 30 §8.1).
//!
//! The key's position is the last one the node covers. The value names the node's random number, how much of it has been
//! written, the first position it covers, and one extent pointer per replica. Since format 1.33 other extent entries may stand between
//! or behind the pointers (spec 80 §5.15); they are kept and skipped.

use crate::bkey::{Key, KeyBuf};
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId;
use crate::key_type::KeyType;
use crate::units::{NodeSeq, Sectors};
use crate::values::extent::ExtentPtr;

const WHAT: &str = "btree_ptr_v2";
/// Flag: the node's bounds were changed by a repair, and only here.
const RANGE_UPDATED: u16 = 1;
/// Words of the value before its pointers.
const HEAD_BYTES: usize = 40;
/// Largest value at format 1.13: four replicas.
const VALUE_BYTES_MAX: usize = HEAD_BYTES + 4 * ExtentPtr::BYTES;
/// Words of the extent entries by type (spec 80 §7.3).
const ENTRY_U64S: [usize; 9] = [1, 1, 2, 3, 1, 1, 1, 1, 1];

/// The value of a `btree_ptr_v2` key, entries borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BtreePtrV2<'a> {
    /// The node's random number.
    pub seq: NodeSeq,
    /// Sectors of the node that hold bsets, a multiple of the block size; 0 only in very old volumes.
    pub sectors_written: Sectors,
    /// The bounds of this key count, not those in the node's header.
    pub range_updated: bool,
    /// First position the node covers.
    pub min_key: Bpos,
    /// The extent entries: pointers, and since 1.33 others.
    pub entries: &'a [u8],
}

impl<'a> BtreePtrV2<'a> {
    /// Decodes a value. The field `mem_ptr` means nothing on disk and is ignored (spec 30 §5.6).
    ///
    /// # Errors
    /// If the value is shorter than 40 bytes.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, value);
        r.skip(8)?;
        let seq = NodeSeq(r.u64()?);
        let sectors_written = Sectors(u64::from(r.u16()?));
        let flags = r.u16()?;
        let min_key = Bpos::decode(&mut r)?;
        let range_updated = flags & RANGE_UPDATED != 0;
        Ok(BtreePtrV2 { seq, sectors_written, range_updated, min_key, entries: r.rest() })
    }

    /// Appends the value [`BtreePtrV2::decode`] reads, `mem_ptr` 0.
    ///
    /// # Panics
    /// If `sectors_written` does not fit 16 bits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(0);
        out.put_u64(self.seq.0);
        out.put_u16(u16::try_from(self.sectors_written.0).expect("a node has fewer than 65536 sectors"));
        out.put_u16(if self.range_updated { RANGE_UPDATED } else { 0 });
        self.min_key.encode(out);
        out.extend_from_slice(self.entries);
    }

    /// The pointers, one per replica.
    pub fn ptrs(&self) -> impl Iterator<Item = ExtentPtr> + use<'a> {
        entry_ptrs(self.entries)
    }

    /// Checks the rules for a pointer to a node that ends at `max_key`, as a reader does; writers check with
    /// `for_write`, which adds the rules that do not hold for keys left by older programs.
    ///
    /// # Errors
    /// The id of the first rule broken.
    pub fn check(&self, max_key: Bpos, for_write: bool) -> std::result::Result<(), FsckErrorId> {
        if self.min_key >= max_key {
            return Err(FsckErrorId::BTREE_PTR_V2_MIN_KEY_BAD);
        }
        if !for_write {
            return Ok(());
        }
        if HEAD_BYTES + self.entries.len() > VALUE_BYTES_MAX {
            return Err(FsckErrorId::BTREE_PTR_V2_VAL_TOO_BIG);
        }
        if self.sectors_written == Sectors(0) {
            return Err(FsckErrorId::BTREE_PTR_V2_WRITTEN_0);
        }
        let words = self.entries.chunks_exact(8);
        if words.len() == 0 || !words.clone().all(|w| w[0] & 1 == 1) {
            return Err(FsckErrorId::BTREE_PTR_HAS_NON_PTR);
        }
        Ok(())
    }
}

/// The pointers among extent entries. Ends early at an entry whose length it does not know.
fn entry_ptrs(mut entries: &[u8]) -> impl Iterator<Item = ExtentPtr> + use<'_> {
    std::iter::from_fn(move || {
        loop {
            let word = u64::from_le_bytes(*entries.first_chunk()?);
            let u64s = *ENTRY_U64S.get(word.trailing_zeros() as usize)?;
            entries = entries.get(u64s * 8..)?;
            if word & 1 == 1 {
                return ExtentPtr::from_word(word).ok();
            }
        }
    })
}

/// What a pointer promises about its node: what a reader checks the node against (spec 30 §5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeExpectation {
    /// The b-tree the pointer was found in.
    pub btree: BtreeId,
    /// Level of the node (one less than that of the node with the pointer).
    pub level: u8,
    /// The node's random number; unknown to a `btree_ptr`.
    pub seq: Option<NodeSeq>,
    /// Sectors that hold bsets; unknown to a `btree_ptr`, and in volumes older than 0.14.
    pub sectors_written: Option<Sectors>,
    /// First position covered; unknown to a `btree_ptr`.
    pub min_key: Option<Bpos>,
    /// Last position covered.
    pub max_key: Bpos,
    /// The two bounds here replace those in the node.
    pub range_updated: bool,
}

/// A key that points to a node: either kind of pointer, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePtr<'a> {
    /// What it promises.
    pub expect: NodeExpectation,
    entries: &'a [u8],
}

impl<'a> NodePtr<'a> {
    /// Decodes a `btree_ptr_v2` or `btree_ptr` key that points to a node of this b-tree and level.
    ///
    /// # Errors
    /// If the key is of another type or too short.
    pub fn decode(btree: BtreeId, level: u8, key: Key<'a>) -> Result<NodePtr<'a>> {
        let mut expect = NodeExpectation {
            btree,
            level,
            seq: None,
            sectors_written: None,
            min_key: None,
            max_key: key.k.pos,
            range_updated: false,
        };
        match key.k.ty {
            KeyType::BTREE_PTR => Ok(NodePtr { expect, entries: key.value }),
            KeyType::BTREE_PTR_V2 => {
                let v = BtreePtrV2::decode(key.value)?;
                expect.seq = Some(v.seq);
                expect.sectors_written = Some(v.sectors_written).filter(|s| s.0 != 0);
                expect.min_key = Some(v.min_key);
                expect.range_updated = v.range_updated;
                Ok(NodePtr { expect, entries: v.entries })
            }
            other => {
                Err(DecodeError::invalid(WHAT, format!("a key of type {other} is no pointer to a node")))
            }
        }
    }

    /// The replicas.
    pub fn ptrs(&self) -> impl Iterator<Item = ExtentPtr> + use<'a> {
        entry_ptrs(self.entries)
    }
}

/// The key of a pointer to a node that covers `ptr.min_key … max_key`.
pub fn btree_ptr_key(max_key: Bpos, ptr: &BtreePtrV2<'_>) -> KeyBuf {
    let mut value = Vec::with_capacity(HEAD_BYTES + ptr.entries.len());
    ptr.encode(&mut value);
    KeyBuf::new(KeyType::BTREE_PTR_V2, max_key, 0, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{DevIndex, Gen};

    /// The root of spec 30 §8.1, as stored.
    fn root() -> Vec<u8> {
        let mut b = vec![0x0b, 1, 0x12, 0];
        b.put_zeros(16);
        b.extend([0xff; 20]);
        b.put_zeros(8);
        b.extend([0xf1, 0x2c, 0x07, 0xea, 0xa3, 0x10, 0xd5, 0xf3, 0x18, 0, 0, 0]);
        b.put_zeros(20);
        b.extend([0x01, 0xb0, 0x05, 0, 0, 0, 0, 0]);
        b
    }

    #[test]
    fn the_worked_root_pointer() {
        let stored = root();
        let key = Key::decode(&mut Reader::new("bkey", &stored)).unwrap();
        let v = BtreePtrV2::decode(key.value).unwrap();
        assert_eq!(v.seq, NodeSeq(0xf3d5_10a3_ea07_2cf1));
        assert_eq!((v.sectors_written, v.range_updated, v.min_key), (Sectors(24), false, Bpos::MIN));
        assert_eq!(v.ptrs().collect::<Vec<_>>(), [ExtentPtr::new(DevIndex(0), Sectors(0x5b00), Gen(0))]);
        assert_eq!(v.check(key.k.pos, true), Ok(()));
        let mut out = Vec::new();
        btree_ptr_key(key.k.pos, &v).as_key().encode(&mut out);
        assert_eq!(out, stored);
        let facts = NodePtr::decode(BtreeId::SNAPSHOTS, 0, key).unwrap().expect;
        assert_eq!((facts.seq, facts.max_key), (Some(v.seq), Bpos::MAX));
    }

    #[test]
    fn other_entries_are_skipped() {
        let ptr = ExtentPtr::new(DevIndex(3), Sectors(640), Gen(9)).to_word();
        let mut entries = Vec::new();
        for word in [1 << 7, ptr, 1 << 8, ptr, 1 << 40, ptr] {
            entries.put_u64(word);
        }
        let v = BtreePtrV2 {
            seq: NodeSeq(1),
            sectors_written: Sectors(8),
            range_updated: true,
            min_key: Bpos::MIN,
            entries: &entries,
        };
        assert_eq!(v.ptrs().count(), 2, "the last stands behind an unknown entry");
        assert_eq!(v.check(Bpos::MAX, false), Ok(()));
        assert_eq!(v.check(Bpos::MAX, true), Err(FsckErrorId::BTREE_PTR_V2_VAL_TOO_BIG));
    }

    #[test]
    fn rules_of_pointers() {
        let entries = ExtentPtr::new(DevIndex(0), Sectors(640), Gen(0)).to_word().to_le_bytes();
        let good = BtreePtrV2 {
            seq: NodeSeq(1),
            sectors_written: Sectors(8),
            range_updated: false,
            min_key: Bpos::new(1, 0, 0),
            entries: &entries,
        };
        assert_eq!(good.check(good.min_key, false), Err(FsckErrorId::BTREE_PTR_V2_MIN_KEY_BAD));
        let unwritten = BtreePtrV2 { sectors_written: Sectors(0), ..good };
        assert_eq!(unwritten.check(Bpos::MAX, false), Ok(()));
        assert_eq!(unwritten.check(Bpos::MAX, true), Err(FsckErrorId::BTREE_PTR_V2_WRITTEN_0));
        let bare = BtreePtrV2 { entries: &[], ..good };
        assert_eq!(bare.check(Bpos::MAX, true), Err(FsckErrorId::BTREE_PTR_HAS_NON_PTR));
    }
}
