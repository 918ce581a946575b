//! What happens when metadata turns out to be damaged while a volume is mounted (`errors=`), and when its device has no more room (`device_full=`). Needs root and
//! `/dev/fuse`.
//!
//! The b-tree of shared extents is destroyed, which nobody looks at before somebody reads a file that shares its content with another. The device without room is a file
//! with holes on a tmpfs that is smaller, or a loop device over one (losetup).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frazil_btree::Root;
use frazil_device::{Access, OpenOptions as DeviceOptions};
use frazil_ondisk::BtreeId;
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_testing::loops::FreshLoop;
use frazil_volume::{OpenOptions, open};
use rustix::fs::{StatVfsMountFlags, statvfs};

use run::{checked, errors, frazil};
use volume::Volume;

/// A limit that no step of a test that succeeds comes near.
const LONG: Duration = Duration::from_secs(20);

/// What two files share.
static CONTENT: [u8; 64 << 10] = [7; 64 << 10];

/// A volume in which what two files share is lost, and where the node is that has it.
fn damaged(format: &[&str]) -> (Volume, u64, Vec<u8>) {
    let mut volume = Volume { files: tempfile::tempdir().unwrap(), server: None };
    let image = volume.image();
    let image = image.to_str().unwrap();
    checked(frazil([&["format", "--size", "128M"], format, &[image]].concat()));
    fs::create_dir(volume.path("")).unwrap();
    volume.mount();
    fs::write(volume.path("file"), CONTENT).unwrap();
    let [from, to] = ["file", "shares"].map(|name| volume.path(name));
    let (from, to) = (fs::File::open(from).unwrap(), fs::File::create(to).unwrap());
    let shared = rustix::fs::copy_file_range(&from, None, &to, None, CONTENT.len());
    assert_eq!(shared, Ok(CONTENT.len()));
    drop((from, to));
    volume.umount();

    let device = DeviceOptions::new(Access::ReadOnly).open(&volume.image()).unwrap();
    let opened = open(vec![Arc::new(device)], OpenOptions::default()).unwrap();
    let roots = opened.btrees().roots();
    let Some(Root::At { level, key }) = roots.get(&BtreeId::REFLINK) else { panic!("no root") };
    let ptr = NodePtr::decode(BtreeId::REFLINK, *level, key.as_key()).unwrap();
    let at = ptr.ptrs().next().unwrap().offset.0 * SECTOR_BYTES;
    let file = fs::File::options().read(true).write(true).open(volume.image()).unwrap();
    let mut node = vec![0; 4096];
    file.read_exact_at(&mut node, at).unwrap();
    file.write_all_at(&[0xee; 4096], at).unwrap();
    (volume, at, node)
}

impl Volume {
    /// Reads what is lost.
    fn ask(&self) -> i32 {
        fs::read(self.path("shares")).expect_err("it is lost").raw_os_error().unwrap()
    }

    fn life(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(&self.text(&["status", "--json", "@"])).unwrap();
        status["lifecycle"].clone()
    }

    fn show_super(&self) -> String {
        let image = self.image();
        String::from_utf8(checked(frazil(["show-super", image.to_str().unwrap()]))).unwrap()
    }

    fn says(&self, name: &str, value: &str) -> bool {
        let shown = self.show_super();
        shown.lines().any(|line| line.starts_with(name) && line.ends_with(value))
    }
}

/// The volume is as it was before it was damaged, but for what was done since.
fn heal(volume: &Volume, (at, node): (u64, &[u8])) {
    fs::File::options().write(true).open(volume.image()).unwrap().write_all_at(node, at).unwrap();
}

#[test]
fn going_on_is_possible_and_remembered() {
    let (mut volume, at, node) = damaged(&[]);
    volume.mount_with("rw,errors=continue");
    assert_eq!(volume.life()["on_error"], "continue");
    assert_eq!((volume.ask(), volume.ask()), (5, 5));
    fs::write(volume.path("more"), b"more").unwrap();
    let life = volume.life();
    assert_eq!(life["state"], "read-write");
    assert!(life["error"].as_str().unwrap().contains("b-tree reflink"), "{life}");
    // It must not be called clean.
    let told = volume.refused(&["umount", "@"], 1);
    assert!(told.contains("was not marked clean"), "{told}");
    volume.server.take().unwrap().wait().unwrap();
    assert!(!volume.is_marked_clean() && volume.says("Has errors:", "1"), "{}", volume.show_super());
    assert!(volume.show_super().contains("btree_node_read_error"), "{}", volume.show_super());
    heal(&volume, (at, &node));
    volume.mount();
    assert_eq!(fs::read(volume.path("more")).unwrap(), b"more");
    assert!(fs::read(volume.path("shares")).unwrap() == CONTENT);
    volume.umount();
}

