//! `ls`, `cat`, `stat`, `tree`, `export` against the manifests.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use frazil_testing::compare::{Comparison, ObservedEntry};
use frazil_testing::golden::{self, GoldenImage};
use frazil_testing::manifest::{Entry, FileType, Manifest};
use frazil_testing::{observe, sha256_hex};
use serde_json::Value;

use crate::run::{Opening, checked, errors, frazil};

/// A line of `tree --json` as an entry of a manifest, which has the same fields.
fn parse(lines: &str) -> Vec<Entry> {
    let mut text = String::from(
        r#"{"kind":"header","image":"","kind_of_image":"","seed":0,"clean":true,"frozen":false,"title":""}"#,
    );
    for line in lines.lines() {
        text.push_str("\n{\"kind\":\"entry\",");
        text.push_str(line.strip_prefix('{').unwrap());
    }
    Manifest::parse(&text).unwrap().entries
}

fn observed(entry: Entry) -> ObservedEntry {
    ObservedEntry {
        mode: entry.mode.unwrap(),
        uid: entry.uid.unwrap(),
        gid: entry.gid.unwrap(),
        size_bytes: entry.size_bytes,
        nlink: entry.nlink.unwrap(),
        mtime_ns: entry.mtime_ns.unwrap(),
        ctime_ns: entry.ctime_ns,
        atime_ns: entry.atime_ns,
        ino: entry.ino,
        blocks: entry.blocks,
        rdev: entry.rdev,
        target: entry.target,
        sha256: entry.sha256,
        data_sha256: entry.data_sha256,
        xattrs: entry.xattrs,
        holes: entry.holes,
        options: entry.options,
        flags: entry.flags,
        projid: entry.projid,
        ..ObservedEntry::new(entry.path, entry.file_type)
    }
}

/// Differences between `tree --json` and what an image must hold.
fn differences(image: &GoldenImage) -> Vec<String> {
    let opening = Opening::of(image);
    let tree = opening.text(&["tree", "--json", "--holes"], &[]);
    // A few images have thousands of files to look into: too many for a process each.
    let dir = tempfile::tempdir().unwrap();
    let mut unpacked = false;
    let read = |path: &[u8]| {
        if !std::mem::replace(&mut unpacked, true) {
            unpack(&opening.output(&["export"], &[]), dir.path());
        }
        observe::content(dir.path(), path)
    };
    let mut manifest = image.manifest();
    if image.name == "01-empty-formatted-only" {
        // The driver made its directories when it started a copy.
        for entry in &mut manifest.entries {
            (entry.mtime_ns, entry.ctime_ns, entry.atime_ns) = (None, None, None);
        }
    }
    Comparison::new(&manifest).run(parse(&tree).into_iter().map(observed), read)
}

