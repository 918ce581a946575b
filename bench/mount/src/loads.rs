//! What is done to a mounted volume, and how fast it was.
//!
//! The loads build on each other: what the first ones make the next ones change, and the last ones remove. Names first, in the order in which they are
//! listed, then the content of one large file. Whoever may collect changes in memory is not made to write them down, except where a
//! load says "and sync": the kernel's filesystems keep what a storm changed for seconds, and so do we.

use frazil_bench_common::Outcome;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::peers::run;

const MIB: usize = 1 << 20;
/// A small read or write.
const BLOCK: usize = 4096;
/// Files in a directory of the storms.
const FILES_PER_DIR: usize = 1000;
/// fuse2fs takes some milliseconds to rename a file; longer than this nobody waits for it.
const RENAMING_MAX: Duration = Duration::from_secs(15);
/// A file that is overwritten and flushed again and again.
const FLUSHED_BYTES: u64 = 16 << 20;

/// How much of everything.
pub(crate) struct Scale {
    /// Files in the storms.
    files: usize,
    /// Files in the archive.
    tree_files: usize,
    /// Size of the large file.
    large_bytes: u64,
    /// Small reads, and small writes, at random places.
    random: u64,
    /// How long is written and flushed.
    flushing: Duration,
}

impl Scale {
    pub(crate) const FULL: Scale = Scale {
        files: 20_000,
        tree_files: 8000,
        large_bytes: 768 << 20,
        random: 20_000,
        flushing: Duration::from_secs(2),
    };
    pub(crate) const QUICK: Scale = Scale {
        files: 2000,
        tree_files: 800,
        large_bytes: 128 << 20,
        random: 2000,
        flushing: Duration::from_millis(200),
    };
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    Create,
    Stat,
    StatCold,
    Rename,
    Unlink,
    Untar,
    UntarSync,
    TreeCold,
    Tree,
    Remove,
    RemoveCold,
    Write,
    ReadCold,
    RandomReadCold,
    RandomWrite,
    Overwrite1,
    Overwrite8,
    Append1,
    Append8,
}

impl Load {
    pub(crate) const ALL: [Load; 19] = [
        Load::Create,
        Load::Stat,
        Load::StatCold,
        Load::Rename,
        Load::Unlink,
        Load::Untar,
        Load::UntarSync,
        Load::TreeCold,
        Load::Tree,
        Load::Remove,
        Load::RemoveCold,
        Load::Write,
        Load::ReadCold,
        Load::RandomReadCold,
        Load::RandomWrite,
        Load::Overwrite1,
        Load::Overwrite8,
        Load::Append1,
        Load::Append8,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Create => "create",
            Load::Stat => "stat, random order",
            Load::StatCold => "stat, random order, cold",
            Load::Rename => "rename",
            Load::Unlink => "unlink",
            Load::Untar => "untar",
            Load::UntarSync => "untar and sync",
            Load::TreeCold => "tree read, cold",
            Load::Tree => "tree read",
            Load::Remove => "rm -r",
            Load::RemoveCold => "rm -r, cold",
            Load::Write => "sequential write of 1 MiB each and fsync",
            Load::ReadCold => "sequential read of 1 MiB each, cold",
            Load::RandomReadCold => "random read of 4 KiB each, cold",
            Load::RandomWrite => "random write of 4 KiB each and fsync",
            Load::Overwrite1 => "overwrite of 4 KiB + fsync each, 1 thread",
            Load::Overwrite8 => "overwrite of 4 KiB + fsync each, 8 threads",
            Load::Append1 => "append of 4 KiB + fsync each, 1 thread",
            Load::Append8 => "append of 4 KiB + fsync each, 8 threads",
        }
    }

    /// Whether it begins with a new mount.
    pub(crate) fn is_cold(self) -> bool {
        matches!(
            self,
            Load::StatCold | Load::TreeCold | Load::RemoveCold | Load::ReadCold | Load::RandomReadCold
        )
    }

    pub(crate) fn is_about_names(self) -> bool {
        self.in_order() <= Load::RemoveCold.in_order()
    }

    fn in_order(self) -> usize {
        self as usize
    }

    /// Whether a row with this word in its name needs it: itself, or what makes its files.
    pub(crate) fn is_needed_for(self, word: &str) -> bool {
        let wanted = |load: &Load| load.name().contains(word);
        let makes: &[Load] = match self {
            Load::Create => &[Load::Stat, Load::StatCold, Load::Rename, Load::Unlink],
            Load::Rename => &[Load::Unlink],
            Load::Untar => &[Load::TreeCold, Load::Tree, Load::Remove],
            Load::UntarSync => &[Load::RemoveCold],
            Load::Write => &[Load::ReadCold, Load::RandomReadCold, Load::RandomWrite],
            _ => &[],
        };
        wanted(&self) || makes.iter().any(wanted)
    }

    /// A speed as it is shown.
    pub(crate) fn show(self, per_second: f64) -> String {
        match self {
            Load::Write | Load::ReadCold => format!("{:.0} MB/s", per_second / 1e6),
            _ if per_second >= 10_000.0 => format!("{:.0}k/s", per_second / 1e3),
            _ if per_second >= 1000.0 => format!("{:.1}k/s", per_second / 1e3),
            _ => format!("{per_second:.0}/s"),
        }
    }

    /// Does it, and returns how many operations, files or bytes it did in a second.
    pub(crate) fn run(self, root: &Path, scale: &Scale, tree: &Tree) -> Outcome<f64> {
        let begin = Instant::now();
        let done = match self {
            Load::Create => create(root, scale)?,
            Load::Stat | Load::StatCold => stat(root, scale)?,
            Load::Rename => rename(root, scale)?,
            Load::Unlink => unlink(root, scale)?,
            Load::Untar => tree.unpack(root, "tree-1")?,
            Load::UntarSync => {
                let files = tree.unpack(root, "tree-2")?;
                rustix::fs::syncfs(File::open(root)?)?;
                files
            }
            Load::TreeCold | Load::Tree => read_tree(&root.join("tree-1"), &mut vec![0; MIB])?,
            Load::Remove => remove(&root.join("tree-1"), tree)?,
            Load::RemoveCold => remove(&root.join("tree-2"), tree)?,
            Load::Write => write(&root.join("large"), scale)?,
            Load::ReadCold => read(&root.join("large"), scale)?,
            Load::RandomReadCold => random_read(&root.join("large"), scale)?,
            Load::RandomWrite => random_write(&root.join("large"), scale)?,
            Load::Overwrite1 => return flush(root, 1, Durable::Overwrite, scale),
            Load::Overwrite8 => return flush(root, 8, Durable::Overwrite, scale),
            Load::Append1 => return flush(root, 1, Durable::Append, scale),
            Load::Append8 => return flush(root, 8, Durable::Append, scale),
        };
        Ok(done as f64 / begin.elapsed().as_secs_f64())
    }
}

