//! Rules for the entries of a key (spec 40 §7.3, spec 80 §7.3).

use super::crc::{Crc, CrcEntry};
use super::entry::{Entries, Entry};
use super::ptr::ExtentPtr;
use crate::error::DecodeError;
use crate::fsck_errors::FsckErrorId as E;
use crate::values::problem::{Check, Problem, Rules, ensure};

/// What kind of key the entries belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointerKind {
    /// `extent`.
    Extent,
    /// `reflink_v`: may not be unwritten.
    Indirect,
    /// `btree_ptr`, `btree_ptr_v2`: pointers (and, from 1.33, reconcile entries) only.
    BtreeNode,
}

/// More pointers than this are corrupt.
const PTRS_MAX: usize = 16;
/// Most pointers to a b-tree node (four words in an old `btree_ptr`).
const BTREE_PTRS_MAX: usize = 4;

/// State of the walk over the entries.
struct Walk<'a> {
    kind: PointerKind,
    rules: &'a Rules,
    key_size: u32,
    /// Pointers so far, and whether any was unwritten or written.
    ptrs: usize,
    unwritten: bool,
    written: bool,
    /// Devices seen.
    devs: [u64; 4],
    /// An entry that must be followed by a pointer.
    crc_open: bool,
    stripe_open: bool,
    /// `offset + nonce` of the encrypted payloads, which must agree.
    nonce: Option<u32>,
    /// Entries so far.
    entries: usize,
}

/// Checks the entries (as for [`Entries::new`]) of a key of `key_size` sectors, as far as that is possible without
/// knowing the devices.
pub fn validate(entries: &[u8], key_size: u32, kind: PointerKind, rules: &Rules) -> Check {
    let mut walk = Walk {
        kind,
        rules,
        key_size,
        ptrs: 0,
        unwritten: false,
        written: false,
        devs: [0; 4],
        crc_open: false,
        stripe_open: false,
        nonce: None,
        entries: 0,
    };
    for entry in Entries::new(entries) {
        match entry {
            Ok(entry) => walk.entry(&entry)?,
            // An entry of a newer version says nothing against the key; whoever knows its size goes on.
            Err(DecodeError::Unsupported { .. }) if !rules.writing => return Ok(()),
            Err(e) => return Err(Problem::new(E::EXTENT_PTRS_INVALID_ENTRY, e.to_string())),
        }
        walk.entries += 1;
    }
    walk.finish()
}

