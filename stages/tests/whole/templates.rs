//! What `preflow init` writes runs as it is.

use std::path::Path;

use crate::workspace::Workspace;

/// A workspace made from a template.
fn made(template: &str) -> Workspace {
    let space = Workspace::empty();
    let said = space.ok(&["init", ".", "--template", template]);
    assert!(said.contains("files in ."), "{said}");
    let again = space.ok(&["init", ".", "--template", template]);
    assert!(again.contains("nothing to add in ."), "{again}");
    space
}

/// The commands of the template's README, as typed.
fn commands(space: &Workspace) -> Vec<String> {
    let readme = std::fs::read_to_string(space.0.path().join("README.md")).expect("README");
    let commands = readme.lines().filter_map(|l| l.strip_prefix("    preflow "));
    commands.map(str::to_owned).collect()
}

fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

#[test]
fn the_tiny_pipeline_and_its_ablation_run() {
    let space = made("ablation");
    let plan = space.ok(&["sweep", "plan", "sweeps/kl.yaml"]);
    assert!(plan.contains("6 trials × 8 stages = 48; 23 unique; 0 cached; 23 to run"), "{plan}");
    let tiny = made("tiny");
    for command in commands(&tiny).iter().filter(|c| !c.contains("--wait")) {
        tiny.ok(&words(command));
    }
    let (text, code) = tiny.preflow(&["run", "pipelines/tiny.yaml", "--profile", "people"]);
    assert!(code == Some(3) && text.contains("0 of 60 votes"), "{text}");
}

#[test]
fn labels_only_asks_people_about_answers_that_are_there() {
    let space = made("labels-only");
    let (text, code) = space.preflow(&["run", "pipelines/labels.yaml"]);
    assert!(code == Some(3) && text.contains("0 of 6 votes"), "{text}");
    let stats = commands(&space).into_iter().find(|c| c.starts_with("label stats")).expect("shown");
    assert!(space.ok(&words(&stats)).contains("nobody has voted yet"));
    let export = commands(&space).into_iter().find(|c| c.starts_with("label export"));
    let (text, code) = space.preflow(&words(&export.expect("shown")));
    assert!(code != Some(0) && text.contains("labels"), "there are none yet: {text}");
}

#[test]
fn import_and_align_says_what_to_bring() {
    let space = made("import-and-align");
    space.ok(&["check", "pipelines/align.yaml"]);
    let (text, code) = space.preflow(&["run", "pipelines/align.yaml"]);
    assert!(code == Some(2) && text.contains("models/base"), "{text}");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
    crate::workspace::copy(&model, &space.0.path().join("models/base"));
    // The fixture is too small a model to hold the conversations.
    let text = space.ok(&["run", "pipelines/align.yaml", "imported"]);
    assert!(text.contains("Qwen2ForCausalLM"), "{text}");
}
