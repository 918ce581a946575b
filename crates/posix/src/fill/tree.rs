//! The tree in the making: every object, and every name.
//!
//! A source delivers objects in an order of its own, the number of links of a file is known when the last of them was seen, and a
//! directory's count of subdirectories when all of it was. So inodes and names are made at the end, from what is kept
//! here: about a hundred bytes for a file and its name, whatever its size.
//!
//! Objects are numbered as they come, and inodes likewise from 4096 on: the root is the first, `lost+found` the second. So
//! the extents of files, which are stored as they come, are in order.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use frazil_ondisk::str_hash::StrHash;
use frazil_ondisk::units::{Inum, Sectors, SubvolId};
use frazil_ondisk::values::inode::{Inode, InodeFlags, Mode, Rdev};
use siphasher::sip::SipHasher24;

use crate::attr::FileType;
use crate::make::{self, Maker, NewInode, Unfit};

/// An object of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Object(pub(super) u32);

impl Object {
    /// The root directory.
    pub(super) const ROOT: Object = Object(0);
    /// `/lost+found`.
    pub(super) const LOST_FOUND: Object = Object(1);

    /// Its inode number.
    pub(super) fn inum(self) -> Inum {
        Inum(Inum::ROOT.0 + u64::from(self.0))
    }
}

/// The name of [`Object::LOST_FOUND`].
pub(super) const LOST_FOUND: &[u8] = b"lost+found";

/// What is kept of an object: an inode without what is the same for all or can be worked out.
#[derive(Clone, Copy)]
struct Record {
    atime: i64,
    ctime: i64,
    mtime: i64,
    otime: i64,
    size: u64,
    /// Slot of its name in `dir`.
    dir_slot: u64,
    uid: u32,
    gid: u32,
    rdev: u32,
    /// Names; of a directory, subdirectories.
    links: u32,
    /// The directory of one of its names.
    dir: u32,
    mode: u16,
    flags: u8,
}

/// A name.
#[derive(Clone, Copy)]
struct Name {
    dir: u32,
    object: u32,
    /// Where its bytes are.
    start: u64,
    len: u16,
}

/// The hash functions of all objects.
#[derive(Clone, Copy)]
pub(super) struct Hashes {
    maker: Maker,
    /// Makes seeds of numbers.
    seeds: SipHasher24,
}

impl Hashes {
    /// Hash functions whose seeds follow from these numbers.
    pub(super) fn new(maker: Maker, (a, b): (u64, u64)) -> Hashes {
        Hashes { maker, seeds: SipHasher24::new_with_keys(a, b) }
    }

    /// The hash seed of an object.
    fn seed(&self, object: Object) -> u64 {
        self.seeds.hash(&object.0.to_le_bytes())
    }

    /// The hash function of an object.
    pub(super) fn of(&self, object: Object) -> StrHash {
        self.maker.hash(self.seed(object))
    }
}

/// Objects and names.
pub(super) struct Tree {
    hashes: Hashes,
    records: Vec<Record>,
    names: Vec<Name>,
    bytes: Vec<u8>,
    /// Names by what they are, where the source needs to find them.
    index: Option<Index>,
}

/// Finds names: hashes of directory and name, and which name it is. Where two hashes are equal the later name is at the next number.
struct Index {
    hasher: RandomState,
    found: HashMap<u64, u32>,
}

