//! The bcachefs on-disk format: bytes to types and back.
//!
//! This crate is pure: it does no I/O, starts no thread, reads no clock and has no `unsafe`. Every
//! decoder is *total*: for any byte string it returns a value or a [`DecodeError`], never a panic, a hang or
//! an allocation larger than a small multiple of its input. The facts come from `docs/format/`, cited as
//! `spec FILE §SECTION`.
//!
//! | to find | look in |
//! |---|---|
//! | byte cursors, bit fields, the error type | [`bytes`], [`error`] |
//! | newtypes for sectors, sequence numbers, inode numbers … | [`units`] |
//! | key positions and their order | [`bpos`] |
//! | the b-trees and the key types | [`btree_id`], [`key_type`] |
//! | the unpacked key header, owned and borrowed keys | [`bkey`] |
//! | packed keys, node headers, bsets | [`node`] |
//! | what a key's value means (inode, dirent, extent …) | [`values`] |
//! | superblock, layout, members, every section | [`superblock`] |
//! | journal entries | [`jset`] |
//! | kinds of data, compression types and options | [`data_type`], [`compression`] |
//! | checksums, ChaCha20/Poly1305, key derivation | [`checksum`], [`crypto`] |
//! | hashes of names | [`str_hash`] |
//! | variable-length integers | [`varint`] |
//! | version numbers and what each one changed | [`version`] |
//! | error ids of the format and their names | [`fsck_errors`] |

#![forbid(unsafe_code)]

pub mod bkey;
pub mod bpos;
pub mod btree_id;
pub mod bytes;
pub mod checksum;
pub mod compression;
pub mod crypto;
pub mod data_type;
pub mod error;
pub mod fsck_errors;
pub mod jset;
pub mod key_type;
pub mod node;
pub mod str_hash;
pub mod superblock;
pub mod units;
pub mod values;
pub mod varint;
pub mod version;

pub use bkey::{BVersion, Bkey, Key, KeyBuf};
pub use bpos::Bpos;
pub use btree_id::BtreeId;
pub use compression::{CompressionOption, CompressionType};
pub use data_type::DataType;
pub use error::{DecodeError, Result};
pub use key_type::KeyType;