/// Damaged data is an error of exactly those bytes, whatever the policy, and is counted.
#[test]
fn damaged_data_is_no_such_error() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), CONTENT).unwrap();
    fs::write(volume.path("other"), b"other").unwrap();
    volume.umount();
    let bytes = fs::read(volume.image()).unwrap();
    let at = bytes.chunks(4096).position(|block| block == &CONTENT[..4096]).unwrap() as u64 * 4096;
    fs::File::options().write(true).open(volume.image()).unwrap().write_all_at(&[8; 512], at).unwrap();
    volume.mount_with("rw,errors=panic");
    assert_eq!(fs::read(volume.path("file")).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(fs::read(volume.path("other")).unwrap(), b"other");
    fs::write(volume.path("more"), b"more").unwrap();
    assert_eq!(volume.life()["state"], "read-write");
    volume.text(&["umount", "@"]);
    assert!(volume.server.take().unwrap().wait().unwrap().success());
    assert!(volume.is_marked_clean() && volume.says("Has errors:", "0"));
    let shown = volume.show_super();
    let counted = shown.lines().find(|line| line.trim().starts_with("checksum errors:")).unwrap();
    assert!(!counted.ends_with(" 0"), "{counted}");
}

#[test]
fn nothing_is_written_after_an_error() {
    for (format, mount) in [
        (&["-o", "errors=continue"][..], "rw,errors=ro"),
        (&["-o", "errors=ro"], "rw"),
        // What a volume says if nobody says anything.
        (&[], "rw"),
    ] {
        let (mut volume, at, node) = damaged(format);
        volume.mount_with(mount);
        fs::write(volume.path("more"), b"more").unwrap();
        volume.text(&["sync", "@"]);
        assert_eq!(volume.ask(), 5);
        assert_eq!(fs::write(volume.path("no"), b"x").unwrap_err().raw_os_error(), Some(30));
        assert_eq!(fs::read(volume.path("more")).unwrap(), b"more");
        let life = volume.life();
        assert_eq!((&life["state"], &life["on_error"]), (&"read-only, emergency".into(), &"ro".into()));
        assert!(life["error"].as_str().unwrap().contains("b-tree reflink"), "{life}");
        let begin = Instant::now();
        while !statvfs(volume.path("")).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY) {
            assert!(begin.elapsed() < LONG, "it is not shown");
        }
        // The state is final.
        assert!(volume.refused(&["freeze", "@"], 5).contains("read-only after an error"));
        let (at_image, dir) = (volume.image(), volume.dir());
        let told = volume.refused(&["mount", "-o", "remount,rw", at_image.to_str().unwrap(), &dir], 1);
        assert!(told.contains("does not follow"), "{told}");
        assert_eq!(fs::write(volume.path("no"), b"x").unwrap_err().raw_os_error(), Some(30));
        let recorded =
            || volume.says("Has errors:", "1") && volume.show_super().contains("btree_node_read_error");
        while !recorded() {
            assert!(begin.elapsed() < LONG, "{}", volume.show_super());
        }
        let image = fs::read(volume.image()).unwrap();
        assert_eq!(volume.text(&["umount", "@"]), "", "it is known");
        let server = volume.server.take().unwrap().wait_with_output().unwrap();
        assert_eq!(server.status.code(), Some(1), "{}", errors(&server));
        assert!(fs::read(volume.image()).unwrap() == image, "what was noted was the last write");
        heal(&volume, (at, &node));
        volume.mount_with("rw");
        assert_eq!(fs::read(volume.path("more")).unwrap(), b"more");
        volume.umount();
    }
}

#[test]
fn the_process_ends_at_once() {
    let (mut volume, at, node) = damaged(&["-o", "errors=panic"]);
    volume.mount_with("rw");
    fs::write(volume.path("more"), b"more").unwrap();
    volume.text(&["sync", "@"]);
    assert!([103, 107].contains(&volume.ask()), "the connection is gone");
    let mut server = volume.server.take().unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = server.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < LONG, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.signal(), Some(6), "aborted");
    assert!(volume.refused(&["umount", "@"], 1).contains("not marked clean"));
    assert!(volume.says("Has errors:", "0"), "nothing was written any more");
    heal(&volume, (at, &node));
    volume.assert_right();
    volume.mount_with("rw");
    assert_eq!(fs::read(volume.path("more")).unwrap(), b"more");
    volume.umount();
}

#[test]
fn after_an_error_the_server_can_be_killed() {
    let (mut volume, at, node) = damaged(&[]);
    volume.mount_with("rw");
    fs::write(volume.path("more"), b"more").unwrap();
    volume.text(&["sync", "@"]);
    assert_eq!((volume.ask(), &volume.life()["state"]), (5, &"read-only, emergency".into()));
    volume.kill();
    heal(&volume, (at, &node));
    volume.assert_right();
    volume.mount();
    assert_eq!(fs::read(volume.path("more")).unwrap(), b"more");
    volume.umount();
}

