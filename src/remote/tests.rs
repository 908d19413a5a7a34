//! Tests of records and places: what is refused before anybody is asked, and what goes with an
//! entry. Whole transfers are tested with the program, in `tests/remote`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, json};

use super::config::{Config, Location, Mode};
use super::record::{EntryRecord, KeptInput, RECORD_FORMAT};
use super::{Expected, Remote, TransferProgress};
use crate::identity::{Digest, Fingerprint, Identity, InputIdentity};
use crate::store::digest::{TreeFile, tree_digest};
use crate::store::entry::ENTRY_FORMAT;
use crate::store::{Entry, EntryOutput, Lookup, Provenance, Store};

fn identity(inputs: &[(&str, &[u8])]) -> Identity {
    Identity {
        kind: "command".into(),
        version: 1,
        params: Map::from_iter([("command".to_owned(), json!("true"))]),
        inputs: inputs
            .iter()
            .map(|(port, bytes)| ((*port).to_owned(), InputIdentity::One(Digest::of(bytes))))
            .collect(),
        endings: BTreeMap::new(),
        outputs: BTreeMap::new(),
    }
}

fn record(outputs: BTreeMap<String, EntryOutput>) -> (EntryRecord, Fingerprint) {
    let identity = identity(&[("i", b"votes")]);
    let fingerprint = identity.fingerprint();
    let made = Provenance::default();
    let entry = Entry { format: ENTRY_FORMAT, fingerprint, outputs, identity, made };
    (EntryRecord { format: RECORD_FORMAT, entry, inputs: Vec::new() }, fingerprint)
}

fn tree(paths: &[&str]) -> EntryOutput {
    let files: Vec<TreeFile> = paths
        .iter()
        .map(|path| TreeFile { path: (*path).to_owned(), digest: Digest::of(b"x"), size: 1 })
        .collect();
    let digest = tree_digest(&files);
    EntryOutput { digest, bytes: files.len() as u64, tree: Some(files) }
}