#[test]
fn tree_json_equals_the_manifests() {
    let differences = golden::all().into_iter().map(|image| (differences(&image), image.name));
    let failed: Vec<_> = differences.filter(|(lines, _)| !lines.is_empty()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_file_can_be_printed() {
    let image = golden::image("05-compress-zstd");
    let opening = Opening::of(&image);
    let mut compared = 0;
    for entry in image.manifest().entries.iter().filter(|entry| entry.sha256.is_some()) {
        let path = std::str::from_utf8(&entry.path).unwrap();
        let content = opening.output(&["cat"], &[path]);
        assert_eq!(Some(sha256_hex(&content)), entry.sha256, "{path}");
        compared += 1;
    }
    assert!(compared > 5);
}

#[test]
fn ls_lists_what_is_there() {
    let image = golden::image("02-small-tree");
    let (opening, manifest) = (Opening::of(&image), image.manifest());
    let in_links: Vec<&Entry> = manifest.entries.iter().filter(|e| e.path.starts_with(b"links/")).collect();
    let names: Vec<String> =
        in_links.iter().map(|e| String::from_utf8(e.path["links/".len()..].to_vec()).unwrap()).collect();
    for path in ["links", "/links", "/links/", "sizes/../links/./"] {
        assert_eq!(opening.text(&["ls"], &[path]).lines().collect::<Vec<_>>(), names, "{path}");
    }
    let long = opening.text(&["ls", "-l"], &["links"]);
    for (line, entry) in long.lines().zip(&in_links) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(words[1], entry.nlink.unwrap().to_string());
        assert_eq!(words[4], entry.size_bytes.to_string());
        assert_eq!(line.starts_with('l'), entry.file_type == FileType::Lnk);
        assert_eq!(line.contains(" -> "), entry.file_type == FileType::Lnk);
    }
    let json = opening.text(&["ls", "--json"], &["links"]);
    let json: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json.iter().map(|line| line["path"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert_eq!(opening.text(&["ls"], &["hard3-at-root"]), "/hard3-at-root\n");
    assert_eq!(opening.text(&["ls", "-d"], &["links"]), "/links\n");
    // Bytes that are no text go out as they are.
    let raw = opening.output(&["ls"], &["names"]);
    assert!(raw.windows(10).any(|name| name == b"latin1-\xe9\xff\n"));
}

#[test]
fn subvolumes_and_snapshots_are_directories() {
    let image = golden::image("10-snapshots");
    let (opening, manifest) = (Opening::of(&image), image.manifest());
    let mut dirs = 0;
    for entry in manifest.entries.iter().filter(|e| e.file_type == FileType::Dir) {
        let path = std::str::from_utf8(&entry.path).unwrap();
        let inside: Vec<&[u8]> = manifest.entries.iter().map(|e| e.path.as_slice()).collect();
        let prefix = if path == "." { String::new() } else { format!("{path}/") };
        let mut names: Vec<&[u8]> = inside
            .iter()
            .filter_map(|p| p.strip_prefix(prefix.as_bytes()))
            .filter(|name| !name.contains(&b'/') && *name != b".")
            .collect();
        names.sort_unstable();
        let listed = opening.output(&["ls"], &[path]);
        let listed: Vec<&[u8]> = listed.split(|&b| b == b'\n').filter(|name| !name.is_empty()).collect();
        assert_eq!(listed, names, "{path}");
        dirs += 1;
    }
    assert!(dirs > 3);
}

#[test]
fn stat_says_all_about_a_file() {
    let image = golden::image("02-small-tree");
    let opening = Opening::of(&image);
    let manifest = image.manifest();
    let entry = manifest.entry(b"sizes/s1048577").unwrap();
    let text = opening.text(&["stat", "--extents"], &["/sizes/s1048577"]);
    for part in [
        "File: /sizes/s1048577\n",
        "Size: 1048577 ",
        &format!("Inode: {} ", entry.ino.unwrap()),
        "Access: (0644/-rw-r--r--)  Uid: 0  Gid: 0\n",
        "Modify: 2026-11-22 11:02:50.108000531 +0000\n",
        "Extent: 1048576-1052672 inline\n",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let json: Value =
        serde_json::from_str(&opening.text(&["stat", "--extents", "--json"], &["/sizes/s1048577"])).unwrap();
    assert_eq!(json["mtime_ns"], entry.mtime_ns.unwrap());
    let extents = json["extents"].as_array().unwrap();
    let covered: u64 = extents.iter().map(|extent| extent["length"].as_u64().unwrap()).sum();
    assert_eq!(covered, 1_052_672);
    let fiemap = entry.fiemap.as_ref().unwrap();
    assert_eq!(extents[0]["copies"][0]["offset"], fiemap[0].physical_bytes);
    assert_eq!(extents[0]["copies"][0]["checksum"], "crc32c");

    assert!(opening.text(&["stat"], &["links/one"]).contains("File: /links/one -> a\n"));
    assert!(opening.text(&["stat"], &["flags/immutable"]).contains("Flags: immutable\n"));
    let nocow = Opening::of(&golden::image("13-nocow-inline"));
    assert!(nocow.text(&["stat"], &["nocow-file"]).contains("Option: nocow = 1\n"));
    assert!(nocow.text(&["stat", "--extents"], &["nocow-file"]).contains(" unwritten; device 0 at "));
}

#[test]
fn tree_can_be_cut() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    let top = opening.text(&["tree", "--depth", "1"], &[]);
    let names = opening.text(&["ls"], &["/"]);
    assert_eq!(top.lines().count(), 1 + names.lines().count());
    assert!(top.starts_with("/\n  acl/\n"));
    let json = opening.text(&["tree", "--json", "--no-hash", "--depth", "0"], &["sizes"]);
    let line: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&line["path"], &line["type"], &line["sha256"]), (&".".into(), &"dir".into(), &Value::Null));
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    let image = golden::image("02-small-tree");
    let device = image.unpack()[0].display().to_string();
    let refused = |arguments: &[&str], exit_code: i32| {
        let output = frazil(arguments).output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(exit_code), &b""[..]), "{arguments:?}");
        assert_eq!(errors(&output).lines().count(), 1, "{arguments:?}: {}", errors(&output));
        errors(&output)
    };
    assert_eq!(refused(&["cat", &device, "/no/such"], 1), "error: /no/such: no such file or directory\n");
    assert_eq!(refused(&["cat", &device, "sizes"], 1), "error: /sizes: is a directory\n");
    assert_eq!(refused(&["ls", &device, "hard3-at-root/x"], 1), "error: /hard3-at-root/x: not a directory\n");
    assert!(refused(&["cat", &device], 2).contains("path"));
    assert!(refused(&["cat", &device, "links/len2000"], 1).contains("name is too long"));
    // Two devices and no path.
    let devices = golden::image("09-multi-striped").unpack();
    let devices: Vec<&str> = devices.iter().map(|path| path.to_str().unwrap()).collect();
    let told = refused(&["ls", devices[0], devices[1]], 1);
    assert!(told.contains("--degraded=very") && told.contains("join several devices with \":\""), "{told}");
}

