//! Run again: nothing to do. Change something: exactly this runs, for this reason.

use insta::assert_snapshot;

use crate::space::{CHAIN, Space};

#[test]
fn the_second_run_executes_nothing_and_says_so() {
    let space = Space::chain();
    assert_eq!(space.ran(&["run", "p.yaml"]), "a b c side");
    let said = space.preflow(&["run", "p.yaml"]);
    assert!(said.out.starts_with(" nothing to do: 4 reused"), "{}", said.out);
    assert_eq!(space.take_ran(), "");
}

#[test]
fn one_param_runs_exactly_what_it_changes_each_with_its_reason() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let said = space.preflow(&["plan", "p.yaml", "--set", "p=two"]);
    let table: Vec<&str> = said.out.lines().map(|l| l[..l.len().min(60)].trim_end()).collect();
    let table: Vec<String> =
        table.iter().map(|l| l.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_snapshot!(table.join("\n"), @r"
    stage state why
    a run command
    b wait a
    c wait b
    side reuse
    1 run ·
    ");
    assert_eq!(space.ran(&["run", "p.yaml", "--set", "p=two"]), "a b c");
    assert_eq!(space.read("cache/views/chain/c/o"), "two\n");
}

#[test]
fn a_change_that_changes_no_bytes_is_cut_off() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.ran(&["run", "p.yaml", "--set", "q=loud"]), "b");
}

#[test]
fn a_value_seen_before_costs_nothing() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    space.ran(&["run", "p.yaml", "--set", "p=two"]);
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(space.read("cache/views/chain/c/o"), "one\n");
}

#[test]
fn views_come_back_without_running_anything() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    std::fs::remove_dir_all(space.path("cache/views")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(space.read("cache/views/chain/b/o"), "one\n");
}

#[test]
fn touching_a_source_or_reformatting_the_file_runs_nothing() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    space.write("src.txt", "text\n");
    let reformatted = CHAIN.replace("kind: command\n", "kind:   command # as before\n");
    space.write("p.yaml", &format!("# a comment\n{reformatted}"));
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    space.write("src.txt", "other\n");
    assert_eq!(space.ran(&["run", "p.yaml"]), "a b side", "b makes the same bytes, c is cut off");
}

#[test]
fn targets_bring_up_what_they_need_and_no_more() {
    let space = Space::chain();
    assert_eq!(space.ran(&["run", "p.yaml", "b"]), "a b");
    assert_eq!(space.ran(&["run", "p.yaml", "--from", "b"]), "b c side");
    assert_eq!(space.ran(&["run", "p.yaml", "--force", "b"]), "b");
}

#[test]
fn the_pipeline_is_found_when_there_is_one() {
    let space = Space::chain();
    assert_eq!(space.ran(&["run", "c"]), "a b c");
    let said = space.preflow(&["status"]);
    assert!(said.out.contains("✓ c     up to date"), "{}", said.out);
    assert!(said.out.contains("✗ side  not made    never run"), "{}", said.out);
}

