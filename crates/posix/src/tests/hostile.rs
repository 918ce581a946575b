//! Any bytes in place of values: every operation ends, with a result or an error.

use std::ops::ControlFlow;

use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use proptest::prelude::*;

use crate::attr::{FileType, NodeId};
use crate::testing::{Keys, SNAPSHOT};
use crate::walk::{Visit, WalkStep};

/// A key of one of the b-trees that a file is made of, with a value that may be anything.
fn any_key() -> impl Strategy<Value = (BtreeId, KeyType, Bpos, Vec<u8>)> {
    let inum = || prop_oneof![Just(4096u64), Just(5000), any::<u64>()];
    let place = prop_oneof![
        inum().prop_map(|i| (BtreeId::INODES, 0, i)),
        (inum(), any::<u64>()).prop_map(|(dir, slot)| (BtreeId::DIRENTS, dir, slot)),
        (inum(), any::<u64>()).prop_map(|(owner, slot)| (BtreeId::XATTRS, owner, slot)),
        (0u64..4).prop_map(|id| (BtreeId::SUBVOLUMES, 0, id)),
    ];
    let kinds = [
        KeyType::INODE,
        KeyType::INODE_V2,
        KeyType::INODE_V3,
        KeyType::INODE_GENERATION,
        KeyType::DIRENT,
        KeyType::XATTR,
        KeyType::HASH_WHITEOUT,
        KeyType::SUBVOLUME,
    ];
    let kind = proptest::sample::select(kinds.to_vec());
    let words =
        proptest::collection::vec(prop_oneof![Just(0), any::<u64>(), Just(4096u64), Just(5000)], 0..16);
    (place, kind, words).prop_map(|((btree, inode, offset), ty, words)| {
        let snapshot = if btree == BtreeId::SUBVOLUMES { 0 } else { SNAPSHOT };
        let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        (btree, ty, Bpos::new(inode, offset.min(u64::MAX - 1), snapshot), value)
    })
}

proptest! {
    #[test]
    fn any_values_give_results_or_errors(
        found in proptest::collection::vec(any_key(), 0..40),
        name in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut keys = Keys::volume();
        for (btree, ty, pos, value) in found {
            keys.put(btree, ty, pos, value);
        }
        let names = keys.namespace(&[(SNAPSHOT, 0)]);
        let mut visits = 0;
        names.walk(NodeId::ROOT, &mut |_, visit| {
            visits += 1;
            if let Visit::Object(attr) = visit {
                let _ = names.lookup(attr.node, &name);
                let _ = names.listxattr(attr.node);
                let _ = names.parent(attr.node);
                assert!(!names.path_of(attr.node).is_empty());
                assert!(attr.mtime.nanos < 1_000_000_000);
                assert!(attr.kind == FileType::Regular || attr.kind == FileType::Symlink || attr.size == 0);
            }
            WalkStep::Continue
        });
        // Every key is listed at most once, in one directory.
        prop_assert!((1..=41).contains(&visits), "{} visits", visits);
        for inum in [4096, 5000] {
            let node = NodeId { inum: Inum(inum), ..NodeId::ROOT };
            let _ = names.readdir_plus(node, 3, &mut |entry, _| {
                assert!(entry.next > 2 && !entry.name.is_empty());
                ControlFlow::Continue(())
            });
        }
        let _ = names.subvolumes();
    }
}
