//! Runs beside a shared remote, here a folder: fetched instead of made, sent when made, and none
//! the worse for a remote in trouble.

use std::path::Path;

use crate::space::{CHAIN, Space};

/// Two workspaces of one project, and the folder that they share.
struct Team {
    ann: Space,
    bob: Space,
    /// Holds the folder `store`.
    place: tempfile::TempDir,
}

impl Team {
    fn new(more: &str) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let (ann, bob) = (Space::chain(), Space::chain());
        let team = Self { ann, bob, place };
        for space in [&team.ann, &team.bob] {
            let url = team.store().display().to_string();
            let text = format!("preflow-workspace: 1\nremote: {{ url: {url}{more} }}\n");
            space.write("preflow.yaml", &text);
        }
        team
    }

    fn store(&self) -> std::path::PathBuf {
        self.place.path().join("store")
    }

    /// Where the remote would lie, nothing can.
    fn break_down(&self) {
        std::fs::rename(self.store(), self.place.path().join("aside")).expect("moved");
        std::fs::write(self.store(), "no folder").expect("written");
    }

    fn repair(&self) {
        std::fs::remove_file(self.store()).expect("removed");
        std::fs::rename(self.place.path().join("aside"), self.store()).expect("moved");
    }

    /// Every file that the remote holds, by content.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.store().join("files-v1")];
        while let Some(dir) = todo.pop() {
            for item in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match item.path() {
                    path if path.is_dir() => todo.push(path),
                    path => found.push(path),
                }
            }
        }
        found.sort();
        found
    }
}

