//! The first start of a volume that was formatted elsewhere and never started (spec 10 §16.3).
//!
//! A formatter may write superblocks only, and leave everything else to the first start. Nothing of the volume exists yet but its identity
//! and its options, so the rest is built just as `frazil format` builds it. The superblocks stay as they are until all else is stable; a
//! crash before leaves a volume that was never started.
//!
//! With several devices a crash between their superblocks leaves some that know nothing of their journal: they go on without one, and its
//! buckets are lost until a check finds them. Telling them before would be worse: the reference cannot start a volume that was never
//! started and has journals (spec 10 §16.3).

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::superblock::Superblock;

use super::options::{Prepared, bad, journal_buckets};
use super::random::Random;
use super::{Builder, Built, Result};

/// Starts the volume whose superblock that counts is `newest`, on these devices, each with its own superblock: afterwards it is an empty
/// volume that was shut down cleanly.
///
/// # Errors
/// [`BuildError::Options`](super::BuildError) if a device is missing, before anything is written; if a device fails, or is too small.
pub(crate) fn start(
    newest: &Superblock,
    mut devices: Vec<(Arc<dyn Device>, Superblock)>,
    key: Option<Key>,
) -> Result<Built> {
    devices.sort_by_key(|(_, own)| own.dev_idx);
    let members = newest.members()?;
    let complete = members.live().map(|(dev, _)| dev).eq(devices.iter().map(|(_, own)| own.dev_idx));
    if !complete || members.list.len() != devices.len() {
        return bad("its first start needs every device");
    }
    let mut superblocks = Vec::new();
    for (member, (_, own)) in members.list.iter().zip(&devices) {
        let mut own = own.with_shared_from(newest);
        own.put_journal_buckets(&journal_buckets(member, &own.layout));
        own.validate()?;
        superblocks.push(own);
    }
    let prepared = Prepared { superblocks, key, random: Random::of_system()? };
    Builder::over(devices.into_iter().map(|(device, _)| device).collect(), prepared)?.finish_empty()
}
