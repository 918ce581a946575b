//! `frazil stat`: all that is known about a file; with `--extents` also where its data lie.

use std::fmt::Display;
use std::io::Write;

use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::extent::{EntrySizes, Pointers};
use frazil_ondisk::{Key, KeyType};
use frazil_posix::{Attr, Error, FileType, Fs};
use serde::Serialize;

use super::{Out, json_line};
use crate::entry::{Entry, OPTION, Wanted, chattr_flags, xattrs};
use crate::format::{Shown, Size, nanosecond, permissions};
use crate::open::OpenArgs;
use crate::say;
use crate::stop::{Done, Outcome, Stop};
use crate::target::{Found, Target};

/// Show all about a file
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil stat [OPTIONS] DEV... [PATH]",
    after_help = "\
Examples:
  frazil stat /dev/sdb1 /etc/fstab
  frazil stat --extents /dev/sdb1 /var/big"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Follow a symbolic link at the end of the path
    #[arg(short = 'L', long)]
    dereference: bool,
    /// Also where the data of the file lie
    #[arg(long)]
    extents: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    extents: Option<Vec<Extent>>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let Found { fs, path, attr } = args.target.find(&args.open, args.dereference)?;
    let mut lost = false;
    let mut report = |error: &dyn Display| {
        say::error(format_args!("{}: {error}", Shown(&path)));
        lost = true;
    };
    let extents = args.extents.then(|| extents(&fs, &attr, &mut report));
    if args.json {
        let entry = Entry::describe(&fs, &path, &attr, Wanted { hashes: false, holes: false });
        if let Some(error) = entry.error() {
            report(&error);
        }
        json_line(out, &Described { entry, extents })?;
    } else {
        show(&fs, &path, &attr, &mut report, out)?;
        show_extents(extents.as_deref().unwrap_or_default(), out)?;
    }
    Ok(Done::unless(lost))
}

fn show(
    fs: &Fs,
    path: &[u8],
    attr: &Attr,
    report: &mut dyn FnMut(&dyn Display),
    out: &mut Out,
) -> Result<(), Stop> {
    write!(out, "  File: {}", Shown(path))?;
    match (attr.kind == FileType::Symlink).then(|| fs.readlink(attr.node)) {
        Some(Ok(target)) => writeln!(out, " -> {}", Shown(&target))?,
        Some(Err(error)) => {
            writeln!(out)?;
            report(&error);
        }
        None => writeln!(out)?,
    }
    let kind = match attr.kind {
        FileType::Regular => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
    };
    writeln!(out, "  Size: {:<15} Blocks: {:<12} {kind}", attr.size, attr.sectors)?;
    let (inum, subvol) = (attr.node.inum, attr.node.subvol);
    write!(out, " Inode: {:<15} Links: {:<13} Subvolume: {subvol}", inum.0, attr.nlink)?;
    match attr.kind {
        FileType::CharDevice | FileType::BlockDevice => {
            writeln!(out, "  Device type: {}, {}", attr.rdev.0, attr.rdev.1)?;
        }
        _ => writeln!(out)?,
    }
    let perm = permissions(attr.kind, attr.perm);
    writeln!(out, "Access: ({:04o}/{perm})  Uid: {}  Gid: {}", attr.perm, attr.uid, attr.gid)?;
    for (what, at) in
        [("Access", attr.atime), ("Modify", attr.mtime), ("Change", attr.ctime), (" Birth", attr.btime)]
    {
        writeln!(out, "{what}: {}", nanosecond(at))?;
    }
    if attr.flags != 0 {
        writeln!(out, " Flags: {}", flag_names(attr).join(", "))?;
    }
    if attr.project != 0 {
        writeln!(out, "Project: {}", attr.project)?;
    }
    show_xattrs(fs, attr, report, out)
}

fn show_xattrs(
    fs: &Fs,
    attr: &Attr,
    report: &mut dyn FnMut(&dyn Display),
    out: &mut Out,
) -> Result<(), Stop> {
    let found = match xattrs(fs, attr) {
        Ok(found) => found,
        Err(error) => {
            report(&error);
            return Ok(());
        }
    };
    for (name, value) in &found {
        match name.strip_prefix(OPTION.as_bytes()) {
            Some(option) => writeln!(out, "Option: {} = {}", Shown(option), Shown(value))?,
            None => writeln!(out, " Xattr: {} ({})", Shown(name), Size(value.len() as u64))?,
        }
    }
    Ok(())
}

