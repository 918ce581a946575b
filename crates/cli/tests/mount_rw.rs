//! Changing a mounted volume, as programs do, against the same done on tmpfs. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use frazil_testing::golden;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom as Whence, XattrFlags, fallocate,
    openat, renameat_with, seek,
};

use run::{checked, errors, frazil};
use volume::{Volume, expect_io_uring};

/// What a tree looks like: for every path its kind, permissions, links, size and content.
fn tree(top: &Path) -> Vec<String> {
    let (mut found, mut dirs) = (Vec::new(), vec![top.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, name) = (meta.file_type(), path.strip_prefix(top).unwrap().to_owned());
            if name == Path::new("lost+found") {
                continue;
            }
            let content = match () {
                () if kind.is_dir() => {
                    dirs.push(path.clone());
                    format!("{} links", meta.nlink())
                }
                () if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                () if kind.is_file() => {
                    let bytes = fs::read(&path).unwrap();
                    format!("{} links, {} bytes {bytes:?}", meta.nlink(), meta.len())
                }
                () => format!("device {:x}", meta.rdev()),
            };
            found.push(format!("{name:?} {:o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid()));
        }
    }
    found.sort();
    found
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// The errno of a failure.
fn code<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

/// Every operation on names and attributes once, and what each refuses.
fn exercise(top: &Path) -> Vec<i32> {
    let at = |name: &str| top.join(name);
    fs::create_dir(at("d")).unwrap();
    fs::create_dir_all(at("d/e/f")).unwrap();
    fs::write(at("d/file"), b"content").unwrap();
    fs::hard_link(at("d/file"), at("hard")).unwrap();
    symlink("d/file", at("soft")).unwrap();
    symlink("x".repeat(3000), at("long")).unwrap();
    rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let device = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, at("null"), device, Mode::from_raw_mode(0o666), null).unwrap();
    fs::rename(at("d/file"), at("d/e/moved")).unwrap();
    fs::write(at("other"), b"other").unwrap();
    renameat_with(CWD, at("other"), CWD, at("hard"), RenameFlags::EXCHANGE).unwrap();
    fs::write(at("victim"), b"goes").unwrap();
    fs::rename(at("other"), at("victim")).unwrap();
    fs::set_permissions(at("victim"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(at("victim"), Some(7), Some(8)).unwrap();
    fs::create_dir(at("setgid")).unwrap();
    std::os::unix::fs::chown(at("setgid"), None, Some(9)).unwrap();
    fs::set_permissions(at("setgid"), PermissionsExt::from_mode(0o2775)).unwrap();
    fs::create_dir(at("setgid/below")).unwrap();
    let noreplace = renameat_with(CWD, at("hard"), CWD, at("victim"), RenameFlags::NOREPLACE);
    fs::create_dir(at("empty")).unwrap();
    fs::remove_dir(at("empty")).unwrap();
    vec![
        code(noreplace.map_err(Into::into)),
        code(fs::create_dir(at("d"))),
        code(fs::remove_dir(at("d"))),
        code(fs::remove_file(at("d"))),
        code(fs::remove_dir(at("hard"))),
        code(fs::remove_file(at("absent"))),
        code(fs::rename(at("d"), at("d/e/f/g"))),
        code(fs::rename(at("hard"), at("d"))),
        code(fs::write(at("n".repeat(600).as_str()), b"")),
        code(fs::hard_link(at("d"), at("dirlink"))),
        code(File::options().write(true).create_new(true).open(at("hard"))),
    ]
}

#[test]
fn names_and_attributes_are_as_on_tmpfs() {
    let model = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut volume = Volume::new();
    volume.mount();
    assert_eq!(exercise(&volume.path("")), exercise(model.path()));
    assert_eq!(tree(&volume.path("")), tree(model.path()));
    volume.umount();
    volume.mount();
    assert_eq!(tree(&volume.path("")), tree(model.path()));
    volume.umount();
}

#[test]
fn what_is_open_lives_on_without_a_name() {
    let mut volume = Volume::new();
    volume.mount();
    let mut file = open(&volume.path("gone"));
    file.write_all(&[7; 100_000]).unwrap();
    fs::remove_file(volume.path("gone")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(&[8; 5]).unwrap();
    file.seek(SeekFrom::Start(99_999)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, [7, 8, 8, 8, 8, 8]);
    drop(file);

    let flags = OFlags::RDWR | OFlags::TMPFILE;
    let nameless = File::from(openat(CWD, volume.path(""), flags, Mode::from_raw_mode(0o600)).unwrap());
    nameless.write_all_at(b"named later", 0).unwrap();
    let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&nameless));
    rustix::fs::linkat(CWD, magic, CWD, volume.path("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    drop(nameless);
    volume.umount();
    volume.mount();
    assert_eq!(fs::read(volume.path("named")).unwrap(), b"named later");
    volume.umount();
}

#[test]
fn content_changes_in_every_way() {
    let mut volume = Volume::new();
    volume.mount();
    let file = open(&volume.path("file"));
    file.write_all_at(&[1; 50_000], 0).unwrap();
    file.set_len(20_000).unwrap();
    file.set_len(40_000).unwrap();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 8192).unwrap();
    fallocate(&file, FallocateFlags::ZERO_RANGE, 15_000, 100).unwrap();
    fallocate(&file, FallocateFlags::empty(), 60_000, 10_000).unwrap();
    let mut model = vec![1; 20_000];
    model.resize(70_000, 0);
    model[4096..12_288].fill(0);
    model[15_000..15_100].fill(0);
    assert_eq!(fs::read(volume.path("file")).unwrap(), model);
    assert_eq!(seek(&file, Whence::Hole(0)).unwrap(), 4096);
    assert_eq!(seek(&file, Whence::Data(4096)).unwrap(), 12_288);

    let mut appended = File::options().append(true).open(volume.path("file")).unwrap();
    appended.write_all(b"end").unwrap();
    model.extend(b"end");
    let copy = open(&volume.path("copy"));
    let mut copied = 0;
    while copied < model.len() {
        copied +=
            rustix::fs::copy_file_range(&file, Some(&mut (copied as u64)), &copy, None, model.len()).unwrap();
    }
    copy.write_all_at(b"differs", 0).unwrap();
    drop((file, appended, copy));
    volume.umount();
    volume.mount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), model);
    model[..7].copy_from_slice(b"differs");
    assert_eq!(fs::read(volume.path("copy")).unwrap(), model);
    volume.umount();
}

#[test]
fn attributes_and_access_control_lists_stay() {
    let mut volume = Volume::new();
    volume.mount();
    let path = volume.path("file");
    fs::write(&path, b"x").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    set("user.one", &[9; 1900], XattrFlags::CREATE).unwrap();
    assert!(set("user.one", b"", XattrFlags::CREATE).is_err());
    assert!(set("user.two", b"", XattrFlags::REPLACE).is_err());
    set("trusted.t", b"t", XattrFlags::empty()).unwrap();
    rustix::fs::removexattr(&path, "trusted.t").unwrap();
    // Owner 6, user 77 4, group 0, mask 4, others 0.
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 77), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    set("system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    volume.umount();
    volume.mount();
    let get = |name: &str| {
        let mut value = vec![0; 4000];
        let len = rustix::fs::getxattr(&path, name, &mut value[..])?;
        value.truncate(len);
        rustix::io::Result::Ok(value)
    };
    assert_eq!(get("user.one").unwrap(), [9; 1900]);
    assert!(get("trusted.t").is_err());
    assert_eq!(get("system.posix_acl_access").unwrap(), acl);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    volume.umount();
}

#[test]
fn what_was_synced_survives_the_death_of_the_server() {
    let mut volume = Volume::new();
    for round in 0..3u8 {
        volume.mount();
        for i in 0..20u8 {
            let mut file = File::create(volume.path(&format!("{round}-{i}"))).unwrap();
            file.write_all(&vec![i; 5000 * usize::from(i)]).unwrap();
            if i.is_multiple_of(3) {
                file.sync_all().unwrap();
            }
        }
        File::open(volume.path("")).unwrap().sync_all().unwrap();
        let synced = File::create(volume.path("synced")).unwrap();
        synced.write_all_at(&[round; 70_000], 0).unwrap();
        synced.sync_data().unwrap();
        fs::write(volume.path("not synced"), b"may be lost").unwrap();
        volume.kill();
        volume.mount();
        assert_eq!(fs::read(volume.path("synced")).unwrap(), [round; 70_000]);
        for i in 0..20u8 {
            let read = fs::read(volume.path(&format!("{round}-{i}"))).unwrap();
            assert_eq!(read, vec![i; 5000 * usize::from(i)]);
        }
        volume.umount();
    }
}

/// Random changes of one file, mirrored in memory.
fn random_changes(path: &Path, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (file, mut model) = (open(path), Vec::new());
    for step in 0..400 {
        let (at, len) = (rng.usize(0..200_000), rng.usize(1..20_000));
        match rng.u32(0..8) {
            0..4 => {
                let data = vec![rng.u8(1..); len];
                file.write_all_at(&data, at as u64).unwrap();
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&data);
            }
            4 => {
                file.set_len(at as u64).unwrap();
                model.resize(at, 0);
            }
            5 => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, flags, at as u64, len as u64).unwrap();
                let end = model.len().min(at + len);
                model[at.min(end)..end].fill(0);
            }
            6 => {
                fallocate(&file, FallocateFlags::empty(), at as u64, len as u64).unwrap();
                model.resize(model.len().max(at + len), 0);
            }
            _ => {
                let mut read = vec![0xee; len];
                let got = file.read_at(&mut read, at as u64).unwrap();
                let end = model.len().min(at + len);
                assert_eq!(read[..got], model[at.min(end)..end], "seed {seed} step {step}");
            }
        }
    }
    assert_eq!(fs::read(path).unwrap(), model, "seed {seed}");
}

