//! `format --source` and `import`: trees go in, and come out as they were.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use frazil_testing::{golden, sample};

use crate::run::{Opening, checked, errors, frazil};

fn made(arguments: &[&str]) -> String {
    String::from_utf8(checked(frazil(arguments))).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = frazil(arguments).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
    errors(&output)
}

fn export(image: &str) -> Vec<u8> {
    checked(frazil(["export", image]))
}

/// A path inside a directory, as an argument.
fn at(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

/// Runs a command that reads an archive from standard input.
fn reading(arguments: &[&str], archive: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive).unwrap();
    let output = frazil(arguments).stdin(File::open(file.path()).unwrap()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    assert_eq!(errors(&output), "");
}

#[test]
fn what_is_exported_is_imported_and_exported_again() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["02-small-tree", "05-compress-zstd", "13-nocow-inline"] {
        let exported = Opening::of(&golden::image(name)).output(&["export"], &[]);
        let (formatted, imported) = (at(&dir, "formatted.img"), at(&dir, "imported.img"));
        reading(&["format", "-q", "-f", "--size", "512M", "--source", "-", &formatted], &exported);
        assert!(export(&formatted) == exported, "{name}");
        made(&["format", "-q", "-f", "--size", "512M", "--compression", "lz4", &imported]);
        reading(&["import", &imported, "-"], &exported);
        assert!(export(&imported) == exported, "{name}");
        assert_eq!(made(&["fsck", "-n", &formatted,]), "clean\n");
        assert_eq!(made(&["fsck", "-n", &imported]), "clean\n");
    }
}

#[test]
fn a_directory_becomes_the_same_volume_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let tree = at(&dir, "tree");
    std::fs::create_dir(&tree).unwrap();
    sample::tree(Path::new(&tree), sample::Size { sparse_bytes: 1 << 30, ..sample::Size::SMALL }).unwrap();
    // The image lies in the tree, and is no part of it.
    let image = at(&dir, "tree/disk.img");
    let uuid = "12345678-1234-4234-8234-123456789abc";
    let make = || {
        let arguments = ["format", "-f", "--size", "256M", "--uuid", uuid, "--source", &tree, &image];
        let mut command = frazil(arguments);
        checked({
            command.env("SOURCE_DATE_EPOCH", "1700000000");
            command
        });
        std::fs::read(&image).unwrap()
    };
    let first = make();
    // The time of the directory changes when a file is made in it.
    assert!(make() == first);
    assert_eq!(made(&["fsck", "-n", &image]), "clean\n");
    assert_eq!(
        made(&[
            "cat",
            &image,
            "deep/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/bottom"
        ]),
        "here"
    );
    assert!(!made(&["ls", &image]).contains("disk.img"));
}

#[test]
fn import_keeps_what_the_volume_is() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [at(&dir, "a.img"), at(&dir, "b.img")];
    let devices = paths.join(":");
    made(&[
        "format",
        "--size",
        "256M",
        "--fs-label",
        "kept",
        "--replicas",
        "2",
        "--block-size",
        "1k",
        "--label",
        "ssd.one",
        "--label",
        "hdd.two",
        "--background-target",
        "hdd",
        "--compression",
        "zstd:4",
        "-o",
        "acl=0",
        &paths[0],
        &paths[1],
    ]);
    let facts = |path: &str| -> serde_json::Value {
        serde_json::from_str(&made(&["show-super", "--json", path])).unwrap()
    };
    let before = facts(&paths[1]);
    let tree = at(&dir, "tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(dir.path().join("tree/file"), vec![b'x'; 100_000]).unwrap();
    assert_eq!(made(&["import", &devices, &tree]), "");
    let after = facts(&paths[1]);
    for key in ["label", "external_uuid", "options", "members", "device_index", "created"] {
        let strip = |facts: &serde_json::Value| facts.get(key).map(ToString::to_string).unwrap_or_default();
        // The members' own UUIDs are new, and they are marked with what they hold.
        if key != "members" {
            assert_eq!(strip(&before), strip(&after), "{key}");
        }
    }
    assert_eq!(made(&["fsck", "-n", &devices]), "clean\n");
    assert_eq!(made(&["cat", &devices, "file"]).len(), 100_000);

    let again = refused(&["import", &devices, &tree]);
    assert_eq!(again, format!("error: {tree}/file: it exists already\n"));
    assert_eq!(made(&["cat", &devices, "file"]).len(), 100_000);
    assert_eq!(made(&["fsck", "-n", &devices]), "clean\n");
}

