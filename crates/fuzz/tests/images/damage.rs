//! Damage to one structure, and the checksum that makes it look right.
//!
//! A structure is changed as it is in clear, then sealed as a writer would: encrypted if it was, and with the checksum (on
//! encrypted volumes: the authenticator) of what it now holds. Readers have no way to tell but to understand it.

use std::fmt;

use fastrand::Rng;
use frazil_fuzz::mutate::mutate;
use frazil_ondisk::BtreeId;
use frazil_ondisk::checksum::{self, Checksum, ChecksumType};
use frazil_ondisk::crypto::{self, Nonce};
use frazil_ondisk::jset::{JSET_HEADER_BYTES, JsetHeader};
use frazil_ondisk::superblock::FIXED_BYTES;
use frazil_ondisk::superblock::sections::SectionType;
use frazil_ondisk::units::Seq;

use crate::device::Patch;
use crate::edit::{edit_fields, edit_frames, edit_keys};
use crate::image::{Image, JsetAt, NodeAt, SuperAt, keys_in};

/// Bytes of the checksum at the start of every structure.
const CSUM: usize = Checksum::BYTES;
/// Where a superblock keeps its length, its place, and its flags (spec 10 §4).
const SUPER_U64S: usize = 124;
const SUPER_OFFSET: usize = 104;
const SUPER_FLAGS: std::ops::Range<usize> = 144..200;
/// The flag of a proper shutdown, in the first byte of the flags.
const SUPER_CLEAN: u8 = 2;
/// Bytes of the clean section in front of its sub-entries.
const CLEAN_HEADER: usize = 16;
/// From here on a journal entry is encrypted (spec 20 §2.1).
const JSET_ENCRYPTED: usize = 44;
/// The part of a node's header that is encrypted, and how far the key stream has come behind it (spec 30 §5.5).
const NODE_ENCRYPTED: std::ops::Range<usize> = 24..136;
const NODE_KEYS_NONCE: u64 = 128;

/// What was damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Super { device: usize },
    Jset { seq: u64, used: bool },
    Node { btree: BtreeId, level: u8, write: usize },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Super { device } => write!(f, "superblock of device {device}"),
            Target::Jset { seq, used: true } => write!(f, "journal entry {seq}"),
            Target::Jset { seq, used: false } => write!(f, "unused journal entry {seq}"),
            Target::Node { btree, level, write } => {
                write!(f, "write {write} of a node of {btree}, level {level}")
            }
        }
    }
}

/// Damages an image in one place, sometimes in two or three.
pub(crate) fn damage(image: &Image, rng: &mut Rng) -> (Vec<Target>, Vec<Patch>) {
    let (mut targets, mut patches) = (Vec::new(), Vec::new());
    let places = [1, 1, 1, 1, 1, 1, 2, 3][rng.usize(..8)];
    for _ in 0..places {
        let used = image.jsets.iter().any(|jset| jset.used);
        targets.push(match rng.u32(..100) {
            0..12 => damage_super(image, rng, &mut patches),
            12..20 if !image.jsets.is_empty() => {
                if !used && rng.bool() {
                    crash(image, rng, &mut patches);
                }
                damage_jset(image, rng, &mut patches)
            }
            20..50 if used => damage_jset(image, rng, &mut patches),
            _ => damage_node(image, rng, &mut patches),
        });
    }
    (targets, patches)
}

