//! Whole files of all kinds of pieces, compared with a model; and what a plan makes of each key.

use frazil_device::Advice;
use frazil_ondisk::values::reflink::ReflinkP;
use frazil_ondisk::values::reservation::{LostReason, Reservation};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::super::Cause;
use super::*;

/// A piece of a file, in sectors.
#[derive(Clone, Debug)]
enum Part {
    Hole(u32),
    Reserved(u32),
    Unwritten(u32),
    Inline(Vec<u8>),
    /// Written with `size` sectors, of which `front` and `back` were overwritten later.
    Data {
        size: u32,
        front: u32,
        back: u32,
        encoding: Encoding,
        copies: usize,
        shared: bool,
    },
}

fn encodings() -> impl Strategy<Value = Encoding> {
    (0usize..8, 0u8..6, 1u64..1 << 50).prop_map(|(csum, compression, version)| Encoding {
        csum: ChecksumType::ALL[csum],
        compression: CompressionType(compression),
        version,
        nonce: 0,
    })
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let data = (1u32..100, 0u32..100, 0u32..100, encodings(), 1usize..4, any::<bool>()).prop_map(
        |(size, front, back, encoding, copies, shared)| {
            let front = front % size;
            Part::Data { size, front, back: back % (size - front), encoding, copies, shared }
        },
    );
    let part = prop_oneof![
        1 => (1u32..40).prop_map(Part::Hole),
        1 => (1u32..40).prop_map(Part::Reserved),
        1 => (1u32..40).prop_map(Part::Unwritten),
        1 => proptest::collection::vec(any::<u8>(), 1..1024).prop_map(Part::Inline),
        8 => data,
    ];
    proptest::collection::vec(part, 1..12)
}

struct File {
    volume: Volume,
    keys: Vec<KeyBuf>,
    bytes: Vec<u8>,
}

