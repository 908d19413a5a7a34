//! Architectures beside those of `models.rs`: logits, decoding and files against transformers. See
//! `fixtures/models/make.py`.

use std::path::{Path, PathBuf};

use preflow_stages::data::Example;
use preflow_stages::model::{
    Cache, Layout, ModelConfig, Packed, Params, Policy, Trunk, WeightFile, read_folder,
    write_weights,
};
use preflow_stages::sampling::{SamplingConfig, generate};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use crate::harness::{Workshop, close, numbers};

const MODELS: [&str; 16] = [
    "llama_linear",
    "llama_dynamic",
    "llama_yarn",
    "llama_yarn_scaled",
    "mistral_window",
    "qwen2_window",
    "qwen3_types",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_longrope",
    "olmo2",
    "smollm3",
    "stablelm",
    "granite",
    // transformers rotates all of its heads, whatever the file says of a part.
    "llama_partial",
];

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/bare").join(model)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).expect("a file")).expect("JSON")
}

fn config(model: &str) -> Value {
    read(&folder(model).join("config.json"))
}

/// A model as import reads it.
fn open(model: &str) -> Policy {
    tch::set_num_threads(1);
    let mut config = ModelConfig::shape_from_json(&config(model)).expect("a shape");
    config.context = config.context.min(64);
    config.check().expect("sizes that fit");
    let params = read_folder(&folder(model), &config, false).expect("weights");
    Policy { trunk: Trunk::new(config, params) }
}

/// What transformers says of a model.
struct Known {
    rows: Vec<Vec<i64>>,
    greedy: Vec<Vec<i64>>,
    /// Of the last two places of each row.
    logits: Vec<Vec<f64>>,
}

fn known(model: &str) -> Known {
    let all = read(&folder("expected.json"));
    let list = |key: &str| all[model][key].clone();
    Known {
        rows: serde_json::from_value(list("rows")).expect("rows"),
        greedy: serde_json::from_value(list("greedy")).expect("tokens"),
        logits: serde_json::from_value(list("logits")).expect("logits"),
    }
}

/// Rows padded on the left, `[rows, time]`, and where each begins.
fn padded(rows: &[Vec<i64>], pad: i64) -> (Tensor, Tensor) {
    let width = rows.iter().map(Vec::len).max().expect("rows");
    let fill = |row: &Vec<i64>| vec![pad; width - row.len()].into_iter().chain(row.clone());
    let ids: Vec<i64> = rows.iter().flat_map(fill).collect();
    let starts: Vec<i64> = rows.iter().map(|row| (width - row.len()) as i64).collect();
    (Tensor::from_slice(&ids).view([rows.len() as i64, -1]), Tensor::from_slice(&starts))
}

#[test]
fn invariant_25_logits_and_greedy_answers_of_further_architectures_are_those_of_transformers() {
    for model in MODELS {
        let (policy, known) = (open(model), known(model));
        let (left, starts) = padded(&known.rows, policy.trunk.config.pad);
        let hidden = policy.trunk.hidden(&left, &Layout::LeftPadded(starts));
        let logits = policy.logits(&hidden.narrow(1, left.size()[1] - 2, 2));
        for (i, row) in known.rows.iter().enumerate() {
            println!("{model} {i}");
            close(&numbers(&logits.select(0, i as i64)), &known.logits[i], 1e-4);
            let alone = Tensor::from_slice(row).unsqueeze(0);
            let hidden = policy.trunk.hidden(&alone, &Layout::RightPadded);
            let alone = policy.logits(&hidden.narrow(1, row.len() as i64 - 2, 2));
            close(&numbers(&alone), &known.logits[i], 1e-4);
        }
        let sampling = SamplingConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 12,
            seed: 1,
            step: 0,
        };
        let answers = generate(&policy, &known.rows, &[0, 1, 2], &sampling);
        for (answer, known) in answers.iter().zip(&known.greedy) {
            let end = known.iter().position(|t| policy.trunk.config.ends(*t));
            assert_eq!(answer.tokens, known[..end.map_or(12, |e| e + 1)], "{model}");
        }
    }
}

