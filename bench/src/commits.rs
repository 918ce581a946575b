//! Durable commits: a 64-byte key and value, and the thread goes on when they are on stable storage.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::median;
use crate::peers::{Fjall, Frazil, Peer, Redb, Rocks};

const ROUNDS: usize = 5;

/// One run of one store.
struct Run {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Prints commits per second for 1, 4 and 16 threads, and the ratio to the best peer.
pub fn table(dir: &Path, time: Duration) {
    println!(
        "durable commits per second, each thread waiting for its own (median of {ROUNDS} rounds of {time:?})"
    );
    println!(
        "{:>8} {:>10} {:>12} {:>10} {:>10} {:>12} {:>8}",
        "threads", "store", "commits/s", "p50 µs", "p99 µs", "bytes/commit", "ratio"
    );
    for threads in [1, 4, 16] {
        let names = ["frazil", "rocksdb", "fjall", "redb"];
        let mut runs: Vec<Vec<(Run, Option<f64>)>> = names.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (name, runs) in names.iter().zip(&mut runs) {
                let scratch = tempfile::tempdir_in(dir).expect("the directory can be written");
                let peer: Box<dyn Peer> = match *name {
                    "frazil" => Box::new(Frazil::open(scratch.path())),
                    "rocksdb" => Box::new(Rocks::open(scratch.path())),
                    "fjall" => Box::new(Fjall::open(scratch.path())),
                    _ => Box::new(Redb::open(scratch.path())),
                };
                runs.push(run(&*peer, threads, time));
            }
        }
        let speed = |runs: &[(Run, Option<f64>)]| median(runs.iter().map(|r| r.0.per_second).collect());
        let best_peer = runs[1..].iter().map(|r| speed(r)).fold(0.0, f64::max);
        for (name, runs) in names.iter().zip(&runs) {
            let us =
                |of: fn(&Run) -> Duration| median(runs.iter().map(|r| of(&r.0).as_micros() as f64).collect());
            let bytes = runs[0].1.map_or("-".to_owned(), |b| format!("{b:.0}"));
            println!(
                "{threads:>8} {name:>10} {:>12.0} {:>10.0} {:>10.0} {bytes:>12} {:>7.2}x",
                speed(runs),
                us(|r| r.p50),
                us(|r| r.p99),
                speed(runs) / best_peer
            );
        }
    }
}

fn run(peer: &dyn Peer, threads: usize, time: Duration) -> (Run, Option<f64>) {
    // Warm up: files allocated, caches filled.
    (0..20).for_each(|n| peer.commit(n));
    let stop = AtomicBool::new(false);
    let bytes_before = peer.bytes_written();
    let begin = Instant::now();
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let worker = |t: u64| {
            let stop = &stop;
            move || {
                let mut took = Vec::new();
                let mut n = t << 32;
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    peer.commit(n);
                    took.push(begin.elapsed());
                    n += 1;
                }
                took
            }
        };
        let workers: Vec<_> = (0..threads).map(|t| scope.spawn(worker(t as u64 + 1))).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|w| w.join().expect("a worker panicked")).collect()
    });
    let elapsed = begin.elapsed();
    let bytes = peer.bytes_written().zip(bytes_before).map(|(a, b)| (a - b) as f64 / latencies.len() as f64);
    latencies.sort();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    let per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    (Run { per_second, p50: at(0.50), p99: at(0.99) }, bytes)
}
