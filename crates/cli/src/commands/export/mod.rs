//! `frazil export`: a directory as a tar archive.
//!
//! The archive is written as the tree is walked, sorted by name, and depends on nothing but the tree: two exports of the same
//! volume are the same bytes. It is in the pax format: names and sizes of any length, times to the nanosecond, extended
//! attributes as `SCHILY.xattr.*` and access control lists as `SCHILY.acl.*`, as star, GNU tar and bsdtar read them. Owners are
//! numbers: what users they were is not known here.
//!
//! Further names of a file are hard links to the first. A file with holes is stored without them, in GNU's sparse format 1.0
//! (the map of what there is stands in front of the data). Sockets cannot be in an archive and are left out; options and
//! flags of inodes have no place in the format.

mod content;
mod pax;

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;

use frazil_posix::{Attr, FileType, Fs, NodeId, Visit, WalkStep};
use tar::{Builder, EntryType, Header};

use self::content::Content;
use self::pax::Records;
use super::Out;
use super::tree::joined;
use crate::entry::{OPTION, data, xattrs};
use crate::format::Shown;
use crate::open::OpenArgs;
use crate::say;
use crate::stop::{Done, Outcome, Stop};
use crate::target::{Found, Target};

/// Write a directory to standard output as a tar archive
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil export [OPTIONS] DEV... [PATH]",
    after_help = "\
Restore everything with GNU tar, as root: tar x --xattrs --xattrs-include='*' --acls --numeric-owner
What cannot be read becomes zeros in the archive, with an error here and exit code 3.

Examples:
  frazil export /dev/sdb1 | tar x --xattrs -C /mnt/rescued
  frazil export /dev/sdb1 /home/alice | zstd > alice.tar.zst"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    open: OpenArgs,
}

/// Longest name in a plain header.
const NAME_BYTES: usize = 100;
/// Unit of an archive.
const BLOCK_BYTES: usize = 512;
/// Largest user and group id in a plain header: seven octal digits.
const ID_MAX: u32 = 0o7_777_777;
/// One more than the largest size and time in a plain header: eleven octal digits.
const NUMBER_END: u64 = 1 << 33;

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let Found { fs, path: top, attr } = args.target.find(&args.open, true)?;
    if io::IsTerminal::is_terminal(&io::stdout()) {
        return Err(Stop::Usage(
            "an archive does not belong on a terminal; redirect it: frazil export … > FILE".into(),
        ));
    }
    let mut export =
        Export { fs: &fs, top: &top, archive: Builder::new(out), names: HashMap::new(), lost: false };
    let mut stop = None;
    fs.walk(attr.node, &mut |path, visit| {
        let written = match visit {
            Visit::Object(attr) => export.add(path, attr),
            Visit::Unreadable(error) | Visit::Unlistable(error) => {
                export.lose(path, &error);
                Ok(())
            }
        };
        match written {
            Ok(()) => WalkStep::Continue,
            Err(error) => {
                stop = Some(Stop::from(error));
                WalkStep::Stop
            }
        }
    });
    match stop {
        Some(stop) => Err(stop),
        None => {
            export.archive.finish()?;
            Ok(Done::unless(export.lost))
        }
    }
}

/// An archive in the making.
struct Export<'a> {
    fs: &'a Fs,
    /// Where the walk began, for messages.
    top: &'a [u8],
    archive: Builder<&'a mut Out>,
    /// The first name of every file that has several.
    names: HashMap<NodeId, Vec<u8>>,
    lost: bool,
}

impl Export<'_> {
    /// Reports what cannot be read.
    fn lose(&mut self, path: &[u8], error: &frazil_posix::Error) {
        say::error(format_args!("{}: {error}", Shown(&joined(self.top, path))));
        self.lost = true;
    }

    /// The name of an object in the archive.
    fn name(&self, path: &[u8], attr: &Attr) -> Vec<u8> {
        match (attr.kind, path.is_empty()) {
            (FileType::Directory, true) => b"./".to_vec(),
            (FileType::Directory, false) => [b"./", path, b"/"].concat(),
            // The top itself is a file.
            (_, true) => self.top.rsplit(|&byte| byte == b'/').next().unwrap_or(b"file").to_vec(),
            (_, false) => [b"./", path].concat(),
        }
    }

    /// Adds an object.
    fn add(&mut self, path: &[u8], attr: &Attr) -> io::Result<()> {
        let name = self.name(path, attr);
        if attr.kind == FileType::Socket {
            say::note(format_args!("{}: sockets cannot be archived", Shown(&joined(self.top, path))));
            return Ok(());
        }
        if attr.nlink > 1 && attr.kind != FileType::Directory {
            if let Some(first) = self.names.get(&attr.node) {
                let mut member = Member::new(&name, attr, EntryType::Link);
                member.link(first);
                return member.write(&mut self.archive, io::empty());
            }
            self.names.insert(attr.node, name.clone());
        }
        let mut member = Member::new(&name, attr, entry_type(attr.kind));
        match xattrs(self.fs, attr) {
            Ok(mut found) => {
                // They come in the order of hashes, which are seeded.
                found.sort_unstable();
                let stored = found.iter().filter(|(name, _)| !name.starts_with(OPTION.as_bytes()));
                stored.for_each(|(name, value)| member.records.add_xattr(name, value));
            }
            Err(error) => self.lose(path, &error),
        }
        match attr.kind {
            FileType::Regular => return self.add_file(path, attr, member),
            FileType::Symlink => match self.fs.readlink(attr.node) {
                Ok(target) => member.link(&target),
                Err(error) => {
                    self.lose(path, &error);
                    return Ok(());
                }
            },
            FileType::CharDevice | FileType::BlockDevice => member.device(attr.rdev)?,
            _ => {}
        }
        member.write(&mut self.archive, io::empty())
    }

    fn add_file(&mut self, path: &[u8], attr: &Attr, mut member: Member) -> io::Result<()> {
        let stretches: Vec<Range<u64>> = match data(self.fs, attr) {
            Ok(found) => found.into_iter().map(|(start, end)| start..end).collect(),
            Err(error) => {
                self.lose(path, &error);
                // Its size is known, so its bytes can at least be asked for.
                std::iter::once(0..attr.size).collect()
            }
        };
        let stored: u64 = stretches.iter().map(|stretch| stretch.end - stretch.start).sum();
        let map = if stored < attr.size { member.sparse(&stretches, attr.size) } else { Vec::new() };
        member.size = map.len() as u64 + stored;
        let name = Shown(&joined(self.top, path)).to_string();
        let mut content = Content::new(self.fs, attr.node, &name, &stretches);
        member.write(&mut self.archive, map.as_slice().chain(&mut content))?;
        self.lost |= content.is_damaged();
        Ok(())
    }
}

