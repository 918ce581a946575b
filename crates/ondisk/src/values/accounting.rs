//! Counters (spec 50 §2.8, spec 80 §5.2, §5.13, §7.8).
//!
//! What is counted stands in the *position* of the key: a tag and its fields, packed into the 20 bytes of a position.
//! 1.13 lays the bytes over the position in memory order; since 1.15 they are reversed, so that the tag is the most
//! significant byte and the records of one kind are neighbours. [`AccountingPos`] is the record, [`Order`] the order.
//!
//! The value is one to three signed counters. In the journal the counters are differences, and the key's version says
//! which of them a b-tree key already includes.

use super::problem::{Check, ensure};
use crate::bkey::{BVersion, Bkey};
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::bytes::Reader;
use crate::compression::CompressionType;
use crate::data_type::DataType;
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{DevIndex, Inum, SnapshotId};
use crate::version::Version;

/// Order of the record's bytes in a position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Up to 1.14: byte 0 is the lowest byte of `snapshot`.
    Memory,
    /// From 1.15: byte 0 is the highest byte of `inode`.
    BigEndian,
}

impl Order {
    /// The order a volume of that version uses.
    pub fn of(version: Version) -> Order {
        if version.accounting_positions_reversed() { Order::BigEndian } else { Order::Memory }
    }
}

/// Devices that together hold the copies of something, ascending.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DevList {
    len: u8,
    devs: [u8; DevList::MAX],
}

impl DevList {
    /// Most devices in a record: what is left of the 20 bytes.
    pub const MAX: usize = 16;

    /// A list in the order given; `None` if there are more than [`DevList::MAX`].
    pub fn new(list: &[DevIndex]) -> Option<DevList> {
        let mut devs = [0; Self::MAX];
        for (slot, dev) in devs.get_mut(..list.len())?.iter_mut().zip(list) {
            *slot = dev.0;
        }
        Some(DevList { len: list.len() as u8, devs })
    }

    /// The devices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = DevIndex> + '_ {
        self.devs[..self.len.into()].iter().map(|d| DevIndex(*d))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for DevList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|d| d.0)).finish()
    }
}

/// What a reconcile counter counts (spec 80 §5.15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReconcileWork(pub u8);

impl ReconcileWork {
    const NAMES: [&str; 8] = [
        "replicas",
        "checksum",
        "erasure_code",
        "compression",
        "target",
        "high_priority",
        "pending",
        "stripes",
    ];

    /// The name used in listings.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }
}

/// What a key counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccountingPos {
    /// Inode keys, every snapshot version on its own.
    NrInodes,
    /// Sectors of reservations with that many copies, not multiplied.
    PersistentReserved {
        /// Copies the data will have.
        nr_replicas: u8,
    },
    /// Disk sectors whose copies lie on these devices.
    Replicas {
        /// Kind of data.
        data_type: DataType,
        /// Copies needed to read it; 0 with erasure coding.
        nr_required: u8,
        /// The devices.
        devs: DevList,
    },
    /// Buckets, sectors and fragmented sectors of a kind of data on a device.
    DevDataType {
        /// The device.
        dev: DevIndex,
        /// Kind of data.
        data_type: DataType,
    },
    /// Keys, uncompressed and compressed sectors of a compression type.
    Compression {
        /// The type; never none.
        ty: CompressionType,
    },
    /// Disk sectors of a snapshot; from 1.39 keys, bytes and sectors of a snapshot in one b-tree.
    Snapshot {
        /// The snapshot.
        id: SnapshotId,
        /// The b-tree, from 1.39; always stored, as 0 before.
        btree: u32,
    },
    /// Disk sectors of a b-tree's nodes; from 1.31 also nodes and interior nodes.
    Btree {
        /// The b-tree's id, wider than it needs to be.
        id: u32,
    },
    /// Sectors that wait for background work, up to 1.32.
    RebalanceWork,
    /// Extent keys, their sizes and their disk sectors.
    Inum {
        /// The inode; 0 for indirect extents.
        inum: Inum,
    },
    /// Data and metadata sectors that wait for one kind of background work (1.33).
    ReconcileWork {
        /// The kind.
        ty: ReconcileWork,
    },
    /// Sectors of pointers that must leave a device (1.33).
    DevLeaving {
        /// The device.
        dev: u32,
    },
}

