//! The rules of POSIX and Linux, one by one.

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_posix::write::{Caller, NewNode, RenameMode, SetAttr, SetTime, SetXattr, WriteFs};
use frazil_posix::{Attr, Error, NodeId, Timestamp};

use crate::world::{World, front, outcome};

const ROOT: Caller<'static> = Caller { umask: 0, ..Caller::ROOT };
const ALICE: Caller<'static> = Caller { umask: 0, ..Caller::user(1000, 100) };
const BOB: Caller<'static> = Caller { groups: &[100, 300], ..Caller::user(2000, 200) };
const TOP: NodeId = NodeId::ROOT;
const DIR: NewNode<'static> = NewNode::Directory;
const FILE: NewNode<'static> = NewNode::File;

fn make(fs: &WriteFs, dir: NodeId, name: &str, what: NewNode<'_>, perm: u16, by: &Caller<'_>) -> Attr {
    front(fs).create(dir, name.as_bytes(), what, perm, by).unwrap()
}

fn set(fs: &WriteFs, node: NodeId, set: SetAttr, by: &Caller<'_>) -> Result<Attr, &'static str> {
    outcome(front(fs).setattr(node, &set, by))
}

fn perm(perm: u16) -> SetAttr {
    SetAttr { perm: Some(perm), ..SetAttr::default() }
}

fn done<T>(result: Result<T, Error>) -> Result<(), &'static str> {
    outcome(result).map(|_| ())
}

#[test]
fn names_have_limits() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let long = [b'n'; 512];
    make(fs, TOP, std::str::from_utf8(&long).unwrap(), FILE, 0o644, &ROOT);
    let create = |name: &[u8]| done(front(fs).create(TOP, name, FILE, 0o644, &ROOT));
    assert_eq!(create(&[b'n'; 513]), Err("ENAMETOOLONG"));
    assert_eq!(create(&long), Err("EEXIST"));
    assert_eq!(create(b"a/b"), Err("EINVAL"));
    assert_eq!(create(b".."), Err("EINVAL"));
    assert_eq!(create(b""), Err("ENOENT"));
    let file = fs.lookup(TOP, &long).unwrap().node;
    assert_eq!(done(front(fs).create(file, b"x", FILE, 0o644, &ROOT)), Err("ENOTDIR"));
    let nowhere = NodeId { subvol: SubvolId(1), inum: Inum(99999) };
    assert_eq!(done(front(fs).create(nowhere, b"x", FILE, 0o644, &ROOT)), Err("ESTALE"));
    let target = |len: usize| {
        let (name, target) = (format!("link {len}"), vec![b't'; len]);
        let made = outcome(front(fs).create(TOP, name.as_bytes(), NewNode::Symlink(&target), 0, &ROOT));
        made.map(|attr| assert_eq!(fs.readlink(attr.node).unwrap(), target))
    };
    for len in [1, 1024, 1025, 1996, 4095] {
        assert_eq!(target(len), Ok(()), "{len}");
    }
    assert_eq!((target(0), target(4096)), (Err("ENOENT"), Err("ENAMETOOLONG")));
    world.stop();
}

