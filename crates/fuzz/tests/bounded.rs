//! A fixed number of damaged inputs per decoder in every test run, with limits on time and memory.
//!
//! `FRAZIL_SEED` and `FRAZIL_ROUNDS` replay and prolong it (see `frazil_testing::seed`). An input that fails is kept under
//! `target/fuzz-failures/`; put it into `crates/fuzz/regressions/TARGET/` together with the fix, and it is tried forever.

#![allow(clippy::unwrap_used)] // What goes wrong here is for the test run to show.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;
use frazil_fuzz::mutate::mutate;
use frazil_fuzz::seeds;
use frazil_fuzz::targets::{self, Target};
use frazil_testing::golden::source_root;
use frazil_testing::seed::for_each_seed;
use frazil_testing::sha256_hex;

/// Inputs per seed.
const INPUTS: usize = 50;
/// Seeds of a normal test run.
const ROUNDS: u64 = 40;
/// Longest time for one input; a machine that is busy with other things must keep it too.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Memory that does not depend on the input: messages, small tables.
const MEMORY_ALWAYS: u64 = 64 << 10;

/// Runs the target on one input. If it fails, keeps the input and says where.
fn run(target: Target, input: &[u8]) {
    let start = Instant::now();
    let mut outcome = Ok(());
    let memory =
        allocation_counter::measure(|| outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let allowed = MEMORY_ALWAYS + target.bytes_per_byte_max * input.len() as u64;
    let complaint = match outcome {
        Err(_) => "panicked".to_owned(),
        Ok(()) if start.elapsed() > TIME_MAX => format!("took {:?}", start.elapsed()),
        Ok(()) if memory.bytes_max > allowed => {
            format!("had {} bytes in use, not {allowed}", memory.bytes_max)
        }
        Ok(()) => return,
    };
    let path = keep(target, input);
    panic!("{} {complaint} on {} bytes, kept in {}", target.name, input.len(), path.display());
}

fn keep(target: Target, input: &[u8]) -> PathBuf {
    let dir = source_root().join("target/fuzz-failures").join(target.name);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(&sha256_hex(input)[..16]);
    std::fs::write(&path, input).unwrap();
    path
}

fn regressions(target: Target) -> Vec<Vec<u8>> {
    let dir = source_root().join("crates/fuzz/regressions").join(target.name);
    let Ok(files) = dir.read_dir() else { return Vec::new() };
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn bounded(name: &str) {
    let target = targets::by_name(name).unwrap();
    let seeds = seeds::of_target(name);
    for input in seeds.iter().chain(&regressions(target)) {
        run(target, input);
        for len in (0..input.len()).step_by(1 + input.len() / 50) {
            run(target, &input[..len]);
        }
    }
    for_each_seed(ROUNDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..INPUTS {
            let mut input = seeds[rng.usize(..seeds.len())].clone();
            mutate(&mut input, &seeds[rng.usize(..seeds.len())], &mut rng);
            run(target, &input);
        }
    });
}

macro_rules! bounded {
    ($($name:ident)*) => {
        $(#[test] fn $name() { bounded(stringify!($name)); })*

        #[test]
        fn no_target_is_left_out() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(targets::ALL.map(|target| target.name), tested);
        }
    };
}

#[test]
fn libfuzzer_has_every_target() {
    let fuzz = source_root().join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for Target { name, .. } in targets::ALL {
        let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("run(\"{name}\"")), "{name}");
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}

bounded! { superblock bkey packed_keys value node jset jset_list journal_bucket }