/// Bytes of a record.
const RECORD_BYTES: usize = Bpos::BYTES;

/// The bytes of a position in memory order.
fn bpos_bytes(pos: Bpos) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    out[..4].copy_from_slice(&pos.snapshot.to_le_bytes());
    out[4..12].copy_from_slice(&pos.offset.to_le_bytes());
    out[12..].copy_from_slice(&pos.inode.to_le_bytes());
    out
}

/// Fills a record from the front.
struct Packer {
    bytes: [u8; RECORD_BYTES],
    len: usize,
}

impl Packer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl AccountingPos {
    /// Reads the record in a position.
    ///
    /// # Errors
    /// If the tag is unknown or bytes behind the fields are not zero; since 1.15 such keys are ignored by readers, as they
    /// may be left over from a volume's life before (spec 80 §5.2).
    pub fn decode(pos: Bpos, order: Order) -> Result<AccountingPos> {
        match Self::split(pos, order)? {
            (record, false) => Ok(record),
            (_, true) => {
                Err(DecodeError::invalid("accounting position", format!("junk behind the fields at {pos}")))
            }
        }
    }

    /// The record, and whether bytes behind its fields are not zero.
    fn split(pos: Bpos, order: Order) -> Result<(AccountingPos, bool)> {
        let mut bytes = bpos_bytes(pos);
        if order == Order::BigEndian {
            bytes.reverse();
        }
        let mut r = Reader::new("accounting position", &bytes);
        let record = Self::read(&mut r)?;
        Ok((record, r.rest().iter().any(|b| *b != 0)))
    }

    fn read(r: &mut Reader<'_>) -> Result<AccountingPos> {
        Ok(match r.u8()? {
            0 => AccountingPos::NrInodes,
            1 => AccountingPos::PersistentReserved { nr_replicas: r.u8()? },
            2 => {
                let data_type = DataType(r.u8()?);
                let len = r.u8()?;
                let nr_required = r.u8()?;
                let mut devs = [0; DevList::MAX];
                devs.get_mut(..len.into())
                    .ok_or_else(|| r.invalid(format!("{len} devices")))?
                    .copy_from_slice(r.bytes(len.into())?);
                AccountingPos::Replicas { data_type, nr_required, devs: DevList { len, devs } }
            }
            3 => AccountingPos::DevDataType { dev: DevIndex(r.u8()?), data_type: DataType(r.u8()?) },
            4 => AccountingPos::Compression { ty: CompressionType(r.u8()?) },
            5 => AccountingPos::Snapshot { id: SnapshotId(r.u32()?), btree: r.u32()? },
            6 => AccountingPos::Btree { id: r.u32()? },
            7 => AccountingPos::RebalanceWork,
            8 => AccountingPos::Inum { inum: Inum(r.u64()?) },
            9 => AccountingPos::ReconcileWork { ty: ReconcileWork(r.u8()?) },
            10 => AccountingPos::DevLeaving { dev: r.u32()? },
            tag => return Err(r.invalid(format!("unknown tag {tag}"))),
        })
    }

