//! One target per decoder: feed it bytes, assert what must hold of the outcome.
//!
//! A target panics when something does not hold, and must itself do only work in proportion to its input.

mod journal;
mod node;
mod superblock;
mod value;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, also that of the libFuzzer target and of its directories.
    pub name: &'static str,
    /// Feeds bytes to the decoder.
    ///
    /// # Panics
    /// When something does not hold that must.
    pub run: fn(&[u8]),
    /// Bytes of memory the target may have in use at a time, per byte of input. It counts what the target itself
    /// keeps to check the outcome.
    pub bytes_per_byte_max: u64,
}

/// Every target.
pub const ALL: [Target; 8] = [
    Target { name: "superblock", run: superblock::superblock, bytes_per_byte_max: 64 },
    Target { name: "bkey", run: node::bkey, bytes_per_byte_max: 8 },
    Target { name: "packed_keys", run: node::packed_keys, bytes_per_byte_max: 16 },
    Target { name: "value", run: value::value, bytes_per_byte_max: 256 },
    Target { name: "node", run: node::node, bytes_per_byte_max: 32 },
    Target { name: "jset", run: journal::jset, bytes_per_byte_max: 32 },
    Target { name: "jset_list", run: journal::jset_list, bytes_per_byte_max: 32 },
    Target { name: "journal_bucket", run: journal::journal_bucket, bytes_per_byte_max: 32 },
];

/// The target called `name`.
pub fn by_name(name: &str) -> Option<Target> {
    ALL.into_iter().find(|target| target.name == name)
}

/// Runs the target called `name`.
///
/// # Panics
/// If there is none, or as the target does.
pub fn run(name: &str, bytes: &[u8]) {
    (by_name(name).expect("a target of this name exists").run)(bytes);
}
