//! The names of the newer golden images, whose listings show hash type and seed, hash to where they are.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;

use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_testing::golden::{self, GoldenImage};

fn hash_type(name: &str) -> StrHashType {
    (0..4).filter_map(StrHashType::from_raw).find(|t| t.name() == name).expect("a known hash type")
}

/// The hash function of every directory, by inode number.
fn hashes(image: &GoldenImage) -> HashMap<u64, StrHash> {
    let inodes = image.listing("inodes").expect("a list of inodes");
    let field = |value: &str, name: &str| {
        let line = value.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(str::to_owned)
    };
    let keys = inodes.keys.iter().filter(|k| k.key_type == "inode_v3");
    keys.filter_map(|k| {
        let seed = u64::from_str_radix(&field(&k.value, "hash_seed")?, 16).unwrap();
        Some((k.pos.1, StrHash::new(hash_type(&field(&k.value, "hash_type")?), seed)))
    })
    .collect()
}

/// The bytes that were hashed, from `NAME -> …` or `NAME (casefold FOLDED) -> …`.
fn hashed_name(value: &str) -> &str {
    let (names, _) = value.split_once(" -> ").expect("a directory entry points somewhere");
    match names.rsplit_once(" (casefold ") {
        Some((_, folded)) => folded.strip_suffix(')').expect("a closing parenthesis"),
        None => names,
    }
}

/// Entries at their hash, and behind it because the slot was taken.
fn compare(image: &GoldenImage) -> (usize, usize) {
    let hashes = hashes(image);
    let dirents = image.listing("dirents").expect("a list of directory entries");
    let (mut exact, mut behind) = (0, 0);
    // The listing replaces bytes that are not UTF-8.
    let readable = |value: &str| !value.contains(char::REPLACEMENT_CHARACTER);
    for key in dirents.keys.iter().filter(|k| k.key_type == "dirent" && readable(&k.value)) {
        let (dir, offset, _) = key.pos;
        let Some(hash) = hashes.get(&dir) else { continue };
        match offset.checked_sub(hash.dirent(hashed_name(&key.value).as_bytes())) {
            Some(0) => exact += 1,
            Some(1..=16) => behind += 1,
            _ => panic!("{}: {} is at {offset}", image.name, key.value),
        }
    }
    (exact, behind)
}

#[test]
fn names_are_where_they_hash_to() {
    let mut exact_in = HashMap::new();
    for image in golden::all().into_iter().filter(|i| i.version.minor > 13) {
        let (exact, behind) = compare(&image);
        println!("{}: {exact} exact, {behind} behind", image.name);
        exact_in.insert(image.name, exact);
    }
    assert!(exact_in.values().any(|&n| n > 0));
}
