//! Trackers that see a run while it happens, and runs that do not need them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::peer::{Asked, serve};
use crate::space::{Said, Space};

const FIGURES: &str = r#"
preflow: 1
name: tracked
params: { p: 0.25 }
stages:
  a:
    kind: command
    outputs: { o: file }
    command: 'echo "{\"loss\": ${p}}" > "$FIGURES"; echo x > "$OUT_o"'
  b:
    kind: command
    inputs: { i: a }
    outputs: { o: file }
    command: 'cp "$IN_i" "$OUT_o"'
"#;

/// A workspace with these trackers.
fn tracked(track: &str) -> Space {
    let space = Space::empty();
    space.write("p.yaml", FIGURES);
    space.write("preflow.yaml", &format!("preflow-workspace: 1\ntrack: {{ {track} }}\n"));
    space
}

fn run(space: &Space, words: &[&str]) -> Said {
    let mut command = space.command(&[&["run", "p.yaml"], words].concat());
    for name in ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_EXPERIMENT_NAME"] {
        command.env_remove(name);
    }
    Said::of(&command.output().expect("starts"), space.dir.path())
}

/// What MLflow was told: path, body.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A service that plays MLflow; it fails from the request of that number on.
fn mlflow(fails_from: usize) -> (String, Heard) {
    let heard = Heard::default();
    let kept = Arc::clone(&heard);
    let address = serve(move |asked: &Asked| {
        let mut heard = kept.lock().expect("kept");
        let path = asked.path.strip_prefix("/api/2.0/mlflow/").expect("the interface").to_owned();
        heard.push((path.clone(), asked.body.clone()));
        if heard.len() > fails_from {
            return (503, json!({ "message": "out of order" }));
        }
        match path.as_str() {
            "experiments/create" => (400, json!({ "error_code": "RESOURCE_ALREADY_EXISTS" })),
            path if path.starts_with("experiments/get-by-name") => {
                (200, json!({ "experiment": { "experiment_id": "7" } }))
            }
            "runs/create" => (200, json!({ "run": { "info": { "run_id": "r1" } } })),
            "runs/log-batch" | "runs/update" => (200, json!({})),
            _ => (404, Value::Null),
        }
    });
    (address, heard)
}

#[test]
fn mlflow_hears_params_figures_and_the_end() {
    let (address, heard) = mlflow(usize::MAX);
    let space = tracked(&format!("mlflow: '{address}'"));
    let said = run(&space, &[]);
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert!(!said.err.contains("mlflow"), "{}", said.err);
    let all = heard.lock().expect("heard").clone();
    let of = |path: &str| -> Vec<Value> {
        all.iter().filter(|(p, _)| p == path).map(|(_, body)| body.clone()).collect()
    };
    assert!(all.iter().any(|(path, _)| path == "experiments/get-by-name?experiment_name=tracked"));
    let made = &of("runs/create")[0];
    assert_eq!(made["experiment_id"], "7");
    let tags = made["tags"].as_array().expect("tags");
    assert!(tags.iter().any(|t| t["key"] == "preflow.command"), "{tags:?}");
    let logged = of("runs/log-batch");
    let params: Vec<&Value> =
        logged.iter().filter_map(|b| b["params"].as_array()).flatten().collect();
    assert!(params.contains(&&json!({ "key": "a.kind", "value": "command" })), "{params:?}");
    let metrics: Vec<&Value> =
        logged.iter().filter_map(|b| b["metrics"].as_array()).flatten().collect();
    let [loss] = metrics[..] else { panic!("{metrics:?}") };
    assert_eq!((&loss["key"], &loss["value"]), (&json!("a/loss"), &json!(0.25)));
    assert_eq!(of("runs/update")[0]["status"], "FINISHED");
    // A run with nothing to do is nothing to track, and the identity knows no tracker.
    let before = all.len();
    assert!(run(&space, &[]).out.contains("nothing to do"));
    space.write("preflow.yaml", "preflow-workspace: 1\n");
    assert!(run(&space, &[]).out.contains("nothing to do"));
    assert_eq!(heard.lock().expect("heard").len(), before);
}

#[test]
fn a_tracker_that_is_away_or_fails_in_the_middle_is_one_warning() {
    for (fails_from, address) in [(0, None), (4, None), (0, Some("http://127.0.0.1:9"))] {
        let (server, _) = mlflow(fails_from);
        let space = tracked(&format!("mlflow: '{}'", address.unwrap_or(&server)));
        let said = run(&space, &[]);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        assert_eq!(said.err.matches("mlflow does not track this run").count(), 1, "{}", said.err);
        assert!(said.out.contains("2 done"), "{}", said.out);
    }
}

#[test]
fn what_is_missing_for_a_tracker_is_named() {
    let space = tracked("trackio: ours");
    let mut command = space.command(&["run", "p.yaml"]);
    command.env("PYTHONPATH", "").env("PYTHONNOUSERSITE", "1");
    let said = Said::of(&command.output().expect("starts"), space.dir.path());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let away = "the package trackio is not installed";
    assert!(said.err.contains(away) || said.err.is_empty(), "{}", said.err);
    for (track, problem) in [
        ("mlfow: x", "did you mean `mlflow`"),
        ("mlflow: localhost", "the address of a server"),
        ("wandb: yes", "`offline` or `online`"),
        ("trackio: ''", "the name of a project"),
    ] {
        let said = run(&tracked(track), &[]);
        assert_eq!(said.code, Some(2), "{track}: {}", said.err);
        assert!(said.err.contains(problem) && said.err.contains("preflow.yaml:2"), "{}", said.err);
    }
}

/// A module that lies where the user stands is never loaded.
#[test]
fn nothing_of_a_cloned_repository_is_run_as_a_tracker() {
    let space = tracked("trackio: ours");
    space.write("trackio.py", "open('pwned', 'w')\n");
    space.write("json.py", "open('pwned', 'w')\n");
    let said = run(&space, &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!space.path("pwned").exists(), "{}", said.err);
}

#[test]
fn tensorboard_files_grow_while_a_run_goes_on() {
    let space = tracked("tensorboard: events");
    assert_eq!(run(&space, &[]).code, Some(0));
    let files = space.files("events");
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(file.ends_with("a/events.out.tfevents.preflow"), "{file:?}");
    let bytes = std::fs::read(file).expect("read");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    assert!(has(b"brain.Event:2") && has(b"loss"));
}
