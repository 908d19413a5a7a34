//! A kept plan and the plain way agree whatever happens to the files in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::plan::{Judge, Outputs, Selection, Verdict, digests};
use crate::project::{self, Choices};
use crate::store::{Lookup, Provenance};
use crate::votes::{Choice, Ledger, Side, Vote};

const PIPELINE: &str = "preflow: 1
params: { p: one }
profiles: { other: { p: two } }
sources:
  one: { path: one.txt }
  folder: { path: folder }
  many: { path: 'many/*.txt' }
stages:
  a: { kind: command, inputs: { i: one }, outputs: { o: file }, command: 'x ${p}' }
  b:
    kind: command
    inputs: { i: folder, j: [a.o, many] }
    outputs: { o: file, q: file }
    command: y
  c: !include part.yaml
  labels:
    kind: collect_labels
    pairs: c.pairs
    labeler: { people: { votes: votes } }
    ready_when: { votes: 1 }
";
const PART: &str =
    "{ kind: command, inputs: { i: b.q }, outputs: { pairs: dataset/pairs }, command: z }\n";
const STAGES: [&str; 4] = ["a", "b", "c", "labels"];

/// Files that a change may write to, with their first text.
const FILES: [(&str, &str); 6] = [
    ("p.yaml", PIPELINE),
    ("part.yaml", PART),
    ("one.txt", "one\n"),
    ("folder/a.txt", "a\n"),
    ("folder/deep/b.txt", "b\n"),
    ("many/m.txt", "m\n"),
];

/// Something that happens between two looks at a workspace.
#[derive(Debug, Clone)]
enum Change {
    /// A file of [`FILES`] is written: as it was, or with this word in place of the one before.
    Write(usize, Option<(&'static str, &'static str)>),
    /// The same, as editors do that rename a new file over the old one.
    Replace(usize),
    Remove(usize),
    New(&'static str),
    Vote(u32),
    /// All files of [`FILES`] as they were, and nothing beside them.
    Restore,
    Workspace(&'static str),
    NoWorkspace,
    /// A byte of the kept plan is another one; where, as a share of its length.
    FlipKept(f64),
    CutKept(f64),
    RemoveDerived,
    /// The entry, or an output, of a stage: gone, written as it was, or with another byte.
    Entry(usize, Damage),
    Object(usize, Damage),
}

#[derive(Debug, Clone)]
enum Damage {
    Gone,
    Rewritten,
    Flipped,
}

fn change() -> impl Strategy<Value = Change> {
    let file = 0..FILES.len();
    let damage = || prop::sample::select(vec![Damage::Gone, Damage::Rewritten, Damage::Flipped]);
    let words = vec![
        ("one", "two"),
        ("x $", "w $"),
        ("command: y", "command: yy"),
        ("q: file", "r: file"),
        ("command: z", "command: zz"),
        ("name", "name"),
        ("stages:", "# a comment\nstages:"),
        ("a\n", "b\n"),
        ("kind: command", "kind: comand"),
        ("m\n", "n\n"),
    ];
    let new = vec!["folder/new.txt", "many/new.txt", "many/new.csv", "elsewhere.txt", ".git/x"];
    let workspaces = vec![
        "preflow-workspace: 1\n",
        "preflow-workspace: 1\nworkers: { w: { command: [./none] } }\n",
        "nonsense\n",
    ];
    prop_oneof![
        4 => (file.clone(), prop::option::weighted(0.7, prop::sample::select(words)))
            .prop_map(|(file, words)| Change::Write(file, words)),
        2 => file.clone().prop_map(Change::Replace),
        1 => file.prop_map(Change::Remove),
        2 => prop::sample::select(new).prop_map(Change::New),
        1 => (0..3_u32).prop_map(Change::Vote),
        8 => Just(Change::Restore),
        1 => prop::sample::select(workspaces).prop_map(Change::Workspace),
        2 => Just(Change::NoWorkspace),
        1 => (0.0..1.0).prop_map(Change::FlipKept),
        1 => (0.0..1.0).prop_map(Change::CutKept),
        1 => Just(Change::RemoveDerived),
        1 => (0..STAGES.len(), damage()).prop_map(|(stage, damage)| Change::Entry(stage, damage)),
        1 => (0..STAGES.len(), damage()).prop_map(|(stage, damage)| Change::Object(stage, damage)),
    ]
}

/// Who looks at it, and how.
fn question() -> impl Strategy<Value = (Choices, Vec<String>, Vec<String>)> {
    let stages = || prop::collection::vec(prop::sample::select(STAGES.to_vec()), 0..2);
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let sets = prop::sample::select(vec![vec![], vec![], vec![], vec!["p=one"], vec!["p=three"]]);
    let profile = prop::option::weighted(0.2, Just("other".to_owned()));
    let forced = prop_oneof![4 => Just(Vec::new()), 1 => stages()];
    (sets, profile, stages(), forced).prop_map(move |(sets, profile, targets, forced)| {
        (Choices { sets: names(sets), profile, ..choices() }, names(targets), names(forced))
    })
}

/// Those of who chose nothing.
fn choices() -> Choices {
    let (sets, profile, cache, remote, remote_mode) = Default::default();
    Choices { sets, profile, cache, remote, remote_mode, warn: |_| {} }
}

fn write(path: &Path, text: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    // Objects are read-only: who damages one does not mind.
    let _ = std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644));
    #[expect(clippy::disallowed_methods, reason = "a test's own files")]
    std::fs::write(path, text).expect("written");
}

