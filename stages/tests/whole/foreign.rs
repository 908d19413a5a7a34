//! A team's own worker, in another language: its kinds are checked, completed, explained and cached
//! like the built-in ones.

use crate::workspace::{Workspace, stages};

const QUESTIONS: &str = "pipelines/foreign/questions.yaml";

#[test]
fn kinds_of_a_workspaces_own_worker_stand_beside_the_built_in_ones() {
    let space = Workspace::new();
    let text = space.ok(&["run", QUESTIONS]);
    assert_eq!(stages(&text, "▸ "), ["asked", "prompts"], "{text}");
    assert!(text.contains("rows/kept 5"), "the built-in kind reads what it made: {text}");
    assert!(space.ok(&["run", QUESTIONS]).contains("nothing to do"));
    let plan = space.ok(&["plan", QUESTIONS, "--set", "template='tell {object}'"]);
    assert!(plan.contains("template what do i need for the {object} ? → tell {object}"), "{plan}");

    // Wrong params are found before anything runs; wrong rows by the worker, with its words.
    let folder = space.0.path().join("pipelines/foreign");
    let file = folder.join("questions.yaml");
    let good = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, good.replace("most: 6", "mst: 6")).expect("written");
    let (said, code) = space.preflow(&["check", QUESTIONS]);
    assert!(code == Some(2) && said.contains("did you mean `most`?"), "{said}");
    std::fs::write(&file, &good).expect("written");
    let (said, code) = space.preflow(&["run", QUESTIONS, "--set", "template='{subject}'"]);
    assert!(code == Some(1) && said.contains("has no field 'subject'"), "{said}");

    // The version is the worker's: another one runs again, and says so.
    let worker = folder.join("worker.py");
    let code = std::fs::read_to_string(&worker).expect("read");
    std::fs::write(&worker, code.replace("\"version\": 1", "\"version\": 2")).expect("written");
    let plan = space.ok(&["plan", QUESTIONS]);
    assert!(plan.contains("prompts_from@1 → prompts_from@2"), "{plan}");

    // A worker that cannot be used is named where the workspace file names it.
    std::fs::write(&worker, "import nonsense\n").expect("written");
    let (said, code) = space.preflow(&["plan", QUESTIONS]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("preflow.yaml:4:3") && said.contains("nonsense"), "{said}");
}

#[test]
fn what_is_asked_of_the_log_reaches_the_worker() {
    let space = Workspace::empty();
    let write = |name: &str, text: &str| {
        std::fs::write(space.0.path().join(name), text).expect("written");
    };
    write("rows.jsonl", "{\"prompt\": \"one\"}\n");
    write(
        "p.yaml",
        "preflow: 1\nsources: { rows: { path: rows.jsonl, as: prompt } }\nstages: { kept: { kind: \
         prepare, data: rows, as: prompt } }\n",
    );
    let run = |filter: &str| {
        let mut command = std::process::Command::new(space.program());
        let (said, code) = space
            .run(command.args(["run", "p.yaml", "--force", "kept"]).env("PREFLOW_LOG", filter));
        assert_eq!(code, Some(0), "{said}");
        space.ok(&["logs", "p.yaml", "kept"])
    };
    let log = run("worker=info");
    assert!(log.contains("INFO task{kind=\"prepare\"") && log.contains("made seconds="), "{log}");
    assert!(!run("store=trace").contains("task{kind"), "that is the orchestrator's");
}
