//! One volume, changed in turns by us and by the real driver. Whenever it changes hands both must see the same tree, the driver's check must be
//! silent, and so must ours. Every other turn of ours ends as if the power had failed.
//!
//! `FRAZIL_TURNS=n` sets how many turns each has (3 if not), `FRAZIL_SEED=n` what happens in them.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a panic is how a test fails; what is shared is public"
)]

mod same_tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_oracle::{Job, Mount, Oracle, Outcome, Writes};
use frazil_posix::NodeId;
use frazil_posix::write::{Allocate, Caller, Front, NewNode, RenameMode, SetXattr, WriteFs, WriteFsOptions};
use frazil_volume::build::{FormatOptions, NewDevice, format};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Volume, open};

use same_tree::assert_same_tree;

const DEVICE_BYTES: u64 = 192 << 20;
const DIRS: usize = 4;
const NAMES: usize = 24;
/// Changes in one turn of ours.
const CHANGES: usize = 300;

fn device(path: &Path, access: Access) -> Arc<dyn Device> {
    Arc::new(DeviceOptions::new(access).create_bytes(DEVICE_BYTES).open(path).unwrap())
}

fn read(path: &Path) -> Volume {
    open(vec![device(path, Access::ReadOnly)], OpenOptions::default()).unwrap()
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Opens the volume, changes it at random, and leaves it, cleanly or not.
fn our_turn(path: &Path, seed: u64, clean: bool) {
    let foundation =
        open_rw(vec![device(path, Access::ReadWrite)], OpenOptions::default(), &WriteOptions::default());
    let engine = EngineOptions { seed, restart_one_in: 50 };
    let options = LiveOptions { engine, cache_bytes: 32 << 20, threads: true };
    let live = Live::start(foundation.unwrap(), &options).unwrap();
    let fs = WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), seed)).unwrap();
    let front = fs.front(FrontKind::Background).unwrap();
    front.finish_interrupted().unwrap();
    front.remove_dead_inodes().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let dirs: Vec<NodeId> = (0..DIRS).map(|n| directory(&front, &format!("dir{n}"))).collect();
    for _ in 0..CHANGES {
        change(&front, &dirs, &mut rng);
    }
    drop(front);
    if clean {
        fs.live().stop().unwrap();
    } else {
        fs.sync().unwrap();
        fs.live().journal().halt(frazil_journal::engine::HaltReason::Requested("the power fails".to_owned()));
    }
}

fn directory(fs: &Front<'_>, name: &str) -> NodeId {
    match fs.lookup(NodeId::ROOT, name.as_bytes()) {
        Ok(found) => found.node,
        Err(_) => {
            let made = fs.create(NodeId::ROOT, name.as_bytes(), NewNode::Directory, 0o755, &Caller::ROOT);
            made.unwrap().node
        }
    }
}

fn pick(dirs: &[NodeId], rng: &mut fastrand::Rng) -> (NodeId, Vec<u8>) {
    (dirs[rng.usize(0..dirs.len())], format!("name{}", rng.usize(0..NAMES)).into_bytes())
}