#[test]
fn invariant_03_cached_decoding_equals_the_full_pass_in_every_architecture() {
    for model in MODELS {
        let (policy, known) = (open(model), known(model));
        let (left, starts) = padded(&known.rows, policy.trunk.config.pad);
        let width = left.size()[1];
        let full = policy.trunk.hidden(&left, &Layout::LeftPadded(starts.copy()));
        no_grad(|| {
            for trunk in [policy.trunk.duplicate(), policy.trunk.for_inference()] {
                // A prompt of nine columns, then one by one.
                let mut cache = Cache::new(&trunk, starts.copy(), width);
                let mut found = vec![trunk.hidden_cached(&left.narrow(1, 0, 9), &mut cache)];
                for t in 9..width {
                    found.push(trunk.hidden_cached(&left.narrow(1, t, 1), &mut cache));
                }
                let found = Tensor::cat(&found, 1);
                for (b, row) in known.rows.iter().enumerate() {
                    let n = row.len() as i64;
                    let real = |x: &Tensor| numbers(&x.get(b as i64).narrow(0, width - n, n));
                    close(&real(&found), &real(&full), 1e-4);
                }
            }
        });
    }
}

#[test]
fn packed_rows_and_sparing_gradients_equal_plain_ones_in_every_architecture() {
    for model in MODELS {
        let (mut policy, known) = (open(model), known(model));
        let rows: Vec<Example> = known
            .rows
            .iter()
            .map(|row| Example { prompt: row[..2].to_vec(), completion: row[2..].to_vec() })
            .collect();
        let rows: Vec<_> = rows.iter().map(preflow_stages::data::Row::from).collect();
        let refs: Vec<_> = rows.iter().collect();
        let apart = Packed::rows(&refs, Device::Cpu);
        let together = Packed::dense_rows(&refs, 64, Device::Cpu);
        assert_eq!(together.ids.size()[0], 1, "all in one row");
        let plain = numbers(&apart.log_probs(&policy, 1.0));
        close(&numbers(&together.log_probs(&policy, 1.0)), &plain, 1e-4);
        let gradient = |policy: &Policy, batch: &Packed| {
            let found = policy.backward(batch, 1.0, false, |p| -p.log_probs.mean(Kind::Float));
            numbers(&found.flat)
        };
        let wanted = gradient(&policy, &apart);
        assert!(wanted.iter().any(|g| *g != 0.0));
        close(&gradient(&policy, &together), &wanted, 1e-4);
        policy.trunk.compute.checkpoint = true;
        policy.trunk.compute.logits = 96 * 7;
        close(&gradient(&policy, &apart), &wanted, 1e-4);
    }
}

#[test]
fn adapters_merge_to_the_same_model_in_every_architecture() {
    use preflow_stages::model::Lora;
    for model in MODELS {
        let (mut policy, known) = (open(model), known(model));
        policy.trunk.adapt(&Lora { rank: 2, ..Lora::default() }, 5);
        no_grad(|| {
            let mut flat = policy.trunk.trainable().flat.shallow_clone();
            let _ = flat.g_add_scalar_(0.05);
        });
        let ids = Tensor::from_slice(&known.rows[0]).unsqueeze(0);
        let logits = |p: &Policy| numbers(&p.logits(&p.trunk.hidden(&ids, &Layout::RightPadded)));
        let merged = logits(&policy.duplicate());
        close(&logits(&policy), &merged, 1e-4);
        let before = logits(&open(model));
        assert!(merged.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-3), "{model}");
    }
}

/// Whether `ours` says all that `theirs` says.
fn says(ours: &Value, theirs: &Value, at: &str) {
    // Words for what is said otherwise, and what is off in training here.
    let apart = |key: &str| {
        ["transformers_version", "mscale", "mscale_all_dim", "max_window_layers"].contains(&key)
            || (key == "original_max_position_embeddings" && at == "phi3")
            || (key == "partial_rotary_factor" && at.starts_with("llama_partial"))
            || key.ends_with("_interval")
            || key.ends_with("_pattern")
    };
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs.iter().filter(|(key, v)| !apart(key) && !v.is_null()) {
                if *value == json!(false) && !ours.contains_key(key) {
                    continue;
                }
                says(ours.get(key).unwrap_or(&Value::Null), value, &format!("{at}.{key}"));
            }
        }
        _ => match (ours.as_f64(), theirs.as_f64()) {
            (Some(a), Some(b)) => assert!((a - b).abs() < 1e-9, "{at}: {a} {b}"),
            _ => assert_eq!(ours, theirs, "{at}"),
        },
    }
}

