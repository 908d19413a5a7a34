//! Every form once, written by hand, and the way out and in again.
#![expect(clippy::disallowed_methods, reason = "tests write their own files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::*;
use crate::conversation::{Content, Message};
use crate::label::read_pairs;
use crate::votes::{Choice, Effective, Folder, PairText, Side, pair_id};

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn good(path: &Path, form: Option<Form>, names: &Names) -> Vec<Opinion> {
    let mut bad = Vec::new();
    let wanted = Wanted { form, names: names.clone(), ..Wanted::default() };
    let found = read(path, &wanted, &mut bad).expect("readable");
    assert_eq!(bad, []);
    found.opinions
}

fn import(dir: &Path, path: &Path, annotator: Option<&str>) -> Recorded {
    let found = good(path, None, &Names::default());
    let opinions: Vec<(&Path, Opinion)> = found.into_iter().map(|o| (path, o)).collect();
    record(dir, &opinions, annotator, "2026-01-01T00:00:00Z").expect("recorded")
}

fn effective(dir: &Path) -> Effective {
    Effective::of(&Folder::read(dir).expect("readable"))
}

/// Annotator → choice on the pair, in the terms of the folder.
fn said(dir: &Path, prompt: &str, one: &str, other: &str) -> Vec<(String, Choice)> {
    let all = effective(dir);
    let judged = &all.pairs[&pair_id(prompt, one, other)];
    judged.ballots.iter().map(|b| (b.annotator.clone(), b.choice)).collect()
}

