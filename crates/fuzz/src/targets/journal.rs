//! Journal entries: what is at the start of some bytes, what a list of sub-entries holds, and what a bucket holds.

use frazil_ondisk::jset::{self, BucketScan, Found, JsetFormat, JsetHeader};

/// A block size that makes the most of short inputs.
const BLOCK_BYTES: usize = 512;

/// The format under which the bytes are most interesting: their own magic number.
fn format_of(bytes: &[u8]) -> JsetFormat<'static> {
    let magic = JsetHeader::decode(bytes).map_or(0, |header| header.magic);
    JsetFormat { magic, block_bytes: BLOCK_BYTES, key: None }
}

/// One journal entry at the start of the bytes.
pub(super) fn jset(bytes: &[u8]) {
    match jset::read(&format_of(bytes), bytes) {
        Found::Nothing => assert!(JsetHeader::decode(bytes).is_err(), "its own magic number was refused"),
        Found::TooLong(header) => assert!(header.bytes() > bytes.len() as u64),
        Found::Jset(found) => {
            assert!(bytes.starts_with(found.as_bytes()), "an entry without encryption is what was there");
            assert_eq!(found.header.to_bytes(), found.as_bytes()[..jset::JSET_HEADER_BYTES]);
            assert!(found.sectors().0 * 512 >= found.as_bytes().len() as u64);
            found.header.check();
            found.is_empty();
            jset_list(found.list());
        }
    }
}

/// A list of sub-entries, which is whole words wherever there is one.
pub(super) fn jset_list(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len() / 8 * 8];
    // What encodes the same again is understood; a second decoding tells whether anything was lost.
    for entry in jset::entries(bytes).flatten() {
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        let again: Vec<_> = jset::entries(&encoded).collect();
        match again[..] {
            [Ok(ref same)] => assert_eq!(same.ty(), entry.ty()),
            [] => assert!(encoded.len() == jset::FRAME_HEADER_BYTES, "only padding may vanish"),
            _ => panic!("{entry:?} encodes to {again:?}"),
        }
    }
    let mut repaired = bytes.to_vec();
    let problems = jset::repair(&mut repaired, |_, _| Ok(()));
    assert_eq!(repaired.len(), bytes.len());
    assert_eq!(jset::check(&repaired, |_, _| Ok(())), [], "after the repair of {problems:?}");
    assert!(!problems.is_empty() || repaired == bytes, "nothing to repair, but changed");
    assert_eq!(jset::check(bytes, |_, _| Ok(())).is_empty(), problems.is_empty());
}

/// A whole bucket of the journal.
pub(super) fn journal_bucket(bytes: &[u8]) {
    let items: Vec<_> = BucketScan::new(format_of(bytes), bytes).collect();
    // Damaged entries may overlap; good ones follow each other.
    let (mut end, mut last) = (0, None);
    for item in &items {
        let at = item.at.0 as usize * 512;
        assert!(at < bytes.len() && at.is_multiple_of(BLOCK_BYTES), "entry at byte {at}");
        if let Some(good) = item.jset.as_ref().ok().filter(|jset| jset.checksum.is_ok()) {
            assert!(
                at >= end && last < Some(good.header.seq),
                "entry at byte {at} after one that ends at {end}"
            );
            (end, last) = (at + good.as_bytes().len(), Some(good.header.seq));
        }
    }
    assert!(end <= bytes.len());
    let looked_at: usize = items.iter().flat_map(|item| &item.jset).map(|jset| jset.as_bytes().len()).sum();
    assert!(looked_at <= 5 * bytes.len(), "{looked_at} bytes of entries in a bucket of {}", bytes.len());
}
