//! `train_reward`: preferences become a scalar reward.
//! Knows nothing of where the preferences come from.
//!
//! The model is a copy of the base with its output layer replaced by one number, read at the last
//! token of the answer. The loss is that of Bradley and Terry; ties enter it as asked.

mod fit;
mod params;
mod report;
mod split;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};

use crate::context::Context;
use crate::data::{Column, Examples, Room, Table, Vocabulary, check_labels, part_of_prompt};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::model::{BatchShape, Policy, RewardModel, forecast};
use crate::preflight::{Lesson, Preflight};
use crate::stats::{correlation, mean, std};
use crate::training::{check_memory, sample, too_few};
use fit::{
    Fit, Fitted, Pair, deltas, fit_all, mean_loss, rewards, rewards_of_pairs, scale_head, sides,
};
use params::Ties;
pub use params::TrainReward;
use report::{accuracy, calibration, ceiling, clear, disagreement, spread};
use split::{Split, pairs, references};

/// Shares of the labels at which the learning curve is measured, besides all of them.
const CURVE: [f64; 3] = [0.25, 0.5, 0.75];

/// Pairs of one forward pass outside training.
const LOOK: usize = 64;

impl Stage for TrainReward {
    const NAME: &'static str = "train_reward";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "learn a scalar reward from preferences";
    const FIGURES: &'static [&'static str] = &[
        "train/*",
        "eval/accuracy*",
        "eval/agreement",
        "eval/ceiling",
        "eval/disagreement",
        "eval/ece",
        "eval/loss",
        "eval/pairs",
        "curve/*",
        "reward/*",
    ];
    const LIVE: &'static [&'static str] = &["eval/accuracy", "train/loss"];

    fn inputs() -> Vec<InputDoc> {
        vec![
            input(
                "base",
                &["model/policy"],
                "the model to start from, usually the one that was sampled",
            ),
            input("labels", &["dataset/labels"], "the preferences"),
            optional("eval_labels", &["dataset/labels"], "preferences to measure accuracy on"),
            optional(
                "references",
                &["dataset/prompt_completion"],
                "answers that shall have mean reward 0, usually the demonstrations",
            ),
            optional(
                "pool",
                &["dataset/pairs"],
                "pairs without a label, to be sorted by how much the members disagree",
            ),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("reward", "model/reward", "", "a model with one scalar output"),
            output("metrics", "dataset/metrics", "parquet", "losses and accuracy by step"),
            output("calibration", "dataset/calibration", "parquet", "confidence against accuracy"),
            output(
                "disagreement",
                "dataset/disagreement",
                "parquet",
                "pairs on which the members of an ensemble disagree, the most first: of `pool`, \
                 or else the held-out ones; no rows for a single model",
            ),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("lora", self.check_lora());
        look.usual_rate("base", "lr", self.lr, self.lora.rank > 0, Lesson::Scores);
        for port in ["labels", "eval_labels"] {
            look.rows_of(port, check_labels);
        }
        look.tell("eval_fraction", self.check_held_out(!look.inputs("eval_labels").is_empty()));
    }

    fn run(mut self, cx: &mut Context) -> Result<Summary> {
        self.check_lora()?;
        let folder = cx.path("base")?.to_owned();
        let mut policy = Policy::open(&folder)?.to(cx.device());
        policy.trunk.compute = self.compute.resolve(cx)?;
        let vocabulary = cx.vocabulary(&folder)?;
        let context = policy.trunk.config.context as usize;
        let mut split = self.split(cx, &vocabulary, context)?;
        if self.ties == Ties::Model && !split.train.iter().any(Pair::is_tie) {
            // A threshold that no tie holds in place is no model of ties.
            cx.note("no label is a tie: the loss is that of Bradley and Terry")?;
            self.ties = Ties::Drop;
            split.held_out.retain(|p| !p.is_tie());
        }
        cx.warn_if(too_few(split.held_out.len(), "pairs"))?;
        self.check_memory(cx, &policy, &split.train)?;
        let references = references(cx, &vocabulary, context)?;
        let fits = self.fits(cx, &split)?;
        let data = (split.train.as_slice(), split.held_out.as_slice());
        let (fitted, mut models) = fit_all(cx, &self, &policy, &fits, data)?;
        let members: Vec<&Fitted> =
            fits.iter().zip(&fitted).filter(|(f, _)| !f.only_measured).map(|(_, d)| d).collect();
        self.learning(cx, &fits, &fitted, &members, &split)?;
        let steps = members[0].steps;
        let mut summary = self.report(cx, steps, &members, &split)?;
        let extra = self.finish(&mut models, &split, references.as_ref(), &members);
        cx.metric(steps, &extra)?;
        summary.extend(extra.iter().map(|(n, v)| ((*n).to_owned(), *v)));
        self.disagree(cx, &vocabulary, &models, &members, &split)?;
        let folder = cx.output("reward")?;
        models[0].save(&folder, &vocabulary)?;
        for (i, member) in models.iter().enumerate().skip(1) {
            member.save(&folder.join("members").join(i.to_string()), &vocabulary)?;
        }
        cx.complete("reward", None)?;
        cx.write_metrics()?;
        Ok(summary)
    }
}

