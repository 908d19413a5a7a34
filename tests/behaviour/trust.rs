//! What a cloned repository may do before its user agreed to anything: nothing.

use std::process::Command;

use crate::space::{CHAIN, Said, Space};

/// Makes the file `pwned` whenever it is started, whatever for.
const EVIL: &str = "preflow-workspace: 1\nworkers:\n  evil: { command: [sh, -c, \"echo x >> \
    $TOP/pwned; echo '{\\\"protocol\\\": 1, \\\"validates\\\": true, \\\"kinds\\\": []}'\"] }\n";

/// Every verb, with the words that let it do its work.
const VERBS: [&str; 41] = [
    "ci HEAD p.yaml",
    "show p.yaml a",
    "export p.yaml a -o out",
    "check p.yaml",
    "plan p.yaml",
    "plan",
    "status p.yaml",
    "why p.yaml a",
    "graph p.yaml",
    "config p.yaml",
    "doctor",
    "kinds",
    "kinds command",
    "schema",
    "gc",
    "gc --yes --grace 0",
    "verify",
    "metrics p.yaml",
    "report p.yaml",
    "diff p.yaml",
    "lock p.yaml",
    "logs p.yaml a",
    "runs",
    "trace p.yaml a",
    "sample p.yaml a",
    "chat p.yaml a",
    "serve p.yaml a",
    "label stats l.yaml labels",
    "label export l.yaml labels -o out.jsonl",
    "label import l.yaml labels votes.jsonl",
    "sweep plan s.yaml",
    "sweep show s.yaml",
    "pull p.yaml",
    "push p.yaml",
    "completions bash",
    "init other",
    "run p.yaml",
    "run p.yaml --force a",
    "sweep run s.yaml",
    "verify --rerun a p.yaml",
    "trust --list",
];

fn untrusted(space: &Space, args: &str) -> Command {
    let mut command = space.command(&args.split(' ').collect::<Vec<_>>());
    command.env_remove("PREFLOW_TRUST").env("TOP", space.path(""));
    command
}

fn say(space: &Space, args: &str) -> Said {
    Said::of(&untrusted(space, args).output().expect("starts"), &space.path(""))
}

fn cloned() -> Space {
    let space = Space::chain();
    space.write("preflow.yaml", EVIL);
    space.write("s.yaml", "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { p: [one, two] }\n");
    space.write(
        "pairs.jsonl",
        "{\"prompt\": \"p\", \"response_a\": \"a\", \"response_b\": \"b\"}\n",
    );
    space.write(
        "l.yaml",
        "preflow: 1\nsources:\n  pairs: { path: pairs.jsonl, as: pairs }\nstages:\n  labels:\n    \
         kind: collect_labels\n    pairs: pairs\n    labeler: { people: { votes: votes } }\n",
    );
    space
}

#[test]
fn no_verb_starts_what_a_repository_names() {
    let space = cloned();
    for verb in VERBS {
        let said = say(&space, verb);
        assert!(said.code.is_some_and(|code| code < 5), "{verb}: {}", said.error());
        assert!(!space.path("pwned").exists(), "{verb}");
    }
    let help = say(&space, "--help").out;
    let verbs: Vec<&str> = help
        .lines()
        .take_while(|line| !line.ends_with("options:") && !line.ends_with("Options:"))
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 20, "{help}");
    for verb in verbs {
        let known = VERBS.iter().any(|words| words.split(' ').next() == Some(verb));
        assert!(known || verb == "ui", "`{verb}` is not tried here");
    }
    // A page that stays open.
    let mut page = untrusted(&space, "ui p.yaml --json --port 0");
    let mut page = page.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    let out = page.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    page.kill().expect("killed");
    page.wait().expect("ended");
    assert!(line.contains("url") && !space.path("pwned").exists(), "{line}");
    assert_eq!(space.take_ran().split(' ').filter(|s| *s == "side").count(), 1, "the rest works");
}

