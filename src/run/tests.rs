//! The loop on scripted outcomes: journal text as snapshot.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use insta::assert_snapshot;
use tokio::sync::mpsc;

use super::{Inputs, Pools, Reporter, RunEvent, RunOptions, run};
use crate::catalog::Catalog;
use crate::exec::Outcome;
use crate::exec::scripted::{Act, Scripted};
use crate::graph::Graph;
use crate::plan::Selection;
use crate::report::words;
use crate::store::Store;
use crate::votes::{self, Choice, Ledger, Side, Vote};

/// A store and a script, run several times.
struct World {
    dir: tempfile::TempDir,
    runs: u32,
    threads: u32,
    keep_going: bool,
    /// Interrupt when this stage starts.
    interrupt_at: Option<&'static str>,
    accepted: Vec<String>,
    pipeline: String,
    people: Option<Crowd>,
}

/// People who give their word a number of times, then never again.
struct Crowd {
    answers: std::cell::Cell<u32>,
    source: std::path::PathBuf,
}

impl super::People for Crowd {
    fn ask(
        &self,
        _: usize,
        inputs: BTreeMap<String, Vec<crate::protocol::InputSpec>>,
        mut leave: tokio::sync::watch::Receiver<bool>,
    ) -> std::pin::Pin<Box<dyn Future<Output = super::ChangedSources>>> {
        assert!(Path::new(&inputs["i"][0].paths[0]).exists(), "what the stage reads is there");
        let left = self.answers.get();
        self.answers.set(left.saturating_sub(1));
        let source = self.source.clone();
        Box::pin(async move {
            if left == 0 {
                let _ = leave.wait_for(|leave| *leave).await;
                return None;
            }
            std::fs::write(&source, format!("{left} more\n")).expect("write");
            let store = Store::open(&source.with_file_name("cache")).expect("store");
            Some(vec![(0, store.digest_source(&source.to_string_lossy()).expect("there"))])
        })
    }
}

#[derive(Default)]
struct Recorder {
    lines: Vec<String>,
    /// Published stages: their order depends on the disk.
    done: BTreeMap<String, bool>,
    /// Accepted gates: told when their stage is on the disk, beside whatever starts meanwhile.
    accepted: Vec<String>,
    interrupt_at: Option<(&'static str, Option<mpsc::UnboundedSender<()>>)>,
}

impl Reporter for Recorder {
    fn event(&mut self, event: &RunEvent) {
        let text = match event {
            RunEvent::StageReused { stage, .. } => format!("{stage} reused"),
            RunEvent::StageStarted { stage, reason, attempt, .. } => {
                if let Some((at, sender)) = &mut self.interrupt_at
                    && at == stage
                {
                    sender.take().expect("once").send(()).expect("open");
                }
                format!("{stage} starts, attempt {attempt}: {}", words::reason(reason))
            }
            RunEvent::StageFailed { stage, outcome, retrying, .. } => {
                let retrying = if *retrying { ", again" } else { "" };
                format!("{stage} {outcome:?}{retrying}")
            }
            RunEvent::StageWaiting { stage, reason, .. } => format!("{stage} waits: {reason}"),
            RunEvent::StageBlocked { stage, by } => format!("{stage} blocked by {by}"),
            RunEvent::StageDone { stage, unchanged, .. } => {
                self.done.insert(stage.clone(), *unchanged);
                return;
            }
            RunEvent::Note { stage, text, .. } => format!("{stage}: {text}"),
            RunEvent::RunEnded { totals, exit, .. } => {
                self.lines.append(&mut self.accepted);
                for (stage, unchanged) in std::mem::take(&mut self.done) {
                    let same = if unchanged { ", same bytes" } else { "" };
                    self.lines.push(format!("{stage} done{same}"));
                }
                format!("{}, exit {exit}", crate::report::totals(totals))
            }
            RunEvent::GateUnmet { stage, unmet, accepted } => {
                let text = format!("{stage}'s gate: {}", crate::graph::gate::sentence(unmet));
                if *accepted {
                    self.accepted.push(text + ", accepted");
                    return;
                }
                text
            }
            RunEvent::Interrupted { times } => format!("interrupted {times}"),
            _ => return,
        };
        self.lines.push(text);
    }
}

const PIPELINE: &str = "
preflow: 1
params: { p: one }
sources:
  src: { path: src.txt, as: file }
stages:
  a: { kind: command, inputs: { i: src }, outputs: { o: file }, command: \"${p}\" }
  b: { kind: command, inputs: { i: a }, outputs: { o: file }, command: b }
  c: { kind: command, inputs: { i: b }, outputs: { o: file }, command: c }
  side: { kind: command, inputs: { i: src }, outputs: { o: file }, command: side, run: { retries: 1 } }
";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("src.txt"), "text\n").expect("write");
        let (accepted, pipeline) = (Vec::new(), PIPELINE.to_owned());
        Self {
            dir,
            runs: 0,
            threads: 1,
            keep_going: false,
            interrupt_at: None,
            accepted,
            pipeline,
            people: None,
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("cache")).expect("store")
    }

