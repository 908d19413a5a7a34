//! Sources of a hub and of the web: fetched once, by hash, gone on with; a commit that stays what it
//! was; every way in which a hub can fail.

use crate::hub_server::{Hub, sha256};
use crate::space::{Said, Space};

/// The listing of the model's files and their bytes, as the stage finds them.
const PIPELINE: &str = "\
preflow: 1
name: p
params: { revision: main }
sources:
  base: { hub: org/model, revision: $revision }
stages:
  look:
    kind: command
    inputs: { i: base }
    outputs: { o: file }
    command: 'cd \"$IN_i\"; find . -type f | LC_ALL=C sort | while read f; do echo \"$f\"; cat \"$f\"; done > \"$OUT_o\"; cd - >/dev/null; echo look >> ran.txt'
";

/// A large file: more than a hundred bytes.
const WEIGHTS: &[u8] = &[7; 5000];

struct Case {
    hub: Hub,
    space: Space,
}

impl Case {
    /// A hub with a model, and a pipeline that reads it.
    fn new() -> Self {
        let hub = Hub::start();
        let case = Self { hub, space: Space::empty() };
        case.space.write("p.yaml", PIPELINE);
        case.commit("{}");
        case
    }

    fn commit(&self, config: &str) -> String {
        let files: [(&str, &[u8]); 4] = [
            ("README.md", b"# A model"),
            ("config.json", config.as_bytes()),
            ("model.safetensors", WEIGHTS),
            ("onnx/model.onnx", &[1; 300]),
        ];
        self.hub.commit("org/model", "main", &files)
    }

    fn with(&self, args: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = self.space.command(args);
        for name in ["HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.hub.address).env("HOME", self.space.dir.path());
        command.env("PREFLOW_REMOTE_TIMEOUT", "2").envs(variables.iter().copied());
        Said::of(&command.output().expect("starts"), self.space.dir.path())
    }

    fn run(&self, args: &[&str]) -> Said {
        self.with(args, &[])
    }

    /// What the stage saw.
    fn seen(&self) -> Vec<u8> {
        std::fs::read(self.space.object_of("p", "look")).expect("an output")
    }

    /// Paths that were asked for, of that service.
    fn asked(&self, who: &str) -> Vec<String> {
        let all = self.hub.take_asked().into_iter().filter(|(which, ..)| which == who);
        all.map(|(_, path, ..)| path).collect()
    }

    fn refused(&self, said: &Said, words: &[&str]) {
        assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
        assert_eq!(self.space.take_ran(), "");
    }
}

fn seen(config: &str) -> Vec<u8> {
    [b"./config.json\n", config.as_bytes(), b"./model.safetensors\n", WEIGHTS].concat()
}

#[test]
fn a_model_of_a_hub_is_fetched_once_and_its_commit_is_kept() {
    let case = Case::new();
    let first = case.commit("{}");
    let said = case.run(&["plan", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.asked("files"), [""; 0], "a plan brings no weights");
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("↓ base  2 files"), "{}", said.out);
    assert_eq!(case.seen(), seen("{}"));
    assert_eq!(case.space.take_ran(), "look");
    let lock = case.space.read("p.lock");
    let block = format!("[source base]\nhub = org/model\nrevision = main\ncommit = {first}\n");
    assert!(lock.contains(&block), "{lock}");
    case.hub.take_asked();
    // Nobody is asked again, not even where nothing but the lock file is here.
    let said = case.run(&["run", "p.yaml"]);
    assert!(said.out.contains("1 reused"), "{}", said.out);
    std::fs::rename(case.space.path("cache"), case.space.path("kept")).expect("moved");
    let said = case.run(&["lock", "--check", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.hub.take_asked().len(), 0);
    // The same files in a folder are the same source.
    std::fs::rename(case.space.path("kept"), case.space.path("cache")).expect("moved");
    case.space.write("model/config.json", "{}");
    std::fs::write(case.space.path("model/model.safetensors"), WEIGHTS).expect("written");
    let here = PIPELINE.replace("hub: org/model, revision: $revision", "path: model");
    case.space.write("p.yaml", &here.replace("params: { revision: main }\n", ""));
    let said = case.run(&["run", "p.yaml"]);
    assert!(said.out.contains("1 reused"), "{}{}", said.out, said.err);
}

#[test]
fn a_branch_that_moved_is_followed_when_somebody_says_so() {
    let case = Case::new();
    let first = case.commit("{}");
    assert_eq!(case.run(&["run", "p.yaml"]).code, Some(0));
    case.space.take_ran();
    let second = case.commit("{\"a\": 1}");
    let said = case.run(&["run", "p.yaml"]);
    assert!(said.out.contains("1 reused"), "{}", said.out);
    // Without a lock file the store remembers.
    std::fs::remove_file(case.space.path("p.lock")).expect("removed");
    assert!(case.run(&["run", "p.yaml"]).out.contains("1 reused"));
    case.hub.take_asked();
    let said = case.run(&["lock", "p.yaml", "--update"]);
    let moved = format!(" base: org/model main was {}, is {}\n", &first[..10], &second[..10]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), moved.as_str()), "{}", said.err);
    assert!(case.space.read("p.lock").contains(&format!("commit = {second}\n")));
    let said = case.run(&["plan", "p.yaml"]);
    assert!(said.out.contains("input i changed"), "{}", said.out);
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.seen(), seen("{\"a\": 1}"));
    assert_eq!(case.asked("files"), [""; 0], "the weights are the same, and here");
    let said = case.run(&["lock", "p.yaml", "--update", "base"]);
    assert!(said.out.contains("is still"), "{}", said.out);
    let said = case.run(&["lock", "p.yaml", "--update", "nothing"]);
    assert!(said.err.contains("sources with `hub:` are base"), "{}", said.err);
    // A commit that was named is that, wherever the branch is.
    let said = case.run(&["run", "p.yaml", "--set", &format!("revision={first}")]);
    assert!(said.out.contains("1 reused"), "{}{}", said.out, said.err);
}