#[test]
fn two_threads_change_files_at_random() {
    let mut volume = Volume::new();
    volume.mount();
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let path = volume.path(&seed.to_string());
            scope.spawn(move || random_changes(&path, seed));
        }
    });
    volume.umount();
}

#[test]
fn a_volume_that_is_changed_is_nobody_elses() {
    let mut volume = Volume::new();
    volume.mount();
    let image = volume.image();
    for options in ["rw", "ro"] {
        let other = tempfile::tempdir().unwrap();
        let mut again = frazil(["mount", "-o", options]);
        let output = again.arg(&image).arg(other.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = errors(&output);
        assert!(told.contains("frazil umount") && told.lines().count() == 1, "{told}");
    }
    volume.umount();
}

#[test]
fn a_signal_leaves_it_clean() {
    let mut volume = Volume::new();
    volume.mount();
    fs::write(volume.path("file"), b"x").unwrap();
    let held = File::open(volume.path("file")).unwrap();
    let mut server = volume.server.take().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM)
        .unwrap();
    assert!(server.wait().unwrap().success());
    drop(held);
    volume.assert_right();
    volume.mount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"x");
    volume.umount();
}

#[test]
fn umount_waits_a_moment_for_who_only_looks() {
    let mut volume = Volume::new();
    volume.mount();
    let root = File::open(volume.path("")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(root);
        });
        volume.umount();
    });
}

