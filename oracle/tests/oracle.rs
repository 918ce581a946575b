//! The oracle itself is asked what is known: it must praise what others' code made, find what was damaged, cut the power in the
//! right moment, and leave alone what it was not allowed to change.
//!
//! These tests boot machines, so they are the last step of `./x test`.

#[path = "../../crates/posix/tests/observe/mod.rs"]
mod observe;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_oracle::{Cut, Job, Mount, Oracle, Outcome, Verdict, Writes};
use frazil_posix::Fs;
use frazil_testing::compare::Comparison;
use frazil_testing::golden::{self, GoldenImage};
use frazil_testing::manifest::{FileType, Manifest};
use frazil_testing::sha256_hex;

fn oracle() -> &'static Oracle {
    static ORACLE: OnceLock<Oracle> = OnceLock::new();
    ORACLE.get_or_init(|| Oracle::new().unwrap_or_else(|e| panic!("{e}")))
}

fn batch(jobs: impl IntoIterator<Item = Job>) -> Vec<Verdict> {
    oracle().batch(jobs).unwrap_or_else(|e| panic!("{e}"))
}

fn ask(job: Job) -> Verdict {
    batch([job]).remove(0)
}

fn hashes(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| sha256_hex(&std::fs::read(path).expect("an image can be read"))).collect()
}

#[test]
fn what_others_made_is_praised_and_left_alone() {
    let names = [
        "01-empty-initialised",
        "02-small-tree",
        "02-small-tree-bs512",
        "04-csum-meta-xxhash-data-crc32c",
        "05-compress-zstd",
        "08-crash-encrypted",
        "09-multi-replicas2",
        "10-snapshots",
        "11-reflink",
        "12-fallocate",
        "13-nocow-inline",
        "15-frozen",
    ];
    let images = names.map(golden::image);
    let before = images.each_ref().map(|image| hashes(&image.unpack_for_machine()));
    let verdicts = batch(images.iter().map(Job::golden));
    let objections: Vec<_> = verdicts.iter().flat_map(Verdict::objections).collect();
    assert_eq!(objections, Vec::<String>::new());
    for (verdict, image) in verdicts.iter().zip(&images) {
        assert_eq!((&verdict.name, &verdict.outcome), (&image.name, &Outcome::Finished));
        assert!(verdict.mounts.iter().all(|mount| mount.mounted && mount.unmounted), "{verdict:?}");
        assert!(verdict.mounts.iter().all(|mount| mount.log.len() > 5), "{verdict:?}");
        assert_eq!(verdict.mounts[1].differences, Some(Vec::new()), "{}", image.name);
        assert!(verdict.tree().unwrap().entries.len() >= image.manifest().entries.len(), "{}", image.name);
    }
    assert_eq!(images.each_ref().map(|image| hashes(&image.unpack_for_machine())), before);
}

/// Where the only node of a b-tree starts on its device, from the reference's list of nodes: `ptr: 0:BUCKET:SECTORS gen 0`.
fn node_offset_bytes(image: &GoldenImage, btree: &str, bucket_bytes: u64) -> u64 {
    let text = image.reference(&format!("nodes-{btree}")).expect("every image has the list");
    let (_, pointer) = text.split_once("ptr: 0:").expect("it begins with a pointer");
    let mut numbers = pointer.split([':', ' ']).map(|number| number.parse::<u64>());
    let mut next = || numbers.next().and_then(Result::ok).expect("a pointer has numbers");
    next() * bucket_bytes + next() * 512
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it is ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 0xff], offset).expect("it can be written");
}

#[test]
fn damage_is_found_and_no_job_keeps_the_next_from_being_asked() {
    let image = golden::image("02-small-tree");
    let damaged = ["dirents", "alloc"].map(|btree| {
        let scratch = image.scratch();
        // In the node's header, which its checksum covers (spec 10 §14).
        flip(&scratch.paths[0], node_offset_bytes(&image, btree, 128 << 10) + 100);
        (btree, scratch)
    });
    let mut other_tree = image.manifest();
    let file = other_tree.entries.iter_mut().find(|entry| entry.file_type == FileType::Reg);
    file.expect("there are files").size_bytes += 1;
    let script = |name, text| Job::new(name, image.unpack_for_machine()).mount(Mount::plain().script(text));
    let verdicts = batch([
        Job::check(damaged[0].0, &damaged[0].1.paths),
        Job::check(damaged[1].0, &damaged[1].1.paths),
        Job::check("no volume", [golden::source_root().join("Cargo.toml")]),
        Job::new("other tree", image.unpack_for_machine()).mount(Mount::plain().expect_tree(other_tree)),
        script("hangs", "sleep 1000").timeout(Duration::from_secs(8)),
        script("crashes", "echo c >/proc/sysrq-trigger"),
        Job::golden(&image),
        Job::new("orphan", golden::image("13-orphans").unpack_for_machine()).mount(Mount::fsck()),
    ]);
    let [dirents, alloc, refused, other, hangs, crashes, sound, orphan] = &verdicts[..] else {
        panic!("{verdicts:?}")
    };
    for verdict in [dirents, alloc] {
        assert!(!verdict.mounts[0].complaints().is_empty(), "{verdict:?}");
        assert!(!verdict.objections().is_empty());
    }
    assert!(!refused.mounts[0].mounted && refused.mounts[0].error.is_some(), "{refused:?}");
    assert_eq!(other.objections().len(), 1, "{:?}", other.objections());
    assert!(other.objections()[0].contains("size"), "{:?}", other.objections());
    assert!(matches!(hangs.outcome, Outcome::TimedOut(_)) && hangs.mounts[0].mounted, "{hangs:?}");
    let Outcome::Crashed(console) = &crashes.outcome else { panic!("{crashes:?}") };
    assert!(console.iter().any(|line| line.contains("Kernel panic")), "{console:#?}");
    assert_eq!(sound.objections(), Vec::<String>::new());
    // A directory that was deleted but open when the power failed; an error that is repaired even without being asked to
    // (spec 60 §7.2).
    let [found] = &orphan.mounts[0].counted[..] else { panic!("{orphan:?}") };
    assert_eq!(found.name, Some("inode_unreachable"));
    assert_eq!(orphan.mounts[0].complaints().len(), 1, "{orphan:?}");
}

