//! Models of other people: imported, run, exported; against transformers. See
//! `fixtures/models/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use preflow_stages::data::{Message, Prompt, TemplateValues, Vocabulary};
use preflow_stages::model::{Layout, Policy, WeightFile};
use preflow_stages::sampling::{SamplingConfig, generate};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::harness::{Ran, Workshop, close, messages, numbers};

const MODELS: [&str; 8] =
    ["llama", "mistral", "qwen2", "qwen2_sharded", "qwen3", "gpt2", "pythia", "neox_sequential"];

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(model)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).expect("a file")).expect("JSON")
}

fn expected() -> Value {
    read(&folder("expected.json"))
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().expect("a list").iter().map(|x| x.as_i64().expect("an id")).collect()
}

fn import(shop: &Workshop, name: &str, from: &Path, params: Value) -> Ran {
    shop.run(name, "import_model", params, &[("source", &[from.to_str().expect("UTF-8")])])
}

fn imported(shop: &Workshop, model: &str) -> (Policy, Vocabulary) {
    tch::set_num_threads(1);
    import(shop, model, &folder(model), json!({})).summary();
    let path = shop.path(&format!("{model}.model"));
    (
        Policy::open(&path).expect("a model"),
        Vocabulary::open(&path.join("tokenizer.json")).expect("a tokenizer"),
    )
}

#[test]
fn invariant_25_logits_and_greedy_answers_of_every_architecture_are_those_of_transformers() {
    let (shop, expected) = (Workshop::new(), expected());
    for model in MODELS {
        let (policy, vocabulary) = imported(&shop, model);
        let wanted = &expected[model];
        let rows: Vec<Vec<i64>> =
            wanted["rows"].as_array().expect("rows").iter().map(ids).collect();
        let width = rows.iter().map(Vec::len).max().expect("rows");
        let pad = policy.trunk.config.pad;
        let start: Vec<i64> = rows.iter().map(|r| (width - r.len()) as i64).collect();
        let left: Vec<i64> = rows
            .iter()
            .flat_map(|r| vec![pad; width - r.len()].into_iter().chain(r.iter().copied()))
            .collect();
        let left = Tensor::from_slice(&left).view([rows.len() as i64, -1]);
        let hidden = policy.trunk.hidden(&left, &Layout::LeftPadded(Tensor::from_slice(&start)));
        let logits = policy.logits(&hidden.narrow(1, width as i64 - 2, 2));
        for (i, row) in rows.iter().enumerate() {
            let known = wanted["logits"][i].as_array().expect("logits");
            let known: Vec<f64> = known.iter().map(|x| x.as_f64().expect("a number")).collect();
            close(&numbers(&logits.select(0, i as i64)), &known, 1e-4);
            let alone = Tensor::from_slice(row).unsqueeze(0);
            let hidden = policy.trunk.hidden(&alone, &Layout::RightPadded);
            let alone = policy.logits(&hidden.narrow(1, row.len() as i64 - 2, 2));
            close(&numbers(&alone), &known, 1e-4);
        }
        let sampling = SamplingConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 12,
            seed: 1,
            step: 0,
        };
        for (i, answer) in generate(&policy, &rows, &[0, 1, 2], &sampling).iter().enumerate() {
            let known = ids(&wanted["greedy"][i]);
            let end = known.iter().position(|t| policy.trunk.config.ends(*t));
            assert_eq!(answer.tokens, known[..end.map_or(12, |e| e + 1)], "{model} {i}");
            assert_eq!(answer.finished, end.is_some());
        }
        for text in wanted["texts"].as_array().expect("texts") {
            let mut known = ids(&text["ids"]);
            known.push(vocabulary.special().eos[0]);
            let text = text["text"].as_str().expect("text");
            assert_eq!(vocabulary.document(text).expect("ids"), known, "{model}");
            assert_eq!(
                vocabulary.decode(&vocabulary.encode(text).expect("ids")).expect("text"),
                text
            );
        }
    }
}

