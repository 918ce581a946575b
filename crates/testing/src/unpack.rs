//! Decompression of stored images: streamed, sparse, checked, and shared between test processes.
//!
//! The cache is one directory of finished files, named after the hash of their content, so that any number of test
//! processes and versions of the collection can share it. A file appears in it complete or not at all: it is
//! written under a temporary name, hashed on the way, and renamed. A lock file per image keeps parallel processes
//! from unpacking the same one at the same time; it is an economy, not what makes this safe.
//!
//! A finished file gets a fixed modification time. If a test writes to a cached file against the rules, that time
//! changes, and the next user unpacks the image again instead of testing against a modified one.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use frazil_device::{Access, FileDevice, OpenOptions};
use rustix::fs::{SeekFrom as Place, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::golden::{Device, source_root};
use crate::hex;

/// Largest zstd window in the collection, as a power of two: images are compressed with `--long=27`.
const WINDOW_LOG_MAX: u32 = 27;

/// Unit in which zeroes are looked for and left out as holes; the block size of common filesystems.
const HOLE_BYTES: usize = 4096;

/// Modification time of an untouched cached file, seconds since 1970: no clock gives this by accident.
const UNTOUCHED_SECS: u64 = 1_000_000_007;

/// Path of the device in the cache, unpacked first if need be.
pub(crate) fn into_cache(packed: &Path, device: &Device) -> PathBuf {
    into_dir(&cache_dir(), packed, device)
}

fn into_dir(dir: &Path, packed: &Path, device: &Device) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let stem = device.file.trim_end_matches(".img");
    let path = dir.join(format!("{stem}.{}.img", &device.sha256[..16]));
    if is_untouched(&path, device) {
        return path;
    }
    let lock = File::create(dir.join(format!("{stem}.lock"))).expect("a lock file can be made in the cache");
    lock.lock().expect("a file in the cache can be locked");
    if !is_untouched(&path, device) {
        let partial = dir.join(format!("{stem}.{}.partial", std::process::id()));
        to_file(packed, device, &partial);
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(UNTOUCHED_SECS);
        let file = File::options().write(true).open(&partial).expect("the file was just written");
        file.set_times(FileTimes::new().set_modified(when)).expect("a file of ours can be given a time");
        std::fs::rename(&partial, &path).expect("a file can be renamed within the cache");
    }
    path
}

/// Has this process read a finished file until it ends, so that nobody can open it as one to be changed.
///
/// # Panics
/// When somebody has.
pub(crate) fn be_reader(path: &Path) {
    static READ: Mutex<BTreeMap<PathBuf, FileDevice>> = Mutex::new(BTreeMap::new());
    // A test that failed here leaves the map as it was.
    READ.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_path_buf()).or_insert_with(|| {
        let opened = OpenOptions::new(Access::ReadOnly).open(path);
        opened.unwrap_or_else(|e| panic!("golden images are shared, and not to be changed: {e}"))
    });
}

/// Unpacks `packed` to `path`, leaving holes for zeroes.
///
/// # Panics
/// When the content is not what the index says, or cannot be written.
pub(crate) fn to_file(packed: &Path, device: &Device, path: &Path) {
    let written = copy_sparse(packed, path).unwrap_or_else(|e| {
        panic!("cannot unpack {} to {}: {e}", packed.display(), path.display());
    });
    assert_eq!(written, (device.size_bytes, device.sha256.clone()), "{} is damaged", packed.display());
}

/// Copies a finished file with its holes.
///
/// # Panics
/// When the disk is full.
pub(crate) fn copy(from: &Path, to: &Path) {
    copy_data(from, to).unwrap_or_else(|e| panic!("cannot copy {} to {}: {e}", from.display(), to.display()));
}