fn build(parts: &[Part]) -> File {
    let mut volume = Volume::new(3);
    volume.key = Some(test_key());
    let (mut keys, mut bytes) = (Vec::new(), Vec::new());
    let mut shared_end = 0;
    for (i, part) in parts.iter().enumerate() {
        let at = (bytes.len() / SECTOR) as u64;
        let zeros = |n: u32, bytes: &mut Vec<u8>| bytes.resize(bytes.len() + n as usize * SECTOR, 0);
        match part {
            Part::Hole(n) => zeros(*n, &mut bytes),
            Part::Reserved(n) => {
                zeros(*n, &mut bytes);
                let mut value = Vec::new();
                Reservation::new(1).encode(&mut value);
                keys.push(key(KeyType::RESERVATION, at + u64::from(*n), *n, value));
            }
            Part::Unwritten(n) => {
                zeros(*n, &mut bytes);
                let ptr = volume.write(0, &vec![0xaa; *n as usize * SECTOR]);
                let entry = Entry::Ptr(ExtentPtr { unwritten: true, ..ptr });
                keys.push(extent(at + u64::from(*n), *n, &[entry]));
            }
            Part::Inline(data) => {
                bytes.extend_from_slice(data);
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
                let size = data.len().div_ceil(SECTOR) as u32;
                keys.push(key(KeyType::INLINE_DATA, at + u64::from(size), size, data.clone()));
            }
            Part::Data { size, front, back, encoding, copies, shared } => {
                let data = text(i as u64, *size as usize * SECTOR);
                let live = size - front - back;
                let mut entries = Vec::new();
                for dev in (0..3).cycle().skip(i).take(*copies) {
                    let (crc, payload) = encoding.payload(&data, SECTOR, volume.key.as_ref());
                    let ptr = volume.write(dev, &payload);
                    entries.push(crc_entry(Crc { offset: *front, ..crc }));
                    entries.push(Entry::Ptr(ptr));
                }
                let from = *front as usize * SECTOR;
                bytes.extend_from_slice(&data[from..from + live as usize * SECTOR]);
                if *shared {
                    // An indirect extent with two sectors that this file does not refer to.
                    let mut value = 2u64.to_le_bytes().to_vec();
                    value.extend(encoded(&entries));
                    let end = shared_end + 2 + u64::from(live);
                    let mut indirect = KeyBuf::new(KeyType::REFLINK_V, Bpos::new(0, end, 0), live, value);
                    indirect.k.version = encoding.version();
                    volume.add_key(BtreeId::REFLINK, indirect);
                    let idx = shared_end + 2;
                    shared_end = end;
                    let mut value = Vec::new();
                    ReflinkP { idx, flags: ReflinkP::MAY_UPDATE_OPTIONS, front_pad: 0, back_pad: 0 }
                        .encode(&mut value);
                    keys.push(key(KeyType::REFLINK_P, at + u64::from(live), live, value));
                } else {
                    let mut key = extent(at + u64::from(live), live, &entries);
                    key.k.version = encoding.version();
                    keys.push(key);
                }
            }
        }
    }
    File { volume, keys, bytes }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_range_of_any_file(parts in parts(), ranges in proptest::collection::vec((any::<u32>(), any::<u32>()), 1..8)) {
        let File { volume, keys, bytes } = build(&parts);
        let reader = volume.reader();
        let all = read(&reader, &keys, 0..bytes.len() as u64);
        prop_assert_eq!(all.as_deref(), Ok(&bytes[..]));
        for (a, b) in ranges {
            let (a, b) = (a as usize % (bytes.len() + 1), b as usize % (bytes.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let part = read(&reader, &keys, from as u64..to as u64);
            prop_assert_eq!(part.as_deref(), Ok(&bytes[from..to]));
        }
        let behind = bytes.len() as u64;
        prop_assert_eq!(read(&reader, &keys, behind..behind + 100), Ok(vec![0; 100]));
    }

    /// With a whole device gone, exactly what was only there is missing, and the error says where that begins.
    #[test]
    fn a_missing_device(parts in parts(), absent in 0u8..3) {
        let File { mut volume, keys, bytes } = build(&parts);
        volume.absent.push(absent);
        let mut expected = None;
        let mut at = 0u64;
        for (i, part) in parts.iter().enumerate() {
            let sectors = match part {
                Part::Hole(n) | Part::Reserved(n) | Part::Unwritten(n) => *n,
                Part::Inline(data) => data.len().div_ceil(SECTOR) as u32,
                Part::Data { size, front, back, copies, .. } => {
                    if *copies == 1 && i % 3 == usize::from(absent) {
                        expected.get_or_insert(at * 512);
                    }
                    size - front - back
                }
            };
            at += u64::from(sectors);
        }
        let mut buf = vec![0xee; bytes.len()];
        let result = read_into(&volume.reader(), &keys, 0..bytes.len() as u64, &mut buf);
        let good = result.as_ref().map_or_else(|e| e.offset_bytes, |()| bytes.len() as u64) as usize;
        prop_assert_eq!(result.err().map(|e| e.offset_bytes), expected);
        prop_assert_eq!(&buf[..good], &bytes[..good]);
    }

    /// Whatever stands in the value of a key, reading ends with bytes or an error.
    #[test]
    fn any_value_of_any_type(
        ty in 0u8..45,
        size in prop_oneof![0u32..40, any::<u32>()],
        end in prop_oneof![0u64..60, any::<u64>()],
        words in proptest::collection::vec((0u32..10, any::<u64>()), 0..12),
        range in (0u64..20_000, 0u64..20_000),
    ) {
        let value: Vec<u8> =
            words.iter().flat_map(|&(t, w)| (w >> t >> 1 << t << 1 | 1 << t).to_le_bytes()).collect();
        let mut volume = Volume::new(2);
        volume.key = Some(test_key());
        volume.write(0, &text(1, 1 << 20));
        let shared = KeyBuf::new(KeyType(ty), Bpos::new(0, end, 0), size, value.clone());
        volume.add_key(BtreeId::REFLINK, shared);
        volume.add_key(BtreeId::STRIPES, KeyBuf::new(KeyType::STRIPE, Bpos::new(0, end, 0), 0, value.clone()));
        let reader = volume.reader();
        let first = key(KeyType(ty), end, size, value.clone());
        let pointer = key(KeyType::REFLINK_P, 40, 40, value);
        let (from, len) = range;
        let _ = read(&reader, std::slice::from_ref(&first), from..from + len);
        let _ = read(&reader, &[pointer, first], from..from + len);
    }
}

fn cause_of(key: KeyBuf) -> Cause {
    read(&Volume::new(1).reader(), &[key], 0..512).unwrap_err().cause
}

#[test]
fn lost_data_has_a_reason() {
    let lost = |why: &str| Cause::Lost(why.into());
    assert_eq!(cause_of(key(KeyType::ERROR, 1, 1, vec![])), lost("the filesystem has marked it as lost"));
    let mut value = Vec::new();
    LostReason(2).encode(&mut value);
    assert_eq!(cause_of(key(KeyType::ERROR, 1, 1, value)), lost("double_allocation"));
    let ptr = Entry::Ptr(ExtentPtr::new(DevIndex(0), Sectors(0), Gen(0)));
    let poisoned = extent(1, 1, &[Entry::Flags(Entry::FLAG_POISONED), ptr]);
    assert_eq!(cause_of(poisoned), lost("it was already damaged when it was moved"));
    let mut value = Vec::new();
    ReflinkP { idx: 7, flags: ReflinkP::ERROR, front_pad: 0, back_pad: 0 }.encode(&mut value);
    assert_eq!(cause_of(key(KeyType::REFLINK_P, 1, 1, value)), lost("the shared extent is gone"));
    let mut value = Vec::new();
    ReflinkP { idx: 7, flags: 0, front_pad: 0, back_pad: 0 }.encode(&mut value);
    assert_eq!(cause_of(key(KeyType::REFLINK_P, 1, 1, value)), lost("there is no shared extent at sector 7"));
    assert_eq!(cause_of(extent(1, 1, &[])), Cause::Unreadable(vec![]));
    assert!(matches!(cause_of(key(KeyType::DIRENT, 1, 1, vec![])), Cause::BadKey(_)));
    assert!(matches!(cause_of(key(KeyType::EXTENT, 1, 1, vec![0; 8])), Cause::BadKey(_)));
    assert!(matches!(cause_of(key(KeyType::EXTENT, 1, 2, vec![])), Cause::BadKey(_)));
}

#[test]
fn entries_of_newer_versions_are_skipped_if_their_size_is_known() {
    let mut volume = Volume::new(1);
    let data = text(1, 512);
    let ptr = volume.write(0, &data);
    let mut value = [1u64 << 12, 0].map(u64::to_le_bytes).concat();
    value.extend(encoded(&[Entry::Ptr(ptr)]));
    value.extend(0x0010_2030_9030_0480u64.to_le_bytes());
    let keys = [key(KeyType::EXTENT, 1, 1, value)];
    let e = read(&volume.reader(), &keys, 0..512).unwrap_err();
    assert!(matches!(e.cause, Cause::BadKey(_)), "{e}");
    let mut sizes = [0; 13];
    sizes[12] = 2;
    volume.entry_sizes = EntrySizes::with_section(&sizes);
    assert_eq!(read(&volume.reader(), &keys, 0..512), Ok(data));
}

#[test]
fn what_is_before_lost_data_arrives_and_reading_can_go_on_behind_it() {
    let mut volume = Volume::new(1);
    let data = text(1, 4096);
    let ptr = volume.write(0, &data);
    let crc = Crc::plain(8);
    let keys = [
        extent(8, 8, &[Entry::Ptr(ptr)]),
        key(KeyType::ERROR, 16, 8, vec![]),
        extent(
            24,
            8,
            &[
                crc_entry(Crc { csum_type: 0, compression: CompressionType::INCOMPRESSIBLE, ..crc }),
                Entry::Ptr(ptr),
            ],
        ),
    ];
    let reader = volume.reader();
    let mut buf = vec![0xee; 12000];
    let e = read_into(&reader, &keys, 0..12000, &mut buf).unwrap_err();
    assert_eq!((e.inum, e.offset_bytes, e.len_bytes), (INUM, 4096, 4096));
    assert_eq!(buf[..4096], data);
    let behind = e.offset_bytes + e.len_bytes;
    assert_eq!(read(&reader, &keys, behind..behind + 4096), Ok(data));
    let mut plan = reader.plan(INUM, 0..5000);
    plan.add(keys[0].as_key());
    assert_eq!(plan.planned_bytes(), 4096);
    plan.add(keys[1].as_key());
    let e = plan.read(&mut buf[..5000]).unwrap_err();
    let line =
        "inode 4096: cannot read 904 bytes at 4096: the data was lost: the filesystem has marked it as lost";
    assert_eq!(e.to_string(), line);
}

#[test]
fn a_pointer_may_lead_to_several_shared_extents() {
    let mut volume = Volume::new(1);
    let data = text(1, 4096);
    let ptr = volume.write(0, &data);
    let mut value = 1u64.to_le_bytes().to_vec();
    value.extend(encoded(&[Entry::Ptr(ptr)]));
    volume.add_key(BtreeId::REFLINK, KeyBuf::new(KeyType::REFLINK_V, Bpos::new(0, 108, 0), 8, value));
    let value = [&1u64.to_le_bytes()[..], b"inlined!"].concat();
    let inline = KeyBuf::new(KeyType::INDIRECT_INLINE_DATA, Bpos::new(0, 109, 0), 1, value);
    volume.add_key(BtreeId::REFLINK, inline);
    let mut value = Vec::new();
    ReflinkP { idx: 102, flags: 0, front_pad: 2, back_pad: 0 }.encode(&mut value);
    let keys = [key(KeyType::REFLINK_P, 8, 8, value)];
    let reader = volume.reader();
    let mut expected = data[1024..].to_vec();
    expected.extend_from_slice(b"inlined!");
    expected.resize(7 * 512, 0);
    assert_eq!(read(&reader, &keys, 0..7 * 512).as_ref(), Ok(&expected));
    assert_eq!(read(&reader, &keys, 3075..3082).as_deref(), Ok(&expected[3075..3082]));
    let e = read(&reader, &keys, 0..4096).unwrap_err();
    assert_eq!((e.offset_bytes, e.len_bytes), (3584, 512));
}

/// A device that notes what it is advised.
#[derive(Debug)]
struct Advised {
    inner: Arc<dyn Device>,
    advice: Mutex<Vec<(Advice, u64, u64)>>,
}

impl frazil_device::Wrapper for Advised {
    type Inner = dyn Device;

    fn inner(&self) -> &Self::Inner {
        &*self.inner
    }

    fn advise(&self, offset_bytes: u64, len_bytes: u64, advice: Advice) {
        self.advice.lock().push((advice, offset_bytes, len_bytes));
    }
}

#[test]
fn read_ahead_names_what_will_be_read() {
    let mut volume = Volume::new(1);
    let data = text(1, 32 << 10);
    let zstd = Encoding { csum: ChecksumType::Crc32c, compression: CompressionType::ZSTD, ..PLAIN };
    let (crc, payload) = zstd.payload(&data, 4096, None);
    let first = volume.write(0, &payload);
    let second = volume.write(0, &data);
    volume.free[0] += 8;
    let third = volume.write(0, &data);
    let keys = [
        extent(64, 64, &[crc_entry(crc), Entry::Ptr(first)]),
        extent(128, 64, &[Entry::Ptr(second)]),
        extent(200, 64, &[Entry::Ptr(third)]),
    ];
    let device = Arc::new(Advised { inner: volume.devices[0].clone(), advice: Mutex::default() });
    let reader = volume.reader_of([(0, device.clone() as Arc<dyn Device>)]);
    // The first sector is enough for the whole first payload; the last extent is wanted in part.
    let mut plan = reader.plan(INUM, 63 * 512..140 * 512);
    keys.iter().for_each(|key| plan.add(key.as_key()));
    plan.read_ahead();
    let len = payload.len() as u64;
    let will_need = |offset, len| (Advice::WillNeed, offset, len);
    assert_eq!(*device.advice.lock(), [will_need(0, len + 32768), will_need(len + 32768 + 4096, 4 * 512)]);
    assert_eq!(plan.read(&mut vec![0; 77 * 512]), Ok(()));
}

#[test]
fn what_a_long_read_uses_up_is_not_kept() {
    let mut volume = Volume::new(1);
    let data = text(1, 64 << 10);
    let sums = Encoding { csum: ChecksumType::Crc32c, ..PLAIN };
    let (crc, payload) = sums.payload(&data, 4096, None);
    let mut next = |end| extent(end, 128, &[crc_entry(crc), Entry::Ptr(volume.write(0, &payload))]);
    let keys = [next(128), next(256)];
    let device = Arc::new(Advised { inner: volume.devices[0].clone(), advice: Mutex::default() });
    let reader = volume.reader_of([(0, device.clone() as Arc<dyn Device>)]);
    let whole = [&data[..], &data[..]].concat();
    // In part, so somebody may come for the rest.
    assert_eq!(read(&reader, &keys, 0..100_000).as_deref(), Ok(&whole[..100_000]));
    assert_eq!(*device.advice.lock(), []);
    let reader = volume.reader_of([(0, device.clone() as Arc<dyn Device>)]);
    assert_eq!(read(&reader, &keys, 0..131_072).as_ref(), Ok(&whole));
    assert_eq!(*device.advice.lock(), [(Advice::DontNeed, 0, 131_072)]);
}

#[test]
fn many_threads_share_a_reader() {
    let part = |size| Part::Data {
        size,
        front: 1,
        back: 0,
        encoding: Encoding { csum: ChecksumType::Xxhash, compression: CompressionType::ZSTD, ..PLAIN },
        copies: 2,
        shared: size % 2 == 0,
    };
    let File { volume, keys, bytes } = build(&(100..140).map(part).collect::<Vec<_>>());
    let reader = volume.reader();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (reader, keys, bytes) = (&reader, &keys, &bytes);
            scope.spawn(move || {
                for i in 0..200 {
                    let from = (thread * 7919 + i * 104_729) % bytes.len();
                    let to = (from + 1 + i * 500).min(bytes.len());
                    let read = read(reader, keys, from as u64..to as u64);
                    assert_eq!(read.as_deref(), Ok(&bytes[from..to]));
                }
            });
        }
    });
}