#[test]
fn a_volume_with_files_takes_more() {
    let dir = tempfile::tempdir().unwrap();
    let (image, tree) = (at(&dir, "disk.img"), at(&dir, "tree"));
    std::fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
    std::fs::write(dir.path().join("tree/sub/file"), b"from the host").unwrap();
    made(&["format", "-q", "--size", "256M", "--source", &tree, &image]);
    std::fs::write(dir.path().join("tree/sub/more"), vec![b'm'; 3 << 20]).unwrap();
    std::fs::remove_file(dir.path().join("tree/sub/file")).unwrap();
    assert_eq!(made(&["import", &image, &tree]), "");
    assert_eq!(made(&["import", "--to", "/sub//", &image, &tree]), "");
    let mut tar = Command::new("tar");
    let mut tar = tar
        .arg("-cC")
        .arg(dir.path())
        .args(["--transform=s,tree,a/b,", "tree"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = frazil(["import", "--to", "lost+found", &image, "-"]);
    command.stdin(tar.stdout.take().unwrap());
    checked(command);
    assert!(tar.wait().unwrap().success());
    assert_eq!(made(&["cat", &image, "sub/file"]), "from the host");
    for path in ["sub/more", "sub/sub/more", "lost+found/a/b/sub/more"] {
        assert_eq!(made(&["cat", &image, path]).len(), 3 << 20, "{path}");
    }
    assert_eq!(made(&["fsck", "-n", &image]), "clean\n");
    let none = refused(&["import", "--to", "none", &image, &tree]);
    assert_eq!(none, "error: none: no such file or directory\n");
    let file = refused(&["import", "--to", "sub/file", &image, &tree]);
    assert_eq!(file, "error: sub/file: not a directory\n");
    assert_eq!(made(&["fsck", "-n", &image]), "clean\n");
}

#[test]
fn a_source_that_fails_leaves_no_volume() {
    let dir = tempfile::tempdir().unwrap();
    let image = at(&dir, "disk.img");
    let why = refused(&["format", "--size", "64M", "--source", &at(&dir, "none"), &image]);
    assert!(why.contains("none: No such file or directory"), "{why}");
    assert!(!Path::new(&image).exists());
    std::fs::write(dir.path().join("noise"), b"no archive, though long enough to hold a header".repeat(30))
        .unwrap();
    let why = refused(&["format", "--size", "64M", "--source", &at(&dir, "noise"), &image]);
    assert!(why.contains("no header of a tar archive") && why.lines().count() == 1, "{why}");
    assert!(!Path::new(&image).exists());
}

#[test]
fn what_gnu_tar_packs_is_taken_from_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tree")).unwrap();
    std::fs::write(dir.path().join("tree/file"), b"packed").unwrap();
    let image = at(&dir, "disk.img");
    let mut tar = Command::new("tar");
    let mut tar =
        tar.arg("-cC").arg(dir.path().join("tree")).arg(".").stdout(Stdio::piped()).spawn().unwrap();
    let mut command = frazil(["format", "--size", "64M", "--source", "-", &image]);
    command.stdin(tar.stdout.take().unwrap());
    checked(command);
    assert!(tar.wait().unwrap().success());
    assert_eq!(made(&["cat", &image, "file"]), "packed");
}
