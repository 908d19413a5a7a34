//! Outputs that leave the store, and what their cards say.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::space::{CHAIN, Space};

const PIPELINE: &str = "\
preflow: 1
name: p
params: { n: 1 }
sources:
  rows: { path: data/../rows.parquet, as: text }
  folder: { path: model, as: huggingface }
stages:
  dataset:
    kind: command
    inputs: { i: rows }
    outputs: { o: dataset/text, other: file }
    command: 'cp \"$IN_i\" \"$OUT_o\"; echo x > \"$OUT_other\"; : ${n}'
  model:
    kind: command
    inputs: { i: folder, rows: dataset }
    outputs: { o: model/huggingface }
    command: 'cp -r \"$IN_i\" \"$OUT_o\"'
";

fn rows(path: &Path) {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let batch = RecordBatch::try_from_iter([("text", column)]).expect("a batch");
    let file = std::fs::File::create(path).expect("made");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn space() -> Space {
    let space = Space::empty();
    space.write("p.yaml", PIPELINE);
    rows(&space.path("rows.parquet"));
    space.write("model/config.json", "{}");
    space.write("model/inner/README.md", "its own\n");
    space.write("data/x", "");
    space.ran(&["run", "p.yaml"]);
    space
}

#[test]
fn a_dataset_is_a_folder_that_says_which_files_are_its_rows() {
    let space = space();
    let said = space.preflow(&["export", "p.yaml", "dataset", "-o", "out/rows"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.starts_with(" out/rows  1 file, "), "{}", said.out);
    let bytes = std::fs::read(space.path("out/rows/data/train-00000-of-00001.parquet"));
    assert_eq!(bytes.expect("rows"), std::fs::read(space.path("rows.parquet")).expect("rows"));
    let card = space.read("out/rows/README.md");
    let head = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: \
                data/train-*\ntags:\n- preflow\n---\n\n# p: dataset\n";
    assert!(card.starts_with(head), "{card}");
    assert!(card.contains("| rows | rows.parquet | sha256:<!-- -->"), "{card}");
    assert!(card.contains("preflow run p.yaml dataset\n```"), "{card}");
    assert!(!card.contains("folder"), "what it was not made from is not on it: {card}");
}

#[test]
fn a_model_keeps_its_files_and_gets_a_card() {
    let space = space();
    let said = space.preflow(&["export", "model", "-o", "out", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((json["files"].as_u64(), json["folder"].as_str()), (Some(2), Some("out")));
    assert_eq!(space.read("out/config.json"), "{}");
    assert_eq!(space.read("out/inner/README.md"), "its own\n");
    let card = space.read("out/README.md");
    assert!(card.starts_with("---\nlibrary_name: transformers\ntags:\n- preflow\n---\n"), "{card}");
    for line in ["| dataset | command&#64;<!-- -->", "| model | command", "| folder | model |"] {
        assert!(card.contains(line), "{line}: {card}");
    }
    // It is theirs now: they may write to it.
    std::fs::write(space.path("out/config.json"), "{\"a\": 1}").expect("writable");
    assert_eq!(space.preflow(&["verify"]).code, Some(0));
}

#[test]
fn what_cannot_be_exported_is_told_and_nothing_is_written_over() {
    let space = space();
    let refused = |args: &[&str], words: &[&str]| {
        let said = space.preflow(&[&["export", "p.yaml"], args].concat());
        assert_eq!(said.code, Some(2), "{}", said.out);
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    };
    refused(&["model", "-o", "data"], &["`data` holds something already", "not there yet"]);
    refused(&["model", "-o", "rows.parquet"], &["rows.parquet"]);
    refused(&["dataset.other", "-o", "out"], &["is of type file", "kind: export"]);
    refused(&["dataset.none", "-o", "out"], &["no output `none`", "o, other"]);
    refused(&["datset", "-o", "out"], &["did you mean `dataset`?"]);
    refused(&["model", "dataset", "-o", "out"], &["takes one stage"]);
    refused(&["dataset", "-o", "out", "--set", "n=2"], &["not up to date", "preflow run p.yaml"]);
    assert!(!space.path("out").exists());
    // A folder that is there and empty is as good as none.
    std::fs::create_dir(space.path("out")).expect("made");
    assert_eq!(space.preflow(&["export", "model", "-o", "out"]).code, Some(0));
    let chain = Space::chain();
    chain.write("p.yaml", &CHAIN.replace("outputs: { o: file }", "outputs: { o: dataset/text }"));
    chain.ran(&["run", "p.yaml"]);
    let said = chain.preflow(&["export", "a", "-o", "out"]);
    assert!(said.err.contains("`a.o` is no Parquet file"), "{}", said.err);
}
