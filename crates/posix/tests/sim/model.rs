//! What the files should be like: a POSIX tree in memory, with subvolumes and snapshots, as plain as can be.
//!
//! It shares nothing with what it judges but the types of the interface. Every operation has two halves: one says whether it must succeed or how it
//! must fail, the other does it. States are kept by the hundred, so nodes are shared between them until they change.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_posix::{Attr, Error, FileType, NodeId, Timestamp};

/// How an operation must fail.
pub(crate) type Failure = &'static str;

/// Longest name.
const NAME_BYTES_MAX: usize = 512;
const SETUID: u16 = 0o4000;
pub(crate) const SETGID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// The kind of an error.
pub(crate) fn failure(error: &Error) -> Failure {
    match error {
        Error::NotFound => "NotFound",
        Error::Stale(_) => "Stale",
        Error::NotDirectory => "NotDirectory",
        Error::IsDirectory => "IsDirectory",
        Error::Invalid(_) => "Invalid",
        Error::NoAttribute => "NoAttribute",
        Error::NameTooLong => "NameTooLong",
        Error::ReadOnly => "ReadOnly",
        Error::Exists => "Exists",
        Error::NotEmpty => "NotEmpty",
        Error::NotPermitted(_) => "NotPermitted",
        Error::CrossesBorder => "CrossesBorder",
        Error::TooManyLinks => "TooManyLinks",
        Error::NoSpace => "NoSpace",
        Error::TooLarge(_) => "TooLarge",
        Error::Unsupported(_) => "Unsupported",
        Error::Busy(_) => "Busy",
        Error::Io(_) => "Io",
        _ => "other",
    }
}

/// The content of a file, with its hash, so that states are compared quickly.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Arc<Vec<u8>>,
    hash: u64,
}

impl Content {
    pub(crate) fn new(bytes: Vec<u8>) -> Content {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Content { bytes: Arc::new(bytes), hash: hasher.finish() }
    }
}

/// What an object holds.
#[derive(Clone)]
pub(crate) enum Body {
    Nothing,
    File(Content),
    Directory(BTreeMap<Vec<u8>, NodeId>),
    Symlink(Vec<u8>),
}

