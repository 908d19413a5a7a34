//! Ports of the kinds that improve a policy on its own responses.
//! Knows nothing of what comes through them.

use preflow::protocol::{InputDoc, OutputDoc};

use crate::kind::{input, many, optional, output};

/// Input ports of kinds that improve a policy on its own responses; `reward` says what port
/// `reward` is for.
pub fn inputs(reward: &str) -> Vec<InputDoc> {
    let further = "reward models that rewards.named names: `{ name: polite, model: STAGE }`";
    let prompts = &["dataset/prompt", "dataset/prompt_completion"];
    vec![
        input("policy", &["model/policy"], "the policy to start from and to stay near"),
        optional("reward", &["model/reward"], reward),
        InputDoc { optional: true, ..many("reward_models", &["model/reward"], further) },
        input("prompts", prompts, "what the policy answers; rules and commands see all columns"),
        InputDoc {
            optional: true,
            ..many("files", &["*"], "what rewards.command reads, as $IN_name")
        },
    ]
}

/// Output ports of kinds that improve a policy on its own responses.
pub fn outputs() -> Vec<OutputDoc> {
    vec![
        output("model", "model/policy", "", "the improved policy"),
        output("metrics", "dataset/metrics", "parquet", "reward, KL and health by update"),
        output("samples", "dataset/samples", "parquet", "answers to a few prompts by update"),
    ]
}