/// Offers the kind `mine`.
const WORKER: &str = r#"
import json, sys
KIND = {"name": "mine", "version": 1, "summary": "s", "inputs": [], "threads": 1,
    "outputs": [{"name": "o", "type": "file", "extension": "txt", "doc": "d"}],
    "params": {"type": "object", "additionalProperties": False, "properties": {}}}
if sys.argv[1] == "describe":
    print(json.dumps({"protocol": 1, "kinds": [KIND]}))
else:
    task = json.load(open(sys.argv[2]))
    say = lambda event, **f: print(json.dumps({"event": event, **f}), flush=True)
    say("hello", protocol=1, catalog="", worker="w", backend="", device="cpu")
    open(task["outputs"]["o"], "w").write("made")
    say("output", port="o")
    say("done", summary={})
"#;

#[test]
fn a_workspace_is_trusted_until_its_commands_change() {
    let space = Space::empty();
    let workers = |command: &str| {
        format!("preflow-workspace: 1\nworkers:\n  mine: {{ command: {command} }}\n")
    };
    space.write("worker.py", WORKER);
    space.write("preflow.yaml", &workers("[python3, worker.py]"));
    space.write("p.yaml", "preflow: 1\nname: p\nstages:\n  m: { kind: mine }\n");
    for verb in ["check p.yaml", "plan p.yaml", "run p.yaml"] {
        let said = say(&space, verb);
        assert_eq!(said.code, Some(2));
        for part in [
            "unknown kind `mine`",
            "p.yaml:4:14",
            "workers that you have not trusted: `python3 worker.py`",
            "look at `preflow.yaml`, then run `preflow trust`",
            "PREFLOW_TRUST=1",
        ] {
            assert!(said.err.contains(part), "{verb}: {}", said.err);
        }
    }
    let said = say(&space, "kinds");
    assert!(said.code == Some(0) && said.err.contains("run `preflow trust`"), "{}", said.err);
    assert!(say(&space, "doctor").out.contains("workers that you have not trusted"));
    let said = say(&space, "trust");
    assert!(said.out.contains("mine: python3 worker.py"), "{}", said.out);
    assert_eq!(say(&space, "run -q p.yaml").code, Some(0));
    assert!(say(&space, "trust --list").out.contains("mine: python3 worker.py"));
    // What else the file says does not matter, a command does.
    let with_remote = workers("[python3, worker.py]") + "remote: { url: ./remote }\n";
    space.write("preflow.yaml", &with_remote);
    assert_eq!(say(&space, "plan p.yaml").code, Some(0));
    for other in ["[python3, worker.py, --x]", "[python3, ./worker.py]", "[sh, worker.py]"] {
        space.write("preflow.yaml", &workers(other));
        assert_eq!(say(&space, "plan p.yaml").code, Some(2), "{other}");
    }
    space.write("preflow.yaml", &workers("[python3, worker.py]"));
    assert_eq!(say(&space, "plan p.yaml").code, Some(0), "as it was agreed to");
    // The same files elsewhere are another workspace.
    let copy = Space::empty();
    for file in ["worker.py", "preflow.yaml", "p.yaml"] {
        copy.write(file, &space.read(file));
    }
    let mut elsewhere = copy.command(&["plan", "p.yaml"]);
    elsewhere.env_remove("PREFLOW_TRUST").env("XDG_STATE_HOME", space.path(".state"));
    assert_eq!(elsewhere.output().expect("starts").status.code(), Some(2));
    assert!(say(&space, "trust --revoke").out.contains("may no longer"));
    assert_eq!(say(&space, "plan p.yaml").code, Some(2));
    let mut by_environment = untrusted(&space, "plan p.yaml");
    let status = by_environment.env("PREFLOW_TRUST", "1").output().expect("starts").status;
    assert_eq!(status.code(), Some(0));
    let mut nowhere = untrusted(&space, "trust");
    let output = nowhere.env_remove("XDG_STATE_HOME").env_remove("HOME").output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    std::fs::write(space.path(".state/preflow/trust.json"), "half").expect("written");
    let said = say(&space, "plan p.yaml");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("what you have trusted cannot be read"), "{}", said.err);
}