fn storm_dir(root: &Path, number: usize) -> PathBuf {
    root.join(format!("dir-{number}"))
}

fn storm_file(root: &Path, number: usize) -> PathBuf {
    storm_dir(root, number / FILES_PER_DIR).join(format!("file-{number}"))
}

fn renamed_file(root: &Path, number: usize) -> PathBuf {
    storm_dir(root, number / FILES_PER_DIR).join(format!("renamed-{number}"))
}

fn create(root: &Path, scale: &Scale) -> Outcome<u64> {
    for number in 0..scale.files {
        if number.is_multiple_of(FILES_PER_DIR) {
            fs::create_dir(storm_dir(root, number / FILES_PER_DIR))?;
        }
        File::create_new(storm_file(root, number))?;
    }
    Ok(scale.files as u64)
}

/// With stat(2), like `ls`, `find` and `git`. Rust's own function asks for the time of creation, too, which the kernel does not get with a name.
fn stat(root: &Path, scale: &Scale) -> Outcome<u64> {
    let mut order: Vec<usize> = (0..scale.files).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    for &number in &order {
        rustix::fs::lstat(storm_file(root, number))?;
    }
    Ok(order.len() as u64)
}

fn rename(root: &Path, scale: &Scale) -> Outcome<u64> {
    let begin = Instant::now();
    for number in 0..scale.files {
        if begin.elapsed() > RENAMING_MAX {
            return Ok(number as u64);
        }
        fs::rename(storm_file(root, number), renamed_file(root, number))?;
    }
    Ok(scale.files as u64)
}

fn unlink(root: &Path, scale: &Scale) -> Outcome<u64> {
    for number in 0..scale.files {
        fs::remove_file(renamed_file(root, number)).or_else(|_| fs::remove_file(storm_file(root, number)))?;
    }
    Ok(scale.files as u64)
}

/// Reads every file below; returns how many there are.
fn read_tree(dir: &Path, buffer: &mut [u8]) -> Outcome<u64> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files += read_tree(&entry.path(), buffer)?;
        } else {
            let mut file = File::open(entry.path())?;
            while file.read(buffer)? > 0 {}
            files += 1;
        }
    }
    Ok(files)
}

fn remove(dir: &Path, tree: &Tree) -> Outcome<u64> {
    run(Command::new("rm").arg("-r").arg(dir))?;
    Ok(tree.files)
}

