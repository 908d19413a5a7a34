//! Files as people and programs write them: read by their content, or refused by name.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use preflow_stages::data::{Column, Table, Wanted, read_tables, read_texts};
use serde_json::json;

use crate::harness::*;

fn read(path: &Path, columns: &[&str]) -> anyhow::Result<Table> {
    let wanted = Wanted { columns: columns.to_vec(), plain: false, named: false };
    read_tables(&[path.to_str().expect("UTF-8").to_owned()], &wanted)
}

fn texts(path: &Path) -> anyhow::Result<Vec<String>> {
    read_texts(&[path.to_str().expect("UTF-8").to_owned()], false).collect()
}

fn for_inference(shop: &Workshop, target: &str, file: &str) -> Ran {
    shop.run("p", "prepare", json!({"as": target}), &[("data", &[file])])
}

#[test]
fn the_same_bytes_are_the_same_rows_whatever_the_file_is_called() {
    let shop = Workshop::new();
    let contents = [
        "{\"text\": \"a, b\"}\n{\"text\": \"c\"}\n",
        "[{\"text\": \"a, b\"},\n {\"text\": \"c\"}]\n",
        "id,text\n1,\"a, b\"\n2,c\n",
        "text\tid\na, b\t1\nc\t2\n",
        "a, b\n\nc\n",
        "\u{feff}a, b\nc\n",
        "\u{feff}{\"text\": \"a, b\"}\n{\"text\": \"c\"}\n",
        "\u{feff}[{\"text\": \"a, b\"}, {\"text\": \"c\"}]",
        "\u{feff}text\n\"a, b\"\nc\n",
    ];
    for content in contents {
        for name in ["x", "x.parquet", "x.jsonl", "x.csv", "x.txt", "X.JSON", "x.out.rows.tsv"] {
            let path = shop.write(name, content);
            assert_eq!(texts(&path).expect("texts"), ["a, b", "c"], "{name}: {content}");
        }
    }
    // Both ways of reading agree.
    let wanted = Wanted { columns: vec!["text"], plain: true, named: false };
    for content in contents {
        let path = shop.write("y", content).to_str().expect("UTF-8").to_owned();
        let table = read_tables(&[path], &wanted).expect("rows");
        assert_eq!(table.texts("text").expect("texts"), ["a, b", "c"], "{content}");
    }
}

#[test]
fn rows_are_read_in_every_form_that_people_have() {
    let shop = Workshop::new();
    for content in [
        "[\n  {\"prompt\": \"q,\", \"n\": 1},\n  {\"prompt\": \"r\", \"n\": 2}\n]\n",
        "{\"prompt\": \"q,\", \"n\": 1}\r\n\r\n{\"prompt\": \"r\", \"n\": 2}\r\n",
        "prompt\tn\nq,\t1\nr\t2\n",
        "prompt;n\nq,;1\nr;2\n",
        "n,prompt\n1,\"q,\"\n2,r\n",
    ] {
        let path = shop.write("rows", content);
        let table = read(&path, &["prompt"]).expect(content);
        assert_eq!(table.texts("prompt").expect("texts"), ["q,", "r"], "{content}");
        assert_eq!(table.floats("n", 0.0).expect("numbers"), [1.0, 2.0], "{content}");
    }
}

#[test]
fn a_name_that_the_content_contradicts_is_refused_where_people_chose_it() {
    let shop = Workshop::new();
    for (name, content, says) in [
        ("a.csv", "id,body\n1,x\n", "the columns are `id`, `body`"),
        ("a.TSV", "id\tbody\n1\tx\n", "the columns are `id`, `body`"),
        ("a.parquet", "PAR", "does not start with PAR1"),
        ("a.jsonl", "no json\n", "holds no JSON objects"),
    ] {
        let path = shop.write(name, content).to_str().expect("UTF-8").to_owned();
        let read: anyhow::Result<Vec<String>> = read_texts(&[path], true).collect();
        let error = format!("{:#}", read.expect_err(name));
        assert!(error.contains(says) && error.contains(name), "{error}");
    }
}

