//! The one thread that stores: batches come in the order of their jobs, and become payloads in buckets and keys in b-trees.
//!
//! Payloads go one behind the other. At the end of a bucket there may be room for a part of one: what is stored as it is is cut
//! there, and its two checksums are computed anew; what is compressed or encrypted goes to the next bucket as a whole.

use frazil_ondisk::checksum;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors, SnapshotId};
use frazil_ondisk::values::extent::Crc;
use frazil_ondisk::values::inline;
use frazil_ondisk::{BVersion, Bkey, Bpos, BtreeId, Key, KeyType};
use frazil_volume::build::Builder;
use frazil_volume::data::encode::encode_extent;

use super::error::FillError;
use super::tree::{Hashes, Object, Tree};
use super::work::{Batch, Item, Storing, Xattrs};
use super::{Counts, Filled};
use crate::make::{self, StoredXattr, Unfit};

/// The snapshot that everything is in.
const SNAPSHOT: SnapshotId = SnapshotId(u32::MAX);

/// Something that cannot be stored, and of what.
pub(super) enum Unstored {
    /// An attribute.
    Attribute { object: Object, name: Vec<u8>, why: Unfit },
    /// The volume cannot hold it.
    Volume(FillError),
}

impl<E: Into<FillError>> From<E> for Unstored {
    fn from(error: E) -> Unstored {
        Unstored::Volume(error.into())
    }
}

/// Stores.
pub(super) struct Store<'b> {
    builder: &'b mut Builder,
    storing: Storing,
    hashes: Hashes,
    /// Sectors of each object's extents.
    sectors: Vec<u64>,
    /// The value of the key being made.
    value: Vec<u8>,
    /// An attribute whose kind has no place in a volume.
    left_out: Option<Vec<u8>>,
}

