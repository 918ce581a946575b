//! Tar archives, as GNU tar writes them in all its formats and as nobody should, are copied into volumes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod observe;

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use frazil_device::{Device, MemDevice};
use frazil_posix::Fs;
use frazil_posix::fill::{self, Counts, FillError};
use frazil_testing::compare::{Aspect, Comparison};
use frazil_testing::manifest::{FileType, Manifest};
use frazil_testing::{observe as host, sample};
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::check::check;
use frazil_volume::{OpenOptions, open};
use proptest::prelude::*;

/// A volume filled from an archive.
fn make(archive: impl Read + Send) -> Result<Fs, FillError> {
    make_on(256 << 20, archive)
}

fn make_on(device_bytes: u64, archive: impl Read + Send) -> Result<Fs, FillError> {
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(device_bytes));
    let mut builder = Builder::new(vec![NewDevice::new(Arc::clone(&device))], &FormatOptions::default())?;
    builder.push_first_subvolume()?;
    fill::fill(&mut builder, fill::Source::archive(archive, "test.tar"), 2, &Counts::default())?;
    builder.finish()?;
    let fs = Fs::new(Arc::new(open(vec![device], OpenOptions::default()).unwrap()));
    assert_eq!(check(fs.volume()).findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    Ok(fs)
}

/// What an archive of the tree can hold: no sockets, and of times only that of the content, in `ns`.
fn manifest(top: &Path, ns: i64, keeps_attributes: bool) -> Manifest {
    let mut seen = host::tree(top).unwrap();
    seen.retain(|entry| entry.file_type != FileType::Sock);
    for entry in &mut seen {
        (entry.ino, entry.blocks, entry.flags) = (None, None, 0);
        entry.mtime_ns = entry.mtime_ns.div_euclid(ns) * ns;
        if entry.file_type == FileType::Dir {
            entry.size_bytes = 0;
        }
        if !keeps_attributes {
            entry.xattrs.clear();
        }
    }
    Manifest::of_tree("the host", seen)
}

fn differences(manifest: &Manifest, fs: &Fs, holes: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = observe::observe_all(fs, &mut found);
    seen.iter_mut().for_each(|entry| entry.flags = 0);
    let comparison = Comparison::new(manifest);
    let comparison = if holes { comparison } else { comparison.without(Aspect::Holes) };
    let read = |path: &[u8]| {
        let attr = observe::at_path(fs, path).map_err(|e| e.to_string())?;
        observe::content(fs, &attr).map_err(|e| e.to_string())
    };
    found.extend(comparison.run(seen, read));
    found
}

#[test]
fn every_format_of_gnu_tar_comes_out_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    // Small enough for the formats that store holes as zeros.
    let size = sample::Size { small_files: 100, wide: 20, deep: 40, sparse_bytes: 40 << 20 };
    sample::tree(dir.path(), size).unwrap();
    let posix = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    let cases: [(&[&str], bool); 7] = [
        (&["--sparse", "--sparse-version=1.0"], true),
        (&["--sparse", "--sparse-version=0.1"], true),
        (&["--sparse", "--sparse-version=0.0"], true),
        (&["--acls"], false),
        (&["--format=gnu"], false),
        (&["--format=gnu", "--sparse"], true),
        (&["--format=oldgnu", "--sparse"], true),
    ];
    for (options, holes) in cases {
        let is_gnu = options[0].contains("gnu");
        let mut command = Command::new("tar");
        command.args(options).args(if is_gnu { &[][..] } else { &posix });
        command.args(["-c", "--numeric-owner", "-C"]).arg(dir.path()).arg(".");
        let mut tar = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let fs = make(tar.stdout.take().unwrap()).unwrap();
        // 1: on a busy machine it may take a file for changed while it read it; what came of it is compared below. But it was not told that
        // nobody reads the end of what it writes.
        let status = tar.wait().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{options:?}: {status}");
        let ns = if is_gnu { 1_000_000_000 } else { 1 };
        let expected = manifest(dir.path(), ns, !is_gnu);
        assert_eq!(differences(&expected, &fs, holes), Vec::<String>::new(), "{options:?}");
    }
}

