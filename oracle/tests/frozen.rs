//! Copies of the device of a live mount, made while it was frozen under load, over and over. Each must be right for our own check; every so many go to the real driver, which must
//! find nothing to repair; and all must hold what was made durable before.
//!
//! `FRAZIL_CYCLES=1000` makes as many, and prints how long freezing and thawing took.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mounted;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_fuse::control::{Client, HoldReport, Request, write_back};
use frazil_oracle::{Job, Mount, Oracle};
use frazil_posix::{Fs, NodeId};
use frazil_volume::check::{Severity, check};
use frazil_volume::{OpenOptions, Recovery, open};

use mounted::Mounted;

/// Copies made if nothing is said.
const CYCLES: usize = 24;
/// One of so many goes to the driver.
const ASKED: usize = 20;
/// At least so many.
const ASKED_MIN: usize = 6;
/// The name of the file that is written before each freeze.
const MARKER: &str = "marker";

/// Makes, renames and removes files in a directory, and counts how often, until told to stop.
fn change(dir: &Path, stop: &AtomicBool, rounds: &AtomicU64) {
    fs::create_dir(dir).unwrap();
    for i in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let file = |n: u32| dir.join(format!("f{}", n % 60));
        fs::write(file(i), vec![i as u8; (i as usize * 977) % 40_000]).unwrap();
        fs::rename(file(i), file(i + 31)).unwrap();
        if i.is_multiple_of(3) {
            fs::remove_file(file(i + 31)).unwrap();
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Files that are durable, with the number that is at least in each.
type Durable = Mutex<BTreeMap<String, u64>>;

/// Replaces files by new ones that are durable before anybody is told of them, until told to stop.
fn replace(top: &Path, writer: usize, stop: &AtomicBool, durable: &Durable) {
    let dir = File::open(top).unwrap();
    for i in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (new, name) = (top.join(format!("new{writer}")), format!("durable{writer}.{}", i % 20));
        let mut file = File::create(&new).unwrap();
        write!(file, "{i}").unwrap();
        file.sync_all().unwrap();
        fs::rename(&new, top.join(&name)).unwrap();
        dir.sync_all().unwrap();
        durable.lock().unwrap().insert(name, i);
    }
}

/// How long it took to freeze and to thaw.
struct Took {
    freeze: Duration,
    thaw: Duration,
}

/// Freezes, copies, thaws.
fn copy_frozen(client: &mut Client, dir: &Path, image: &Path, copy: &Path) -> Took {
    write_back(client, dir, Duration::from_secs(10)).unwrap();
    let begin = Instant::now();
    let request = Request::Freeze {
        who: "a test".into(),
        bound: true,
        share: false,
        hold_ms: Some(60_000),
        drain_ms: Some(30_000),
    };
    let hold: HoldReport = client.ask(&request).unwrap();
    let freeze = begin.elapsed();
    let copied = Command::new("cp").arg("--sparse=always").arg(image).arg(copy).status().unwrap();
    let begin = Instant::now();
    client.ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
    assert!(copied.success());
    Took { freeze, thaw: begin.elapsed() }
}

/// What a copy holds is right, as far as we can tell; whether it is marked clean.
fn check_copy(copy: &Path, marker: &str, durable: &BTreeMap<String, u64>) -> bool {
    let device = DeviceOptions::new(Access::ReadOnly).open(copy).unwrap();
    let volume = open(vec![Arc::new(device) as Arc<dyn Device>], OpenOptions::default()).unwrap();
    let clean = match volume.recovery() {
        Recovery::Clean { .. } => true,
        Recovery::Replayed { first, last, .. } if first == last => false,
        other => panic!("there is something to recover: {other:?}"),
    };
    // What was removed while somebody had it open is removed at the next start (spec 70 R5).
    let report = check(&volume);
    let wrong = report.findings.iter().filter(|f| clean || f.severity() != Severity::Pending);
    assert_eq!(wrong.map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    let fs = Fs::new(Arc::new(volume));
    let content = |name: &str| {
        let node = fs.lookup(NodeId::ROOT, name.as_bytes()).unwrap().node;
        let mut bytes = [0; 64];
        let len = fs.read(node, 0, &mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    assert_eq!(content(MARKER), marker);
    for (name, number) in durable {
        let found: u64 = content(name).parse().unwrap();
        assert!(found >= *number, "{name}: {found}, and {number} was durable");
    }
    clean
}

/// A copy for the driver, and what must be in it.
struct Asked {
    copy: PathBuf,
    marker: String,
    durable: BTreeMap<String, u64>,
}

impl Asked {
    fn job(&self) -> Job {
        let durable = self.durable.iter();
        let durable: String =
            durable.map(|(name, number)| format!(" && test \"$(cat {name})\" -ge {number}")).collect();
        let script = format!("test \"$(cat {MARKER})\" = '{}'{durable}", self.marker);
        Job::new(self.marker.clone(), [&self.copy])
            .mount(Mount::fsck().script(script))
            .mount(Mount::plain().walk())
    }
}

#[test]
fn copies_of_a_frozen_mount_are_right() {
    let cycles = std::env::var("FRAZIL_CYCLES").map_or(CYCLES, |text| text.parse().unwrap());
    let every = ASKED.min(cycles / ASKED_MIN).max(1);
    let files = tempfile::tempdir().unwrap();
    let mut mounted = Mounted::new(files.path(), 96 << 20);
    let dir = mounted.dir.clone();
    let (stop, rounds, durable) = (AtomicBool::new(false), AtomicU64::new(0), Durable::default());
    let (mut asked, mut times, mut dirty) = (Vec::new(), Vec::new(), 0);
    std::thread::scope(|scope| {
        for top in ["a", "b"] {
            let (top, stop, rounds) = (dir.join(top), &stop, &rounds);
            scope.spawn(move || change(&top, stop, rounds));
        }
        for writer in 0..2 {
            let (dir, stop, durable) = (&dir, &stop, &durable);
            scope.spawn(move || replace(dir, writer, stop, durable));
        }
        // Also if the test fails: those who write would be waited for.
        let stopping = Stop(&stop);
        for cycle in 0..cycles {
            let before = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < before + 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let marker = format!("before copy {cycle}");
            fs::write(dir.join(MARKER), &marker).unwrap();
            let is_asked = cycle % every == every - 1;
            let copy = files.path().join(if is_asked { format!("copy{cycle}") } else { "copy".into() });
            let before = durable.lock().unwrap().clone();
            times.push(copy_frozen(&mut mounted.client, &dir, &mounted.image, &copy));
            dirty += usize::from(!check_copy(&copy, &marker, &before));
            if is_asked {
                asked.push(Asked { copy, marker, durable: before });
            }
        }
        drop(stopping);
    });
    mounted.end();
    println!("{cycles} copies, {dirty} of them not marked clean because of files without a name");
    print_times("freeze", times.iter().map(|took| took.freeze).collect());
    print_times("thaw", times.iter().map(|took| took.thaw).collect());

    let verdicts = Oracle::new().unwrap().batch(asked.iter().map(Asked::job)).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|verdict| verdict.objections()).collect();
    assert_eq!((objections, verdicts.len()), (Vec::new(), asked.len()));
    println!("the driver looked at {} and found nothing to repair", verdicts.len());
}

/// Has writers end.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: median {:.1?}, 90 % {:.1?}, 99 % {:.1?}, longest {:.1?}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
