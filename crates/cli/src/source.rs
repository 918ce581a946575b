//! A tree to be copied into a volume: `format --source` and `import`.
//!
//! A directory is walked; anything else is read as a tar archive, `-` from standard input. On a terminal a line shows how far it is.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use frazil_posix::NodeId;
use frazil_posix::fill::{self, Counts, FillError, Filled};
use frazil_posix::write::WriteFs;
use frazil_volume::build::Builder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format::{Shown, Size};
use crate::say;
use crate::stop::Stop;

/// Most threads that read and encode: one thread stores, and more than this have nothing to do.
const THREADS_MAX: usize = 8;
/// How often the line about the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Copies a tree into a volume under construction on `devices`, and says what was left out.
pub(crate) fn fill(builder: &mut Builder, source: &Path, devices: &[&Path]) -> Result<(), Stop> {
    let tree = open(source, devices)?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    report(with_progress(|counts| fill::fill(builder, tree, threads, counts)))
}

/// Copies a tree to below a directory of a volume in use on `devices`, and says what was left out.
pub(crate) fn import(fs: &WriteFs, top: NodeId, source: &Path, devices: &[&Path]) -> Result<(), Stop> {
    let tree = open(source, devices)?;
    report(with_progress(|counts| fill::import(fs, top, tree, counts)))
}

fn open(source: &Path, devices: &[&Path]) -> Result<fill::Source<'static>, Stop> {
    if source == Path::new("-") {
        return Ok(fill::Source::archive(io::stdin(), "standard input"));
    }
    if source.is_dir() {
        return Ok(fill::Source::directory(source, devices.iter().filter_map(|path| id(path)).collect()));
    }
    let name = source.display().to_string();
    let archive = File::open(source).map_err(|why| Stop::Failed(format!("{name}: {why}")))?;
    Ok(fill::Source::archive(archive, &name))
}

fn report(filled: Result<Filled, FillError>) -> Result<(), Stop> {
    if let Some(name) = filled.map_err(Stop::failed)?.left_out {
        say::warning(format_args!(
            "attributes that a volume has no place for were left out; the first was {}",
            Shown(&name)
        ));
    }
    Ok(())
}

/// Device and inode number of a regular file, which may lie in the tree that is copied.
fn id(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.is_file())?;
    let dev = meta.dev();
    let (major, minor) = (u64::from(rustix::fs::major(dev)), u64::from(rustix::fs::minor(dev)));
    Some((major << 32 | minor, meta.ino()))
}

/// Runs something that counts, and shows the counts on a terminal meanwhile.
fn with_progress<T>(run: impl FnOnce(&Counts) -> T) -> T {
    let counts = Counts::default();
    if !io::stderr().is_terminal() {
        return run(&counts);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| show(&counts, &done));
        let result = run(&counts);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn show(counts: &Counts, done: &AtomicBool) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}, {elapsed}").expect("the template is ours"));
    while !done.load(Ordering::Relaxed) {
        bar.set_message(format!("{} files, {}", counts.objects(), Size(counts.bytes())));
        bar.tick();
        thread::sleep(DRAW_EVERY);
    }
    bar.finish_and_clear();
}