/// Builds archives member by member.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn member(mut self, ty: tar::EntryType, path: &str, link: &str, content: &[u8]) -> Tar {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(ty);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o640);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if ty == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Tar {
        self.member(tar::EntryType::Regular, path, "", content)
    }

    fn dir(self, path: &str) -> Tar {
        self.member(tar::EntryType::Directory, path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Tar {
        self.member(tar::EntryType::Link, path, target, b"")
    }

    fn records(self, records: &[u8]) -> Tar {
        self.member(tar::EntryType::XHeader, "x", "", records)
    }

    /// Fills a volume, without the blocks of zeros that should be at the end.
    fn make(&self) -> Result<Fs, String> {
        make(self.0.as_slice()).map_err(|e| e.to_string())
    }

    fn refused(&self) -> String {
        self.make().map(|_| ()).unwrap_err()
    }
}

#[test]
fn who_writes_an_archive_is_not_left_before_its_end() {
    // A record of a tape is longer than what a pipe holds.
    let archive = [everything(), vec![0; 1 << 20]].concat();
    let mut read = io::Cursor::new(&archive);
    make(read.by_ref()).unwrap();
    assert_eq!(read.position(), archive.len() as u64);
}

#[test]
fn members_may_come_in_any_order() {
    let archive = Tar::default()
        .file("a/b/c", b"deep")
        .records(b"25 SCHILY.xattr.user.x=1\n")
        .dir("a/b")
        .link("./second", "/a//b/./c")
        .dir("a/b/")
        .dir("./")
        .dir("lost+found/");
    let fs = archive.make().unwrap();
    let at = |path: &str| observe::at_path(&fs, path.as_bytes()).unwrap();
    assert_eq!((at("a/b/c").nlink, at("a/b/c").node), (2, at("second").node));
    // Nobody said what it is like; then the last word counts.
    assert_eq!((at("a").perm, at("a/b").perm, at("a/b").uid), (0o755, 0o640, 1));
    assert_eq!((at("").perm, at("lost+found").perm), (0o640, 0o640));
    assert_eq!(fs.listxattr(at("a/b").node).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(at("a/b/c").btime, at("a/b/c").mtime);
}

#[test]
fn archives_that_make_no_sense_are_refused() {
    let start = || Tar::default().file("file", b"content");
    let cases = [
        (start().file("./file", b""), "the archive is not usable at ./file: it is there already"),
        (start().link("file", "file"), "the archive is not usable at file: it is there already"),
        (start().dir("file"), "the archive is not usable at file: it is there already"),
        (start().file("../x", b""), "the archive is not usable at ../x: it leads out of the tree"),
        (
            start().file("file/x", b""),
            "the archive is not usable at file/x: what should be a directory on its way is not one",
        ),
        (
            start().link("x", "none"),
            "the archive is not usable at x: it is a link to none, which is not before it in the archive",
        ),
        (start().dir("d").link("x", "d"), "the archive is not usable at x: it is a hard link to a directory"),
        (start().file(".", b""), "the archive is not usable at .: only a directory can be the root"),
        (
            start().records(b"8 mtime="),
            "the archive is not usable at test.tar, byte 1544: an extended header is malformed",
        ),
        (
            start().records(b"11 mtime=x\n").file("x", b""),
            "the archive is not usable at x: its record mtime is malformed",
        ),
        (
            start().member(tar::EntryType::new(b'M'), "x", "", b""),
            "the archive is not usable at x: members of type M are not supported",
        ),
        (
            Tar(b"\x28\xb5\x2f\xfd".repeat(256)),
            "the archive is not usable at test.tar, byte 512: it is compressed; give it uncompressed: zstd -dc FILE | frazil … -",
        ),
        (
            Tar(b"no archive".repeat(100)),
            "the archive is not usable at test.tar, byte 512: no header of a tar archive",
        ),
    ];
    for (archive, error) in cases {
        assert_eq!(archive.refused(), error);
    }
    let mut cut = start().file("long", &[1; 5000]);
    cut.0.truncate(3000);
    assert_eq!(cut.refused(), "the archive is not usable at long: the archive ends early");
    cut.0.truncate(1200);
    assert_eq!(
        cut.refused(),
        "the archive is not usable at test.tar, byte 1024: the archive ends inside a header"
    );
}

#[test]
fn maps_of_sparse_members_are_not_believed() {
    let sparse = |map: &str, realsize: u64| {
        let mut records = Vec::new();
        for (key, value) in [
            ("GNU.sparse.major", "1".to_owned()),
            ("GNU.sparse.minor", "0".to_owned()),
            ("GNU.sparse.name", "f".to_owned()),
            ("GNU.sparse.realsize", realsize.to_string()),
        ] {
            let rest = key.len() + value.len() + 3;
            let len = rest + (rest + 2).to_string().len();
            records.extend_from_slice(format!("{len} {key}={value}\n").as_bytes());
        }
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        content.extend_from_slice(&[7; 600]);
        Tar::default().records(&records).file("placeholder", &content)
    };
    let fs = sparse("2\n100\n10\n100000\n590\n", 1 << 40).make().unwrap();
    let attr = observe::at_path(&fs, b"f").unwrap();
    assert_eq!((attr.size, attr.sectors), (1 << 40, 16));
    let mut bytes = [1; 120];
    assert_eq!(fs.read(attr.node, 0, &mut bytes).unwrap(), 120);
    assert!(bytes[..100].iter().all(|&b| b == 0) && bytes[100..110] == [7; 10] && bytes[110..] == [0; 10]);

    let bad_map = "the archive is not usable at placeholder: the map of a sparse member is malformed";
    for map in ["", "x\n", "99999999\n", "1\n5\n", "1\n100\n10\n", "2\n50\n10\n40\n1\n", "1\n-1\n5\n"] {
        let short = if map == "1\n100\n10\n" { 109 } else { 1 << 20 };
        assert_eq!(sparse(map, short).refused(), bad_map, "{map:?}");
    }
    let more = "the archive is not usable at f: the member is shorter than it says";
    assert_eq!(sparse("1\n0\n601\n", 1 << 20).refused(), more);
}

/// One archive with something of everything, to be damaged.
fn everything() -> Vec<u8> {
    let map = "2\n0\n512\n1048576\n88\n";
    let mut sparse = map.as_bytes().to_vec();
    sparse.resize(512 + 600, 7);
    Tar::default()
        .dir("d/")
        .file("d/file", &[1; 3000])
        .records(b"25 SCHILY.xattr.user.x=1\n19 mtime=-5.250000\n38 SCHILY.acl.access=u::rwx,g::r,o::-\n")
        .file("d/more", b"content")
        .link("link", "d/file")
        .member(tar::EntryType::Symlink, "symlink", "target", b"")
        .member(tar::EntryType::GNULongName, "x", "", &[b'n'; 200])
        .file("short", b"1")
        .records(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n31 GNU.sparse.realsize=2000000\n")
        .file("sparse", &sparse)
        .member(tar::EntryType::Fifo, "fifo", "", b"")
        .member(tar::EntryType::Char, "null", "", b"")
        .0
}

#[test]
fn an_archive_of_everything_is_taken() {
    let fs = make(everything().as_slice()).unwrap();
    assert_eq!(observe::at_path(&fs, b"sparse").unwrap().size, 2_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Damaged headers under right checksums, and archives that end anywhere: refused, or taken and then sound.
    #[test]
    fn damaged_archives_are_refused_or_make_sound_volumes(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        end in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut archive = everything();
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
            let block = at / 512 * 512;
            let is_header = archive[block + 257..block + 262] == *b"ustar";
            if is_header {
                let mut header = tar::Header::from_byte_slice(&archive[block..block + 512]).clone();
                header.set_cksum();
                archive[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        archive.truncate(end.map_or(archive.len(), |end| end.index(archive.len())));
        // `make_on` checks the volume.
        let _ = make_on(64 << 20, archive.as_slice());
    }
}
