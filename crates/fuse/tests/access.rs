//! Access times over a mount.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod in_memory;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use frazil_fuse::Accesses;
use frazil_fuse::control::{HoldReport, Request};
use frazil_posix::write::AccessTimes;
use rustix::fs::{StatVfsMountFlags, statvfs};

use in_memory::{LONG, Mounted, freeze, mounted_with};

/// Longer than a tick of any clock that times are taken from.
const TICK: Duration = Duration::from_millis(5);

fn mounted(files: AccessTimes, directories: bool) -> Mounted {
    mounted_with(|options| options.accesses = Accesses { files, directories })
}

fn accessed(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().accessed().unwrap()
}

/// Whether the access time of `path` changes by what `read` does. Who reads has the answer a little earlier.
fn is_noted(path: &Path, read: impl FnOnce()) -> bool {
    let before = accessed(path);
    thread::sleep(TICK);
    read();
    thread::sleep(TICK);
    accessed(path) > before
}

#[test]
fn what_is_read_from_the_kernels_cache_counts_too() {
    for (times, again) in
        [(AccessTimes::Never, false), (AccessTimes::Relative, false), (AccessTimes::Always, true)]
    {
        let m = mounted(times, true);
        let (file, dir, link) = (m.dir.join("file"), m.dir.join("dir"), m.dir.join("link"));
        fs::write(&file, b"x").unwrap();
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let any = times != AccessTimes::Never;
        let read = || assert_eq!(fs::read(&file).unwrap(), b"x");
        assert_eq!((is_noted(&file, read), is_noted(&file, read)), (any, again), "{times:?}");
        let list = || assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!((is_noted(&dir, list), is_noted(&dir, list)), (any, again), "{times:?}");
        let at = |path: &Path| fs::symlink_metadata(path).unwrap().accessed().unwrap();
        let before = at(&link);
        thread::sleep(TICK);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
        thread::sleep(TICK);
        assert_eq!(at(&link) > before, any, "{times:?}");
        let shown = statvfs(&m.dir).unwrap().f_flag;
        assert_eq!(shown.contains(StatVfsMountFlags::NOATIME), !any);
        assert_eq!(shown.contains(StatVfsMountFlags::RELATIME), times == AccessTimes::Relative);
        m.end();
    }
}

#[test]
fn writing_is_no_access_and_directories_can_be_left_out() {
    let m = mounted(AccessTimes::Always, false);
    let (file, dir) = (m.dir.join("file"), m.dir.join("dir"));
    fs::write(&file, b"x").unwrap();
    fs::create_dir(&dir).unwrap();
    let write = || File::options().write(true).open(&file).unwrap().write_all(b"y").unwrap();
    assert!(!is_noted(&file, write));
    let unseen = || {
        let mut file = File::options().read(true).custom_flags(libc::O_NOATIME).open(&file).unwrap();
        assert_eq!(file.read(&mut [0; 2]).unwrap(), 1);
    };
    assert!(!is_noted(&file, unseen));
    assert!(!is_noted(&dir, || assert_eq!(fs::read_dir(&dir).unwrap().count(), 0)));
    m.end();
}

#[test]
fn a_frozen_volume_is_read_and_does_not_change() {
    let m = mounted(AccessTimes::Always, true);
    let file = m.dir.join("file");
    fs::write(&file, b"x").unwrap();
    let hold: HoldReport = m.client().ask(&freeze(LONG)).unwrap();
    let noted = is_noted(&file, || assert_eq!(fs::read(&file).unwrap(), b"x"));
    m.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
    assert!(!noted);
    assert!(is_noted(&file, || assert_eq!(fs::read(&file).unwrap(), b"x")));
    m.end();
}
