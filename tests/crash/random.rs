//! Chance from a seed, so that a run can be repeated: `SplitMix64` (Steele, Lea, Flood 2014), in a few lines.
//!
//! Every process and every decision draws from a seed that the test prints. What the operating system does meanwhile
//! (which process runs first) no seed can repeat; the checker does not depend on it.

use std::ops::RangeInclusive;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in the range, evenly enough.
    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.number() % (range.end() - range.start() + 1)
    }

    /// True that often out of a hundred.
    pub(crate) fn percent(&mut self, often: u64) -> bool {
        self.number() % 100 < often
    }

    /// The bytes of an id.
    pub(crate) fn id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number().to_le_bytes());
        id[8..].copy_from_slice(&self.number().to_le_bytes());
        id
    }
}
