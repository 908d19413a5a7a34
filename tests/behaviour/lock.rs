//! The lock file: written by runs, checked without any artifact, obeyed, merged by git.

use std::process::Command;

use crate::space::{CHAIN, Space};

fn git(space: &Space, arguments: &[&str]) -> String {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_preflow")).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(arguments);
    let output = command.current_dir(space.path("")).env("PATH", path).output().expect("git runs");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_run_writes_what_it_made_and_only_changes_what_changed() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let first = space.read("p.lock");
    assert_eq!(first.matches("fingerprint = ").count(), 4);
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.read("p.lock"), first);
    // Other params than the file's are not what the file says.
    space.ran(&["run", "p.yaml", "--set", "p=two"]);
    assert_eq!(space.read("p.lock"), first);
    space.write("p.yaml", &CHAIN.replace("q: quiet", "q: loud"));
    space.ran(&["run", "p.yaml", "b"]);
    let now = space.read("p.lock");
    let changed = first.lines().zip(now.lines()).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 1, "the fingerprint of b alone: its bytes are the same\n{now}");
    space.write("p.yaml", &CHAIN.replace("  side:", "  aside:"));
    space.ran(&["run", "p.yaml"]);
    let now = space.read("p.lock");
    assert!(now.contains("[aside]") && !now.contains("[side]"), "{now}");
}

#[test]
fn check_needs_no_artifact_and_names_what_does_not_match() {
    let space = Space::chain();
    assert_eq!(space.preflow(&["lock", "--check", "p.yaml"]).code, Some(2), "there is none");
    space.ran(&["run", "p.yaml"]);
    std::fs::remove_dir_all(space.path("cache")).expect("removed");
    let said = space.preflow(&["lock", "--check", "p.yaml"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), " p.lock: 4 stages match\n"));
    space.write("src.txt", "other\n");
    let said = space.preflow(&["lock", "--check", "p.yaml"]);
    assert_eq!(said.code, Some(2));
    let text = "p.lock does not match p.yaml: stage `a` changed; stage `side` changed";
    assert!(said.err.contains(text), "{}", said.err);
    space.write("p.lock", "nonsense\n");
    let said = space.preflow(&["lock", "--check", "p.yaml"]);
    assert!(said.code == Some(2) && said.err.contains("p.lock:1:"), "{}", said.err);
}

#[test]
fn a_locked_run_makes_only_what_the_file_says() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.ran(&["run", "p.yaml", "--locked"]), "");
    std::fs::remove_dir_all(space.path("cache")).expect("removed");
    assert_eq!(space.ran(&["run", "p.yaml", "--locked"]), "a b c side", "made again, the same");
    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    let said = space.preflow(&["run", "p.yaml", "--locked", "--keep-going"]);
    assert_eq!((said.code, space.take_ran().as_str()), (Some(1), ""), "{}", said.out);
    assert!(said.out.contains("it is not what the lock file says it is"), "{}", said.out);
    // A stage that makes other bytes each time cannot be made again under a lock.
    space.write("p.yaml", &CHAIN.replace("cp \"$IN_i\" \"$OUT_o\"", "date +%N > $OUT_o"));
    space.ran(&["run", "p.yaml"]);
    let lock = space.read("p.lock");
    std::fs::remove_dir_all(space.path("cache")).expect("removed");
    let said = space.preflow(&["run", "p.yaml", "--locked"]);
    assert_eq!(said.code, Some(1));
    let text = "its output `o` is not what the lock file says";
    assert!(said.out.contains(text), "{}", said.out);
    assert_eq!(space.read("p.lock"), lock);
}

#[test]
fn branches_that_change_different_stages_merge_cleanly() {
    let space = Space::chain();
    std::fs::remove_dir(space.path(".git")).expect("only a mark");
    space.write(".gitignore", "cache\nran.txt\n");
    git(&space, &["init", "-q", "-b", "main"]);
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.preflow(&["lock", "--install", "p.yaml"]).code, Some(0));
    assert_eq!(space.read(".gitattributes"), "/p.lock merge=preflow-lock\n");
    let commit = |message: &str| {
        git(&space, &["add", "-A"]);
        git(&space, &["commit", "-q", "-m", message]);
    };
    commit("one");
    git(&space, &["switch", "-q", "-c", "other"]);
    let yaml = space.read("p.yaml");
    space.write("p.yaml", &yaml.replace("echo side", "echo  side"));
    space.ran(&["run", "p.yaml"]);
    commit("side");
    git(&space, &["switch", "-q", "main"]);
    space.write("p.yaml", &yaml.replace("p: one", "p: two"));
    space.ran(&["run", "p.yaml"]);
    commit("chain");
    git(&space, &["merge", "-q", "--no-edit", "other"]);
    let said = space.preflow(&["lock", "--check", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(space.ran(&["run", "p.yaml", "--locked"]), "");
}