/// All of something three times out of four, else one.
fn all_or_one<T: Copy>(all: &[T], rng: &mut Rng) -> Vec<T> {
    if rng.u32(..4) > 0 { all.to_vec() } else { vec![all[rng.usize(..all.len())]] }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// Puts the checksum of everything behind it in front. A type that does not exist has none.
fn put_checksum(bytes: &mut [u8], raw_type: u8, cipher: Option<(&crypto::Key, Nonce)>) {
    let Some(ty) = ChecksumType::from_raw(raw_type) else { return };
    if let Ok(csum) = checksum::compute(ty, cipher, &bytes[CSUM..]) {
        bytes[..CSUM].copy_from_slice(&csum.to_bytes());
    }
}

fn is_encrypted(raw_type: u8) -> bool {
    ChecksumType::from_raw(raw_type).is_some_and(ChecksumType::is_encryption)
}

fn damage_node(image: &Image, rng: &mut Rng, patches: &mut Vec<Patch>) -> Target {
    let trees: Vec<&Vec<NodeAt>> = image
        .nodes
        .values()
        // What holds files matters more.
        .flat_map(|nodes| std::iter::repeat_n(nodes, if nodes[0].btree.has_snapshots() { 3 } else { 1 }))
        .collect();
    let tree = trees[rng.usize(..trees.len())];
    let node = &tree[rng.usize(..tree.len())];
    let write = rng.usize(..node.writes.len());
    let start = node.writes[write].start;
    let room_end = node.writes.get(write + 1).map_or(node.clear.len(), |next| next.start);
    let mut bytes = node.clear[start..room_end].to_vec();
    edit_write(&mut bytes, node, write, image, rng);
    seal_write(&mut bytes, start, image.key.as_ref());
    for (device, at) in all_or_one(&node.replicas, rng) {
        patches.push(Patch { device, at: at + start as u64, bytes: bytes.clone() });
    }
    Target::Node { btree: node.btree, level: node.level, write }
}

/// Changes one write of a node; `bytes` is the room it has.
fn edit_write(bytes: &mut [u8], node: &NodeAt, write: usize, image: &Image, rng: &mut Rng) {
    let start = node.writes[write].start;
    let (keys_at, end) = (NodeAt::keys_at(start) - start, node.writes[write].end - start);
    match rng.u32(..20) {
        0..11 => {
            let mut keys = keys_in(&node.format, &bytes[keys_at..end]);
            edit_keys(&mut keys, &image.material, rng);
            if rng.u32(..8) > 0 {
                keys.sort_by_key(|key| key.k.pos);
            }
            let mut packed = Vec::new();
            for key in &keys {
                let before = packed.len();
                node.format.encode_key(key.as_key(), &mut packed);
                if packed.len() > bytes.len() - keys_at {
                    packed.truncate(before);
                    break;
                }
            }
            bytes[keys_at..keys_at + packed.len()].copy_from_slice(&packed);
            bytes[keys_at - 2..keys_at].copy_from_slice(&((packed.len() / 8) as u16).to_le_bytes());
        }
        11..15 => edit_fields(&mut bytes[keys_at..end], &image.material, rng),
        15..18 => edit_fields(&mut bytes[CSUM..keys_at], &image.material, rng),
        _ => {
            let mut whole = bytes[CSUM..end].to_vec();
            mutate(&mut whole, &node.clear, rng);
            whole.truncate(bytes.len() - CSUM);
            bytes[CSUM..CSUM + whole.len()].copy_from_slice(&whole);
        }
    }
}

/// Encrypts and checksums a write of a node that starts at byte `start` of it.
fn seal_write(bytes: &mut [u8], start: usize, key: Option<&crypto::Key>) {
    let keys_at = NodeAt::keys_at(start) - start;
    let header = keys_at - 24;
    let end = (keys_at + 8 * usize::from(half(bytes, header + 22))).min(bytes.len());
    let csum_type = bytes[header + 16] & 15;
    let nonce = Nonce::bset(start as u32, word(bytes, header), word(bytes, header + 8));
    if let Some(key) = key.filter(|_| is_encrypted(csum_type)) {
        if start == 0 {
            key.apply(nonce, &mut bytes[NODE_ENCRYPTED]);
            key.apply(nonce.advanced(NODE_KEYS_NONCE), &mut bytes[keys_at..end]);
        } else {
            key.apply(nonce, &mut bytes[keys_at..end]);
        }
    }
    put_checksum(&mut bytes[..end], csum_type, key.map(|key| (key, nonce)));
}

fn damage_jset(image: &Image, rng: &mut Rng, patches: &mut Vec<Patch>) -> Target {
    let used: Vec<&JsetAt> = image.jsets.iter().filter(|jset| jset.used).collect();
    let jset = match rng.choice(&used) {
        Some(jset) if rng.u32(..4) > 0 => jset,
        _ => &image.jsets[rng.usize(..image.jsets.len())],
    };
    let mut bytes = jset.clear.clone();
    match rng.u32(..20) {
        0..11 => {
            let list = edit_frames(&bytes[JSET_HEADER_BYTES..], &image.material, rng);
            bytes.truncate(JSET_HEADER_BYTES);
            bytes.extend(list);
            put_jset_length(&mut bytes, jset.room);
        }
        11..14 => edit_fields(&mut bytes[JSET_HEADER_BYTES..], &image.material, rng),
        14..18 => edit_fields(&mut bytes[CSUM..JSET_HEADER_BYTES], &image.material, rng),
        _ => {
            let mut whole = bytes.split_off(CSUM);
            mutate(&mut whole, &jset.clear, rng);
            bytes.extend(whole);
            put_jset_length(&mut bytes, jset.room);
        }
    }
    bytes.resize(jset.room, 0);
    seal_jset(&mut bytes, image.key.as_ref());
    for (device, at) in all_or_one(&jset.copies, rng) {
        patches.push(Patch { device, at, bytes: bytes.clone() });
    }
    Target::Jset { seq: word(&jset.clear, 24), used: jset.used }
}

/// Cuts a journal entry to its room and says in it how long it is.
fn put_jset_length(bytes: &mut Vec<u8>, room: usize) {
    bytes.resize(bytes.len().clamp(JSET_HEADER_BYTES, room) / 8 * 8, 0);
    let u64s = ((bytes.len() - JSET_HEADER_BYTES) / 8) as u32;
    bytes[40..44].copy_from_slice(&u64s.to_le_bytes());
}

fn seal_jset(bytes: &mut [u8], key: Option<&crypto::Key>) {
    let header = JsetHeader::decode(bytes).unwrap();
    let end = (header.bytes() as usize).min(bytes.len());
    let nonce = Nonce::jset(Seq(header.seq.0));
    if let Some(key) = key.filter(|_| is_encrypted(header.flags.csum_raw())) {
        key.apply(nonce, &mut bytes[JSET_ENCRYPTED..end]);
    }
    put_checksum(&mut bytes[..end], header.flags.csum_raw(), key.map(|key| (key, nonce)));
}

fn damage_super(image: &Image, rng: &mut Rng, patches: &mut Vec<Patch>) -> Target {
    let at = &image.supers[rng.usize(..image.supers.len())];
    let mut bytes = at.bytes.clone();
    let mut keep_length = true;
    match rng.u32(..20) {
        0..9 => edit_section(&mut bytes, image, rng),
        9..12 => edit_fields(&mut bytes[CSUM..FIXED_BYTES], &image.material, rng),
        12..15 => edit_fields(&mut bytes[SUPER_FLAGS], &image.material, rng),
        15..17 => bytes[SUPER_FLAGS.start] ^= 1 << rng.u32(..2),
        _ => {
            let mut whole = bytes.split_off(CSUM);
            mutate(&mut whole, &at.bytes, rng);
            bytes.extend(whole);
            keep_length = rng.bool();
        }
    }
    bytes.resize(bytes.len().clamp(FIXED_BYTES, at.room) / 8 * 8, 0);
    if keep_length {
        let u64s = ((bytes.len() - FIXED_BYTES) / 8) as u32;
        bytes[SUPER_U64S..SUPER_U64S + 4].copy_from_slice(&u64s.to_le_bytes());
    }
    place_super(at, &bytes, rng, patches);
    Target::Super { device: at.device }
}

/// Makes a volume one that was not shut down, so that its journal counts.
fn crash(image: &Image, rng: &mut Rng, patches: &mut Vec<Patch>) {
    for at in &image.supers {
        let mut bytes = at.bytes.clone();
        bytes[SUPER_FLAGS.start] &= !SUPER_CLEAN;
        place_super(at, &bytes, rng, patches);
    }
}

/// Writes a superblock to its copies: usually to all, for else the good ones would be used instead.
fn place_super(at: &SuperAt, bytes: &[u8], rng: &mut Rng, patches: &mut Vec<Patch>) {
    let first = match rng.u32(..8) {
        0 => {
            // The copies that are left are found through the layout.
            patches.push(Patch { device: at.device, at: at.copies[0], bytes: vec![0; 512] });
            1
        }
        _ => 0,
    };
    for &copy in at.copies.iter().skip(first).take(if rng.u32(..8) == 0 { 1 } else { usize::MAX }) {
        let mut bytes = bytes.to_vec();
        if word(&bytes, SUPER_OFFSET) == word(&at.bytes, SUPER_OFFSET) {
            bytes[SUPER_OFFSET..SUPER_OFFSET + 8].copy_from_slice(&(copy / 512).to_le_bytes());
        }
        let u64s = u32::from_le_bytes(bytes[SUPER_U64S..SUPER_U64S + 4].try_into().unwrap());
        let end = FIXED_BYTES.saturating_add(8 * u64s as usize).min(bytes.len());
        let csum_type = (word(&bytes, SUPER_FLAGS.start) >> 2 & 63) as u8;
        put_checksum(&mut bytes[..end], csum_type, None);
        patches.push(Patch { device: at.device, at: copy, bytes });
    }
}

/// Changes one section of a superblock.
fn edit_section(bytes: &mut Vec<u8>, image: &Image, rng: &mut Rng) {
    let mut sections: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut rest = &bytes[FIXED_BYTES..];
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        let [u64s, ty] = [0, 4].map(|at| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()));
        let (payload, next) = behind.split_at(8 * u64s as usize - 8);
        sections.push((ty, payload.to_vec()));
        rest = next;
    }
    let (i, j) = (rng.usize(..sections.len()), rng.usize(..sections.len()));
    let (ty, payload) = &mut sections[i];
    match rng.u32(..16) {
        0..8 if *ty == SectionType::CLEAN.0 => {
            let list = edit_frames(&payload[CLEAN_HEADER..], &image.material, rng);
            payload.truncate(CLEAN_HEADER);
            payload.extend(list);
        }
        0..11 => edit_fields(payload, &image.material, rng),
        11 => drop(sections.remove(i)),
        12 => sections.push(sections[i].clone()),
        13 => sections[i].0 = sections[j].0,
        _ => {
            let other = image.supers[0].bytes.as_slice();
            mutate(payload, other, rng);
            payload.resize(payload.len().min(16 << 10).next_multiple_of(8), 0);
        }
    }
    bytes.truncate(FIXED_BYTES);
    for (ty, payload) in sections {
        bytes.extend((payload.len() as u32 / 8 + 1).to_le_bytes());
        bytes.extend(ty.to_le_bytes());
        bytes.extend(payload);
    }
}
