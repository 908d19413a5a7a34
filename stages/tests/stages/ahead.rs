//! What the worker says of stages before they run, and that it says nothing of sound ones.

use std::io::Write as _;
use std::process::{Command, Stdio};

use preflow::protocol::{
    ConnectionSpec, PROTOCOL, ProblemDoc, StageSpec, ValidateDoc, ValidateSpec,
};
use preflow_stages::kinds::KINDS;
use serde_json::{Value, json};

use crate::harness::*;

/// A pipeline under question.
struct Asked(Vec<StageSpec>);

/// What an input is connected to.
#[derive(Clone)]
enum From<'a> {
    Source(&'a str, Vec<String>),
    Stage(&'a str),
}

impl Asked {
    fn add(&mut self, name: &str, kind: &str, params: Value, inputs: Vec<(&str, From)>) {
        let entry = KINDS.iter().find(|k| k.name == kind).expect("a kind");
        let Value::Object(params) = params else { panic!("params are a map") };
        let connection = |from: From| match from {
            From::Source(port_type, paths) => ConnectionSpec {
                name: "source".into(),
                port_type: port_type.into(),
                stage: None,
                paths,
            },
            From::Stage(name) => ConnectionSpec {
                name: name.into(),
                port_type: "any".into(),
                stage: self.0.iter().position(|s| s.stage == name),
                paths: Vec::new(),
            },
        };
        let mut connected = std::collections::BTreeMap::<String, Vec<ConnectionSpec>>::new();
        for (port, from) in inputs {
            connected.entry(port.into()).or_default().push(connection(from));
        }
        self.0.push(StageSpec {
            stage: name.into(),
            kind: kind.into(),
            version: entry.version,
            params: complete(params, &entry.describe().params),
            inputs: connected,
            wanted: true,
        });
    }

    /// Asks the real worker about the last stage; `field: message` a line.
    fn problems(&mut self) -> String {
        let last = self.0.len() - 1;
        for (i, stage) in self.0.iter_mut().enumerate() {
            stage.wanted = i == last;
        }
        let question = ValidateSpec { protocol: PROTOCOL, inputs: true, stages: self.0.clone() };
        let doc = answer(&question);
        assert!(doc.problems.iter().all(|p| p.stage == last));
        let line = |p: &ProblemDoc| {
            format!("{}: {} ({})\n", p.field, p.message, p.help.as_deref().unwrap_or_default())
        };
        self.0.pop();
        doc.problems.iter().map(line).collect()
    }

    fn of(&mut self, kind: &str, params: Value, inputs: Vec<(&str, From)>) -> String {
        self.add("stage", kind, params, inputs);
        self.problems()
    }
}

/// What the real worker answers.
fn answer(question: &ValidateSpec) -> ValidateDoc {
    let mut child = Command::new(WORKER)
        .arg("validate")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&serde_json::to_vec(question).expect("JSON")).expect("written");
    drop(stdin);
    let out = child.wait_with_output().expect("ended");
    serde_json::from_slice(&out.stdout).expect("an answer")
}

fn base() -> Asked {
    let mut asked = Asked(Vec::new());
    let shape = json!({"layers": 1, "hidden": 16, "heads": 2, "context": 32});
    asked.add("base", "pretrain", json!({"model": shape}), vec![]);
    asked.add("sft", "sft", json!({}), vec![("model", From::Stage("base"))]);
    asked
}