fn replace_file(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("removed");
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn what_one_makes_another_need_not_make() {
    let team = Team::new("");
    let said = team.ann.preflow(&["run", "p.yaml"]);
    assert_eq!(team.ann.take_ran(), "a b c side");
    // `b` and `c` are the same bytes.
    assert!(said.out.contains("↑ remote  sent 4 stages: 3 files, 18 B"), "{}", said.out);
    let said = team.bob.preflow(&["run", "p.yaml"]);
    assert_eq!((said.code, team.bob.take_ran().as_str()), (Some(0), ""), "{}", said.err);
    assert!(said.out.contains("nothing to do: 4 fetched"), "{}", said.out);
    // Nobody is asked when there is nothing to do, nor for what is to be made all the same.
    team.break_down();
    let said = team.bob.preflow(&["run", "p.yaml"]);
    assert!(said.out.contains("nothing to do: 4 reused"), "{}", said.out);
    team.repair();
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--force", "side"]), "side");
    // One more param: only what it changes is made, and goes up in its turn.
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--set", "p=two"]), "a b c");
    assert_eq!(team.ann.ran(&["run", "p.yaml", "--set", "p=two"]), "");
    let told = team.ann.preflow(&["diff", "p.yaml", "p.yaml", "--json"]);
    assert_eq!(told.code, Some(0), "{}", told.err);
}

#[test]
fn a_remote_in_trouble_stops_no_run_and_gets_what_it_missed() {
    let team = Team::new("");
    team.ann.ran(&["run", "p.yaml", "side"]);
    team.break_down();
    let said = team.ann.preflow(&["run", "p.yaml"]);
    assert_eq!((said.code, team.ann.take_ran().as_str()), (Some(0), "a b c"));
    assert_eq!(
        said.out.matches("does not answer").count(),
        1,
        "told once
{}",
        said.out
    );
    assert!(
        said.out.contains(
            "; the run goes on without it
   = help: "
        ),
        "{}",
        said.out
    );
    assert!(said.out.contains("3 stages wait to be sent → preflow push p.yaml"), "{}", said.out);
    team.repair();
    // The next run that talks to the remote sends what waits.
    team.ann.ran(&["run", "p.yaml", "--set", "p=two", "a"]);
    assert_eq!(team.bob.ran(&["run", "p.yaml"]), "");
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--set", "p=two", "a"]), "");
}

#[test]
fn who_requires_the_remote_runs_nothing_without_it() {
    let team = Team::new(", required: true");
    team.ann.ran(&["run", "p.yaml"]);
    team.break_down();
    let said = team.bob.preflow(&["run", "p.yaml"]);
    assert_eq!((said.code, team.bob.take_ran().as_str()), (Some(4), ""), "{}", said.out);
    assert!(said.out.contains("does not answer"), "{}", said.out);
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--remote", "none"]), "a b c side");
    team.repair();
    assert_eq!(team.bob.ran(&["run", "p.yaml"]), "");
}

#[test]
fn a_read_only_remote_gives_and_takes_nothing() {
    let team = Team::new(", mode: read-only");
    let run = |space: &Space, mode: &str| {
        let mut command = space.command(&["run", "p.yaml"]);
        let done = command.env("PREFLOW_REMOTE_MODE", mode).output().expect("starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        space.take_ran()
    };
    std::fs::create_dir(team.store()).expect("a folder");
    assert_eq!(run(&team.ann, "read-only"), "a b c side");
    assert!(team.files().is_empty(), "nothing goes up");
    assert!(!team.ann.path("cache/uploads-v1").exists(), "and nothing waits");
    std::fs::remove_dir_all(team.ann.path("cache")).expect("removed");
    assert_eq!(run(&team.ann, "read-write"), "a b c side");
    assert_eq!(run(&team.bob, "read-only"), "");
}

#[test]
fn other_bytes_on_the_remote_are_never_used_and_are_mended() {
    let team = Team::new("");
    // No two stages make the same.
    let chain =
        CHAIN.replace("cat \"$IN_i\" > \"$OUT_o\"; echo c", "wc < \"$IN_i\" > \"$OUT_o\"; echo c");
    for space in [&team.ann, &team.bob] {
        space.write("p.yaml", &chain);
    }
    team.ann.ran(&["run", "p.yaml"]);
    for file in team.files() {
        let mut bytes = std::fs::read(&file).expect("read");
        bytes[0] ^= 1;
        replace_file(&file, &bytes);
    }
    let said = team.bob.preflow(&["run", "p.yaml"]);
    assert_eq!((said.code, team.bob.take_ran().as_str()), (Some(0), "a b c side"), "{}", said.out);
    assert!(said.out.contains("the remote holds other bytes"), "{}", said.out);
    // Bob's bytes went up over the damaged ones.
    let third = Space::chain();
    third.write("p.yaml", &chain);
    third.write("preflow.yaml", &team.ann.read("preflow.yaml"));
    assert_eq!(third.ran(&["run", "p.yaml"]), "");
    assert_eq!(third.preflow(&["verify"]).code, Some(0));
}

#[test]
fn a_locked_run_fetches_only_what_the_lock_names() {
    let team = Team::new("");
    team.ann.write(
        "p.yaml",
        &CHAIN.replace("cat \"$IN_i\" > \"$OUT_o\"; echo c", "date +%s%N > \"$OUT_o\"; echo c"),
    );
    team.ann.ran(&["run", "p.yaml"]);
    for file in ["p.yaml", "p.lock"] {
        team.bob.write(file, &team.ann.read(file));
    }
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--locked"]), "");
    // The remote's entry of `c` made something else by now: the lock refuses it.
    team.ann.ran(&["run", "p.yaml", "--force", "c"]);
    assert_eq!(team.ann.preflow(&["push", "p.yaml", "--force"]).code, Some(0));
    std::fs::remove_dir_all(team.bob.path("cache")).expect("removed");
    let said = team.bob.preflow(&["run", "p.yaml", "--locked"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("its outputs are not those of the lock file"), "{}", said.out);
}

#[test]
fn sweeps_share_too() {
    let team = Team::new("");
    for space in [&team.ann, &team.bob] {
        let sweep = "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { p: [x, y] }\n";
        space.write("s.yaml", &format!("{sweep}metric: {{ name: c/x, goal: maximize }}\n"));
    }
    let said = team.ann.preflow(&["sweep", "run", "s.yaml"]);
    assert_eq!(team.ann.take_ran(), "a a b b c c side", "{}{}", said.out, said.err);
    team.bob.preflow(&["sweep", "run", "s.yaml"]);
    assert_eq!(team.bob.take_ran(), "");
}

#[test]
fn what_came_first_stays_where_a_stage_never_makes_the_same() {
    let team = Team::new("");
    let clock =
        CHAIN.replace("cat \"$IN_i\" > \"$OUT_o\"; echo c", "date +%s%N > \"$OUT_o\"; echo c");
    for space in [&team.ann, &team.bob] {
        space.write("p.yaml", &clock);
    }
    team.ann.ran(&["run", "p.yaml"]);
    // Bob insists on making it himself; what the team has is told, and nothing waits for ever.
    let said = team.bob.preflow(&["run", "p.yaml", "--force", "c"]);
    assert_eq!((said.code, team.bob.take_ran().as_str()), (Some(0), "c"), "{}", said.err);
    assert!(said.out.contains("the stage does not make the same twice"), "{}", said.out);
    let said = team.bob.preflow(&["run", "p.yaml"]);
    assert_eq!(said.out.matches("remote").count(), 0, "{}", said.out);
}

#[test]
fn pull_replaces_a_result_that_is_not_the_one_of_the_lock_file() {
    let team = Team::new("");
    let clock =
        CHAIN.replace("cat \"$IN_i\" > \"$OUT_o\"; echo c", "date +%s%N > \"$OUT_o\"; echo c");
    team.ann.write("p.yaml", &clock);
    team.ann.ran(&["run", "p.yaml"]);
    team.bob.write("p.yaml", &clock);
    team.bob.ran(&["run", "p.yaml", "--remote", "none"]);
    let own = std::fs::read(team.bob.object("c")).expect("a time");
    team.bob.write("p.lock", &team.ann.read("p.lock"));
    let said = team.bob.preflow(&["run", "p.yaml", "--locked"]);
    assert_eq!((said.code, team.bob.take_ran().as_str()), (Some(1), ""), "{}", said.out);
    assert!(said.out.contains("another result of it than the lock file names"), "{}", said.out);
    let said = team.bob.preflow(&["pull", "p.yaml"]);
    assert!(said.out.contains("pulled 1 stage") && said.out.contains("3 here"), "{}", said.out);
    assert_eq!(team.bob.ran(&["run", "p.yaml", "--locked"]), "");
    let theirs = std::fs::read(team.ann.object("c")).expect("a time");
    let now = std::fs::read(team.bob.object("c")).expect("a time");
    assert!(now == theirs && now != own);
}
