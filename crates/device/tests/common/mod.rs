//! What files and block devices are both put through.

use std::sync::atomic::{AtomicBool, Ordering};

use frazil_device::{Advice, AlignedBuf, Device};

const LONG: u64 = 512 << 10;
const SHORT: u64 = 4 << 10;

/// One thread writes long ranges, another one short ranges between them, and each reads back at once what it wrote; others read everything,
/// so that the kernel reads ahead into what is just being written. Nobody may see what was there before a write that is over.
pub(crate) fn what_was_written_is_read(device: &dyn Device, size_bytes: u64, rounds: u64) {
    let done = AtomicBool::new(false);
    let read_all = || {
        let mut buf = vec![0; 128 << 10];
        while !done.load(Ordering::Relaxed) {
            for at in (0..size_bytes).step_by(buf.len()) {
                device.read_at(at, &mut buf).unwrap();
            }
            device.advise(0, size_bytes, Advice::DontNeed);
        }
    };
    let write = |first: u64, len: u64| {
        let (mut data, mut got) = (AlignedBuf::new(len as usize), vec![0; len as usize]);
        for round in 1..=rounds {
            data.fill(round as u8);
            for at in (first..=size_bytes - len).step_by((LONG + SHORT) as usize) {
                device.write_at(at, &data).unwrap();
                device.read_at(at, &mut got).unwrap();
                assert!(got == *data, "round {round}, {len} bytes at {at}");
            }
            device.flush().unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(read_all);
        scope.spawn(read_all);
        let writers = [scope.spawn(|| write(0, LONG)), scope.spawn(|| write(LONG, SHORT))];
        let written = writers.map(|writer| writer.join());
        done.store(true, Ordering::Relaxed);
        written.into_iter().for_each(|written| written.unwrap());
    });
}