impl<'b> Store<'b> {
    pub(super) fn new(builder: &'b mut Builder, storing: Storing, hashes: Hashes) -> Store<'b> {
        Store { builder, storing, hashes, sectors: Vec::new(), value: Vec::new(), left_out: None }
    }

    /// Stores what a job made.
    pub(super) fn batch(&mut self, batch: &mut Batch, counts: &Counts) -> Result<(), Unstored> {
        let mut bytes = 0;
        for item in batch.items.drain(..) {
            match item {
                Item::Xattrs { object, list } => self.xattrs(object, &list)?,
                Item::Inline { object, at, size, bytes } => {
                    self.value.clear();
                    inline::encode(batch.payloads.get(&bytes), &mut self.value);
                    self.extent(object, KeyType::INLINE_DATA, at, size, BVersion::default())?;
                }
                Item::Extent { object, at, crc, version, payload } => {
                    bytes += u64::from(crc.uncompressed_size) * SECTOR_BYTES;
                    self.payload(object, at, crc, version, batch.payloads.get(&payload))?;
                }
            }
        }
        counts.add_bytes(bytes);
        Ok(())
    }

    /// Pushes the key whose value is ready.
    fn extent(
        &mut self,
        object: Object,
        ty: KeyType,
        at: Sectors,
        size: u32,
        version: BVersion,
    ) -> Result<(), Unstored> {
        let index = object.0 as usize;
        if self.sectors.len() <= index {
            self.sectors.resize(index + 1, 0);
        }
        self.sectors[index] += u64::from(size);
        let end = Bpos::new(object.inum().0, at.0 + u64::from(size), SNAPSHOT.0);
        let k = Bkey { version, ..Bkey::new(ty, end, size) };
        Ok(self.builder.push(BtreeId::EXTENTS, Key { k, value: &self.value })?)
    }

    fn payload(
        &mut self,
        object: Object,
        at: Sectors,
        crc: Crc,
        version: BVersion,
        payload: &[u8],
    ) -> Result<(), Unstored> {
        let room = self.builder.data_room();
        let room_bytes = usize::try_from(room.0 * SECTOR_BYTES).unwrap_or(usize::MAX);
        if !self.storing.is_verbatim() || room.0 == 0 || room_bytes >= payload.len() {
            return self.put(object, at, crc, version, payload);
        }
        let (front, back) = payload.split_at(room_bytes);
        self.put(object, at, self.recount(crc, front), version, front)?;
        self.put(object, Sectors(at.0 + room.0), self.recount(crc, back), version, back)
    }

    /// What is in force for a part of a payload that is stored as it is.
    fn recount(&self, whole: Crc, part: &[u8]) -> Crc {
        let sectors = (part.len() as u64 / SECTOR_BYTES) as u32;
        let ty = self.storing.encoding.checksum;
        let csum = checksum::compute(ty, None, part).expect("it is not encrypted");
        Crc { csum, csum_type: whole.csum_type, ..Crc::plain(sectors) }
    }

    fn put(
        &mut self,
        object: Object,
        at: Sectors,
        crc: Crc,
        version: BVersion,
        payload: &[u8],
    ) -> Result<(), Unstored> {
        let copies = self.builder.put_data(payload)?;
        self.value.clear();
        encode_extent(&crc, copies.iter().copied(), &mut self.value);
        self.extent(object, KeyType::EXTENT, at, crc.uncompressed_size, version)
    }

    fn xattrs(&mut self, object: Object, list: &Xattrs) -> Result<(), Unstored> {
        let hash = self.hashes.of(object);
        let mut slots = Vec::with_capacity(list.len());
        for (name, value) in list {
            match StoredXattr::new(name, value) {
                Ok(Some(stored)) => slots.push((stored.slot(&hash), stored)),
                Ok(None) => {}
                Err(Unfit::Namespace) => {
                    self.left_out.get_or_insert_with(|| name.clone());
                }
                Err(why) => return Err(Unstored::Attribute { object, name: name.clone(), why }),
            }
        }
        make::assign_slots(&mut slots);
        for (slot, stored) in slots {
            self.value.clear();
            stored.encode(&mut self.value);
            let k = make::xattr_key(object.inum(), slot, SNAPSHOT);
            self.builder.defer(BtreeId::XATTRS, Key { k, value: &self.value });
        }
        Ok(())
    }

    /// Stores names and inodes; to be called when everything else is there.
    pub(super) fn tree(
        mut self,
        tree: &mut Tree,
        next_version: u64,
        counts: &Counts,
    ) -> Result<Filled, FillError> {
        if self.storing.encoding.checksum.is_encryption() {
            self.builder.use_versions_below(next_version);
        }
        let twice = |tree: &Tree, twice: super::tree::Twice| {
            let mut path = tree.path(twice.dir);
            path.extend_from_slice(b"/");
            path.extend_from_slice(&twice.name);
            FillError::Archive { at: path, why: "it is there twice".to_owned() }
        };
        let mut names = 0;
        let (value, builder) = (&mut self.value, &mut *self.builder);
        let stored = tree.finish_names(|dir, slot, name, target, kind| {
            value.clear();
            names += 1;
            let k = make::dirent_key((dir, slot, SNAPSHOT), name, (target, kind), value);
            builder.push(BtreeId::DIRENTS, Key { k, value }).map_err(NamesEnd::Volume)
        });
        match stored {
            Ok(()) => {}
            Err(NamesEnd::Twice(name)) => return Err(twice(tree, name)),
            Err(NamesEnd::Volume(error)) => return Err(error.into()),
        }
        for number in 0..tree.len() as u32 {
            let object = Object(number);
            let sectors = Sectors(self.sectors.get(number as usize).copied().unwrap_or(0));
            self.value.clear();
            let k = make::inode_key(object.inum(), SNAPSHOT, &tree.inode(object, sectors), &mut self.value);
            self.builder.push(BtreeId::INODES, Key { k, value: &self.value })?;
        }
        Ok(Filled { objects: tree.len() as u64, names, bytes: counts.bytes(), left_out: self.left_out })
    }
}

/// Why the names ended early.
enum NamesEnd {
    Twice(super::tree::Twice),
    Volume(frazil_volume::build::BuildError),
}

impl From<super::tree::Twice> for NamesEnd {
    fn from(twice: super::tree::Twice) -> NamesEnd {
        NamesEnd::Twice(twice)
    }
}
