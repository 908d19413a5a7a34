//! What the README claims of the workshop, of the algorithms, and of every command that it shows.
//! The longest test of all: its name comes early, so that it starts early and runs beside others.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::workspace::Workspace;

impl Workspace {
    /// A line as somebody types it, without the name of the program.
    fn typed(&self, line: &str) -> (String, Option<i32>) {
        // As in a fresh clone, whose workers nobody has trusted.
        let line = format!("unset PREFLOW_TRUST; '{}' {line}", self.program().display());
        self.run(Command::new("sh").args(["-c", &line]))
    }

    /// A line that opens a page and stays: it does so, and ends by Ctrl-C.
    fn serves(&self, line: &str) {
        let words = line.split(" #").next().expect("a line").split_whitespace();
        let mut child = Command::new(self.program())
            .args(words)
            .current_dir(self.0.path())
            .env("PREFLOW_WORKER", env!("CARGO_BIN_EXE_preflow-worker"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let link = lines.map_while(Result::ok).find(|l| l.contains("http://127.0.0.1:"));
        assert!(link.is_some(), "{line}: no page");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, Signal::INT).expect("alive");
        let code = child.wait().expect("ends").code();
        assert!(matches!(code, Some(0 | 130)), "{line}: {code:?}");
    }
}

#[test]
fn the_workshop_keeps_the_promises_of_the_readme() {
    let space = Workspace::new();
    let text = space.ok(&["run", "pipelines/workshop.yaml", "--json"]);
    let events = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let done: Vec<serde_json::Value> = events.filter(|e| e["event"] == "stage_done").collect();
    let figure = |stage: &str, name: &str| -> f64 {
        let of = done.iter().find(|e| e["stage"] == stage).expect("the stage ran");
        of["summary"][name].as_f64().unwrap_or_else(|| panic!("{stage} has no {name}: {of}"))
    };
    let eval = |name: &str| figure("eval", &format!("eval/{name}"));
    // On prompts that nobody labelled, in situations and about objects that nobody demonstrated.
    let (base, sft, ppo) = (eval("good/base"), eval("good/sft"), eval("good/ppo"));
    assert!(base <= 0.25 && base < sft, "base {base}, sft {sft}");
    assert!(eval("good_gain_low") > 0.0, "sft {sft}, ppo {ppo}: the interval holds zero");
    assert!(eval("good_gain") >= 0.15, "sft {sft}, ppo {ppo}");
    assert!(eval("rude/ppo") <= 0.02, "{}", eval("rude/ppo"));
    assert!(eval("eos_rate/ppo") >= 0.95, "{}", eval("eos_rate/ppo"));
    assert!(eval("kl/ppo") <= 10.0, "{}", eval("kl/ppo"));
    assert!(figure("reward", "eval/accuracy") >= 0.75, "the reward model learned the preference");

    // Every command that the README shows does what it says.
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("README");
    let shown = readme.lines().filter_map(|l| l.trim().strip_prefix("preflow "));
    let mut count = 0;
    for line in shown {
        count += 1;
        if line.contains("--wait") || line.starts_with("label serve") {
            space.serves(line);
            continue;
        }
        // The team's folder, here within the workspace.
        let (text, code) = space.typed(&line.replace("../shared", "shared"));
        assert_eq!(code, Some(0), "preflow {line}\n{text}");
    }
    assert!(count >= 4, "the README shows commands");

    // A colleague has the files and the team's folder, and nothing else.
    let colleague = Workspace::new();
    let remote = space.0.path().join("shared").display().to_string();
    let pulled = colleague.ok(&["pull", "pipelines/workshop.yaml", "--remote", &remote]);
    assert!(pulled.contains("pulled 9 stages"), "{pulled}");
    let run = colleague.ok(&["run", "pipelines/workshop.yaml"]);
    assert!(run.contains("nothing to do: 9 reused"), "{run}");
    let told = colleague.ok(&["trace", "cache/views/workshop/ppo/model/model.safetensors"]);
    assert!(told.contains("← collect_labels"), "{told}");
}

#[test]
#[ignore = "all algorithms at full size take minutes: make slow"]
fn the_algorithms_keep_the_promises_of_the_readme() {
    let space = Workspace::new();
    let text = space.ok(&["run", "pipelines/algorithms.yaml", "--json"]);
    let events = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let eval = events.into_iter().find(|e| e["event"] == "stage_done" && e["stage"] == "eval");
    let eval = eval.expect("the comparison ran");
    for (policy, least) in [
        ("ppo", 0.15),
        ("rloo", 0.15),
        ("grpo", 0.15),
        ("reinforce", 0.15),
        ("dpo", 0.15),
        ("votes", 0.03),
    ] {
        let gain = eval["summary"][format!("eval/good_gain/{policy}")].as_f64();
        assert!(gain.is_some_and(|gain| gain >= least), "{policy} gains {gain:?}");
    }
}
