//! What the kernel asks for, how often, and how long the answers take.
//!
//! A request that is answered from memory takes one to three microseconds, so counting must cost next to nothing: one addition to
//! a counter of its kind. Reading the clock costs as much as five additions, and is needed twice, so of the quick requests only
//! one in [`SAMPLE`] is timed, and counts for that many. Requests that wait ([`frazil_device::waiting`]) are all timed, because
//! they are the ones that somebody will ask about: from their beginning if they are a sample, else from when they began to wait.
//!
//! Latencies go into classes of powers of two nanoseconds, from which whoever looks computes percentiles, also of what came
//! between two looks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::change::Change;
use crate::request::Op;
use crate::writer::WRITE_CACHE;

/// One in so many quick requests is timed. A power of two.
const SAMPLE: u64 = 8;
/// Classes of latencies: class `i` is of 2^i to 2^(i+1) nanoseconds; the last one begins at 9 minutes.
pub(crate) const CLASSES: usize = 40;

macro_rules! kinds {
    ($($variant:ident $name:literal)*) => {
        /// Kinds of requests, as they are counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Kind { $($variant),* }

        impl Kind {
            const ALL: &[Kind] = &[$(Kind::$variant),*];
            const COUNT: usize = Kind::ALL.len();

            /// The name that is shown.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name),* }
            }
        }
    };
}

kinds! {
    Lookup "lookup"
    Getattr "getattr"
    Readlink "readlink"
    Open "open"
    Read "read"
    Readdir "readdir"
    Statfs "statfs"
    Getxattr "getxattr"
    Listxattr "listxattr"
    Seek "seek"
    Ioctl "ioctl"
    Setattr "setattr"
    Truncate "truncate"
    Create "create"
    Mkdir "mkdir"
    Mknod "mknod"
    Symlink "symlink"
    Link "link"
    Unlink "unlink"
    Rmdir "rmdir"
    Rename "rename"
    Write "write"
    WriteBack "write-back"
    Setxattr "setxattr"
    Removexattr "removexattr"
    Fallocate "fallocate"
    Copy "copy"
    Fsync "fsync"
    Syncfs "syncfs"
    Forget "forget"
    Other "other"
}

impl Kind {
    pub(crate) fn of(op: &Op<'_>) -> Kind {
        match op {
            Op::Lookup { .. } => Kind::Lookup,
            Op::Getattr | Op::Statx => Kind::Getattr,
            Op::Readlink => Kind::Readlink,
            Op::Open { .. } | Op::OpenDir { .. } | Op::Release => Kind::Open,
            Op::Read { .. } => Kind::Read,
            Op::Readdir { .. } => Kind::Readdir,
            Op::Statfs => Kind::Statfs,
            Op::Getxattr { .. } => Kind::Getxattr,
            Op::Listxattr { .. } => Kind::Listxattr,
            Op::Seek { .. } => Kind::Seek,
            Op::Ioctl { .. } => Kind::Ioctl,
            Op::Forget { .. } | Op::BatchForget { .. } => Kind::Forget,
            Op::Change(change) => Kind::of_change(change),
            Op::Init { .. } | Op::Interrupt { .. } | Op::Destroy | Op::Unknown | Op::Malformed => Kind::Other,
        }
    }

    fn of_change(change: &Change<'_>) -> Kind {
        match change {
            Change::Setattr(set) if set.valid & crate::change::given::SIZE != 0 => Kind::Truncate,
            Change::Setattr(_) => Kind::Setattr,
            Change::Symlink { .. } => Kind::Symlink,
            Change::Mknod { .. } => Kind::Mknod,
            Change::Mkdir { .. } => Kind::Mkdir,
            Change::Create { .. } | Change::Tmpfile { .. } => Kind::Create,
            Change::Link { .. } => Kind::Link,
            Change::Unlink { .. } => Kind::Unlink,
            Change::Rmdir { .. } => Kind::Rmdir,
            Change::Rename { .. } => Kind::Rename,
            Change::Write { flags, .. } if flags & WRITE_CACHE != 0 => Kind::WriteBack,
            Change::Write { .. } => Kind::Write,
            Change::Setxattr { .. } => Kind::Setxattr,
            Change::Removexattr { .. } => Kind::Removexattr,
            Change::Fallocate { .. } => Kind::Fallocate,
            Change::Copy(_) => Kind::Copy,
            Change::Fsync => Kind::Fsync,
            Change::Syncfs => Kind::Syncfs,
        }
    }
}

