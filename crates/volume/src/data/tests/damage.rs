//! Copies that are bad, stale or gone.

use frazil_device::{Errno, Fault, Op};
use frazil_ondisk::values::alloc::Alloc;

use super::super::{BadCopy, Cause, CopyProblem};
use super::*;

const CRC: Encoding = Encoding { csum: ChecksumType::Crc32c, ..PLAIN };

/// A file of one extent with a copy on each device.
fn mirrored(encoding: Encoding, data: &[u8], devices: usize) -> (Volume, Vec<ExtentPtr>, [KeyBuf; 1]) {
    let mut volume = Volume::new(devices);
    let (crc, payload) = encoding.payload(data, 4096, None);
    let ptrs: Vec<_> = (0..devices).map(|dev| volume.write(dev, &payload)).collect();
    let mut entries = vec![crc_entry(crc)];
    entries.extend(ptrs.iter().map(|ptr| Entry::Ptr(*ptr)));
    if !crc.needs_entry() {
        entries.remove(0);
    }
    let size = (data.len() / SECTOR) as u32;
    (volume, ptrs, [extent(size.into(), size, &entries)])
}

fn bytes_of(ptr: &ExtentPtr, len: u64) -> Range<u64> {
    ptr.offset.0 * 512..ptr.offset.0 * 512 + len
}

#[test]
fn the_second_copy_serves_when_the_first_is_bad() {
    let data = text(1, 32 << 10);
    for encoding in [PLAIN, CRC, Encoding { compression: CompressionType::LZ4, ..CRC }] {
        let (volume, ptrs, keys) = mirrored(encoding, &data, 2);
        volume.devices[0].inject(Fault::reads().within(bytes_of(&ptrs[0], 512)));
        let reader = volume.reader();
        assert_eq!(read(&reader, &keys, 0..32768), Ok(data.clone()));
        assert!(reader.errors(DevIndex(0)) >= 1);
        // From now on the other device is asked first.
        let before = volume.devices[0].count(Op::Read);
        assert_eq!(read(&reader, &keys, 100..32768).as_deref(), Ok(&data[100..]));
        assert_eq!(volume.devices[0].count(Op::Read), before);
    }
    let (volume, ptrs, keys) = mirrored(CRC, &data, 2);
    volume.overwrite(&ptrs[0], 9000, b"rotten");
    let reader = volume.reader();
    assert_eq!(read(&reader, &keys, 0..32768), Ok(data));
    assert_eq!((reader.errors(DevIndex(0)), reader.errors(DevIndex(1))), (1, 0));
}

#[test]
fn when_all_copies_are_bad_the_error_tells_about_each() {
    let (volume, ptrs, keys) = mirrored(CRC, &text(1, 32 << 10), 3);
    volume.devices[0].inject(Fault::reads().within(bytes_of(&ptrs[0], 512)).errno(Errno::IO));
    volume.overwrite(&ptrs[1], 9000, b"rotten");
    let mut volume = volume;
    volume.absent.push(2);
    let e = read(&volume.reader(), &keys, 4096..20000).unwrap_err();
    assert_eq!((e.inum, e.offset_bytes, e.len_bytes), (INUM, 4096, 15904));
    let Cause::Unreadable(copies) = &e.cause else { panic!("{e}") };
    let mut places: Vec<_> = copies.iter().map(|c| (c.dev.0, c.name.as_deref(), c.sector)).collect();
    places.sort();
    assert_eq!(
        places,
        [(0, Some("disk0"), Sectors(0)), (1, Some("disk1"), Sectors(8)), (2, None, Sectors(16))]
    );
    let problem = |dev: u8| &copies.iter().find(|c| c.dev.0 == dev).unwrap().problem;
    assert!(matches!(problem(0), CopyProblem::Io(e) if e.errno() == Errno::IO));
    assert!(matches!(problem(1), CopyProblem::Corrupt(_)));
    assert_eq!(problem(2), &CopyProblem::DeviceMissing);
    let line = e.to_string();
    assert!(
        line.starts_with("inode 4096: cannot read 15904 bytes at 4096: disk0 sector 0: cannot read"),
        "{line}"
    );
    assert!(line.contains("; disk1 sector 8: extent payload: bad checksum (type 5)"), "{line}");
    assert!(line.ends_with("; device 2 sector 16: the device is missing"), "{line}");
}

#[test]
fn plain_data_is_lost_by_sectors() {
    let data = text(1, 256 << 10);
    let (volume, ptrs, keys) = mirrored(PLAIN, &data, 2);
    let spoil = |dev: usize, byte: u64| {
        let at = ptrs[dev].offset.0 * 512 + byte;
        volume.devices[dev].inject(Fault::reads().within(at..at + 1));
    };
    // Neither copy is good, but each is where the other is not: in sectors 292 and 293, for example.
    for (dev, byte) in [(0, 1000), (1, 200_000), (0, 150_000), (1, 150_100)] {
        spoil(dev, byte);
    }
    let reader = volume.reader();
    assert_eq!(read(&reader, &keys, 0..256 << 10), Ok(data.clone()));
    // Sector 429 is bad in both.
    spoil(0, 220_000);
    spoil(1, 219_700);
    let mut buf = vec![0xee; (256 << 10) - 77];
    let e = read_into(&reader, &keys, 77..256 << 10, &mut buf).unwrap_err();
    assert_eq!((e.offset_bytes, e.len_bytes), (429 * 512, 512));
    assert_eq!(buf[..429 * 512 - 77], data[77..429 * 512]);
    let behind = e.offset_bytes + e.len_bytes;
    assert_eq!(read(&reader, &keys, behind..256 << 10).as_deref(), Ok(&data[behind as usize..]));
}

