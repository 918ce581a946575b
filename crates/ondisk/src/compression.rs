//! Numbers of compression: the type of a payload and the option a user sets (spec 40 §7.1, spec 10 §8.3).
//!
//! The two lists differ: an extent's crc entry says how its bytes *were* compressed, including an obsolete lz4 and
//! "did not compress"; the option says what is *wanted* and carries a level.

use std::fmt;

/// How a payload is compressed. A newtype, not an enum, because the 4-bit field may hold anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CompressionType(pub u8);

impl CompressionType {
    /// Stored as it is; compression was not tried.
    pub const NONE: CompressionType = CompressionType(0);
    /// One raw LZ4 block, written by old versions; decoded like [`CompressionType::LZ4`].
    pub const LZ4_OLD: CompressionType = CompressionType(1);
    /// A raw DEFLATE stream.
    pub const GZIP: CompressionType = CompressionType(2);
    /// One raw LZ4 block.
    pub const LZ4: CompressionType = CompressionType(3);
    /// Length and one zstd frame.
    pub const ZSTD: CompressionType = CompressionType(4);
    /// Stored as it is because compression did not make it smaller.
    pub const INCOMPRESSIBLE: CompressionType = CompressionType(5);

    const NAMES: [&str; 6] = ["none", "lz4_old", "gzip", "lz4", "zstd", "incompressible"];

    /// The name used in listings; `None` for a type this version does not know.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }

    /// The payload must be decompressed (types 1–4).
    pub const fn is_compressed(self) -> bool {
        matches!(self.0, 1..=4)
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown compression type {})", self.0),
        }
    }
}

impl fmt::Debug for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The compression wanted: `type | level << 4` (spec 10 §8.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CompressionOption(pub u8);

impl CompressionOption {
    /// No compression.
    pub const NONE: CompressionOption = CompressionOption(0);
    /// Names of the option's algorithms, by number.
    const NAMES: [&str; 4] = ["none", "lz4", "gzip", "zstd"];
    /// The type each algorithm writes, by number.
    const TYPES: [CompressionType; 4] =
        [CompressionType::NONE, CompressionType::LZ4, CompressionType::GZIP, CompressionType::ZSTD];

    /// Number of the algorithm: 0 none, 1 lz4, 2 gzip, 3 zstd; larger numbers are invalid.
    pub const fn algorithm(self) -> u8 {
        self.0 & 15
    }

    /// Level, 0 for the algorithm's default, at most 15.
    pub const fn level(self) -> u8 {
        self.0 >> 4
    }

    /// The algorithm is known, and only an algorithm has a level.
    pub const fn is_valid(self) -> bool {
        self.algorithm() <= 3 && (self.algorithm() != 0 || self.level() == 0)
    }

    /// The type of payloads written under this option; `None` if the option is invalid.
    pub fn compression_type(self) -> Option<CompressionType> {
        Self::TYPES.get(usize::from(self.algorithm())).copied()
    }

    /// Parses `zstd` or `zstd:7`.
    pub fn parse(text: &str) -> Option<CompressionOption> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, level.parse().ok().filter(|&l: &u8| l <= 15)?),
            None => (text, 0),
        };
        let algorithm = Self::NAMES.iter().position(|n| *n == name)? as u8;
        Some(CompressionOption(algorithm | level << 4)).filter(|o| o.is_valid())
    }
}

impl fmt::Display for CompressionOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(usize::from(self.algorithm())) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "(unknown compression {})", self.algorithm())?,
        }
        match self.level() {
            0 => Ok(()),
            level => write!(f, ":{level}"),
        }
    }
}

impl fmt::Debug for CompressionOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_print_as_they_parse() {
        for (text, byte) in [("none", 0), ("lz4", 1), ("gzip:9", 0x92), ("zstd:7", 0x73), ("zstd:15", 0xf3)] {
            assert_eq!(CompressionOption::parse(text), Some(CompressionOption(byte)));
            assert_eq!(CompressionOption(byte).to_string(), text);
        }
        for bad in ["", "lzma", "zstd:16", "zstd:-1", "none:1", "zstd:"] {
            assert_eq!(CompressionOption::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn types_follow_options() {
        assert_eq!(CompressionOption(0x73).compression_type(), Some(CompressionType::ZSTD));
        assert_eq!(CompressionOption(4).compression_type(), None);
        assert!(!CompressionOption(4).is_valid() && !CompressionOption(0x10).is_valid());
        assert!(CompressionType::LZ4_OLD.is_compressed() && !CompressionType::INCOMPRESSIBLE.is_compressed());
    }
}
