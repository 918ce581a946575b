//! What is on a device already.
//!
//! Formatting destroys, so a device that holds something recognisable is left alone unless the user insists. The list has what people
//! have on disks: the common file systems, partition tables, and what volume managers and encryption leave. It errs on the
//! safe side and need not tell variants apart.

use frazil_device::Device;

use super::error::Result;

/// Bytes looked at: up to the last place in the list.
const HEAD_BYTES: u64 = 68 << 10;

/// (place in bytes, what stands there, what it means)
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], "a bcachefs filesystem"),
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "a bcachefs or bcache device"),
    (3584, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], "a bcachefs filesystem"),
    (1024 + 56, &[0x53, 0xef], "an ext2, ext3 or ext4 filesystem"),
    (0, b"XFSB", "an XFS filesystem"),
    ((64 << 10) + 64, b"_BHRfS_M", "a btrfs filesystem"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS filesystem"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS filesystem"),
    (0, b"hsqs", "a SquashFS filesystem"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (3, b"EXFAT   ", "an exFAT filesystem"),
    (54, b"FAT1", "a FAT filesystem"),
    (82, b"FAT32", "a FAT filesystem"),
    ((32 << 10) + 1, b"CD001", "an ISO 9660 image"),
    ((32 << 10) + 1, b"NSR0", "a UDF filesystem"),
    ((64 << 10) + 52, b"ReIsEr", "a ReiserFS filesystem"),
    (32 << 10, b"JFS1", "a JFS filesystem"),
    (4086, b"SWAPSPACE2", "swap space"),
    (0, &[b'L', b'U', b'K', b'S', 0xba, 0xbe], "a LUKS encrypted volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a RAID array"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a RAID array"),
    (512, b"EFI PART", "a partition table"),
];

/// What the device holds, if it is recognised.
pub(super) fn find(device: &dyn Device) -> Result<Option<&'static str>> {
    let mut head = vec![0; HEAD_BYTES.min(device.size_bytes()) as usize];
    device.read_at(0, &mut head)?;
    let stands = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    let known = SIGNATURES.iter().find(|(at, magic, _)| stands(*at, magic)).map(|s| s.2);
    Ok(known.or_else(|| has_partitions(&head).then_some("a partition table")))
}

/// A boot sector that lists at least one partition; without one, its mark alone means nothing.
fn has_partitions(head: &[u8]) -> bool {
    head.get(510..512) == Some(&[0x55, 0xaa])
        && head[446..510].chunks_exact(16).any(|entry| matches!(entry[0], 0 | 0x80) && entry[4] != 0)
}

#[cfg(test)]
mod tests {
    use frazil_device::MemDevice;

    use super::*;

    #[test]
    fn every_signature_is_found() {
        let empty = MemDevice::new(1 << 20);
        assert_eq!(find(&empty).unwrap(), None);
        for (at, magic, what) in SIGNATURES {
            let device = MemDevice::new(1 << 20);
            device.write_at(*at as u64, magic).unwrap();
            assert_eq!(find(&device).unwrap(), Some(*what));
            assert!(at + magic.len() <= HEAD_BYTES as usize);
        }
    }

    #[test]
    fn a_boot_sector_counts_if_it_lists_a_partition() {
        let device = MemDevice::new(1 << 20);
        device.write_at(510, &[0x55, 0xaa]).unwrap();
        assert_eq!(find(&device).unwrap(), None);
        device.write_at(446 + 4, &[0x83]).unwrap();
        assert_eq!(find(&device).unwrap(), Some("a partition table"));
    }

    #[test]
    fn small_devices_are_no_problem() {
        assert_eq!(find(&MemDevice::new(512)).unwrap(), None);
    }
}
