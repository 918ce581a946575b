//! Random operations on a volume and on a model of what it should do.

use frazil_ondisk::units::SubvolId;
use frazil_posix::write::{Caller, NewNode, RenameMode, SetAttr, SetXattr};
use frazil_posix::{Attr, FileType, NodeId};
use frazil_testing::seed::for_each_seed;

use crate::model::{Dir, Expected, Model, Node, Target, node};
use crate::world::{World, front, outcome};

/// The first three have one hash in every directory, if that is crc32c (spec 40 §20).
const NAMES: [&[u8]; 10] = [
    b"n78ecc56f",
    b"n286c41d4",
    b"n248ca90f",
    b"a",
    b"b",
    b"c",
    b"dir",
    b"longer name of a file",
    b"x",
    b"y",
];
const ROOT: Caller<'static> = Caller { umask: 0, ..Caller::ROOT };

/// A volume and its model, changed side by side.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) rng: fastrand::Rng,
    /// Whether subvolumes and snapshots are made.
    pub(crate) subvolumes: bool,
    held: Vec<NodeId>,
}

impl Run {
    pub(crate) fn new(settings: &[(&str, &str)], seed: u64, subvolumes: bool) -> Run {
        let world = World::new(settings);
        let model = Model::of(&world.fs);
        Run { world, model, rng: fastrand::Rng::with_seed(seed), subvolumes, held: Vec::new() }
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.rng.usize(..NAMES.len())]
    }

    fn dir(&mut self) -> Dir {
        let dirs = self.model.dirs();
        // The first ones more often, so that there is something in them.
        let few = dirs.len().min(4);
        let count = if self.rng.bool() { few } else { dirs.len() };
        dirs[self.rng.usize(..count)]
    }

    fn object(&mut self, is: impl Fn(&Node) -> bool) -> Option<Dir> {
        let all = self.model.objects(is);
        (!all.is_empty()).then(|| all[self.rng.usize(..all.len())])
    }

    /// One operation.
    pub(crate) fn step(&mut self) {
        self.world.clock.tick();
        match self.rng.u32(..100) {
            0..30 => self.create(),
            30..40 => self.link(),
            40..55 => self.unlink(),
            55..62 => self.rmdir(),
            62..82 => self.rename(),
            82..88 => self.attributes(),
            88..94 => self.xattrs(),
            94..97 => self.hold_or_release(),
            _ if self.subvolumes => self.subvolume(),
            _ => {}
        }
    }

    fn create(&mut self) {
        let (dir, name, now) = (self.dir(), self.name(), self.world.clock.now_s());
        let (what, kind, perm) = match self.rng.u32(..6) {
            0 | 1 => (NewNode::Directory, FileType::Directory, 0o755),
            2 if self.rng.u32(..4) == 0 => (NewNode::Symlink(&[b'l'; 3000]), FileType::Symlink, 0o777),
            2 => (NewNode::Symlink(b"where/it/leads"), FileType::Symlink, 0o777),
            3 => (NewNode::Fifo, FileType::Fifo, 0o600),
            4 => (NewNode::BlockDevice(8, 1), FileType::BlockDevice, 0o660),
            _ => (NewNode::File, FileType::Regular, 0o644),
        };
        let want = self.model.can_create(dir, name);
        let have = outcome(self.world.front().create(node(dir), name, what, perm, &ROOT));
        assert_eq!(have.as_ref().map(|_| ()).map_err(|e| *e), want);
        if let Ok(Attr { node: made, .. }) = have {
            let mut new = Node::new(kind, perm, now);
            if let NewNode::Symlink(target) = what {
                new.target = target.to_vec();
            }
            self.model.create(dir, name, made.inum.0, new);
        }
    }

    fn link(&mut self) {
        let (dir, name, now) = (self.dir(), self.name(), self.world.clock.now_s());
        let is_file = self.rng.u32(..8) > 0;
        let Some(from) = self.object(|node| !node.is_dir() || !is_file) else { return };
        let want = self.model.link(from, dir, name, now);
        let have = outcome(self.world.front().link(node(from), node(dir), name)).map(|_| ());
        assert_eq!(have, want, "link of {} as {}", node(from), name.escape_ascii());
    }

    fn unlink(&mut self) {
        let (dir, name, now) = (self.dir(), self.name(), self.world.clock.now_s());
        let want = self.model.unlink(dir, name, &self.held, now);
        assert_eq!(outcome(self.world.front().unlink(node(dir), name, &ROOT)), want);
    }

    fn rmdir(&mut self) {
        let (dir, name, now) = (self.dir(), self.name(), self.world.clock.now_s());
        let want = self.model.rmdir(dir, name, now);
        assert_eq!(outcome(self.world.front().rmdir(node(dir), name, &ROOT)), want);
    }

    fn rename(&mut self) {
        let (from, to, now) = (self.dir(), self.dir(), self.world.clock.now_s());
        let to = if self.rng.bool() { from } else { to };
        let (old, new) = (self.name(), self.name());
        let mode = match self.rng.u32(..5) {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let whiteout = mode != RenameMode::Exchange && self.rng.u32(..8) == 0;
        let before = self.model.clone();
        let want = self.model.rename((from, old), (to, new), mode, &self.held, now);
        let have = self.world.front().rename((node(from), old), (node(to), new), mode, whiteout, &ROOT);
        let what = format!(
            "{mode:?} of {} in {} to {} in {}",
            old.escape_ascii(),
            node(from),
            new.escape_ascii(),
            node(to)
        );
        assert_eq!(outcome(have), want, "{what}");
        if want.is_err() {
            self.model = before;
        } else if whiteout && !self.model.at(from).entries.contains_key(old) {
            let left = self.world.fs.lookup(node(from), old).unwrap();
            assert_eq!(left.rdev, (0, 0));
            let now = self.world.clock.now_s();
            self.model.create(from, old, left.node.inum.0, Node::new(FileType::CharDevice, 0, now));
        }
    }

    fn attributes(&mut self) {
        let now = self.world.clock.now_s();
        let Some(at) = self.object(|node| node.kind != FileType::Symlink) else { return };
        let perm = self.rng.u16(..0o1000);
        let uid = self.rng.bool().then(|| self.rng.u32(..5));
        let set = SetAttr { perm: Some(perm), uid, ..SetAttr::default() };
        let have = outcome(self.world.front().setattr(node(at), &set, &ROOT)).map(|_| ());
        let want: Expected = if self.model.0[&at.0].read_only { Err("EROFS") } else { Ok(()) };
        assert_eq!(have, want);
        if want.is_ok() {
            let changed = self.model.at_mut(at);
            (changed.perm, changed.ctime) = (perm, now);
            changed.uid = uid.unwrap_or(changed.uid);
        }
    }

    fn xattrs(&mut self) {
        let now = self.world.clock.now_s();
        let Some(at) = self.object(|n| matches!(n.kind, FileType::Regular | FileType::Directory)) else {
            return;
        };
        let name = [&b"user."[..], self.name()].concat();
        let fs = &self.world.fs;
        let read_only = self.model.0[&at.0].read_only;
        let object = self.model.at_mut(at);
        let exists = object.xattrs.contains_key(&name);
        let (have, want) = if self.rng.u32(..3) == 0 {
            let want = if exists { Ok(()) } else { Err("ENODATA") };
            (outcome(front(fs).removexattr(node(at), &name, &ROOT)), want.map(|()| None))
        } else {
            let value: Vec<u8> = (0..self.rng.usize(..300)).map(|i| i as u8).collect();
            let how = if self.rng.bool() { SetXattr::Create } else { SetXattr::Any };
            let want = if exists && how == SetXattr::Create { Err("EEXIST") } else { Ok(()) };
            (outcome(front(fs).setxattr(node(at), &name, &value, how, &ROOT)), want.map(|()| Some(value)))
        };
        let want = if read_only { Err("EROFS") } else { want };
        assert_eq!(have, want.clone().map(|_| ()));
        if let Ok(value) = want {
            object.ctime = now;
            match value {
                Some(value) => object.xattrs.insert(name, value),
                None => object.xattrs.remove(&name),
            };
        }
    }

    /// Uses a file, or stops using one.
    fn hold_or_release(&mut self) {
        if self.held.len() > 3 {
            let released = self.held.swap_remove(self.rng.usize(..self.held.len()));
            self.world.release(released);
            if let Some(tree) = self.model.0.get_mut(&released.subvol.0)
                && tree.nodes.get(&released.inum.0).is_some_and(|node| node.links == 0)
            {
                tree.nodes.remove(&released.inum.0);
            }
        } else if let Some(at) = self.object(|node| !node.is_dir())
            && !self.held.contains(&node(at))
        {
            self.world.fs.hold(node(at));
            self.held.push(node(at));
        }
    }

    fn subvolume(&mut self) {
        let (dir, name, now) = (self.dir(), self.name(), self.world.clock.now_s());
        match self.rng.u32(..5) {
            0 => {
                let want = self.model.can_create(dir, name);
                let have = outcome(self.world.front().create_subvolume(node(dir), name, 0o755, &ROOT));
                assert_eq!(have.as_ref().map(|_| ()).map_err(|e| *e), want);
                if let Ok(root) = have {
                    let (id, inum) = (root.node.subvol.0, root.node.inum.0);
                    let new = Node::new(FileType::Directory, 0o755, now);
                    let nodes = [(inum, new)].into_iter().collect();
                    let tree = crate::model::Tree { root: inum, read_only: false, nodes };
                    self.model.0.insert(id, tree);
                    self.enter(dir, name, id, now);
                }
            }
            1 | 2 => {
                let ids: Vec<u32> = self.model.0.keys().copied().collect();
                let source = ids[self.rng.usize(..ids.len())];
                let read_only = self.rng.u32(..3) == 0;
                let want = self.model.can_create(dir, name);
                let fs = &self.world.fs;
                let made = front(fs).create_snapshot(SubvolId(source), node(dir), name, read_only, &ROOT);
                let have = outcome(made);
                assert_eq!(have.as_ref().map(|_| ()).map_err(|e| *e), want);
                if let Ok(root) = have {
                    let mut tree = self.model.0[&source].clone();
                    tree.read_only = read_only;
                    // Subvolumes in it, and files without a name, are not seen in it.
                    for object in tree.nodes.values_mut() {
                        object.entries.retain(|_, target| matches!(target, Target::Inode(_)));
                    }
                    tree.nodes.retain(|_, object| object.links > 0);
                    self.model.0.insert(root.node.subvol.0, tree);
                    self.enter(dir, name, root.node.subvol.0, now);
                }
            }
            _ => self.delete_subvolume(dir, name, now),
        }
    }

    fn enter(&mut self, dir: Dir, name: &[u8], id: u32, now: u64) {
        let parent = self.model.at_mut(dir);
        parent.entries.insert(name.to_vec(), Target::Subvol(id));
        (parent.mtime, parent.ctime) = (now, now);
    }

    fn delete_subvolume(&mut self, dir: Dir, name: &[u8], now: u64) {
        let have = outcome(self.world.front().delete_subvolume(node(dir), name, &ROOT));
        let entry = self.model.at(dir).entries.get(name).cloned();
        let want = match entry {
            _ if self.model.0[&dir.0].read_only => Err("EROFS"),
            None => Err("ENOENT"),
            Some(Target::Inode(_)) => Err("EINVAL"),
            Some(Target::Subvol(id)) => {
                let nodes = self.model.0[&id].nodes.values();
                let mut inside = nodes.flat_map(|node| node.entries.values());
                if inside.any(|target| matches!(target, Target::Subvol(_))) {
                    Err("ENOTEMPTY")
                } else {
                    Ok(id)
                }
            }
        };
        assert_eq!(have, want.map(|_| ()));
        if let Ok(id) = want {
            self.model.0.remove(&id);
            self.held.retain(|node| node.subvol.0 != id);
            let parent = self.model.at_mut(dir);
            parent.entries.remove(name);
            (parent.mtime, parent.ctime) = (now, now);
            if self.rng.bool() {
                self.world.delete_unlinked();
            }
        }
    }

    /// The machine stops, and goes on: nothing is held any more, and files without a name are gone.
    pub(crate) fn crash(mut self) -> Run {
        self.world = self.world.crash();
        self.world.front().remove_dead_inodes().unwrap();
        self.held.clear();
        for tree in self.model.0.values_mut() {
            tree.nodes.retain(|_, node| node.links > 0);
        }
        self
    }
}

fn run(settings: &[(&str, &str)], seed: u64, subvolumes: bool, rounds: u32) {
    let mut run = Run::new(settings, seed, subvolumes);
    for round in 0..rounds {
        for _ in 0..120 {
            run.step();
        }
        run.model.assert_same(&run.world.fs);
        run.world.assert_right();
        if round % 3 == 2 {
            run = run.crash();
            run.model.assert_same(&run.world.fs);
        }
    }
    let mut run = run.crash();
    run.world.delete_unlinked();
    let model = std::mem::replace(&mut run.model, Model(Default::default()));
    model.assert_same(&run.world.stop());
}

#[test]
fn names_and_attributes_do_what_posix_says() {
    for_each_seed(1, |seed| run(&[], seed, false, 8));
}

#[test]
fn also_where_names_have_the_same_hash() {
    for_each_seed(1, |seed| run(&[("str_hash", "crc32c")], seed, false, 8));
}

#[test]
fn also_in_subvolumes_and_snapshots() {
    for_each_seed(4, |seed| {
        let hash = if seed % 2 == 0 { "crc32c" } else { "siphash" };
        run(&[("str_hash", hash)], seed, true, 6);
    });
}
