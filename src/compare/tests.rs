//! Files made to differ in one place, and where that place is found.
#![expect(clippy::disallowed_methods, reason = "tests own their folders")]

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use safetensors::{Dtype, View};

use super::{ArrayDifference, FirstDifference, TreeSide, arrays, compare};
use crate::columns::RowDifference;

struct Values(Dtype, Vec<usize>, Vec<u8>);

impl View for &Values {
    fn dtype(&self) -> Dtype {
        self.0
    }
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        (&self.2).into()
    }
    fn data_len(&self) -> usize {
        self.2.len()
    }
}

fn floats(shape: &[usize], values: &[f32]) -> Values {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Values(Dtype::F32, shape.to_vec(), bytes)
}

/// The independent writer of the format.
fn weights(folder: &Path, name: &str, arrays: &[(&str, Values)]) -> PathBuf {
    let path = folder.join(name);
    let arrays = arrays.iter().map(|(name, values)| (*name, values));
    std::fs::write(&path, safetensors::serialize(arrays, None).unwrap()).unwrap();
    path
}

fn table(
    folder: &Path,
    name: &str,
    rows_a_group: usize,
    columns: Vec<(&str, ArrayRef)>,
) -> PathBuf {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = folder.join(name);
    let file = std::fs::File::create(&path).unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(rows_a_group)).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn texts<'a>(all: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(all))
}

fn first_array(before: &Path, now: &Path) -> ArrayDifference {
    match compare(before, now).unwrap() {
        Some(FirstDifference::Arrays { first }) => first,
        other => panic!("no difference of arrays: {other:?}"),
    }
}

#[test]
fn the_first_array_by_name_is_told_with_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let (mut w, b) = (vec![0.5_f32; 200_000], [1.0, 2.0, 3.0]);
    let z = || floats(&[1], &[7.0]);
    let one = [("z", z()), ("w", floats(&[100, 2000], &w)), ("b", floats(&[3], &b))];
    let one = weights(folder.path(), "1", &one);
    // Far apart: more than one piece is read.
    (w[5], w[150_000]) = (0.25, 2.5);
    let two = [("b", floats(&[3], &b)), ("w", floats(&[100, 2000], &w)), ("z", z())];
    let two = weights(folder.path(), "2", &two);
    let first = first_array(&one, &two);
    assert_eq!(first.array, "w");
    assert_eq!(first.before.as_deref(), Some("F32 [100, 2000]"));
    assert_eq!(first.arrays, (1, 3));
    let values = first.values.unwrap();
    assert_eq!((values.differing, values.of, values.first), (2, 200_000, 5));
    assert_eq!((values.largest, values.not_finite), (Some(2.0), 0));
}

#[test]
fn every_width_of_numbers_is_read_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    type Case<'a> = (Dtype, &'a [u8], &'a [u8], Option<f64>);
    let cases: [Case; 6] = [
        // 1.0 and 1.5 in bfloat16 are the upper halves of 0x3f800000 and 0x3fc00000.
        (Dtype::BF16, &[0x80, 0x3f], &[0xc0, 0x3f], Some(0.5)),
        // 1.0 and 2.0 in IEEE half precision.
        (Dtype::F16, &[0x00, 0x3c], &[0x00, 0x40], Some(1.0)),
        (Dtype::I64, &[1, 0, 0, 0, 0, 0, 0, 0], &[255; 8], Some(2.0)),
        (Dtype::U8, &[3], &[255], Some(252.0)),
        (Dtype::BOOL, &[0], &[1], Some(1.0)),
        (Dtype::F8_E4M3, &[0], &[1], None),
    ];
    for (dtype, old, new, largest) in cases {
        let one = weights(folder.path(), "1", &[("x", Values(dtype, vec![1], old.to_vec()))]);
        let two = weights(folder.path(), "2", &[("x", Values(dtype, vec![1], new.to_vec()))]);
        let values = first_array(&one, &two).values.unwrap();
        assert_eq!((values.differing, values.largest), (1, largest), "{dtype:?}");
    }
    let one = weights(folder.path(), "1", &[("x", floats(&[2], &[1.0, 1.0]))]);
    let two = weights(folder.path(), "2", &[("x", floats(&[2], &[f32::NAN, 1.5]))]);
    let values = first_array(&one, &two).values.unwrap();
    assert_eq!((values.differing, values.largest, values.not_finite), (2, Some(0.5), 1));
}

#[test]
fn arrays_that_come_go_or_change_their_form_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let one = weights(folder.path(), "1", &[("a", floats(&[2], &[1.0, 2.0]))]);
    let two = weights(folder.path(), "2", &[("a", floats(&[2, 1], &[1.0, 2.0]))]);
    let both = [("a", floats(&[2], &[1.0, 2.0])), ("b", floats(&[1], &[1.0]))];
    let three = weights(folder.path(), "3", &both);
    let first = first_array(&one, &two);
    assert_eq!(first.before.as_deref(), Some("F32 [2]"));
    assert_eq!((first.now.as_deref(), first.values), (Some("F32 [2, 1]"), None));
    let first = first_array(&one, &three);
    assert_eq!((first.array.as_str(), first.before, first.arrays), ("b", None, (1, 2)));
    assert!(first_array(&three, &one).now.is_none());
}

