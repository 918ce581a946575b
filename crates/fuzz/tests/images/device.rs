//! A device that differs from a golden one in a few places, and that nobody may write to.

use std::sync::Arc;

use frazil_device::{Device, MemDevice, Result};

/// Bytes that replace others.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// Which device of the volume.
    pub(crate) device: usize,
    /// Where, in bytes.
    pub(crate) at: u64,
    /// What is there.
    pub(crate) bytes: Vec<u8>,
}

/// A golden device with patches. Making one costs nothing that depends on the device's size.
#[derive(Debug)]
pub(crate) struct Damaged {
    golden: Arc<MemDevice>,
    patches: Vec<Patch>,
}

impl Damaged {
    /// Device number `device` of a volume; later patches cover earlier ones.
    pub(crate) fn new(golden: &Arc<MemDevice>, device: usize, patches: &[Patch]) -> Damaged {
        let patches = patches.iter().filter(|patch| patch.device == device).cloned().collect();
        Damaged { golden: Arc::clone(golden), patches }
    }
}

impl Device for Damaged {
    fn name(&self) -> &Arc<str> {
        self.golden.name()
    }

    fn size_bytes(&self) -> u64 {
        self.golden.size_bytes()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.golden.read_at(offset_bytes, buf)?;
        let end = offset_bytes + buf.len() as u64;
        for Patch { at, bytes, .. } in &self.patches {
            let (from, to) = (offset_bytes.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset_bytes) as usize..(to - offset_bytes) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        panic!("a reader wrote {} bytes at {offset_bytes} of {}", data.len(), self.name());
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        panic!("a reader discarded {len_bytes} bytes at {offset_bytes} of {}", self.name());
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        panic!("a reader zeroed {len_bytes} bytes at {offset_bytes} of {}", self.name());
    }
}

#[test]
fn patches_are_seen_and_nothing_is_written() {
    use std::panic::AssertUnwindSafe;
    let golden = Arc::new(MemDevice::from_bytes(&[1; 1024]));
    let patch = |device, at, byte| Patch { device, at, bytes: vec![byte; 4] };
    let damaged = Damaged::new(&golden, 1, &[patch(1, 10, 2), patch(0, 20, 3), patch(1, 12, 4)]);
    let mut seen = [0; 10];
    damaged.read_at(8, &mut seen).unwrap();
    assert_eq!(seen, [1, 1, 2, 2, 4, 4, 4, 4, 1, 1]);
    damaged.read_at(11, &mut seen[..2]).unwrap();
    assert_eq!(seen[..2], [2, 4]);
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| damaged.write_at(0, &[0]))).is_err());
}
