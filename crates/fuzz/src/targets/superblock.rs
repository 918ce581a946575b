//! The superblock: decoding, every section, validation, description, and the choice among devices.

use frazil_ondisk::checksum::{self, Checksum, ChecksumType};
use frazil_ondisk::superblock::{FIXED_BYTES, Superblock, assembly, describe, superblock_bytes};

/// The first flag word, whose bits 2 to 7 are the checksum type (spec 10 §4).
const FLAGS_BYTE: usize = 144;
/// The checksum covers everything behind itself.
const CSUM_START: usize = 16;

/// A copy of the superblock, whose checksum is put right first: what is wrong with the rest is to be found.
pub(super) fn superblock(bytes: &[u8]) {
    let Ok(total) = superblock_bytes(bytes) else { return };
    assert!(total >= FIXED_BYTES);
    let Some(copy) = bytes.get(..total) else { return };
    let copy = with_checksum(copy);
    let Ok(mut sb) = Superblock::decode(&copy) else { return };
    assert_eq!(sb.size(), total);
    assert!(
        sb.encode_copy(sb.offset).is_ok_and(|again| again == copy),
        "nothing is lost by decoding and encoding"
    );

    for raw in sb.sections.iter() {
        if let Ok(section) = raw.decode() {
            assert_eq!(section.ty(), raw.ty);
            let again = section.encode();
            assert!(again.decode().is_ok_and(|same| same == section), "{section:?}");
        }
    }
    describe::describe(&sb);
    sb.fill_defaults();
    describe::describe(&sb);
    if sb.validate().is_ok() {
        valid(&sb);
    }
}

/// What is done with a superblock that passed all checks.
fn valid(sb: &Superblock) {
    let members = sb.members().expect("a valid superblock has members");
    assert_eq!(members.list.len(), usize::from(sb.nr_devices));
    assert!(sb.csum_type().is_ok() && sb.block_bytes().is_power_of_two());
    let _ = (sb.access(), sb.own_member(), sb.str_hash_type(), sb.label());
    let ring = sb.journal_buckets().expect("a valid superblock has a valid journal section");
    assert!(ring.buckets().take(1 << 12).count() as u64 <= ring.len());
    let mut other = sb.clone();
    other.seq.0 = other.seq.0.wrapping_add(1);
    let chosen = assembly::assemble([sb, &other], false).expect("two were given");
    assert!(chosen.newest < 2 && chosen.verdicts.len() == 2);
    assert!(sb.with_shared_from(&other).encode_copy(sb.offset).is_ok());
}

/// The bytes with the checksum that their own type asks for, if it is one that superblocks can have.
fn with_checksum(copy: &[u8]) -> Vec<u8> {
    let mut copy = copy.to_vec();
    let word = u64::from_le_bytes(copy[FLAGS_BYTE..FLAGS_BYTE + 8].try_into().expect("8 bytes"));
    if let Some(csum) = ChecksumType::from_raw((word >> 2 & 0x3f) as u8)
        .and_then(|ty| checksum::compute(ty, None, &copy[CSUM_START..]).ok())
    {
        copy[..Checksum::BYTES].copy_from_slice(&csum.to_bytes());
    }
    copy
}
