//! Params against small schemas: canonical values, words for what does not fit.
//! Knows pipelines only as text to take fields from.

use std::rc::Rc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::diagnostic::lines;
use crate::pipeline;

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["lr"],
        "properties": {
            "lr": { "type": "number", "exclusiveMinimum": 0,
                "x-alias": [{ "name": "learning_rate" }] },
            "steps": { "type": "integer", "minimum": 1, "x-unit": "count", "default": 10,
                "x-alias": [{ "name": "device_batch", "times": "accumulation" },
                            { "name": "max_steps", "note": "count rows" }] },
            "warmup": { "type": "number", "x-unit": "fraction", "default": 0.02 },
            "every": { "type": ["number", "null"], "x-unit": "seconds", "default": null },
            "fast": { "type": "boolean", "default": false },
            "model": { "type": "object", "additionalProperties": false, "default": {},
                "properties": {
                    "layers": { "type": "integer", "default": 4,
                        "x-alias": [{ "name": "num_hidden_layers" }] },
                    "act": { "default": "silu", "oneOf": [
                        { "const": "silu", "description": "smooth" }, { "const": "relu" }] } } },
            "labeler": { "default": { "simulated": {} }, "oneOf": [
                { "type": "object", "required": ["people"], "additionalProperties": false,
                  "properties": { "people": { "type": "object", "additionalProperties": false,
                    "required": ["votes"], "properties": { "votes": { "type": "string" },
                      "question": { "type": "string", "default": "Which?", "maxLength": 9 } } } } },
                { "type": "object", "required": ["simulated"], "additionalProperties": false,
                  "properties": { "simulated": { "type": "object", "additionalProperties": false,
                    "properties": { "noise": { "type": "number", "default": 0.1, "maximum": 1.0 } } } } },
                { "const": "nobody" }] },
            "words": { "type": "array", "items": { "type": "string" }, "maxItems": 3, "default": [] },
            "parts": { "type": "array", "default": [], "x-alias": [{ "name": "target_modules" }],
                "items": { "type": "string", "enum": ["q", "k"], "x-words": { "q_proj": "q" } } },
            "penalty": { "type": "number", "default": -1.0,
                "x-alias": [{ "name": "missing_penalty", "negative": true }] },
            "either": { "default": 0.5, "anyOf": [
                { "type": "number" }, { "type": "array", "items": { "type": "number" } }] },
            "later": { "type": "number", "default": 0.5, "x-later": true },
            "free": { "default": null }
        }
    })
}

fn fit(fields: &str) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let doc = json!({ "protocol": 1, "kinds": [{ "name": "k", "version": 1, "summary": "s",
        "inputs": [], "outputs": [{ "name": "o", "type": "t", "extension": "", "doc": "d" }],
        "params": schema() }] });
    let catalog = Catalog::parse(&doc.to_string()).unwrap();
    let text = format!("preflow: 1\nparams: {{ p: 3 }}\nstages:\n  a:\n    kind: k\n{fields}\n");
    let files = Rc::new(|_: &std::path::Path| Err(std::io::Error::other("no files")));
    let pipeline = pipeline::parse("p.yaml", &text, None, &[], files)?;
    let stage = &pipeline.stages[0];
    let fields: Vec<(&Key, &Node)> = stage.fields.iter().map(|(k, n)| (k, n)).collect();
    catalog.kind("k").unwrap().params(&fields, "stage `a`", &stage.name.span).map(|p| p.values)
}