#[test]
fn what_is_mounted_elsewhere_too_goes_on() {
    let mut volume = Volume::new();
    volume.mount();
    fs::write(volume.path("file"), b"x").unwrap();
    let other = tempfile::tempdir().unwrap();
    let (dir, file) = (other.path().join("dir"), other.path().join("file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, b"").unwrap();
    for (from, to) in [("", &dir), ("file", &file)] {
        rustix::mount::mount_bind(volume.path(from), to).unwrap();
        let output = frazil(["umount", to.to_str().unwrap()]).output().unwrap();
        assert_eq!((output.status.code(), errors(&output)), (Some(0), String::new()), "{from}");
    }
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"x");
    volume.umount();
}

#[test]
fn umount_says_if_it_could_not_be_marked_clean() {
    let mut volume = Volume::new();
    volume.mount();
    // Somebody else writes to the device.
    let device = File::options().write(true).open(volume.image()).unwrap();
    device.write_all_at(&[0; 4096], 4096).unwrap();
    let output = frazil(["umount", volume.path("").to_str().unwrap()]).output().unwrap();
    let told = errors(&output);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("is unmounted, but") && told.contains("not marked clean"), "{told}");
    let server = volume.server.take().unwrap().wait_with_output().unwrap();
    assert_eq!(server.status.code(), Some(1));
    assert!(errors(&server).contains("not marked clean"), "{}", errors(&server));
}

#[test]
fn newer_formats_are_refused_with_what_to_do() {
    let image = golden::image("18-newer-1.28-casefold-lz4").scratch();
    let dir = tempfile::tempdir().unwrap();
    let before = fs::read(&image.paths[0]).unwrap();
    let mut mount = frazil(["mount", "-o", "rw"]);
    let output = mount.arg(&image.paths[0]).arg(dir.path()).output().unwrap();
    let told = errors(&output);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("newer") && told.contains("-o ro"), "{told}");
    assert!(fs::read(&image.paths[0]).unwrap() == before, "nothing was written");
}

