//! What the system does not lend: a message and the documented exit code, and nothing is lost.

use std::process::Output;

use crate::space::Space;

/// `preflow ARGS` in a shell where `before` was said.
fn limited(space: &Space, before: &str, args: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("bash");
    let program = env!("CARGO_BIN_EXE_preflow");
    command.arg("-c").arg(format!("{before}; exec {program} {args}"));
    command.current_dir(space.path("")).env_remove("PREFLOW_CACHE").env("NO_COLOR", "1");
    command.env("XDG_STATE_HOME", space.path(".state"));
    let Output { status, stdout, stderr } = command.output().expect("bash starts");
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn wide(stages: usize) -> Space {
    let space = Space::empty();
    let mut text = "preflow: 1\nname: chain\nstages:\n".to_owned();
    for i in 0..stages {
        text += &format!(
            "  a{i}: {{ kind: command, outputs: {{ o: file }}, command: 'echo {i} > $OUT_o' }}\n"
        );
    }
    space.write("p.yaml", &text);
    space
}

#[test]
fn few_open_files_are_enough_and_too_few_are_told() {
    let space = wide(100);
    for few in [7, 8, 12, 24, 39] {
        let (code, said) = limited(&space, &format!("ulimit -n {few}"), "run -q p.yaml");
        assert_eq!(code, Some(4), "{few}: {said}");
        if few >= 8 {
            assert!(said.contains(&format!("may open {few} files only")), "{said}");
            assert!(said.contains("ulimit -n 1024"), "{said}");
        }
    }
    assert!(!space.path("cache/entries-v1").exists(), "nothing ran");
    let (code, said) = limited(&space, "ulimit -n 48", "run -j 8 p.yaml");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" 100 done"), "{said}");
    // What the user may raise is raised.
    let (code, said) = limited(&space, "ulimit -S -n 12", "run -j 8 --force a1 p.yaml");
    assert_eq!(code, Some(0), "{said}");
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
}

#[test]
fn files_that_may_not_grow_are_told() {
    let space = wide(40);
    // Kibibytes.
    for most in [0, 1, 2, 4] {
        let (code, said) = limited(&space, &format!("ulimit -f {most}"), "run -q p.yaml");
        assert!(matches!(code, Some(0 | 1 | 4)), "{most}: {code:?} {said}");
        assert!(said.to_lowercase().contains("too large") || said.contains("ulimit -f"), "{said}");
    }
    assert_eq!(space.preflow(&["run", "-q", "p.yaml"]).code, Some(0));
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
    // A program that a stage starts is under the limit as always.
    space.write(
        "q.yaml",
        "preflow: 1\nstages:\n  a: { kind: command, outputs: { o: file }, \
         command: 'exec dd if=/dev/zero of=$OUT_o bs=1024 count=1000' }\n",
    );
    let (code, said) = limited(&space, "ulimit -f 500", "run -q q.yaml");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("killed by signal 25") && said.contains("ulimit -f"), "{said}");
}

#[test]
fn an_output_that_is_lost_is_told_once_and_the_work_is_kept() {
    let space = Space::chain();
    for verb in ["check", "plan", "status", "why", "graph", "config", "kinds", "schema", "run"] {
        let words = match verb {
            "kinds" | "schema" => verb.to_owned(),
            "why" => "why p.yaml a".to_owned(),
            _ => format!("{verb} p.yaml"),
        };
        let (code, said) = limited(&space, "exec > /dev/full", &words);
        assert_eq!(code, Some(4), "{verb}: {said}");
        assert_eq!(said.matches("cannot write to standard output").count(), 1, "{verb}: {said}");
    }
    assert_eq!(space.take_ran(), "a b c side");
    assert_eq!(space.ran(&["run", "p.yaml"]), "", "what was made is kept");
}
