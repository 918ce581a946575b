//! A set of devices as one filesystem.
//!
//! | to find | look in |
//! |---|---|
//! | how an extent becomes bytes: copies, checksums, decryption, decompression, parity | [`data`] |

#![forbid(unsafe_code)]

pub mod data;