/// Type, shape and values of every tensor in a folder.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<u64>, Vec<f64>)> {
    let files = fs_err::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
    let mut out = BTreeMap::new();
    for path in files.filter(|p| p.extension().is_some_and(|e| e == "safetensors")) {
        let mut file = WeightFile::open(&path).expect("sound");
        let found: Vec<_> = file.tensors().map(|(n, t)| (n.to_owned(), t.clone())).collect();
        for (name, stretch) in found {
            let values = numbers(&file.read(&name).expect("values"));
            out.insert(name, (stretch.dtype, stretch.shape, values));
        }
    }
    out
}

#[test]
fn invariant_25_import_and_export_change_no_bit() {
    let shop = Workshop::new();
    for model in MODELS {
        import(&shop, model, &folder(model), json!({})).summary();
        let half = model == "mistral";
        let params = json!({
            "dtype": if half { "bfloat16" } else { "float32" },
            "max_shard_size": if model == "qwen2_sharded" { 16_000 } else { 0 },
        });
        let name = format!("{model}_out");
        shop.run(&name, "export", params, &[("model", &[&format!("{model}.model")])]).summary();
        let out = shop.path(&format!("{name}.folder"));
        assert!(tensors(&out) == tensors(&folder(model)), "{model}");
        assert_eq!(out.join("model.safetensors.index.json").is_file(), model == "qwen2_sharded");
        for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            let (a, b) = (std::fs::read(out.join(file)), std::fs::read(folder(model).join(file)));
            if file == "tokenizer_config.json" && a.as_ref().ok() != b.as_ref().ok() {
                // A padding was chosen where the folder names none or another one.
                let (mut a, mut b) = (read(&out.join(file)), read(&folder(model).join(file)));
                let id = read(&out.join("config.json"))["pad_token_id"].as_i64().expect("an id");
                let vocabulary = Vocabulary::open(&out.join("tokenizer.json")).expect("opened");
                assert_eq!(a["pad_token"].as_str(), vocabulary.token(id).as_deref(), "{model}");
                a["pad_token"] = Value::Null;
                b["pad_token"] = Value::Null;
                assert_eq!(a, b, "{model}/{file}");
                continue;
            }
            assert_eq!(a.ok(), b.ok(), "{model}/{file}");
        }
        let (ours, theirs) =
            (read(&out.join("config.json")), read(&folder(model).join("config.json")));
        // Dropout is off here, and a padding was chosen where there was none.
        let apart = |key: &str| {
            ["transformers_version", "pad_token_id", "classifier_dropout"].contains(&key)
                || key.contains("drop")
                || key.starts_with("summary_")
                || ["max_window_layers", "is_decoder", "add_cross_attention"].contains(&key)
        };
        for (key, value) in theirs.as_object().expect("a map").iter().filter(|(k, _)| !apart(k)) {
            assert_eq!(&ours[key], value, "{model}: {key}");
        }
        // What was exported is imported again as the same model.
        import(&shop, "again", &out, json!({})).summary();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let bytes = |name: &str| fs_err::read(shop.path(name).join(file)).expect("bytes");
            assert!(bytes("again.model") == bytes(&format!("{model}.model")), "{model}/{file}");
        }
        fs_err::remove_dir_all(shop.path("again.model")).expect("removed");
    }
}

