use super::*;
use frazil_ondisk::units::{DevIndex, Gen, NodeSeq};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{KeyType, bkey::Bkey};
use proptest::prelude::*;

use crate::build::derived::pointer;

/// A node as it was placed.
struct Placed {
    level: u8,
    min: Bpos,
    max: Bpos,
    keys: Vec<KeyBuf>,
    words: usize,
}

#[derive(Default)]
struct Collect(Vec<Placed>);

impl NodeSink for Collect {
    fn place(&mut self, node: &FullNode<'_>) -> Result<KeyBuf> {
        let keys: Vec<KeyBuf> = node.keys().map(|k| k.to_owned()).collect();
        let mut bytes = Vec::new();
        for key in &keys {
            assert!(node.format.packs(&key.k), "{key:?} does not pack");
            node.format.encode_key(key.as_key(), &mut bytes);
        }
        let (level, min, max) = (node.level, node.min, node.max);
        self.0.push(Placed { level, min, max, keys, words: bytes.len() / 8 });
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(self.0.len() as u64 * 64), Gen(0));
        Ok(pointer(max, min, NodeSeq(1), Sectors(8), &ptr.to_word().to_le_bytes()))
    }
}

const NODE: Sectors = Sectors(64);

fn build(keys: &[KeyBuf]) -> (Vec<Placed>, Option<Root>) {
    let mut tree = TreeBuilder::new(BtreeId::EXTENTS, NODE);
    let mut placed = Collect::default();
    for key in keys {
        tree.push(key.as_key(), &mut placed).unwrap();
    }
    let root = tree.finish(&mut placed).unwrap();
    (placed.0, root)
}

/// Every key is in exactly one leaf, nodes of a level tile all positions, and each node has the keys that point to the nodes below.
fn assert_sound(keys: &[KeyBuf], nodes: &[Placed], root: &Root) {
    for level in 0..=root.0 {
        let here: Vec<&Placed> = nodes.iter().filter(|n| n.level == level).collect();
        assert_eq!(here[0].min, Bpos::MIN);
        assert_eq!(here[here.len() - 1].max, Bpos::MAX);
        for pair in here.windows(2) {
            assert_eq!(pair[0].max.successor(), Some(pair[1].min));
        }
        let held: Vec<Bpos> = here.iter().flat_map(|n| n.keys.iter().map(|k| k.k.pos)).collect();
        let below: Vec<Bpos> = match level {
            0 => keys.iter().map(|k| k.k.pos).collect(),
            _ => nodes.iter().filter(|n| n.level == level - 1).map(|n| n.max).collect(),
        };
        assert_eq!(held, below);
        let room = (NODE.0 * SECTOR_BYTES) as usize - NODE_HEADER_BYTES;
        assert!(here.iter().all(|n| n.words * 8 <= room), "a node is too long");
        assert!(here.iter().all(|n| n.keys.iter().all(|k| n.min <= k.k.pos && k.k.pos <= n.max)));
        assert_eq!(here.len() == 1, level == root.0, "the root is alone, and only the root");
    }
}

#[test]
fn an_empty_tree_has_no_node() {
    let (nodes, root) = build(&[]);
    assert!(nodes.is_empty() && root.is_none());
}

#[test]
fn deep_trees() {
    let keys: Vec<KeyBuf> = (0..40_000u64)
        .map(|n| KeyBuf::new(KeyType::COOKIE, Bpos::new(n / 100, n % 100 * 8 + 8, u32::MAX), 8, [7; 240]))
        .collect();
    let (nodes, root) = build(&keys);
    let root = root.unwrap();
    assert_eq!(root.0, 2);
    assert_sound(&keys, &nodes, &root);
    let room = ((NODE.0 * SECTOR_BYTES) as usize - NODE_HEADER_BYTES) / 8;
    let leaves: Vec<&Placed> = nodes.iter().filter(|n| n.level == 0).collect();
    assert!(leaves[..leaves.len() - 1].iter().all(|n| n.words * 100 >= room * 70 && n.words * 4 <= room * 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Positions far apart need wide formats, near ones narrow; sizes and versions come and go.
    #[test]
    fn any_keys_make_a_sound_tree(
        steps in proptest::collection::vec((0u32..64, 0usize..12, 0u32..1000, any::<bool>()), 1..3000)
    ) {
        let mut at = Bpos::MIN;
        let mut keys = Vec::new();
        for (jump, words, size, versioned) in steps {
            at = match jump {
                0 => Bpos::new(at.inode.saturating_add(1 << 40), 0, 0),
                1..8 => Bpos::new(at.inode + 1, 1, u32::MAX),
                n => Bpos::new(at.inode, at.offset + u64::from(n), u32::MAX),
            };
            if keys.last().is_some_and(|last: &KeyBuf| last.k.pos >= at) {
                break;
            }
            let mut key = KeyBuf::new(KeyType::COOKIE, at, size, vec![1; words * 8]);
            key.k.version.lo = if versioned { 1 << 33 } else { 0 };
            keys.push(KeyBuf { k: Bkey { ..key.k }, value: key.value });
        }
        let (nodes, root) = build(&keys);
        assert_sound(&keys, &nodes, &root.unwrap());
    }
}
