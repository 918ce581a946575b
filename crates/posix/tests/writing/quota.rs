//! Quotas: what is counted is what a new count would find, and limits are kept.

use std::collections::BTreeMap;

use frazil_ondisk::values::quota::{Limit, Quota};
use frazil_posix::write::{
    Allocate, Caller, NewNode, QuotaChoice, QuotaKind, QuotaKinds, QuotaReport, RenameMode, SetAttr, WriteFs,
    WriteFsOptions,
};
use frazil_posix::{Attr, NodeId};

use crate::world::{World, front, outcome};

const ROOT: Caller<'static> = Caller { umask: 0, ..Caller::ROOT };
const ALICE: Caller<'static> = Caller { umask: 0, ..Caller::user(1000, 100) };
const TOP: NodeId = NodeId::ROOT;
const ON: [(&str, &str); 3] = [("usrquota", "1"), ("grpquota", "1"), ("prjquota", "1")];
const FILE: NewNode<'static> = NewNode::File;

fn make(world: &World, dir: NodeId, name: &str, by: &Caller<'_>) -> Result<Attr, &'static str> {
    outcome(world.front().create(dir, name.as_bytes(), FILE, 0o644, by))
}

fn used(fs: &WriteFs) -> BTreeMap<(QuotaKind, u32), (u64, u64)> {
    let used = |report: QuotaReport| ((report.kind, report.id), (report.space.used, report.inodes.used));
    fs.quotas().into_iter().map(used).collect()
}

/// What is counted is what somebody who counts anew finds.
#[track_caller]
fn assert_counted(world: &World) {
    let options = WriteFsOptions::new(world.clock.clone(), 1);
    let anew = WriteFs::new(world.live.clone(), options).unwrap();
    assert_eq!(used(&world.fs), used(&anew));
}

fn limits(space: Limit, inodes: Limit) -> Quota {
    Quota { space, inodes }
}

fn hard(hard: u64) -> Limit {
    Limit { hard, soft: 0 }
}

#[test]
fn whatever_is_done_is_counted() {
    let world = World::new(&ON);
    let fs = &world.fs;
    let dir = front(fs).create(TOP, b"dir", NewNode::Directory, 0o777, &ALICE).unwrap().node;
    let file = make(&world, dir, "file", &ALICE).unwrap().node;
    front(fs).write(file, 0, &[1; 300_000], &ALICE).unwrap();
    assert_counted(&world);
    assert_eq!(used(fs)[&(QuotaKind::User, 1000)], (303_104 / 512, 2));
    front(fs).write(file, 100_000, &[2; 100_000], &ALICE).unwrap();
    front(fs).truncate(file, 150_000, &ALICE).unwrap();
    front(fs).allocate(file, 0..1 << 20, Allocate::Reserve { keep_size: true }, &ALICE).unwrap();
    front(fs).allocate(file, 0..50_000, Allocate::Punch, &ALICE).unwrap();
    assert_counted(&world);
    let clone = make(&world, dir, "clone", &ALICE).unwrap().node;
    front(fs).clone_range(file, 0..131_072, clone, 0, &ALICE).unwrap();
    front(fs).create(dir, b"link", NewNode::Symlink(&[b'x'; 3000]), 0, &ALICE).unwrap();
    front(fs).link(file, TOP, b"again").unwrap();
    assert_counted(&world);
    let given = SetAttr { uid: Some(7), gid: Some(8), project: Some(9), ..SetAttr::default() };
    front(fs).setattr(file, &given, &ROOT).unwrap();
    assert_counted(&world);
    assert_eq!(used(fs)[&(QuotaKind::Project, 9)].1, 1);
    // What is replaced, held without a name, and removed in steps.
    fs.hold(clone);
    front(fs).rename((dir, b"link"), (dir, b"clone"), RenameMode::Replace, false, &ALICE).unwrap();
    assert_counted(&world);
    world.release(clone);
    front(fs).unlink(dir, b"file", &ALICE).unwrap();
    assert_counted(&world);
    front(fs).unlink(TOP, b"again", &ALICE).unwrap();
    assert!(!used(fs).contains_key(&(QuotaKind::User, 7)));
    let nameless = front(fs).create_nameless(TOP, 0o600, true, &ALICE).unwrap().node;
    front(fs).write(nameless, 0, &[3; 9000], &ALICE).unwrap();
    assert_counted(&world);
    world.release(nameless);
    front(fs).unlink(dir, b"clone", &ALICE).unwrap();
    front(fs).rmdir(TOP, b"dir", &ALICE).unwrap();
    assert_counted(&world);
    assert!(!used(fs).contains_key(&(QuotaKind::User, 1000)));
    world.stop();
}

#[test]
fn snapshots_do_not_count_and_subvolumes_do() {
    let world = World::new(&ON);
    let fs = &world.fs;
    let sub = front(fs).create_subvolume(TOP, b"sub", 0o777, &ALICE).unwrap().node;
    let file = make(&world, sub, "file", &ALICE).unwrap().node;
    front(fs).write(file, 0, &[1; 100_000], &ALICE).unwrap();
    let other = make(&world, sub, "other", &ALICE).unwrap().node;
    let before = used(fs);
    assert_eq!(before[&(QuotaKind::User, 1000)].1, 3);
    let snap = front(fs).create_snapshot(sub.subvol, TOP, b"snap", false, &ALICE).unwrap().node;
    assert_counted(&world);
    assert_eq!(used(fs), before);
    // The subvolume's changes count, the snapshot's do not.
    front(fs).write(file, 0, &[2; 200_000], &ALICE).unwrap();
    front(fs).unlink(sub, b"other", &ALICE).unwrap();
    front(fs).write(NodeId { subvol: snap.subvol, ..other }, 0, &[2; 400_000], &ALICE).unwrap();
    make(&world, snap, "its own", &ALICE).unwrap();
    assert_counted(&world);
    assert_eq!(used(fs)[&(QuotaKind::User, 1000)], (200_704 / 512, 2));
    front(fs).delete_subvolume(TOP, b"snap", &ALICE).unwrap();
    assert_counted(&world);
    world.delete_unlinked();
    assert_counted(&world);
    front(fs).delete_subvolume(TOP, b"sub", &ALICE).unwrap();
    assert_counted(&world);
    assert!(!used(fs).contains_key(&(QuotaKind::User, 1000)));
    world.delete_unlinked();
    assert_counted(&world);
    world.stop();
}

#[test]
fn the_snapshot_that_takes_the_place_of_its_subvolume_counts() {
    let world = World::new(&ON);
    let fs = &world.fs;
    let sub = front(fs).create_subvolume(TOP, b"sub", 0o777, &ALICE).unwrap().node;
    let file = make(&world, sub, "file", &ALICE).unwrap().node;
    front(fs).write(file, 0, &[1; 100_000], &ALICE).unwrap();
    let snap = front(fs).create_snapshot(sub.subvol, TOP, b"snap", false, &ALICE).unwrap().node;
    front(fs).create_snapshot(snap.subvol, TOP, b"snap 2", true, &ALICE).unwrap();
    let file = NodeId { subvol: snap.subvol, ..file };
    front(fs).delete_subvolume(TOP, b"sub", &ALICE).unwrap();
    assert!(!used(fs).contains_key(&(QuotaKind::User, 1000)));
    // Somebody changes it all the time.
    std::thread::scope(|scope| {
        let world = &world;
        let writer = scope.spawn(move || {
            for i in 0..200 {
                front(&world.fs).write(file, i * 4096, &[2; 4096], &ALICE).unwrap();
                make(world, snap, &format!("new {i}"), &ALICE).unwrap();
            }
        });
        world.delete_unlinked();
        writer.join().unwrap();
    });
    assert_counted(&world);
    assert_eq!(used(fs)[&(QuotaKind::User, 1000)], (200 * 8, 202));
    front(fs).delete_subvolume(TOP, b"snap", &ALICE).unwrap();
    world.delete_unlinked();
    assert_counted(&world);
    assert_eq!(used(fs)[&(QuotaKind::User, 1000)], (102_400 / 512, 2));
    world.stop();
}

#[test]
fn hard_limits_are_kept_also_after_a_crash() {
    let mut world = World::new(&ON);
    let dir = world.front().create(TOP, b"dir", NewNode::Directory, 0o777, &ROOT).unwrap().node;
    let set = |world: &World, kind, id, quota: Quota| {
        world.front().set_quota(kind, id, Some(quota.space), Some(quota.inodes)).unwrap();
    };
    set(&world, QuotaKind::User, 1000, limits(hard(200), hard(3)));
    for _ in 0..2 {
        let file = make(&world, dir, "a", &ALICE).unwrap().node;
        let write =
            |at: u64, len: usize, by: &Caller<'_>| outcome(world.front().write(file, at, &vec![1; len], by));
        assert_eq!(write(0, 65_536, &ALICE), Ok(65_536));
        assert_eq!(write(65_536, 65_536, &ALICE), Err("EDQUOT"));
        assert_eq!(write(0, 65_536, &ALICE), Ok(65_536), "what takes no more is no more");
        assert_eq!(write(65_536, 4096, &ALICE), Ok(4096));
        let reserve =
            world.front().allocate(file, 0..1 << 20, Allocate::Reserve { keep_size: false }, &ALICE);
        assert_eq!(outcome(reserve), Err("EDQUOT"));
        assert_eq!(make(&world, dir, "b", &ALICE).map(drop), Ok(()));
        assert_eq!(make(&world, dir, "c", &ALICE).map(drop), Ok(()));
        assert_eq!(make(&world, dir, "d", &ALICE).map(drop), Err("EDQUOT"));
        let link = world.front().create(dir, b"d", NewNode::Symlink(b"x"), 0, &ALICE);
        assert_eq!(outcome(link.map(drop)), Err("EDQUOT"));
        // The privileged are not limited, and what they do counts.
        assert_eq!(write(65_536, 500_000, &ROOT), Ok(500_000));
        assert_counted(&world);
        // Who is over may still use less.
        assert_eq!(outcome(world.front().truncate(file, 100_000, &ALICE)), Ok(()));
        for name in [&b"a"[..], b"b", b"c"] {
            world.front().unlink(dir, name, &ALICE).unwrap();
        }
        assert_counted(&world);
        world = world.crash();
        assert_counted(&world);
    }
    set(&world, QuotaKind::User, 1000, Quota::default());
    assert!(world.fs.quotas().iter().all(|report| report.id != 1000));
    let file = make(&world, dir, "a", &ALICE).unwrap().node;
    assert_eq!(outcome(world.front().write(file, 0, &[1; 200_000], &ALICE)), Ok(200_000));
    // The group's limit, and the project's.
    set(&world, QuotaKind::Group, 100, limits(hard(0), hard(1)));
    assert_eq!(make(&world, dir, "b", &ALICE).map(drop), Err("EDQUOT"));
    set(&world, QuotaKind::Group, 100, Quota::default());
    set(&world, QuotaKind::Project, 5, limits(hard(100), hard(0)));
    let mine = SetAttr { project: Some(5), ..SetAttr::default() };
    assert_eq!(outcome(world.front().setattr(file, &mine, &ALICE).map(drop)), Err("EDQUOT"));
    world.front().truncate(file, 0, &ALICE).unwrap();
    assert_eq!(outcome(world.front().setattr(file, &mine, &ALICE).map(drop)), Ok(()));
    assert_eq!(outcome(world.front().write(file, 0, &[1; 200_000], &ALICE)), Err("EDQUOT"));
    world.stop();
}

#[test]
fn soft_limits_hold_after_the_grace_period() {
    let world = World::new(&ON);
    let dir = world.front().create(TOP, b"dir", NewNode::Directory, 0o777, &ROOT).unwrap().node;
    world.front().set_quota(QuotaKind::User, 1000, None, Some(Limit { hard: 10, soft: 2 })).unwrap();
    let over = |world: &World| {
        let reports = world.fs.quotas();
        let alice = reports.iter().find(|r| (r.kind, r.id) == (QuotaKind::User, 1000));
        alice.is_some_and(|report| report.inodes.over_since.is_some())
    };
    let pass = |seconds: u64| (0..seconds).for_each(|_| assert!(world.clock.tick() > 0));
    for name in ["a", "b"] {
        make(&world, dir, name, &ALICE).unwrap();
    }
    assert!(!over(&world));
    make(&world, dir, "c", &ALICE).unwrap();
    assert!(over(&world));
    pass(604_799);
    assert_eq!(make(&world, dir, "d", &ALICE).map(drop), Ok(()));
    pass(1);
    assert_eq!(make(&world, dir, "e", &ALICE).map(drop), Err("EDQUOT"));
    // Below it again, a new period begins with the next time.
    for name in [&b"c"[..], b"d"] {
        world.front().unlink(dir, name, &ALICE).unwrap();
    }
    assert!(!over(&world));
    assert_eq!(make(&world, dir, "e", &ALICE).map(drop), Ok(()));
    world.stop();
}

#[test]
fn many_at_once_never_exceed_a_limit_together() {
    let world = World::new(&ON);
    let dir = world.front().create(TOP, b"dir", NewNode::Directory, 0o777, &ROOT).unwrap().node;
    world.front().set_quota(QuotaKind::User, 1000, None, Some(hard(50))).unwrap();
    let made: usize = std::thread::scope(|scope| {
        let work = |t: usize| {
            let world = &world;
            move || (0..40).filter(|i| make(world, dir, &format!("{t} {i}"), &ALICE).is_ok()).count()
        };
        let threads: Vec<_> = (0..4).map(|t| scope.spawn(work(t))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 50);
    assert_counted(&world);
    world.stop();
}

#[test]
fn without_the_option_nothing_is_limited() {
    let world = World::new(&[]);
    let set = world.front().set_quota(QuotaKind::User, 1000, Some(hard(1)), Some(hard(1)));
    assert_eq!(outcome(set), Err("EOPNOTSUPP"));
    for name in ["a", "b"] {
        make(&world, TOP, name, &ALICE).unwrap();
    }
    assert!(world.fs.quotas().is_empty());
    // Unless who opens it says otherwise, which is true for him only.
    let quotas = QuotaChoice([Some(true), None, Some(false)]);
    let options = WriteFsOptions { quotas, ..WriteFsOptions::new(world.clock.clone(), 1) };
    let limited = WriteFs::new(world.live.clone(), options).unwrap();
    assert_eq!(limited.quota_kinds(), QuotaKinds([true, false, false]));
    assert_eq!(used(&limited)[&(QuotaKind::User, 1000)], (0, 2));
    front(&limited).set_quota(QuotaKind::User, 1000, None, Some(hard(2))).unwrap();
    assert_eq!(outcome(front(&limited).create(TOP, b"c", FILE, 0o644, &ALICE)).err(), Some("EDQUOT"));
    drop(limited);
    make(&world, TOP, "c", &ALICE).unwrap();
    world.stop();
    let world = World::new(&ON);
    let quotas = QuotaChoice([Some(false), None, None]);
    let options = WriteFsOptions { quotas, ..WriteFsOptions::new(world.clock.clone(), 1) };
    let fewer = WriteFs::new(world.live.clone(), options).unwrap();
    assert_eq!(fewer.quota_kinds(), QuotaKinds([false, true, true]));
}
