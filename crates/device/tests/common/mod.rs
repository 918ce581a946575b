//! What files and block devices are both put through.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil_device::{Advice, AlignedBuf, Device, MemDevice};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(u64, Vec<u8>),
    WriteStable(u64, Vec<u8>),
    Zero(u64, u64),
    Discard(u64, u64),
    Flush,
    /// Into memory that is aligned, or not, in pieces.
    Read {
        at: u64,
        len: u64,
        aligned: bool,
        piece: usize,
    },
}

/// Anything, whole sectors, and whole pages that may be long: offset and length.
fn range(size_bytes: u64) -> impl Strategy<Value = (u64, u64)> + Clone {
    let units = prop_oneof![Just((1u64, 20_000u64)), Just((512, 60)), Just((4096, 150))];
    let range = units.prop_flat_map(move |(unit, most)| {
        (0..size_bytes / unit, 0..most).prop_map(move |(at, len)| (at * unit, len * unit))
    });
    range.prop_map(move |(at, len): (u64, u64)| (at, len.min(size_bytes - at)))
}

/// What may be done with a device of this size, up to 24 times.
pub(crate) fn steps(size_bytes: u64) -> impl Strategy<Value = Vec<Step>> {
    let range = move || range(size_bytes);
    let data = || (range(), any::<u8>()).prop_map(|((at, len), byte)| (at, vec![byte; len as usize]));
    let piece = prop_oneof![Just(4096), 100usize..5000, Just(1 << 20)];
    let read = (range(), any::<bool>(), piece).prop_map(|((at, len), aligned, piece)| Step::Read {
        at,
        len,
        aligned,
        piece,
    });
    let step = prop_oneof![
        6 => data().prop_map(|(at, data)| Step::Write(at, data)),
        2 => data().prop_map(|(at, data)| Step::WriteStable(at, data)),
        1 => range().prop_map(|(at, len)| Step::Zero(at, len)),
        1 => range().prop_map(|(at, len)| Step::Discard(at, len)),
        1 => Just(Step::Flush),
        6 => read,
    ];
    prop::collection::vec(step, 0..24)
}

/// Does a step, and returns what it read.
fn apply(device: &dyn Device, step: &Step) -> Vec<u8> {
    match step {
        Step::Write(at, data) => device.write_at(*at, data),
        Step::WriteStable(at, data) => device.write_fua_at(*at, data),
        Step::Zero(at, len) => device.zero(*at, *len),
        // What is there then is anything, so it is made something.
        Step::Discard(at, len) => {
            device.discard(*at, *len).and_then(|()| device.write_at(*at, &vec![0xd1; *len as usize]))
        }
        Step::Flush => device.flush(),
        Step::Read { at, len, aligned, piece } => {
            let skip = usize::from(!aligned);
            let mut memory = AlignedBuf::new(*len as usize + skip);
            let mut bufs: Vec<_> = memory[skip..].chunks_mut(*piece).map(IoSliceMut::new).collect();
            device.read_vectored_at(*at, &mut bufs).unwrap();
            return memory[skip..].to_vec();
        }
    }
    .unwrap();
    Vec::new()
}

/// Does the same with both, and expects to read the same.
pub(crate) fn agrees(device: &dyn Device, memory: &MemDevice, steps: &[Step]) {
    for step in steps {
        assert!(apply(device, step) == apply(memory, step), "{step:?}");
    }
}

/// Threads that write blocks of their own all over a device, and read them back.
pub(crate) fn threads_do_not_disturb_each_other(device: &dyn Device) {
    const THREADS: u64 = 6;
    const BLOCK: u64 = 512;
    let work = |own: u64| {
        let mut state = own + 1;
        let mut draw = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let blocks = device.size_bytes() / BLOCK / THREADS;
        let mut known = vec![0u8; blocks as usize];
        // Block n of this thread is block n * THREADS + own: neighbours are other threads'.
        let place = |n: u64| (n * THREADS + own) * BLOCK;
        for _ in 0..2000 {
            let n = draw(blocks);
            match draw(8) {
                0 => device.write_fua_at(place(n), &[known[n as usize]; BLOCK as usize]).unwrap(),
                1 => device.flush().unwrap(),
                2 | 3 => {
                    let mut got = [0; BLOCK as usize];
                    device.read_at(place(n), &mut got).unwrap();
                    assert_eq!(got, [known[n as usize]; BLOCK as usize]);
                }
                // A part of a block, which has to be filled up.
                4 => device.write_at(place(n) + 100, &[known[n as usize]; 100]).unwrap(),
                _ => {
                    known[n as usize] = draw(256) as u8;
                    device.write_at(place(n), &[known[n as usize]; BLOCK as usize]).unwrap();
                }
            }
        }
        let mut got = [0; BLOCK as usize];
        for (n, byte) in known.iter().enumerate() {
            device.read_at(place(n as u64), &mut got).unwrap();
            assert_eq!(got, [*byte; BLOCK as usize], "block {n} of thread {own}");
        }
    };
    std::thread::scope(|scope| {
        for own in 0..THREADS {
            scope.spawn(move || work(own));
        }
    });
}

const LONG: u64 = 512 << 10;
const SHORT: u64 = 4 << 10;

/// One thread writes long ranges, another one short ranges between them, and each reads back at once what it wrote; others read everything,
/// so that the kernel reads ahead into what is just being written. Nobody may see what was there before a write that is over.
pub(crate) fn what_was_written_is_read(device: &dyn Device, rounds: u64) {
    let size_bytes = device.size_bytes();
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
