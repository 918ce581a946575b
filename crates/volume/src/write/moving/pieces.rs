//! What is moved in one piece: a payload as it is stored, or one live part of it.
//!
//! A payload that several keys share and that is in use altogether moves once, and all of them go on sharing it. So does a compressed payload that takes
//! no more room than its live parts would by themselves. Of any other the live parts are moved, each for its key alone: what is dead
//! in it would otherwise be carried along for ever, and buckets full of such payloads could not be emptied to any gain.

use frazil_ondisk::error::Result;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::{Crc, ExtentPtr};
use frazil_ondisk::{BtreeId, KeyBuf};

use super::contents::Item;
use super::rewrite;
use crate::data::Reader;

/// Bytes that must stay together, and the keys that need them.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    keys: Vec<(Item, Crc)>,
}

/// A key that is to be replaced.
pub(super) struct Rewrite {
    pub(super) btree: BtreeId,
    pub(super) old: KeyBuf,
    pub(super) new: KeyBuf,
}

impl Piece {
    /// Its length.
    pub(super) fn sectors(&self) -> Sectors {
        Sectors(self.bytes.len() as u64 / SECTOR_BYTES)
    }

    /// What its keys say when it is at that place.
    pub(super) fn at(self, place: ExtentPtr) -> Result<Vec<Rewrite>> {
        let rewrite = |(item, crc): (Item, Crc)| {
            let old = item.replica.ptr;
            let ptr = ExtentPtr { unwritten: old.unwritten, ..place };
            let new = rewrite::moved(&item.key, &old, ptr, crc)?;
            Ok(Rewrite { btree: item.btree, old: item.key, new })
        };
        self.keys.into_iter().map(rewrite).collect()
    }
}

/// Reads a payload, and cuts it into what is to be moved; `items` are its keys.
///
/// # Errors
/// In words, if it cannot be read.
pub(super) fn pieces(reader: &Reader, items: &[Item]) -> std::result::Result<Vec<Piece>, String> {
    let Some(Item { key, replica, .. }) = items.first() else { return Ok(Vec::new()) };
    let bad = |problem| reader.bad_copy(&replica.ptr, problem).to_string();
    if replica.ptr.unwritten {
        // Nobody ever reads it; but as it is moved with others, it must not carry what others left on the device.
        let bytes = vec![0; (u64::from(replica.live_size) * SECTOR_BYTES) as usize];
        let keys = vec![(items[0].clone(), replica.crc)];
        return Ok(vec![Piece { bytes, keys }]);
    }
    let stored = reader.stored(replica, key.k.version).map_err(bad)?;
    let live: u64 = items.iter().map(|item| u64::from(item.replica.live_size)).sum();
    if replica.crc.is_encoded() && u64::from(replica.crc.compressed_size) <= live {
        let keys = items.iter().map(|item| (item.clone(), item.replica.crc)).collect();
        return Ok(vec![Piece { bytes: stored.to_vec(), keys }]);
    }
    let part = |item: &Item| {
        let (crc, bytes) = reader.live_part(&item.replica, item.key.k.version, &stored)?;
        Ok(Piece { bytes, keys: vec![(item.clone(), crc)] })
    };
    items.iter().map(part).collect::<std::result::Result<_, _>>().map_err(bad)
}
