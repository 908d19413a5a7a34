//! Datasets of several, and rows chosen by what is in them.

use preflow_stages::data::Column;
use serde_json::{Value, json};

use crate::harness::{Workshop, byte_vocabulary};

fn rows(shop: &Workshop, name: &str, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    shop.write(name, lines);
}

fn numbered(shop: &Workshop, name: &str, count: usize) {
    let list: Vec<Value> =
        (0..count).map(|i| json!({ "prompt": format!("{name} {i}"), "n": i })).collect();
    rows(shop, &format!("{name}.jsonl"), &list);
}

#[test]
fn datasets_are_mixed_by_weights_or_rows_and_say_where_each_row_is_from() {
    let shop = Workshop::new();
    numbered(&shop, "one", 90);
    numbered(&shop, "two", 20);
    let datasets: &[(&str, &[&str])] = &[("datasets", &["one.jsonl", "two.jsonl"])];
    let mix = |name: &str, mut params: Value| {
        params["as"] = "prompt".into();
        shop.run(name, "mix", params, datasets)
    };
    let made = |name: &str, params: Value| {
        let figures = mix(name, params).summary();
        let table = shop.table(&format!("{name}.data.parquet"));
        let prompts = table.keys("prompt").expect("prompts");
        let sources = table.texts("source").expect("sources");
        for (prompt, source) in prompts.iter().zip(&sources) {
            assert!(prompt.starts_with(source), "{prompt} is not of {source}");
        }
        let of = |source: &str| prompts.iter().filter(|p| p.starts_with(source)).count();
        assert_eq!(figures["rows/one"], of("one") as f64);
        ([of("one"), of("two")], prompts)
    };
    assert_eq!(made("all", json!({})).0, [90, 20]);
    assert_eq!(made("rows", json!({"rows": {"one": 5}})).0, [5, 20]);
    // The smaller one is used up: 20 of it are a third.
    let (counts, prompts) = made("shares", json!({"weights": {"one": 2, "two": 1}}));
    assert_eq!(counts, [40, 20]);
    let different: std::collections::BTreeSet<&String> = prompts.iter().collect();
    assert_eq!(different.len(), 60, "no row twice");
    assert!(prompts[..20].iter().any(|p| p.starts_with("two")), "in random order");
    let total = json!({"weights": {"one": 2, "two": 1}, "total": 10});
    assert_eq!(made("total", total.clone()).0, [7, 3]);
    assert_eq!(made("again", total.clone()).1, made("total", total).1, "one seed, one mix");
    let more = json!({"weights": {"one": 1, "two": 1}, "total": 100});
    let failure = mix("more", more.clone()).failure();
    assert!(failure.contains("50 rows are asked of `two`, which has 20"), "{failure}");
    let mut repeated = more;
    repeated["repeat"] = true.into();
    let (counts, prompts) = made("repeated", repeated);
    let once = prompts.iter().filter(|p| *p == "two 3").count();
    assert!(counts == [50, 50] && (2..=3).contains(&once), "each is used in turn: {once}");
    for (params, why) in [
        (json!({"weights": {"one": 1}}), "no share for `two`"),
        (json!({"weights": {"one": 1, "tow": 1}}), "no dataset is named `tow`"),
        (json!({"rows": {"one": 1}, "weights": {"one": 1, "two": 1}}), "not both"),
        (json!({"total": 5}), "`total` wants `weights`"),
        (json!({"weights": {"one": 0, "two": 0}}), "all weights are 0"),
    ] {
        let failure = mix("wrong", params).failure();
        assert!(failure.contains(why), "{failure}");
    }
    rows(&shop, "two.jsonl", &[json!({ "prompt": "x", "source": "y" })]);
    assert!(mix("own", json!({})).failure().contains("a column `source` of its own"));
}

