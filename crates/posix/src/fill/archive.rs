//! A tar archive, read as a stream.
//!
//! ustar, pax and GNU archives are understood: names and numbers of any length, times to the nanosecond, extended attributes
//! (`SCHILY.xattr.*`), access control lists (also as `SCHILY.acl.*`), and sparse files in all four forms GNU tar has had. What
//! `frazil export` writes comes back as it was.
//!
//! Members may come in any order. A directory that is only named in the path of something gets plain attributes until a member says more;
//! a directory may come again, and its last member counts. A file may not: its content has been stored by then.
//! A hard link leads to a member before it. What an archive does not say of a file (when it was made, last read, and last changed) is
//! taken to be the time its content changed.

mod members;
mod records;
mod sparse;

use std::collections::HashMap;
use std::io::{BufReader, Read};

use tar::EntryType;

use self::members::{Member, Members};
use self::records::Malformed;
use super::error::FillError;
use super::sink::{Deliver, Delivered, Halt, JOB_BYTES, Refused, Sink};
use super::tree::Object;
use super::work::Xattrs;
use crate::attr::{FileType, Timestamp};
use crate::make::{self, NewInode};

/// What is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A tar archive.
pub(super) struct Archive<R> {
    members: Members<BufReader<R>>,
    name: String,
    /// Attributes of directories, which later members may replace, and the path of the member.
    of_directories: HashMap<Object, (Vec<u8>, Xattrs)>,
}

impl<R: Read> Archive<R> {
    /// The archive that `reader` delivers.
    pub(super) fn new(reader: R, name: &str) -> Archive<R> {
        let members = Members::new(BufReader::with_capacity(READ_BYTES, reader));
        Archive { members, name: name.to_owned(), of_directories: HashMap::new() }
    }

    fn failed(&self, path: &[u8], why: &std::io::Error) -> Halt {
        let at = if path.is_empty() {
            format!("{}, byte {}", self.name, self.members.position).into_bytes()
        } else {
            path.to_vec()
        };
        Halt::Error(FillError::Archive { at, why: why.to_string() })
    }
}

impl<R: Read + Send> Deliver for Archive<R> {
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        [self.name.as_bytes(), b": ", path].concat()
    }

    fn deliver(&mut self, sink: &mut dyn Sink) -> Delivered<()> {
        sink.expect_lookups();
        while let Some(member) = self.members.next().map_err(|e| self.failed(b"", &e))? {
            self.member(sink, member)?;
        }
        // In a fixed order.
        let mut lists: Vec<(Object, (Vec<u8>, Xattrs))> = self.of_directories.drain().collect();
        lists.sort_unstable_by_key(|(object, _)| *object);
        lists
            .into_iter()
            .try_for_each(|(object, (path, list))| sink.xattrs(object, list).map_err(|e| e.at(path)))
    }
}

/// Something wrong with a member.
fn wrong(path: &[u8], why: impl Into<String>) -> Halt {
    Halt::Error(FillError::Archive { at: path.to_vec(), why: why.into() })
}

impl From<Malformed> for String {
    fn from(bad: Malformed) -> String {
        format!("its record {} is malformed", bad.0)
    }
}

impl<R: Read> Archive<R> {
    fn member(&mut self, sink: &mut dyn Sink, member: Member) -> Delivered<()> {
        let map = sparse::Map::of(&member, &mut self.members).map_err(|e| self.failed(&member.path, &e))?;
        let path = map.as_ref().and_then(|map| map.name.as_deref()).unwrap_or(&member.path).to_vec();
        let refused = |why: Refused| why.at(path.clone());
        let ty = member.header.entry_type();
        let kind = match ty {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if !path.ends_with(b"/") => {
                FileType::Regular
            }
            EntryType::Regular | EntryType::Directory => FileType::Directory,
            EntryType::Symlink => FileType::Symlink,
            EntryType::Char => FileType::CharDevice,
            EntryType::Block => FileType::BlockDevice,
            EntryType::Fifo => FileType::Fifo,
            EntryType::Link => return hard_link(sink, &path, &member.link),
            // The label of a volume of tapes.
            _ if ty.as_byte() == b'V' => return Ok(()),
            _ => {
                let ty = ty.as_byte().escape_ascii().to_string();
                return Err(wrong(&path, format!("members of type {ty} are not supported")));
            }
        };
        let new = new_inode(&member, kind).map_err(|why| wrong(&path, why))?;
        let xattrs = member.records.xattrs().map_err(|bad| wrong(&path, bad))?;
        let (dir, name) = place(sink, &path, Some(&new))?;
        let object = match (name, kind) {
            (None, FileType::Directory) => Object::ROOT,
            (None, _) => return Err(wrong(&path, "only a directory can be the root")),
            (Some(name), _) => match sink.lookup(dir, &name).map_err(refused)? {
                Some(known) if kind == FileType::Directory && sink.is_dir(known) => known,
                Some(_) => return Err(wrong(&path, "it is there already")),
                None => sink.create(dir, &name, &new, &member.link).map_err(refused)?,
            },
        };
        match kind {
            FileType::Directory => {
                sink.replace(object, &new).map_err(refused)?;
                self.of_directories.insert(object, (path, xattrs));
                return Ok(());
            }
            FileType::Regular => {
                let size = map.as_ref().map_or(self.members.rest(), |map| map.size);
                sink.set_size(object, size).map_err(refused)?;
                let whole = [(0, size)];
                let stretches = map.as_ref().map_or(&whole[..], |map| &map.stretches);
                self.content(sink, object, &path, stretches)?;
            }
            _ => {}
        }
        sink.xattrs(object, xattrs).map_err(refused)
    }

