//! The scheduler under random messages: whatever happens, in whatever order, its books agree.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::identity::{Identity, InputIdentity};
use crate::pipeline;
use crate::store::{CachedEntry, Provenance};

/// Nothing was made before, and what is under way goes well.
const GOOD: u8 = 53;

/// A pipeline of so many stages; each reads some of those before it, and takes some threads.
#[derive(Debug, Clone)]
struct Shape {
    /// Of each stage: the stages it reads, its threads, whether it has a gate.
    stages: Vec<(Vec<usize>, u32, bool)>,
    wanted: Vec<bool>,
    accepted: Vec<bool>,
}

/// What chance decides while it runs.
#[derive(Debug, Clone)]
struct Luck {
    /// Which of the stages that are under way is told of next, and how it ended.
    turns: Vec<(usize, u8)>,
    keep_going: bool,
    asks_remote: bool,
    open_stages: usize,
    halt_after: Option<usize>,
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..9_usize).prop_flat_map(|n| {
        let stage = |i: usize| {
            (prop::collection::vec(0..i.max(1), 0..3), 0..4_u32, prop::bool::weighted(0.2))
                .prop_map(move |(mut reads, threads, gate)| {
                    reads.retain(|up| *up < i);
                    reads.sort_unstable();
                    reads.dedup();
                    (reads, threads, gate)
                })
        };
        let stages: Vec<_> = (0..n).map(stage).collect();
        let wanted = prop::collection::vec(prop::bool::weighted(0.8), n);
        let accepted = prop::collection::vec(prop::bool::weighted(0.3), n);
        (stages, wanted, accepted).prop_map(|(stages, wanted, accepted)| Shape {
            stages,
            wanted,
            accepted,
        })
    })
}

fn luck() -> impl Strategy<Value = Luck> {
    (
        prop::collection::vec((any::<usize>(), any::<u8>()), 1..60),
        any::<bool>(),
        any::<bool>(),
        1..5_usize,
        prop::option::weighted(0.2, 0..20_usize),
    )
        .prop_map(|(turns, keep_going, asks_remote, open_stages, halt_after)| Luck {
            turns,
            keep_going,
            asks_remote,
            open_stages,
            halt_after,
        })
}

fn graph(shape: &Shape) -> Graph {
    let mut text = "preflow: 1\nstages:\n".to_owned();
    for (i, (reads, threads, gate)) in shape.stages.iter().enumerate() {
        let from: Vec<String> = reads.iter().map(|up| format!("s{up}")).collect();
        let inputs = match from.is_empty() {
            true => String::new(),
            false => format!("inputs: {{ i: [{}] }}, ", from.join(", ")),
        };
        let threads = match threads {
            0 => String::new(),
            n => format!(", run: {{ threads: {n} }}"),
        };
        let gate = if *gate { ", gate: { x: '>= 1' }" } else { "" };
        text += &format!(
            "  s{i}: {{ kind: command, {inputs}outputs: {{ o: file }}, command: c{threads}{gate} }}\n"
        );
    }
    static CATALOG: std::sync::LazyLock<Catalog> = std::sync::LazyLock::new(Catalog::builtin);
    let none = Rc::new(|_: &std::path::Path| Err(Error::from(ErrorKind::NotFound)));
    let pipeline = pipeline::parse("p.yaml", &text, None, &[], none).expect("a pipeline");
    Graph::resolve(&pipeline, &CATALOG).expect("a graph")
}

fn identity(stage: usize) -> Identity {
    Identity {
        kind: format!("k{stage}"),
        version: 1,
        params: serde_json::Map::new(),
        inputs: BTreeMap::<String, InputIdentity>::new(),
        endings: BTreeMap::new(),
        outputs: BTreeMap::new(),
    }
}

fn outputs(stage: usize) -> BTreeMap<String, EntryOutput> {
    let digest = Digest::of(&[u8::try_from(stage).expect("few stages")]);
    BTreeMap::from([("o".to_owned(), EntryOutput { digest, bytes: 1, tree: None })])
}

/// A gate asks for `x` of 1 at least.
fn figures(luck: u8) -> gate::Figures {
    BTreeMap::from([("x".to_owned(), Some(f64::from(luck % 2)))])
}

/// Everything that is counted twice must be the same both times.
fn check(scheduler: &Scheduler, machine: &Pools) {
    let states = || scheduler.stages.iter().map(|record| &record.state);
    assert_eq!(scheduler.active, states().filter(|s| s.is_active()).count());
    assert_eq!(scheduler.sealed, states().filter(|s| **s == StageState::Sealed).count());
    for (stage, record) in scheduler.stages.iter().enumerate() {
        assert_eq!(scheduler.ready.contains(&stage), record.state == StageState::Ready);
        assert_eq!(
            scheduler.queued.contains(&stage),
            matches!(record.state, StageState::Queued(_))
        );
        let holds = record.share != Share::default();
        assert!(!holds || record.state == StageState::Running, "only what runs holds a share");
        if matches!(record.state, StageState::Ready | StageState::Queued(_)) {
            let is_known = |up: &usize| scheduler.is_known(*up);
            assert!(record.upstream.iter().all(is_known), "its inputs are not known");
        }
        if matches!(record.state, StageState::Queued(_)) {
            let closed = record.upstream.iter().find(|up| scheduler.gates.is_closed(**up));
            assert_eq!(closed, None, "it began behind a closed gate");
        }
    }
    let mut all = scheduler.free.clone();
    for record in &scheduler.stages {
        all.give_back(record.share.clone());
    }
    assert_eq!(all, *machine, "shares are neither lost nor made");
}

