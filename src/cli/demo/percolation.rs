//! Site percolation on a square lattice: decides whether one random lattice lets you walk from its top row to its
//! bottom row over occupied sites.
//!
//! ```text
//!   task ──▶ occupation probability p ─┐
//!                                      ├──▶ L × L random sites ──▶ union-find ──▶ does top meet bottom?
//!   run's seed ────────────────────────┘
//! ```
//!
//! **Invariant:** the answer depends on (size, p, seed) alone, never on what a [`Lattice`] computed before, on the
//! machine or on the order of runs: the random numbers are integers, and p becomes an integer before it is compared.
//! For one seed, more probability only adds sites, so a lattice that spans at p spans at every larger p.
//!
//! The random numbers are `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
//! OOPSLA 2014). The clusters are found by union by size with path halving (Tarjan and van Leeuwen, "Worst-case analysis of set
//! union algorithms", J. ACM 31, 1984). Tested in this file: tiny lattices by hand, against a flood fill, golden values.

/// Sites along one edge of the lattice of the demo; a lattice this size costs a few milliseconds.
pub(super) const SIZE_DEFAULT: u32 = 512;
/// Largest edge, in sites: 16 million sites, 130 MB.
pub(super) const SIZE_MAX: u32 = 4_096;
/// Occupation probability of the first task.
pub(super) const PROBABILITY_FIRST: f64 = 0.40;
/// Occupation probability of the last task.
pub(super) const PROBABILITY_LAST: f64 = 0.80;

/// Marks a site that is not occupied.
const EMPTY: u32 = u32::MAX;

/// The occupation probability of task `task` of `tasks` (both >= 1 in total): even steps from [`PROBABILITY_FIRST`] to
/// [`PROBABILITY_LAST`]. A single task gets the middle.
pub(super) fn occupation(task: u32, tasks: u32) -> f64 {
    let range = PROBABILITY_LAST - PROBABILITY_FIRST;
    if tasks < 2 {
        return PROBABILITY_FIRST + range / 2.0;
    }
    PROBABILITY_FIRST + range * f64::from(task) / f64::from(tasks - 1)
}

/// The memory for one lattice, used again for every run.
pub(super) struct Lattice {
    size: usize,
    /// Of an occupied site: a site nearer to the root of its cluster, or itself. The last two entries are the edges.
    parent: Vec<u32>,
    /// Of a root: how many sites its cluster has.
    weight: Vec<u32>,
}

impl Lattice {
    /// A lattice of `size` × `size` sites, `size` in 1..=[`SIZE_MAX`] (values outside are clamped).
    pub(super) fn new(size: u32) -> Self {
        let size = size.clamp(1, SIZE_MAX) as usize;
        let nodes = size * size + 2;
        Self { size, parent: vec![EMPTY; nodes], weight: vec![1; nodes] }
    }

    /// Occupies every site with `probability` (0 to 1), decided by `seed`, and says whether occupied sites connect the
    /// top row with the bottom row. Takes time proportional to the number of sites.
    pub(super) fn spans(&mut self, probability: f64, seed: u64) -> bool {
        let mut random = SplitMix64::new(seed);
        // 53 bits, so that the product is exact and every platform compares the same two integers.
        let threshold = (probability * (1_u64 << 53) as f64) as u64;
        self.spans_where(|_| random.next() >> 11 < threshold)
    }

    /// The same for sites that `occupied` chooses; it is asked once for each site, row by row from the top.
    fn spans_where(&mut self, mut occupied: impl FnMut(usize) -> bool) -> bool {
        let sites = self.size * self.size;
        let (top, bottom) = (sites, sites + 1);
        for edge in [top, bottom] {
            self.parent[edge] = edge as u32;
            self.weight[edge] = 1;
        }
        for site in 0..sites {
            if !occupied(site) {
                self.parent[site] = EMPTY;
                continue;
            }
            self.parent[site] = site as u32;
            self.weight[site] = 1;
            if site % self.size > 0 && self.parent[site - 1] != EMPTY {
                self.join(site, site - 1);
            }
            if site < self.size {
                self.join(site, top);
            } else if self.parent[site - self.size] != EMPTY {
                self.join(site, site - self.size);
            }
            if site >= sites - self.size {
                self.join(site, bottom);
            }
        }
        self.root(top) == self.root(bottom)
    }

    /// Makes two clusters one: the smaller hangs below the larger.
    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if one == other {
            return;
        }
        let (small, large) = if self.weight[one] < self.weight[other] { (one, other) } else { (other, one) };
        self.parent[small] = large as u32;
        self.weight[large] += self.weight[small];
    }

    /// The root of an occupied site's cluster. Every step halves the path for the next caller.
    fn root(&mut self, mut site: usize) -> usize {
        while self.parent[site] as usize != site {
            let grandparent = self.parent[self.parent[site] as usize];
            self.parent[site] = grandparent;
            site = grandparent as usize;
        }
        site
    }
}