    /// Passes the content on, as stretches that begin and end at blocks.
    fn content(
        &mut self,
        sink: &mut dyn Sink,
        object: Object,
        path: &[u8],
        stretches: &[(u64, u64)],
    ) -> Delivered<()> {
        let block = sink.block_bytes();
        let refused = |why: Refused| why.at(path.to_vec());
        // What has been read, and where in the file it begins.
        let (mut start, mut bytes) = (0, Vec::new());
        for &(offset, len) in stretches.iter().filter(|(_, len)| *len > 0) {
            let have = start + bytes.len() as u64;
            if offset >= have.next_multiple_of(block) && !bytes.is_empty() {
                // A hole lies between.
                bytes.resize((have.next_multiple_of(block) - start) as usize, 0);
                sink.bytes(object, start, std::mem::take(&mut bytes)).map_err(refused)?;
            }
            if bytes.is_empty() {
                start = offset - offset % block;
            }
            bytes.resize((offset - start) as usize, 0);
            let mut rest = len;
            while rest > 0 {
                // Cut where the file would be cut without holes.
                let have = bytes.len();
                let room = (start / JOB_BYTES + 1) * JOB_BYTES - start - have as u64;
                let now = rest.min(room);
                bytes.resize(have + now as usize, 0);
                self.members.read(&mut bytes[have..]).map_err(|e| self.failed(path, &e))?;
                rest -= now;
                if now == room {
                    let full = start;
                    start += bytes.len() as u64;
                    sink.bytes(object, full, std::mem::take(&mut bytes)).map_err(refused)?;
                }
            }
        }
        if bytes.is_empty() { Ok(()) } else { sink.bytes(object, start, bytes).map_err(refused) }
    }
}

/// What the headers say of an object.
fn new_inode(member: &Member, kind: FileType) -> Result<NewInode, String> {
    let (header, records) = (&member.header, &member.records);
    fn bad(what: &str) -> impl Fn(std::io::Error) -> String + '_ {
        move |_| format!("its {what} is malformed")
    }
    let id = |key: &str, plain: std::io::Result<u64>| -> Result<u32, String> {
        let id = match records.number(key)? {
            Some(id) => id,
            None => plain.map_err(bad(key))?,
        };
        u32::try_from(id).map_err(|_| format!("its {key} {id} is too large"))
    };
    let mtime = match records.time("mtime")? {
        Some(time) => time,
        None => {
            // A binary field may be negative; no other field has so many digits.
            Timestamp { secs: header.mtime().map_err(bad("time"))? as i64, nanos: 0 }
        }
    };
    let or_mtime = |key| records.time(key).map(|time| time.unwrap_or(mtime));
    let rdev = match kind {
        FileType::CharDevice | FileType::BlockDevice => (
            header.device_major().map_err(bad("device number"))?.unwrap_or(0),
            header.device_minor().map_err(bad("device number"))?.unwrap_or(0),
        ),
        _ => (0, 0),
    };
    Ok(NewInode {
        kind,
        perm: (header.mode().map_err(bad("mode"))? & 0o7777) as u16,
        uid: id("uid", header.uid())?,
        gid: id("gid", header.gid())?,
        rdev,
        atime: or_mtime("atime")?,
        mtime,
        ctime: or_mtime("ctime")?,
        btime: or_mtime("LIBARCHIVE.creationtime")?,
        flags: 0,
    })
}

/// Finds the directory of a member and the member's name in it; no name for the top. Missing directories are made, with times `like`
/// those of the member.
fn place(sink: &mut dyn Sink, path: &[u8], like: Option<&NewInode>) -> Delivered<(Object, Option<Vec<u8>>)> {
    let mut names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")).peekable();
    let mut dir = Object::ROOT;
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(wrong(path, "it leads out of the tree"));
        }
        make::check_name(name).map_err(|why| FillError::Unfit { path: path.to_vec(), why })?;
        if names.peek().is_none() {
            return Ok((dir, Some(name.to_vec())));
        }
        let refused = |why: Refused| why.at(path.to_vec());
        dir = match sink.lookup(dir, name).map_err(refused)? {
            Some(known) if sink.is_dir(known) => known,
            Some(_) => return Err(wrong(path, "what should be a directory on its way is not one")),
            None => {
                let like =
                    like.ok_or_else(|| wrong(path, "its directory is not before it in the archive"))?;
                let new = NewInode { kind: FileType::Directory, perm: 0o755, uid: 0, gid: 0, ..*like };
                sink.create(dir, name, &new, b"").map_err(refused)?
            }
        };
    }
    Ok((dir, None))
}

/// Gives a member before it one more name.
fn hard_link(sink: &mut dyn Sink, path: &[u8], target: &[u8]) -> Delivered<()> {
    let mut object = Object::ROOT;
    for name in target.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        let found = sink.lookup(object, name).map_err(|why| why.at(path.to_vec()))?;
        object = found.ok_or_else(|| {
            wrong(
                path,
                format!("it is a link to {}, which is not before it in the archive", target.escape_ascii()),
            )
        })?;
    }
    if sink.is_dir(object) {
        return Err(wrong(path, "it is a hard link to a directory"));
    }
    let refused = |why: Refused| why.at(path.to_vec());
    match place(sink, path, None)? {
        (dir, Some(name)) if sink.lookup(dir, &name).map_err(refused)?.is_none() => {
            sink.link(dir, &name, object).map_err(refused)
        }
        _ => Err(wrong(path, "it is there already")),
    }
}
