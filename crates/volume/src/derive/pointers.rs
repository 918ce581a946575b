//! What the pointers of extents, b-tree nodes and stripes imply (spec 50 §4.3, spec 80 §5.8, §5.15).

use frazil_ondisk::units::Sectors;
use frazil_ondisk::values::accounting::{AccountingPos, DevList, ReconcileWork};
use frazil_ondisk::values::backpointer::{self, Backpointer, BackpointerDetail};
use frazil_ondisk::values::extent::{Entries, Entry, NeedRb, Pointers, Rebalance, Reconcile, Replica};
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{Bkey, Bpos, BtreeId, CompressionType, DataType, DecodeError};

use super::{
    BucketUse, Context, Implied, Rules, Share, inum_record, rebalance_as_in_1_13, snapshot_record, sorted,
};

/// The key the pointers belong to.
struct Owner<'r, C> {
    rules: &'r Rules,
    context: &'r C,
    btree: BtreeId,
    level: u8,
    pos: Bpos,
    class: DataType,
}

/// The copies of a key, decoded before anything is told.
fn replicas(entries: &[u8], size: u32) -> Result<Vec<Replica>, DecodeError> {
    Pointers::new(entries, size).collect()
}

/// A pointer to a b-tree node. Every copy counts with the whole node, whatever is written of it (spec 50 §4.1).
pub(super) fn of_node(
    rules: &Rules,
    context: &impl Context,
    btree: BtreeId,
    level: u8,
    pos: Bpos,
    entries: &[u8],
    out: &mut impl FnMut(Implied),
) -> Result<(), DecodeError> {
    let size = u32::try_from(rules.node.0).unwrap_or(u32::MAX);
    let copies = replicas(entries, size)?;
    let owner = Owner { rules, context, btree, level, pos, class: DataType::BTREE };
    let sectors = owner.copies(&copies, work_id(reconcile(entries)), out);
    let inner = i64::from(level > 1);
    let counters = if rules.version.btree_accounting_counters() > 1 { [1, inner] } else { [0, 0] };
    out(Implied::Account(AccountingPos::btree(btree), [sectors, counters[0], counters[1]]));
    if let Some(entry) = reconcile(entries) {
        owner.reconcile(entry, &copies, size, out);
    }
    Ok(())
}

/// An extent, direct or indirect.
pub(super) fn of_extent(
    rules: &Rules,
    context: &impl Context,
    btree: BtreeId,
    k: &Bkey,
    entries: &[u8],
    out: &mut impl FnMut(Implied),
) -> Result<(), DecodeError> {
    let copies = replicas(entries, k.size)?;
    let owner = Owner { rules, context, btree, level: 0, pos: k.pos, class: DataType::USER };
    let sectors = owner.copies(&copies, work_id(reconcile(entries)), out);
    if k.pos.snapshot != 0 && sectors != 0 {
        if rules.version.snapshot_accounting_per_btree() {
            out(Implied::Account(snapshot_record(btree, k.pos.snapshot), [0, 0, sectors]));
        } else {
            out(Implied::Account(snapshot_record(BtreeId(0), k.pos.snapshot), [sectors, 0, 0]));
        }
    }
    owner.compression(&copies, out);
    out(Implied::Account(inum_record(k.pos), [1, k.size.into(), sectors]));
    if let Some(entry) = reconcile(entries) {
        owner.reconcile(entry, &copies, k.size, out);
        owner.reconcile_lists(entry, out);
    } else if rebalance_as_in_1_13(rules.version)
        && let Some(entry) = rebalance(entries)
    {
        owner.rebalance(entry, &copies, out);
    }
    Ok(())
}

fn reconcile(entries: &[u8]) -> Option<Reconcile> {
    Entries::new(entries).filter_map(Result::ok).find_map(|e| match e {
        Entry::Reconcile(r) => Some(r),
        _ => None,
    })
}

fn rebalance(entries: &[u8]) -> Option<Rebalance> {
    Entries::new(entries).filter_map(Result::ok).find_map(|e| match e {
        Entry::Rebalance(r) => Some(r),
        _ => None,
    })
}

/// Which list of background work a key is on (spec 80 §5.15): 0 none, 1 urgent, 2 normal, 3 pending.
fn work_id(entry: Option<Reconcile>) -> u8 {
    match entry {
        None => 0,
        Some(r) if r.need() == NeedRb(0) => 0,
        Some(r) if r.pending() => 3,
        Some(r) if r.hipri() => 1,
        Some(_) => 2,
    }
}

