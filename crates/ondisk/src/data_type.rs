//! What a bucket, a replicas entry or a member's permission is about (spec 50 §1.2, spec 80 §7.7).

use std::fmt;

/// Kind of data. A newtype, not an enum, because newer programs may write kinds this version does not know.
/// The default is `free`, which is what a bucket without a key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DataType(pub u8);

macro_rules! data_types {
    ($($(#[$doc:meta])* $konst:ident = $nr:literal, $name:literal;)*) => {
        impl DataType {
            $($(#[$doc])* pub const $konst: DataType = DataType($nr);)*

            /// The name used in listings; `None` for a kind this version does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($nr => Some($name),)*
                    _ => None,
                }
            }

            /// The kind with that name.
            pub fn from_name(name: &str) -> Option<DataType> {
                match name {
                    $($name => Some(DataType($nr)),)*
                    _ => None,
                }
            }
        }
    };
}

data_types! {
    /// Nothing; the bucket may be used.
    FREE = 0, "free";
    /// Superblock copies.
    SB = 1, "sb";
    /// Journal.
    JOURNAL = 2, "journal";
    /// B-tree nodes.
    BTREE = 3, "btree";
    /// File data.
    USER = 4, "user";
    /// Only droppable copies of data.
    CACHED = 5, "cached";
    /// Erasure-code parity.
    PARITY = 6, "parity";
    /// Data block of a stripe.
    STRIPE = 7, "stripe";
    /// Empty, but the generation is too far ahead of the oldest pointer.
    NEED_GC_GENS = 8, "need_gc_gens";
    /// Empty, discard or journal flush pending.
    NEED_DISCARD = 9, "need_discard";
    /// Sectors of a stripe's buckets that no stripe covers; occurs in accounting only.
    UNSTRIPED = 10, "unstriped";
    /// More than one kind: a state left by damage (1.37 and later).
    MULTIPLE = 11, "multiple";
}

impl DataType {
    /// A bucket of this kind holds nothing (spec 50 §1.2).
    pub const fn is_empty(self) -> bool {
        matches!(self, DataType::FREE | DataType::NEED_GC_GENS | DataType::NEED_DISCARD)
    }

    /// Not counted as part of the filesystem's capacity (spec 50 §1.2).
    pub const fn is_hidden(self) -> bool {
        matches!(self, DataType::SB | DataType::JOURNAL)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown data type {})", self.0),
        }
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for t in (0..12).map(DataType) {
            assert_eq!(DataType::from_name(t.name().expect("known")), Some(t));
        }
        assert_eq!(DataType(12).name(), None);
        assert_eq!(DataType(12).to_string(), "(unknown data type 12)");
    }
}