#[test]
fn what_is_no_data_is_named_by_every_reader() {
    let shop = Workshop::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    for name in ["c.txt", "r.jsonl", "r.csv", "r.parquet"] {
        shop.write(name, pointer);
        let failure = for_inference(&shop, "prompt", name).failure();
        assert!(failure.contains("is a pointer of Git LFS: `git lfs pull` fetches"), "{failure}");
    }
    let params = json!({"algorithm": "byte"});
    let failure = shop.run("t", "tokenizer", params, &[("text", &["c.txt"])]).failure();
    assert!(failure.contains("is a pointer of Git LFS"), "{failure}");
    // Each file of a model.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama");
    for broken in ["config.json", "model.safetensors", "tokenizer.json"] {
        for entry in fs_err::read_dir(&fixture).expect("a folder").map(|e| e.expect("an entry")) {
            let name = entry.file_name().into_string().expect("UTF-8");
            shop.write(&format!("m/{name}"), fs_err::read(entry.path()).expect("bytes"));
        }
        shop.write(&format!("m/{broken}"), pointer);
        let failure = shop.run("m", "import_model", json!({}), &[("source", &["m"])]).failure();
        assert!(failure.contains(&format!("{broken} is a pointer of Git LFS")), "{failure}");
    }
    for (bytes, says) in [
        (&b"\x1f\x8b\x08\x00rest"[..], "cannot unpack"),
        (&b"\x28\xb5\x2f\xfdrest"[..], "cannot unpack"),
        (&b"\xff\xfea\0b\0"[..], "text in UTF-16: save it as UTF-8"),
        (&b"a\0b\0\n\0"[..], "holds zero bytes: it is no UTF-8 text"),
    ] {
        shop.write("z.jsonl.gz", bytes);
        let failure = for_inference(&shop, "prompt", "z.jsonl.gz").failure();
        assert!(failure.contains(says), "{failure}");
    }
    shop.write("d/data.arrow", "ARROW1");
    let failure = for_inference(&shop, "prompt", "d").failure();
    assert!(failure.contains("is an Arrow file: write it with `to_parquet`"), "{failure}");
    shop.write("e/dataset_dict.json", "{\"splits\": [\"train\"]}");
    let failure = for_inference(&shop, "prompt", "e").failure();
    assert!(failure.contains("several splits of `datasets`: name the folder of one"), "{failure}");
}

/// Eight rows in a file of the given settings.
fn written(path: &Path, properties: WriterProperties) {
    let prompts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..8).map(|i| format!("q{i}"))));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8));
    let batch = RecordBatch::try_from_iter([("prompt", prompts), ("n", numbers)]).expect("a batch");
    let file = fs_err::File::create(path).expect("a file");
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[test]
fn every_codec_and_both_page_versions_of_parquet_are_read() {
    let shop = Workshop::new();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ];
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let builder = WriterProperties::builder().set_compression(codec);
            let path = shop.path("rows");
            written(&path, builder.set_writer_version(version).build());
            let table = read(&path, &["prompt"]).expect("rows");
            let prompts = table.texts("prompt").expect("texts");
            assert_eq!((prompts.len(), prompts[7]), (8, "q7"), "{codec:?}");
            let numbers = table.floats("n", -1.0).expect("numbers");
            assert_eq!(numbers.iter().sum::<f64>(), 28.0, "{codec:?}");
        }
    }
}

#[test]
fn shards_keep_every_column_and_may_be_empty() {
    let shop = Workshop::new();
    shop.write("parts/1.jsonl", "{\"prompt\": \"a\", \"completion\": \"x\", \"tie\": true}\n");
    shop.write("parts/2.jsonl", "");
    shop.write("parts/3.csv", "prompt,completion\nb,y\n");
    shop.write("parts/_SUCCESS", "");
    shop.write("parts/.part.crc", "crc");
    let table = read(&shop.path("parts"), &["prompt"]).expect("rows");
    assert_eq!(table.texts("prompt").expect("texts"), ["a", "b"]);
    assert_eq!(table.bools("tie", false).expect("truth"), [true, false]);
    assert_eq!(table.place(1), format!("row 1 of {}", shop.path("parts/3.csv").display()));
    let ran = for_inference(&shop, "prompt_completion", "parts");
    assert_eq!(ran.summary()["rows/kept"], 2.0);
    assert_eq!(shop.table("p.data.parquet").names(), ["completion", "prompt", "tie"]);
    shop.write("none/1.jsonl", "\n");
    let failure = for_inference(&shop, "prompt", "none").failure();
    assert!(failure.contains("the source is empty"), "{failure}");
}