/// Bytes that no filesystem can make less of.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(2).fill(&mut bytes);
    bytes
}

fn write(path: &Path, scale: &Scale) -> Outcome<u64> {
    let (bytes, mut file) = (noise(MIB), File::create_new(path)?);
    for _ in 0..scale.large_bytes / MIB as u64 {
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    Ok(scale.large_bytes)
}

fn read(path: &Path, scale: &Scale) -> Outcome<u64> {
    let (mut bytes, mut file, mut done) = (vec![0; MIB], File::open(path)?, 0);
    loop {
        match file.read(&mut bytes)? {
            0 => break,
            len => done += len as u64,
        }
    }
    if done == scale.large_bytes { Ok(done) } else { Err(format!("the file has {done} bytes").into()) }
}

fn random_read(path: &Path, scale: &Scale) -> Outcome<u64> {
    let (mut bytes, file, mut rng) = (vec![0; BLOCK], File::open(path)?, fastrand::Rng::with_seed(3));
    for _ in 0..scale.random {
        file.read_exact_at(&mut bytes, rng.u64(0..scale.large_bytes / BLOCK as u64) * BLOCK as u64)?;
    }
    Ok(scale.random)
}

fn random_write(path: &Path, scale: &Scale) -> Outcome<u64> {
    let (bytes, mut rng) = (noise(BLOCK), fastrand::Rng::with_seed(4));
    let file = OpenOptions::new().write(true).open(path)?;
    for _ in 0..scale.random {
        file.write_all_at(&bytes, rng.u64(0..scale.large_bytes / BLOCK as u64) * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(scale.random)
}

/// What is made durable again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// A block of a file that is fully written, at a random place: who writes in place has nothing to change but time stamps.
    Overwrite,
    /// A block at the end of a file, like a line of a log.
    Append,
}

/// Each thread has a file of its own.
fn flush(root: &Path, threads: u64, what: Durable, scale: &Scale) -> Outcome<f64> {
    let (bytes, stop, done) = (noise(MIB), AtomicBool::new(false), AtomicU64::new(0));
    let mut files = Vec::new();
    for thread in 0..threads {
        let mut file = File::create(root.join(format!("durable-{}-{threads}-{thread}", what as u8)))?;
        for _ in 0..FLUSHED_BYTES / MIB as u64 {
            if what == Durable::Overwrite {
                file.write_all(&bytes)?;
            }
        }
        file.sync_all()?;
        files.push(file);
    }
    let work = |seed: u64, file: &File| -> std::io::Result<()> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut appended = 0..;
        while !stop.load(Ordering::Relaxed) {
            let block = match what {
                Durable::Overwrite => rng.u64(0..FLUSHED_BYTES / BLOCK as u64),
                Durable::Append => appended.next().unwrap_or(0),
            };
            file.write_all_at(&bytes[..BLOCK], block * BLOCK as u64)?;
            file.sync_all()?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            files.iter().zip(5..).map(|(file, seed)| scope.spawn(move || work(seed, file))).collect();
        thread::sleep(scale.flushing);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(done.into_inner() as f64 / begin.elapsed().as_secs_f64())
}

/// An archive of small files, like the source of a program: 40 in a directory, most of a few KiB.
pub(crate) struct Tree {
    archive: PathBuf,
    files: u64,
}

impl Tree {
    /// Makes the archive.
    pub(crate) fn plant(dir: &Path, scale: &Scale) -> Outcome<Tree> {
        let archive = dir.join("bench-mount.tar");
        let mut tar = tar::Builder::new(File::create(&archive)?);
        let (content, mut rng) = (noise(64 << 10), fastrand::Rng::with_seed(6));
        for number in 0..scale.tree_files {
            let sub = format!("{}/{}", number / 400, number / 40);
            if number.is_multiple_of(40) {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_mtime(1_700_000_000);
                header.set_size(0);
                tar.append_data(&mut header, format!("{sub}/"), std::io::empty())?;
            }
            // From 64 bytes to 64 KiB, each power of two as likely as any other.
            let len = (64.0 * (rng.f64() * 10.0).exp2()) as usize;
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000 + number as u64);
            header.set_size(len as u64);
            tar.append_data(&mut header, format!("{sub}/file-{number}"), &content[..len])?;
        }
        tar.into_inner()?.sync_all()?;
        Ok(Tree { archive, files: scale.tree_files as u64 })
    }

    fn unpack(&self, root: &Path, name: &str) -> Outcome<u64> {
        let dir = root.join(name);
        fs::create_dir(&dir)?;
        run(Command::new("tar").arg("-xf").arg(&self.archive).arg("-C").arg(&dir))?;
        Ok(self.files)
    }
}
