//! Volumes made here are opened and checked here.

use frazil_device::MemDevice;

use super::*;
use crate::check::check;
use crate::{OpenOptions, open};

const MIB: u64 = 1 << 20;

#[test]
fn an_empty_volume_is_sound() {
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(64 * MIB));
    let built = format(vec![NewDevice::new(Arc::clone(&device))], &FormatOptions::default()).unwrap();
    assert!(built.levels.values().all(|&levels| levels == 1));
    let volume = open(vec![device], OpenOptions::default()).unwrap();
    let report = check(&volume);
    assert!(report.is_clean(), "{:?}", report.findings.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(volume.usage().unwrap().inodes, 2);
}
