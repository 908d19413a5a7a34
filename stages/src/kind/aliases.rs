//! What others call our params: TRL's and transformers' names, one table for all kinds.
//! Knows nothing of what any param does.

use serde_json::{Map, Value, json};

/// Kinds that go through rows of their own.
const ROWS: &[&str] = &["sft", "dpo", "kto", "train_reward"];
/// Kinds that learn from responses which the policy draws.
const DRAWS: &[&str] = &["ppo", "rloo", "grpo", "reinforce", "online_dpo"];
const ALL: &[&str] = &[];

/// How a value of theirs becomes ours.
enum How {
    Same,
    /// Times the value of another field of theirs, where that stands beside it.
    Times(&'static str),
    Negative,
    /// Not by itself: this helps.
    Note(&'static str),
}

use How::{Negative, Note, Same, Times};

/// Their name, ours (in `train` where a kind has it there), kinds, and how values turn.
type Alias = (&'static str, &'static str, &'static [&'static str], How);

const UPDATES: &str = "updates counts draws: epochs over the prompts times prompts times \
                       num_generations, divided by batch";

const LENGTH: &str = "rows that do not fit the model's context are dropped or cut, as too_long \
                      says; `context` of import_model makes it shorter";

const ALIASES: &[Alias] = &[
    ("learning_rate", "lr", ALL, Same),
    ("lr_scheduler_type", "schedule", ALL, Same),
    ("warmup_ratio", "warmup", ALL, Same),
    ("warmup_steps", "warmup", ALL, Note("warmup is a share of the steps: 5% is usual")),
    ("num_train_epochs", "epochs", ROWS, Same),
    ("num_train_epochs", "updates", DRAWS, Note(UPDATES)),
    ("num_epochs", "epochs", ROWS, Same),
    ("num_epochs", "updates", DRAWS, Note(UPDATES)),
    ("batch_size", "batch", ALL, Same),
    ("max_length", "too_long", ROWS, Note(LENGTH)),
    ("max_seq_length", "too_long", ROWS, Note(LENGTH)),
    ("init_kl_coef", "kl_coef", DRAWS, Same),
    ("max_steps", "updates", DRAWS, Same),
    ("max_steps", "epochs", ROWS, Note("training is counted in epochs: steps times batch / rows")),
    ("per_device_train_batch_size", "batch", ALL, Times("gradient_accumulation_steps")),
    ("gradient_accumulation_steps", "batch", ALL, Times("per_device_train_batch_size")),
    ("num_iterations", "epochs", DRAWS, Same),
    ("num_ppo_epochs", "epochs", DRAWS, Same),
    ("weight_decay", "optimizer.weight_decay", ALL, Same),
    ("adam_epsilon", "optimizer.eps", ALL, Same),
    ("adam_beta1", "optimizer.betas", ALL, Note("betas holds both: [adam_beta1, adam_beta2]")),
    ("adam_beta2", "optimizer.betas", ALL, Note("betas holds both: [adam_beta1, adam_beta2]")),
    ("max_grad_norm", "optimizer.grad_clip", ALL, Same),
    ("bf16", "compute.precision", ALL, Same),
    ("gradient_checkpointing", "compute.checkpoint_activations", ALL, Same),
    ("activation_checkpointing", "compute.checkpoint_activations", ALL, Same),
    ("lora_r", "lora.rank", ALL, Same),
    ("r", "lora.rank", ALL, Same),
    ("lora_alpha", "lora.alpha", ALL, Same),
    ("target_modules", "lora.targets", ALL, Same),
    ("lora_target_modules", "lora.targets", ALL, Same),
    ("max_new_tokens", "max_tokens", ALL, Same),
    ("max_completion_length", "max_tokens", ALL, Same),
    ("response_length", "max_tokens", ALL, Same),
    ("beta", "kl_coef", DRAWS, Same),
    ("epsilon", "clip", DRAWS, Same),
    ("epsilon_high", "clip_high", DRAWS, Same),
    ("cliprange", "clip", DRAWS, Same),
    ("cliprange_value", "vf_clip", DRAWS, Same),
    ("delta", "dual_clip", DRAWS, Same),
    ("entropy_coef", "ent_coef", DRAWS, Same),
    ("num_generations", "group", DRAWS, Same),
    ("rloo_k", "group", DRAWS, Same),
    ("missing_eos_penalty", "eos.penalty", DRAWS, Negative),
    ("loss_type", "aggregation", &["ppo", "rloo", "grpo", "reinforce"], Same),
    ("loss_type", "loss", &["dpo", "online_dpo"], Same),
    ("importance_sampling_level", "ratio", DRAWS, Same),
    ("scale_rewards", "scale_by_std", DRAWS, Same),
    ("multi_objective_aggregation", "rewards.combine", DRAWS, Same),
    ("reward_weights", "rewards.named", DRAWS, Note("each entry has a weight of its own")),
    ("rpo_alpha", "sft_coef", &["dpo"], Same),
    ("cpo_alpha", "sft_coef", &["dpo"], Same),
    ("center_rewards_coefficient", "center_coef", &["train_reward"], Same),
    ("num_return_sequences", "n", ALL, Same),
];

/// Words of theirs for words of ours, by param.
fn words() -> [(&'static str, Value); 6] {
    [
        ("schedule", json!({"constant_with_warmup": "constant", "cosine_with_min_lr": "cosine"})),
        (
            "aggregation",
            json!({"grpo": "seq_mean", "bnpo": "token_mean", "dapo": "token_mean",
                   "dr_grpo": "seq_sum_const"}),
        ),
        ("compute.precision", json!({"true": "bf16", "false": "f32", "bfloat16": "bf16"})),
        ("rewards.combine", json!({"sum_then_normalize": "sum"})),
        ("scale_by_std", json!({"group": true, "none": false})),
        (
            "lora.targets",
            json!({"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o",
                   "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}),
        ),
    ]
}

/// Writes the names and words of others into the schema of `kind`, at the params that they stand
/// for: `x-alias` and `x-words`.
pub fn annotate(kind: &str, schema: &mut Value) {
    for (theirs, ours, kinds, how) in ALIASES {
        if !kinds.is_empty() && !kinds.contains(&kind) {
            continue;
        }
        let Some(property) = property(schema, ours) else { continue };
        let mut alias = Map::from_iter([("name".to_owned(), json!(theirs))]);
        match how {
            Same => None,
            Times(other) => alias.insert("times".to_owned(), json!(other)),
            Negative => alias.insert("negative".to_owned(), json!(true)),
            Note(text) => alias.insert("note".to_owned(), json!(text)),
        };
        let all = property.entry("x-alias").or_insert_with(|| json!([]));
        all.as_array_mut().expect("invariant: made here").push(Value::Object(alias));
    }
    for (ours, words) in words() {
        let Some(property) = property(schema, ours) else { continue };
        match property.get_mut("items").and_then(Value::as_object_mut) {
            Some(items) => items.insert("x-words".to_owned(), words),
            None => property.insert("x-words".to_owned(), words),
        };
    }
}

/// The schema of a param by its dotted path, looked for in `train` too.
fn property<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let pointer = |path: &str| format!("/properties/{}", path.replace('.', "/properties/"));
    let own = pointer(path);
    let place = match schema.pointer(&own) {
        Some(_) => own,
        None => pointer(&format!("train.{path}")),
    };
    schema.pointer_mut(&place)?.as_object_mut()
}