#[test]
fn a_big_file_is_printed_piece_by_piece_and_may_be_cut() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    // Four tebibytes, nearly all of it a hole: neither memory nor patience would do.
    let mut cat = frazil(["cat", &opening.devices, "sparse/huge"]);
    let mut cat = cat.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // In one expression, so that nobody else keeps the pipe open.
    let pipe = cat.stdout.take().unwrap();
    let head = Command::new("head").args(["-c", "100000000"]).stdin(pipe).output().unwrap();
    assert_eq!(head.stdout.len(), 100_000_000);
    let output = cat.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(errors(&output), "");
}

#[test]
fn damage_is_reported_and_the_rest_is_there() {
    let image = golden::image("02-small-tree");
    let scratch = image.scratch();
    let manifest = image.manifest();
    let entry = manifest.entry(b"sizes/s1048577").unwrap();
    let at = entry.fiemap.as_ref().unwrap()[0].physical_bytes;
    let device = std::fs::File::options().write(true).open(&scratch.paths[0]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, &[0xff; 512], at).unwrap();
    let device = scratch.paths[0].to_str().unwrap();

    let output = frazil(["cat", device, "sizes/s1048577"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(errors(&output).starts_with("error: /sizes/s1048577: "), "{}", errors(&output));
    let output = frazil(["tree", "--json", device]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(errors(&output).lines().count(), 1);
    let lines: BTreeMap<String, Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| Some((line["path"].as_str()?.to_owned(), line)))
        .collect();
    let damaged = lines.values().filter(|line| line["error"].is_string());
    assert_eq!(damaged.map(|line| &line["path"]).collect::<Vec<_>>(), ["sizes/s1048577"]);

    let output = frazil(["export", device, "sizes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(errors(&output).lines().count(), 1);
    let dir = tempfile::tempdir().unwrap();
    unpack(&output.stdout, dir.path());
    for (name, same) in [("s1048577", false), ("s1048576", true)] {
        let content = std::fs::read(dir.path().join(name)).unwrap();
        let entry = manifest.entry(format!("sizes/{name}").as_bytes()).unwrap();
        assert_eq!(content.len() as u64, entry.size_bytes);
        assert_eq!(Some(sha256_hex(&content)) == entry.sha256, same, "{name}");
    }
}

/// Restores an archive with the system's tar, as the help of `export` says.
fn unpack(archive: &[u8], dir: &Path) {
    let mut tar = Command::new("tar");
    tar.args([
        "x",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
        "--warning=no-timestamp",
        "-C",
    ]);
    let mut tar = tar.arg(dir).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut tar.stdin.take().unwrap(), archive).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

/// What no archive, or not every filesystem, can hold.
fn may_differ(difference: &str) -> bool {
    let field = |name: &str| difference.contains(&format!(": {name}: want "));
    let of_the_filesystem = ["ino", "blocks", "ctime_ns", "atime_ns"].into_iter().any(field);
    let size_of_a_directory = field("size") && difference.contains(": want 0, got");
    let beyond_ext4 =
        difference.starts_with("times/y1753: mtime_ns") || difference.starts_with("xattr/many: ");
    of_the_filesystem
        || size_of_a_directory
        || field("flags")
        || beyond_ext4
        || difference == "nodes/sock: is missing"
}

/// Needs root, as device nodes and owners do.
#[test]
fn tar_restores_an_export() {
    let image = golden::image("02-small-tree");
    let archive = Opening::of(&image).run(&["export"], &[]);
    assert!(archive.status.success());
    assert_eq!(errors(&archive), "note: /nodes/sock: sockets cannot be archived\n");
    assert_eq!(archive.stdout, Opening::of(&image).run(&["export"], &[]).stdout, "the same bytes every time");
    let dir = tempfile::tempdir().unwrap();
    unpack(&archive.stdout, dir.path());
    let seen = observe::tree(dir.path()).unwrap();
    let manifest = image.manifest();
    let differences = Comparison::new(&manifest)
        .without(frazil_testing::compare::Aspect::Holes)
        .run(seen, |path| observe::content(dir.path(), path));
    let differences: Vec<_> = differences.into_iter().filter(|line| !may_differ(line)).collect();
    assert_eq!(differences, [""; 0]);
    // Holes were stored as such.
    assert!(archive.stdout.len() < 16 << 20, "{}", archive.stdout.len());
}

#[test]
fn a_single_file_can_be_exported() {
    let image = golden::image("02-small-tree");
    let archive = Opening::of(&image).output(&["export"], &["hard3-at-root"]);
    let dir = tempfile::tempdir().unwrap();
    unpack(&archive, dir.path());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), [b"hard3-at-root"]);
    let help = checked(frazil(["export", "--help"]));
    assert!(String::from_utf8(help).unwrap().contains("tar x --xattrs"));
}
