//! Named pipes, devices and files outside where files are expected: refused at once, nothing waits.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::space::{CHAIN, Said, Space};

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).expect("a pipe");
}

/// Runs to its end; a wait that does not end fails.
fn ends(space: &Space, args: &[&str]) -> Said {
    let mut child =
        space.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().expect("killed");
            panic!("{args:?} waits");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Said::of(&child.wait_with_output().expect("ended"), &space.path(""))
}

/// Makes `path` a pipe, a link to a device, and a folder, one after the other.
fn odd(space: &Space, path: &str, look: impl Fn(&str)) {
    let path = space.path(path);
    std::fs::create_dir_all(path.parent().expect("the test owns it")).expect("the test owns it");
    let kept = std::fs::read(&path).ok();
    let _ = std::fs::remove_file(&path);
    pipe(&path);
    look("a named pipe");
    std::fs::remove_file(&path).expect("the test owns it");
    symlink("/dev/zero", &path).expect("the test owns it");
    look("a device");
    std::fs::remove_file(&path).expect("the test owns it");
    if let Some(bytes) = kept {
        std::fs::write(&path, bytes).expect("the test owns it");
    }
}

#[test]
fn files_of_a_workspace_that_are_none_are_refused_by_name() {
    let space = Space::chain();
    let sweep = "preflow-sweep: 1\npipeline: p.yaml\nmetric: m\ngrid: { p: [one, two] }\n";
    space.write("s.yaml", sweep);
    for (file, verbs) in [
        ("p.yaml", &["check p.yaml", "plan p.yaml", "run p.yaml", "graph p.yaml"][..]),
        ("preflow.yaml", &["plan p.yaml", "status p.yaml", "run p.yaml", "kinds", "push p.yaml"]),
        ("s.yaml", &["sweep plan s.yaml", "sweep run s.yaml"]),
        ("src.txt", &["plan p.yaml", "run p.yaml"]),
    ] {
        odd(&space, file, |what| {
            for verb in verbs {
                let said = ends(&space, &verb.split(' ').collect::<Vec<_>>());
                assert_eq!(said.code, Some(2), "{file} {verb}: {}", said.error());
                assert!(said.err.contains(what) && said.err.contains(file), "{verb}: {}", said.err);
            }
        });
    }
    odd(&space, "other.yaml", |_| {
        assert_eq!(ends(&space, &["plan"]).code, Some(0), "it is no pipeline");
    });
    assert_eq!(space.take_ran(), "");
}

#[test]
fn locks_votes_and_includes_too() {
    let space = Space::chain();
    odd(&space, "p.lock", |what| {
        assert_eq!(ends(&space, &["run", "p.yaml"]).code, Some(0), "what is made is kept");
        let said = ends(&space, &["run", "p.yaml", "--locked"]);
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains(what) && said.err.contains("p.lock"), "{}", said.err);
        assert_eq!(ends(&space, &["lock", "p.yaml"]).code, Some(0));
        assert!(!space.path("p.lock").is_file(), "it is left as it is");
    });
    space.write("q.yaml", "preflow: 1\nstages:\n  a: !include part.yaml\n");
    odd(&space, "part.yaml", |what| {
        let said = ends(&space, &["check", "q.yaml"]);
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains(what), "{}", said.err);
    });
    let space = Space::empty();
    space.write(
        "pairs.jsonl",
        "{\"prompt\": \"p\", \"response_a\": \"a\", \"response_b\": \"b\"}\n",
    );
    space.write(
        "p.yaml",
        "preflow: 1\nsources:\n  pairs: { path: pairs.jsonl, as: pairs }\nstages:\n  labels:\n    \
         kind: collect_labels\n    pairs: pairs\n    labeler: { people: { votes: votes } }\n",
    );
    odd(&space, "votes/ann.jsonl", |what| {
        for verb in ["plan p.yaml", "status p.yaml", "run p.yaml", "label stats p.yaml labels"] {
            let said = ends(&space, &verb.split(' ').collect::<Vec<_>>());
            assert_eq!(said.code, Some(2), "{verb}: {}", said.error());
            assert!(said.err.contains(what) && said.err.contains("ann.jsonl"), "{}", said.err);
        }
    });
    let huge = std::fs::File::create(space.path("votes/ann.jsonl")).unwrap();
    huge.set_len(30 << 30).unwrap();
    let said = ends(&space, &["plan", "p.yaml"]);
    assert!(said.code == Some(2) && said.err.contains("larger than 1024 MiB"), "{}", said.error());
}

