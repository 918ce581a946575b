//! Real bcachefs images for the tests of every crate, and the means to compare a filesystem with what it must hold.
//!
//! The truth about the format is in images that others made. `tests/golden/` has sixty of them on record: what
//! each holds is written down in a *manifest*, and how the reference implementation decodes it in *listings*.
//!
//! | to | use |
//! |---|---|
//! | go over all images, or find one by name | [`golden::all`], [`golden::image`] |
//! | have an image as files or bytes | [`golden::GoldenImage::unpack`] to read, [`scratch`](golden::GoldenImage::scratch), [`bytes`](golden::GoldenImage::bytes) |
//! | know what it must hold | [`golden::GoldenImage::manifest`], [`manifest`] |
//! | know every key of a b-tree as the reference prints it | [`golden::GoldenImage::listing`], [`listing`] |
//! | compare what our code sees with the manifest | [`compare`] |
//! | make random choices that can be replayed | [`seed::for_each_seed`] |
//! | have a tree with some of everything | [`sample`] |
//! | use a loop device that nobody used before | [`loops::FreshLoop`] |
//! | see a mounted or exported directory the same way | [`observe`] |
//!
//! Everything here is for tests: a missing or damaged image is not an error to handle but a panic that says what
//! to do. The command line over the same functions is `cargo run -p frazil-testing --bin golden -- help`.

#![forbid(unsafe_code)]

pub mod compare;
pub mod golden;
pub mod listing;
pub mod loops;
pub mod manifest;
pub mod observe;
pub mod sample;
pub mod seed;
mod unpack;

use sha2::{Digest, Sha256};

/// Where the tests are to run with requests through io_uring, they must not fall back unseen: then a mount has to have queues, for which it is asked.
pub fn expect_io_uring(queues: impl FnOnce() -> Option<u64>) {
    if std::env::var_os("FRAZIL_EXPECT_IO_URING").is_some() {
        assert!(queues().is_some(), "requests come through /dev/fuse");
    }
}

/// SHA-256 of `bytes` in lower-case hexadecimal, as manifests and the index write it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
