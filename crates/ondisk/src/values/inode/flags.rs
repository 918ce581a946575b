//! Flag bits of an inode (spec 40 §2.1, spec 80 §7.9).

use std::fmt;

/// The low 20 bits of an inode's flag word; unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeFlags(pub u32);

/// Names as the reference prints them, by bit.
const NAMES: [&str; 15] = [
    "sync",
    "immutable",
    "append",
    "nodump",
    "noatime",
    "i_size_dirty",
    "i_sectors_dirty",
    "unlinked",
    "backptr_untrusted",
    "has_child_snapshot",
    "has_case_insensitive",
    "31bit_dirent_offset",
    "has_inode_opts",
    "has_access_acl",
    "has_default_acl",
];

impl InodeFlags {
    /// `FS_SYNC_FL`.
    pub const SYNC: InodeFlags = InodeFlags(1 << 0);
    /// `FS_IMMUTABLE_FL`.
    pub const IMMUTABLE: InodeFlags = InodeFlags(1 << 1);
    /// `FS_APPEND_FL`.
    pub const APPEND: InodeFlags = InodeFlags(1 << 2);
    /// `FS_NODUMP_FL`.
    pub const NODUMP: InodeFlags = InodeFlags(1 << 3);
    /// `FS_NOATIME_FL`.
    pub const NOATIME: InodeFlags = InodeFlags(1 << 4);
    /// Legacy: extent updates must not raise the size.
    pub const I_SIZE_DIRTY: InodeFlags = InodeFlags(1 << 5);
    /// Legacy: the sector count is to be recomputed.
    pub const I_SECTORS_DIRTY: InodeFlags = InodeFlags(1 << 6);
    /// No directory entry refers to it.
    pub const UNLINKED: InodeFlags = InodeFlags(1 << 7);
    /// Legacy: the backpointer may be wrong.
    pub const BACKPTR_UNTRUSTED: InodeFlags = InodeFlags(1 << 8);
    /// A descendant snapshot has its own version (spec 40 §3.5).
    pub const HAS_CHILD_SNAPSHOT: InodeFlags = InodeFlags(1 << 9);
    /// A casefolding directory, or an ancestor of one (1.28).
    pub const HAS_CASE_INSENSITIVE: InodeFlags = InodeFlags(1 << 10);
    /// Name hashes of this directory are masked to 31 bits (1.30).
    pub const DIRENT_OFFSET_31BIT: InodeFlags = InodeFlags(1 << 11);
    /// Some option field is not zero (1.39).
    pub const HAS_INODE_OPTS: InodeFlags = InodeFlags(1 << 12);
    /// An access ACL exists (1.39).
    pub const HAS_ACCESS_ACL: InodeFlags = InodeFlags(1 << 13);
    /// A default ACL exists (1.39).
    pub const HAS_DEFAULT_ACL: InodeFlags = InodeFlags(1 << 14);
    /// The bits `chattr` sets.
    pub const USER: InodeFlags = InodeFlags(0b1_1111);

    /// All bits of `other` are set.
    pub const fn contains(self, other: InodeFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets or clears the bits of `other`.
    pub fn set(&mut self, other: InodeFlags, on: bool) {
        self.0 = if on { self.0 | other.0 } else { self.0 & !other.0 };
    }

    /// The names of the known bits that are set, in order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 != 0).map(|(_, name)| name)
    }
}

impl std::ops::BitOr for InodeFlags {
    type Output = InodeFlags;
    fn bitor(self, other: InodeFlags) -> InodeFlags {
        InodeFlags(self.0 | other.0)
    }
}

impl fmt::Display for InodeFlags {
    /// Names joined by commas; nothing if no known bit is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for InodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({:x})", self.0)
    }
}
