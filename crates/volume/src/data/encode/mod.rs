//! From the bytes of a file to the bytes of payloads on disk: compress, pad, encrypt, checksum (spec 40 §9.1). The way back is
//! `super::decode`.
//!
//! ```text
//! blocks of a file ── cut ── compress ── pad to a block ── encrypt ── checksum ──▶ payload and its crc entry
//! ```
//!
//! [`Encoding`] says how a file is to be stored: it follows from the options of the inode and of the volume, and is plain data.
//! [`Encoder::encode`] takes the front of some blocks and answers with one payload, how much of the file it covers, and what a
//! key must say about it. Who calls it finds room on the devices *first* and says how much there is, because a payload never
//! crosses a bucket (spec 40 §7.3): what compresses to more than the room is cut shorter until it fits. Then the caller
//! writes the payload, to as many devices as there are to be copies, and makes the key with [`encode_extent`]. The
//! encoder knows neither devices nor keys, so the path that copies a tree into a new volume and the path of a live write,
//! at any offset of any file, are the same.
//!
//! # What it costs
//!
//! Data that is stored as it is is not copied: the payload *is* the caller's slice, and one pass computes its checksum. All that is
//! made anew (compressed or encrypted bytes) is made in scratch memory of the encoder, which is used again. So an encoder
//! belongs to one thread.
//!
//! # Rules that are easily missed
//!
//! * With compression on, what does not become smaller by at least a block is marked *incompressible*, so that nobody tries
//!   again; a single block is not even tried (spec 40 §9.3).
//! * Encoded extents are limited by `encoded_extent_max`, because they can only be read as a whole; data without checksum
//!   and compression may fill all the room there is.
//! * Bytes of the last block behind the end of the file must be zero (spec 40 §9.4). The caller sees to it: only it knows where
//!   the file ends.
//! * The pair of key and nonce must never be used twice, so every encrypted payload needs a version of its own
//!   (spec 40 §9.5). Where there is no encryption, versions are 0.

mod compress;

use frazil_ondisk::BVersion;
use frazil_ondisk::checksum::{self, ChecksumType, EncryptionMode};
use frazil_ondisk::compression::{CompressionOption, CompressionType};
use frazil_ondisk::crypto::{Key, Nonce};
use frazil_ondisk::error::{DecodeError, Result};
use frazil_ondisk::superblock::{Superblock, options};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::{Crc, Entry, ExtentPtr};
use frazil_ondisk::values::inode::{InodeOpt, InodeOpts};

use self::compress::Compressors;

/// Backpointers have room for offsets below 1024 sectors inside an extent; larger ones may collide with those of a neighbour
/// (spec 50 §2.6), so no payload is longer than this, whatever the option says.
const ENCODED_SECTORS_MAX: Sectors = Sectors(1024);

/// How the data of a file is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// Checksum of new payloads; an authenticator type means that they are encrypted.
    pub checksum: ChecksumType,
    /// Compression to try.
    pub compression: CompressionOption,
    /// Block size of the volume: the unit of all lengths.
    pub block: Sectors,
    /// Longest stretch of a file in one payload that is checksummed or compressed.
    pub extent_max: Sectors,
}

impl Encoding {
    /// How new data of an inode with these options is stored in a volume (spec 40 §2.7, §9.2).
    ///
    /// # Errors
    /// If an option has a value without a meaning.
    pub fn of(superblock: &Superblock, inode: &InodeOpts) -> Result<Encoding> {
        let effective = |opt, spec| inode.get(opt).map_or_else(|| superblock.option(spec), u64::from);
        let bad = |what: &str| DecodeError::invalid("options of an inode", format!("{what} has no meaning"));
        let nocow = effective(InodeOpt::Nocow, &options::NOCOW) != 0;
        let checksum = effective(InodeOpt::DataChecksum, &options::DATA_CHECKSUM);
        let checksum = u8::try_from(checksum).ok().and_then(checksum::ChecksumOption::from_raw);
        let checksum = checksum.ok_or_else(|| bad("data_checksum"))?;
        let compression = effective(InodeOpt::Compression, &options::COMPRESSION);
        let compression = u8::try_from(compression).ok().map(CompressionOption).filter(|c| c.is_valid());
        let compression = compression.ok_or_else(|| bad("compression"))?;
        let extent_max = Sectors(superblock.option(&options::ENCODED_EXTENT_MAX) / SECTOR_BYTES);
        let mode = superblock.encryption();
        // What is encrypted stays so: nothing of an encrypted volume may be readable without its key.
        let plain = nocow && mode == EncryptionMode::Off;
        Ok(Encoding {
            checksum: if plain { ChecksumType::None } else { checksum.data_type(mode) },
            compression: if nocow { CompressionOption::NONE } else { compression },
            block: Sectors(superblock.block_sectors.into()),
            extent_max: extent_max.min(ENCODED_SECTORS_MAX),
        })
    }

    /// Payloads are stored as they are: no checksum, no compression.
    pub fn is_plain(&self) -> bool {
        self.checksum == ChecksumType::None && self.compression.algorithm() == 0
    }

    /// Longest stretch of a file in one payload, given that so much fits where it goes.
    fn extent_limit(&self, room: Sectors) -> Sectors {
        if self.is_plain() { room } else { self.extent_max }
    }
}

/// One payload: the result of [`Encoder::encode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// How much of the file it covers: the size of its key.
    pub covers: Sectors,
    /// What goes to each device: whole blocks, in the caller's memory or the encoder's.
    pub payload: &'a [u8],
    /// What the key says about it.
    pub crc: Crc,
}

