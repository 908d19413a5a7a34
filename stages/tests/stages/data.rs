//! Readers, the tokenizer kind, and the committed world.

use preflow_stages::data::{
    BadRows, Prompt, TextUnit, Vocabulary, part_of_prompt, read_table, split_text,
};
use serde_json::json;

use crate::harness::*;

#[path = "../../examples/workshop_data.rs"]
mod workshop_data;

#[test]
fn the_committed_world_is_what_its_generator_makes() {
    let shop = Workshop::new();
    workshop_data::write_all(shop.dir.path()).expect("written");
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/workshop");
    for name in ["corpus.parquet", "demos.jsonl", "prompts.jsonl", "eval.jsonl"] {
        let same = fs_err::read(shop.path(name)).ok() == fs_err::read(committed.join(name)).ok();
        assert!(same, "{name} is out of date: cargo run -p preflow-stages --example workshop_data");
    }
}

#[test]
fn bad_rows_are_named_by_number_and_reason() {
    let shop = Workshop::new();
    shop.write(
        "rows.jsonl",
        "{\"prompt\": \"a\"}\nnot json\n[1]\n{\"prompt\": \"\"}\n{\"prompt\": \"b\"}\n",
    );
    let run = |params| shop.run("p", "prepare", params, &[("data", &["rows.jsonl"])]);
    let failure = run(json!({"as": "prompt"})).failure();
    assert!(failure.contains("row 2 of") && failure.contains("not JSON"), "{failure}");
    let ran = run(json!({"as": "prompt", "on_bad_row": "skip"}));
    let notes = ran.notes();
    assert!(
        notes.contains("skipped 3 rows: row 2: not JSON")
            && notes.contains("row 3: not a JSON object"),
        "{notes}"
    );
    assert_eq!(shop.table("p.data.parquet").texts("prompt").expect("text"), ["a", "b"]);
}

#[test]
fn pairs_from_elsewhere_get_the_names_that_votes_know_them_by() {
    let shop = Workshop::new();
    shop.write("p.csv", "prompt,left,right\np,b,a\np,a,b\n");
    let params = json!({"as": "pairs", "columns": {"response_a": "left", "response_b": "right"}});
    shop.run("p", "prepare", params, &[("data", &["p.csv"])]).summary();
    let table = shop.table("p.data.parquet");
    let name = "sha256:f42908c8ff58bc99b2bba14923c11130e0f03ab844d60d94065d981da1b40de7";
    assert_eq!(table.texts("pair").expect("text"), [name, name]);
    assert_eq!(table.texts("response_a").expect("text"), ["b", "a"]);
}

#[test]
fn prepare_reads_csv_parquet_and_text_and_renames() {
    let shop = Workshop::new();
    shop.write("a.csv", "question,answer,kind\nq1,a1,x\n\"q,2\",a2,y\n");
    let params = json!({"as": "prompt_completion", "columns": {"prompt": "question", "completion": "answer"}});
    shop.run("c", "prepare", params, &[("data", &["a.csv"])]).summary();
    let table = shop.table("c.data.parquet");
    assert_eq!(table.names(), ["prompt", "completion", "kind"]);
    assert_eq!(table.texts("prompt").expect("text"), ["q1", "q,2"]);
    // Parquet in, and a column that it does not have.
    let failure =
        shop.run("d", "prepare", json!({"as": "text"}), &[("data", &["c.data.parquet"])]).failure();
    assert!(
        failure.contains("no column `text`; the columns are `prompt`, `completion`, `kind`"),
        "{failure}"
    );
    shop.write("t.txt", "one\ntwo\n\nthree\n");
    for (unit, rows) in [("lines", 3.0), ("paragraphs", 2.0), ("whole", 1.0), ("chars:4", 4.0)] {
        let ran =
            shop.run("t", "prepare", json!({"as": "text", "unit": unit}), &[("data", &["t.txt"])]);
        assert_eq!(ran.summary()["rows/kept"], rows, "{unit}");
    }
    shop.write("none.txt", "\n\n");
    let failure =
        shop.run("n", "prepare", json!({"as": "text"}), &[("data", &["none.txt"])]).failure();
    assert!(failure.contains("the source is empty"), "{failure}");
    shop.write("fake.parquet", "PAR");
    let failure =
        shop.run("f", "prepare", json!({"as": "text"}), &[("data", &["fake.parquet"])]).failure();
    assert!(failure.contains("not a Parquet file"), "{failure}");
}