/// An object.
#[derive(Clone)]
pub(crate) struct Node {
    /// `node`, `size`, `sectors` and `generation` of it mean nothing.
    pub(crate) attr: Attr,
    pub(crate) body: Body,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    /// Everything about it but where it is, as text.
    pub(crate) fn text(&self, id: NodeId) -> String {
        let a = &self.attr;
        let body = match &self.body {
            Body::Nothing | Body::Directory(_) => String::new(),
            Body::File(c) => format!("{} bytes {:x}", c.bytes.len(), c.hash),
            Body::Symlink(to) => format!("-> {}", to.escape_ascii()),
        };
        let xattrs: Vec<String> =
            self.xattrs.iter().map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii())).collect();
        let time = |t: Timestamp| t.unix_ns();
        format!(
            "{id} {:?} {:o} {}:{} nlink {} rdev {:?} a {} m {} c {} b {} flags {:x} project {} {body} {xattrs:?}",
            a.kind,
            a.perm,
            a.uid,
            a.gid,
            a.nlink,
            a.rdev,
            time(a.atime),
            time(a.mtime),
            time(a.ctime),
            time(a.btime),
            a.flags,
            a.project,
        )
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(crate) fn entries(&self) -> &BTreeMap<Vec<u8>, NodeId> {
        match &self.body {
            Body::Directory(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    pub(crate) fn content(&self) -> &Content {
        match &self.body {
            Body::File(content) => content,
            _ => panic!("not a file"),
        }
    }
}

/// A subvolume.
#[derive(Clone, Debug)]
pub(crate) struct Subvol {
    pub(crate) root: Inum,
    pub(crate) read_only: bool,
}

/// Everything that can be reached, by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, (NodeId, Arc<Node>)>;

/// A state.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) subvols: BTreeMap<SubvolId, Subvol>,
}

pub(crate) fn must_be_name(name: &[u8]) -> Result<(), Failure> {
    match name {
        _ if name.len() > NAME_BYTES_MAX => Err("NameTooLong"),
        b"" => Err("NotFound"),
        b"." | b".." => Err("Invalid"),
        _ if name.contains(&b'/') || name.contains(&0) => Err("Invalid"),
        _ => Ok(()),
    }
}

/// A tree as text, without one object if that is wanted.
pub(crate) fn lines(tree: &Tree, but: Option<NodeId>) -> Vec<String> {
    let others = tree.iter().filter(|(_, (id, _))| Some(*id) != but);
    others.map(|(path, (id, node))| format!("{} {}", path.escape_ascii(), node.text(*id))).collect()
}

/// A number for a tree as text.
pub(crate) fn digest(lines: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    hasher.finish()
}

impl Model {
    /// What was found on a volume.
    pub(crate) fn of(tree: &Tree) -> Model {
        let nodes: BTreeMap<_, _> = tree.values().map(|(id, node)| (*id, Arc::clone(node))).collect();
        let root = Subvol { root: NodeId::ROOT.inum, read_only: false };
        Model { nodes, subvols: BTreeMap::from([(NodeId::ROOT.subvol, root)]) }
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut pending = vec![(Vec::new(), NodeId::ROOT)];
        while let Some((path, id)) = pending.pop() {
            let node = &self.nodes[&id];
            if let Body::Directory(entries) = &node.body {
                pending
                    .extend(entries.iter().map(|(name, child)| ([&path[..], b"/", name].concat(), *child)));
            }
            tree.insert(path, (id, Arc::clone(node)));
        }
        tree
    }

    /// Forgets what no name leads to: what a crash leaves.
    pub(crate) fn forget_nameless(&mut self) {
        let named: std::collections::BTreeSet<NodeId> = self.tree().values().map(|(id, _)| *id).collect();
        self.nodes.retain(|id, _| named.contains(id));
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&id).expect("it exists"))
    }

    fn entries_mut(&mut self, dir: NodeId) -> &mut BTreeMap<Vec<u8>, NodeId> {
        match &mut self.get_mut(dir).body {
            Body::Directory(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    pub(crate) fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.get(dir).entries().get(name).copied()
    }

    pub(crate) fn is_read_only(&self, subvol: SubvolId) -> bool {
        self.subvols[&subvol].read_only
    }

    /// An object that is the root of a subvolume (but for the first).
    pub(crate) fn is_subvol_root(&self, id: NodeId) -> bool {
        id != NodeId::ROOT && self.subvols.get(&id.subvol).is_some_and(|s| s.root == id.inum)
    }

    pub(crate) fn writable(&self, id: NodeId) -> Result<(), Failure> {
        match self.subvols.get(&id.subvol) {
            None => Err("Stale"),
            Some(subvol) if self.nodes.contains_key(&id) && subvol.read_only => Err("ReadOnly"),
            Some(_) if self.nodes.contains_key(&id) => Ok(()),
            Some(_) => Err("Stale"),
        }
    }

    /// A directory that is to be changed.
    pub(crate) fn directory(&self, dir: NodeId) -> Result<(), Failure> {
        self.writable(dir)?;
        if self.get(dir).is_dir() { Ok(()) } else { Err("NotDirectory") }
    }

    pub(crate) fn may_create(&self, dir: NodeId, name: &[u8]) -> Result<(), Failure> {
        must_be_name(name)?;
        self.directory(dir)?;
        if self.child(dir, name).is_some() { Err("Exists") } else { Ok(()) }
    }

    fn touch_dir(&mut self, dir: NodeId, now: Timestamp) {
        let attr = &mut self.get_mut(dir).attr;
        (attr.mtime, attr.ctime) = (now, now);
    }

    /// A new object as it should be: of root, with the usual umask.
    pub(crate) fn new_node(
        &self,
        dir: NodeId,
        id: NodeId,
        kind: FileType,
        perm: u16,
        rdev: (u32, u32),
        now: Timestamp,
    ) -> Node {
        let parent = &self.get(dir).attr;
        let setgid = parent.perm & SETGID != 0;
        let mut perm = if kind == FileType::Symlink { 0o777 } else { perm & !0o022 };
        if setgid && kind == FileType::Directory {
            perm |= SETGID;
        }
        let attr = Attr {
            node: id,
            kind,
            perm,
            uid: 0,
            gid: if setgid { parent.gid } else { 0 },
            size: 0,
            sectors: 0,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            generation: 0,
            flags: 0,
            project: parent.project,
        };
        let body = match kind {
            FileType::Directory => Body::Directory(BTreeMap::new()),
            FileType::Regular => Body::File(Content::new(Vec::new())),
            _ => Body::Nothing,
        };
        Node { attr, body, xattrs: BTreeMap::new() }
    }

    /// A new object with a name.
    pub(crate) fn create(&mut self, dir: NodeId, name: &[u8], id: NodeId, node: Node, now: Timestamp) {
        if node.is_dir() && !self.is_subvol_root(id) {
            self.get_mut(dir).attr.nlink += 1;
        }
        assert!(self.nodes.insert(id, Arc::new(node)).is_none(), "the number {id} is in use");
        self.entries_mut(dir).insert(name.to_vec(), id);
        self.touch_dir(dir, now);
    }

    pub(crate) fn may_link(
        &self,
        node: NodeId,
        dir: NodeId,
        name: &[u8],
        nameless: bool,
    ) -> Result<(), Failure> {
        self.may_create(dir, name)?;
        if node.subvol != dir.subvol {
            return Err("CrossesBorder");
        }
        self.writable(node)?;
        match self.get(node) {
            n if n.is_dir() => Err("NotPermitted"),
            n if n.attr.nlink == 0 && !nameless => Err("NotFound"),
            _ => Ok(()),
        }
    }

    pub(crate) fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8], now: Timestamp) {
        self.entries_mut(dir).insert(name.to_vec(), node);
        let attr = &mut self.get_mut(node).attr;
        attr.nlink += 1;
        attr.ctime = now;
        self.touch_dir(dir, now);
    }

    fn existing(&self, dir: NodeId, name: &[u8]) -> Result<NodeId, Failure> {
        must_be_name(name)?;
        self.directory(dir)?;
        self.child(dir, name).ok_or("NotFound")
    }

    pub(crate) fn may_unlink(&self, dir: NodeId, name: &[u8]) -> Result<NodeId, Failure> {
        let id = self.existing(dir, name)?;
        if self.get(id).is_dir() { Err("IsDirectory") } else { Ok(id) }
    }

    fn lose_name(&mut self, id: NodeId, now: Timestamp) {
        let attr = &mut self.get_mut(id).attr;
        attr.nlink -= 1;
        attr.ctime = now;
    }

    /// The object stays, without a name perhaps.
    pub(crate) fn unlink(&mut self, dir: NodeId, name: &[u8], now: Timestamp) {
        let id = self.entries_mut(dir).remove(name).expect("it exists");
        self.lose_name(id, now);
        self.touch_dir(dir, now);
    }

    fn has_subvolumes(&self, subvol: SubvolId) -> bool {
        let of = |(id, node): (&NodeId, &Arc<Node>)| {
            id.subvol == subvol
                && node.attr.nlink > 0
                && matches!(&node.body, Body::Directory(e) if e.values().any(|c| c.subvol != subvol))
        };
        self.nodes.iter().any(of)
    }

    pub(crate) fn may_rmdir(&self, dir: NodeId, name: &[u8]) -> Result<NodeId, Failure> {
        let id = self.existing(dir, name)?;
        let node = self.get(id);
        match () {
            () if !node.is_dir() => Err("NotDirectory"),
            () if !node.entries().is_empty() => Err("NotEmpty"),
            () => Ok(id),
        }
    }

    /// The directory, or the subvolume, is gone.
    pub(crate) fn rmdir(&mut self, dir: NodeId, name: &[u8], now: Timestamp) {
        let id = self.entries_mut(dir).remove(name).expect("it exists");
        if self.is_subvol_root(id) {
            self.drop_subvol(id.subvol);
        } else {
            self.nodes.remove(&id);
            self.get_mut(dir).attr.nlink -= 1;
        }
        self.touch_dir(dir, now);
    }

    fn drop_subvol(&mut self, subvol: SubvolId) {
        self.nodes.retain(|id, _| id.subvol != subvol);
        self.subvols.remove(&subvol);
    }

    pub(crate) fn may_delete_subvol(&self, dir: NodeId, name: &[u8]) -> Result<NodeId, Failure> {
        let id = self.existing(dir, name)?;
        match () {
            () if !self.is_subvol_root(id) => Err("Invalid"),
            () if self.has_subvolumes(id.subvol) => Err("NotEmpty"),
            () => Ok(id),
        }
    }

    pub(crate) fn delete_subvol(&mut self, dir: NodeId, name: &[u8], now: Timestamp) {
        let id = self.entries_mut(dir).remove(name).expect("it exists");
        self.drop_subvol(id.subvol);
        self.touch_dir(dir, now);
    }

    /// A snapshot of a subvolume. What it was made of has no subvolumes in it any more, as they are not part of it.
    pub(crate) fn snapshot(
        &mut self,
        source: SubvolId,
        new: NodeId,
        dir: NodeId,
        name: &[u8],
        ro: bool,
        now: Timestamp,
    ) {
        let copies: Vec<_> = self
            .nodes
            .range(NodeId { subvol: source, inum: Inum(0) }..=NodeId { subvol: source, inum: Inum(u64::MAX) })
            .filter(|(_, node)| node.attr.nlink > 0)
            .map(|(id, node)| {
                let mut node = Node::clone(node);
                if let Body::Directory(entries) = &mut node.body {
                    entries.retain(|_, child| child.subvol == source);
                    entries.values_mut().for_each(|child| child.subvol = new.subvol);
                }
                (NodeId { subvol: new.subvol, ..*id }, Arc::new(node))
            })
            .collect();
        self.nodes.extend(copies);
        self.subvols.insert(new.subvol, Subvol { root: new.inum, read_only: ro });
        self.entries_mut(dir).insert(name.to_vec(), new);
        self.touch_dir(dir, now);
    }

    /// Whether `dir` is `top` or below it.
    fn is_below(&self, dir: NodeId, top: NodeId) -> bool {
        let mut at = dir;
        loop {
            if at == top {
                return true;
            }
            let holder = self.nodes.iter().find(
                |(_, node)| matches!(&node.body, Body::Directory(e) if e.values().any(|child| *child == at)),
            );
            match holder {
                Some((id, _)) if at != NodeId::ROOT => at = *id,
                _ => return false,
            }
        }
    }

    /// What a rename must come to; `Ok(false)` if nothing is to be done.
    pub(crate) fn may_rename(
        &self,
        (src, src_name): (NodeId, &[u8]),
        (dst, dst_name): (NodeId, &[u8]),
        no_replace: bool,
        exchange: bool,
    ) -> Result<bool, Failure> {
        must_be_name(src_name)?;
        must_be_name(dst_name)?;
        self.directory(src)?;
        self.directory(dst)?;
        let moved = self.child(src, src_name).ok_or("NotFound")?;
        let target = self.child(dst, dst_name);
        match target {
            Some(_) if no_replace => return Err("Exists"),
            None if exchange => return Err("NotFound"),
            Some(target) if target == moved => return Ok(false),
            _ => {}
        }
        let crosses = src.subvol != dst.subvol;
        if crosses && !self.is_subvol_root(moved) {
            return Err("CrossesBorder");
        }
        let is_dir = |id: NodeId| self.get(id).is_dir();
        if let Some(target) = target {
            if exchange && crosses && !self.is_subvol_root(target) {
                return Err("CrossesBorder");
            }
            match (is_dir(moved), is_dir(target)) {
                _ if exchange => {}
                (true, false) => return Err("NotDirectory"),
                (false, true) => return Err("IsDirectory"),
                _ if self.is_subvol_root(target) => return Err("Busy"),
                _ => {}
            }
        }
        if src != dst {
            if is_dir(moved) && self.is_below(dst, moved) {
                return Err("Invalid");
            }
            if let Some(target) = target.filter(|t| exchange && is_dir(*t))
                && self.is_below(src, target)
            {
                return Err("Invalid");
            }
        }
        match target {
            Some(target) if !exchange && is_dir(target) && !self.get(target).entries().is_empty() => {
                Err("NotEmpty")
            }
            _ => Ok(true),
        }
    }

    /// Moves a name; what had the new one is returned if it has no name any more.
    pub(crate) fn rename(
        &mut self,
        (src, src_name): (NodeId, &[u8]),
        (dst, dst_name): (NodeId, &[u8]),
        exchange: bool,
        now: Timestamp,
    ) {
        let moved = self.entries_mut(src).remove(src_name).expect("it exists");
        let target = self.entries_mut(dst).insert(dst_name.to_vec(), moved);
        let counts = |model: &Model, id: NodeId| model.get(id).is_dir() && !model.is_subvol_root(id);
        if counts(self, moved) {
            self.get_mut(src).attr.nlink -= 1;
            self.get_mut(dst).attr.nlink += 1;
        }
        if let Some(target) = target {
            if exchange {
                if counts(self, target) {
                    self.get_mut(dst).attr.nlink -= 1;
                    self.get_mut(src).attr.nlink += 1;
                }
                self.entries_mut(src).insert(src_name.to_vec(), target);
                self.get_mut(target).attr.ctime = now;
            } else if self.get(target).is_dir() {
                self.nodes.remove(&target);
                self.get_mut(dst).attr.nlink -= 1;
            } else {
                self.lose_name(target, now);
            }
        }
        self.get_mut(moved).attr.ctime = now;
        self.touch_dir(src, now);
        self.touch_dir(dst, now);
    }

    /// The content of a file changes, by root.
    pub(crate) fn set_content(&mut self, id: NodeId, bytes: Vec<u8>, now: Timestamp) {
        let node = self.get_mut(id);
        node.body = Body::File(Content::new(bytes));
        (node.attr.mtime, node.attr.ctime) = (now, now);
    }

    /// The owner of an object changes, by root.
    pub(crate) fn chown(&mut self, id: NodeId, uid: u32, gid: u32, now: Timestamp) {
        let node = self.get_mut(id);
        (node.attr.uid, node.attr.gid, node.attr.ctime) = (uid, gid, now);
        if !node.is_dir() {
            node.attr.perm &= !SETUID;
            if node.attr.perm & GROUP_EXECUTE != 0 {
                node.attr.perm &= !SETGID;
            }
        }
        if node.attr.kind == FileType::Regular {
            node.xattrs.remove(&b"security.capability"[..]);
        }
    }
}
