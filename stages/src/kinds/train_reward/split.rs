//! The comparisons of `train_reward`: which are learned from, and which it is measured on.
//! Knows nothing of losses.

use std::collections::BTreeSet;

use anyhow::Result;

use super::fit::Pair;
use super::params::Ties;
use super::params::TrainReward;
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Examples, Room, Table, Vocabulary, part_of_prompt};
use crate::training::preferences;

/// Pairs to train on and held-out pairs, with the tables that they come from.
pub(super) struct Split {
    pub train: Vec<Pair>,
    pub held_out: Vec<Pair>,
    /// The tables that the rows of `train` and `held_out` count in.
    pub labels: Table,
    pub eval: Table,
}

impl TrainReward {
    /// Checks that some labels are held out, or connected for it (`given`).
    pub(super) fn check_held_out(&self, given: bool) -> Result<()> {
        if !given && self.eval_fraction == 0.0 {
            let help = "for example eval_fraction: 10%, or connect `eval_labels`";
            return Err(error_with_help("no label is left to measure accuracy on", help));
        }
        Ok(())
    }

    /// Pairs to train on and held out; the prompts of the two are disjoint.
    pub(super) fn split(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        context: usize,
    ) -> Result<Split> {
        let labels = cx.table("labels")?;
        let room = Room { too_long: self.too_long, ..Room::new(context) };
        let mut all = pairs(cx, vocabulary, room, &labels)?;
        if all.iter().all(Pair::is_tie) {
            let help = "collect more labels, or check what the labeler looks at";
            let message = format!("all {} labels are ties: there is nothing to learn", all.len());
            return Err(error_with_help(message, help));
        }
        if self.ties == Ties::Drop {
            all.retain(|p| !p.is_tie());
        }
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let eval = if cx.inputs("eval_labels").is_empty() {
            let prompts = labels.keys("prompt")?;
            for pair in all {
                let prompt = &prompts[pair.labelled.row];
                let out = part_of_prompt(prompt, "reward", self.eval_fraction);
                if out { &mut held_out } else { &mut train }.push(pair);
            }
            labels.clone()
        } else {
            let eval = cx.table("eval_labels")?;
            held_out = pairs(cx, vocabulary, room, &eval)?;
            train = all;
            eval
        };
        if train.iter().all(Pair::is_tie) || held_out.iter().all(Pair::is_tie) {
            let message = format!(
                "{} pairs to train on and {} to measure accuracy on are not enough",
                train.len(),
                held_out.len()
            );
            return Err(error_with_help(
                message,
                "collect labels on more prompts, or raise eval_fraction",
            ));
        }
        let split = Split { train, held_out, labels, eval };
        self.check_disjoint(&split)?;
        Ok(split)
    }

    /// Refuses prompts on both sides: accuracy on them would measure memory.
    fn check_disjoint(&self, split: &Split) -> Result<()> {
        let (train, eval) = (split.labels.keys("prompt")?, split.eval.keys("prompt")?);
        let seen: BTreeSet<&str> = split.train.iter().map(|p| &*train[p.labelled.row]).collect();
        let asked: BTreeSet<&str> = split.held_out.iter().map(|p| &*eval[p.labelled.row]).collect();
        let both: Vec<&&str> = seen.intersection(&asked).collect();
        match both.first() {
            Some(example) if !self.allow_overlap => Err(error_with_help(
                format!(
                    "{} of the {} prompts to measure accuracy on are trained on too, among them \
                     {example:?}",
                    both.len(),
                    asked.len()
                ),
                "take them out of one of the two, or set allow_overlap: true and do not trust the \
                 accuracy",
            )),
            _ => Ok(()),
        }
    }
}

impl Split {
    /// Prompt and both answers of each training pair.
    pub(super) fn texts(&self) -> Result<Vec<[String; 3]>> {
        let (prompts, chosen, rejected) = (
            self.labels.keys("prompt")?,
            self.labels.keys("chosen")?,
            self.labels.keys("rejected")?,
        );
        let rows = self.train.iter().map(|p| p.labelled.row);
        let texts = |row: usize| [&prompts, &chosen, &rejected].map(|column| column[row].clone());
        Ok(rows.map(texts).collect())
    }
}

/// The labels as tokens; pairs of equal answers are left out.
pub(super) fn pairs(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    room: Room,
    labels: &Table,
) -> Result<Vec<Pair>> {
    let strengths = labels.floats("strength", 1.0)?;
    let all = preferences(cx, vocabulary, room, labels)?;
    let before = all.len();
    let kept: Vec<Pair> = all
        .into_iter()
        .filter(|p| p.chosen != p.rejected)
        .map(|p| Pair { strength: if p.tie { 0.0 } else { strengths[p.row] }, labelled: p })
        .collect();
    let equal = before - kept.len();
    cx.warn_if((equal > 0).then(|| format!("{equal} pairs of two equal answers were left out")))?;
    if kept.is_empty() {
        let help = "sample answers at a higher temperature, so that there is something to compare";
        return Err(error_with_help(format!("all {before} labels compare equal answers"), help));
    }
    Ok(kept)
}

/// The answers of `references` as tokens.
pub(super) fn references(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    context: usize,
) -> Result<Option<Examples>> {
    if cx.inputs("references").is_empty() {
        return Ok(None);
    }
    let table = cx.table("references")?;
    let (prompts, answers) = (table.prompts()?, table.contents("completion")?);
    let finished = table.bools("finished", true)?;
    let rows = (0..table.rows()).map(|i| (&prompts[i], &answers[i], finished[i]));
    let examples = Examples::new(vocabulary, Room::new(context), rows)?;
    cx.warn_if(examples.warning(context))?;
    Ok(Some(examples))
}