impl Tree {
    /// A tree with a root and `lost+found`, which the source may both change.
    pub(super) fn new(hashes: Hashes, root: &NewInode, lost_found: &NewInode) -> Result<Tree, Unfit> {
        let (records, names, bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut tree = Tree { hashes, records, names, bytes, index: None };
        tree.add(root)?;
        tree.add(lost_found)?;
        tree.link(Object::ROOT, LOST_FOUND, Object::LOST_FOUND);
        Ok(tree)
    }

    /// Objects so far.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// From now on names can be looked up.
    pub(super) fn keep_index(&mut self) {
        let hasher = RandomState::new();
        let mut index = Index { hasher, found: HashMap::new() };
        for (at, name) in self.names.iter().enumerate() {
            index.insert(name.dir, &self.bytes[name.range()], at);
        }
        self.index = Some(index);
    }

    /// Adds an object without a name.
    pub(super) fn add(&mut self, new: &NewInode) -> Result<Object, Unfit> {
        let record = Record::new(&self.hashes.maker, new)?;
        let object =
            Object(u32::try_from(self.records.len()).expect("memory ends before four thousand million"));
        self.records.push(record);
        Ok(object)
    }

    /// Changes what an object is.
    pub(super) fn replace(&mut self, object: Object, new: &NewInode) -> Result<(), Unfit> {
        let record = Record::new(&self.hashes.maker, new)?;
        let old = &mut self.records[object.0 as usize];
        *old = Record { size: old.size, links: old.links, dir: old.dir, ..record };
        Ok(())
    }

    /// Gives an object a name.
    ///
    /// # Panics
    /// If the name does not pass [`make::check_name`].
    pub(super) fn link(&mut self, dir: Object, name: &[u8], object: Object) {
        assert_eq!(make::check_name(name), Ok(()));
        let entry =
            Name { dir: dir.0, object: object.0, start: self.bytes.len() as u64, len: name.len() as u16 };
        self.bytes.extend_from_slice(name);
        if let Some(index) = &mut self.index {
            index.insert(dir.0, name, self.names.len());
        }
        self.names.push(entry);
        let record = &mut self.records[object.0 as usize];
        record.dir = dir.0;
        if record.is_dir() {
            self.records[dir.0 as usize].links += 1;
        } else {
            record.links += 1;
        }
    }

    /// What a name leads to. Only after [`Tree::keep_index`].
    pub(super) fn lookup(&self, dir: Object, name: &[u8]) -> Option<Object> {
        let index = self.index.as_ref()?;
        let mut hash = index.hash(dir.0, name);
        loop {
            let found = &self.names[*index.found.get(&hash)? as usize];
            if found.dir == dir.0 && &self.bytes[found.range()] == name {
                return Some(Object(found.object));
            }
            hash = hash.wrapping_add(1);
        }
    }

    /// Sets the size of a file.
    pub(super) fn set_size(&mut self, object: Object, bytes: u64) {
        self.records[object.0 as usize].size = bytes;
    }

    /// Whether an object is a directory.
    pub(super) fn is_dir(&self, object: Object) -> bool {
        self.records[object.0 as usize].is_dir()
    }

    /// A path of an object, relative to the root; for messages.
    pub(super) fn path(&self, object: Object) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = object;
        while at != Object::ROOT && parts.len() < self.records.len() {
            let Some(name) = self.names.iter().find(|name| name.object == at.0) else { break };
            parts.push(&self.bytes[name.range()]);
            at = Object(name.dir);
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Shows every name in the order of its key: directory, slot, name, object and its type. Afterwards every object knows one of
    /// its names.
    ///
    /// # Errors
    /// The first of `show`, and [`Twice`] for a name that is there twice.
    pub(super) fn finish_names<E: From<Twice>>(
        &mut self,
        mut show: impl FnMut(Inum, u64, &[u8], Inum, FileType) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut names = std::mem::take(&mut self.names);
        // Stable, and most sources deliver one directory after the other.
        names.sort_by_key(|name| name.dir);
        let mut slots: Vec<(u64, Name)> = Vec::new();
        for of_dir in names.chunk_by(|a, b| a.dir == b.dir) {
            let dir = Object(of_dir[0].dir);
            let hash = self.hashes.of(dir);
            slots.clear();
            slots.extend(of_dir.iter().map(|name| (hash.dirent(&self.bytes[name.range()]), *name)));
            // The hash alone decides, so the order of names does not matter unless two collide; then their bytes decide.
            slots.sort_unstable_by(|a, b| {
                a.0.cmp(&b.0).then_with(|| self.bytes[a.1.range()].cmp(&self.bytes[b.1.range()]))
            });
            let twice = slots.windows(2).find(|pair| {
                pair[0].0 == pair[1].0 && self.bytes[pair[0].1.range()] == self.bytes[pair[1].1.range()]
            });
            if let Some(pair) = twice {
                return Err(Twice { dir, name: self.bytes[pair[0].1.range()].to_vec() }.into());
            }
            make::assign_slots(&mut slots);
            for (slot, name) in &slots {
                let record = &mut self.records[name.object as usize];
                // Every name may be the one that is remembered; it is the last.
                (record.dir, record.dir_slot) = (name.dir, *slot);
                let kind = FileType::from_dtype((record.mode >> 12) as u8).expect("made of a file type");
                show(dir.inum(), *slot, &self.bytes[name.range()], Object(name.object).inum(), kind)?;
            }
        }
        Ok(())
    }

    /// The inode of an object, after [`Tree::finish_names`]. `sectors` is the length of its extents.
    pub(super) fn inode(&self, object: Object, sectors: Sectors) -> Inode {
        let record = &self.records[object.0 as usize];
        let is_root = object == Object::ROOT;
        let mut inode = Inode {
            hash_seed: self.hashes.seed(object),
            str_hash: self.hashes.maker.str_hash_type().raw(),
            flags: InodeFlags(record.flags.into()),
            sectors,
            size: record.size,
            mode: Mode(record.mode),
            atime: record.atime,
            ctime: record.ctime,
            mtime: record.mtime,
            otime: record.otime,
            uid: record.uid,
            gid: record.gid,
            rdev: Rdev(record.rdev),
            dir: if is_root { Inum(0) } else { Object(record.dir).inum() },
            dir_offset: if is_root { 0 } else { record.dir_slot },
            subvol: if is_root { SubvolId::ROOT } else { SubvolId(0) },
            ..Inode::default()
        };
        inode.set_nlink(if record.is_dir() { record.links + 2 } else { record.links });
        inode
    }
}

/// A name that a directory has twice.
#[derive(Debug)]
pub(super) struct Twice {
    pub(super) dir: Object,
    pub(super) name: Vec<u8>,
}

impl Record {
    fn new(maker: &Maker, new: &NewInode) -> Result<Record, Unfit> {
        let inode = maker.inode(new, 0, Default::default())?;
        Ok(Record {
            atime: inode.atime,
            ctime: inode.ctime,
            mtime: inode.mtime,
            otime: inode.otime,
            size: 0,
            dir_slot: 0,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev.0,
            links: 0,
            dir: 0,
            mode: inode.mode.0,
            flags: inode.flags.0 as u8,
        })
    }

    fn is_dir(&self) -> bool {
        self.mode >> 12 == u16::from(FileType::Directory.to_dtype())
    }
}

impl Name {
    fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.len)
    }
}

impl Index {
    fn hash(&self, dir: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }

    fn insert(&mut self, dir: u32, name: &[u8], at: usize) {
        let mut hash = self.hash(dir, name);
        while self.found.contains_key(&hash) {
            hash = hash.wrapping_add(1);
        }
        self.found.insert(hash, at as u32);
    }
}
