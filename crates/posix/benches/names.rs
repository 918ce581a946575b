//! What metadata operations cost once the nodes are in memory: the image with twenty thousand files in one directory, every
//! operation on all of them in a shuffled order. Prints nanoseconds per operation, the median of many short runs.
//!
//! `cargo bench -p frazil-posix --bench names`

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_posix::{FileType, Fs, NodeId, Visit, WalkStep};
use frazil_testing::golden;
use frazil_volume::{OpenOptions, open};

const ROUNDS: usize = 7;

/// Operations timed together: few enough to be over before the scheduler interferes.
const TOGETHER: usize = 64;

/// Applies `operation` to every item, so many at a time, and prints the median time of one.
fn measure<T>(what: &str, together: usize, items: &[T], mut operation: impl FnMut(&T)) {
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        for some in items.chunks_exact(together) {
            let begin = Instant::now();
            some.iter().for_each(&mut operation);
            times.push(begin.elapsed().as_nanos() as f64 / together as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{what:<28} {:>8.0} ns", times[times.len() / 2]);
}

/// The directory with most names.
fn largest_directory(fs: &Fs) -> NodeId {
    let mut largest = (0, fs.root());
    fs.walk(fs.root(), &mut |_, visit| {
        if let Visit::Object(attr) = visit
            && attr.kind == FileType::Directory
        {
            let mut count = 0;
            fs.readdir(attr.node, 0, &mut |_| {
                count += 1;
                ControlFlow::Continue(())
            })
            .expect("golden directories can be listed");
            largest = largest.max((count, attr.node));
        }
        WalkStep::Continue
    });
    largest.1
}

fn main() {
    let devices = golden::image("03-many-files").unpack().into_iter().map(|path| {
        let device = DeviceOptions::new(Access::ReadOnly).open(&path).expect("golden images can be opened");
        Arc::new(device) as Arc<dyn Device>
    });
    let volume = open(devices.collect(), OpenOptions::default()).expect("golden images open");
    let fs = Fs::new(Arc::new(volume));
    let dir = largest_directory(&fs);

    let mut entries: Vec<(Vec<u8>, NodeId)> = Vec::new();
    fs.readdir(dir, 0, &mut |entry| {
        entries.push((entry.name.to_vec(), entry.node));
        ControlFlow::Continue(())
    })
    .expect("it has been listed before");
    let mut state = 1u64;
    entries.sort_by_cached_key(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    });
    println!("{} names in one directory", entries.len());

    measure("lookup", TOGETHER, &entries, |(name, _)| {
        black_box(fs.lookup(dir, name)).expect("the name is there");
    });
    measure("lookup of an absent name", TOGETHER, &entries, |(name, _)| {
        black_box(fs.lookup(dir, &name[1..])).expect_err("it is not there");
    });
    measure("getattr", TOGETHER, &entries, |(_, node)| {
        black_box(fs.getattr(*node)).expect("the inode is there");
    });
    measure("listxattr", TOGETHER, &entries, |(_, node)| {
        black_box(fs.listxattr(*node)).expect("the inode is there");
    });
    let mut buf = vec![0; 4096];
    measure("read of 4 KiB", TOGETHER, &entries, |(_, node)| {
        black_box(fs.read(*node, 0, &mut buf)).expect("golden files can be read");
    });
    // Pieces of a listing, as long as the kernel asks for.
    let positions = positions(&fs, dir);
    measure("readdir of 100 names", 1, &positions, |from| {
        let mut left = 100;
        let step = &mut |entry: frazil_posix::DirEntry<'_>| {
            black_box(entry);
            left -= 1;
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        fs.readdir(dir, *from, step).expect("it can be listed");
    });
    measure("readdir_plus of 100 names", 1, &positions, |from| {
        let mut left = 100;
        let step = &mut |entry: frazil_posix::DirEntry<'_>, attr: Option<&frazil_posix::Attr>| {
            black_box((entry, attr));
            left -= 1;
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        fs.readdir_plus(dir, *from, step).expect("it can be listed");
    });
}

/// Every hundredth position of a listing.
fn positions(fs: &Fs, dir: NodeId) -> Vec<u64> {
    let mut positions = vec![0];
    let mut count = 0;
    fs.readdir(dir, 0, &mut |entry| {
        count += 1;
        if count % 100 == 0 {
            positions.push(entry.next);
        }
        ControlFlow::Continue(())
    })
    .expect("it has been listed before");
    positions
}
