//! Quotas: what users, groups and projects may use (spec 40 §14.2).
//!
//! Limits are stored, usage is not: it is summed up from the inodes when the volume is opened, if one of the three options is on, and followed
//! from then on. The options are the superblock's, which a mount may override. Counted are the inodes of subvolumes that are not snapshots of another.
//! When such a one goes, one of its snapshots takes its place; while what that holds is counted, nothing is changed.
//!
//! An operation notes what the inodes it writes counted for before and count for now ([`Changes`]). When it has decided everything, and before it
//! is committed, the difference is charged to the owners; whoever would exceed a limit by it is refused, unless the caller is privileged or
//! nothing is asked of a caller (background work). If the transaction is not committed the charge is taken back. So what all together use never exceeds a
//! hard limit, however many work at once.
//!
//! A soft limit may be exceeded for a grace period, a week unless the superblock says otherwise (spec 10 §9.5). When it began is known
//! only while the volume is open, as with the reference.

use std::collections::{BTreeMap, HashMap, HashSet};

use frazil_btree::{Btrees, View};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::sections::Quota as Grace;
use frazil_ondisk::units::{Inum, Sectors, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::{Inode, InodeOpt};
use frazil_ondisk::values::quota::{Limit, Quota, TYPES};
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::front::Front;
use super::op::{Object, Op, Place};
use super::{Caller, WriteFs};
use crate::attr::{NodeId, Timestamp};
use crate::error::{Error, Result};
use crate::namespace::{Namespace, decode_inode};

/// Whose quota it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QuotaKind {
    /// A user's.
    User,
    /// A group's.
    Group,
    /// A project's.
    Project,
}

impl QuotaKind {
    /// All kinds, in the order of their numbers on disk.
    pub const ALL: [QuotaKind; TYPES as usize] = [QuotaKind::User, QuotaKind::Group, QuotaKind::Project];

    /// Its name.
    pub fn name(self) -> &'static str {
        Grace::TYPE_NAMES[self as usize]
    }
}

/// Which kinds of quotas are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaKinds(pub [bool; QuotaKind::ALL.len()]);

impl QuotaKinds {
    /// Those that the superblock's options name, but for what is said otherwise.
    pub fn of(superblock: &Superblock, said: QuotaChoice) -> QuotaKinds {
        let flags = &superblock.flags;
        let stored = [flags.usrquota(), flags.grpquota(), flags.prjquota()];
        QuotaKinds(std::array::from_fn(|kind| said.0[kind].unwrap_or(stored[kind])))
    }

    /// Whether any is on.
    pub fn any(self) -> bool {
        self != QuotaKinds::default()
    }

    /// Whether a kind is on.
    pub fn is_on(self, kind: QuotaKind) -> bool {
        self.0[kind as usize]
    }
}

/// Which kinds of quotas are to be on, or off, whatever the superblock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaChoice(pub [Option<bool>; QuotaKind::ALL.len()]);

/// One resource of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaUse {
    /// How much is in use: sectors, or inodes.
    pub used: u64,
    /// The limits, in the same unit; 0 is none.
    pub limit: Limit,
    /// Since when more than the soft limit is in use.
    pub over_since: Option<Timestamp>,
}

/// An owner, and what it uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaReport {
    /// Kind of the owner.
    pub kind: QuotaKind,
    /// Which user, group or project.
    pub id: u32,
    /// Space, in sectors.
    pub space: QuotaUse,
    /// Inodes.
    pub inodes: QuotaUse,
}

type Owner = (QuotaKind, u32);

/// Space and inodes, in this order wherever there are two of something.
const RESOURCES: usize = 2;

/// The quotas of a volume.
pub(crate) struct Quotas {
    kinds: QuotaKinds,
    /// Seconds that a soft limit may be exceeded.
    grace_s: [[u32; RESOURCES]; QuotaKind::ALL.len()],
    /// The subvolumes whose inodes count: those that are no snapshots.
    counted: RwLock<HashSet<SubvolId>>,
    /// Held for reading by whoever changes something, for writing by who counts what a subvolume holds.
    counting: RwLock<()>,
    owners: Mutex<HashMap<Owner, Account>>,
}

/// An owner.
#[derive(Clone, Copy, Default)]
struct Account([Resource; RESOURCES]);

#[derive(Clone, Copy, Default)]
struct Resource {
    used: i64,
    limit: Limit,
    over_since: Option<Timestamp>,
}

/// What an inode counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    owners: [u32; QuotaKind::ALL.len()],
    sectors: Sectors,
}

impl Owned {
    pub(crate) fn of(inode: &Inode) -> Owned {
        let project = inode.opts.get(InodeOpt::Project).unwrap_or(0);
        Owned { owners: [inode.uid, inode.gid, project], sectors: inode.sectors }
    }
}

