//! How fast extents become bytes: a file of 64 KiB extents in every encoding, on a real file in the page cache, read in pieces of
//! several sizes; beside it the same bytes read from the file itself. Prints MiB/s.
//!
//! `cargo bench -p frazil-volume --bench read_data`

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use frazil_btree::{Btrees, LoadedNode, NodeSource, Overlay, Roots, SnapshotInfo, SnapshotTable, Span, View};
use frazil_device::{Access, Device, DeviceSet, OpenOptions};
use frazil_ondisk::checksum::{self, ChecksumType};
use frazil_ondisk::compression::CompressionType;
use frazil_ondisk::crypto::{Key, Nonce};
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::{DevIndex, Gen, Inum, Sectors, SnapshotId};
use frazil_ondisk::values::extent::{Crc, Entry, EntrySizes, ExtentPtr};
use frazil_ondisk::values::snapshot::SnapshotState;
use frazil_ondisk::{BVersion, Bpos, BtreeId, KeyBuf, KeyType};
use frazil_volume::data::{MemberFacts, Reader, ReaderOptions};

const EXTENT: usize = 64 << 10;
const FILE: usize = 128 << 20;
const PIECES: [usize; 3] = [4 << 10, 128 << 10, 1 << 20];

struct NoNodes;

impl NodeSource for NoNodes {
    fn read(&self, _: Span, _: &NodePtr<'_>) -> frazil_btree::Result<LoadedNode> {
        unreachable!("there are no roots")
    }
}

fn compress(ty: CompressionType, data: &[u8]) -> Vec<u8> {
    match ty {
        CompressionType::LZ4 => lz4_flex::block::compress(data),
        CompressionType::GZIP => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory")
        }
        CompressionType::ZSTD => {
            let frame = zstd::bulk::compress(data, 3).expect("compresses");
            [&(frame.len() as u32).to_le_bytes()[..], &frame].concat()
        }
        _ => data.to_vec(),
    }
}

/// A file's worth of text that compresses to about a third.
fn text() -> Vec<u8> {
    let mut state = 1u64;
    let mut out = Vec::with_capacity(FILE + 64);
    while out.len() < FILE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        writeln!(out, "key {:08x} leads to sector {}", state >> 40, state >> 50).expect("memory");
    }
    out.truncate(FILE);
    out
}

/// The payloads of all extents, and the keys.
fn write(csum: ChecksumType, compression: CompressionType, data: &[u8], key: &Key) -> (Vec<u8>, Vec<KeyBuf>) {
    let (mut image, mut keys) = (Vec::new(), Vec::new());
    for (i, chunk) in data.chunks(EXTENT).enumerate() {
        let mut bytes = compress(compression, chunk);
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        let version = BVersion { hi: 0, lo: i as u64 + 1 };
        let sectors = (EXTENT / 512) as u32;
        let mut crc = Crc {
            compressed_size: (bytes.len() / 512) as u32,
            csum_type: csum.raw(),
            compression,
            ..Crc::plain(sectors)
        };
        let compressed = crc.is_compressed().then_some((compression.0, Sectors(sectors.into())));
        let nonce = Nonce::extent(version, compressed, Sectors(0));
        if csum.is_encryption() {
            key.apply(nonce, &mut bytes);
        }
        crc.csum = checksum::compute(csum, Some((key, nonce)), &bytes).expect("a known type");
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(image.len() as u64 / 512), Gen(0));
        let mut value = Vec::new();
        if let (true, Some(entry)) = (crc.needs_entry(), crc.smallest_entry()) {
            Entry::Crc(entry).encode(&mut value);
        }
        Entry::Ptr(ptr).encode(&mut value);
        let pos = Bpos::new(4096, (i as u64 + 1) * u64::from(sectors), u32::MAX);
        let mut extent = KeyBuf::new(KeyType::EXTENT, pos, sectors, value);
        extent.k.version = version;
        keys.push(extent);
        image.extend(bytes);
    }
    (image, keys)
}

fn mib_per_s(bytes: usize, run: impl Fn()) -> f64 {
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    bytes as f64 / f64::from(1 << 20) / times[2]
}

fn main() {
    let key = Key::new([7; 32]);
    let data = text();
    println!("{:36} {:>9} {:>9} {:>9}   MiB/s", "", "4 KiB", "128 KiB", "1 MiB");
    use {ChecksumType as C, CompressionType as Z};
    let rows = [
        (C::None, Z::NONE),
        (C::Crc32c, Z::NONE),
        (C::Crc64, Z::NONE),
        (C::Xxhash, Z::NONE),
        (C::ChaCha20Poly1305_80, Z::NONE),
        (C::Crc32c, Z::LZ4),
        (C::Crc32c, Z::ZSTD),
        (C::Crc32c, Z::GZIP),
    ];
    for (csum, compression) in rows {
        let (image, keys) = write(csum, compression, &data, &key);
        let path = std::env::temp_dir().join(format!("frazil-read-data-{}", std::process::id()));
        std::fs::write(&path, &image).expect("room for the file");
        let device: Arc<dyn Device> =
            Arc::new(OpenOptions::new(Access::ReadOnly).open(&path).expect("just written"));
        std::fs::remove_file(&path).expect("just written");
        if (csum, compression) == (C::None, Z::NONE) {
            print_row("the file itself", |piece| {
                mib_per_s(FILE, || {
                    let mut buf = vec![0; piece];
                    for at in (0..FILE).step_by(piece) {
                        device.read_at(at as u64, &mut buf).expect("readable");
                    }
                })
            });
        }
        let reader = reader(device, &keys, key.clone());
        let view = view();
        print_row(&format!("{csum}, {compression}"), |piece| {
            mib_per_s(FILE, || {
                let mut buf = vec![0; piece];
                for at in (0..FILE as u64).step_by(piece) {
                    let mut plan = reader.plan(Inum(4096), at..at + piece as u64);
                    plan.add_visible(&view);
                    plan.read(&mut buf).expect("readable");
                }
            })
        });
    }
}

fn reader(device: Arc<dyn Device>, keys: &[KeyBuf], key: Key) -> Reader {
    let mut overlay = Overlay::empty();
    overlay.set(BtreeId::EXTENTS, 0, keys.iter().map(KeyBuf::as_key));
    let trees = Arc::new(Btrees::new(Roots::new(), overlay, Box::new(NoNodes), 0));
    let facts = MemberFacts { bucket_sectors: Sectors(256), rotational: false };
    let options = ReaderOptions {
        key: Some(key),
        entry_sizes: EntrySizes::KNOWN,
        members: BTreeMap::from([(DevIndex(0), facts)]),
        cache_bytes: ReaderOptions::CACHE_BYTES_DEFAULT,
    };
    Reader::new(DeviceSet::from_iter([(0, device)]), trees, options)
}

/// The only snapshot.
fn view() -> View {
    let id = SnapshotId(u32::MAX);
    let table = SnapshotTable::new([SnapshotInfo { id, parent: None, state: SnapshotState::Live }]);
    Arc::new(table).view(id).expect("just made")
}

fn print_row(name: &str, rate: impl Fn(usize) -> f64) {
    let [a, b, c] = PIECES.map(rate);
    println!("{name:36} {a:9.0} {b:9.0} {c:9.0}");
}
