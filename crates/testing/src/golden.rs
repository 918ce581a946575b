//! The collection of golden images: which there are, where they lie, and what is known about each.
//!
//! `tests/golden/INDEX.jsonl` names the whole collection, one image a line. The images marked `in_repo` lie next to
//! it and must be there: every function here panics when one is missing, so that a broken checkout fails the tests
//! instead of passing them quietly. The remaining ones, too large for a repository, are found in the directory
//! `$FRAZIL_GOLDEN`, or in `../shared/golden` next to the repository; without either they are left out of [`all`].
//!
//! An image is stored compressed and with a few companions (`tests/golden/README.md`):
//!
//! ```text
//! NAME.img.zst  or  NAME.dev0.img.zst, NAME.dev1.img.zst …     the devices
//! NAME.manifest.jsonl.zst                                      what the filesystem holds
//! NAME.reference/list-BTREE.txt.zst, show-super.txt.zst …      how the reference decodes it
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::listing::Listing;
use crate::manifest::Manifest;
use crate::unpack;

/// The lists that the repository leaves out for their size, as (image, reference text).
pub const LISTINGS_ELSEWHERE: [(&str, &str); 3] = [
    ("03-many-files", "list-inodes"),
    ("03-many-files", "list-dirents"),
    ("06-deep-btree-node32k", "list-inodes"),
];

/// Version of the on-disk format an image was written with, `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FormatVersion {
    /// 1 for every image so far.
    pub major: u32,
    /// 13 for the Linux 6.12 driver.
    pub minor: u32,
}

impl std::fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How the image came to be left as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Unmounted properly (or never mounted): nothing to replay.
    Clean,
    /// The writer was killed: the journal has to be replayed, and the manifest holds only what was made durable.
    Killed,
    /// Copied while frozen and still mounted read-write: marked clean, and the manifest is complete.
    Frozen,
}

/// One device of an image.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Device {
    /// Name of the uncompressed file, `NAME.img` or `NAME.devN.img`.
    pub file: String,
    /// Size of the uncompressed file in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the uncompressed file.
    pub sha256: String,
}

/// A line of `INDEX.jsonl`.
#[derive(Deserialize)]
struct IndexLine {
    name: String,
    about: String,
    version: String,
    state: State,
    passphrase: Option<String>,
    in_repo: bool,
    devices: Vec<Device>,
}

/// One real image: what is known about it, and the way to its bytes.
#[derive(Clone, Debug)]
pub struct GoldenImage {
    /// Name in the collection, e.g. `02-small-tree`.
    pub name: String,
    /// What is special about it, in a sentence.
    pub about: String,
    /// Format version of its superblock.
    pub version: FormatVersion,
    /// Whether there is a journal to replay.
    pub state: State,
    /// What unlocks it; `None` for images that are not encrypted.
    pub passphrase: Option<String>,
    /// Whether the repository itself holds it.
    pub in_repo: bool,
    /// Its devices, in device-index order.
    pub devices: Vec<Device>,
    /// The directory its compressed files lie in.
    dir: PathBuf,
    /// The wider collection, which has also the few listings that the repository leaves out.
    wider: Option<PathBuf>,
}

/// Every image at hand, in the order of their names.
///
/// # Panics
/// When the index cannot be read, or an image that the repository should hold is missing.
pub fn all() -> Vec<GoldenImage> {
    let wider = wider_dir();
    let images: Vec<_> = index().into_iter().filter_map(|line| locate(line, wider.as_deref())).collect();
    assert!(!images.is_empty(), "the index of golden images is empty");
    images
}

/// The image called `name`, which must be one that the repository holds: a test that names another one would fail
/// wherever the wider collection is not at hand. (Tests take those as they come, from [`all`].)
///
/// # Panics
/// When there is no such image, or the repository does not hold it.
pub fn image(name: &str) -> GoldenImage {
    match find(name) {
        Some(image) if image.in_repo => image,
        Some(_) => {
            panic!("golden image {name} is not in the repository: tests must not depend on it by name")
        }
        None => panic!("there is no golden image called {name} (or it is only in the wider collection)"),
    }
}

/// The image called `name`, if it is at hand.
///
/// # Panics
/// As [`all`].
pub fn find(name: &str) -> Option<GoldenImage> {
    all().into_iter().find(|image| image.name == name)
}

/// How many images the index names, whether at hand or not.
pub fn indexed() -> usize {
    index().len()
}