impl TrainReward {
    /// Tells how much memory a step needs, and refuses one that needs more than is free.
    fn check_memory(&self, cx: &mut Context, policy: &Policy, train: &[Pair]) -> Result<()> {
        let rows = 2 * self.compute.rows(self.batch.max(1) as usize) as u64;
        let sides = train.iter().flat_map(|p| [&p.labelled.chosen, &p.labelled.rejected]);
        let time = sides.map(|e| e.prompt.len() + e.completion.len()).max().unwrap_or(0) as u64;
        // One number is read of each answer, no logits.
        let shape = BatchShape { rows, time, predicted: 0, packed: false };
        let trunk = &policy.trunk;
        let adapter = self.lora.size(&trunk.config);
        let rows = (2 * self.looked_at()).min(2 * train.len()) as u64;
        let seen = Some(BatchShape { rows, ..shape });
        let mut need = forecast(&trunk.config, &trunk.compute, adapter, shape, seen);
        // The base beside the model, the best weights, and the members that are done.
        let (all, members) = (trunk.params.numel() as u64, u64::from(self.members));
        need.weights += 4 * match adapter {
            0 => (1 + members) * all,
            // Members are merged at the end.
            _ => all + members * (all + adapter),
        };
        check_memory(cx, need)
    }

    /// Pairs of one pass outside training.
    fn looked_at(&self) -> usize {
        self.compute.rows(LOOK)
    }

    /// The models to fit: points of the learning curve, then the members.
    fn fits(&self, cx: &mut Context, split: &Split) -> Result<Vec<Fit>> {
        let mut fits = Vec::new();
        let texts = split.texts()?;
        for share in if self.learning_curve { &CURVE[..] } else { &[] } {
            let inside = |i: &usize| {
                let [prompt, chosen, rejected] = &texts[*i];
                // Whatever the label says, and the smaller subset within the larger.
                let (low, high) = (chosen.min(rejected), chosen.max(rejected));
                part_of_prompt(&format!("{prompt}\0{low}\0{high}"), "curve", *share)
            };
            let rows: Vec<usize> = (0..split.train.len()).filter(inside).collect();
            if rows.iter().all(|i| split.train[*i].is_tie()) {
                cx.warn(format!("too few labels for a learning curve at {:.0} %", share * 100.0))?;
                continue;
            }
            let suffix = format!("/labels_{}", rows.len());
            fits.push(Fit { seed: self.seed, rows, only_measured: true, suffix });
        }
        for member in 0..u64::from(self.members.max(1)) {
            let rows = (0..split.train.len()).collect();
            let suffix = if member > 0 { format!("/member_{}", member + 1) } else { String::new() };
            let seed = self.seed.wrapping_add(member);
            fits.push(Fit { seed, rows, only_measured: false, suffix });
        }
        Ok(fits)
    }

    /// Reports the learning curve: held-out accuracy and loss by number of labels, under `curve/`.
    fn learning(
        &self,
        cx: &mut Context,
        fits: &[Fit],
        fitted: &[Fitted],
        members: &[&Fitted],
        split: &Split,
    ) -> Result<()> {
        if !self.learning_curve {
            return Ok(());
        }
        let parts = fits.iter().zip(fitted).filter(|(f, _)| f.only_measured);
        let parts = parts.map(|(f, done)| (f.rows.len(), done));
        for (labels, done) in parts.chain([(split.train.len(), members[0])]) {
            let accuracy = accuracy(&done.deltas, &split.held_out);
            let loss = mean_loss(self, &done.deltas, &split.held_out, done.nu);
            let values = [
                ("curve/accuracy", accuracy.value),
                ("curve/accuracy_low", accuracy.low),
                ("curve/accuracy_high", accuracy.high),
                ("curve/loss", loss),
            ];
            cx.metric(labels as u64, &values)?;
        }
        Ok(())
    }

