//! Rebuilding data from parity (spec 50 §2.7, spec 80 §5.16).
//!
//! A stripe has data blocks and one or two parity blocks, each on another device. Parity is computed byte by byte, so to
//! rebuild some sectors of one block it takes the same sectors of the others. They are read in whole granules, because
//! that is what the stripe has checksums for: a block that does not match its checksum is as good as missing, and
//! what has been rebuilt must match the checksum of the block it replaces.
//!
//! With one parity block one block may be missing. With two, another data block, or the first parity block, may be missing
//! besides. The arithmetic is in [`super::galois`].

use frazil_device::Device;
use frazil_ondisk::checksum::{self, ChecksumType};
use frazil_ondisk::error::DecodeError;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::{ExtentPtr, StripePtr};
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{Bpos, BtreeId};

use super::buffer::Buf;
use super::error::CopyProblem;
use super::galois;
use super::reader::Reader;

/// Most sectors of each block that are read to rebuild some: 8 MiB. Three buffers of that size are needed.
const WINDOW_SECTORS_MAX: u64 = 16384;

/// A stripe, and the part of its blocks that is needed.
struct Rebuild<'a> {
    stripe: Stripe<'a>,
    ptrs: Vec<ExtentPtr>,
    /// Which block is rebuilt.
    target: usize,
    /// Sectors of each block, on a granule's boundary.
    window: std::ops::Range<u64>,
    /// Log2 of a granule's sectors.
    granule_bits: u32,
}

/// The sums over the blocks that can be read.
struct Sums {
    /// First parity block plus all data blocks.
    p: Option<Buf>,
    /// Second parity block plus all data blocks times their factors; absent where there is only one parity block.
    q: Option<Buf>,
    /// Data blocks other than the target that cannot be read.
    missing: Vec<usize>,
    /// Why they, or parity blocks, cannot be read.
    problems: Vec<String>,
}

impl Reader {
    /// Rebuilds `count` sectors from device sector `first` on, of the block that `ptr` points into.
    ///
    /// # Errors
    /// If too many other blocks cannot be read either, or the stripe is not what the pointer takes it for.
    pub(super) fn rebuild(
        &self,
        ptr: &ExtentPtr,
        stripe_ptr: &StripePtr,
        first: Sectors,
        count: Sectors,
    ) -> Result<Buf, CopyProblem> {
        let in_stripe = |why: &dyn std::fmt::Display| {
            CopyProblem::Parity(format!("stripe {}: {why}", stripe_ptr.idx).into())
        };
        let key =
            self.trees.get(BtreeId::STRIPES, Bpos::new(0, stripe_ptr.idx, 0)).map_err(|e| in_stripe(&e))?;
        let key = key.ok_or_else(|| in_stripe(&"it does not exist"))?;
        let stripe = Stripe::decode(key.key().value).map_err(|e| in_stripe(&e))?;
        let (rebuild, skip) =
            Rebuild::new(stripe, ptr, stripe_ptr, first, count).map_err(|e| in_stripe(&e))?;
        let mut block = rebuild.run(self).map_err(|e| in_stripe(&e))?;
        let from = (skip * SECTOR_BYTES) as usize;
        let len = (count.0 * SECTOR_BYTES) as usize;
        block.copy_within(from..from + len, 0);
        block.shorten(len);
        Ok(block)
    }
}

impl<'a> Rebuild<'a> {
    /// Also how far into the window the wanted sectors are.
    fn new(
        stripe: Stripe<'a>,
        ptr: &ExtentPtr,
        stripe_ptr: &StripePtr,
        first: Sectors,
        count: Sectors,
    ) -> Result<(Rebuild<'a>, u64), String> {
        let h = stripe.header;
        let ptrs = stripe.ptrs().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        let target = usize::from(stripe_ptr.block);
        if !(1..=2).contains(&h.nr_redundant) || h.nr_redundant >= h.nr_blocks {
            return Err(format!("{} of {} blocks are parity", h.nr_redundant, h.nr_blocks));
        }
        if h.algorithm() != 0 {
            return Err(format!("unknown algorithm {}", h.algorithm()));
        }
        if target >= usize::from(h.nr_blocks - h.nr_redundant) {
            return Err(format!("block {target} holds no data"));
        }
        let own = &ptrs[target];
        let same = own.dev == ptr.dev && own.generation == ptr.generation;
        if !same && !own.is_invalid() && !ptr.is_invalid() {
            return Err(format!("block {target} is {own}, not {ptr}"));
        }
        let sectors = u64::from(h.sectors);
        let start = first.0.checked_sub(own.offset.0).filter(|start| start + count.0 <= sectors);
        let start = start.ok_or_else(|| format!("{ptr} is not in block {target}, {own}"))?;
        let granule_bits = u32::from(h.csum_granularity_bits);
        let from = start >> granule_bits << granule_bits;
        let to = (start + count.0).next_multiple_of(1 << granule_bits).min(sectors);
        if to - from > WINDOW_SECTORS_MAX {
            return Err(format!("checksums cover {} sectors each", 1u64 << granule_bits));
        }
        Ok((Rebuild { stripe, ptrs, target, window: from..to, granule_bits }, start - from))
    }

