//! The walk over every key: what each breaks by itself, and the sums of what all imply.
//!
//! The order is that of the reference (spec 60 §9.4): first the generations of the buckets and the stripes, which the meaning of pointers
//! depends on; then every b-tree, leaves first, up to the pointer of its root, which is stored outside of the tree and yet uses a
//! bucket like all others.

use std::collections::{BTreeMap, HashMap, HashSet};

use frazil_btree::{ProblemKind, Root};
use frazil_journal::read::Early;
use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::node::{KeyRules, NodeProblem, NodePtr};
use frazil_ondisk::superblock::sections::Clean;
use frazil_ondisk::units::{DevIndex, Gen, Sectors, SnapshotId};
use frazil_ondisk::values;
use frazil_ondisk::values::accounting::{AccountingPos, DevList};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::extent::{Entries, Entry, ExtentPtr, Pointers};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{Bpos, BtreeId, DataType, Key, KeyType};

use super::backpointers::Expected;
use super::buckets::{Count, Gens, Paged, ahead};
use super::context::Check;
use super::faults::{PointerFault, SnapshotFault};
use super::inconsistency::Inconsistency;
use super::lists;
use crate::derive::{self, BucketUse, Context, Implied, Share, StripeDevs};

/// A pointer may be at most this far behind its bucket (spec 50 §1.1).
const STALE_MAX: i8 = 96;

/// What the walk added up.
pub(super) struct Sums {
    pub(super) gens: Gens,
    pub(super) counts: Paged<Count>,
    pub(super) accounting: HashMap<AccountingPos, [i64; 3]>,
    pub(super) backpointers: Expected,
    /// Stripes: their place in the list of stripes by free blocks.
    pub(super) stripes: Stripes,
    /// Sectors in use by stripe and block.
    pub(super) stripe_sectors: HashMap<(u64, u8), u64>,
    /// Keys of type `set` there must be in lists that newer versions keep.
    pub(super) sets: BTreeMap<BtreeId, Vec<Bpos>>,
    pub(super) references: Vec<Reference>,
    /// A key has an entry of background work in the form of versions up to 1.32.
    pub(super) has_rebalance: bool,
}

/// A `reflink_p`: the range it refers to, and who it is.
#[derive(Clone, Copy)]
pub(super) struct Reference {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) pos: Bpos,
}

/// What pointers into stripes need to know of them.
#[derive(Default)]
pub(super) struct Stripes {
    pub(super) devs: HashMap<u64, StripeDevs>,
}

/// Answers about generations and stripes, fixed before the walk.
struct Known<'a> {
    gens: &'a Gens,
    stripes: &'a Stripes,
}

impl Context for Known<'_> {
    fn is_stale(&self, at: DevBucket, generation: Gen) -> bool {
        self.gens.get(at).copied().flatten().is_none_or(|bucket| ahead(bucket, generation) > 0)
    }

    fn stripe(&self, idx: u64) -> Option<StripeDevs> {
        self.stripes.devs.get(&idx).copied()
    }
}

/// Walks the whole volume.
pub(super) fn walk(check: &mut Check<'_>) -> Sums {
    let (gens, stripes) = (generations(check), stripes(check));
    let mut sums = Sums {
        gens,
        counts: Paged::new(),
        accounting: HashMap::new(),
        backpointers: Expected::default(),
        stripes,
        stripe_sectors: HashMap::new(),
        sets: BTreeMap::new(),
        references: Vec::new(),
        has_rebalance: false,
    };
    let mut keys = Keys::new(check);
    let roots: Vec<(BtreeId, Option<(u8, frazil_ondisk::KeyBuf)>)> = check
        .btrees()
        .roots()
        .into_iter()
        .map(|(btree, root)| match root {
            Root::At { level, key } => (btree, Some((level, key))),
            Root::Lost => (btree, None),
        })
        .collect();
    let mut todo: BTreeMap<BtreeId, Option<(u8, frazil_ondisk::KeyBuf)>> =
        BtreeId::known().map(|btree| (btree, None)).collect();
    todo.extend(roots);
    for (btree, root) in todo {
        let top = root.as_ref().map_or(0, |(level, _)| (*level).min(frazil_btree::LEVEL_MAX));
        for level in 0..=top {
            check.each(btree, level, |check, key| keys.visit(check, &mut sums, btree, level, key));
        }
        if let Some((level, key)) = root {
            keys.visit(check, &mut sums, btree, level.saturating_add(1), key.as_key());
        }
    }
    problems(check);
    sums
}

