//! The page as a whole: self-contained, harmless, sound when everything is missing.
//! Made-up data; nothing here was measured.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::*;

const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\u{1b}[2J\" onload='x' </style></title>\
    averyveryveryveryveryveryveryveryveryveryveryveryveryverylongwordwithoutanybreakatallinitanywhere";

fn stage(name: &str, kind: &str, upstream: &[usize]) -> StageReport {
    StageReport {
        name: name.to_owned(),
        kind: kind.to_owned(),
        upstream: upstream.to_vec(),
        state: StageStatus::Done,
        seconds: Some(3.2 * (upstream.len() as f64 + 1.0)),
        fingerprint: "sha256:0123".to_owned(),
        params: vec![("lr".to_owned(), "0.002".to_owned())],
        ..StageReport::default()
    }
}

fn curve(from: f64, to: f64, shake: f64) -> Vec<(f64, f64)> {
    let fall =
        |i: f64| to + (from - to) * (-i / 12.0).exp() + shake * (i * 2.4).sin() / (1.0 + i * 0.1);
    (0..60).map(|i| (f64::from(i) * 5.0, fall(f64::from(i)))).collect()
}

/// A run as it might look.
fn example() -> ReportData {
    let mut stages = vec![
        stage("tokenizer", "tokenizer", &[]),
        stage("base", "pretrain", &[0]),
        stage("sft", "sft", &[1]),
        stage("pairs", "sample_pairs", &[2]),
        stage("labels", "collect_labels", &[3]),
        stage("reward", "train_reward", &[2, 4]),
        stage("ppo", "ppo", &[2, 5]),
        stage("eval", "evaluate", &[1, 2, 5, 6]),
    ];
    let groups = serde_json::json!({ "groups": { "unseen": ["B", "C", "D"] }, "samples": 4 });
    stages[7].params = params(groups.as_object().unwrap());
    stages[0].state = StageStatus::Reused;
    stages[1].seconds = Some(41.0);
    stages[6].seconds = Some(34.4);
    let mut curves = |stage: usize, name: &str, from: f64, to: f64, shake: f64| {
        stages[stage].curves.insert(name.to_owned(), curve(from, to, shake));
    };
    curves(1, "train/loss", 6.2, 1.4, 0.2);
    curves(1, "eval/loss", 6.1, 1.5, 0.05);
    curves(1, "train/lr", 0.0, 0.002, 0.0);
    curves(2, "train/loss", 1.6, 0.1, 0.1);
    curves(2, "eval/loss", 1.5, 0.8, 0.05);
    curves(5, "train/loss", 0.7, 0.35, 0.05);
    curves(5, "eval/accuracy", 0.5, 0.84, 0.02);
    for (name, from, to, shake) in [
        ("objective/scores", -0.4, 1.1, 0.2),
        ("objective/kl", 0.0, 6.4, 0.3),
        ("objective/rlhf_reward", -0.4, 0.8, 0.2),
        ("objective/entropy", 2.2, 0.9, 0.1),
        ("tokens/eos_rate", 0.7, 0.99, 0.03),
        ("tokens/len_mean", 14.0, 9.0, 0.5),
        ("policy/clipfrac", 0.3, 0.1, 0.05),
        ("val/loss", 0.9, 0.1, 0.1),
    ] {
        curves(6, name, from, to, shake);
    }
    stages[4].notes = vec![Note {
        warning: true,
        text: "no person compared these 800 pairs; a program with 5 rules did".to_owned(),
    }];
    stages[2].notes = vec![Note { warning: false, text: "kept the last of 20 epochs".to_owned() }];
    ReportData {
        quality: vec![],
        pipeline: "workshop".to_owned(),
        command: "preflow run pipelines/workshop.yaml --set kl_coef=0.05".to_owned(),
        stages,
        labels: vec![LabelsReport {
            stage: "labels".to_owned(),
            count: 800,
            ties: 61,
            simulated: true,
            labeler: String::new(),
            annotators: 1,
            examples: vec![LabelExample {
                prompt: "what do i need for the bike ?".to_owned(),
                chosen: "sure ! for the bike you need a wrench .".to_owned(),
                rejected: "figure it out yourself .".to_owned(),
                tie: false,
            }],
        }],
        rewards: vec![RewardReport {
            stage: "reward".to_owned(),
            accuracy: Some(0.842),
            interval: Some((0.801, 0.877)),
            pairs: Some(76.0),
            ceiling: Some(0.91),
            bins: (0..8)
                .map(|i| {
                    let confidence = 0.53 + f64::from(i) * 0.06;
                    let accuracy = confidence + 0.03 * f64::from(i % 3) - 0.03;
                    CalibrationBin { confidence, accuracy, n: 12.0 }
                })
                .collect(),
            learning: (1..=4)
                .map(|i| {
                    let accuracy = 0.86 - 0.2 / f64::from(i);
                    let interval = Some((accuracy - 0.05, accuracy + 0.04));
                    LearningPoint { labels: f64::from(i) * 200.0, accuracy, interval }
                })
                .collect(),
        }],
        evaluation: evaluation(),
        samples: samples(),
        environment: vec![
            ("preflow".to_owned(), "0.1.0".to_owned()),
            ("device".to_owned(), "cpu, 2 threads".to_owned()),
        ],
    }
}

fn evaluation() -> Vec<EvaluationRow> {
    let mut rows = Vec::new();
    let policies = [
        ("base", 0.14),
        ("sft", 0.52),
        ("dpo", 0.62),
        ("rloo", 0.74),
        ("grpo", 0.73),
        ("reinforce", 0.61),
        ("sft, best of 16", 0.66),
        ("ppo", 0.83),
    ];
    for (i, (policy, good)) in policies.into_iter().enumerate() {
        for (bucket, ease) in
            [("A", 0.06), ("B", 0.01), ("C", -0.05), ("D", -0.09), ("unseen", 0.0)]
        {
            let mut push = |name: &str, value: f64, width: f64| {
                rows.push(EvaluationRow {
                    stage: "eval".to_owned(),
                    policy: policy.to_owned(),
                    bucket: bucket.to_owned(),
                    name: name.to_owned(),
                    value,
                    low: Some(value - width),
                    high: Some(value + width),
                    n: Some(if bucket == "unseen" { 480.0 } else { 160.0 }),
                });
            };
            push("good", good + ease, 0.04);
            push("names_object", 0.4 + good * 0.5, 0.04);
            push("gold", good * 3.0 - 1.2, 0.1);
            if i > 0 {
                push("good_gain", good - policies[usize::from(i > 1)].1, 0.05);
                push("names_object_gain", 0.1, 0.05);
                push("gold_gain", 0.9, 0.12);
                push("win_rate", 0.76, 0.03);
            }
            push("reward", good * 4.0 - 1.5, 0.2);
            push("length", 9.0 + good, 0.3);
            push("eos_rate", 0.9 + good * 0.1, 0.02);
            push("distinct_2", 0.3 - good * 0.1, 0.0);
            if policy.contains("best") {
                push("kl_at_most", 1.83, 0.0);
            } else {
                let far = if i == 1 { 0.0 } else { good * 9.0 };
                push("kl", far, far * 0.1);
                push("sqrt_kl", far.sqrt(), far.sqrt() * 0.05);
            }
            if policy == "sft" {
                for (k, gain) in [(1, 0.0), (2, 0.3), (4, 0.5), (8, 0.55), (16, 0.5)] {
                    push(&format!("best_of_{k}/gold"), 0.4 + gain, 0.1);
                    push(&format!("best_of_{k}/reward"), 0.6 + gain * 1.6, 0.1);
                }
                for (name, value) in [("alpha", 1.2), ("beta", 0.4), ("peak", 1.5)] {
                    push(&format!("policy_fit/gold/{name}"), value, 0.0);
                }
            }
        }
    }
    for (policy, copied) in [("sft", 0.7), ("ppo", 0.1)] {
        for bucket in ["train", "unseen"] {
            for (name, value) in [("copied", copied), ("copied_words", 0.8), ("perplexity", 3.1)] {
                let less = if bucket == "train" { 1.0 } else { 0.5 };
                rows.push(EvaluationRow {
                    stage: "eval".to_owned(),
                    policy: policy.to_owned(),
                    bucket: bucket.to_owned(),
                    name: name.to_owned(),
                    value: value * less,
                    low: Some(value * less * 0.9),
                    high: Some(value * less * 1.1),
                    n: Some(160.0),
                });
            }
        }
    }
    rows
}

fn bucket_of(prompt: &str) -> String {
    let bucket = ["A", "B", "C", "D"][prompt.len() % 4];
    bucket.to_owned()
}

fn samples() -> Vec<SampleRow> {
    let mut rows = Vec::new();
    let row = |stage: &str, step: f64, source: &str, prompt: &str, response: &str, score: f64| {
        SampleRow {
            stage: stage.to_owned(),
            step,
            source: source.to_owned(),
            bucket: if stage == "eval" { bucket_of(prompt) } else { "train".to_owned() },
            prompt: prompt.to_owned(),
            response: response.to_owned(),
            score: Some(score),
        }
    };
    for object in ["lamp", "tree", "letter", "phone", "floor", "net", "tire", "bread"] {
        let prompt = format!("can you tell me what this {object} wants ?");
        rows.push(row("eval", 0.0, "base", &prompt, "blah blah blah the the", -0.8));
        rows.push(row(
            "eval",
            0.0,
            "sft",
            &prompt,
            &format!("sure ! for the {object} use a wrench ."),
            0.2,
        ));
        rows.push(row(
            "eval",
            0.0,
            "ppo",
            &prompt,
            &format!("of course , for the {object} you need a bulb ."),
            1.4,
        ));
    }
    for step in 0..10 {
        for object in ["bike", "nail", "fish"] {
            let prompt = format!("what goes with my {object} ?");
            let response = if step < 3 { "figure it out yourself ." } else { "sure ! use a net ." };
            rows.push(row("ppo", f64::from(step), "ppo", &prompt, response, f64::from(step) * 0.1));
        }
    }
    rows
}

/// Nothing may be loaded, nothing may run.
fn assert_self_contained(page: &str) {
    for bad in ["http://", "https://", "<script", "src=", "@import", "url(", "<link", "<iframe"] {
        assert!(!page.contains(bad), "{bad}");
    }
}

#[test]
fn a_full_page_is_self_contained() {
    let page = render(&example());
    assert_self_contained(&page);
    for part in [
        "On prompts that nobody labelled",
        "simulated",
        "preflow run pipelines/workshop.yaml --set kl_coef=0.05",
        "Samples while it learned",
        "Same prompts, every policy",
        "Prompts that nobody labelled.",
        "+31\u{202f}pts",
        "wins 76\u{202f}%",
        "What optimisation buys",
        "≤ 1.83",
        "highest at √KL <b>1.50</b>",
        "Learned or copied?",
        "accuracy by labels",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // A share reads as one wherever it is shown: here, and in the table of all figures.
    assert!(page.contains("<b>70\u{202f}%</b>") && page.contains("<b>29\u{202f}%</b>"));
    assert!(!page.contains("<b>0.70</b>") && !page.contains("<b>0.29</b>"));
    let headings: Vec<usize> = page
        .match_indices("<h")
        .filter_map(|(i, _)| {
            page[i + 2..].chars().next().and_then(|c| c.to_digit(10)).map(|d| d as usize)
        })
        .collect();
    assert_eq!(headings[0], 1);
    assert!(headings.windows(2).all(|w| w[1] <= w[0] + 1), "{headings:?}");
    if let Ok(path) = std::env::var("PREFLOW_SHOW_REPORT") {
        std::fs::write(path, page).unwrap();
    }
}

#[test]
fn the_live_page_shows_what_is_done_while_other_stages_run() {
    let shown = |report| live::render(&live::LiveData { report, ..live::LiveData::default() });
    let mut early = example();
    early.stages[6].state = StageStatus::Running;
    early.stages[7].state = StageStatus::NotRun;
    early.evaluation.clear();
    let page = shown(early);
    for part in ["accuracy by labels", "accuracy by confidence", "Samples while it learned"] {
        assert!(page.contains(part), "{part}: the reward model is done");
    }
    assert!(!page.contains("On prompts that nobody labelled"), "nothing is evaluated yet");
    let mut late = example();
    late.stages[0].state = StageStatus::Running;
    let page = shown(late);
    assert!(page.contains("On prompts that nobody labelled") && page.contains("running"));
}

#[test]
fn an_alarm_is_raised_by_the_last_value_only() {
    let mut data = example();
    assert!(!render(&data).contains(">Alarms<"));
    data.stages[6].curves.insert("tokens/eos_rate".to_owned(), curve(0.99, 0.2, 0.0));
    data.stages[6].curves.insert("val/explained_variance".to_owned(), curve(0.5, -0.4, 0.0));
    let page = render(&data);
    assert!(page.contains("most answers do not end by themselves (tokens/eos_rate 0.2"), "eos");
    assert!(page.contains("worse than a constant"), "critic");
    data.stages[6].curves.insert("tokens/eos_rate".to_owned(), curve(0.2, 0.99, 0.0));
    data.stages[6].curves.remove("val/explained_variance");
    assert!(!render(&data).contains(">Alarms<"));
}

#[test]
fn the_brief_has_policies_with_intervals_and_says_who_labelled() {
    let text = super::brief(&example());
    let rows = text.lines().filter(|line| line.starts_with("| ")).count();
    assert!(rows > 3, "{text}");
    let ppo = text.lines().find(|line| line.starts_with("| ppo |")).expect("a row");
    assert!(ppo.contains(" to "), "{ppo}");
    assert!(text.contains("Simulated: the preferences come from"), "{text}");
    let none = super::brief(&ReportData { pipeline: "a*b".into(), ..ReportData::default() });
    assert_eq!(none, "### a&#42;b\n\nNo evaluation is made yet.\n");
}

#[test]
fn nothing_at_all_is_still_a_page() {
    let page = render(&ReportData::default());
    assert_self_contained(&page);
    assert!(!page.contains("<section"));
    let bare = ReportData { stages: vec![StageReport::default()], ..ReportData::default() };
    assert!(render(&bare).contains("not run"));
}

#[test]
fn hostile_text_stays_text() {
    let mut data = example();
    let h = || HOSTILE.to_owned();
    data.pipeline = h();
    data.command = h();
    data.environment = vec![(h(), h())];
    for stage in &mut data.stages {
        stage.name = h();
        stage.kind = h();
        stage.fingerprint = h();
        stage.params = vec![(h(), h())];
        stage.notes = vec![Note { warning: true, text: h() }, Note { warning: false, text: h() }];
        stage.curves = stage.curves.values().map(|c| (h(), c.clone())).collect();
    }
    for row in &mut data.samples {
        (row.source, row.bucket, row.prompt, row.response) = (h(), h(), h(), h());
    }
    for row in &mut data.evaluation {
        (row.stage, row.policy, row.bucket, row.name) = (h(), h(), h(), h());
    }
    for labels in &mut data.labels {
        labels.stage = h();
        labels.examples = vec![LabelExample { prompt: h(), chosen: h(), rejected: h(), tie: true }];
    }
    data.rewards[0].stage = h();
    let page = render(&data);
    if let Ok(path) = std::env::var("PREFLOW_SHOW_REPORT") {
        std::fs::write(path + ".hostile.html", &page).unwrap();
    }
    assert_self_contained(&page);
    assert!(
        !page.contains("onload='x' <") && !page.contains('\u{202e}') && !page.contains('\u{1b}')
    );
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("</title>").count(), page.matches("<title>").count());
}

#[test]
fn figures_that_are_not_numbers_do_no_harm() {
    let mut data = example();
    for stage in &mut data.stages {
        for points in stage.curves.values_mut() {
            for (i, point) in points.iter_mut().enumerate() {
                point.1 = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308][i % 5];
            }
        }
    }
    for row in &mut data.evaluation {
        (row.value, row.low, row.high) = (f64::NAN, Some(f64::INFINITY), Some(f64::NAN));
    }
    data.rewards[0].bins[0].accuracy = f64::NAN;
    data.stages[0].seconds = Some(f64::INFINITY);
    assert_self_contained(&render(&data));
}

