//! Conversations as tokens, against transformers and TRL: see `fixtures/chats/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use preflow_stages::data::{
    Column, Content, Message, Prompt, Room, RowFit, Rows, Special, Table, TemplateValues, TooLong,
    Vocabulary, Wanted, read_tables, settle, write_parquet,
};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::Workshop;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chats")
}

/// The rows by name, with their keys in the order in which they are written.
fn rows() -> BTreeMap<String, Box<RawValue>> {
    let bytes = fs_err::read(fixtures().join("rows.json")).expect("a fixture");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn json_file(name: &str) -> Value {
    serde_json::from_slice(&fs_err::read(fixtures().join(name)).expect("a fixture")).expect("JSON")
}

fn vocabulary(template: &str) -> Vocabulary {
    let folder = fixtures().join(template);
    let config: Value =
        serde_json::from_slice(&fs_err::read(folder.join("config.json")).expect("bytes"))
            .expect("JSON");
    let eos = vec![config["eos_token_id"].as_i64().expect("an id")];
    Vocabulary::imported(&folder, Special { bos: Some(1), eos, pad: 0 }).expect("a tokenizer")
}

/// One row as a source of that type, read from JSON lines.
fn table(shop: &Workshop, row: &str, port_type: &str) -> Table {
    let path = shop.write("row.jsonl", format!("{row}\n"));
    let wanted = Wanted { columns: vec!["prompt"], plain: false, named: true };
    let read = read_tables(&[path.to_string_lossy().into_owned()], &wanted).expect("rows");
    settle(read, port_type).expect("settled")
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().expect("ids").iter().map(|x| x.as_i64().expect("an id")).collect()
}

/// Without what stands behind the last end token: what a model writes ends with it.
fn to_end(mut ids: Vec<i64>, vocabulary: &Vocabulary) -> Vec<i64> {
    let last = ids.iter().rposition(|id| vocabulary.special().eos.contains(id));
    ids.truncate(last.map_or(ids.len(), |last| last + 1));
    ids
}

/// What our rows are for a row that TRL's trainers take; `Err` where it is refused.
fn ours(shop: &Workshop, template: &str, row: &str) -> anyhow::Result<Vec<Vec<i64>>> {
    let vocabulary = vocabulary(template);
    let has = |name: &str| row.contains(&format!("\"{name}\": "));
    if has("chosen") {
        let table = table(shop, row, "dataset/labels");
        let (prompts, [chosen, rejected]) =
            (table.prompts()?, ["chosen", "rejected"].map(|name| table.contents(name)));
        let (chosen, rejected) = (chosen?, rejected?);
        let both = [(&chosen[0], true), (&rejected[0], true)];
        let RowFit::Whole(rows) = Room::new(999).rows(&vocabulary, &prompts[0], &both)? else {
            panic!("{template}: it fits")
        };
        assert!(rows[0].prompt == rows[1].prompt, "{template}");
        return Ok(vec![
            rows[0].prompt.clone(),
            rows[0].completion.clone(),
            rows[1].completion.clone(),
        ]);
    }
    if has("messages") {
        let table = table(shop, row, "dataset/messages");
        let rows = Rows::read(&vocabulary, Room::new(999), &table)?;
        return Ok(vec![rows.rows[0].tokens.clone()]);
    }
    if has("completion") {
        let mut table = table(shop, row, "dataset/prompt_completion");
        table.remove("label");
        let rows = Rows::read(&vocabulary, Room::new(999), &table)?;
        return Ok(vec![rows.rows[0].tokens.clone()]);
    }
    let table = table(shop, row, "dataset/prompt");
    Ok(vec![vocabulary.prompt(&table.prompts()?[0])?])
}

#[test]
fn every_shape_of_rows_has_the_tokens_that_it_has_in_trl() {
    let (shop, rows, expected) = (Workshop::new(), rows(), json_file("expected.json"));
    let mut compared = 0;
    for (template, of) in expected["templates"].as_object().expect("templates") {
        let vocabulary = vocabulary(template);
        for (key, row) in &rows {
            let known = &of[key];
            let row = row.get();
            let found = ours(&shop, template, row);
            let trainer = ["dpo", "sft", "prompt"].iter().find(|t| known.get(**t).is_some());
            let theirs = &known[*trainer.expect("a trainer")];
            // Tools and their calls that a template leaves out are refused here, not passed over.
            let drops = template != "chatml" && row.contains("tool_calls");
            if theirs.get("error").is_some() || drops {
                assert!(found.is_err(), "{template} {key}: {found:?}");
                continue;
            }
            let found = found.unwrap_or_else(|e| panic!("{template} {key}: {e:#}"));
            let parts: Vec<Vec<i64>> = match found.len() {
                3 => ["prompt_ids", "chosen_ids", "rejected_ids"].map(|n| ids(&theirs[n])).to_vec(),
                _ if key == "prompt" => vec![ids(&theirs["prompt_ids"])],
                _ => vec![ids(&theirs["input_ids"])],
            };
            for (i, (mine, theirs)) in found.iter().zip(parts).enumerate() {
                let whole = i == 0
                    && (found.len() == 3
                        || key == "prompt"
                        || key.starts_with("messages")
                        || key == "completion_turns");
                let theirs = if whole { theirs } else { to_end(theirs, &vocabulary) };
                assert_eq!(*mine, theirs, "{template} {key} part {i}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 55, "{compared} rows");
}

#[test]
fn what_is_learned_of_conversations_is_what_the_assistant_writes() {
    let (shop, rows, expected) = (Workshop::new(), rows(), json_file("expected.json"));
    let chatml = vocabulary("chatml");
    let of = &expected["templates"]["chatml"];
    for key in ["messages", "messages_long", "messages_tools"] {
        let row =
            Rows::read(&chatml, Room::new(999), &table(&shop, rows[key].get(), "dataset/messages"));
        let row = row.expect("a row").rows.remove(0);
        let mask: Vec<i64> = row.mask.iter().map(|m| i64::from(*m)).collect();
        assert_eq!(mask, ids(&of[key]["mask"]["mask"]), "{key}");
    }
    // Of a completion of several messages those of the assistant alone, and none of the prompt.
    let turns = table(&shop, rows["completion_turns"].get(), "dataset/prompt_completion");
    let row = Rows::read(&chatml, Room::new(999), &turns).expect("a row").rows.remove(0);
    let both = ids(&of["messages_tools"]["mask"]["mask"]);
    assert_eq!(row.mask.iter().map(|m| i64::from(*m)).collect::<Vec<_>>(), both);
    // A message of weight 0 is context.
    let mut weighed: Value = serde_json::from_str(rows["messages_long"].get()).expect("JSON");
    weighed["messages"][2]["weight"] = json!(0);
    let row = Rows::read(
        &chatml,
        Room::new(999),
        &table(&shop, &weighed.to_string(), "dataset/messages"),
    );
    let row = row.expect("a row").rows.remove(0);
    let all = ids(&of["messages_long"]["mask"]["mask"]);
    let learned = row.mask.iter().filter(|m| **m).count();
    assert!(learned > 0 && learned < all.iter().sum::<i64>() as usize, "{learned}");
    assert!(row.mask.iter().zip(&all).all(|(m, a)| !m || *a == 1));
}

#[test]
fn a_conversation_that_is_too_long_loses_its_oldest_turns_and_keeps_the_system() {
    let chatml = vocabulary("chatml");
    let said = |role: &str, text: &str| Message::new(role, text);
    let turns = vec![
        said("system", "Be kind."),
        said("user", "one one one"),
        said("assistant", "two"),
        said("user", "three"),
    ];
    let prompt = |messages: &[Message]| preflow_stages::data::Prompt {
        content: Content::Messages(messages.to_vec()),
        ..preflow_stages::data::Prompt::text("")
    };
    let whole = chatml.prompt(&prompt(&turns)).expect("ids");
    let short = chatml.prompt(&prompt(&[turns[0].clone(), turns[3].clone()])).expect("ids");
    assert_eq!(
        chatml.prompt_within(&prompt(&turns), whole.len()).expect("ids"),
        (whole.clone(), false)
    );
    let (cut, was_cut) = chatml.prompt_within(&prompt(&turns), whole.len() - 1).expect("ids");
    assert!(was_cut);
    assert_eq!(cut, short);
    let (cut, _) = chatml.prompt_within(&prompt(&turns), short.len() - 2).expect("ids");
    assert!(cut.len() <= short.len() - 2 && cut[..12] == short[..12], "the system stays");
}

#[test]
fn arguments_of_a_template_come_from_the_row() {
    let shop = Workshop::new();
    let chatml = vocabulary("chatml");
    let row = |values: Value| json!({"prompt": "q", "chat_template_kwargs": values});
    let ids = |values: Value| {
        let table = table(&shop, &row(values).to_string(), "dataset/prompt");
        chatml.prompt(&table.prompts().expect("prompts")[0]).expect("ids")
    };
    let (on, off) = (ids(json!({"enable_thinking": true})), ids(json!({"enable_thinking": false})));
    assert_eq!(on, ids(json!({})));
    assert_eq!(chatml.decode(&off[on.len()..]).expect("text"), "<think></think>");
    let odd = table(&shop, r#"{"prompt": "q", "tools": "none"}"#, "dataset/prompt");
    let error = odd.prompts().expect_err("refused").to_string();
    assert!(
        error.contains("row 1")
            && error.contains("`tools` holds the text (`none`), not a list of tools"),
        "{error}"
    );
}

#[test]
fn forms_that_people_have_are_known_by_their_columns() {
    let shop = Workshop::new();
    let keys = |row: &str, port_type: &str, names: &[&str]| -> Vec<String> {
        let table = table(&shop, row, port_type);
        names.iter().map(|name| table.keys(name).expect("contents").remove(0)).collect()
    };
    let both = ["prompt", "completion"];
    let three = ["prompt", "chosen", "rejected"];
    let turns = r#"[{"content":"s","role":"system"},{"content":"q","role":"user"},{"content":"a","role":"assistant"}]"#;
    for (row, port_type, names, expected) in [
        // Alpaca, with and without an input, a system and a history.
        (
            r#"{"instruction":"i","input":"","output":"o"}"#,
            "dataset/prompt_completion",
            &both[..],
            vec!["i", "o"],
        ),
        (
            r#"{"instruction":"i","input":"x","output":"o","n":1}"#,
            "dataset/prompt_completion",
            &both,
            vec!["i\n\nx", "o"],
        ),
        (
            r#"{"instruction":"i","output":"o","system":"s","history":[["q","a"]]}"#,
            "dataset/prompt",
            &both[..1],
            vec![
                r#"[{"content":"s","role":"system"},{"content":"q","role":"user"},{"content":"a","role":"assistant"},{"content":"i","role":"user"}]"#,
            ],
        ),
        // ShareGPT.
        (
            r#"{"system":"s","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
            "dataset/messages",
            &["messages"],
            vec![turns],
        ),
        (
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#,
            "dataset/prompt",
            &both[..1],
            vec!["q"],
        ),
        // HH, OpenAI's preferences, whole conversations beside their prompt.
        (
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: q\n\nAssistant: b"}"#,
            "dataset/labels",
            &three,
            vec!["q", "a", "b"],
        ),
        (
            r#"{"input":{"messages":[{"role":"user","content":"q"}]},"preferred_output":[{"role":"assistant","content":"a"}],"non_preferred_output":[{"role":"assistant","content":"b"}]}"#,
            "dataset/labels",
            &three,
            vec!["q", "a", "b"],
        ),
        (
            r#"{"prompt":"q","chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#,
            "dataset/labels",
            &three,
            vec!["q", "a", "b"],
        ),
    ] {
        assert_eq!(keys(row, port_type, names), expected, "{row}");
    }
}

#[test]
fn prepare_makes_messages_and_labels_and_reads_paths_into_columns() {
    let shop = Workshop::new();
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let rows: String = (0..40)
        .map(|i| {
            let q = json!({"role": "user", "content": format!("q{}", i / 2)});
            let row = json!({"id": i, "chosen": [q, said(&format!("a{i}"))], "rejected": [q, said("b")],
                "instances": [{"output": format!("o{i}")}], "conversations": [q, said("c")]});
            format!("{row}\n")
        })
        .collect();
    shop.write("rows.jsonl", rows);
    let run = |name: &str, params: Value| {
        shop.run(name, "prepare", params, &[("data", &["rows.jsonl"])]).summary();
        shop.table(&format!("{name}.data.parquet"))
    };
    let labels = run("labels", json!({"as": "labels"}));
    assert_eq!(labels.keys("prompt").expect("keys")[2], "q1");
    assert_eq!(labels.keys("chosen").expect("keys")[2], "a2");
    let part = |part: &str, target: &str| {
        let split = json!({"part": part, "test_fraction": 0.3});
        run(part, json!({"as": target, "split": split}))
    };
    for target in ["labels", "messages"] {
        let [train, test] = ["train", "test"].map(|name| part(name, target));
        let column = if target == "labels" { "prompt" } else { "messages" };
        let keys = |table: &Table| -> std::collections::BTreeSet<String> {
            table.keys(column).expect("keys").into_iter().collect()
        };
        assert!(keys(&train).is_disjoint(&keys(&test)), "{target}");
        assert_eq!(train.rows() + test.rows(), 40, "{target}");
    }
    let paths = json!({"as": "prompt_completion", "columns":
        {"prompt": "chosen[0].content", "completion": "instances[0].output"}});
    let table = run("paths", paths);
    assert_eq!(table.texts("prompt").expect("texts")[3], "q1");
    assert_eq!(table.texts("completion").expect("texts")[3], "o3");
    let last = run("last", json!({"as": "prompt", "columns": {"prompt": "chosen[-1].content"}}));
    assert_eq!(last.texts("prompt").expect("texts")[3], "a3");
    for (path, says) in [
        ("chosen[7].content", "nothing at"),
        ("chosen[*].role", "2 values at"),
        ("chosen[", "is no path into"),
    ] {
        let params = json!({"as": "prompt", "columns": {"prompt": path}});
        let failure = shop.run("odd", "prepare", params, &[("data", &["rows.jsonl"])]).failure();
        assert!(failure.contains(says), "{path}: {failure}");
    }
}

#[test]
fn what_datasets_saved_and_what_is_compressed_is_read() {
    let shop = Workshop::new();
    let saved = fixtures().join("saved");
    let wanted = Wanted { columns: vec!["messages"], plain: false, named: true };
    let read = |path: &Path| {
        read_tables(&[path.to_string_lossy().into_owned()], &wanted)
            .map(|t| settle(t, "dataset/messages"))
    };
    let known = read(&saved).expect("read").expect("settled");
    assert_eq!(known.rows(), 3);
    assert_eq!(known.transcripts("messages").expect("messages")[1], "User: q1\n\nAssistant: a1");
    let lines: String = (0..3)
        .map(|i| format!("{}\n", json!({"messages": [{"role": "user", "content": format!("q{i}")}, {"role": "assistant", "content": format!("a{i}")}]})))
        .collect();
    let zstd = zstd::encode_all(lines.as_bytes(), 3).expect("compressed");
    let file = shop.write("rows.jsonl.zst", zstd);
    let found = read(&file).expect("read").expect("settled");
    assert_eq!(found.keys("messages").expect("keys"), known.keys("messages").expect("keys"));
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool"]);
    let more = prop::option::of(prop::sample::select(vec![
        ("name", r#""é \"x\"""#),
        ("weight", "1"),
        ("tool_calls", r#"[{"id":"a","function":{"name":"f","arguments":"{\"b\":1}"}}]"#),
        ("tool_calls", r#"[{"function":{"name":"f","arguments":{"b":1,"a":null}}}]"#),
        ("tool_calls", r#"[{"function":{"name":"f","arguments":{"z":[1,2.5]}}}]"#),
    ]));
    let message = (role, ".{0,12}", more).prop_map(|(role, text, more)| {
        let more = more.into_iter().map(|(name, json)| (name.into(), json.into())).collect();
        Message { more, ..Message::new(role, &text) }
    });
    prop::collection::vec(message, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written to Parquet and read again is the same messages, whatever fields they have.
    #[test]
    fn conversations_survive_a_file(rows in prop::collection::vec(messages(), 1..6)) {
        let shop = Workshop::new();
        let json = rows.iter().map(|list| Some(Content::Messages(list.clone()).to_json()));
        let column = Column::Json(json.collect());
        let table = Table::new(vec![("prompt", column)]).expect("a table");
        let path = shop.path("x.parquet");
        write_parquet(&path, &table).expect("written");
        let wanted = Wanted { columns: vec![], plain: false, named: false };
        let read = read_tables(&[path.to_string_lossy().into_owned()], &wanted).expect("read");
        let found = read.contents("prompt").expect("messages");
        for (found, known) in found.iter().zip(&rows) {
            prop_assert_eq!(found, &Content::Messages(known.clone()));
        }
    }

    /// Two conversations that share a beginning are parted into it and their answers.
    #[test]
    fn what_is_parted_can_be_put_together(
        before in messages(), one in ".{1,8}", other in ".{1,8}",
    ) {
        let mut prompt = before;
        prompt.push(Message::new("user", "q"));
        let with = |text: &str| {
            let answer = Message::new("assistant", text);
            Content::Messages(prompt.iter().cloned().chain([answer]).collect())
        };
        let found = preflow::conversation::preference(None, with(&one), with(&other)).expect("parted");
        prop_assert_eq!(&found.prompt, &Content::Messages(prompt.clone()));
        prop_assert_eq!(found.answers[0].last_text(), one.as_str());
        prop_assert_eq!(found.answers[1].last_text(), other.as_str());
    }
}

#[test]
fn a_conversation_that_does_not_fit_loses_its_oldest_turns_where_that_is_said() {
    let shop = Workshop::new();
    let chatml = vocabulary("chatml");
    let said = |role: &str, text: &str| json!({ "role": role, "content": text });
    let exchange = |text: &str| vec![said("user", text), said("assistant", &text.to_uppercase())];
    let system = vec![said("system", "be brief")];
    let all = [system.clone(), exchange("one"), exchange("two"), exchange("three")].concat();
    let rows = |list: &Value, context: usize, too_long: TooLong| {
        let row = json!({ "messages": list }).to_string();
        let table = table(&shop, &row, "dataset/messages");
        Rows::read(&chatml, Room { too_long, ..Room::new(context) }, &table)
    };
    let whole = rows(&json!(all), 999, TooLong::Auto).expect("it fits").rows.remove(0);
    let last = [system, exchange("three")].concat();
    let last = rows(&json!(last), 999, TooLong::Auto).expect("it fits").rows.remove(0);
    assert!(last.tokens.len() < whole.tokens.len());
    for context in [last.tokens.len(), last.tokens.len() + 1] {
        let cut = rows(&json!(all), context, TooLong::CutLeft).expect("cut");
        assert_eq!(cut.rows, std::slice::from_ref(&last));
        assert!(cut.warning.expect("told").starts_with("1 row (1) lost the beginning"));
    }
    for too_long in [TooLong::Auto, TooLong::Drop, TooLong::Fail] {
        let error = rows(&json!(all), last.tokens.len(), too_long).expect_err("too long");
        let word = if too_long == TooLong::Fail { "row 1 does not fit" } else { "no row is left" };
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
    // What is left must hold something to learn.
    let error = rows(&json!(all), 3, TooLong::CutLeft).expect_err("nothing fits");
    assert!(format!("{error:#}").contains("no row is left"), "{error:#}");
}

#[test]
fn a_form_that_is_named_counts_and_what_is_not_in_it_is_refused() {
    let shop = Workshop::new();
    let prepare = |row: Value, target: &str, form: &str| {
        shop.write("rows.jsonl", format!("{row}\n"));
        let params = json!({ "as": target, "form": form });
        shop.run("rows", "prepare", params, &[("data", &["rows.jsonl"])])
    };
    let made = |row: Value, target: &str, form: &str, column: &str| {
        prepare(row, target, form).summary();
        shop.table("rows.data.parquet").keys(column).expect("a column").remove(0)
    };
    // Columns of two forms at once: the one that is named counts.
    let said = |text: &str| json!([{ "role": "user", "content": text }]);
    let both = json!({
        "messages": said("openai"),
        "conversations": [{ "from": "human", "value": "sharegpt" }],
        "instruction": "alpaca", "output": "yes", "prompt": "plain"
    });
    for (form, prompt) in [
        ("auto", "plain"),
        ("plain", "plain"),
        ("openai", "openai"),
        ("sharegpt", "sharegpt"),
        ("alpaca", "alpaca"),
    ] {
        assert_eq!(made(both.clone(), "prompt", form, "prompt"), prompt, "{form}");
    }
    // A text that looks like a transcript is one, unless it is said to be a text.
    let looks = |end: &str| format!("\n\nHuman: hi\n\nAssistant: {end}");
    let row = json!({ "prompt": "q", "chosen": looks("a"), "rejected": looks("b") });
    assert_eq!(made(row.clone(), "labels", "plain", "chosen"), looks("a"));
    assert_eq!(made(row.clone(), "labels", "auto", "chosen"), looks("a"), "a prompt is there");
    assert_eq!(made(row, "labels", "hh", "chosen"), "a");
    let texts = json!({ "chosen": "a", "rejected": "b" });
    let failure = prepare(texts.clone(), "labels", "hh").failure();
    assert!(failure.contains("row 1") && failure.contains("is no transcript"), "{failure}");
    let failure = prepare(texts.clone(), "labels", "openai").failure();
    assert!(failure.contains("no column `input`"), "{failure}");
    let failure = prepare(texts, "labels", "alpaca").failure();
    assert!(failure.contains("`form: alpaca` is no form of labels"), "{failure}");
}

#[test]
fn a_prompt_of_thousands_of_turns_is_cut_in_a_few_renderings() {
    let chatml = vocabulary("chatml");
    let turns = (0..1500).flat_map(|i| {
        [Message::new("user", &format!("is it {i} ?")), Message::new("assistant", "yes")]
    });
    let system = Message::new("system", "be brief");
    let last = Message::new("user", "and now ?");
    let prompt = |turns: Vec<Message>| Prompt {
        content: Content::Messages([vec![system.clone()], turns, vec![last.clone()]].concat()),
        values: TemplateValues::default(),
    };
    let shortest = chatml.prompt(&prompt(Vec::new())).expect("ids");
    let (ids, cut) =
        chatml.prompt_within(&prompt(turns.collect()), shortest.len()).expect("it fits");
    assert!(cut && ids == shortest);
}