#[test]
fn relations_between_params_are_known_before_anything_runs() {
    let mut asked = base();
    let policy = || vec![("policy", From::Stage("sft"))];
    let rules = |pattern: &str| json!([{"name": "r", "score": 1.0, "match": pattern}]);
    let model = |heads: u32| json!({"model": {"hidden": 64, "heads": heads}});
    let text = || vec![("tokenizer", From::Stage("base"))];
    let on = || vec![("base", From::Stage("sft"))];
    for (kind, params, inputs, says) in [
        (
            "pretrain",
            model(5),
            text(),
            "model: model.hidden 64 must be an even multiple of heads 5",
        ),
        ("pretrain", model(4), text(), ""),
        ("pretrain", model(4), vec![], "neither `tokenizer` nor `base` is connected"),
        ("pretrain", json!({}), on(), ""),
        ("pretrain", model(4), on(), "model: `model` gives sizes, but `base` has its own"),
        (
            "pretrain",
            json!({}),
            [text(), on()].concat(),
            "tokenizer: `tokenizer` and `base` are both connected",
        ),
        ("sft", json!({"lora": {"keep": true}}), policy(), "lora: `lora.keep` keeps adapters"),
        ("train_reward", json!({"lora": {"rank": 2, "keep": true}}), vec![], "lora: `lora.keep`"),
        ("tokenizer", json!({"vocab_size": 100}), vec![], "vocab_size: a vocabulary of 100 is too"),
        (
            "sample_pairs",
            json!({"max_tokens": 29}),
            policy(),
            "max_tokens: max_tokens 29 leaves no",
        ),
        ("sample_pairs", json!({"max_tokens": 28}), policy(), ""),
        (
            "grpo",
            json!({"batch": 32, "group": 5, "rewards": {"rules": rules("a")}}),
            policy(),
            "group: batch 32 must be a multiple of group 5",
        ),
        ("grpo", json!({"batch": 32, "group": 4, "rewards": {"rules": rules("a")}}), policy(), ""),
        (
            "rloo",
            json!({"rewards": {"rules": rules("^[A-Z")}}),
            policy(),
            "rewards.rules: rule `r`: bad match",
        ),
        (
            "online_dpo",
            json!({"clip": 0.1, "rewards": {"rules": rules("a")}}),
            policy(),
            "clip does nothing in online_dpo",
        ),
        (
            "online_dpo",
            json!({"kl_coef": 0.0, "rewards": {"rules": rules("a")}}),
            policy(),
            "kl_coef must be above 0",
        ),
        ("online_dpo", json!({"rewards": {"rules": rules("a")}}), policy(), ""),
        ("ppo", json!({}), policy(), "rewards: nothing says what a response is worth"),
        (
            "evaluate",
            json!({"rules": rules("a"), "baseline": "stf"}),
            vec![("policies", From::Stage("sft"))],
            "baseline `stf` is not one of the policies sft",
        ),
        (
            "evaluate",
            json!({"rules": rules("a"), "baseline": "sft"}),
            vec![("policies", From::Stage("sft"))],
            "",
        ),
        ("prepare", json!({"as": "text", "unit": "pages"}), vec![], "unit: `pages` is not one of"),
        ("reinforce", json!({}), policy(), "verdicts: there is nothing to learn from"),
        (
            "collect_labels",
            json!({"labeler": {"simulated": {"rules": []}}}),
            vec![],
            "without rules finds every pair a tie",
        ),
        (
            "collect_labels",
            json!({"labeler": {"simulated": {"rules": rules("a")}}}),
            vec![],
            "pairs: input `pairs` is not connected",
        ),
        (
            "collect_labels",
            json!({"labeler": {"people": {"votes": "v", "reuse": "all"}}}),
            vec![],
            "",
        ),
        (
            "collect_labels",
            json!({"labeler": {"judge": {"endpoint": "localhost:1", "model": "m"}}}),
            vec![("pairs", From::Stage("sft"))],
            "labeler.judge.endpoint: labeler.judge.endpoint: `localhost:1` is no http address",
        ),
        ("sample_pairs", json!({"top_p": 0.0}), policy(), "top_p: `top_p` must lie between"),
        ("sample", json!({"top_p": 0.0}), vec![], "top_p: `top_p` must lie between"),
        ("train_reward", json!({"eval_fraction": 0.0}), vec![], "eval_fraction: no label is left"),
        (
            "train_reward",
            json!({"eval_fraction": 0.0}),
            vec![("eval_labels", From::Stage("sft"))],
            "",
        ),
        (
            "reinforce",
            json!({"baseline": "leave_one_out", "rewards": {"rules": rules("a")}}),
            vec![("policy", From::Stage("sft")), ("prompts", From::Stage("sft"))],
            "baseline: baseline leave_one_out needs group 2",
        ),
        (
            "evaluate",
            json!({"max_tokens": 29, "rules": rules("a")}),
            vec![("policies", From::Stage("base")), ("policies", From::Stage("sft"))],
            "max_tokens: max_tokens 29 leaves no room for a prompt in a context of 32 tokens (`base`)",
        ),
        (
            "evaluate",
            json!({"rules": rules("a"), "people": {"sft": "votes"}}),
            vec![("policies", From::Stage("sft"))],
            "people: `people` names the unknown labels `votes`",
        ),
    ] {
        let found = asked.of(kind, params.clone(), inputs);
        let as_expected = if says.is_empty() { found.is_empty() } else { found.contains(says) };
        assert!(as_expected, "{kind} {params}: {found}");
    }
}

#[test]
fn nothing_is_known_of_a_model_that_a_program_made_from_another() {
    let mut asked = base();
    // Pretraining that goes on keeps the context of what it goes on from.
    asked.add("more", "pretrain", json!({}), vec![("base", From::Stage("base"))]);
    let found =
        asked.of("sample", json!({"max_tokens": 100}), vec![("model", From::Stage("more"))]);
    assert!(found.contains("in a context of 32 tokens"), "{found}");
    asked.add("longer", "command", json!({"command": ["x"]}), vec![("model", From::Stage("base"))]);
    let answers = json!({"max_tokens": 100});
    let found = asked.of("sample", answers.clone(), vec![("model", From::Stage("longer"))]);
    assert_eq!(found, "");
    let found = asked.of("sample", answers, vec![("model", From::Stage("sft"))]);
    assert!(found.contains("max_tokens 100 leaves no room"), "{found}");
}