    /// The position of the record's key.
    pub fn encode(&self, order: Order) -> Bpos {
        let mut p = Packer { bytes: [0; RECORD_BYTES], len: 0 };
        match *self {
            AccountingPos::NrInodes => p.put(&[0]),
            AccountingPos::PersistentReserved { nr_replicas } => p.put(&[1, nr_replicas]),
            AccountingPos::Replicas { data_type, nr_required, devs } => {
                p.put(&[2, data_type.0, devs.len, nr_required]);
                p.put(&devs.devs[..devs.len.into()]);
            }
            AccountingPos::DevDataType { dev, data_type } => p.put(&[3, dev.0, data_type.0]),
            AccountingPos::Compression { ty } => p.put(&[4, ty.0]),
            AccountingPos::Snapshot { id, btree } => {
                p.put(&[5]);
                p.put(&id.0.to_le_bytes());
                p.put(&btree.to_le_bytes());
            }
            AccountingPos::Btree { id } => {
                p.put(&[6]);
                p.put(&id.to_le_bytes());
            }
            AccountingPos::RebalanceWork => p.put(&[7]),
            AccountingPos::Inum { inum } => {
                p.put(&[8]);
                p.put(&inum.0.to_le_bytes());
            }
            AccountingPos::ReconcileWork { ty } => p.put(&[9, ty.0]),
            AccountingPos::DevLeaving { dev } => {
                p.put(&[10]);
                p.put(&dev.to_le_bytes());
            }
        }
        if order == Order::BigEndian {
            p.bytes.reverse();
        }
        Bpos::decode(&mut Reader::new("accounting position", &p.bytes)).expect("20 bytes are a position")
    }

    /// The record of a b-tree's nodes.
    pub fn btree(id: BtreeId) -> AccountingPos {
        AccountingPos::Btree { id: id.0.into() }
    }

    /// How many counters a key of this kind has (spec 50 §2.8, spec 80 §7.8).
    pub fn nr_counters(&self, version: Version) -> usize {
        match self {
            AccountingPos::DevDataType { .. }
            | AccountingPos::Compression { .. }
            | AccountingPos::Inum { .. } => 3,
            AccountingPos::Snapshot { .. } if version.snapshot_accounting_per_btree() => 3,
            AccountingPos::Btree { .. } => version.btree_accounting_counters(),
            AccountingPos::ReconcileWork { .. } => 2,
            _ => 1,
        }
    }

    fn validate(&self) -> Check {
        let AccountingPos::Replicas { nr_required, devs, .. } = self else { return Ok(()) };
        let (required, len) = (usize::from(*nr_required), devs.len());
        ensure(len != 0, E::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0, || "no devices")?;
        let sound = required <= len && !(required > 1 && required == len);
        ensure(sound, E::ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD, || {
            format!("{required} of {len} devices required")
        })?;
        // A lost device may occur more than once (spec 80 §5.11).
        let sorted = devs.iter().zip(devs.iter().skip(1)).all(|(a, b)| a < b || (a.0 == 255 && b.0 == 255));
        ensure(sorted, E::ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED, || format!("devices {devs:?}"))
    }
}

/// The counters of a key, or in the journal the differences to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Counters<'a>(&'a [[u8; 8]]);

impl<'a> Counters<'a> {
    /// Decodes the value.
    ///
    /// # Errors
    /// If there is no counter.
    pub fn decode(value: &'a [u8]) -> Result<Counters<'a>> {
        match value.as_chunks().0 {
            [] => Err(DecodeError::Truncated { what: "accounting", need: 8, have: value.len() }),
            counters => Ok(Counters(counters)),
        }
    }

    /// The counters.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + use<'a> {
        self.0.iter().map(|b| i64::from_le_bytes(*b))
    }

    /// The counter at that place; 0 if the key has fewer.
    pub fn get(&self, i: usize) -> i64 {
        self.0.get(i).map_or(0, |b| i64::from_le_bytes(*b))
    }

    /// Every counter is 0, which is the same as there being no key.
    pub fn all_zero(&self) -> bool {
        self.0.iter().all(|b| *b == [0; 8])
    }

    /// Appends the value that holds these counters.
    pub fn encode(counters: impl IntoIterator<Item = i64>, out: &mut Vec<u8>) {
        counters.into_iter().for_each(|c| out.extend_from_slice(&c.to_le_bytes()));
    }

