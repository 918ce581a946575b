//! A filesystem in memory with everything that is hard to have on an image: reads that hang until a test lets them go,
//! huge listings, unreadable ranges, numbers that do not fit, and counts of what was asked.
// Each test program uses a part of this, and a test fails by panicking.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use frazil_device::waiting;
use frazil_fuse::{Filesystem, Mount, Options, TakeEntry, TakeEntryPlus};
use frazil_ondisk::units::{Inum, SubvolId};
use frazil_posix::{Attr, DirEntry, Error, FileType, FsStat, NodeId, Result, Timestamp, Whence};
use parking_lot::{Condvar, Mutex};

/// Length of every regular file but the empty ones.
pub const FILE_BYTES: u64 = (3 << 20) + 123;
/// In "bad", these bytes cannot be read.
pub const BAD: std::ops::Range<u64> = 1_310_720..1_318_912;
/// In every file, these bytes are a hole.
pub const HOLE: std::ops::Range<u64> = 1 << 20..2 << 20;
/// A limit that no step of a test that succeeds comes near, so that one that fails ends.
pub const LONG: Duration = Duration::from_secs(20);
/// Names in "huge".
pub const HUGE: usize = 20_000;

/// An object of subvolume 1.
pub fn node(inum: u64) -> NodeId {
    NodeId { subvol: SubvolId(1), inum: Inum(inum) }
}

/// Content of every file.
pub fn content(offset: u64) -> u8 {
    if HOLE.contains(&offset) { 0 } else { (offset.wrapping_mul(0x9e37_79b9) >> 13) as u8 | 1 }
}

/// An object, and if it is a directory its names in order.
struct Object {
    attr: Attr,
    names: Vec<(Vec<u8>, NodeId)>,
}

#[derive(Default)]
pub struct Fake {
    objects: BTreeMap<NodeId, Object>,
    /// Whether requests hang.
    hang: Mutex<bool>,
    released: Condvar,
    /// Requests that hang now.
    pub hanging: AtomicUsize,
    pub lookups: AtomicUsize,
    pub getattrs: AtomicUsize,
    pub reads: AtomicUsize,
    pub largest_read: AtomicUsize,
}