/// What a transaction has changed so far.
#[derive(Default)]
pub(crate) struct Changes {
    /// Inodes: what they counted for before the transaction, and now.
    inodes: Vec<(NodeId, Option<Owned>, Option<Owned>)>,
    /// Limits are to be kept.
    limited: bool,
    /// A subvolume that is made.
    made: Option<SubvolId>,
    /// A subvolume that is unlinked, and what it saw.
    gone: Option<(SubvolId, View)>,
    /// A subvolume that is no snapshot any more.
    promoted: Option<SubvolId>,
}

impl Changes {
    fn note(&mut self, node: NodeId, was: Option<Owned>, is: Option<Owned>) {
        match self.inodes.iter_mut().find(|(other, ..)| *other == node) {
            // What it was before is known already.
            Some((_, _, last)) => *last = is,
            None => self.inodes.push((node, was, is)),
        }
    }
}

/// What a transaction was charged; taken back unless it is kept.
pub(crate) struct Charge<'q> {
    quotas: &'q Quotas,
    sums: BTreeMap<Owner, [i64; RESOURCES]>,
    made: Option<SubvolId>,
    gone: Option<(SubvolId, View)>,
    promoted: Option<SubvolId>,
}

impl Charge<'_> {
    /// The transaction is committed, and what [`Quotas::change`] returned is dropped.
    pub(crate) fn keep(mut self, names: &Namespace) {
        self.sums.clear();
        self.made = None;
        if let Some((subvol, view)) = self.gone.take() {
            self.quotas.stop_counting(names, subvol, &view);
        }
        if let Some(subvol) = self.promoted {
            self.quotas.start_counting(names, subvol);
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(made) = self.made {
            self.quotas.counted.write().remove(&made);
        }
        let back = std::mem::take(&mut self.sums);
        let mut owners = self.quotas.owners.lock();
        for (owner, sum) in back {
            owners.entry(owner).or_default().add(sum.map(|n| -n));
        }
    }
}

impl Account {
    fn set(&mut self, limits: &Quota) {
        let [space, inodes] = &mut self.0;
        (space.limit, inodes.limit) = (limits.space, limits.inodes);
    }

    fn add(&mut self, sum: [i64; RESOURCES]) {
        for (resource, change) in self.0.iter_mut().zip(sum) {
            resource.used += change;
        }
    }
}

impl Resource {
    /// Whether so much more would be too much.
    fn refuses(&self, change: i64, now: Timestamp, grace_s: u32) -> bool {
        let then = u64::try_from(self.used + change).unwrap_or(0);
        let exceeds = |limit: u64| limit != 0 && then > limit;
        let is_over = |since: Timestamp| now.secs.saturating_sub(since.secs) >= i64::from(grace_s);
        change > 0
            && (exceeds(self.limit.hard) || exceeds(self.limit.soft) && self.over_since.is_some_and(is_over))
    }

    /// Begins or ends the grace period.
    fn settle(&mut self, now: Timestamp) {
        let is_over = self.limit.soft != 0 && self.used > 0 && self.used as u64 > self.limit.soft;
        self.over_since = is_over.then(|| self.over_since.unwrap_or(now));
    }

    fn report(&self) -> QuotaUse {
        QuotaUse {
            used: u64::try_from(self.used).unwrap_or(0),
            limit: self.limit,
            over_since: self.over_since,
        }
    }
}

/// Adds what an inode counts for, `sign` times.
fn add_up(sums: &mut BTreeMap<Owner, [i64; RESOURCES]>, kinds: QuotaKinds, owned: Owned, sign: i64) {
    for kind in QuotaKind::ALL.into_iter().filter(|kind| kinds.is_on(*kind)) {
        let [space, inodes] = sums.entry((kind, owned.owners[kind as usize])).or_default();
        *space += sign * owned.sectors.0 as i64;
        *inodes += sign;
    }
}

impl Quotas {
    /// Of a volume that is being opened: nothing changes yet.
    ///
    /// # Errors
    /// If a b-tree cannot be read.
    pub(crate) fn load(superblock: &Superblock, said: QuotaChoice, names: &Namespace) -> Result<Quotas> {
        let kinds = QuotaKinds::of(superblock, said);
        let grace = superblock.sections.get::<Grace>().ok().flatten().unwrap_or_default();
        let grace_s = grace.types.map(|ty| [ty.space.timelimit_s, ty.inodes.timelimit_s]);
        let (counted, counting, owners) = (RwLock::default(), RwLock::default(), Mutex::default());
        let quotas = Quotas { kinds, grace_s, counted, counting, owners };
        if !quotas.are_on() {
            return Ok(quotas);
        }
        quotas.load_limits(&names.btrees)?;
        for info in names.subvolumes()?.iter().filter(|info| !info.is_snapshot) {
            quotas.counted.write().insert(info.id);
            if let Some(subvol) = names.subvol(info.id)? {
                quotas.count_all(&names.btrees, &subvol.view, 1)?;
            }
        }
        Ok(quotas)
    }

