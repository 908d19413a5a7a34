//! Sweep files: what they make of themselves, what they refuse, what they share, what they show.
#![expect(clippy::disallowed_methods, reason = "tests own their folders")]

use std::collections::HashSet;

use insta::assert_snapshot;

use super::*;
use crate::catalog::Catalog;
use crate::diagnostic::lines;
use crate::graph::Graph;
use crate::pipeline::{self, Overrides};

const PIPELINE: &str = "
preflow: 1
params: { a: 1, b: 2, seed: 1 }
sources: { src: { path: src.txt, as: file } }
stages:
  one: { kind: command, inputs: { i: src }, outputs: { o: file }, command: 'one ${a}' }
  two: { kind: command, inputs: { i: one }, outputs: { o: file }, command: 'two ${b} ${seed}' }
  three: { kind: command, inputs: { i: [one, two] }, outputs: { o: file }, command: three }
";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp");
        std::fs::write(dir.path().join("p.yaml"), PIPELINE).expect("written");
        Self(dir)
    }

    fn read(&self, text: &str) -> Result<Sweep, Vec<crate::diagnostic::Diagnostic>> {
        let path = self.0.path().join("s.yaml");
        std::fs::write(&path, format!("preflow-sweep: 1\npipeline: p.yaml\n{text}"))
            .expect("written");
        read(&pipeline::open(&path.to_string_lossy())?)
    }

    fn sweep(&self, text: &str) -> Sweep {
        self.read(text).unwrap_or_else(|p| panic!("{}", lines(&p)))
    }

    fn labels(&self, text: &str) -> String {
        let trials = self.sweep(text).trials().unwrap_or_else(|p| panic!("{}", lines(&p)));
        trials.iter().map(|t| t.label.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn wrong(&self, text: &str) -> String {
        let path = self.0.path().to_string_lossy().into_owned() + "/";
        let problems = self.read(text).and_then(|s| s.trials()).expect_err("refused");
        lines(&problems).replace(&path, "")
    }

    fn merged(&self, text: &str) -> Merged {
        let sweep = self.sweep(text);
        let trials = sweep.trials().expect("trials");
        let document = pipeline::open(&sweep.pipeline).expect("there");
        let graph = |trial: &Trial| {
            let overrides = Overrides { trial: &trial.values, ..Overrides::default() };
            let pipeline = pipeline::read(&document, &overrides).expect("reads");
            Graph::resolve(&pipeline, &Catalog::builtin()).expect("resolves")
        };
        let graphs = trials.iter().map(graph).collect();
        merge("s", "s.yaml", &trials, graphs)
    }
}

#[test]
fn trials_are_product_zip_list_include_and_exclude() {
    let world = World::new();
    assert_snapshot!(world.labels("matrix: { a: [1, 2], b: [3, 4] }"), @"a=1,b=3 a=1,b=4 a=2,b=3 a=2,b=4");
    assert_snapshot!(world.labels("zip: { a: [1, 2], b: [3, 4] }\nmatrix: { seed: [7, 8] }\nlabel: 'x{a}{b}-s{seed}'"), @"x13-s7 x13-s8 x24-s7 x24-s8");
    assert_snapshot!(world.labels("trials: [{ a: 1 }, { a: 2, b: 5 }]"), @"a=1 a=2,b=5");
    assert_snapshot!(world.labels("matrix: { a: [1, 2], b: [3, 4] }\nexclude: [{ a: 1, b: 4 }, { b: 3.0 }]\ninclude: [{ a: 9 }, { a: 2, b: 4 }]"), @"a=2,b=4 a=9");
}

#[test]
fn random_trials_are_the_same_every_time_and_stay_when_there_are_more() {
    let world = World::new();
    let text = |n: u32| {
        format!(
            "random: {{ trials: {n}, seed: 3, space: {{ a: {{ log: [1e-5, 1e-1] }}, b: {{ int: [1, 4] }} }} }}"
        )
    };
    let (few, many) = (world.sweep(&text(40)), world.sweep(&text(400)));
    let (few, many) = (few.trials().expect("trials"), many.trials().expect("trials"));
    let labels = |trials: &[Trial]| trials.iter().map(|t| t.label.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&few), labels(&many)[..few.len()]);
    let values = |p: &str| {
        many.iter()
            .map(|t| t.value(p).expect("set").parse::<f64>().expect("number"))
            .collect::<Vec<_>>()
    };
    let logs: Vec<f64> = values("a").iter().map(|x| x.log10()).collect();
    assert!(logs.iter().all(|x| (-5.0..=-1.0).contains(x)));
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    assert!((mean + 3.0).abs() < 0.2, "uniform in the logarithm: {mean}");
    let whole: HashSet<String> = values("b").iter().map(f64::to_string).collect();
    assert_eq!(whole, ["1", "2", "3", "4"].map(str::to_owned).into());
}

