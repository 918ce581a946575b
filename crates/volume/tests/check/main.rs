//! The check of a volume: silent on every real image, and not silent on damaged ones.

mod damage;
mod files;
mod golden_images;
mod leftovers;
mod lists;
mod mutations;
mod newer;
mod nodes;
mod snapshots;
mod space;

use std::path::Path;
use std::sync::Arc;

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_testing::golden::GoldenImage;
use frazil_volume::{OpenOptions, Passphrase, Volume, open};
use zeroize::Zeroizing;

fn file(path: &Path) -> Arc<dyn Device> {
    Arc::new(DeviceOptions::new(Access::ReadOnly).open(path).expect("golden images can be opened"))
}

/// Opens devices with the passphrase of the image they come from.
fn opened(image: &GoldenImage, devices: Vec<Arc<dyn Device>>) -> Volume {
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().expect("only encrypted images ask")));
    let options = OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() };
    open(devices, options).unwrap_or_else(|e| panic!("{}: {e}", image.name))
}
