//! `show-super`, `list`, `list-journal` against what the reference printed.

use std::collections::BTreeMap;

use frazil_device::{Access, OpenOptions};
use frazil_testing::golden::{self, GoldenImage, State};
use frazil_testing::listing::Listing;
use serde_json::Value;

use crate::run::Opening;

/// Images of version 1.13 that differ in what their metadata are like.
const IMAGES: [&str; 10] = [
    "01-empty-initialised",
    "02-small-tree",
    "04-csum-meta-xxhash-data-crc32c",
    "06-geom-bs512-bucket128k-node64k",
    "08-crash-encrypted",
    "08-crash-multi",
    "09-multi-tiered",
    "10-snapshots",
    "11-reflink",
    "14-usrquota",
];

fn images() -> impl Iterator<Item = GoldenImage> {
    IMAGES.into_iter().map(golden::image)
}

/// Our listing of all b-trees, by name.
fn list_all(image: &GoldenImage) -> BTreeMap<String, Listing> {
    let text = Opening::of(image).text(&["list"], &[]);
    let parts = text.split("b-tree ").filter(|part| !part.is_empty());
    let part = |part: &str| {
        let (name, keys) = part.split_once(":\n").unwrap();
        (name.to_owned(), Listing::parse(keys).unwrap())
    };
    parts.map(part).collect()
}

#[test]
fn list_prints_what_the_reference_prints() {
    let mut keys = 0;
    // Those of unclean images show something else: the nodes without the journal.
    for image in images().filter(|image| image.state == State::Clean) {
        let ours = list_all(&image);
        for (btree, ours) in &ours {
            let theirs = image.listing(btree).unwrap_or_else(|| panic!("{}: no list of {btree}", image.name));
            assert_eq!(ours.keys.len(), theirs.keys.len(), "{}: {btree}", image.name);
            for (our, mut their) in ours.keys.iter().zip(theirs.keys) {
                // It prints the address of inline data.
                if our.key_type.ends_with("inline_data") {
                    their.value.clone_from(&our.value);
                }
                assert_eq!(*our, their, "{}: {btree}", image.name);
                keys += 1;
            }
        }
        let extents = image.listing("extents").unwrap();
        assert!(ours.contains_key("extents") != extents.keys.is_empty(), "{}", image.name);
    }
    assert!(keys > 5_000, "only {keys} keys");
}

#[test]
fn list_nodes_prints_the_pointers_the_reference_prints() {
    let mut nodes = 0;
    let deep = [golden::image("03-many-files"), golden::image("06-deep-btree-node32k")];
    for image in images().filter(|image| image.state == State::Clean).chain(deep) {
        let opening = Opening::of(&image);
        for btree in ["extents", "inodes", "dirents", "alloc"] {
            let theirs = Listing::parse(&image.reference(&format!("nodes-{btree}")).unwrap()).unwrap().keys;
            let ours = Listing::parse(&opening.text(&["list", "--nodes", "-b", btree], &[])).unwrap().keys;
            // Of a b-tree without a root it shows a leaf made up in memory.
            if theirs[0].key_type == "btree_ptr" {
                assert_eq!(ours, []);
                continue;
            }
            nodes += ours.len();
            assert_eq!(ours, theirs, "{}: {btree}", image.name);
        }
    }
    assert!(nodes > 100, "only {nodes} nodes");
}

#[test]
fn list_selects() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    let list = |arguments: &[&str]| {
        let text = opening.text(&[&["list", "-b", "extents"], arguments].concat(), &[]);
        Listing::parse(&text).unwrap().keys
    };
    let all = list(&[]);
    let of_inode: Vec<_> = all.iter().filter(|key| key.pos.0 == 4109).cloned().collect();
    assert!(!of_inode.is_empty() && of_inode.len() < all.len());
    assert_eq!(list(&["--from", "4109", "--to", "4109"]), of_inode);
    assert_eq!(list(&["--from", "4109:9", "--to", "4109:8"]), []);
    assert_eq!(list(&["-n", "3"]), all[..3]);
    assert_eq!(list(&["--level", "3"]), []);
}

#[test]
fn list_json_has_the_same_keys() {
    let opening = Opening::of(&golden::image("10-snapshots"));
    let text = opening.text(&["list", "-b", "dirents"], &[]);
    let keys = Listing::parse(&text).unwrap().keys;
    let json = opening.text(&["list", "--json", "-b", "dirents"], &[]);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), keys.len());
    for (line, key) in lines.iter().zip(&keys) {
        assert_eq!((&line["btree"], &line["level"]), (&"dirents".into(), &0.into()));
        assert_eq!(line["inode"], key.pos.0);
        assert_eq!(line["offset"], key.pos.1);
        assert_eq!(line["snapshot"], key.pos.2);
        assert_eq!(line["type"], key.key_type);
        assert_eq!(line["u64s"], key.u64s);
        assert_eq!(line["version"], key.version.to_string());
        assert_eq!(line["value"], key.value.trim());
        let again =
            opening.text(&["list", "-b", "dirents", "-n1", "--from", line["pos"].as_str().unwrap()], &[]);
        assert_eq!(Listing::parse(&again).unwrap().keys[0], *key);
    }
}

