//! Makes inputs of inputs: bytes changed, moved, doubled, left out, numbers taken to their ends, two inputs crossed, words of
//! the target's language put in. The same seed makes the same inputs.

/// A plain generator of numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below `limit`, which is at least 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn pick<'items, T: ?Sized>(&mut self, items: &'items [&'items T]) -> &'items T {
        items[self.below(items.len())]
    }
}

/// An input made of those there are, at most `bytes_max` long.
pub(crate) fn make(chance: &mut Chance, corpus: &[Vec<u8>], words: &[&[u8]], bytes_max: usize) -> Vec<u8> {
    let mut input = corpus.get(chance.below(corpus.len().max(1))).cloned().unwrap_or_default();
    for _ in 0..=chance.below(6) {
        mutate(chance, &mut input, corpus, words);
    }
    input.truncate(bytes_max);
    input
}

fn mutate(chance: &mut Chance, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    const ENDS: [u8; 14] = [0, 1, 2, 16, 64, 100, 127, 128, 250, 251, 252, 253, 254, 255];
    let place = chance.below(input.len() + 1);
    match chance.below(10) {
        0 if place < input.len() => input[place] ^= 1 << chance.below(8),
        1 if place < input.len() => input[place] = ENDS[chance.below(ENDS.len())],
        2 if place < input.len() => input[place] = input[place].wrapping_add(chance.byte() % 9).wrapping_sub(4),
        3 => insert(input, place, &[chance.byte()]),
        4 => drop(input.drain(place..(place + 1 + chance.below(8)).min(input.len()))),
        5 => {
            // A stretch once more, somewhere else.
            let end = (place + chance.below(64)).min(input.len());
            let stretch = input[place..end].to_vec();
            let target = chance.below(input.len() + 1);
            insert(input, target, &stretch);
        }
        6 => input.truncate(place),
        7 if !corpus.is_empty() => {
            let other = &corpus[chance.below(corpus.len())];
            input.truncate(place);
            input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
        8 => {
            // A number, written over what was there.
            let number: u64 = match chance.below(4) {
                0 => u64::MAX,
                1 => 1 << chance.below(64),
                2 => (1_u64 << chance.below(64)).wrapping_sub(1),
                _ => chance.below(1 << 20) as u64,
            };
            let bytes = number.to_le_bytes();
            let end = (place + [1, 2, 4, 8][chance.below(4)]).min(input.len());
            let length = end - place;
            input[place..end].copy_from_slice(&bytes[..length]);
        }
        _ if !words.is_empty() => insert(input, place, chance.pick(words)),
        _ => insert(input, place, &[ENDS[chance.below(ENDS.len())]]),
    }
}

fn insert(input: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    drop(input.splice(place..place, bytes.iter().copied()));
}