#[test]
fn a_commit_that_is_named_is_asked_for_once() {
    let case = Case::new();
    let commit = case.commit("{}");
    let plan = ["plan", "p.yaml", "--set", &format!("revision={commit}")];
    assert_eq!(case.run(&plan).code, Some(0));
    assert!(!case.hub.take_asked().is_empty());
    assert_eq!(case.run(&plan).code, Some(0));
    assert_eq!(case.hub.take_asked().len(), 0, "a commit never moves");
}

#[test]
fn a_lock_file_that_cannot_be_read_is_not_passed_over() {
    let case = Case::new();
    assert_eq!(case.run(&["run", "p.yaml"]).code, Some(0));
    case.space.take_ran();
    case.commit("{\"other\": 1}");
    let lock = case.space.read("p.lock");
    case.space.write("p.lock", &format!("<<<<<<< ours\n{lock}"));
    for verb in ["plan", "run", "status"] {
        case.refused(&case.run(&[verb, "p.yaml"]), &["p.yaml:5", "p.lock:1: a conflict of git"]);
    }
    let said = case.run(&["lock", "p.yaml", "--update"]);
    case.refused(&said, &["p.lock:1: a conflict of git"]);
}

#[test]
fn what_is_cut_off_is_gone_on_with() {
    for no_ranges in [false, true] {
        let case = Case::new();
        case.hub.set(|held| {
            held.cuts = vec![1000, 0, 700];
            held.no_ranges = no_ranges;
        });
        let said = case.run(&["run", "p.yaml"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(case.seen(), seen("{}"));
        let asked = case.hub.take_asked();
        let ranges: Vec<_> = asked.iter().filter(|a| a.0 == "files").map(|a| a.2.clone()).collect();
        let wanted = match no_ranges {
            false => ["", "bytes=1000-", "bytes=1000-", "bytes=1700-"],
            // Whatever came is sent once more.
            true => ["", "bytes=1000-", "", "bytes=700-"],
        };
        assert_eq!(ranges, wanted);
    }
}

#[test]
fn a_second_try_goes_on_where_the_first_gave_up() {
    let case = Case::new();
    case.hub.set(|held| held.cuts = vec![2000, 0, 0, 0, 0, 0, 0]);
    let said = case.run(&["run", "p.yaml"]);
    case.refused(&said, &["p.yaml:5", "source `base`", "does not answer", "goes on from"]);
    case.hub.set(|held| held.cuts.clear());
    case.hub.take_asked();
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let asked = case.hub.take_asked();
    let of_files: Vec<_> = asked.iter().filter(|a| a.0 == "files").collect();
    assert_eq!((of_files.len(), of_files[0].2.as_str()), (1, "bytes=2000-"));
    // What was left is not trusted: it may be something else.
    std::fs::remove_dir_all(case.space.path("cache")).expect("removed");
    case.hub.set(|held| held.cuts = vec![2000, 0, 0, 0, 0, 0, 0]);
    case.run(&["run", "p.yaml"]);
    let part = case.space.files("cache/scratch-v1").into_iter().find(|path| {
        path.extension().is_some_and(|e| e == "part")
            && std::fs::metadata(path).is_ok_and(|meta| meta.len() == 2000)
    });
    std::fs::write(part.expect("a part"), [8; 2000]).expect("written");
    case.hub.set(|held| held.cuts.clear());
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.seen(), seen("{}"));
}

#[test]
fn other_bytes_are_refused() {
    let case = Case::new();
    case.hub.set(|held| held.other = Some(vec![9; WEIGHTS.len()]));
    let said = case.run(&["run", "p.yaml"]);
    case.refused(&said, &["`model.safetensors` of `org/model` has other bytes", "do not hash to"]);
    case.hub.set(|held| held.other = Some(vec![9; WEIGHTS.len() + 1]));
    case.refused(&case.run(&["run", "p.yaml"]), &["more than 5000 bytes came"]);
    case.hub.set(|held| held.other = None);
    assert_eq!(case.run(&["run", "p.yaml"]).code, Some(0));
    // A store that was tampered with is no better.
    let weights = case.space.files("cache/fetched-v1");
    let weights = weights.iter().find(|path| path.ends_with("model.safetensors")).expect("there");
    std::fs::remove_file(weights).expect("removed");
    std::fs::write(weights, [9; 5000]).expect("written");
    case.space.take_ran();
    let said = case.run(&["run", "p.yaml", "--force", "look"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((case.seen(), case.space.take_ran().as_str()), (seen("{}"), "look"));
}

#[test]
fn a_private_repository_wants_a_token_and_nobody_else_gets_it() {
    let case = Case::new();
    case.hub.set(|held| held.token = Some("hf_secret".into()));
    let said = case.run(&["plan", "p.yaml"]);
    case.refused(&said, &["p.yaml:5", "without a token", "set HF_TOKEN"]);
    let said = case.with(&["run", "p.yaml"], &[("HF_TOKEN", "hf_wrong")]);
    case.refused(&said, &["does not take the token"]);
    assert!(!said.err.contains("hf_wrong"), "{}", said.err);
    case.hub.take_asked();
    let said = case.with(&["run", "p.yaml"], &[("HF_TOKEN", "hf_secret")]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let asked = case.hub.take_asked();
    let of = |who: &str| asked.iter().filter(|a| a.0 == who).map(|a| a.3.as_str()).collect();
    let (hub, files): (Vec<&str>, Vec<&str>) = (of("hub"), of("files"));
    assert!(!hub.is_empty() && hub.iter().all(|right| *right == "Bearer hf_secret"));
    assert_eq!(files, [""], "the place that keeps the bytes is another host");
    let left = case.space.files("cache").into_iter().filter(|path| {
        std::fs::read(path).is_ok_and(|b| b.windows(9).any(|part| part == b"hf_secret"))
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn refusals_are_told_apart() {
    for (status, code, words) in [
        (403, "GatedRepo", ["asks for its owner's consent", "/org/model with the account"]),
        (404, "RepoNotFound", ["has no `org/model` at `main`", "hub: datasets/ORG/NAME"]),
        (404, "RevisionNotFound", ["no branch, tag or commit `main`", "lock --update"]),
        (429, "", ["(429)", "try again later"]),
        (503, "", ["(503)", "what has come is kept"]),
    ] {
        let case = Case::new();
        case.hub.set(|held| held.refuses = Some((status, code)));
        case.refused(&case.run(&["run", "p.yaml"]), &words);
    }
    let case = Case::new();
    let nobody = case.with(&["run", "p.yaml"], &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    case.refused(&nobody, &["127.0.0.1 does not answer", "HTTPS_PROXY"]);
    let plain = case.with(&["run", "p.yaml"], &[("HF_ENDPOINT", "http://hub.example")]);
    case.refused(&plain, &["HF_ENDPOINT `http://hub.example`"]);
    let offline = case.with(&["run", "p.yaml"], &[("HF_HUB_OFFLINE", "1")]);
    case.refused(&offline, &["HF_HUB_OFFLINE says that nobody is asked"]);
    assert_eq!(case.run(&["run", "p.yaml"]).code, Some(0));
    let offline = case.with(&["run", "p.yaml", "--force", "look"], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.code, Some(0), "what is here is used: {}", offline.err);
}

#[test]
fn rows_of_a_dataset_are_one_file_or_a_pattern() {
    let case = Case::new();
    let (train, test) = (b"{\"text\": \"a\"}\n".repeat(20), b"{\"text\": \"b\"}\n".repeat(20));
    let files: [(&str, &[u8]); 4] = [
        ("README.md", b"# Rows"),
        ("data/train-0.jsonl", &train),
        ("data/train-1.jsonl", &train),
        ("data/test.jsonl", &test),
    ];
    case.hub.commit("datasets/org/rows", "refs/convert", &files);
    let pipeline = |files: &str| {
        let source = format!("hub: datasets/org/rows, revision: refs/convert, files: {files}");
        let text = PIPELINE.replace("hub: org/model, revision: $revision", &source);
        let text = text.replace("params: { revision: main }\n", "");
        let (head, _) = text.split_once("    command:").expect("a command");
        format!("{head}    command: 'echo $IN_i > \"$OUT_o\"; cat $IN_i >> \"$OUT_o\"'\n")
    };
    case.space.write("p.yaml", &pipeline("data/test.jsonl"));
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = String::from_utf8(case.seen()).expect("text");
    let (paths, rows) = text.split_once('\n').expect("paths");
    assert!(paths.ends_with("/data/test.jsonl"), "{paths}");
    assert_eq!(rows.as_bytes(), test);
    case.space.write("p.yaml", &pipeline("data/train-*.jsonl"));
    let said = case.run(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = String::from_utf8(case.seen()).expect("text");
    let (paths, rows) = text.split_once('\n').expect("paths");
    assert_eq!(paths.split(' ').count(), 2, "{paths}");
    assert_eq!(rows.len(), 2 * train.len());
    // As the same pattern of a folder here.
    let folder = case.space.path("cache/fetched-v1");
    let top = std::fs::read_dir(folder)
        .expect("fetched")
        .flatten()
        .find(|folder| folder.path().join("data/train-1.jsonl").exists());
    let place = top.expect("a folder").path().join("data/train-*.jsonl");
    let here = pipeline("x").replace(
        "hub: datasets/org/rows, revision: refs/convert, files: x",
        &format!("path: '{}'", place.display()),
    );
    case.space.write("p.yaml", &here);
    assert!(case.run(&["run", "p.yaml"]).out.contains("1 reused"));
    case.hub.commit("datasets/org/rows", "refs/empty", &[("data/none.jsonl", b"")]);
    let empty = pipeline("data/none.jsonl").replace("refs/convert", "refs/empty");
    case.space.write("p.yaml", &empty);
    case.space.take_ran();
    let said = case.run(&["run", "p.yaml"]);
    case.refused(&said, &["`data/none.jsonl` in `datasets/org/rows` is empty", "hold something"]);
    case.space.write("p.yaml", &pipeline("data/valid-*.jsonl"));
    let said = case.run(&["run", "p.yaml"]);
    case.refused(&said, &["no `data/valid-*.jsonl` in `datasets/org/rows`", "data/test.jsonl"]);
}

#[test]
fn a_file_of_the_web_is_known_by_its_hash() {
    let case = Case::new();
    let rows = b"{\"text\": \"a\"}\n".repeat(30);
    case.hub.commit("web", "main", &[("rows.jsonl", &rows)]);
    let files = case.hub.held.lock().expect("held").files.keys().count();
    assert_eq!(files, 2);
    let large = {
        // Where the hub sends large files to.
        let said = ureq::get(format!("{}/web/resolve/main/x", case.hub.address)).call();
        assert!(said.is_err());
        let commit = case.hub.held.lock().expect("held").revisions
            [&("web".to_owned(), "main".to_owned())]
            .clone();
        format!("{}/web/resolve/{commit}/rows.jsonl", case.hub.address)
    };
    let pipeline = |hash: &str| {
        let source = format!("url: '{large}', sha256: {hash}");
        let text = PIPELINE.replace("hub: org/model, revision: $revision", &source);
        let text = text.replace("params: { revision: main }\n", "");
        let (head, _) = text.split_once("    command:").expect("a command");
        format!(
            "{head}    command: 'cp $IN_i \"$OUT_o\"; case $IN_i in *.jsonl) ;; *) exit 1;; esac'\n"
        )
    };
    case.space.write("p.yaml", &pipeline(&sha256(&rows)));
    case.hub.take_asked();
    assert_eq!(case.run(&["plan", "p.yaml"]).code, Some(0));
    assert_eq!(case.hub.take_asked().len(), 0, "its hash is all that a plan needs");
    let said = case.with(&["run", "p.yaml"], &[("HF_TOKEN", "hf_secret")]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.seen(), rows);
    let asked = case.hub.take_asked();
    assert!(asked.len() == 2 && asked.iter().all(|a| a.3.is_empty()), "no token for the web");
    // The same bytes under the same ending here are the same source.
    std::fs::write(case.space.path("rows.jsonl"), &rows).expect("written");
    let here = pipeline("x").replace(&format!("url: '{large}', sha256: x"), "path: rows.jsonl");
    case.space.write("p.yaml", &here);
    assert!(case.run(&["run", "p.yaml"]).out.contains("1 reused"));
    case.space.write("p.yaml", &pipeline(&sha256(b"")));
    case.refused(&case.run(&["plan", "p.yaml"]), &["rows.jsonl`, by its hash, is empty"]);
    case.space.write("p.yaml", &pipeline(&sha256(b"other")));
    let said = case.run(&["run", "p.yaml"]);
    case.refused(&said, &["has other bytes than it should", "do not hash to sha256:"]);
}

#[test]
fn what_the_hubs_own_tools_fetched_is_used() {
    let case = Case::new();
    let blobs = case.space.path("hf/hub/models--org--model/blobs");
    std::fs::create_dir_all(&blobs).expect("made");
    std::fs::write(blobs.join(sha256(WEIGHTS)), WEIGHTS).expect("written");
    let home = case.space.path("hf");
    let said = case.with(&["run", "p.yaml"], &[("HF_HOME", &home.to_string_lossy())]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((case.asked("files"), case.seen()), (Vec::new(), seen("{}")));
    // A file that is not what its name says is not.
    std::fs::remove_dir_all(case.space.path("cache")).expect("removed");
    std::fs::write(blobs.join(sha256(WEIGHTS)), [9; 5000]).expect("written");
    let said = case.with(&["run", "p.yaml"], &[("HF_HOME", &home.to_string_lossy())]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((case.asked("files").len(), case.seen()), (1, seen("{}")));
}

#[test]
fn votes_are_kept_in_git_and_nowhere_else() {
    let case = Case::new();
    let text = PIPELINE.replace("revision: $revision", "revision: $revision, as: votes");
    case.space.write("p.yaml", &text);
    case.refused(&case.run(&["plan", "p.yaml"]), &["p.yaml:5", "votes"]);
}

#[test]
fn what_was_fetched_may_be_collected_and_is_fetched_again() {
    let case = Case::new();
    assert_eq!(case.run(&["run", "p.yaml"]).code, Some(0));
    let said = case.run(&["gc", "--yes", "--grace", "0"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(case.space.files("cache/fetched-v1"), Vec::<std::path::PathBuf>::new());
    case.hub.take_asked();
    // What was made of it stays, and needs it no more.
    assert!(case.run(&["run", "p.yaml"]).out.contains("1 reused"));
    assert_eq!(case.hub.take_asked().len(), 0);
    let said = case.run(&["run", "p.yaml", "--force", "look"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((case.asked("files").len(), case.seen()), (1, seen("{}")));
}
