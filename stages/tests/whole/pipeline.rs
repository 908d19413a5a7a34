//! The whole of RLHF from one YAML file: both binaries, the shipped smoke pipeline, run again.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace::{Workspace, stages};

impl Workspace {
    fn append(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        let old = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, old + text).expect("write");
    }
}

const SMOKE: &str = "pipelines/smoke.yaml";

#[test]
fn the_smoke_pipeline_from_text_to_an_aligned_model() {
    let space = Workspace::new();
    let text = space.ok(&["run", SMOKE]);
    assert!(text.contains("SIMULATED"), "labels of no person are called so: {text}");
    let again = space.ok(&["run", SMOKE]);
    assert!(again.contains("nothing to do"), "{again}");
    assert!(space.ok(&["verify"]).contains("sound"));

    // The report is one file that needs no other.
    space.ok(&["report", SMOKE]);
    let html = std::fs::read_to_string(space.0.path().join("report.html")).expect("report");
    assert!(html.contains("simulated"));
    for outside in ["<script src", "<link", "src=\"http", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }

    // Talk to what was made.
    let ask = |stage: &str, more: &[&str]| {
        space.preflow(
            &[&["sample", SMOKE, stage, "-p", "what do i need for the bike ?"], more].concat(),
        )
    };
    let (said, code) = ask("ppo", &["-n", "2", "--json", "--max-tokens", "20"]);
    let rows: Vec<serde_json::Value> =
        said.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert!(code == Some(0) && rows.len() == 2 && rows[0]["answer"].is_string(), "{said}");
    assert_eq!(
        ask("ppo", &["-n", "2", "--json", "--max-tokens", "20"]).0,
        said,
        "one seed, one answer"
    );
    let (said, code) =
        ask("reward", &["-a", "for the bike you need a wrench .", "-a", "no", "--json"]);
    assert!(code == Some(0) && said.matches("\"score\":").count() == 2, "{said}");
    let (said, code) = ask("labels", &[]);
    assert!(code == Some(2) && said.contains("stages that do: base, sft, reward, ppo"), "{said}");
    let (said, code) = ask("sft", &["-a", "no"]);
    assert!(code == Some(2) && said.contains("it does not score"), "{said}");
    let stale = &["sample", SMOKE, "sft", "-p", "x", "--set", "seed=9"];
    let (said, code) = space.preflow(stale);
    assert!(code == Some(0) && said.contains("`sft` is stale"), "{said}");

    // Several turns: each answer is streamed, and is what `sample` says of the whole conversation.
    let typed = "printf 'for the bike ?\\nand then ?\\n/new\\nfor the bike ?\\n/what\\n'";
    let talk = format!("{typed} | preflow chat {SMOKE} sft --temperature 0 --max-tokens 8");
    let (said, code) = space.shell(&format!("{talk} --json"));
    let turns: Vec<serde_json::Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(code == Some(0) && turns.len() == 3, "{said}");
    assert!(said.contains("nothing was sent: `/what` is no command"), "{said}");
    assert_eq!(turns[0], turns[2], "a new conversation");
    let (answers, _) = space.shell(&format!("{talk} 2> /dev/null"));
    let streamed: Vec<&str> = answers.lines().collect();
    let whole: Vec<&str> = turns.iter().filter_map(|turn| turn["answer"].as_str()).collect();
    assert_eq!(streamed, whole, "{answers}");
    let first = ["-p", "for the bike ?", "--temperature", "0", "--max-tokens", "8", "--json"];
    let (said, _) = space.preflow(&[&["sample", SMOKE, "sft"], &first[..]].concat());
    assert!(said.contains(&format!("\"answer\":\"{}\"", whole[0])), "{said}");
    let (said, code) = space.preflow(&["chat", SMOKE, "reward"]);
    assert!(code == Some(2) && said.contains("it does not answer"), "{said}");

    // Figures for other tools.
    let csv = space.ok(&["metrics", SMOKE, "ppo"]);
    assert!(
        csv.starts_with("stage,step,name,value\n") && csv.contains("ppo,4,objective/kl,"),
        "{csv}"
    );
    let said = space.ok(&["metrics", SMOKE, "--tensorboard", "events"]);
    for stage in ["base", "sft", "reward", "ppo", "eval"] {
        assert!(said.contains(&format!("events/{stage}/events.out.tfevents.")), "{said}");
    }

    // One param: exactly what is downstream.
    let plan = space.ok(&["plan", SMOKE, "--set", "kl_coef=0.11"]);
    assert!(plan.contains("kl_coef 0.05 → 0.11"), "{plan}");
    let run = space.ok(&["run", SMOKE, "--set", "kl_coef=0.11"]);
    assert_eq!(stages(&run, "▸"), ["ppo", "answers", "scored", "eval"], "{run}");

    // The same demonstrations once more: prepared they are what they were.
    let demos = std::fs::read_to_string(space.0.path().join("datasets/workshop/demos.jsonl"));
    let first = demos.expect("demos").lines().next().expect("a demo").to_owned();
    space.append("datasets/workshop/demos.jsonl", &format!("{first}\n"));
    let run = space.ok(&["run", SMOKE]);
    assert_eq!(stages(&run, "▸"), ["demonstrations", "head"], "both read the file: {run}");
    assert_eq!(run.matches("same bytes as before").count(), 2, "{run}");
}

#[test]
fn an_interrupted_stage_made_again_has_the_same_bytes() {
    let (one, two) = (Workspace::new(), Workspace::new());
    one.ok(&["run", SMOKE, "sft"]);
    let worker = PathBuf::from(env!("CARGO_BIN_EXE_preflow-worker"));
    let mut killed = Command::new(worker.with_file_name("preflow"))
        .args(["run", "-q", SMOKE, "sft"])
        .current_dir(two.0.path())
        .env("PREFLOW_WORKER", &worker)
        .env("XDG_STATE_HOME", two.0.path().join(".state"))
        .spawn()
        .expect("starts");
    let journal = || {
        let runs = std::fs::read_dir(two.0.path().join("cache/runs")).into_iter().flatten();
        let files = runs.flatten().map(|run| run.path().join("events.jsonl"));
        files.filter_map(|f| std::fs::read_to_string(f).ok()).collect::<String>()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !journal().contains("\"event\":\"metric\",\"stage\":\"base\"") {
        assert!(std::time::Instant::now() < deadline, "base does not train: {}", journal());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().expect("kill -9");
    killed.wait().expect("ends");
    two.ok(&["run", SMOKE, "sft"]);
    for stage in ["tokenizer", "base", "sft"] {
        let digests = |space: &Workspace| -> Vec<PathBuf> {
            let dir = space.0.path().join("cache/views/smoke").join(stage);
            let mut links: Vec<PathBuf> = std::fs::read_dir(dir)
                .expect("views")
                .flatten()
                .map(|i| std::fs::read_link(i.path()).expect("link"))
                .collect();
            links.sort();
            links
        };
        assert_eq!(digests(&one), digests(&two), "{stage}");
    }
}