impl Walk<'_> {
    fn entry(&mut self, entry: &Entry<'_>) -> Check {
        if self.kind == PointerKind::BtreeNode {
            let allowed = matches!(entry, Entry::Ptr(_) | Entry::Reconcile(_) | Entry::ReconcileBp(_));
            ensure(allowed, E::BTREE_PTR_HAS_NON_PTR, || format!("{entry:?}"))?;
        }
        match entry {
            Entry::Ptr(ptr) => self.ptr(ptr),
            Entry::Crc(crc) => self.crc(crc),
            Entry::StripePtr(s) => {
                ensure(!self.stripe_open, E::PTR_STRIPE_REDUNDANT, || {
                    format!("second stripe pointer, to {}", s.idx)
                })?;
                self.stripe_open = true;
                Ok(())
            }
            Entry::Flags(_) => {
                ensure(self.entries == 0, E::EXTENT_FLAGS_NOT_AT_START, || "flags behind other entries")
            }
            Entry::Reconcile(r) => {
                let need = r.need();
                ensure(
                    !r.pending() || need.0 != 0,
                    E::EXTENT_RECONCILE_BAD_PENDING,
                    || "pending without a need",
                )?;
                ensure(
                    !r.hipri() || need.0 & 1 != 0,
                    E::EXTENT_RECONCILE_BAD_HIPRI,
                    || "urgent without missing copies",
                )?;
                ensure(r.data_replicas() != 0, E::EXTENT_RECONCILE_BAD_REPLICAS, || "wants 0 replicas")
            }
            Entry::Rebalance(_) | Entry::ReconcileBp(_) | Entry::Unknown(_) => Ok(()),
        }
    }

    fn ptr(&mut self, ptr: &ExtentPtr) -> Check {
        let stripe = std::mem::take(&mut self.stripe_open);
        self.crc_open = false;
        self.ptrs += 1;
        if ptr.is_invalid() {
            return Ok(());
        }
        let (word, bit) = (usize::from(ptr.dev.0 / 64), ptr.dev.0 % 64);
        ensure(self.devs[word] >> bit & 1 == 0, E::PTR_TO_DUPLICATE_DEVICE, || {
            format!("device {} twice", ptr.dev)
        })?;
        self.devs[word] |= 1 << bit;
        ensure(!(ptr.cached && stripe), E::PTR_CACHED_AND_ERASURE_CODED, || {
            format!("pointer {ptr} in a stripe")
        })?;
        ensure(!(ptr.unwritten && self.kind == PointerKind::Indirect), E::EXTENT_PTRS_UNWRITTEN, || {
            format!("unwritten pointer {ptr} in an indirect extent")
        })?;
        self.unwritten |= ptr.unwritten;
        self.written |= !ptr.unwritten;
        ensure(
            !(self.unwritten && self.written),
            E::EXTENT_PTRS_WRITTEN_AND_UNWRITTEN,
            || "both written and unwritten pointers",
        )
    }

    fn crc(&mut self, entry: &CrcEntry) -> Check {
        let crc = &entry.crc;
        let end = u64::from(crc.offset) + u64::from(self.key_size);
        ensure(end <= crc.uncompressed_size.into(), E::PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL, || {
            format!("live part ends at {end} of {}", crc.uncompressed_size)
        })?;
        let ty = crc.checksum_type();
        ensure(
            ty.is_some_and(|t| self.rules.encrypted || !t.is_encryption()),
            E::PTR_CRC_CSUM_TYPE_UNKNOWN,
            || format!("checksum type {}", crc.csum_type),
        )?;
        ensure(crc.compression.name().is_some(), E::PTR_CRC_COMPRESSION_TYPE_UNKNOWN, || {
            format!("compression type {}", crc.compression.0)
        })?;
        // Known only since 1.25; 1.13 never writes such a key, so nothing of its is reported by mistake.
        let same_size = crc.compressed_size == crc.uncompressed_size;
        ensure(crc.is_compressed() || same_size, E::PTR_CRC_UNCOMPRESSED_SIZE_MISMATCH, || {
            format!("{} sectors of {} and not compressed", crc.compressed_size, crc.uncompressed_size)
        })?;
        self.nonce(crc, ty.is_some_and(crate::checksum::ChecksumType::is_encryption))?;
        ensure(!self.crc_open, E::PTR_CRC_REDUNDANT, || "two crc entries without a pointer between them")?;
        self.crc_open = true;
        let max = self.rules.encoded_extent_max_sectors;
        let too_big = self.rules.writing && crc.is_encoded() && crc.uncompressed_size > max;
        ensure(!too_big, E::PTR_CRC_UNCOMPRESSED_SIZE_TOO_BIG, || {
            format!("payload of {} sectors, at most {max}", crc.uncompressed_size)
        })
    }

    /// Encrypted payloads of one key lie at the same place of the stream they were encrypted in.
    fn nonce(&mut self, crc: &Crc, encrypted: bool) -> Check {
        if !encrypted {
            return Ok(());
        }
        let nonce = crc.offset + crc.nonce;
        let first = *self.nonce.get_or_insert(nonce);
        ensure(first == nonce, E::PTR_CRC_NONCE_MISMATCH, || format!("nonces {first} and {nonce}"))
    }

    fn finish(&self) -> Check {
        ensure(self.ptrs > 0, E::EXTENT_PTRS_NO_PTRS, || "no pointer")?;
        let max = if self.kind == PointerKind::BtreeNode { BTREE_PTRS_MAX } else { PTRS_MAX };
        ensure(self.ptrs <= max, E::EXTENT_PTRS_TOO_MANY_PTRS, || {
            format!("{} pointers, at most {max}", self.ptrs)
        })?;
        ensure(!self.crc_open, E::EXTENT_PTRS_REDUNDANT_CRC, || "a crc entry behind the last pointer")?;
        ensure(
            !self.stripe_open,
            E::EXTENT_PTRS_REDUNDANT_STRIPE,
            || "a stripe pointer behind the last pointer",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::StripePtr;
    use super::*;
    use crate::checksum::ChecksumType;
    use crate::compression::CompressionType;
    use crate::units::{DevIndex, Gen, Sectors};

    fn ptr(dev: u8) -> ExtentPtr {
        ExtentPtr::new(DevIndex(dev), Sectors(512), Gen(0))
    }

    fn p(dev: u8) -> Entry<'static> {
        Entry::Ptr(ptr(dev))
    }

    fn crc(c: Crc) -> Entry<'static> {
        Entry::Crc(c.smallest_entry().expect("fits"))
    }

    fn check_as(kind: PointerKind, rules: &Rules, entries: &[Entry<'_>]) -> std::result::Result<(), E> {
        let mut bytes = Vec::new();
        entries.iter().for_each(|e| e.encode(&mut bytes));
        validate(&bytes, 8, kind, rules).map_err(|p| p.id)
    }

    fn check(entries: &[Entry<'_>]) -> std::result::Result<(), E> {
        check_as(PointerKind::Extent, &Rules { writing: true, ..Rules::DEFAULT_1_13 }, entries)
    }

    #[test]
    fn sound_keys_pass() {
        let c = Crc { csum_type: ChecksumType::Crc32c.raw(), ..Crc::plain(8) };
        let stripe = Entry::StripePtr(StripePtr { block: 0, redundancy: 1, idx: 9 });
        assert_eq!(check(&[p(0), crc(c), p(1), stripe, p(2)]), Ok(()));
        assert_eq!(check_as(PointerKind::BtreeNode, &Rules::DEFAULT_1_13, &[p(0), p(1)]), Ok(()));
        let lost = Entry::Ptr(ExtentPtr { dev: ExtentPtr::DEV_INVALID, ..ptr(0) });
        assert_eq!(check(&[lost, lost]), Ok(()));
    }

    #[test]
    fn every_rule_about_pointers_has_its_error() {
        assert_eq!(check(&[]), Err(E::EXTENT_PTRS_NO_PTRS));
        assert_eq!(check(&[p(0), p(0)]), Err(E::PTR_TO_DUPLICATE_DEVICE));
        let many: Vec<_> = (0..17).map(p).collect();
        assert_eq!(check(&many), Err(E::EXTENT_PTRS_TOO_MANY_PTRS));
        let unwritten = Entry::Ptr(ExtentPtr { unwritten: true, ..ptr(1) });
        assert_eq!(check(&[p(0), unwritten]), Err(E::EXTENT_PTRS_WRITTEN_AND_UNWRITTEN));
        assert_eq!(check(&[unwritten]), Ok(()));
        let indirect = check_as(PointerKind::Indirect, &Rules::DEFAULT_1_13, &[unwritten]);
        assert_eq!(indirect, Err(E::EXTENT_PTRS_UNWRITTEN));
        let stripe = Entry::StripePtr(StripePtr { block: 0, redundancy: 1, idx: 9 });
        let cached = Entry::Ptr(ExtentPtr { cached: true, ..ptr(1) });
        assert_eq!(check(&[stripe, cached]), Err(E::PTR_CACHED_AND_ERASURE_CODED));
        assert_eq!(check(&[stripe, stripe, p(0)]), Err(E::PTR_STRIPE_REDUNDANT));
        assert_eq!(check(&[p(0), stripe]), Err(E::EXTENT_PTRS_REDUNDANT_STRIPE));
        assert_eq!(check(&[p(0), Entry::Flags(1)]), Err(E::EXTENT_FLAGS_NOT_AT_START));
        let node = check_as(PointerKind::BtreeNode, &Rules::DEFAULT_1_13, &[p(0), crc(Crc::plain(8))]);
        assert_eq!(node, Err(E::BTREE_PTR_HAS_NON_PTR));
        assert_eq!(
            validate(&[0; 8], 8, PointerKind::Extent, &Rules::DEFAULT_1_13).map_err(|p| p.id),
            Err(E::EXTENT_PTRS_INVALID_ENTRY)
        );
    }

    #[test]
    fn every_rule_about_crcs_has_its_error() {
        let c = Crc { csum_type: ChecksumType::Crc32c.raw(), ..Crc::plain(8) };
        let bad = |c: Crc| check(&[crc(c), p(0)]);
        assert_eq!(bad(Crc { offset: 1, ..c }), Err(E::PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL));
        let mac = Crc { csum_type: ChecksumType::ChaCha20Poly1305_80.raw(), ..c };
        assert_eq!(bad(mac), Err(E::PTR_CRC_CSUM_TYPE_UNKNOWN));
        assert_eq!(
            bad(Crc { compression: CompressionType(6), ..c }),
            Err(E::PTR_CRC_COMPRESSION_TYPE_UNKNOWN)
        );
        assert_eq!(bad(Crc { compressed_size: 4, ..c }), Err(E::PTR_CRC_UNCOMPRESSED_SIZE_MISMATCH));
        let big = Crc { csum_type: ChecksumType::Crc32c.raw(), ..Crc::plain(136) };
        assert_eq!(bad(big), Err(E::PTR_CRC_UNCOMPRESSED_SIZE_TOO_BIG));
        assert_eq!(check_as(PointerKind::Extent, &Rules::DEFAULT_1_13, &[crc(big), p(0)]), Ok(()));
        assert_eq!(check(&[crc(c), crc(c), p(0)]), Err(E::PTR_CRC_REDUNDANT));
        assert_eq!(check(&[p(0), crc(c)]), Err(E::EXTENT_PTRS_REDUNDANT_CRC));
        let encrypted = Rules { encrypted: true, ..Rules::DEFAULT_1_13 };
        let pair = |nonce| [crc(mac), p(0), crc(Crc { nonce, ..mac }), p(1)];
        assert_eq!(check_as(PointerKind::Extent, &encrypted, &pair(0)), Ok(()));
        assert_eq!(check_as(PointerKind::Extent, &encrypted, &pair(1)), Err(E::PTR_CRC_NONCE_MISMATCH));
    }

    #[test]
    fn every_rule_about_reconcile_has_its_error() {
        let check = |word: u64| {
            let bytes = [ptr(0).to_word(), word].map(u64::to_le_bytes).concat();
            validate(&bytes, 8, PointerKind::Extent, &Rules::DEFAULT_1_13).map_err(|p| p.id)
        };
        assert_eq!(check(0x0010_2030_9030_0480), Ok(()));
        assert_eq!(check(1 << 7 | 1 << 28 | 1 << 16), Err(E::EXTENT_RECONCILE_BAD_PENDING));
        assert_eq!(check(1 << 7 | 1 << 28 | 1 << 15 | 1 << 18), Err(E::EXTENT_RECONCILE_BAD_HIPRI));
        assert_eq!(check(1 << 7), Err(E::EXTENT_RECONCILE_BAD_REPLICAS));
    }
}