fn copy_data(from: &Path, to: &Path) -> std::io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    to.set_len(from.metadata()?.len())?;
    let mut end = 0;
    loop {
        let begin = match seek(&from, Place::Data(end)) {
            Err(Errno::NXIO) => return Ok(()),
            begin => begin?,
        };
        end = seek(&from, Place::Hole(begin))?;
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        std::io::copy(&mut (&from).take(end - begin), &mut to)?;
    }
}

/// The text of a small compressed file; bytes that are not UTF-8 are replaced.
pub(crate) fn text(packed: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decoder(packed)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Copies the decompressed content to a new file and returns its length and hash.
fn copy_sparse(packed: &Path, path: &Path) -> std::io::Result<(u64, String)> {
    let mut from = decoder(packed)?;
    let mut to = File::create(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * HOLE_BYTES];
    let mut length = 0;
    loop {
        let filled = fill(&mut from, &mut buffer)?;
        if filled == 0 {
            break;
        }
        hash.update(&buffer[..filled]);
        write_sparse(&mut to, length, &buffer[..filled])?;
        length += filled as u64;
    }
    to.set_len(length)?;
    Ok((length, hex(hash.finalize().as_slice())))
}

/// Reads until the buffer is full or the input ends, so that pieces stay aligned to [`HOLE_BYTES`].
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn write_sparse(to: &mut File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    for (n, piece) in bytes.chunks(HOLE_BYTES).enumerate() {
        if piece.iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(at + (n * HOLE_BYTES) as u64))?;
            to.write_all(piece)?;
        }
    }
    Ok(())
}

fn decoder(packed: &Path) -> std::io::Result<impl Read> {
    let mut decoder = zstd::Decoder::new(File::open(packed)?)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

fn is_untouched(path: &Path, device: &Device) -> bool {
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(UNTOUCHED_SECS);
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.len() == device.size_bytes && meta.modified().is_ok_and(|time| time == when))
}

/// `$FRAZIL_GOLDEN_CACHE`, or a directory among the build's own products.
fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("FRAZIL_GOLDEN_CACHE") {
        return PathBuf::from(dir);
    }
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => source_root().join(target).join("golden"),
        None => source_root().join("target/golden"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256_hex;

    /// A compressed file of 1 MiB of zeroes with something in the middle, and what the index would say of it.
    fn packed_sample(dir: &Path) -> (PathBuf, Device) {
        let mut content = vec![0; 1 << 20];
        content[5000..5004].copy_from_slice(b"data");
        let path = dir.join("sample.img.zst");
        std::fs::write(&path, zstd::encode_all(&content[..], 1).unwrap()).unwrap();
        let device = Device { file: "sample.img".into(), size_bytes: 1 << 20, sha256: sha256_hex(&content) };
        (path, device)
    }

    #[test]
    fn unpacked_files_are_sparse_and_reused_until_modified() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let dir = tempfile::tempdir().unwrap();
        let (packed, device) = packed_sample(dir.path());
        let path = into_dir(dir.path(), &packed, &device);
        let first = path.metadata().unwrap();
        assert!(first.blocks() * 512 < device.size_bytes, "{} blocks", first.blocks());
        assert_eq!(into_dir(dir.path(), &packed, &device).metadata().unwrap().ino(), first.ino());

        let second = dir.path().join("copy");
        copy(&path, &second);
        assert!(second.metadata().unwrap().blocks() * 512 < device.size_bytes);
        assert_eq!(sha256_hex(&std::fs::read(&second).unwrap()), device.sha256);

        File::options().write(true).open(&path).unwrap().write_all_at(b"scribble", 0).unwrap();
        assert_eq!(
            sha256_hex(&std::fs::read(into_dir(dir.path(), &packed, &device)).unwrap()),
            device.sha256
        );
    }

    #[test]
    #[should_panic(expected = "is damaged")]
    fn another_content_than_the_index_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (packed, mut device) = packed_sample(dir.path());
        device.sha256 = sha256_hex(b"something else");
        into_dir(dir.path(), &packed, &device);
    }
}
