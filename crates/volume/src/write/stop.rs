//! Coming to rest, and going on: what the transitions of a volume's [lifecycle](crate::lifecycle) do to a volume that is being written (spec 70 §5.2–§5.4).
//!
//! | from | by | to |
//! |---|---|---|
//! | writing, nobody commits any more | [`write_back`] | everything is in the b-trees on the devices |
//! | nothing to write back | [`seal`] | the journal ends with an empty entry, the superblock says "clean", nothing may be written |
//! | sealed | [`go_on`] | the superblock says "not clean" again, writing |
//! | anything | [`stop_now`] | nothing is written any more: after a power cut at this moment it would be the same |
//!
//! Who may call which, and who waits for whom, is not decided here: these functions must not run beside each other.

use frazil_btree::write::CommitError;
use frazil_journal::engine::HaltReason;
use frazil_journal::{Journal, JournalError};
use frazil_ondisk::units::Seq;

use super::host::VolumeHost;
use super::superblock::SuperblockWriteError;

/// More rounds than write-back can need: each shortens the chain of what makes dirt (INV-6).
const ROUNDS_MAX: usize = 1000;

/// What keeps changes in memory above the journal's pins.
pub trait WriteBack {
    /// Brings what is kept apart (a write buffer) to where pins hold it, and finishes what is under way (replacements of nodes). True if
    /// there was anything.
    ///
    /// # Errors
    /// If it cannot be done; nothing is lost, but the volume cannot become clean.
    fn settle(&self) -> Result<bool, CommitError>;
}

/// Why a volume did not stop cleanly. It is as after a power cut, and recovers at its next start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The journal has stopped.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Something could not be written back.
    #[error("{0}")]
    WriteBack(#[from] CommitError),
    /// Writing back makes new dirt without end: a defect.
    #[error("there is always something left to be written back")]
    NeverDone,
    /// The superblock could not be written.
    #[error("{0}")]
    Superblock(#[from] SuperblockWriteError),
}

/// Writes back until two rounds in a row found nothing to do and nobody committed: each step can make work for one before it (spec
/// 70 §5.2 step 5). Between rounds it looks whether that is still `wanted`, and returns early if not.
///
/// # Errors
/// See [`StopError`]. Nothing is lost.
pub fn write_back(
    journal: &Journal,
    work: &dyn WriteBack,
    wanted: &dyn Fn() -> bool,
) -> Result<(), StopError> {
    let mut quiet_rounds = 0;
    for _ in 0..ROUNDS_MAX {
        if !wanted() {
            return Ok(());
        }
        let before = journal.status().seq;
        let settled = work.settle()?;
        let flushed = journal.flush_pins(Seq(u64::MAX))?;
        let quiet = !settled && !flushed && journal.status().seq == before;
        quiet_rounds = if quiet { quiet_rounds + 1 } else { 0 };
        if quiet_rounds == 2 {
            return Ok(());
        }
    }
    Err(StopError::NeverDone)
}

/// After [`write_back`], and nobody commits: ends the journal with an empty entry, and marks the volume clean if it may be called so (spec 70 R5).
/// Nobody but readers may use the volume until [`go_on`].
///
/// # Errors
/// See [`StopError`]. Some superblocks may say "clean" already: [`go_on`] comes next, or nothing any more.
pub fn seal(journal: &Journal, host: &VolumeHost, clean: bool) -> Result<(), StopError> {
    let stopped = journal.shutdown()?;
    if clean {
        host.superblock().mark_clean(&host.closing(stopped))?;
    }
    Ok(())
}

/// After [`seal`]: the volume is going to be written again. Returns when the superblock says so.
///
/// # Errors
/// If the superblock cannot be written, or somebody else wrote to the devices meanwhile; then nothing may be written.
pub fn go_on(journal: &Journal, host: &VolumeHost) -> Result<(), SuperblockWriteError> {
    host.superblock().mark_dirty()?;
    journal.resume();
    Ok(())
}

/// Stops at once and for good (spec 60 §11.4). Returns when nothing is on its way to the devices any more.
pub fn stop_now(journal: &Journal, why: &str) {
    journal.halt(HaltReason::Requested(why.to_owned()));
    journal.wait_settled();
}