#[test]
fn what_is_carried_along_comes_out_as_it_went_in() {
    let shop = Workshop::new();
    let rows = [
        r#"{"prompt":"q","id":18446744073709551615,"mixed":9007199254740993,"deep":{"b":[1,null],"a":"é"},"f":0.1}"#,
        r#"{"prompt":"r","id":1,"mixed":1.5,"deep":{"b":[]},"f":1e-7}"#,
    ];
    shop.write("rows.jsonl", rows.join("\n"));
    for_inference(&shop, "prompt", "rows.jsonl").summary();
    // Once more, from Parquet.
    fs_err::rename(shop.path("p.data.parquet"), shop.path("again")).expect("renamed");
    for_inference(&shop, "prompt", "again").summary();
    let table = shop.table("p.data.parquet");
    let json = |texts: [&str; 2]| Some(Column::Json(texts.map(|t| Some(t.to_owned())).to_vec()));
    assert_eq!(table.column("id").cloned(), json(["18446744073709551615", "1"]));
    assert_eq!(table.column("mixed").cloned(), json(["9007199254740993", "1.5"]));
    let deep = [r#"{"b":[1,null],"a":"é"}"#, r#"{"b":[]}"#];
    assert_eq!(table.column("deep").cloned(), json(deep));
    assert_eq!(table.column("f").cloned(), Some(Column::floats([0.1, 1e-7])));
}

#[test]
fn a_list_or_a_number_where_text_is_wanted_is_a_bad_row() {
    let shop = Workshop::new();
    shop.write(
        "rows.jsonl",
        format!(
            "{}\n{}\n{}\n",
            json!({"prompt": "a"}),
            json!({"prompt": ["hi"]}),
            json!({"prompt": 3})
        ),
    );
    let failure = for_inference(&shop, "prompt", "rows.jsonl").failure();
    let says = "rows.jsonl: column `prompt` holds a list (`[\"hi\"]`), neither text nor messages";
    assert!(failure.contains("row 2 of ") && failure.contains(says), "{failure}");
    let params = json!({"as": "prompt", "on_bad_row": "skip"});
    let ran = shop.run("p", "prepare", params, &[("data", &["rows.jsonl"])]);
    assert!(ran.notes().contains("skipped 2 rows: row 2: column `prompt` holds a list"), "{ran:?}");
    assert_eq!(shop.table("p.data.parquet").texts("prompt").expect("texts"), ["a"]);
    // A column of numbers and one of lists in Parquet, too.
    fs_err::rename(shop.path("p.data.parquet"), shop.path("q")).expect("renamed");
    shop.write("n.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n");
    let failure = shop.run("t", "tokenizer", json!({}), &[("text", &["n.jsonl"])]).failure();
    assert!(failure.contains("row 2 of") && failure.contains("holds a number (`3`)"), "{failure}");
}

#[test]
fn conversations_that_are_not_understood_are_refused_by_turn() {
    let shop = Workshop::new();
    byte_vocabulary(&shop);
    shop.write("text.jsonl", "{\"text\": \"abcabcabcabcabcabcabcabcabcabc\"}\n".repeat(8));
    let shape = json!({"layers": 1, "hidden": 16, "heads": 2, "context": 32});
    let params = json!({"model": shape, "train": {"tokens": 300, "batch_tokens": 64}});
    let inputs: [(&str, &[&str]); 2] =
        [("text", &["text.jsonl"]), ("tokenizer", &["bytes.tokenizer.json"])];
    shop.run("base", "pretrain", params, &inputs).summary();
    let sft = |messages: serde_json::Value| {
        shop.write("m.jsonl", format!("{}\n", json!({"messages": messages})));
        shop.run("s", "sft", json!({}), &[("model", &["base.model"]), ("demos", &["m.jsonl"])])
            .failure()
    };
    let user = json!({"role": "user", "content": "a"});
    for (turn, says) in [
        (json!({"role": "assistant", "content": null}), "message 2 (assistant) says nothing"),
        (
            json!({"role": "assistant", "content": [{"type": "image_url"}]}),
            "message 2: `content` holds a part that is no text (image_url)",
        ),
        (
            json!({"role": "assistant", "content": "b", "tool_calls": [{"id": "c"}]}),
            "the model has no chat template: `tool_calls` of a message has no form",
        ),
        (
            json!({"role": "assistant", "content": "b", "reasoning_content": "x"}),
            "the model has no chat template: `reasoning_content` of a message has no form",
        ),
        (json!({"content": "b"}), "message 2: it has no `role`"),
        (json!({"role": "critic", "content": "b"}), "unknown role `critic`"),
    ] {
        let failure = sft(json!([user, turn]));
        assert!(
            failure.contains("row 1 of")
                && failure.contains("column `messages`")
                && failure.contains(says),
            "{failure}"
        );
    }
    // Verdicts on single answers are not passed over.
    shop.write("m.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}\n{\"prompt\": \"a\", \"completion\": \"c\", \"label\": false}\n");
    let failure = shop
        .run("s", "sft", json!({}), &[("model", &["base.model"]), ("demos", &["m.jsonl"])])
        .failure();
    assert!(
        failure.contains("row 2 of") && failure.contains("column `label` is false"),
        "{failure}"
    );
}
