//! Chance for draws, jitter, back-off and lifetimes.

/// A small generator (splitmix64, Steele et al. 2014): spreading needs no more, and a seed makes every run repeatable.
#[derive(Debug, Default)]
pub struct Dice(pub u64);

impl Dice {
    /// Uniform in `[0, 1)`.
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
