//! References, types and order.
//! Knows its own small catalog only.

use std::io::{Error, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::diagnostic::SourceText;
use crate::pipeline::{self, Overrides};

const CATALOG: &str = r#"{ "protocol": 1, "kinds": [
  { "name": "clean", "version": 2, "summary": "Clean a text",
    "inputs": [{ "name": "text", "accepts": ["dataset/text", "file"], "doc": "What to clean" }],
    "outputs": [
      { "name": "text", "type": "dataset/text", "extension": "parquet", "doc": "Clean" },
      { "name": "report", "type": "dataset/metrics", "extension": "parquet", "doc": "Figures" }],
    "params": { "type": "object", "additionalProperties": false, "properties": {
      "strength": { "type": "number", "minimum": 0, "default": 0.5 },
      "rows": { "type": "integer", "x-unit": "count", "default": 1000 },
      "mode": { "type": "string", "enum": ["fast", "thorough"], "default": "fast" } } },
    "threads": 1 },
  { "name": "cast", "version": 1, "summary": "Give a file a type",
    "inputs": [{ "name": "data", "accepts": ["*"], "doc": "Anything" }],
    "outputs": [{ "name": "data", "type": "dataset/{as}", "extension": "parquet", "doc": "Typed" }],
    "params": { "type": "object", "additionalProperties": false, "required": ["as"], "properties": {
      "as": { "type": "string", "enum": ["text", "prompt"], "description": "What the rows are" } } } },
  { "name": "compare", "version": 1, "summary": "Compare texts",
    "inputs": [
      { "name": "texts", "accepts": ["dataset/text"], "many": true, "doc": "What to compare" },
      { "name": "hints", "accepts": ["dataset/prompt"], "optional": true, "doc": "Hints" }],
    "outputs": [{ "name": "figures", "type": "dataset/metrics", "extension": "parquet", "doc": "F" }],
    "params": { "type": "object", "additionalProperties": false, "properties": {} } },
  { "name": "command", "version": 1, "summary": "Any program", "inputs": [], "outputs": [],
    "params": { "type": "object", "additionalProperties": false, "required": ["command"],
      "properties": { "command": { "oneOf": [
        { "type": "string" }, { "type": "array", "items": { "type": "string" } }] } } },
    "open_ports": { "inputs": "inputs", "outputs": "outputs" },
    "program": { "command": "command" } } ] }"#;

fn resolve(stages: &str) -> Result<Graph, Diagnostics> {
    let text = format!(
        "preflow: 1\nsources:\n  raw: {{ path: data/raw.txt }}\n  \
         corpus: {{ path: ../corpus.parquet, as: text }}\nstages:\n{stages}"
    );
    let catalog = Catalog::parse(CATALOG).unwrap();
    let files = Rc::new(|_: &std::path::Path| Err(Error::from(ErrorKind::NotFound)));
    Graph::resolve(&pipeline::parse("dir/p.yaml", &text, None, &[], files)?, &catalog)
}

/// `line:column message | label | help`, one problem a line.
fn problems(stages: &str) -> String {
    crate::diagnostic::lines(&resolve(stages).expect_err("it has a problem"))
}

#[test]
fn stages_are_typed_connected_and_ordered() {
    let graph = resolve(
        "  last: { kind: compare, texts: [first, corpus, typed.data] }\n  \
           first: { kind: clean, text: raw, rows: 2k }\n  \
           typed: { kind: cast, data: first.report, as: text, run: { threads: 2, timeout: 30m } }\n",
    )
    .unwrap();
    let names: Vec<&str> = graph.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["first", "typed", "last"]);
    assert_eq!(graph.name, "p");
    assert_eq!(graph.sources[1].path, "dir/../corpus.parquet");
    assert_eq!(graph.sources[0].port_type, "file");
    assert_eq!(
        serde_json::to_string(&graph.stages[0].params).unwrap(),
        r#"{"mode":"fast","rows":2000,"strength":0.5}"#
    );
    assert_eq!(graph.stages[1].outputs[0].port_type, "dataset/text");
    assert_eq!(graph.stages[1].execution.threads, Some(2));
    assert_eq!(graph.stages[1].execution.timeout, Some(1800.0));
    assert_eq!(graph.upstream(2), [0, 1]);
    assert_eq!(graph.producer_name(graph.stages[2].inputs[0].from[1]), "corpus");
    assert_eq!(graph.stages[0].version, 2);
}