#[test]
fn what_is_no_file_of_arrays_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let whole = std::fs::read(weights(folder.path(), "1", &[("a", floats(&[1], &[1.0]))])).unwrap();
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let beyond = r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}"#;
    let backwards = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
    let endless = r#"{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,0]}}"#;
    for bytes in [
        vec![],
        b"text that is longer than a header's length".to_vec(),
        whole[..whole.len() - 1].to_vec(),
        header(beyond),
        header(backwards),
        header(endless),
        header("{}"),
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        assert!(arrays::open(&path).unwrap().is_none(), "{bytes:?}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(arrays::open(&path).unwrap().is_some());
}

#[test]
fn the_first_row_and_column_are_told_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, group: usize, word: &str, number: f64| {
        let steps: Vec<i64> = (0..3000).collect();
        let words = (0..3000).map(|i| if i == 2500 { word } else { "same" });
        let numbers = (0..3000).map(|i| if i == 2500 { number } else { 0.1 });
        table(
            folder.path(),
            name,
            group,
            vec![
                ("step", Arc::new(Int64Array::from(steps)) as ArrayRef),
                ("word", texts(words)),
                ("value", Arc::new(Float64Array::from_iter_values(numbers))),
            ],
        )
    };
    let one = make("1", 1000, "good", 0.1);
    let value = |column: &str, before: &str, now: &str| {
        let (column, before, now) = (column.to_owned(), before.to_owned(), now.to_owned());
        Some(FirstDifference::Table {
            first: RowDifference::Value { row: 2501, column, before, now },
        })
    };
    // Both columns differ in that row; the one further left is told. Groups of rows need not agree.
    let two = make("2", 700, "bad", 0.2);
    assert_eq!(compare(&one, &two).unwrap(), value("word", "good", "bad"));
    let three = make("3", 1000, "good", 0.100_000_000_000_000_02);
    assert_eq!(compare(&one, &three).unwrap(), value("value", "0.1", "0.10000000000000002"));
    // The same rows in other groups: other bytes, nothing to tell but where.
    let four = make("4", 700, "good", 0.1);
    let Some(FirstDifference::Bytes { offset, same: Some("rows"), .. }) =
        compare(&one, &four).unwrap()
    else {
        panic!("the rows are the same")
    };
    assert!(offset > 4);
    assert_eq!(compare(&one, &make("5", 1000, "good", 0.1)).unwrap(), None);
}

#[test]
fn other_columns_and_more_rows_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let one = table(folder.path(), "1", 9, vec![("a", texts(["x", "y"]))]);
    let more = table(folder.path(), "2", 9, vec![("a", texts(["x", "y", "z"]))]);
    let other = table(folder.path(), "3", 9, vec![("b", texts(["x", "y"]))]);
    let rows = RowDifference::Rows { before: 2, now: 3 };
    assert_eq!(compare(&one, &more).unwrap(), Some(FirstDifference::Table { first: rows }));
    let columns =
        RowDifference::Columns { before: vec!["a: Utf8".into()], now: vec!["b: Utf8".into()] };
    assert_eq!(compare(&one, &other).unwrap(), Some(FirstDifference::Table { first: columns }));
    // A missing text is none, an empty one is one.
    let none = Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef;
    let none = table(folder.path(), "4", 9, vec![("a", none)]);
    let empty = Arc::new(StringArray::from(vec![Some("x"), Some("")])) as ArrayRef;
    let empty = table(folder.path(), "5", 9, vec![("a", empty)]);
    let Some(FirstDifference::Table { first: RowDifference::Value { row: 2, before, now, .. } }) =
        compare(&none, &empty).unwrap()
    else {
        panic!("the second row differs")
    };
    assert_eq!((before.as_str(), now.as_str()), ("(none)", ""));
}

#[test]
fn bytes_are_told_by_their_place_and_a_damaged_table_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let bytes =
        |offset, before, now| Some(FirstDifference::Bytes { offset, before, now, same: None });
    let mut long = vec![b'x'; 200_000];
    let one = file("1", &long);
    long[150_000] = b'y';
    assert_eq!(compare(&one, &file("2", &long)).unwrap(), bytes(150_000, 200_000, 200_000));
    assert_eq!(compare(&one, &file("3", &long[..100])).unwrap(), bytes(100, 200_000, 100));
    assert_eq!(compare(&one, &one).unwrap(), None);
    let whole = std::fs::read(table(folder.path(), "t", 9, vec![("a", texts(["x"]))])).unwrap();
    let cut = file("4", &whole[..whole.len() - 9]);
    let (size, cut_size) = (whole.len() as u64, whole.len() as u64 - 9);
    assert_eq!(compare(&folder.path().join("t"), &cut).unwrap(), bytes(cut_size, size, cut_size));
    let missing = compare(&one, &folder.path().join("none")).expect_err("not there").to_string();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn of_a_folder_the_first_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, files: &[(&str, &str)]| {
        let top = folder.path().join(name);
        for (file, text) in files {
            let path = top.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        top
    };
    let one = make("1", &[("a", "x"), ("m/b", "y"), ("z", "1")]);
    let two = make("2", &[("a", "x"), ("m/b", "Y"), ("z", "2")]);
    let three = make("3", &[("a", "x"), ("z", "1")]);
    let first = Box::new(FirstDifference::Bytes { offset: 0, before: 1, now: 1, same: None });
    let inside = FirstDifference::Inside { file: "m/b".into(), first };
    assert_eq!(compare(&one, &two).unwrap(), Some(inside));
    let gone = FirstDifference::File { file: "m/b".into(), only_in: TreeSide::Before };
    assert_eq!(compare(&one, &three).unwrap(), Some(gone));
    let came = FirstDifference::File { file: "m/b".into(), only_in: TreeSide::Now };
    assert_eq!(compare(&three, &one).unwrap(), Some(came));
    let kind = FirstDifference::Kind { before: "a folder", now: "a file" };
    assert_eq!(compare(&one, &one.join("a")).unwrap(), Some(kind));
    assert_eq!(compare(&one, &one).unwrap(), None);
}
