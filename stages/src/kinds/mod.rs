//! The list of kinds. Each file, with the folder of its name, holds one kind, its loop in full.
//! Knows nothing of how tasks reach them.

mod best_of_n;
mod collect_labels;
mod command;
pub mod dpo;
mod evaluate;
mod export;
pub mod grpo;
mod import_model;
mod import_reward;
pub mod kto;
mod mix;
pub mod online_dpo;
pub mod ppo;
mod prepare;
mod pretrain;
pub mod reinforce;
pub mod rloo;
mod sample;
mod sample_pairs;
mod score;
mod sft;
mod tokenizer;
mod train_reward;

use crate::kind::Kind;

/// All kinds, in the order of a usual pipeline.
pub const KINDS: &[Kind] = &[
    Kind::of::<prepare::Prepare>(),
    Kind::of::<mix::Mix>(),
    Kind::of::<tokenizer::TrainTokenizer>(),
    Kind::of::<pretrain::Pretrain>(),
    Kind::of::<import_model::ImportModel>(),
    Kind::of::<sft::Sft>(),
    Kind::of::<sample_pairs::SamplePairs>(),
    Kind::of::<collect_labels::CollectLabels>(),
    Kind::of::<train_reward::TrainReward>(),
    Kind::of::<import_reward::ImportReward>(),
    Kind::of::<ppo::Ppo>(),
    Kind::of::<rloo::Rloo>(),
    Kind::of::<grpo::Grpo>(),
    Kind::of::<reinforce::Reinforce>(),
    Kind::of::<online_dpo::OnlineDpo>(),
    Kind::of::<dpo::Dpo>(),
    Kind::of::<kto::Kto>(),
    Kind::of::<best_of_n::BestOfN>(),
    Kind::of::<sample::Sample>(),
    Kind::of::<score::Score>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<export::Export>(),
    Kind::of::<command::Command>(),
];
