//! Tokens of prompts with their completions: those that the two have together, cut on the left.

use std::path::Path;

use preflow_stages::data::{
    Content, Example, Examples, Message, Prompt, Room, RowFit, Special, TemplateValues, TooLong,
    Vocabulary,
};
use preflow_stages::model::{ModelConfig, Packed, Policy, Trunk};
use preflow_stages::sampling::{SamplingConfig, generate};
use serde_json::json;
use tch::{Device, Kind, no_grad};

use crate::harness::*;

/// An imported tokenizer without a template.
fn plain(shop: &Workshop, file: &str) -> Vocabulary {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
    let bytes = fs_err::read(fixtures.join(file)).expect("a fixture");
    let path = shop.write(&format!("{file}.folder/tokenizer.json"), bytes);
    let special = Special { bos: Some(1), eos: vec![2], pad: 0 };
    Vocabulary::imported(path.parent().expect("a folder"), special).expect("a tokenizer")
}

#[test]
fn a_completion_has_the_tokens_that_it_has_after_its_prompt() {
    let shop = Workshop::new();
    for file in ["legacy.json", "first.json"] {
        let vocabulary = plain(&shop, file);
        for (prompt, completion, expected) in [
            ("Is it?\n", "yes", (vec![23, 24, 14, 4], vec![22, 2])),
            ("Is it?\n", " yes", (vec![23, 24, 14, 4], vec![20, 2])),
            // The blank and the word are one token, which the answer begins with.
            ("Is it? ", "yes", (vec![23, 24, 14], vec![20, 2])),
            ("yes", "yes", (vec![20], vec![22, 2])),
        ] {
            let (prompt_ids, completion_ids) = expected;
            let answer = Content::Text(completion.into());
            let example = vocabulary.example(&Prompt::text(prompt), &answer, true).expect("tokens");
            let known = Example { prompt: prompt_ids, completion: completion_ids };
            assert_eq!(example, known, "{file}: {prompt:?} {completion:?}");
        }
        let turns = [Message::new("user", "Is it?\n"), Message::new("assistant", "yes")];
        let row = vocabulary.conversation(&turns, &TemplateValues::default(), 0).expect("a row");
        assert_eq!(row.tokens, [23, 24, 14, 4, 22, 2], "{file}");
    }
}

#[test]
fn a_prompt_that_is_too_long_loses_its_beginning_and_nothing_else() {
    let shop = Workshop::new();
    // Without a token at the start nothing of the beginning stays.
    let vocabulary = plain(&shop, "legacy.json");
    let long = Prompt::text("Is it? Is it? Is it?\n");
    let answer = |text: &str| Content::Text(text.into());
    let [yes, z] = ["yes", "z"].map(answer);
    let rows = Examples::new(&vocabulary, Room::new(9), [(&long, &yes, true)]).expect("a row");
    let whole = vocabulary.prompt(&long).expect("ids");
    assert_eq!(rows.rows[0].prompt, whole[whole.len() - 7..]);
    assert_eq!(rows.left.cut, [0]);
    // Our own tokenizers keep <bos><user> and <bot>.
    let own = byte_vocabulary(&shop);
    let letters = Prompt::text("abcdefgh");
    let rows = Examples::new(&own, Room::new(9), [(&letters, &z, true)]).expect("a row");
    let id = |text: &str| own.encode(text).expect("an id")[0];
    assert_eq!(rows.rows[0].prompt, [1, 3, id("e"), id("f"), id("g"), id("h"), 4]);
    // Room that is kept free counts as if the completion filled it.
    let room = Room { free: 4, ..Room::new(9) };
    let rows = Examples::new(&own, room, [(&letters, &z, true)]).expect("a row");
    assert_eq!(rows.rows[0].prompt, [1, 3, id("g"), id("h"), 4]);
}

#[test]
fn both_answers_of_a_pair_follow_the_same_prompt() {
    let shop = Workshop::new();
    let own = byte_vocabulary(&shop);
    let room = Room::new(12);
    let answer = |text: &str| Content::Text(text.into());
    let [z, longer, longest, nothing] = ["z", "zyxw", "zyxwvutsr", ""].map(answer);
    let [letters, a] = ["abcdefgh", "a"].map(Prompt::text);
    let both = [(&z, true), (&longer, true)];
    let RowFit::Cut(rows) = room.rows(&own, &letters, &both).expect("tokens") else {
        panic!("cut")
    };
    assert!(rows[0].prompt == rows[1].prompt && rows[0].prompt.len() == 7, "{rows:?}");
    // One that does not fit takes the other with it.
    let fit = room.rows(&own, &a, &[(&z, true), (&longest, true)]).expect("tokens");
    assert!(matches!(fit, RowFit::TooLong), "{fit:?}");
    let fit = room.rows(&own, &a, &[(&z, true), (&nothing, false)]).expect("tokens");
    assert!(matches!(fit, RowFit::Empty), "{fit:?}");
}

