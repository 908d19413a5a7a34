//! The list of kinds. Each file holds one, its loop written out in full.
//! Knows nothing of how tasks reach them.

mod collect_labels;
mod command;
mod compute;
mod evaluate;
mod evaluate_measures;
mod export;
mod import_model;
pub mod ppo;
mod ppo_report;
mod prepare;
mod pretrain;
mod sample_pairs;
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
    Kind::of::<train_reward::TrainReward>(),
    Kind::of::<ppo::Ppo>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<export::Export>(),
    Kind::of::<command::Command>(),
];
