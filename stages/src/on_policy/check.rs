//! What is known of the shared params before anything runs.
//! Knows nothing of loops.

use anyhow::{Result, bail};

use super::settings::OnPolicy;
use crate::advice::error_with_help;
use crate::kind::check_range;
use crate::preflight::{Lesson, Preflight};

/// Metrics that these kinds may report; `*` stands for anything.
pub const FIGURES: &[&str] = &[
    "objective/*",
    "policy/*",
    "reward/*",
    "tokens/*",
    "val/*",
    "beta",
    "eval/kl",
    "eval/scores",
    "eval/rlhf_reward",
];

impl OnPolicy {
    /// Checks the params that no schema can.
    ///
    /// # Errors
    /// Names the param.
    pub fn check(&self) -> Result<()> {
        check_range("temperature", self.temperature, 1e-6, 100.0)?;
        check_range("eos.penalty", self.eos.penalty, -1e6, 0.0)?;
        check_range("score_clip", self.score_clip, 0.0, f64::MAX)?;
        check_range("clip", self.clip, 0.0, 100.0)?;
        check_range("clip_high", self.clip_high, 0.0, 1e6)?;
        check_range("target_kl", self.target_kl, 0.0, 1e6)?;
        if self.dual_clip != 0.0 {
            check_range("dual_clip (0 turns it off)", self.dual_clip, 1.0, 1e6)?;
        }
        if self.kl_target > 0.0 {
            check_range("kl_horizon", self.kl_horizon, 1.0, f64::MAX)?;
        }
        if self.batch == 0 || self.minibatch == 0 || self.epochs == 0 || self.updates == 0 {
            bail!("updates, batch, minibatch and epochs must be 1 or more");
        }
        if self.keep_best && self.eval_fraction == 0.0 {
            let help = "for example eval_fraction: 10%";
            return Err(error_with_help("keep_best needs held-out prompts to be best on", help));
        }
        self.lora.check()
    }

    /// Before anything runs: reports params, prompts and rewards that cannot work.
    /// `groups`: the kind compares responses within groups.
    pub fn check_ahead(&self, look: &mut Preflight, groups: bool) {
        look.tell("", self.check());
        look.room_to_answer("policy", self.max_tokens.into());
        look.usual_length("policy", self.max_tokens.into());
        let adapters = self.lora.rank > 0;
        look.usual_rate("policy", "lr", self.lr, adapters, Lesson::OwnResponses);
        self.rewards.check(look, groups);
    }

    /// Checks that the responses of an update are whole groups of one size, `least` or more.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_group(&self, group: u32, least: u32) -> Result<()> {
        if group < least || !self.batch.is_multiple_of(group) {
            bail!("batch {} must be a multiple of group {group}, {least} or more", self.batch);
        }
        Ok(())
    }
}
