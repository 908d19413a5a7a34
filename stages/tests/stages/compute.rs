//! What saves time or memory changes nothing that is learned.

use preflow_stages::data::{Example, Prompt, Row, TemplateValues, Vocabulary};
use preflow_stages::model::config::Biases;
use preflow_stages::model::{
    Compute, Gradient, Lora, ModelConfig, Packed, Policy, Predicted, RewardModel, Start, Target,
    Trunk, ValueModel,
};
use preflow_stages::sampling::{SamplingConfig, generate};
use preflow_stages::training::mean_nll;
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::harness::{
    Workshop, byte_vocabulary, close, messages, numbers, refs, tiny_config, tiny_policy,
    tiny_reward, tiny_rows,
};

/// How far two f32 results may lie apart, as a share of the largest value, when the same terms were
/// added in another order. Adding n terms rounds n times by at most half of ε, so two orders differ
/// by up to n·ε, and by about √n·ε as roundings fall either way. A gradient here is a sum over some
/// hundred tokens, each of which went through sums over 16 to 48 values in every layer: 64 ε leaves
/// room for any processor, and a term too many or too few is thousands of times as large.
const ROUNDING: f64 = 64.0 * f32::EPSILON as f64;

/// Largest difference of two lists, as a share of the largest value.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0_f64, |m, (x, y)| m.max((x - y).abs())) / size
}

fn assert_same(what: &str, a: &Gradient, b: &Gradient, tolerance: f64) {
    assert!(apart(&a.loss, &b.loss) <= tolerance, "{what}: {:?} {:?}", a.loss, b.loss);
    assert!(apart(&a.flat, &b.flat) <= tolerance, "{what}: {}", apart(&a.flat, &b.flat));
}

/// A parallel model with biases, norms of queries and keys, and learned positions.
fn odd_policy() -> Policy {
    use preflow_stages::model::config::{Activation, Norm, Positions};
    let config = ModelConfig {
        family: preflow_stages::model::config::Family::GptNeox,
        norm: Norm::Layer,
        positions: Positions::Learned,
        biases: Biases { qkv: true, o: true, mlp: true },
        activation: Activation::Gelu,
        gated: false,
        parallel: true,
        kv_heads: 4,
        tie_embeddings: false,
        ..tiny_config()
    };
    let policy = Policy { trunk: Trunk::init(config, false, 3) };
    no_grad(|| {
        let _ = policy.trunk.params.flat.shallow_clone().g_mul_scalar_(8.0);
    });
    policy
}

fn all_rows(seed: u64) -> Vec<Row> {
    tiny_rows(9, seed).iter().map(Row::from).collect()
}

#[test]
fn invariant_6_layers_computed_again_and_logits_in_parts_give_the_same_gradient() {
    for mut policy in [tiny_policy(4), odd_policy()] {
        let rows = tiny_rows(7, 5);
        let batch = Packed::new(&refs(&rows), Device::Cpu);
        let n = batch.tokens() as i64;
        let weights = Tensor::arange(n, (Kind::Float, Device::Cpu)).sin();
        let loss = |p: &Predicted| {
            let entropy = p.entropy.as_ref().expect("asked for");
            (p.log_probs.exp() * &weights).sum(Kind::Float) - entropy.mean(Kind::Float) * 0.3
        };
        let plain = policy.backward(&batch, 0.7, true, loss);
        let predicted = no_grad(|| policy.predict(&batch, 0.7, true));
        for (checkpoint, logits) in [(true, 1 << 24), (false, 32 * 5), (true, 32 * 5), (true, 1)] {
            policy.trunk.compute = Compute { checkpoint, logits, ..Compute::default() };
            let other = policy.backward(&batch, 0.7, true, loss);
            assert_same(&format!("{:?}", policy.trunk.compute), &other, &plain, ROUNDING);
            let parts = no_grad(|| policy.predict(&batch, 0.7, true));
            assert!(apart(&parts.log_probs, &predicted.log_probs) <= ROUNDING);
            let entropies = [parts.entropy, predicted.entropy.as_ref().map(Tensor::shallow_clone)];
            let [a, b] = entropies.map(|e| e.expect("asked for"));
            assert!(apart(&a, &b) <= ROUNDING);
        }
    }
}

