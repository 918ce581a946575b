//! Which mount is meant by a path.
//!
//! Commands about a mount as a whole name its directory. A mount that hangs makes everything hang that asks the kernel about it, be it only
//! what kind of file its directory is. So the path is made absolute without asking, and compared with the mount table; if that finds
//! nothing, symbolic links on the way are followed, but never the last name ([`locate`]).
//!
//! Commands about something *in* a mount need the kernel to follow the path, and get the rest of it below the mount ([`locate_inside`]).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use frazil_device::mounts::{self, Mount};

use super::protocol::Bytes;
use crate::attach::FS_TYPE;

/// Why no mount was found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// Nothing of ours is mounted there.
    #[error("{path} is not a frazil mount", path = .0.display())]
    NotMounted(PathBuf),
    /// Not itself, but it lies in one.
    #[error("{path} is not a frazil mount; it lies in the one at {mount}", path = .path.display(), mount = .mount.display())]
    Below {
        /// What was asked for.
        path: PathBuf,
        /// Where the mount is.
        mount: PathBuf,
    },
    /// It is not a path in one.
    #[error("{path} does not lie in a frazil mount", path = .0.display())]
    Outside(PathBuf),
    /// The system cannot follow the path.
    #[error("{path}: {cause}", path = .path.display())]
    System {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The mount at a directory, without any operation on it.
///
/// # Errors
/// If there is none.
pub fn locate(dir: &Path) -> Result<Mount, LocateError> {
    let system = |cause| LocateError::System { path: dir.to_path_buf(), cause };
    let absolute = lexically(&std::env::current_dir().map_err(system)?.join(dir));
    let ours = |path: &Path| mounts::at(path).filter(|mount| mount.fs_type == FS_TYPE);
    if let Some(mount) = ours(&absolute) {
        return Ok(mount);
    }
    if let Some(mount) = mounts::covering(&absolute).filter(|mount| mount.fs_type == FS_TYPE) {
        return Err(LocateError::Below { path: dir.to_path_buf(), mount: mount.mount_point });
    }
    let parent = absolute.parent().and_then(|parent| parent.canonicalize().ok());
    let followed = parent.zip(absolute.file_name()).map(|(parent, name)| parent.join(name));
    followed.and_then(|path| ours(&path)).ok_or_else(|| LocateError::NotMounted(dir.to_path_buf()))
}

/// Something in a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inside {
    /// The mount.
    pub mount: Mount,
    /// The path from the root of the volume.
    pub path: Bytes,
    /// The directory that holds it, as the system knows it; that of the root of the mount is the root itself.
    pub dir: PathBuf,
}

/// The mount in which a path lies, and the path in it. All names but the last must exist; `follow` says that the last
/// must, too, and that a symbolic link there is followed.
///
/// # Errors
/// If it does not lie in a mount, or cannot be followed.
pub fn locate_inside(path: &Path, follow: bool) -> Result<Inside, LocateError> {
    let system = |cause| LocateError::System { path: path.to_path_buf(), cause };
    let absolute = std::env::current_dir().map_err(system)?.join(path);
    let last: Option<OsString> = absolute.file_name().map(OsString::from);
    let (followed, dir) = match (last, absolute.parent()) {
        (Some(last), Some(parent)) if !follow => {
            let dir = parent.canonicalize().map_err(system)?;
            (dir.join(last), dir)
        }
        // "..", or the root of everything.
        _ => {
            let path = absolute.canonicalize().map_err(system)?;
            let dir = path.parent().unwrap_or(&path).to_path_buf();
            (path, dir)
        }
    };
    let mount = mounts::covering(&followed).filter(|mount| mount.fs_type == FS_TYPE);
    let mount = mount.ok_or_else(|| LocateError::Outside(path.to_path_buf()))?;
    let below = followed.strip_prefix(&mount.mount_point).unwrap_or(Path::new(""));
    let inside = mount.root.join(below);
    let dir = if dir.starts_with(&mount.mount_point) { dir } else { mount.mount_point.clone() };
    // Joining nothing leaves a slash behind.
    let inside: PathBuf = inside.components().collect();
    Ok(Inside { mount, path: Bytes(inside.as_os_str().as_bytes().to_vec()), dir })
}

/// Without "." and "..", as if there were no symbolic links.
fn lexically(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_taken_away() {
        for (path, normal) in [("/a/b/../c/.", "/a/c"), ("/../..", "/"), ("/a//b/", "/a/b"), ("/", "/")] {
            assert_eq!(lexically(Path::new(path)), Path::new(normal));
        }
    }

    #[test]
    fn what_is_no_mount_of_ours_is_refused() {
        for path in ["/", "/proc", "/no/such/dir", "..", ""] {
            assert!(matches!(locate(Path::new(path)), Err(LocateError::NotMounted(_))), "{path}");
        }
        assert!(matches!(locate_inside(Path::new("/proc"), true), Err(LocateError::Outside(_))));
        assert!(matches!(locate_inside(Path::new("/no/such"), false), Err(LocateError::System { .. })));
        assert!(matches!(locate_inside(Path::new("/no"), true), Err(LocateError::System { .. })));
        assert!(matches!(locate_inside(Path::new("/no"), false), Err(LocateError::Outside(_))));
    }
}
