//! What the loops begin with: the policy and its prompts out of the ports, and whether there is
//! memory to train it. Knows nothing of the loops.

use anyhow::Result;

use super::actor::Environment;
use super::settings::OnPolicy;
use super::sources::RewardSources;
use super::trainer::HELD_OUT;
use crate::context::Context;
use crate::data::Vocabulary;
use crate::kind::Summary;
use crate::model::{BatchShape, Policy, ValueModel, drawing, forecast};
use crate::prompts::Prompts;
use crate::sampling;
use crate::training;

/// The policy of port `policy`, with its adapters if it is to have any, and its tokenizer.
///
/// # Errors
/// When the folder cannot be used.
pub fn open_policy(cx: &mut Context, settings: &OnPolicy) -> Result<(Policy, Vocabulary)> {
    let folder = cx.path("policy")?.to_owned();
    let vocabulary = cx.vocabulary(&folder)?;
    let mut policy = Policy::open(&folder)?.to(cx.device());
    policy.draw_only_known(&vocabulary);
    policy.trunk.compute = settings.compute.resolve(cx)?;
    policy.trunk.adapt(&settings.lora, settings.seed);
    Ok((policy, vocabulary))
}

/// The prompts of port `prompts`, as rows and tokens.
///
/// # Errors
/// When there are none, or no room is left for them.
pub fn read_prompts(
    cx: &mut Context,
    settings: &OnPolicy,
    vocabulary: &Vocabulary,
    policy: &Policy,
) -> Result<Prompts> {
    let table = cx.table("prompts")?;
    let room = settings.max_tokens as usize;
    Prompts::new(cx, vocabulary, policy, table, room, settings.too_long)
}

/// Says what training takes, and refuses what does not fit: the policy in training, the critic too
/// where there is one, and beside them models of `frozen` weights.
///
/// # Errors
/// When there is not enough memory.
pub fn check_memory(
    cx: &mut Context,
    settings: &OnPolicy,
    policy: &Policy,
    critic: Option<&ValueModel>,
    frozen: i64,
    prompts: &Prompts,
) -> Result<()> {
    let rows = settings.compute.rows(settings.minibatch as usize) as u64;
    let longest = prompts.tokens.iter().map(Vec::len).max().unwrap_or(0) as u64;
    let answer = u64::from(settings.max_tokens);
    let shape =
        BatchShape { rows, time: longest + answer, predicted: rows * answer, packed: false };
    let trunk = &policy.trunk;
    let adapter = trunk.adapter_size();
    let mut need = forecast(&trunk.config, &trunk.compute, adapter, shape, Some(shape));
    // With adapters the reference is the policy's own frozen weights.
    let reference = if settings.lora.rank > 0 { 0 } else { trunk.params.numel() };
    let best = if settings.keep_best { trunk.trainable().numel() } else { 0 };
    need.weights += 4 * (reference + best + frozen) as u64;
    if let Some(critic) = critic {
        // It predicts no tokens; its steps are made in turn with those of the policy.
        let values = BatchShape { predicted: 0, ..shape };
        let own = forecast(&critic.trunk.config, &critic.trunk.compute, 0, values, Some(values));
        need.weights += own.weights;
        need.moments += own.moments;
        let step = (need.gradient + need.activations).max(own.gradient + own.activations);
        need.gradient = need.gradient.max(own.gradient);
        need.activations = step - need.gradient;
    }
    // Answers are drawn between the steps: moments are there, activations are gone.
    let held_out =
        if settings.eval_fraction > 0.0 { HELD_OUT.min(prompts.tokens.len()) } else { 0 };
    let drawn = (settings.batch as usize).max(held_out).min(sampling::BATCH) as u64;
    let adapted = settings.lora.rank > 0;
    let drawing = drawing(&trunk.config, &trunk.compute, adapted, drawn, longest + answer);
    training::check_memory(cx, need.at_least(drawing).merged(&settings.lora, &trunk.config))
}

/// Opens what a loop without a critic needs, and hands it to `optimize`.
///
/// # Errors
/// When something cannot be opened, and those of `optimize`.
pub fn improve(
    cx: &mut Context,
    settings: &OnPolicy,
    optimize: impl FnOnce(&mut Context, &Policy, Environment) -> Result<Summary>,
) -> Result<Summary> {
    settings.check()?;
    let (policy, vocabulary) = open_policy(cx, settings)?;
    let prompts = read_prompts(cx, settings, &vocabulary, &policy)?;
    let mut scorer = RewardSources::open(cx, &settings.rewards, &vocabulary)?;
    check_memory(cx, settings, &policy, None, scorer.weights(), &prompts)?;
    let (vocabulary, prompts) = (&vocabulary, &prompts);
    optimize(cx, &policy, Environment { vocabulary, prompts, scorer: &mut scorer })
}
