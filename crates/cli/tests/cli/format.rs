//! `format`: what it makes, and what it refuses.

use std::path::Path;

use serde_json::Value;

use crate::run::{checked, errors, file, frazil};

fn made(arguments: &[&str]) -> String {
    String::from_utf8(checked(frazil(arguments))).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = frazil(arguments).output().unwrap();
    let text = errors(&output);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    text
}

/// The superblock as JSON.
fn superblock(image: &str) -> Value {
    serde_json::from_str(&made(&["show-super", "--json", image])).unwrap()
}

fn assert_sound(image: &str) {
    assert_eq!(made(&["fsck", "-n", image]), "clean\n");
    assert_eq!(made(&["ls", image]), "lost+found\n");
}

#[test]
fn an_image_is_made_and_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let image = path.to_str().unwrap();
    let line = made(&["format", "--size", "1G", "--fs-label", "first", image]);
    assert!(line.contains("1.00 GiB in 8192 buckets of 128 KiB, UUID"), "{line}");
    assert_sound(image);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&meta);
    assert!(blocks < 4096, "{blocks} blocks of it are in use");
    let facts = superblock(image);
    assert_eq!(facts["label"], "first");
    assert_eq!(facts["version"], "1.13: inode_has_child_snapshots");
    assert_eq!(facts["clean"], true);

    // It is not made again by accident.
    let why = refused(&["mkfs", image]);
    assert!(why.contains("holds a bcachefs filesystem; to overwrite it: --force"), "{why}");
    assert_eq!(made(&["mkfs", "-f", "-q", "--size", "64M", image]), "");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 << 20);
    assert_sound(image);
}

#[test]
fn options_reach_the_superblock() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["ssd.img", "hdd.img"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let joined = paths.join(":");
    let uuid = "6e0c4b0a-5f7c-4e6e-9d8c-0123456789ab";
    made(&[
        "format",
        "--size",
        "96M",
        "--uuid",
        uuid,
        "--block-size",
        "512",
        "--bucket-size",
        "512k",
        "--btree-node-size",
        "128k",
        "--superblock-size",
        "256k",
        "--compression",
        "zstd:7",
        "--background-compression",
        "gzip",
        "--data-checksum",
        "xxhash",
        "--metadata-checksum",
        "crc64",
        "--str-hash",
        "crc32c",
        "--replicas",
        "2",
        "--data-replicas",
        "1",
        "--label",
        "ssd.one",
        &paths[0],
        "--label",
        "hdd.two",
        &paths[1],
        "--foreground-target",
        "ssd",
        "--background-target",
        "hdd.two",
        "--durability",
        "1",
        "-o",
        "acl=0",
        "-o",
        "errors=ro",
    ]);
    assert_sound(&joined);
    let facts = superblock(&paths[1]);
    assert_eq!(facts["external_uuid"], uuid);
    let options = &facts["options"];
    for (name, value) in [
        ("compression", "zstd:7"),
        ("background_compression", "gzip"),
        ("data_checksum", "xxhash"),
        ("metadata_checksum", "crc64"),
        ("str_hash", "crc32c"),
        ("errors", "ro"),
        ("foreground_target", "ssd"),
        ("background_target", "hdd.two"),
    ] {
        assert_eq!(options[name], value, "{name}");
    }
    for (name, value) in [
        ("block_size", 512),
        ("btree_node_size", 128 << 10),
        ("metadata_replicas", 2),
        ("data_replicas", 1),
        ("acl", 0),
    ] {
        let found = options[name].as_u64().or(options[name].as_bool().map(u64::from));
        assert_eq!(found, Some(value), "{name}");
    }
}

#[test]
fn encryption_takes_a_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    let word = file(&dir, "word", b"open sesame\n");
    let (word, wrong) = (word.to_str().unwrap(), file(&dir, "wrong", b"open\n"));
    let path = dir.path().join("disk.img");
    let image = path.to_str().unwrap();
    made(&["format", "--size", "64M", "--encrypted", "--passphrase-file", word, image]);
    assert_eq!(made(&["fsck", "-n", "--passphrase-file", word, image]), "clean\n");
    assert!(refused(&["ls", "--passphrase-file", wrong.to_str().unwrap(), image]).contains("passphrase"));
    let why = refused(&["format", "--size", "64M", "--encrypted", dir.path().join("no").to_str().unwrap()]);
    assert!(why.contains("--passphrase-file"), "{why}");
    assert!(!dir.path().join("no").exists(), "what did not become a volume is removed");
    made(&["format", "-f", "--encrypted", "--no-passphrase", image]);
    assert_sound(image);
}

#[test]
fn equal_wishes_make_equal_images() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, epoch: &str| {
        let path = dir.path().join(name);
        let uuid = "6e0c4b0a-5f7c-4e6e-9d8c-0123456789ab";
        let mut command = frazil(["format", "--size", "64M", "--uuid", uuid, path.to_str().unwrap()]);
        checked({
            command.env("SOURCE_DATE_EPOCH", epoch);
            command
        });
        std::fs::read(path).unwrap()
    };
    assert!(make("a", "1700000000") == make("b", "1700000000"));
    assert!(make("c", "1700000001") != make("d", "1700000000"));
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let image = path.to_str().unwrap();
    let ext4 = file(&dir, "ext4", &{
        let mut bytes = vec![0; 64 << 20];
        bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
        bytes
    });
    for (arguments, why) in [
        (&[][..], "does not exist; to make it, say how large: --size 1G"),
        (&["--size", "8M"], "at least 32 MiB"),
        (&["--size", "4000P"], "too large"),
        (&["--size", "64M", "--replicas", "2"], "add devices"),
        (&["--size", "64M", "--replicas", "9"], "data_replicas"),
        (&["--size", "64M", "--compression", "brotli"], "lz4, gzip or zstd"),
        (&["--size", "64M", "--data-checksum", "md5"], "possible values"),
        (&["--size", "64M", "--block-size", "8k"], "at most 4096"),
        (&["--size", "64M", "--label", "a", "--label", "b"], "once for all, or once for each"),
        (&["--size", "64M", "--foreground-target", "ssd"], "no device or label 'ssd'"),
        (&["--size", "64M", "-o", "speed=1"], "there is no option 'speed'"),
        (&["--size", "64M", "-o", "promote_target=x"], "--promote-target x"),
        (&["--size", "64M", "--passphrase-file", "x"], "--encrypted"),
    ] {
        let mut all = vec!["format"];
        all.extend(arguments);
        all.push(image);
        let text = refused(&all);
        assert!(text.contains(why), "{arguments:?}: {text}");
        assert!(!Path::new(image).exists(), "{arguments:?}");
    }
    let text = refused(&["format", ext4.to_str().unwrap()]);
    assert!(text.contains("ext2, ext3 or ext4"), "{text}");
    assert_eq!(std::fs::metadata(&ext4).unwrap().len(), 64 << 20, "it was not touched");
}
