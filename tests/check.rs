//! `preflow check` and its neighbours as people start them: exit codes, streams, closed pipes.
//! Knows nothing of rooms.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;

fn preflow(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("preflow").unwrap();
    // The workers that this project's own pipelines name.
    command.env("PREFLOW_TRUST", "1").env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let output = command.current_dir(folder).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A folder with one sound and one broken pipeline.
fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sound = "preflow: 1\nparams: { what: hello }\nstages:\n  say:\n    kind: command\n    \
                 command: 'echo ${what} > $OUT'\n    outputs: { text: file }\n";
    std::fs::write(folder.path().join("sound.yaml"), sound).unwrap();
    let broken = sound.replace("command: 'echo", "comand: 'echo");
    std::fs::write(folder.path().join("broken.yaml"), broken).unwrap();
    folder
}

#[test]
fn a_sound_file_is_ok_and_a_broken_one_is_shown() {
    let folder = workshop();
    assert_eq!(
        preflow(folder.path(), &["check", "sound.yaml"]),
        (0, "ok: 1 stage; `plan` looks at the data too\n".to_owned(), String::new())
    );
    let (code, stdout, stderr) = preflow(folder.path(), &["check", "broken.yaml"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    insta::assert_snapshot!(stderr, @r#"
    error: unknown field `comand` in stage `say`
     --> broken.yaml:6:5
      |
    6 |     comand: 'echo ${what} > $OUT'
      |     ^^^^^^ did you mean `command`?
      |
      = help: `preflow kinds command` lists all fields
    "#);
    let (code, stdout, _) = preflow(folder.path(), &["check", "sound.yaml", "broken.yaml"]);
    assert_eq!(
        (code, stdout.as_str()),
        (2, "sound.yaml: ok: 1 stage; `plan` looks at the data too\n")
    );
}

#[test]
fn names_of_trl_and_transformers_are_told_in_ours() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "").unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let text = "preflow: 1\nsources:\n  base: { path: model, as: huggingface }\n  labels: { path: rows.jsonl, \
                as: labels }\nstages:\n  base_model: { kind: import_model, source: base }\n  dpo:\n    \
                kind: dpo\n    policy: base_model\n    labels: labels\n    learning_rate: 5e-7\n    \
                num_train_epochs: 1\n    per_device_train_batch_size: 8\n    \
                gradient_accumulation_steps: 4\n    loss_type: hinge\n    rpo_alpha: 1\n    \
                lr_scheduler_type: constant_with_warmup\n    bf16: true\n    \
                lora: { r: 16, target_modules: [q_proj, v_proj] }\n";
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    let (code, _, stderr) = preflow(folder.path(), &["check", "p.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    for hint in [
        "lr: 5e-7",
        "epochs: 1",
        "batch: 32",
        "loss: hinge",
        "sft_coef: 1",
        "schedule: constant",
        "compute: { precision: bf16 }",
        "rank: 16",
        "targets: [q, v]",
    ] {
        assert!(stderr.contains(&format!("here it is `{hint}`")), "{hint}: {stderr}");
    }
}

#[test]
fn problems_are_told_to_programs_too() {
    let folder = workshop();
    let (code, stdout, stderr) = preflow(folder.path(), &["check", "broken.yaml", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str()), (2, ""));
    assert_eq!(found[0]["problems"][0]["place"]["line"], 6);
}

/// Files that are wrong twenty thousand times, each in another way: with work that grows by the
/// square of that, each would take minutes.
#[test]
fn a_file_with_very_many_problems_is_told_of_by_its_first_ones() {
    const MANY: usize = 20_000;
    let each = |line: &dyn Fn(usize) -> String| (0..MANY).map(line).collect::<String>();
    let params = each(&|i| format!(" p{i}: {i}\n"));
    let stages = |text: String| format!("preflow: 1\nstages:\n{text}");
    let files = [
        stages(each(&|i| format!(" a{i}: {{ kind: nope{i} }}\n"))),
        format!("preflow: 1\nstages: {{ {} }}\n", each(&|i| format!("a{i}: {{kind: né{i}}}, "))),
        stages(each(&|i| format!(" a{i}: {{ kind: tokenizer, text: b{i}x }}\n"))),
        stages(format!(" a: {{ kind: command, {} }}\n", "b: 1, ".repeat(MANY))),
        stages(format!(" a: {{ kind: command, {} }}\n", each(&|i| format!("f{i}: 1, ")))),
        stages(format!(" a: {{ kind: evaluate, policies: [{}] }}\n", each(&|i| format!("x{i}, ")))),
        format!(
            "preflow: 1\nparams:\n{params}stages:\n{}",
            each(&|i| format!(" a{i}: {{ kind: tokenizer, text: $q{i} }}\n"))
        ),
        format!(
            "preflow: 1\nparams:\n{params}profiles: {{ x: {{ {} }} }}\nstages: {{}}\n",
            each(&|i| format!("q{i}: 1, "))
        ),
        format!(
            "preflow: 1\nsources:\n{}stages: {{}}\n",
            each(&|i| format!(" a{i}: {{ path: x, as: t{i} }}\n"))
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for text in files {
        std::fs::write(folder.path().join("p.yaml"), &text).unwrap();
        let (code, stdout, stderr) = preflow(folder.path(), &["check", "p.yaml"]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert_eq!(stderr.matches("error: ").count(), 20, "{stderr}");
        assert!(stderr.len() < 20_000, "{stderr}");
        let last = stderr.lines().last().unwrap();
        let more = last.strip_prefix("… and ").and_then(|l| l.split_once(" more; ")).unwrap();
        assert!(more.0.replace(',', "").parse::<usize>().unwrap() >= MANY - 21, "{last}");
    }
    let text = stages(each(&|i| format!(" a{i}: {{ kind: nope{i} }}\n")));
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    let (_, stdout, _) = preflow(folder.path(), &["check", "p.yaml", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let problems = found[0]["problems"].as_array().unwrap();
    assert_eq!((problems.len(), &problems[MANY - 1]["place"]["line"]), (MANY, &(MANY + 2).into()));
    // What is wrong everywhere it is read is one problem.
    let reads = each(&|i| format!(" a{i}: {{ kind: tokenizer, text: t }}\n"));
    let text = format!("preflow: 1\nsources: {{ t: {{ path: x, as: prompt }} }}\nstages:\n{reads}");
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    let (code, _, stderr) = preflow(folder.path(), &["check", "p.yaml"]);
    assert!(code == 2 && stderr.contains("and 19979 more"), "{stderr}");
}

#[test]
fn of_a_name_of_a_megabyte_the_start_is_shown() {
    let long = "c".repeat(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let files = [
        format!("stages: {{ a: {{ kind: {long} }} }}\n"),
        format!("stages: {{ {long}: {{ kind: command }} }}\n"),
        format!("stages: {{ a: {{ kind: tokenizer, text: {long} }} }}\n"),
        format!("stages: {{ a: {{ kind: command, {long}: 1 }} }}\n"),
        format!("stages: {{ a: {{ kind: command, x: ${{{long}}} }} }}\n"),
        format!("sources: {{ s: {{ path: x, as: {long} }} }}\nstages: {{}}\n"),
        format!("sources: {{ s: {{ path: x, {long}: 1 }} }}\nstages: {{}}\n"),
        format!("stages: {{ a: {{ kind: command, gate: {{ {long}: 1 }} }} }}\n"),
        format!("stages: {{ a: !include {long} }}\n"),
        format!("{long}: 1\nstages: {{}}\n"),
    ];
    for text in files {
        std::fs::write(folder.path().join("p.yaml"), format!("preflow: 1\n{text}")).unwrap();
        let (code, _, stderr) = preflow(folder.path(), &["check", "p.yaml"]);
        assert_eq!(code, 2, "{}", &text[..60]);
        assert!(stderr.contains("ccc") && stderr.len() < 6000, "{} {}", &text[..60], stderr.len());
    }
}

#[test]
fn overrides_reach_the_config() {
    let folder = workshop();
    let args = ["config", "sound.yaml", "--set", "what=bye"];
    let (code, stdout, _) = preflow(folder.path(), &args);
    assert_eq!(code, 0);
    assert!(stdout.contains("echo bye > $$OUT"), "{stdout}");
    let (code, _, stderr) = preflow(folder.path(), &["check", "sound.yaml", "--set", "wat=bye"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("did you mean `what`?"), "{stderr}");
}

#[test]
fn usage_is_2_and_help_is_0() {
    let folder = workshop();
    assert_eq!(preflow(folder.path(), &["--help"]).0, 0);
    assert_eq!(preflow(folder.path(), &["--version"]).0, 0);
    assert_eq!(preflow(folder.path(), &["chekc"]).0, 2);
    assert_eq!(preflow(folder.path(), &["check"]).0, 2);
    assert_eq!(preflow(folder.path(), &["kinds", "nonsense"]).0, 2);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = workshop();
    let mut command = Command::cargo_bin("preflow").unwrap();
    let mut child = command
        .current_dir(folder.path())
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "");
}

#[test]
fn every_committed_pipeline_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = glob::glob(&root.join("pipelines/**/*.yaml").to_string_lossy()).unwrap();
    for path in found.map(Result::unwrap) {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.contains("\npreflow: 1") && !text.starts_with("preflow: 1") {
            continue; // A sweep, or a part that others include.
        }
        let (code, _, stderr) = preflow(root, &["check", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{stderr}");
    }
}

#[test]
fn the_committed_schema_and_reference_are_what_preflow_prints() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_preflow")).arg("schema").output().expect("starts");
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/schema.json");
    let committed = std::fs::read(committed).expect("pipelines/schema.json");
    assert!(output.stdout == committed, "out of date: run `make catalog`");
    let output = Command::new(env!("CARGO_BIN_EXE_preflow"))
        .args(["kinds", "--markdown"])
        .output()
        .expect("starts");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kinds.md");
    let page = std::fs::read(page).expect("docs/kinds.md");
    assert!(output.stdout == page, "docs/kinds.md is out of date: run `make catalog`");
}

#[test]
fn the_doctor_names_what_is_missing_and_what_to_do() {
    let folder = workshop();
    let ask = |worker: &str| {
        let mut command = Command::cargo_bin("preflow").unwrap();
        let command = command.current_dir(folder.path()).env("PREFLOW_WORKER", worker);
        let output = command.args(["doctor", "--json"]).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), found["findings"].clone())
    };
    let (code, found) = ask("/nowhere/worker");
    assert_eq!((code, found[0]["state"].as_str()), (2, Some("bad")));
    assert!(found[0]["remedy"].as_str().unwrap().contains("cargo build"), "{found}");
    let git = found.as_array().unwrap().iter().find(|f| f["what"] == "git").unwrap();
    assert!(git["remedy"].as_str().unwrap().contains("git init"), "{git}");
    // Something that starts, and is no worker.
    let (code, found) = ask("/bin/echo");
    assert!(code == 2 && found[0]["state"] == "bad", "{found}");
}

/// `make attack` takes ten minutes; a little of it shows that it still works, and finds nothing.
#[test]
fn what_attacks_this_program_runs_and_finds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.args(["scripts/attack", "--only", "kills,flips,beside,mutations,clones"]);
    command.args(["--times", "0.02"]).current_dir(root);
    let output = command.env("PREFLOW", env!("CARGO_BIN_EXE_preflow")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["kills", "flips", "beside", "mutations", "clones"] {
        let row = said.lines().find(|line| line.starts_with(part)).expect("a row of the table");
        let figures: Vec<u64> =
            row.split_whitespace().skip(1).take(2).map(|n| n.parse().unwrap()).collect();
        assert!(figures[0] > 0 && figures[1] == 0, "{said}");
    }
}

#[test]
fn shells_are_told_every_verb() {
    let folder = workshop();
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = preflow(folder.path(), &["completions", shell]);
        assert_eq!(code, 0);
        for verb in ["sweep", "label", "accept-gate"] {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
}
