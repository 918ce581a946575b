//! Small changes to what structures consist of: fields, keys, journal sub-entries, sections of the superblock.
//!
//! Changed bytes alone rarely get far: a key that breaks a rule is dropped. So keys are taken apart and put together again with
//! another position, another value, in another order; and the numbers that are put in are often ones that
//! mean something in this volume, such as the inode of another directory.

use fastrand::Rng;
use frazil_fuzz::mutate::{mutate, number};
use frazil_ondisk::bkey::VALUE_U64S_MAX;
use frazil_ondisk::jset::{EntryType, FRAME_HEADER_BYTES, FrameHeader, Frames, Keys};
use frazil_ondisk::{BtreeId, KeyBuf, KeyType};

use crate::image::Material;

impl Material {
    /// A number to put into a field.
    fn number(&self, rng: &mut Rng) -> u64 {
        match rng.choice(&self.numbers) {
            Some(&known) if rng.bool() => known,
            _ => number(rng),
        }
    }

    fn donor(&self, rng: &mut Rng) -> Option<&KeyBuf> {
        rng.choice(&self.donors)
    }
}

/// Changes one to three fields of `bytes`, which keep their length.
pub(crate) fn edit_fields(bytes: &mut [u8], material: &Material, rng: &mut Rng) {
    for _ in 0..rng.usize(1..=3) {
        edit_field(bytes, material, rng);
    }
}

