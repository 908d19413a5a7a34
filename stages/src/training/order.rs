//! The order in which training visits its rows.
//! Knows nothing of what the rows hold.

use crate::rng::Stream;

/// An endless random order of rows: every epoch has all rows once, in a permutation of its own. It
/// is a function of seed and place alone, so a checkpoint needs nothing of it.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    purpose: &'static str,
    rows: usize,
    /// The epoch whose order `permutation` holds.
    epoch: Option<u64>,
    permutation: Vec<usize>,
}

impl Order {
    /// An order over `rows` rows, one or more, named by `(seed, purpose)`.
    pub fn new(seed: u64, purpose: &'static str, rows: usize) -> Self {
        Self { seed, purpose, rows, epoch: None, permutation: Vec::new() }
    }

    /// The rows of step `step`, `size` at most: an epoch's last step has those that are left.
    pub fn batch(&mut self, step: u64, size: usize) -> Vec<usize> {
        let an_epoch = self.rows.div_ceil(size) as u64;
        let (epoch, place) = (step / an_epoch, (step % an_epoch) as usize * size);
        let start = epoch * self.rows as u64;
        (place..(place + size).min(self.rows)).map(|i| self.at(start + i as u64)).collect()
    }

    /// The row at place `i` of the endless list.
    pub fn at(&mut self, i: u64) -> usize {
        let (epoch, place) = (i / self.rows as u64, (i % self.rows as u64) as usize);
        if self.epoch != Some(epoch) {
            self.permutation =
                Stream::new(self.seed, self.purpose, epoch, 0).permutation(self.rows);
            self.epoch = Some(epoch);
        }
        self.permutation[place]
    }
}
