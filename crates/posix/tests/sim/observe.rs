//! What is on a volume, seen through the interface.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use frazil_posix::write::WriteFs;
use frazil_posix::{Attr, DirEntry, Error, FileType, Fs, NodeId, Result};

use crate::model::{Body, Content, Node, Tree};

type Show<'s> = &'s mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>;

/// Both kinds of filesystem.
pub(crate) trait Look {
    fn getattr(&self, node: NodeId) -> Result<Attr>;
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr>;
    fn readdir(&self, dir: NodeId, show: Show<'_>) -> Result<()>;
    fn read(&self, node: NodeId, offset: u64, into: &mut [u8]) -> Result<usize>;
    fn readlink(&self, node: NodeId) -> Result<Vec<u8>>;
    fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>>;
    fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>>;
}

macro_rules! look {
    ($ty:ty) => {
        impl Look for $ty {
            fn getattr(&self, node: NodeId) -> Result<Attr> {
                self.getattr(node)
            }
            fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
                self.lookup(dir, name)
            }
            fn readdir(&self, dir: NodeId, show: Show<'_>) -> Result<()> {
                self.readdir(dir, 0, show)
            }
            fn read(&self, node: NodeId, offset: u64, into: &mut [u8]) -> Result<usize> {
                self.read(node, offset, into)
            }
            fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
                self.readlink(node)
            }
            fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
                self.listxattr(node)
            }
            fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
                self.getxattr(node, name)
            }
        }
    };
}
look!(Fs);
look!(WriteFs);

/// An object, without what a directory holds.
pub(crate) fn node(fs: &dyn Look, id: NodeId) -> Result<Node> {
    let attr = fs.getattr(id)?;
    let body = match attr.kind {
        FileType::Directory => Body::Directory(BTreeMap::new()),
        FileType::Symlink => Body::Symlink(fs.readlink(id)?),
        FileType::Regular => {
            let mut bytes = vec![0; attr.size as usize];
            let mut done = 0;
            while done < bytes.len() {
                match fs.read(id, done as u64, &mut bytes[done..])? {
                    0 => return Err(Error::Io(format!("{id} ends after {done} of {} bytes", attr.size))),
                    read => done += read,
                }
            }
            Body::File(Content::new(bytes))
        }
        _ => Body::Nothing,
    };
    let mut xattrs = BTreeMap::new();
    for name in fs.listxattr(id)? {
        let value = fs.getxattr(id, &name)?;
        if !name.starts_with(b"bcachefs") {
            assert!(xattrs.insert(name, value).is_none(), "{id}: an attribute is listed twice");
        }
    }
    Ok(Node { attr, body, xattrs })
}

/// Everything, by path. What is listed must be found by its name too, and be the same.
pub(crate) fn tree(fs: &dyn Look) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut pending = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = pending.pop() {
        let mut node = node(fs, id)?;
        if let Body::Directory(entries) = &mut node.body {
            let mut twice = false;
            fs.readdir(id, &mut |entry| {
                twice |= entries.insert(entry.name.to_vec(), entry.node).is_some();
                ControlFlow::Continue(())
            })?;
            assert!(!twice, "{}: a name is listed twice", path.escape_ascii());
            for (name, child) in entries.iter() {
                assert_eq!(fs.lookup(id, name)?.node, *child, "{}", name.escape_ascii());
                pending.push(([&path[..], b"/", name].concat(), *child));
            }
        }
        tree.insert(path, (id, Arc::new(node)));
    }
    Ok(tree)
}