/// Takes over what the b-tree layer found while nodes were read.
fn problems(check: &mut Check<'_>) {
    for problem in check.btrees().problems() {
        if let ProblemKind::Node(NodeProblem::Key { .. } | NodeProblem::PastEnd { .. }) = problem.kind {
            check.keys_lost(problem.span.btree);
        }
        if let ProblemKind::Node(NodeProblem::DataMissing { .. } | NodeProblem::Blacklisted { .. }) =
            problem.kind
        {
            check.keys_lost(problem.span.btree);
        }
        check.add(Inconsistency::Node(problem));
    }
}

fn generations(check: &mut Check<'_>) -> Gens {
    let mut gens = Gens::new();
    check.each(BtreeId::ALLOC, 0, |check, key| {
        let (Some(at), Ok(alloc)) = (DevBucket::from_pos(key.k.pos), Alloc::decode(key.k.ty, key.value))
        else {
            return;
        };
        if check.rules.geometry(at.dev).is_some_and(|g| g.contains(at.bucket)) {
            *gens.entry(at) = Some(alloc.generation);
        }
    });
    gens
}

fn stripes(check: &mut Check<'_>) -> Stripes {
    let mut stripes = Stripes::default();
    check.each(BtreeId::STRIPES, 0, |_, key| {
        let Ok(stripe) = Stripe::decode(key.value) else { return };
        let mut devs: Vec<DevIndex> = stripe.ptrs().filter_map(|p| Some(p.ok()?.dev)).collect();
        devs.sort_unstable();
        if let (KeyType::STRIPE, Some(devs)) = (key.k.ty, DevList::new(&devs)) {
            let nr_required = stripe.header.nr_blocks.saturating_sub(stripe.header.nr_redundant);
            stripes.devs.insert(key.k.pos.offset, StripeDevs { nr_required, devs });
        }
    });
    stripes
}

/// The rules a key is checked by.
struct Keys {
    values: values::Rules,
    /// The highest version given to a key, if the volume says.
    key_version: Option<u64>,
    missing_snapshots: HashSet<u32>,
}

impl Keys {
    fn new(check: &Check<'_>) -> Self {
        let superblock = check.volume.superblock();
        let clean = superblock.sections.get::<Clean>().ok().flatten().filter(|_| check.was_clean());
        let key_version = clean.map(|clean| {
            let mut early = Early::default();
            early.apply(&clean.entries);
            early.key_version
        });
        let values = values::Rules {
            version: superblock.version,
            writing: false,
            encoded_extent_max_sectors: 1u32
                .checked_shl(superblock.flags.encoded_extent_max_bits().into())
                .unwrap_or(u32::MAX),
            encrypted: check.volume.key().is_some(),
        };
        Self { values, key_version, missing_snapshots: HashSet::new() }
    }

    /// Checks one key and adds what it implies.
    fn visit(&mut self, check: &mut Check<'_>, sums: &mut Sums, btree: BtreeId, level: u8, key: Key<'_>) {
        let k = key.k;
        let rules = KeyRules { btree, level };
        let verdict = rules.check(&k).map_err(|p| (p.id(), p.to_string().into()));
        let verdict = verdict.and_then(|()| {
            values::validate(btree, key, &self.values).map_err(|problem| (problem.id, problem.detail))
        });
        if let Err((id, detail)) = verdict {
            check.add(Inconsistency::Key { btree, level, pos: k.pos, id, detail });
            check.keys_lost(btree);
            return;
        }
        self.check_version(check, btree, level, key);
        if level == 0 && btree.has_snapshots() {
            self.check_snapshot(check, btree, k.pos);
        }
        if level > 0 {
            check_bitmap(check, btree, level, key);
        }
        add(check, sums, btree, level, key);
    }

