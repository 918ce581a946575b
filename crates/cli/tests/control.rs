//! The commands that control a live mount. Needs root, `/dev/fuse` and `fusermount3`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use frazil_testing::golden;
use run::{Opening, checked, errors, frazil};
use volume::{Volume, expect_io_uring};

impl Volume {
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }

    /// Waits until what was deleted is gone from the disk.
    fn wait_for_inodes(&self, count: u64) {
        let begin = Instant::now();
        while self.json(&["status", "--json", "@"])["volume"]["space"]["inodes"] != count {
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", self.text(&["status", "@"]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn status_says_how_it_is() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), [1; 100_000]).unwrap();
    let status = volume.json(&["status", "--json", "@"]);
    assert_eq!(status["mount"]["pid"], volume.server.as_ref().unwrap().id());
    assert_eq!(
        (&status["mount"]["uid"], &status["mount"]["read_only"]),
        (&Value::from(0), &Value::from(false))
    );
    assert_eq!(status["volume"]["space"]["data"], 100 << 10);
    assert!(status["engine"]["dirty_nodes"].as_u64().unwrap() > 0);
    assert!(status["journal"]["pins"][0]["count"].as_u64().unwrap() > 0);
    let of = |name: &str| {
        let operations = status["operations"].as_array().unwrap().clone();
        operations.into_iter().find(|operation| operation["name"] == name).unwrap()
    };
    assert_eq!((&of("create")["count"], &of("write")["count"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(of("write")["bytes"], 100_000);
    assert_eq!((&status["waiting"], &status["waiting_count"]), (&Value::from([0; 0]), &Value::from(0)));

    let text = volume.text(&["status", "@"]);
    assert!(text.starts_with(&format!("{}: read-write, mounted ", volume.dir())), "{text}");
    for line in ["volume ", "space ", "journal ", "pins ", "to write ", "waiting   no request"] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
    volume.umount();
}

#[test]
fn status_is_repeated_until_the_end() {
    let mut volume = Volume::mounted();
    let mut watch = volume.command(&["status", "--json", "--watch=0.05", "@"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ages: Vec<u64> = (0..3)
        .map(|_| serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap())
        .map(|status| status["mount"]["age_ns"].as_u64().unwrap())
        .collect();
    assert!(ages.is_sorted() && ages[2] - ages[0] >= 90_000_000, "{ages:?}");
    volume.umount();
    lines.for_each(drop);
    let mut told = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(1));
    assert_eq!(told, format!("error: the mount at {} has ended\n", volume.dir()));
}

#[test]
fn mounts_that_are_only_read_can_be_asked_too() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    checked(frazil(["mount", "-o", "ro", &opening.devices, path]));
    expect_io_uring(path);
    let status: Value = serde_json::from_slice(&checked(frazil(["status", "--json", path]))).unwrap();
    let usage = checked(frazil(["usage", "--json", path]));
    checked(frazil(["sync", path]));
    let listed = String::from_utf8(checked(frazil(["subvolume", "list", path]))).unwrap();
    let target = format!("{path}/new");
    let refused = frazil(["subvolume", "create", &target]).output().unwrap();
    checked(frazil(["umount", path]));
    assert_eq!((&status["mount"]["read_only"], &status["journal"]), (&Value::from(true), &Value::Null));
    assert!(status["volume"]["space"]["used"].as_u64().unwrap() > 1 << 20);
    assert_eq!((listed.lines().count(), listed.trim_end().ends_with('/')), (1, true), "{listed}");
    assert_eq!(errors(&refused), format!("error: {target}: it is mounted read-only\n"));
    assert_eq!(usage, checked(frazil(["usage", "--json", &opening.devices])));
}

#[test]
fn what_is_no_mount_is_refused() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("below")).unwrap();
    for command in ["status", "top", "sync"] {
        assert_eq!(volume.refused(&[command, "/proc"], 1), "/proc is not a frazil mount");
        assert!(volume.refused(&[command, "/no/such"], 1).ends_with("is not a frazil mount"));
        let below = volume.refused(&[command, "@/below"], 1);
        assert!(below.ends_with(&format!("it lies in the one at {}", volume.dir())), "{below}");
        assert!(volume.refused(&[command], 2).contains(&format!("see: frazil {command} --help")));
        assert!(volume.refused(&[command, "@", "--fly"], 2).contains("--fly"));
    }
    assert!(volume.refused(&["status", "--watch=never", "@"], 2).contains("not a time"));
    assert!(volume.refused(&["top", "--interval", "0", "@"], 2).contains("not a time"));
    assert!(volume.refused(&["usage", "/proc"], 1).contains("does not lie in a frazil mount"));
    assert!(volume.refused(&["usage", "/etc/passwd"], 1).contains("not a bcachefs device"));
    assert!(volume.refused(&["usage"], 2).contains("<DIR|DEV>"));
    // However the way is written.
    let link = volume.files.path().join("link");
    std::os::unix::fs::symlink(volume.files.path(), &link).unwrap();
    for way in ["@/", "@/.", "@/below/..", "@/../mnt", &format!("{}/mnt", link.display())] {
        assert!(volume.text(&["status", way]).starts_with(&volume.dir()), "{way}");
    }
}

#[test]
fn what_was_synced_is_there_after_a_crash() {
    let mut volume = Volume::mounted();
    // Also what was changed in mapped memory; Python can map files, and Rust without unsafe cannot.
    fs::write(volume.path("mapped"), [0; 4096]).unwrap();
    let map = format!(
        "import mmap,sys\nf=open('{}','r+b')\nm=mmap.mmap(f.fileno(),4096)\nm[0:4]=b'mmap'\nprint(flush=True)\nsys.stdin.read()",
        volume.path("mapped").display()
    );
    let mut python = Command::new("python3");
    let python = python.args(["-c", &map]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.unwrap();
    python.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    fs::write(volume.path("file"), b"durable").unwrap();
    assert_eq!(volume.text(&["sync", "@"]), "");
    volume.kill();
    python.kill().unwrap();
    python.wait().unwrap();
    volume.mount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"durable");
    assert_eq!(fs::read(volume.path("mapped")).unwrap()[..5], *b"mmap\0");
    volume.umount();
}

/// The names in a directory, as the system lists them.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lost+found");
    names.sort();
    names
}

#[test]
fn the_kernel_sees_subvolumes_come_and_go() {
    let mut volume = Volume::mounted();
    let root = volume.path("");
    // The kernel believes for ever what it is told now.
    assert!(!volume.path("home").exists() && names(&root).is_empty());
    let before = fs::metadata(&root).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(volume.text(&["subvolume", "create", "@/home"]), "");
    assert_eq!(names(&root), ["home"]);
    let (home, after) = (fs::metadata(volume.path("home")).unwrap(), fs::metadata(&root).unwrap());
    assert!(home.is_dir() && home.uid() == 0 && names(&volume.path("home")).is_empty());
    assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));

    fs::write(volume.path("home/file"), b"old").unwrap();
    assert!(!volume.path("snap").exists());
    volume.text(&["subvolume", "snapshot", "-r", "@/home", "@/snap"]);
    fs::write(volume.path("home/file"), b"new").unwrap();
    assert_eq!(fs::read(volume.path("snap/file")).unwrap(), b"old");
    assert_eq!(fs::write(volume.path("snap/file"), b"x").unwrap_err().raw_os_error(), Some(30));

    let open = File::open(volume.path("snap/file")).unwrap();
    volume.text(&["subvolume", "delete", "@/snap"]);
    assert!(!volume.path("snap").exists() && names(&root) == ["home"]);
    assert_eq!(open.read_at(&mut [0; 3], 0).unwrap_err().raw_os_error(), Some(116), "it is stale");
    // The root, lost+found, and of home and its file what it shared with the snapshot beside what it has alone.
    volume.wait_for_inodes(5);
    // What the kernel may still know of the first must not be taken for the second, which has the same inodes.
    volume.text(&["subvolume", "snapshot", "@/home", "@/snap"]);
    assert_eq!(fs::read(volume.path("snap/file")).unwrap(), b"new");
    assert_eq!(open.read_at(&mut [0; 3], 0).unwrap_err().raw_os_error(), Some(116), "it is still stale");
    drop(open);
    fs::write(volume.path("snap/file"), b"differs").unwrap();
    assert_eq!(fs::read(volume.path("home/file")).unwrap(), b"new");

    let listed = volume.text(&["subvolume", "list", "--json", "@/home"]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paths: Vec<&str> = listed.iter().map(|subvolume| subvolume["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/", "/home", "/snap"]);
    assert_eq!((&listed[2]["snapshot_of"], &listed[2]["read_only"]), (&listed[1]["id"], &Value::from(false)));
    let text = volume.text(&["subvolume", "list", "@"]);
    assert!(text.lines().nth(2).unwrap().ends_with("/snap") && text.contains("of 2"), "{text}");
    volume.umount();
    volume.mount();
    assert_eq!(fs::read(volume.path("snap/file")).unwrap(), b"differs");
    volume.umount();
}

