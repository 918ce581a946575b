//! What all programs that make tables need: how they end, and the middle of what they measured.

use std::error::Error;
use std::process::ExitCode;

/// What a step came to; an error ends the program.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How a program ends; of an error it says one line.
pub fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The middle of some measurements; not a number if there are none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
