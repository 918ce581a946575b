//! What a lifecycle asks of the volume: the work of its transitions, and nothing about when.

/// The volume behind the gates: what transitions do to it. Its methods are called without locks, by one thread at a time but for
/// [`Back::halt`] and [`Back::progress`].
pub trait Back: Send + Sync {
    /// Writes back what there is now, while it goes on being changed.
    fn ahead(&self);

    /// Stops what works in the background, and writes everything back. Looks now and then whether it is still `wanted`, and returns if not.
    ///
    /// # Errors
    /// One line: what cannot be written back.
    fn drain(&self, wanted: &dyn Fn() -> bool) -> Result<(), String>;

    /// After a drain: ends the journal with an empty entry and marks the volume clean, unless there is something that the next start has to
    /// finish (spec 70 R5).
    ///
    /// # Errors
    /// One line. Then [`Back::open`] comes next.
    fn seal(&self) -> Result<(), String>;

    /// After a drain, instead of sealing: works in the background again.
    fn undo(&self);

    /// After sealing: says "not clean" on stable storage, then works in the background again.
    ///
    /// # Errors
    /// One line; then nothing was written but maybe that.
    fn open(&self) -> Result<(), String>;

    /// Makes durable what was committed.
    ///
    /// # Errors
    /// One line.
    fn flush(&self) -> Result<(), String>;

    /// Nothing is written any more, at once and for good.
    fn halt(&self, why: &str);

    /// After an error and [`Back::halt`]: notes in the superblock what was found, if it still can be written. It is the last write.
    fn record(&self);

    /// Ends the process at once. Nothing is written before, and nobody is told.
    fn abort(&self, why: &str);

    /// What is still to be written back, by kind.
    fn progress(&self) -> Vec<(&'static str, u64)>;
}

/// Behind a volume that is only read.
pub(super) enum Nothing {}

impl Back for Nothing {
    fn ahead(&self) {
        match *self {}
    }
    fn drain(&self, _: &dyn Fn() -> bool) -> Result<(), String> {
        match *self {}
    }
    fn seal(&self) -> Result<(), String> {
        match *self {}
    }
    fn undo(&self) {
        match *self {}
    }
    fn open(&self) -> Result<(), String> {
        match *self {}
    }
    fn flush(&self) -> Result<(), String> {
        match *self {}
    }
    fn halt(&self, _: &str) {
        match *self {}
    }
    fn record(&self) {
        match *self {}
    }
    fn abort(&self, _: &str) {
        match *self {}
    }
    fn progress(&self) -> Vec<(&'static str, u64)> {
        match *self {}
    }
}