    /// Versions are handed out in order; one that was not yet must not be in use (spec 60 §9.4).
    fn check_version(&self, check: &mut Check<'_>, btree: BtreeId, level: u8, key: Key<'_>) {
        let version = key.k.version.lo;
        if level == 0 && btree != BtreeId::ACCOUNTING && self.key_version.is_some_and(|max| version > max) {
            check.add(Inconsistency::Key {
                btree,
                level,
                pos: key.k.pos,
                id: E::BKEY_VERSION_IN_FUTURE,
                detail: format!("version {version} was not given to any key yet").into(),
            });
        }
    }

    /// A key in a snapshot that does not exist is seen by nobody; one finding for each such snapshot.
    fn check_snapshot(&mut self, check: &mut Check<'_>, btree: BtreeId, pos: Bpos) {
        let id = SnapshotId(pos.snapshot);
        if check.snapshots().state(id).is_none() && self.missing_snapshots.insert(id.0) {
            check.add(Inconsistency::Snapshot { id, fault: SnapshotFault::Missing { btree, pos } });
        }
    }
}

/// A node must lie in a part of the device that the superblock's map says may hold nodes.
fn check_bitmap(check: &mut Check<'_>, btree: BtreeId, level: u8, key: Key<'_>) {
    let Ok(ptr) = NodePtr::decode(btree, level - 1, key) else { return };
    for at in ptr.ptrs() {
        let Some(member) = check.volume.members().get(at.dev).filter(|m| m.is_live()) else { continue };
        let sectors = at.offset..Sectors(at.offset.0.saturating_add(check.rules.node.0));
        if !member.btree_bitmap.covers(sectors) {
            let (dev, sector) = (at.dev, at.offset);
            check.add(Inconsistency::NotInBitmap { btree, level: level - 1, pos: key.k.pos, dev, sector });
        }
    }
}

/// Adds what a key implies, and checks its pointers on the way.
fn add(check: &mut Check<'_>, sums: &mut Sums, btree: BtreeId, level: u8, key: Key<'_>) {
    let Sums { gens, counts, accounting, backpointers, stripes, references, has_rebalance, .. } = sums;
    let (stripe_sectors, sets) = (&mut sums.stripe_sectors, &mut sums.sets);
    let known = Known { gens, stripes };
    let pos = key.k.pos;
    let mut faults = Vec::new();
    let result = derive::of_key(&check.rules, &known, btree, level, key, &mut |implied| match implied {
        Implied::Use(part) => {
            let bucket = gens.get(part.at).copied().flatten();
            use_bucket(&check.rules, counts, bucket, part, |fault| faults.push((part.ptr, fault)));
        }
        Implied::StripeBlock { at, stripe, redundancy, parity } => {
            if !check.rules.geometry(at.dev).is_some_and(|g| g.contains(at.bucket)) {
                return;
            }
            let count = counts.entry(at);
            count.stripe = stripe;
            count.stripes += 1;
            count.redundancy = redundancy;
            if parity {
                count.class = Some(DataType::PARITY);
            }
        }
        Implied::Backpointer(pos, value) => backpointers.push(pos, value),
        Implied::StripeUse { stripe, block, sectors } => {
            *stripe_sectors.entry((stripe, block)).or_default() += u64::from(sectors);
        }
        Implied::Set(list, pos) if lists::is_checked(&check.rules, list) => {
            sets.entry(list).or_default().push(pos);
        }
        // The other lists are compared where their keys are walked; those of 1.13's background work are hints.
        Implied::Account(AccountingPos::Inum { .. }, _) | Implied::Set(..) => {}
        Implied::Account(what, by) => {
            let sum = accounting.entry(what).or_default();
            sum.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.saturating_add(by));
        }
        Implied::Reference(start, end) => references.push(Reference { start, end, pos }),
    });
    if result.is_err() {
        check.keys_lost(btree);
    }
    dangling(check, &known, btree, level, key, &mut faults);
    *has_rebalance |= level == 0 && has_rebalance_entry(key);
    for (ptr, fault) in faults {
        check.add(Inconsistency::Pointer { btree, level, pos, ptr, fault });
    }
    backpointers.compare_if_many(check);
}

