//! Random operations, each done to the volume and to the model, which must agree on what came of it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use frazil_ondisk::units::Sectors;
use frazil_posix::write::{Caller, Front, NewNode, RenameMode, SetAttr, SetTime, SetXattr, WriteFs};
use frazil_posix::{Error, FileType, NodeId, Result, Timestamp};

use frazil_volume::lifecycle::FrontKind;

use crate::machine::ManualTime;
use crate::model::{Body, Failure, Model, Subvol, failure};
use crate::observe;

pub(crate) const ROOT: &Caller<'static> = &Caller::ROOT;
/// Below this a volume may say that it is full: what the reserves of the devices and half-filled buckets can hide.
const NEARLY_FULL: Sectors = Sectors(8192);

/// A volume in use, and what should be on it.
pub(crate) struct Run<'w> {
    pub(crate) fs: &'w WriteFs,
    pub(crate) time: &'w Arc<ManualTime>,
    pub(crate) rng: &'w mut fastrand::Rng,
    pub(crate) model: Model,
    /// Objects in use, how often; true for files made without a name, which may get one.
    pub(crate) held: BTreeMap<NodeId, (u64, bool)>,
    /// Objects that the operation at hand has changed.
    pub(crate) changed: Vec<NodeId>,
    /// The file whose content the operation at hand changes, maybe in several steps.
    pub(crate) loose: Option<NodeId>,
    /// A device has failed, so anything may.
    pub(crate) faults: bool,
    /// What an operation did before it failed could not be seen.
    pub(crate) blind: bool,
    /// Whether it may be stopped for good.
    pub(crate) may_end: bool,
    /// It was, and nothing can be changed any more.
    pub(crate) over: bool,
    /// What is being done, for who reads a failure.
    pub(crate) doing: String,
    pub(crate) block: u64,
    /// Snapshots made so far.
    pub(crate) snapshots: u32,
}

