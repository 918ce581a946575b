//! Keys that come in no order.
//!
//! They are kept as they would be in the journal, back to back, and an index is sorted at the end: a key costs its own length, 40
//! bytes of header and 8 of index.

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::{Bpos, Key};

/// Keys to be sorted.
#[derive(Default)]
pub(super) struct Sorter {
    bytes: Vec<u8>,
    starts: Vec<u64>,
}

impl Sorter {
    pub(super) fn push(&mut self, key: Key<'_>) {
        self.starts.push(self.bytes.len() as u64);
        key.encode(&mut self.bytes);
    }

    fn key(&self, start: u64) -> Key<'_> {
        let mut r = Reader::new("deferred key", &self.bytes[start as usize..]);
        Key::decode(&mut r).expect("encoded by Sorter::push")
    }

    fn pos(&self, start: u64) -> Bpos {
        self.key(start).k.pos
    }

    /// Hands out the keys in ascending order.
    ///
    /// # Errors
    /// The first that `out` returns.
    pub(super) fn drain<E>(mut self, mut out: impl FnMut(Key<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut starts = std::mem::take(&mut self.starts);
        starts.sort_unstable_by_key(|&start| self.pos(start));
        starts.into_iter().try_for_each(|start| out(self.key(start)))
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::{KeyBuf, KeyType};

    use super::*;

    #[test]
    fn keys_come_out_in_order() {
        let mut sorter = Sorter::default();
        let key = |n: u64| KeyBuf::new(KeyType::COOKIE, Bpos::new(n % 7, n, 0), 0, n.to_le_bytes());
        for n in (0..100).rev() {
            sorter.push(key(n).as_key());
        }
        let mut got = Vec::new();
        let take = |key: Key<'_>| {
            got.push(key.to_owned());
            Ok::<_, ()>(())
        };
        sorter.drain(take).unwrap();
        let mut want: Vec<KeyBuf> = (0..100).map(key).collect();
        want.sort_by_key(|k| k.k.pos);
        assert_eq!(got, want);
    }
}
