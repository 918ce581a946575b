//! Why bytes could not be decoded.

use std::borrow::Cow;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// Why a byte string is not the structure it was taken for.
///
/// The error names the structure and the reason; the caller, who knows where the bytes came from, adds the device,
/// the offset or the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the structure does.
    #[error("{what} is cut short: {need} bytes needed, {have} there")]
    Truncated {
        /// The structure being decoded, in the terms of the specification.
        what: &'static str,
        /// Bytes needed, counted from the start of the structure.
        need: usize,
        /// Bytes available from the start of the structure.
        have: usize,
    },
    /// A field has a value the format forbids.
    #[error("{what}: {reason}")]
    Invalid {
        /// The structure being decoded, in the terms of the specification.
        what: &'static str,
        /// The rule that is broken and the offending value, in one line.
        reason: Cow<'static, str>,
    },
    /// The stored checksum does not match the bytes.
    #[error("{what}: bad checksum (type {csum_type}): stored {stored}, computed {computed}")]
    BadChecksum {
        /// The structure being verified.
        what: &'static str,
        /// Checksum type number (spec 10 §14).
        csum_type: u8,
        /// The checksum found, in hexadecimal.
        stored: String,
        /// The checksum of the bytes, in hexadecimal.
        computed: String,
    },
    /// The structure is whole but uses something this crate does not read (a newer version, another byte order …).
    #[error("{what}: {reason}")]
    Unsupported {
        /// The structure being decoded.
        what: &'static str,
        /// What is not supported, in one line.
        reason: Cow<'static, str>,
    },
}

impl DecodeError {
    /// A [`DecodeError::Invalid`] with a reason.
    pub fn invalid(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }

    /// A [`DecodeError::Unsupported`] with a reason.
    pub fn unsupported(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported { what, reason: reason.into() }
    }
}
