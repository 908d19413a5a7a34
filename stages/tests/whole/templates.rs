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

/// A folder of a model as large as real ones are, all zeros, which take no room.
fn large_model(folder: &Path) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
    crate::workspace::copy(&model, folder);
    let weights = std::fs::File::create(folder.join("model.safetensors")).expect("a file");
    weights.set_len(4 * 135_000_000).expect("as long as 135 M weights");
}

#[test]
fn align_real_fits_a_real_model_and_what_does_not_is_told() {
    let space = made("align-real");
    large_model(&space.0.path().join("models/instruct"));
    assert_eq!(
        space.ok(&["check", "pipelines/real.yaml"]),
        "ok: 9 stages; `plan` looks at the data too\n"
    );
    let path = space.0.path().join("pipelines/real.yaml");
    let real = std::fs::read_to_string(&path).expect("the pipeline");
    let with = |from: &str, to: &str| {
        assert!(real.contains(from), "{from}");
        std::fs::write(&path, real.replacen(from, to, 1)).expect("written");
        let (text, code) = space.preflow(&["check", "pipelines/real.yaml"]);
        assert_eq!(code, Some(0), "a warning stops nothing: {text}");
        text
    };
    let own = "lr: 1.0e-5 # 1e-6 without adapters\n    lora: &adapters { rank: 16, alpha: 32 }";
    let full = "lr: 1.0e-4\n    lora: &adapters { rank: 0 }";
    let text = with(own, full);
    assert!(text.contains("stage `dpo`: lr 1e-4 for all weights of the imported model"), "{text}");
    assert!(text.contains("(135 M weights) likely ruins it: 5e-7 to 5e-6 is usual"), "{text}");
    let text = with("lr: 1.0e-5 # 1e-6 without adapters", "lr: 2.0e-7");
    assert!(text.contains("lr 2e-7 for adapters of") && text.contains("hardly moves"), "{text}");
    let text = with("max_tokens: 256", "max_tokens: 24");
    assert_eq!(text.matches("cuts most answers of the imported model").count(), 2, "{text}");
    // A toy wants larger steps.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
    std::fs::remove_dir_all(space.0.path().join("models/instruct")).expect("removed");
    crate::workspace::copy(&model, &space.0.path().join("models/instruct"));
    assert!(!with(own, full).contains("ruins"));
}