#[test]
fn invariant_25_configs_and_weights_of_every_architecture_are_written_as_they_were_read() {
    let shop = Workshop::new();
    for model in MODELS {
        let theirs = config(model);
        let shape = ModelConfig::shape_from_json(&theirs).expect("a shape");
        let ours = shape.to_json(false);
        says(&ours, &theirs, model);
        assert_eq!(ModelConfig::shape_from_json(&ours).expect("read again"), shape, "{model}");
        // Files of transformers 4 have the rotary keys elsewhere.
        let mut old = ours.clone();
        if shape.window_rope.is_none() {
            let removed = old.as_object_mut().expect("a map").remove("rope_parameters");
            assert!(removed.is_some());
            assert_eq!(ModelConfig::shape_from_json(&old).expect("an old file"), shape, "{model}");
        }
        let policy = open(model);
        let path = shop.path(&format!("{model}.safetensors"));
        write_weights(&path, &policy.trunk.params).expect("written");
        let (mut a, mut b) = (
            WeightFile::open(&path).expect("sound"),
            WeightFile::open(&folder(model).join("model.safetensors")).expect("sound"),
        );
        let names = |file: &WeightFile| {
            let mut all: Vec<String> = file.tensors().map(|(n, _)| n.to_owned()).collect();
            all.sort();
            all
        };
        assert_eq!(names(&a), names(&b), "{model}");
        for name in names(&a) {
            assert_eq!(a.read(&name).expect("values"), b.read(&name).expect("values"), "{name}");
        }
        // Fresh weights of this shape have a place for everything, too.
        let fresh = Trunk::init(policy.trunk.config.clone(), false, 3);
        assert_eq!(Params::numel(&fresh.params), policy.trunk.params.numel());
    }
}

#[test]
fn keys_that_nobody_knows_and_arithmetic_that_is_not_done_are_refused_by_name() {
    let cases: [(&str, &str, Value, &str); 17] = [
        (
            "llama_linear",
            "sliding_window",
            json!(4),
            "`sliding_window` is 4: this key is not known",
        ),
        ("llama_linear", "attention_sinks", json!(4), "`attention_sinks` is 4"),
        ("llama_linear", "rope_interleaved", json!(true), "`rope_interleaved` is true"),
        ("llama_linear", "quantization_config", json!({"bits": 4}), "`quantization_config`"),
        ("llama_linear", "is_encoder_decoder", json!(true), "`is_encoder_decoder` is true"),
        ("mistral_window", "layer_types", json!(["full_attention"]), "`layer_types` is"),
        ("mistral_window", "num_local_experts", json!(8), "`num_local_experts` is 8"),
        ("qwen2_window", "layer_types", json!(["full_attention"]), "1 names for 2 layers"),
        (
            "qwen3_types",
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "\"chunked_attention\" is not supported",
        ),
        ("qwen3_types", "use_sliding_window", json!(false), "there is no `sliding_window`"),
        ("gemma2", "use_bidirectional_attention", json!(true), "`use_bidirectional_attention`"),
        ("gemma2", "attn_logit_softcapping", json!(0.0), "`attn_logit_softcapping` is 0"),
        ("gemma3", "attn_logit_softcapping", json!(3.0), "`attn_logit_softcapping`"),
        ("phi3", "full_attn_mod", json!(2), "`full_attn_mod` is 2"),
        ("smollm3", "no_rope_layers", json!([1]), "`no_rope_layers` has 1 numbers"),
        ("stablelm", "use_parallel_residual", json!(true), "`use_parallel_residual` is true"),
        ("stablelm", "qk_layernorm", json!(true), "`qk_layernorm` is true"),
    ];
    for (model, key, value, wanted) in cases {
        let mut spoiled = config(model);
        spoiled[key] = value;
        let found = ModelConfig::from_json(&spoiled).map(|_| ());
        let found = format!("{:#}", found.expect_err(wanted));
        assert!(found.contains(wanted), "{model} {key}: {found}");
    }
    let rope = |key: &str, value: Value| {
        let mut spoiled = config("llama_yarn");
        spoiled["rope_parameters"][key] = value;
        format!("{:#}", ModelConfig::from_json(&spoiled).map(|_| ()).expect_err("refused"))
    };
    assert!(rope("rope_type", json!("ntk")).contains("`rope_type` is ntk"));
    assert!(rope("low_freq_factor", json!(1.0)).contains("`rope_parameters.low_freq_factor` is 1"));
    // Longer rows would change the positions of a whole batch.
    let long = ModelConfig::from_json(&config("phi3_longrope")).map(|_| ());
    assert!(format!("{:#}", long.expect_err("refused")).contains("positions beyond 64 tokens"));
    // What changes nothing is no hindrance.
    let mut harmless = config("llama_linear");
    for (key, value) in [
        ("auto_map", json!({"AutoConfig": "x.Y"})),
        ("attention_dropout", json!(0.1)),
        ("transformers_version", json!("4.40.0")),
        ("_name_or_path", json!("somewhere/else")),
        ("unheard_of", Value::Null),
        ("rope_interleaved", json!(false)),
    ] {
        harmless[key] = value;
    }
    ModelConfig::from_json(&harmless).expect("read");
}
