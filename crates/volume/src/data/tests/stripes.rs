//! Data rebuilt from parity.

use frazil_ondisk::values::extent::StripePtr;
use proptest::prelude::*;

use super::super::galois;
use super::*;

const IDX: u64 = 5;

/// A stripe over as many devices as it has blocks.
struct Striped {
    volume: Volume,
    blocks: Vec<Vec<u8>>,
    ptrs: Vec<ExtentPtr>,
    redundant: u8,
}

fn striped(data_blocks: usize, redundant: u8, sectors: u16, granule_bits: u8, csum: ChecksumType) -> Striped {
    let mut volume = Volume::new(data_blocks + usize::from(redundant));
    let len = usize::from(sectors) * SECTOR;
    let mut blocks: Vec<_> = (0..data_blocks).map(|i| text(i as u64, len)).collect();
    let (mut p, mut q) = (vec![0; len], vec![0; len]);
    for (i, block) in blocks.iter().enumerate() {
        galois::add(&mut p, block);
        galois::add_multiple(&mut q, galois::power(i as u8), block);
    }
    blocks.extend([p, q].into_iter().take(redundant.into()));
    let ptrs: Vec<_> = blocks.iter().enumerate().map(|(dev, block)| volume.write(dev, block)).collect();
    let mut value = sectors.to_le_bytes().to_vec();
    value.extend([0, blocks.len() as u8, redundant, granule_bits, csum.raw(), 0]);
    value.extend(ptrs.iter().flat_map(|ptr| ptr.to_word().to_le_bytes()));
    for block in &blocks {
        for granule in block.chunks(SECTOR << granule_bits) {
            value.extend(&checksum::compute(csum, None, granule).unwrap().to_bytes()[..csum.bytes()]);
        }
    }
    value.resize((value.len() + 2 * blocks.len()).next_multiple_of(8), 0);
    volume.add_key(BtreeId::STRIPES, KeyBuf::new(KeyType::STRIPE, Bpos::new(0, IDX, 0), 0, value));
    Striped { volume, blocks, ptrs, redundant }
}

impl Striped {
    /// An extent in a data block, from that sector of the block on.
    fn extent(&self, block: usize, skip: u32, crc: Crc) -> [KeyBuf; 1] {
        let ptr =
            ExtentPtr { offset: Sectors(self.ptrs[block].offset.0 + u64::from(skip)), ..self.ptrs[block] };
        let stripe = StripePtr { block: block as u8, redundancy: self.redundant, idx: IDX };
        let mut entries = vec![Entry::StripePtr(stripe), Entry::Ptr(ptr)];
        if crc.needs_entry() {
            entries.insert(0, crc_entry(crc));
        }
        let size = crc.uncompressed_size;
        [extent(size.into(), size, &entries)]
    }