/// As systems do before they stop, with the options that mount(8) gives.
#[test]
fn a_mount_becomes_read_only_and_writable_again() {
    let mut volume = Volume::new();
    volume.mount();
    let image = volume.image();
    let (image, dir) = (image.to_str().unwrap(), volume.path(""));
    let remount = |access: &str| {
        let options =
            format!("{access},noatime,remount,user_id=0,group_id=0,default_permissions,allow_other");
        frazil(["mount", "-o", &options, image, dir.to_str().unwrap()])
    };
    let open = File::create(volume.path("open")).unwrap();
    assert!(!remount("ro").output().unwrap().status.success(), "somebody may still write");
    drop(open);
    checked(remount("ro"));
    assert_eq!(File::create(volume.path("file")).unwrap_err().raw_os_error(), Some(30));
    assert!(volume.is_marked_clean(), "the command returns when it is");
    assert!(volume.text(&["status", "@"]).contains("\nstate     read-only for "));
    checked(remount("rw"));
    assert!(!volume.is_marked_clean());
    fs::write(volume.path("file"), "again").unwrap();
    checked(remount("ro"));
    volume.umount();

    checked(frazil(["mount", "-o", "ro", image, dir.to_str().unwrap()]));
    expect_io_uring(&dir);
    let refused = remount("rw").output().unwrap();
    assert!(errors(&refused).contains("mounted read-only"), "{}", errors(&refused));
    checked(frazil(["umount", dir.to_str().unwrap()]));
}

/// As by a mount(8) that finds no helper of ours: only the mount table tells of it.
#[test]
fn a_volume_follows_its_mount() {
    let mut volume = Volume::new();
    volume.mount();
    let dir = volume.path("");
    let remount = |access: &str| {
        let mut command = std::process::Command::new("mount");
        checked({
            command.args(["-i", "-o", &format!("remount,{access}")]).arg(&dir);
            command
        });
    };
    let wait_until_clean = || {
        let begin = std::time::Instant::now();
        while !volume.is_marked_clean() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", volume.text(&["status", "@"]));
        }
    };
    for round in 0..30 {
        fs::write(volume.path("file"), [round; 5000]).unwrap();
        remount("ro");
        if round % 3 == 0 {
            wait_until_clean();
            volume.assert_copy_right(true);
        }
        assert_eq!(File::create(volume.path("no")).unwrap_err().raw_os_error(), Some(30));
        assert_eq!(fs::read(volume.path("file")).unwrap(), [round; 5000]);
        remount("rw");
    }
    // Frozen, it follows when it is thawed.
    let token = volume.text(&["freeze", "@", "--timeout", "20"]);
    remount("ro");
    assert!(volume.text(&["status", "@"]).contains("\nstate     frozen for "));
    volume.text(&["thaw", "@", "--holder", token.trim_end()]);
    let begin = std::time::Instant::now();
    while !volume.text(&["status", "@"]).contains("\nstate     read-only for ") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", volume.text(&["status", "@"]));
    }
    assert!(volume.is_marked_clean());
    volume.umount();
}

/// What the kernel keeps of an object is dropped where it does not know that a request changes it.
#[test]
fn changes_behind_the_back_of_the_kernel_are_seen() {
    let mut volume = Volume::new();
    volume.mount();
    let path = volume.path("file");
    fs::write(&path, [1; 4096]).unwrap();
    let file = File::open(&path).unwrap();
    let before = (file.metadata().unwrap().ctime(), file.metadata().unwrap().ctime_nsec());
    rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::NODUMP).unwrap();
    let after = (file.metadata().unwrap().ctime(), file.metadata().unwrap().ctime_nsec());
    assert!(after > before, "{after:?}");
    drop(file);

    fs::set_permissions(&path, PermissionsExt::from_mode(0o6755)).unwrap();
    // Root, but set-id bits go when it writes.
    let mut write = std::process::Command::new("setpriv");
    write.args([
        "--inh-caps",
        "-fsetid",
        "--bounding-set",
        "-fsetid",
        "dd",
        "if=/dev/zero",
        "bs=4096",
        "count=1",
    ]);
    write.args(["conv=notrunc", "oflag=direct", "status=none"]).arg(format!("of={}", path.display()));
    assert!(write.status().unwrap().success());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    volume.umount();
}

