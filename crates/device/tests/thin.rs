//! Thin devices: contents like any device's, space like dm-thin's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use frazil_device::{Device, Error, MemDevice, ThinDevice, ThinPool, WhenFull};
use proptest::prelude::*;

const CHUNK: u64 = 4096;

fn wait_until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bytes(device: &ThinDevice) -> Vec<u8> {
    let mut all = vec![0; device.size_bytes() as usize];
    device.read_at(0, &mut all).unwrap();
    all
}

#[test]
fn allocates_on_first_write_and_reports_no_space() {
    let pool = ThinPool::in_memory(CHUNK, 2 * CHUNK, WhenFull::Fail);
    let device = pool.device("thin", 10 * CHUNK);
    assert_eq!((pool.used_bytes(), pool.capacity_bytes()), (0, 2 * CHUNK));
    device.write_at(CHUNK / 2, &[1; CHUNK as usize]).unwrap();
    assert_eq!(pool.used_bytes(), 2 * CHUNK);
    let err = device.write_at(2 * CHUNK, &[2]).unwrap_err();
    assert!(err.is_no_space(), "{err}");
    assert!(matches!(&err, Error::Io { device, .. } if &**device == "thin"));
    // What is allocated can be written still, and the failed write is not there.
    device.write_at(0, &[3; 100]).unwrap();
    device.flush().unwrap();
    assert!(bytes(&device)[2 * CHUNK as usize..].iter().all(|&b| b == 0));
    pool.grow(3 * CHUNK).unwrap();
    device.write_fua_at(2 * CHUNK, &[2]).unwrap();
    assert!(device.write_at(9 * CHUNK, &[2]).unwrap_err().is_no_space());
    device.discard(100, 2 * CHUNK).unwrap();
    assert_eq!(pool.used_bytes(), 2 * CHUNK, "exactly one chunk lies within the discarded range");
    device.write_at(9 * CHUNK, &[2]).unwrap();
}

#[test]
fn queued_writes_go_on_when_the_pool_grows() {
    let pool = ThinPool::in_memory(CHUNK, CHUNK, WhenFull::Queue);
    let device = Arc::new(pool.device("thin", 10 * CHUNK));
    device.write_at(0, &[1; 16]).unwrap();
    let writers: Vec<_> = (1..4u8)
        .map(|i| {
            let device = device.clone();
            std::thread::spawn(move || device.write_at(u64::from(i) * CHUNK, &[i; 16]))
        })
        .collect();
    wait_until(|| pool.waiting() == 3);
    // Reads, flushes and writes in place pass the queue.
    device.write_at(8, &[9; 16]).unwrap();
    device.flush().unwrap();
    let mut buf = [0; 24];
    device.read_at(0, &mut buf).unwrap();
    assert_eq!(buf[..], [[1; 8], [9; 8], [9; 8]].concat());
    pool.grow(3 * CHUNK).unwrap();
    wait_until(|| pool.waiting() == 1);
    // A discard makes room as well.
    device.discard(0, CHUNK).unwrap();
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
    for i in 1..4u8 {
        device.read_at(u64::from(i) * CHUNK, &mut buf[..16]).unwrap();
        assert_eq!(buf[..16], [i; 16]);
    }
}