#[test]
fn conversations_and_what_is_learned_of_them_are_those_of_transformers() {
    let (shop, expected) = (Workshop::new(), expected());
    let (_, qwen) = imported(&shop, "qwen2");
    let none = TemplateValues::default();
    for known in expected["chats"].as_array().expect("chats") {
        let row = qwen.conversation(&messages(&known["messages"]), &none, 0).expect("a row");
        assert_eq!(row.tokens, ids(&known["ids"]));
        let mask: Vec<i64> = row.mask.iter().map(|m| i64::from(*m)).collect();
        assert_eq!(mask, ids(&known["mask"]));
        assert!(row.learned() > 0);
    }
    // Llama's template marks nothing: the mask comes from rendering what stands before each answer.
    let (_, llama) = imported(&shop, "llama");
    let known = &expected["llama_chat"];
    let messages = messages(&known["messages"]);
    let row = llama.conversation(&messages, &none, 0).expect("a row");
    assert_eq!(row.tokens, ids(&known["ids"]));
    let learned: Vec<i64> =
        row.tokens.iter().zip(&row.mask).filter(|(_, m)| **m).map(|(t, _)| *t).collect();
    let mut answers = Vec::new();
    for message in messages.iter().filter(|m| m.is_answer()) {
        answers.extend(llama.completion(message.text(), true).expect("ids"));
    }
    assert_eq!(learned, answers);
    // Two end tokens; the one that ends turns comes first.
    assert_eq!(llama.special().eos, [2, 1]);
    let whole = llama.encode(known["prompt"].as_str().expect("text")).expect("ids");
    assert!(whole.ends_with(
        &llama.prompt(&Prompt::text("is the red fish in the net ?")).expect("ids")[1..]
    ));
    // A prompt that is too long loses its beginning, not the template's.
    let long = Prompt::text(&"is the red fish in the net ? ".repeat(9));
    let whole = qwen.prompt(&long).expect("ids");
    let (cut, was_cut) = qwen.prompt_within(&long, 40).expect("ids");
    assert!(was_cut && cut.len() <= 40 && cut.len() > 30, "{}", cut.len());
    let head = qwen.prompt(&Prompt::text("")).expect("ids");
    assert_eq!(cut[..3], head[..3]);
    assert_eq!(cut[cut.len() - 12..], whole[whole.len() - 12..]);
    assert_eq!(qwen.prompt_within(&long, 999).expect("ids"), (whole, false));
    let odd = llama.conversation(&[Message::new("user", "x")], &none, 0);
    let error = format!("{:#}", odd.expect_err("refused"));
    assert!(error.contains("no message of the assistant is to be learned"), "{error}");
}

type Tensors = Vec<(String, Tensor)>;

/// A copy of a fixture to spoil.
fn copy(shop: &Workshop, model: &str, name: &str) -> PathBuf {
    let to = shop.path(name);
    fs_err::create_dir_all(&to).expect("a folder");
    for entry in fs_err::read_dir(folder(model)).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs_err::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
    to
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path);
    change(&mut value);
    fs_err::write(path, value.to_string()).expect("written");
}

#[test]
fn invariant_26_a_padding_that_is_the_end_is_refused_and_a_missing_one_chosen() {
    let shop = Workshop::new();
    let same = copy(&shop, "qwen2", "same");
    change(&same.join("config.json"), |c| c["pad_token_id"] = json!(2));
    // Another token fills, which the template does not use, and it is said.
    let ran = import(&shop, "a", &same, json!({}));
    assert!(ran.notes().contains("`<|im_end|>` is both the padding (pad) and the end"), "{ran:?}");
    assert!(ran.notes().contains("token 0 (<|endoftext|>) fills rows instead"), "{ran:?}");
    assert_eq!(read(&shop.path("a.model/config.json"))["pad_token_id"], 0);
    shop.run("a_out", "export", json!({}), &[("model", &["a.model"])]).summary();
    let settings = read(&shop.path("a_out.folder/tokenizer_config.json"));
    assert_eq!(settings["pad_token"], "<|endoftext|>");
    // Asked for, it is refused.
    let failure = import(&shop, "e", &same, json!({"pad_token": "<|im_end|>"})).failure();
    assert!(failure.contains("`<|im_end|>` is both the padding"), "{failure}");
    assert!(failure.contains("pad_token: "), "{failure}");
    let ran = import(&shop, "b", &same, json!({"pad_token": "<|endoftext|>"}));
    ran.summary();
    assert_eq!(read(&shop.path("b.model/config.json"))["pad_token_id"], 0);
    let failure = import(&shop, "c", &same, json!({"pad_token": "<nope>"})).failure();
    assert!(failure.contains("no token `<nope>`"), "{failure}");
    // Pythia names none: a token is chosen that ends nothing, and said.
    let ran = import(&shop, "d", &folder("pythia"), json!({}));
    assert!(ran.notes().contains("names no padding"), "{}", ran.notes());
    assert_ne!(read(&shop.path("d.model/config.json"))["pad_token_id"], 0);
    let endless = copy(&shop, "pythia", "endless");
    for file in ["config.json", "generation_config.json"] {
        change(&endless.join(file), |c| c["eos_token_id"] = Value::Null);
    }
    change(&endless.join("tokenizer_config.json"), |c| c["eos_token"] = Value::Null);
    let failure = import(&shop, "e", &endless, json!({})).failure();
    assert!(failure.contains("ends an answer"), "{failure}");
}