/// Names and small files fill a volume, too. Then they can be removed, and the volume is as good as before (generic/027).
#[test]
fn a_volume_full_of_small_files_can_be_emptied() {
    let mut volume = Volume::of_size("32M");
    volume.mount();
    for _ in 0..2 {
        let top = volume.path("files");
        let fill = |worker: u32| {
            let dir = top.join(worker.to_string());
            let full = fs::create_dir_all(&dir)
                .and_then(|()| (0..).try_for_each(|n| fs::write(dir.join(n.to_string()), [b'x'; 1024])));
            assert_eq!(code(full), 28, "no space");
        };
        std::thread::scope(|scope| (0..3).for_each(|worker| drop(scope.spawn(move || fill(worker)))));
        let (done, waited) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(fs::remove_dir_all(top)));
        waited.recv_timeout(Duration::from_secs(100)).expect("it must not hang").unwrap();
    }
    volume.umount();
}

/// When it is unmounted the kernel does not say of each file that it forgets it (generic/488).
#[test]
fn many_files_without_names_are_gone_after_umount() {
    let mut volume = Volume::new();
    volume.mount();
    let files: Vec<File> = (0..800)
        .map(|n| {
            let path = volume.path(&n.to_string());
            let file = open(&path);
            file.write_all_at(b"content", 0).unwrap();
            fs::remove_file(path).unwrap();
            file
        })
        .collect();
    drop(files);
    volume.umount();
}

/// Set-id bits go when somebody who is not root changes the content, whatever by (generic/683).
#[test]
fn set_id_bits_go_with_every_change_of_content() {
    let mut volume = Volume::new();
    volume.mount();
    let path = volume.path("file");
    let file = open(&path);
    file.set_len(1 << 16).unwrap();
    fs::write(volume.path("from"), [1; 1 << 16]).unwrap();
    let from = File::open(volume.path("from")).unwrap();
    let as_user = |change: &(dyn Fn() + Sync)| {
        fs::set_permissions(&path, PermissionsExt::from_mode(0o6777)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread only.
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(7)).unwrap();
                change();
            });
        });
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(as_user(&|| fallocate(&file, FallocateFlags::empty(), 0, 4096).unwrap()), 0o777);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(as_user(&|| fallocate(&file, punch, 0, 4096).unwrap()), 0o777);
    let copy = || {
        let copied = rustix::fs::copy_file_range(&from, Some(&mut 0), &file, Some(&mut 0), 1 << 16);
        assert_eq!(copied.unwrap(), 1 << 16);
    };
    assert_eq!(as_user(&copy), 0o777);
    drop((file, from));
    volume.umount();
}

/// Who removes a file sees its space, and can use it, at once (generic/015, generic/371).
#[test]
fn the_space_of_a_removed_file_is_there_at_once() {
    let mut volume = Volume::new();
    volume.mount();
    let free = || rustix::fs::statvfs(volume.path("")).unwrap().f_bavail;
    let before = free();
    for _ in 0..6 {
        fs::write(volume.path("large"), vec![7; 150 << 20]).unwrap();
        fs::remove_file(volume.path("large")).unwrap();
    }
    assert!(free() > before - before / 50, "{} of {before}", free());
    volume.umount();
}

/// What umount(8) runs: the program under another name. It returns when the volume is clean.
#[test]
fn umount_can_call_it() {
    let mut volume = Volume::new();
    let links = tempfile::tempdir().unwrap();
    let helper = links.path().join("umount.fuse.frazil");
    symlink(env!("CARGO_BIN_EXE_frazil"), &helper).unwrap();
    let dir = volume.path("");
    let umount = |options: &[&str]| {
        let mut command = std::process::Command::new(&helper);
        command.arg(&dir).args(options).output().unwrap()
    };
    assert!(errors(&umount(&["-n"])).contains("is not a frazil mount"));
    volume.mount();
    fs::write(volume.path("file"), "content").unwrap();
    let used = File::open(volume.path("file")).unwrap();
    let busy = umount(&["-n", "-t", "fuse.frazil"]);
    assert!(!busy.status.success() && errors(&busy).contains("in use"));
    drop(used);
    let done = umount(&["-n", "-t", "fuse.frazil"]);
    assert!(done.status.success(), "{}", errors(&done));
    volume.assert_right();
    volume.mount();
    assert!(umount(&["-l"]).status.success());
    assert!(!volume.is_mounted());
}