#[test]
fn programs_name_their_own_ports() {
    let graph = resolve(
        "  a: { kind: command, command: [sort, in], inputs: { z: corpus, b: [raw, corpus] }, \
              outputs: { sorted: dataset/text, log: file } }\n  \
           b: { kind: clean, text: a }\n",
    )
    .unwrap();
    assert_eq!(graph.stages[0].program.as_deref(), Some("command"));
    let ports: Vec<&str> = graph.stages[0].inputs.iter().map(|i| i.port.as_str()).collect();
    assert_eq!(ports, ["b", "z"]);
    assert_eq!(graph.stages[0].outputs[0].extension, "parquet");
    assert_eq!(graph.upstream(1), [0]);
}

#[test]
fn a_type_may_be_written_by_its_last_part_everywhere() {
    let graph = resolve(
        "  a: { kind: command, command: x, outputs: { t: text, own: mine } }\n  \
           b: { kind: cast, data: a.own, as: dataset/prompt }\n  \
           c: { kind: compare, texts: a, hints: b }\n",
    )
    .unwrap();
    let outputs = |stage: usize| &graph.stages[stage].outputs;
    assert_eq!(
        (outputs(0)[0].port_type.as_str(), outputs(0)[0].extension.as_str()),
        ("dataset/text", "parquet")
    );
    assert_eq!((outputs(0)[1].port_type.as_str(), outputs(0)[1].extension.as_str()), ("mine", ""));
    assert_eq!(graph.stages[1].params["as"], "prompt");
    assert_eq!(outputs(1)[0].port_type, "dataset/prompt");
}

#[test]
fn one_wrong_type_is_one_problem() {
    insta::assert_snapshot!(problems(
        "  a: { kind: command, command: x, outputs: { t: txet } }\n  \
           b: { kind: clean, text: a }\n  c: { kind: clean, text: a }\n  \
           d: { kind: compare, texts: a.t, hints: a }\n"
    ), @"dir/p.yaml:7:27 [a] `a` does not fit input `text` of stage `b` | is txet, takes dataset/text or file | it does not fit `c.text`, `d.texts`, `d.hints` either; no stage kind takes `txet`; did you mean `text`?");
    insta::assert_snapshot!(problems(
        "  a: { kind: cast, data: raw, as: prompt }\n  b: { kind: clean, text: a }\n  \
           c: { kind: compare, texts: [raw, a] }\n"
    ), @r#"
    dir/p.yaml:7:27 [a] `a` does not fit input `text` of stage `b` | is dataset/prompt, takes dataset/text or file | it does not fit `c.texts` either
    dir/p.yaml:8:31 [raw] `raw` does not fit input `texts` of stage `c` | is file, takes dataset/text
    "#);
}

#[test]
fn unknown_things_are_answered_with_the_nearest() {
    insta::assert_snapshot!(problems("  a: { kind: cleen, text: corpus }\n"), @"dir/p.yaml:6:14 [cleen] unknown kind `cleen` in stage `a` | did you mean `clean`? | `preflow kinds` lists them");
    insta::assert_snapshot!(problems("  a: { kind: clean, txet: corpus }\n"), @"dir/p.yaml:6:21 [txet] unknown field `txet` in stage `a` | did you mean `text`? | `preflow kinds clean` lists all fields");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: corpus, strenght: 1 }\n"), @"dir/p.yaml:6:35 [strenght] unknown field `strenght` in stage `a` | did you mean `strength`? | `preflow kinds clean` lists all fields");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: corpsu }\n"), @"dir/p.yaml:6:27 [corpsu] unknown reference `corpsu` | did you mean `corpus`?");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: elsewhere }\n"), @"dir/p.yaml:6:27 [elsewhere] unknown reference `elsewhere` | no source and no stage has this name");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: corpus.text }\n"), @"dir/p.yaml:6:27 [corpus.text] unknown reference `corpus.text` | `corpus` is a source: it has no ports");
    insta::assert_snapshot!(problems(
        "  a: { kind: clean, text: corpus }\n  b: { kind: clean, text: a.txt }\n"
    ), @"dir/p.yaml:7:27 [a.txt] stage `a` has no output `txt` | did you mean `text`?");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, run: { tread: 2 } }\n"), @"dir/p.yaml:6:39 [tread] unknown field `tread` in `run` of stage `a` | did you mean `threads`? | `run` takes checkpoint_every, device, env, gpus, memory, retries, threads, timeout");
}