    fn load_limits(&self, trees: &Btrees) -> Result<()> {
        let mut owners = self.owners.lock();
        let mut cursor = trees.cursor(BtreeId::QUOTAS, ..);
        while let Some(key) = cursor.next()? {
            let kind = usize::try_from(key.k.pos.inode).ok().and_then(|ty| QuotaKind::ALL.get(ty));
            let id = u32::try_from(key.k.pos.offset).ok();
            if let (KeyType::QUOTA, Some(&kind), Some(id), Ok(limits)) =
                (key.k.ty, kind, id, Quota::decode(key.value))
            {
                owners.entry((kind, id)).or_default().set(&limits);
            }
        }
        Ok(())
    }

    /// Counts every inode that a subvolume sees, or with a sign of -1 takes it back.
    fn count_all(&self, trees: &Btrees, view: &View, sign: i64) -> Result<()> {
        let mut sums = BTreeMap::new();
        let mut cursor = trees.visible(BtreeId::INODES, view, Bpos::MIN..Bpos::new(1, 0, 0));
        while let Some(key) = cursor.next()? {
            // What cannot be decoded belongs to nobody.
            if let Ok(Some(inode)) = decode_inode(key) {
                add_up(&mut sums, self.kinds, Owned::of(&inode), sign);
            }
        }
        let mut owners = self.owners.lock();
        for (owner, sum) in sums {
            owners.entry(owner).or_default().add(sum);
        }
        Ok(())
    }

    fn are_on(&self) -> bool {
        self.kinds.any()
    }

    fn counts(&self, subvol: SubvolId) -> bool {
        self.are_on() && self.counted.read().contains(&subvol)
    }

    /// To be held by who changes something, as long as that may be committed.
    pub(crate) fn change(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.are_on().then(|| self.counting.read())
    }

    /// A subvolume is no snapshot any more: what it holds counts from now on.
    fn start_counting(&self, names: &Namespace, subvol: SubvolId) {
        let _unchanged = self.counting.write();
        // Unless it was unlinked meanwhile.
        let counted = names.subvol(subvol).and_then(|found| match found {
            Some(found) => self.count_all(&names.btrees, &found.view, 1).map(|()| true),
            None => Ok(false),
        });
        match counted {
            Ok(true) => drop(self.counted.write().insert(subvol)),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("subvolume {subvol} does not count for quotas until the next mount: {error}");
            }
        }
    }

    /// A subvolume is unlinked, so nothing in it changes any more: what it held counts no longer.
    fn stop_counting(&self, names: &Namespace, subvol: SubvolId, view: &View) {
        let _unchanged = self.counting.write();
        if !self.counted.write().remove(&subvol) {
            return;
        }
        if let Err(error) = self.count_all(&names.btrees, view, -1) {
            tracing::warn!("what subvolume {subvol} used counts for quotas until the next mount: {error}");
        }
    }

    /// Charges a transaction.
    ///
    /// # Errors
    /// [`Error::OverQuota`], and nothing is charged.
    pub(crate) fn charge(&self, changes: Changes, now: Timestamp) -> Result<Charge<'_>> {
        let mut sums = BTreeMap::new();
        for (_, was, is) in &changes.inodes {
            was.iter().for_each(|owned| add_up(&mut sums, self.kinds, *owned, -1));
            is.iter().for_each(|owned| add_up(&mut sums, self.kinds, *owned, 1));
        }
        sums.retain(|_, sum| *sum != [0; RESOURCES]);
        let Changes { made, gone, promoted, .. } = changes;
        let mut charge = Charge { quotas: self, sums: BTreeMap::new(), made, gone, promoted };
        if let Some(made) = made {
            self.counted.write().insert(made);
        }
        if sums.is_empty() {
            return Ok(charge);
        }
        let mut owners = self.owners.lock();
        for (owner, sum) in &sums {
            let account = owners.entry(*owner).or_default();
            let grace = self.grace_s[owner.0 as usize];
            let mut all = account.0.iter().zip(sum).zip(grace);
            if changes.limited && all.any(|((r, change), grace_s)| r.refuses(*change, now, grace_s)) {
                return Err(Error::OverQuota);
            }
        }
        for (owner, sum) in &sums {
            let account = owners.entry(*owner).or_default();
            account.add(*sum);
            account.0.iter_mut().for_each(|resource| resource.settle(now));
        }
        charge.sums = sums;
        Ok(charge)
    }
}

