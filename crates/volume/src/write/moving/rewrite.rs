//! What a key says after one of its copies was moved.
//!
//! Only the copy that was moved changes: where it lies, and, if only its live part went along, how it is encoded. Other copies stay as they are;
//! droppable ones are dropped, as they are whenever a key is rewritten (spec 50 §7 allows to keep them, which is of use only where they are cached on
//! purpose). Entries about the key as a whole stay.

use frazil_ondisk::error::{DecodeError, Result};
use frazil_ondisk::values::extent::{Crc, Entries, Entry, ExtentPtr, Pointers, Replica};
use frazil_ondisk::{KeyBuf, KeyType};

/// Bytes before the entries of an indirect extent: its reference count.
const REFCOUNT_BYTES: usize = 8;

/// Where the entries of a key that has copies begin; `None` for other keys.
fn entries_at(key: &KeyBuf) -> Option<usize> {
    match key.k.ty {
        KeyType::EXTENT => Some(0),
        KeyType::REFLINK_V => Some(REFCOUNT_BYTES).filter(|at| *at <= key.value.len()),
        _ => None,
    }
}

/// The copies of a key; none if it is of a kind that has none.
pub(in crate::write) fn copies(key: &KeyBuf) -> Result<Vec<Replica>> {
    let Some(at) = entries_at(key) else { return Ok(Vec::new()) };
    Pointers::new(&key.value[at..], key.k.size).collect()
}

/// The key with the copy at `old` at `ptr` instead, encoded as `crc` says.
///
/// # Errors
/// If the key cannot be decoded, or cannot say that.
pub(super) fn moved(key: &KeyBuf, old: &ExtentPtr, ptr: ExtentPtr, crc: Crc) -> Result<KeyBuf> {
    let mut copies = copies(key)?;
    copies.retain(|copy| !copy.ptr.cached);
    let mine = copies.iter_mut().find(|copy| copy.ptr == *old);
    let mine = mine.ok_or_else(|| invalid("the copy is not there"))?;
    (mine.ptr, mine.crc) = (ptr, crc);
    with_copies(key, copies)
}

/// The key without those copies that may be `dropped`; unchanged if none would be left.
///
/// # Errors
/// If the key cannot be decoded.
pub(in crate::write) fn without(key: &KeyBuf, dropped: impl Fn(&ExtentPtr) -> bool) -> Result<KeyBuf> {
    let mut copies = copies(key)?;
    copies.retain(|copy| !dropped(&copy.ptr));
    if copies.is_empty() { Ok(key.clone()) } else { with_copies(key, copies) }
}

/// The key with these copies instead of its own.
fn with_copies(key: &KeyBuf, mut copies: Vec<Replica>) -> Result<KeyBuf> {
    let at = entries_at(key).ok_or_else(|| invalid("a key without copies"))?;
    // What needs no entry comes before all that has one, because an entry governs whatever follows it (spec 40 §7.2).
    copies.sort_by_key(|copy| copy.crc.needs_entry());
    let mut value = key.value[..at].to_vec();
    let mut in_force = Crc::plain(key.k.size);
    for copy in &copies {
        if copy.crc != in_force {
            let entry = copy.crc.smallest_entry().ok_or_else(|| invalid("no entry can say that"))?;
            Entry::Crc(entry).encode(&mut value);
            in_force = copy.crc;
        }
        if let Some(stripe) = copy.stripe {
            Entry::StripePtr(stripe).encode(&mut value);
        }
        Entry::Ptr(copy.ptr).encode(&mut value);
    }
    for entry in Entries::new(&key.value[at..]) {
        let entry = entry?;
        if !matches!(entry, Entry::Crc(_) | Entry::Ptr(_) | Entry::StripePtr(_)) {
            entry.encode(&mut value);
        }
    }
    Ok(KeyBuf { k: key.k, value: value.into() })
}

fn invalid(why: &'static str) -> DecodeError {
    DecodeError::invalid("extent to be moved", why)
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::Bpos;
    use frazil_ondisk::compression::CompressionOption;
    use frazil_ondisk::units::{DevIndex, Gen, Sectors};
    use frazil_ondisk::values::extent::Rebalance;

    use super::*;

    fn ptr(dev: u8, offset: u64) -> ExtentPtr {
        ExtentPtr::new(DevIndex(dev), Sectors(offset), Gen(3))
    }

    fn crc(lo: u64, offset: u32) -> Crc {
        let csum = frazil_ondisk::checksum::Checksum { lo, hi: 0 };
        Crc { csum_type: 5, csum, offset, ..Crc::plain(64) }
    }

    fn key(ty: KeyType, head: &[u8], entries: &[Entry<'_>]) -> KeyBuf {
        let mut value = head.to_vec();
        entries.iter().for_each(|e| e.encode(&mut value));
        KeyBuf::new(ty, Bpos::new(4096, 1000, 7), 16, value)
    }

    fn entry(crc: Crc) -> Entry<'static> {
        Entry::Crc(crc.smallest_entry().unwrap())
    }

    #[test]
    fn only_the_copy_that_moved_changes() {
        let cached = ExtentPtr { cached: true, ..ptr(2, 500) };
        let rebalance = Entry::Rebalance(Rebalance::new(CompressionOption(0x53), 0));
        let both = [
            entry(crc(1, 8)),
            Entry::Ptr(ptr(0, 100)),
            Entry::Ptr(ptr(1, 200)),
            Entry::Ptr(cached),
            rebalance,
        ];
        let before = key(KeyType::EXTENT, &[], &both);
        let whole = moved(&before, &ptr(1, 200), ptr(1, 300), crc(1, 8)).unwrap();
        let wanted = [entry(crc(1, 8)), Entry::Ptr(ptr(0, 100)), Entry::Ptr(ptr(1, 300)), rebalance];
        assert_eq!(whole, key(KeyType::EXTENT, &[], &wanted));
        let part = moved(
            &before,
            &ptr(0, 100),
            ptr(0, 400),
            Crc { compressed_size: 16, uncompressed_size: 16, ..crc(2, 0) },
        );
        let copies = copies(&part.unwrap()).unwrap();
        assert_eq!(
            copies.iter().map(|c| (c.ptr, c.crc.csum.lo, c.crc.offset)).collect::<Vec<_>>(),
            [(ptr(0, 400), 2, 0), (ptr(1, 200), 1, 8)]
        );
    }

    #[test]
    fn what_has_no_checksum_comes_first_and_a_count_stays() {
        let count = 5u64.to_le_bytes();
        let before = key(
            KeyType::REFLINK_V,
            &count,
            &[entry(crc(1, 8)), Entry::Ptr(ptr(0, 100)), Entry::Ptr(ptr(1, 200))],
        );
        let after = moved(&before, &ptr(1, 200), ptr(1, 300), Crc::plain(16)).unwrap();
        let wanted = [Entry::Ptr(ptr(1, 300)), entry(crc(1, 8)), Entry::Ptr(ptr(0, 100))];
        assert_eq!(after, key(KeyType::REFLINK_V, &count, &wanted));
        assert!(moved(&before, &ptr(1, 201), ptr(1, 300), Crc::plain(16)).is_err());
        assert!(moved(&key(KeyType::WHITEOUT, &[], &[]), &ptr(1, 201), ptr(1, 300), Crc::plain(16)).is_err());
    }
}