/// The tree of a volume as frazil sees it compared with a manifest.
fn compare_ours(devices: &[PathBuf], manifest: &Manifest) -> Vec<String> {
    let open = |path: &PathBuf| -> Arc<dyn Device> {
        Arc::new(DeviceOptions::new(Access::ReadOnly).open(path).expect("it is ours"))
    };
    let devices = devices.iter().map(open).collect();
    let volume = frazil_volume::open(devices, frazil_volume::OpenOptions::default()).expect("it opens");
    let fs = Fs::new(Arc::new(volume));
    let mut found = Vec::new();
    let seen = observe::observe_all(&fs, &mut found);
    let read = |path: &[u8]| {
        let attr = observe::at_path(&fs, path).map_err(|e| e.to_string())?;
        observe::content(&fs, &attr).map_err(|e| e.to_string())
    };
    found.extend(Comparison::new(manifest).run(seen, read));
    found
}

const FILES: usize = 40;

#[test]
fn what_was_synced_before_a_power_cut_is_there_for_the_kernel_and_for_us() {
    let dir = tempfile::tempdir().unwrap();
    let image = golden::image("02-small-tree");
    let script = format!(
        r#"mkdir new
        i=0
        while [ $i -lt {FILES} ]; do
            seq 1 $((i * 40)) >new/file$i
            sync new/file$i
            i=$((i + 1))
        done
        sync new
        mark synced
        while :; do i=$((i + 1)); echo $i >new/later$i; done"#
    );
    let cut = ask(Job::new("cut", image.unpack_for_machine())
        .mount(Mount::plain().script(script))
        .writes(Writes::Copy(dir.path().to_path_buf()))
        .cut(Cut::at_mark("synced").delayed(Duration::from_millis(300))));
    assert_eq!(cut.outcome, Outcome::PowerCut, "{:?}", cut.objections());
    assert!(cut.mounts[0].mounted && !cut.mounts[0].unmounted && cut.mounts[0].script.is_none());
    assert_ne!(hashes(&cut.devices), hashes(&image.unpack_for_machine()));

    // The kernel recovers a copy of the same bytes that we read without recovering.
    let kernel = ask(Job::new("recovered", &cut.devices).mount(Mount::plain().walk()));
    assert_eq!(kernel.objections(), Vec::<String>::new());
    assert!(kernel.mounts[0].log.iter().any(|message| message.contains("recovering from unclean shutdown")));
    let tree = kernel.tree().unwrap();
    for i in 0..FILES {
        let text: String = (1..=i * 40).map(|n| format!("{n}\n")).collect();
        let entry =
            tree.entry(format!("new/file{i}").as_bytes()).unwrap_or_else(|| panic!("file{i} is lost"));
        assert_eq!(entry.sha256.as_deref(), Some(&*sha256_hex(text.as_bytes())), "file{i}");
    }
    assert_eq!(compare_ours(&cut.devices, tree), Vec::<String>::new());
}

#[test]
fn scripts_report_and_change_only_what_they_may() {
    let image = golden::image("01-empty-initialised");
    let (untouched, changed) = (image.scratch(), image.scratch());
    let before = hashes(&untouched.paths);
    let write = || Mount::plain().script("echo kept >file; cp file \"$OUT/copy\"; echo said; exit 3");
    let verdicts = batch([
        Job::new("discarded", &untouched.paths).mount(write()),
        Job::new("kept", &changed.paths)
            .mount(write())
            .mount(Mount::with("ro").script("#!/bin/cat\nthis text prints itself\n"))
            .mount(Mount::fsck().walk())
            .writes(Writes::InPlace),
    ]);
    let [discarded, kept] = &verdicts[..] else { panic!("{verdicts:?}") };

    let script = discarded.mounts[0].script.clone().expect("it ended");
    assert_eq!((script.status, &*script.output), (3, "said\n"));
    assert_eq!(discarded.files["copy"], b"kept\n");
    assert_eq!(discarded.objections().len(), 1, "{:?}", discarded.objections());
    assert_eq!(hashes(&untouched.paths), before);

    assert!(kept.mounts[1].script.clone().expect("it ended").output.contains("prints itself"));
    let tree = kept.tree().expect("it was walked");
    assert_eq!(tree.entry(b"file").expect("it was kept").size_bytes, 5);
    assert_eq!(kept.objections().len(), 1, "{:?}", kept.objections());
    assert_ne!(hashes(&changed.paths), before);
    assert_eq!(compare_ours(&changed.paths, tree), Vec::<String>::new());
}
