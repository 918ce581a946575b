//! Trees that are copied into new volumes come out as they were, whatever the volume is like.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod observe;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Device, MemDevice};
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_posix::fill::{self, Counts, FillError, Filled};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_posix::{Fs, NodeId};
use frazil_testing::compare::Comparison;
use frazil_testing::manifest::{FileType, Manifest};
use frazil_testing::sample;
use frazil_volume::build::{Builder, Encryption, FormatOptions, NewDevice};
use frazil_volume::check::check;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Passphrase, open};
use zeroize::Zeroizing;

const PASSPHRASE: &[u8] = b"open";

/// Options of a volume, as on the command line.
fn settings(list: &[(&str, &str)]) -> Vec<(&'static OptionSpec, u64)> {
    let setting = |(name, value): &(&str, &str)| {
        let spec = OptionSpec::by_name(name).unwrap();
        (spec, spec.parse(value).unwrap())
    };
    list.iter().map(setting).collect()
}

struct Volume {
    devices: Vec<Arc<MemDevice>>,
    filled: Filled,
}

impl Volume {
    fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect()
    }

    fn open(&self) -> Fs {
        let mut ask = |_: &str| Ok(Zeroizing::new(PASSPHRASE.to_vec()));
        let passphrase = Passphrase::Ask(&mut ask);
        let options = OpenOptions { passphrase, ..OpenOptions::default() };
        Fs::new(Arc::new(open(self.devices(), options).unwrap()))
    }

    /// Everything on the devices.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for device in &self.devices {
            let mut of_device = vec![0; device.size_bytes() as usize];
            device.read_at(0, &mut of_device).unwrap();
            bytes.append(&mut of_device);
        }
        bytes
    }
}

/// Makes a volume of one device or of several, and fills it.
fn make(
    from: fill::Source<'_>,
    nr_devices: usize,
    encryption: Encryption,
    list: &[(&str, &str)],
) -> Result<Volume, FillError> {
    let devices: Vec<_> = (0..nr_devices).map(|_| Arc::new(MemDevice::new(256 << 20))).collect();
    let new = devices.iter().map(|d| NewDevice::new(Arc::clone(d) as Arc<dyn Device>)).collect();
    let options = FormatOptions {
        uuid: Some(uuid::Uuid::from_u128(7)),
        created_ns: 1_700_000_000_000_000_000,
        encryption,
        settings: settings(list),
        ..FormatOptions::default()
    };
    let mut builder = Builder::new(new, &options)?;
    builder.push_first_subvolume()?;
    let filled = fill::fill(&mut builder, from, 2, &Counts::default())?;
    builder.finish()?;
    Ok(Volume { devices, filled })
}

fn plain(from: fill::Source<'_>) -> Result<Volume, FillError> {
    make(from, 1, Encryption::Off, &[])
}

/// Every difference between the tree and the volume, and everything a check finds.
fn faults(manifest: &Manifest, fs: &Fs) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = observe::observe_all(fs, &mut found);
    for entry in &mut seen {
        if entry.file_type == FileType::Dir {
            entry.flags = 0;
        }
    }
    let read = |path: &[u8]| {
        let attr = observe::at_path(fs, path).map_err(|e| e.to_string())?;
        observe::content(fs, &attr).map_err(|e| e.to_string())
    };
    found.extend(Comparison::new(manifest).run(seen, read));
    found.extend(check(fs.volume()).findings.iter().map(ToString::to_string));
    found
}

