//! Extents: where file data (and, in their pointer entries, b-tree nodes) lie on the devices (spec 40 §7, spec 80 §7.3).
//!
//! The value of an extent is a list of *entries*, each of one to three words; the type of an entry is the number of the
//! lowest set bit of its first word. The list reads like a small program:
//!
//! * a **pointer** names one copy of the data: device, sector, bucket generation;
//! * a **crc** entry says how the copies *behind* it are checksummed and compressed, and which part of the decoded
//!   payload is live, until the next crc entry takes over. Copies before the first one are plain;
//! * a **stripe pointer** says that the *next* pointer is block so-and-so of an erasure-code stripe;
//! * the rest (rebalance, flags, reconcile) is about the key as a whole.
//!
//! [`Entries`] walks the list; [`Pointers`] runs the program and yields every copy with what is in force for it
//! ([`Replica`]), which is what readers and allocation triggers want. A key's size counts sectors of *file*;
//! a payload on disk is shorter when compressed and longer when only a part of it is still live.
//!
//! Entry types this version does not know can be skipped only if the superblock says how long they are
//! ([`EntrySizes`], spec 80 §5.14).

mod crc;
mod entry;
mod pointers;
mod ptr;
mod reconcile;
mod trim;
mod validate;

pub use crc::{Crc, CrcEntry, CrcForm};
pub use entry::{Entries, Entry, EntrySizes, StripePtr};
pub use pointers::{Pointers, Replica};
pub use ptr::ExtentPtr;
pub use reconcile::{NeedRb, Rebalance, Reconcile, ReconcileBp};
pub use trim::{cut_back, cut_front};
pub use validate::{PointerKind, validate};