#[test]
fn paths_of_a_tree_stay_inside_it() {
    let read = |paths: &[&str]| {
        let (record, fingerprint) = record(BTreeMap::from([("o".to_owned(), tree(paths))]));
        EntryRecord::read(&record.to_bytes(), &fingerprint)
    };
    assert!(read(&["a", "b/c", "b/d e", "ünï.json", "..a", "a..b/..c"]).is_ok());
    for bad in ["../a", "a/../../b", "/a", "", "a//b", "a/", "./a", "a/.", "..", "a\0b", "a\nb"] {
        let error = read(&["ok", bad]).expect_err(bad);
        assert!(error.contains("no path in a folder"), "{bad:?}: {error}");
    }
    assert!(read(&["a", "a"]).expect_err("twice").contains("twice"));
    assert!(read(&["a", "a/b"]).expect_err("both").contains("below a file"));
    assert!(read(&["a", "a/b/c"]).expect_err("both").contains("below a file"));
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let (mut whole, fingerprint) = record(BTreeMap::from([("o".to_owned(), tree(&["a", "b"]))]));
    let read = |record: &EntryRecord| EntryRecord::read(&record.to_bytes(), &fingerprint);
    whole.inputs = vec![KeptInput { digest: Digest::of(b"votes"), size: 5 }];
    assert_eq!(read(&whole).as_ref(), Ok(&whole));
    whole.inputs[0].size = 0;
    assert!(read(&whole).expect_err("empty").contains("cannot have 0 bytes"));
    whole.inputs[0].size = u64::MAX;
    assert!(read(&whole).expect_err("too many").contains("more bytes than can be"));
    whole.inputs[0] = KeptInput { digest: Digest::of(b"other"), size: 5 };
    assert!(read(&whole).expect_err("not its own").contains("never read"));
    whole.inputs.clear();
    let output = whole.entry.outputs.get_mut("o").unwrap();
    output.tree.as_mut().unwrap()[1].size = u64::MAX;
    assert!(read(&whole).expect_err("sum").contains("not what its digest says"));
    let other = identity(&[]).fingerprint();
    assert!(EntryRecord::read(&record(BTreeMap::new()).0.to_bytes(), &other).is_err());
    assert!(EntryRecord::read(b"{ half", &fingerprint).is_err());
    assert!(EntryRecord::read(b"[]", &fingerprint).is_err());
    let newer = EntryRecord::read(br#"{"format": 2, "what": "ever"}"#, &fingerprint);
    assert_eq!(newer.expect_err("newer"), "its format 2 is newer than 1");
}

#[test]
fn places_are_read_as_people_write_them() {
    let base = Path::new("/team/space");
    let parse = |text: &str| Location::parse(text, base).map(|location| location.to_string());
    assert_eq!(parse("s3://bucket").as_deref(), Ok("s3://bucket"));
    assert_eq!(parse("s3://bucket/a//b/").as_deref(), Ok("s3://bucket/a/b"));
    assert_eq!(parse("file:///mnt/x").as_deref(), Ok("/mnt/x"));
    assert_eq!(parse("shared/cache").as_deref(), Ok("/team/space/shared/cache"));
    assert_eq!(parse("/abs").as_deref(), Ok("/abs"));
    for bad in ["", "s3://", "s3://a", "s3://b u c", "s3://bucket/../x", "file://x", "http://x"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    for secret in ["s3://k:hunter2@bucket", "s3://bucket/?password=hunter2"] {
        let error = parse(secret).expect_err("credentials");
        assert!(!format!("{error} {}", error.help).contains("hunter2"), "{error}");
    }
}

fn expected() -> Expected {
    Expected::new(["o"], None)
}

/// A store with one entry that made `output` and read `votes`, which the store keeps, and
/// `upstream`, which another entry made.
fn store_with_votes(root: &Path) -> (Arc<Store>, Fingerprint) {
    let store = Arc::new(Store::open(root).unwrap());
    store.prepare_for_writing().unwrap();
    let make = |identity: Identity, bytes: &[u8]| {
        let Lookup::Miss(slot) = store.lookup(identity, false).unwrap() else { panic!("a miss") };
        let path = slot.output_path("o", "");
        #[expect(clippy::disallowed_methods, reason = "as a worker does")]
        std::fs::write(&path, bytes).unwrap();
        let sealed = slot.seal(BTreeMap::from([("o".into(), path)]), Provenance::default());
        let published = store.publish(vec![sealed.unwrap()]).remove(0).unwrap();
        store.discard(published.1);
        published.0.fingerprint
    };
    make(identity(&[]), b"upstream");
    store.keep_content(b"the votes").unwrap();
    let inputs: [(&str, &[u8]); 2] = [("a", b"upstream"), ("votes", b"the votes")];
    let fingerprint = make(identity(&inputs), b"output");
    (store, fingerprint)
}

#[test]
fn votes_go_with_an_entry_and_what_other_stages_made_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (one, fingerprint) = store_with_votes(&dir.path().join("one"));
    let two = Arc::new(Store::open(&dir.path().join("two")).unwrap());
    let location = Location::Folder(dir.path().join("remote"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let progress = Arc::new(TransferProgress::default());
    runtime.unwrap().block_on(async {
        let remote = Remote::open(Config::at(location.clone())).unwrap();
        // As tasks: a transfer can be handed to whatever runs it.
        let sent = {
            let (remote, one, progress) = (remote.clone(), Arc::clone(&one), Arc::clone(&progress));
            tokio::spawn(async move { remote.send(&one, &fingerprint, &progress).await })
        };
        assert_eq!(sent.await.unwrap().unwrap().files, 2, "its output, and the votes");
        let fetched = {
            let (remote, two, progress) = (remote.clone(), Arc::clone(&two), Arc::clone(&progress));
            tokio::spawn(
                async move { remote.fetch(&two, &fingerprint, &expected(), &progress).await },
            )
        };
        let (entry, moved) = fetched.await.unwrap().unwrap().expect("it is there");
        assert_eq!((moved.files, moved.bytes), (2, 15));
        assert_eq!(Some(entry), one.entry(&fingerprint).unwrap());
        let nobody = Digest::of(b"nobody").hex().parse().unwrap();
        assert!(remote.fetch(&two, &nobody, &expected(), &progress).await.unwrap().is_none());
        let denied = Config { mode: Mode::ReadOnly, ..Config::at(location) };
        let denied = Remote::open(denied).unwrap().send(&one, &fingerprint, &progress).await;
        assert!(denied.unwrap_err().is_usage());
    });
    let votes = two.object_path(&Digest::of(b"the votes"));
    assert_eq!(fs_err::read(votes).unwrap(), b"the votes");
    assert!(!two.object_path(&Digest::of(b"upstream")).exists());
    assert_eq!(two.fingerprints().unwrap(), [fingerprint]);
    assert!(two.verify().unwrap().is_clean());
    assert_eq!(progress.bytes(), 30);
    assert_eq!(progress.total(), 30);
}

#[test]
fn uploads_wait_in_the_store_and_keep_their_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (store, fingerprint) = store_with_votes(&dir.path().join("one"));
    assert_eq!(store.queued_uploads().unwrap(), []);
    store.queue_upload(&fingerprint).unwrap();
    store.queue_upload(&fingerprint).unwrap();
    assert_eq!(store.queued_uploads().unwrap(), [fingerprint]);
    let other = *store.fingerprints().unwrap().iter().find(|f| **f != fingerprint).unwrap();
    let keep = std::collections::BTreeSet::from([other]);
    let garbage = store.find_garbage(&keep, &[], std::time::Duration::ZERO).unwrap();
    assert_eq!(garbage.entries, []);
    store.unqueue_upload(&fingerprint).unwrap();
    store.unqueue_upload(&fingerprint).unwrap();
    let garbage = store.find_garbage(&keep, &[], std::time::Duration::ZERO).unwrap();
    assert_eq!(garbage.entries, [fingerprint]);
}
