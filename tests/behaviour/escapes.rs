//! Texts of others on their way to a terminal: whatever would drive it is visible there, from every
//! verb, on a terminal and in a pipe.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::space::Space;

/// A title, a cleared screen, hidden text, C1 controls, a line that is overwritten, text turned
/// round, a character without width, a tag.
const EVIL: [&str; 8] = [
    "\x1b]0;pwned\x07",
    "\x1b[2J\x1b[H",
    "\x1b[8m",
    "\u{9b}2J\u{9d}0;x\u{9c}",
    "\rover",
    "\u{202e}",
    "\u{200b}",
    "\u{e0041}",
];

fn evil() -> String {
    EVIL.concat()
}

/// Characters that may drive a terminal, in what a program wrote; its own styles and what its
/// progress bars need are taken out first where it wrote to a terminal.
fn found(output: &[u8], terminal: bool) -> Vec<String> {
    let mut text = String::from_utf8_lossy(output).into_owned();
    if terminal {
        text = text.replace("\r\n", "\n");
        let own = regex_like(&text);
        for style in own {
            text = text.replace(&style, "");
        }
    }
    EVIL.iter()
        .filter(|evil| text.contains(**evil))
        .map(|evil| evil.escape_debug().to_string())
        .chain(
            text.chars()
                .filter(|c| matches!(c, '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\x07'))
                .map(|c| c.escape_debug().to_string()),
        )
        .collect()
}

/// Styles: `ESC [ digits m`.
fn regex_like(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("\x1b[").skip(1) {
        let digits: String = part.chars().take_while(|c| c.is_ascii_digit() || *c == ';').collect();
        if part[digits.len()..].starts_with('m') && digits != "8" {
            found.push(format!("\x1b[{digits}m"));
        }
    }
    found
}

/// What the command writes to a pipe, and to a terminal.
fn both(make: impl Fn() -> Command) -> [(bool, Vec<u8>); 2] {
    let output = make().output().expect("starts");
    let piped = [output.stdout, output.stderr].concat();
    let pty =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
    let pty = pty.expect("a terminal");
    rustix::pty::grantpt(&pty).and_then(|()| rustix::pty::unlockpt(&pty)).expect("opened");
    let name = rustix::pty::ptsname(&pty, Vec::new()).expect("a name");
    let open = || {
        let path = name.to_str().expect("a path");
        std::fs::File::options().read(true).write(true).open(path).expect("opened")
    };
    let (out, error) = (open(), open());
    let mut command = make();
    command.env_remove("NO_COLOR").env("TERM", "xterm").stdin(Stdio::null());
    let mut child = command.stdout(out).stderr(error).spawn().expect("starts");
    // It holds the other end of the terminal too.
    drop(command);
    let mut screen = std::fs::File::from(pty);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        // The other end closes with an error.
        while let Ok(n @ 1..) = screen.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    });
    child.wait().expect("ended");
    [(false, piped), (true, reader.join().expect("read"))]
}

fn clean(space: &Space, what: &str, args: &[&str]) -> String {
    let make = || {
        let mut command = space.command(args);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", space.path("bin").display()));
        command.env("EVIL", evil());
        command
    };
    let mut said = String::new();
    for (terminal, output) in both(make) {
        let bad = found(&output, terminal);
        let text = String::from_utf8_lossy(&output).into_owned();
        assert!(
            bad.is_empty(),
            "{what}: {args:?}, terminal {terminal}: {bad:?}\n{}",
            text.escape_debug()
        );
        said += &text;
    }
    said
}

