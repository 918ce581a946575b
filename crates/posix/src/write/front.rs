//! The operations that change files, for whoever may change them now.
//!
//! A [`Front`] holds a front ticket of the volume's [lifecycle](frazil_volume::lifecycle), taken before any lock, and all that changes something is to be had only
//! through it (INV-14). So an operation, however many transactions it takes, is over before the volume is frozen, and who waits for the end of a freeze
//! holds nothing. What reads, and what makes durable, is of [`WriteFs`] itself and does not wait.
//!
//! What has to change something now and then and must not wait for that, the removal of what somebody no longer uses, is put off
//! ([`WriteFs::release`]) and made up for in the background ([`Front::remove_released`]).

use std::ops::Deref;

use frazil_btree::write::CommitOptions;
use frazil_volume::lifecycle::{FrontKind, NotNow, Ticket};

use super::WriteFs;
use super::op::Op;
use crate::error::{Error, Result};

/// See the [module](self). One for each operation, or for a few that belong together: as long as it lives the volume cannot be frozen.
pub struct Front<'f> {
    pub(super) fs: &'f WriteFs,
    _ticket: Ticket<'f>,
}

impl Deref for Front<'_> {
    type Target = WriteFs;

    fn deref(&self) -> &WriteFs {
        self.fs
    }
}

impl WriteFs {
    /// Whoever calls this may change something until the result is dropped. While the volume is frozen it waits.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if nothing can be changed, or nothing any more.
    pub fn front(&self, kind: FrontKind) -> Result<Front<'_>> {
        let ticket = self.live.lifecycle().enter(kind).ok_or(Error::ReadOnly)?;
        Ok(Front { fs: self, _ticket: ticket })
    }

    /// As [`WriteFs::front`], but does not wait.
    ///
    /// # Errors
    /// See [`NotNow`].
    pub fn try_front(&self, kind: FrontKind) -> std::result::Result<Front<'_>, NotNow> {
        let ticket = self.live.lifecycle().try_enter(kind)?;
        Ok(Front { fs: self, _ticket: ticket })
    }
}

impl Front<'_> {
    /// Runs one transaction; `f` may run several times.
    pub(crate) fn change<R>(&self, mut f: impl FnMut(&mut Op<'_, '_>) -> Result<R>) -> Result<R> {
        let now = self.now();
        let mut charge = None;
        let counting = self.quotas.change();
        let run = self.engine().run(CommitOptions::default(), |t| {
            // What an earlier run would have cost.
            charge = None;
            let mut op = Op::new(self.fs, t, now);
            let value = f(&mut op)?;
            charge = Some(self.quotas.charge(op.quota, now)?);
            Ok(value)
        });
        drop(counting);
        if let (Ok(_), Some(charge)) = (&run, charge) {
            charge.keep(&self.names);
        }
        run.map(|done| done.value)
    }
}
