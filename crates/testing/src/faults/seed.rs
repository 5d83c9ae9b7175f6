//! Numbers that look random and follow from a seed.

/// A source of numbers: the same seed gives the same ones on every machine.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// Returns the source of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a source of its own for what bears this name.
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let mut fork = Self(name.bytes().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, hash));
        fork.draw();
        fork
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`, which is at least one.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.draw() % limit).unwrap_or(0)
    }

    /// Returns one of the items.
    ///
    /// # Panics
    /// When there are none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