#[test]
fn subvolumes_nest_and_refusals_say_why() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("dir")).unwrap();
    fs::write(volume.path("file"), b"").unwrap();
    volume.text(&["subvolume", "create", "@/a", "@/dir/b", "@/a/c"]);
    assert!(volume.path("a/c").is_dir());
    let refused = |arguments: &[&str]| volume.refused(&[&["subvolume"][..], arguments].concat(), 1);
    for (arguments, why) in [
        (&["create", "@/a"][..], "it exists already"),
        (&["create", "@/no/such"], "No such file or directory"),
        (&["create", "@/file/x"], "not a directory"),
        (&["create", "@"], "that is the root of the volume"),
        (&["create", "/tmp/x"], "does not lie in a frazil mount"),
        (&["delete", "@/dir"], "not a subvolume"),
        (&["delete", "@/file"], "not a subvolume"),
        (&["delete", "@/absent"], "no such file or directory"),
        (&["delete", "@/a"], "directory not empty"),
        (&["delete", "@"], "that is the root of the volume"),
        (&["snapshot", "@/dir", "@/s"], "not a subvolume"),
        (&["snapshot", "@/absent", "@/s"], "No such file or directory"),
        (&["snapshot", "@/a", "@/dir"], "it exists already"),
        (&["snapshot", "/tmp", "@/s"], "does not lie in a frazil mount"),
        (&["snapshot", "@/a", "/tmp/s"], "does not lie in a frazil mount"),
        (&["list", "/proc"], "does not lie in a frazil mount"),
    ] {
        let told = refused(arguments);
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
    for arguments in [&[][..], &["fly"], &["create"], &["delete"], &["snapshot", "@/a"], &["list"]] {
        let output = volume.command(&[&["subvolume"][..], arguments].concat()).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    }
    let long = format!("@/{}", "x".repeat(600));
    assert!(refused(&["create", &long]).contains("name is too long"));
    // Of several, all that can be done are.
    let output = volume.command(&["subvolume", "delete", "@/absent", "@/a/c", "@/dir"]).output().unwrap();
    assert_eq!((output.status.code(), errors(&output).lines().count()), (Some(1), 2));
    assert!(!volume.path("a/c").exists());
    // In one volume only.
    let other = Volume::mounted();
    let told = volume.refused(&["subvolume", "snapshot", "@/a", &format!("{}/s", other.dir())], 1);
    assert!(told.ends_with("are not in the same volume"), "{told}");
}

