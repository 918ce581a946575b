//! Cutting keys that cover a range (spec 40 §8.1, §8.2).
//!
//! Overwriting a part of an extent leaves pieces of it. A piece names the same payload; what changes is the range of the
//! key and, when the front goes, where in the payload the live part begins.

use super::crc::CrcEntry;
use super::entry::{Entries, Entry};
use super::ptr::ExtentPtr;
use crate::bkey::KeyBuf;
use crate::error::{DecodeError, Result};
use crate::key_type::KeyType;
use crate::units::{SECTOR_BYTES, Sectors};
use crate::values::reflink::ReflinkP;

/// Bytes before the entries or the inline data of an indirect key: its reference count.
const REFCOUNT_BYTES: usize = 8;

/// Drops the first `sectors` of a key; its end stays where it is. A reflink pointer's paddings become the business of
/// the trigger that inserts it (spec 40 §10).
///
/// # Errors
/// If the value cannot be decoded or the cut leads out of an entry's fields. The key is then unchanged.
///
/// # Panics
/// If `sectors` is more than the key's size.
pub fn cut_front(key: &mut KeyBuf, sectors: u32) -> Result<()> {
    let left = key.k.size.checked_sub(sectors).expect("a cut is not longer than the key");
    match key.k.ty {
        KeyType::EXTENT => key.value = advance(&key.value, 0, sectors)?,
        KeyType::REFLINK_V => key.value = advance(&key.value, REFCOUNT_BYTES, sectors)?,
        KeyType::REFLINK_P => {
            let mut p = ReflinkP::decode(&key.value)?;
            p.idx += u64::from(sectors);
            if p.idx > ReflinkP::IDX_MAX {
                return Err(too_far("reflink_p"));
            }
            let mut value = Vec::with_capacity(key.value.len());
            p.encode(&mut value);
            key.value = value.into();
        }
        KeyType::INLINE_DATA => key.value = drop_front(&key.value, 0, sectors),
        KeyType::INDIRECT_INLINE_DATA => key.value = drop_front(&key.value, REFCOUNT_BYTES, sectors),
        _ => {}
    }
    key.k.size = left;
    Ok(())
}

/// Keeps the first `sectors` of a key.
///
/// # Panics
/// If `sectors` is more than the key's size.
pub fn cut_back(key: &mut KeyBuf, sectors: u32) {
    let dropped = key.k.size.checked_sub(sectors).expect("a cut is not longer than the key");
    key.k.pos.offset -= u64::from(dropped);
    key.k.size = sectors;
    let head = match key.k.ty {
        KeyType::INLINE_DATA => 0,
        KeyType::INDIRECT_INLINE_DATA => REFCOUNT_BYTES,
        _ => return,
    };
    let kept = usize::try_from(u64::from(sectors) * SECTOR_BYTES).unwrap_or(usize::MAX).saturating_add(head);
    if kept < key.value.len() {
        key.value = key.value[..kept].into();
    }
}

fn too_far(what: &'static str) -> DecodeError {
    DecodeError::invalid(what, "the cut leads beyond what the entry can say")
}

/// The value with its entries moved `sectors` further into their payloads.
fn advance(value: &[u8], head: usize, sectors: u32) -> Result<Box<[u8]>> {
    let mut out = Vec::with_capacity(value.len());
    out.extend_from_slice(value.get(..head).ok_or_else(|| too_far("reflink_v"))?);
    let mut plain = true;
    for entry in Entries::new(&value[head..]) {
        match entry? {
            Entry::Ptr(ptr) if plain && !ptr.is_invalid() => {
                let offset = ptr.offset.0 + u64::from(sectors);
                if offset > ExtentPtr::OFFSET_MAX {
                    return Err(too_far("extent pointer"));
                }
                Entry::Ptr(ExtentPtr { offset: Sectors(offset), ..ptr }).encode(&mut out);
            }
            Entry::Crc(mut entry) => {
                plain = false;
                entry.crc.offset = entry.crc.offset.saturating_add(sectors);
                if !CrcEntry::fits(&entry) {
                    return Err(too_far("crc"));
                }
                entry.encode(&mut out);
            }
            entry => entry.encode(&mut out),
        }
    }
    Ok(out.into())
}