    /// Checks a key of the accounting b-tree. A position this version cannot read is not reported since 1.15 (spec 80 §5.2).
    pub fn validate(k: &Bkey, value: &[u8], version: Version) -> Check {
        ensure(k.version != BVersion::default(), E::ACCOUNTING_KEY_VERSION_0, || "version 0")?;
        let order = Order::of(version);
        let Ok((pos, junk)) = AccountingPos::split(k.pos, order) else { return Ok(()) };
        pos.validate()?;
        let ignored = order == Order::BigEndian;
        ensure(ignored || !junk, E::ACCOUNTING_KEY_JUNK_AT_END, || format!("at {}", k.pos))?;
        let nr = value.len() / 8;
        ensure((1..=3).contains(&nr), E::ACCOUNTING_KEY_NR_COUNTERS_WRONG, || format!("{nr} counters"))
    }
}

impl std::fmt::Debug for Counters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_type::KeyType;
    use proptest::prelude::*;

    const V13: Version = Version::INODE_HAS_CHILD_SNAPSHOTS;

    fn devs(list: &[u8]) -> DevList {
        let list: Vec<_> = list.iter().map(|d| DevIndex(*d)).collect();
        DevList::new(&list).expect("at most 16")
    }

    fn replicas(data_type: DataType, nr_required: u8, list: &[u8]) -> AccountingPos {
        AccountingPos::Replicas { data_type, nr_required, devs: devs(list) }
    }

    /// Spec 50 §2.8.
    #[test]
    fn records_of_1_13() {
        let cases: [(&[u8], AccountingPos); 7] = [
            (&[8, 0, 0, 0, 0x40], AccountingPos::Inum { inum: Inum(0x4000_0000) }),
            (&[2, 4, 1, 1, 0], replicas(DataType::USER, 1, &[0])),
            (&[2, 3, 2, 1, 0, 1], replicas(DataType::BTREE, 1, &[0, 1])),
            (&[3, 0, 9], AccountingPos::DevDataType { dev: DevIndex(0), data_type: DataType::NEED_DISCARD }),
            (&[5, 0xff, 0xff, 0xff, 0xff], AccountingPos::Snapshot { id: SnapshotId(u32::MAX), btree: 0 }),
            (&[6, 10], AccountingPos::btree(BtreeId::LRU)),
            (&[4, 3], AccountingPos::Compression { ty: CompressionType::LZ4 }),
        ];
        for (bytes, record) in cases {
            let mut padded = bytes.to_vec();
            padded.resize(20, 0);
            let pos = record.encode(Order::Memory);
            assert_eq!(bpos_bytes(pos), *padded);
            assert_eq!(AccountingPos::decode(pos, Order::Memory), Ok(record));
        }
        let pos = replicas(DataType::BTREE, 1, &[0, 1]).encode(Order::Memory);
        assert_eq!(pos, Bpos::new(0, 256, 16_909_058));
    }

    /// Spec 80 §5.2.
    #[test]
    fn records_since_1_15() {
        let cases = [
            (AccountingPos::NrInodes, 0),
            (replicas(DataType::BTREE, 1, &[0]), 0x0203_0101_0000_0000),
            (
                AccountingPos::DevDataType { dev: DevIndex(0), data_type: DataType::USER },
                0x0300_0400_0000_0000,
            ),
            (AccountingPos::Snapshot { id: SnapshotId(u32::MAX), btree: 0 }, 0x05ff_ffff_ff00_0000),
            (AccountingPos::btree(BtreeId::INODES), 0x0601_0000_0000_0000),
            (AccountingPos::Inum { inum: Inum(4096) }, 0x0800_1000_0000_0000),
        ];
        for (record, inode) in cases {
            assert_eq!(record.encode(Order::BigEndian), Bpos::new(inode, 0, 0), "{record:?}");
            assert_eq!(AccountingPos::decode(Bpos::new(inode, 0, 0), Order::BigEndian), Ok(record));
        }
        assert_eq!(Order::of(Version::new(1, 14)), Order::Memory);
        assert_eq!(Order::of(Version::new(1, 15)), Order::BigEndian);
    }

    #[test]
    fn every_rule_has_its_error() {
        let check = |pos, value: &[u8], lo, version| {
            let k = Bkey { version: BVersion { hi: 0, lo }, ..Bkey::new(KeyType::ACCOUNTING, pos, 0) };
            Counters::validate(&k, value, version).map_err(|p| p.id)
        };
        let at = |record: AccountingPos| record.encode(Order::Memory);
        let ok = at(replicas(DataType::USER, 1, &[0, 1]));
        assert_eq!(check(ok, &[0; 8], 1, V13), Ok(()));
        assert_eq!(check(ok, &[0; 8], 0, V13), Err(E::ACCOUNTING_KEY_VERSION_0));
        assert_eq!(check(ok, &[0; 32], 1, V13), Err(E::ACCOUNTING_KEY_NR_COUNTERS_WRONG));
        let bad = |r| check(at(r), &[0; 8], 1, V13);
        assert_eq!(bad(replicas(DataType::USER, 0, &[])), Err(E::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0));
        let required_bad = Err(E::ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD);
        assert_eq!(bad(replicas(DataType::USER, 2, &[0, 1])), required_bad);
        assert_eq!(bad(replicas(DataType::USER, 2, &[0])), required_bad);
        let unsorted = Err(E::ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED);
        assert_eq!(bad(replicas(DataType::USER, 1, &[1, 0])), unsorted);
        assert_eq!(bad(replicas(DataType::USER, 1, &[1, 1])), unsorted);
        assert_eq!(bad(replicas(DataType::USER, 1, &[0, 255, 255])), Ok(()));
        let junk = Bpos::new(1, 0, 7);
        assert_eq!(check(junk, &[0; 8], 1, V13), Err(E::ACCOUNTING_KEY_JUNK_AT_END));
        assert!(AccountingPos::decode(junk, Order::Memory).is_err());
        assert_eq!(check(Bpos::new(0, 0, 200), &[0; 8], 1, V13), Ok(()));
    }

    #[test]
    fn counters_follow_the_version() {
        let v39 = Version::PER_DEV_FRAGMENTATION_LRU;
        let btree = AccountingPos::btree(BtreeId::EXTENTS);
        assert_eq!((btree.nr_counters(V13), btree.nr_counters(v39)), (1, 3));
        let snapshot = AccountingPos::Snapshot { id: SnapshotId(1), btree: 0 };
        assert_eq!((snapshot.nr_counters(V13), snapshot.nr_counters(v39)), (1, 3));
        let mut out = Vec::new();
        Counters::encode([-5, 7], &mut out);
        let c = Counters::decode(&out).unwrap();
        assert_eq!((c.get(0), c.get(1), c.get(2), c.all_zero()), (-5, 7, 0, false));
        assert!(Counters::decode(&[]).is_err() && Counters::decode(&[0; 16]).unwrap().all_zero());
    }

    proptest! {
        #[test]
        fn positions_that_decode_encode_to_themselves(tag in 0u8..12, tail: [u8; 19], used in 0usize..20, big: bool) {
            let mut bytes = [0; 20];
            bytes[0] = tag;
            bytes[1..=used.min(19)].copy_from_slice(&tail[..used.min(19)]);
            if big {
                bytes.reverse();
            }
            let pos = Bpos::decode(&mut Reader::new("test", &bytes)).unwrap();
            let order = if big { Order::BigEndian } else { Order::Memory };
            if let Ok(record) = AccountingPos::decode(pos, order) {
                prop_assert_eq!(record.encode(order), pos);
            }
            let k = Bkey { version: BVersion { hi: 0, lo: 1 }, ..Bkey::new(KeyType::ACCOUNTING, pos, 0) };
            let _ = Counters::validate(&k, &[0; 8], V13);
        }
    }
}
