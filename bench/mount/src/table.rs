//! The results, as tables.

use frazil_bench_common::median;

use crate::loads::Load;
use crate::peers::Peer;

/// What is aimed at, relative to ext4 in the kernel and to ext4 through FUSE.
const TARGETS_NAMES: (f64, f64) = (0.8, 5.0);
const TARGETS_DATA: (f64, f64) = (1.0, 2.0);
/// Most memory of frazil's server.
const RESIDENT_MAX: u64 = 256 << 20;

/// Speeds, round by round.
pub(crate) struct Table {
    peers: Vec<Peer>,
    /// Per load and peer (in the order of `peers`), what each round gave.
    speeds: Vec<(Load, Vec<Vec<f64>>)>,
    resident: Vec<u64>,
}

impl Table {
    pub(crate) fn new(peers: Vec<Peer>) -> Table {
        let resident = vec![0; peers.len()];
        Table { peers, speeds: Vec::new(), resident }
    }

    fn column(&self, peer: Peer) -> Option<usize> {
        self.peers.iter().position(|other| *other == peer)
    }

    pub(crate) fn add(&mut self, peer: Peer, load: Load, speed: f64) {
        let Some(column) = self.column(peer) else { return };
        if self.speeds.iter().all(|(other, _)| *other != load) {
            self.speeds.push((load, vec![Vec::new(); self.peers.len()]));
        }
        if let Some((_, row)) = self.speeds.iter_mut().find(|(other, _)| *other == load) {
            row[column].push(speed);
        }
    }

    pub(crate) fn add_resident(&mut self, peer: Peer, bytes: u64) {
        if let Some(column) = self.column(peer) {
            self.resident[column] = self.resident[column].max(bytes);
        }
    }

    pub(crate) fn print(&self, rounds: usize, shown: impl Fn(Load) -> bool) {
        let others: Vec<Peer> = self.peers.iter().copied().filter(|peer| *peer != Peer::Frazil).collect();
        println!(
            "\nSpeed of frazil relative to others; medians of {rounds} rounds. A ! marks what misses its target.\n"
        );
        let names: String = others.iter().map(|peer| format!(" {} |", peer.name())).collect();
        println!("| |{names} target: ext4, fuse2fs |\n|---|{}---|", "---|".repeat(others.len()));
        for (load, row) in self.speeds.iter().filter(|(load, _)| shown(*load)) {
            let (ext4, fuse2fs) = if load.is_about_names() { TARGETS_NAMES } else { TARGETS_DATA };
            let ratios: String = others
                .iter()
                .map(|peer| {
                    let ratio = self.ratio(row, *peer);
                    let target = match peer {
                        Peer::Ext4 => ext4,
                        Peer::Fuse2fs => fuse2fs,
                        _ => 0.0,
                    };
                    format!(" {ratio:.2}{} |", if ratio < target { " !" } else { "" })
                })
                .collect();
            println!("| {} |{ratios} {ext4}, {fuse2fs} |", load.name());
        }
        println!("\nThe speeds themselves\n");
        let names: String = self.peers.iter().map(|peer| format!(" {} |", peer.name())).collect();
        println!("| |{names}\n|---|{}", "---|".repeat(self.peers.len()));
        for (load, row) in self.speeds.iter().filter(|(load, _)| shown(*load)) {
            let speeds: String = row
                .iter()
                .map(|rounds| format!(" {} |", load.show(median(rounds.iter().copied()))))
                .collect();
            println!("| {} |{speeds}", load.name());
        }
        let resident: String = self
            .resident
            .iter()
            .map(|bytes| match bytes {
                0 => " |".to_owned(),
                bytes => format!(" {} MiB |", bytes >> 20),
            })
            .collect();
        println!("| most memory of the server |{resident}");
        if self.column(Peer::Frazil).is_some_and(|column| self.resident[column] > RESIDENT_MAX) {
            println!("\nfrazil's server had more in memory than the {} MiB aimed at.", RESIDENT_MAX >> 20);
        }
    }

    /// How many times as fast as the peer frazil was: the median over the rounds.
    fn ratio(&self, row: &[Vec<f64>], peer: Peer) -> f64 {
        let (Some(ours), Some(theirs)) = (self.column(Peer::Frazil), self.column(peer)) else {
            return f64::NAN;
        };
        median(row[ours].iter().zip(&row[theirs]).map(|(ours, theirs)| ours / theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_one_by_one() {
        let mut table = Table::new(vec![Peer::Frazil, Peer::Ext4]);
        // The machine is ten times slower in the second round.
        for (frazil, ext4) in [(20.0, 10.0), (2.0, 1.0), (30.0, 10.0)] {
            table.add(Peer::Frazil, Load::Create, frazil);
            table.add(Peer::Ext4, Load::Create, ext4);
        }
        assert!((table.ratio(&table.speeds[0].1, Peer::Ext4) - 2.0).abs() < 1e-9);
    }
}