#[test]
fn why_goes_down_to_the_root() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let said = space.preflow(&["why", "p.yaml", "c", "--set", "p=two"]);
    assert_snapshot!(said.out, @r#"
     c  waits for b
        ← b  waits for a
           ← a  runs: command … echo one >> "$… → … echo two >> "$…
    "#);
    space.ran(&["run", "p.yaml", "--set", "p=two"]);
    let said = space.preflow(&["why", "p.yaml", "c", "--set", "p=two"]);
    let out = said.out.lines().map(|l| {
        let at = l.find("20").unwrap_or(l.len() - 16);
        format!("{}[TIME]{}", &l[..at], &l[at + 16..])
    });
    assert_snapshot!(out.collect::<Vec<_>>().join("\n"), @r#"
     c  up to date; it last ran [TIME]: input i changed
        ← b  ran [TIME]: input i changed
           ← a  ran [TIME]: command … echo one >> "$… → … echo two >> "$…
    "#);
}

#[test]
fn programs_read_json() {
    let space = Space::chain();
    let said = space.preflow(&["plan", "p.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&said.out).expect("json");
    assert_eq!(plan["stages"][0]["why"], "never run");
    let said = space.preflow(&["run", "p.yaml", "--json"]);
    let events: Vec<serde_json::Value> =
        said.out.lines().map(|l| serde_json::from_str(l).expect("json")).collect();
    assert_eq!(events[0]["event"], "run_started");
    assert_eq!(events.last().expect("last")["totals"]["done"], 4);
    let done = events.iter().find(|e| e["event"] == "stage_done" && e["stage"] == "side");
    let digest = done.expect("side is done")["outputs"]["o"].clone();
    // What `sha256sum src.txt` prints: side copies its input.
    assert_eq!(digest, "sha256:b9e68e1bea3e5b19ca6b2f98b73a54b73daafaa250484902e09982e07a12e733");
}

#[test]
fn logs_show_what_a_stage_said() {
    let space = Space::chain();
    space.write("p.yaml", &CHAIN.replace("echo side >>", "echo loud and clear; echo side >>"));
    space.ran(&["run", "p.yaml"]);
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.preflow(&["logs", "p.yaml", "side"]).out, "loud and clear\n");
    assert_snapshot!(space.preflow(&["logs", "p.yaml", "nope"]).error(), @r"
    exit 2
    error: no stage `nope` in this pipeline
      = help: `preflow graph` lists all stages
    ");
}

#[test]
fn a_failing_stage_shows_its_last_words_and_the_rest_is_kept() {
    let space = Space::chain();
    space.write("p.yaml", &CHAIN.replace(": ${q};", "echo no luck >&2; exit 7;"));
    let said = space.preflow(&["run", "p.yaml", "--keep-going"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("error: stage `b`: crashed: exit 7\n  | no luck\n"), "{}", said.out);
    assert!(said.out.contains("2 done · 1 failed · 1 blocked"), "{}", said.out);
    space.take_ran();
    space.write("p.yaml", CHAIN);
    assert_eq!(space.ran(&["run", "p.yaml"]), "b c");
}

#[test]
fn two_runs_at_once_make_each_thing_once() {
    let space = Space::chain();
    space.write("p.yaml", &CHAIN.replace("echo a >>", "sleep 0.5; echo a >>"));
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = space.command(&["run", "-q", "p.yaml"]);
            command.stdout(std::process::Stdio::null()).spawn().expect("starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    assert_eq!(space.take_ran(), "a b c side");
}

#[test]
fn a_chain_of_ten_thousand_stages_is_planned() {
    use std::fmt::Write as _;
    let space = Space::empty();
    space.write("src.txt", "text\n");
    let mut text =
        String::from("preflow: 1\nsources: { src: { path: src.txt, as: file } }\nstages:\n");
    for i in 0..10_000 {
        let from = if i == 0 { "src".to_owned() } else { format!("s{}", i - 1) };
        writeln!(
            text,
            "  s{i}: {{ kind: command, inputs: {{ i: {from} }}, outputs: {{ o: file }}, command: x }}"
        )
        .expect("string");
    }
    assert!(text.len() < 1 << 20, "a pipeline file holds a mebibyte");
    space.write("p.yaml", &text);
    let said = space.preflow(&["plan", "p.yaml"]);
    assert!(said.out.ends_with(" 1 run · 9999 wait · 0 reused   ?\n"), "{}", said.err);
}

#[test]
fn the_ending_of_a_source_says_how_to_read_it_so_it_counts() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    // The same bytes elsewhere are the same source; under another ending they are not.
    space.write("moved/src.txt", "text\n");
    space.write("p.yaml", &CHAIN.replace("src.txt", "moved/src.txt"));
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    std::os::unix::fs::symlink("src.txt", space.path("src.csv")).expect("link");
    space.write("p.yaml", &CHAIN.replace("src.txt", "src.csv"));
    let said = space.preflow(&["plan", "p.yaml"]);
    assert!(said.out.contains("file ending of i txt → csv"), "{}", said.out);
    assert_eq!(space.ran(&["run", "p.yaml"]), "a side");
}

#[test]
fn a_stage_that_never_ran_is_priced_by_those_like_it() {
    let space = Space::empty();
    let stage = |name: &str, word: &str| {
        format!(
            " {name}: {{ kind: command, outputs: {{ o: file }}, command: 'echo {word} > $OUT_o' }}\n"
        )
    };
    space.write("p.yaml", &format!("preflow: 1\nstages:\n{}", stage("a", "x")));
    space.preflow(&["run", "p.yaml", "-q"]);
    // Of another pipeline: `a` by its name, `c` by what it does, `b` by nothing.
    let others = [stage("a", "y"), stage("b", "z"), stage("c", "x")].concat();
    space.write("q.yaml", &format!("preflow: 1\nstages:\n{others}"));
    let said = space.preflow(&["plan", "q.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let row = |i: usize| (&plan["stages"][i]["state"], &plan["stages"][i]["estimated_from"]);
    let known: Vec<_> = (0..3).map(|i| plan["stages"][i]["seconds"].is_number()).collect();
    assert_eq!(known, [true, false, true], "{}", said.out);
    assert_eq!(row(0), (&"run".into(), &"others".into()));
    assert_eq!(row(1), (&"run".into(), &serde_json::Value::Null));
    // `c` is what `a` of the other pipeline was.
    assert_eq!(row(2), (&"reuse".into(), &"itself".into()));
    let said = space.preflow(&["plan", "q.yaml"]);
    assert!(said.out.contains(" ~") && said.out.contains("? + "), "{}", said.out);
}

#[test]
fn a_source_that_is_only_touched_while_its_stage_runs_is_read_again() {
    let space = Space::empty();
    space.write("data/a.txt", "a\n");
    space.write("data/b.txt", "b\n");
    let pipeline = |meanwhile: &str| {
        format!(
            "preflow: 1\nname: touched\nsources: {{ docs: {{ path: data }} }}\nstages:\n  \
             s: {{ kind: command, inputs: {{ docs: docs }}, outputs: {{ o: file }},\n       \
             command: 'cat $IN_docs/*.txt > $OUT_o; {meanwhile}' }}\n"
        )
    };
    // A second name, a copy in its place, what an editor leaves: the bytes are what they were.
    let harmless = "ln data/a.txt second; cp data/b.txt new; mv new data/b.txt; touch data/b.txt~";
    space.write("p.yaml", &pipeline(harmless));
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(space.preflow(&["run", "p.yaml"]).out.starts_with(" nothing to do"));
    for (meanwhile, file) in [
        ("echo B > data/b.txt", "data/b.txt"),
        ("echo new > data/c.txt", "data/c.txt"),
        ("rm data/a.txt", "data/a.txt"),
    ] {
        space.write("p.yaml", &pipeline(meanwhile));
        let said = space.preflow(&["run", "p.yaml"]);
        assert_eq!(said.code, Some(1), "{meanwhile}: {}", said.out);
        let named = format!("because: `[DIR]/{file}` is not what was hashed");
        assert!(said.out.contains(&named), "{meanwhile}: {}", said.out);
        space.write("data/a.txt", "a\n");
        space.write("data/b.txt", "b\n");
        let _ = std::fs::remove_file(space.path("data/c.txt"));
    }
}

#[test]
fn the_files_of_a_folder_or_pattern_that_changed_are_named() {
    let space = Space::empty();
    space.write("data/a.txt", "a\n");
    space.write("data/b.txt", "b\n");
    space.write("data/.DS_Store", "x");
    space.write(
        "p.yaml",
        "preflow: 1\nname: named\nsources: { all: { path: data }, some: { path: 'data/*.txt' } }\n\
         stages:\n  s: { kind: command, inputs: { x: all, y: [some] }, outputs: { o: file },\n       \
         command: 'ls $IN_x > $OUT_o' }\n",
    );
    space.preflow(&["run", "p.yaml", "-q"]);
    space.write("data/.DS_Store", "y");
    space.write("data/.a.txt.swp", "z");
    let plan = space.preflow(&["plan", "p.yaml"]).out;
    assert!(plan.contains("nothing to do"), "{plan}");
    space.write("data/b.txt", "B\n");
    space.write("data/c.txt", "c\n");
    let plan = space.preflow(&["plan", "p.yaml"]).out;
    let wanted = "input x: data/b.txt changed, data/c.txt is new, \
                  input y: some: data/b.txt changed, data/c.txt is new";
    assert!(plan.contains(wanted), "{plan}");
    let why = space.preflow(&["why", "p.yaml", "s"]).out;
    assert!(why.contains("input x: data/b.txt changed, data/c.txt is new ("), "{why}");
    // Where it is no longer known, the port is named as before.
    std::fs::remove_dir_all(space.path("cache/derived-v1")).expect("removed");
    let plan = space.preflow(&["plan", "p.yaml"]).out;
    assert!(plan.contains("input x changed, input y: some changed"), "{plan}");
}
