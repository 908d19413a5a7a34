//! What the keys of each architecture's `config.json` mean: from a file to a shape.
//! Knows nothing of how shapes are written.

use anyhow::{Context as _, Result, bail};

use super::config::{
    Biases, Family, LayerKind, ModelConfig, Norm, NormPlace, Positions, QkNorm, Rope,
};
use super::config_fields::Fields;
use super::rope_json::{self, Contexts, Spelling, USUAL};

/// Window of Mistral and Gemma where the file does not name one.
const WINDOW: i64 = 4096;

/// The shape of a model of `family`, without its special tokens.
pub fn read(fields: &Fields, family: Family) -> Result<ModelConfig> {
    let base = match family {
        Family::Gpt2 => return gpt2(fields),
        Family::GptNeox => return gpt_neox(fields),
        _ => llama(fields)?,
    };
    let bias = |key: &str| fields.flag_or(key, false);
    let (context, layers) = (base.context, base.layers);
    match family {
        Family::Llama | Family::Gpt2 | Family::GptNeox => {
            let (attention, mlp) = (bias("attention_bias")?, bias("mlp_bias")?);
            let biases = Biases { qkv: attention, o: attention, mlp };
            let positions = whole(fields, USUAL, context)?;
            Ok(ModelConfig { biases, positions, ..base })
        }
        Family::Mistral => {
            without(fields, &["attention_bias", "mlp_bias"])?;
            let window = window(fields, Some(WINDOW))?;
            let positions = whole(fields, USUAL, context)?;
            Ok(ModelConfig { positions, ..windowed(base, window, |_| true) })
        }
        Family::Qwen2 | Family::Qwen3 => {
            without(fields, &["mlp_bias"])?;
            let three = family == Family::Qwen3;
            let attention = three && bias("attention_bias")?;
            let biases = Biases { qkv: attention || !three, o: attention, mlp: false };
            let first = fields.int_or("max_window_layers", 28)?;
            let window = switched_window(fields, Some(WINDOW))?;
            let kinds = layer_types(fields, layers)?;
            let head_dim = if three { fields.int_or("head_dim", 128)? } else { base.head_dim };
            Ok(ModelConfig {
                biases,
                head_dim,
                positions: whole(fields, USUAL, context)?,
                qk_norm: if three { QkNorm::Head } else { QkNorm::None },
                ..of_types(base, window, kinds, |i| i >= first)?
            })
        }
        Family::Gemma2 => {
            let base = gemma(fields, base)?;
            let kinds = layer_types(fields, layers)?;
            Ok(ModelConfig {
                positions: whole(fields, USUAL, context)?,
                attention_cap: cap(fields, "attn_logit_softcapping", Some(50.0))?,
                logit_cap: cap(fields, "final_logit_softcapping", Some(30.0))?,
                ..of_types(base, window(fields, Some(WINDOW))?, kinds, |i| i % 2 == 0)?
            })
        }
        Family::Gemma3 => {
            let base = gemma(fields, base)?;
            fields.none("attn_logit_softcapping")?;
            let named = fields.int_or("_sliding_window_pattern", 6)?;
            let pattern = fields.int_or("sliding_window_pattern", named)?.max(1);
            let (positions, window_rope) = two_ropes(fields, context)?;
            let kinds = layer_types(fields, layers)?;
            Ok(ModelConfig {
                positions,
                window_rope,
                qk_norm: QkNorm::Head,
                logit_cap: cap(fields, "final_logit_softcapping", None)?,
                ..of_types(base, window(fields, Some(WINDOW))?, kinds, |i| (i + 1) % pattern != 0)?
            })
        }
        Family::Phi3 => {
            without(fields, &["attention_bias", "mlp_bias"])?;
            for key in ["full_attn_mod", "interpolate_factor"] {
                if fields.number_or(key, 1.0)? != 1.0 {
                    bail!("`{key}` is {}; only 1 is supported", fields.get(key));
                }
            }
            // Here the key stands beside the rotary ones, and counts if it is left out.
            let original = Some(fields.int_or("original_max_position_embeddings", 4096)?);
            let contexts = Contexts { now: context, original };
            let positions = Positions::Rotary(rope_json::read(fields, USUAL, contexts)?);
            let norm_eps = fields.number_or("rms_norm_eps", 1e-5)?;
            let window = window(fields, None)?;
            Ok(ModelConfig { norm_eps, positions, ..windowed(base, window, |_| true) })
        }
        Family::Olmo2 => {
            without(fields, &["mlp_bias"])?;
            let attention = bias("attention_bias")?;
            Ok(ModelConfig {
                biases: Biases { qkv: attention, o: attention, mlp: false },
                positions: whole(fields, USUAL, context)?,
                norm_eps: fields.number_or("rms_norm_eps", 1e-5)?,
                norm_place: NormPlace::After,
                qk_norm: QkNorm::Width,
                ..base
            })
        }
        Family::SmolLm3 => smollm3(fields, base),
        Family::StableLm => {
            // One shared norm for attention and MLP, and a norm for every head: neither is here.
            fields.only("use_parallel_residual", false)?;
            fields.only("qk_layernorm", false)?;
            without(fields, &["attention_bias", "mlp_bias"])?;
            let spelling = Spelling { fraction: ("partial_rotary_factor", 0.25), ..USUAL };
            let contexts = contexts(fields, context)?;
            Ok(ModelConfig {
                biases: Biases { qkv: bias("use_qkv_bias")?, ..Biases::default() },
                positions: Positions::Rotary(rope_json::read(fields, spelling, contexts)?),
                norm: Norm::Layer,
                norm_eps: fields.number_or("layer_norm_eps", 1e-5)?,
                ..base
            })
        }
        Family::Granite => {
            let (attention, mlp) = (bias("attention_bias")?, bias("mlp_bias")?);
            Ok(ModelConfig {
                biases: Biases { qkv: attention, o: attention, mlp },
                positions: whole(fields, USUAL, context)?,
                embed_scale: fields.number_or("embedding_multiplier", 1.0)?,
                residual_scale: fields.number_or("residual_multiplier", 1.0)?,
                attention_scale: Some(fields.number_or("attention_multiplier", 1.0)?),
                logit_divisor: fields.number_or("logits_scaling", 1.0)?,
                ..base
            })
        }
    }
}