    fn data_blocks(&self) -> usize {
        self.blocks.len() - usize::from(self.redundant)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any blocks may be missing or damaged, up to the number of parity blocks; one more and the data is gone, and known to
    /// be.
    #[test]
    fn as_many_blocks_may_be_lost_as_there_is_parity(
        data_blocks in 2usize..9,
        redundant in 1u8..3,
        granule_bits in 3u8..10,
        csum in prop_oneof![Just(ChecksumType::Crc32c), Just(ChecksumType::Xxhash), Just(ChecksumType::Crc64Nonzero)],
        order in Just((0..11usize).collect::<Vec<_>>()).prop_shuffle(),
        rotten in any::<bool>(),
        range in (0usize..40, 1usize..25),
    ) {
        let mut s = striped(data_blocks, redundant, 64, granule_bits, csum);
        let total = s.blocks.len();
        let order: Vec<_> = order.into_iter().filter(|&block| block < total).collect();
        let (skip, sectors) = range;
        let from = skip * SECTOR;
        let to = from + sectors * SECTOR;
        for lost in 0..=usize::from(redundant) + 1 {
            if let Some(&block) = lost.checked_sub(1).and_then(|i| order.get(i)) {
                if rotten {
                    let bytes: Vec<u8> = s.blocks[block].iter().map(|b| !b).collect();
                    s.volume.overwrite(&s.ptrs[block], 0, &bytes);
                } else {
                    s.volume.absent.push(block as u8);
                }
            }
            let reader = s.volume.reader();
            for block in 0..s.data_blocks() {
                let data = &s.blocks[block][from..to];
                let (crc, _) = Encoding { csum: ChecksumType::Crc32c, ..PLAIN }.payload(data, SECTOR, None);
                let result = read(&reader, &s.extent(block, skip as u32, crc), 0..data.len() as u64);
                let gone = order[..lost.min(total)].contains(&block) && lost > usize::from(redundant);
                match result {
                    Ok(bytes) => {
                        prop_assert!(!gone);
                        prop_assert_eq!(&bytes[..], data);
                    }
                    Err(e) => prop_assert!(gone, "{}", e),
                }
            }
        }
    }
}

#[test]
fn plain_data_is_rebuilt_to_the_byte() {
    let mut s = striped(3, 1, 4096, 9, ChecksumType::Crc32c);
    s.volume.absent.push(1);
    let keys = s.extent(1, 0, Crc::plain(4096));
    let reader = s.volume.reader();
    for range in [0..4096 * 512, 0..1, 700..701, 1_048_500..1_049_000] {
        let expected = &s.blocks[1][range.start as usize..range.end as usize];
        assert_eq!(read(&reader, &keys, range).as_deref(), Ok(expected));
    }
}

#[test]
fn two_blocks_too_many_are_named() {
    let mut s = striped(3, 1, 64, 9, ChecksumType::Crc32c);
    s.volume.absent.push(0);
    s.volume.overwrite(&s.ptrs[2], 100, b"rotten");
    let e = read(&s.volume.reader(), &s.extent(0, 0, Crc::plain(64)), 0..512).unwrap_err();
    let text = e.to_string();
    assert!(text.contains("device 0 sector 0: the device is missing"), "{text}");
    let parity = "device 0 sector 0: cannot be rebuilt from parity: stripe 5: too many blocks cannot be read: block 2: ";
    assert!(text.contains(parity), "{text}");
}

#[test]
fn a_pointer_to_a_removed_device_is_rebuilt_if_a_checksum_can_confirm_it() {
    let mut s = striped(2, 1, 64, 9, ChecksumType::Crc32c);
    s.volume.absent.push(0);
    let data = &s.blocks[0][..8 * SECTOR];
    let (crc, _) = Encoding { csum: ChecksumType::Crc32c, ..PLAIN }.payload(data, SECTOR, None);
    let removed = |keys: [KeyBuf; 1]| {
        keys.map(|key| {
            let mut value = key.value.clone();
            let at = value.len() - 2;
            value[at] = 255;
            KeyBuf { value, ..key }
        })
    };
    let reader = s.volume.reader();
    assert_eq!(read(&reader, &removed(s.extent(0, 0, crc)), 0..4096).as_deref(), Ok(data));
    assert!(read(&reader, &removed(s.extent(0, 0, Crc::plain(8))), 0..4096).is_err());
}

#[test]
fn stripes_that_do_not_fit_are_refused() {
    let s = striped(2, 1, 64, 9, ChecksumType::Crc32c);
    let value = s.volume.keys[&BtreeId::STRIPES][0].value.clone();
    let mut volume = s.volume;
    volume.absent.push(0);
    let ptr = Entry::Ptr(s.ptrs[0]);
    let why = |volume: &Volume, block, size: u32| {
        let stripe = Entry::StripePtr(StripePtr { block, redundancy: 1, idx: IDX });
        read(&volume.reader(), &[extent(size.into(), size, &[stripe, ptr])], 0..512).unwrap_err().to_string()
    };
    assert!(why(&volume, 2, 1).contains("block 2 holds no data"));
    assert!(why(&volume, 1, 1).contains("block 1 is 1:8 gen 0, not 0:0 gen 0"));
    for (at, byte, message) in [
        (4, 3, "3 of 3 blocks are parity"),
        (2, 1, "unknown algorithm 1"),
        (5, 30, "is not in block"),
        (6, 9, "checksum type 9"),
        (3, 200, "stripe is cut short"),
    ] {
        let mut value = value.clone();
        value[at] = byte;
        if at == 5 {
            value[0..2].copy_from_slice(&[0, 0]);
        }
        let key = KeyBuf::new(KeyType::STRIPE, Bpos::new(0, IDX, 0), 0, value);
        volume.keys.insert(BtreeId::STRIPES, vec![key]);
        let text = why(&volume, 0, 1);
        assert!(text.contains(message), "{text}");
    }
    volume.keys.clear();
    assert!(why(&volume, 0, 1).contains("stripe 5: it does not exist"));
}
