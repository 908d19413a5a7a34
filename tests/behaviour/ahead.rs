//! What a worker knows to be wrong is told before anything runs, with its place in the file.

use crate::space::Space;

const WORKER: &str = r#"
import json, sys
KIND = {"name": "number", "version": 1, "summary": "writes a number", "inputs": [],
        "outputs": [{"name": "o", "type": "file", "extension": "txt", "doc": "the number"}],
        "params": {"type": "object", "additionalProperties": False, "properties":
                   {"n": {"type": "object", "description": "a number", "additionalProperties": False,
                          "default": {"at": 1}, "properties":
                          {"at": {"type": "integer", "description": "it", "default": 1}}}}}}
if sys.argv[1] == "describe":
    print(json.dumps({"protocol": 1, "validates": True, "files": [json.__file__], "kinds": [KIND]}))
elif sys.argv[1] == "validate":
    open("asked.txt", "a").write("asked\n")
    asked = json.load(sys.stdin)
    if asked["stages"][0]["params"]["n"]["at"] == 5: sys.exit("not today")
    absurd = [9] if asked["stages"][0]["params"]["n"]["at"] == 6 else []
    wrong = absurd or [i for i, s in enumerate(asked["stages"]) if s["wanted"] and s["params"]["n"]["at"] == 3]
    print(json.dumps({"problems": [{"stage": i, "field": "n.at", "message": "three is too much",
                                    "help": "take two"} for i in wrong]}))
else:
    task = json.load(open(sys.argv[2]))
    say = lambda event, **f: print(json.dumps({"event": event, **f}), flush=True)
    say("hello", protocol=1, catalog="", worker="w", backend="", device="cpu")
    open(task["outputs"]["o"], "w").write(str(task["params"]["n"]["at"]))
    say("output", port="o")
    say("done", summary={})
"#;

fn space() -> Space {
    let space = Space::empty();
    space.write("worker.py", WORKER);
    space.write(
        "preflow.yaml",
        "preflow-workspace: 1\nworkers: { w: { command: [python3, worker.py] } }\n",
    );
    let stages = "  one: { kind: number }\n  two:\n    kind: number\n    n: { at: $at }\n";
    space.write("p.yaml", &format!("preflow: 1\nname: p\nparams: {{ at: 3 }}\nstages:\n{stages}"));
    space
}

fn asked(space: &Space) -> usize {
    std::fs::read_to_string(space.path("asked.txt")).unwrap_or_default().lines().count()
}

#[test]
fn check_plan_and_run_name_the_place_and_nothing_runs() {
    let space = space();
    for verb in ["check", "plan", "run"] {
        let said = space.preflow(&[verb, "p.yaml"]);
        assert_eq!(said.code, Some(2), "{verb}: {}{}", said.out, said.err);
        for part in ["stage `two`: three is too much", "p.yaml:8:14", "help: take two"] {
            assert!(said.err.contains(part), "{verb}: {}", said.err);
        }
    }
    assert!(!space.path("cache/entries-v1").exists(), "nothing was made");
    // What need not run is not asked about.
    let said = space.preflow(&["run", "p.yaml", "one"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(space.preflow(&["plan", "p.yaml", "one"]).out.contains("nothing to do"));
}

#[test]
fn a_run_with_nothing_to_do_asks_nobody_and_the_same_is_asked_once() {
    let space = space();
    let set = ["--set", "at=2"];
    let go = |verb: &str| {
        let said = space.preflow(&[&[verb, "p.yaml"], &set[..]].concat());
        assert_eq!(said.code, Some(0), "{verb}: {}", said.err);
        said.out
    };
    go("run");
    let before = asked(&space);
    assert!(before > 0);
    assert!(go("run").contains("nothing to do"));
    go("plan");
    assert_eq!(asked(&space), before);
    space.preflow(&["plan", "p.yaml", "--set", "at=4"]);
    space.preflow(&["plan", "p.yaml", "--set", "at=4"]);
    assert_eq!(asked(&space), before + 1);
}

#[test]
fn a_trial_that_cannot_work_is_told_when_the_sweep_is_priced() {
    let space = space();
    let sweep = |values: &str| {
        let text = format!("preflow-sweep: 1\npipeline: p.yaml\nmatrix: {{ at: {values} }}\n");
        space.write("s.yaml", &text);
        space.preflow(&["sweep", "plan", "s.yaml"])
    };
    let said = sweep("[2, 3]");
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(said.err.contains("stage `two@at=3`: three is too much"), "{}", said.err);
    assert_eq!(sweep("[2, 4]").code, Some(0));
}

#[test]
fn a_worker_that_does_not_answer_is_told_of_and_does_not_stop_a_run() {
    for (at, reason) in [("5", "not today"), ("6", "about stage 9, which it was not asked about")] {
        let space = space();
        let all = space.path("p.yaml");
        let text = std::fs::read_to_string(&all).expect("read");
        let one = format!("one: {{ kind: number, n: {{ at: {at} }} }}");
        std::fs::write(&all, text.replace("one: { kind: number }", &one)).expect("written");
        let said = space.preflow(&["run", "p.yaml", "--set", "at=2"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let warning = "could not be asked what is wrong before anything runs";
        assert!(said.err.contains(warning) && said.err.contains(reason), "{}", said.err);
    }
}