#[test]
fn a_claim_is_only_made_where_intervals_are_apart() {
    let mut data = example();
    assert!(render(&data).contains(" leads: "));
    for row in &mut data.evaluation {
        row.low = Some(row.value - 1.0);
        row.high = Some(row.value + 1.0);
    }
    let page = render(&data);
    assert!(page.contains("but not clearly") && page.contains("The intervals overlap."));
    // Where nothing but perplexity is known, less of it leads.
    data.evaluation.retain(|row| row.policy == "sft" || row.policy == "ppo");
    data.evaluation.retain(|row| row.name == "good");
    for row in &mut data.evaluation {
        row.name = "perplexity".to_owned();
        row.value = if row.policy == "sft" { 30.0 } else { 20.0 };
        (row.low, row.high) = (Some(row.value - 1.0), Some(row.value + 1.0));
    }
    assert!(render(&data).contains("<strong>ppo</strong> leads: perplexity"));
}

fn parquet(
    folder: &std::path::Path,
    name: &str,
    columns: Vec<(&str, ArrayRef)>,
) -> std::path::PathBuf {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = folder.join(name);
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn tables_are_read_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let texts = |all: &[&str]| Arc::new(StringArray::from(all.to_vec())) as ArrayRef;
    let numbers = |all: &[f64]| Arc::new(Float64Array::from(all.to_vec())) as ArrayRef;
    let steps = Arc::new(Int64Array::from(vec![2, 1, 9])) as ArrayRef;
    let output = |stage: &str, port_type: &str, path: std::path::PathBuf| read::OutputFile {
        stage: stage.to_owned(),
        port: "p".to_owned(),
        port_type: port_type.to_owned(),
        path,
    };
    let metrics = parquet(
        folder.path(),
        "m",
        vec![
            ("step", steps),
            ("name", texts(&["eval/accuracy", "eval/accuracy", "eval/ceiling"])),
            ("value", numbers(&[0.8, 0.5, 0.9])),
        ],
    );
    let ties = Arc::new(BooleanArray::from(vec![false, true, false])) as ArrayRef;
    let labels = parquet(
        folder.path(),
        "l",
        vec![
            ("prompt", texts(&["p", "q", "r"])),
            ("chosen", texts(&["a", "", ""])),
            ("rejected", texts(&["b", "", "y"])),
            ("response_a", texts(&["a", "x", "y"])),
            ("response_b", texts(&["b", "z", ""])),
            ("tie", ties),
            ("simulated", Arc::new(BooleanArray::from(vec![true; 3])) as ArrayRef),
            ("labeler", texts(&["judge <tiny>"; 3])),
        ],
    );
    let bins = parquet(
        folder.path(),
        "c",
        vec![("confidence", numbers(&[0.6])), ("accuracy", numbers(&[0.7]))],
    );
    let evaluation = parquet(
        folder.path(),
        "e",
        vec![("policy", texts(&["x"])), ("name", texts(&["gold"])), ("value", numbers(&[1.0]))],
    );
    let broken = folder.path().join("broken");
    std::fs::write(&broken, b"PAR1 not really PAR1").unwrap();
    let mut data = ReportData { stages: vec![stage("reward", "r", &[])], ..ReportData::default() };
    let errors = read::fill(
        &mut data,
        &[
            output("reward", "dataset/metrics", metrics),
            output("labels", "dataset/labels", labels),
            output("reward", "dataset/calibration", bins),
            output("eval", "dataset/evaluation", evaluation),
            output("eval", "dataset/samples", broken),
            output("eval", "dataset/samples", folder.path().join("missing")),
            output("base", "model/policy", folder.path().to_owned()),
        ],
    );
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(data.stages[0].curves["eval/accuracy"], [(1.0, 0.5), (2.0, 0.8)]);
    assert_eq!((data.rewards[0].accuracy, data.rewards[0].ceiling), (Some(0.8), Some(0.9)));
    assert_eq!(data.rewards[0].bins.len(), 1);
    assert_eq!((data.labels[0].count, data.labels[0].ties, data.labels[0].simulated), (3, 1, true));
    // An empty answer that was preferred stays one; a tie shows what was compared.
    let shown = |i: usize| {
        let example = &data.labels[0].examples[i];
        [example.chosen.as_str(), &example.rejected]
    };
    assert_eq!([shown(0), shown(1), shown(2)], [["a", "b"], ["", "y"], ["x", "z"]]);
    assert!(render(&data).contains("<span class=\"nothing\">(nothing)</span>"));
    assert_eq!(data.labels[0].program(), "the language model <tiny>");
    assert_eq!(data.evaluation[0].bucket, "");
    assert_self_contained(&render(&data));
}

