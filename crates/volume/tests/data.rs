//! The contents of every regular file of the golden images, hashed and compared with the manifests.
//!
//! Names are found here with plain cursors over the dirents, which is all it takes when a whole tree is wanted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use frazil_btree::View;
use frazil_device::{Access, Device, Fault, FaultyDevice, OpenOptions as DeviceOptions};
use frazil_ondisk::superblock::assembly::Degraded;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::extent::Pointers;
use frazil_ondisk::values::inode::{FileType, Inode};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use frazil_testing::golden::{self, GoldenImage};
use frazil_testing::manifest::{Entry, FileType as Kind, Manifest};
use frazil_volume::{OpenOptions, Passphrase, Volume, open};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

fn files(image: &GoldenImage) -> Vec<Arc<dyn Device>> {
    let file =
        |path: &Path| DeviceOptions::new(Access::ReadOnly).open(path).expect("golden images can be opened");
    image.unpack().iter().map(|path| Arc::new(file(path)) as Arc<dyn Device>).collect()
}

fn open_with(image: &GoldenImage, devices: Vec<Arc<dyn Device>>) -> Volume {
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().expect("only encrypted images ask")));
    let passphrase = Passphrase::Ask(&mut ask);
    open(devices, OpenOptions { passphrase, degraded: Degraded::Very, ..OpenOptions::default() })
        .unwrap_or_else(|e| panic!("{}: {e}", image.name))
}

/// A regular file.
struct File {
    inum: Inum,
    view: View,
    size: u64,
}

/// All regular files by path.
struct Tree<'v> {
    volume: &'v Volume,
    files: BTreeMap<Vec<u8>, File>,
}

