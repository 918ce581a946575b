//! Values of keys: decoding, validation, listing, and cutting of extents.

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::node::KeyRules;
use frazil_ondisk::values::accounting::{AccountingPos, Order};
use frazil_ondisk::values::acl::Acl;
use frazil_ondisk::values::extent::{Entries, Pointers, cut_back, cut_front};
use frazil_ondisk::values::list::{self, ListContext};
use frazil_ondisk::values::{Rules, Value, validate};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bkey, BtreeId, Key, KeyType};

/// Prints as the newest tools do.
struct Newest;

impl ListContext for Newest {
    fn version(&self) -> Version {
        Version::READ_MAX
    }
}

/// Unpacked keys, one behind the other, taken as keys of every b-tree.
pub(super) fn value(bytes: &[u8]) {
    let mut r = Reader::new("bkey", bytes);
    while let Ok(key) = Key::decode(&mut r) {
        for version in [Version::WRITE, Version::READ_MAX] {
            for writing in [false, true] {
                let rules = Rules { version, writing, ..Rules::DEFAULT_1_13 };
                for btree in BtreeId::known() {
                    let _ = validate(btree, key, &rules);
                }
            }
            let _ = AccountingPos::decode(key.k.pos, Order::of(version));
        }
        let limit = 4096 + 200 * key.value.len();
        let text = list::key(key, &list::NoContext).to_string();
        assert!(
            text.len() <= limit && list::key(key, &Newest).to_string().len() <= limit,
            "{} bytes",
            text.len()
        );
        if let Ok(value) = Value::decode(key) {
            encodes_to_itself(key, value);
            uses(value);
        }
        extent(key);
    }
}

/// A valid value encodes to something that decodes to the same. Old forms are rewritten as the newest.
fn encodes_to_itself(key: Key<'_>, value: Value<'_>) {
    let mut encoded = Vec::new();
    value.encode(&mut encoded);
    assert!(encoded.len().is_multiple_of(8));
    if validate(BtreeId::EXTENTS, key, &Rules::DEFAULT_1_13).is_err() {
        return;
    }
    let ty = match value {
        Value::Inode(_) => KeyType::INODE_V3,
        Value::Alloc(_) => KeyType::ALLOC_V4,
        _ => key.k.ty,
    };
    let again = Value::decode(Key { k: Bkey { ty, ..key.k }, value: &encoded });
    assert_eq!(again, Ok(value));
}

/// Asks what can be asked of a value.
fn uses(value: Value<'_>) {
    match value {
        Value::Inode(mut inode) => {
            let before = inode.nlink();
            if inode.link() && before > 0 {
                inode.unlink();
                assert_eq!(inode.nlink(), before);
            }
        }
        Value::Alloc(alloc) => {
            assert!(alloc.total_sectors() >= alloc.used_sectors());
            for bucket_sectors in [1, 256, 1 << 16] {
                alloc.fragmented_sectors(bucket_sectors);
                alloc.fragmentation_lru_time(bucket_sectors);
            }
            alloc.derived_data_type(alloc.data_type, Version::WRITE);
        }
        Value::Stripe(stripe) => {
            for block in 0..4 {
                stripe.csum(block, block);
            }
            assert!(stripe.ptrs().count() <= 255 && stripe.block_sectors().count() <= 255);
        }
        Value::Dirent(dirent) => assert!(dirent.lookup_name().len() <= 255 * 8),
        Value::Xattr(xattr) => {
            for acl in [Acl::decode(xattr.value), Acl::from_xattr(xattr.value)].into_iter().flatten() {
                assert_eq!(Acl::from_xattr(&acl.to_xattr()), Ok(acl));
            }
        }
        _ => {}
    }
}

/// The entries of an extent, and the two halves it can be cut into.
fn extent(key: Key<'_>) {
    let words = key.value.len() / 8;
    assert!(
        Entries::new(key.value).count() <= words + 1
            && Pointers::new(key.value, key.k.size).count() <= words + 1
    );
    let rules = KeyRules { btree: BtreeId::EXTENTS, level: 0 };
    if rules.check(&key.k).is_err() || validate(BtreeId::EXTENTS, key, &Rules::DEFAULT_1_13).is_err() {
        return;
    }
    let (mut front, mut back) = (key.to_owned(), key.to_owned());
    let half = key.k.size / 2;
    if cut_front(&mut back, half).is_ok() {
        cut_back(&mut front, half);
        assert_eq!((front.k.size + back.k.size, back.k.pos), (key.k.size, key.k.pos));
        assert_eq!(Some(front.k.pos.offset), back.k.start_offset());
    }
}
