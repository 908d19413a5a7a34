//! A remote that lies, and stores that are damaged: records and files that must not be believed.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::team::{Member, files_below};

/// Somebody who pushed to a folder, and that folder.
struct Shared {
    one: Member,
    place: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("temp dir");
        let one = Member::at(&place.path().display().to_string(), None, 100_000);
        one.ran();
        one.does(&["push", "p.yaml"]);
        Self { one, place }
    }

    fn fingerprint(&self, stage: &str) -> String {
        let lock = std::fs::read_to_string(self.one.path("p.lock")).expect("as it was made");
        let block = lock.split(&format!("[{stage}]")).nth(1).expect("as it was made").to_owned();
        block
            .lines()
            .find_map(|l| l.strip_prefix("fingerprint = "))
            .expect("as it was made")
            .to_owned()
    }

    fn record(&self, stage: &str) -> PathBuf {
        let hex = self.fingerprint(stage);
        self.place.path().join("entries-v1").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// Changes the record of a stage, and gives it a checksum that fits.
    fn change(&self, stage: &str, change: impl FnOnce(&mut Value)) {
        let path = self.record(stage);
        let mut value: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("as it was made"))
                .expect("as it was made");
        change(&mut value);
        value.as_object_mut().expect("a map").remove("sum").expect("a checksum");
        std::fs::write(path, preflow::store::summed::to_bytes(&value)).expect("written");
    }

    /// The file that the remote holds with these bytes.
    fn file(&self, bytes: u64) -> PathBuf {
        let files = files_below(&self.place.path().join("files-v1"));
        files
            .into_iter()
            .find(|f| f.metadata().expect("as it was made").len() == bytes)
            .expect("a file")
    }

    /// A colleague pulls: exit 1 and these words, the store is sound, and all else came.
    fn refuses(&self, text: &str) -> Member {
        let two = self.one.colleague();
        two.preflow(&["pull", "p.yaml"]).is(1, text);
        two.is_sound();
        let (pulled, _) = two.json(&["pull", "p.yaml"]);
        assert_eq!(pulled["here"], 3, "{pulled}");
        for file in files_below(&two.path("")) {
            assert!(!file.ends_with("evil"), "{}", file.display());
        }
        assert!(!std::path::Path::new("/tmp/evil").exists());
        two
    }
}

#[test]
fn records_that_lie_are_not_believed() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 9] = [
        (
            "tree",
            |r| r["entry"]["outputs"]["o"]["tree"][0]["path"] = json!("../../../evil"),
            "no path in a folder",
        ),
        (
            "tree",
            |r| r["entry"]["outputs"]["o"]["tree"][0]["path"] = json!("/tmp/evil"),
            "no path in a folder",
        ),
        (
            "tree",
            |r| {
                r["entry"]["outputs"]["o"]["tree"][0]["path"] =
                    r["entry"]["outputs"]["o"]["tree"][1]["path"].clone()
            },
            "twice",
        ),
        (
            "tree",
            |r| r["entry"]["outputs"]["o"]["tree"][0]["path"] = json!("evil"),
            "not what its digest says",
        ),
        (
            "small",
            |r| {
                let output = r["entry"]["outputs"]["o"].clone();
                r["entry"]["outputs"] = json!({ "../../../evil": output });
            },
            "no output has",
        ),
        ("small", |r| r["entry"]["identity"]["params"]["command"] = json!("evil"), "fingerprint"),
        ("small", |r| r["entry"]["made"]["run"] = json!("../../evil"), "letters that no run has"),
        ("small", |r| r["format"] = json!(2), "its format 2 is newer than 1"),
        ("small", |r| r["entry"]["format"] = json!(9), "its entry's format 9 is newer"),
    ];
    let shared = Shared::new();
    for (stage, change, text) in cases {
        let honest = std::fs::read(shared.record(stage)).expect("as it was made");
        shared.change(stage, change);
        shared.refuses(text);
        std::fs::write(shared.record(stage), honest).expect("mended");
    }
    // An output that its stage does not have, or does not have any more: known without a lock file.
    let honest = std::fs::read(shared.record("small")).expect("as it was made");
    for ports in [&["o", "p"][..], &["p"], &[]] {
        shared.change("small", |record| {
            let output = record["entry"]["outputs"]["o"].clone();
            let outputs = ports.iter().map(|port| ((*port).to_owned(), output.clone()));
            record["entry"]["outputs"] = Value::Object(outputs.collect());
        });
        let two = shared.one.colleague();
        std::fs::remove_file(two.path("p.lock")).expect("no lock file");
        two.preflow(&["pull", "p.yaml"]).is(1, "its stage makes `o`");
        two.is_sound();
        for ran in ["small", ""] {
            let said = two.preflow(&["run", "p.yaml"]);
            said.is(0, if ran.is_empty() { "nothing to do" } else { "its stage makes `o`" });
            assert_eq!(two.take_ran(), ran);
        }
        std::fs::write(shared.record("small"), &honest).expect("mended");
    }
    // One bit of a figure, or of anything else.
    let mut flipped = honest.clone();
    let at = honest.windows(9).position(|w| w == b"\"seconds\"").expect("a figure") + 12;
    flipped[at] ^= 1;
    std::fs::write(shared.record("small"), flipped).expect("written");
    shared.refuses("its bytes do not have its checksum");
    std::fs::write(shared.record("small"), &honest).expect("mended");
    let half = std::fs::read(shared.record("small")).expect("as it was made");
    std::fs::write(shared.record("small"), &half[..half.len() / 2]).expect("cut");
    let two = shared.refuses("cannot be used: ");
    assert_eq!(two.ran(), "small", "it is made here");
}