/// Inline data without its first `sectors`.
fn drop_front(value: &[u8], head: usize, sectors: u32) -> Box<[u8]> {
    let head = head.min(value.len());
    let drop =
        usize::try_from(u64::from(sectors) * SECTOR_BYTES).unwrap_or(usize::MAX).min(value.len() - head);
    [&value[..head], &value[head + drop..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::super::crc::Crc;
    use super::super::pointers::Pointers;
    use super::*;
    use crate::bpos::Bpos;
    use crate::units::{DevIndex, Gen};

    fn extent(size: u32, entries: &[Entry<'_>]) -> KeyBuf {
        let mut value = Vec::new();
        entries.iter().for_each(|e| e.encode(&mut value));
        KeyBuf::new(KeyType::EXTENT, Bpos::new(4096, 1000, u32::MAX), size, value)
    }

    #[test]
    fn a_plain_pointer_advances_and_a_crc_remembers() {
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(100), Gen(0));
        let crc = Crc { csum_type: 5, ..Crc::plain(16) };
        let crc = Entry::Crc(crc.smallest_entry().expect("fits"));
        let mut key = extent(16, &[Entry::Ptr(ptr), crc, Entry::Ptr(ptr)]);
        cut_front(&mut key, 6).unwrap();
        cut_back(&mut key, 8);
        assert_eq!((key.k.pos.offset, key.k.size, key.k.start_offset()), (998, 8, Some(990)));
        let copies: Vec<_> = Pointers::new(&key.value, 8).map(|c| c.unwrap()).collect();
        assert_eq!((copies[0].ptr.offset, copies[0].crc), (Sectors(106), Crc::plain(8)));
        assert_eq!((copies[1].ptr.offset, copies[1].crc.offset), (Sectors(100), 6));
        assert_eq!(copies[1].crc.uncompressed_size, 16);
    }

    #[test]
    fn a_reflink_pointer_cannot_leave_its_space() {
        let mut value = Vec::new();
        ReflinkP { idx: ReflinkP::IDX_MAX, flags: 0, front_pad: 0, back_pad: 0 }.encode(&mut value);
        let mut key = KeyBuf::new(KeyType::REFLINK_P, Bpos::new(4096, 1000, u32::MAX), 16, value);
        let before = key.clone();
        assert!(cut_front(&mut key, 1).is_err());
        assert_eq!(key, before);
    }

    #[test]
    fn impossible_cuts_leave_the_key_alone() {
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(ExtentPtr::OFFSET_MAX), Gen(0));
        let mut key = extent(16, &[Entry::Ptr(ptr)]);
        let before = key.clone();
        assert!(cut_front(&mut key, 1).is_err());
        assert_eq!(key, before);
    }

    #[test]
    fn inline_data_is_cut_with_its_key() {
        let data: Vec<u8> = (0..1024u32).map(|i| (i / 8) as u8).collect();
        let key = KeyBuf::new(KeyType::INLINE_DATA, Bpos::new(4096, 8, 1), 8, data.clone());
        let mut front = key.clone();
        cut_front(&mut front, 1).unwrap();
        assert_eq!(*front.value, data[512..]);
        cut_front(&mut front, 4).unwrap();
        assert_eq!((front.value.len(), front.k.size), (0, 3));
        let mut back = key.clone();
        cut_back(&mut back, 1);
        assert_eq!(*back.value, data[..512]);
        cut_back(&mut back, 0);
        assert!(back.value.is_empty());

        let indirect = [&7u64.to_le_bytes()[..], &data].concat();
        let mut key = KeyBuf::new(KeyType::INDIRECT_INLINE_DATA, Bpos::new(0, 8, 0), 8, indirect);
        cut_front(&mut key, 1).unwrap();
        cut_back(&mut key, 1);
        assert_eq!(*key.value, [&7u64.to_le_bytes()[..], &data[512..]].concat());
    }
}
