//! What is known before anything runs, on the shipped pipelines.

use crate::workspace::Workspace;

const PIPELINE: &str = "pipelines/workshop.yaml";

#[test]
fn mistakes_in_a_shipped_pipeline_are_found_before_anything_runs() {
    let space = Workspace::new();
    let file = space.0.path().join(PIPELINE);
    let good = std::fs::read_to_string(&file).expect("read");
    assert!(space.ok(&["check", PIPELINE]).contains("ok: "));
    space.ok(&["plan", PIPELINE]);
    for (from, to, says) in [
        ("heads: 4", "heads: 5", "must be an even multiple of heads 5"),
        (
            "demos.jsonl, as: prompt_completion",
            "prompts.jsonl, as: prompt_completion",
            "no column `completion`",
        ),
        ("pairs: 2400", "pairs: 8", "the pairs can give 10 at most"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replace(from, to)).expect("written");
        for verb in ["plan", "run"] {
            let (said, code) = space.preflow(&[verb, PIPELINE, "--profile", "people"]);
            assert!(code == Some(2) && said.contains(says), "{verb}, {to}: {said}");
            assert!(said.contains(&format!("--> {PIPELINE}:")), "{said}");
        }
    }
    assert!(!space.0.path().join("cache/entries-v1").exists(), "nothing ran");
}

#[test]
fn a_metric_that_no_stage_reports_is_told_before_a_sweep_runs() {
    let space = Workspace::new();
    let file = "pipelines/sweeps/kl.yaml";
    let path = space.0.path().join(file);
    let said = space.ok(&["sweep", "plan", file]);
    assert!(!said.contains("no stage of the pipeline reports"), "{said}");
    let good = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, good.replace("eval/good/ppo", "eval/gould/ppo")).expect("written");
    let said = space.ok(&["sweep", "plan", file]);
    let warning =
        "no stage of the pipeline reports `eval/gould/ppo`; did you mean `eval/gold/ppo`?";
    assert!(said.contains(warning), "{said}");
    // Where trials are chosen by it, nothing may run.
    let halving = "halving: { votes_needed: [400, 800], keep: 0.5 }\n";
    let text = std::fs::read_to_string(&path).expect("read") + halving;
    std::fs::write(&path, text).expect("written");
    let (said, code) = space.preflow(&["sweep", "plan", file]);
    assert!(code == Some(2) && said.contains("did you mean"), "{said}");
}