#[test]
fn queued_writes_fail_when_the_policy_says_so() {
    let pool = ThinPool::in_memory(CHUNK, 0, WhenFull::Queue);
    let device = Arc::new(pool.device("thin", CHUNK));
    let writer = std::thread::spawn({
        let device = device.clone();
        move || device.write_at(0, &[1])
    });
    wait_until(|| pool.waiting() == 1);
    pool.set_when_full(WhenFull::Fail);
    assert!(writer.join().unwrap().unwrap_err().is_no_space());
    pool.set_when_full(WhenFull::QueueFor(Duration::from_millis(30)));
    let start = Instant::now();
    assert!(device.write_at(0, &[1]).unwrap_err().is_no_space());
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn writes_that_wait_for_the_same_chunk_need_only_one() {
    let pool = ThinPool::in_memory(CHUNK, 0, WhenFull::Queue);
    let device = Arc::new(pool.device("thin", CHUNK));
    let writers: Vec<_> = (0..8u8)
        .map(|i| {
            let device = device.clone();
            std::thread::spawn(move || device.write_at(u64::from(i) * 512, &[i; 512]))
        })
        .collect();
    wait_until(|| pool.waiting() == 8);
    pool.grow(CHUNK).unwrap();
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
    let expected: Vec<u8> = (0..8u8).flat_map(|i| [i; 512]).collect();
    assert_eq!(bytes(&device), expected);
    assert_eq!(pool.used_bytes(), CHUNK);
}

#[test]
fn overwriting_what_a_snapshot_shares_allocates() {
    let pool = ThinPool::in_memory(CHUNK, 3 * CHUNK, WhenFull::Fail);
    let origin = pool.device("origin", 4 * CHUNK);
    origin.write_at(0, &[1; 2 * CHUNK as usize]).unwrap();
    let snapshot = origin.snapshot("snapshot");
    assert_eq!(pool.used_bytes(), 2 * CHUNK);
    snapshot.write_at(10, &[2]).unwrap();
    assert_eq!(pool.used_bytes(), 3 * CHUNK);
    assert!(origin.write_at(CHUNK, &[3]).unwrap_err().is_no_space());
    // The chunk the snapshot no longer shares is the origin's own again.
    origin.write_at(0, &[4]).unwrap();
    assert_eq!((bytes(&origin)[0], bytes(&snapshot)[0], bytes(&snapshot)[10]), (4, 1, 2));
    drop(origin);
    assert_eq!(pool.used_bytes(), 2 * CHUNK);
    snapshot.write_at(CHUNK, &[5]).unwrap();
}

#[test]
fn reused_chunks_show_nothing_of_their_past() {
    let pool = ThinPool::in_memory(CHUNK, CHUNK, WhenFull::Fail);
    let first = pool.device("first", CHUNK);
    first.write_at(0, &[0xcd; CHUNK as usize]).unwrap();
    drop(first);
    let second = pool.device("second", CHUNK);
    second.write_at(100, &[1]).unwrap();
    let all = bytes(&second);
    assert_eq!(all.iter().map(|&b| u64::from(b)).sum::<u64>(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Discard(u64, u64),
    Snapshot,
    /// Continue on the newest snapshot.
    Swap,
}

const SIZE: u64 = 9 * CHUNK + 600;

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SIZE, 0..3 * CHUNK).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    prop_oneof![
        4 => (range.clone(), any::<u8>()).prop_map(|((at, len), byte)| Step::Write(at, vec![byte; len as usize])),
        1 => range.clone().prop_map(|(at, len)| Step::Zero(at, len)),
        1 => range.prop_map(|(at, len)| Step::Discard(at, len)),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Swap),
    ]
}

proptest! {
    /// Thin devices that have room hold what flat devices hold; without room every error is ENOSPC and allocation never
    /// passes the capacity.
    #[test]
    fn contents_and_space(steps in prop::collection::vec(step(), 0..30), capacity in 0u64..60) {
        let pool = ThinPool::in_memory(CHUNK, capacity * CHUNK, WhenFull::Fail);
        let mut pairs = vec![(pool.device("thin", SIZE), MemDevice::new(SIZE))];
        for step in steps {
            let (thin, flat) = pairs.last().unwrap();
            let wrote = match step {
                Step::Write(at, data) => {
                    let wrote = thin.write_at(at, &data);
                    if wrote.is_ok() {
                        flat.write_at(at, &data).unwrap();
                    } else {
                        // Which chunks of a failed write are there is free, but each is old or new.
                        let (mut got, mut old) = (vec![0; data.len()], vec![0; data.len()]);
                        thin.read_at(at, &mut got).unwrap();
                        flat.read_at(at, &mut old).unwrap();
                        prop_assert!(got.iter().zip(&old).zip(&data).all(|((g, o), d)| g == o || g == d));
                        flat.write_at(at, &got).unwrap();
                    }
                    wrote
                }
                Step::Zero(at, len) => {
                    let zeroed = thin.zero(at, len);
                    if zeroed.is_ok() {
                        flat.zero(at, len).unwrap();
                    } else {
                        let mut got = vec![0; len as usize];
                        thin.read_at(at, &mut got).unwrap();
                        flat.write_at(at, &got).unwrap();
                    }
                    zeroed
                }
                Step::Discard(at, len) => {
                    thin.discard(at, len).unwrap();
                    let whole = at.div_ceil(CHUNK) * CHUNK..(at + len) / CHUNK * CHUNK;
                    flat.zero(whole.start.min(SIZE), whole.end.saturating_sub(whole.start)).unwrap();
                    Ok(())
                }
                Step::Snapshot => {
                    pairs.push((thin.snapshot("thin"), flat.snapshot()));
                    Ok(())
                }
                Step::Swap => {
                    let last = pairs.len() - 1;
                    pairs.swap(0, last);
                    Ok(())
                }
            };
            if let Err(err) = wrote {
                prop_assert!(err.is_no_space(), "{}", err);
            }
            prop_assert!(pool.used_bytes() <= capacity * CHUNK);
            for (thin, flat) in &pairs {
                prop_assert!(bytes(thin) == flat.to_vec());
            }
        }
        drop(pairs);
        prop_assert_eq!(pool.used_bytes(), 0);
    }
}
