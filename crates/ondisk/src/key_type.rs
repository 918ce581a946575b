//! Key types (spec 30 §1, spec 40 §1.3, spec 80 §7).

use std::fmt;

/// The type of a key's value. A newtype, not an enum, because a leaf may hold types of newer programs, which are
/// skipped by lookups and kept by rewrites (spec 40 §1.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyType(pub u8);

macro_rules! key_types {
    ($($(#[$doc:meta])* $konst:ident = $nr:literal, $name:literal;)*) => {
        impl KeyType {
            $($(#[$doc])* pub const $konst: KeyType = KeyType($nr);)*

            /// The name used in listings; `None` for a type this version does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($nr => Some($name),)*
                    _ => None,
                }
            }

            /// The type with that name.
            pub fn from_name(name: &str) -> Option<KeyType> {
                match name {
                    $($name => Some(KeyType($nr)),)*
                    _ => None,
                }
            }
        }
    };
}

key_types! {
    /// B-tree level tombstone: nothing at this exact position (spec 30 §7).
    DELETED = 0, "deleted";
    /// Hides the key of an ancestor snapshot.
    WHITEOUT = 1, "whiteout";
    /// Lost data: reads fail.
    ERROR = 2, "error";
    /// An opaque 64-bit number.
    COOKIE = 3, "cookie";
    /// A deleted slot inside a hash chain (spec 40 §4.3).
    HASH_WHITEOUT = 4, "hash_whiteout";
    /// Old pointer to a b-tree node.
    BTREE_PTR = 5, "btree_ptr";
    /// File data.
    EXTENT = 6, "extent";
    /// Allocated, no data.
    RESERVATION = 7, "reservation";
    /// Inode, first form.
    INODE = 8, "inode";
    /// What remains of a deleted inode.
    INODE_GENERATION = 9, "inode_generation";
    /// Directory entry.
    DIRENT = 10, "dirent";
    /// Extended attribute.
    XATTR = 11, "xattr";
    /// Bucket state, first form.
    ALLOC = 12, "alloc";
    /// Quota limits.
    QUOTA = 13, "quota";
    /// Erasure-code stripe.
    STRIPE = 14, "stripe";
    /// Pointer to an indirect extent.
    REFLINK_P = 15, "reflink_p";
    /// Indirect extent.
    REFLINK_V = 16, "reflink_v";
    /// File bytes inside the key.
    INLINE_DATA = 17, "inline_data";
    /// Pointer to a b-tree node.
    BTREE_PTR_V2 = 18, "btree_ptr_v2";
    /// File bytes inside an indirect key.
    INDIRECT_INLINE_DATA = 19, "indirect_inline_data";
    /// Bucket state, second form.
    ALLOC_V2 = 20, "alloc_v2";
    /// Subvolume.
    SUBVOLUME = 21, "subvolume";
    /// Snapshot.
    SNAPSHOT = 22, "snapshot";
    /// Inode, second form.
    INODE_V2 = 23, "inode_v2";
    /// Bucket state, third form.
    ALLOC_V3 = 24, "alloc_v3";
    /// Presence without a value.
    SET = 25, "set";
    /// LRU entry, legacy.
    LRU = 26, "lru";
    /// Bucket state.
    ALLOC_V4 = 27, "alloc_v4";
    /// Who points into a bucket.
    BACKPOINTER = 28, "backpointer";
    /// Inode.
    INODE_V3 = 29, "inode_v3";
    /// 256 bucket generations.
    BUCKET_GENS = 30, "bucket_gens";
    /// Root record of a tree of snapshots.
    SNAPSHOT_TREE = 31, "snapshot_tree";
    /// Interrupted truncate.
    LOGGED_OP_TRUNCATE = 32, "logged_op_truncate";
    /// Interrupted insert-range or collapse-range.
    LOGGED_OP_FINSERT = 33, "logged_op_finsert";
    /// Counters.
    ACCOUNTING = 34, "accounting";
    /// Inode allocation cursor (1.18).
    INODE_ALLOC_CURSOR = 35, "inode_alloc_cursor";
    /// Hides an extent of an ancestor snapshot (1.29).
    EXTENT_WHITEOUT = 36, "extent_whiteout";
    /// Interrupted update of a stripe (1.37).
    LOGGED_OP_STRIPE_UPDATE = 37, "logged_op_stripe_update";
    /// Record of damage found by a check (1.39).
    DAMAGE = 38, "damage";
}

impl KeyType {
    /// A tombstone that hides an ancestor snapshot's key and is never returned by a visible lookup
    /// (spec 40 §1.1, spec 80 §5 for 1.29).
    pub const fn is_snapshot_whiteout(self) -> bool {
        matches!(self, KeyType::WHITEOUT | KeyType::EXTENT_WHITEOUT)
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown key type {})", self.0),
        }
    }
}

impl fmt::Debug for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
