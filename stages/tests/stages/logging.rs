//! The worker's log: on standard error, which is the log file of its attempt.

use serde_json::json;

use crate::harness::{Workshop, log_of};

#[test]
fn the_worker_logs_what_is_asked_of_it() {
    let shop = Workshop::new();
    shop.write("rows.jsonl", "{\"prompt\": \"one\"}\n");
    let task = shop.task("t", "prepare", json!({"as": "prompt"}), &[("data", &["rows.jsonl"])]);
    let path = shop.write("t.task.json", serde_json::to_string(&task).expect("JSON"));
    assert_eq!(log_of(&path, &[]), "");
    let info = log_of(&path, &[("PREFLOW_LOG", "worker=info")]);
    assert!(info.contains("INFO task{kind=\"prepare\""), "{info}");
    assert!(info.contains("made seconds=") && !info.contains("DEBUG"), "{info}");
    let debug = log_of(&path, &[("PREFLOW_LOG", "debug"), ("PREFLOW_LOG_FORMAT", "json")]);
    let lines = debug.lines().map(|line| serde_json::from_str(line).expect("an object"));
    let lines: Vec<serde_json::Value> = lines.collect();
    assert!(lines.iter().any(|l| l["level"] == "DEBUG" && l["port"] == "data"), "{debug}");
    // What is asked of the orchestrator alone is none of its business.
    assert_eq!(log_of(&path, &[("PREFLOW_LOG", "store=trace")]), "");
}