fn attr(node: NodeId, kind: FileType, perm: u16) -> Attr {
    let time = |secs, nanos| Timestamp { secs, nanos };
    let size = if kind == FileType::Regular { FILE_BYTES } else { 0 };
    Attr {
        node,
        kind,
        perm,
        uid: 12,
        gid: 34,
        size,
        sectors: size / 512,
        nlink: 3,
        rdev: if kind == FileType::CharDevice { (259, 70_000) } else { (0, 0) },
        atime: time(1_700_000_001, 111),
        mtime: time(-5, 999_999_999),
        ctime: time(1 << 33, 333),
        btime: time(1_600_000_000, 444),
        generation: 7,
        flags: 0b10010,
        project: 99,
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let mut fake = Fake::default();
        fake.add(None, b"", NodeId::ROOT, FileType::Directory);
        let root = Some(NodeId::ROOT);
        fake.add(root, b"file", node(5000), FileType::Regular);
        fake.add(root, b"bad", node(5001), FileType::Regular);
        fake.add(root, b"slow", node(5002), FileType::Regular);
        fake.add(root, b"huge", node(5003), FileType::Directory);
        fake.add(root, b"names", node(5004), FileType::Directory);
        fake.add(root, b"link", node(5005), FileType::Symlink);
        fake.add(root, b"device", node(5006), FileType::CharDevice);
        fake.add(root, b"pipe", node(5007), FileType::Fifo);
        let other = |inum| NodeId { subvol: SubvolId(2), inum: Inum(inum) };
        fake.add(root, b"snapshot", other(4096), FileType::Directory);
        fake.add(Some(other(4096)), b"file", other(5000), FileType::Regular);
        fake.add(Some(other(4096)), b"far", other(1 << 61), FileType::Regular);
        fake.add(Some(node(5004)), &[0xff; 255], node(6000), FileType::Regular);
        fake.add(Some(node(5004)), b"\xc3(\n \\", node(6001), FileType::Regular);
        for i in 0..HUGE as u64 {
            fake.add(Some(node(5003)), huge_name(i).as_bytes(), node(100_000 + i), FileType::Regular);
        }
        Arc::new(fake)
    }

    fn add(&mut self, dir: Option<NodeId>, name: &[u8], node: NodeId, kind: FileType) {
        let perm = if kind == FileType::Directory { 0o755 } else { 0o640 };
        self.objects.insert(node, Object { attr: attr(node, kind, perm), names: Vec::new() });
        if let Some(dir) = dir {
            self.objects.get_mut(&dir).unwrap().names.push((name.to_vec(), node));
        }
    }

    /// Makes reads of "slow" and lookups of "hang" hang, or lets them go.
    pub fn set_hang(&self, hang: bool) {
        *self.hang.lock() = hang;
        self.released.notify_all();
    }

    /// Waits until exactly this many requests hang.
    pub fn wait_hanging(&self, count: usize) {
        let begin = Instant::now();
        while self.hanging.load(Ordering::SeqCst) != count {
            assert!(begin.elapsed() < LONG, "waited in vain");
            std::thread::yield_now();
        }
    }

    fn hang(&self) {
        let mut hang = self.hang.lock();
        if *hang {
            waiting::about_to_wait();
            self.hanging.fetch_add(1, Ordering::SeqCst);
            while *hang && !self.released.wait_for(&mut hang, LONG).timed_out() {}
            self.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn get(&self, node: NodeId) -> Result<&Object> {
        self.objects.get(&node).ok_or(Error::Stale(node))
    }
}

pub fn huge_name(i: u64) -> String {
    format!("{i:06}{}", "x".repeat(i as usize % 40))
}

impl Filesystem for Fake {
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        if name == b"hang" {
            self.hang();
        }
        let Object { attr, names } = self.get(dir)?;
        if attr.kind != FileType::Directory {
            return Err(Error::NotDirectory);
        }
        let found = names.iter().find(|(found, _)| found == name).ok_or(Error::NotFound)?;
        Ok(self.get(found.1)?.attr.clone())
    }

    fn getattr(&self, node: NodeId) -> Result<Attr> {
        self.getattrs.fetch_add(1, Ordering::SeqCst);
        Ok(self.get(node)?.attr.clone())
    }

    fn parent(&self, _: NodeId) -> Result<NodeId> {
        Ok(NodeId::ROOT)
    }

    fn readdir(&self, dir: NodeId, from: u64, take: &mut TakeEntry<'_>) -> Result<()> {
        self.readdir_plus(dir, from, &mut |entry, _| take(entry))
    }

    fn readdir_plus(&self, dir: NodeId, from: u64, take: &mut TakeEntryPlus<'_>) -> Result<()> {
        for (i, (name, node)) in self.get(dir)?.names.iter().enumerate().skip(from as usize - 2) {
            let attr = &self.get(*node)?.attr;
            let entry = DirEntry { node: *node, kind: attr.kind, name, next: i as u64 + 3 };
            if let ControlFlow::Break(()) = take(entry, Some(attr)) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.largest_read.fetch_max(buf.len(), Ordering::SeqCst);
        if node.inum == Inum(5002) {
            self.hang();
        }
        let mut end = FILE_BYTES.min(offset + buf.len() as u64).max(offset);
        if node.inum == Inum(5001) && offset < BAD.end && end > BAD.start {
            if offset >= BAD.start {
                return Err(Error::Io("unreadable".into()));
            }
            end = BAD.start;
        }
        let len = (end - offset) as usize;
        buf[..len].iter_mut().zip(offset..).for_each(|(byte, offset)| *byte = content(offset));
        Ok(len)
    }

    fn readlink(&self, _: NodeId) -> Result<Vec<u8>> {
        Ok([b"../target ".as_slice(), &[0xfe; 1500]].concat())
    }

    fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        match (node.inum.0, name) {
            (5000, b"user.one") => Ok(b"1".to_vec()),
            (5000, b"trusted.long") => Ok(vec![7; 1900]),
            (5000, b"user.empty") => Ok(Vec::new()),
            // Read for user 77, write for nobody but the owner: user_obj, user, group_obj, mask, other.
            (5000, b"system.posix_acl_access") => Ok(acl(&[
                (1, 6, u32::MAX),
                (2, 4, 77),
                (4, 0, u32::MAX),
                (16, 4, u32::MAX),
                (32, 0, u32::MAX),
            ])),
            _ => Err(Error::NoAttribute),
        }
    }

    fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let names = [b"user.one".as_slice(), b"trusted.long", b"user.empty", b"system.posix_acl_access"];
        Ok(if node.inum.0 == 5000 { names.map(<[u8]>::to_vec).into() } else { Vec::new() })
    }

    fn seek(&self, _: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        match whence {
            _ if offset >= FILE_BYTES => Err(Error::PastEnd),
            Whence::Data if HOLE.contains(&offset) => Ok(HOLE.end),
            Whence::Hole if offset < HOLE.start => Ok(HOLE.start),
            Whence::Hole if !HOLE.contains(&offset) => Ok(FILE_BYTES),
            _ => Ok(offset),
        }
    }

    fn statfs(&self) -> Result<FsStat> {
        Ok(FsStat {
            block_bytes: 4096,
            blocks: 1000,
            blocks_free: 900,
            blocks_available: 886,
            files: 7210,
            files_free: 7200,
            name_bytes_max: 255,
            fsid: 0x0123_4567_89ab_cdef,
        })
    }
}

/// An ACL as programs see it: version 2, entries of tag, permissions, id.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// A fake, mounted.
pub struct Mounted {
    pub fake: Arc<Fake>,
    pub mount: Mount,
    pub dir: std::path::PathBuf,
    _temporary: tempfile::TempDir,
}

impl Mounted {
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(name)
    }
}

/// Mounts a fake. Needs root and `/dev/fuse`, and fails without.
pub fn mounted() -> Mounted {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    let fake = Fake::new();
    let mount = frazil_fuse::mount(fake.clone(), &dir, &Options::new("/dev/fake:/dev/other".into())).unwrap();
    frazil_testing::expect_io_uring(|| mount.queues().map(|queues| queues as u64));
    Mounted { fake, mount, dir, _temporary: temporary }
}