impl<'v> Tree<'v> {
    fn of(volume: &'v Volume) -> Tree<'v> {
        let mut tree = Tree { volume, files: BTreeMap::new() };
        tree.add_subvolume(SubvolId::ROOT, &[]);
        tree
    }

    fn add_subvolume(&mut self, subvol: SubvolId, path: &[u8]) {
        let pos = Bpos::new(0, u64::from(subvol.0), 0);
        let key = self.volume.btrees().get(BtreeId::SUBVOLUMES, pos).expect("readable");
        let Some(key) = key else { return };
        let Subvolume { snapshot: SnapshotId(id), inode, .. } =
            Subvolume::decode(key.key().value).expect("a subvolume");
        let view = self.volume.snapshots().view(SnapshotId(id)).expect("its snapshot exists");
        self.add_directory(subvol, &view, inode, path);
    }

    fn add_directory(&mut self, subvol: SubvolId, view: &View, dir: Inum, path: &[u8]) {
        let volume = self.volume;
        let range = Bpos::new(dir.0, 0, 0)..Bpos::new(dir.0 + 1, 0, 0);
        let mut cursor = volume.btrees().visible(BtreeId::DIRENTS, view, range);
        while let Some(key) = cursor.next().expect("readable") {
            if key.k.ty != KeyType::DIRENT {
                continue;
            }
            let dirent = Dirent::decode(key.value).expect("a dirent");
            let path = if path.is_empty() { dirent.name.to_vec() } else { [path, dirent.name].join(&b'/') };
            match dirent.target {
                DirentTarget::Subvol { child, parent } if parent == subvol => {
                    self.add_subvolume(child, &path)
                }
                DirentTarget::Subvol { .. } => {}
                DirentTarget::Inode(inum) if dirent.ty == FileType::DIR => {
                    self.add_directory(subvol, view, inum, &path);
                }
                DirentTarget::Inode(inum) if dirent.ty == FileType::REG => {
                    self.files.insert(path, File { inum, view: view.clone(), size: self.size(view, inum) });
                }
                DirentTarget::Inode(_) => {}
            }
        }
    }

    fn size(&self, view: &View, inum: Inum) -> u64 {
        let pos = Bpos::new(0, inum.0, 0);
        let key = self.volume.btrees().get_visible(BtreeId::INODES, pos, view).expect("readable");
        let key = key.expect("a dirent leads to an inode");
        Inode::decode(key.key().k.ty, key.key().value).expect("an inode").size
    }

    /// Hashes parts of a file, read in pieces of that many bytes.
    fn hash(
        &self,
        file: &File,
        parts: &[Range<u64>],
        piece: u64,
    ) -> Result<String, frazil_volume::data::Error> {
        let mut hash = Sha256::new();
        let mut buf = Vec::new();
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let end = part.end.min(at + piece);
                let mut plan = self.volume.data().plan(file.inum, at..end);
                plan.add_visible(&file.view);
                buf.resize((end - at) as usize, 0xee);
                plan.read(&mut buf)?;
                hash.update(&buf);
                at = end;
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Compares the files that the manifest says everything about; returns how many there were.
    fn compare(&self, name: &str, manifest: &Manifest, piece: u64) -> usize {
        self.compare_those(name, manifest, piece, |_| true)
    }

    fn compare_those(
        &self,
        name: &str,
        manifest: &Manifest,
        piece: u64,
        wanted: impl Fn(&Entry) -> bool,
    ) -> usize {
        let regular = |entry: &&Entry| entry.file_type == Kind::Reg && wanted(entry);
        let mut compared = 0;
        for entry in manifest.entries.iter().filter(regular) {
            let path = String::from_utf8_lossy(&entry.path);
            let file = self.files.get(&entry.path).unwrap_or_else(|| panic!("{name}: no {path}"));
            assert_eq!(file.size, entry.size_bytes, "{name}: size of {path}");
            let (expected, parts) = match (&entry.sha256, &entry.data_sha256) {
                (Some(sha256), _) => (sha256, outside(&[], file.size)),
                (None, Some(sha256)) => (sha256, outside(&entry.holes, file.size)),
                (None, None) => continue,
            };
            let hash = self.hash(file, &parts, piece).unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
            assert_eq!(&hash, expected, "{name}: contents of {path}");
            compared += 1;
        }
        compared
    }
}

/// What the holes leave of a file.
fn outside(holes: &[(u64, u64)], size: u64) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut at = 0;
    for (offset, len) in holes {
        parts.push(at..*offset);
        at = offset + len;
    }
    parts.push(at..size);
    parts
}

#[test]
fn every_file_of_every_image() {
    let mut compared = 0;
    for image in golden::all() {
        let volume = open_with(&image, files(&image));
        let tree = Tree::of(&volume);
        compared += tree.compare(&image.name, &image.manifest(), 1 << 20);
    }
    assert!(compared > 10_000, "only {compared} files");
}

/// Pieces that begin and end anywhere.
#[test]
fn odd_pieces_of_every_encoding() {
    for image in golden::all() {
        let about_data = ["04-", "05-", "07-", "11-", "12-", "13-", "18-newer-1.28", "18-newer-1.39-fuse"];
        if about_data.iter().any(|prefix| image.name.starts_with(prefix)) {
            let volume = open_with(&image, files(&image));
            assert!(Tree::of(&volume).compare(&image.name, &image.manifest(), 10_007) > 10, "{}", image.name);
        }
    }
}

/// How many copies of file data lie on a device, and how many keys have no other.
fn copies_on(volume: &Volume, dev: u8) -> (usize, usize) {
    let (mut copies, mut only) = (0, 0);
    let mut cursor = volume.btrees().cursor(BtreeId::EXTENTS, ..);
    while let Some(key) = cursor.next().expect("readable") {
        if key.k.ty == KeyType::EXTENT {
            let ptrs: Vec<_> = Pointers::new(key.value, key.k.size).map(|r| r.expect("sound").ptr).collect();
            let here = ptrs.iter().filter(|ptr| ptr.dev.0 == dev).count();
            copies += here;
            only += usize::from(here > 0 && here == ptrs.len());
        }
    }
    (copies, only)
}

#[test]
fn erasure_coded_files_without_any_one_of_their_devices() {
    let image = golden::image("18-newer-1.39-ec");
    for missing in 1..image.devices.len() {
        let mut devices = files(&image);
        devices.remove(missing);
        let volume = open_with(&image, devices);
        let (_, only) = copies_on(&volume, missing as u8);
        assert!(only >= 5, "{only} extents can only be rebuilt without device {missing}");
        assert!(Tree::of(&volume).compare(&image.name, &image.manifest(), 1 << 20) > 10);
    }
}

#[test]
fn erasure_coded_files_with_a_device_that_returns_garbage() {
    let image = golden::image("18-newer-1.39-ec");
    for bad in 1..image.devices.len() {
        let faulty: Vec<_> = files(&image).into_iter().map(|d| Arc::new(FaultyDevice::new(d))).collect();
        let devices = faulty.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
        let volume = open_with(&image, devices);
        let tree = Tree::of(&volume);
        faulty[bad].inject(Fault::reads().corrupting(bad as u64));
        assert!(tree.compare(&image.name, &image.manifest(), 1 << 20) > 10);
        assert!(faulty[bad].struck() > 0);
    }
}

/// A file that was made with one copy only.
fn has_one_copy(entry: &Entry) -> bool {
    entry.options.get("bcachefs.data_replicas").is_some_and(|replicas| replicas == "1")
}

#[test]
fn replicated_files_with_a_device_missing_or_bad() {
    let mut lost = 0;
    for name in ["09-multi-replicas2", "08-crash-multi"] {
        let image = golden::image(name);
        let manifest = image.manifest();
        for bad in 0..2 {
            let faulty: Vec<_> = files(&image).into_iter().map(|d| Arc::new(FaultyDevice::new(d))).collect();
            let devices: Vec<_> = faulty.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
            let volume = open_with(&image, devices);
            assert!(copies_on(&volume, bad as u8).0 > 10);
            let tree = Tree::of(&volume);
            for fault in [Fault::reads().corrupting(7), Fault::reads()] {
                faulty[bad].heal();
                faulty[bad].inject(fault);
                assert!(tree.compare_those(name, &manifest, 1 << 20, |entry| !has_one_copy(entry)) > 0);
                for entry in manifest.entries.iter().filter(|entry| has_one_copy(entry)) {
                    let file = &tree.files[&entry.path];
                    let whole = 0..file.size;
                    let e =
                        tree.hash(file, &[whole], 1 << 20).expect_err("some of it is only on this device");
                    assert!(e.offset_bytes.is_multiple_of(512) && e.len_bytes >= 4096, "{e}");
                    assert!(e.to_string().contains(&**faulty[bad].name()), "{e}");
                    lost += 1;
                }
            }
            let mut devices = files(&image);
            devices.remove(bad);
            let volume = open_with(&image, devices);
            let tree = Tree::of(&volume);
            assert!(tree.compare_those(name, &manifest, 1 << 20, |entry| !has_one_copy(entry)) > 0);
        }
    }
    assert_eq!(lost, 4);
}
