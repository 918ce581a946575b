//! Every checksum type with every compression type, whole and in part.

use frazil_device::Op;
use proptest::prelude::*;

use super::*;

const COMPRESSIONS: [CompressionType; 6] = [
    CompressionType::NONE,
    CompressionType::LZ4_OLD,
    CompressionType::GZIP,
    CompressionType::LZ4,
    CompressionType::ZSTD,
    CompressionType::INCOMPRESSIBLE,
];

fn all_encodings() -> impl Iterator<Item = Encoding> {
    COMPRESSIONS.into_iter().flat_map(|compression| {
        ChecksumType::ALL.map(|csum| Encoding { csum, compression, version: 0x1_0000_0003, nonce: 0 })
    })
}

/// A volume with one file of one extent, of which the first `cut` sectors were overwritten (and are now a hole).
fn one_extent(encoding: Encoding, data: &[u8], cut: u32) -> (Volume, KeyBuf) {
    let mut volume = Volume::new(1);
    volume.key = Some(test_key());
    let size = (data.len() / SECTOR) as u32;
    let (crc, payload) = encoding.payload(data, 4096, volume.key.as_ref());
    let ptr = volume.write(0, &payload);
    let crc = Crc { offset: cut, ..crc };
    let mut key = extent(u64::from(size), size - cut, &[crc_entry(crc), Entry::Ptr(ptr)]);
    key.k.version = encoding.version();
    (volume, key)
}

#[test]
fn every_combination_reads_back_whole_and_in_part() {
    let data = text(1, 64 << 10);
    for encoding in all_encodings() {
        let (volume, key) = one_extent(encoding, &data, 0);
        let reader = volume.reader();
        let keys = [key];
        assert_eq!(read(&reader, &keys, 0..65536).as_deref(), Ok(&data[..]), "{encoding:?}");
        for range in [0..1, 512..1024, 1000..5001, 60000..65536, 65535..65536] {
            let (from, to) = (range.start as usize, range.end as usize);
            assert_eq!(read(&reader, &keys, range).as_deref(), Ok(&data[from..to]), "{encoding:?}");
        }
        let (volume, key) = one_extent(encoding, &data, 24);
        let mut expected = data.clone();
        expected[..24 * SECTOR].fill(0);
        assert_eq!(read(&volume.reader(), &[key], 0..65536), Ok(expected), "{encoding:?}");
    }
}

#[test]
fn a_flipped_bit_is_noticed_by_every_checksum() {
    let data = text(2, 16 << 10);
    for encoding in all_encodings().filter(|e| e.csum != ChecksumType::None) {
        let (volume, key) = one_extent(encoding, &data, 0);
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(0), Gen(0));
        let mut byte = [0];
        volume.devices[0].read_at(700, &mut byte).unwrap();
        volume.overwrite(&ptr, 700, &[byte[0] ^ 0x10]);
        for range in [0..16384, 4096..4097] {
            let e = read(&volume.reader(), std::slice::from_ref(&key), range.clone()).unwrap_err();
            assert_eq!((e.offset_bytes, e.len_bytes), (range.start, range.end - range.start));
            assert!(e.to_string().contains("disk0 sector 0: extent payload: bad checksum"), "{e}");
        }
    }
}