/// What was made of each stage, by name.
type Made = BTreeMap<String, (PathBuf, PathBuf)>;

/// A workspace in which every stage is made, without running any.
fn workspace(root: &Path) -> Made {
    for (name, text) in FILES {
        write(&root.join(name), text.as_bytes());
    }
    write(&root.join(".git/HEAD"), b"");
    vote(root, 0);
    let project = project::load(&root.join("p.yaml"), &choices()).expect("a pipeline");
    project.store.prepare_for_writing().expect("a store");
    let selection = Selection::new(&project.graph, &[], &[], &[]).expect("all");
    let sources = project.digest_sources(&selection.wanted).expect("sources");
    let (store, heads) = (&project.store, &project.heads());
    let judge = Judge { graph: &project.graph, store, sources: &sources, heads };
    let mut known: Vec<Option<Outputs>> = vec![None; project.graph.stages.len()];
    let mut made = Made::new();
    for (stage, node) in project.graph.stages.iter().enumerate() {
        let Verdict::Miss(identity, _) = judge.judge(stage, &known, false).expect("judged") else {
            unreachable!("nothing is made yet")
        };
        let Lookup::Miss(slot) = store.lookup(identity, false).expect("looked up") else {
            unreachable!("nobody makes it")
        };
        let files: BTreeMap<String, PathBuf> = node
            .outputs
            .iter()
            .map(|port| (port.name.clone(), slot.output_path(&port.name, &port.extension)))
            .collect();
        for (port, path) in &files {
            write(path, format!("{port} of {}", node.name).as_bytes());
        }
        let made_of = Provenance { run: "r".into(), seconds: 1.5, ..Provenance::default() };
        let sealed = slot.seal(files, made_of).map_err(|refused| refused.1).expect("sealed");
        let (entry, scratch) = store.publish(vec![sealed]).remove(0).expect("published");
        store.discard(scratch);
        let output = entry.outputs.values().next().expect("an output").digest;
        let paths = (store.entry_path(&entry.fingerprint), store.object_path(&output));
        made.insert(node.name.clone(), paths);
        known[stage] = Some(digests(&entry.outputs));
    }
    store.save_memo();
    made
}

fn vote(root: &Path, rev: u32) {
    let vote = Vote {
        pair: "p".into(),
        choice: if rev.is_multiple_of(2) { Choice::A } else { Choice::B },
        shown_left: Side::A,
        ms: 900,
        at: "2026-01-01T00:00:00Z".into(),
        note: String::new(),
        reasons: Vec::new(),
        rev,
        id: format!("p-{rev}"),
        repeat: false,
    };
    let votes = Ledger::new(&root.join("votes"), "ann").expect("a name");
    votes.append(&[vote], &[]).expect("written");
}

fn kept(root: &Path) -> Option<PathBuf> {
    let all = std::fs::read_dir(root.join("cache/derived-v1")).ok()?.flatten();
    let mut plans = all.filter(|item| item.file_name().to_string_lossy().starts_with("plan-"));
    plans.next().map(|item| item.path())
}