/// The names chattr(1) has for the flags.
fn flag_names(attr: &Attr) -> Vec<String> {
    const NAMES: [(u32, &str); 5] =
        [(0x08, "sync"), (0x10, "immutable"), (0x20, "append"), (0x40, "nodump"), (0x80, "noatime")];
    let flags = chattr_flags(attr);
    let known = NAMES.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name.to_owned());
    let unknown = NAMES.into_iter().fold(flags, |rest, (bit, _)| rest & !bit);
    known.chain((unknown != 0).then(|| format!("{unknown:#x}"))).collect()
}

/// A stretch of a file that has a key.
#[derive(Serialize)]
struct Extent {
    /// In bytes, like all that follows.
    offset: u64,
    length: u64,
    /// `data`, `inline`, `shared` (with other files: the data are named elsewhere), `unwritten`, `reserved`, `lost`; else the
    /// type of the key.
    kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Copy>,
}

/// One copy of the data.
#[derive(Serialize)]
struct Copy {
    device: u8,
    /// On the device.
    offset: u64,
    /// Length on the device.
    length: u64,
    compression: String,
    checksum: String,
    /// It may be dropped at any time.
    cached: bool,
}

/// The extents of a file; what cannot be read is reported and left out.
fn extents(fs: &Fs, attr: &Attr, report: &mut dyn FnMut(&dyn Display)) -> Vec<Extent> {
    match view(fs, attr) {
        Ok(view) => {
            let volume = fs.volume();
            let mut found = Vec::new();
            let mut cursor = volume.btrees().visible_extents(&view, attr.node.inum, 0..u64::MAX);
            loop {
                match cursor.next() {
                    Ok(Some(key)) => found.push(Extent::new(key, volume.data().entry_sizes())),
                    Ok(None) => return found,
                    Err(error) => {
                        report(&error);
                        if cursor.skip_bad_node().is_none() {
                            return found;
                        }
                    }
                }
            }
        }
        Err(error) => {
            report(&error);
            Vec::new()
        }
    }
}

/// What the subvolume of a file sees.
fn view(fs: &Fs, attr: &Attr) -> Result<frazil_btree::View, Error> {
    let subvolumes = fs.subvolumes()?;
    let subvolume = subvolumes.iter().find(|subvolume| subvolume.id == attr.node.subvol);
    let snapshot = subvolume.ok_or(Error::Stale(attr.node))?.snapshot;
    Ok(fs.volume().snapshots().view(snapshot)?)
}

impl Extent {
    fn new(key: Key<'_>, sizes: &EntrySizes) -> Extent {
        let start = key.k.start_offset().unwrap_or(0);
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR_BYTES);
        let pointers: Vec<_> = match key.k.ty {
            KeyType::EXTENT => Pointers::with_sizes(key.value, key.k.size, sizes).flatten().collect(),
            _ => Vec::new(),
        };
        let kind = match key.k.ty {
            KeyType::EXTENT if pointers.iter().any(|copy| copy.ptr.unwritten) => "unwritten".to_owned(),
            KeyType::EXTENT => "data".to_owned(),
            KeyType::INLINE_DATA => "inline".to_owned(),
            KeyType::REFLINK_P => "shared".to_owned(),
            KeyType::RESERVATION => "reserved".to_owned(),
            KeyType::ERROR => "lost".to_owned(),
            other => other.to_string(),
        };
        let copies = pointers.iter().filter(|copy| !copy.ptr.is_invalid()).map(|copy| Copy {
            device: copy.ptr.dev.0,
            offset: bytes(copy.ptr.offset.0),
            length: bytes(copy.disk_sectors().into()),
            compression: copy.crc.compression.to_string(),
            checksum: ChecksumType::from_raw(copy.crc.csum_type)
                .map_or_else(|| format!("(unknown {})", copy.crc.csum_type), |ty| ty.to_string()),
            cached: copy.ptr.cached,
        });
        Extent { offset: bytes(start), length: bytes(key.k.size.into()), kind, copies: copies.collect() }
    }
}

fn show_extents(extents: &[Extent], out: &mut Out) -> Result<(), Stop> {
    for extent in extents {
        let end = extent.offset.saturating_add(extent.length);
        write!(out, "Extent: {}-{end} {}", extent.offset, extent.kind)?;
        for copy in &extent.copies {
            write!(out, "; device {} at {}: {}", copy.device, copy.offset, Size(copy.length))?;
            write!(out, ", {}, checksum {}", copy.compression, copy.checksum)?;
            out.write_all(if copy.cached { b", cached" } else { b"" })?;
        }
        writeln!(out)?;
    }
    Ok(())
}