#[test]
fn what_is_wrong_in_a_sweep_is_named_with_its_place() {
    let world = World::new();
    assert_snapshot!(world.wrong("matrx: { a: [1] }"), @"s.yaml:3:1 [matrx] unknown key `matrx` in a sweep file | did you mean `matrix`?");
    assert_snapshot!(world.wrong("matrix: {}"), @"s.yaml:3:9 [{] `matrix` is empty | matrix: { PARAM: [VALUE, …] }");
    assert_snapshot!(world.wrong("matrix: { a: [] }"), @"s.yaml:3:14 [[] `a` has no values | an empty list");
    assert_snapshot!(world.wrong("matrix: { a: 1 }"), @"s.yaml:3:14 [1] `a` needs a list of values | found a whole number");
    assert_snapshot!(world.wrong("zip: { a: [1, 2], b: [1] }"), @"s.yaml:3:19 [b] `zip` pairs values: `a` has 2, `b` has 1 | lists of a zip are equally long");
    assert_snapshot!(world.wrong("matrix: { a: [1, 2] }\nlabel: same"), @r#"
    s.yaml:4:8 [same] two trials are labelled `same` | {a: 1} and {a: 2} | name every param that differs: label: "lr{lr}-s{seed}"
    "#);
    assert_snapshot!(world.wrong("matrix: { a: [1, 2] }\nlabel: '{sed}'"), @r"s.yaml:4:8 [\'{sed}\'] the label names `sed`, which a trial does not set | the trial sets {a: 1}");
    assert_snapshot!(world.wrong("matrix: { a: [1, 2] }\nover: [sed]\nbaseline: { aa: 1 }"), @r#"
    s.yaml:4:8 [sed] `over` names `sed`, which no trial sets | trials set a
    s.yaml:5:13 [aa] `baseline` names `aa`, which no trial sets | did you mean `a`?
    "#);
    assert_snapshot!(world.wrong("matrix: { a: [1] }\nexclude: [{ a: 1 }]"), @"s.yaml:1:1 [preflow-sweep] `exclude` leaves no trial | leave some combination in");
    assert_snapshot!(world.wrong("random: { trials: 2, space: { a: { log: [0, 1] } } }"), @r#"
    s.yaml:3:34 [{] not a space to draw from | found a map | { uniform: [low, high] }, { log: [low, high] }, { int: [low, high] } or { choice: [value, …] }
    "#);
    assert_snapshot!(world.wrong("matrix: { a: [1] }\nhalving: { b: [1, 2] }"), @"s.yaml:4:12 [b] halving needs a metric to choose by | metric: { name: STAGE/FIGURE, goal: maximize }");
    assert_snapshot!(world.wrong("matrix: { a: [1] }\nmetric: { goal: up }"), @r#"
    s.yaml:4:9 [{] the metric has no name | metric: { name: STAGE/FIGURE, goal: maximize }
    s.yaml:4:17 [up] `goal` must be maximize or minimize | found text
    "#);
}

#[test]
fn a_million_trials_are_counted_without_being_made() {
    let axis = |p: &str| {
        format!("{p}: [{}]", (0..100).map(|i| i.to_string()).collect::<Vec<_>>().join(", "))
    };
    let world = World::new();
    let sweep =
        world.sweep(&format!("matrix: {{ {}, {}, {} }}", axis("a"), axis("b"), axis("seed")));
    assert_eq!(sweep.count(), 1_000_000);
}

#[test]
fn stages_that_trials_share_stand_once() {
    let merged =
        World::new().merged("matrix: { a: [1, 2], seed: [5, 6, 7] }\nlabel: 'a{a}-s{seed}'");
    let names: Vec<&str> = merged.graph.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "one@a1-s5",
            "two@a1-s5",
            "three@a1-s5",
            "two@a1-s6",
            "three@a1-s6",
            "two@a1-s7",
            "three@a1-s7",
            "one@a2-s5",
            "two@a2-s5",
            "three@a2-s5",
            "two@a2-s6",
            "three@a2-s6",
            "two@a2-s7",
            "three@a2-s7",
        ]
    );
    assert_eq!(merged.stages[4], [7, 10, 11]);
    assert_eq!(merged.graph.sources.len(), 1);
    // Others know a stage by what the file calls it: equal trials have equal identities.
    let from = &merged.graph.stages[11].inputs[0].from;
    let known: Vec<&str> = from.iter().map(|p| merged.graph.producer_name(*p)).collect();
    assert_eq!(known, ["one", "two"]);
    let all = World::new().merged("matrix: { seed: [5, 6] }");
    assert_eq!(all.graph.stages[0].name, "one");
}

#[test]
fn the_table_averages_over_seeds_and_compares_seed_by_seed() {
    let world = World::new();
    let sweep = world.sweep(
        "matrix: { a: [0, 1], b: [2, 3], seed: [1, 2] }\nover: [seed]\nbaseline: { a: 0, b: 2 }\nmetric: { name: m, goal: minimize }",
    );
    let trials = sweep.trials().expect("trials");
    // a=0,b=2: 1 3 · a=0,b=3: 2 5 · a=1,b=2: 4 - · a=1,b=3: - -
    let figures = [Some(1.0), Some(3.0), Some(2.0), Some(5.0), Some(4.0), None, None, None];
    let table = table(&sweep, &trials, &figures);
    assert_eq!(table.params, ["a", "b"]);
    let means: Vec<Option<f64>> = table.rows.iter().map(|r| r.metric.mean).collect();
    assert_eq!(means, [Some(2.0), Some(3.5), Some(4.0), None]);
    assert_eq!(table.rows[0].metric.spread, Some(2.0_f64.sqrt()));
    assert_eq!((table.rows[2].metric.n, table.rows[2].metric.spread), (1, None));
    assert!(table.rows[0].is_baseline && table.rows[0].is_best);
    let against = table.rows[1].against_baseline.expect("compared");
    assert_eq!((against.mean, against.low, against.high), (Some(1.5), Some(1.0), Some(2.0)));
    assert_eq!(table.rows[3].against_baseline, None);
    let effect = |p: &str, v: &str| {
        table.effects.iter().find(|e| e.param == p && e.value == v).expect("there").effect
    };
    assert_eq!(effect("a", "0"), Some(2.75 - 3.0));
    assert_eq!(effect("a", "1"), Some(1.0));
}