#[test]
fn directories_hand_down_group_and_options() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let dir = make(fs, TOP, "dir", DIR, 0o777, &ROOT).node;
    set(fs, dir, SetAttr { gid: Some(300), perm: Some(0o2777), ..SetAttr::default() }, &ROOT).unwrap();
    front(fs).setxattr(dir, b"bcachefs.compression", b"zstd:3", SetXattr::Any, &ROOT).unwrap();
    let sub = make(fs, dir, "sub", DIR, 0o755, &ALICE);
    assert_eq!((sub.uid, sub.gid, sub.perm), (1000, 300, 0o2755));
    let file = make(fs, dir, "file", FILE, 0o2775, &ALICE);
    assert_eq!((file.gid, file.perm), (300, 0o775), "not a member, so no set-group-id");
    assert_eq!(make(fs, dir, "bob's", FILE, 0o2775, &BOB).perm, 0o2755, "a member, and a umask");
    let option = |node, name: &[u8]| outcome(fs.getxattr(node, name));
    assert_eq!(option(sub.node, b"bcachefs.compression"), Err("ENODATA"));
    assert_eq!(option(sub.node, b"bcachefs_effective.compression"), Ok(b"zstd:3".to_vec()));
    // Where options differ, files take the new ones over and directories stay.
    let rename = |from: (NodeId, &[u8]), to| {
        done(front(fs).rename(from, (to, b"moved"), RenameMode::Replace, false, &ROOT))
    };
    assert_eq!(rename((dir, b"sub"), TOP), Err("EXDEV"));
    assert_eq!(done(front(fs).link(file.node, TOP, b"link")), Err("EXDEV"));
    assert_eq!(rename((dir, b"file"), TOP), Ok(()));
    assert_eq!(option(file.node, b"bcachefs_effective.compression"), Err("ENODATA"));
    front(fs).removexattr(dir, b"bcachefs.compression", &ROOT).unwrap();
    assert_eq!(done(front(fs).removexattr(dir, b"bcachefs.compression", &ROOT)), Err("ENODATA"));
    let bad = front(fs).setxattr(dir, b"bcachefs.compression", b"best", SetXattr::Any, &ROOT);
    assert_eq!(done(bad), Err("EINVAL"));
    let target = front(fs).setxattr(dir, b"bcachefs.foreground_target", b"nowhere", SetXattr::Any, &ROOT);
    assert_eq!(done(target), Err("EINVAL"));
    world.stop();
}

#[test]
fn attributes_belong_to_the_owner() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = make(fs, TOP, "file", FILE, 0o6755, &ALICE).node;
    assert_eq!(set(fs, file, perm(0o600), &BOB), Err("EPERM"));
    let owner = |uid| SetAttr { uid: Some(uid), ..SetAttr::default() };
    let group = |gid| SetAttr { gid: Some(gid), ..SetAttr::default() };
    assert_eq!(set(fs, file, owner(2000), &ALICE), Err("EPERM"));
    assert_eq!(set(fs, file, group(300), &ALICE), Err("EPERM"));
    front(fs).setxattr(file, b"security.capability", b"caps", SetXattr::Any, &ROOT).unwrap();
    let given = set(fs, file, owner(2000), &ROOT).unwrap();
    assert_eq!((given.uid, given.perm), (2000, 0o755), "set-id bits go");
    assert_eq!(outcome(fs.getxattr(file, b"security.capability")), Err("ENODATA"));
    assert_eq!(set(fs, file, group(300), &BOB).map(|a| a.gid), Ok(300));
    assert_eq!(set(fs, file, perm(0o2750), &BOB).map(|a| a.perm), Ok(0o2750));
    set(fs, file, group(500), &ROOT).unwrap();
    assert_eq!(set(fs, file, perm(0o2750), &BOB).map(|a| a.perm), Ok(0o750), "not in the group");
    let dir = make(fs, TOP, "dir", DIR, 0o2755, &ALICE).node;
    assert_eq!(set(fs, dir, owner(5), &ROOT).map(|a| a.perm), Ok(0o2755), "directories keep them");
    let link = make(fs, TOP, "link", NewNode::Symlink(b"x"), 0, &ALICE);
    assert_eq!((link.perm, set(fs, link.node, perm(0o600), &ROOT)), (0o777, Err("EOPNOTSUPP")));
    world.stop();
}

#[test]
fn times_are_exact() {
    let world = World::new(&[]);
    let (fs, clock) = (&world.fs, &world.clock);
    let secs = |attr: &Attr| [attr.atime.secs, attr.mtime.secs, attr.ctime.secs, attr.btime.secs];
    let t0 = clock.tick() as i64;
    let file = make(fs, TOP, "file", FILE, 0o644, &ALICE);
    assert_eq!((secs(&file), fs.getattr(TOP).unwrap().mtime.secs), ([t0; 4], t0));
    let t1 = clock.tick() as i64;
    let old = Timestamp { secs: -5, nanos: 999_999_999 };
    let times = SetAttr { atime: Some(SetTime::To(old)), mtime: Some(SetTime::Now), ..SetAttr::default() };
    assert_eq!(set(fs, file.node, times, &BOB), Err("EPERM"));
    let changed = set(fs, file.node, times, &ALICE).unwrap();
    assert_eq!((secs(&changed), changed.atime), ([-5, t1, t1, t0], old));
    let t2 = clock.tick() as i64;
    assert_eq!(secs(&set(fs, file.node, perm(0o600), &ALICE).unwrap()), [-5, t1, t2, t0]);
    let kept = SetAttr { ctime: Some(old), ..SetAttr::default() };
    assert_eq!(set(fs, file.node, kept, &ALICE).map(|a| a.ctime), Ok(old));
    let t3 = clock.tick() as i64;
    front(fs).link(file.node, TOP, b"link").unwrap();
    assert_eq!(secs(&fs.getattr(file.node).unwrap()), [-5, t1, t3, t0]);
    assert_eq!(fs.getattr(TOP).unwrap().mtime.secs, t3);
    world.stop();
}