#[test]
fn a_record_that_a_newer_version_wrote_is_not_overwritten() {
    let shared = Shared::new();
    let newer = r#"{"format": 2, "something": "else"}"#;
    std::fs::write(shared.record("small"), newer).expect("written");
    shared.one.preflow(&["push", "p.yaml"]).is(1, "a newer preflow wrote it");
    let there = std::fs::read_to_string(shared.record("small")).expect("there");
    assert_eq!(there, newer);
    std::fs::write(shared.record("small"), "{ half").expect("written");
    shared.one.does(&["push", "p.yaml"]);
    let two = shared.one.colleague();
    two.does(&["pull", "p.yaml"]);
    two.is_sound();
}

#[test]
fn a_record_with_other_outputs_than_the_lock_file_is_not_taken() {
    let shared = Shared::new();
    // Another run made other bytes; its record is sound in itself.
    let other = shared.one.colleague();
    other.does(&["pull", "p.yaml"]);
    let text = std::fs::read_to_string(other.path("p.lock")).expect("as it was made");
    let small = text.split("[small]").nth(1).expect("as it was made");
    let digest = small
        .lines()
        .find_map(|l| l.strip_prefix("output.o = "))
        .expect("as it was made")
        .to_owned();
    let two = shared.one.colleague();
    two.write("p.lock", &text.replace(&digest, &format!("sha256:{}", "0".repeat(64))));
    two.preflow(&["pull", "p.yaml"]).is(1, "its outputs are not those of the lock file");
    let (pulled, _) = two.json(&["pull", "p.yaml"]);
    assert_eq!(pulled["failed"], 1, "{pulled}");
}

#[test]
fn files_that_are_damaged_there_are_found_and_mended_by_whoever_has_them() {
    let shared = Shared::new();
    let big = shared.file(100_000);
    let sound = std::fs::read(&big).expect("as it was made");
    let mut flipped = sound.clone();
    flipped[50_000] ^= 1;
    let longer = [sound.as_slice(), b"more"].concat();
    for (bytes, text) in [
        (&flipped[..], "they do not hash to its name"),
        (&longer[..], "it has 100004 bytes there, not 100000"),
        (&sound[..70_000], "it has 70000 bytes there, not 100000"),
    ] {
        std::fs::remove_file(&big).expect("removed");
        std::fs::write(&big, bytes).expect("written");
        shared.refuses(text);
        if bytes.len() == sound.len() {
            // Its size is right, so only --force looks no further.
            let (pushed, _) = shared.one.json(&["push", "p.yaml"]);
            assert_eq!(pushed["files"], 0, "{pushed}");
            shared.one.does(&["push", "p.yaml", "--force"]);
        } else {
            let (pushed, _) = shared.one.json(&["push", "p.yaml"]);
            assert_eq!(pushed["files"], 1, "{pushed}");
        }
        assert!(std::fs::read(&big).expect("as it was made") == sound, "mended");
    }
    std::fs::remove_file(&big).expect("removed");
    let two = shared.one.colleague();
    two.preflow(&["pull", "p.yaml"]).is(1, "not on the remote: big");
    two.is_sound();
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let place = tempfile::tempdir().expect("temp dir");
    let one = Member::at(&place.path().display().to_string(), None, 9_000_000);
    one.ran();
    for object in [one.object("tree").join("z"), one.object("big")] {
        // The same size and times: nothing but its bytes tells.
        let time = object.metadata().expect("as it was made").modified().expect("as it was made");
        let file = std::fs::File::options().write(true).open(&object).expect("opened");
        std::os::unix::fs::FileExt::write_at(&file, b"X", 3).expect("written");
        file.set_modified(time).expect("set");
    }
    let said = one.preflow(&["push", "p.yaml", "--all"]);
    said.is(1, "in the store is damaged and was not sent");
    let sent = files_below(&place.path().join("files-v1"));
    assert!(
        sent.iter().all(|f| f.metadata().expect("as it was made").len() < 9_000_000),
        "{sent:?}"
    );
    let kept = std::fs::read_dir(one.path("cache/quarantine")).expect("as it was made").count();
    assert_eq!(kept, 2, "both are kept for diagnosis");
    assert_eq!(one.ran(), "big tree");
    one.does(&["push", "p.yaml"]);
    let two = one.colleague();
    two.does(&["pull", "p.yaml"]);
    two.is_sound();
}

#[test]
fn a_stage_that_never_makes_the_same_keeps_what_was_sent_first() {
    let place = tempfile::tempdir().expect("temp dir");
    let one = Member::at(&place.path().display().to_string(), None, 1000);
    let text = std::fs::read_to_string(one.path("p.yaml")).expect("as it was made");
    one.write("p.yaml", &text.replace("echo ${p} >>", "echo ${p} $$$$ >>"));
    one.ran();
    one.does(&["push", "p.yaml"]);
    let two = one.colleague();
    std::fs::remove_file(two.path("p.lock")).expect("removed");
    two.ran();
    two.preflow(&["push", "p.yaml"]).is(1, "the stage does not make the same twice");
    let three = one.colleague();
    three.does(&["pull", "p.yaml"]);
    assert_eq!(three.ran(), "");
    two.does(&["push", "p.yaml", "--force"]);
    let four = two.colleague();
    four.does(&["pull", "p.yaml"]);
    assert_eq!(four.ran(), "");
}