#[test]
fn votes_that_can_never_come_are_not_waited_for() {
    let mut asked = base();
    asked.add("pairs", "sample_pairs", json!({"pairs": 30}), vec![("policy", From::Stage("sft"))]);
    let people = |votes: u64, overlap: Value| json!({"labeler": {"people": {"votes": "votes", "overlap": overlap, "question": "?", "aggregate": "majority", "reuse": "sampled", "order": "random"}}, "ready_when": {"votes": votes}});
    let half = json!({"fraction": 0.5, "annotators": 3});
    for (params, says) in [
        (
            people(31, json!({})),
            "ready_when.votes: `ready_when` asks for 31 votes, but the pairs can give 30",
        ),
        (people(30, json!({})), ""),
        // Fifteen pairs are seen three times.
        (people(61, half.clone()), "can give 60 at most"),
        (people(60, half), ""),
    ] {
        let found =
            asked.of("collect_labels", params.clone(), vec![("pairs", From::Stage("pairs"))]);
        let as_expected = if says.is_empty() { found.is_empty() } else { found.contains(says) };
        assert!(as_expected, "{params}: {found}");
    }
    // Imported votes may be more than that.
    let votes = From::Source("votes", vec!["votes".into()]);
    let inputs = vec![("pairs", From::Stage("pairs")), ("votes", votes)];
    assert_eq!(asked.of("collect_labels", people(31, json!({})), inputs), "");
}