/// A small generator of random numbers: a counter, mixed.
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a lattice as text, '#' is occupied.
    fn spans(rows: &[&str]) -> bool {
        let sites: Vec<bool> = rows.iter().flat_map(|row| row.bytes().map(|byte| byte == b'#')).collect();
        Lattice::new(rows.len() as u32).spans_where(|site| sites[site])
    }

    #[test]
    fn tiny_lattices() {
        assert!(spans(&["#"]));
        assert!(!spans(&["."]));
        assert!(spans(&["#.", "#."]));
        assert!(spans(&[".#", ".#"]));
        assert!(!spans(&["##", ".."]));
        assert!(!spans(&["#.", ".#"]), "corners do not touch");
        assert!(!spans(&["...", "###", "..."]));
        assert!(spans(&["#..", "###", "..#"]));
        assert!(!spans(&["#.#", "#.#", "..."]), "both arms hang from the top");
        assert!(!spans(&["..#", "#..", "#.."]), "the end of a row does not touch the start of the next");
        assert!(spans(&["#####", "....#", "#####", "#....", "#####"]), "a winding path");
        assert!(spans(&["....#", "###.#", "#.#.#", "#.###", "#...."]), "a path that goes up again");
    }

    #[test]
    fn agrees_with_a_flood_fill() {
        let size = 12;
        let mut lattice = Lattice::new(size as u32);
        let mut spanning = 0;
        for seed in 0..2_000 {
            let mut random = SplitMix64::new(seed);
            let probability = 0.4 + 0.4 * (seed % 100) as f64 / 99.0;
            let limit = (probability * (1_u64 << 53) as f64) as u64;
            let sites: Vec<bool> = (0..size * size).map(|_| random.next() >> 11 < limit).collect();
            let expected = flood(size, &sites);
            assert_eq!(lattice.spans(probability, seed), expected, "seed {seed}");
            spanning += u32::from(expected);
        }
        assert!((500..1_500).contains(&spanning), "{spanning} of 2000 span: the test would not see a constant answer");
    }

    /// The obvious algorithm: pour water on the top row.
    fn flood(size: usize, sites: &[bool]) -> bool {
        let mut wet = vec![false; sites.len()];
        let mut front: Vec<usize> = (0..size).collect();
        while let Some(site) = front.pop() {
            if !sites[site] || std::mem::replace(&mut wet[site], true) {
                continue;
            }
            let (row, column) = (site / size, site % size);
            if row > 0 {
                front.push(site - size);
            }
            if row + 1 < size {
                front.push(site + size);
            }
            if column > 0 {
                front.push(site - 1);
            }
            if column + 1 < size {
                front.push(site + 1);
            }
        }
        wet[size * (size - 1)..].contains(&true)
    }

    #[test]
    fn more_probability_never_disconnects() {
        let mut lattice = Lattice::new(24);
        for seed in 0..50 {
            let answers: Vec<bool> = (0..=100).map(|step| lattice.spans(f64::from(step) / 100.0, seed)).collect();
            assert!(answers.is_sorted(), "seed {seed}: {answers:?}");
            assert!(!answers[0] && answers[100], "seed {seed}: an empty lattice or a full one");
        }
    }

    #[test]
    fn a_lattice_forgets_its_last_run() {
        let mut used = Lattice::new(16);
        for seed in 0..200 {
            let probability = 0.5 + 0.001 * seed as f64;
            assert_eq!(used.spans(probability, seed), Lattice::new(16).spans(probability, seed), "seed {seed}");
        }
    }

    #[test]
    fn golden_values() {
        // The generator's published first outputs for seed 1234567; then which of the first 64 seeds span, as computed
        // by an independent program in Python.
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        let mut lattice = Lattice::new(32);
        let spanning = (0..64).fold(0_u64, |bits, seed| bits | u64::from(lattice.spans(0.592_746, seed)) << seed);
        assert_eq!(spanning, 0xf6de_f11a_53b6_eddb, "{spanning:#018x}");
    }

    #[test]
    fn probabilities_cover_the_range_evenly() {
        assert!((occupation(0, 1_000) - 0.40).abs() < 1e-12);
        assert!((occupation(999, 1_000) - 0.80).abs() < 1e-12);
        assert!((occupation(1, 3) - 0.60).abs() < 1e-12);
        assert!((occupation(0, 1) - 0.60).abs() < 1e-12);
    }
}