impl<C: Context> Owner<'_, C> {
    /// Bucket counts, backpointers and replicas records of all copies; the sectors of those that are neither cached nor in
    /// a stripe.
    fn copies(&self, copies: &[Replica], work: u8, out: &mut impl FnMut(Implied)) -> i64 {
        let (mut devs, mut total, mut in_stripe) = (Vec::new(), 0i64, false);
        for copy in copies {
            let sectors = copy.disk_sectors();
            let share = match () {
                () if copy.ptr.cached => Share::Cached,
                () if copy.stripe.is_some() => Share::Stripe,
                () => Share::Dirty,
            };
            let at = self.rules.bucket_of(copy.ptr.dev, copy.ptr.offset);
            let stale =
                share == Share::Cached && at.is_none_or(|at| self.context.is_stale(at, copy.ptr.generation));
            if stale {
                continue;
            }
            match share {
                Share::Dirty => {
                    devs.push(copy.ptr.dev);
                    total += i64::from(sectors);
                }
                Share::Cached => {
                    let devs = sorted(vec![copy.ptr.dev]);
                    self.replicas_record(DataType::CACHED, 1, devs, sectors.into(), out);
                }
                Share::Stripe => {
                    in_stripe = true;
                    if let Some(part) = copy.stripe {
                        out(Implied::StripeUse { stripe: part.idx, block: part.block, sectors });
                    }
                    if let Some(stripe) = copy.stripe.and_then(|s| self.context.stripe(s.idx)) {
                        let (required, devs) = (stripe.nr_required, stripe.devs);
                        self.replicas_record(self.class, required, devs, sectors.into(), out);
                    }
                }
            }
            // A pointer to a device that is gone counts in the records, but there is no bucket (spec 80 §5.11).
            if let Some(at) = at {
                let class = self.class;
                out(Implied::Use(BucketUse { at, ptr: copy.ptr, class, share, sectors }));
                self.backpointer(copy, share, work, sectors, out);
            }
        }
        if !devs.is_empty() {
            let required = u8::from(!in_stripe);
            self.replicas_record(self.class, required, sorted(devs), total, out);
        }
        total
    }

    fn replicas_record(
        &self,
        data_type: DataType,
        nr_required: u8,
        devs: DevList,
        sectors: i64,
        out: &mut impl FnMut(Implied),
    ) {
        out(Implied::Account(AccountingPos::Replicas { data_type, nr_required, devs }, [sectors, 0, 0]));
    }

    fn backpointer(
        &self,
        copy: &Replica,
        share: Share,
        work: u8,
        sectors: u32,
        out: &mut impl FnMut(Implied),
    ) {
        let (rules, ptr) = (self.rules, copy.ptr);
        if share == Share::Cached && !rules.version.cached_pointers_have_backpointers() {
            return;
        }
        let Some(geometry) = rules.geometry(ptr.dev) else { return };
        let shift = rules.backpointer_shift;
        let detail = if rules.version.backpointers_have_bucket_gen() {
            let mut flags = 0;
            if geometry.rotational {
                flags |= u32::from(if work < 3 { work } else { 0 });
            }
            if share == Share::Stripe && rules.version.stripes_have_backpointers() {
                flags |= BackpointerDetail::FLAG_ERASURE_CODED;
            }
            BackpointerDetail::bucket_gen(ptr.generation, flags)
        } else {
            let in_bucket = ptr.offset.0 % geometry.bucket.0;
            BackpointerDetail::bucket_offset((in_bucket << shift).wrapping_add(copy.crc.offset.into()))
        };
        let data_type = match share {
            Share::Dirty => self.class,
            Share::Cached => DataType::CACHED,
            Share::Stripe => DataType::STRIPE,
        };
        let value = Backpointer {
            btree: self.btree,
            level: self.level,
            data_type,
            detail,
            bucket_len: sectors,
            pos: self.pos,
        };
        let pos = backpointer::position(ptr.dev, ptr.offset, copy.crc.offset, shift);
        out(Implied::Backpointer(pos, value));
        let list = match work {
            1 => BtreeId::RECONCILE_HIPRI_PHYS,
            2 => BtreeId::RECONCILE_WORK_PHYS,
            _ => return,
        };
        if geometry.rotational {
            out(Implied::Set(list, pos));
        }
    }

    /// Full sizes, once per run of copies that are compressed alike (spec 50 §4.3).
    fn compression(&self, copies: &[Replica], out: &mut impl FnMut(Implied)) {
        let counted = |c: &&Replica| {
            let at = self.rules.bucket_of(c.ptr.dev, c.ptr.offset);
            !c.ptr.cached || at.is_some_and(|at| !self.context.is_stale(at, c.ptr.generation))
        };
        let copies: Vec<&Replica> = copies.iter().filter(counted).collect();
        for run in copies.chunk_by(|a, b| a.crc.compression == b.crc.compression) {
            let ty = run[0].crc.compression;
            if ty == CompressionType::NONE {
                continue;
            }
            let sum = |size: fn(&Replica) -> u32| run.iter().map(|c| i64::from(size(c))).sum::<i64>();
            let counters = [1, sum(|c| c.crc.uncompressed_size), sum(|c| c.crc.compressed_size)];
            out(Implied::Account(AccountingPos::Compression { ty }, counters));
        }
    }

    /// Sectors that wait to be compressed or moved, once for each (spec 50 §4.3).
    fn rebalance(&self, entry: Rebalance, copies: &[Replica], out: &mut impl FnMut(Implied)) {
        let dirty = || copies.iter().filter(|c| !c.ptr.cached);
        let size = |c: &Replica| i64::from(c.crc.compressed_size);
        let mut need = 0;
        let final_already =
            copies.iter().any(|c| c.ptr.unwritten || c.crc.compression == CompressionType::INCOMPRESSIBLE);
        if let (false, 1.., Some(wanted)) =
            (final_already, entry.compression().0, entry.compression().compression_type())
        {
            need += dirty().filter(|c| c.crc.compression != wanted).map(size).sum::<i64>();
        }
        let outside = |c: &&Replica| self.rules.in_target(c.ptr.dev, entry.target()) == Some(false);
        need += dirty().filter(outside).map(size).sum::<i64>();
        if need != 0 {
            out(Implied::Account(AccountingPos::RebalanceWork, [need, 0, 0]));
            if self.btree == BtreeId::EXTENTS {
                out(Implied::Set(BtreeId::REBALANCE_WORK, self.pos));
            }
        }
    }

    /// The counters of background work since 1.33 (spec 80 §5.15).
    fn reconcile(&self, entry: Reconcile, copies: &[Replica], size: u32, out: &mut impl FnMut(Implied)) {
        let counters = if self.level > 0 { [0, size.into(), 0] } else { [size.into(), 0, 0] };
        let mut count = |ty: u8| {
            out(Implied::Account(AccountingPos::ReconcileWork { ty: ReconcileWork(ty) }, counters));
        };
        for bit in 0..5u8 {
            // Work that cannot be done at present is counted as such, not by its kind.
            let put_off = entry.pending() && (bit == 0 || bit == 4);
            if entry.need().contains(NeedRb(1 << bit)) && !put_off {
                count(bit);
            }
        }
        if entry.hipri() {
            count(5);
        }
        if entry.pending() {
            count(6);
            return;
        }
        for (i, copy) in copies.iter().enumerate() {
            if i < 5 && entry.ptrs_moving() >> i & 1 != 0 {
                let dev = copy.ptr.dev.0.into();
                let sectors = i64::from(copy.crc.compressed_size);
                out(Implied::Account(AccountingPos::DevLeaving { dev }, [sectors, 0, 0]));
            }
        }
    }

    /// The lists of leaf keys that wait for background work (spec 80 §5.15).
    fn reconcile_lists(&self, entry: Reconcile, out: &mut impl FnMut(Implied)) {
        let list = match work_id(Some(entry)) {
            1 => BtreeId::RECONCILE_HIPRI,
            2 => BtreeId::REBALANCE_WORK,
            3 => BtreeId::RECONCILE_PENDING,
            _ => return,
        };
        let inode = self.pos.inode.wrapping_add(u64::from(self.btree == BtreeId::REFLINK));
        out(Implied::Set(list, Bpos { inode, ..self.pos }));
    }
}