#[test]
fn a_directory_comes_out_as_it_was_from_every_kind_of_volume() {
    let dir = tempfile::tempdir().unwrap();
    sample::tree(dir.path(), sample::Size::SMALL).unwrap();
    let manifest = sample::manifest(dir.path()).unwrap();
    let off = || Encryption::Off;
    let on = || Encryption::Passphrase(Zeroizing::new(PASSPHRASE.to_vec()));
    type Case<'c> = (usize, Encryption, &'c [(&'c str, &'c str)]);
    let cases: [Case<'_>; 12] = [
        (1, off(), &[]),
        (1, off(), &[("data_checksum", "none")]),
        (1, off(), &[("data_checksum", "crc64"), ("str_hash", "crc32c")]),
        (1, off(), &[("data_checksum", "xxhash"), ("str_hash", "crc64")]),
        (1, off(), &[("compression", "lz4")]),
        (1, off(), &[("compression", "gzip:9"), ("data_checksum", "none")]),
        (1, off(), &[("compression", "zstd"), ("encoded_extent_max", "128k")]),
        (1, off(), &[("block_size", "512"), ("compression", "zstd:1")]),
        (1, off(), &[("block_size", "2k"), ("btree_node_size", "64k")]),
        (3, off(), &[("data_replicas", "2"), ("metadata_replicas", "2")]),
        (1, on(), &[]),
        (2, on(), &[("compression", "lz4"), ("wide_macs", "1"), ("data_replicas", "2")]),
    ];
    for (nr_devices, encryption, list) in cases {
        let from = fill::Source::directory(dir.path(), Vec::new());
        let volume = make(from, nr_devices, encryption, list).unwrap();
        assert_eq!(faults(&manifest, &volume.open()), Vec::<String>::new(), "{list:?}");
        assert_eq!(volume.filled.objects as usize, distinct(&manifest), "{list:?}");
        assert_eq!(volume.filled.names as usize, manifest.entries.len() - 1);
        assert_eq!(volume.filled.left_out, None);
    }
}

/// Objects of a tree: entries, less the further names of hard links.
fn distinct(manifest: &Manifest) -> usize {
    // The sample has two files and a link with six further names.
    manifest.entries.len() - 5
}

#[test]
fn the_same_tree_makes_the_same_volume() {
    let dir = tempfile::tempdir().unwrap();
    sample::tree(dir.path(), sample::Size { sparse_bytes: 1 << 30, ..sample::Size::SMALL }).unwrap();
    let make = || {
        let from = fill::Source::directory(dir.path(), Vec::new());
        make(from, 1, Encryption::Off, &[("compression", "zstd")]).unwrap().bytes()
    };
    // Not assert_eq: nobody wants to read the difference.
    assert!(make() == make());
}

#[test]
fn times_and_flags_are_copied_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"content").unwrap();
    let volume = plain(fill::Source::directory(dir.path(), Vec::new())).unwrap();
    let fs = volume.open();
    let attr = fs.lookup(fs.root(), b"file").unwrap();
    let seen = fs::metadata(&path).unwrap();
    let ns =
        |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128;
    assert_eq!(attr.mtime.unix_ns(), ns(seen.modified().unwrap()));
    assert_eq!(attr.btime.unix_ns(), ns(seen.created().unwrap()));
    assert_eq!(attr.atime.unix_ns(), ns(seen.accessed().unwrap()));
    assert_eq!(
        attr.ctime.unix_ns(),
        i128::from(seen.ctime()) * 1_000_000_000 + i128::from(seen.ctime_nsec())
    );
}

#[test]
fn a_tree_deeper_than_any_path_is_copied() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    const LEVELS: usize = 120;
    let dir = tempfile::tempdir().unwrap();
    let name = "long ".repeat(20);
    let open = |above: std::os::fd::BorrowedFd<'_>| {
        openat(above, name.as_str(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    };
    let top = fs::File::open(dir.path()).unwrap();
    let mut at: std::os::fd::OwnedFd = top.into();
    for _ in 0..LEVELS {
        // The second name sorts behind the first, so that the walk comes back to it.
        mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
        mkdirat(&at, "side", Mode::from_raw_mode(0o700)).unwrap();
        at = open(std::os::fd::AsFd::as_fd(&at));
    }
    let volume = plain(fill::Source::directory(dir.path(), Vec::new())).unwrap();
    let fs = volume.open();
    assert_eq!(check(fs.volume()).findings.len(), 0);
    let mut node = fs.root();
    for _ in 0..LEVELS {
        assert_eq!(fs.lookup(node, b"side").unwrap().nlink, 2);
        node = fs.lookup(node, name.as_bytes()).unwrap().node;
    }
    assert_eq!(volume.filled.objects as usize, 2 + 2 * LEVELS);
    // What made it cannot remove it.
    let removed = std::process::Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn what_cannot_be_copied_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let make = || plain(fill::Source::directory(dir.path(), Vec::new())).map(|_| ()).unwrap_err().to_string();
    let shown = dir.path().display();

    let missing = fill::Source::directory(&dir.path().join("none"), Vec::new());
    let error = plain(missing).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, format!("{shown}/none: No such file or directory (os error 2)"));

    fs::write(dir.path().join("lost+found"), b"").unwrap();
    assert_eq!(
        make(),
        format!("{shown}/lost+found: its name cannot be used: in a volume this is a directory")
    );
    fs::remove_file(dir.path().join("lost+found")).unwrap();

    let file = dir.path().join("attribute");
    fs::write(&file, b"").unwrap();
    let set = |len| rustix::fs::setxattr(&file, "user.v", &vec![b'v'; len], rustix::fs::XattrFlags::empty());
    set(1996).unwrap();
    let long = "attribute of 1997 bytes, name included: at most 1996 can be stored";
    assert_eq!(make(), format!("{shown}/attribute: attribute user.v: {long}"));
    fs::remove_file(&file).unwrap();

    let large = dir.path().join("sub");
    fs::create_dir(&large).unwrap();
    fs::write(large.join("large"), sample::content(3, 300 << 20)).unwrap();
    assert!(make().starts_with("no space left: the data does not fit on the device"), "{}", make());
}

