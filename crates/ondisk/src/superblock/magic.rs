//! Magic numbers (spec 10 §2). Those of journal entries and b-tree nodes derive from the internal UUID:
//! [`crate::jset::jset_magic`], [`crate::node`].

use uuid::Uuid;

/// Superblock and layout, as written.
pub const SUPERBLOCK: Uuid = Uuid::from_u128(0xc68573f6_66ce_90a9_d96a_60cf803df7ef);
/// Superblock and layout, as old programs wrote it; accepted, never written.
pub const SUPERBLOCK_OLD: Uuid = Uuid::from_u128(0xc68573f6_4e1a_45ca_8265_f57f48ba6d81);
/// Filesystem type that `statfs` reports.
pub const STATFS: u32 = 0xca45_1a4e;

/// The magic of a superblock or a layout.
pub fn is_superblock(magic: Uuid) -> bool {
    magic == SUPERBLOCK || magic == SUPERBLOCK_OLD
}
