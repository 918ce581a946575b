//! Randomised tests that can be replayed.
//!
//! A test that makes random choices derives all of them from one number, its seed, and runs through
//! [`for_each_seed`]. A normal run uses the seeds 1, 2, 3 …, so that it finds the same every time; a failing one says
//! how to run just that seed again. Two environment variables change this for everybody alike:
//!
//! * `FRAZIL_SEED=N` runs only seed N: the way to replay a failure.
//! * `FRAZIL_ROUNDS=N` runs N seeds instead of the number that the test asks for: the way to search longer by hand.

use std::ops::RangeInclusive;

/// Calls `test` with one seed after the other; `rounds` is how many are enough for a normal test run.
///
/// # Panics
/// When `test` does, after printing how to replay it; when a variable is set to something that is not a number.
pub fn for_each_seed(rounds: u64, mut test: impl FnMut(u64)) {
    for seed in seeds(variable("FRAZIL_SEED"), variable("FRAZIL_ROUNDS"), rounds) {
        let announce = AnnounceOnPanic(seed);
        test(seed);
        drop(announce);
    }
}

fn seeds(only: Option<u64>, rounds_asked: Option<u64>, rounds: u64) -> RangeInclusive<u64> {
    match only {
        Some(seed) => seed..=seed,
        None => 1..=rounds_asked.unwrap_or(rounds),
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Says which seed it was when the test panics.
struct AnnounceOnPanic(u64);

impl Drop for AnnounceOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            eprintln!("seed {0} failed; replay it with: FRAZIL_SEED={0} cargo test {test}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_or_many() {
        assert_eq!(seeds(None, None, 3), 1..=3);
        assert_eq!(seeds(None, Some(10), 3), 1..=10);
        assert_eq!(seeds(Some(77), Some(10), 3), 77..=77);
    }

    #[test]
    fn a_failing_seed_stops_the_test() {
        let mut last = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for_each_seed(5, |seed| {
                last = seed;
                assert!(seed < 3 && std::env::var_os("FRAZIL_SEED").is_none());
            });
        }));
        assert!(outcome.is_err());
        assert!(last == 3 || std::env::var_os("FRAZIL_SEED").is_some());
    }
}
