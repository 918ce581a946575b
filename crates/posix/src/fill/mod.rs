//! Filling a new volume without mounting it: what is behind `frazil format --source` and `frazil import`.
//!
//! A tree of files, a directory of the running system or a tar archive, becomes a volume that looks as if it had been copied there:
//! contents with their holes, modes, owners, times to the nanosecond, extended attributes, access control lists, hard links,
//! special files. Nothing has to be mounted and nobody has to be root.
//!
//! ```text
//!  source ──▶ sink ──▶ jobs ──▶ worker threads ──▶ batches, in order ──▶ store ──▶ builder
//!  one thread:  │               read files,                               this thread: payloads to
//!  what there is│               compress, encrypt,                        buckets, keys of extents
//!               ▼               checksum                                  and attributes
//!              tree ────────────────── at the end ─────────────────────▶ names, inodes
//! ```
//!
//! The same tree makes the same volume, if the volume's UUID and time are given: sources deliver in a fixed order, batches are stored in the order
//! in which their jobs were handed out whoever finishes first, and hash seeds follow from the volume's random numbers. (Reading a
//! file may change its time of access, which is part of it; where the system lets us, we read without leaving that trace.)
//!
//! Memory does not grow with the length of files: a bounded number of jobs of about a mebibyte is under way. For each object about a
//! hundred bytes and its name are kept until the end.
//!
//! | to find | look in |
//! |---|---|
//! | walking a directory; what the system says of a file | `directory.rs`, `host.rs` |
//! | tar archives | `archive.rs`, `archive/` |
//! | what sources deliver to, how work is cut up | `sink.rs` |
//! | reading and encoding | `work.rs` |
//! | where payloads go, keys of extents and attributes | `store.rs` |
//! | the other way: into a volume in use | `live.rs` |
//! | names, inodes, link counts, hash seeds | `tree.rs` |

mod archive;
mod directory;
mod error;
mod host;
mod live;
mod sink;
mod store;
mod tree;
mod work;

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::Sectors;
use frazil_ondisk::values::inode::InodeOpts;
use frazil_volume::build::Builder;
use frazil_volume::data::encode::{Encoder, Encoding};
use parking_lot::Mutex;

pub use error::FillError;
pub use live::import;

use self::archive::Archive;
use self::directory::Directory;
use self::sink::{Deliver, Halt, Jobs};
use self::store::{Store, Unstored};
use self::tree::{Hashes, Object, Tree};
use self::work::{Failure, Pool, Room, Storing, Why, Worker};
use crate::attr::{FileType, Timestamp};
use crate::make::{Maker, NewInode};

/// Jobs that may be under way at a time, for each worker thread.
const JOBS_PER_WORKER: usize = 6;
/// Files above this are never stored in their keys, whatever the block size (spec 40 §7.5).
const INLINE_BYTES_MAX: u64 = 1024;

/// What is to be copied in.
pub struct Source<'s>(Box<dyn Deliver + 's>);

impl<'s> Source<'s> {
    /// The tree below a directory of the running system, which becomes the root. Files in `without`, given as device and inode number,
    /// are left out: the volume itself, if it lies in the tree.
    pub fn directory(top: &Path, without: Vec<(u64, u64)>) -> Source<'s> {
        Source(Box::new(Directory::new(top, without)))
    }

    /// The members of a tar archive, not compressed. `name` is what messages call it.
    pub fn archive(reader: impl Read + Send + 's, name: &str) -> Source<'s> {
        Source(Box::new(Archive::new(reader, name)))
    }
}

