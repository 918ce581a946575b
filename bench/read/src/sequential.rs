//! The large file: through the mount, and the image itself.
//!
//! The image is read as what it is on the disk: its stretches of data from the start on, holes skipped, as much as the file is
//! long. That is the same disk, the same blocks give or take some metadata, and no filesystem of ours.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use rustix::fs::SeekFrom as Place;

use crate::mounts::{Mounted, forget};
use crate::table::{Row, Side, alternate, print};
use frazil_bench_common::Outcome;

use crate::big;

/// What one read asks for.
const READ_BYTES: usize = 1 << 20;

pub(crate) fn table(dir: &Path, rounds: usize) -> Outcome {
    let image = big::find_or_make(dir)?;
    let mut row = Row::new("1 GiB, crc32c, cold, 1 MiB a read");
    alternate(rounds, |side| {
        row.add(side, measure(side, &image)?);
        Ok(())
    })?;
    let rate = |seconds: f64| format!("{:.0} MB/s", big::FILE_BYTES as f64 / seconds / 1e6);
    print(
        "Sequential read of a file, beside the image itself read as a file",
        "the image itself",
        &[row],
        rate,
    );
    Ok(())
}

/// Seconds for [`big::FILE_BYTES`].
fn measure(side: Side, image: &Path) -> Outcome<f64> {
    match side {
        Side::Frazil => {
            let mounted = Mounted::cold(side, image)?;
            let begin = Instant::now();
            let bytes = read_part(&mut File::open(mounted.path().join(big::FILE))?, u64::MAX)?;
            let seconds = begin.elapsed().as_secs_f64();
            mounted.unmount()?;
            if bytes != big::FILE_BYTES {
                return Err(format!("the file has {bytes} bytes instead of {}", big::FILE_BYTES).into());
            }
            Ok(seconds)
        }
        Side::Peer => {
            forget(image)?;
            let begin = Instant::now();
            read_data(image, big::FILE_BYTES)?;
            Ok(begin.elapsed().as_secs_f64())
        }
    }
}

/// Reads so many bytes, or up to the end; returns how many.
fn read_part(file: &mut File, bytes_max: u64) -> Outcome<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut done = 0;
    while done < bytes_max {
        let part = READ_BYTES.min(usize::try_from(bytes_max - done).unwrap_or(READ_BYTES));
        match file.read(&mut buffer[..part])? {
            0 => break,
            len => done += len as u64,
        }
    }
    Ok(done)
}

/// Reads so many bytes from the parts of a file that are no holes.
fn read_data(path: &Path, bytes: u64) -> Outcome {
    let mut file = File::open(path)?;
    let (mut at, mut left) = (0, bytes);
    while left > 0 {
        at = rustix::fs::seek(&file, Place::Data(at))?;
        let end = rustix::fs::seek(&file, Place::Hole(at))?;
        file.seek(SeekFrom::Start(at))?;
        left -= read_part(&mut file, left.min(end - at))?;
        at = end;
    }
    Ok(())
}