#[test]
fn sticky_immutable_and_append_only_hold() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let dir = make(fs, TOP, "tmp", DIR, 0o1777, &ROOT).node;
    make(fs, dir, "a", FILE, 0o644, &ALICE);
    assert_eq!(done(front(fs).unlink(dir, b"a", &BOB)), Err("EPERM"));
    let to = |name: &'static [u8]| (dir, name);
    assert_eq!(done(front(fs).rename(to(b"a"), to(b"b"), RenameMode::Replace, false, &BOB)), Err("EPERM"));
    make(fs, dir, "bob's", FILE, 0o644, &BOB);
    let over = front(fs).rename(to(b"bob's"), to(b"a"), RenameMode::Replace, false, &BOB);
    assert_eq!(done(over), Err("EPERM"), "over another's");
    assert_eq!(done(front(fs).unlink(dir, b"a", &ALICE)), Ok(()));

    let flags = |flags| SetAttr { flags: Some(flags), ..SetAttr::default() };
    const IMMUTABLE: u32 = 2;
    const APPEND: u32 = 4;
    const NODUMP: u32 = 8;
    let file = make(fs, TOP, "file", FILE, 0o644, &ALICE).node;
    assert_eq!(set(fs, file, flags(IMMUTABLE), &ALICE), Err("EPERM"));
    assert_eq!(set(fs, file, flags(NODUMP), &ALICE).map(|a| a.flags), Ok(NODUMP));
    assert_eq!(set(fs, file, flags(1 << 7), &ROOT), Err("EOPNOTSUPP"));
    set(fs, file, flags(IMMUTABLE), &ROOT).unwrap();
    assert_eq!(done(front(fs).unlink(TOP, b"file", &ROOT)), Err("EPERM"));
    assert_eq!(done(front(fs).link(file, TOP, b"x")), Err("EPERM"));
    assert_eq!(set(fs, file, perm(0), &ROOT), Err("EPERM"));
    assert_eq!(done(front(fs).setxattr(file, b"user.a", b"", SetXattr::Any, &ROOT)), Err("EPERM"));
    set(fs, file, flags(0), &ROOT).unwrap();
    set(fs, dir, flags(APPEND), &ROOT).unwrap();
    make(fs, dir, "new", FILE, 0o644, &ALICE);
    assert_eq!(done(front(fs).unlink(dir, b"new", &ROOT)), Err("EPERM"));
    set(fs, dir, flags(IMMUTABLE), &ROOT).unwrap();
    assert_eq!(done(front(fs).create(dir, b"x", FILE, 0o644, &ROOT)), Err("EPERM"));
    let device = |by| done(front(fs).create(TOP, b"dev", NewNode::CharDevice(1, 3), 0o666, by));
    assert_eq!((device(&ALICE), device(&ROOT)), (Err("EPERM"), Ok(())));
    let huge = front(fs).create(TOP, b"huge", NewNode::BlockDevice(1 << 12, 0), 0o666, &ROOT);
    assert_eq!(done(huge), Err("EINVAL"));
    world.stop();
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const NOBODY: u32 = u32::MAX;