fn good(fields: &str) -> String {
    match fit(fields) {
        Ok(params) => serde_json::to_string(&params).unwrap(),
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

fn bad(fields: &str) -> String {
    lines(&fit(fields).expect_err("it has a problem"))
}

#[test]
fn every_default_is_filled_in() {
    insta::assert_snapshot!(good("    lr: 1"), @r#"{"either":0.5,"every":null,"fast":false,"free":null,"labeler":{"simulated":{"noise":0.1}},"lr":1.0,"model":{"act":"silu","layers":4},"parts":[],"penalty":-1.0,"steps":10,"warmup":0.02,"words":[]}"#);
    insta::assert_snapshot!(good(
        "    lr: 1e-3\n    steps: 2k\n    warmup: 5%\n    every: 1m\n    model: { layers: 2.0 }\n    \
             labeler: { people: { votes: x } }\n    either: [1, 2.5]\n    words: [a]\n    free: { b: [1.0], a: 2 }"
    ), @r#"{"either":[1.0,2.5],"every":60.0,"fast":false,"free":{"a":2,"b":[1]},"labeler":{"people":{"question":"Which?","votes":"x"}},"lr":0.001,"model":{"act":"silu","layers":2},"parts":[],"penalty":-1.0,"steps":2000,"warmup":0.05,"words":["a"]}"#);
    assert!(good("    lr: 1\n    labeler: nobody").contains(r#""labeler":"nobody""#));
    assert!(
        good("    lr: 1\n    labeler: { simulated: }").contains(r#"{"simulated":{"noise":0.1}}"#)
    );
}

#[test]
fn what_does_not_fit_is_said_at_its_place() {
    insta::assert_snapshot!(bad("    steps: 5"), @"p.yaml:4:3 [a] stage `a` needs `lr` | `preflow kinds k` lists all fields");
    insta::assert_snapshot!(bad("    lr: 0"), @"p.yaml:6:9 [0] `lr` must be more than 0 | found 0.0");
    insta::assert_snapshot!(bad("    lr: fast"), @r#"p.yaml:6:9 [fast] `lr` must be a number | found the text "fast""#);
    insta::assert_snapshot!(bad("    lr: '1'"), @r#"p.yaml:6:9 [\'1\'] `lr` must be a number | found the text "1""#);
    insta::assert_snapshot!(bad("    lr: 1\n    steps: -3k"), @"p.yaml:7:12 [-3k] `steps` must be at least 1 | found -3000");
    insta::assert_snapshot!(bad("    lr: 1\n    steps: 0.5k\n    warmup: 3s\n    every: 2%"), @r#"
    p.yaml:8:13 [3s] `warmup`: unit `s` does not fit | fractions take %, as in `2%`
    p.yaml:9:12 [2%] `every`: unit `%` does not fit | durations take ms, s, m, h or d, as in `30s`
    "#);
    insta::assert_snapshot!(bad("    lr: 1\n    steps: 1e99"), @"p.yaml:7:12 [1e99] `steps` must be a whole number | found 1e99");
    insta::assert_snapshot!(bad("    lr: 1\n    fast: yes"), @r#"p.yaml:7:11 [yes] `fast` must be true or false | found the text "yes" | in YAML 1.2 only `true` and `false` are"#);
    insta::assert_snapshot!(bad("    lr: 1\n    fast: $p"), @"p.yaml:7:11 [$p] `fast` must be true or false | found 3 | `$p` comes from p.yaml:2");
    insta::assert_snapshot!(bad("    lr: 1\n    model: { layer: 3, act: rleu }"), @r#"
    p.yaml:7:14 [layer] unknown field `layer` in `model` | did you mean `layers`? | `preflow kinds k` lists all fields
    p.yaml:7:29 [rleu] `model.act` must be silu or relu | did you mean `relu`?
    "#);
    insta::assert_snapshot!(bad("    lr: 1\n    model: small"), @r#"p.yaml:7:12 [small] `model` must be a map | found the text "small""#);
    insta::assert_snapshot!(bad("    lr: 1\n    labeler: { poeple: { votes: x } }"), @"p.yaml:7:16 [poeple] `labeler` must be nobody, people or simulated | did you mean `people`?");
    insta::assert_snapshot!(bad("    lr: 1\n    labeler: people"), @"p.yaml:7:14 [people] `labeler: people` lacks its settings | write `people: { … }`");
    insta::assert_snapshot!(bad("    lr: 1\n    labeler: { people: {}, simulated: {} }"), @"p.yaml:7:14 [{] `labeler` must be nobody, people or simulated | exactly one of them, found 2");
    insta::assert_snapshot!(bad("    lr: 1\n    labeler: { people: { question: x } }"), @"p.yaml:7:24 [{] `labeler.people` needs `votes` | `preflow kinds k` lists all fields");
    insta::assert_snapshot!(bad("    lr: 1\n    words: [a, 2, c, d]"), @"p.yaml:7:16 [2] `words.1` must be text | found 2 | put it in quotes if it is text");
    insta::assert_snapshot!(bad("    lr: 1\n    words: [a, b, c, d]"), @r#"p.yaml:7:12 [[] `words` takes at most 3 items | found ["a","b","c","d"]"#);
    insta::assert_snapshot!(bad("    lr: 1\n    either: text"), @r#"p.yaml:7:13 [text] `either` must be a number or a list | found the text "text""#);
    insta::assert_snapshot!(bad("    lr: 1\n    either: [1, x]"), @r#"p.yaml:7:17 [x] `either.1` must be a number | found the text "x""#);
}

#[test]
fn broken_catalogs_are_refused() {
    let kind = |params: Value, outputs: Value| {
        json!({ "protocol": 1, "kinds": [{ "name": "k", "version": 1, "summary": "s", "inputs": [],
            "outputs": outputs, "params": params }] })
        .to_string()
    };
    let output = json!([{ "name": "o", "type": "t", "extension": "", "doc": "d" }]);
    let said = |text: String| Catalog::parse(&text).unwrap_err().to_string();
    assert!(
        said(kind(json!({ "type": "nonsense" }), output.clone())).contains("schema is invalid")
    );
    assert!(said(kind(json!({ "type": "object" }), json!([]))).contains("it has no output"));
    let clash = json!({ "properties": { "kind": { "type": "string" } } });
    assert!(said(kind(clash, output)).contains("names two of its fields"));
    assert!(said(r#"{ "protocol": 9, "kinds": [] }"#.to_owned()).contains("speaks protocol 9"));
}

#[test]
fn the_embedded_catalog_loads() {
    let catalog = Catalog::builtin();
    // `builtin` trusts the text; here is where it is checked.
    Catalog::parse(super::BUILTIN).expect("sound");
    for kind in catalog.kinds() {
        let _ = kind.validator();
    }
}

#[test]
fn a_rule_that_is_broken_inside_one_of_several_forms_is_named_by_itself() {
    let said = bad("    lr: 1\n    labeler: { people: { votes: v, question: Which of them? } }\n");
    assert!(said.contains("`labeler.people.question` takes at most 9 characters"), "{said}");
    assert!(said.contains(r#"found "Which of them?""#) && !said.contains("oneOf"), "{said}");
    let said = bad("    lr: 1\n    labeler: { simulated: { noise: 2 } }\n");
    assert!(said.contains("`labeler.simulated.noise` must be at most 1"), "{said}");
}

#[test]
fn run_is_typed_and_has_units() {
    let read = |text: &str| {
        let text = format!("preflow: 1\nstages:\n  a: {{ kind: k, run: {text} }}\n");
        let files = Rc::new(|_: &std::path::Path| Err(std::io::Error::other("no files")));
        let pipeline = pipeline::parse("p.yaml", &text, None, &[], files).unwrap();
        execution::read(pipeline.stages[0].run.as_ref().unwrap(), "stage `a`")
    };
    let run = read(
        "{ threads: 2, device: 'cuda:1', timeout: 30m, retries: 2, checkpoint_every: 30s, \
         memory: 4GiB, gpus: 1, env: [HF_TOKEN] }",
    )
    .unwrap();
    insta::assert_snapshot!(serde_json::to_string(&run).unwrap(), @r#"{"threads":2,"device":"cuda:1","timeout":1800.0,"retries":2,"checkpoint_every":30.0,"memory":4294967296,"gpus":1,"env":["HF_TOKEN"]}"#);
    assert_eq!(read("{}").unwrap(), crate::protocol::Execution::default());
    insta::assert_snapshot!(lines(&read("{ thread: 2, timeout: 30k, env: HOME }").unwrap_err()), @r#"
    p.yaml:3:24 [thread] unknown field `thread` in `run` of stage `a` | did you mean `threads`? | `run` takes checkpoint_every, device, env, gpus, memory, retries, threads, timeout
    p.yaml:3:44 [30k] `timeout`: unit `k` does not fit | durations take ms, s, m, h or d, as in `30s`
    p.yaml:3:54 [HOME] `env` must be a list | found the text "HOME"
    "#);
    insta::assert_snapshot!(lines(&read("{ device: gpu, env: ['A B'] }").unwrap_err()), @r#"
    p.yaml:3:32 [gpu] `device` must match `^(cpu|mps|cuda(:[0-9]{1,3})?)$` | found "gpu"
    p.yaml:3:43 [\'A B\'] `env.0` must match `^[A-Za-z_][A-Za-z0-9_]*$` | found "A B"
    "#);
}

/// One way to write a stage that always means the same.
fn spelling() -> impl Strategy<Value = String> {
    let number = prop_oneof![Just("1"), Just("1.0"), Just("1e0"), Just("10e-1"), Just("+1.0")];
    let count = prop_oneof![Just("2000"), Just("2k"), Just("2e3"), Just("2000.0"), Just("0.002M")];
    let share = prop_oneof![Just("0.05"), Just("5%"), Just("5e-2"), Just("5.0%")];
    let model = prop_oneof![
        Just("{ layers: 3, act: silu }"),
        Just("{act: 'silu', layers: 3.0}"),
        Just("{ layers: 3 }")
    ];
    let order = Just(vec![0, 1, 2, 3]).prop_shuffle();
    let noise = prop_oneof![Just(""), Just("   # a note"), Just("\n\n    # größe")];
    (number, count, share, model, order, noise).prop_map(|(n, c, s, m, order, noise)| {
        let lines = [
            format!("    lr: {n}{noise}"),
            format!("    steps: {c}"),
            format!("    warmup:   {s}{noise}"),
            format!("    model: {m}"),
        ];
        order.iter().map(|i| lines[*i].as_str()).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn what_came_later_is_left_out_at_its_default() {
    let same = good("    lr: 1\n");
    assert_eq!(good("    lr: 1\n    later: 0.5\n"), same);
    assert!(!same.contains("later"), "{same}");
    assert!(good("    lr: 1\n    later: 2\n").contains(r#""later":2.0"#));
}

#[test]
fn names_of_other_tools_are_told_with_the_value_converted() {
    let said = |field: &str, text: &str| {
        let problems = fit(text).unwrap_err();
        let about = |p: &&Diagnostic| p.message.contains(&format!("`{field}`"));
        let problem = problems.iter().find(about).unwrap();
        format!("{} | {}", problem.label, problem.help.as_deref().unwrap_or_default())
    };
    let all = "`preflow kinds k` lists all fields";
    for (field, value, expected) in [
        ("learning_rate", "2e-5", format!("here it is `lr: 2e-5` | {all}")),
        ("device_batch", "8\n    accumulation: 4", format!("here it is `steps: 32` | {all}")),
        ("device_batch", "8", format!("here it is `steps: 8` | {all}")),
        ("device_batch", "auto", format!("here it is `steps: …` | {all}")),
        ("max_steps", "100", "here it is `steps: …` | count rows".to_owned()),
        ("num_hidden_layers", "6", format!("here it is `model: {{ layers: 6 }}` | {all}")),
        ("layers", "6", format!("here it is `model: {{ layers: 6 }}` | {all}")),
        ("missing_penalty", "1", format!("here it is `penalty: -1.0` | {all}")),
        ("target_modules", "[q_proj, k]", format!("here it is `parts: [q, k]` | {all}")),
        ("target_modules", "[fc1]", format!("here it is `parts: …` | {all}")),
    ] {
        assert_eq!(said(field, &format!("    lr: 1\n    {field}: {value}")), expected);
    }
    let nested = "    lr: 1\n    model: { num_hidden_layers: 6 }";
    assert_eq!(said("num_hidden_layers", nested), format!("here it is `layers: 6` | {all}"));
    let word = said("parts.0", "    lr: 1\n    parts: [q_proj]");
    assert!(word.starts_with("did you mean `q`?"), "{word}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn spelling_never_changes_params(text in spelling()) {
        let plain = "    lr: 1\n    steps: 2000\n    warmup: 0.05\n    model: { layers: 3 }";
        prop_assert_eq!(good(&text), good(plain));
    }

    #[test]
    fn every_value_changes_params(a in 1u32..1000, b in 1u32..1000) {
        for (field, place) in [("steps", "    steps: "), ("lr", "    lr: "), ("layers", "")] {
            let of = |n: u32| match field {
                "lr" => format!("{place}{n}"),
                "steps" => format!("    lr: 1\n{place}{n}"),
                _ => format!("    lr: 1\n    model: {{ layers: {n} }}"),
            };
            prop_assert_eq!(good(&of(a)) == good(&of(b)), a == b);
        }
    }
}
