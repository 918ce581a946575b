//! From extents to bytes.
//!
//! A key of the `extents` b-tree says where the bytes of a stretch of a file lie; this module fetches them. Why a
//! stretch cannot be had, copy by copy, is an [`Error`].

mod error;

pub use error::{BadCopy, Cause, CopyProblem, Error};
