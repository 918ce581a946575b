//! Extent entries and stripes as text.

use std::fmt::{self, Formatter};

use super::{Lister, join};
use crate::checksum::{ChecksumOption, ChecksumType};
use crate::compression::CompressionOption;
use crate::units::BucketIndex;
use crate::values::extent::{
    CrcEntry, CrcForm, Entries, Entry, ExtentPtr, Pointers, Rebalance, Reconcile, StripePtr,
};
use crate::values::positions::DevBucket;
use crate::values::stripe::Stripe;

impl Lister<'_> {
    /// The copies a key's data survives the loss of, plus one; then every entry.
    pub(super) fn entries(&self, entries: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
        let durability: u32 = Pointers::new(entries, self.k.size)
            .flatten()
            .filter(|c| !c.ptr.cached && !c.ptr.is_invalid())
            .map(|c| self.cx.durability(c.ptr.dev) + c.stripe.map_or(0, |s| s.redundancy.into()))
            .sum();
        write!(f, "durability: {durability}{}", if self.new_style() { " " } else { "" })?;
        for entry in Entries::new(entries) {
            f.write_str(if self.new_style() { "\n  " } else { " " })?;
            match entry {
                Ok(entry) => self.entry(&entry, f)?,
                Err(e) => write!(f, "({e})")?,
            }
        }
        Ok(())
    }

    fn entry(&self, entry: &Entry<'_>, f: &mut Formatter<'_>) -> fmt::Result {
        match entry {
            Entry::Ptr(ptr) => {
                f.write_str("ptr: ")?;
                self.ptr(ptr, f)
            }
            Entry::Crc(crc) => self.crc(crc, f),
            Entry::StripePtr(StripePtr { block, idx, .. }) => {
                write!(f, "stripe_ptr: idx {idx} block {block}")
            }
            Entry::Rebalance(r) if self.new_style() => self.rebalance_v1(*r, f),
            Entry::Rebalance(r) => {
                write!(f, "rebalance: target {} compression {}", self.target(r.target()), r.compression())
            }
            Entry::Flags(flags) => {
                f.write_str("flags: ")?;
                match flags & Entry::FLAG_POISONED {
                    0 => write!(f, "{flags:#x}"),
                    _ => f.write_str("poisoned"),
                }
            }
            Entry::Reconcile(r) => self.reconcile(r, f),
            Entry::ReconcileBp(r) => write!(f, "reconcile_bp: idx {}", r.idx()),
            Entry::Unknown(bytes) => write!(f, "(unknown entry of {} words)", bytes.len() / 8),
        }
    }

    /// `dev:bucket:sector in the bucket gen N`; without the bucket size `dev:sector`.
    pub(super) fn ptr(&self, ptr: &ExtentPtr, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.cx.device_name(ptr.dev).filter(|_| self.new_style() && !ptr.is_invalid()) {
            write!(f, "{name} ")?;
        }
        let bucket_sectors = self.cx.bucket_sectors(ptr.dev).filter(|s| *s != 0);
        match bucket_sectors {
            Some(s) => write!(f, "{}:{}:{}", ptr.dev, ptr.offset.0 / s, ptr.offset.0 % s)?,
            None => write!(f, "{}:{}", ptr.dev, ptr.offset)?,
        }
        write!(f, " gen {}", ptr.generation)?;
        f.write_str(if ptr.cached { " cached" } else { "" })?;
        f.write_str(if ptr.unwritten { " unwritten" } else { "" })?;
        let bucket =
            bucket_sectors.map(|s| DevBucket { dev: ptr.dev, bucket: BucketIndex(ptr.offset.0 / s) });
        let stale = bucket
            .and_then(|b| self.cx.bucket_gen(b))
            .is_some_and(|present| present.0.wrapping_sub(ptr.generation.0) as i8 > 0);
        f.write_str(if stale { " stale" } else { "" })
    }

    fn crc(&self, entry: &CrcEntry, f: &mut Formatter<'_>) -> fmt::Result {
        let c = &entry.crc;
        f.write_str(match entry.form {
            _ if !self.new_style() => "crc",
            CrcForm::Crc32 => "crc32",
            CrcForm::Crc64 => "crc64",
            CrcForm::Crc128 => "crc128",
        })?;
        write!(f, ": c_size {} size {} offset {}", c.compressed_size, c.uncompressed_size, c.offset)?;
        write!(f, " nonce {} csum ", c.nonce)?;
        match c.checksum_type() {
            Some(ty) => write!(f, "{ty}")?,
            None => write!(f, "(unknown checksum type {})", c.csum_type)?,
        }
        write!(f, " {}  compress {}", c.csum, c.compression)
    }

    fn reconcile(&self, r: &Reconcile, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("reconcile:")?;
        if r.need().0 != 0 {
            f.write_str(" need_rb=")?;
            join(r.need().names(), ",", f)?;
        }
        f.write_str(if r.hipri() { " hipri" } else { "" })?;
        f.write_str(if r.pending() { " pending" } else { "" })?;
        self.wanted(r.data_replicas(), r.data_checksum(), f)?;
        f.write_str(if r.erasure_code() { " ec=1" } else { "" })?;
        self.wanted_later(r.background_compression(), r.background_target(), r.promote_target(), f)
    }

    /// The legacy entry as the tools of 1.39 read it, who gave its unused bits a meaning.
    fn rebalance_v1(&self, r: Rebalance, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("rebalance_v1:")?;
        self.wanted(r.data_replicas(), r.data_checksum(), f)?;
        self.wanted_later(r.compression(), r.target(), 0, f)
    }

    fn wanted(&self, replicas: u8, checksum: u8, f: &mut Formatter<'_>) -> fmt::Result {
        match ChecksumOption::from_raw(checksum) {
            Some(option) => write!(f, " replicas={replicas} checksum={}", option.name()),
            None => write!(f, " replicas={replicas} checksum={checksum}"),
        }
    }

    fn wanted_later(
        &self,
        compression: CompressionOption,
        background: u16,
        promote: u16,
        f: &mut Formatter<'_>,
    ) -> fmt::Result {
        if compression != CompressionOption::NONE {
            write!(f, " background_compression={compression}")?;
        }
        for (name, target) in [("background_target", background), ("promote_target", promote)] {
            if target != 0 {
                write!(f, " {name}={}", self.target(target))?;
            }
        }
        Ok(())
    }

    fn target(&self, target: u16) -> String {
        match target {
            0 => "none".into(),
            _ => self.cx.target_name(target).unwrap_or_else(|| target.to_string()),
        }
    }

    pub(super) fn stripe(&self, s: &Stripe<'_>, f: &mut Formatter<'_>) -> fmt::Result {
        let h = &s.header;
        let data = h.nr_blocks.saturating_sub(h.nr_redundant);
        write!(f, "algo {} sectors {} blocks {data}:{}", h.algorithm(), h.sectors, h.nr_redundant)?;
        match ChecksumType::from_raw(h.csum_type) {
            Some(ty) => write!(f, " csum {ty}")?,
            None => write!(f, " csum {}", h.csum_type)?,
        }
        let label = match h.disk_label {
            0 => "(none)".to_string(),
            n => n.to_string(),
        };
        write!(f, " gran {} label={label}  ", 1u64 << h.csum_granularity_bits.min(63))?;
        for (ptr, sectors) in s.ptrs().zip(s.block_sectors()) {
            f.write_str("\n    ")?;
            match ptr {
                Ok(ptr) if ptr.is_invalid() => f.write_str("none")?,
                Ok(ptr) => self.ptr(&ptr, f)?,
                Err(e) => write!(f, "({e})")?,
            }
            write!(f, "#{sectors}")?;
        }
        Ok(())
    }
}