    fn run(&mut self, sets: &[&str], force: &[&str], script: Scripted) -> String {
        self.runs += 1;
        let file = self.dir.path().join("p.yaml");
        std::fs::write(&file, &self.pipeline).expect("write");
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let force: Vec<String> = force.iter().map(|s| (*s).to_owned()).collect();
        let pipeline = crate::pipeline::load(&file.to_string_lossy(), None, &sets).expect("loads");
        let graph = Graph::resolve(&pipeline, &Catalog::builtin()).expect("resolves");
        let store = Arc::new(self.store());
        let sources = graph.sources.iter().map(|s| match s.port_type.as_str() {
            votes::PORT_TYPE => {
                let folder = votes::Folder::read(Path::new(&s.path)).expect("votes");
                Some(store.digest_content(votes::Effective::of(&folder).to_bytes()))
            }
            _ => store.digest_source(&s.path).ok(),
        });
        let sources = sources.collect();
        let selection = Selection::new(&graph, &[], &[], &force).expect("known stages");
        let selection = selection.accepting(&graph, &self.accepted).expect("known stages");
        let options = RunOptions {
            id: format!("run-{}", self.runs),
            at: "2026-01-01T00:00:00Z".into(),
            keep_going: self.keep_going,
            pools: Pools { threads: self.threads, memory: 0, gpus: vec![] },
            open_stages: usize::MAX,
            worker: vec!["worker".into()],
            cwd: self.dir.path().to_owned(),
            command: vec![],
            heads_key: "p.yaml".into(),
            host: super::HostInfo::default(),
        };
        let (sender, interrupts) = mpsc::unbounded_channel();
        let mut recorder = Recorder {
            interrupt_at: self.interrupt_at.map(|at| (at, Some(sender))),
            ..Recorder::default()
        };
        let people = self.people.as_ref().map(|p| p as &dyn super::People);
        let inputs = Inputs {
            graph: &graph,
            store,
            sources,
            selection,
            executor: &script,
            people,
            plan: None,
            locked: None,
            remote: None,
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(run(inputs, &options, &mut recorder, interrupts))
            .expect("runs");
        recorder.lines.join("\n")
    }
}

fn failed() -> Outcome {
    Outcome::Failed { message: "no".into(), chain: vec![], help: None }
}

#[test]
fn the_second_run_does_nothing() {
    let mut world = World::new();
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    c starts, attempt 1: never run
    side starts, attempt 1: never run
    a done
    b done
    c done
    side done
    4 done, exit 0
    ");
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b reused
    c reused
    side reused
    4 reused, exit 0
    ");
}

#[test]
fn equal_bytes_cut_the_run_off() {
    let mut world = World::new();
    world.run(&[], &[], Scripted::default());
    assert_snapshot!(world.run(&["p=two"], &[], Scripted::default()), @r"
    side reused
    a starts, attempt 1: command one → two
    b reused
    c reused
    a done, same bytes
    1 done · 3 reused, exit 0
    ");
}

#[test]
fn other_bytes_run_what_is_downstream_and_the_old_value_is_still_there() {
    let mut world = World::new();
    world.run(&[], &[], Scripted::default());
    let script = Scripted::new([("a", vec![Act::Write("other".into())])]);
    assert_snapshot!(world.run(&["p=two"], &[], script), @r"
    side reused
    a starts, attempt 1: command one → two
    b starts, attempt 1: input i changed
    c reused
    a done
    b done, same bytes
    2 done · 2 reused, exit 0
    ");
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b reused
    c reused
    side reused
    4 reused, exit 0
    ");
}

#[test]
fn a_failure_stops_the_run_and_is_never_cached() {
    let mut world = World::new();
    let script = Scripted::new([("b", vec![Act::End(failed())])]);
    assert_snapshot!(world.run(&[], &[], script), @r#"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    b Failed { message: "no", chain: [], help: None }
    c blocked by b
    a done
    1 done · 1 failed · 1 blocked · 1 not started, exit 1
    "#);
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b starts, attempt 1: never run
    c starts, attempt 1: never run
    side starts, attempt 1: never run
    b done
    c done
    side done
    3 done · 1 reused, exit 0
    ");
}

#[test]
fn keep_going_runs_what_does_not_depend_on_the_failure() {
    let mut world = World { keep_going: true, ..World::new() };
    let script = Scripted::new([("a", vec![Act::End(failed())])]);
    assert_snapshot!(world.run(&[], &[], script), @r#"
    a starts, attempt 1: never run
    a Failed { message: "no", chain: [], help: None }
    b blocked by a
    c blocked by a
    side starts, attempt 1: never run
    side done
    1 done · 1 failed · 2 blocked, exit 1
    "#);
}

#[test]
fn retries_use_the_same_slot() {
    let mut world = World::new();
    let script = Scripted::new([("side", vec![Act::End(failed())])]);
    assert_snapshot!(world.run(&[], &[], script), @r#"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    c starts, attempt 1: never run
    side starts, attempt 1: never run
    side Failed { message: "no", chain: [], help: None }, again
    side starts, attempt 2: never run
    a done
    b done
    c done
    side done
    4 done, exit 0
    "#);
}

fn lost() -> Act {
    Act::End(Outcome::Lost { what: "the machine does not answer".into() })
}

#[test]
fn a_lost_attempt_uses_up_no_retry() {
    let mut world = World::new();
    let side = vec![lost(), Act::End(failed()), lost(), Act::Write("side\n".into())];
    let text = world.run(&[], &[], Scripted::new([("side", side)]));
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("side")).collect();
    assert_snapshot!(said.join("\n"), @r#"
    side starts, attempt 1: never run
    side Lost { what: "the machine does not answer" }, again
    side starts, attempt 2: never run
    side Failed { message: "no", chain: [], help: None }, again
    side starts, attempt 3: never run
    side Lost { what: "the machine does not answer" }, again
    side starts, attempt 4: never run
    side done
    "#);
}

#[test]
fn a_place_that_loses_every_attempt_fails_its_stage() {
    let mut world = World::new();
    let script = Scripted::new([("side", vec![lost(), lost(), lost(), lost(), lost()])]);
    let text = world.run(&[], &[], script);
    assert_eq!(text.matches("side starts, attempt").count(), 4, "{text}");
    assert!(text.contains("1 failed") && text.ends_with("exit 1"), "{text}");
}

#[test]
fn waiting_blocks_only_its_descendants_and_exits_3() {
    let mut world = World::new();
    let waiting = Outcome::Waiting { reason: "too few votes".into(), have: Some(1), need: Some(9) };
    let script = Scripted::new([("b", vec![Act::End(waiting)])]);
    assert_snapshot!(world.run(&[], &[], script), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    b waits: too few votes
    c blocked by b
    side starts, attempt 1: never run
    a done
    side done
    2 done · 1 waiting · 1 blocked, exit 3
    ");
}

#[test]
fn votes_are_an_input_and_what_changed_is_told_in_votes() {
    let mut world = World {
        pipeline: "preflow: 1\nsources: { src: { path: src.txt, as: pairs } }\nstages:\n  labels:\n    \
                   kind: collect_labels\n    pairs: src\n    labeler: { people: { votes: votes } }\n"
            .to_owned(),
        ..World::new()
    };
    let folder = world.dir.path().join("votes");
    let vote = |pair: &str, choice, rev| {
        let ledger = Ledger::new(&folder, "ann").expect("a name");
        let vote = Vote {
            pair: pair.to_owned(),
            choice,
            shown_left: Side::A,
            ms: 1,
            at: String::new(),
            note: String::new(),
            reasons: Vec::new(),
            rev,
            id: String::new(),
            repeat: false,
        };
        ledger.append(&[vote], &[]).expect("written");
    };
    let mut run = || world.run(&[], &[], Scripted::default());
    let start = |text: String| text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(start(run()), "labels starts, attempt 1: never run");
    vote("p", Choice::A, 0);
    vote("q", Choice::Tie, 0);
    assert_eq!(start(run()), "labels starts, attempt 1: +2 votes");
    vote("p", Choice::Retracted, 1);
    vote("p", Choice::A, 2);
    vote("r", Choice::Skip, 0);
    assert_eq!(start(run()), "labels reused");
    vote("p", Choice::B, 3);
    vote("q", Choice::Retracted, 1);
    vote("r", Choice::BMuch, 1);
    let told = "labels starts, attempt 1: +1 vote, 1 revised, 1 taken back";
    assert_eq!(start(run()), told);
    // Another place for the same votes is no change.
    std::fs::rename(&folder, world.dir.path().join("moved")).expect("moved");
    world.pipeline = world.pipeline.replace("votes: votes", "votes: moved");
    assert_eq!(start(world.run(&[], &[], Scripted::default())), "labels reused");
    // What the votes amounted to is kept as long as what was made of them.
    let store = world.store();
    let keep = store.fingerprints().expect("listed").into_iter().collect();
    let garbage = store.find_garbage(&keep, &[], std::time::Duration::ZERO).expect("found");
    assert_eq!(garbage.objects, vec![]);
    let last = store.heads("p.yaml").unwrap().stages["labels"];
    let garbage = store.find_garbage(&[last].into(), &[], std::time::Duration::ZERO);
    assert_eq!(garbage.expect("found").objects.len(), 2, "the earlier states of the votes");
}

fn crowd(world: &World, answers: u32) -> Crowd {
    Crowd { answers: answers.into(), source: world.dir.path().join("src.txt") }
}

#[test]
fn people_who_answer_during_the_run_let_it_go_on() {
    let mut world = World::new();
    world.people = Some(crowd(&world, 2));
    let waiting = || {
        let (have, need) = (Some(1), Some(9));
        Act::End(Outcome::Waiting { reason: "too few votes".into(), have, need })
    };
    let script = Scripted::new([("side", vec![waiting(), waiting()])]);
    let text = world.run(&[], &[], script);
    assert_eq!(text.matches("side waits: too few votes").count(), 2, "{text}");
    assert_eq!(text.matches("side starts").count(), 3, "{text}");
    assert!(text.ends_with("4 done, exit 0"), "{text}");
    // What was made is what the last word says: nothing is left to do.
    assert!(world.run(&[], &["a", "b", "c"], Scripted::default()).contains("side reused"));
}

#[test]
fn waiting_for_people_ends_with_an_interrupt_or_a_failure() {
    for (interrupt_at, c, end) in [(Some("c"), Act::Hang, "130"), (None, Act::End(failed()), "1")] {
        let mut world = World { interrupt_at, threads: 2, ..World::new() };
        world.people = Some(crowd(&world, 0));
        let (have, need) = (None, None);
        let waiting = Outcome::Waiting { reason: "votes".into(), have, need };
        let script = Scripted::new([("side", vec![Act::End(waiting)]), ("c", vec![c])]);
        let text = world.run(&[], &[], script);
        assert!(text.contains("side waits: votes"), "{text}");
        assert!(text.contains("1 waiting") && text.ends_with(&format!("exit {end}")), "{text}");
    }
}

#[test]
fn an_interrupt_ends_running_stages_and_the_next_run_goes_on() {
    let mut world = World { interrupt_at: Some("b"), ..World::new() };
    let script = Scripted::new([("b", vec![Act::Hang])]);
    assert_snapshot!(world.run(&[], &[], script), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    interrupted 1
    a done
    1 done · 1 stopped · 2 not started, exit 130
    ");
    world.interrupt_at = None;
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b starts, attempt 1: never run
    c starts, attempt 1: never run
    side starts, attempt 1: never run
    b done
    c done
    side done
    3 done · 1 reused, exit 0
    ");
}

#[test]
fn force_does_not_read_the_cache_but_writes_it() {
    let mut world = World::new();
    world.run(&[], &[], Scripted::default());
    assert_snapshot!(world.run(&[], &["b"], Scripted::default()), @r"
    a reused
    side reused
    b starts, attempt 1: forced
    c reused
    b done
    1 done · 3 reused, exit 0
    ");
}

#[test]
fn an_output_that_was_not_made_is_a_failure() {
    let mut world = World::new();
    let done = Outcome::Done {
        summary: BTreeMap::new(),
        worker: String::new(),
        backend: String::new(),
        device: String::new(),
    };
    let script = Scripted::new([("a", vec![Act::End(done)])]);
    assert_snapshot!(world.run(&[], &[], script), @r#"
    a starts, attempt 1: never run
    a Failed { message: "output `o` was not made", chain: [], help: None }
    b blocked by a
    c blocked by a
    1 failed · 2 blocked · 1 not started, exit 1
    "#);
}

fn objects(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(dir.join("cache/objects-v1")).expect("objects").flatten() {
        found.extend(std::fs::read_dir(shard.path()).expect("shard").flatten().map(|i| i.path()));
    }
    found
}

#[test]
fn a_damaged_object_is_made_again_before_anyone_reads_it() {
    let mut world = World::new();
    world.run(&[], &[], Scripted::default());
    let of_a = objects(world.dir.path())
        .into_iter()
        .find(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("by a")))
        .expect("there");
    std::fs::remove_file(&of_a).expect("remove");
    // Same size, other bytes.
    std::fs::write(&of_a, "made by x\n").expect("write");
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    side reused
    a starts, attempt 1: object of `o` damaged
    b reused
    c reused
    a done
    1 done · 3 reused, exit 0
    ");
    assert_eq!(std::fs::read_to_string(&of_a).expect("read"), "made by a\n");
    assert!(world.store().verify().expect("verify").is_clean());
    assert_eq!(
        std::fs::read_dir(world.dir.path().join("cache/quarantine")).expect("kept").count(),
        1
    );
}

#[test]
fn damage_that_the_file_system_hides_is_found_before_use() {
    let mut world = World::new();
    world.run(&[], &[], Scripted::default());
    let of_a = objects(world.dir.path())
        .into_iter()
        .find(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("by a")))
        .expect("there");
    std::fs::remove_file(&of_a).expect("remove");
    std::fs::write(&of_a, "made by x\n").expect("write");
    // A memo that believes the damaged bytes: as if the disk had rotted under it.
    let good = crate::identity::Digest::of(b"made by a\n");
    let meta = std::fs::metadata(&of_a).expect("meta");
    let store = world.store();
    store.memo().put(&of_a, crate::store::digest::Signature::of(&meta), good);
    store.save_memo();
    assert_snapshot!(world.run(&[], &["b"], Scripted::default()), @r"
    a reused
    side reused
    b starts, attempt 1: forced
    a: an output was damaged in the store; it is made again
    a starts, attempt 1: object of `o` missing
    b starts, attempt 1: forced
    c reused
    a done
    b done
    2 done · 2 reused, exit 0
    ");
}

#[test]
fn all_readers_of_a_damaged_object_wait_until_it_is_made_again() {
    let stage = |name: &str| {
        format!(
            "  {name}: {{ kind: command, inputs: {{ i: a }}, outputs: {{ o: file }}, command: {name} }}\n"
        )
    };
    let more: String = ["d", "e", "f"].map(stage).concat();
    let world = World::new();
    let mut world = World { pipeline: format!("{PIPELINE}{more}"), threads: 2, ..world };
    world.run(&[], &[], Scripted::default());
    let of_a = objects(world.dir.path())
        .into_iter()
        .find(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("by a")))
        .expect("there");
    std::fs::remove_file(&of_a).expect("remove");
    std::fs::write(&of_a, "made by x\n").expect("write");
    let good = crate::identity::Digest::of(b"made by a\n");
    let meta = std::fs::metadata(&of_a).expect("meta");
    let store = world.store();
    store.memo().put(&of_a, crate::store::digest::Signature::of(&meta), good);
    store.save_memo();
    let text = world.run(&[], &["b", "d", "e", "f"], Scripted::default());
    let at = |line: &str| text.lines().position(|l| l == line).unwrap_or_else(|| panic!("{text}"));
    // Whoever had begun begins anew; nobody is done before the damage is mended.
    for reader in ["b", "d", "e", "f"] {
        assert!(at("a done") < at(&format!("{reader} done")), "{text}");
    }
    assert!(text.ends_with("5 done · 2 reused, exit 0"), "{text}");
}

#[test]
fn a_source_that_changes_while_its_stage_runs_is_noticed() {
    let mut world = World::new();
    let source = world.dir.path().join("src.txt");
    // The script writes to the source as if someone edited it meanwhile.
    let script = Scripted::new([("a", vec![Act::Touch(source)])]);
    let text = world.run(&[], &[], script);
    assert!(text.contains("source `src` changed while the stage ran"), "{text}");
    assert!(text.contains("1 failed"), "{text}");
}

/// A world whose stage `b` has a gate and reports these figures.
fn gated(gate: &str) -> World {
    let b = "outputs: { o: file }, command: b";
    let world = World::new();
    World { pipeline: PIPELINE.replace(b, &format!("{b}, gate: {gate}")), ..world }
}

fn reports(figure: f64) -> Scripted {
    Scripted::new([("b", vec![Act::Report([("acc".to_owned(), Some(figure))].into())])])
}

#[test]
fn nothing_runs_behind_a_gate_that_is_not_met() {
    let mut world = gated("{ acc: '>= 0.62' }");
    assert_snapshot!(world.run(&[], &[], reports(0.58)), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    c blocked by b
    side starts, attempt 1: never run
    b's gate: acc is 0.58, must be >= 0.62
    a done
    b done
    side done
    3 done · 1 gate not met · 1 blocked, exit 3
    ");
    // From the cache all the same, and what is behind it is not made meanwhile.
    assert_snapshot!(world.run(&[], &["c"], Scripted::default()), @r"
    a reused
    b reused
    b's gate: acc is 0.58, must be >= 0.62
    c blocked by b
    side reused
    3 reused · 1 gate not met · 1 blocked, exit 3
    ");
    // A lower bar is no other identity.
    world.pipeline = world.pipeline.replace("0.62", "0.5");
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b reused
    side reused
    c starts, attempt 1: never run
    c done
    1 done · 3 reused, exit 0
    ");
    // What was made stays usable when the bar goes up again.
    world.pipeline = world.pipeline.replace("0.5", "0.62");
    assert_snapshot!(world.run(&[], &[], Scripted::default()), @r"
    a reused
    b reused
    b's gate: acc is 0.58, must be >= 0.62
    c reused
    side reused
    4 reused · 1 gate not met, exit 3
    ");
}

#[test]
fn an_accepted_gate_is_on_record_downstream() {
    let mut world = gated("{ acc: '>= 0.62' }");
    world.accepted = vec!["b".to_owned()];
    assert_snapshot!(world.run(&[], &[], reports(0.58)), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    c starts, attempt 1: never run
    side starts, attempt 1: never run
    b's gate: acc is 0.58, must be >= 0.62, accepted
    a done
    b done
    c done
    side done
    4 done, exit 0
    ");
    let store = world.store();
    let entries: Vec<_> = store
        .fingerprints()
        .expect("reads")
        .iter()
        .map(|f| store.entry(f).expect("reads").expect("there"))
        .filter(|entry| !entry.made.accepted.is_empty())
        .map(|entry| (entry.identity.params["command"].clone(), entry.made.accepted))
        .collect();
    let wanted = vec!["gate of `b` not met: acc is 0.58, must be >= 0.62".to_owned()];
    assert_eq!(entries, [(serde_json::json!("c"), wanted)]);
}

#[test]
fn a_gate_on_a_figure_that_is_not_reported_is_a_mistake() {
    let mut world = gated("{ accuracy: '>= 0.62' }");
    assert_snapshot!(world.run(&[], &[], reports(0.58)), @r"
    a starts, attempt 1: never run
    b starts, attempt 1: never run
    c blocked by b
    side starts, attempt 1: never run
    b's gate: it reports no `accuracy`; it reports acc
    a done
    b done
    side done
    3 done · 1 gate not met · 1 blocked, exit 2
    ");
}
