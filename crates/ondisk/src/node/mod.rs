//! B-tree nodes as they lie on disk (spec 30 §4–§8).

mod format;
mod pack;
#[cfg(test)]
mod testing;

pub use format::{FormatBuilder, FormatRules, KeyFormat};
pub use pack::{KEY_FORMAT_LOCAL, RawKey, RawKeyError};