/// How far it is, for whoever watches from another thread.
#[derive(Default, Debug)]
pub struct Counts {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Objects found so far.
    pub fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Bytes of data stored so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_object(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filled {
    /// Files, directories and other objects, the root and `lost+found` among them.
    pub objects: u64,
    /// Names.
    pub names: u64,
    /// Bytes of data, without what is stored in keys.
    pub bytes: u64,
    /// The name of an attribute that was left out because a volume has no place for its kind.
    pub left_out: Option<Vec<u8>>,
}

/// Copies a tree into a volume under construction, of which nothing but its first subvolume may have been pushed. With `threads` worker
/// threads, at least one; `counts` tells how far it is. The caller finishes the builder.
///
/// # Errors
/// The first thing that cannot be read, stored, or written. The volume is not usable then.
pub fn fill(
    builder: &mut Builder,
    source: Source<'_>,
    threads: usize,
    counts: &Counts,
) -> Result<Filled, FillError> {
    let Source(mut source) = source;
    let threads = threads.max(1);
    let storing = storing(builder.superblock())?;
    let hashes = Hashes::new(Maker::of(builder.superblock())?, (builder.random(), builder.random()));
    let (root, lost_found) = directories(builder.superblock());
    let tree = Tree::new(hashes, &root, &lost_found).expect("directories have no device numbers");
    let key = builder.key().cloned();
    let mut store = Store::new(builder, storing, hashes);

    let pool = Pool::default();
    let (orders, ordered) = sync_channel(threads * JOBS_PER_WORKER);
    let (jobs, queue) = sync_channel(threads * JOBS_PER_WORKER);
    let queue = Mutex::new(queue);
    let mut sink = Jobs::new(tree, orders, jobs, storing.encoding.block, counts);
    let (mut tree, next_version, delivered, stopped) = thread::scope(|scope| {
        for _ in 0..threads {
            let (pool, queue, key) = (&pool, &queue, key.clone());
            scope.spawn(move || {
                let encoder = Encoder::new(key);
                let mut worker = Worker { storing, encoder, pool, raw: Room::default() };
                loop {
                    let next = queue.lock().recv();
                    let Ok((job, result)) = next else { break };
                    // Nobody waits for it if something else failed.
                    let _ = result.send(worker.run(job));
                }
            });
        }
        let source = &mut source;
        let walker = scope.spawn(move || {
            let delivered =
                source.deliver(&mut sink).and_then(|()| sink.hand_out().map_err(|_| Halt::Elsewhere));
            let (tree, next_version) = sink.into_tree();
            (tree, next_version, delivered)
        });
        let mut stopped = None;
        for outcome in &ordered {
            let stored = match outcome.recv().expect("a worker answers every job") {
                Ok(mut batch) => {
                    store.batch(&mut batch, counts).map(|()| pool.give_back(batch)).map_err(Stopped::Unstored)
                }
                Err(failure) => Err(Stopped::Failure(failure)),
            };
            if let Err(why) = stored {
                stopped = Some(why);
                break;
            }
        }
        drop(ordered);
        let (tree, next_version, delivered) = walker.join().expect("the source does not panic");
        (tree, next_version, delivered, stopped)
    });
    if let Some(stopped) = stopped {
        return Err(stopped.error(&*source, &tree));
    }
    if let Err(Halt::Error(error)) = delivered {
        return Err(error);
    }
    store.tree(&mut tree, next_version, counts)
}

/// Why storing ended early.
enum Stopped {
    Failure(Failure),
    Unstored(Unstored),
}

impl Stopped {
    fn error(self, source: &dyn Deliver, tree: &Tree) -> FillError {
        let path = |object: Object| source.shown(&tree.path(object));
        match self {
            Stopped::Failure(Failure { object, why: Why::Changed }) => {
                FillError::Changed { path: path(object) }
            }
            Stopped::Failure(Failure { object, why: Why::Io(why) }) => {
                FillError::Unreadable { path: path(object), why }
            }
            Stopped::Unstored(Unstored::Attribute { object, name, why }) => {
                FillError::UnfitAttribute { path: path(object), name, why }
            }
            Stopped::Unstored(Unstored::Volume(error)) => error,
        }
    }
}

/// How data is stored in a volume with this superblock.
fn storing(superblock: &Superblock) -> Result<Storing, FillError> {
    let encoding = Encoding::of(superblock, &InodeOpts::default())?;
    let members = superblock.members()?;
    let payload_max = members.live().map(|(_, member)| member.bucket_size()).min().unwrap_or(Sectors(0));
    let inline_max = (superblock.block_bytes() / 2).min(INLINE_BYTES_MAX) as usize;
    Ok(Storing { encoding, inline_max, payload_max })
}

/// The root and `lost+found` as they are if the source does not say otherwise.
fn directories(superblock: &Superblock) -> (NewInode, NewInode) {
    let made = Timestamp::from_unix_ns(superblock.time_base().base_ns.into());
    let directory = |perm| NewInode {
        kind: FileType::Directory,
        perm,
        uid: 0,
        gid: 0,
        rdev: (0, 0),
        atime: made,
        mtime: made,
        ctime: made,
        btime: made,
        flags: 0,
    };
    (directory(0o755), directory(0o700))
}
