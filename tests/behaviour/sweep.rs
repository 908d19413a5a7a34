//! Sweeps: what they cost beforehand, that nothing runs twice, what they show, how they go on.

use crate::space::{Said, Space};

const PIPELINE: &str = "\
preflow: 1
name: p
params: { a: 1, seed: 1, updates: 1 }
sources: { src: { path: src.txt, as: file } }
stages:
  base:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'echo base >> ran.txt; cp $IN_i $OUT_o'
  one:
    kind: command
    inputs: { i: base }
    outputs: { o: file }
    command: 'echo one >> ran.txt; if [ ${a} = 7 ]; then exit 1; fi; echo ${a} > $OUT_o'
  two:
    kind: command
    inputs: { i: one }
    outputs: { o: file }
    command: 'echo two >> ran.txt; read a < $IN_i; echo {\\\"score\\\": $((a * 10 + ${seed} + ${updates}))} | tee $OUT_o > $FIGURES'
";

const SWEEP: &str = "\
preflow-sweep: 1
pipeline: p.yaml
question: How much?
matrix: { a: [1, 2], seed: [1, 2, 3] }
label: a{a}-s{seed}
over: seed
baseline: { a: 1 }
metric: { name: two/score, goal: maximize }
";

fn space(sweep: &str) -> Space {
    let space = Space::empty();
    space.write("p.yaml", &PIPELINE.replace("\\\\\\\"", "\\\""));
    space.write("src.txt", "text\n");
    space.write("s.yaml", sweep);
    space
}

fn last(said: &Said) -> &str {
    said.out.trim_end().lines().last().unwrap_or_default()
}

#[test]
fn a_sweep_is_priced_on_the_graph_its_trials_share_and_runs_each_stage_once() {
    for jobs in ["1", "4"] {
        let space = space(SWEEP);
        let priced = space.preflow(&["sweep", "plan", "s.yaml"]);
        let price = " 6 trials × 3 stages = 18; 9 unique; 0 cached; 9 to run; ?";
        assert_eq!(last(&priced), price, "{}", priced.err);
        let ran = space.ran(&["sweep", "run", "s.yaml", "--jobs", jobs]);
        assert_eq!(ran, "base one one two two two two two two");
        assert_eq!(space.ran(&["sweep", "run", "s.yaml", "--jobs", jobs]), "");
        let priced = space.preflow(&["sweep", "plan", "s.yaml"]);
        assert_eq!(last(&priced), " 6 trials × 3 stages = 18; 9 unique; 9 cached; nothing to run");
        // One more value: the price is that of its own stages, told from earlier ones.
        space.write("s.yaml", &SWEEP.replace("a: [1, 2]", "a: [1, 2, 3]"));
        let priced = space.preflow(&["sweep", "plan", "s.yaml"]);
        let text = " 9 trials × 3 stages = 27; 13 unique; 9 cached; 4 to run; ~";
        assert!(last(&priced).starts_with(text), "{}", priced.out);
        // What the pipeline makes by itself, a sweep need not make again, and the other way round.
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
    }
}

#[test]
fn two_sweeps_at_once_share_what_they_share() {
    let space = space(SWEEP);
    space.write("t.yaml", &SWEEP.replace("a: [1, 2]", "a: [2, 3]"));
    let start = |file: &str| space.command(&["sweep", "run", file]).spawn().expect("starts");
    let (mut one, mut two) = (start("s.yaml"), start("t.yaml"));
    assert!(one.wait().expect("ends").success() && two.wait().expect("ends").success());
    let ran = space.take_ran();
    assert_eq!(ran.matches("base").count(), 1, "{ran}");
    assert_eq!(ran.matches("one").count(), 3, "{ran}");
    assert_eq!(ran.matches("two").count(), 9, "{ran}");
}

