//! Random streams that are functions of their key, so nothing needs saving to resume.
//! Knows nothing of tensors, files or stages.

/// A stream of random numbers, fixed by `(seed, purpose, step, row)`.
///
/// Two streams with different keys are unrelated, so what one row draws depends neither on the
/// other rows of its batch nor on how many there are.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

/// Golden-ratio increment of SplitMix64 (Steele, Lea, Flood 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Finaliser of SplitMix64: a bijection on 64 bits that spreads every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64-bit hash of bytes (FNV-1a, finalised): equal on every machine and in every version.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for b in bytes {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(h)
}

impl Stream {
    /// The stream for one purpose (`"init"`, `"shuffle"`, `"sample"`), step and row.
    pub fn new(seed: u64, purpose: &str, step: u64, row: u64) -> Self {
        let mut state = mix(seed.wrapping_add(GAMMA));
        for part in [hash(purpose.bytes()), step, row] {
            state = mix(state.wrapping_add(GAMMA) ^ mix(part.wrapping_add(GAMMA)));
        }
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`; the bias is below `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of `items`, each as likely as the other.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `0..n` in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_give_equal_streams_and_others_do_not() {
        let draw = |seed, purpose, step, row| Stream::new(seed, purpose, step, row).next_u64();
        assert_eq!(draw(1, "a", 2, 3), draw(1, "a", 2, 3));
        let all = [
            draw(1, "a", 2, 3),
            draw(2, "a", 2, 3),
            draw(1, "b", 2, 3),
            draw(1, "a", 3, 2),
            draw(1, "a", 2, 4),
            draw(0, "a", 0, 0),
        ];
        for (i, x) in all.iter().enumerate() {
            assert!(!all[i + 1..].contains(x), "streams {i} and a later one coincide");
        }
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        let mut stream = Stream::new(7, "test", 0, 0);
        let n = 100_000;
        let (mut mean, mut square, mut middle) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = stream.normal();
            mean += x / f64::from(n);
            square += x * x / f64::from(n);
            middle += stream.uniform() / f64::from(n);
        }
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0).abs() < 0.03, "{square}");
        assert!((middle - 0.5).abs() < 0.005, "{middle}");
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::new(1, "shuffle", 0, 0).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