fn index() -> Vec<IndexLine> {
    let path = repo_dir().join("INDEX.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .enumerate()
        .map(|(n, line)| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{}:{}: {e}", path.display(), n + 1))
        })
        .collect()
}

/// Finds the directory that holds the image; `None` for one that is neither in the repository nor, as far as we
/// know, anywhere else.
fn locate(line: IndexLine, wider: Option<&Path>) -> Option<GoldenImage> {
    let dir = if line.in_repo { repo_dir() } else { wider?.to_path_buf() };
    let (major, minor) = line.version.split_once('.').expect("an index version reads MAJOR.MINOR");
    let image = GoldenImage {
        version: FormatVersion {
            major: major.parse().expect("an index version is two numbers"),
            minor: minor.parse().expect("an index version is two numbers"),
        },
        name: line.name,
        about: line.about,
        state: line.state,
        passphrase: line.passphrase,
        in_repo: line.in_repo,
        devices: line.devices,
        dir,
        wider: wider.map(Path::to_path_buf),
    };
    let missing = image.stored_files().into_iter().find(|path| !path.is_file());
    match missing {
        None => Some(image),
        Some(_) if !image.in_repo => None,
        Some(path) => panic!("the repository should hold {}: check it out again", path.display()),
    }
}

/// Root of the source tree this crate was built from.
pub fn source_root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).expect("the crate lies in crates/ of the repository").to_path_buf()
}

fn repo_dir() -> PathBuf {
    source_root().join("tests/golden")
}

/// The wider collection's directory, if there is one.
fn wider_dir() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("FRAZIL_GOLDEN") {
        let dir = PathBuf::from(set);
        assert!(dir.is_dir(), "FRAZIL_GOLDEN is {}, which is not a directory", dir.display());
        return Some(dir);
    }
    let beside = source_root().join("../shared/golden");
    beside.is_dir().then_some(beside)
}

impl GoldenImage {
    /// Paths of the uncompressed devices, in device order, for reading only.
    ///
    /// They are unpacked into a cache on first use, checked against the index, and shared with every other test
    /// process; one that somebody wrote to is noticed and unpacked again. So that no test can disturb another one, this
    /// process is a reader of them until it ends: whoever opens one to change it is told that it is in use. To change an image,
    /// or to find out whether somebody has it open, use [`Self::scratch`].
    ///
    /// # Panics
    /// When the disk is full, the stored image is damaged, or somebody has opened an unpacked one to change it.
    pub fn unpack(&self) -> Vec<PathBuf> {
        let paths = self.unpack_for_machine();
        paths.iter().for_each(|path| unpack::be_reader(path));
        paths
    }

    /// The same for a virtual machine, which would take a reader for somebody who changes them.
    ///
    /// # Panics
    /// When the disk is full or the stored image is damaged.
    pub fn unpack_for_machine(&self) -> Vec<PathBuf> {
        self.devices.iter().map(|device| unpack::into_cache(&self.packed(device), device)).collect()
    }

    /// A private copy of the devices that a test may write to; it vanishes when dropped.
    ///
    /// # Panics
    /// As [`Self::unpack`].
    pub fn scratch(&self) -> Scratch {
        let dir =
            tempfile::Builder::new().prefix("frazil-").tempdir().expect("a temporary directory can be made");
        let copies = self.unpack_for_machine().into_iter().zip(&self.devices).map(|(from, device)| {
            let path = dir.path().join(&device.file);
            unpack::copy(&from, &path);
            path
        });
        Scratch { paths: copies.collect(), _dir: dir }
    }

    /// Unpacks the devices into `dir` under their own names and returns the paths, in device order.
    ///
    /// # Panics
    /// As [`Self::unpack`].
    pub fn unpack_to(&self, dir: &Path) -> Vec<PathBuf> {
        let unpack_one = |device: &Device| {
            let path = dir.join(&device.file);
            unpack::to_file(&self.packed(device), device, &path);
            path
        };
        self.devices.iter().map(unpack_one).collect()
    }

