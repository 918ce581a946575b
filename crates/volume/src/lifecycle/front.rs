//! Proof that a change may be made now.
//!
//! Whoever changes something on behalf of others (an operation of a user, what deletes in the background) holds a [`Ticket`], which it takes
//! before its first lock and gives back at its end (spec 70 R2). While somebody holds one, the volume does not come to rest. What writes
//! back (the journal, reclaim, nodes, discards) needs none and so never waits for a gate (INV-5). What takes a `&Ticket` cannot be
//! called without one (INV-14), and does not take another, with which it would wait for itself (R3).

use super::Lifecycle;

/// What a ticket is for: tells, while a volume comes to rest, for whom it waits, and who is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontKind {
    /// Making objects and names, taking names away, renaming.
    Names,
    /// Attributes, extended attributes, access control lists.
    Attributes,
    /// Writing to files.
    Write,
    /// Truncating, reserving, punching, shifting, sharing.
    Space,
    /// Making and deleting subvolumes and snapshots.
    Subvolumes,
    /// Copying trees into the volume.
    Import,
    /// Work in the background.
    Background,
    /// Pages of mapped files that the kernel writes back.
    WriteBack,
    /// Removing objects that nobody uses any more.
    Removal,
}

impl FrontKind {
    /// All of them.
    pub const ALL: [FrontKind; 9] = [
        FrontKind::Names,
        FrontKind::Attributes,
        FrontKind::Write,
        FrontKind::Space,
        FrontKind::Subvolumes,
        FrontKind::Import,
        FrontKind::Background,
        FrontKind::WriteBack,
        FrontKind::Removal,
    ];

    /// For a report.
    pub fn name(self) -> &'static str {
        match self {
            FrontKind::Names => "names",
            FrontKind::Attributes => "attributes",
            FrontKind::Write => "write",
            FrontKind::Space => "space",
            FrontKind::Subvolumes => "subvolumes",
            FrontKind::Import => "import",
            FrontKind::Background => "background",
            FrontKind::WriteBack => "write-back",
            FrontKind::Removal => "removal",
        }
    }

    /// Which gate it passes: the second one stays open a while longer, for what turns into metadata what was dirty already (spec 70 R4).
    pub(super) fn gate(self) -> usize {
        usize::from(matches!(self, FrontKind::WriteBack | FrontKind::Removal))
    }
}

/// See the [module](self). Gives itself back when dropped.
#[derive(Debug)]
pub struct Ticket<'l> {
    pub(super) lifecycle: &'l Lifecycle,
    pub(super) kind: FrontKind,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.lifecycle.leave(self.kind);
    }
}

/// Why there is no ticket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// The volume is frozen, or about to be: later. [`Lifecycle::on_change`] tells when to try again.
    Blocked,
    /// Nothing can be changed, or nothing any more.
    ReadOnly,
}