/// What Llama and those that came from it have in common.
fn llama(fields: &Fields) -> Result<ModelConfig> {
    let (hidden, heads) = (fields.int("hidden_size")?, fields.int("num_attention_heads")?);
    Ok(ModelConfig {
        vocab: fields.int("vocab_size")?,
        hidden,
        layers: fields.int("num_hidden_layers")?,
        heads,
        kv_heads: fields.int_or("num_key_value_heads", heads)?,
        head_dim: fields.int_or("head_dim", hidden / heads.max(1))?,
        intermediate: fields.int("intermediate_size")?,
        context: fields.int("max_position_embeddings")?,
        norm_eps: fields.number_or("rms_norm_eps", 1e-6)?,
        activation: fields.activation("hidden_act", "silu")?,
        tie_embeddings: fields.flag_or("tie_word_embeddings", false)?,
        ..ModelConfig::default()
    })
}

/// What both Gemmas have in common.
fn gemma(fields: &Fields, base: ModelConfig) -> Result<ModelConfig> {
    without(fields, &["mlp_bias"])?;
    let attention = fields.flag_or("attention_bias", false)?;
    let scale = fields.number_or("query_pre_attn_scalar", 256.0)?;
    if scale <= 0.0 {
        bail!("`query_pre_attn_scalar` is {scale}, not above 0");
    }
    Ok(ModelConfig {
        head_dim: fields.int_or("head_dim", 256)?,
        activation: fields.activation("hidden_activation", "gelu_pytorch_tanh")?,
        biases: Biases { qkv: attention, o: attention, mlp: false },
        norm_place: NormPlace::Around,
        gain_from_one: true,
        attention_scale: Some(scale.powf(-0.5)),
        embed_scale: (base.hidden as f64).sqrt(),
        tie_embeddings: fields.flag_or("tie_word_embeddings", true)?,
        ..base
    })
}

