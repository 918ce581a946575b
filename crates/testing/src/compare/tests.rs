//! Each rule is shown to pass on what satisfies it and to fail on what does not.

use super::*;
use crate::golden;

/// What a perfect reader would observe of the image.
fn perfect(manifest: &Manifest) -> Vec<ObservedEntry> {
    let observe = |entry: &Entry| ObservedEntry {
        mode: entry.mode.unwrap_or_default(),
        uid: entry.uid.unwrap_or_default(),
        gid: entry.gid.unwrap_or_default(),
        size_bytes: entry.size_bytes,
        nlink: entry.nlink.unwrap_or(1),
        mtime_ns: entry.mtime_ns.unwrap_or_default(),
        rdev: entry.rdev,
        target: entry.target.clone(),
        sha256: entry.sha256.clone(),
        data_sha256: entry.data_sha256.clone(),
        xattrs: entry.xattrs.clone(),
        holes: entry.holes.clone(),
        options: entry.options.clone(),
        flags: entry.flags,
        projid: entry.projid,
        ..ObservedEntry::new(entry.path.clone(), entry.file_type)
    };
    manifest.entries.iter().map(observe).collect()
}

fn unread(path: &[u8]) -> Result<Vec<u8>, String> {
    panic!("{} need not be read", path.escape_ascii())
}

#[test]
fn the_manifest_itself_has_no_differences() {
    for name in ["02-small-tree", "10-snapshots", "15-frozen", "18-newer-1.39-tree"] {
        let manifest = golden::image(name).manifest();
        assert_eq!(Comparison::new(&manifest).run(perfect(&manifest), unread), [""; 0]);
    }
}

#[test]
fn what_the_driver_recovered_satisfies_the_manifest_of_a_killed_image() {
    // Its content is known by hash only, which is enough for the rules of these two.
    for name in ["08-crash-rename", "10-crash-snapdelete"] {
        let image = golden::image(name);
        let recovered = perfect(&image.recovered_manifest().unwrap());
        assert_eq!(Comparison::new(&image.manifest()).run(recovered, unread), [""; 0]);
    }
}

#[test]
fn every_field_is_compared() {
    let manifest = golden::image("02-small-tree").manifest();
    type Damage = fn(&mut ObservedEntry);
    let damages: [(&str, &[u8], Damage); 14] = [
        ("type", b"acl", |e| e.file_type = FileType::Reg),
        ("mode", b"acl", |e| e.mode ^= 0o1000),
        ("uid", b"acl", |e| e.uid += 1),
        ("gid", b"acl", |e| e.gid += 1),
        ("size", b"flags/append", |e| e.size_bytes += 1),
        ("nlink", b"acl", |e| e.nlink += 1),
        ("mtime_ns", b"acl", |e| e.mtime_ns += 1),
        ("rdev", b"nodes/blk-256-256", |e| e.rdev = None),
        ("target", b"xattr/link", |e| e.target = Some(b"y".to_vec())),
        ("sha256", b"flags/append", |e| e.sha256 = None),
        ("xattr trusted.onlink", b"xattr/link", |e| e.xattrs.clear()),
        ("option bcachefs.x", b"acl", |e| e.options = BTreeMap::from([("bcachefs.x".into(), "1".into())])),
        ("flags", b"flags/append", |e| e.flags = 0),
        ("holes", b"flags/append", |e| e.holes.push((0, 1))),
    ];
    for (field, path, damage) in damages {
        let mut observed = perfect(&manifest);
        damage(observed.iter_mut().find(|entry| entry.path == path).unwrap());
        let found = Comparison::new(&manifest).run(observed, unread);
        assert!(found.len() == 1 && found[0].contains(field), "{field}: {found:?}");
    }
}

#[test]
fn missing_unlisted_and_repeated_paths_are_found() {
    let manifest = golden::image("02-small-tree").manifest();
    let mut observed = perfect(&manifest);
    observed.retain(|entry| entry.path != b"acl/dflt/inherits");
    observed.push(ObservedEntry::new("new\nname", FileType::Reg));
    observed.push(observed[1].clone());
    let found = Comparison::new(&manifest).run(observed, unread);
    assert_eq!(
        found,
        ["acl: observed twice", "acl/dflt/inherits: is missing", "new\\nname: is not in the manifest"]
    );
}