#[test]
fn access_lists_and_modes_agree() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = make(fs, TOP, "file", FILE, 0o2640, &ALICE).node;
    let list = |mask| acl(&[(1, 7, NOBODY), (2, 6, 5), (4, 4, NOBODY), (16, mask, NOBODY), (32, 1, NOBODY)]);
    let set_acl =
        |node, which, value: &[u8], by| done(front(fs).setxattr(node, which, value, SetXattr::Any, by));
    assert_eq!(set_acl(file, ACCESS, &list(6), &BOB), Err("EPERM"));
    assert_eq!(set_acl(file, ACCESS, &list(6), &ALICE), Ok(()));
    assert_eq!(fs.getattr(file).unwrap().perm, 0o2761, "the group bits are the mask");
    set(fs, file, perm(0o710), &ALICE).unwrap();
    let after = acl(&[(1, 7, NOBODY), (2, 6, 5), (4, 4, NOBODY), (16, 1, NOBODY), (32, 0, NOBODY)]);
    assert_eq!(fs.getxattr(file, ACCESS).unwrap(), after);
    assert_eq!(set_acl(file, ACCESS, &acl(&[(1, 7, NOBODY)]), &ALICE), Err("EINVAL"));
    let plain = acl(&[(1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]);
    assert_eq!(set_acl(file, ACCESS, &plain, &ALICE), Ok(()));
    assert_eq!(fs.getattr(file).unwrap().perm, 0o644);
    assert_eq!(outcome(fs.getxattr(file, ACCESS)), Err("ENODATA"));
    assert_eq!(set_acl(file, DEFAULT, &plain, &ALICE), Err("EACCES"));

    let dir = make(fs, TOP, "dir", DIR, 0o755, &ALICE).node;
    let default = acl(&[(1, 7, NOBODY), (2, 7, 5), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)]);
    assert_eq!(set_acl(dir, DEFAULT, &default, &ALICE), Ok(()));
    let masked = Caller { umask: 0o777, ..ALICE };
    let child = make(fs, dir, "child", FILE, 0o664, &masked);
    assert_eq!(child.perm, 0o660, "the list counts, not the umask");
    let cut = acl(&[(1, 6, NOBODY), (2, 7, 5), (4, 5, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)]);
    assert_eq!(fs.getxattr(child.node, ACCESS).unwrap(), cut);
    let sub = make(fs, dir, "sub", DIR, 0o777, &masked);
    assert_eq!((sub.perm, fs.getxattr(sub.node, DEFAULT).unwrap()), (0o770, default));
    let link = make(fs, dir, "link", NewNode::Symlink(b"x"), 0, &masked);
    assert_eq!(fs.listxattr(link.node).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(set_acl(link.node, ACCESS, &list(6), &ROOT), Err("EOPNOTSUPP"));
    assert_eq!(done(front(fs).removexattr(dir, DEFAULT, &ALICE)), Ok(()));
    assert_eq!(make(fs, dir, "later", FILE, 0o664, &Caller { umask: 0o022, ..ALICE }).perm, 0o644);
    world.stop();
}

#[test]
fn attributes_of_every_namespace_have_limits() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = make(fs, TOP, "file", FILE, 0o644, &ALICE).node;
    let put = |node, name: &[u8], len: usize, by| {
        done(front(fs).setxattr(node, name, &vec![7; len], SetXattr::Any, by))
    };
    assert_eq!(put(file, b"user.a", 1995, &ALICE), Ok(()));
    assert_eq!(put(file, b"user.a", 1996, &ALICE), Err("ERANGE"));
    assert_eq!(put(file, &[b"user.", &[b'x'; 251][..]].concat(), 1, &ALICE), Err("ERANGE"));
    assert_eq!(put(file, b"trusted.a", 1, &ALICE), Err("EPERM"));
    assert_eq!(put(file, b"trusted.a", 1, &ROOT), Ok(()));
    assert_eq!(put(file, b"security.a", 0, &ALICE), Ok(()));
    assert_eq!(put(file, b"system.other", 1, &ROOT), Err("EOPNOTSUPP"));
    assert_eq!(put(file, b"nonsense", 1, &ROOT), Err("EOPNOTSUPP"));
    let pipe = make(fs, TOP, "pipe", NewNode::Fifo, 0o644, &ALICE).node;
    assert_eq!(put(pipe, b"user.a", 1, &ROOT), Err("EPERM"));
    let replace = |name: &[u8]| done(front(fs).setxattr(file, name, b"2", SetXattr::Replace, &ALICE));
    assert_eq!((replace(b"user.a"), replace(b"user.b")), (Ok(()), Err("ENODATA")));
    assert_eq!(fs.getxattr(file, b"user.a").unwrap(), b"2");
    assert_eq!(put(file, b"bcachefs_effective.nocow", 1, &ALICE), Ok(()), "ignored");
    for i in 0..300 {
        assert_eq!(put(file, format!("user.many {i}").as_bytes(), 100, &ALICE), Ok(()));
    }
    assert_eq!(fs.listxattr(file).unwrap().len(), 303);
    front(fs).unlink(TOP, b"file", &ROOT).unwrap();
    world.stop();
}

