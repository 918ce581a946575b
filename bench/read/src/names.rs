//! The tree of small files: through frazil's mount, and on ext4.
//!
//! The ext4 image is made each time: as large as the golden one, by `mkfs.ext4` without options, and filled by `cp -a` from
//! frazil's mount, so the two trees are equal. Both are mounted read-only.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use frazil_bench_common::Outcome;
use frazil_testing::golden;

use crate::mounts::{Mounted, run};
use crate::table::{Row, Side, alternate, print};

/// The image: 20,000 files in one directory, then renames, deletes, links.
const GOLDEN: &str = "03-many-files";

/// What is done with the tree.
#[derive(Clone, Copy)]
enum Job {
    Readdir,
    Find,
    FindSize,
    Stat,
}

const JOBS: [(Job, &str); 4] = [
    (Job::Readdir, "readdir of the large directory"),
    (Job::Find, "`find` (names)"),
    (Job::FindSize, "`find -size +1M` (attributes of all)"),
    (Job::Stat, "stat of all names, random order"),
];

pub(crate) fn table(dir: &Path, rounds: usize) -> Outcome {
    let image = golden::image(GOLDEN).unpack_to(dir).remove(0);
    let ext4 = dir.join("ext4.img");
    let tree = copy_to_ext4(&image, &ext4)?;
    let mut rows = Vec::new();
    for (job, name) in JOBS {
        let mut cold = Row::new(format!("{name}, cold"));
        let mut warm = Row::new(format!("{name}, warm"));
        alternate(rounds, |side| {
            let mounted = Mounted::cold(side, if side == Side::Frazil { &image } else { &ext4 })?;
            for row in [&mut cold, &mut warm] {
                row.add(side, measure(job, &mounted.path(), &tree)?);
            }
            mounted.unmount()
        })?;
        rows.extend([cold, warm]);
    }
    let files = tree.names.len();
    let show = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    print(&format!("The {files} names of {GOLDEN}, beside ext4 on a loop device"), "ext4", &rows, show);
    Ok(())
}

/// What is in the tree, as paths below its root.
struct Tree {
    /// The directory with most names.
    largest: PathBuf,
    /// Everything but directories.
    names: Vec<PathBuf>,
}

fn copy_to_ext4(image: &Path, ext4: &Path) -> Outcome<Tree> {
    let golden = Mounted::cold(Side::Frazil, image)?;
    File::create(ext4)?.set_len(image.metadata()?.len())?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(ext4))?;
    let copy = Mounted::ext4(ext4, "loop")?;
    let copied = Command::new("cp").arg("-a").arg(golden.path().join(".")).arg(copy.path()).status()?;
    if !copied.success() {
        return Err("the tree could not be copied".into());
    }
    copy.unmount()?;
    let mut names = Vec::new();
    let mut largest = (0, PathBuf::new());
    collect(&golden.path(), Path::new(""), &mut names, &mut largest)?;
    fastrand::Rng::with_seed(1).shuffle(&mut names);
    golden.unmount()?;
    Ok(Tree { largest: largest.1, names })
}

/// Collects what is below a directory; `largest` is the directory with most names and their number.
fn collect(root: &Path, below: &Path, names: &mut Vec<PathBuf>, largest: &mut (usize, PathBuf)) -> Outcome {
    let mut count = 0;
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        count += 1;
        if entry.file_type()?.is_dir() {
            collect(root, &path, names, largest)?;
        } else {
            names.push(path);
        }
    }
    if count > largest.0 {
        *largest = (count, below.to_path_buf());
    }
    Ok(())
}

/// Does it once and returns the seconds.
fn measure(job: Job, root: &Path, tree: &Tree) -> Outcome<f64> {
    let begin = Instant::now();
    match job {
        Job::Readdir => {
            let mut count = 0;
            for entry in std::fs::read_dir(root.join(&tree.largest))? {
                entry?;
                count += 1;
            }
            assert!(count > 0, "the large directory has names");
        }
        Job::Find => find(root, &[])?,
        Job::FindSize => find(root, &["-size", "+1M"])?,
        Job::Stat => {
            for name in &tree.names {
                root.join(name).symlink_metadata()?;
            }
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn find(root: &Path, filter: &[&str]) -> Outcome {
    let status = Command::new("find").arg(root).args(filter).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err("find failed".into()) }
}
