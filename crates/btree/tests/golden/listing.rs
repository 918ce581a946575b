//! Every key of every b-tree of every golden image, compared with the reference's listing of it, and the pointers to all
//! nodes with its list of those.
//!
//! Clean images must agree in everything. What a listing of an unclean image shows depends on how it was made:
//!
//! * version 1.13, as a rule: the nodes that the journal's roots lead to, and *none* of the journal's keys on any level
//!   (the tool skipped recovery, and stopped overlaying when it "went read-write");
//! * version 1.13 where that hung: the result of a recovery in memory, which also changes the allocation trees;
//! * later: the journal overlaid, and its accounting deltas applied, which are no business of this crate.

use frazil_btree::Root;
use frazil_ondisk::node::BtreePtrV2;
use frazil_ondisk::values::list;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_testing::golden::{self, GoldenImage, State};
use frazil_testing::listing::{ListedKey, Listing};

use crate::volume::{Over, Volume, open};

/// Trees that a recovery in memory changes by allocating, discarding and accounting.
const CHANGED_BY_RECOVERY: [BtreeId; 6] = [
    BtreeId::ALLOC,
    BtreeId::LRU,
    BtreeId::FREESPACE,
    BtreeId::NEED_DISCARD,
    BtreeId::BACKPOINTERS,
    BtreeId::ACCOUNTING,
];

/// The image and trees in which the tool had discarded two buckets, in memory, by the time it listed them.
const DISCARDED_WHILE_LISTING: (&str, [BtreeId; 2]) =
    ("08-crash-overwrite", [BtreeId::FREESPACE, BtreeId::ACCOUNTING]);

/// All keys of a b-tree; forwards, backwards and one by one they must be the same.
fn keys(volume: &Volume, btree: BtreeId) -> Vec<KeyBuf> {
    let mut cursor = volume.trees.cursor(btree, ..);
    let mut keys = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        keys.push(key.to_owned());
    }
    for want in keys.iter().rev() {
        assert_eq!(cursor.prev().unwrap(), Some(want.as_key()));
    }
    assert_eq!(cursor.prev().unwrap(), None);
    for want in keys.iter().step_by(7) {
        assert_eq!(volume.trees.get(btree, want.k.pos).unwrap().unwrap().key(), want.as_key());
    }
    keys
}

/// The reference's listing of a b-tree; `None` if there is none, which means that it is empty or, for the few lists kept
/// elsewhere, nothing.
fn listing(image: &GoldenImage, btree: BtreeId) -> Option<Listing> {
    let name = match btree {
        BtreeId::REBALANCE_WORK if image.version.minor >= 33 => "reconcile_work",
        _ => btree.name().unwrap(),
    };
    image.listing(name)
}

/// The head of a listed key's line.
fn head(key: &ListedKey) -> String {
    let pos = Bpos::new(key.pos.0, key.pos.1, key.pos.2);
    format!("u64s {} type {} {pos} len {} ver {}", key.u64s, key.key_type, key.len, key.version)
}

/// Compares the heads of a b-tree's keys with its listing. Returns how many there are.
fn compare(image: &GoldenImage, volume: &Volume, btree: BtreeId) -> usize {
    let ours = keys(volume, btree);
    let at = format!("{} {btree}", image.name);
    let Some(listing) = listing(image, btree) else {
        let elsewhere = golden::LISTINGS_ELSEWHERE.contains(&(&*image.name, &*format!("list-{btree}")));
        assert!(elsewhere || ours.is_empty(), "{at}: {} keys, no listing", ours.len());
        return 0;
    };
    let theirs: Vec<String> = listing.keys.iter().map(head).collect();
    let heads: Vec<String> = ours.iter().map(|k| k.as_key().to_string()).collect();
    let differ = heads.iter().zip(&theirs).find(|(a, b)| a != b);
    assert!(
        heads == theirs,
        "{at}: {} keys, listed {}; first difference {differ:?}",
        heads.len(),
        theirs.len()
    );
    ours.len()
}

/// The pointers to all nodes of a b-tree, a parent behind its children.
fn node_pointers(volume: &Volume, btree: BtreeId) -> Vec<KeyBuf> {
    let Some(Root::At { level: top, key }) = volume.trees.root(btree) else { return Vec::new() };
    let mut pointers = vec![(key.k.pos, top, key)];
    for level in 1..=top {
        let mut cursor = volume.trees.level_cursor(btree, level, ..);
        while let Some(pointer) = cursor.next().unwrap() {
            pointers.push((pointer.k.pos, level - 1, pointer.to_owned()));
        }
    }
    pointers.sort_by_key(|&(pos, level, _)| (pos, level));
    pointers.into_iter().map(|(_, _, pointer)| pointer).collect()
}