#[test]
fn what_is_bought_is_drawn_from_the_reference_on_and_points_have_names() {
    let page = render(&example());
    let section = page.split("id=\"frontier\"").nth(1).unwrap().split("<section").next().unwrap();
    let drawn: Vec<&str> =
        section.split("<svg").filter(|s| s.contains("Gain over the reference by √KL")).collect();
    assert_eq!(drawn.len(), 2, "for screens and for phones");
    for (svg, width) in drawn.into_iter().zip(["440", "340"]) {
        let size = format!("style=\"max-width:{width}px\" role=\"img\" viewBox=\"0 0 {width} ");
        assert!(svg.contains(&size), "shown at the size it is drawn");
        for name in ["sft", "dpo", "rloo", "grpo", "reinforce", "ppo", "0"] {
            assert!(svg.contains(&format!(">\n{name}\n</text>")), "{width}: {name}");
        }
        assert!(!svg.contains(">\nbase\n</text>"), "it comes before the reference");
    }
}

#[test]
fn the_headline_names_whom_it_compares_with() {
    let mut data = example();
    let said = |data: &ReportData| -> String {
        let page = render(data);
        let claim = page.split("Answer by answer, ppo against ").nth(1).unwrap();
        claim.split(':').next().unwrap().to_owned()
    };
    assert_eq!(said(&data), "reinforce", "the policy before it, not what was picked from many");
    assert!(render(&data).contains("gain and wins against the policy before it</caption>"));
    let eval = data.stages.iter_mut().find(|s| s.name == "eval").unwrap();
    eval.params = vec![
        ("baseline".to_owned(), "\"\"".to_owned()),
        ("reference".to_owned(), "\"sft\"".to_owned()),
    ];
    assert_eq!(said(&data), "sft");
    assert!(render(&data).contains("gain and wins against sft</caption>"));
    let eval = data.stages.iter_mut().find(|s| s.name == "eval").unwrap();
    eval.params[0].1 = "\"dpo\"".to_owned();
    assert_eq!(said(&data), "dpo");
}