#[test]
fn configs_that_ask_for_other_arithmetic_are_refused_by_key() {
    let shop = Workshop::new();
    let cases: [(&str, &str, Value, &str); 11] = [
        ("llama", "model_type", json!("mixtral"), "`model_type` is \"mixtral\""),
        ("llama", "quantization_config", json!({"bits": 4}), "`quantization_config`"),
        ("llama", "hidden_act", json!("relu"), "`hidden_act`"),
        (
            "llama",
            "rope_parameters",
            json!({"rope_type": "ntk", "factor": 2.0}),
            "`rope_type` is ntk",
        ),
        (
            "llama",
            "rope_scaling",
            json!({"type": "dynamic", "factor": 2.0}),
            "`rope_scaling` and `rope_parameters` differ",
        ),
        ("llama", "rope_parameters", json!({"rope_type": "linear"}), ".factor` is missing"),
        ("llama", "num_key_value_heads", json!(3), "multiple of kv_heads"),
        ("llama", "hidden_size", Value::Null, "`hidden_size` is missing"),
        (
            "gpt2",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
            "`scale_attn_by_inverse_layer_idx`",
        ),
        ("llama", "vocab_size", json!(90), "the model only 90"),
        ("llama", "intermediate_size", json!(25), "has shape"),
    ];
    for (i, (model, key, value, says)) in cases.into_iter().enumerate() {
        let spoiled = copy(&shop, model, &format!("spoiled{i}"));
        change(&spoiled.join("config.json"), |c| c[key] = value);
        let failure = import(&shop, &format!("x{i}"), &spoiled, json!({})).failure();
        assert!(failure.contains(says), "{key}: {failure}");
    }
    // What transformers does not read for Llama changes nothing; contradictions are refused.
    let partial = copy(&shop, "qwen2", "partial");
    change(&partial.join("config.json"), |c| {
        c["rope_parameters"]["partial_rotary_factor"] = json!(0.5);
        c["unk_token_id"] = json!(0);
        c["_model_name_or_path"] = json!("somewhere/else");
    });
    import(&shop, "partial_in", &partial, json!({})).summary();
    import(&shop, "plain_in", &folder("qwen2"), json!({})).summary();
    let config = |name: &str| fs_err::read(shop.path(name).join("config.json")).expect("bytes");
    assert_eq!(config("partial_in.model"), config("plain_in.model"));
    let two = copy(&shop, "qwen2", "two_bases");
    change(&two.join("config.json"), |c| {
        c["rope_theta"] = json!(500.0);
        c["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 10_000.0});
    });
    let failure = import(&shop, "two_in", &two, json!({})).failure();
    assert!(failure.contains("`rope_theta` is 500, but"), "{failure}");
    let scorer = copy(&shop, "llama", "scorer");
    change(&scorer.join("config.json"), |c| {
        c["architectures"] = json!(["LlamaForSequenceClassification"]);
    });
    let failure = import(&shop, "scorer_in", &scorer, json!({})).failure();
    assert!(failure.contains("is a reward model or another classifier"), "{failure}");
    assert!(failure.contains("`kind: import_reward` imports"), "{failure}");
    let failure = import(&shop, "long", &folder("qwen2"), json!({"context": 65})).failure();
    assert!(failure.contains("made for 64"), "{failure}");
    let failure = import(&shop, "learned", &folder("gpt2"), json!({"context": 32})).failure();
    assert!(failure.contains("learned positions"), "{failure}");
}

#[test]
fn invariant_25_weights_that_do_not_fit_are_refused_by_name() {
    let shop = Workshop::new();
    let spoil = |name: &str, model: &str, spoil: &dyn Fn(&Path), says: &str| {
        let path = copy(&shop, model, name);
        spoil(&path);
        let failure = import(&shop, &format!("{name}_in"), &path, json!({})).failure();
        assert!(failure.contains(says), "{name}: {failure}");
    };
    let remove = |file: &'static str| {
        move |path: &Path| fs_err::remove_file(path.join(file)).expect("removed")
    };
    spoil("none", "llama", &remove("model.safetensors"), "neither model.safetensors");
    spoil(
        "pickle",
        "llama",
        &|path| {
            fs_err::rename(path.join("model.safetensors"), path.join("pytorch_model.bin"))
                .expect("renamed")
        },
        "safe_serialization=True",
    );
    spoil("no_tokenizer", "llama", &remove("tokenizer.json"), "has no tokenizer.json");
    spoil(
        "shard",
        "qwen2_sharded",
        &remove("model-00002-of-00002.safetensors"),
        "model-00002-of-00002",
    );
    let index = |edit: fn(&mut Value)| {
        move |path: &Path| change(&path.join("model.safetensors.index.json"), edit)
    };
    spoil(
        "outside",
        "qwen2_sharded",
        &index(|v| v["weight_map"]["lm_head.weight"] = json!("../x")),
        "no file name",
    );
    spoil(
        "misplaced",
        "qwen2_sharded",
        &index(|v| {
            v["weight_map"]["model.norm.weight"] = json!("model-00001-of-00002.safetensors")
        }),
        "where it is not",
    );
    spoil("no_map", "qwen2_sharded", &index(|v| *v = json!({})), "no `weight_map`");
    // The same tensor twice, a missing one, an unknown one, values that are not finite.
    let rewrite = |path: &Path, edit: &dyn Fn(&mut Tensors)| {
        let path = path.join("model.safetensors");
        let mut tensors = Tensor::read_safetensors(&path).expect("read");
        edit(&mut tensors);
        Tensor::write_safetensors(&tensors, &path).expect("written");
    };
    spoil(
        "missing",
        "llama",
        &|p| rewrite(p, &|t| t.retain(|(n, _)| n != "model.norm.weight")),
        "`model.norm.weight` is missing",
    );
    let extra = |name: &'static str| {
        move |p: &Path| {
            rewrite(p, &|t| {
                t.push((name.into(), Tensor::zeros([2], (Kind::Float, tch::Device::Cpu))))
            });
        }
    };
    spoil("unknown", "llama", &extra("model.extra.weight"), "`model.extra.weight` is not part");
    spoil(
        "not_finite",
        "llama",
        &|p| {
            rewrite(p, &|t| {
                let (_, norm) = t.iter().find(|(n, _)| n == "model.norm.weight").expect("there");
                let _ = norm.narrow(0, 3, 2).fill_(f64::NAN);
            });
        },
        "`model.norm.weight` has 2 values that are not finite",
    );
    spoil(
        "tied",
        "qwen2",
        &|p| {
            rewrite(p, &|t| {
                t.push((
                    "lm_head.weight".into(),
                    Tensor::zeros([96, 16], (Kind::Float, tch::Device::Cpu)),
                ))
            })
        },
        "differ",
    );
    spoil(
        "integers",
        "llama",
        &|p| {
            rewrite(p, &|t| {
                let place = t.iter().position(|(n, _)| n == "model.norm.weight").expect("there");
                t[place].1 = t[place].1.to_kind(Kind::Int);
            });
        },
        "supported are F32, F16 and BF16",
    );
    // Buffers that old files carry, bare names and half precision are no hindrance.
    let old = copy(&shop, "gpt2", "old");
    rewrite(&old, &|t| {
        for (name, tensor) in t.iter_mut() {
            *name = name.replace("transformer.", "");
            *tensor = tensor.to_kind(Kind::Half);
        }
        t.push((
            "h.0.attn.bias".into(),
            Tensor::zeros([1, 1, 8, 8], (Kind::Bool, tch::Device::Cpu)),
        ));
    });
    import(&shop, "old_in", &old, json!({})).summary();
    let (half, full) = (tensors(&shop.path("old_in.model")), tensors(&folder("gpt2")));
    assert_eq!(half.keys().collect::<Vec<_>>(), full.keys().collect::<Vec<_>>());
    for (name, (_, shape, values)) in &half {
        assert_eq!(shape, &full[name].1);
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-3 * b.abs().max(1.0);
        assert!(values.iter().zip(&full[name].2).all(near), "{name}");
    }
}

