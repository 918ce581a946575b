//! Two sides, measured in turns.

use frazil_bench_common::{Outcome, median};

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// frazil's mount.
    Frazil,
    /// What it is compared with.
    Peer,
}

/// A thing to measure: what it is called, and the seconds each side took, round by round.
pub(crate) struct Row {
    name: String,
    frazil: Vec<f64>,
    peer: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Row {
        Row { name: name.into(), frazil: Vec::new(), peer: Vec::new() }
    }

    pub(crate) fn add(&mut self, side: Side, seconds: f64) {
        match side {
            Side::Frazil => self.frazil.push(seconds),
            Side::Peer => self.peer.push(seconds),
        }
    }

    /// How many times as fast as its peer frazil was: the median over the rounds.
    fn speed(&self) -> f64 {
        median(self.peer.iter().zip(&self.frazil).map(|(peer, frazil)| peer / frazil))
    }
}

/// Lets both sides do something once a round; who comes first changes from round to round.
pub(crate) fn alternate(rounds: usize, mut measure: impl FnMut(Side) -> Outcome) -> Outcome {
    for round in 0..rounds {
        let order =
            if round.is_multiple_of(2) { [Side::Frazil, Side::Peer] } else { [Side::Peer, Side::Frazil] };
        for side in order {
            measure(side)?;
        }
    }
    Ok(())
}

/// Prints the rows, their times as `show` puts them.
pub(crate) fn print(title: &str, peer: &str, rows: &[Row], show: impl Fn(f64) -> String) {
    println!("\n{title}; medians of {} rounds\n", rows.first().map_or(0, |row| row.peer.len()));
    println!("| | frazil | {peer} | frazil's speed relative to it |\n|---|---|---|---|");
    for row in rows {
        let [frazil, peer] = [&row.frazil, &row.peer].map(|times| show(median(times.iter().copied())));
        println!("| {} | {frazil} | {peer} | {:.2} |", row.name, row.speed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_one_by_one() {
        let mut row = Row::new("x");
        // The machine is ten times slower in the second round.
        for (frazil, peer) in [(1.0, 2.0), (10.0, 20.0), (1.0, 3.0)] {
            row.add(Side::Frazil, frazil);
            row.add(Side::Peer, peer);
        }
        assert!((row.speed() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn sides_take_turns() {
        let mut firsts = Vec::new();
        alternate(3, |side| {
            firsts.push(side == Side::Frazil);
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!(firsts, [true, false, false, true, true, false]);
    }
}