#[test]
fn rows_stay_that_meet_every_condition() {
    let shop = Workshop::new();
    shop.write("tokenizer.json", byte_vocabulary(&shop).bytes());
    let chat = |text: &str| json!([{"role": "user", "content": text}]);
    rows(
        &shop,
        "rows.jsonl",
        &[
            json!({"prompt": "short", "lang": "en", "score": 0.5}),
            json!({"prompt": "a longer question", "lang": "de", "score": 0.9}),
            json!({"prompt": chat("a chat"), "lang": "en", "score": null}),
            json!({"prompt": "äöü", "lang": null, "score": 2}),
        ],
    );
    let run = |conditions: Value| {
        let params = json!({ "as": "prompt", "where": conditions });
        let inputs: &[(&str, &[&str])] =
            &[("data", &["rows.jsonl"]), ("tokenizer", &["tokenizer.json"])];
        shop.run("kept", "prepare", params, inputs)
    };
    let kept = |condition: Value| {
        run(json!([condition])).summary();
        let table = shop.table("kept.data.parquet");
        table.keys("prompt").expect("prompts")
    };
    let (short, long, talk, marks) = ("short", "a longer question", "a chat", "äöü");
    let column = |test: Value| {
        let mut condition = test;
        condition["column"] = "prompt".into();
        condition
    };
    assert_eq!(kept(column(json!({"match": "^a "}))), [long, talk]);
    assert_eq!(kept(column(json!({"match": "^a ", "not": true}))), [short, marks]);
    assert_eq!(kept(column(json!({"chars": {"max": 5}}))), [short, marks]);
    assert_eq!(kept(column(json!({"chars": {"min": 6, "max": 6}}))), [talk]);
    // The tokenizer has a token a byte: three letters with marks are six.
    assert_eq!(kept(column(json!({"tokens": {"min": 6, "max": 9}}))), [talk, marks]);
    assert_eq!(kept(json!({"column": "lang", "is": ["en", "fr"]})), [short, talk]);
    // A cell without a value meets no condition.
    assert_eq!(kept(json!({"column": "lang", "is": ["en"], "not": true})), [long]);
    assert_eq!(kept(json!({"column": "score", "number": {"min": 0.6}})), [long, marks]);
    assert_eq!(kept(json!({"column": "score", "number": {"min": 0.6}, "not": true})), [short]);
    let both = json!([column(json!({"chars": {"min": 6}})), {"column": "lang", "is": ["de"]}]);
    let ran = run(both);
    ran.summary();
    assert!(ran.notes().contains("2 rows do not meet: chars of `prompt`"), "{}", ran.notes());
    assert!(ran.notes().contains("1 rows do not meet: is of `lang`"), "{}", ran.notes());
    for (condition, why) in [
        (json!({"column": "prompt"}), "has 0 tests"),
        (column(json!({"match": "a", "chars": {"min": 1}})), "has 2 tests"),
        (column(json!({"match": "("})), "is no regular expression"),
        (json!({"column": "nothing", "is": ["x"]}), "no column `nothing`"),
        (json!({"column": "lang", "number": {"min": 1}}), "row 1"),
        (column(json!({"chars": {"min": 99}})), "no row is left of 4"),
    ] {
        let failure = run(json!([condition])).failure();
        assert!(failure.contains(why), "{failure}");
    }
    let params = json!({"as": "prompt", "where": [column(json!({"tokens": {"max": 9}}))]});
    let failure = shop.run("kept", "prepare", params, &[("data", &["rows.jsonl"])]).failure();
    assert!(failure.contains("counts tokens, and no tokenizer is connected"), "{failure}");
}

#[test]
fn near_duplicates_and_prompts_that_policies_are_judged_by_are_counted_or_dropped() {
    let shop = Workshop::new();
    let list = [
        "Give me three tips for staying healthy in the cold winter months please",
        "give me three tips for staying healthy in the cold winter months, please!",
        "Write a poem about the sea and the wind that blows over the wide land",
        "Name a colour",
    ];
    rows(&shop, "rows.jsonl", &list.map(|text| json!({ "prompt": text })));
    rows(&shop, "unseen.jsonl", &[json!({"prompt": "name a colour."})]);
    let run = |more: Value| {
        let mut params = json!({ "as": "prompt" });
        params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let inputs: &[(&str, &[&str])] =
            &[("data", &["rows.jsonl"]), ("unseen", &["unseen.jsonl"])];
        let ran = shop.run("kept", "prepare", params, inputs);
        let figures = ran.summary();
        let table = shop.table("kept.data.parquet");
        let Some(Column::Text(kept)) = table.column("prompt") else { panic!("prompts") };
        (kept.len(), figures, ran.notes())
    };
    let (kept, figures, notes) = run(json!({ "near_duplicates": "count" }));
    assert_eq!((kept, figures["rows/near_duplicates"], figures["rows/overlap"]), (4, 1.0, 1.0));
    assert!(notes.contains("1 of 4 rows are nearly the same as an earlier one"), "{notes}");
    assert!(notes.contains("1 of 4 rows have a prompt that is nearly one of `unseen`"), "{notes}");
    let (kept, ..) = run(json!({ "near_duplicates": "drop", "overlap": "drop" }));
    assert_eq!(kept, 2);
    let (kept, figures, _) = run(json!({ "overlap": "ignore" }));
    assert!(kept == 4 && !figures.contains_key("rows/overlap"));
}