#[test]
fn a_failed_trial_does_not_hold_up_the_others_and_is_tried_again() {
    let space = space(&SWEEP.replace("a: [1, 2]", "a: [7, 2]"));
    let said = space.preflow(&["sweep", "run", "s.yaml", "--progress", "none"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert_eq!(space.take_ran(), "base one one two two two");
    assert!(said.out.contains("3 of 6 trials are done"), "{}", said.out);
    assert!(said.out.contains("0 of 3"), "{}", said.out);
    let said = space.preflow(&["sweep", "run", "s.yaml", "--progress", "none"]);
    assert_eq!((said.code, space.take_ran().as_str()), (Some(1), "one"));
}

#[test]
fn what_came_out_is_shown_for_people_papers_and_programs() {
    let space = space(SWEEP);
    space.ran(&["sweep", "run", "s.yaml"]);
    let show = |format: &str| space.preflow(&["sweep", "show", "s.yaml", "--format", format]).out;
    insta::assert_snapshot!(show("table"), @r#"
     How much?
     a  n  two/score     95 %  spread    range  against baseline
     1  3         13  ± 2.484       1  12 … 14                    baseline
     2  3         23  ± 2.484       1  22 … 24  +10 ± 0           best

     best: +10 ± 0 against the baseline (95 %, best of 2): more than chance explains.

     effect of each param
     param  value  n  mean  spread    range  effect
     a          1  3    13       1  12 … 14      −5
     a          2  3    23       1  22 … 24      +5

     6 of 6 trials are done
    "#);
    insta::assert_snapshot!(show("markdown"), @r#"
    **How much?**

    | a | n | two/score | 95 % | spread | range | against baseline |  |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | 1 | 3 | 13 | ± 2.484 | 1 | 12 … 14 |  | baseline |
    | 2 | 3 | 23 | ± 2.484 | 1 | 22 … 24 | +10 ± 0 | best |

    | param | value | n | mean | spread | range | effect |
    | --- | --- | --- | --- | --- | --- | --- |
    | a | 1 | 3 | 13 | 1 | 12 … 14 | −5 |
    | a | 2 | 3 | 23 | 1 | 22 … 24 | +5 |
    "#);
    insta::assert_snapshot!(show("csv"), @r#"
    trial,a,seed,done,two/score
    a1-s1,1,1,true,12
    a1-s2,1,2,true,13
    a1-s3,1,3,true,14
    a2-s1,2,1,true,22
    a2-s2,2,2,true,23
    a2-s3,2,3,true,24
    "#);
    let json: serde_json::Value = serde_json::from_str(&show("json")).expect("JSON");
    assert_eq!(json["table"]["rows"][1]["metric"]["mean"], 23.0);
    assert_eq!(json["trials"][5]["figure"], 24.0);
}

#[test]
fn halving_gives_the_best_trials_more() {
    let space = space(
        "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { a: [1, 2, 3, 4] }\nhalving: { updates: [1, 5, 9], \
         keep: 0.5 }\nmetric: score\n",
    );
    let ran = space.ran(&["sweep", "run", "s.yaml", "--jobs", "1"]);
    assert_eq!(ran, "base one one one one two two two two two two two");
    let shown = space.preflow(&["sweep", "show", "s.yaml", "--format", "csv"]).out;
    assert!(shown.ends_with("\"a=3~updates5\",3,5,true,36\n\"a=4~updates5\",4,5,true,46\n\"a=4~updates9\",4,9,true,50\n") || shown.ends_with("a=3~updates5,3,5,true,36\na=4~updates5,4,5,true,46\na=4~updates9,4,9,true,50\n"), "{shown}");
    assert_eq!(space.ran(&["sweep", "run", "s.yaml"]), "");
}

#[test]
fn very_many_trials_are_not_begun_without_a_word() {
    let space = space(
        "preflow-sweep: 1\npipeline: p.yaml\nrandom: { trials: 1000000, space: { a: { uniform: [0, 1] } } }\n",
    );
    let said = space.preflow(&["sweep", "run", "s.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("this sweep has 1000000 trials") && said.err.contains("--yes"));
    assert_eq!(space.take_ran(), "");
}

#[test]
fn a_sweep_over_what_the_pipeline_does_not_have_is_refused_at_its_place() {
    let space = space(&SWEEP.replace("seed", "sed").replace("over: sed", "over: [sed]"));
    let said = space.preflow(&["sweep", "plan", "s.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("s.yaml:4:22") && said.err.contains("`seed`"), "{}", said.err);
    let unfit = SWEEP.replace("two/score", "two/scor");
    space.write("s.yaml", &unfit);
    space.ran(&["sweep", "run", "s.yaml"]);
    let said = space.preflow(&["sweep", "show", "s.yaml"]);
    assert!(said.out.contains("did you mean `two/score`?"), "{}", said.out);
    let said = space.preflow(&["sweep", "plan", "s.yaml", "--set", "a=3"]);
    assert!(said.code == Some(2) && said.err.contains("the sweep itself sets `a`"));
}

#[test]
fn the_page_of_a_sweep_is_written_where_it_is_wanted() {
    let space = space(SWEEP);
    let said = space.preflow(&["sweep", "show", "s.yaml", "--html"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), " sweep report: [DIR]/sweep-report.html\n")
    );
    assert!(space.read("sweep-report.html").contains("No trial has a figure yet."));
    space.ran(&["sweep", "run", "s.yaml"]);
    let said = space.preflow(&["sweep", "show", "s.yaml", "--html", "out.html"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let page = space.read("out.html");
    for part in
        ["How much?", "<strong>a 2</strong>, with two/score <strong>23</strong> ± 2.48.", "6 of 6"]
    {
        assert!(page.contains(part), "{part}");
    }
    let said = space.preflow(&["sweep", "show", "s.yaml", "--html", "p.yaml"]);
    assert_eq!(said.code, Some(2), "a pipeline is not written over");
    assert!(space.read("p.yaml").starts_with("preflow: 1"));
}