/// Steps a scheduler to its end; returns how often each stage was started.
fn play(shape: &Shape, luck: &Luck) -> Vec<usize> {
    let graph = graph(shape);
    let names = |flags: &[bool]| -> Vec<String> {
        let named = flags.iter().enumerate().filter(|(_, on)| **on);
        named.map(|(i, _)| format!("s{i}")).collect()
    };
    let selection = Selection::new(&graph, &names(&shape.wanted), &[], &[]).expect("known");
    let selection = selection.accepting(&graph, &names(&shape.accepted)).expect("known");
    let wanted = selection.wanted.clone();
    let machine = Pools { threads: 3, memory: 10, gpus: vec![] };
    let rules = Rules {
        keep_going: luck.keep_going,
        asks_remote: luck.asks_remote,
        open_stages: luck.open_stages,
        machine: machine.clone(),
    };
    let mut scheduler = Scheduler::new(&graph, selection, rules, None);
    let mut started = vec![0; graph.stages.len()];
    // Bad luck ends: then every attempt is sealed and published.
    let mut turns = luck.turns.iter().chain(std::iter::repeat(&(0, GOOD)));
    for step in 0..2000 {
        if luck.halt_after == Some(step) {
            scheduler.halt();
        }
        while let Some(action) = scheduler.next_action() {
            check(&scheduler, &machine);
            let (_, chance) = turns.next().expect("no end");
            match action {
                Action::Judge(stage) => {
                    assert!(graph.upstream(stage).iter().all(|up| scheduler.is_known(*up)));
                    let fingerprint = identity(stage).fingerprint();
                    let verdict = match chance % 3 {
                        0 => Verdict::Hit(Box::new(CachedEntry {
                            fingerprint,
                            outputs: outputs(stage),
                            made: Provenance {
                                summary: figures(*chance / 3),
                                ..Provenance::default()
                            },
                            file: None,
                        })),
                        _ => Verdict::Miss(identity(stage), Reason::NeverRun),
                    };
                    scheduler.judged(stage, &verdict);
                    assert_ne!(*scheduler.state(stage), StageState::Ready, "it is judged");
                }
                Action::Start(stage, ..) => {
                    assert!(!scheduler.is_halted() && wanted.contains(&stage));
                    assert!(graph.upstream(stage).iter().all(|up| scheduler.is_known(*up)));
                    started[stage] += 1;
                }
                Action::Ask(..) | Action::Tell(_) => {}
            }
        }
        check(&scheduler, &machine);
        if scheduler.is_idle() {
            let counts = scheduler.totals();
            let Totals {
                done, reused, fetched, failed, waiting, blocked, skipped, stopped, ..
            } = counts;
            let all = done + reused + fetched + failed + waiting + blocked + skipped + stopped;
            assert_eq!(all, wanted.len(), "every wanted stage came to one end");
            if !scheduler.is_halted() && !(0..started.len()).any(|s| is_cancelled(&scheduler, s)) {
                assert_eq!(skipped, 0, "nothing was forgotten");
            }
            return started;
        }
        let (index, chance) = turns.next().expect("no end");
        let active: Vec<usize> =
            (0..started.len()).filter(|s| scheduler.state(*s).is_active()).collect();
        happens(&mut scheduler, active[index % active.len()], *chance);
    }
    panic!("it never came to an end");
}

/// A stage that was stopped is not tried again.
fn is_cancelled(scheduler: &Scheduler, stage: usize) -> bool {
    let record = &scheduler.stages[stage];
    let is_complete = record.upstream.iter().all(|up| scheduler.is_known(*up));
    record.state == StageState::Pending && is_complete
}

/// Something that can happen to a stage that is under way.
fn happens(scheduler: &mut Scheduler, stage: usize, chance: u8) {
    let fingerprint = identity(stage).fingerprint();
    let (summary, made) = (figures(chance / 16), outputs(stage));
    match (scheduler.state(stage).clone(), chance % 8) {
        (StageState::Asking(_), 0..3) => scheduler.fetched(stage, fingerprint, &made, &summary),
        (StageState::Asking(_), 3) => scheduler.failed(stage),
        (StageState::Asking(_), _) => scheduler.not_found(stage),
        (StageState::Busy, _) => scheduler.look_again(stage),
        (StageState::Running, 0) => scheduler.failed(stage),
        (StageState::Running, 1) => scheduler.busy(stage),
        (StageState::Running, 2) => scheduler.waits_for_people(stage, chance > 127),
        (StageState::Running, 3) if scheduler.is_halted() => scheduler.cancelled(stage),
        (StageState::Running, 4) => {
            let producers = scheduler.graph.upstream(stage);
            match producers.is_empty() {
                true => scheduler.reused(stage, fingerprint, &made, &summary),
                false => scheduler.inputs_damaged(stage, &producers[..1]),
            }
        }
        (StageState::Running, _) => assert!(scheduler.sealed(stage, &made, &summary)),
        (StageState::Sealed, 0) => scheduler.failed(stage),
        (StageState::Sealed, _) => scheduler.published(stage, fingerprint),
        (StageState::AskingPeople, 0..4) => scheduler.waits_for_people(stage, false),
        (StageState::AskingPeople, _) => scheduler.look_again(stage),
        (other, _) => unreachable!("{other:?} is not under way"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn its_books_agree_whatever_happens(shape in shape(), luck in luck()) {
        play(&shape, &luck);
    }
}

#[test]
fn without_bad_luck_every_stage_starts_once() {
    let stages = (0..6_usize).map(|i| ((0..i).collect(), 1, false)).collect();
    let shape = Shape { stages, wanted: vec![true; 6], accepted: vec![false; 6] };
    let turns = Vec::new();
    let luck =
        Luck { turns, keep_going: false, asks_remote: false, open_stages: 4, halt_after: None };
    assert_eq!(play(&shape, &luck), [1; 6]);
}
