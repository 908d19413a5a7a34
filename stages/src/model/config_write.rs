//! How each architecture's `config.json` spells a shape, for transformers 4 and 5.
//! Knows nothing of how files are read.

use serde_json::{Value, json};

use super::config::{Activation, Family, ModelConfig, Positions, Rope, RopeScaling};
use super::rope_json;

/// The keys of `config` that depend on its architecture.
pub fn keys(config: &ModelConfig) -> Value {
    let c = config;
    let mut out = match c.family {
        Family::Gpt2 => return gpt2(c),
        Family::GptNeox => gpt_neox(c),
        _ => llama(c),
    };
    merge(&mut out, rope(c));
    let own = match c.family {
        Family::Llama => json!({
            "attention_bias": c.biases.qkv,
            "head_dim": c.head_dim,
            "mlp_bias": c.biases.mlp,
            "pretraining_tp": 1,
        }),
        Family::Mistral => json!({ "head_dim": c.head_dim, "sliding_window": c.window }),
        Family::Qwen2 => window_by_switch(c),
        Family::Qwen3 => with(
            window_by_switch(c),
            json!({ "attention_bias": c.biases.qkv, "head_dim": c.head_dim }),
        ),
        Family::Gemma2 => with(
            gemma(c),
            json!({
                "attn_logit_softcapping": c.attention_cap,
                "final_logit_softcapping": c.logit_cap,
            }),
        ),
        Family::Gemma3 => with(
            gemma(c),
            json!({ "attn_logit_softcapping": null, "final_logit_softcapping": c.logit_cap }),
        ),
        Family::Phi3 => {
            let own = json!({ "embd_pdrop": 0.0, "resid_pdrop": 0.0, "sliding_window": c.window });
            // Here the key stands beside the rotary ones.
            match &c.positions {
                Positions::Rotary(Rope {
                    scaling: RopeScaling::LongRope { original_context, .. },
                    ..
                }) => with(own, json!({ "original_max_position_embeddings": original_context })),
                _ => own,
            }
        }
        Family::Olmo2 => json!({ "attention_bias": c.biases.qkv }),
        Family::SmolLm3 => with(
            window_by_switch(c),
            json!({
                "attention_bias": c.biases.qkv,
                "mlp_bias": c.biases.mlp,
                "no_rope_layers": (0..c.layers as usize)
                    .map(|i| i64::from(!c.layer_kind(i).unrotated))
                    .collect::<Vec<_>>(),
            }),
        ),
        Family::StableLm => json!({
            "hidden_dropout": 0.0,
            "layer_norm_eps": c.norm_eps,
            "qk_layernorm": false,
            "use_parallel_residual": false,
            "use_qkv_bias": c.biases.qkv,
        }),
        Family::Granite => json!({
            "attention_bias": c.biases.qkv,
            "attention_multiplier": c.attention_scale,
            "embedding_multiplier": c.embed_scale,
            "logits_scaling": c.logit_divisor,
            "mlp_bias": c.biases.mlp,
            "residual_multiplier": c.residual_scale,
        }),
        Family::GptNeox | Family::Gpt2 => json!({}),
    };
    with(out, own)
}

/// What Llama and those that came from it have in common.
fn llama(c: &ModelConfig) -> Value {
    let mut out = json!({
        "attention_dropout": 0.0,
        "hidden_act": activation_name(c),
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "max_position_embeddings": c.context,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
    });
    if c.family != Family::StableLm {
        out["rms_norm_eps"] = json!(c.norm_eps);
    }
    // Architectures without the key read it where it is no quotient of the others.
    if c.head_dim * c.heads != c.hidden {
        out["head_dim"] = json!(c.head_dim);
    }
    out
}

fn gemma(c: &ModelConfig) -> Value {
    let scale = c.attention_scale.unwrap_or(1.0).powi(-2);
    // A power of a root: the whole number that it was.
    let whole = (scale.round() - scale).abs() < 1e-6 * scale;
    json!({
        "attention_bias": c.biases.qkv,
        "head_dim": c.head_dim,
        "hidden_activation": activation_name(c),
        "layer_types": layer_types(c),
        "query_pre_attn_scalar": if whole { json!(scale.round() as i64) } else { json!(scale) },
        "sliding_window": c.window,
    })
}

fn window_by_switch(c: &ModelConfig) -> Value {
    let first = (0..c.layers as usize).find(|i| c.layer_kind(*i).windowed);
    json!({
        "layer_types": layer_types(c),
        "max_window_layers": first.map_or(c.layers, |i| i as i64),
        "sliding_window": c.window,
        "use_sliding_window": c.window.is_some(),
    })
}

fn layer_types(c: &ModelConfig) -> Vec<&'static str> {
    let windowed = (0..c.layers as usize).map(|i| c.layer_kind(i).windowed);
    windowed.map(|w| if w { "sliding_attention" } else { "full_attention" }).collect()
}

fn gpt2(c: &ModelConfig) -> Value {
    json!({
        "activation_function": activation_name(c),
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "layer_norm_epsilon": c.norm_eps,
        "n_ctx": c.context,
        "n_embd": c.hidden,
        "n_head": c.heads,
        "n_inner": if c.intermediate == 4 * c.hidden { Value::Null } else { json!(c.intermediate) },
        "n_layer": c.layers,
        "n_positions": c.context,
        "reorder_and_upcast_attn": false,
        "resid_pdrop": 0.0,
        "scale_attn_by_inverse_layer_idx": false,
        "scale_attn_weights": true,
    })
}

fn gpt_neox(c: &ModelConfig) -> Value {
    let mut out = json!({
        "attention_bias": c.biases.qkv,
        "attention_dropout": 0.0,
        "hidden_act": activation_name(c),
        "hidden_dropout": 0.0,
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "layer_norm_eps": c.norm_eps,
        "max_position_embeddings": c.context,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "use_parallel_residual": c.parallel,
    });
    if let Positions::Rotary(rope) = &c.positions {
        out["rotary_emb_base"] = json!(rope.theta);
        out["rotary_pct"] = json!(rope.fraction);
    }
    out
}

/// The rotary keys, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) and of 5
/// (`rope_parameters`).
fn rope(c: &ModelConfig) -> Value {
    let Positions::Rotary(rope) = &c.positions else { return json!({}) };
    let partial = matches!(c.family, Family::GptNeox | Family::StableLm | Family::Phi3);
    let parameters = rope_json::parameters(rope, partial);
    let scaled = parameters["rope_type"] != "default";
    let scaling = if scaled { parameters.clone() } else { Value::Null };
    let mut out = json!({
        "rope_parameters": parameters,
        "rope_scaling": scaling,
        "rope_theta": rope.theta,
    });
    if let Some(local) = &c.window_rope {
        out["rope_parameters"] = json!({
            "full_attention": out["rope_parameters"],
            "sliding_attention": rope_json::parameters(local, false),
        });
        out["rope_local_base_freq"] = json!(local.theta);
    }
    if partial && c.family != Family::GptNeox {
        out["partial_rotary_factor"] = json!(rope.fraction);
    }
    out
}

fn activation_name(c: &ModelConfig) -> &'static str {
    match c.activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh if matches!(c.family, Family::Gemma2 | Family::Gemma3) => {
            "gelu_pytorch_tanh"
        }
        Activation::GeluTanh => "gelu_new",
    }
}

fn with(mut into: Value, from: Value) -> Value {
    merge(&mut into, from);
    into
}

/// Adds the keys of one object to another.
pub fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
