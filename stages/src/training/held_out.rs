//! Figures on held-out rows: those of the epochs, and what may be said of them.
//! Knows nothing of any one kind.

use serde::{Deserialize, Serialize};

/// Fewer held-out rows than this tell nothing: their interval is wider than any gain.
const ENOUGH: usize = 20;

/// A warning where figures rest on `rows` held-out rows, which are too few; of none something else
/// is said.
pub fn too_few(rows: usize, what: &str) -> Option<String> {
    (1..ENOUGH).contains(&rows).then(|| {
        format!(
            "figures on {rows} held-out {what} are on too few to tell anything: {ENOUGH} or more, a \
             larger eval_fraction or more prompts"
        )
    })
}

/// What the held-out rows said at the end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeldOutFigures {
    pub loss: f64,
    pub accuracy: f64,
}

/// Figures of the epochs so far: of the last and of the one with the lowest loss.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct EpochFigures {
    last: Option<HeldOutFigures>,
    best: Option<HeldOutFigures>,
}

impl EpochFigures {
    /// Takes those of one more epoch. True: no epoch before had so low a loss.
    pub fn add(&mut self, now: HeldOutFigures) -> bool {
        self.last = Some(now);
        let is_best = self.best.is_none_or(|best| now.loss < best.loss);
        if is_best {
            self.best = Some(now);
        }
        is_best
    }

    /// Those of the weights that are kept. `None`: no epoch was measured.
    #[must_use]
    pub fn kept(&self, best: bool) -> Option<HeldOutFigures> {
        if best { self.best } else { self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_epoch_and_the_last_are_kept() {
        let mut all = EpochFigures::default();
        assert_eq!(all.kept(true), None);
        let losses = [(0.5, 0.1), (0.3, 0.2), (0.3, 0.3), (0.4, 0.4)];
        let best = losses.map(|(loss, accuracy)| all.add(HeldOutFigures { loss, accuracy }));
        assert_eq!(best, [true, true, false, false]);
        let kept = [true, false].map(|best| all.kept(best).expect("measured").accuracy);
        assert_eq!(kept, [0.2, 0.4]);
    }

    #[test]
    fn few_are_told_and_none_and_enough_are_not() {
        let told = [0, 1, 19, 20].map(|rows| too_few(rows, "pairs").is_some());
        assert_eq!(told, [false, true, true, false]);
    }
}