#[test]
fn a_snapshot_of_a_tree_in_use_is_a_moment_of_it() {
    let mut volume = Volume::mounted();
    volume.text(&["subvolume", "create", "@/work"]);
    let top = volume.path("work");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Each file says how many came before it, and its name is there only when it is whole.
            for i in 0..400u32 {
                let (new, name) = (top.join("new"), top.join(format!("{i:04}")));
                fs::write(&new, i.to_string().repeat(500)).unwrap();
                fs::rename(&new, &name).unwrap();
            }
        });
        for round in 0..5 {
            volume.text(&["subvolume", "snapshot", "-r", "@/work", &format!("@/moment{round}")]);
        }
        writer.join().unwrap();
    });
    for round in 0..5 {
        let dir = volume.path(&format!("moment{round}"));
        let whole: Vec<String> = names(&dir).into_iter().filter(|name| name != "new").collect();
        for (i, name) in whole.iter().enumerate() {
            assert_eq!(*name, format!("{i:04}"), "moment {round}");
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), i.to_string().repeat(500));
        }
    }
    volume.umount();
}

#[test]
fn usage_is_the_same_mounted_or_not() {
    let files = tempfile::tempdir().unwrap();
    let images: Vec<String> =
        (0..2).map(|i| files.path().join(format!("image{i}")).display().to_string()).collect();
    checked(frazil(
        ["format", "--size", "64M", "--compression", "zstd", "--replicas", "2"]
            .into_iter()
            .chain(images.iter().map(String::as_str)),
    ));
    let dir = files.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    let (dir, devices) = (dir.to_str().unwrap(), images.join(":"));
    checked(frazil(["mount", "-o", "rw", &devices, dir]));
    expect_io_uring(dir);
    fs::write(format!("{dir}/zeros"), vec![b'a'; 1 << 20]).unwrap();
    fs::create_dir(format!("{dir}/below")).unwrap();
    let usage = |what: &str| checked(frazil(["usage", "--json", what]));
    let below = format!("{dir}/below");
    let live = [dir, &below, &devices, &images[0]].map(usage);
    let text = String::from_utf8(checked(frazil(["usage", dir]))).unwrap();
    checked(frazil(["umount", dir]));
    assert!(live.iter().all(|usage| *usage == live[0]));
    let live: Value = serde_json::from_slice(&live[0]).unwrap();
    let off: Value = serde_json::from_slice(&usage(&devices)).unwrap();
    // Writing back may need nodes.
    for what in ["total", "data", "reserved", "cached", "inodes"] {
        assert_eq!(live["space"][what], off["space"][what], "{what}");
    }
    assert_eq!((&live["uuid"], &live["compression"]), (&off["uuid"], &off["compression"]));
    let compression = &live["compression"][0];
    assert_eq!(
        (&compression["compression"], &compression["uncompressed"]),
        (&"zstd".into(), &(2 << 20).into())
    );
    assert!(compression["compressed"].as_u64().unwrap() <= 128 << 10);
    let user = |usage: &Value| {
        let replicas = usage["replicas"].as_array().unwrap().clone();
        replicas.into_iter().find(|used| used["data_type"] == "user").unwrap()
    };
    assert_eq!(user(&live), user(&off));
    assert_eq!(user(&live)["devices"], Value::from([0, 1]));
    assert_eq!(off["devices"][1]["path"], images[1]);
    assert_eq!(off["devices"][0]["size"], 64 << 20);
    for line in ["volume ", "used ", "zstd ", "user ", "extents ", "device 1 "] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
}

