//! Gates: a stage that is not good enough holds up what depends on it, and only that.

use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;

use crate::space::{Said, Space};

const PIPELINE: &str = "\
preflow: 1
name: gated
sources:
  corpus: { path: corpus.txt, as: text }
stages:
  words:
    kind: tokenizer
    text: corpus
    gate: { eval/accuracy: '>= 0.62' }
  after:
    kind: command
    inputs: { i: words }
    outputs: { o: file }
    command: 'cp \"$IN_i\" \"$OUT_o\"; echo after >> ran.txt'
  beside:
    kind: command
    inputs: { i: corpus }
    outputs: { o: file }
    command: 'cp \"$IN_i\" \"$OUT_o\"; echo beside >> ran.txt'
";

/// Stands for the worker: writes the one output and reports one figure.
const WORKER: &str = r#"#!/bin/sh
if [ "$1" = validate ]; then
    cat > /dev/null
    echo '{"problems":[]}'
    exit
fi
out=$(sed -n '/"outputs"/,/}/s/.*"tokenizer": "\(.*\)".*/\1/p' "$2")
echo '{"event":"hello","protocol":1,"catalog":"","worker":"w","backend":"b","device":"cpu"}'
echo made > "$out"
echo '{"event":"done","summary":{"eval/accuracy":0.58,"eval/n":40}}'
"#;

fn space() -> Space {
    let space = Space::empty();
    space.write("p.yaml", PIPELINE);
    space.write("corpus.txt", "some text\n");
    space.write("worker", WORKER);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("worker"), mode).expect("chmod");
    space
}

fn preflow(space: &Space, args: &[&str]) -> Said {
    let worker = space.path("worker");
    let output = space.command(args).env("PREFLOW_WORKER", worker).output().expect("starts");
    Said::of(&output, &space.path(""))
}

/// What was printed, times taken out.
fn shown(said: &Said) -> String {
    let no_time = |line: &str| {
        let words = line.split(' ').map(|word| {
            let time = word.trim_matches(['~', ',']);
            let is_time = time.ends_with('s') && time.starts_with(|c: char| c.is_ascii_digit());
            if is_time { "[T]" } else { word }
        });
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    let out: Vec<String> = said.out.lines().map(no_time).collect();
    let err = said.err.lines().filter(|line| !line.starts_with("note: results are kept"));
    let err: Vec<&str> = err.collect();
    format!("exit {}\n{}{}", said.code.unwrap_or(-1), out.join("\n"), err.join("\n"))
}

#[test]
fn what_depends_on_an_unmet_gate_does_not_run_and_the_exit_code_is_3() {
    let space = space();
    let said = preflow(&space, &["run", "p.yaml", "--jobs", "1"]);
    assert_snapshot!(shown(&said), @r"
    exit 3
     ▸ words   starts: first run
     ▸ beside  starts: first run
     ✓ words   done in [T]   eval/accuracy 0.580  eval/n 40
     ◌ words   gate of `words` not met: eval/accuracy is 0.58, must be >= 0.62
       = help: what depends on it does not run; improve `words`, or go on all the same with --accept-gate words
     ✓ beside  done in [T]
     2 done · 1 gate not met · 1 blocked   [T]
    ");
    assert_eq!(space.take_ran(), "beside");
    // Again, from the cache.
    assert_snapshot!(shown(&preflow(&space, &["run", "p.yaml", "--jobs", "1"])), @r"
    exit 3
     ◌ words   gate of `words` not met: eval/accuracy is 0.58, must be >= 0.62
       = help: what depends on it does not run; improve `words`, or go on all the same with --accept-gate words
     2 reused · 1 gate not met · 1 blocked   [T]
    ");
    assert_eq!(space.take_ran(), "");
    assert_snapshot!(shown(&preflow(&space, &["plan", "p.yaml"])), @r"
    exit 0
     stage   state  why                                                      est
     words   reuse  gate not met: eval/accuracy is 0.58, must be >= 0.62       –
     after   gate   gate of `words` not met                                    ?
     beside  reuse                                                             –
     0 run · 0 wait · 1 behind a gate · 2 reused   [T] saves [T]
    ");
    let why = preflow(&space, &["why", "p.yaml", "after"]);
    assert!(why.out.contains("the gate of `words` is not met"), "{}", why.out);
    assert!(
        why.out.contains("gate not met: eval/accuracy is 0.58, must be >= 0.62"),
        "{}",
        why.out
    );
    let status = preflow(&space, &["status", "p.yaml"]);
    assert!(status.out.contains("eval/accuracy is 0.58"), "{}", status.out);
}

#[test]
fn an_accepted_gate_lets_everything_run_and_stays_on_record() {
    let space = space();
    let said = preflow(&space, &["run", "p.yaml", "--accept-gate", "words"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(space.take_ran(), "after beside");
    let why = preflow(&space, &["why", "p.yaml", "after"]);
    let record = "accepted: gate of `words` not met: eval/accuracy is 0.58, must be >= 0.62";
    assert!(why.out.contains(record), "{}", why.out);
    let report = preflow(&space, &["report", "p.yaml"]);
    assert_eq!(report.code, Some(0), "{}", report.err);
    assert!(space.read("report.html").contains("must be &gt;= 0.62"));
    let other = preflow(&space, &["run", "p.yaml", "--accept-gate", "after"]);
    assert!(other.code == Some(2) && other.err.contains("`after` has no gate"), "{}", other.err);
    let unknown = preflow(&space, &["run", "p.yaml", "--accept-gate", "word"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("did you mean `words`?"), "{}", unknown.err);
}

#[test]
fn a_gate_on_a_figure_that_nobody_reports_names_those_there_are() {
    let space = space();
    space.write("p.yaml", &PIPELINE.replace("eval/accuracy", "accuracy"));
    let said = preflow(&space, &["run", "p.yaml"]);
    assert_eq!(said.code, Some(2), "{}", said.out);
    let wanted = "it reports no `accuracy`; it reports eval/accuracy, eval/n";
    assert!(said.out.contains(wanted), "{}", said.out);
}
