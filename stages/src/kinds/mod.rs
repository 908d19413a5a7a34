//! The list of kinds. Each file holds one, its loop written out in full.
//! Knows nothing of how tasks reach them.

mod best_of_n;
mod collect_labels;
mod command;
pub mod compute;
pub mod course;
pub mod dpo;
mod evaluate;
mod evaluate_curves;
mod evaluate_measures;
mod evaluate_panel;
mod evaluate_people;
mod evaluate_text;
mod export;
pub mod grpo;
mod import_model;
pub mod on_policy;
pub mod on_policy_report;
pub mod ppo;
pub mod preferences;
mod prepare;
mod pretrain;
pub mod reinforce;
mod reward_fit;
mod reward_params;
mod reward_report;
pub mod rewards;
pub mod rloo;
pub mod rollout;
mod sample;
mod sample_pairs;
mod score;
mod sft;
mod tokenizer;
mod train;
mod train_reward;

use crate::kind::Kind;

/// All kinds, in the order of a usual pipeline.
pub const KINDS: &[Kind] = &[
    Kind::of::<prepare::Prepare>(),
    Kind::of::<tokenizer::TrainTokenizer>(),
    Kind::of::<pretrain::Pretrain>(),
    Kind::of::<import_model::ImportModel>(),
    Kind::of::<sft::Sft>(),
    Kind::of::<sample_pairs::SamplePairs>(),
    Kind::of::<collect_labels::CollectLabels>(),
    Kind::of::<reward_params::TrainReward>(),
    Kind::of::<ppo::Ppo>(),
    Kind::of::<rloo::Rloo>(),
    Kind::of::<grpo::Grpo>(),
    Kind::of::<reinforce::Reinforce>(),
    Kind::of::<dpo::Dpo>(),
    Kind::of::<best_of_n::BestOfN>(),
    Kind::of::<sample::Sample>(),
    Kind::of::<score::Score>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<export::Export>(),
    Kind::of::<command::Command>(),
];
