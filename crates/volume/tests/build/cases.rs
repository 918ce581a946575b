//! Combinations of format options in which any two values of different options meet somewhere.
//!
//! Trying all combinations would take thousands of volumes. Most mistakes need only two values to meet, and for that two dozen
//! are enough: [`cases`] goes on making combinations of as many new pairs as it can until no pair is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_volume::build::{Encryption, FormatOptions, NewDevice};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What encrypted cases are opened with.
pub(crate) const PASSPHRASE: &[u8] = b"correct horse";

/// How a case is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Crypt {
    #[default]
    No,
    Clear,
    Passphrase,
}

/// A device of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceSpec {
    pub(crate) mib: u64,
    label: Option<&'static str>,
    durability: u8,
}

const fn dev(mib: u64, label: Option<&'static str>, durability: u8) -> DeviceSpec {
    DeviceSpec { mib, label, durability }
}

/// One combination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) devices: Vec<DeviceSpec>,
    /// Bucket size in KiB; 0: automatic.
    bucket_kib: u64,
    pub(crate) crypt: Crypt,
    /// Options and what a user would type.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    targets: Vec<(&'static str, &'static str)>,
    superblock_bytes: Option<u64>,
    /// Places each piece of data has.
    pub(crate) data_copies: u64,
}

/// What one value of a choice does to a case.
type Value = fn(&mut Case);

/// Every choice with all its values; the first of each is the default.
const CHOICES: &[&[Value]] = &[
    // Devices, and what needs several of them.
    &[
        |c| c.devices = vec![dev(64, None, 1)],
        |c| {
            c.devices = vec![dev(64, Some("ssd.one"), 1), dev(128, Some("hdd.two"), 1)];
            c.targets = vec![
                ("foreground_target", "ssd"),
                ("background_target", "hdd.two"),
                ("metadata_target", "ssd.one"),
            ];
        },
        |c| {
            c.devices = vec![dev(64, None, 1), dev(48, None, 1), dev(96, None, 1)];
            c.settings.extend([("metadata_replicas", "2"), ("data_replicas", "2")]);
            c.data_copies = 2;
        },
        |c| {
            c.devices = vec![dev(64, None, 1), dev(64, None, 1), dev(64, None, 1)];
            c.settings.extend([("metadata_replicas", "3"), ("metadata_replicas_required", "2")]);
        },
        |c| {
            c.devices = vec![dev(96, Some("raid"), 2), dev(64, Some("cache"), 0)];
            c.settings.extend([("metadata_replicas", "2"), ("data_replicas", "2")]);
            c.targets = vec![("promote_target", "cache")];
        },
    ],
    // Sizes.
    &[|_| {}, |c| c.settings.push(("block_size", "512"))],
    &[|_| {}, |c| c.bucket_kib = 256, |c| c.bucket_kib = 512],
    &[
        |_| {},
        |c| c.settings.push(("btree_node_size", "32k")),
        |c| c.settings.push(("btree_node_size", "64k")),
    ],
    &[|_| {}, |c| c.superblock_bytes = Some(64 << 10)],
    &[|_| {}, |c| c.settings.push(("encoded_extent_max", "128k"))],
    // Checksums, hashes, encryption, compression.
    &[
        |_| {},
        |c| c.settings.push(("metadata_checksum", "none")),
        |c| c.settings.push(("metadata_checksum", "crc64")),
        |c| c.settings.push(("metadata_checksum", "xxhash")),
    ],
    &[
        |_| {},
        |c| c.settings.push(("data_checksum", "none")),
        |c| c.settings.push(("data_checksum", "crc64")),
        |c| c.settings.push(("data_checksum", "xxhash")),
    ],
    &[|_| {}, |c| c.settings.push(("str_hash", "crc32c")), |c| c.settings.push(("str_hash", "crc64"))],
    &[
        |_| {},
        |c| c.crypt = Crypt::Clear,
        |c| {
            c.crypt = Crypt::Clear;
            c.settings.push(("wide_macs", "1"));
        },
    ],
    &[
        |_| {},
        |c| c.settings.push(("compression", "lz4")),
        |c| c.settings.push(("compression", "gzip:9")),
        |c| c.settings.push(("compression", "zstd:7")),
    ],
    &[|_| {}, |c| c.settings.push(("background_compression", "zstd"))],
    // The rest.
    &[
        |_| {},
        |c| c.settings.extend([("nocow", "1"), ("acl", "0"), ("inodes_32bit", "0")]),
        |c| c.settings.extend([("usrquota", "1"), ("grpquota", "1"), ("prjquota", "1")]),
        |c| c.settings.extend([("errors", "ro"), ("gc_reserve_percent", "12"), ("shard_inode_numbers", "0")]),
    ],
];

/// Two values of different choices: (choice, value), (choice, value).
type Pair = ((usize, usize), (usize, usize));

/// All combinations; the first has the default of everything. The same each time.
pub(crate) fn cases() -> Vec<Case> {
    let all = || CHOICES.iter().enumerate().flat_map(|(c, values)| (0..values.len()).map(move |v| (c, v)));
    let pairs =
        all().flat_map(|one| all().filter(move |other| one.0 < other.0).map(move |other| (one, other)));
    let mut left: BTreeSet<Pair> = pairs.collect();
    let mut cases = Vec::new();
    let mut row = Some(vec![0; CHOICES.len()]);
    while let Some(values) = row {
        left.retain(|((a, i), (b, j))| values[*a] != *i || values[*b] != *j);
        cases.push(case(cases.len(), &values));
        row = left.first().map(|pair| extend(*pair, &left));
    }
    // Once is enough for what takes a second each time.
    let last = cases.len();
    cases.push(Case { crypt: Crypt::Passphrase, ..case(last, &vec![0; CHOICES.len()]) });
    cases
}

/// The combination that has this pair and, choice by choice, the value that makes most pairs that are left.
fn extend(first: Pair, left: &BTreeSet<Pair>) -> Vec<usize> {
    let mut values: Vec<Option<usize>> = vec![None; CHOICES.len()];
    for (choice, value) in [first.0, first.1] {
        values[choice] = Some(value);
    }
    for choice in 0..CHOICES.len() {
        if values[choice].is_none() {
            let new = |value: usize| {
                let set = values.iter().enumerate().filter_map(|(c, v)| Some((c, (*v)?)));
                set.filter(|other| left.contains(&((choice, value).min(*other), (choice, value).max(*other))))
                    .count()
            };
            values[choice] = (0..CHOICES[choice].len()).max_by_key(|value| new(*value));
        }
    }
    values.into_iter().map(|value| value.unwrap_or(0)).collect()
}

fn case(number: usize, values: &[usize]) -> Case {
    let mut case = Case { name: format!("case-{number}"), data_copies: 1, ..Case::default() };
    for (choice, value) in CHOICES.iter().zip(values) {
        choice[*value](&mut case);
    }
    case
}

impl Case {
    /// How large its devices are, in bytes.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.devices.iter().map(|d| d.mib << 20)
    }

    /// The devices, of the sizes the case wants.
    pub(crate) fn new_devices(&self, devices: impl IntoIterator<Item = Arc<dyn Device>>) -> Vec<NewDevice> {
        let spec = self.devices.iter().zip(devices);
        spec.map(|(spec, device)| NewDevice {
            bucket_bytes: (self.bucket_kib != 0).then_some(self.bucket_kib << 10),
            label: spec.label.map(str::to_owned),
            durability: spec.durability,
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
            label: self.name.clone(),
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