fn labels_parquet(path: &Path) {
    let text = |values: [&str; 5]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        ("prompt", text(["p0", "p1", "p2", "p3, \"quoted\"\nand long", "p4"])),
        ("chosen", text(["x", "b", "a", "é", "m"])),
        ("rejected", text(["a", "a", "z", "e", ""])),
        ("tie", Arc::new(BooleanArray::from(vec![false, false, true, false, true])) as ArrayRef),
        ("strength", Arc::new(Float64Array::from(vec![2.0, 1.0, 0.0, 1.0, 0.0])) as ArrayRef),
        ("response_a", text(["x", "a", "a", "e", "m"])),
        ("response_b", text(["a", "b", "z", "é", ""])),
        ("choice", text(["a", "b", "both_bad", "b", "tie"])),
    ])
    .expect("a batch");
    let file = std::fs::File::create(path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[test]
fn what_is_exported_comes_back_as_the_same_votes() {
    let dir = tempfile::tempdir().expect("temp");
    let parquet = dir.path().join("labels.parquet");
    labels_parquet(&parquet);
    let whole = |shape| {
        let labels = super::export(&parquet, shape).expect("exported");
        assert_eq!((labels.rows, labels.left_out), (5, 0));
        labels.text
    };
    let jsonl = file(dir.path(), "labels.jsonl", &whole(Shape::JsonLines));
    let csv = file(dir.path(), "labels.csv", &whole(Shape::Csv));
    let mut forms = Vec::new();
    for (name, path) in [("1", &parquet), ("2", &jsonl), ("3", &csv)] {
        let votes = dir.path().join(name);
        assert_eq!(import(&votes, path, Some("ann")).added["ann"], 5);
        // Again: nothing new.
        let again = import(&votes, path, Some("ann"));
        assert_eq!((again.added["ann"], again.known), (0, 5));
        forms.push(effective(&votes));
    }
    assert_eq!(forms[0], forms[1]);
    assert_eq!(forms[0], forms[2]);
    let votes = dir.path().join("1");
    // `a` sorts first, on whichever side it was sampled.
    assert_eq!(said(&votes, "p0", "x", "a"), [("ann".to_owned(), Choice::BMuch)]);
    assert_eq!(said(&votes, "p1", "a", "b"), [("ann".to_owned(), Choice::B)]);
    assert_eq!(said(&votes, "p2", "z", "a"), [("ann".to_owned(), Choice::BothBad)]);
    assert_eq!(said(&votes, "p4", "m", ""), [("ann".to_owned(), Choice::Tie)]);
    assert_eq!(said(&votes, "p3, \"quoted\"\nand long", "e", "é")[0].1, Choice::B);
}

#[test]
fn trl_gets_its_columns_and_no_ties() {
    let dir = tempfile::tempdir().expect("temp");
    let parquet = dir.path().join("labels.parquet");
    labels_parquet(&parquet);
    let rows = |shape| {
        let labels = super::export(&parquet, shape).expect("exported");
        assert_eq!((labels.rows, labels.left_out), (3, 2));
        let rows = labels.text.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
        rows.collect::<Vec<_>>()
    };
    assert_eq!(rows(Shape::Trl)[0], json!({"prompt": "p0", "chosen": "x", "rejected": "a"}));
    assert_eq!(
        rows(Shape::TrlConversational)[1],
        json!({
            "prompt": [{"role": "user", "content": "p1"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "a"}],
        })
    );
    // Both come back as the same preferences.
    for (name, shape) in [("plain", Shape::Trl), ("turns", Shape::TrlConversational)] {
        let labels = super::export(&parquet, shape).expect("exported");
        let path = file(dir.path(), &format!("{name}.jsonl"), &labels.text);
        let votes = dir.path().join(name);
        assert_eq!(import(&votes, &path, Some("ann")).added["ann"], 3);
        assert_eq!(said(&votes, "p0", "x", "a"), [("ann".to_owned(), Choice::B)]);
    }
}

#[test]
fn prompts_that_are_conversations_leave_as_turns() {
    let dir = tempfile::tempdir().expect("temp");
    let talk =
        r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]"#;
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let columns = [("prompt", text(talk)), ("chosen", text("x")), ("rejected", text("[y]"))];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let path = dir.path().join("x.parquet");
    let file = std::fs::File::create(&path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let row = |shape| -> Value {
        let labels = super::export(&path, shape).expect("exported");
        serde_json::from_str(&labels.text).expect("JSON")
    };
    let turns = row(Shape::TrlConversational);
    assert_eq!(turns["prompt"], serde_json::from_str::<Value>(talk).expect("JSON"));
    assert_eq!(turns["rejected"], json!([{"role": "assistant", "content": "[y]"}]));
    // TRL takes messages in all columns, or in none.
    assert_eq!(row(Shape::Trl), turns);
}

#[test]
fn columns_may_have_any_name_and_choices_many_words() {
    let dir = tempfile::tempdir().expect("temp");
    let text = "frage,links,rechts,besser,wer\nq,l,r,links,Ann\nq2,l,r,tie (bothbad),Ann\nq3,l,r,2,Ben B.\nq4,l,r,skip,Ann\n";
    let path = file(dir.path(), "x.csv", text);
    let named = |name: &str| Some(name.to_owned());
    let names = Names {
        prompt: named("frage"),
        a: named("links"),
        b: named("rechts"),
        choice: named("besser"),
        annotator: named("wer"),
        ..Names::default()
    };
    let found = good(&path, Some(Form::Columns), &names);
    let choices: Vec<Choice> = found.iter().map(|o| o.choice).collect();
    assert_eq!(choices, [Choice::A, Choice::BothBad, Choice::B]);
    let opinions: Vec<(&Path, Opinion)> = found.into_iter().map(|o| (&*path, o)).collect();
    let votes = dir.path().join("votes");
    let recorded = record(&votes, &opinions, None, "2026-01-01T00:00:00Z").expect("recorded");
    let added: Vec<_> = recorded.added.into_iter().collect();
    assert_eq!(added, [("ann".to_owned(), 2), ("ben-b".to_owned(), 1)]);
}

#[test]
fn transcripts_are_cut_where_they_part() {
    let dir = tempfile::tempdir().expect("temp");
    let rows = [
        json!({"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello there.", "rejected": "\n\nHuman: Hi?\n\nAssistant: Hello."}),
        json!({"chosen": "\n\nHuman: One\n\nAssistant: two\n\nHuman: Three\n\nAssistant: four",
               "rejected": "\n\nHuman: One\n\nAssistant: two\n\nHuman: Three\n\nAssistant: go away"}),
    ];
    let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
    let path = file(dir.path(), "hh.jsonl", &text);
    let votes = dir.path().join("votes");
    assert_eq!(import(&votes, &path, Some("crowd")).added["crowd"], 2);
    // `Hello there.` sorts after `Hello.`.
    assert_eq!(said(&votes, "Hi?", "Hello there.", "Hello.")[0].1, Choice::A);
    let turns = [("user", "One"), ("assistant", "two"), ("user", "Three")];
    let prompt = Content::Messages(turns.map(|(role, text)| Message::new(role, text)).to_vec());
    assert_eq!(said(&votes, &prompt.written(), "four", "go away")[0].1, Choice::A);
    let odd = file(
        dir.path(),
        "odd.jsonl",
        "{\"chosen\": \"x\\n\\nAssistant: 1\", \"rejected\": \"y\\n\\nAssistant: 2\"}\n",
    );
    let mut bad = Vec::new();
    read(&odd, &Wanted::default(), &mut bad).expect("readable");
    assert!(bad[0].reason.contains("no prompt, and the answers"), "{bad:?}");
}

#[test]
fn whole_conversations_are_cut_where_they_part_with_or_without_a_prompt() {
    let dir = tempfile::tempdir().expect("temp");
    let talk = |answer: &str| json!([{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": answer}]);
    for prompt in [json!(null), json!("Hi?")] {
        let row =
            json!({"prompt": prompt, "chosen": talk("Hello there."), "rejected": talk("No.")});
        let path = file(dir.path(), "talks.jsonl", &row.to_string());
        let found = good(&path, None, &Names::default());
        assert_eq!((found.len(), found[0].prompt.as_str()), (1, "Hi?"));
        assert_eq!(found[0].answers, ["Hello there.", "No."]);
    }
    let other = json!([{"role": "user", "content": "Bye?"}, {"role": "assistant", "content": "x"}]);
    let row = json!({"chosen": talk("y"), "rejected": other});
    let path = file(dir.path(), "odd.jsonl", &row.to_string());
    let mut bad = Vec::new();
    read(&path, &Wanted::default(), &mut bad).expect("readable");
    assert!(bad[0].reason.contains("do not begin with the same message"), "{bad:?}");
}

#[test]
fn battles_have_winners_judges_and_times() {
    let dir = tempfile::tempdir().expect("temp");
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let battle = |winner: &str, judge: &str, b: &str| {
        json!({"model_a": "m1", "model_b": "m2", "winner": winner, "judge": judge, "turn": 1,
               "tstamp": 1_700_000_000.5, "language": "English",
               "conversation_a": [turn("user", "Why?"), turn("assistant", "Because.")],
               "conversation_b": [turn("user", "Why?"), turn("assistant", b)]})
    };
    let all = json!([
        battle("model_a", "arena_user_1", "No."),
        battle("model_b", "arena_user_2", "No."),
        battle("tie (bothbad)", "arena_user_1", "Yes."),
        battle("tie", "arena_user_2", "Yes."),
    ]);
    let path = file(dir.path(), "arena.json", &all.to_string());
    let votes = dir.path().join("votes");
    import(&votes, &path, None);
    let of = |b: &str| {
        said(&votes, "Why?", "Because.", b).into_iter().map(|(_, c)| c).collect::<Vec<_>>()
    };
    assert_eq!(of("No."), [Choice::A, Choice::B]);
    assert_eq!(of("Yes."), [Choice::BothBad, Choice::Tie]);
    let folder = Folder::read(&votes).expect("readable");
    let vote = &folder.votes["arena_user_1"][0];
    assert_eq!((vote.shown_left, vote.at.as_str()), (Side::A, "2023-11-14T22:13:20.5Z"));
}

#[test]
fn argilla_has_several_users_and_three_ways_to_ask() {
    let dir = tempfile::tempdir().expect("temp");
    let fields = json!({"prompt": "p", "response1": "no", "response2": "yes"});
    let by_question = json!({"fields": fields, "responses": {"preference": [
        {"value": "response2", "user_id": "3f2A"}, {"value": "response1", "user_id": "77"},
        {"value": "response1", "user_id": "draft", "status": "draft"}]}});
    let ranking = json!({"fields": {"instruction": "q", "response-1": "no", "response-2": "yes"}, "responses": [
        {"user_id": "77", "status": "submitted", "values": {"rank": {"value":
            [{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}]}}}]});
    let listed = json!({"fields": {"prompt": "r", "response1": "no", "response2": "yes"},
        "responses": {"rank": [{"value": ["response1", "response2"], "user_id": "77"}]}});
    let rating = json!({"fields": {"prompt": "s", "chosen": "yes", "rejected": "no"}, "responses": {
        "chosen-rating": [{"value": 4, "user_id": "77"}, {"value": 2, "user_id": "3f2A"}],
        "rejected-rating": [{"value": 1, "user_id": "77"}, {"value": 2, "user_id": "3f2A"}]}});
    let all = json!([by_question, ranking, listed, rating]);
    let path = file(dir.path(), "records.json", &all.to_string());
    let votes = dir.path().join("votes");
    let recorded = import(&votes, &path, None);
    let added: Vec<_> = recorded.added.into_iter().collect();
    assert_eq!(added, [("3f2a".to_owned(), 2), ("77".to_owned(), 4)]);
    let of = |prompt: &str| said(&votes, prompt, "no", "yes").into_iter().map(|x| x.1).collect();
    let choices: Vec<Vec<Choice>> = ["p", "q", "r", "s"].map(of).to_vec();
    assert_eq!(choices[0], [Choice::B, Choice::A]);
    assert_eq!((&choices[1][..], &choices[2][..]), (&[Choice::B][..], &[Choice::A][..]));
    assert_eq!(choices[3], [Choice::Tie, Choice::B]);
}

#[test]
fn label_studio_has_sides_users_and_times() {
    let dir = tempfile::tempdir().expect("temp");
    let result =
        |side: &str| json!([{"from_name": "pw", "type": "pairwise", "value": {"selected": side}}]);
    let all = json!([
        {"id": 1, "data": {"prompt": "p", "answer1": "yes", "answer2": "no"}, "annotations": [
            {"completed_by": 4, "result": result("left"), "lead_time": 3.25, "created_at": "2026-02-01T10:00:00.000000Z"},
            {"completed_by": {"id": 5, "email": "Ann.Lee@example.org"}, "result": [{"type": "choices", "value": {"choices": ["right"]}}]},
            {"completed_by": 6, "result": [], "was_cancelled": true}]},
    ]);
    let path = file(dir.path(), "tasks.json", &all.to_string());
    let votes = dir.path().join("votes");
    import(&votes, &path, None);
    let expected = [("ann-lee".to_owned(), Choice::A), ("user-4".to_owned(), Choice::B)];
    assert_eq!(said(&votes, "p", "yes", "no"), expected);
    let folder = Folder::read(&votes).expect("readable");
    let vote = &folder.votes["user-4"][0];
    // `no` sorts first: it is `a`, and was on the right.
    assert_eq!((vote.shown_left, vote.ms), (Side::B, 3250));
    assert_eq!(vote.at, "2026-02-01T10:00:00Z");
}

#[test]
fn a_corrected_row_is_a_revision_and_the_old_file_does_not_undo_it() {
    let dir = tempfile::tempdir().expect("temp");
    let row = |choice: &str| {
        json!({"prompt": "p", "response_a": "a", "response_b": "b", "choice": choice}).to_string()
    };
    let old = file(dir.path(), "old.jsonl", &row("a"));
    let new = file(dir.path(), "new.jsonl", &row("b"));
    let votes = dir.path().join("votes");
    import(&votes, &old, Some("ann"));
    import(&votes, &new, Some("ann"));
    assert_eq!(import(&votes, &old, Some("ann")).known, 1);
    assert_eq!(said(&votes, "p", "a", "b"), [("ann".to_owned(), Choice::B)]);
    assert_eq!(Folder::read(&votes).expect("readable").votes["ann"][1].rev, 1);
    // In one file, the later row counts.
    let both = file(dir.path(), "both.jsonl", &format!("{}\n{}\n", row("a"), row("tie")));
    let other = dir.path().join("other");
    assert_eq!(import(&other, &both, Some("ann")).replaced, 1);
    assert_eq!(import(&other, &both, Some("ann")).known, 1);
    assert_eq!(said(&other, "p", "a", "b"), [("ann".to_owned(), Choice::Tie)]);
}

#[test]
fn bad_rows_are_named_and_names_must_differ() {
    let dir = tempfile::tempdir().expect("temp");
    let text = "{\"prompt\": \"p\", \"chosen\": \"x\", \"rejected\": \"y\"}\n\nhello\n[1]\n\
                {\"prompt\": \"p\", \"chosen\": \"x\"}\n\
                {\"prompt\": \"p\", \"chosen\": \"x\", \"rejected\": \"x\"}\n\
                {\"prompt\": \"p\", \"a\": \"x\", \"b\": \"y\", \"choice\": \"blue\"}\n";
    let path = file(dir.path(), "bad.jsonl", text);
    let mut bad = Vec::new();
    let found = read(&path, &Wanted::default(), &mut bad).expect("readable");
    let found = found.opinions;
    assert_eq!(found.len(), 1);
    let rows: Vec<usize> = bad.iter().map(|b| b.row).collect();
    assert_eq!(rows, [3, 4, 5, 6, 7]);
    let text: String = bad.iter().map(|b| format!("{b}\n")).collect();
    for part in ["bad.jsonl:3: not JSON", "no rejected answer", "same", "`blue` is no choice"] {
        assert!(text.contains(part), "{text}");
    }
    let whose = |names: &[&str]| {
        let opinions: Vec<(&Path, Opinion)> = names
            .iter()
            .map(|n| (&*path, Opinion { annotator: Some((*n).to_owned()), ..found[0].clone() }))
            .collect();
        record(&dir.path().join("votes"), &opinions, None, "2026-01-01T00:00:00Z")
    };
    assert!(matches!(whose(&["Ann B", "ann-b"]), Err(ExchangeError::Clash { .. })));
    for name in [".", "..", "a/b", "a\\b", "a\u{0}b", "a\nb", "…", &"x".repeat(129)] {
        assert!(matches!(whose(&[name]), Err(ExchangeError::NoName { .. })), "{name:?}");
    }
    assert!(!dir.path().join("votes").exists(), "nothing was written");
    let long = whose(&[
        "a-very-long-name-that-no-file-should-have-but-some-tools-make-up-0000000000000001",
    ]);
    assert_eq!(long.expect("shortened").added.keys().next().map(String::len), Some(64));
    // Two spellings of one name are one person; other alphabets have names too.
    let same = whose(&["Jos\u{e9}", "Jose\u{301}", "Анна"]).expect("written");
    assert_eq!(same.added.keys().collect::<Vec<_>>(), ["jos\u{e9}", "анна"]);
    let nobody = record(&dir.path().join("votes"), &[(&*path, found[0].clone())], None, "");
    assert!(matches!(nobody, Err(ExchangeError::Nameless { .. })));
    let torn = file(dir.path(), "torn.parquet", "PAR1 and nothing else");
    assert!(read(&torn, &Wanted::default(), &mut Vec::new()).is_err());
    let half = file(dir.path(), "half.csv", "prompt,chosen,rejected\np,x\np,x,y\n");
    let mut bad = Vec::new();
    assert_eq!(read(&half, &Wanted::default(), &mut bad).expect("readable").opinions.len(), 1);
    assert_eq!(bad[0].row, 2);
}

#[test]
fn pairs_are_written_as_a_dataset_that_reads_back() {
    let dir = tempfile::tempdir().expect("temp");
    let path = dir.path().join("pairs.parquet");
    let pairs = [["p".to_owned(), "z".to_owned(), "a".to_owned()]];
    write_pairs(&path, &pairs).expect("written");
    assert_eq!(read_pairs(&path).expect("readable"), [PairText::new("p", "z", "a")]);
    let json = r#"{"prompt": "p", "response_a": "z", "response_b": "a"}"#;
    let source = file(dir.path(), "pairs.jsonl", json);
    assert_eq!(read_pairs(&source).expect("readable"), [PairText::new("p", "z", "a")]);
    let broken = file(dir.path(), "broken.jsonl", &format!("{json}\n{{"));
    let error = read_pairs(&broken).expect_err("refused").to_string();
    assert!(error.contains("broken.jsonl:2: not JSON"), "{error}");
    let bytes = std::fs::read(&path).expect("bytes");
    write_pairs(&path, &pairs).expect("written");
    assert_eq!(std::fs::read(&path).expect("bytes"), bytes);
}

fn wanted(encoding: Option<Encoding>, choices: &[(&str, Choice)]) -> Wanted {
    let choices = choices.iter().map(|(word, choice)| ((*word).to_owned(), *choice)).collect();
    Wanted { encoding, names: Names { choices, ..Names::default() }, ..Wanted::default() }
}

/// What is wrong with a file, all of it.
fn trouble(path: &Path, wanted: &Wanted) -> String {
    let mut bad = Vec::new();
    match read(path, wanted, &mut bad) {
        Err(error) => format!("{error}; {}", error.help()),
        Ok(_) => bad.iter().map(|row| format!("{row}\n")).collect(),
    }
}

#[test]
fn a_file_is_what_it_holds_not_what_it_is_called() {
    let dir = tempfile::tempdir().expect("temp");
    let row = r#"{"prompt": "p", "chosen": "x", "rejected": "y"}"#;
    let parquet = dir.path().join("labels.csv");
    labels_parquet(&parquet);
    assert_eq!(good(&parquet, None, &Names::default()).len(), 5);
    for (name, text) in [
        ("a.CSV", "prompt,chosen,rejected\np,x,y\n".to_owned()),
        ("b.parquet", "prompt\tchosen\trejected\np\tx\ty\n".to_owned()),
        ("c.txt", "prompt;chosen;rejected\np;x;y\n".to_owned()),
        ("d.csv", format!("{row}\n")),
        ("e.JSONL", format!("\u{feff}{row}\n")),
        ("f", format!("\u{feff} [{row}]")),
        ("g.csv", "\u{feff}\"prompt\",chosen,\"rejected\"\np,x,y\n".to_owned()),
        ("h", "\"a, b; c\"\tprompt\tchosen\trejected\n1\tp\tx\ty\n".to_owned()),
    ] {
        let found = good(&file(dir.path(), name, &text), None, &Names::default());
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!((found[0].prompt.as_str(), &found[0].answers[1]), ("p", &"y".to_owned()));
    }
    for (asked, text, expected) in [
        (Encoding::Parquet, row, "does not start with PAR1"),
        (Encoding::Csv, "prompt\np\n", "no chosen answer"),
        (Encoding::Json, "prompt,chosen\np,x\n", "x:1: not JSON"),
    ] {
        let said = trouble(&file(dir.path(), "x", text), &wanted(Some(asked), &[]));
        assert!(said.contains(expected), "{said}");
    }
    let said = trouble(&parquet, &wanted(Some(Encoding::Csv), &[]));
    assert!(said.contains("is a Parquet file, not CSV"), "{said}");
}

#[test]
fn what_is_not_read_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("temp");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    let utf16: Vec<u8> = "prompt,a\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&b"\xff\xfe"[..], &utf16].concat();
    for (bytes, expected) in [
        (pointer.as_bytes(), "is a pointer of Git LFS: `git lfs pull` fetches the file"),
        (b"\x1f\x8b\x08\x00", "it cannot be unpacked"),
        (b"\x28\xb5\x2f\xfd\x00", "it cannot be unpacked"),
        (b"PK\x03\x04", "zip archive or a spreadsheet"),
        (&utf16, "text in UTF-16"),
        (&marked, "text in UTF-16"),
        (b"ARROW1\0\0", "is an Arrow file"),
        (b"hello\nworld\n", "is neither JSON nor CSV: it begins with `hello`"),
        (b"{\n \"prompt\": \"p\"\n}\n", "an object over several lines"),
        (b"a,b,a\n1,2,3\n", "two columns are called `a`"),
        (b"prompt,chosen,rejected\np,\"x\" y,z\n", "line 2: text follows the quote"),
        (b"prompt,chosen,rejected\np,x,\"y\nq,x,y\n", "line 2: a quote opens a cell"),
    ] {
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, bytes).expect("written");
        let said = trouble(&path, &Wanted::default());
        assert!(said.contains(expected), "{said}");
    }
    let packed =
        zstd::encode_all(&b"{\"prompt\":\"p\",\"chosen\":\"x\",\"rejected\":\"y\"}\n"[..], 3);
    let path = dir.path().join("x.jsonl");
    std::fs::write(&path, packed.expect("packed")).expect("written");
    assert_eq!(good(&path, None, &Names::default())[0].answers, ["x", "y"]);
    let said = trouble(dir.path(), &Wanted::default());
    assert!(said.contains("is a folder: name the files in it"), "{said}");
    file(dir.path(), "state.json", "{}");
    let said = trouble(dir.path(), &Wanted::default());
    assert!(said.contains("`datasets.save_to_disk`") && said.contains("`to_parquet`"), "{said}");
    let said = trouble(Path::new("/dev/null"), &Wanted::default());
    assert!(said.contains("is no regular file"), "{said}");
}

#[test]
fn columns_that_nobody_reads_stop_nothing() {
    use arrow_array::{DurationNanosecondArray, TimestampMicrosecondArray, UnionArray};
    use arrow_schema::UnionFields;
    let dir = tempfile::tempdir().expect("temp");
    let text = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let times = TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("Europe/Berlin");
    let fields = UnionFields::try_new([0], [Field::new("n", DataType::Utf8, true)]).expect("one");
    let union = UnionArray::try_new(fields, vec![0, 0].into(), None, vec![text(["u", "v"])]);
    let union = Arc::new(union.expect("a union")) as ArrayRef;
    let columns = [
        ("prompt", text(["p", "q"])),
        ("chosen", text(["x", "x"])),
        ("rejected", text(["y", "y"])),
        ("when", Arc::new(times) as ArrayRef),
        ("took", Arc::new(DurationNanosecondArray::from(vec![5, i64::MAX])) as ArrayRef),
    ];
    let batch = RecordBatch::try_from_iter(columns.clone()).expect("a batch");
    let path = dir.path().join("x.parquet");
    let file = std::fs::File::create(&path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    assert_eq!(good(&path, None, &Names::default()).len(), 2);
    // A type without words is named where its column is wanted, and left out elsewhere.
    let batch = RecordBatch::try_from_iter(columns.into_iter().chain([("odd", union)]));
    let columns = crate::columns::Columns::of(batch.expect("a batch"));
    let (rows, unread) = columns.objects().expect("rows");
    assert_eq!((rows[1]["prompt"].as_str(), rows.len()), (Some("q"), 2));
    assert_eq!(unread.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["odd"]);
}

#[test]
fn choices_in_numbers_are_never_guessed() {
    let dir = tempfile::tempdir().expect("temp");
    let rows = |values: &[Value]| {
        let row = |(i, v): (usize, &Value)| json!({"prompt": format!("p{i}"), "response_a": "x", "response_b": "y", "label": v});
        let lines = values.iter().enumerate().map(|v| format!("{}\n", row(v)));
        file(dir.path(), "x.jsonl", &lines.collect::<String>())
    };
    let choices = |path: &Path, wanted: &Wanted| -> Vec<Choice> {
        let found = read(path, wanted, &mut Vec::new()).expect("readable").opinions;
        found.into_iter().map(|o| o.choice).collect()
    };
    let clear = rows(&[json!(2), json!("1"), json!(1.0)]);
    assert_eq!(choices(&clear, &Wanted::default()), [Choice::B, Choice::A, Choice::A]);
    for values in [
        &[json!(0), json!(1)][..],
        &[json!(1), json!(1)],
        &[json!("0"), json!("1")],
        &[json!(0.0)],
        &[json!(0), json!(1), json!(2)],
        &[json!(1), json!(2), json!(3)],
        &[json!(-1), json!(1)],
        &[json!("a"), json!(0)],
    ] {
        let said = trouble(&rows(values), &Wanted::default());
        assert!(
            said.contains("nothing says what they mean") && said.contains("--choices"),
            "{said}"
        );
    }
    let path = rows(&[json!(0), json!(1), json!("1.0"), json!(2)]);
    let named = wanted(None, &[("0", Choice::A), ("1", Choice::B), ("2", Choice::Tie)]);
    assert_eq!(choices(&path, &named), [Choice::A, Choice::B, Choice::B, Choice::Tie]);
    let named = wanted(None, &[("0", Choice::B), ("1", Choice::A)]);
    let said = trouble(&path, &named);
    assert!(said.contains("x.jsonl:4: `label`: `2` is none of the choices"), "{said}");
    // Truth values are words like any other.
    let path = rows(&[json!(true), json!(false)]);
    let said = trouble(&path, &Wanted::default());
    assert!(said.contains("`true` is no choice"), "{said}");
    let named = wanted(None, &[("true", Choice::A), ("false", Choice::B)]);
    assert_eq!(choices(&path, &named), [Choice::A, Choice::B]);
}

#[test]
fn ties_beside_a_chosen_answer_stay_ties_however_they_are_written() {
    let dir = tempfile::tempdir().expect("temp");
    let choices = |name: &str, text: &str| -> Vec<Choice> {
        let found = good(&file(dir.path(), name, text), None, &Names::default());
        found.into_iter().map(|o| o.choice).collect()
    };
    for (yes, no) in [("true", "false"), ("1", "0"), ("1.0", "0.0"), ("\"true\"", "\"False\"")] {
        let row = |tie: &str| {
            format!(r#"{{"prompt": "p", "chosen": "x", "rejected": "y", "tie": {tie}}}"#) + "\n"
        };
        let text = row(yes) + &row(no);
        assert_eq!(choices("x.jsonl", &text), [Choice::Tie, Choice::A], "{yes}");
    }
    let csv = "prompt,chosen,rejected,tie,strength\np,x,y,True,0.0\nq,x,y,False,2.0\nr,x,y,,1\n";
    assert_eq!(choices("x.csv", csv), [Choice::Tie, Choice::AMuch, Choice::A]);
    let by_choice = "prompt,chosen,rejected,choice\np,x,y,tie\nq,x,y,b\n";
    assert_eq!(choices("x.csv", by_choice), [Choice::Tie, Choice::A]);
    let by_strength = "prompt,chosen,rejected,strength\np,x,y,0\nq,x,y,1\n";
    assert_eq!(choices("x.csv", by_strength), [Choice::Tie, Choice::A]);
    for (cells, expected) in [
        ("maybe,1", "x.csv:2: `tie`: `maybe` is neither true nor false"),
        ("2,1", "`2` is neither true nor false"),
        ("true,much", "`strength`: `much` is no number"),
    ] {
        let text = format!("prompt,chosen,rejected,tie,strength\np,x,y,{cells}\n");
        let said = trouble(&file(dir.path(), "x.csv", &text), &Wanted::default());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_is_no_text_is_named_by_column_and_form() {
    let dir = tempfile::tempdir().expect("temp");
    let row = |prompt: Value| json!({"prompt": prompt, "chosen": "x", "rejected": "y"});
    let turn = |content: Value| json!([{"role": "user", "content": content}]);
    for (prompt, expected) in [
        (json!(3), "x:1: `prompt` is the number 3, not text"),
        (json!(true), "the truth value true"),
        (json!({"text": "p"}), "a map of {text}, not text"),
        (json!(["p", "q"]), "a list of texts"),
        (json!([]), "an empty list"),
        (turn(json!(null)), "`prompt`: message 1 (user) says nothing"),
        (
            turn(json!([{"type": "image"}])),
            "message 1: `content` holds a part that is no text (image)",
        ),
        (
            json!([{"role": "user", "content": "x", "function_call": {}}]),
            "`function_call` is not read",
        ),
        (json!([{"role": "critic", "content": "x"}]), "unknown role `critic`"),
        (json!(""), "`prompt` is empty"),
    ] {
        let path = file(dir.path(), "x", &row(prompt).to_string());
        let said = trouble(&path, &Wanted::default());
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let parts = turn(json!([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]));
    let path = file(dir.path(), "x", &row(parts).to_string());
    assert_eq!(good(&path, None, &Names::default())[0].prompt, "a b");
    let mixed = json!({"prompt": "p", "chosen": turn(json!("x")), "rejected": "y"});
    let said = trouble(&file(dir.path(), "x", &mixed.to_string()), &Wanted::default());
    assert!(said.contains("of the two answers only one is a list of messages"), "{said}");
    // The same holds for pairs that are shown to people.
    let pair = json!({"prompt": 3, "response_a": "x", "response_b": "y"});
    let error = read_pairs(&file(dir.path(), "x", &pair.to_string())).expect_err("refused");
    assert!(error.to_string().contains("x:1: `prompt` is the number 3"), "{error}");
}

#[test]
fn conversations_are_read_alike_from_json_and_parquet_and_keep_plain_names() {
    let dir = tempfile::tempdir().expect("temp");
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let long = json!([turn("system", "Be brief."), turn("user", "p")]);
    let rows = [
        json!({"prompt": [turn("user", "p")], "response_a": [turn("assistant", "x")], "response_b": "y"}),
        json!({"prompt": long, "response_a": "x", "response_b": "y"}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let pairs = read_pairs(&file(dir.path(), "x.jsonl", &lines)).expect("read");
    assert_eq!(pairs[0], PairText::new("p", "x", "y"));
    let Content::Messages(found) = Content::of_written(&pairs[1].prompt) else { panic!("a text") };
    assert_eq!(found, [Message::new("system", "Be brief."), Message::new("user", "p")]);
    let texts = pairs.iter().map(|p| [p.prompt.clone(), p.a.clone(), p.b.clone()]);
    let path = dir.path().join("x.parquet");
    write_pairs(&path, &texts.collect::<Vec<_>>()).expect("written");
    assert_eq!(read_pairs(&path).expect("read"), pairs);
}

#[test]
fn records_that_nobody_answered_are_counted() {
    let dir = tempfile::tempdir().expect("temp");
    let fields = json!({"prompt": "p", "response1": "no", "response2": "yes"});
    let said = |value: Value, status: &str| {
        json!({"fields": fields, "responses": {"q": [
            {"value": value, "user_id": "7", "status": status}]}})
    };
    let argilla = json!([
        said(json!("response2"), "submitted"),
        said(json!("response2"), "discarded"),
        said(json!(null), "submitted"),
        {"fields": fields, "responses": {}},
        {"fields": fields},
    ]);
    let data = json!({"prompt": "p", "answer1": "yes", "answer2": "no"});
    let chosen = json!([{"value": {"selected": "left"}}]);
    let studio = json!([
        {"data": data, "annotations": [{"completed_by": 4, "result": chosen}]},
        {"data": data, "annotations": [{"completed_by": 4, "result": chosen, "was_cancelled": true}]},
        {"data": data, "annotations": [{"completed_by": 4, "result": []}]},
        {"data": data, "annotations": []},
        {"data": data},
    ]);
    for all in [argilla, studio] {
        let path = file(dir.path(), "x.json", &all.to_string());
        let mut bad = Vec::new();
        let found = read(&path, &Wanted::default(), &mut bad).expect("readable");
        assert_eq!((bad.len(), found.opinions.len(), found.unanswered), (0, 1, 4));
    }
}

#[test]
fn reasons_are_read_from_the_column_that_is_named() {
    let dir = tempfile::tempdir().expect("temp");
    let row = |reasons: Value| {
        json!({"prompt": "p", "response_a": "x", "response_b": "y", "choice": "a",
               "reasons": reasons, "why": "a column of theirs, with a comma"})
        .to_string()
    };
    let read_as = |reasons: Value, named: Option<&str>| {
        let path = file(dir.path(), "votes.jsonl", &row(reasons));
        let names = Names { reasons: named.map(Into::into), ..Names::default() };
        let mut bad = Vec::new();
        let wanted = Wanted { names, ..Wanted::default() };
        let mut found = read(&path, &wanted, &mut bad).expect("readable");
        let bad: Vec<String> = bad.into_iter().map(|b| b.reason).collect();
        (found.opinions.pop().map(|o| o.reasons), bad)
    };
    let both = Some(vec!["wrong facts".to_owned(), "rude".to_owned()]);
    let name = Some("reasons");
    assert_eq!(read_as(json!("wrong facts, rude, "), None), (Some(vec![]), vec![]));
    assert_eq!(read_as(json!("wrong facts, rude, "), name), (both.clone(), vec![]));
    assert_eq!(read_as(json!(["wrong facts", "rude", "rude"]), name), (both, vec![]));
    assert_eq!(read_as(Value::Null, name), (Some(vec![]), vec![]));
    let long = "x".repeat(41);
    for (bad, why) in [
        (json!(3), "`reasons` is the number 3, not reasons"),
        (json!([1]), "`reasons` is a list of numbers, not reasons"),
        (json!(long), "`reasons`: a reason has at most 40 characters of one line, without commas"),
    ] {
        assert_eq!(read_as(bad, name), (None, vec![why.to_owned()]));
    }
    let recorded = |reasons: Value| {
        let (path, votes) = (Path::new("f"), dir.path().join("votes"));
        let opinion = Opinion {
            reasons: read_as(reasons, name).0.expect("read"),
            ..good(&file(dir.path(), "one.jsonl", &row(Value::Null)), None, &Names::default())[0]
                .clone()
        };
        record(&votes, &[(path, opinion)], Some("ann"), "2026-01-01T00:00:00Z").expect("recorded")
    };
    assert_eq!(recorded(json!("rude")).added["ann"], 1);
    // The same again is known; other reasons are a revision.
    assert_eq!(recorded(json!("rude")).known, 1);
    assert_eq!(recorded(json!("rude, long")).added["ann"], 1);
    let all = effective(&dir.path().join("votes"));
    assert_eq!(all.pairs[&pair_id("p", "x", "y")].ballots[0].reasons, ["rude", "long"]);
}

#[test]
fn an_answer_may_be_empty_on_the_way_out_and_in() {
    let dir = tempfile::tempdir().expect("temp");
    let row = json!({"prompt": "p", "response_a": "", "response_b": "y", "choice": "b"});
    let path = file(dir.path(), "x.jsonl", &row.to_string());
    assert_eq!(good(&path, None, &Names::default())[0].answers, ["", "y"]);
}