    /// Reports accuracy, calibration and ceiling on the held-out pairs, of the mean of the members.
    fn report(
        &self,
        cx: &mut Context,
        step: u64,
        members: &[&Fitted],
        split: &Split,
    ) -> Result<Summary> {
        let held_out = &split.held_out;
        let deltas = mean_of(members);
        let nu = mean(&members.iter().map(|m| m.nu).collect::<Vec<_>>());
        let clear = clear(&deltas, held_out);
        let estimate = accuracy(&deltas, held_out);
        let (table, ece) = calibration(&clear)?;
        cx.write_table("calibration", &table)?;
        let mut values = vec![
            ("eval/loss", mean_loss(self, &deltas, held_out, nu)),
            ("eval/accuracy", estimate.value),
            ("eval/accuracy_low", estimate.low),
            ("eval/accuracy_high", estimate.high),
            ("eval/ece", ece),
            ("eval/pairs", clear.len() as f64),
            ("reward/tie_threshold", nu),
        ];
        let rows: Vec<usize> =
            held_out.iter().filter(|p| !p.is_tie()).map(|p| p.labelled.row).collect();
        values.extend(ceiling(&split.eval, &rows)?);
        if members.len() > 1 {
            values.push(("eval/accuracy_first", accuracy(&members[0].deltas, held_out).value));
        }
        cx.metric(step, &values)?;
        Ok(values.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
    }

    /// Centres and scales the rewards of the members. Returns metrics of the rewards as they were
    /// before scaling.
    fn finish(
        &self,
        models: &mut [RewardModel],
        split: &Split,
        references: Option<&Examples>,
        members: &[&Fitted],
    ) -> Vec<(&'static str, f64)> {
        let seen: Vec<&Pair> = match self.scale {
            true => split.train.iter().collect(),
            false => {
                let again = sample(split.train.len(), self.epochs);
                again.into_iter().map(|i| &split.train[i]).collect()
            }
        };
        let answers = sides(seen.iter().copied());
        let held_out: Vec<&Pair> = split.held_out.iter().collect();
        let mut all = vec![0.0; answers.len()];
        let mut of_held_out = Vec::new();
        let n = models.len() as f64;
        let mut scales = Vec::new();
        for model in models.iter_mut() {
            let own = rewards_of_pairs(model, &seen, self.looked_at());
            if self.center {
                let zero = references.map_or_else(
                    || mean(&own),
                    |r| mean(&rewards(model, &r.rows.iter().collect::<Vec<_>>(), self.looked_at())),
                );
                model.shift(-zero);
            }
            all.iter_mut().zip(&own).for_each(|(sum, r)| *sum += r / n);
            if members.len() > 1 {
                of_held_out.push(rewards_of_pairs(model, &held_out, self.looked_at()));
            }
            if self.scale && std(&own) > 1e-9 {
                let factor = 1.0 / std(&own);
                scale_head(model, factor);
                scales.push(factor);
            }
        }
        let lengths: Vec<f64> = answers.iter().map(|a| a.completion.len() as f64).collect();
        let mut out = vec![
            ("reward/std", std(&all)),
            ("reward/corr_with_length", correlation(&all, &lengths)),
        ];
        if !scales.is_empty() {
            out.push(("reward/scale", mean(&scales)));
        }
        if members.len() > 1 {
            let spreads: Vec<f64> = (0..2 * held_out.len())
                .map(|i| spread(&of_held_out.iter().map(|r| r[i]).collect::<Vec<_>>()))
                .collect();
            out.push(("eval/disagreement", mean(&spreads)));
        }
        out
    }

    /// Writes output `disagreement`: pairs on which the members disagree.
    fn disagree(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        models: &[RewardModel],
        members: &[&Fitted],
        split: &Split,
    ) -> Result<()> {
        let table = if cx.inputs("pool").is_empty() {
            let (prompts, chosen, rejected) = (
                split.eval.keys("prompt")?,
                split.eval.keys("chosen")?,
                split.eval.keys("rejected")?,
            );
            let rows = split.held_out.iter().map(|p| p.labelled.row);
            let texts: Vec<[&str; 3]> =
                rows.map(|row| [&*prompts[row], &*chosen[row], &*rejected[row]]).collect();
            let said: Vec<Vec<f64>> = members.iter().map(|m| m.deltas.clone()).collect();
            disagreement(&texts, &said)?
        } else {
            let pool = cx.table("pool")?;
            let (prompts, a, b) =
                (pool.keys("prompt")?, pool.keys("response_a")?, pool.keys("response_b")?);
            let as_labels = Table::new(vec![
                ("prompt", pool.require("prompt")?.clone()),
                ("chosen", pool.require("response_a")?.clone()),
                ("rejected", pool.require("response_b")?.clone()),
                ("finished_a", Column::bools(pool.bools("finished_a", true)?)),
                ("finished_b", Column::bools(pool.bools("finished_b", true)?)),
            ])?;
            let context = models[0].trunk.config.context as usize;
            let pairs = pairs(cx, vocabulary, Room::new(context), &as_labels)?;
            let rows = pairs.iter().map(|p| p.labelled.row);
            let texts: Vec<[&str; 3]> =
                rows.map(|row| [&*prompts[row], &*a[row], &*b[row]]).collect();
            let said: Vec<Vec<f64>> =
                models.iter().map(|m| deltas(m, &pairs, self.looked_at())).collect();
            disagreement(&texts, &said)?
        };
        cx.write_table("disagreement", &table)
    }
}

/// Mean over the members of the Δ of each held-out pair.
fn mean_of(members: &[&Fitted]) -> Vec<f64> {
    let pairs = 0..members[0].deltas.len();
    pairs.map(|i| mean(&members.iter().map(|m| m.deltas[i]).collect::<Vec<_>>())).collect()
}