impl WriteFs {
    /// Which kinds of quotas are on.
    pub fn quota_kinds(&self) -> QuotaKinds {
        self.quotas.kinds
    }

    /// Every owner that uses something or has a limit, of the kinds that are on, in order.
    pub fn quotas(&self) -> Vec<QuotaReport> {
        let owners = self.quotas.owners.lock();
        let reports = owners.iter().map(|(&(kind, id), Account([space, inodes]))| QuotaReport {
            kind,
            id,
            space: space.report(),
            inodes: inodes.report(),
        });
        let says_nothing = |of: &QuotaUse| of.used == 0 && of.limit == Limit::default();
        let mut reports: Vec<_> = reports
            .filter(|report| self.quotas.kinds.is_on(report.kind))
            .filter(|report| !(says_nothing(&report.space) && says_nothing(&report.inodes)))
            .collect();
        reports.sort_by_key(|report| (report.kind, report.id));
        reports
    }
}

impl Front<'_> {
    /// Sets limits of an owner, of space in sectors; those not given stay as they are.
    ///
    /// # Errors
    /// `Unsupported` if quotas of that kind are not on; the general ones.
    pub fn set_quota(
        &self,
        kind: QuotaKind,
        id: u32,
        space: Option<Limit>,
        inodes: Option<Limit>,
    ) -> Result<()> {
        if !self.quotas.kinds.is_on(kind) {
            return Err(Error::Unsupported("quotas that are not on"));
        }
        let pos = Bpos::new(kind as u64, id.into(), 0);
        let limits = self.change(|op| {
            let stored = op.t.get(BtreeId::QUOTAS, pos)?;
            let stored = stored.and_then(|key| Quota::decode(key.key().value).ok()).unwrap_or_default();
            let limits =
                Quota { space: space.unwrap_or(stored.space), inodes: inodes.unwrap_or(stored.inodes) };
            if limits == Quota::default() {
                op.t.delete(BtreeId::QUOTAS, pos);
            } else {
                let mut value = Vec::with_capacity(32);
                limits.encode(&mut value);
                op.t.put(BtreeId::QUOTAS, KeyBuf::new(KeyType::QUOTA, pos, 0, value));
            }
            Ok(limits)
        })?;
        let now = self.now();
        let mut owners = self.quotas.owners.lock();
        let account = owners.entry((kind, id)).or_default();
        account.set(&limits);
        account.0.iter_mut().for_each(|resource| resource.settle(now));
        Ok(())
    }
}

impl Op<'_, '_> {
    /// What is done here is done for that caller, who must keep to its limits unless it is privileged.
    pub(crate) fn limit(&mut self, caller: &Caller<'_>) {
        self.quota.limited |= !caller.privileged;
    }

    /// An object was written or, with `None`, removed.
    pub(crate) fn note(&mut self, object: &Object, is: Option<&Inode>) {
        if self.counts(object.place.subvol) {
            self.quota.note(object.node(), object.was, is.map(Owned::of));
        }
    }

    /// A version of an inode was written or, with `None`, removed.
    pub(crate) fn note_version(&mut self, pos: Bpos, was: Owned, is: Option<Owned>) -> Result<()> {
        if let Some(subvol) = self.counted_at(SnapshotId(pos.snapshot))? {
            self.quota.note(NodeId { subvol, inum: Inum(pos.offset) }, Some(was), is);
        }
        Ok(())
    }

    /// A subvolume is being made that is no snapshot.
    pub(crate) fn note_subvolume(&mut self, subvol: SubvolId) {
        self.quota.made = Some(subvol).filter(|_| self.fs.quotas.are_on());
    }

    /// A subvolume is being unlinked.
    pub(crate) fn note_unlinked(&mut self, place: &Place) {
        self.quota.gone = Some((place.subvol, place.view.clone())).filter(|_| self.fs.quotas.are_on());
    }

    /// A subvolume in use is from now on no snapshot of another.
    pub(crate) fn note_promoted(&mut self, subvol: SubvolId) {
        self.quota.promoted = Some(subvol).filter(|_| self.fs.quotas.are_on());
    }

    fn counts(&self, subvol: SubvolId) -> bool {
        self.fs.quotas.counts(subvol) || self.quota.made == Some(subvol)
    }

    /// The subvolume in use that writes to a snapshot, if what it holds counts.
    fn counted_at(&self, snapshot: SnapshotId) -> Result<Option<SubvolId>> {
        if !self.fs.quotas.are_on() {
            return Ok(None);
        }
        let node = self.get_snapshot(snapshot)?;
        if node.flags & Snapshot::SUBVOL == 0 || !self.counts(node.subvol) {
            return Ok(None);
        }
        Ok(self.find_place(node.subvol)?.map(|place| place.subvol))
    }
}
