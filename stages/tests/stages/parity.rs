//! The model and the optimizer against PyTorch and transformers; see `fixtures/make.py`.

use preflow_stages::model::{
    Layout, ModelConfig, ParamSpec, Params, Policy, RewardModel, Trunk, read_weights,
    token_log_probs, write_weights,
};
use preflow_stages::optim::{AdamW, AdamWConfig, EpsForm};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::harness::{Workshop, byte_vocabulary, close, numbers, tiny_config, tiny_policy};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/parity.json")).expect("JSON")
}

pub fn list(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)))
    })
}

/// The weights that `make.py` writes out by rule; matrices by this much.
pub fn model_by_rule(amplitude: f64) -> Policy {
    tch::set_num_threads(1);
    let specs = ParamSpec::list(&tiny_config(), false);
    let parts = specs.iter().flat_map(|s| &s.parts);
    let values: Vec<f32> = parts
        .flat_map(|part| {
            let phase = f64::from(crc32(part.name.as_bytes()) % 1000);
            let wave = move |i: i64| (0.37 * i as f64 + phase).sin();
            let norm = part.shape.len() == 1;
            let n = part.shape.iter().product();
            (0..n)
                .map(move |i| (if norm { 1.0 + 0.1 * wave(i) } else { amplitude * wave(i) }) as f32)
        })
        .collect();
    Policy {
        trunk: Trunk::new(tiny_config(), Params::from_flat(specs, Tensor::from_slice(&values))),
    }
}

#[test]
fn invariant_25_logits_loss_and_gradient_are_those_of_transformers() {
    let (fixture, policy) = (fixture(), model_by_rule(0.3));
    let ids: Vec<i64> =
        fixture["ids"].as_array().expect("rows").iter().flat_map(list).map(|x| x as i64).collect();
    let ids = Tensor::from_slice(&ids).view([2, -1]);
    let logits = policy.logits(&policy.trunk.hidden(&ids, &Layout::RightPadded));
    close(&numbers(&logits.select(1, 8)), &list(&fixture["logits"]), 1e-4);
    let flat = logits.narrow(1, 0, 8).reshape([-1, 32]);
    let targets = ids.narrow(1, 1, 8).reshape([-1]);
    close(
        &numbers(&token_log_probs(&flat, &targets, 0.7)),
        &list(&fixture["log_probs_at_0.7"]),
        1e-4,
    );
    let loss = -token_log_probs(&flat, &targets, 1.0).mean(Kind::Float);
    close(&numbers(&loss), &[fixture["loss"].as_f64().expect("a number")], 1e-5);
    let gradient = numbers(&policy.trunk.params.gradient(&loss));
    let mut start = 0;
    for part in policy.trunk.params.specs.iter().flat_map(|s| &s.parts) {
        let n = part.shape.iter().product::<i64>() as usize;
        let piece = &gradient[start..start + n];
        let sums = [piece.iter().sum::<f64>(), piece.iter().map(|x| x.abs()).sum::<f64>()];
        close(&sums, &list(&fixture["gradient_sums"][&part.name]), 2e-4);
        if part.name == "model.layers.0.self_attn.q_proj.weight" {
            close(&piece[..16], &list(&fixture["gradient_q0"]), 1e-5);
        }
        start += n;
    }
}

#[test]
fn adamw_takes_the_steps_of_pytorch() {
    let start: Vec<f32> = (0..6).map(|k| -1.0 + 0.4 * k as f32).collect();
    let flat = Tensor::from_slice(&start);
    let config =
        AdamWConfig { betas: [0.9, 0.95], eps: 1e-5, eps_form: EpsForm::Torch, weight_decay: 0.1 };
    let mut adamw = AdamW::new(config, &flat, 6);
    for (t, expected) in fixture()["adamw"].as_array().expect("steps").iter().enumerate() {
        let grad: Vec<f32> = (0..6).map(|k| (1.3 * t as f64 + f64::from(k)).sin() as f32).collect();
        adamw.step(&flat, &Tensor::from_slice(&grad), 0.05);
        close(&numbers(&flat), &list(expected), 1e-5);
    }
}

#[test]
fn invariant_25_saved_and_opened_again_nothing_has_changed() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    for tie_embeddings in [true, false] {
        let config = ModelConfig { tie_embeddings, ..tiny_config() };
        let policy = Policy { trunk: Trunk::init(config, false, 5) };
        policy.save(&shop.path("p"), &vocabulary).expect("saved");
        let again = Policy::open(&shop.path("p")).expect("opened");
        assert_eq!(again.trunk.params.to_vec(), policy.trunk.params.to_vec());
        assert_eq!(again.trunk.config, policy.trunk.config);
        let bytes = fs_err::read(shop.path("p/model.safetensors")).expect("bytes");
        again.save(&shop.path("p"), &vocabulary).expect("saved");
        assert!(bytes == fs_err::read(shop.path("p/model.safetensors")).expect("bytes"));
        let text = String::from_utf8_lossy(&bytes[8..200]).into_owned();
        assert!(text.contains(r#""__metadata__":{"format":"pt"}"#), "{text}");
    }
    let reward = RewardModel::from_policy(&tiny_policy(1), 2);
    reward.save(&shop.path("r"), &vocabulary).expect("saved");
    assert_eq!(
        RewardModel::open(&shop.path("r")).expect("opened").trunk.params.to_vec(),
        reward.trunk.params.to_vec()
    );
    let error =
        format!("{:#}", Policy::open(&shop.path("r")).expect_err("a reward model is no policy"));
    assert!(error.contains("`score."), "{error}");
}

#[test]
fn hostile_weight_files_are_refused() {
    let shop = Workshop::new();
    let specs = ParamSpec::list(&tiny_config(), false);
    let params = Params::init(specs.clone(), 1);
    write_weights(&shop.path("good"), &params).expect("written");
    let good = fs_err::read(shop.path("good")).expect("bytes");
    let refused = |name: &str, bytes: &[u8], expect: &str| {
        let path = shop.write(name, bytes);
        let error = format!("{:#}", read_weights(&path, &specs).expect_err(name));
        assert!(error.contains(expect), "{name}: {error}");
    };
    refused("short", &good[..4], "no header");
    refused("huge", &[&(1_u64 << 40).to_le_bytes()[..], &good[8..]].concat(), "header claims");
    refused("cut", &good[..good.len() - 4], "another size");
    refused("longer", &[&good[..], b"more"].concat(), "another size");
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    refused("twice", &header(&format!(r#"{{"a":{entry},"a":{entry}}}"#)), "listed twice");
    refused("unknown", &header(&format!(r#"{{"a":{entry}}}"#)), "is missing");
    refused(
        "dtype",
        &header(r#"{"a":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#),
        "only F32",
    );
    refused(
        "offsets",
        &header(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,0]}}"#),
        "does not lie",
    );
    refused(
        "overflow",
        &header(r#"{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,0]}}"#),
        "does not lie",
    );
    let other = ParamSpec::list(&ModelConfig { hidden: 32, ..tiny_config() }, false);
    let error =
        format!("{:#}", read_weights(&shop.path("good"), &other).expect_err("another shape"));
    assert!(error.contains("has shape"), "{error}");
}
