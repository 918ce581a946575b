//! A file inside a volume: what `ls`, `cat`, `stat`, `tree` and `export` are about.
//!
//! On the command line it is `DEV… PATH`: with more than one argument the last one is the path inside the volume, whatever it
//! looks like. Whoever forgets the path and names two devices gets an error that says so ([`Target::advice`]).
//!
//! Paths are followed as the kernel would follow them from the volume's root: symbolic links on the way always, at the end as
//! the command wants; absolute links lead to the root of the volume.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_posix::{Attr, Error, FileType, Fs, NodeId};

use crate::format::Shown;
use crate::open::{OpenArgs, split_devices};
use crate::stop::Stop;

/// Symbolic links followed on one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Devices and a path.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Target {
    /// The devices or image files of the volume, one by one or joined by ":"; then, as the last of several arguments, the path inside the volume
    #[arg(value_name = "DEV... PATH", required = true)]
    arguments: Vec<OsString>,
}

/// A file found in an open volume.
pub(crate) struct Found {
    pub(crate) fs: Fs,
    /// The path that led there, absolute, as it was given.
    pub(crate) path: Vec<u8>,
    pub(crate) attr: Attr,
}

impl Target {
    /// Whether a path was given.
    pub(crate) fn has_path(&self) -> bool {
        self.arguments.len() > 1
    }

    /// The arguments that are devices.
    fn devices(&self) -> Vec<PathBuf> {
        split_devices(&self.arguments[..self.arguments.len().saturating_sub(1).max(1)])
    }

    /// The path, made absolute.
    fn path(&self) -> Vec<u8> {
        let given = if self.has_path() { self.arguments.last().map(|last| last.as_bytes()) } else { None };
        let mut path = b"/".to_vec();
        let given = given.unwrap_or_default();
        let slashes = given.iter().take_while(|&&byte| byte == b'/').count();
        path.extend_from_slice(&given[slashes..]);
        path
    }

    /// Opens the volume and finds the file; a symbolic link at the end of the path is followed if `follow` says so.
    pub(crate) fn find(&self, open: &OpenArgs, follow: bool) -> Result<Found, Stop> {
        let volume = open.volume(&self.devices()).map_err(|stop| self.advise(stop))?;
        let fs = Fs::new(Arc::new(volume));
        let path = self.path();
        let attr = resolve(&fs, &path, follow)
            .map_err(|why| self.advise(Stop::Failed(format!("{}: {why}", Shown(&path)))))?;
        Ok(Found { fs, path, attr })
    }

    /// Adds what may have been meant to a failure.
    fn advise(&self, stop: Stop) -> Stop {
        match (stop, self.advice()) {
            (Stop::Failed(why), Some(advice)) => Stop::Failed(format!("{why} ({advice})")),
            (stop, _) => stop,
        }
    }

    /// What to say when it fails and the path looks like a device.
    fn advice(&self) -> Option<String> {
        let last = self.arguments.last().filter(|_| self.has_path())?;
        let is_device = Path::new(last).is_file() || last.as_bytes().starts_with(b"/dev/");
        let last = Shown(last.as_bytes());
        is_device.then(|| {
            format!("{last} was taken as the path inside the volume; join several devices with \":\"")
        })
    }
}

/// The file at an absolute path.
fn resolve(fs: &Fs, path: &[u8], follow: bool) -> Result<Attr, Error> {
    let mut links = 0;
    // Names still to be looked up, the next one last.
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push_names(&mut ahead, path);
    let mut at = fs.getattr(fs.root())?;
    let mut dir = fs.root();
    while let Some(name) = ahead.pop() {
        at = fs.lookup(dir, &name)?;
        let is_last = ahead.is_empty();
        if at.kind == FileType::Symlink && (follow || !is_last) {
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::Invalid("too many symbolic links"));
            }
            let target = fs.readlink(at.node)?;
            if target.starts_with(b"/") {
                dir = fs.root();
            }
            at = fs.getattr(dir)?;
            push_names(&mut ahead, &target);
            continue;
        }
        dir = at.node;
    }
    Ok(at)
}

/// Puts the names of a path in front of those still to be looked up.
fn push_names(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    // A slash at the end asks for a directory.
    if path.len() > 1 && path.ends_with(b"/") {
        names.push(b".".to_vec());
    }
    names.reverse();
    ahead.extend(names);
}

/// Reads a whole file in pieces, and hands each to `take`.
///
/// The first error ends it: of `take`, or of the volume.
pub(crate) fn read_all<E: From<Error>>(
    fs: &Fs,
    node: NodeId,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match fs.read(node, at, &mut buffer)? {
            0 => return Ok(()),
            read => {
                take(&buffer[..read])?;
                at += read as u64;
            }
        }
    }
}

/// How much of a file is read at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