#[test]
fn invariant_6_a_reward_model_and_a_critic_may_compute_layers_again_too() {
    let mut model = tiny_reward(6);
    let rows = tiny_rows(6, 7);
    let batch = Packed::new(&refs(&rows), Device::Cpu);
    let threshold = Tensor::from(0.3_f32).set_requires_grad(true);
    let rewards = |r: &Tensor| (r - &threshold).square().sum(Kind::Float);
    let values = |v: &Tensor| v.sin().sum(Kind::Float);
    let both = |model: &RewardModel| {
        let critic = ValueModel::from_reward(model);
        let (gradient, more) = model.backward_rewards(&batch, Some(&threshold), rewards);
        (gradient, more.expect("it depends on it"), critic.backward_values(&batch, values))
    };
    let (a, more, c) = both(&model);
    model.trunk.compute.checkpoint = true;
    let (b, again, d) = both(&model);
    assert_same("rewards", &b, &a, ROUNDING);
    assert_same("values", &d, &c, ROUNDING);
    assert!(apart(&again, &more) <= ROUNDING);
}

#[test]
fn invariant_6_small_batches_and_shared_rows_give_the_gradient_of_one_batch() {
    for policy in [tiny_policy(8), odd_policy()] {
        let rows = all_rows(9);
        let rows: Vec<&Row> = rows.iter().collect();
        let tokens = rows.iter().map(|r| r.learned()).sum();
        let whole = mean_nll(&policy, [Packed::rows(&rows, Device::Cpu)], tokens);
        for micro in [1, 2, 4] {
            let batches = rows.chunks(micro).map(|rows| Packed::rows(rows, Device::Cpu));
            assert_same(
                &format!("{micro} a time"),
                &mean_nll(&policy, batches, tokens),
                &whole,
                ROUNDING,
            );
        }
        for width in [16, 30, 48] {
            let packed = Packed::dense_rows(&rows, width, Device::Cpu);
            let used = packed.ids.size();
            assert!(used[0] < rows.len() as i64 && used[1] <= width as i64, "{used:?}");
            let alone = no_grad(|| Packed::rows(&rows, Device::Cpu).log_probs(&policy, 1.0));
            let together = no_grad(|| packed.log_probs(&policy, 1.0));
            close(&numbers(&together), &numbers(&alone), 1e-5);
            assert_same(
                &format!("width {width}"),
                &mean_nll(&policy, [packed], tokens),
                &whole,
                ROUNDING,
            );
        }
    }
    // The states at the last tokens are found as well.
    let (reward, rows) = (tiny_reward(2), all_rows(3));
    let rows: Vec<&Row> = rows.iter().collect();
    let alone = reward.rewards(&Packed::rows(&rows, Device::Cpu));
    let together = reward.rewards(&Packed::dense_rows(&rows, 40, Device::Cpu));
    close(&numbers(&together), &numbers(&alone), 1e-5);
}

/// A model whose every second layer sees the last five columns only.
fn windowed_policy() -> Policy {
    use preflow_stages::model::config::LayerKind;
    let mut config = tiny_config();
    config.window = Some(5);
    config.layer_kinds = (0..config.layers)
        .map(|layer| LayerKind { windowed: layer % 2 == 0, ..LayerKind::default() })
        .collect();
    let policy = Policy { trunk: Trunk::init(config, false, 4) };
    no_grad(|| {
        let _ = policy.trunk.params.flat.shallow_clone().g_mul_scalar_(6.0);
    });
    policy
}