/// Checks a pointer against its bucket and counts it (spec 60 §9.4).
fn use_bucket(
    rules: &derive::Rules,
    counts: &mut Paged<Count>,
    bucket: Option<Gen>,
    part: BucketUse,
    mut fault: impl FnMut(PointerFault),
) {
    let BucketUse { at, ptr, class, share, sectors } = part;
    let Some(geometry) = rules.geometry(at.dev) else { return };
    if at.bucket < geometry.first {
        return fault(PointerFault::BeforeFirstBucket);
    }
    if at.bucket >= geometry.end {
        return fault(PointerFault::AfterLastBucket);
    }
    if ptr.offset.0 % geometry.bucket.0 + u64::from(sectors) > geometry.bucket.0 {
        fault(PointerFault::SpansBuckets);
    }
    match bucket {
        None => fault(PointerFault::NoAllocKey),
        Some(bucket) => match ahead(bucket, ptr.generation) {
            ..0 => fault(PointerFault::GenNewer { bucket }),
            0 => {}
            // Cached pointers that are behind were left out before.
            1..=STALE_MAX if share != Share::Cached => fault(PointerFault::Stale { bucket }),
            1..=STALE_MAX => {}
            _ => fault(PointerFault::TooStale { bucket }),
        },
    }
    let count = counts.entry(at);
    if count.class.is_none() {
        count.generation = ptr.generation;
    }
    if let Some(other) = count.mark(class) {
        fault(PointerFault::Mixed { other });
    }
    let sum = match share {
        Share::Dirty => &mut count.dirty,
        Share::Cached => &mut count.cached,
        Share::Stripe => &mut count.striped,
    };
    *sum += u64::from(sectors);
}

fn extent_entries(key: Key<'_>) -> Option<&[u8]> {
    match key.k.ty {
        KeyType::EXTENT => Some(key.value),
        KeyType::REFLINK_V => key.value.get(8..),
        _ => None,
    }
}

fn has_rebalance_entry(key: Key<'_>) -> bool {
    extent_entries(key).is_some_and(|e| Entries::new(e).any(|e| matches!(e, Ok(Entry::Rebalance(_)))))
}

/// Pointers to devices and stripes that do not exist.
fn dangling(
    check: &Check<'_>,
    known: &Known<'_>,
    btree: BtreeId,
    level: u8,
    key: Key<'_>,
    faults: &mut Vec<(ExtentPtr, PointerFault)>,
) {
    let no_device = |ptr: &ExtentPtr| !ptr.is_invalid() && check.rules.geometry(ptr.dev).is_none();
    if level > 0 {
        let Ok(node) = NodePtr::decode(btree, level - 1, key) else { return };
        faults.extend(node.ptrs().filter(no_device).map(|ptr| (ptr, PointerFault::NoDevice)));
    }
    let Some(entries) = extent_entries(key) else { return };
    for copy in Pointers::new(entries, key.k.size).map_while(Result::ok) {
        if no_device(&copy.ptr) {
            faults.push((copy.ptr, PointerFault::NoDevice));
        }
        if let Some(stripe) = copy.stripe.filter(|s| known.stripe(s.idx).is_none()) {
            faults.push((copy.ptr, PointerFault::NoStripe { stripe: stripe.idx }));
        }
    }
}