#[test]
fn types_must_fit() {
    insta::assert_snapshot!(problems(
        "  a: { kind: clean, text: corpus }\n  b: { kind: compare, texts: a.report }\n"
    ), @"dir/p.yaml:7:30 [a.report] `a.report` does not fit input `texts` of stage `b` | is dataset/metrics, takes dataset/text | `a.text` fits");
    insta::assert_snapshot!(problems(
        "  a: { kind: cast, data: corpus, as: prompt }\n  b: { kind: compare, texts: a }\n"
    ), @"dir/p.yaml:7:30 [a] `a` does not fit input `texts` of stage `b` | is dataset/prompt, takes dataset/text | of this stage, `hints` takes dataset/prompt");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: [corpus] }\n"), @"dir/p.yaml:6:27 [[] input `text` takes one name | found a list | the name of a source, a stage, or `stage.port`");
    insta::assert_snapshot!(problems("  a: { kind: compare, texts: [corpus, corpus] }\n"), @"dir/p.yaml:6:39 [corpus] input `texts` names `corpus` twice");
    insta::assert_snapshot!(problems("  a: { kind: compare, texts: [] }\n"), @"dir/p.yaml:6:30 [[] input `texts` takes a name or a list of names | the list is empty | the name of a source, a stage, or `stage.port`");
    insta::assert_snapshot!(problems("  a: { kind: clean }\n"), @"dir/p.yaml:6:3 [a] stage `a` needs input `text` | text: What to clean (dataset/text or file)");
    insta::assert_snapshot!(problems("  a: { kind: cast, data: raw }\n"), @"dir/p.yaml:6:3 [a] stage `a` needs `as` | as: What the rows are");
}

#[test]
fn values_must_fit() {
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, rows: 5s }\n"), @"dir/p.yaml:6:38 [5s] `rows`: unit `s` does not fit | counts take k, M, G or T, as in `400k`");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, strength: 5k }\n"), @"dir/p.yaml:6:42 [5k] `strength`: unit `k` does not fit | it takes a plain number");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, rows: 2.5 }\n"), @"dir/p.yaml:6:38 [2.5] `rows` must be a whole number | found 2.5");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, rows: many }\n"), @r#"dir/p.yaml:6:38 [many] `rows` must be a whole number | found the text "many""#);
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, mode: fats }\n"), @"dir/p.yaml:6:38 [fats] `mode` must be fast or thorough | did you mean `fast`?");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, strength: -1 }\n"), @"dir/p.yaml:6:42 [-1] `strength` must be at least 0 | found -1.0");
    insta::assert_snapshot!(problems("  a: { kind: clean, text: raw, strength: .nan }\n"), @"dir/p.yaml:6:42 [.nan] numbers must be finite | not a finite number");
    insta::assert_snapshot!(problems(
        "  a: { kind: clean, text: raw, run: { memory: 4 potatoes, device: tpu } }\n"
    ), @r#"dir/p.yaml:6:47 [4 potatoes] `memory` must be a whole number | found the text "4 potatoes""#);
}

#[test]
fn cycles_are_named_in_full() {
    insta::assert_snapshot!(problems("  a: { kind: clean, text: a }\n"), @"dir/p.yaml:6:27 [a] stage `a` reads itself");
    insta::assert_snapshot!(problems(
        "  a: { kind: clean, text: c }\n  b: { kind: clean, text: a }\n  \
           c: { kind: clean, text: b }\n  d: { kind: clean, text: c }\n"
    ), @"dir/p.yaml:6:3 [a] stages wait for each other: a → b → c → a | the cycle");
}

