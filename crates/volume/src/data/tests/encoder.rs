//! What the encoder makes, the reader takes: every checksum, compression, block size and room, encrypted or not.

use frazil_ondisk::compression::CompressionOption;
use frazil_ondisk::values::Rules;
use frazil_ondisk::values::extent::{PointerKind, validate};
use proptest::prelude::*;

use super::*;
use crate::data::encode::{Encoder, Encoding as Stored, encode_extent};

const CHECKSUMS: [ChecksumType; 6] = [
    ChecksumType::None,
    ChecksumType::Crc32c,
    ChecksumType::Crc64,
    ChecksumType::Xxhash,
    ChecksumType::ChaCha20Poly1305_80,
    ChecksumType::ChaCha20Poly1305_128,
];
const OPTIONS: [&str; 8] = ["none", "lz4", "lz4:9", "gzip", "gzip:1", "zstd", "zstd:1", "zstd:15"];

fn stored(checksum: ChecksumType, compression: &str, block: u64) -> Stored {
    let compression = CompressionOption::parse(compression).unwrap();
    Stored { checksum, compression, block: Sectors(block), extent_max: Sectors(128) }
}

/// Data of three kinds: text, noise, and both in turns; whole blocks.
fn data(kind: usize, seed: u64, len: usize) -> Vec<u8> {
    let mut next = noise(seed);
    match kind {
        0 => text(seed, len),
        1 => (0..len).map(|_| next() as u8).collect(),
        2 => vec![0; len],
        _ => {
            let mut mixed = text(seed, len);
            for block in mixed.chunks_mut(3000).step_by(2) {
                block.iter_mut().for_each(|byte| *byte = next() as u8);
            }
            mixed
        }
    }
}

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}

/// Writes all of `data` with changing room, and returns the extents.
fn write(volume: &mut Volume, stored: &Stored, data: &[u8], rooms: &[u64]) -> Vec<KeyBuf> {
    let mut encoder = Encoder::new(volume.key.clone());
    let mut keys: Vec<KeyBuf> = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let n = keys.len();
        let version = if stored.checksum.is_encryption() { n as u64 + 1 } else { 0 };
        let version = BVersion { hi: 0, lo: version };
        let room = Sectors(rooms[n % rooms.len()].max(stored.block.0));
        let encoded = encoder.encode(stored, &data[at..], room, version);
        assert!(encoded.payload.len() as u64 <= room.0 * 512);
        assert!(stored.is_plain() || encoded.covers <= stored.extent_max);
        assert_eq!(encoded.payload.len() as u64 % (stored.block.0 * 512), 0);
        let ptr = volume.write(0, encoded.payload);
        let mut value = Vec::new();
        encode_extent(&encoded.crc, [ptr], &mut value);
        at += encoded.covers.0 as usize * SECTOR;
        let mut key = key(KeyType::EXTENT, (at / SECTOR) as u64, encoded.covers.0 as u32, value);
        key.k.version = version;
        keys.push(key);
    }
    keys
}

fn volume_for(stored: &Stored) -> Volume {
    let mut volume = Volume::new(1);
    volume.key = stored.checksum.is_encryption().then(test_key);
    volume
}

#[test]
fn every_combination_reads_back() {
    for checksum in CHECKSUMS {
        for compression in OPTIONS {
            for block in [1, 8, 32, 128] {
                let stored = stored(checksum, compression, block);
                for kind in 0..4 {
                    let data = data(kind, 7, 3 << 16);
                    let mut volume = volume_for(&stored);
                    let keys = write(&mut volume, &stored, &data, &[1024]);
                    let case = format!("{stored:?}, data {kind}");
                    assert_eq!(read(&volume.reader(), &keys, 0..3 << 16).as_deref(), Ok(&data[..]), "{case}");
                    let sectors: u64 = volume.free[0];
                    let is_compressed = stored.compression.algorithm() != 0 && block < 128;
                    assert_eq!(sectors < 384, is_compressed && kind != 1, "{case}: {sectors} sectors");
                }
            }
        }
    }
}

#[test]
fn what_is_stored_as_it_is_is_not_copied() {
    let data = text(1, 1 << 20);
    let mut encoder = Encoder::new(None);
    let plain = stored(ChecksumType::None, "none", 8);
    let encoded = encoder.encode(&plain, &data, Sectors(900), BVersion::default());
    assert_eq!((encoded.payload.as_ptr(), encoded.covers), (data.as_ptr(), Sectors(896)));
    assert!(!encoded.crc.needs_entry());
    let summed = stored(ChecksumType::Crc32c, "none", 8);
    let encoded = encoder.encode(&summed, &data[4096..], Sectors(900), BVersion::default());
    assert_eq!((encoded.payload.as_ptr(), encoded.covers), (data[4096..].as_ptr(), Sectors(128)));
}

#[test]
fn what_does_not_get_smaller_is_marked() {
    let mut encoder = Encoder::new(None);
    for compression in ["lz4", "gzip", "gzip:1", "zstd"] {
        let stored = stored(ChecksumType::Crc32c, compression, 8);
        // One block is not tried, noise is in vain, and two blocks of text become one.
        for (bytes, sectors, becomes) in [
            (text(1, 4096), 8, CompressionType::INCOMPRESSIBLE),
            (data(1, 5, 65536), 128, CompressionType::INCOMPRESSIBLE),
            (text(2, 8192), 8, stored.compression.compression_type().unwrap()),
        ] {
            let encoded = encoder.encode(&stored, &bytes, Sectors(1024), BVersion::default());
            assert_eq!((encoded.crc.compressed_size, encoded.crc.compression), (sectors, becomes));
        }
    }
}

#[test]
fn little_room_makes_short_extents_but_keeps_them_compressed() {
    let data = text(3, 65536);
    for compression in ["lz4", "gzip", "zstd"] {
        let stored = stored(ChecksumType::Crc32c, compression, 1);
        let mut encoder = Encoder::new(None);
        for room in 2..64 {
            let encoded = encoder.encode(&stored, &data, Sectors(room), BVersion::default());
            assert!(encoded.payload.len() as u64 <= room * 512);
            assert!(encoded.crc.is_compressed(), "room {room}");
            // The room is used: with one sector less of the file it would not be.
            assert!(encoded.covers.0 > room, "room {room}: {:?}", encoded.crc);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any length, any room, any limit of extents: the bytes come back, and every key is legal.
    #[test]
    fn anything_reads_back(
        checksum in 0usize..6,
        compression in 0usize..OPTIONS.len(),
        log_block in 0u32..8,
        blocks in 1usize..70,
        kind in 0usize..4,
        seed: u64,
        log_extent_max in 3u32..11,
        rooms in proptest::collection::vec(1u64..1200, 1..6),
    ) {
        let block = 1u64 << log_block;
        let stored = Stored {
            extent_max: Sectors(1u64 << log_extent_max.max(log_block)),
            ..stored(CHECKSUMS[checksum], OPTIONS[compression], block)
        };
        let data = data(kind, seed, blocks * block as usize * SECTOR);
        let mut volume = volume_for(&stored);
        let keys = write(&mut volume, &stored, &data, &rooms);
        prop_assert_eq!(read(&volume.reader(), &keys, 0..data.len() as u64), Ok(data));
        let rules = Rules {
            writing: true,
            encoded_extent_max_sectors: stored.extent_max.0 as u32,
            encrypted: true,
            ..Rules::DEFAULT_1_13
        };
        for key in &keys {
            prop_assert_eq!(validate(&key.value, key.k.size, PointerKind::Extent, &rules), Ok(()));
        }
    }
}
