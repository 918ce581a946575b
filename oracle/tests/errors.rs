//! Volumes in whose superblock errors were noted while they were mounted: the real driver accepts what was noted, recovers, and its check finds nothing wrong (the damage was
//! undone) and takes it away.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mounted;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_btree::Root;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_ondisk::BtreeId;
use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::sections::Errors;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_oracle::{Job, Mount, Oracle};
use frazil_volume::lifecycle::OnError;
use frazil_volume::open::read_superblock;
use frazil_volume::write::WriteOptions;
use frazil_volume::{OpenOptions, open};

use mounted::Mounted;

static CONTENT: [u8; 64 << 10] = [7; 64 << 10];

fn device(image: &Path) -> Arc<dyn Device> {
    Arc::new(DeviceOptions::new(Access::ReadOnly).open(image).unwrap())
}

/// Destroys the node of shared extents; returns where it was and what it held.
fn damage(image: &Path) -> (u64, Vec<u8>) {
    let volume = open(vec![device(image)], OpenOptions::default()).unwrap();
    let roots = volume.btrees().roots();
    let Some(Root::At { level, key }) = roots.get(&BtreeId::REFLINK) else { panic!("no root") };
    let ptr = NodePtr::decode(BtreeId::REFLINK, *level, key.as_key()).unwrap();
    let at = ptr.ptrs().next().unwrap().offset.0 * SECTOR_BYTES;
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut node = vec![0; 4096];
    file.read_exact_at(&mut node, at).unwrap();
    file.write_all_at(&[0xee; 4096], at).unwrap();
    (at, node)
}

/// A volume that was mounted with this policy, met damage, and was left. The damage is undone.
fn met(files: &Path, on_error: OnError) -> (PathBuf, Superblock) {
    fs::create_dir(files).unwrap();
    let mounted = Mounted::new(files, 96 << 20);
    fs::write(mounted.dir.join("file"), CONTENT).unwrap();
    let (from, to) = (File::open(mounted.dir.join("file")).unwrap(), mounted.dir.join("shares"));
    let to = File::create(to).unwrap();
    assert_eq!(rustix::fs::copy_file_range(&from, None, &to, None, CONTENT.len()), Ok(CONTENT.len()));
    drop((from, to));
    let image = mounted.image.clone();
    mounted.end();
    let (at, node) = damage(&image);
    let write = WriteOptions { on_error: Some(on_error), ..WriteOptions::default() };
    let mounted = Mounted::again(files, &write);
    fs::write(mounted.dir.join("more"), b"more").unwrap();
    File::open(mounted.dir.join("more")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(mounted.dir.join("shares")).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(fs::write(mounted.dir.join("after"), b"x").is_ok(), on_error == OnError::Continue);
    assert_eq!(mounted.end_somehow().is_ok(), on_error == OnError::Continue);
    File::options().write(true).open(&image).unwrap().write_all_at(&node, at).unwrap();
    let superblock = read_superblock(&*device(&image)).unwrap();
    (image, superblock)
}

#[test]
fn what_is_noted_of_errors_is_accepted() {
    let files = tempfile::tempdir().unwrap();
    let jobs: Vec<Job> = [OnError::Continue, OnError::ReadOnly]
        .into_iter()
        .map(|on_error| {
            let (image, superblock) = met(&files.path().join(on_error.name()), on_error);
            assert!(superblock.flags.has_errors() && !superblock.flags.clean());
            let errors = superblock.sections.get::<Errors>().unwrap().unwrap();
            let ids: Vec<_> = errors.0.iter().map(|error| error.id).collect();
            assert_eq!(ids, [FsckErrorId::BTREE_NODE_READ_ERROR]);
            let script = "test \"$(cat more)\" = more && cmp file shares";
            Job::new(on_error.name(), [image])
                .mount(Mount::plain().script(script))
                .mount(Mount::fsck().script(script))
                .mount(Mount::plain().walk())
        })
        .collect();
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    for verdict in &verdicts {
        assert_eq!(verdict.objections(), [""; 0], "{verdict:#?}");
        let superblock = read_superblock(&*device(&verdict.devices[0])).unwrap();
        let errors = superblock.sections.get::<Errors>().unwrap().unwrap_or_default();
        println!("{}: has errors: {}, {errors:?}", verdict.name, superblock.flags.has_errors());
    }
    assert_eq!(verdicts.len(), 2);
}