#[test]
fn a_template_of_ones_own_and_its_arguments_stand_in_for_those_of_the_folder() {
    let shop = Workshop::new();
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}\
                    {{ mood | default('none') }}{% if add_generation_prompt %}>{% endif %}";
    let file = shop.write("own.jinja", template);
    let from = folder("qwen2");
    let inputs: &[(&str, &[&str])] = &[
        ("source", &[from.to_str().expect("UTF-8")]),
        ("chat_template", &[file.to_str().expect("UTF-8")]),
    ];
    let params = json!({ "chat_template": "x", "chat_template_kwargs": { "mood": "calm" } });
    let ran = shop.run("own", "import_model", params, inputs);
    ran.summary();
    assert!(ran.notes().contains("one message of the user"), "{}", ran.notes());
    let renders = |name: &str, prompt: &Prompt, text: &str| {
        let tokenizer = shop.path(&format!("{name}/tokenizer.json"));
        let vocabulary = Vocabulary::open(&tokenizer).expect("a tokenizer");
        vocabulary.prompt(prompt).expect("rendered") == vocabulary.encode(text).expect("encoded")
    };
    assert!(renders("own.model", &Prompt::text("hi"), "u:hi;calm>"));
    assert!(!renders("own.model", &Prompt::text("hi"), "u:hi;loud>"));
    // A row's own argument counts more.
    let arguments = Some(r#"{"mood":"loud"}"#.to_owned());
    let row = Prompt { values: TemplateValues { tools: None, arguments }, ..Prompt::text("hi") };
    assert!(renders("own.model", &row, "u:hi;loud>"));

    // Arguments alone leave the template as it is; what is exported has both.
    let model = shop.path("own.model");
    let exported = [("model", [model.to_str().expect("UTF-8")])];
    let exported: Vec<(&str, &[&str])> = exported.iter().map(|(n, p)| (*n, p.as_slice())).collect();
    shop.run("out", "export", json!({}), &exported).summary();
    let again = shop.path("out.folder");
    let params = json!({ "chat_template_kwargs": { "mood": "sad" } });
    import(&shop, "again", &again, params).summary();
    assert!(renders("again.model", &Prompt::text("hi"), "u:hi;sad>"));

    // What is no template is refused, and so are arguments that nothing takes.
    let wrong = |text: &str, params: Value| {
        let file = shop.write("wrong.jinja", text);
        let inputs: &[(&str, &[&str])] =
            &[inputs[0], ("chat_template", &[file.to_str().expect("UTF-8")])];
        shop.run("wrong", "import_model", params, inputs).failure()
    };
    assert!(wrong("<html>not found</html>", json!({})).contains("does not look at `messages`"));
    assert!(wrong("{% for m in messages %}", json!({})).contains("chat template is not usable"));
    let params = json!({ "chat_template_kwargs": { "mood": "sad" } });
    let failure = import(&shop, "none", &folder("gpt2"), params).failure();
    assert!(failure.contains("no chat template that could take arguments"), "{failure}");
}
