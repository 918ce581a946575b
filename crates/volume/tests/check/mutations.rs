//! Random damage to keys that checksums do not catch: whatever the keys say, the check ends, and does not panic.

use frazil_ondisk::{BtreeId, KeyBuf};
use frazil_testing::golden;
use frazil_testing::seed::for_each_seed;
use frazil_volume::check::check;
use frazil_volume::{OpenOptions, open};

use super::damage::healthy;

/// Numbers that are as good as random, from a seed.
struct Random(u64);

impl Random {
    /// The next number below `end`.
    fn below(&mut self, end: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

/// Changes a few bits of the value of some keys, or their size, or removes them.
fn mutate(keys: &mut Vec<KeyBuf>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        if keys.is_empty() {
            return;
        }
        let i = random.below(keys.len());
        match random.below(10) {
            0 => drop(keys.remove(i)),
            1 => keys[i].k.size ^= 1 << random.below(32),
            _ if keys[i].value.is_empty() => keys[i].k.ty.0 ^= 1 << random.below(6),
            _ => {
                let at = random.below(keys[i].value.len());
                keys[i].value[at] ^= 1 << random.below(8);
            }
        }
    }
}

#[test]
fn whatever_keys_say_the_check_ends() {
    const IMAGES: [&str; 5] =
        ["02-small-tree", "09-multi-tiered", "10-snapshots", "11-reflink", "18-newer-1.39-ec"];
    let images = IMAGES.map(|name| {
        let image = golden::image(name);
        let patient = healthy(&image);
        (image, patient)
    });
    let (mut opened, mut noticed) = (0, 0);
    for_each_seed(150, |seed| {
        let mut random = Random(seed);
        let (_, patient) = &images[random.below(images.len())];
        let mut patient = patient.copy();
        let btrees: Vec<BtreeId> = BtreeId::known().filter(|&b| patient.root(b).is_some()).collect();
        let btree = btrees[random.below(btrees.len())];
        let keys = patient.keys(btree);
        let Some(pos) = (!keys.is_empty()).then(|| keys[random.below(keys.len())].k.pos) else { return };
        patient.edit_node(btree, 0, pos, |keys| {
            mutate(keys, &mut random);
            keys.retain(|key| key.k.ty.0 != 0);
        });
        if let Ok(volume) = open(patient.devices(), OpenOptions::default()) {
            opened += 1;
            noticed += u32::from(!check(&volume).is_clean());
        }
    });
    // Not every bit is stored twice: times, contents of inline data, owners.
    assert!(noticed > opened / 3, "{noticed} of {opened} noticed");
    println!("{noticed} of {opened} noticed");
}