#[test]
fn one_name_means_one_thing() {
    insta::assert_snapshot!(problems("  corpus: { kind: clean, text: raw }\n"), @"dir/p.yaml:6:3 [corpus] `corpus` names both a source and a stage | the source is on line 4 | rename one: a reference could mean either");
    insta::assert_snapshot!(problems(
        "  a: { kind: clean, text: raw }\n  a: { kind: clean, text: raw }\n"
    ), @"dir/p.yaml:7:3 [a] duplicate key `a` | already given on line 6");
    insta::assert_snapshot!(problems("  ../../etc/passwd: { kind: clean, text: raw }\n"), @"dir/p.yaml:6:3 [../../etc/passwd] `../../etc/passwd` cannot name a stage | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first");
    insta::assert_snapshot!(problems("  \"a\\0b\": { kind: clean, text: raw }\n"), @r#"dir/p.yaml:6:3 [\"a\\0b\"] `a\0b` cannot name a stage | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first"#);
    insta::assert_snapshot!(problems("  Upper: { kind: clean, text: raw }\n"), @"dir/p.yaml:6:3 [Upper] `Upper` cannot name a stage | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first");
    insta::assert_snapshot!(problems(
        "  a: { kind: command, command: ls, inputs: { ../x: raw }, outputs: { y: Some/Where } }\n"
    ), @r#"
    dir/p.yaml:6:46 [../x] `../x` cannot name a port | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first
    dir/p.yaml:6:73 [Some/Where] output `y` needs a type | a type such as `dataset/metrics`, `model/policy` or `file`
    "#);
}

#[test]
fn several_problems_are_told_at_once_and_nothing_twice() {
    insta::assert_snapshot!(problems(
        "  a: { kind: cleen, text: corpus }\n  b: { kind: clean, text: a, rows: x }\n  \
           c: { kind: compare, texts: [a, b, nobody] }\n"
    ), @r#"
    dir/p.yaml:6:14 [cleen] unknown kind `cleen` in stage `a` | did you mean `clean`? | `preflow kinds` lists them
    dir/p.yaml:7:36 [x] `rows` must be a whole number | found the text "x"
    dir/p.yaml:8:37 [nobody] unknown reference `nobody` | no source and no stage has this name
    "#);
}

#[test]
fn ten_thousand_stages_in_a_row_resolve() {
    let mut stages = String::from("  s0: { kind: clean, text: corpus }\n");
    for i in 1..10_000 {
        stages.push_str(&format!("  s{i}: {{ kind: clean, text: s{} }}\n", i - 1));
    }
    let graph = resolve(&stages).unwrap();
    assert_eq!(graph.stages.len(), 10_000);
    let closed = stages.replacen("text: corpus", "text: s9999", 1);
    let problems = problems(&closed);
    assert!(problems.contains("s0 → s1 → s2"), "{problems}");
    assert!(problems.contains("s9999 → s0"), "{problems}");
}

#[test]
fn gates_are_conditions_on_figures() {
    let gate = |text: &str| {
        resolve(&format!("  a: {{ kind: clean, text: raw, gate: {text} }}\n"))
            .map(|graph| graph.stages[0].gate.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|problems| crate::diagnostic::lines(&problems))
    };
    assert_eq!(
        gate("{ eval/accuracy: '>= 0.62', kl: ['> -1', '<=10'], x: '<1e-3' }").unwrap(),
        ["eval/accuracy >= 0.62", "kl > -1", "kl <= 10", "x < 0.001"]
    );
    insta::assert_snapshot!(
        [
            "{ a: '=> 1' }", "{ a: '== 1' }", "{ a: '>= much' }", "{ a: '>= NaN' }", "{ a: 0.62 }",
            "{ a: '0.62' }", "{ a: [] }", "{ a: { min: 1 } }", "{}", "'>= 0.62'", "~",
        ]
        .map(|text| gate(text).expect_err("it has a problem"))
        .join("\n"),
        @r#"
    dir/p.yaml:6:43 [\'=> 1\'] `a` needs a condition | `=>` is none of >=, >, <=, < | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [\'== 1\'] `a` needs a condition | `==` is none of >=, >, <=, < | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [\'>= much\'] `a` needs a condition | `much` is not a number | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [\'>= NaN\'] `a` needs a condition | `NaN` is not a number | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [0.62] `a` needs a condition | a number alone: at least, or at most? | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [\'0.62\'] `a` needs a condition | no comparison in front of the number | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [[] `a` needs a condition | the list is empty | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:43 [{] `a` needs a condition | not a text such as ">= 0.62" | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:38 [{] `gate` of stage `a` maps figures to conditions | found an empty map | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:38 [\'>= 0.62\'] `gate` of stage `a` maps figures to conditions | found text | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    dir/p.yaml:6:38 [~] `gate` of stage `a` maps figures to conditions | found nothing | gate: { FIGURE: ">= NUMBER" }, with >=, >, <= or <
    "#
    );
}

#[test]
fn a_gate_is_met_by_figures() {
    use gate::{Figures, sentence, unmet};
    let graph = resolve(
        "  a: { kind: clean, text: raw, gate: { acc: '>= 0.62', kl: '< 10', n: '> 0' } }\n",
    )
    .unwrap();
    let gate = &graph.stages[0].gate;
    let said = |acc: f64, kl: Option<f64>| {
        let figures: Figures =
            [("acc", Some(acc)), ("kl", kl), ("n", Some(1.0))].map(|(k, v)| (k.into(), v)).into();
        sentence(&unmet(gate, &figures))
    };
    assert_eq!(said(0.62, Some(9.9)), "");
    assert_eq!(said(0.58, Some(10.0)), "acc is 0.58, must be >= 0.62; kl is 10, must be < 10");
    assert_eq!(
        said(0.619_999, None),
        "acc is 0.619999, must be >= 0.62; kl is not a number, must be < 10"
    );
    let few: Figures = [("acc".to_owned(), Some(1.0)), ("kl".to_owned(), Some(1.0))].into();
    let unmet = unmet(gate, &few);
    assert_eq!(sentence(&unmet), "it reports no `n`; it reports acc, kl");
    assert!(unmet[0].is_mistake());
}

#[test]
fn a_kept_graph_is_the_graph() {
    let read = |path: &str| {
        let document = pipeline::open(path).expect("a document");
        let texts = document.texts.clone();
        let pipeline = document.into_pipeline(&Overrides::default()).expect("a pipeline");
        (Graph::resolve(&pipeline, &Catalog::builtin()).expect("a graph"), texts)
    };
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd.yaml");
    let text =
        "\u{feff}preflow: 1\nsources: { s: { path: 'ü.txt' } }\nstages: !include part.yaml\n";
    let part = "a: { kind: command, inputs: { i: s }, outputs: { o: file, p: dataset/text },\n  \
        command: [\"\\0\\u2028\", ''], run: { device: cpu, gpus: 1, env: [A] }, \
        gate: { x: '>= 1e-300' } }\n\
        b: { kind: command, inputs: { many: [a.p, s] }, outputs: { o: file }, command: x }\n";
    for (name, text) in [("odd.yaml", text), ("part.yaml", part)] {
        #[expect(clippy::disallowed_methods, reason = "a test's own file")]
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let shipped = ["smoke", "workshop", "algorithms", "import"];
    let mut paths: Vec<String> = shipped.iter().map(|n| format!("pipelines/{n}.yaml")).collect();
    paths.push(odd.display().to_string());
    for path in paths {
        let (graph, texts) = read(&path);
        let bytes = graph.to_bytes(&texts).expect("its places are in these texts");
        let kept = Graph::from_bytes(&texts, &bytes).expect("the same bytes");
        assert_eq!(kept, graph, "{path}");
        for (kept, stage) in kept.stages.iter().zip(&graph.stages) {
            // Numbers that are equal may still be written differently.
            let text = |s: &GraphStage| serde_json::to_string(&s.params).unwrap();
            assert_eq!(text(kept), text(stage));
        }
        assert!(Graph::from_bytes(&texts, &bytes[..bytes.len() - 1]).is_none());
        let short = [Arc::new(SourceText::new(&path, "short"))];
        assert!(Graph::from_bytes(&short, &bytes).is_none());
        assert!(Graph::from_bytes(&texts, b"").is_none());
        let others = [Arc::new(SourceText::new(&path, &texts[0].text))];
        assert!(graph.to_bytes(&others).is_none(), "its places are in another text");
    }
}
