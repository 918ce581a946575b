//! What files and block devices are both put through.

use std::sync::atomic::{AtomicBool, Ordering};

use frazil_device::{Advice, AlignedBuf, Device};

/// Writes long and short ranges and reads each back at once, while others read everything around them, so that the kernel reads ahead into
/// what is just being written. Nobody may see what was there before a write that is over.
pub(crate) fn what_was_written_is_read(device: &dyn Device, size_bytes: u64, rounds: u64) {
    const LONG: u64 = 512 << 10;
    const SHORT: u64 = 4 << 10;
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
    let write_all = || {
        let (mut long, mut got) = (AlignedBuf::new(LONG as usize), vec![0; LONG as usize]);
        for round in 1..=rounds {
            for at in
                (0..size_bytes).step_by((LONG + SHORT) as usize).filter(|at| at + LONG + SHORT <= size_bytes)
            {
                long.fill(round as u8);
                device.write_at(at, &long).unwrap();
                device.write_at(at + LONG, &long[..SHORT as usize]).unwrap();
                device.read_at(at, &mut got).unwrap();
                assert!(got == *long, "round {round}, {LONG} bytes at {at}");
                device.read_at(at + LONG, &mut got[..SHORT as usize]).unwrap();
                assert!(
                    got[..SHORT as usize] == long[..SHORT as usize],
                    "round {round}, {SHORT} bytes at {}",
                    at + LONG
                );
            }
            device.flush().unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(read_all);
        scope.spawn(read_all);
        let written = scope.spawn(write_all).join();
        done.store(true, Ordering::Relaxed);
        written.unwrap();
    });
}