#[test]
fn what_is_used_lives_on_without_a_name() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = make(fs, TOP, "file", FILE, 0o644, &ALICE).node;
    front(fs).write(file, 0, &[1; 100_000], &ALICE).unwrap();
    fs.hold(file);
    front(fs).unlink(TOP, b"file", &ALICE).unwrap();
    assert_eq!(fs.getattr(file).unwrap().nlink, 0);
    assert_eq!(done(front(fs).link(file, TOP, b"again")), Err("ENOENT"));
    assert_eq!(front(fs).remove_dead_inodes().unwrap(), 0, "it is in use");
    world.release(file);
    assert_eq!(outcome(fs.getattr(file)), Err("ESTALE"));

    let nameless = front(fs).create_nameless(TOP, 0o600, true, &ALICE).unwrap().node;
    let hidden = front(fs).create_nameless(TOP, 0o600, false, &ALICE).unwrap().node;
    assert_eq!(done(front(fs).link(hidden, TOP, b"hidden")), Err("ENOENT"));
    assert_eq!(front(fs).link(nameless, TOP, b"named").unwrap().nlink, 1);
    world.release(nameless);
    world.release(hidden);
    assert_eq!(outcome(fs.getattr(nameless)).map(|a| a.nlink), Ok(1));
    assert_eq!(outcome(fs.getattr(hidden)), Err("ESTALE"));

    let dir = make(fs, TOP, "dir", DIR, 0o755, &ALICE).node;
    fs.hold(dir);
    front(fs).rmdir(TOP, b"dir", &ALICE).unwrap();
    assert_eq!(fs.getattr(dir).unwrap().nlink, 0);
    fs.readdir(dir, 0, &mut |_| panic!("it is empty")).unwrap();
    assert_eq!(done(front(fs).create(dir, b"x", FILE, 0o644, &ALICE)), Err("ENOENT"));
    world.release(dir);
    assert_eq!(outcome(fs.getattr(dir)), Err("ESTALE"));

    let left = front(fs).create_nameless(TOP, 0o600, true, &ALICE).unwrap().node;
    world.assert_right();
    let world = world.crash();
    assert_eq!(world.front().remove_dead_inodes().unwrap(), 1);
    assert_eq!(outcome(world.fs.getattr(left)), Err("ESTALE"));
    let again = make(&world.fs, TOP, "new", FILE, 0o644, &ALICE);
    assert!(again.node == left && again.generation > 0, "what nobody holds may be anything");
    world.stop();
}

#[test]
fn a_directory_cannot_move_into_itself() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let a = make(fs, TOP, "a", DIR, 0o755, &ROOT).node;
    let b = make(fs, a, "b", DIR, 0o755, &ROOT).node;
    let c = make(fs, b, "c", DIR, 0o755, &ROOT).node;
    let rename = |from: (NodeId, &[u8]), to: (NodeId, &[u8]), mode| {
        done(front(fs).rename(from, to, mode, false, &ROOT))
    };
    assert_eq!(rename((TOP, b"a"), (c, b"x"), RenameMode::Replace), Err("EINVAL"));
    assert_eq!(rename((TOP, b"a"), (a, b"x"), RenameMode::Replace), Err("EINVAL"));
    assert_eq!(rename((b, b"c"), (TOP, b"a"), RenameMode::Replace), Err("ENOTEMPTY"));
    assert_eq!(rename((b, b"c"), (TOP, b"a"), RenameMode::Exchange), Err("EINVAL"));
    assert_eq!(rename((b, b"c"), (TOP, b"c"), RenameMode::Replace), Ok(()));
    assert_eq!((fs.getattr(b).unwrap().nlink, fs.parent(c).unwrap()), (2, TOP));
    world.stop();
}