#[test]
fn top_is_printed_once_when_piped() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    let writer = std::thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(800) {
            fs::write(&path, b"x").unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    let text = volume.text(&["top", "--interval", "0.4", "@"]);
    writer.join().unwrap();
    let row = text.lines().find(|line| line.starts_with("write ")).unwrap_or_else(|| panic!("{text}"));
    let columns: Vec<&str> = row.split_ascii_whitespace().collect();
    assert!(columns[1].parse::<u64>().unwrap() > 10, "{row}");
    assert!(columns.contains(&"µs") || columns.contains(&"ms"), "{row}");
    assert!(text.contains("% of 2.00 MiB in use") && !text.contains('\u{1b}'), "{text}");
    volume.umount();
}

/// Nobody.
const NOBODY: u32 = 65534;

#[test]
fn only_who_serves_it_and_root_may_control_it() {
    let mut volume = Volume::mounted();
    // The program where nobody can run it.
    let program = volume.files.path().join("frazil");
    fs::copy(env!("CARGO_BIN_EXE_frazil"), &program).unwrap();
    fs::set_permissions(volume.files.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap()
    };
    let dir = volume.dir();
    let refused = as_nobody(&["status", &dir]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(errors(&refused).contains("only root and the user who mounted it"), "{}", errors(&refused));
    let new = format!("{dir}/new");
    assert!(errors(&as_nobody(&["subvolume", "create", &new])).contains("not permitted to write to"));
    volume.umount();

    // Nobody mounts it, so nobody may, and so may root; where users can mount.
    if fs::metadata("/dev/fuse").unwrap().mode() & 0o006 != 0o006 {
        return;
    }
    chown(volume.image(), Some(NOBODY), None).unwrap();
    chown(volume.path(""), Some(NOBODY), None).unwrap();
    let mounted = as_nobody(&["mount", "-o", "rw", volume.image().to_str().unwrap(), &dir]);
    assert!(mounted.status.success(), "{}", errors(&mounted));
    expect_io_uring(&dir);
    let status = as_nobody(&["status", "--json", &dir]);
    let owner: Value = serde_json::from_slice(&status.stdout).unwrap();
    let root = frazil(["status", &dir]).output().unwrap();
    let refused = as_nobody(&["subvolume", "create", &new]);
    let umounted = as_nobody(&["umount", &dir]);
    assert!(umounted.status.success(), "{}", errors(&umounted));
    assert_eq!(owner["mount"]["uid"], NOBODY);
    assert!(root.status.success(), "{}", errors(&root));
    assert!(errors(&refused).contains("not permitted to write to"), "the root directory is root's");
}