#[test]
fn rows_that_do_not_fit_are_cut_left_out_or_refused_as_it_is_said() {
    let shop = Workshop::new();
    let own = byte_vocabulary(&shop);
    let prompts = ["ab", "abcdefgh", "a", "a", "abcdefghi"].map(Prompt::text);
    let answers = ["z", "z", "", "zyxwvutsr", "z"].map(|text| Content::Text(text.into()));
    let rows = || prompts.iter().zip(&answers).map(|(p, a)| (p, a, false));
    let read = |too_long| Examples::new(&own, Room { too_long, ..Room::new(9) }, rows());
    for too_long in [TooLong::Auto, TooLong::CutLeft] {
        let cut = read(too_long).expect("rows");
        assert_eq!((cut.sources, cut.left.cut), (vec![0, 1, 4], vec![1, 4]));
    }
    let cut = read(TooLong::CutLeft).expect("rows").warning(9).expect("something was done");
    assert_eq!(
        cut,
        "2 rows (2, 5) lost the beginning; 1 row (4) left out; 1 row (3) with an empty answer \
         left out (rows have room for 9 tokens; see `too_long`)"
    );
    let dropped = read(TooLong::Drop).expect("rows");
    assert_eq!((dropped.sources, dropped.left.too_long), (vec![0], vec![1, 3, 4]));
    let refused = read(TooLong::Fail).expect_err("row 2 does not fit");
    assert!(format!("{refused:#}").contains("row 2 does not fit the room of 9 tokens"));
}

#[test]
fn ids_that_the_tokenizer_does_not_have_are_never_drawn_and_have_no_probability() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    let (tokens, wide) = (vocabulary.size() as i64, 400);
    tch::set_num_threads(1);
    let config = ModelConfig { vocab: wide, ..tiny_config() };
    let mut policy = Policy { trunk: Trunk::init(config, false, 1) };
    let rows: Vec<Example> = (0..8)
        .map(|i| Example { prompt: vec![1, 3, 100 + i, 4], completion: vec![120 + i, 60, 2] })
        .collect();
    let batch = Packed::new(&refs(&rows), Device::Cpu);
    let all = no_grad(|| batch.logits(&policy));
    policy.draw_only_known(&vocabulary);
    // Its copies and what it is held near do likewise.
    for policy in [policy.duplicate(), policy.reference(), policy] {
        let sampling = SamplingConfig {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 20,
            seed: 1,
            step: 0,
        };
        let prompts: Vec<Vec<i64>> = rows.iter().map(|r| r.prompt.clone()).collect();
        let keys: Vec<u64> = (0..8).collect();
        let drawn = generate(&policy, &prompts, &keys, &sampling);
        assert!(drawn.iter().flat_map(|r| &r.tokens).all(|id| *id < tokens), "{drawn:?}");
        let predicted = no_grad(|| policy.predict(&batch, 0.8, true));
        let known = (all.narrow(1, 0, tokens) / 0.8).log_softmax(-1, Kind::Float);
        let expected = known.gather(1, &batch.targets.unsqueeze(1), false).squeeze_dim(1);
        close(&numbers(&predicted.log_probs), &numbers(&expected), 1e-5);
        let entropy = -(known.exp() * &known).sum_dim_intlist(-1, false, Kind::Float);
        close(&numbers(&predicted.entropy.expect("asked for")), &numbers(&entropy), 1e-4);
    }
}

#[test]
fn every_kind_that_draws_draws_known_tokens_only() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    tch::set_num_threads(1);
    let config = ModelConfig { vocab: 400, tie_embeddings: false, context: 40, ..tiny_config() };
    let policy = Policy { trunk: Trunk::init(config, false, 1) };
    // Logits by far the largest where the tokenizer has no token: such an id shows as no text.
    let head = policy.trunk.params.specs.iter().position(|s| s.parts[0].name == "lm_head.weight");
    let head = &policy.trunk.params.tensors[head.expect("a head")];
    let n = vocabulary.size() as i64;
    no_grad(|| {
        let _ = head.narrow(0, n, (400 - n) / 2).fill_(50.0);
        let _ = head.narrow(0, n + (400 - n) / 2, (400 - n) / 2).fill_(-50.0);
    });
    policy.save(&shop.path("wide"), &vocabulary).expect("saved");
    shop.write("prompts.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n");
    let prompts: (&str, &[&str]) = ("prompts", &["prompts.jsonl"]);
    let long = json!([{"name": "long", "score": 1.0, "words_over": 1}]);
    let rewards = json!({"rules": long, "rules_weight": 1.0});
    let some = json!({"temperature": 1.0, "max_tokens": 8});
    let with = |more: serde_json::Value| {
        let mut params = some.clone();
        params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        params
    };
    let update = json!({"updates": 1, "batch": 8, "minibatch": 8, "rewards": rewards});
    for (kind, params, port, output, column) in [
        ("sample", json!({"n": 20}), "model", "answers", "completion"),
        ("sample_pairs", json!({"pairs": 20}), "policy", "pairs", "response_a"),
        ("best_of_n", json!({"n": 10, "rewards": rewards}), "policy", "responses", "completion"),
        ("rloo", update, "policy", "samples", "response"),
        (
            "evaluate",
            json!({"rules": long, "samples": 10, "bootstrap": 0}),
            "policies",
            "samples",
            "response",
        ),
    ] {
        shop.run(kind, kind, with(params), &[(port, &["wide"]), prompts]).summary();
        let table = shop.table(&format!("{kind}.{output}.parquet"));
        let texts = table.texts(column).expect("texts");
        let empty = texts.iter().filter(|t| t.is_empty()).count();
        assert!(empty * 2 < texts.len(), "{kind}: {texts:?}");
    }
}