#[test]
fn one_bad_extent_does_not_spoil_its_neighbours() {
    let mut volume = Volume::new(1);
    let data = text(1, 256 << 10);
    let mut keys = Vec::new();
    for (i, chunk) in data.chunks(32 << 10).enumerate() {
        let (crc, payload) = CRC.payload(chunk, 4096, None);
        let ptr = volume.write(0, &payload);
        keys.push(extent((i as u64 + 1) * 64, 64, &[crc_entry(crc), Entry::Ptr(ptr)]));
    }
    volume.devices[0].inject(Fault::reads().within(100_000..100_001));
    let reader = volume.reader();
    let mut buf = vec![0; 256 << 10];
    let e = read_into(&reader, &keys, 0..256 << 10, &mut buf).unwrap_err();
    assert_eq!((e.offset_bytes, e.len_bytes), (98304, 32768));
    assert_eq!(buf[..98304], data[..98304]);
    assert_eq!(read(&reader, &keys, 131_072..262_144).as_deref(), Ok(&data[131_072..]));
}

/// Puts the key of a bucket with that generation.
fn set_gen(volume: &mut Volume, ptr: &ExtentPtr, generation: u8) {
    let mut value = Vec::new();
    Alloc { generation: Gen(generation), ..Alloc::decode_v4(&[0; 64]).unwrap() }.encode(&mut value);
    let pos = Bpos::new(ptr.dev.0.into(), ptr.offset.0 / BUCKET_SECTORS, 0);
    volume.add_key(BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, pos, 0, value));
}

#[test]
fn a_stale_cached_copy_is_not_read() {
    let mut volume = Volume::new(2);
    volume.rotational.push(1);
    let data = text(1, 4096);
    let cached = ExtentPtr { cached: true, ..volume.write(0, &text(2, 4096)) };
    let ptr = volume.write(1, &data);
    let keys = [extent(8, 8, &[Entry::Ptr(cached), Entry::Ptr(ptr)])];
    // Fresh, and on the faster device: it is read (and holds something else here, to tell).
    assert_eq!(read(&volume.reader(), &keys, 0..4096), Ok(text(2, 4096)));
    set_gen(&mut volume, &cached, 1);
    assert_eq!(read(&volume.reader(), &keys, 0..4096), Ok(data));
    volume.absent.push(1);
    let e = read(&volume.reader(), &keys, 0..4096).unwrap_err();
    let Cause::Unreadable(copies) = &e.cause else { panic!("{e}") };
    let problems: Vec<_> = copies.iter().map(|BadCopy { problem, .. }| problem.clone()).collect();
    assert_eq!(problems, [CopyProblem::Stale, CopyProblem::DeviceMissing]);
}

#[test]
fn removed_devices_are_passed_over() {
    let (mut volume, ptrs, _) = mirrored(PLAIN, &text(1, 4096), 1);
    let gone = Entry::Ptr(ExtentPtr { dev: ExtentPtr::DEV_INVALID, ..ptrs[0] });
    let keys = [extent(8, 8, &[gone, gone, Entry::Ptr(ptrs[0])])];
    assert_eq!(read(&volume.reader(), &keys, 0..4096), Ok(text(1, 4096)));
    volume.absent.push(0);
    let e = read(&volume.reader(), &keys, 0..4096).unwrap_err();
    let Cause::Unreadable(copies) = &e.cause else { panic!("{e}") };
    assert!(copies.iter().any(|copy| copy.problem == CopyProblem::DeviceRemoved));
    assert!(copies.iter().any(|copy| copy.problem == CopyProblem::DeviceMissing));
}

#[test]
fn a_copy_whose_crc_makes_no_sense_is_not_read() {
    let data = text(1, 4096);
    let (volume, ptrs, _) = mirrored(PLAIN, &data, 2);
    for bad in [
        Crc { offset: 1, ..Crc::plain(8) },
        Crc { compressed_size: 16, ..Crc::plain(8) },
        Crc { csum_type: 9, ..Crc::plain(8) },
        Crc { compression: CompressionType(7), ..Crc::plain(8) },
    ] {
        let form = frazil_ondisk::values::extent::CrcForm::Crc32;
        let bad = Entry::Crc(frazil_ondisk::values::extent::CrcEntry { form, crc: bad });
        let keys = [extent(8, 8, &[Entry::Ptr(ptrs[1]), bad, Entry::Ptr(ptrs[0])])];
        assert_eq!(read(&volume.reader(), &keys, 0..4096), Ok(data.clone()));
        let keys = [extent(8, 8, &[bad, Entry::Ptr(ptrs[0])])];
        let e = read(&volume.reader(), &keys, 0..4096).unwrap_err();
        assert!(
            matches!(&e.cause, Cause::Unreadable(c) if matches!(c[0].problem, CopyProblem::Corrupt(_))),
            "{e}"
        );
    }
}
