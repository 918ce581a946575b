//! Keeping generations from wrapping around (spec 50 §1.1, §6.9).
//!
//! A bucket's generation has eight bits and goes up whenever the bucket is emptied. Pointers to copies that may be dropped are not looked for then: they
//! carry an older generation, and are *stale*. Were one still there 128 generations later, it would look valid. So each bucket also has an
//! *oldest* generation, below which there are no pointers into it; if the two are 96 apart the bucket is not used any more, until somebody has
//! looked again. That is what [`Generations`] does:
//!
//! 1. It notes the generations of all buckets as they are.
//! 2. It walks over all keys that may have such pointers. Those that are very stale are taken out; others say that their bucket has pointers that
//!    old. Whatever is written meanwhile has the generations noted, or later ones.
//! 3. It stores what it found as the oldest generations, of those buckets where that makes a difference worth writing. Buckets that were out of use
//!    are free again.
//!
//! A key that is moved in its b-tree from before the walk to behind it is overlooked; its pointers are found the next time, which is early enough: what is
//! left in a walk is at most [`STALE_MAX`] behind, and the next one comes within 96 generations.
//!
//! All this is done in steps of bounded work, by whoever makes room, as soon as there is a bucket out of use.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use frazil_btree::write::{CommitError, CommitOptions, Engine};
use frazil_journal::Watermark;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf};
use parking_lot::Mutex;

use super::moving::rewrite::{copies, without};
use super::space::{Buckets, Space};

/// Keys looked at in a step.
const STEP_KEYS: usize = 2048;
/// Keys changed in a commit.
const COMMIT_KEYS: usize = 32;
/// Pointers more generations behind their bucket are taken out (spec 50 §6.9).
const STALE_MAX: u8 = 16;
/// A bucket's oldest generation is stored if it is at least so far behind; that is also how finely free buckets are listed (spec 50 §2.3).
const WORTH_WRITING: u8 = 16;

/// What was done since the volume was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// How often all keys were looked at.
    pub walks: u64,
    /// Very stale pointers taken out.
    pub pointers: u64,
    /// Buckets whose oldest generation was brought forward.
    pub buckets: u64,
}

/// See the [module](self). Shared by all; one works at a time.
pub struct Generations {
    space: Arc<Space>,
    collected: Mutex<Collected>,
    /// The walk under way; held while there is work done.
    walk: Mutex<Option<Walk>>,
}

/// A walk under way.
struct Walk {
    /// By device, from its first bucket on: the oldest generation found so far.
    oldest: BTreeMap<DevIndex, (u64, Vec<Gen>)>,
    /// What is looked at, and up to where that is done.
    stage: Stage,
    done: Option<Bpos>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Looking at pointers.
    Pointers(BtreeId),
    /// Storing what was found.
    Buckets,
}

/// How many generations a pointer is behind its bucket; 0 if it is not.
fn behind(now: Gen, pointer: Gen) -> u8 {
    if now.is_after(pointer) { now.0.wrapping_sub(pointer.0) } else { 0 }
}

impl Generations {
    /// Looks after the buckets of that space.
    pub fn new(space: Arc<Space>) -> Generations {
        Generations { space, collected: Mutex::default(), walk: Mutex::default() }
    }

    /// What was done so far.
    pub fn collected(&self) -> Collected {
        *self.collected.lock()
    }

    /// A bounded amount of work, if there is any. Whether there may be more.
    ///
    /// # Errors
    /// If a key cannot be read, or a commit failed. It is begun anew then.
    pub(in crate::write) fn step(&self, engine: &Engine) -> Result<bool, CommitError> {
        let mut under_way = self.walk.lock();
        let mut walk = match under_way.take() {
            Some(walk) => walk,
            None if self.space.out_of_use() == 0 => return Ok(false),
            None => Walk::begin(&self.space),
        };
        let go_on = match walk.stage {
            Stage::Pointers(btree) => self.look(engine, &mut walk, btree)?,
            Stage::Buckets => self.store(engine, &mut walk)?,
        };
        if go_on {
            *under_way = Some(walk);
        } else {
            self.collected.lock().walks += 1;
        }
        Ok(go_on)
    }

