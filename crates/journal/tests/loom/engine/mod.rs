//! The crate's own source files, compiled against loom.

#[path = "../../../src/engine/core.rs"]
pub(crate) mod core;
#[path = "../../../src/engine/pins.rs"]
pub(crate) mod pins;
#[path = "../../../src/engine/slots.rs"]
pub(crate) mod slots;
#[path = "../../../src/engine/word.rs"]
pub(crate) mod word;
