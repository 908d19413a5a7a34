//! Rows of the training data that are looked at once more when training is done.
//! Knows nothing of what the rows hold.

use super::Order;

/// Most rows of such a look.
const MOST: usize = 512;
/// With fewer a figure would say little.
const LEAST: usize = 64;
/// What the look may cost, as a share of the training. A pass without gradients costs a third of a
/// step with them.
const SHARE: f64 = 0.05 * 3.0;

/// Places of the rows, ascending: always the same ones of as many rows, whatever the seed, so that
/// figures of several runs rest on the same. At most 512, no more than cost a twentieth of
/// `epochs` of training, and 64 where there are as many.
#[must_use]
pub fn sample(rows: usize, epochs: u32) -> Vec<usize> {
    first_of_order(rows, count(rows, epochs))
}

/// How many rows a sample has.
fn count(rows: usize, epochs: u32) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of rows")]
    let affordable = (SHARE * f64::from(epochs) * rows as f64) as usize;
    affordable.clamp(LEAST, MOST).min(rows)
}

/// The first places of a fixed random order, ascending.
fn first_of_order(all: usize, count: usize) -> Vec<usize> {
    let mut order = Order::new(0, "sample", all.max(1));
    let mut places: Vec<usize> = (0..count as u64).map(|i| order.at(i)).collect();
    places.sort_unstable();
    places
}

/// The same of rows that come in batches: places of batches that hold as many rows together.
#[must_use]
pub fn sample_batches(batches: usize, rows: usize, epochs: u32) -> Vec<usize> {
    let wanted = (count(rows, epochs) * batches).div_ceil(rows.max(1));
    first_of_order(batches, wanted.min(batches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_costs_little_and_says_something() {
        let sizes = [(0, 3), (10, 3), (64, 1), (500, 1), (1000, 1), (2000, 3), (100_000, 1)];
        let counts = sizes.map(|(rows, epochs)| sample(rows, epochs).len());
        assert_eq!(counts, [0, 10, 64, 75, 150, 512, 512]);
    }

    #[test]
    fn batches_hold_as_many_rows() {
        let counts = [(0, 0), (4, 64), (100, 3200), (1000, 16_000)];
        let counts = counts.map(|(batches, rows)| sample_batches(batches, rows, 1).len());
        // 512 rows in batches of 32 and 16.
        assert_eq!(counts, [0, 4, 15, 32]);
    }

    #[test]
    fn a_sample_is_fixed_and_has_no_row_twice() {
        let once = sample(1000, 2);
        assert_eq!(once, sample(1000, 2));
        assert!(once.windows(2).all(|pair| pair[0] < pair[1]) && once[once.len() - 1] < 1000);
        // More epochs look at more, the same ones among them.
        let more = sample(1000, 3);
        assert!(once.iter().all(|place| more.binary_search(place).is_ok()));
    }
}