fn damage(path: &Path, damage: &Damage) {
    let Ok(mut bytes) = std::fs::read(path) else { return };
    match damage {
        Damage::Gone => return std::fs::remove_file(path).expect("removed"),
        Damage::Rewritten => {}
        Damage::Flipped => *bytes.last_mut().expect("not empty") ^= 1,
    }
    write(path, &bytes);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn apply(root: &Path, made: &Made, change: &Change) {
    let path = |file: usize| root.join(FILES[file].0);
    match change {
        Change::Write(file, words) => {
            let text = std::fs::read_to_string(path(*file)).unwrap_or_default();
            let text = match words {
                Some((from, to)) if text.contains(from) => text.replace(from, to),
                _ => FILES[*file].1.to_owned(),
            };
            write(&path(*file), text.as_bytes());
        }
        Change::Replace(file) => {
            let Ok(text) = std::fs::read(path(*file)) else { return };
            write(&root.join("new"), &text);
            #[expect(clippy::disallowed_methods, reason = "a test's own files")]
            std::fs::rename(root.join("new"), path(*file)).expect("renamed");
        }
        Change::Remove(file) => drop(std::fs::remove_file(path(*file))),
        Change::New(name) => write(&root.join(name), b"new"),
        Change::Vote(rev) => vote(root, *rev),
        Change::Restore => {
            for (name, text) in FILES {
                write(&root.join(name), text.as_bytes());
            }
            for name in ["preflow.yaml", "folder/new.txt", "many/new.txt"] {
                let _ = std::fs::remove_file(root.join(name));
            }
        }
        Change::Workspace(text) => write(&root.join("preflow.yaml"), text.as_bytes()),
        Change::NoWorkspace => drop(std::fs::remove_file(root.join("preflow.yaml"))),
        Change::FlipKept(at) | Change::CutKept(at) => {
            let Some(path) = kept(root) else { return };
            let mut bytes = std::fs::read(&path).expect("read");
            let at = ((bytes.len() as f64 * at) as usize).min(bytes.len().saturating_sub(1));
            match change {
                Change::CutKept(_) => bytes.truncate(at),
                _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x40),
            }
            write(&path, &bytes);
        }
        Change::RemoveDerived => drop(std::fs::remove_dir_all(root.join("cache/derived-v1"))),
        Change::Entry(stage, how) => damage(&made[STAGES[*stage]].0, how),
        Change::Object(stage, how) => damage(&made[STAGES[*stage]].1, how),
    }
}

/// What the plan says, or what is wrong; and whether it was the kept one.
fn ask(
    root: &Path,
    (choices, targets, forced): &(Choices, Vec<String>, Vec<String>),
    may_be_kept: bool,
) -> (String, bool) {
    let file = root.join("p.yaml");
    let project = match may_be_kept {
        true => project::load_to_judge(&file, choices),
        false => project::load(&file, choices).map(std::mem::ManuallyDrop::new),
    };
    let project = match project {
        Ok(project) => std::mem::ManuallyDrop::into_inner(project),
        Err(failure) => return (format!("{failure:?}"), false),
    };
    let selection = Selection::new(&project.graph, targets, &[], forced).expect("known names");
    let sources = match project.digest_sources(&selection.wanted) {
        Ok(sources) => sources,
        Err(failure) => return (format!("{failure:?}"), false),
    };
    let was_kept = super::plan(&project, &selection, &sources).is_some();
    let plan = project.judge(&selection, &sources).expect("the store can be read");
    let verdicts = plan.verdicts.into_iter().map(|verdict| match verdict {
        Some(Verdict::Hit(mut entry)) => {
            entry.file = None;
            format!("{entry:?}\n")
        }
        other => format!("{other:?}\n"),
    });
    let verdicts: String = verdicts.collect();
    (format!("{:?}\n{verdicts}{:?}", project.graph, plan.gates), was_kept)
}

/// Workspaces, and changes to each of them, one after the other.
const WORKSPACES: usize = 125;
const CHANGES: usize = 8;

#[test]
fn a_kept_plan_is_what_the_plain_way_finds_after_any_change() {
    let mut runner = TestRunner::deterministic();
    let folder = tempfile::tempdir().expect("a folder");
    let worlds: Vec<(PathBuf, Made)> = (0..WORKSPACES)
        .map(|number| {
            let root = folder.path().join(number.to_string());
            let made = workspace(&root);
            (root, made)
        })
        .collect();
    // Of younger files nobody knows whether they still change: no plan would be kept.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (mut asked, mut used) = (0, 0);
    for (root, made) in &worlds {
        ask(root, &(choices(), vec![], vec![]), true);
        assert!(kept(root).is_some(), "all is made, and old enough");
        let mut history = Vec::new();
        for _ in 0..CHANGES {
            let change = change().new_tree(&mut runner).expect("a change").current();
            let question = question().new_tree(&mut runner).expect("a question").current();
            apply(root, made, &change);
            history.push(change);
            let (now, was_kept) = ask(root, &question, true);
            let (plain, _) = ask(root, &question, false);
            assert_eq!(now, plain, "{history:?}, then {question:?}");
            asked += 1;
            used += usize::from(was_kept);
        }
    }
    assert_eq!(asked, WORKSPACES * CHANGES);
    assert!(used > asked / 10 && used < asked, "kept plans were used {used} times of {asked}");
}