#[test]
fn what_a_pipeline_file_and_its_stages_say() {
    let space = Space::empty();
    let name = format!("src{}.txt", evil().replace('/', ""));
    space.write(&name, "text\n");
    space.write("yaml", &evil());
    // Lines with carets, unknown names, and a source that has such a name.
    let quoted = evil().replace('\x1b', "\\e").replace('\x07', "\\a").replace('\r', "\\r");
    let quoted =
        quoted.replace('\u{9b}', "\\x9b").replace('\u{9d}', "\\x9d").replace('\u{9c}', "\\x9c");
    for (file, text) in [
        ("raw.yaml", format!("preflow: 1\nstages:\n  a: {{ kind: command, x: '{}' }}\n", evil())),
        ("kind.yaml", format!("preflow: 1\nstages:\n  a: {{ kind: \"{quoted}\" }}\n")),
        ("name.yaml", format!("preflow: 1\nstages:\n  \"{quoted}\": {{ kind: command }}\n")),
        ("field.yaml", format!("preflow: 1\nstages:\n  a: {{ kind: command, \"{quoted}\": 1 }}\n")),
        (
            "source.yaml",
            format!(
                "preflow: 1\nsources: {{ s: {{ path: \"no{quoted}\" }} }}\nstages:\n  a: {{ kind: command, inputs: {{ i: s }}, outputs: {{ o: file }}, command: 'true $IN_i $OUT_o' }}\n"
            ),
        ),
        ("title.yaml", format!("preflow: 1\nname: \"{quoted}\"\nstages: {{}}\n")),
        ("include.yaml", format!("preflow: 1\nstages: !include \"{quoted}\"\n")),
    ] {
        space.write(file, &text);
        for verb in ["check", "plan", "graph", "config", "run"] {
            clean(&space, file, &[verb, file]);
        }
        clean(&space, file, &["check", "--json", file]);
    }
    clean(&space, "arguments", &["check", &evil()]);
    clean(&space, "arguments", &[&evil()]);
    clean(&space, "arguments", &["run", "p.yaml", &format!("--{}", evil())]);
    clean(&space, "arguments", &["plan", "kind.yaml", "--set", &evil()]);
    // What programs print, and a failed one whose end of the log is shown.
    let says = "printf %s \\\"$EVIL\\\" >&2; printf %s \\\"$EVIL\\\"; exit 3";
    space.write(
        "p.yaml",
        &format!(
            "preflow: 1\nname: p\nstages:\n  a: {{ kind: command, outputs: {{ o: file }}, run: {{ env: [EVIL] }}, command: \"{says}\" }}\n"
        ),
    );
    let said = clean(&space, "a program's output", &["run", "p.yaml"]);
    assert!(said.contains("pwned"), "it is shown all the same: {said}");
    for args in [
        &["plan", "p.yaml"][..],
        &["status", "p.yaml"],
        &["why", "p.yaml", "a"],
        &["runs"],
        &["report", "p.yaml"],
        &["run", "p.yaml", "--json"],
        &["status", "p.yaml", "--json"],
    ] {
        clean(&space, "a failure", args);
    }
    // A log is data in a pipe.
    let logs = both(|| space.command(&["logs", "p.yaml", "a"]));
    assert!(found(&logs[1].1, true).is_empty(), "{:?}", String::from_utf8_lossy(&logs[1].1));
    assert!(String::from_utf8_lossy(&logs[0].1).contains("\x1b]0;pwned\x07"));
}

const WORKER: &str = r#"
import json, os, sys
EVIL = os.environ.get("EVIL", "")
KIND = {"name": "mine", "version": 1, "summary": EVIL, "inputs": [], "threads": 1, "live": ["x"],
    "outputs": [{"name": "o", "type": "file", "extension": "txt", "doc": EVIL}],
    "params": {"type": "object", "additionalProperties": False, "properties":
        {"p": {"type": "string", "default": EVIL, "description": EVIL}}}}
if sys.argv[1] == "describe":
    if os.path.exists("broken"): sys.exit(EVIL)
    print(json.dumps({"protocol": 1, "validates": True, "kinds": [KIND]}))
elif sys.argv[1] == "validate":
    sys.stdin.read()
    bad = {"stage": 0, "field": "p", "message": EVIL, "help": EVIL}
    print(json.dumps({"problems": [bad] if os.path.exists("refuse") else []}))
else:
    task = json.load(open(sys.argv[2]))
    say = lambda event, **f: print(json.dumps({"event": event, **f}), flush=True)
    say("hello", protocol=1, catalog=EVIL, worker=EVIL, backend=EVIL, device=EVIL)
    say("progress", done=1, total=2, unit=EVIL)
    say("metric", step=1, values={EVIL: 1.5})
    say("note", level="warn", text=EVIL)
    say("note", level="info", text=EVIL)
    if os.path.exists("fail"):
        say("failed", message=EVIL, chain=[EVIL], help=EVIL)
        sys.exit(1)
    open(task["outputs"]["o"], "w").write(EVIL)
    say("output", port="o")
    say("done", summary={EVIL: 2.5})
"#;