fn smollm3(fields: &Fields, base: ModelConfig) -> Result<ModelConfig> {
    let layers = base.layers;
    let attention = fields.flag_or("attention_bias", false)?;
    let biases = Biases { qkv: attention, o: attention, mlp: fields.flag_or("mlp_bias", false)? };
    let spelling = Spelling { theta: ("rope_theta", 2_000_000.0), ..USUAL };
    let positions = whole(fields, spelling, base.context)?;
    let interval = fields.int_or("no_rope_layer_interval", 4)?.max(1);
    let unrotated: Vec<bool> = if fields.get("no_rope_layers").is_null() {
        (0..layers).map(|i| (i + 1) % interval == 0).collect()
    } else {
        // In spite of its name a 1 stands for a layer with positions.
        fields.numbers("no_rope_layers")?.iter().map(|x| *x == 0.0).collect()
    };
    if (unrotated.len() as i64) < layers {
        bail!("`no_rope_layers` has {} numbers for {layers} layers", unrotated.len());
    }
    fields.get("max_window_layers");
    let window = switched_window(fields, None)?;
    let kinds = layer_types(fields, layers)?;
    let mut out = of_types(base, window, kinds, |i| unrotated[i as usize])?;
    out.layer_kinds.resize(layers as usize, LayerKind::default());
    for (kind, unrotated) in out.layer_kinds.iter_mut().zip(unrotated) {
        kind.unrotated = unrotated;
    }
    Ok(ModelConfig {
        biases,
        positions,
        tie_embeddings: fields.flag_or("tie_word_embeddings", true)?,
        ..out
    })
}

