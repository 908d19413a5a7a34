//! Bad input: each with a clear message, exit 2, and nothing run.

use insta::assert_snapshot;

use crate::space::{CHAIN, Space};

/// Exit code and message of `run` on a pipeline that must not start.
fn refused(space: &Space) -> String {
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(space.take_ran(), "", "nothing may run");
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said.error()
}

fn with_source(source: &str) -> Space {
    let space = Space::chain();
    space.write("p.yaml", &CHAIN.replace("path: src.txt", &format!("path: {source}")));
    space
}

#[test]
fn a_missing_source_is_named_with_its_place() {
    assert_snapshot!(refused(&with_source("nowhere.txt")), @r"
    exit 2
    error: source `src`: `[DIR]/nowhere.txt` does not exist
     --> p.yaml:5:3
      |
    5 |   src: { path: nowhere.txt, as: file }
      |   ^^^
      |
      = help: paths are relative to the pipeline file
    ");
}

#[test]
fn empty_special_and_dangling_sources_are_refused() {
    let space = with_source("empty.txt");
    space.write("empty.txt", "");
    assert!(refused(&space).contains("`[DIR]/empty.txt` is empty"));

    let space = with_source("link");
    std::os::unix::fs::symlink("gone", space.path("link")).expect("link");
    assert!(refused(&space).contains("`[DIR]/link` is a link to `gone`, which does not exist"));

    let space = with_source("/dev/null");
    assert!(refused(&space).contains("`/dev/null` is a device"));

    let space = with_source("pipe");
    let made = std::process::Command::new("mkfifo").arg(space.path("pipe")).status();
    assert!(made.expect("mkfifo").success());
    assert!(refused(&space).contains("`[DIR]/pipe` is a named pipe"));

    let space = with_source("\"*.none\"");
    assert!(refused(&space).contains("no file matches `[DIR]/*.none`"));
}

#[test]
fn a_pattern_and_a_directory_are_sources_too() {
    for source in ["\"parts/*.txt\"", "parts"] {
        let space = with_source(source);
        space.write("p.yaml", &space.read("p.yaml").replace("cat \"$IN_i\"", "echo \"$IN_i\""));
        space.write("p.yaml", &space.read("p.yaml").replace("cp \"$IN_i\"", "cp p.yaml"));
        space.write("parts/one.txt", "1");
        space.write("parts/two.txt", "2");
        assert_eq!(space.ran(&["run", "p.yaml"]), "a b c side");
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
        space.write("parts/two.txt", "3");
        assert_eq!(space.ran(&["run", "p.yaml"]), "a side", "{source}");
    }
}

#[test]
fn the_command_line_is_checked() {
    let space = Space::chain();
    let said = |args: &[&str]| space.preflow(args).error();
    assert_snapshot!(said(&["run", "nope.yaml"]), @r"
    exit 2
    error: cannot read nope.yaml: No such file or directory (os error 2)
    ");
    assert_snapshot!(said(&["run", "p.yaml", "sid"]), @r"
    exit 2
    error: no stage `sid` in this pipeline
      = help: did you mean `side`?
    ");
    assert_snapshot!(said(&["run", "p.yaml", "--jobs", "0"]), @r"
    exit 2
    error: --jobs 0: at least one is needed
    ");
    assert!(said(&["rum"]).starts_with("exit 2\n"));
    let two = CHAIN.replace("as: file }", "as: file }\n");
    space.write("q.yaml", &two);
    assert_snapshot!(said(&["run"]), @r"
    exit 2
    error: no pipeline file named, and there is more than one
      = help: name one of p.yaml, q.yaml
    ");
}

#[test]
fn more_than_the_machine_has_is_refused_before_anything_runs() {
    let space = Space::chain();
    space.write(
        "p.yaml",
        &CHAIN.replace(
            "kind: command\n    inputs: { i: b }",
            "kind: command\n    run: { gpus: 9 }\n    inputs: { i: b }",
        ),
    );
    let said = space.preflow(&["run", "p.yaml", "--gpus", "1"]);
    assert_snapshot!(said.error(), @r"
    exit 2
    error: stage `c` asks for 9 gpus, this machine offers 1
      = help: lower it under `run:` of the stage, or offer more with --memory or --gpus
    ");
    assert_eq!(space.take_ran(), "");
}

#[test]
fn a_command_gets_at_any_number_of_files_with_any_names() {
    let space = Space::empty();
    let pipeline = |command: &str| {
        format!(
            "preflow: 1\nname: many\nsources: {{ docs: {{ path: 'my data/*.txt' }} }}\nstages:\n  \
             s: {{ kind: command, inputs: {{ docs: docs }}, outputs: {{ o: file }}, command: '{command}' }}\n"
        )
    };
    space.write("my data/my file.txt", "one\n");
    space.write("my data/b.txt", "two\n");
    space.write("p.yaml", &pipeline("cat $IN_docs > $OUT_o"));
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("read them from the file that IN_docs_LIST names"), "{}", said.out);
    space.write("p.yaml", &pipeline("xargs -d \"\\n\" cat < \"$IN_docs_LIST\" > \"$OUT_o\""));
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(space.read("cache/views/many/s/o"), "two\none\n");

    // More than one variable of the system takes.
    let name = |i: usize| format!("my data/{i:04}{}.txt", "x".repeat(100));
    for i in 0..1500 {
        space.write(&name(i), "y\n");
    }
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("the variable is left out"), "{}", said.out);
    assert_eq!(space.read("cache/views/many/s/o").lines().count(), 1502);
    space.write("p.yaml", &pipeline("cat $IN_docs > $OUT_o"));
    let said = space.preflow(&["run", "p.yaml"]);
    assert!(said.code == Some(1) && said.out.contains("the 1502 paths"), "{}", said.out);
}
