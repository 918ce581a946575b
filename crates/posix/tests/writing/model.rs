//! What a POSIX tree with subvolumes should do, in maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_posix::write::{RenameMode, WriteFs};
use frazil_posix::{Attr, DirEntry, Error, FileType, Fs, NodeId};

/// What an operation should come to.
pub(crate) type Expected = Result<(), &'static str>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Inode(u64),
    Subvol(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: FileType,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Names; 0 if unlinked.
    pub(crate) links: u32,
    pub(crate) mtime: u64,
    pub(crate) ctime: u64,
    pub(crate) target: Vec<u8>,
    pub(crate) entries: BTreeMap<Vec<u8>, Target>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    pub(crate) fn new(kind: FileType, perm: u16, now: u64) -> Node {
        Node {
            kind,
            perm,
            uid: 0,
            gid: 0,
            links: 1,
            mtime: now,
            ctime: now,
            target: Vec::new(),
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: u64,
    pub(crate) read_only: bool,
    pub(crate) nodes: BTreeMap<u64, Node>,
}

/// All subvolumes.
#[derive(Clone, Debug)]
pub(crate) struct Model(pub(crate) BTreeMap<u32, Tree>);

/// A directory: subvolume and inode.
pub(crate) type Dir = (u32, u64);

pub(crate) fn node(dir: Dir) -> NodeId {
    NodeId { subvol: SubvolId(dir.0), inum: Inum(dir.1) }
}

impl Model {
    /// What a new volume holds, taken from itself.
    pub(crate) fn of(fs: &WriteFs) -> Model {
        let mut nodes = BTreeMap::new();
        let add = |nodes: &mut BTreeMap<u64, Node>, attr: &Attr| {
            let mut node = Node::new(attr.kind, attr.perm, attr.mtime.secs as u64);
            node.ctime = attr.ctime.secs as u64;
            nodes.insert(attr.node.inum.0, node);
        };
        add(&mut nodes, &fs.getattr(NodeId::ROOT).unwrap());
        let lost_found = fs.lookup(NodeId::ROOT, b"lost+found").unwrap();
        add(&mut nodes, &lost_found);
        let entry = (b"lost+found".to_vec(), Target::Inode(lost_found.node.inum.0));
        nodes.get_mut(&4096).unwrap().entries.extend([entry]);
        Model(BTreeMap::from([(1, Tree { root: 4096, read_only: false, nodes })]))
    }

    pub(crate) fn at(&self, dir: Dir) -> &Node {
        &self.0[&dir.0].nodes[&dir.1]
    }

    pub(crate) fn at_mut(&mut self, dir: Dir) -> &mut Node {
        self.0.get_mut(&dir.0).unwrap().nodes.get_mut(&dir.1).unwrap()
    }

    fn writable(&self, dir: Dir) -> Expected {
        if self.0[&dir.0].read_only { Err("EROFS") } else { Ok(()) }
    }

    /// What a name leads to.
    fn find(&self, dir: Dir, name: &[u8]) -> Result<(Target, Dir), &'static str> {
        let target = self.at(dir).entries.get(name).cloned().ok_or("ENOENT")?;
        let at = match target {
            Target::Inode(inum) => (dir.0, inum),
            Target::Subvol(id) => (id, self.0[&id].root),
        };
        Ok((target, at))
    }

    fn touch(&mut self, dir: Dir, now: u64) {
        let node = self.at_mut(dir);
        (node.mtime, node.ctime) = (now, now);
    }

    /// Whether an object can be made.
    pub(crate) fn can_create(&self, dir: Dir, name: &[u8]) -> Expected {
        self.writable(dir)?;
        if self.at(dir).entries.contains_key(name) { Err("EEXIST") } else { Ok(()) }
    }

    pub(crate) fn create(&mut self, dir: Dir, name: &[u8], inum: u64, made: Node) {
        let now = made.ctime;
        assert!(self.0.values().all(|tree| !tree.nodes.contains_key(&inum)), "a new number");
        self.0.get_mut(&dir.0).unwrap().nodes.insert(inum, made);
        self.at_mut(dir).entries.insert(name.to_vec(), Target::Inode(inum));
        self.touch(dir, now);
    }

    pub(crate) fn link(&mut self, from: Dir, dir: Dir, name: &[u8], now: u64) -> Expected {
        self.can_create(dir, name)?;
        if from.0 != dir.0 {
            return Err("EXDEV");
        }
        if self.at(from).is_dir() {
            return Err("EPERM");
        }
        let node = self.at_mut(from);
        (node.links, node.ctime) = (node.links + 1, now);
        self.at_mut(dir).entries.insert(name.to_vec(), Target::Inode(from.1));
        self.touch(dir, now);
        Ok(())
    }

    /// A file has a name less.
    fn drop_name(&mut self, at: Dir, held: &[NodeId], now: u64) {
        let object = self.at_mut(at);
        (object.links, object.ctime) = (object.links - 1, now);
        if object.links == 0 && !held.contains(&node(at)) {
            self.0.get_mut(&at.0).unwrap().nodes.remove(&at.1);
        }
    }

    pub(crate) fn unlink(&mut self, dir: Dir, name: &[u8], held: &[NodeId], now: u64) -> Expected {
        self.writable(dir)?;
        let (target, at) = self.find(dir, name)?;
        if matches!(target, Target::Subvol(_)) || self.at(at).is_dir() {
            return Err("EISDIR");
        }
        self.at_mut(dir).entries.remove(name);
        self.drop_name(at, held, now);
        self.touch(dir, now);
        Ok(())
    }

    /// Whether subvolumes are named in a subvolume.
    fn has_children(&self, id: u32) -> bool {
        let entries = self.0[&id].nodes.values().flat_map(|node| node.entries.values());
        entries.into_iter().any(|target| matches!(target, Target::Subvol(_)))
    }

    pub(crate) fn rmdir(&mut self, dir: Dir, name: &[u8], now: u64) -> Expected {
        self.writable(dir)?;
        let (target, at) = self.find(dir, name)?;
        if !self.at(at).is_dir() {
            return Err("ENOTDIR");
        }
        if !self.at(at).entries.is_empty() {
            return Err("ENOTEMPTY");
        }
        match target {
            Target::Subvol(id) if self.has_children(id) => return Err("ENOTEMPTY"),
            Target::Subvol(id) => drop(self.0.remove(&id)),
            Target::Inode(inum) => drop(self.0.get_mut(&dir.0).unwrap().nodes.remove(&inum)),
        }
        self.at_mut(dir).entries.remove(name);
        self.touch(dir, now);
        Ok(())
    }

    /// Whether `dir` is `top` or below it.
    fn is_below(&self, dir: Dir, top: Dir) -> bool {
        let mut at = dir;
        loop {
            if at == top {
                return true;
            }
            let names = |node: &Node, target: &Target| node.entries.values().any(|t| t == target);
            let up = if self.0[&at.0].root == at.1 {
                self.holder(|node| names(node, &Target::Subvol(at.0)))
            } else {
                let tree = &self.0[&at.0];
                let dir = tree.nodes.iter().find(|(_, node)| names(node, &Target::Inode(at.1)));
                dir.map(|(inum, _)| (at.0, *inum))
            };
            match up {
                Some(up) => at = up,
                None => return false,
            }
        }
    }

    fn holder(&self, is: impl Fn(&Node) -> bool) -> Option<Dir> {
        let all = self.0.iter().flat_map(|(id, tree)| tree.nodes.iter().map(move |(i, n)| ((*id, *i), n)));
        all.into_iter().find(|(_, node)| is(node)).map(|(at, _)| at)
    }

    pub(crate) fn rename(
        &mut self,
        (from, old): (Dir, &[u8]),
        (to, new): (Dir, &[u8]),
        mode: RenameMode,
        held: &[NodeId],
        now: u64,
    ) -> Expected {
        self.writable(from)?;
        self.writable(to)?;
        let (moved, moved_at) = self.find(from, old)?;
        let there = self.find(to, new).ok();
        match (&there, mode) {
            (Some(_), RenameMode::NoReplace) => return Err("EEXIST"),
            (None, RenameMode::Exchange) => return Err("ENOENT"),
            (Some((_, at)), _) if *at == moved_at => return Ok(()),
            _ => {}
        }
        let is_inode = |target: &Target| matches!(target, Target::Inode(_));
        if from.0 != to.0 && is_inode(&moved) {
            return Err("EXDEV");
        }
        if let Some((target, at)) = &there {
            match (self.at(moved_at).is_dir(), self.at(*at).is_dir()) {
                _ if mode == RenameMode::Exchange && from.0 != to.0 && is_inode(target) => {
                    return Err("EXDEV");
                }
                _ if mode == RenameMode::Exchange => {}
                (true, false) => return Err("ENOTDIR"),
                (false, true) => return Err("EISDIR"),
                _ if !is_inode(target) => return Err("EBUSY"),
                _ => {}
            }
        }
        if from != to && self.at(moved_at).is_dir() && self.is_below(to, moved_at) {
            return Err("EINVAL");
        }
        if mode == RenameMode::Exchange {
            let (target, at) = there.unwrap();
            if from != to && self.at(at).is_dir() && self.is_below(from, at) {
                return Err("EINVAL");
            }
            self.at_mut(to).entries.insert(new.to_vec(), moved);
            self.at_mut(from).entries.insert(old.to_vec(), target);
            self.at_mut(at).ctime = now;
        } else {
            if let Some((_, at)) = there {
                if self.at(at).is_dir() {
                    if !self.at(at).entries.is_empty() {
                        return Err("ENOTEMPTY");
                    }
                    self.0.get_mut(&at.0).unwrap().nodes.remove(&at.1);
                } else {
                    self.drop_name(at, held, now);
                }
            }
            self.at_mut(from).entries.remove(old);
            self.at_mut(to).entries.insert(new.to_vec(), moved);
        }
        self.at_mut(moved_at).ctime = now;
        self.touch(from, now);
        self.touch(to, now);
        Ok(())
    }

    /// Every subvolume id and directory.
    pub(crate) fn dirs(&self) -> Vec<Dir> {
        self.objects(Node::is_dir)
    }

    pub(crate) fn objects(&self, is: impl Fn(&Node) -> bool) -> Vec<Dir> {
        let all = self.0.iter().flat_map(|(id, tree)| tree.nodes.iter().map(move |(i, n)| ((*id, *i), n)));
        all.filter(|(_, node)| node.links > 0 && is(node)).map(|(at, _)| at).collect()
    }
}

/// Where a tree is looked at.
pub(crate) trait Look {
    fn attr(&self, node: NodeId) -> Result<Attr, Error>;
    fn find(&self, dir: NodeId, name: &[u8]) -> Result<Attr, Error>;
    fn list(&self, dir: NodeId) -> BTreeMap<Vec<u8>, (NodeId, FileType)>;
    fn xattrs(&self, node: NodeId) -> BTreeMap<Vec<u8>, Vec<u8>>;
    fn target(&self, node: NodeId) -> Vec<u8>;
}

fn take(into: &mut BTreeMap<Vec<u8>, (NodeId, FileType)>, entry: &DirEntry<'_>) -> ControlFlow<()> {
    let old = into.insert(entry.name.to_vec(), (entry.node, entry.kind));
    assert!(old.is_none(), "a name is listed once");
    ControlFlow::Continue(())
}

macro_rules! look {
    ($ty:ty) => {
        impl Look for $ty {
            fn attr(&self, node: NodeId) -> Result<Attr, Error> {
                self.getattr(node)
            }

            fn find(&self, dir: NodeId, name: &[u8]) -> Result<Attr, Error> {
                self.lookup(dir, name)
            }

            fn list(&self, dir: NodeId) -> BTreeMap<Vec<u8>, (NodeId, FileType)> {
                let mut found = BTreeMap::new();
                self.readdir(dir, 0, &mut |entry| take(&mut found, &entry)).unwrap();
                found
            }

            fn target(&self, node: NodeId) -> Vec<u8> {
                self.readlink(node).unwrap()
            }

            fn xattrs(&self, node: NodeId) -> BTreeMap<Vec<u8>, Vec<u8>> {
                let names = self.listxattr(node).unwrap();
                names.into_iter().map(|name| (name.clone(), self.getxattr(node, &name).unwrap())).collect()
            }
        }
    };
}
look!(WriteFs);
look!(Fs);

impl Model {
    /// The volume shows exactly this.
    #[track_caller]
    pub(crate) fn assert_same(&self, fs: &dyn Look) {
        let mut seen = BTreeSet::new();
        self.assert_dir(fs, (1, 4096), &mut seen);
        let named = self.0.values().map(|tree| tree.nodes.values().filter(|n| n.links > 0).count());
        assert_eq!(seen.len(), named.sum::<usize>(), "everything is reached");
    }

    #[track_caller]
    fn assert_dir(&self, fs: &dyn Look, at: Dir, seen: &mut BTreeSet<Dir>) {
        self.assert_node(fs, at);
        seen.insert(at);
        let entries = &self.at(at).entries;
        let listed = fs.list(node(at));
        assert_eq!(
            listed.keys().collect::<Vec<_>>(),
            entries.keys().collect::<Vec<_>>(),
            "names in {}",
            node(at)
        );
        for (name, (shown, kind)) in listed {
            let (_, target) = self.find(at, &name).unwrap();
            assert_eq!((shown, kind), (node(target), self.at(target).kind), "{}", name.escape_ascii());
            assert_eq!(fs.find(node(at), &name).unwrap().node, shown);
            if self.at(target).is_dir() {
                self.assert_dir(fs, target, seen);
            } else {
                self.assert_node(fs, target);
                seen.insert(target);
            }
        }
    }

    #[track_caller]
    fn assert_node(&self, fs: &dyn Look, at: Dir) {
        let (want, have) = (self.at(at), fs.attr(node(at)).unwrap());
        let subdirs = want.entries.values().filter(|t| match t {
            Target::Inode(inum) => self.at((at.0, *inum)).is_dir(),
            Target::Subvol(_) => false,
        });
        let nlink = if want.is_dir() { 2 + subdirs.count() as u32 } else { want.links };
        assert_eq!(
            (have.kind, have.perm, have.uid, have.gid, have.nlink, have.size),
            (want.kind, want.perm, want.uid, want.gid, nlink, want.target.len() as u64),
            "{}",
            node(at)
        );
        assert_eq!(
            (have.mtime.secs as u64, have.ctime.secs as u64),
            (want.mtime, want.ctime),
            "times of {}",
            node(at)
        );
        if want.kind == FileType::Symlink {
            assert_eq!(fs.target(node(at)), want.target, "target of {}", node(at));
        }
        assert_eq!(fs.xattrs(node(at)), want.xattrs, "attributes of {}", node(at));
    }
}