#[test]
fn two_answers_share_their_prompt_and_nothing_else() {
    let rows = tiny_rows(18, 5);
    let mut second = tiny_rows(18, 6);
    for (a, b) in rows.iter().zip(&mut second) {
        b.prompt.clone_from(&a.prompt);
    }
    // Long prompts: those that it pays for.
    let long: Vec<i64> = (0..14).map(|i| 5 + i % 9).collect();
    let with = |all: &[Example]| -> Vec<Example> {
        all.iter()
            .map(|e| Example { prompt: [&e.prompt[..], &long[..]].concat(), ..e.clone() })
            .collect()
    };
    let (rows, second) = (with(&rows), with(&second));
    let pairs: Vec<(&Example, &Example)> = rows.iter().zip(&second).collect();
    let apart_rows: Vec<&Example> = rows.iter().chain(&second).collect();
    let [shared, apart] =
        [Packed::pairs(&pairs, Device::Cpu), Packed::new(&apart_rows, Device::Cpu)];
    assert_eq!((shared.ids.size()[0], apart.ids.size()[0]), (18, 36));
    assert_eq!(shared.offsets, apart.offsets);
    assert_eq!(numbers(&shared.targets), numbers(&apart.targets));
    for (name, policy) in
        [("plain", tiny_policy(8)), ("odd", odd_policy()), ("windows", windowed_policy())]
    {
        let of = |packed: &Packed| no_grad(|| packed.log_probs(&policy, 1.0));
        close(&numbers(&of(&shared)), &numbers(&of(&apart)), 1e-5);
        // A loss in which each answer counts otherwise.
        let gradient = |packed: &Packed| {
            let weights = Tensor::arange(packed.tokens() as i64, (Kind::Float, Device::Cpu)) * 0.01;
            policy.backward(packed, 1.0, false, |p: &Predicted| {
                (&p.log_probs * &weights).sum(Kind::Float)
            })
        };
        assert_same(name, &gradient(&shared), &gradient(&apart), ROUNDING);
    }
    let reward = tiny_reward(2);
    close(&numbers(&reward.rewards(&shared)), &numbers(&reward.rewards(&apart)), 1e-5);
    // Other prompts, and answers so long that nothing is saved, stay apart.
    let others = tiny_rows(18, 7);
    let pairs: Vec<(&Example, &Example)> = rows.iter().zip(&others).collect();
    assert_eq!(Packed::pairs(&pairs, Device::Cpu).ids.size()[0], 36);
    let answers = [1, 40].map(|n| Example { prompt: vec![5], completion: vec![6; n] });
    let pairs = [(&answers[0], &answers[1])];
    assert_eq!(Packed::pairs(&pairs, Device::Cpu).ids.size()[0], 1);
    let pairs = [(&answers[1], &answers[1])];
    assert_eq!(Packed::pairs(&pairs, Device::Cpu).ids.size()[0], 2);
}

fn lora(rank: u32, targets: &[Target]) -> Lora {
    Lora { rank, targets: targets.to_vec(), ..Lora::default() }
}

