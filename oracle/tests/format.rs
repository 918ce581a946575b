//! Volumes that `frazil` made, as the real driver sees them: it must find nothing to repair, read what was put in, write to
//! them, and leave them so that our own check finds nothing either.
//!
//! One boot for all combinations of options; what the driver wrote is read back here.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../crates/volume/tests/build/cases.rs"]
mod cases;
#[path = "../../crates/volume/tests/build/populate.rs"]
mod populate;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cases::{Case, Crypt, PASSPHRASE, cases};
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_oracle::{Job, Mount, Oracle, Writes};
use frazil_volume::build::{Builder, format};
use frazil_volume::check::check;
use frazil_volume::{OpenOptions, Passphrase, open};
use populate::{content, populate};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Files put into volumes that are not encrypted.
const FILES: u64 = 1200;
const FILE_BYTES: usize = 8192;

/// Reads what was there, and writes, overwrites, renames and removes a little of everything.
const SCRIPT: &str = r#"
set -e
if [ -d d0 ]; then
    cat d*/* | cksum > $OUT/before
    rm d0/4100; mv d0/4101 d1/moved; echo more >> d0/4102; echo new > d1/4998
fi
mkdir new; cd new
for i in $(seq 200); do echo "line $i" > file$i; done
dd if=/dev/zero of=big bs=64k count=40 2>/dev/null
dd if=/dev/urandom of=random bs=64k count=20 2>/dev/null
ln -s target link; ln big hard; mkdir -p a/b/c; setfattr -n user.test -v value big 2>/dev/null || true
rm file1*
truncate -s 100k big
sync -f .
"#;

fn volume_devices(paths: &[PathBuf], access: Access, create: Option<&Case>) -> Vec<Arc<dyn Device>> {
    let sizes = create.map(|case| case.sizes().collect::<Vec<_>>());
    let open = |(i, path): (usize, &PathBuf)| {
        let options = DeviceOptions::new(access);
        let options = match &sizes {
            Some(sizes) => options.create_bytes(sizes[i]),
            None => options,
        };
        Arc::new(options.open(path).unwrap()) as Arc<dyn Device>
    };
    paths.iter().enumerate().map(open).collect()
}

fn make(dir: &Path, case: &Case, uuid: Uuid) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> =
        (0..case.devices.len()).map(|i| dir.join(format!("{}.{i}", case.name))).collect();
    let devices = case.new_devices(volume_devices(&paths, Access::ReadWrite, Some(case)));
    let options = case.options(uuid);
    if case.crypt == Crypt::No {
        let mut builder = Builder::new(devices, &options).unwrap();
        populate(&mut builder, FILES, FILE_BYTES).unwrap();
        builder.finish().unwrap();
    } else {
        format(devices, &options).unwrap();
    }
    paths
}

/// What our own check finds after the driver has written.
fn findings(paths: &[PathBuf]) -> Vec<String> {
    let mut ask = |_: &str| Ok(Zeroizing::new(PASSPHRASE.to_vec()));
    let passphrase = Passphrase::Ask(&mut ask);
    let devices = volume_devices(paths, Access::ReadOnly, None);
    let volume = open(devices, OpenOptions { passphrase, ..OpenOptions::default() }).unwrap();
    check(&volume).findings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_driver_takes_our_volumes_for_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let cases = cases();
    let images: Vec<Vec<PathBuf>> =
        cases.iter().zip(1..).map(|(case, n)| make(dir.path(), case, Uuid::from_u128(n))).collect();
    let jobs = cases.iter().zip(&images).map(|(case, paths)| {
        let job = Job::new(case.name.clone(), paths.clone())
            .mount(Mount::fsck())
            .mount(Mount::plain().script(SCRIPT))
            .mount(Mount::fsck())
            .writes(Writes::InPlace);
        if case.crypt == Crypt::Passphrase { job.passphrase(PASSPHRASE) } else { job }
    });
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|v| v.objections()).collect();
    assert_eq!(objections, [""; 0]);
    let files = cases.iter().zip(&verdicts).filter(|(case, _)| case.crypt == Crypt::No);
    let sums: Vec<&[u8]> = files.map(|(_, verdict)| verdict.files["before"].as_slice()).collect();
    assert!(sums.iter().all(|sum| *sum == expected_sum()), "{sums:?}");
    for (case, paths) in cases.iter().zip(&images) {
        assert_eq!(findings(paths), [""; 0], "{}", case.name);
    }
}

/// What `cksum` says of all files in the order in which the script reads them.
fn expected_sum() -> Vec<u8> {
    let first = 4096 + 1 + FILES.div_ceil(1000);
    let inums: Vec<u64> = (first..first + FILES).collect();
    let bytes: Vec<u8> = inums.iter().flat_map(|inum| content(*inum, FILE_BYTES)).collect();
    // POSIX cksum: CRC-32 with this polynomial, most significant bit first, over the bytes and then the length.
    let mut crc = 0u32;
    let mut add = |byte: u8| {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
        }
    };
    bytes.iter().for_each(|byte| add(*byte));
    let mut len = bytes.len();
    while len > 0 {
        add(len as u8);
        len >>= 8;
    }
    format!("{} {}\n", !crc, bytes.len()).into_bytes()
}