/// Compares the nodes of a b-tree with the reference's list of them. Returns how many there are.
fn compare_nodes(image: &GoldenImage, volume: &Volume, btree: BtreeId) -> usize {
    let Some(text) = image.reference(&format!("nodes-{btree}")) else { return 0 };
    let theirs = Listing::parse(&text).unwrap().keys;
    let ours = node_pointers(volume, btree);
    if ours.is_empty() {
        // The reference shows the leaf it makes up in memory.
        assert!(theirs.len() == 1 && theirs[0].key_type == "btree_ptr", "{} {btree}", image.name);
        return 0;
    }
    assert_eq!(ours.len(), theirs.len(), "{} {btree}", image.name);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let ptr = BtreePtrV2::decode(&ours.value).unwrap();
        assert_eq!(ours.as_key().to_string(), head(theirs), "{} {btree}", image.name);
        let value = format!("seq {:x} written {} min_key {}", ptr.seq.0, ptr.sectors_written, ptr.min_key);
        assert!(theirs.value.starts_with(&value), "{} {btree}: {value}, listed {}", image.name, theirs.value);
    }
    ours.len()
}

fn images(state: impl Fn(State) -> bool) -> impl Iterator<Item = GoldenImage> {
    golden::all().into_iter().filter(move |image| state(image.state))
}

#[test]
fn clean_images_hold_the_listed_keys() {
    let mut nodes = 0;
    for image in images(|s| s != State::Killed) {
        let volume = open(&image, Over::Journal);
        if image.name == "01-empty-formatted-only" {
            // Never mounted; the reference lists what a first mount would make.
            assert_eq!(volume.trees.roots().len(), 0);
            continue;
        }
        let keys: usize = BtreeId::known().map(|btree| compare(&image, &volume, btree)).sum();
        assert!(keys >= 80, "{}: only {keys} keys", image.name);
        assert_eq!(volume.trees.problems(), [], "{}", image.name);
        let stats = volume.trees.cache_stats();
        assert!(stats.bytes <= stats.bytes_max, "{}: {stats:?}", image.name);
        nodes += BtreeId::known().map(|btree| compare_nodes(&image, &volume, btree)).sum::<usize>();
    }
    assert!(nodes > 300, "only {nodes} nodes");
}

#[test]
fn values_of_version_1_13_read_as_listed() {
    for image in images(|s| s != State::Killed).filter(|i| i.version.minor <= 13) {
        let volume = open(&image, Over::Journal);
        for btree in BtreeId::known() {
            let Some(listing) = listing(&image, btree) else { continue };
            for (ours, theirs) in keys(&volume, btree).iter().zip(&listing.keys) {
                let line = list::key(ours.as_key(), &volume.facts).to_string();
                let value = &line[ours.as_key().to_string().len()..];
                let value = value.strip_prefix(": ").unwrap_or(value).trim_end_matches('\n');
                match ours.k.ty {
                    // The reference prints the address of inline data.
                    KeyType::INLINE_DATA | KeyType::INDIRECT_INLINE_DATA => {
                        let (ours_head, _) = value.rsplit_once(':').unwrap();
                        let (head, _) = theirs.value.rsplit_once(':').unwrap();
                        assert_eq!(ours_head, head, "{} {ours:?}", image.name);
                    }
                    _ => assert_eq!(value, theirs.value, "{} {ours:?}", image.name),
                }
            }
        }
    }
}

#[test]
fn plain_listings_of_unclean_images_show_the_nodes() {
    let mut compared = 0;
    for image in images(|s| s == State::Killed).filter(|i| i.version.minor <= 13) {
        if listing(&image, BtreeId::EXTENTS).unwrap().after_check {
            continue;
        }
        let volume = open(&image, Over::Nothing);
        for btree in BtreeId::known() {
            if image.name == DISCARDED_WHILE_LISTING.0 && DISCARDED_WHILE_LISTING.1.contains(&btree) {
                continue;
            }
            compared += compare(&image, &volume, btree);
        }
        assert_eq!(volume.trees.problems(), [], "{}", image.name);
    }
    assert!(compared > 20_000, "only {compared} keys");
}

#[test]
fn recovered_listings_show_the_journal_overlaid() {
    let mut compared = 0;
    for image in images(|s| s == State::Killed) {
        let volume = open(&image, Over::Journal);
        for btree in BtreeId::known() {
            // Must at least agree with itself, in all directions.
            keys(&volume, btree);
            let changed = if image.version.minor > 13 {
                btree == BtreeId::ACCOUNTING
            } else {
                CHANGED_BY_RECOVERY.contains(&btree)
            };
            let text = image.reference(&format!("list-{btree}")).unwrap_or_default();
            // Some of these recoveries failed, and then nothing was listed.
            let failed = text.contains("\nError: ");
            let recovered = image.version.minor > 13 || listing(&image, btree).is_some_and(|l| l.after_check);
            if recovered && !changed && !failed {
                compared += compare(&image, &volume, btree);
            }
        }
        assert_eq!(volume.trees.problems(), [], "{}", image.name);
    }
    assert!(compared > 1_500, "only {compared} keys");
}