    fn data_blocks(&self) -> usize {
        usize::from(self.stripe.header.nr_blocks - self.stripe.header.nr_redundant)
    }

    /// The window of the target.
    fn run(&self, reader: &Reader) -> Result<Buf, String> {
        let sums = self.sum(reader);
        let problems = sums.problems.join(", ");
        let block = self.solve(sums).ok_or_else(|| format!("too many blocks cannot be read: {problems}"))?;
        self.verify(self.target, &block).map_err(|e| format!("rebuilt data: {e}"))?;
        Ok(block)
    }

    /// Reads all blocks but the target and adds them up.
    fn sum(&self, reader: &Reader) -> Sums {
        let mut sums = Sums { p: None, q: None, missing: Vec::new(), problems: Vec::new() };
        let data = self.data_blocks();
        let mut parity = |block: usize| {
            self.read(reader, block).map_err(|e| sums.problems.push(format!("block {block}: {e}"))).ok()
        };
        sums.p = parity(data);
        sums.q = if self.stripe.header.nr_redundant == 2 { parity(data + 1) } else { None };
        for block in (0..data).filter(|&block| block != self.target) {
            match self.read(reader, block) {
                Ok(bytes) => {
                    if let Some(p) = &mut sums.p {
                        galois::add(p, &bytes);
                    }
                    if let Some(q) = &mut sums.q {
                        galois::add_multiple(q, factor(block), &bytes);
                    }
                }
                Err(e) => {
                    sums.missing.push(block);
                    sums.problems.push(format!("block {block}: {e}"));
                }
            }
        }
        sums
    }

    /// Solves for the target; `None` if there are more unknowns than equations.
    fn solve(&self, sums: Sums) -> Option<Buf> {
        let own = factor(self.target);
        match (&sums.missing[..], sums.p, sums.q) {
            // P = target.
            ([], Some(p), _) => Some(p),
            // Q = own · target.
            ([], None, Some(mut q)) => {
                galois::scale(&mut q, galois::inverse(own));
                Some(q)
            }
            // P = target + other and Q = own · target + f · other, so (own + f) · target = Q + f · P.
            ([other], Some(p), Some(mut q)) => {
                let f = factor(*other);
                galois::add_multiple(&mut q, f, &p);
                galois::scale(&mut q, galois::inverse(own ^ f));
                Some(q)
            }
            _ => None,
        }
    }

    /// Reads the window of one block and verifies it.
    fn read(&self, reader: &Reader, block: usize) -> Result<Buf, CopyProblem> {
        let ptr = &self.ptrs[block];
        let device = reader.device_of(ptr)?;
        let mut bytes = reader.pool.take(((self.window.end - self.window.start) * SECTOR_BYTES) as usize);
        device.read_at((ptr.offset.0 + self.window.start) * SECTOR_BYTES, &mut bytes)?;
        self.verify(block, &bytes)?;
        Ok(bytes)
    }

    /// Compares the window of a block with the stripe's checksums.
    fn verify(&self, block: usize, bytes: &[u8]) -> Result<(), DecodeError> {
        const WHAT: &str = "stripe block";
        let nr = self.stripe.header.csum_type;
        let ty = ChecksumType::from_raw(nr).filter(|ty| !ty.is_encryption());
        let ty = ty.ok_or_else(|| DecodeError::unsupported(WHAT, format!("checksum type {nr}")))?;
        let first = (self.window.start >> self.granule_bits) as usize;
        for (i, granule) in bytes.chunks((SECTOR_BYTES as usize) << self.granule_bits).enumerate() {
            let stored = self.stripe.csum(block, first + i).unwrap_or_default();
            let computed = checksum::compute(ty, None, granule)?.to_bytes();
            if computed[..ty.bytes()] != *stored {
                return Err(DecodeError::BadChecksum {
                    what: WHAT,
                    csum_type: nr,
                    stored: hex(stored),
                    computed: hex(&computed[..ty.bytes()]),
                });
            }
        }
        Ok(())
    }
}

/// What a data block is multiplied with in the second parity block. There are at most 255 blocks.
fn factor(block: usize) -> u8 {
    galois::power(block as u8)
}

/// Little-endian bytes as a number in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
