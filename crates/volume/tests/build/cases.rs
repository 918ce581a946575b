//! Combinations of format options in which every two values of different options that may meet do meet somewhere.

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_volume::build::{Encryption, FormatOptions, NewDevice};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What encrypted cases are opened with.
pub(crate) const PASSPHRASE: &[u8] = b"correct horse";

/// How a case is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crypt {
    No,
    Clear,
    Passphrase,
}

/// One combination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Of each device: MiB, bucket size in KiB (0: automatic), label, durability.
    pub(crate) devices: &'static [(u64, u64, Option<&'static str>, u8)],
    pub(crate) crypt: Crypt,
    /// Options and what a user would type.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) targets: &'static [(&'static str, &'static str)],
    pub(crate) superblock_bytes: Option<u64>,
}

const fn case(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Case {
    Case {
        name,
        devices: &[(64, 0, None, 1)],
        crypt: Crypt::No,
        settings,
        targets: &[],
        superblock_bytes: None,
    }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    case("plain", &[]),
    Case {
        devices: &[(64, 512, None, 1)],
        superblock_bytes: Some(64 << 10),
        ..case(
            "small-blocks",
            &[
                ("block_size", "512"),
                ("btree_node_size", "64k"),
                ("metadata_checksum", "crc64"),
                ("data_checksum", "none"),
                ("str_hash", "crc32c"),
                ("compression", "lz4"),
            ],
        )
    },
    Case {
        devices: &[(96, 1024, None, 1)],
        ..case(
            "large-buckets",
            &[
                ("btree_node_size", "256k"),
                ("metadata_checksum", "xxhash"),
                ("data_checksum", "crc64"),
                ("str_hash", "crc64"),
                ("compression", "zstd:7"),
                ("background_compression", "gzip"),
                ("encoded_extent_max", "256k"),
            ],
        )
    },
    case(
        "no-checksums",
        &[
            ("metadata_checksum", "none"),
            ("data_checksum", "xxhash"),
            ("btree_node_size", "32k"),
            ("compression", "gzip:9"),
            ("nocow", "1"),
            ("acl", "0"),
        ],
    ),
    Case {
        crypt: Crypt::Passphrase,
        ..case("encrypted", &[("compression", "lz4"), ("str_hash", "crc64"), ("block_size", "512")])
    },
    Case {
        crypt: Crypt::Clear,
        devices: &[(64, 256, None, 1)],
        ..case(
            "encrypted-wide",
            &[("wide_macs", "1"), ("btree_node_size", "128k"), ("data_checksum", "none")],
        )
    },
    Case {
        devices: &[(64, 0, Some("ssd.one"), 1), (128, 0, Some("hdd.two"), 1)],
        targets: &[
            ("foreground_target", "ssd"),
            ("background_target", "hdd.two"),
            ("metadata_target", "ssd.one"),
        ],
        ..case("tiered", &[("background_compression", "zstd"), ("errors", "ro")])
    },
    Case {
        devices: &[(64, 256, None, 1), (48, 128, None, 1), (80, 512, None, 1)],
        ..case(
            "mirrored",
            &[
                ("metadata_replicas", "2"),
                ("data_replicas", "2"),
                ("metadata_checksum", "crc64"),
                ("str_hash", "crc32c"),
            ],
        )
    },
    Case {
        devices: &[(64, 0, None, 1), (64, 0, None, 1)],
        crypt: Crypt::Passphrase,
        ..case(
            "mirrored-encrypted",
            &[("metadata_replicas", "2"), ("compression", "zstd"), ("wide_macs", "1"), ("block_size", "512")],
        )
    },
    Case {
        devices: &[(64, 0, Some("raid"), 2), (64, 0, Some("cache"), 0)],
        targets: &[("promote_target", "cache")],
        ..case(
            "durable-and-cache",
            &[("metadata_replicas", "2"), ("data_replicas", "2"), ("usrquota", "1"), ("grpquota", "1")],
        )
    },
];

impl Case {
    /// How many devices it has.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.devices.iter().map(|d| d.0 << 20)
    }

    /// The devices, of the sizes the case wants.
    pub(crate) fn new_devices(&self, devices: impl IntoIterator<Item = Arc<dyn Device>>) -> Vec<NewDevice> {
        let spec = self.devices.iter().zip(devices);
        spec.map(|((_, bucket_kib, label, durability), device)| NewDevice {
            bucket_bytes: (*bucket_kib != 0).then_some(bucket_kib << 10),
            label: label.map(str::to_owned),
            durability: *durability,
            ..NewDevice::new(device)
        })
        .collect()
    }

    /// The options; the same volume each time for the same `uuid`.
    pub(crate) fn options(&self, uuid: Uuid) -> FormatOptions {
        let spec = |name: &str| -> &'static OptionSpec { OptionSpec::by_name(name).unwrap() };
        let settings = self.settings.iter().map(|(name, text)| (spec(name), spec(name).parse(text).unwrap()));
        FormatOptions {
            uuid: Some(uuid),
            label: self.name.into(),
            created_ns: 1_700_000_000_123_456_789,
            encryption: match self.crypt {
                Crypt::No => Encryption::Off,
                Crypt::Clear => Encryption::KeyInClear,
                Crypt::Passphrase => Encryption::Passphrase(Zeroizing::new(PASSPHRASE.to_vec())),
            },
            settings: settings.collect(),
            targets: self.targets.iter().map(|(name, target)| (spec(name), (*target).to_owned())).collect(),
            superblock_bytes: self.superblock_bytes,
            force: false,
        }
    }
}