fn entry_type(kind: FileType) -> EntryType {
    match kind {
        FileType::Regular | FileType::Socket => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::Fifo => EntryType::Fifo,
        FileType::CharDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
    }
}

/// A member of the archive in the making.
struct Member {
    header: Header,
    name: Vec<u8>,
    /// With a map in front; its real name stands in the records that say so.
    is_sparse: bool,
    /// What the header has no room for.
    records: Records,
    /// Bytes of content.
    size: u64,
}

impl Member {
    fn new(name: &[u8], attr: &Attr, ty: EntryType) -> Member {
        let mut header = Header::new_ustar();
        let mut records = Records::default();
        header.set_entry_type(ty);
        header.set_mode(attr.perm.into());
        header.set_uid(attr.uid.min(ID_MAX).into());
        header.set_gid(attr.gid.min(ID_MAX).into());
        let seconds = u64::try_from(attr.mtime.secs).unwrap_or(0);
        header.set_mtime(seconds.min(NUMBER_END - 1));
        put(&mut header.as_old_mut().name, name);
        for (key, id) in [(&b"uid"[..], attr.uid), (b"gid", attr.gid)] {
            if id > ID_MAX {
                records.add(key, id.to_string().as_bytes());
            }
        }
        if attr.mtime.nanos != 0 || attr.mtime.secs < 0 || seconds >= NUMBER_END {
            records.add(b"mtime", pax::time(attr.mtime).as_bytes());
        }
        Member { header, name: name.to_vec(), is_sparse: false, records, size: 0 }
    }

    /// Sets where a link points.
    fn link(&mut self, target: &[u8]) {
        put(&mut self.header.as_old_mut().linkname, target);
        if target.len() > NAME_BYTES {
            self.records.add(b"linkpath", target);
        }
    }

    /// Sets the numbers of a device.
    fn device(&mut self, (major, minor): (u32, u32)) -> io::Result<()> {
        self.header.set_device_major(major)?;
        self.header.set_device_minor(minor)
    }

    /// Makes it a file with holes, and returns the map that stands in front of its data.
    fn sparse(&mut self, stretches: &[Range<u64>], size: u64) -> Vec<u8> {
        let mut map = stretches.to_vec();
        if map.last().is_none_or(|last| last.end < size) {
            map.push(size..size);
        }
        let mut text = format!("{}\n", map.len());
        for stretch in &map {
            text.push_str(&format!("{}\n{}\n", stretch.start, stretch.end - stretch.start));
        }
        let mut text = text.into_bytes();
        text.resize(text.len().next_multiple_of(BLOCK_BYTES), 0);

        // What a tar that does not know of maps calls the file.
        let base = self.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        put(&mut self.header.as_old_mut().name, &[b"./GNUSparseFile.0/", base].concat());
        self.is_sparse = true;
        self.records.add(b"GNU.sparse.major", b"1");
        self.records.add(b"GNU.sparse.minor", b"0");
        self.records.add(b"GNU.sparse.name", &self.name);
        self.records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
        text
    }

    /// Writes it with its content, which must be exactly as long as announced.
    fn write(mut self, archive: &mut Builder<&mut Out>, content: impl Read) -> io::Result<()> {
        if self.name.len() > NAME_BYTES && !self.is_sparse {
            self.records.add(b"path", &self.name);
        }
        if self.size >= NUMBER_END {
            self.records.add(b"size", self.size.to_string().as_bytes());
        }
        if !self.records.bytes().is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            put(&mut extended.as_old_mut().name, b"././@PaxHeader");
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(self.records.bytes().len() as u64);
            extended.set_cksum();
            archive.append(&extended, self.records.bytes())?;
        }
        self.header.set_size(self.size);
        self.header.set_cksum();
        archive.append(&self.header, content)
    }
}

/// Fills a field, with zeros behind; what does not fit is cut off.
fn put(field: &mut [u8; NAME_BYTES], value: &[u8]) {
    let len = value.len().min(NAME_BYTES);
    field.fill(0);
    field[..len].copy_from_slice(&value[..len]);
}