/// The lines of a journal listing that both print: without padding, without our remarks, inline data masked.
fn journal_lines(text: &str) -> Vec<String> {
    let printed_by_both = |line: &&str| {
        let ours = ["  ignored  ", "  damaged  "].iter().any(|remark| line.starts_with(remark));
        !ours && !matches!(line.trim(), "" | "btree_keys:" | "overwrite:")
    };
    let mask = |line: &str| match line.split_once(" type inline_data ") {
        Some((head, tail)) => format!("{head} inline data {}", tail.split(": ").next().unwrap_or_default()),
        None => line.to_owned(),
    };
    text.lines().filter(printed_by_both).map(mask).collect()
}

#[test]
fn list_journal_ends_as_the_reference_does() {
    let mut compared = 0;
    for image in images().filter(|image| image.name != "01-empty-initialised") {
        let theirs = journal_lines(&image.reference("list_journal").unwrap());
        let ours = journal_lines(&Opening::of(&image).text(&["list-journal", "-a"], &[]));
        // Theirs are the last 2000 lines; the first of them may belong to a value cut off.
        let tail = &ours[ours.len().saturating_sub(theirs.len() - 1)..];
        for (i, (our, their)) in tail.iter().zip(&theirs[1..]).enumerate() {
            assert_eq!(our, their, "{}: line {i}", image.name);
        }
        compared += tail.len();
    }
    assert!(compared > 10_000, "only {compared} lines");
}

#[test]
fn list_journal_says_what_recovery_would_do() {
    let opening = Opening::of(&golden::image("08-crash-create"));
    let entries = |arguments: &[&str]| -> Vec<Value> {
        let json = opening.text(&[&["list-journal", "--json"], arguments].concat(), &[]);
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (used, all) = (entries(&[]), entries(&["-a"]));
    assert!(used.iter().all(|entry| entry["fate"] == "used" && entry["ignored_because"].is_null()));
    assert!(all.len() > used.len());
    let unused = all.iter().filter(|entry| entry["fate"] != "used");
    assert!(unused.into_iter().all(|entry| entry["ignored_because"].is_string()));
    let middle = used[used.len() / 2]["seq"].to_string();
    assert_eq!(entries(&["--from", &middle, "--to", &middle]), [used[used.len() / 2].clone()]);
    let keys = |entry: &Value| entry["entries"].as_array().unwrap().iter().any(|sub| sub["keys"].is_array());
    assert!(used.iter().any(keys));
}

#[test]
fn show_super_prints_what_the_reference_prints() {
    for image in images() {
        for (i, path) in image.unpack().iter().enumerate() {
            let devices = image.devices.len();
            let name = if devices == 1 { "show-super".into() } else { format!("show-super.dev{i}") };
            let ours =
                crate::run::frazil(["show-super".into(), "-f".into(), "members,errors".into(), path.clone()]);
            let ours = String::from_utf8(crate::run::checked(ours)).unwrap();
            let ours: Vec<&str> = ours.lines().map(str::trim).collect();
            let mut compared = 0;
            for line in image.reference(&name).unwrap().lines().map(str::trim) {
                if is_printed_otherwise(line) {
                    continue;
                }
                assert!(ours.contains(&line), "{} {i}: not printed: {line}", image.name);
                compared += 1;
            }
            assert!(compared > 60, "{}: only {compared} lines", image.name);
        }
    }
}

/// Lines of the reference that we print in another way: headings, columns of the layout, the path and label of a device,
/// the block size of a bitmap, which it takes for bytes, and a time that was never.
fn is_printed_otherwise(line: &str) -> bool {
    let begins =
        ["Device:", "Label: ", "layout:", "Type: ", "Superblock max size", "Nr superblocks", "Offsets"];
    let bitmap = line.starts_with("Btree allocated bitmap blocksize");
    line.is_empty() || bitmap || line.ends_with("1970") || begins.iter().any(|start| line.starts_with(start))
}

#[test]
fn show_super_json_has_stable_names() {
    let opening = Opening::of(&golden::image("09-multi-tiered"));
    let first = opening.devices.split(':').next().unwrap();
    let output = crate::run::checked(crate::run::frazil(["show-super", "--json", first]));
    let json: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(json["device"], first);
    assert_eq!(json["external_uuid"], "e806e9a6-8794-477a-aad2-3df9453eb5e1");
    assert_eq!(json["label"], Value::Null);
    assert_eq!(json["devices"], 2);
    assert_eq!(json["clean"], true);
    assert_eq!(json["options"]["block_size"], 4096);
    assert_eq!(json["options"]["errors"], "fix_safe");
    assert_eq!(json["options"]["foreground_target"], "fast");
    assert_eq!(json["layout"]["offsets"], serde_json::json!([8, 2056, 129_024]));
    let member = &json["sections_in_detail"]["members_v2"]["device_1"];
    assert_eq!(member["bucket_size"], 128 << 10);
    assert_eq!(member["data_allowed"], serde_json::json!(["journal", "btree", "user"]));
}

#[test]
fn show_super_shows_a_device_in_use() {
    let scratch = golden::image("02-small-tree").scratch();
    let path = scratch.paths[0].to_str().unwrap();
    let in_use = OpenOptions::new(Access::ReadWrite).open(&scratch.paths[0]).unwrap();
    crate::run::checked(crate::run::frazil(["show-super", path]));
    let list = crate::run::frazil(["list", "-n1", path]).output().unwrap();
    assert_eq!(list.status.code(), Some(1));
    let told = crate::run::errors(&list);
    assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    drop(in_use);
    crate::run::checked(crate::run::frazil(["list", "-n1", path]));
}