#[test]
fn workspaces_that_are_trusted_at_once_are_all_on_record() {
    let space = Space::empty();
    let names: Vec<String> = (0..12).map(|i| format!("w{i}")).collect();
    let start = |name: &String| {
        space.write(
            &format!("{name}/preflow.yaml"),
            "preflow-workspace: 1\nworkers: { w: { command: [sh, w.sh] } }\n",
        );
        let mut command = untrusted(&space, "trust");
        command.current_dir(space.path(name)).stdout(std::process::Stdio::null());
        command.spawn().expect("starts")
    };
    let all: Vec<_> = names.iter().map(start).collect();
    for mut one in all {
        assert!(one.wait().expect("ended").success());
    }
    let listed = say(&space, "trust --list").out;
    for name in &names {
        assert!(listed.lines().any(|line| line == format!(" [DIR]{name}")), "{listed}");
    }
}

#[test]
fn the_search_for_a_workspace_file_ends_at_the_repository() {
    let space = Space::empty();
    std::fs::remove_dir(space.path(".git")).expect("no repository");
    space.write("preflow.yaml", EVIL);
    space.write("mine/p.yaml", CHAIN);
    space.write("mine/src.txt", "text\n");
    std::fs::create_dir(space.path("mine/.git")).expect("a repository below it");
    let plan = |dir: &str| {
        let mut command = untrusted(&space, "run p.yaml");
        command.env("PREFLOW_TRUST", "1").current_dir(space.path(dir));
        Said::of(&command.output().expect("starts"), &space.path(""))
    };
    assert_eq!(plan("mine").code, Some(0));
    assert!(!space.path("pwned").exists());
    assert!(space.path("mine/cache").exists() && !space.path("cache").exists());
    // Without a repository it is meant for all that lies below it.
    std::fs::remove_dir(space.path("mine/.git")).expect("removed");
    plan("mine");
    assert!(space.path("pwned").exists());
}

#[test]
fn a_workspace_file_of_another_user_is_not_obeyed() {
    if !rustix::process::geteuid().is_root() {
        // Only root gives files away; what decides is tested beside the code.
        return;
    }
    let give = |path: &std::path::Path| {
        std::os::unix::fs::chown(path, Some(54321), None).expect("root may");
    };
    let space = Space::empty();
    std::fs::remove_dir(space.path(".git")).expect("no repository");
    space.write("preflow.yaml", EVIL);
    give(&space.path("preflow.yaml"));
    space.write("mine/p.yaml", CHAIN);
    space.write("mine/src.txt", "text\n");
    let mut command = untrusted(&space, "run p.yaml");
    command.env_remove("SUDO_UID").env("PREFLOW_TRUST", "1").current_dir(space.path("mine"));
    assert!(command.output().expect("starts").status.success());
    assert!(!space.path("pwned").exists() && space.path("mine/cache").exists());
    // All of it somebody else's, as a folder that is mounted: told, not passed over.
    let space = Space::empty();
    std::fs::remove_dir(space.path(".git")).expect("no repository");
    space.write("preflow.yaml", "preflow-workspace: 1\n");
    space.write("sub/p.yaml", CHAIN);
    space.write("sub/src.txt", "text\n");
    ["", "sub", "preflow.yaml"].iter().for_each(|name| give(&space.path(name)));
    let mut command = untrusted(&space, "run p.yaml");
    command.env_remove("SUDO_UID").current_dir(space.path("sub"));
    let said = Said::of(&command.output().expect("starts"), &space.path(""));
    assert_eq!(said.code, Some(2), "{}", said.error());
    assert!(said.err.contains("belongs to another user (uid 54321)"), "{}", said.err);
    assert!(command.env("PREFLOW_TRUST", "1").output().expect("starts").status.success());
    assert!(space.path("cache").exists() && !space.path("sub/cache").exists());
    // In the repository itself it is refused by name.
    let space = cloned();
    give(&space.path("preflow.yaml"));
    for verb in ["plan p.yaml", "run p.yaml", "pull p.yaml"] {
        let mut command = untrusted(&space, verb);
        command.env_remove("SUDO_UID");
        let said = Said::of(&command.output().expect("starts"), &space.path(""));
        assert_eq!(said.code, Some(2), "{verb}: {}", said.error());
        assert!(said.err.contains("belongs to another user (uid 54321)"), "{}", said.err);
        command.env("SUDO_UID", "54321");
        let said = Said::of(&command.output().expect("starts"), &space.path(""));
        assert!(!said.err.contains("another user"), "{}", said.err);
    }
}

