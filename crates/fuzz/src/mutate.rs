//! Damage to bytes: small changes of the kinds that find mistakes in decoders.

use fastrand::Rng;

/// Values at the edges of what fields hold.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    4,
    5,
    0x7f,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Longest result, so that repeated growth stays small.
const LEN_MAX: usize = 1 << 20;

/// A number that finds mistakes: at the edge of what a field holds, or any.
pub fn number(rng: &mut Rng) -> u64 {
    if rng.bool() { EDGES[rng.usize(..EDGES.len())] } else { rng.u64(..) }
}

/// Damages `bytes` in one to eight places; `other` is another input to take pieces from.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..rng.usize(1..=8) {
        match rng.u32(0..9) {
            0 | 1 => flip_bit(bytes, rng),
            2 | 3 => set_field(bytes, rng),
            4 => add_to_field(bytes, rng),
            5 => move_piece(bytes, rng),
            6 => take_piece(bytes, other, rng),
            7 => cut_or_grow(bytes, rng),
            _ => fill_piece(bytes, rng),
        }
    }
}

/// A place in `bytes`, more often near the beginning, where headers are.
fn place(bytes: &[u8], rng: &mut Rng) -> Option<usize> {
    let len = bytes.len();
    let bound = if rng.bool() { len.min(256) } else { len };
    (bound > 0).then(|| rng.usize(..bound))
}

/// A field in `bytes`: an aligned range of 1, 2, 4 or 8 bytes.
fn field(bytes: &[u8], rng: &mut Rng) -> Option<std::ops::Range<usize>> {
    let width = 1 << rng.u32(0..4);
    let start = place(bytes, rng)? / width * width;
    (start + width <= bytes.len()).then_some(start..start + width)
}

/// A piece of `len` bytes or fewer of something `total` long; often whole words.
fn piece(total: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let align = if rng.bool() { 8 } else { 1 };
    let start = rng.usize(..=total) / align * align;
    let len = rng.usize(..=64.min(total - start)) / align * align;
    start..start + len
}

fn flip_bit(bytes: &mut [u8], rng: &mut Rng) {
    if let Some(at) = place(bytes, rng) {
        bytes[at] ^= 1 << rng.u32(0..8);
    }
}

fn set_field(bytes: &mut [u8], rng: &mut Rng) {
    if let Some(range) = field(bytes, rng) {
        let width = range.len();
        bytes[range].copy_from_slice(&number(rng).to_le_bytes()[..width]);
    }
}

fn add_to_field(bytes: &mut [u8], rng: &mut Rng) {
    if let Some(range) = field(bytes, rng) {
        let width = range.len();
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[range.clone()]);
        let sum = u64::from_le_bytes(word).wrapping_add_signed(rng.i64(-9..=9));
        bytes[range].copy_from_slice(&sum.to_le_bytes()[..width]);
    }
}

fn move_piece(bytes: &mut [u8], rng: &mut Rng) {
    let from = piece(bytes.len(), rng);
    let to = rng.usize(..=bytes.len() - from.len());
    bytes.copy_within(from, to);
}

fn take_piece(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let piece = other[piece(other.len(), rng)].to_vec();
    let at = rng.usize(..=bytes.len());
    let replaced = if rng.bool() { piece.len().min(bytes.len() - at) } else { 0 };
    bytes.splice(at..at + replaced, piece);
}

fn cut_or_grow(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.u32(0..3) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 => {
            let gone = piece(bytes.len(), rng);
            bytes.drain(gone);
        }
        _ => bytes.resize((bytes.len() + rng.usize(..512)).min(LEN_MAX), rng.u8(..)),
    }
}

fn fill_piece(bytes: &mut [u8], rng: &mut Rng) {
    let range = piece(bytes.len(), rng);
    let value = [0, 0xff, rng.u8(..)][rng.usize(..3)];
    bytes[range].fill(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_damage_and_repeat_with_the_seed() {
        let original: Vec<u8> = (0..=255).collect();
        let damaged = |seed| {
            let mut bytes = original.clone();
            mutate(&mut bytes, &[7; 40], &mut Rng::with_seed(seed));
            bytes
        };
        let changed = (0..1000).filter(|&seed| damaged(seed) != original).count();
        assert!(changed > 950, "{changed} of 1000 inputs were changed");
        assert!((0..1000).all(|seed| damaged(seed) == damaged(seed)));
    }

    #[test]
    fn nothing_is_too_short_to_damage() {
        for seed in 0..2000 {
            let mut bytes = Vec::new();
            mutate(&mut bytes, &[], &mut Rng::with_seed(seed));
            mutate(&mut bytes, &[1], &mut Rng::with_seed(seed));
        }
    }
}