/// Counters of one kind, on cache lines of its own.
#[repr(align(64))]
struct Counters {
    count: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    latencies: [AtomicU64; CLASSES],
}

/// The counters of a mount, since it was made.
pub(crate) struct Stats(Vec<Counters>);

/// A request that is being answered.
pub(crate) struct Begun {
    kind: Kind,
    /// When it began, if it is a sample.
    at: Option<Instant>,
}

/// The counters of one kind at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counted {
    pub(crate) kind: Kind,
    /// Requests.
    pub(crate) count: u64,
    /// Those among them that were answered with an error.
    pub(crate) failed: u64,
    /// Bytes read or written by those that succeeded.
    pub(crate) bytes: u64,
    /// How many took how long, by classes; the sum is about `count`.
    pub(crate) latencies: [u64; CLASSES],
}

impl Default for Stats {
    fn default() -> Stats {
        let none = || Counters {
            count: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; CLASSES],
        };
        Stats((0..Kind::COUNT).map(|_| none()).collect())
    }
}

impl Stats {
    /// A request has come.
    pub(crate) fn begin(&self, kind: Kind) -> Begun {
        let before = self.0[kind as usize].count.fetch_add(1, Relaxed);
        Begun { kind, at: before.is_multiple_of(SAMPLE).then(Instant::now) }
    }

    /// It is not answered now, and will begin again.
    pub(crate) fn withdraw(&self, begun: &Begun) {
        self.0[begun.kind as usize].count.fetch_sub(1, Relaxed);
    }

    /// It is answered. `waited_from` is when it began to wait, if it did; `bytes` what it read or wrote, if it succeeded.
    pub(crate) fn end(&self, begun: &Begun, waited_from: Option<Instant>, bytes: Result<u64, ()>) {
        let counters = &self.0[begun.kind as usize];
        match bytes {
            Ok(0) => {}
            Ok(bytes) => drop(counters.bytes.fetch_add(bytes, Relaxed)),
            Err(()) => drop(counters.failed.fetch_add(1, Relaxed)),
        }
        let (from, weight) = match (begun.at, waited_from) {
            (Some(at), None) => (at, SAMPLE),
            (Some(at), Some(_)) => (at, 1),
            (None, Some(from)) => (from, 1),
            (None, None) => return,
        };
        counters.latencies[class(from.elapsed())].fetch_add(weight, Relaxed);
    }

    /// How many requests of a kind have come.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize].count.load(Relaxed)
    }

    /// The counters of all kinds that were asked for.
    pub(crate) fn counted(&self) -> Vec<Counted> {
        let counted = |(&kind, counters): (&Kind, &Counters)| Counted {
            kind,
            count: counters.count.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            latencies: std::array::from_fn(|class| counters.latencies[class].load(Relaxed)),
        };
        Kind::ALL.iter().zip(&self.0).map(counted).filter(|counted| counted.count > 0).collect()
    }
}

/// The class of a latency.
fn class(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
    (nanos.ilog2() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_classes() {
        for (nanos, expected) in
            [(0, 0), (1, 0), (2, 1), (1023, 9), (1024, 10), (u64::MAX, CLASSES - 1), (1 << 39, 39)]
        {
            assert_eq!(class(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
    }

    #[test]
    fn everything_is_counted_and_a_sample_is_timed() {
        let stats = Stats::default();
        for _ in 0..2 * SAMPLE {
            let begun = stats.begin(Kind::Read);
            stats.end(&begun, None, Ok(100));
        }
        let begun = stats.begin(Kind::Write);
        stats.end(&begun, Some(Instant::now()), Err(()));
        let waited = stats.begin(Kind::Write);
        stats.end(&waited, Some(Instant::now() - Duration::from_secs(1)), Ok(0));
        let [read, write] = stats.counted().try_into().expect("two kinds");
        assert_eq!((read.kind.name(), read.count, read.failed, read.bytes), ("read", 16, 0, 1600));
        assert_eq!(read.latencies.iter().sum::<u64>(), 16);
        assert_eq!((write.kind, write.count, write.failed, write.bytes), (Kind::Write, 2, 1, 0));
        assert_eq!((write.latencies.iter().sum::<u64>(), write.latencies[29]), (2, 1));
    }
}
