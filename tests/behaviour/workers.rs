//! Workers of a team: asked again whenever what they are made of may have changed.

use crate::space::Space;

/// Offers the kind `mine`, of the version that `kinds.py` names; counts how often it is described.
/// `FILES` stands for what it says that it is made of.
const WORKER: &str = r#"
import json, sys
import kinds
def main():
    if sys.argv[1] == "describe":
        open("described.txt", "a").write("x")
        kind = {"name": "mine", "version": kinds.VERSION, "summary": "s", "inputs": [], "threads": 1,
            "outputs": [{"name": "o", "type": "file", "extension": "txt", "doc": "d"}],
            "params": {"type": "object", "additionalProperties": False, "properties": {}}}
        print(json.dumps({"protocol": 1, "kinds": [kind]} | FILES))
        return
    task = json.load(open(sys.argv[2]))
    say = lambda event, **f: print(json.dumps({"event": event, **f}), flush=True)
    say("hello", protocol=1, catalog="", worker="w", backend="", device="cpu")
    open(task["outputs"]["o"], "w").write("version %d\n" % task["version"])
    say("output", port="o")
    say("done", summary={})
main()
"#;

fn space(command: &str, files: &str) -> Space {
    let space = Space::empty();
    space.write("worker.py", &WORKER.replace("FILES", files));
    space.write("kinds.py", "VERSION = 1\n");
    let workers = format!("preflow-workspace: 1\nworkers: {{ w: {{ command: {command} }} }}\n");
    space.write("preflow.yaml", &workers);
    space.write("p.yaml", "preflow: 1\nname: p\nstages:\n  m: { kind: mine }\n");
    space
}

/// Runs with the space's own `bin` on `PATH`; returns what the stage made.
fn run(space: &Space) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", space.path("bin").display());
    let output = space.command(&["run", "-q", "p.yaml"]).env("PATH", path).output();
    let output = output.expect("preflow starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    space.read("cache/views/p/m/o.txt")
}

fn described(space: &Space) -> usize {
    std::fs::read(space.path("described.txt")).map_or(0, |bytes| bytes.len())
}

#[test]
fn a_new_version_behind_any_command_makes_the_stage_again() {
    let old = r#"{"files": [json.__file__, kinds.__file__]}"#;
    for (command, files) in [
        ("[python3, worker.py]", "{}"),
        ("[python3, worker.py]", old),
        ("[python3, -m, worker]", "{}"),
        ("[./wrapper.sh]", "{}"),
        ("[sh, -c, 'exec python3 worker.py \"$@\"', sh]", "{}"),
        ("[from-path]", "{}"),
    ] {
        let space = space(command, files);
        let script = "#!/bin/sh\nexec python3 worker.py \"$@\"\n";
        for name in ["wrapper.sh", "bin/from-path"] {
            use std::os::unix::fs::PermissionsExt as _;
            space.write(name, script);
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(space.path(name), mode).unwrap();
        }
        assert_eq!(run(&space), "version 1\n", "{command}");
        space.write("kinds.py", "VERSION = 22\n");
        assert_eq!(run(&space), "version 22\n", "{command} {files}");
    }
}

#[test]
fn a_worker_that_names_its_files_is_asked_again_only_when_they_change() {
    let space = space("[python3, worker.py]", r#"{"files": ["kinds.py"]}"#);
    // Files that changed a moment ago are not believed yet: the worker may have read either.
    let asks = || {
        let before = described(&space);
        run(&space);
        described(&space) > before
    };
    asks();
    while asks() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let settled = described(&space);
    run(&space);
    assert_eq!(described(&space), settled);
    space.write("kinds.py", "VERSION = 3 # as long\n");
    assert_eq!(run(&space), "version 3\n");
    assert!(described(&space) > settled);
}

#[test]
fn what_was_kept_of_a_worker_and_is_damaged_is_asked_again() {
    let space = space("[python3, worker.py]", r#"{"files": [json.__file__]}"#);
    run(&space);
    // Asking makes no store, so the answer before the first stage is not kept.
    run(&space);
    let kept = space.entries_of("cache/derived-v1", "worker-");
    assert_eq!(kept.len(), 1);
    let whole = std::fs::read(&kept[0]).unwrap();
    let settled = described(&space);
    run(&space);
    assert_eq!(described(&space), settled, "it was kept");
    let at = whole.windows(9).position(|w| w == b"\"version\\").unwrap_or(whole.len() / 2);
    let mut flipped = whole.clone();
    flipped[at + 14] ^= 1;
    for broken in [&flipped[..], &whole[..40], &[]] {
        std::fs::write(&kept[0], broken).unwrap();
        assert_eq!(run(&space), "version 1\n");
    }
    assert_eq!(described(&space), settled + 3);
}
