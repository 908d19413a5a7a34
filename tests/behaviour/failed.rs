//! What is remembered of a stage that did not succeed: its error, its log, where it goes on.

use serde_json::Value;

use crate::space::{CHAIN, Space};

/// The chain, whose stage `b` fails while there is a file `bad`.
fn space() -> Space {
    let space = Space::chain();
    let failing = "command: 'if test -e bad; then echo no luck >&2; exit 3; fi; : ${q}; ";
    space.write("p.yaml", &CHAIN.replace("command: ': ${q}; ", failing));
    space.write("bad", "");
    space
}

#[test]
fn a_failure_is_shown_until_the_stage_succeeds() {
    let space = space();
    assert_eq!(space.preflow(&["run", "p.yaml", "-q"]).code, Some(1));
    // Without the time.
    let today = |out: &str| {
        let (before, rest) = out.split_once("failed ").expect(out);
        let (_, after) = rest.split_once(": exit").expect(out);
        format!("{before}failed : exit{after}")
    };
    let why = space.preflow(&["why", "p.yaml", "b"]);
    assert_eq!(today(&why.out), " b  runs: failed : exit 3 → preflow logs p.yaml b\n");
    for verb in ["plan", "status"] {
        let said = today(&space.preflow(&[verb, "p.yaml"]).out);
        assert!(said.contains("failed : exit 3 → preflow logs p.yaml b"), "{said}");
        let json: Value =
            serde_json::from_str(&space.preflow(&[verb, "p.yaml", "--json"]).out).expect("JSON");
        let stages = json["stages"].as_array().expect("stages");
        let of = |name: &str| stages.iter().find(|s| s["stage"] == name).expect("a stage");
        assert_eq!(of("b")["failed"]["error"], "exit 3", "{json}");
        assert_eq!(of("b")["failed"]["changed_since"], false);
        assert_eq!(of("a")["failed"], Value::Null);
    }
    let logs = space.preflow(&["logs", "p.yaml", "b"]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("no luck\nerror: exit 3\n", ""));

    // Another command is another stage: the failure stays on record, its log is of the old one.
    let text = space.read("p.yaml");
    space.write("p.yaml", &text.replace("exit 3", "exit 4"));
    let why = today(&space.preflow(&["why", "p.yaml", "b"]).out);
    assert_eq!(why, " b  runs: failed : exit 3, changed since\n");
    space.write("p.yaml", &text);

    std::fs::remove_file(space.path("bad")).expect("there");
    space.ran(&["run", "p.yaml"]);
    assert!(space.preflow(&["status", "p.yaml"]).out.lines().all(|l| l.contains("up to date")));
    space.write("p.yaml", &text.replace("q: quiet", "q: loud"));
    let plan = space.preflow(&["plan", "p.yaml"]).out;
    assert!(plan.contains("command ") && !plan.contains("failed"), "{plan}");
}

#[test]
fn the_log_of_the_last_attempt_is_shown_and_an_empty_one_says_so() {
    let space = space();
    let text = space.read("p.yaml");
    let retried =
        text.replace("    inputs: { i: a }", "    inputs: { i: a }\n    run: { retries: 1 }");
    space
        .write("p.yaml", &retried.replace("echo no luck", "echo >> bad; echo luck $(wc -l < bad)"));
    space.preflow(&["run", "p.yaml", "-q"]);
    let logs = space.preflow(&["logs", "p.yaml", "b"]);
    assert_eq!(logs.out, "luck 2\nerror: exit 3\n", "{}", logs.err);
    let logs = space.preflow(&["logs", "p.yaml", "a"]);
    assert_eq!((logs.out.as_str(), logs.code), ("", Some(0)));
    assert!(logs.err.starts_with("note: `a` wrote nothing to its log in run "), "{}", logs.err);
    assert!(logs.err.contains("; it was done in "), "{}", logs.err);
}

/// A worker of two kinds of trouble: it leaves a checkpoint and is not done, or fails in words.
const WORKER: &str = r#"
import json, sys
def say(event, **more): print(json.dumps({"event": event, **more}), flush=True)
if sys.argv[1] == "describe":
    port = {"name": "o", "type": "file", "extension": "", "doc": "it"}
    kind = {"name": "work", "version": 1, "summary": "works", "inputs": [], "outputs": [port],
            "params": {"type": "object", "properties": {}}}
    print(json.dumps({"protocol": 1, "kinds": [kind]})); sys.exit()
task = json.load(open(sys.argv[2]))
say("hello", protocol=1, catalog="c", worker="w", backend="b", device="cpu")
say("note", level="warn", text="beware")
say("note", level="detail", text="a trifle")
say("metric", step=7, values={"loss": 0.25, "odd": None})
json.dump({"done": 1100, "total": 1954, "unit": "steps"}, open(task["scratch"] + "/checkpoint.json", "w"))
say("failed", message="out of paper", chain=["the tray is empty"], help="fill the tray")
"#;

#[test]
fn the_log_of_a_worker_holds_its_words_and_a_plan_where_it_goes_on() {
    let space = Space::empty();
    space.write("worker.py", WORKER);
    space.write(
        "preflow.yaml",
        "preflow-workspace: 1\nworkers:\n  w: { command: [python3, worker.py] }\n",
    );
    space.write("p.yaml", "preflow: 1\nname: p\nstages:\n  s: { kind: work }\n");
    let run = space.preflow(&["run", "p.yaml"]);
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
    assert!(run.out.contains("beware") && !run.out.contains("a trifle"), "{}", run.out);
    let logs = space.preflow(&["logs", "p.yaml", "s"]).out;
    assert_eq!(
        logs,
        "warning: beware\nnote: a trifle\nstep 7  loss 0.250  odd (not finite)\n\
         error: out of paper\n  because: the tray is empty\n  help: fill the tray\n"
    );
    let plan: Value =
        serde_json::from_str(&space.preflow(&["plan", "p.yaml", "--json"]).out).expect("JSON");
    let stage = &plan["stages"][0];
    assert_eq!(stage["goes_on_at"]["done"], 1100, "{plan}");
    let why = stage["why"].as_str().expect("text");
    assert!(why.contains("out of paper: the tray is empty → preflow logs p.yaml s"), "{why}");
    assert!(why.ends_with("; goes on at 1,100 of 1,954 steps"), "{why}");
    let verbose = space.preflow(&["run", "p.yaml", "-v"]).out;
    assert!(verbose.contains("a trifle"), "{verbose}");
}
