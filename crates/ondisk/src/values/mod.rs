//! What a key's value means: one module per family of key types.

pub mod extent;
