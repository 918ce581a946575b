//! Why mounting or unmounting failed, in one line that says what to do.

use std::io;
use std::path::PathBuf;

/// Why a volume could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such directory.
    #[error("{dir} does not exist; make it with: mkdir {dir}", dir = .0.display())]
    NoDirectory(PathBuf),
    /// A volume can be mounted on a directory only.
    #[error("{dir} is not a directory", dir = .0.display())]
    NotADirectory(PathBuf),
    /// A FUSE mount whose process has died is in the way.
    #[error("{dir} is a mount whose process has died; clear it with: umount {dir}", dir = .0.display())]
    DeadMount(PathBuf),
    /// A volume is mounted there already.
    #[error("{source_name} is mounted at {at} already; unmount it with: frazil umount {at}", at = .dir.display())]
    AlreadyMounted {
        /// Where.
        dir: PathBuf,
        /// What, as the mount table names it.
        source_name: String,
    },
    /// The kernel has no FUSE, or the container was not given it.
    #[error(
        "/dev/fuse is missing; load it with: modprobe fuse (in a container: start it with --device /dev/fuse)"
    )]
    NoFuse,
    /// Neither may this user mount, nor is the helper there that mounts for users.
    #[error("not permitted to mount; run as root, or install fuse3, whose fusermount3 mounts for users")]
    NotPermitted,
    /// The helper that mounts for users refused.
    #[error("{0}")]
    Helper(String),
    /// There is no volume of ours there.
    #[error("{dir} is not a frazil mount", dir = .0.display())]
    NotMounted(PathBuf),
    /// A volume that is served read-only cannot be made writable.
    #[error("{dir} was mounted read-only; to change it, unmount it and mount it with -o rw", dir = .0.display())]
    ServedReadOnly(PathBuf),
    /// The mount was changed, the volume was not.
    #[error("{dir} was remounted, but the volume does not follow: {why}", dir = .0.display(), why = .1)]
    NotFollowed(PathBuf, String),
    /// Something still uses it.
    #[error("{dir} is in use: a file is open or a process has its directory there (fuser -vm {dir} lists them)", dir = .0.display())]
    Busy(PathBuf),
    /// The volume could not say how much space it has.
    #[error("cannot read the volume: {0}")]
    Volume(#[from] frazil_posix::Error),
    /// The system refused for some other reason.
    #[error("cannot {what} {at}: {cause}", at = .dir.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On which directory or file.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Error {
    /// A refusal of the system.
    pub(crate) fn system(what: &'static str, dir: &std::path::Path, cause: impl Into<io::Error>) -> Error {
        Error::System { what, dir: dir.to_path_buf(), cause: cause.into() }
    }
}