/// Makes payloads. Keeps its memory; for one thread at a time.
pub struct Encoder {
    /// Of an encrypted volume.
    key: Option<Key>,
    compressors: Compressors,
    /// Compressed or encrypted bytes.
    made: Vec<u8>,
}

impl Encoder {
    /// An encoder for a volume with this key, if it is encrypted.
    pub fn new(key: Option<Key>) -> Encoder {
        Encoder { key, compressors: Compressors::default(), made: Vec::new() }
    }

    /// Encodes the front of `data`, as much of it as makes one payload that fits `room`. The payload's key must have `version`,
    /// which must be new if the data is encrypted and is not used otherwise.
    ///
    /// # Panics
    /// If there is not a block of data or room, if `data` is not whole blocks, or if it is to be encrypted and there is
    /// no key: an encrypted volume is unlocked before it is written.
    pub fn encode<'a>(
        &'a mut self,
        encoding: &Encoding,
        data: &'a [u8],
        room: Sectors,
        version: BVersion,
    ) -> Encoded<'a> {
        let block = bytes(encoding.block);
        assert!(!data.is_empty() && data.len().is_multiple_of(block), "data is not whole blocks");
        let room = room.0 - room.0 % encoding.block.0;
        assert!(room > 0, "no room for a block");
        let limit = bytes(encoding.extent_limit(Sectors(room)));
        let room = usize::try_from(room * SECTOR_BYTES).unwrap_or(usize::MAX);

        let front = &data[..data.len().min(limit)];
        let shape = self.compress(encoding, front, block, room);
        let source = &front[..shape.source_bytes];
        let mut crc = Crc {
            compressed_size: sectors(shape.payload_bytes),
            csum_type: encoding.checksum.raw(),
            compression: shape.compression,
            ..Crc::plain(sectors(source.len()))
        };
        let nonce = nonce(&crc, version);
        let mut payload = source;
        if encoding.checksum.is_encryption() {
            let key = self.key.as_ref().expect("an encrypted volume is unlocked before it is written");
            if !crc.is_compressed() {
                self.made.clear();
                self.made.extend_from_slice(source);
            }
            key.apply(nonce, &mut self.made[..shape.payload_bytes]);
            payload = &self.made[..shape.payload_bytes];
        } else if crc.is_compressed() {
            payload = &self.made[..shape.payload_bytes];
        }
        let cipher = self.key.as_ref().map(|key| (key, nonce));
        crc.csum = checksum::compute(encoding.checksum, cipher, payload)
            .expect("the key is there, if one is needed");
        Encoded { covers: Sectors(crc.uncompressed_size.into()), payload, crc }
    }

    /// Decides how the front of `data` is stored; a compressed and padded payload is left in `made`.
    fn compress(&mut self, encoding: &Encoding, data: &[u8], block: usize, room: usize) -> Shape {
        /// Attempts to cut the data so that what comes out just fits.
        const ATTEMPTS_MAX: usize = 3;
        let stored =
            |source: usize, compression| Shape { source_bytes: source, payload_bytes: source, compression };
        let Some(ty) = encoding.compression.compression_type().filter(|ty| ty.is_compressed()) else {
            return stored(data.len().min(room), CompressionType::NONE);
        };
        let mut source = data.len();
        for attempt in 0.. {
            if source <= block {
                break;
            }
            let Some(len) = self.compressors.compress(encoding.compression, &data[..source], &mut self.made)
            else {
                break;
            };
            let padded = len.next_multiple_of(block);
            if padded >= source {
                break;
            }
            if padded <= room {
                self.made[len..padded].fill(0);
                return Shape { source_bytes: source, payload_bytes: padded, compression: ty };
            }
            // As much less source as there is too little room; what is no longer than the room fits in any case.
            let share = (source as u128 * room as u128 / padded as u128) as usize;
            let share = if attempt < ATTEMPTS_MAX { share - share % block } else { room };
            source = share.clamp(room.min(source - block), source - block);
        }
        stored(source.min(room), CompressionType::INCOMPRESSIBLE)
    }
}

/// How the front of some data is stored.
struct Shape {
    source_bytes: usize,
    /// With padding.
    payload_bytes: usize,
    compression: CompressionType,
}

/// The nonce of a payload whose key has that version (spec 40 §9.5).
pub(super) fn nonce(crc: &Crc, version: BVersion) -> Nonce {
    let compressed = crc.is_compressed().then(|| (crc.compression.0, Sectors(crc.uncompressed_size.into())));
    Nonce::extent(version, compressed, Sectors(crc.nonce.into()))
}

/// Appends the value of an extent key: the crc entry in its smallest form, if one is needed, and the copies (spec 40 §7.2).
///
/// # Panics
/// If the payload is longer than any crc entry can say (8192 sectors).
pub fn encode_extent(crc: &Crc, copies: impl IntoIterator<Item = ExtentPtr>, out: &mut Vec<u8>) {
    if crc.needs_entry() {
        let entry = crc.smallest_entry().expect("payloads are shorter than the longest crc entry can say");
        Entry::Crc(entry).encode(out);
    }
    for ptr in copies {
        Entry::Ptr(ptr).encode(out);
    }
}

/// A length that is memory already.
fn bytes(length: Sectors) -> usize {
    usize::try_from(length.0 * SECTOR_BYTES).unwrap_or(usize::MAX)
}

/// A length in sectors that a key can hold.
fn sectors(bytes: usize) -> u32 {
    u32::try_from(bytes as u64 / SECTOR_BYTES).expect("an extent is shorter than 2 TiB")
}