/// Runs one constraint over one regular file (or none) and returns the differences.
fn constrained(rule: Constraint, file: Option<(&str, &[u8])>) -> Vec<String> {
    let mut manifest = golden::image("08-crash-rename").manifest();
    manifest.entries.clear();
    manifest.constraints = vec![rule];
    let observed = file.map(|(path, data)| ObservedEntry {
        sha256: Some(sha256_hex(data)),
        ..ObservedEntry::new(path, FileType::Reg)
    });
    Comparison::new(&manifest).run(observed, |path| match file {
        Some((known, data)) if known.as_bytes() == path => Ok(data.to_vec()),
        _ => Err("no such file".into()),
    })
}

#[test]
fn constraints_about_existence() {
    let sha256 = sha256_hex(b"right");
    let one = || Constraint::ExactlyOne { paths: vec!["a".into(), "b".into()], sha256: sha256.clone() };
    assert!(constrained(one(), Some(("a", b"right"))).is_empty());
    assert_eq!(constrained(one(), Some(("b", b"wrong"))), ["b: has another content"]);
    assert_eq!(constrained(one(), None), ["a or b: 0 exist, not 1"]);

    let absent = || Constraint::Absent { path: "a".into() };
    assert!(constrained(absent(), None).is_empty());
    assert_eq!(constrained(absent(), Some(("a", b""))).len(), 1);

    let absent_or = || Constraint::AbsentOr { path: "a".into(), sha256: sha256.clone() };
    assert!(constrained(absent_or(), None).is_empty());
    assert!(constrained(absent_or(), Some(("a", b"right"))).is_empty());
    assert_eq!(constrained(absent_or(), Some(("a", b"wrong"))).len(), 1);

    let one_of = || Constraint::OneOf { path: "a".into(), sha256: vec![sha256_hex(b"x"), sha256.clone()] };
    assert!(constrained(one_of(), Some(("a", b"right"))).is_empty());
    assert_eq!(constrained(one_of(), Some(("a", b"wrong"))).len(), 1);
    assert_eq!(constrained(one_of(), None).len(), 1);
}

#[test]
fn constraints_about_blocks() {
    let rule = |min_gen: [u64; 2]| Constraint::Blocks {
        path: "d/o".into(),
        block_bytes: 20,
        min_gen: min_gen.into(),
    };
    let good = b"d/o 0 7\nd/o 0 7\nd/o d/o 1 12\nd/o 1 12\nd/";
    assert_eq!(good.len(), 40);
    assert_eq!(constrained(rule([7, 3]), Some(("d/o", good))), [""; 0]);
    assert_eq!(constrained(rule([8, 3]), Some(("d/o", good))).len(), 1, "an older generation");
    let mut torn = *good;
    torn[30] = b'!';
    assert!(constrained(rule([0, 0]), Some(("d/o", &torn)))[0].contains("block 1"));
    assert!(constrained(rule([0, 0]), Some(("d/o", &good[..39])))[0].contains("39 bytes"));
    assert!(constrained(rule([0, 0]), None)[0].contains("cannot be read"));
}

#[test]
fn constraints_about_lines() {
    let prefix = |min_size_bytes| Constraint::PrefixLines { path: "a".into(), min_size_bytes };
    assert!(constrained(prefix(12), Some(("a", b"a line 0\na li"))).is_empty());
    assert!(constrained(prefix(14), Some(("a", b"a line 0\na li"))).len() == 1, "too short");
    assert!(constrained(prefix(0), Some(("a", b"a line 0\na line 2\n"))).len() == 1, "a line is missing");
    assert!(constrained(prefix(0), Some(("a", b"a line 0\na\0"))).len() == 1, "not cut but overwritten");

    let names = || Constraint::NameLines { dir: "d".into(), size_max_bytes: 6 };
    assert!(constrained(names(), Some(("d/xy", b"xy\n\0\0\n"))).is_empty());
    assert!(constrained(names(), Some(("d/xy", b"xy\nz"))).len() == 1, "a foreign byte");
    assert!(constrained(names(), Some(("d/xy", b"xy\nxy\nx"))).len() == 1, "too long");
    assert!(constrained(names(), Some(("elsewhere", b"foreign"))).is_empty());
}
