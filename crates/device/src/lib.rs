//! Where blocks live.