#[test]
fn what_workers_git_and_remotes_say() {
    let space = Space::empty();
    space.write("worker.py", WORKER);
    let workers = "preflow-workspace: 1\nworkers: { w: { command: [python3, worker.py] } }\n";
    space.write("preflow.yaml", workers);
    space.write(
        "p.yaml",
        "preflow: 1\nname: p\nstages:\n  m: { kind: mine, run: { env: [EVIL] } }\n",
    );
    for marker in ["broken", "refuse", "fail"] {
        space.write(marker, "");
        for args in [&["check", "p.yaml"][..], &["plan", "p.yaml"], &["run", "p.yaml"], &["doctor"]]
        {
            clean(&space, marker, args);
        }
        std::fs::remove_file(space.path(marker)).unwrap();
    }
    for args in [
        &["run", "-v", "p.yaml"][..],
        &["run", "p.yaml", "--force", "m", "--progress", "bar"],
        &["run", "p.yaml", "--force", "m", "--json"],
        &["kinds"],
        &["kinds", "mine"],
        &["kinds", "--markdown"],
        &["metrics", "p.yaml"],
        &["status", "p.yaml"],
        &["trace", "p.yaml", "m"],
        &["runs"],
        &["config", "p.yaml"],
        &["schema"],
        &["diff", "last", "--file", "p.yaml"],
        &["sweep", "show", "s.yaml"],
    ] {
        clean(&space, "a worker", args);
    }
    // Git says what is in a repository.
    let git = format!("#!/bin/sh\nprintf 'fatal: %s\\n' '{}' >&2\nexit 128\n", evil());
    space.write("bin/git", &git);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("bin/git"), mode).unwrap();
    for args in [
        &["doctor"][..],
        &["run", "p.yaml", "--force", "m"],
        &["diff", &evil(), "--file", "p.yaml"],
    ] {
        clean(&space, "git", args);
    }
    // A remote with such a name, and one whose record says so.
    let remote = format!("{}/{}", space.path("").display(), evil().replace('/', ""));
    for args in [
        &["push", "p.yaml", "--remote", &remote][..],
        &["pull", "p.yaml", "--remote", &format!("{remote}/none/none")],
        &["push", "p.yaml", "--remote", &format!("s3://{}", evil())],
    ] {
        clean(&space, "a remote", args);
    }
}

#[test]
fn what_people_and_models_wrote() {
    let space = Space::empty();
    let row = |i: usize| {
        serde_json::json!({ "prompt": format!("{i} {}", evil()), "response_a": evil(),
            "response_b": format!("b {}", evil()) })
    };
    let rows: String = (0..3).map(|i| format!("{}\n", row(i))).collect();
    space.write("pairs.jsonl", &rows);
    space.write(
        "p.yaml",
        "preflow: 1\nname: p\nsources:\n  pairs: { path: pairs.jsonl, as: pairs }\nstages:\n  labels:\n    \
         kind: collect_labels\n    pairs: pairs\n    labeler: { people: { votes: votes } }\n",
    );
    let given: String = (0..3)
        .map(|i| {
            let mut row = row(i);
            row["choice"] = serde_json::json!(if i == 2 { evil() } else { "a".into() });
            row["note"] = serde_json::json!(evil());
            format!("{row}\n")
        })
        .collect();
    space.write("given.jsonl", &given);
    for args in [
        &["label", "import", "given.jsonl", "--votes", "votes", "--annotator", "ann"][..],
        &["label", "import", "given.jsonl", "--votes", "votes", "--annotator", "ann", "--skip-bad"],
        &["label", "import", "given.jsonl", "--votes", &evil(), "--annotator", &evil()],
        &["label", "stats", "p.yaml", "labels"],
        &["label", "links", "p.yaml", "labels"],
        &["label", "revoke", "p.yaml", "labels", "--link", &evil()],
        &["plan", "p.yaml"],
    ] {
        clean(&space, "people", args);
    }
    // Votes that somebody else's branch brought.
    let vote = std::fs::read_to_string(space.path("votes/ann.jsonl")).unwrap();
    space.write("votes/ann.jsonl", &format!("{vote}{}\n", evil()));
    for args in
        [&["plan", "p.yaml"][..], &["label", "stats", "p.yaml", "labels"], &["status", "p.yaml"]]
    {
        clean(&space, "a vote file", args);
    }
}
