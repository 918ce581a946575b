//! Hash slots: an item must be where a lookup of its name finds it (spec 40 §4.2, §4.3).

use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_ondisk::values::dirent::Dirent;
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::values::xattr::Xattr;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use super::super::context::Check;
use super::super::faults::ItemFault;

/// Low bits of a name's hash in a directory with short hashes (spec 80 §5.12).
const SHORT_HASH: u64 = 0x7fff_ffff;

/// The name of an item, as it is hashed and compared; `None` if the key is no item.
fn name(key: Key<'_>) -> Option<(u8, &[u8])> {
    match key.k.ty {
        KeyType::DIRENT => Dirent::decode(key.value).ok().map(|d| (0, d.lookup_name())),
        KeyType::XATTR => Xattr::decode(key.value).ok().map(|x| (x.ty.0, x.name)),
        _ => None,
    }
}

/// What is wrong with the slot of an item of `owner`.
pub(super) fn fault(check: &mut Check<'_>, btree: BtreeId, key: Key<'_>, owner: &Inode) -> Option<ItemFault> {
    let name = name(key)?;
    let function = StrHash::new(StrHashType::from_raw(owner.str_hash)?, owner.hash_seed);
    let hash = match key.k.ty {
        KeyType::DIRENT if owner.flags.contains(InodeFlags::DIRENT_OFFSET_31BIT) => {
            (function.dirent(name.1) & SHORT_HASH).max(2)
        }
        KeyType::DIRENT => function.dirent(name.1),
        _ => function.xattr(name.0, name.1),
    };
    let pos = key.k.pos;
    match hash {
        hash if hash == pos.offset => None,
        hash if hash > pos.offset => Some(ItemFault::WrongSlot { hash }),
        hash => probe(check, btree, pos, hash, name),
    }
}

/// Walks from a name's hash to its slot, as a lookup does: no slot in between may be empty, or hold the same name.
fn probe(
    check: &mut Check<'_>,
    btree: BtreeId,
    pos: Bpos,
    hash: u64,
    wanted: (u8, &[u8]),
) -> Option<ItemFault> {
    if !check.complete(btree) {
        return None;
    }
    let view = check.view(pos.snapshot)?;
    let mut cursor = check.btrees().cursor(btree, Bpos::new(pos.inode, hash, 0)..Bpos { snapshot: 0, ..pos });
    // The first slot that is not known to be taken.
    let mut free = hash;
    loop {
        let key = match cursor.next() {
            Ok(Some(key)) => key,
            Ok(None) => break,
            Err(error) => {
                check.lost(error);
                return None;
            }
        };
        if key.k.pos.offset < free || !view.sees(key.k.pos.snapshot) {
            continue;
        }
        if key.k.pos.offset > free {
            break;
        }
        if name(key) == Some(wanted) {
            return Some(ItemFault::Duplicate { first: free });
        }
        free += 1;
    }
    (free < pos.offset).then_some(ItemFault::WrongSlot { hash })
}