#[test]
fn a_plan_that_was_kept_is_believed_only_of_the_users_own_programs() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let as_user = |state: &str| {
        let mut command = space.command(&["run", "-q", "p.yaml"]);
        command.env("XDG_STATE_HOME", space.path(state));
        assert!(command.output().expect("starts").status.success());
        let kept = space.entries_of("cache/derived-v1", "plan-");
        kept.first().map(|path| std::fs::read(path).expect("read"))
    };
    let mine = as_user(".state").expect("a plan is kept");
    assert_eq!(as_user(".state").as_ref(), Some(&mine), "read, not made again");
    // Whoever has the same program and the same files, but not this user's secret.
    let theirs = as_user("other").expect("a plan is kept");
    assert_ne!(mine, theirs, "signed by somebody else, it is worked out again");
    assert_eq!(mine[32..], theirs[32..], "the same plan");
    let mode = std::fs::metadata(space.path("other/preflow/secret")).expect("made").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    // Without a place for a secret nothing is believed, and all works.
    let mut homeless = space.command(&["run", "-q", "p.yaml"]);
    homeless.env_remove("XDG_STATE_HOME").env_remove("HOME");
    assert!(homeless.output().expect("starts").status.success());
}

#[test]
fn no_program_is_taken_from_the_folder_where_one_stands() {
    let space = cloned();
    std::fs::remove_dir(space.path(".git")).expect("only a mark");
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args);
        assert!(command.current_dir(space.path("")).status().expect("starts").success());
    };
    git(&["init", "-q"]);
    git(&["add", "p.yaml", "src.txt"]);
    git(&["commit", "-q", "-m", "one"]);
    space.write("labels.yaml", "preflow: 1\nstages:\n  b: { kind: pretrain }\n");
    for name in ["git", "tar", "preflow-worker"] {
        space.write(name, &format!("#!/bin/sh\necho x >> {}\n", space.path("pwned").display()));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(space.path(name), mode).expect("set");
    }
    // A program without its worker beside it, as in a build of the orchestrator alone.
    let alone = tempfile::tempdir().expect("temp dir");
    let program = alone.path().join("preflow");
    if std::fs::hard_link(env!("CARGO_BIN_EXE_preflow"), &program).is_err() {
        std::fs::copy(env!("CARGO_BIN_EXE_preflow"), &program).expect("copied");
    }
    let path = format!(".::{}", std::env::var("PATH").expect("set"));
    for verb in
        ["status p.yaml", "doctor", "check labels.yaml", "diff HEAD --file p.yaml", "run p.yaml"]
    {
        let mut command = Command::new(&program);
        command.args(verb.split(' ')).current_dir(space.path("")).env("PATH", &path);
        command.env_remove("PREFLOW_TRUST").env_remove("PREFLOW_WORKER");
        command.env("XDG_STATE_HOME", space.path(".state"));
        let said = Said::of(&command.output().expect("starts"), &space.path(""));
        assert!(said.code.is_some_and(|code| code < 5), "{verb}: {}", said.error());
        assert!(!space.path("pwned").exists(), "{verb}");
        if verb == "doctor" {
            assert!(said.out.contains("preflow-worker` is not there"), "{}", said.out);
        }
    }
}