/// One change; what is not possible is not done.
fn change(fs: &Front<'_>, dirs: &[NodeId], rng: &mut fastrand::Rng) {
    let root = &Caller::ROOT;
    let (dir, name) = pick(dirs, rng);
    let found = fs.lookup(dir, &name).ok().map(|attr| attr.node);
    let (at, len) = (rng.u64(0..300_000), rng.usize(1..80_000));
    let data: Vec<u8> = (0..len).map(|i| if len % 2 == 0 { (i / 100) as u8 } else { rng.u8(..) }).collect();
    match (rng.u32(0..12), found) {
        (0, None) => drop(fs.create(dir, &name, NewNode::Symlink(b"somewhere/else"), 0o777, root).unwrap()),
        (1, None) => drop(fs.create(dir, &name, NewNode::Fifo, 0o600, root).unwrap()),
        (2, None) => drop(fs.create(dir, &name, NewNode::Directory, 0o2775, root).unwrap()),
        (_, None) => {
            let file = fs.create(dir, &name, NewNode::File, 0o644, root).unwrap().node;
            fs.write(file, at, &data, root).unwrap();
        }
        (0..3, Some(file)) => drop(fs.write(file, at, &data, root)),
        (3, Some(file)) => drop(fs.truncate(file, at, root)),
        (4, Some(file)) => drop(fs.allocate(file, at..at + len as u64, Allocate::Punch, root)),
        (5, Some(file)) => {
            let how = if rng.bool() { Allocate::Insert } else { Allocate::Collapse };
            drop(fs.allocate(file, at / 4096 * 4096..at / 4096 * 4096 + 8192, how, root));
        }
        (6, Some(_)) => drop(fs.unlink(dir, &name, root)),
        (7, Some(_)) => drop(fs.rmdir(dir, &name, root)),
        (8, Some(file)) => {
            let (to, new) = pick(dirs, rng);
            drop(fs.link(file, to, &new));
        }
        (9, Some(_)) => {
            let (to, new) = pick(dirs, rng);
            drop(fs.rename((dir, &name), (to, &new), RenameMode::Replace, false, root));
        }
        (10, Some(file)) => {
            let attribute = format!("user.a{}", rng.u32(0..4)).into_bytes();
            let value = &data[..len.min(200)];
            drop(fs.setxattr(file, &attribute, value, SetXattr::Any, root));
        }
        (_, Some(file)) => {
            let (to, new) = pick(dirs, rng);
            let Ok(target) = fs.lookup(to, &new) else { return };
            let size = fs.getattr(file).unwrap().size;
            drop(fs.clone_range(file, 0..size, target.node, at / 4096 * 4096, root));
        }
    }
}

/// What the driver does in its turn, with the tools its guest has.
const THEIR_TURN: &str = r#"
i=0
for d in dir*; do
    i=$((i + 1))
    echo "turn $TURN" >>"$d/their$i"
    seq 1 $((TURN * 400)) >"$d/numbers$TURN"
    [ -e "$d/numbers$((TURN - 2))" ] && rm "$d/numbers$((TURN - 2))"
    for f in "$d"/name*; do
        case $f in
            *1) [ -f "$f" ] && dd if=/dev/urandom of="$f" bs=1000 seek=$TURN count=20 conv=notrunc 2>/dev/null ;;
            *5) [ -f "$f" ] && [ ! -L "$f" ] && rm -f "$f" ;;
            *7) [ -f "$f" ] && [ ! -L "$f" ] && mv "$f" "$d/moved$TURN" ;;
        esac
    done
done
sync
"#;

#[test]
fn a_volume_changes_hands() {
    let (turns, seed) = (number("FRAZIL_TURNS", 3), number("FRAZIL_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let image: PathBuf = dir.path().join("volume");
    let new = NewDevice::new(device(&image, Access::ReadWrite));
    format(vec![new], &FormatOptions::default()).unwrap();
    let oracle = Oracle::new().unwrap();
    for turn in 1..=turns {
        our_turn(&image, seed * 1000 + turn, turn % 2 == 1);
        let before = dir.path().join(format!("before{turn}"));
        std::fs::copy(&image, &before).unwrap();
        let script = format!("TURN={turn}\n{THEIR_TURN}");
        let job = Job::new(format!("turn {turn}"), [&image])
            .writes(Writes::InPlace)
            .mount(Mount::fsck().walk())
            .mount(Mount::plain().script(script))
            .mount(Mount::fsck().walk());
        let verdict = oracle.ask(job).unwrap();
        assert_eq!(verdict.objections(), Vec::<String>::new(), "turn {turn}");
        assert_eq!(verdict.outcome, Outcome::Finished);
        let [first, .., last] = &verdict.mounts[..] else { panic!("{verdict:?}") };
        assert_same_tree(read(&before), first.tree.as_ref().unwrap(), &format!("turn {turn}, after ours"));
        assert_same_tree(read(&image), last.tree.as_ref().unwrap(), &format!("turn {turn}, after theirs"));
        std::fs::remove_file(&before).unwrap();
    }
}