fn gpt2(fields: &Fields) -> Result<ModelConfig> {
    fields.only("scale_attn_weights", true)?;
    fields.only("scale_attn_by_inverse_layer_idx", false)?;
    let (hidden, heads) = (fields.int("n_embd")?, fields.int("n_head")?);
    Ok(ModelConfig {
        vocab: fields.int("vocab_size")?,
        hidden,
        layers: fields.int("n_layer")?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads.max(1),
        intermediate: fields.int_or("n_inner", 4 * hidden)?,
        context: fields.int("n_positions")?,
        positions: Positions::Learned,
        norm: Norm::Layer,
        norm_eps: fields.number_or("layer_norm_epsilon", 1e-5)?,
        activation: fields.activation("activation_function", "gelu_new")?,
        gated: false,
        biases: Biases { qkv: true, o: true, mlp: true },
        tie_embeddings: fields.flag_or("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    })
}

fn gpt_neox(fields: &Fields) -> Result<ModelConfig> {
    let (hidden, heads) = (fields.int("hidden_size")?, fields.int("num_attention_heads")?);
    let context = fields.int("max_position_embeddings")?;
    let bias = fields.flag_or("attention_bias", true)?;
    let spelling =
        Spelling { theta: ("rotary_emb_base", 10_000.0), fraction: ("rotary_pct", 0.25) };
    if fields
        .maybe("rope_theta")?
        .is_some_and(|x| fields.get("rotary_emb_base").as_f64() != Some(x))
    {
        bail!("`rope_theta` and `rotary_emb_base` differ");
    }
    let contexts = contexts(fields, context)?;
    Ok(ModelConfig {
        vocab: fields.int("vocab_size")?,
        hidden,
        layers: fields.int("num_hidden_layers")?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads.max(1),
        intermediate: fields.int("intermediate_size")?,
        context,
        positions: Positions::Rotary(rope_json::read(fields, spelling, contexts)?),
        norm: Norm::Layer,
        norm_eps: fields.number_or("layer_norm_eps", 1e-5)?,
        activation: fields.activation("hidden_act", "gelu")?,
        gated: false,
        biases: Biases { qkv: bias, o: bias, mlp: true },
        parallel: fields.flag_or("use_parallel_residual", true)?,
        tie_embeddings: fields.flag_or("tie_word_embeddings", false)?,
        ..ModelConfig::default()
    })
}

/// Refuses biases that an architecture does not have.
fn without(fields: &Fields, flags: &[&str]) -> Result<()> {
    flags.iter().try_for_each(|flag| fields.only(flag, false))
}

fn contexts(fields: &Fields, now: i64) -> Result<Contexts> {
    let original = fields.maybe("original_max_position_embeddings")?;
    Ok(Contexts { now, original: original.map(|n| n as i64) })
}

/// Rotary positions on all of a head: most architectures rotate no part of it, whatever
/// `partial_rotary_factor` says.
fn whole(fields: &Fields, spelling: Spelling, context: i64) -> Result<Positions> {
    let found = rope_json::read(fields, spelling, contexts(fields, context)?)?;
    if found.fraction < 1.0 && found.scaling != super::config::RopeScaling::None {
        bail!("`partial_rotary_factor` {} with scaled positions is not supported", found.fraction);
    }
    Ok(Positions::Rotary(Rope { fraction: 1.0, ..found }))
}

/// Gemma 3: positions of layers that see everything, and of those with a window.
fn two_ropes(fields: &Fields, context: i64) -> Result<(Positions, Option<Rope>)> {
    let global = Spelling { theta: ("rope_theta", 1e6), ..USUAL };
    let local = Spelling { theta: ("rope_local_base_freq", 10_000.0), ..USUAL };
    let contexts = contexts(fields, context)?;
    let both = fields.inner("rope_parameters");
    let [full, sliding] = ["full_attention", "sliding_attention"]
        .map(|key| both.as_ref().and_then(|both| both.inner(key)));
    // Files from before transformers 5 stretch the global positions only.
    let scaled = fields.inner("rope_scaling");
    let found = [(full.or(scaled), global), (sliding, local)].map(|(within, spelling)| {
        let rope = rope_json::read_from(fields, within.as_ref(), spelling, contexts)?;
        within.iter().try_for_each(|within| within.finish("rotary"))?;
        if rope.fraction < 1.0 {
            bail!("`partial_rotary_factor` {} is not supported", rope.fraction);
        }
        Ok(rope)
    });
    both.iter().try_for_each(|both| both.finish("rotary"))?;
    let [global, local] = found;
    Ok((Positions::Rotary(global?), Some(local?)))
}

/// The window that the file names; what the architecture has where the key is left out.
fn window(fields: &Fields, default: Option<i64>) -> Result<Option<i64>> {
    if !fields.has("sliding_window") {
        return Ok(default);
    }
    let given = fields.get("sliding_window");
    if given.is_null() { Ok(None) } else { fields.int("sliding_window").map(Some) }
}

/// The window where a switch says that there is one.
fn switched_window(fields: &Fields, default: Option<i64>) -> Result<Option<i64>> {
    let on = fields.flag_or("use_sliding_window", false)?;
    Ok(window(fields, default)?.filter(|_| on))
}

fn cap(fields: &Fields, key: &str, default: Option<f64>) -> Result<Option<f64>> {
    let found = if fields.has(key) { fields.maybe(key)? } else { default };
    match found {
        Some(cap) if cap <= 0.0 => bail!("`{key}` is {cap}, not above 0"),
        _ => Ok(found),
    }
}

/// Which layers `layer_types` gives a window, if the file has it.
fn layer_types(fields: &Fields, layers: i64) -> Result<Option<Vec<bool>>> {
    let value = fields.get("layer_types");
    if value.is_null() {
        return Ok(None);
    }
    let list = value.as_array().context("`layer_types` is no list")?;
    if list.len() as i64 != layers {
        bail!("`layer_types` has {} names for {layers} layers", list.len());
    }
    let kinds = list.iter().map(|kind| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => bail!("`layer_types`: {kind} is not supported; only full and sliding attention are"),
    });
    kinds.collect::<Result<Vec<bool>>>().map(Some)
}

/// A model whose layers have a window as their types say, or as `usual` does.
fn of_types(
    base: ModelConfig,
    window: Option<i64>,
    types: Option<Vec<bool>>,
    usual: impl Fn(i64) -> bool,
) -> Result<ModelConfig> {
    match types {
        None => Ok(windowed(base, window, usual)),
        Some(types) if window.is_none() && types.contains(&true) => {
            bail!("`layer_types` has sliding_attention, but there is no `sliding_window`")
        }
        Some(types) => Ok(windowed(base, window, |i| types[i as usize])),
    }
}

/// A model some of whose layers have a window, if there is one.
fn windowed(base: ModelConfig, window: Option<i64>, which: impl Fn(i64) -> bool) -> ModelConfig {
    let kinds = (0..base.layers).map(|i| LayerKind { windowed: which(i), unrotated: false });
    let kinds: Vec<LayerKind> = if window.is_some() { kinds.collect() } else { Vec::new() };
    ModelConfig { window, layer_kinds: kinds, ..base }
}