#[test]
fn the_volume_itself_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), b"the volume").unwrap();
    fs::write(dir.path().join("other"), b"a file").unwrap();
    let image = fs::metadata(dir.path().join("image")).unwrap();
    let dev = u64::from(rustix::fs::major(image.dev())) << 32 | u64::from(rustix::fs::minor(image.dev()));
    let volume = plain(fill::Source::directory(dir.path(), vec![(dev, image.ino())])).unwrap();
    let fs = volume.open();
    assert!(fs.lookup(fs.root(), b"image").is_err());
    assert_eq!(fs.lookup(fs.root(), b"other").unwrap().size, 6);
}

/// A volume in use, with threads of its own.
fn start(devices: Vec<Arc<dyn Device>>) -> WriteFs {
    let mut ask = |_: &str| Ok(Zeroizing::new(PASSPHRASE.to_vec()));
    let options = OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() };
    let foundation = open_rw(devices, options, &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), 1)).unwrap()
}

#[test]
fn a_volume_in_use_takes_a_tree_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (old, tree) = (dir.path().join("old"), dir.path().join("tree"));
    fs::create_dir_all(old.join("many/000/0")).unwrap();
    fs::write(old.join("many/000/0/other"), b"was there").unwrap();
    fs::create_dir(&tree).unwrap();
    sample::tree(&tree, sample::Size { small_files: 150, ..sample::Size::SMALL }).unwrap();
    let encrypted = Encryption::Passphrase(Zeroizing::new(PASSPHRASE.to_vec()));
    let list = [("compression", "lz4"), ("data_replicas", "2")];
    let volume = make(fill::Source::directory(&old, Vec::new()), 2, encrypted, &list).unwrap();

    let live = start(volume.devices());
    let import =
        || fill::import(&live, NodeId::ROOT, fill::Source::directory(&tree, Vec::new()), &Counts::default());
    let filled = import().unwrap();
    assert_eq!(filled.left_out, None);
    let again = import().unwrap_err().to_string();
    assert_eq!(again, format!("{}/attributes/access list: it exists already", tree.display()));
    live.live().stop().unwrap();
    drop(live);

    let fs = volume.open();
    let other = observe::at_path(&fs, b"many/000/0/other").unwrap();
    assert_eq!(observe::content(&fs, &other).unwrap(), b"was there");
    fs::copy(old.join("many/000/0/other"), tree.join("many/000/0/other")).unwrap();
    let mut manifest = sample::manifest(&tree).unwrap();
    // The host has its copy, and its directory, from later.
    let skipped: &[&[u8]] = &[b"many/000/0/other", b"many/000/0"];
    for entry in manifest.entries.iter_mut().filter(|entry| skipped.contains(&entry.path.as_slice())) {
        entry.mtime_ns = None;
    }
    assert_eq!(faults(&manifest, &fs), Vec::<String>::new());
}