    /// Looks at some keys.
    fn look(&self, engine: &Engine, walk: &mut Walk, btree: BtreeId) -> Result<bool, CommitError> {
        let mut cursor = engine.trees().cursor(btree, (walk.from(), Bound::Unbounded));
        let (mut very_stale, mut ended) = (Vec::new(), true);
        for _ in 0..STEP_KEYS {
            let Some(key) = cursor.next()? else { break };
            walk.done = Some(key.k.pos);
            let key = key.to_owned();
            let copies =
                copies(&key).map_err(|e| CommitError::Inconsistent(format!("{btree} {}: {e}", key.k.pos)))?;
            let mut stale = false;
            for copy in copies.iter().filter(|copy| copy.ptr.cached) {
                stale |= self.is_very_stale(&copy.ptr);
            }
            match stale {
                true => very_stale.push(key),
                false => copies.iter().for_each(|copy| self.note(walk, &copy.ptr)),
            }
            ended = false;
        }
        for keys in very_stale.chunks(COMMIT_KEYS) {
            let dropped = self.drop_stale(engine, btree, keys)?;
            self.collected.lock().pointers += dropped;
            // What is left of them, or could not be dropped, counts.
            for key in keys {
                let left = engine.trees().get(btree, key.k.pos)?;
                let left = left.and_then(|left| copies(&left.key().to_owned()).ok()).unwrap_or_default();
                left.iter().for_each(|copy| self.note(walk, &copy.ptr));
            }
        }
        if ended {
            walk.done = None;
            walk.stage = match btree {
                BtreeId::EXTENTS => Stage::Pointers(BtreeId::REFLINK),
                _ => Stage::Buckets,
            };
        }
        Ok(true)
    }

    fn at(&self, ptr: &ExtentPtr) -> Option<DevBucket> {
        self.space.rules().bucket_of(ptr.dev, ptr.offset)
    }

    fn is_very_stale(&self, ptr: &ExtentPtr) -> bool {
        ptr.cached
            && self.at(ptr).is_some_and(|at| behind(self.space.generation(at), ptr.generation) > STALE_MAX)
    }

    /// There is a pointer with that generation.
    fn note(&self, walk: &mut Walk, ptr: &ExtentPtr) {
        if let Some(at) = self.at(ptr)
            && let Some(oldest) = walk.oldest_of(at)
            && oldest.is_after(ptr.generation)
        {
            *oldest = ptr.generation;
        }
    }

    /// Takes very stale pointers out of keys. How many keys had some.
    fn drop_stale(&self, engine: &Engine, btree: BtreeId, keys: &[KeyBuf]) -> Result<u64, CommitError> {
        let options = CommitOptions { watermark: Watermark::Btree };
        let done = engine.run(options, |transaction| {
            let mut dropped = 0;
            for key in keys {
                let Some(now) = transaction.get(btree, key.k.pos)? else { continue };
                let now = now.key().to_owned();
                let new = without(&now, |ptr| self.is_very_stale(ptr));
                let new =
                    new.map_err(|e| CommitError::Inconsistent(format!("{btree} {}: {e}", key.k.pos)))?;
                if new != now {
                    transaction.put(btree, new);
                    dropped += 1;
                }
            }
            Ok::<u64, CommitError>(dropped)
        })?;
        Ok(done.value)
    }

    /// Stores the oldest generations of some buckets.
    fn store(&self, engine: &Engine, walk: &mut Walk) -> Result<bool, CommitError> {
        let mut cursor = engine.trees().cursor(BtreeId::ALLOC, (walk.from(), Bound::Unbounded));
        let (mut list, mut ended) = (Vec::new(), false);
        for _ in 0..STEP_KEYS {
            let Some(key) = cursor.next()? else {
                ended = true;
                break;
            };
            walk.done = Some(key.k.pos);
            let Some(at) = DevBucket::from_pos(key.k.pos) else { continue };
            let Ok(alloc) = Alloc::decode(key.k.ty, key.value) else { continue };
            if alloc.gc_gen() >= WORTH_WRITING
                && let Some(oldest) = walk.oldest_of(at)
                && oldest.is_after(alloc.oldest_gen)
            {
                list.push((at, *oldest));
            }
        }
        for some in list.chunks(COMMIT_KEYS) {
            let buckets: Vec<DevBucket> = some.iter().map(|(at, _)| *at).collect();
            engine.change(Watermark::Btree, &buckets, &|at, alloc| {
                let oldest = some.iter().find(|(other, _)| *other == at).map(|(_, oldest)| *oldest);
                let oldest = oldest.filter(|oldest| oldest.is_after(alloc.oldest_gen));
                alloc.oldest_gen = oldest.unwrap_or(alloc.oldest_gen);
                oldest.is_some()
            })?;
            self.collected.lock().buckets += some.len() as u64;
        }
        Ok(!ended)
    }
}

impl Walk {
    fn begin(space: &Space) -> Walk {
        let of = |(dev, first, generations)| (dev, (first, generations));
        Walk {
            oldest: space.generations().map(of).collect(),
            stage: Stage::Pointers(BtreeId::EXTENTS),
            done: None,
        }
    }

    fn from(&self) -> Bound<Bpos> {
        self.done.map_or(Bound::Unbounded, Bound::Excluded)
    }

    fn oldest_of(&mut self, DevBucket { dev, bucket: BucketIndex(bucket) }: DevBucket) -> Option<&mut Gen> {
        let (first, oldest) = self.oldest.get_mut(&dev)?;
        oldest.get_mut(usize::try_from(bucket.checked_sub(*first)?).ok()?)
    }
}
