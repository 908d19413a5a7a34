//! Parquet files as they are written, streamed, and found damaged.

use std::path::Path;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use preflow_stages::data::{
    BadRows, Column, Table, TextUnit, read_table, read_texts, write_parquet,
};
use preflow_stages::rng::Stream;

use crate::harness::*;

fn table(rows: usize) -> Table {
    let mut stream = Stream::new(rows as u64, "table", 0, 0);
    let texts: Vec<String> =
        (0..rows).map(|i| format!("row {i} {}", stream.below(1_000_000))).collect();
    let numbers: Vec<f64> = (0..rows).map(|_| stream.normal()).collect();
    Table::new(vec![
        ("text", Column::text(texts)),
        ("number", Column::floats(numbers)),
        ("place", Column::ints((0..rows).map(|i| i as i64))),
        ("even", Column::bools((0..rows).map(|i| i % 2 == 0))),
    ])
    .expect("a table")
}

fn read(path: &Path) -> anyhow::Result<Table> {
    read_table(path, &rows(), TextUnit::Lines, BadRows::Fail, &mut Vec::new())
}

fn name(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_large_table_has_pinned_row_groups_and_streams() {
    let shop = Workshop::new();
    let (one, two) = (shop.path("one.parquet"), shop.path("two.parquet"));
    let table = table(140_000);
    write_parquet(&one, &table).expect("written");
    write_parquet(&two, &table).expect("written");
    let bytes = |path: &Path| fs_err::read(path).expect("bytes");
    assert!(bytes(&one) == bytes(&two));
    let file = std::fs::File::open(&one).expect("a file");
    let metadata = SerializedFileReader::new(file).expect("Parquet").metadata().clone();
    let groups: Vec<i64> = metadata.row_groups().iter().map(|g| g.num_rows()).collect();
    assert_eq!(groups, [65_536, 65_536, 8_928]);
    assert!(read(&one).expect("reads") == table);
    let texts: Vec<String> =
        read_texts(&[name(&one)], true).collect::<anyhow::Result<_>>().expect("texts");
    assert!(texts == table.texts("text").expect("texts"));
    // No rows are a table too.
    let none = table.take(&[]);
    write_parquet(&two, &none).expect("written");
    assert_eq!(read(&two).expect("reads").names(), table.names());
}

#[test]
fn texts_stream_alike_from_every_kind_of_file() {
    let shop = Workshop::new();
    let texts = ["one", "two words", "three \"quoted\""];
    let parquet = shop.path("a.parquet");
    let rows = Table::new(vec![("id", Column::ints([1, 2, 3])), ("text", Column::text(texts))]);
    write_parquet(&parquet, &rows.expect("a table")).expect("written");
    let lines = texts.map(|t| serde_json::json!({"id": 1, "text": t}).to_string() + "\n").concat();
    let paths = [
        parquet,
        shop.write("b.jsonl", format!("{lines}\n")),
        shop.write("c.csv", "text,id\none,1\ntwo words,2\n\"three \"\"quoted\"\"\",3\n"),
        shop.write("d.txt", texts.join("\n\n")),
    ];
    for path in &paths {
        let found: Vec<String> =
            read_texts(&[name(path)], true).collect::<anyhow::Result<_>>().expect("texts");
        assert_eq!(found, texts, "{}", path.display());
    }
    let all: Vec<String> = paths.iter().map(|p| name(p)).collect();
    assert_eq!(read_texts(&all, true).count(), 12);
    let failure = |file: &str, text: &str| {
        let path = shop.write(file, text);
        let found: anyhow::Result<Vec<String>> = read_texts(&[name(&path)], true).collect();
        format!("{:#}", found.expect_err("it fails"))
    };
    assert!(failure("e.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n").contains("row 2"));
    assert!(failure("f.jsonl", "{\"text\": \"a\"}\n\n{\"id\": 3}\n").contains("row 3"));
    assert!(failure("g.csv", "id\n1\n").contains("the columns are `id`"));
    assert!(failure("h.parquet", "textual\n").contains("PAR1"));
    let empty = shop.write("i.txt", "\n\n");
    assert_eq!(read_texts(&[name(&empty)], true).count(), 0);
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_crash() {
    let shop = Workshop::new();
    let path = shop.path("t.parquet");
    let table = table(300);
    write_parquet(&path, &table).expect("written");
    let good = fs_err::read(&path).expect("bytes");
    let mut errors = 0;
    let mut check = |bytes: &[u8]| {
        let bad = shop.write("bad.parquet", bytes);
        if let Err(e) = read(&bad) {
            errors += 1;
            assert!(format!("{e:#}").contains("bad.parquet"), "{e:#}");
        }
        // The stream ends after its error.
        let texts: Vec<anyhow::Result<String>> = read_texts(&[name(&bad)], true).collect();
        assert!(texts.iter().rev().skip(1).filter(|t| t.is_err()).count() <= 1);
    };
    for length in (0..good.len()).step_by(97) {
        check(&good[..length]);
    }
    let mut stream = Stream::new(1, "flips", 0, 0);
    for _ in 0..400 {
        let mut bytes = good.clone();
        let place = 4 + stream.below(bytes.len() - 4);
        bytes[place] ^= 1 << stream.below(8);
        check(&bytes);
    }
    assert!(errors > 100, "{errors} of the damaged files were refused");
}