/// A shutdown is no error.
#[test]
fn a_shutdown_is_none() {
    let mut volume = Volume::new();
    volume.mount_with("rw,errors=panic");
    volume.text(&["shutdown", "@"]);
    assert_eq!(volume.life()["state"], "read-only, emergency");
    let mut umount = Command::new(env!("CARGO_BIN_EXE_frazil"));
    umount.arg("umount").arg(volume.path("")).output().unwrap();
    assert_eq!(volume.server.take().unwrap().wait().unwrap().signal(), None);
}

/// A filesystem in memory of a limited size, and the loop device over a file in it, if it is used by way of one.
struct Pool(PathBuf, Option<FreshLoop>);

impl Pool {
    fn grow(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-i", "-o", "remount,size=256m"]).arg(&self.0);
        checked(mount);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What a volume without room is on.
#[derive(Clone, Copy, Debug)]
enum On {
    File,
    /// A loop device that writes directly, and so tells what is missing.
    Block,
}

/// A volume of 128 MiB in 24, mounted.
fn thin(on: On, device_full: &str) -> (Volume, Pool) {
    let mut volume = Volume { files: tempfile::tempdir().unwrap(), server: None };
    let mut pool = Pool(volume.files.path().join("pool"), None);
    fs::create_dir(&pool.0).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-i", "-t", "tmpfs", "-o", "size=24m", "none"]).arg(&pool.0);
    checked(mount);
    let image = pool.0.join("image");
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    if let On::Block = on {
        let mut losetup = Command::new("losetup");
        let device = FreshLoop::add().unwrap();
        losetup.arg("--direct-io=on").arg(device.node()).arg(&image);
        checked(losetup);
        pool.1 = Some(device);
    }
    let device = pool.1.as_ref().map_or(&*image, FreshLoop::node);
    std::os::unix::fs::symlink(device, volume.image()).unwrap();
    checked(frazil(["format", device.to_str().unwrap()]));
    fs::create_dir(volume.path("")).unwrap();
    volume.mount_with(&format!("rw,device_full={device_full}"));
    fs::write(volume.path("before"), b"before").unwrap();
    volume.text(&["sync", "@"]);
    (volume, pool)
}

fn end_of_thin(volume: &mut Volume) {
    fs::write(volume.path("after"), b"after").unwrap();
    volume.text(&["umount", "@"]);
    assert!(volume.server.take().unwrap().wait().unwrap().success());
    volume.assert_right();
}

#[test]
fn a_device_without_room_is_waited_for() {
    [On::File, On::Block].into_iter().for_each(room_is_waited_for);
}

fn room_is_waited_for(on: On) {
    let (mut volume, pool) = thin(on, "wait");
    let path = volume.path("large");
    let writer = std::thread::spawn(move || fs::write(path, vec![7; 48 << 20]));
    let begin = Instant::now();
    let waits = || volume.life()["to_write"].to_string().contains("waiting for device space");
    while !waits() {
        assert!(begin.elapsed() < LONG && !writer.is_finished(), "{}", volume.life());
    }
    assert_eq!(fs::read(volume.path("before")).unwrap(), b"before");
    // A freeze is called off in time, and everything goes on.
    let told = volume.refused(&["freeze", "@", "--drain-timeout", "300ms"], 110);
    assert!(told.contains("did not come to rest in time"), "{told}");
    assert!(!writer.is_finished());
    pool.grow();
    writer.join().unwrap().unwrap();
    assert!(fs::read(volume.path("large")).unwrap() == vec![7; 48 << 20]);
    end_of_thin(&mut volume);
}

#[test]
fn a_device_without_room_may_be_an_error() {
    for on in [On::File, On::Block] {
        let (mut volume, pool) = thin(on, "fail");
        let error = fs::write(volume.path("large"), vec![7; 48 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28), "{on:?}");
        assert_eq!(fs::read(volume.path("before")).unwrap(), b"before");
        pool.grow();
        fs::write(volume.path("large"), vec![7; 48 << 20]).unwrap();
        end_of_thin(&mut volume);
    }
}

/// Small files are taken before they are written. Whoever wants them durable waits for room, and then they all are there.
#[test]
fn small_writes_wait_for_room_too() {
    let (mut volume, pool) = thin(On::Block, "wait");
    fs::write(pool.0.join("other"), vec![0; 32 << 20]).unwrap_err();
    let name = |i: u32| format!("small{i}");
    (0..100).for_each(|i| fs::write(volume.path(&name(i)), vec![i as u8; 5000]).unwrap());
    let path = volume.path(&name(99));
    let durable = std::thread::spawn(move || fs::File::open(path).unwrap().sync_all());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!durable.is_finished());
    fs::remove_file(pool.0.join("other")).unwrap();
    durable.join().unwrap().unwrap();
    // Durable is durable.
    volume.server.as_mut().unwrap().kill().unwrap();
    volume.server.take().unwrap().wait().unwrap();
    volume.refused(&["umount", "@"], 1);
    volume.mount_with("rw");
    for i in 0..100 {
        assert_eq!(fs::read(volume.path(&name(i))).unwrap(), vec![i as u8; 5000]);
    }
    end_of_thin(&mut volume);
}
