//! Rotary positions in `config.json`, as transformers 4 and 5 spell them.
//! Knows nothing of angles; see `attention` for those.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::config::{Rope, RopeScaling};
use super::config_fields::Fields;

/// Where an architecture keeps its base and its fraction, and what they are when left out.
#[derive(Clone, Copy)]
pub struct Spelling {
    pub theta: (&'static str, f64),
    pub fraction: (&'static str, f64),
}

/// Keys of most architectures.
pub const USUAL: Spelling =
    Spelling { theta: ("rope_theta", 10_000.0), fraction: ("partial_rotary_factor", 1.0) };

/// Lengths that scaling compares with: the longest row now, and, where a key beside the rotary ones
/// says so, the longest when the model was trained first.
#[derive(Clone, Copy)]
pub struct Contexts {
    pub now: i64,
    pub original: Option<i64>,
}

/// Rotary positions: from `rope_scaling` or `rope_parameters`, and from the keys of this
/// architecture; where both are there they must agree.
pub fn read(fields: &Fields, spelling: Spelling, contexts: Contexts) -> Result<Rope> {
    let nested = ["rope_scaling", "rope_parameters"].map(|key| fields.inner(key));
    let within = nested.iter().flatten().next();
    let rope = read_from(fields, within, spelling, contexts)?;
    for inner in nested.iter().flatten() {
        // The other spelling says the same, or less.
        if rope != read_from(fields, Some(inner), spelling, contexts)? {
            bail!("`rope_scaling` and `rope_parameters` differ");
        }
        inner.finish("rotary")?;
    }
    Ok(rope)
}

/// Rotary positions from one object, and from the keys of the architecture.
pub fn read_from(
    fields: &Fields,
    within: Option<&Fields>,
    spelling: Spelling,
    contexts: Contexts,
) -> Result<Rope> {
    let either = |(old, default): (&str, f64), new: &str| -> Result<f64> {
        let inner = within.map_or(Ok(None), |f| f.maybe(new))?;
        match (fields.maybe(old)?, inner) {
            (Some(a), Some(b)) if a != b => {
                bail!("`{old}` is {a}, but `{new}` of the rotary positions is {b}")
            }
            (old, new) => Ok(old.or(new).unwrap_or(default)),
        }
    };
    Ok(Rope {
        theta: either(spelling.theta, "rope_theta")?,
        fraction: either(spelling.fraction, "partial_rotary_factor")?,
        scaling: within.map_or(Ok(RopeScaling::None), |f| scaling(f, contexts))?,
    })
}

fn scaling(fields: &Fields, contexts: Contexts) -> Result<RopeScaling> {
    let name = fields.get("rope_type").as_str().or(fields.get("type").as_str());
    let positive = |key: &str| match fields.number(key)? {
        x if x > 0.0 => Ok(x),
        x => bail!("`{key}` of the rotary positions is {x}, not above 0"),
    };
    let name = name.unwrap_or("default");
    if matches!(name, "yarn" | "longrope" | "su") {
        return by_original_context(fields, name, contexts);
    }
    match name {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: positive("factor")? }),
        "dynamic" => Ok(RopeScaling::Dynamic { factor: positive("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: positive("factor")?,
            low_freq_factor: positive("low_freq_factor")?,
            high_freq_factor: positive("high_freq_factor")?,
            original_context: match contexts.original {
                Some(original) => original,
                None => positive("original_max_position_embeddings")? as i64,
            },
        }),
        _ => bail!(
            "`rope_type` is {name}; supported are default, linear, dynamic, llama3, yarn and \
             longrope"
        ),
    }
}

/// Scalings whose factors follow from how much longer the context became.
fn by_original_context(fields: &Fields, name: &str, contexts: Contexts) -> Result<RopeScaling> {
    let own = fields.int_or("original_max_position_embeddings", contexts.now)?;
    let original = contexts.original.unwrap_or(own).max(1);
    let grown = contexts.now as f64 / original as f64;
    let factor = fields.number_or("factor", grown)?;
    let given = fields.maybe("attention_factor")?;
    if name != "yarn" {
        let by_length = (1.0 + factor.max(1.0).ln() / (original as f64).ln()).sqrt();
        return Ok(RopeScaling::LongRope {
            short: fields.numbers("short_factor")?,
            long: fields.numbers("long_factor")?,
            attention_factor: given.unwrap_or(by_length),
            original_context: original,
        });
    }
    let grow = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let scales = [fields.number_or("mscale", 0.0)?, fields.number_or("mscale_all_dim", 0.0)?];
    let usual = match scales {
        [a, b] if a != 0.0 && b != 0.0 => grow(a) / grow(b),
        _ => grow(1.0),
    };
    let above = |key: &str, default: f64| {
        Ok::<_, anyhow::Error>(fields.maybe(key)?.filter(|x| *x != 0.0).unwrap_or(default))
    };
    Ok(RopeScaling::Yarn {
        factor,
        attention_factor: given.unwrap_or(usual),
        beta_fast: above("beta_fast", 32.0)?,
        beta_slow: above("beta_slow", 1.0)?,
        original_context: original,
        truncate: fields.flag_or("truncate", true)?,
    })
}

/// What `rope_parameters` of transformers 5 says; the fraction where it is no whole, or always.
pub fn parameters(rope: &Rope, always_fraction: bool) -> Value {
    let mut object = Map::from_iter([
        ("rope_theta".to_owned(), json!(rope.theta)),
        ("rope_type".to_owned(), json!("default")),
    ]);
    if rope.fraction < 1.0 || always_fraction {
        object.insert("partial_rotary_factor".into(), json!(rope.fraction));
    }
    let scaled = match &rope.scaling {
        RopeScaling::None => json!({}),
        RopeScaling::Linear { factor } => json!({ "factor": factor, "rope_type": "linear" }),
        RopeScaling::Dynamic { factor } => json!({ "factor": factor, "rope_type": "dynamic" }),
        RopeScaling::Yarn {
            factor,
            attention_factor,
            beta_fast,
            beta_slow,
            original_context,
            truncate,
        } => json!({
            "attention_factor": attention_factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "factor": factor,
            "original_max_position_embeddings": original_context,
            "rope_type": "yarn",
            "truncate": truncate,
        }),
        RopeScaling::LongRope { short, long, attention_factor, original_context } => json!({
            "attention_factor": attention_factor,
            "long_factor": long,
            "original_max_position_embeddings": original_context,
            "rope_type": "longrope",
            "short_factor": short,
        }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            json!({
                "factor": factor,
                "high_freq_factor": high_freq_factor,
                "low_freq_factor": low_freq_factor,
                "original_max_position_embeddings": original_context,
                "rope_type": "llama3",
            })
        }
    };
    if let Value::Object(scaled) = scaled {
        object.extend(scaled);
    }
    Value::Object(object)
}
