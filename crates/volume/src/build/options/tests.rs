use frazil_device::MemDevice;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The table of spec 10 §16.1.
#[test]
fn bucket_sizes_follow_the_device() {
    for (device, kib) in [
        (4 * MIB, 64),
        (8 * MIB - 1, 64),
        (8 * MIB, 128),
        (16 * MIB, 128),
        (2 * GIB - 1, 128),
        (2 * GIB, 256),
        (100 * GIB, 256),
        (512 * GIB, 512),
        (32 << 50, 1024),
    ] {
        assert_eq!(bucket_bytes(device, 4096, None), kib << 10, "{device}");
    }
    assert_eq!(bucket_bytes(GIB, 4096, Some(512 << 10)), 512 << 10);
}

fn device(size: u64) -> NewDevice {
    NewDevice::new(Arc::new(MemDevice::new(size).named("disk")))
}

fn superblock(options: &FormatOptions) -> Superblock {
    prepare(&[device(512 * MIB)], options).unwrap().superblocks.remove(0)
}

#[test]
fn defaults_are_those_of_the_reference() {
    let sb = superblock(&FormatOptions::default());
    // The words of spec 10 §5.
    assert_eq!(sb.flags.0, [0x8111110080100100, 0x0111c102, 0, 0xfa30000000, 0x100000064, 0x1e0000, 0]);
    assert_eq!(sb.block_bytes(), 4096);
    let copies: Vec<u64> = sb.layout.copies().map(|s| s.0).collect();
    assert_eq!(copies, [8, 2056, 1046528]);
    let member = sb.own_member().unwrap();
    assert_eq!((member.nbuckets, member.bucket_sectors, member.flags.0), (4096, 256, 0x200e0000));
    let ring: Vec<u64> = sb.journal_buckets().unwrap().buckets().map(|b| b.0).collect();
    assert_eq!(ring, (17..49).collect::<Vec<_>>());
}

#[test]
fn what_is_asked_for_is_in_the_superblock() {
    let mut devices = vec![device(64 * MIB), device(64 * MIB)];
    devices[0].label = Some("ssd.one".into());
    (devices[1].label, devices[1].durability, devices[1].discard) = (Some("hdd.two".into()), 2, true);
    let options = FormatOptions {
        uuid: Some(Uuid::from_u128(7)),
        label: "name".into(),
        created_ns: 5_000_000_000,
        encryption: Encryption::Passphrase(Zeroizing::new(b"open".to_vec())),
        settings: vec![(&options::COMPRESSION, 0x73), (&options::BACKGROUND_COMPRESSION, 1)],
        targets: vec![
            (&options::FOREGROUND_TARGET, "ssd".into()),
            (&options::BACKGROUND_TARGET, "hdd.two".into()),
        ],
        ..FormatOptions::default()
    };
    let made = prepare(&devices, &options).unwrap();
    let sb = &made.superblocks[1];
    assert_eq!((sb.user_uuid, sb.label().as_str()), (Uuid::from_u128(7), "name"));
    assert_eq!(sb.compression().to_string(), "zstd:7");
    assert!(sb.features.contains(Features::ZSTD.union(Features::LZ4)));
    assert_eq!(sb.target(&options::FOREGROUND_TARGET), Target::Group(0));
    assert_eq!(sb.target(&options::BACKGROUND_TARGET), Target::Group(3));
    let member = sb.own_member().unwrap();
    assert_eq!((member.flags.durability(), member.flags.discard()), (2, true));
    let crypt = sb.sections.get::<Crypt>().unwrap().unwrap();
    assert_eq!(crypt.unlock(Some(b"open"), &sb.uuid).unwrap().bytes(), made.key.unwrap().bytes());
}

#[test]
fn what_cannot_be_is_refused_with_advice() {
    let refused = |sizes: &[u64], options: FormatOptions| {
        let devices: Vec<NewDevice> = sizes.iter().map(|s| device(*s)).collect();
        prepare(&devices, &options).err().expect("refused").to_string()
    };
    let set = |settings: &[(&'static OptionSpec, u64)]| FormatOptions {
        settings: settings.to_vec(),
        ..FormatOptions::default()
    };
    let one = &[64 * MIB][..];
    for (sizes, options, why) in [
        (&[][..], set(&[]), "1 to 64 devices"),
        (&[31 * MIB], set(&[]), "at least 32 MiB"),
        (one, set(&[(&options::BLOCK_SIZE, 8192)]), "at most 4096"),
        (one, set(&[(&options::BTREE_NODE_SIZE, 16 << 10)]), "must be 32768 to"),
        (one, set(&[(&options::DATA_REPLICAS, 2)]), "add devices"),
        (&[64 * MIB; 2], set(&[(&options::DATA_REPLICAS_REQUIRED, 2)]), "only 1 copies"),
        (one, set(&[(&options::ENCODED_EXTENT_MAX, 1 << 20)]), "encoded_extent_max"),
        (one, set(&[(&options::ERASURE_CODE, 1)]), "erasure_code"),
        (one, set(&[(&options::WIDE_MACS, 1)]), "--encrypted"),
        (one, set(&[(&options::CASEFOLD, 1)]), "newer versions"),
        (one, FormatOptions { superblock_bytes: Some(5000), ..FormatOptions::default() }, "power of two"),
        (one, FormatOptions { label: "x".repeat(32), ..FormatOptions::default() }, "31 bytes"),
        (
            one,
            FormatOptions {
                targets: vec![(&options::PROMOTE_TARGET, "no".into())],
                ..FormatOptions::default()
            },
            "no device or label 'no'",
        ),
    ] {
        let got = refused(sizes, options);
        assert!(got.contains(why), "{got}");
    }
    let mut odd = device(64 * MIB);
    odd.bucket_bytes = Some(3 << 16);
    assert!(prepare(&[odd], &FormatOptions::default()).err().unwrap().to_string().contains("power of two"));
    let mut large = device(64 * MIB);
    large.bucket_bytes = Some(2 << 20);
    assert!(prepare(&[large], &FormatOptions::default()).err().unwrap().to_string().contains("too large"));
}