#[test]
fn invariant_28_an_adapter_changes_nothing_at_first_and_can_be_merged() {
    let rows = tiny_rows(5, 1);
    let batch = Packed::new(&refs(&rows), Device::Cpu);
    let logits = |policy: &Policy| no_grad(|| batch.logits(policy));
    let all = Lora::default().targets;
    for (targets, base) in [
        (all.as_slice(), tiny_policy(2)),
        (&[Target::V, Target::Down][..], tiny_policy(2)),
        (all.as_slice(), odd_policy()),
    ] {
        let before = base.trunk.params.to_vec();
        let plain = logits(&base);
        let mut policy = base.duplicate();
        policy.trunk.adapt(&lora(3, targets), 11);
        assert_eq!(numbers(&logits(&policy)), numbers(&plain), "B = 0");
        let trainable = policy.trunk.trainable();
        assert!(trainable.numel() < policy.trunk.params.numel());
        let gradient = policy.backward(&batch, 1.0, false, |p| -p.log_probs.mean(Kind::Float));
        assert_eq!(gradient.flat.size(), [trainable.numel()]);
        // B moves first, since A's gradient passes through it.
        no_grad(|| {
            let values = Tensor::arange(trainable.numel(), (Kind::Float, Device::Cpu)).sin() * 0.1;
            trainable.flat.shallow_clone().copy_(&values);
        });
        let adapted = logits(&policy);
        assert!(apart(&adapted, &plain) > 1e-2);
        // Off is the base model, not copied; merged is the adapted one.
        let reference = policy.reference();
        assert_eq!(numbers(&logits(&reference)), numbers(&plain));
        assert_eq!(reference.trunk.params.flat.data_ptr(), policy.trunk.params.flat.data_ptr());
        let merged = policy.duplicate();
        close(&numbers(&logits(&merged)), &numbers(&adapted), 1e-5 * 8.0);
        assert_eq!(policy.trunk.params.to_vec(), before, "the base never moves");
        let sampling = SamplingConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 6,
            seed: 1,
            step: 0,
        };
        let answer = |policy: &Policy| generate(policy, &[vec![3, 9], vec![5]], &[0, 1], &sampling);
        assert_eq!(answer(&policy), answer(&merged));
        // What saves memory works here too.
        let plain = policy.backward(&batch, 1.0, false, |p| -p.log_probs.mean(Kind::Float));
        policy.trunk.compute = Compute { checkpoint: true, logits: 64, ..Compute::default() };
        let again = policy.backward(&batch, 1.0, false, |p| -p.log_probs.mean(Kind::Float));
        assert_same("adapter", &again, &plain, ROUNDING);
    }
    let size = |lora: &Lora| {
        let mut policy = odd_policy();
        policy.trunk.adapt(lora, 1);
        assert_eq!(policy.trunk.adapter_size(), lora.size(&policy.trunk.config), "{lora:?}");
    };
    size(&lora(3, &all));
    size(&lora(2, &[Target::K, Target::Up]));
    size(&lora(0, &all));
    let mut off = tiny_policy(2);
    off.trunk.adapt(&Lora::default(), 1);
    assert_eq!(off.trunk.trainable().numel(), off.trunk.params.numel());
}

#[test]
fn adapters_start_as_those_of_peft() {
    let config = ModelConfig {
        hidden: 64,
        intermediate: 96,
        heads: 4,
        head_dim: 16,
        kv_heads: 4,
        ..tiny_config()
    };
    let spread = |init: Start| {
        let mut trunk = Trunk::init(config.clone(), false, 1);
        trunk.adapt(&Lora { init, ..lora(8, &[Target::Q, Target::Down]) }, 5);
        let params = trunk.trainable();
        let each = params.specs.iter().zip(&params.tensors).map(|(spec, tensor)| {
            let largest = tensor.abs().max().double_value(&[]);
            (spec.parts[0].name.clone(), largest, tensor.std(true).double_value(&[]))
        });
        each.collect::<Vec<_>>()
    };
    for (name, largest, std) in spread(Start::Kaiming) {
        // peft: torch.nn.init.kaiming_uniform_(A, a=√5), which is uniform up to 1/√inputs.
        let bound = if name.contains("Q") { 1.0 / 8.0 } else { 1.0 / 96_f64.sqrt() };
        if name.ends_with('B') {
            assert_eq!(largest, 0.0);
        } else {
            assert!(largest <= bound && largest > 0.98 * bound, "{name} {largest}");
            assert!((std * 3_f64.sqrt() / bound - 1.0).abs() < 0.1, "{name} {std}");
        }
    }
    for (name, _, std) in spread(Start::Normal).iter().filter(|(name, ..)| name.ends_with('A')) {
        assert!((std * 8.0 - 1.0).abs() < 0.1, "{name} {std}");
    }
}