impl<'w> Run<'w> {
    pub(crate) fn front(&self) -> Result<Front<'w>> {
        self.fs.front(FrontKind::Names)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.time.stamp()
    }

    fn one<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.rng.usize(0..list.len())].clone())
    }

    /// Objects of the model that `want` wants.
    fn pick(&mut self, want: impl Fn(&Model, NodeId) -> bool) -> Option<NodeId> {
        let all: Vec<NodeId> = self.model.nodes.keys().copied().filter(|id| want(&self.model, *id)).collect();
        self.one(&all)
    }

    fn dir(&mut self) -> NodeId {
        // Mostly where it can be changed.
        let any = self.rng.u8(0..12) == 0;
        self.pick(|m, id| m.get(id).is_dir() && (any || !m.is_read_only(id.subvol))).unwrap_or(NodeId::ROOT)
    }

    pub(crate) fn file(&mut self) -> Option<NodeId> {
        let any = self.rng.u8(0..12) == 0;
        self.pick(|m, id| matches!(m.get(id).body, Body::File(_)) && (any || !m.is_read_only(id.subvol)))
    }

    fn new_name(&mut self) -> Vec<u8> {
        match self.rng.u8(0..40) {
            0 => vec![b'x'; self.rng.usize(200..513)],
            1 => vec![b'y'; 513],
            2 => b".".to_vec(),
            3 => b"\xff\xfe\x01".to_vec(),
            4 => Vec::new(),
            n => format!("{}{}", char::from(b'a' + n % 7), self.rng.u8(0..6)).into_bytes(),
        }
    }

    /// A name that is there, mostly.
    fn old_name(&mut self, dir: NodeId) -> Vec<u8> {
        let names: Vec<Vec<u8>> = self.model.get(dir).entries().keys().cloned().collect();
        match self.rng.u8(0..10) {
            0 => self.new_name(),
            _ => self.one(&names).unwrap_or_else(|| b"nothing".to_vec()),
        }
    }

    /// What the volume did and what the model expects must be the same; `Some` if both succeeded.
    pub(crate) fn agree<T: Debug, U>(
        &mut self,
        got: Result<T>,
        expected: std::result::Result<U, Failure>,
    ) -> Option<(T, U)> {
        match (got, expected) {
            (Ok(got), Ok(expected)) => Some((got, expected)),
            (Err(error), Err(expected)) if failure(&error) == expected => None,
            (Err(Error::NoSpace), _) if self.may_be_full() => None,
            (Err(Error::Io(_) | Error::ReadOnly), _) if self.faults => None,
            (Err(error), Ok(_)) => panic!("{}: failed: {error}", self.doing),
            (Err(error), Err(expected)) => panic!("{}: {error}, should be {expected}", self.doing),
            (Ok(got), Err(expected)) => panic!("{}: {got:?}, should be {expected}", self.doing),
        }
    }

    pub(crate) fn may_be_full(&self) -> bool {
        self.fs.live().space().usage().available < NEARLY_FULL
    }

    /// These objects were changed.
    pub(crate) fn compare(&mut self, ids: &[NodeId]) {
        self.look(ids);
        self.changed.extend_from_slice(ids);
    }

    /// These objects must be as the model has them, by themselves.
    pub(crate) fn look(&mut self, ids: &[NodeId]) {
        if self.faults && self.fs.live().journal().halted().is_some() {
            // What stopped in the middle of an operation is of no use to anybody; what counts is what is found afterwards.
            return;
        }
        for id in ids.iter().filter(|id| self.model.nodes.contains_key(id)) {
            let node = match observe::node(self.fs, *id) {
                Ok(node) => node,
                Err(_) if self.faults => continue,
                Err(error) => panic!("{}: {id}: {error}", self.doing),
            };
            assert_eq!(node.text(*id), self.model.get(*id).text(*id), "{}", self.doing);
        }
    }

    /// One operation. Time has passed since the last.
    pub(crate) fn step(&mut self) {
        self.time.pass(self.rng.u64(1..3_000_000));
        self.changed.clear();
        self.loose = None;
        let data = self.rng.u8(0..10) < 3;
        if data && let Some(file) = self.file() {
            return self.change_content(file);
        }
        match self.rng.u8(0..58) {
            0..14 => self.create(),
            14..18 => self.link(),
            18..24 => self.unlink(),
            24..27 => self.rmdir(),
            27..37 => self.rename(),
            37..41 => self.setattr(),
            41..47 => self.xattr(),
            47..49 => self.create_nameless(),
            49..51 => self.hold(),
            51..54 => self.release(),
            54 => self.subvolume(),
            55..57 => self.snapshot(),
            _ => self.delete_subvolume(),
        }
    }

    fn create(&mut self) {
        let (dir, name, now) = (self.dir(), self.new_name(), self.now());
        let target = format!("to/{}", "t".repeat(self.rng.usize(0..90)));
        let what = match self.rng.u8(0..12) {
            0..6 => NewNode::File,
            6..9 => NewNode::Directory,
            9 => NewNode::Symlink(target.as_bytes()),
            10 => NewNode::Fifo,
            _ => NewNode::BlockDevice(8, self.rng.u32(0..300)),
        };
        let perm = self.rng.u16(0..0o10000);
        self.doing = format!("create {dir}/{} {what:?} {perm:o}", name.escape_ascii());
        let expected = self.model.may_create(dir, &name);
        let got = self.front().and_then(|front| front.create(dir, &name, what, perm, ROOT));
        let Some((attr, ())) = self.agree(got, expected) else { return };
        let (kind, rdev) = match what {
            NewNode::File => (FileType::Regular, (0, 0)),
            NewNode::Directory => (FileType::Directory, (0, 0)),
            NewNode::Symlink(_) => (FileType::Symlink, (0, 0)),
            NewNode::BlockDevice(major, minor) => (FileType::BlockDevice, (major, minor)),
            _ => (FileType::Fifo, (0, 0)),
        };
        let mut node = self.model.new_node(dir, attr.node, kind, perm, rdev, now);
        if let NewNode::Symlink(target) = what {
            node.body = Body::Symlink(target.to_vec());
        }
        self.model.create(dir, &name, attr.node, node, now);
        self.compare(&[attr.node, dir]);
    }

    fn create_nameless(&mut self) {
        let (dir, now, linkable) = (self.dir(), self.now(), self.rng.bool());
        self.doing = format!("create nameless in {dir}, linkable {linkable}");
        let expected = self.model.directory(dir);
        let got = self.front().and_then(|front| front.create_nameless(dir, 0o644, linkable, ROOT));
        let Some((attr, ())) = self.agree(got, expected) else { return };
        let mut node = self.model.new_node(dir, attr.node, FileType::Regular, 0o644, (0, 0), now);
        node.attr.nlink = 0;
        self.model.nodes.insert(attr.node, Arc::new(node));
        self.held.insert(attr.node, (1, linkable));
        self.compare(&[attr.node]);
    }

    fn link(&mut self) {
        let (dir, name, now) = (self.dir(), self.new_name(), self.now());
        let nameless: Vec<_> = self.held.iter().filter(|(_, held)| held.1).map(|(id, _)| *id).collect();
        let nameless = if self.rng.bool() { self.one(&nameless) } else { None };
        let same = self.rng.u8(0..8) > 0;
        let Some(node) = nameless.or_else(|| self.pick(|_, id| !same || id.subvol == dir.subvol)) else {
            return;
        };
        self.doing = format!("link {node} as {dir}/{}", name.escape_ascii());
        let linkable = self.held.get(&node).is_some_and(|held| held.1);
        let expected = self.model.may_link(node, dir, &name, linkable);
        let got = self.front().and_then(|front| front.link(node, dir, &name));
        if self.agree(got, expected).is_none() {
            return;
        }
        self.model.link(node, dir, &name, now);
        if let Some(held) = self.held.get_mut(&node) {
            held.1 = false;
        }
        self.compare(&[node, dir]);
    }

    /// What has no name and is not held is gone.
    pub(crate) fn forget_if_nameless(&mut self, id: NodeId) {
        let gone = self.model.nodes.get(&id).is_some_and(|node| node.attr.nlink == 0);
        if gone && !self.held.contains_key(&id) {
            self.model.nodes.remove(&id);
        }
    }

    fn unlink(&mut self) {
        let dir = self.dir();
        let (name, now) = (self.old_name(dir), self.now());
        self.doing = format!("unlink {dir}/{}", name.escape_ascii());
        let expected = self.model.may_unlink(dir, &name);
        let got = self.front().and_then(|front| front.unlink(dir, &name, ROOT));
        let Some(((), id)) = self.agree(got, expected) else { return };
        self.model.unlink(dir, &name, now);
        self.forget_if_nameless(id);
        self.compare(&[id, dir]);
    }

    /// Directories that are gone, or whole subvolumes, are not held any more as far as the model is concerned.
    fn forget_held(&mut self) {
        let gone: Vec<_> =
            self.held.keys().filter(|id| !self.model.nodes.contains_key(id)).copied().collect();
        for id in gone {
            let (count, _) = self.held.remove(&id).expect("it was there");
            if self.model.subvols.contains_key(&id.subvol) {
                // Who holds a removed directory sees it, empty.
                let attr = self.fs.getattr(id).expect("it is held");
                assert_eq!((attr.nlink, attr.kind), (0, FileType::Directory), "{}", self.doing);
                let made = self.front().and_then(|front| front.create(id, b"a", NewNode::File, 0, ROOT));
                assert_eq!(made.err().map(|e| failure(&e)), Some("NotFound"), "{}", self.doing);
            }
            self.fs.release(id, count);
            self.remove_released();
            assert!(self.fs.getattr(id).is_err(), "{}", self.doing);
        }
    }

    fn rmdir(&mut self) {
        let dir = self.dir();
        let (name, now) = (self.old_name(dir), self.now());
        self.doing = format!("rmdir {dir}/{}", name.escape_ascii());
        let expected = self.model.may_rmdir(dir, &name);
        let got = self.front().and_then(|front| front.rmdir(dir, &name, ROOT));
        if self.agree(got, expected).is_none() {
            return;
        }
        self.model.rmdir(dir, &name, now);
        self.forget_held();
        self.compare(&[dir]);
    }

    fn rename(&mut self) {
        let (src, now) = (self.dir(), self.now());
        let dst = if self.rng.bool() { src } else { self.dir() };
        let src_name = self.old_name(src);
        let dst_name = if self.rng.bool() { self.old_name(dst) } else { self.new_name() };
        let mode = [RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]
            [self.rng.usize(0..4)];
        let whiteout = mode != RenameMode::Exchange && self.rng.u8(0..6) == 0;
        self.doing = format!(
            "rename {src}/{} to {dst}/{} {mode:?} whiteout {whiteout}",
            src_name.escape_ascii(),
            dst_name.escape_ascii()
        );
        let (from, to) = ((src, &src_name[..]), (dst, &dst_name[..]));
        let exchange = mode == RenameMode::Exchange;
        let expected = self.model.may_rename(from, to, mode == RenameMode::NoReplace, exchange);
        let got = self.front().and_then(|front| front.rename(from, to, mode, whiteout, ROOT));
        let Some(((), true)) = self.agree(got, expected) else { return };
        let target = self.model.child(dst, &dst_name);
        self.model.rename(from, to, exchange, now);
        if whiteout {
            let attr = match self.fs.lookup(src, &src_name) {
                Err(_) if self.faults => return,
                found => found.unwrap_or_else(|e| panic!("{}: {e}", self.doing)),
            };
            let node = self.model.new_node(src, attr.node, FileType::CharDevice, 0, (0, 0), now);
            self.model.create(src, &src_name, attr.node, node, now);
            self.compare(&[attr.node]);
        }
        self.forget_held();
        let moved = self.model.child(dst, &dst_name).expect("it was moved there");
        if let Some(target) = target {
            self.forget_if_nameless(target);
            self.compare(&[target]);
        }
        self.compare(&[moved, src, dst]);
    }

    fn setattr(&mut self) {
        let Some(id) = self.pick(|_, _| true) else { return };
        let now = self.now();
        let is_link = self.model.get(id).attr.kind == FileType::Symlink;
        let mut set = SetAttr::default();
        match self.rng.u8(0..5) {
            0 if !is_link => set.perm = Some(self.rng.u16(0..0o10000)),
            1 => (set.uid, set.gid) = (Some(self.rng.u32(0..9)), Some(self.rng.u32(0..9))),
            2 => {
                set.atime = Some(SetTime::To(Timestamp { secs: 1_600_000_000, nanos: self.rng.u32(0..1000) }))
            }
            3 => set.mtime = Some(SetTime::Now),
            _ => set.flags = Some(if self.rng.bool() { 8 } else { 0 }),
        }
        self.doing = format!("setattr {id} {set:?}");
        let expected = self.model.writable(id);
        let got = self.front().and_then(|front| front.setattr(id, &set, ROOT));
        if self.agree(got, expected).is_none() {
            return;
        }
        if let (Some(uid), Some(gid)) = (set.uid, set.gid) {
            self.model.chown(id, uid, gid, now);
        }
        let attr = &mut self.model.get_mut(id).attr;
        attr.perm = set.perm.unwrap_or(attr.perm);
        attr.flags = set.flags.unwrap_or(attr.flags);
        if let Some(SetTime::To(time)) = set.atime {
            attr.atime = time;
        }
        if set.mtime.is_some() {
            attr.mtime = now;
        }
        attr.ctime = now;
        self.compare(&[id]);
    }

    fn xattr(&mut self) {
        let Some(id) = self.pick(|_, _| true) else { return };
        let now = self.now();
        let name = format!("trusted.{}", char::from(b'a' + self.rng.u8(0..6))).into_bytes();
        let exists = self.model.get(id).xattrs.contains_key(&name);
        if self.rng.u8(0..3) == 0 {
            self.doing = format!("removexattr {id} {}", name.escape_ascii());
            let expected = self.model.writable(id);
            let expected = expected.and(if exists { Ok(()) } else { Err("NoAttribute") });
            let got = self.front().and_then(|front| front.removexattr(id, &name, ROOT));
            if self.agree(got, expected).is_none() {
                return;
            }
            self.model.get_mut(id).xattrs.remove(&name);
        } else {
            let value = vec![b'a' + self.rng.u8(0..25); self.rng.usize(0..1200)];
            let how = [SetXattr::Any, SetXattr::Create, SetXattr::Replace][self.rng.usize(0..3)];
            self.doing = format!("setxattr {id} {} {} bytes {how:?}", name.escape_ascii(), value.len());
            let expected = self.model.writable(id).and(match how {
                SetXattr::Create if exists => Err("Exists"),
                SetXattr::Replace if !exists => Err("NoAttribute"),
                _ => Ok(()),
            });
            let got = self.front().and_then(|front| front.setxattr(id, &name, &value, how, ROOT));
            if self.agree(got, expected).is_none() {
                return;
            }
            self.model.get_mut(id).xattrs.insert(name, value);
        }
        self.model.get_mut(id).attr.ctime = now;
        self.compare(&[id]);
    }

    fn hold(&mut self) {
        let Some(id) = self.pick(|m, id| !m.is_subvol_root(id) && id != NodeId::ROOT) else { return };
        self.doing = format!("hold {id}");
        self.fs.hold(id);
        self.held.entry(id).or_default().0 += 1;
    }

    fn release(&mut self) {
        let held: Vec<_> = self.held.iter().map(|(id, held)| (*id, held.0)).collect();
        let Some(one) = self.one(&held) else { return };
        // Several at once are removed together.
        let released = if self.rng.bool() { held } else { vec![one] };
        self.doing = format!("release {released:?}");
        for &(id, count) in &released {
            self.fs.release(id, count);
            self.held.remove(&id);
            self.forget_if_nameless(id);
        }
        if self.rng.bool() {
            // They go later.
            return;
        }
        self.remove_released();
        for &(id, _) in released.iter().filter(|_| !self.faults) {
            let there = self.fs.getattr(id);
            assert_eq!(there.is_ok(), self.model.nodes.contains_key(&id), "{}: {there:?}", self.doing);
        }
    }

    /// What is to be removed is removed now.
    pub(crate) fn remove_released(&self) {
        if let Ok(front) = self.front() {
            front.remove_released(&|| true);
            assert!(!self.fs.has_removals());
        }
    }

    fn subvolume(&mut self) {
        let (dir, name, now) = (self.dir(), self.new_name(), self.now());
        self.doing = format!("create subvolume {dir}/{}", name.escape_ascii());
        let expected = self.model.may_create(dir, &name);
        let got = self.front().and_then(|front| front.create_subvolume(dir, &name, 0o755, ROOT));
        let Some((attr, ())) = self.agree(got, expected) else { return };
        let node = self.model.new_node(dir, attr.node, FileType::Directory, 0o755, (0, 0), now);
        self.model.subvols.insert(attr.node.subvol, Subvol { root: attr.node.inum, read_only: false });
        self.model.create(dir, &name, attr.node, node, now);
        self.compare(&[attr.node, dir]);
    }

    fn snapshot(&mut self) {
        let (dir, name, now, ro) = (self.dir(), self.new_name(), self.now(), self.rng.u8(0..3) == 0);
        let subvols: Vec<_> = self.model.subvols.keys().copied().collect();
        let Some(source) = self.one(&subvols).filter(|_| subvols.len() < 12) else { return };
        self.doing = format!("snapshot of {source} as {dir}/{} read-only {ro}", name.escape_ascii());
        let expected = self.model.may_create(dir, &name);
        let got = self.front().and_then(|front| front.create_snapshot(source, dir, &name, ro, ROOT));
        let Some((attr, ())) = self.agree(got, expected) else { return };
        self.model.snapshot(source, attr.node, dir, &name, ro, now);
        self.snapshots += 1;
        self.compare(&[attr.node, dir]);
    }

    fn delete_subvolume(&mut self) {
        let roots: Vec<(NodeId, Vec<u8>)> = self
            .model
            .nodes
            .iter()
            .filter(|(_, node)| node.is_dir())
            .flat_map(|(id, node)| node.entries().iter().map(move |(name, child)| (*id, name, *child)))
            .filter(|(_, _, child)| self.model.is_subvol_root(*child))
            .map(|(id, name, _)| (id, name.clone()))
            .collect();
        let (Some((dir, name)), now) = (self.one(&roots), self.now()) else { return };
        self.doing = format!("delete subvolume {dir}/{}", name.escape_ascii());
        let expected = self.model.may_delete_subvol(dir, &name);
        let got = self.front().and_then(|front| front.delete_subvolume(dir, &name, ROOT));
        if self.agree(got, expected).is_none() {
            return;
        }
        self.model.delete_subvol(dir, &name, now);
        self.forget_held();
        self.compare(&[dir]);
    }
}