#[test]
fn files_of_the_store_too() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let heads = space.files("cache/heads-v1").remove(0);
    let entry = space.files("cache/entries-v1").remove(0);
    let object = space.object("a");
    let journal = space.files("cache/runs").into_iter().find(|p| p.ends_with("events.jsonl"));
    let derived = space.files("cache/derived-v1");
    let lease = space.path("cache/lease.lock");
    let all = [heads, entry, object, journal.expect("a journal"), lease];
    for path in all.iter().chain(&derived) {
        let name = path.strip_prefix(space.path("")).unwrap().to_string_lossy().into_owned();
        odd(&space, &name, |_| {
            for verb in ["plan p.yaml", "verify", "runs", "gc", "metrics p.yaml", "trace p.yaml a"]
            {
                let said = ends(&space, &verb.split(' ').collect::<Vec<_>>());
                assert!(said.code.is_some_and(|code| code <= 4), "{name} {verb}: {}", said.error());
            }
        });
    }
    for path in &all {
        let name = path.strip_prefix(space.path("")).unwrap().to_string_lossy().into_owned();
        odd(&space, &name, |_| {
            let said = ends(&space, &["run", "p.yaml"]);
            assert!(matches!(said.code, Some(0 | 4)), "{name}: {}", said.error());
        });
        space.preflow(&["verify", "--repair"]);
        assert_eq!(space.preflow(&["run", "p.yaml"]).code, Some(0), "{name}");
    }
}

/// A link that a repository may carry, in the place of what only this program makes.
#[test]
fn nothing_is_removed_or_written_through_links_in_the_store() {
    let victim = tempfile::tempdir().unwrap();
    let files = ["file", "sub/file", "a/o", "o"];
    for file in files {
        let path = victim.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "precious").unwrap();
    }
    let untouched = |when: &str| {
        let mut left = 0;
        let mut todo = vec![victim.path().to_owned()];
        while let Some(dir) = todo.pop() {
            for item in std::fs::read_dir(dir).unwrap().flatten() {
                match item.file_type().unwrap().is_dir() {
                    true => todo.push(item.path()),
                    false => left += 1,
                }
            }
        }
        assert_eq!(left, files.len(), "{when}");
        for file in files {
            let text = std::fs::read_to_string(victim.path().join(file)).unwrap();
            assert_eq!(text, "precious", "{when}: {file}");
        }
    };
    let gc = ["gc", "--yes", "--grace", "0", "--days", "0"];
    for folder in [
        "objects-v1",
        "entries-v1",
        "scratch-v1",
        "uploads-v1",
        "quarantine",
        "runs",
        "heads-v1",
        "views",
        "derived-v1",
        "answers-v1",
        "label",
    ] {
        let space = Space::chain();
        space.ran(&["run", "p.yaml"]);
        let path = space.path("cache").join(folder);
        let _ = std::fs::remove_dir_all(&path);
        symlink(victim.path(), &path).unwrap();
        space.write("src.txt", "other text\n");
        for args in [&gc[..], &["verify", "--repair"], &["run", "p.yaml"]] {
            let said = ends(&space, args);
            untouched(&format!("{folder} {args:?}"));
            assert_eq!(said.code, Some(4), "{folder} {args:?}: {}{}", said.out, said.err);
            assert!(said.err.contains(&format!("cache/{folder}` is a link")), "{}", said.err);
        }
        assert_eq!(space.take_ran(), "", "nothing runs that could not be kept");
    }
    for inner in ["views/chain", "views/chain/a", "runs/old", "objects-v1/zz", "quarantine/x"] {
        let space = Space::chain();
        space.ran(&["run", "p.yaml"]);
        let path = space.path("cache").join(inner);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(victim.path(), &path).unwrap();
        space.write("src.txt", "other text\n");
        for args in [&["run", "p.yaml"][..], &gc, &["verify", "--repair"]] {
            let said = ends(&space, args);
            untouched(&format!("{inner} {args:?}"));
            assert_eq!(said.code, Some(0), "{inner} {args:?}: {}", said.error());
        }
    }
    // Nobody knows beforehand which of them will be needed.
    for folder in ["objects-v1", "entries-v1"] {
        let space = Space::chain();
        let path = space.path("cache").join(folder);
        std::fs::create_dir_all(&path).unwrap();
        (0..256).for_each(|n| symlink(victim.path(), path.join(format!("{n:02x}"))).unwrap());
        let said = ends(&space, &["run", "p.yaml"]);
        untouched(folder);
        assert_eq!(said.code, Some(4), "{folder}: {}", said.error());
        assert!(said.out.contains("` is a link: nothing is read"), "{}", said.out);
    }
    // The whole store may lie elsewhere.
    let space = Space::chain();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), space.path("cache")).unwrap();
    assert_eq!(space.ran(&["run", "p.yaml"]), "a b c side");
    assert_eq!(ends(&space, &gc).code, Some(0));
}