#[test]
fn bf16_is_near_and_its_gradients_are_f32() {
    let fresh = |like: &Policy| Policy { trunk: Trunk::init(like.trunk.config.clone(), false, 3) };
    for mut policy in [fresh(&tiny_policy(1)), fresh(&odd_policy())] {
        let rows = tiny_rows(6, 2);
        let batch = Packed::new(&refs(&rows), Device::Cpu);
        let loss = |p: &Predicted| -p.log_probs.mean(Kind::Float);
        let plain = policy.backward(&batch, 1.0, false, loss);
        policy.trunk.compute.kind = Kind::BFloat16;
        let half = policy.backward(&batch, 1.0, false, loss);
        assert_eq!((half.loss.kind(), half.flat.kind()), (Kind::Float, Kind::Float));
        let (a, b) = (&half.flat, &plain.flat);
        let cosine = (a * b).sum(Kind::Double) / (a.norm() * b.norm());
        assert!(cosine.double_value(&[]) > 0.999, "{cosine:?}");
        assert!(apart(&half.loss, &plain.loss) < 0.01);
        let sampling = SamplingConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 4,
            seed: 1,
            step: 0,
        };
        assert_eq!(generate(&policy, &[vec![3, 9]], &[0], &sampling).len(), 1);
        policy.trunk.compute.checkpoint = true;
        assert_same("bf16", &policy.backward(&batch, 1.0, false, loss), &half, 1e-2);
    }
}

/// Rows of one conversation in the layout of our own tokenizer, by hand.
#[test]
fn only_what_the_assistant_writes_is_learned() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    let chat = json!([
        {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"},
        {"role": "assistant", "content": "b"},
    ]);
    let messages = messages(&chat);
    let none = TemplateValues::default();
    let row = vocabulary.conversation(&messages, &none, 0).expect("a row");
    let id = |c: &str| vocabulary.encode(c).expect("an id")[0];
    let tokens = [1, id("s"), 3, id("u"), 4, id("a"), 2, 3, id("v"), 4, id("b"), 2];
    assert_eq!(row.tokens, tokens);
    let mask = [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1];
    assert_eq!(row.mask, mask.map(|m| m == 1));
    let packed = Packed::rows(&[&row], Device::Cpu);
    assert_eq!(numbers(&packed.targets), [id("a"), 2, id("b"), 2].map(|x| x as f64));
    let places = packed.places.expect("places");
    assert_eq!(numbers(&places), [4.0, 5.0, 9.0, 10.0]);
    // One turn is the row of a prompt and its completion.
    let one = vocabulary.conversation(&messages[1..3], &none, 0).expect("a row");
    let mut known = vocabulary.prompt(&Prompt::text("u")).expect("ids");
    known.extend(vocabulary.completion("a", true).expect("ids"));
    assert_eq!(one.tokens, known);
}

#[test]
fn sft_learns_conversations_with_every_saving_at_once() {
    let shop = Workshop::new();
    byte_vocabulary(&shop);
    shop.write(
        "text.jsonl",
        "{\"text\": \"abcabcabcabcabcabcabcabcabcabcabcabcabcabc\"}\n".repeat(8),
    );
    let model = json!({"layers": 2, "hidden": 32, "heads": 4, "context": 32});
    let inputs: [(&str, &[&str]); 2] =
        [("text", &["text.jsonl"]), ("tokenizer", &["bytes.tokenizer.json"])];
    let train = json!({"tokens": 600, "batch_tokens": 128, "compute": {"micro_batch": 2, "checkpoint_activations": true}});
    shop.run("base", "pretrain", json!({"model": model, "train": train}), &inputs).summary();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let chats: String = ["ab", "cd", "ef", "gh", "ij", "kl"]
        .map(|x| {
            let turns = [
                turn("user", x),
                turn("assistant", "yes"),
                turn("user", "?"),
                turn("assistant", x),
            ];
            format!("{}\n", json!({"messages": turns}))
        })
        .concat();
    shop.write("chats.jsonl", chats);
    let inputs: [(&str, &[&str]); 2] = [("model", &["base.model"]), ("demos", &["chats.jsonl"])];
    let run = |name: &str, epochs: u32, compute: serde_json::Value, packing: bool, rank: u32| {
        let train = json!({"epochs": epochs, "batch": 4, "lr": 2e-2, "packing": packing, "compute": compute, "eval_fraction": 0.0});
        shop.run(name, "sft", json!({"train": train, "lora": {"rank": rank}, "seed": 1}), &inputs)
            .summary()["train/loss"]
    };
    let plain = run("plain", 30, json!({}), false, 0);
    let spared =
        run("spared", 30, json!({"micro_batch": 3, "checkpoint_activations": true}), true, 0);
    assert!((plain - spared).abs() < 0.05 * plain + 1e-3, "{plain} {spared}");
    assert!(plain < 1.0, "{plain}");
    let small = run("small", 30, json!({"precision": "bf16"}), true, 4);
    let untrained = run("untrained", 0, json!({}), false, 0);
    assert!(small < untrained - 0.3, "{small} {untrained}");
    let base = Policy::open(&shop.path("base.model")).expect("opened").trunk.params.numel();
    let merged = Policy::open(&shop.path("small.model")).expect("opened").trunk.params.numel();
    assert_eq!(base, merged);
    Vocabulary::open(&shop.path("small.model/tokenizer.json")).expect("a tokenizer");
    shop.write("odd.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n");
    let inputs: [(&str, &[&str]); 2] = [("model", &["base.model"]), ("demos", &["odd.jsonl"])];
    let failure = shop.run("odd", "sft", json!({}), &inputs).failure();
    assert!(
        failure.contains("row 1") && failure.contains("no message of the assistant"),
        "{failure}"
    );
}

