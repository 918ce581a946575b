//! Which copy to read.
//!
//! First comes the device with the fewest errors, then one that does not rotate, then a copy that is not merely cached (for
//! those their bucket's generation must be looked up). Among equals it is the device that the read before went to, so that
//! neighbouring extents can be read together; then the device with the least to do at the moment; then the order
//! in which the writer listed them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use frazil_device::Device;
use frazil_ondisk::BtreeId;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::extent::{ExtentPtr, Replica};
use frazil_ondisk::values::positions::DevBucket;

use super::decode;
use super::error::{BadCopy, CopyProblem};
use super::plan::Copies;
use super::reader::Reader;

/// How a device has behaved so far.
#[derive(Default)]
pub(super) struct Conduct {
    /// Copies on it that could not be used.
    errors: AtomicU32,
    /// Bytes being read from it now.
    busy_bytes: AtomicU64,
}

/// What makes a copy worth trying before another: the smaller goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    errors: u32,
    rotational: bool,
    cached: bool,
    /// Not where the read before went.
    elsewhere: bool,
    busy_bytes: u64,
}

impl Reader {
    /// How good this copy is; `None` if its device is not there.
    fn rank(&self, replica: &Replica, near: Option<DevIndex>) -> Option<Rank> {
        let dev = replica.ptr.dev;
        self.device(dev)?;
        let conduct = self.conduct(dev);
        Some(Rank {
            errors: conduct.errors.load(Relaxed),
            rotational: self.members.get(&dev).is_some_and(|member| member.rotational),
            cached: replica.ptr.cached,
            elsewhere: near != Some(dev),
            busy_bytes: conduct.busy_bytes.load(Relaxed),
        })
    }

    /// The best copy and its device, `near` being where the read before went. `None` if no copy can be trusted without a
    /// closer look.
    pub(super) fn choose<'a>(
        &'a self,
        copies: &'a Copies,
        near: Option<DevIndex>,
    ) -> Option<(&'a Replica, &'a Arc<dyn Device>)> {
        let replica = match &copies.replicas[..] {
            [only] => only,
            many => {
                let ranked = many.iter().filter_map(|replica| Some((self.rank(replica, near)?, replica)));
                ranked.min_by(|(a, _), (b, _)| a.cmp(b))?.1
            }
        };
        let device = self.device(replica.ptr.dev)?;
        let sound = decode::check(replica).is_ok() && self.check_fresh(&replica.ptr).is_ok();
        sound.then_some((replica, device))
    }

    /// All copies, the best first, those on missing devices last.
    pub(super) fn in_order<'c>(&self, copies: &'c Copies) -> Vec<&'c Replica> {
        let mut order: Vec<_> = copies.replicas.iter().map(|r| (self.rank(r, None), r)).collect();
        order.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        });
        order.into_iter().map(|(_, replica)| replica).collect()
    }

    /// The device of this copy.
    pub(super) fn device_of(&self, ptr: &ExtentPtr) -> Result<&Arc<dyn Device>, CopyProblem> {
        if ptr.is_invalid() {
            return Err(CopyProblem::DeviceRemoved);
        }
        self.device(ptr.dev).ok_or(CopyProblem::DeviceMissing)
    }

    /// Fails if the bucket of the copy has been emptied since the pointer was made (spec 50 §1.1), or may have been. In a volume that nobody writes
    /// only cached copies can be in such buckets. In one that is being written data is moved at any time; so who reads asks before and after:
    /// a bucket gets its next generation when it is emptied, and is not written to before.
    pub(super) fn check_fresh(&self, ptr: &ExtentPtr) -> Result<(), CopyProblem> {
        if !ptr.cached && self.generations.is_none() {
            return Ok(());
        }
        let Some(member) = self.members.get(&ptr.dev) else { return Err(CopyProblem::DeviceMissing) };
        let Some(bucket) = ptr.offset.0.checked_div(member.bucket_sectors.0) else {
            return Err(CopyProblem::Metadata("its device has buckets of 0 sectors".into()));
        };
        let at = DevBucket { dev: ptr.dev, bucket: BucketIndex(bucket) };
        let now = match &self.generations {
            Some(generations) => generations(at),
            None => self.stored_generation(at)?,
        };
        match now == ptr.generation {
            true => Ok(()),
            false if ptr.cached => Err(CopyProblem::Stale),
            false => Err(CopyProblem::Moved),
        }
    }

    /// The generation of a bucket as the alloc b-tree has it.
    fn stored_generation(&self, at: DevBucket) -> Result<Gen, CopyProblem> {
        let alloc = match self.trees.get(BtreeId::ALLOC, at.pos()) {
            Ok(alloc) => alloc,
            Err(e) => return Err(CopyProblem::Metadata(e.to_string().into())),
        };
        // A bucket that was never used has no key.
        Ok(match &alloc {
            None => Gen(0),
            Some(alloc) => Alloc::decode(alloc.key().k.ty, alloc.key().value)?.generation,
        })
    }

    /// What to report about a copy that could not be used. An error of the device, or damage on it, counts against it.
    pub(crate) fn bad_copy(&self, ptr: &ExtentPtr, problem: CopyProblem) -> BadCopy {
        let name = self.device(ptr.dev).map(|device| Arc::clone(device.name()));
        let copy = BadCopy { dev: ptr.dev, name, sector: ptr.offset, problem };
        if matches!(copy.problem, CopyProblem::Io(_) | CopyProblem::Corrupt(_)) {
            self.conduct(ptr.dev).errors.fetch_add(1, Relaxed);
            self.tell.iter().for_each(|tell| tell(&copy));
        }
        copy
    }

    /// How many copies on a device could not be used so far.
    pub fn errors(&self, dev: DevIndex) -> u32 {
        self.conduct(dev).errors.load(Relaxed)
    }

    /// Runs `read`, which reads that many bytes from the device.
    pub(super) fn while_busy<T>(&self, dev: DevIndex, bytes: u64, read: impl FnOnce() -> T) -> T {
        let busy = &self.conduct(dev).busy_bytes;
        busy.fetch_add(bytes, Relaxed);
        let result = read();
        busy.fetch_sub(bytes, Relaxed);
        result
    }
}