/// What has not the size that it should have need not be read to be known as damaged.
#[test]
fn objects_of_absurd_sizes_are_moved_aside_unread() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    for verb in [&["run", "p.yaml"][..], &["verify", "--repair"]] {
        let object = space.object("a");
        std::fs::remove_file(&object).unwrap();
        std::fs::File::create(&object).unwrap().set_len(4 << 40).unwrap();
        let said = ends(&space, &["verify"]);
        assert_eq!(said.code, Some(4), "{}{}", said.out, said.err);
        assert!(said.out.contains("it does not have the"), "{}", said.out);
        assert_eq!(ends(&space, verb).code, Some(0), "{verb:?}");
        space.preflow(&["run", "p.yaml"]);
        assert_eq!(ends(&space, &["verify"]).code, Some(0), "{verb:?}");
        assert_eq!(std::fs::read_to_string(space.object("a")).unwrap(), "text\none\n");
    }
}

#[test]
fn what_a_stage_leaves_where_files_are_expected() {
    for command in [
        "rm -f \"$FIGURES\"; mkfifo \"$FIGURES\"",
        "ln -s /dev/zero \"$FIGURES\"",
        "mkdir \"$FIGURES\"",
        "head -c 20000000 /dev/zero > \"$FIGURES\"",
    ] {
        let space = Space::empty();
        space.write(
            "p.yaml",
            &format!(
                "preflow: 1\nstages:\n  a:\n    kind: command\n    outputs: {{ o: file }}\n    \
                 command: 'echo > $OUT_o; {command}'\n"
            ),
        );
        let said = ends(&space, &["run", "p.yaml"]);
        assert_eq!(said.code, Some(1), "{command}: {}{}", said.out, said.err);
        assert!(said.out.contains("the figures that the program wrote"), "{}", said.out);
    }
    // Its log and the copy of its events.
    let space = Space::empty();
    let replace = "cd ../../runs/*/a; rm -f log.txt; mkfifo log.txt events.jsonl; exit 3";
    space.write(
        "p.yaml",
        &format!(
            "preflow: 1\nstages:\n  a:\n    kind: command\n    outputs: {{ o: file }}\n    \
             command: 'cd $(dirname $OUT_o); {replace}'\n"
        ),
    );
    let said = ends(&space, &["run", "p.yaml"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(ends(&space, &["logs", "p.yaml", "a"]).code.is_some_and(|code| code <= 2));
}

#[test]
fn a_folder_that_a_team_shares_too() {
    let space = Space::chain();
    let remote = space.path("remote").display().to_string();
    space.write("preflow.yaml", &format!("preflow-workspace: 1\nremote: {{ url: {remote} }}\n"));
    space.ran(&["run", "p.yaml"]);
    for file in space.files("remote") {
        let name = file.strip_prefix(space.path("")).unwrap().to_string_lossy().into_owned();
        odd(&space, &name, |what| {
            // The folder may be writable still by whoever made it; its modes are not ours.
            let _ = std::fs::remove_dir_all(space.path("cache"));
            let said = ends(&space, &["pull", "p.yaml"]);
            assert_eq!(said.code, Some(1), "{name}: {}{}", said.out, said.err);
            assert!(said.err.contains(what), "{name}: {}", said.err);
        });
    }
}

#[test]
fn nothing_outside_of_the_repository_is_shown() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.yaml");
    std::fs::write(&secret, "hunter2: [\n").unwrap();
    let space = Space::chain();
    let target = secret.display().to_string();
    symlink(&secret, space.path("link.yaml")).unwrap();
    symlink(outside.path(), space.path("folder")).unwrap();
    space.write("a.yaml", "preflow: 1\nstages: !include link.yaml\n");
    space.write("b.yaml", "preflow: 1\nstages: !include folder/secret.yaml\n");
    let up = "../".repeat(space.path("").components().count() - 1);
    space.write("c.yaml", &format!("preflow: 1\nstages: !include {up}{}\n", &target[1..]));
    let sweep = "preflow-sweep: 1\nmetric: m\ngrid: { p: [one] }\npipeline: ";
    space.write("d.yaml", &format!("{sweep}{target}\n"));
    for args in [
        &["check", "a.yaml"][..],
        &["check", "b.yaml"],
        &["check", "c.yaml"],
        &["check", "link.yaml"],
        &["plan", "folder/secret.yaml"],
        &["sweep", "plan", "d.yaml"],
    ] {
        let said = ends(&space, args);
        assert_eq!(said.code, Some(2), "{args:?}: {}{}", said.out, said.err);
        assert!(!format!("{}{}", said.out, said.err).contains("hunter2"), "{args:?}: {}", said.err);
    }
    // Whoever names it sees it.
    let said = ends(&space, &["check", &target]);
    assert!(said.code == Some(2) && said.err.contains("hunter2"), "{}", said.err);
    // Inside, dots and links are as good as any other path.
    std::fs::create_dir(space.path("sub")).unwrap();
    space.write("stages.yaml", CHAIN.split_once("stages:\n").unwrap().1);
    symlink("../stages.yaml", space.path("sub/link.yaml")).unwrap();
    let head = CHAIN.split_once("stages:\n").unwrap().0.replace("src.txt", "../src.txt");
    space.write("sub/p.yaml", &format!("{head}stages: !include link.yaml\n"));
    assert_eq!(ends(&space, &["check", "sub/p.yaml"]).code, Some(0));
    // What a param names belongs to the repository; a source may lie anywhere.
    std::fs::write(outside.path().join("data.txt"), "data\n").unwrap();
    space.write(
        "e.yaml",
        &CHAIN.replace("src.txt", &format!("{}/data.txt", outside.path().display())),
    );
    assert_eq!(ends(&space, &["plan", "e.yaml"]).code, Some(0));
    space.write(
        "pairs.jsonl",
        "{\"prompt\": \"p\", \"response_a\": \"a\", \"response_b\": \"b\"}\n",
    );
    let elsewhere = format!("{}/data.txt", outside.path().display());
    let votes = [target.as_str(), "folder", "folder/votes", "../votes"];
    let votes = votes.map(|path| format!("votes: {path}"));
    // What annotators are shown, least of all.
    let guidelines = [elsewhere.as_str(), "folder/data.txt"];
    let guidelines = guidelines.map(|path| format!("votes: votes, guidelines: {path}"));
    for named in votes.into_iter().chain(guidelines) {
        space.write(
            "f.yaml",
            &format!(
                "preflow: 1\nsources:\n  pairs: {{ path: pairs.jsonl, as: pairs }}\nstages:\n  labels:\n    \
                 kind: collect_labels\n    pairs: pairs\n    labeler: {{ people: {{ {named} }} }}\n"
            ),
        );
        for verb in ["plan", "run", "label serve"] {
            let mut words: Vec<&str> = verb.split(' ').chain(["f.yaml"]).collect();
            words.extend((verb == "label serve").then_some("labels"));
            let said = ends(&space, &words);
            assert_eq!(said.code, Some(2), "{named}: {}{}", said.out, said.err);
            assert!(said.err.contains("lies outside of"), "{}", said.err);
        }
    }
}