/// Forecast and measured peak of a pretraining run, MiB.
fn peak(
    shop: &Workshop,
    name: &str,
    model: serde_json::Value,
    batch: u64,
    compute: serde_json::Value,
) -> (f64, f64) {
    let train = json!({"tokens": 2 * batch, "batch_tokens": batch, "eval_fraction": 0.0, "compute": compute});
    let inputs: [(&str, &[&str]); 2] =
        [("text", &["text.jsonl"]), ("tokenizer", &["bytes.tokenizer.json"])];
    let ran = shop.run(name, "pretrain", json!({"model": model, "train": train}), &inputs);
    let notes = ran.notes();
    let at = notes.find("needs about ").unwrap_or_else(|| panic!("{notes}")) + 12;
    let forecast = notes[at..].split(' ').next().expect("a number").parse().expect("a number");
    let measured = ran.events.iter().find_map(|e| match e {
        preflow::protocol::Event::Metric { values, .. } => *values.get("time/peak_mib")?,
        _ => None,
    });
    (forecast, measured.expect("this system tells"))
}

#[test]
fn the_memory_forecast_is_near_the_measured_peak() {
    let shop = Workshop::new();
    byte_vocabulary(&shop);
    shop.write("text.jsonl", format!("{{\"text\": \"{}\"}}\n", "abcdef".repeat(60)).repeat(40));
    let wide = json!({"layers": 2, "hidden": 512, "heads": 8, "context": 32});
    let long = json!({"layers": 6, "hidden": 128, "heads": 4, "kv_heads": 2, "context": 256});
    let spare = json!({"checkpoint_activations": true});
    for (name, model, batch, compute) in [
        ("wide", wide, 256, json!({})),
        ("long", long.clone(), 4096, json!({})),
        ("spared", long, 8192, spare),
    ] {
        let (forecast, measured) = peak(&shop, name, model, batch, compute);
        assert!((0.7..1.3).contains(&(measured / forecast)), "{name}: {forecast} MiB, {measured}");
    }
    // What does not fit is refused before any of it is taken.
    let huge = json!({"layers": 60, "hidden": 16384, "heads": 64, "context": 32});
    let inputs: [(&str, &[&str]); 2] =
        [("text", &["text.jsonl"]), ("tokenizer", &["bytes.tokenizer.json"])];
    let failure = shop.run("huge", "pretrain", json!({"model": huge}), &inputs).failure();
    assert!(failure.contains("needs about") && failure.contains("GiB free"), "{failure}");
    assert!(failure.contains("a smaller model"), "{failure}");
}