fn edit_field(bytes: &mut [u8], material: &Material, rng: &mut Rng) {
    let width = (1usize << rng.u32(0..4)).min(bytes.len().next_power_of_two() / 2).max(1);
    let Some(last) = bytes.len().checked_sub(width) else { return };
    let mut place = || {
        let at = rng.usize(..=last);
        if rng.u32(..8) == 0 { at } else { at / width * width }
    };
    let (at, other) = (place(), place());
    let mut word = [0; 8];
    word[..width].copy_from_slice(&bytes[at..at + width]);
    let old = u64::from_le_bytes(word);
    let new = match rng.u32(..8) {
        0..3 => old ^ 1 << rng.u32(..8 * width as u32),
        3..5 => material.number(rng),
        5..7 => old.wrapping_add_signed(rng.i64(-9..=9)),
        _ => {
            word[..width].copy_from_slice(&bytes[other..other + width]);
            u64::from_le_bytes(word)
        }
    };
    bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Changes one to four things about a list of keys.
pub(crate) fn edit_keys(keys: &mut Vec<KeyBuf>, material: &Material, rng: &mut Rng) {
    for _ in 0..rng.usize(1..=4) {
        if keys.is_empty() {
            keys.extend(material.donor(rng).cloned());
            continue;
        }
        let (i, j) = (rng.usize(..keys.len()), rng.usize(..keys.len()));
        match rng.u32(..20) {
            0..8 => edit_value(&mut keys[i], material, rng),
            8..12 => edit_position(&mut keys[i], material, rng),
            12 => keys[i].k.ty = KeyType(if rng.bool() { rng.u8(..40) } else { rng.u8(..) }),
            13 => keys[i].k.size = (keys[i].k.size ^ 1 << rng.u32(..32)).min(number(rng) as u32),
            14 => edit_version(&mut keys[i], material, rng),
            15 => {
                let value = keys[j].value.clone();
                keys[i].value = value;
            }
            16 => keys.swap(i, j),
            17 => keys.insert(j, keys[i].clone()),
            18 => drop(keys.remove(i)),
            _ => take_value(&mut keys[i], material, rng),
        }
    }
}

fn edit_value(key: &mut KeyBuf, material: &Material, rng: &mut Rng) {
    if rng.u32(..5) > 0 {
        return edit_fields(&mut key.value, material, rng);
    }
    let other = material.donor(rng).map(|donor| donor.value.clone()).unwrap_or_default();
    let mut value = key.value.to_vec();
    mutate(&mut value, &other, rng);
    value.truncate(VALUE_U64S_MAX * 8);
    value.resize(value.len().next_multiple_of(8), 0);
    key.value = value.into();
}

fn edit_position(key: &mut KeyBuf, material: &Material, rng: &mut Rng) {
    let near = rng.i64(-9..=9);
    let pos = &mut key.k.pos;
    match rng.u32(..6) {
        0 => pos.inode = material.number(rng),
        1 => pos.inode = pos.inode.wrapping_add_signed(near),
        2 => pos.offset = material.number(rng),
        3 => pos.offset = pos.offset.wrapping_add_signed(near),
        4 => pos.snapshot = material.number(rng) as u32,
        _ => pos.snapshot = pos.snapshot.wrapping_add_signed(near as i32),
    }
}

fn edit_version(key: &mut KeyBuf, material: &Material, rng: &mut Rng) {
    key.k.version.lo = material.number(rng);
    if rng.bool() {
        key.k.version.hi = number(rng) as u32;
    }
}

/// The value, and maybe the type, of a key from somewhere else.
fn take_value(key: &mut KeyBuf, material: &Material, rng: &mut Rng) {
    let Some(donor) = material.donor(rng) else { return };
    key.value = donor.value.clone();
    if rng.u32(..4) > 0 {
        key.k.ty = donor.k.ty;
        key.k.size = donor.k.size;
    }
}

/// Changes one to three sub-entries of a journal entry or of a clean section.
pub(crate) fn edit_frames(list: &[u8], material: &Material, rng: &mut Rng) -> Vec<u8> {
    let mut frames: Vec<(FrameHeader, Vec<u8>)> = Frames::new(list)
        .flatten()
        .filter(|frame| !frame.is_padding())
        .map(|frame| (frame.header, frame.payload.to_vec()))
        .collect();
    for _ in 0..rng.usize(1..=3) {
        if frames.is_empty() {
            break;
        }
        let (i, j) = (rng.usize(..frames.len()), rng.usize(..frames.len()));
        let (header, payload) = &mut frames[i];
        match rng.u32(..12) {
            0..6 => edit_payload(header.ty, payload, material, rng),
            6 => header.btree = BtreeId(if rng.bool() { rng.u8(..24) } else { rng.u8(..) }),
            7 => header.level = if rng.bool() { rng.u8(..5) } else { rng.u8(..) },
            8 => header.ty = EntryType(if rng.bool() { rng.u8(..17) } else { rng.u8(..) }),
            9 => frames.swap(i, j),
            10 => frames.insert(j, frames[i].clone()),
            _ => drop(frames.remove(i)),
        }
    }
    let mut out = Vec::new();
    for (mut header, payload) in frames {
        header.u64s = (payload.len() / 8) as u16;
        out.extend(header.to_bytes());
        out.extend(payload);
    }
    if out.len() >= FRAME_HEADER_BYTES && rng.u32(..16) == 0 {
        edit_fields(&mut out, material, rng);
    }
    out
}

/// Changes the payload of a sub-entry: its keys if it holds any.
fn edit_payload(ty: EntryType, payload: &mut Vec<u8>, material: &Material, rng: &mut Rng) {
    let holds_keys = matches!(
        ty,
        EntryType::BTREE_KEYS | EntryType::BTREE_ROOT | EntryType::OVERWRITE | EntryType::LOG_BKEY
    );
    if !holds_keys || rng.u32(..5) == 0 {
        return edit_fields(payload, material, rng);
    }
    let mut keys: Vec<KeyBuf> = Keys::new(payload).flatten().map(|key| key.to_owned()).collect();
    edit_keys(&mut keys, material, rng);
    payload.clear();
    for key in &keys {
        // What does not fit the length of a sub-entry is left out.
        if payload.len() < 0x7_0000 {
            key.as_key().encode(payload);
        }
    }
}
