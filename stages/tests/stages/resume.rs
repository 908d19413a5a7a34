//! A stage that is killed at any moment and started again ends with the bytes of one that was not.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use preflow::protocol::{CHECKPOINT, GoesOnAt, TaskSpec};
use preflow_stages::rng::Stream;
use serde_json::{Value, json};

use crate::golden;
use crate::harness::*;

/// Kills of one stage before it may end.
const KILLS: usize = 3;

fn start(path: &Path) -> Child {
    let mut child = Command::new(WORKER)
        .args(["run".as_ref(), path.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts");
    // The first byte says that it is up.
    let mut one = [0];
    child.stdout.as_mut().expect("piped").read_exact(&mut one).expect("hello");
    child
}

fn checkpoints(task: &TaskSpec) -> Vec<PathBuf> {
    let folder = Path::new(&task.scratch).join("checkpoints");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some()).collect();
    files.sort();
    files
}

/// All files of the outputs, by name, with their bytes.
fn outputs(task: &TaskSpec) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (port, path) in &task.outputs {
        let path = PathBuf::from(path);
        let mut open = vec![(port.clone(), path)];
        while let Some((name, path)) = open.pop() {
            if path.is_dir() {
                for entry in std::fs::read_dir(&path).expect("a folder").flatten() {
                    let inner = format!("{name}/{}", entry.file_name().to_string_lossy());
                    open.push((inner, entry.path()));
                }
            } else {
                out.push((name, std::fs::read(path).expect("bytes")));
            }
        }
    }
    out.sort();
    out
}

/// Runs stage `name` of `kind` undisturbed and disturbed, and compares.
pub fn check(shop: &Workshop, kind: &str, params: &Value, inputs: &[(&str, &[&str])]) {
    let whole = shop.task(&format!("{kind}-whole"), kind, params.clone(), inputs);
    shop.perform(&serde_json::to_value(&whole).expect("JSON")).summary();

    let mut task = shop.task(&format!("{kind}-killed"), kind, params.clone(), inputs);
    task.execution.checkpoint_every = Some(0.0);
    let path = shop.write("killed.json", serde_json::to_string(&task).expect("JSON"));
    let mut stream = Stream::new(7, kind, 0, 0);
    let mut kills = 0;
    for round in 0.. {
        assert!(round < 100, "{kind} cannot be killed in the middle");
        let mut child = start(&path);
        // Not before it has made a step: it would be killed while it starts, for ever.
        let before = checkpoints(&task);
        while checkpoints(&task) == before && child.try_wait().expect("asked").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(stream.below(60_000) as u64));
        let ended = child.try_wait().expect("asked").is_some();
        child.kill().ok();
        child.wait().expect("ended");
        if ended {
            // Faster than the kills: from its beginning again.
            assert!(kills == 0 || round > 0);
            let _ = std::fs::remove_dir_all(&task.scratch);
            continue;
        }
        kills += 1;
        if kills == 2 {
            // The newest checkpoint is damaged: the one before it serves as well.
            let newest = checkpoints(&task).pop().expect("a checkpoint");
            let mut bytes = std::fs::read(&newest).expect("bytes");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(&newest, bytes).expect("written");
        }
        assert!(checkpoints(&task).len() <= 3, "two are kept, a third while it is being made");
        if kills == KILLS {
            break;
        }
    }
    let ran = run_file(&path);
    ran.summary();
    assert!(ran.notes().contains("goes on from the checkpoint"), "{kind}: {}", ran.notes());
    for ((name, a), (_, b)) in outputs(&whole).iter().zip(outputs(&task)) {
        assert!(*a == b, "{kind}: `{name}` differs from the undisturbed run");
    }
}

#[test]
fn invariant_19_kill_and_resume_give_the_same_bytes() {
    let shop = Workshop::new();
    golden::run_all(&shop);
    let mut checked = 0;
    for (_, kind, mut params, inputs) in golden::stages() {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        match kind {
            "pretrain" => {}
            "sft" => params["train"]["epochs"] = json!(20),
            "train_reward" => params["epochs"] = json!(8),
            // A weight of the KL that moves must be found again, too.
            "ppo" => {
                params["updates"] = json!(12);
                params["kl_target"] = json!(0.5);
                params["kl_horizon"] = json!(200.0);
            }
            "rloo" | "grpo" | "reinforce" | "online_dpo" => params["updates"] = json!(12),
            "dpo" | "kto" => {
                params["epochs"] = json!(12);
                params["keep_best"] = json!(true);
            }
            _ => continue,
        }
        check(&shop, kind, &params, &inputs);
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[test]
fn a_worker_that_is_asked_to_end_leaves_a_checkpoint() {
    let shop = Workshop::new();
    golden::world(&shop);
    shop.run("tok", "tokenizer", json!({"algorithm": "byte"}), &[("text", &["text.jsonl"])])
        .summary();
    let params =
        json!({"train": {"tokens": 1_000_000_000, "batch_tokens": 64}, "model": {"context": 16}});
    let inputs: &[(&str, &[&str])] =
        &[("text", &["text.jsonl"]), ("tokenizer", &["tok.tokenizer.json"])];
    let task = shop.task("long", "pretrain", params, inputs);
    let path = shop.write("long.json", serde_json::to_string(&task).expect("JSON"));
    let mut child = start(&path);
    let mut text = String::new();
    let mut out = child.stdout.take().expect("piped");
    while !text.contains("\"event\":\"progress\"") {
        let mut some = [0; 64];
        let n = out.read(&mut some).expect("read");
        text.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    // Waiting would close it, and a worker whose standard input ends leaves at once.
    let stdin = child.stdin.take();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(143));
    drop(stdin);
    assert_eq!(checkpoints(&task).len(), 1);
    let word = std::fs::read(Path::new(&task.scratch).join(CHECKPOINT)).expect("a word beside it");
    let GoesOnAt { done, total, unit } = serde_json::from_slice(&word).expect("JSON");
    assert!(done > 0 && done < total && unit == "steps", "{done} of {total} {unit}");
}