#[test]
fn columns_and_cells_of_sources_are_looked_at_in_their_first_rows() {
    let shop = Workshop::new();
    let file =
        |name: &str, text: &str| vec![shop.write(name, text).to_str().expect("UTF-8").to_owned()];
    let mut asked = base();
    let demos = |paths: Vec<String>| {
        vec![
            ("model", From::Stage("base")),
            ("demos", From::Source("dataset/prompt_completion", paths)),
        ]
    };
    let wrong = file("a.jsonl", "{\"ask\": \"a\", \"output\": \"b\"}\n");
    let found = asked.of("sft", json!({}), demos(wrong.clone()));
    let says = "demos: source `source`: no column `prompt`; the columns are `ask`, `output`";
    assert!(found.contains(says), "{found}");
    let nested = file("b.jsonl", "{\"prompt\": \"a\", \"completion\": [\"b\"]}\n");
    let found = asked.of("sft", json!({}), demos(nested));
    assert!(found.contains("column `completion` holds a list"), "{found}");
    let sound = file("c.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    assert_eq!(asked.of("sft", json!({}), demos(sound)), "");
    // What a kind makes of cells.
    let unpaired = "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}\n";
    let found = asked.of("sft", json!({}), demos(file("kto.jsonl", unpaired)));
    assert!(found.contains("column `label` is false"), "{found}");
    let turns = json!({"messages": [{"role": "assistant", "content": null}]}).to_string();
    let chat = vec![
        ("model", From::Stage("base")),
        ("demos", From::Source("dataset/messages", file("chat.jsonl", &turns))),
    ];
    let found = asked.of("sft", json!({}), chat);
    assert!(found.contains("message 1 (assistant) says nothing"), "{found}");
    for (role, says) in
        [("critic", "unknown role `critic`"), ("user", "no message of the assistant")]
    {
        let turns = json!({"messages": [{"role": role, "content": "a"}]}).to_string();
        let chat = vec![
            ("model", From::Stage("base")),
            ("demos", From::Source("dataset/messages", file("roles.jsonl", &turns))),
        ];
        let found = asked.of("sft", json!({}), chat);
        assert!(found.contains(says), "{found}");
    }
    let both = "{\"prompt\": \"a\", \"completion\": \"b\", \"messages\": []}\n";
    let found = asked.of("sft", json!({}), demos(file("both.jsonl", both)));
    assert!(found.contains("`messages` beside `prompt` and `completion`"), "{found}");
    let chat = vec![
        ("model", From::Stage("base")),
        ("demos", From::Source("dataset/messages", file("from.jsonl", "{\"dialog\": []}"))),
    ];
    let found = asked.of("sft", json!({}), chat);
    assert!(found.contains("maps columns: `columns: { messages: … }`"), "{found}");
    let labels = |text: &str| {
        vec![
            ("policy", From::Stage("sft")),
            ("labels", From::Source("dataset/labels", file("l.jsonl", text))),
        ]
    };
    let row = |choice: &str| {
        json!({"prompt": "p", "chosen": "a", "rejected": "b", "choice": choice}).to_string()
    };
    assert_eq!(asked.of("dpo", json!({}), labels(&row("tie"))), "");
    let found = asked.of("dpo", json!({}), labels(&row("left")));
    assert!(found.contains("column `choice` holds the text (`left`)"), "{found}");
    let row = json!({"prompt": "p", "chosen": "a", "rejected": "b", "strength": "much"});
    let found = asked.of("dpo", json!({}), labels(&row.to_string()));
    assert!(found.contains("column `strength` holds the text (`much`)"), "{found}");
    let found = asked.of("dpo", json!({}), labels("{\"chosen\": \"a\", \"rejected\": \"b\"}"));
    assert!(found.contains("no column `prompt`"), "{found}");
    assert!(found.contains("`preflow label import FILE --votes DIR`"), "{found}");
    // Far down in a large file nobody looks.
    let rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\n".repeat(150);
    let late = file("d.jsonl", &format!("{rows}[]\n"));
    assert_eq!(asked.of("sft", json!({}), demos(late)), "");
    let data = |paths: Vec<String>| vec![("data", From::Source("file", paths))];
    let mapped = json!({"as": "prompt", "columns": {"prompt": "question"}});
    let found = asked.of("prepare", mapped, data(wrong.clone()));
    assert!(found.starts_with("columns: source `source`: no column `question`"), "{found}");
    let mapped = json!({"as": "prompt", "columns": {"prompt": "ask"}});
    assert_eq!(asked.of("prepare", mapped, data(wrong)), "");
    // Cells that fail the stage, and do not where they may be left out.
    let gap = file("gap.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": null}\n");
    let found = asked.of("prepare", json!({"as": "prompt"}), data(gap.clone()));
    assert!(found.contains("gap.jsonl: column `prompt` is empty"), "{found}");
    let skipping = json!({"as": "prompt", "on_bad_row": "skip"});
    assert_eq!(asked.of("prepare", skipping, data(gap)), "");
    let head = file("head.csv", "prompt,completion\n");
    let found = asked.of("prepare", json!({"as": "prompt"}), data(head.clone()));
    assert!(found.contains("head.csv has no rows"), "{found}");
    let found = asked.of("sft", json!({}), demos(head));
    assert!(found.contains("head.csv has no rows"), "{found}");
    let table = file("kto.csv", "prompt,completion,label\na,b,True\nc,d,False\n");
    let found = asked.of("sft", json!({}), demos(table));
    assert!(found.contains("row 2 of ") && found.contains("column `label` is false"), "{found}");
    let classes = file("classes.csv", "prompt,completion,label\na,b,false\nc,d,sport\n");
    assert_eq!(asked.of("sft", json!({}), demos(classes)), "");
    // Rules name columns of the prompts.
    let prompts = file("p.jsonl", "{\"prompt\": \"a\", \"colour\": \"red\"}\n");
    let rules = |pattern: &str| json!({"rules": [{"name": "r", "score": 1.0, "match": pattern}]});
    let inputs = |prompts: &Vec<String>| {
        vec![
            ("policies", From::Stage("sft")),
            ("prompts", From::Source("dataset/prompt", prompts.clone())),
        ]
    };
    assert_eq!(asked.of("evaluate", rules("{colour}"), inputs(&prompts)), "");
    let found = asked.of("evaluate", rules("{color}"), inputs(&prompts));
    assert!(found.contains("rules: rule `r`: the prompts have no column `color`"), "{found}");
    let pointer = file("e.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    let text = vec![("text", From::Source("dataset/text", pointer))];
    let found = asked.of("tokenizer", json!({}), text);
    assert!(found.contains("is a pointer of Git LFS"), "{found}");
}

#[test]
fn every_figure_of_the_golden_runs_was_announced() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/figures.json");
    let golden: Value = serde_json::from_slice(&fs_err::read(golden).expect("read")).expect("JSON");
    let names = ["base", "sft", "ppo"];
    let mut stages: Vec<StageSpec> = Vec::new();
    let mut kinds = Vec::new();
    for (name, kind, params, _) in crate::golden::stages() {
        let mut asked = Asked(std::mem::take(&mut stages));
        let inputs = match kind {
            "evaluate" => names.map(|n| ("policies", From::Stage(n))).to_vec(),
            _ => vec![],
        };
        asked.add(name, kind, params, inputs);
        stages = asked.0;
        kinds.push(kind);
    }
    let doc = answer(&ValidateSpec { protocol: PROTOCOL, inputs: false, stages });
    let mut seen = 0;
    for (place, kind) in kinds.iter().enumerate() {
        let announced = &doc.figures[&place];
        let known = |name: &str| {
            announced.iter().any(|p| match p.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => p == name,
            })
        };
        for name in golden[kind].as_object().expect("figures").keys() {
            assert!(known(name), "{kind}: `{name}` is not among {announced:?}");
            seen += 1;
        }
        assert!(!known("eval/gould/ppo"), "{kind}");
    }
    assert!(seen > 150, "{seen}");
}
