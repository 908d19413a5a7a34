//! What the verbs print.
//! Knows the embedded catalog only through the `schema` test.

use serde_json::json;

use super::*;
use crate::catalog::editor;
use crate::project::resolved;
use crate::report::drawing::{Drawing, draw};

const CATALOG: &str = r#"{ "protocol": 1, "kinds": [
  { "name": "train", "version": 3, "summary": "Train a model",
    "inputs": [
      { "name": "text", "accepts": ["dataset/text"], "doc": "Corpus" },
      { "name": "hints", "accepts": ["dataset/prompt"], "many": true, "optional": true, "doc": "Hints" }],
    "outputs": [{ "name": "model", "type": "model/policy", "extension": "", "doc": "The model" },
                { "name": "curve", "type": "dataset/metrics", "extension": "parquet", "doc": "Curve" }],
    "params": { "type": "object", "additionalProperties": false, "required": ["lr"], "properties": {
      "lr": { "type": "number", "description": "Learning rate" },
      "tokens": { "type": "integer", "x-unit": "count", "default": 1000, "description": "Length" },
      "shape": { "type": "object", "additionalProperties": false, "default": {}, "properties": {
        "layers": { "type": "integer", "default": 2, "description": "Blocks" } } },
      "mode": { "enum": ["fast", "slow"], "default": "fast", "description": "Pace" } } } },
  { "name": "command", "version": 1, "summary": "Any program", "inputs": [], "outputs": [],
    "params": { "type": "object", "additionalProperties": false, "required": ["command"],
      "properties": { "command": { "type": "string" } } },
    "open_ports": { "inputs": "inputs", "outputs": "outputs" },
    "program": { "command": "command" } } ] }"#;

const PIPELINE: &str = "preflow: 1\nparams: { lr: 1, cost: '$$5' }\nsources:\n  \
    corpus: { path: ../c.parquet, as: text }\nstages:\n  \
    measure: { kind: command, command: 'du ${cost} $HOME', inputs: { model: base, curve: base.curve }, outputs: { size: file } }\n  \
    base: { kind: train, text: corpus, lr: $lr, tokens: 4k, run: { threads: 2, timeout: 30m } }\n";

fn resolved(text: &str) -> (Pipeline, Graph) {
    let files = std::rc::Rc::new(|_: &std::path::Path| Err(std::io::Error::other("no files")));
    let sets = ["lr=2e-3".to_owned()];
    let pipeline = pipeline::parse("dir/p.yaml", text, None, &sets, files).unwrap();
    let graph = Graph::resolve(&pipeline, &Catalog::parse(CATALOG).unwrap()).unwrap();
    (pipeline, graph)
}

#[test]
fn config_shows_every_value_and_its_origin() {
    let (pipeline, graph) = resolved(PIPELINE);
    let yaml = resolved::as_yaml(&pipeline, &graph);
    insta::assert_snapshot!(yaml, @r#"
    preflow: 1
    name: p
    params:
      lr: 0.002                   # --set lr=2e-3
      cost: "$$5"                 # dir/p.yaml:2
    sources:
      corpus:
        path: "../c.parquet"      # dir/p.yaml:4
        as: dataset/text          # dir/p.yaml:4
    stages:
      measure:                    # dir/p.yaml:6
        kind: command             # version 1
        inputs: { curve: base.curve, model: base }  # dir/p.yaml:6
        outputs: { size: file }   # dir/p.yaml:6
        command: "du $$5 $$HOME"  # $cost: dir/p.yaml:2
      base:                       # dir/p.yaml:7
        kind: train               # version 3
        text: corpus              # dir/p.yaml:7
        lr: 0.002                 # $lr: --set lr=2e-3
        mode: fast                # default
        shape:
          layers: 2               # default
        tokens: 4000              # dir/p.yaml:7
        run:                      # not part of the identity
          threads: 2              # dir/p.yaml:7
          timeout: 1800.0         # dir/p.yaml:7
    "#);
    let (_, again) = resolved(&yaml);
    let params = |graph: &Graph| {
        graph.stages.iter().map(|s| (s.name.clone(), s.params.clone())).collect::<Vec<_>>()
    };
    assert_eq!(params(&graph), params(&again), "it means the same");
}

#[test]
fn graphs_are_drawn() {
    let (_, graph) = resolved(PIPELINE);
    insta::assert_snapshot!(draw(&graph, Drawing::Text), @r#"
    corpus   ·        c.parquet (dataset/text)
    base     train    text ← corpus
    measure  command  curve ← base.curve, model ← base
    "#);
    insta::assert_snapshot!(draw(&graph, Drawing::Dot), @r#"
    digraph "p" {
      rankdir=LR;
      node [shape=box];
      source0 [label="corpus", shape=note];
      stage0 [label="base\ntrain"];
      stage1 [label="measure\ncommand"];
      source0 -> stage0 [label="text"];
      stage0 -> stage1 [label="curve"];
      stage0 -> stage1 [label="model"];
    }
    "#);
    insta::assert_snapshot!(draw(&graph, Drawing::Mermaid), @r#"
    flowchart LR
      source0[/"corpus"/]
      stage0["base<br/><small>train</small>"]
      stage1["measure<br/><small>command</small>"]
      source0 -->|text| stage0
      stage0 -->|curve| stage1
      stage0 -->|model| stage1
    "#);
}

#[test]
fn the_editor_schema_says_what_check_says() {
    let schema = editor::schema(&Catalog::parse(CATALOG).unwrap());
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let stage = |stage: serde_json::Value| {
        validator.is_valid(&json!({ "preflow": 1, "stages": { "a": stage } }))
    };
    let good = json!({ "kind": "train", "text": "corpus", "lr": 1, "run": { "timeout": "30m" } });
    assert!(stage(good.clone()));
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        changed[key] = value;
        stage(changed)
    };
    for (key, value) in [
        ("lr", json!("$lr")),
        ("tokens", json!("4k")),
        ("tokens", json!(4)),
        ("shape", json!({ "layers": "$layers" })),
        ("shape", json!("$shape")),
        ("mode", json!("slow")),
        ("hints", json!("a.b")),
        ("hints", json!(["a", "b"])),
    ] {
        assert!(with(key, value.clone()), "{key}: {value}");
    }
    for (key, value) in [
        ("lr", json!("fast")),
        ("tokens", json!("4s")),
        ("shape", json!({ "layer": 1 })),
        ("mode", json!("slwo")),
        ("text", json!(["a"])),
        ("kind", json!("trian")),
        ("learning", json!(1)),
        ("run", json!({ "thread": 1 })),
    ] {
        assert!(!with(key, value.clone()), "{key}: {value}");
    }
    assert!(!validator.is_valid(&json!({ "preflow": 2, "stages": {} })));
    assert!(jsonschema::draft7::new(&editor::schema(&Catalog::builtin())).is_ok());
}

#[test]
fn the_command_line_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}