#[test]
fn an_encrypted_extent_that_was_split_and_narrowed() {
    // The stream of a version is 128 sectors; this payload is sectors 40 to 104 of it, and sectors 50 to 60 are live.
    let stream = text(3, 64 << 10);
    for csum in [ChecksumType::ChaCha20Poly1305_80, ChecksumType::ChaCha20Poly1305_128] {
        let encoding = Encoding { csum, version: 9, nonce: 40, ..PLAIN };
        let mut volume = Volume::new(1);
        volume.key = Some(test_key());
        let (crc, payload) =
            encoding.payload(&stream[40 * SECTOR..104 * SECTOR], SECTOR, volume.key.as_ref());
        // Enciphered at its place in the stream: the same bytes as if all of the stream had been written at once.
        let (_, all) = Encoding { nonce: 0, ..encoding }.payload(&stream, SECTOR, volume.key.as_ref());
        assert_eq!(payload, all[40 * SECTOR..104 * SECTOR]);
        let ptr = volume.write(0, &payload);
        let mut key = extent(10, 10, &[crc_entry(Crc { offset: 10, ..crc }), Entry::Ptr(ptr)]);
        key.k.version = encoding.version();
        let expected = &stream[50 * SECTOR..60 * SECTOR];
        assert_eq!(read(&volume.reader(), std::slice::from_ref(&key), 0..5120).as_deref(), Ok(expected));
        volume.key = None;
        let e = read(&volume.reader(), &[key], 0..5120).unwrap_err();
        assert!(e.to_string().contains("needs the filesystem's key"), "{e}");
    }
}

#[test]
fn neighbours_are_read_at_once_and_straight() {
    let mut volume = Volume::new(1);
    let data = text(4, 1 << 20);
    let encoding = Encoding { csum: ChecksumType::Crc32c, ..PLAIN };
    let mut keys = Vec::new();
    for (i, chunk) in data.chunks(64 << 10).enumerate() {
        let compression = if i == 3 { CompressionType::ZSTD } else { CompressionType::NONE };
        let (crc, payload) = Encoding { compression, ..encoding }.payload(chunk, 4096, None);
        let ptr = volume.write(0, &payload);
        keys.push(extent((i as u64 + 1) * 128, 128, &[crc_entry(crc), Entry::Ptr(ptr)]));
    }
    let reader = volume.reader();
    assert_eq!(read(&reader, &keys, 0..1 << 20), Ok(data.clone()));
    assert_eq!(volume.devices[0].count(Op::Read), 1);
    // Bit by bit, each payload is read once.
    let before = volume.devices[0].count(Op::Read);
    for at in (0..1 << 20).step_by(4096) {
        let part = read(&reader, &keys, at..at + 4096).unwrap();
        assert_eq!(part, data[at as usize..at as usize + 4096]);
    }
    assert_eq!(volume.devices[0].count(Op::Read) - before, 16);
}

#[test]
fn large_payloads_of_newer_versions() {
    let data = text(5, 296 << 10);
    for compression in COMPRESSIONS {
        let encoding = Encoding { csum: ChecksumType::Xxhash, compression, ..PLAIN };
        let (volume, key) = one_extent(encoding, &data, 0);
        assert_eq!(read(&volume.reader(), &[key], 100_000..200_000).as_deref(), Ok(&data[100_000..200_000]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A damaged compressed stream without a checksum is an error or wrong bytes, but nothing worse.
    #[test]
    fn damaged_streams_end(
        which in 0usize..6,
        damage in proptest::collection::vec((0usize..4096, any::<u8>()), 1..8),
        claimed in 8u32..256,
    ) {
        let data = text(6, 64 << 10);
        let encoding = Encoding { compression: COMPRESSIONS[which], ..PLAIN };
        let (crc, mut payload) = encoding.payload(&data, 4096, None);
        for (at, byte) in damage {
            let at = at % payload.len();
            payload[at] = byte;
        }
        let mut volume = Volume::new(1);
        let ptr = volume.write(0, &payload);
        let uncompressed_size = if crc.is_compressed() { claimed } else { 128 };
        let crc = Crc { uncompressed_size, csum_type: 5, ..crc };
        let crc = Crc { csum: checksum::compute(ChecksumType::Crc32c, None, &payload).unwrap(), ..crc };
        let key = extent(8, 8, &[crc_entry(crc), Entry::Ptr(ptr)]);
        if let Ok(bytes) = read(&volume.reader(), &[key], 0..4096) {
            prop_assert_eq!(bytes.len(), 4096);
        }
    }
}
