//! A small generator of pseudo-random numbers whose sequence for a seed never changes between versions, so that a seed in
//! a bug report replays the same failure for ever: SplitMix64 (Steele, Lea, Flood 2014).

/// The generator's state: the seed, then a counter.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0. Slightly uneven for huge limits, which no test minds.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True `of_16` times in sixteen.
    pub(crate) fn chance(&mut self, of_16: u64) -> bool {
        self.below(16) < of_16
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sequence_is_fixed() {
        // The published first outputs for seed 0.
        let mut rng = super::Rng::new(0);
        assert_eq!(rng.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next(), 0x6e78_9e6a_a1b9_65f4);
    }
}
