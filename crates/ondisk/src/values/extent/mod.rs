//! Extents: where file data (and, in their pointer entries, b-tree nodes) lie on the devices (spec 40 §7, spec 80 §7.3).

mod ptr;

pub use ptr::ExtentPtr;