    /// The bytes of every device, in device order.
    ///
    /// # Panics
    /// As [`Self::unpack`].
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.unpack_for_machine().into_iter().map(read).collect()
    }

    /// What the filesystem in the image holds.
    ///
    /// # Panics
    /// When the stored manifest is damaged.
    pub fn manifest(&self) -> Manifest {
        let path = self.manifest_path();
        Manifest::parse(&unpack::text(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// For killed and frozen images: what the Linux 6.12 driver showed after it had recovered a copy.
    pub fn recovered_manifest(&self) -> Option<Manifest> {
        let path = self.reference_path("recovered.manifest.jsonl")?;
        Some(Manifest::parse(&unpack::text(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Text the reference implementation printed about the image: `show-super`, `list-extents`, `nodes-inodes`,
    /// `list_journal`, `fsck` …; `None` where there is no such text: for images newer than 1.13, no list of a b-tree
    /// means that it is empty; and three long lists are only in the wider collection ([`LISTINGS_ELSEWHERE`]). Bytes that are not UTF-8 are replaced.
    pub fn reference(&self, name: &str) -> Option<String> {
        self.reference_path(&format!("{name}.txt")).map(|path| unpack::text(&path))
    }

    /// Every key of one b-tree as the reference printed it, e.g. `listing("extents")`; `None` as for
    /// [`Self::reference`].
    ///
    /// # Panics
    /// When a line that should be a key does not read as one.
    pub fn listing(&self, btree: &str) -> Option<Listing> {
        let text = self.reference(&format!("list-{btree}"))?;
        Some(Listing::parse(&text).unwrap_or_else(|e| panic!("{}: list-{btree}: {e}", self.name)))
    }

    /// The passphrase as the bytes to derive the key from.
    pub fn passphrase_bytes(&self) -> Option<&[u8]> {
        self.passphrase.as_deref().map(str::as_bytes)
    }

    fn packed(&self, device: &Device) -> PathBuf {
        self.dir.join(format!("{}.zst", device.file))
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join(format!("{}.manifest.jsonl.zst", self.name))
    }

    /// Path of a reference text, if there is one.
    fn reference_path(&self, file: &str) -> Option<PathBuf> {
        let name = format!("{}.reference/{file}.zst", self.name);
        let dirs = [Some(&self.dir), self.wider.as_ref()];
        dirs.into_iter().flatten().map(|dir| dir.join(&name)).find(|path| path.is_file())
    }

    /// The files without which the image is of no use.
    fn stored_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.devices.iter().map(|device| self.packed(device)).collect();
        files.push(self.manifest_path());
        files
    }
}

/// A private, writable copy of an image; removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    /// The devices, in device order.
    pub paths: Vec<PathBuf>,
    /// Keeps the directory alive.
    _dir: tempfile::TempDir,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use frazil_device::{Access, Error, OpenOptions};

    use super::*;
    use crate::sha256_hex;

    #[test]
    fn the_repository_holds_what_the_index_promises() {
        let images = all();
        assert!(images.iter().filter(|image| image.in_repo).count() >= 55);
        assert_eq!(indexed(), 60);
        for image in &images {
            let supers = if image.devices.len() == 1 { "show-super" } else { "show-super.dev0" };
            let text = image.reference(supers).unwrap_or_else(|| panic!("{}: no {supers}", image.name));
            let version = text.lines().find_map(|line| line.strip_prefix("Version:")).unwrap();
            assert!(version.contains(&image.version.to_string()), "{}: {version}", image.name);
            for kind in ["fsck", "format"] {
                assert!(image.reference(kind).is_some(), "{}: no {kind}.txt", image.name);
            }
        }
    }

    #[test]
    fn every_image_unpacks_to_what_the_index_says() {
        for image in all() {
            for (path, device) in image.unpack().iter().zip(&image.devices) {
                assert_eq!(std::fs::metadata(path).unwrap().len(), device.size_bytes, "{}", path.display());
            }
        }
        let image = image("09-multi-striped");
        let hashes: Vec<_> = image.bytes().iter().map(|bytes| sha256_hex(bytes)).collect();
        assert_eq!(hashes, image.devices.iter().map(|device| device.sha256.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn shared_images_cannot_be_taken() {
        let path = image("01-empty-formatted-only").unpack().remove(0);
        let taken = OpenOptions::new(Access::ReadWrite).lock_wait(Duration::ZERO).open(&path);
        assert!(matches!(taken, Err(Error::InUse { .. })), "{taken:?}");
    }

    #[test]
    #[should_panic(expected = "07-encrypted")]
    fn tests_cannot_name_what_a_clone_does_not_have() {
        image("07-encrypted");
    }

    #[test]
    fn scratch_copies_are_private() {
        let image = image("01-empty-formatted-only");
        let scratch = image.scratch();
        let path = scratch.paths[0].clone();
        OpenOptions::new(Access::ReadWrite).open(&path).unwrap();
        std::fs::write(&path, b"overwritten").unwrap();
        assert_eq!(sha256_hex(&image.bytes()[0]), image.devices[0].sha256);
        drop(scratch);
        assert!(!path.exists());
    }
}
