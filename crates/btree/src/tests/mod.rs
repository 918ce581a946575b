//! Tests of lookups, cursors and the overlay against a map.

mod cursors;
mod damage;
mod snapshots;
mod store;