/// A stripe: its parity, and which buckets it is made of.
pub(super) fn of_stripe(
    rules: &Rules,
    pos: Bpos,
    stripe: &Stripe<'_>,
    out: &mut impl FnMut(Implied),
) -> Result<(), DecodeError> {
    let ptrs = stripe.ptrs().collect::<Result<Vec<_>, _>>()?;
    let header = &stripe.header;
    let data_blocks = usize::from(header.nr_blocks.saturating_sub(header.nr_redundant));
    let sectors = u32::from(header.sectors);
    for (i, ptr) in ptrs.iter().enumerate() {
        let parity = i >= data_blocks;
        let Some(at) = rules.bucket_of(ptr.dev, ptr.offset) else { continue };
        let redundancy = header.nr_redundant;
        out(Implied::StripeBlock { at, stripe: pos.offset, redundancy, parity });
        if parity {
            let (class, share) = (DataType::PARITY, Share::Dirty);
            out(Implied::Use(BucketUse { at, ptr: *ptr, class, share, sectors }));
        }
        if rules.version.alloc_has_stripe_refcount() {
            out(Implied::Set(BtreeId::BUCKET_TO_STRIPE, Bpos::new(at.to_u64(), pos.offset, 0)));
        }
        if rules.version.stripes_have_backpointers() {
            // Just below the end of the block, where no other backpointer can be.
            let end = Sectors(ptr.offset.0 + u64::from(sectors));
            let behind = backpointer::position(ptr.dev, end, 0, rules.backpointer_shift);
            let value = Backpointer {
                btree: BtreeId::STRIPES,
                level: 0,
                data_type: if parity { DataType::PARITY } else { DataType::USER },
                detail: BackpointerDetail::bucket_gen(ptr.generation, 0),
                bucket_len: 0,
                pos,
            };
            let pos = Bpos { offset: behind.offset.wrapping_sub(1), ..behind };
            out(Implied::Backpointer(pos, value));
        }
    }
    let devs = sorted(ptrs.iter().map(|p| p.dev).collect());
    let what = AccountingPos::Replicas { data_type: DataType::PARITY, nr_required: data_blocks as u8, devs };
    let parity = i64::from(sectors) * i64::from(header.nr_redundant);
    out(Implied::Account(what, [parity, 0, 0]));
    Ok(())
}