#[test]
fn invariant_30_splits_are_disjoint_by_prompt() {
    let shop = Workshop::new();
    let rows: String = (0..200)
        .map(|i| format!("{}\n", json!({"prompt": format!("p{}", i % 50), "n": i})))
        .collect();
    shop.write("r.jsonl", rows);
    let part = |part: &str| {
        let params = json!({"as": "prompt", "split": {"part": part, "test_fraction": 0.3}});
        shop.run(part, "prepare", params, &[("data", &["r.jsonl"])]).summary();
        let table = shop.table(&format!("{part}.data.parquet"));
        table.texts("prompt").expect("text").iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()
    };
    let (train, test) = (part("train"), part("test"));
    assert_eq!(train.len() + test.len(), 200);
    assert!(test.iter().all(|p| !train.contains(p)) && test.len() > 20);
    let share = (0..10_000).filter(|i| part_of_prompt(&format!("x{i}"), "s", 0.1)).count();
    assert!((900..1100).contains(&share), "{share}");
}

#[test]
fn text_is_cut_as_asked() {
    let text = "a\nb\n\n\nc\n";
    assert_eq!(split_text(text, TextUnit::Lines), ["a", "b", "c"]);
    assert_eq!(split_text(text, TextUnit::Paragraphs), ["a\nb", "c"]);
    assert_eq!(split_text("abcde", TextUnit::Chars(2)), ["ab", "cd", "e"]);
    assert!("chars:0".parse::<TextUnit>().is_err() && "pages".parse::<TextUnit>().is_err());
    let shop = Workshop::new();
    let bytes = shop.write("x.txt", [0xff, 0xfe, 0x00]);
    assert!(read_table(&bytes, &rows(), TextUnit::Lines, BadRows::Fail, &mut Vec::new()).is_err());
}

#[test]
fn tokenizers_are_deterministic_and_lose_nothing() {
    let shop = Workshop::new();
    let text: String = (0..300).map(|i| format!("{}\n", json!({"text": format!("<user>word{} and the other one<bot>é ü {}", i % 17, i * 31 % 101)}))).collect();
    shop.write("t.jsonl", text);
    for params in [
        json!({"vocab_size": 400}),
        json!({"algorithm": "byte"}),
        json!({"algorithm": "char", "vocab_size": 400}),
    ] {
        let train = |name: &str| {
            shop.run(name, "tokenizer", params.clone(), &[("text", &["t.jsonl"])]).summary();
            fs_err::read(shop.path(&format!("{name}.tokenizer.json"))).expect("bytes")
        };
        let (one, two) = (train("one"), train("two"));
        assert!(one == two, "{params}: two processes give two tokenizers");
        let vocabulary = Vocabulary::from_bytes(one).expect("a tokenizer");
        for text in ["the other word3", "ünseen 漢字 \t!", "<user>a<bot>b"] {
            let ids = vocabulary.encode(text).expect("ids");
            assert_eq!(vocabulary.decode(&ids).expect("text"), text, "{params}");
        }
        assert_eq!(vocabulary.prompt(&Prompt::text("a")).expect("ids")[..2], [1, 3]);
        assert_eq!(*vocabulary.completion("a", true).expect("ids").last().expect("one"), 2);
        assert_eq!(vocabulary.encode("<eos>").expect("ids"), [2]);
    }
    let small = shop
        .run(
            "s",
            "tokenizer",
            json!({"algorithm": "char", "vocab_size": 262}),
            &[("text", &["t.jsonl"])],
        )
        .failure();
    assert!(small.contains("too small") && small.contains("set vocab_size to"), "{small}");
}
