//! A workspace in a repository: what git does not tell is said, and what is there stays.

use std::os::unix::fs::PermissionsExt as _;

use crate::space::{CHAIN, Said, Space};

/// A `git` that answers like this.
fn with_git(space: &Space, script: &str, args: &[&str]) -> Said {
    space.write("bin/git", &format!("#!/bin/sh\n{script}\n"));
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("bin/git"), mode).expect("set");
    let rest = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{rest}", space.path("bin").display());
    let mut command = space.command(args);
    Said::of(&command.env("PATH", path).output().expect("starts"), &space.path("."))
}

#[test]
fn a_repository_that_git_refuses_is_told_with_the_cure() {
    let space = Space::chain();
    let refuses = "echo \"fatal: detected dubious ownership in repository at '/w'\" >&2\n\
                   echo 'To add an exception for this directory, call:' >&2\n\
                   echo >&2; echo '\tgit config --global --add safe.directory /w' >&2; exit 128";
    let run = with_git(&space, refuses, &["run", "p.yaml"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(
        run.out.contains(
            "the commit is not recorded: detected dubious ownership in repository at '/w'; if \
             you trust it: git config --global --add safe.directory /w"
        ),
        "{}",
        run.out
    );
    let doctor = with_git(&space, refuses, &["doctor"]).out;
    assert!(doctor.contains("→ if you trust it: git config --global --add"), "{doctor}");
    let diff = with_git(&space, refuses, &["diff", "HEAD", "--file", "p.yaml"]);
    assert_eq!(diff.code, Some(2));
    assert!(diff.err.contains("dubious ownership"), "{}", diff.err);
    // Nothing is said where there is nothing to do, no commit yet, or no repository.
    let quiet = with_git(&space, refuses, &["run", "p.yaml"]).out;
    assert!(quiet.starts_with(" nothing to do"), "{quiet}");
    for script in ["exit 1", "echo 'fatal: not a git repository' >&2; exit 128"] {
        let run = with_git(&space, script, &["run", "p.yaml", "--force", "c"]).out;
        assert!(run.contains("1 done") && !run.contains("git"), "{run}");
    }
}

#[test]
fn a_repository_without_git_is_told() {
    let space = Space::chain();
    let mut command = space.command(&["run", "p.yaml", "side"]);
    let shell = space.path("bin");
    std::fs::create_dir(&shell).expect("made");
    for program in ["sh", "cp"] {
        std::os::unix::fs::symlink(format!("/bin/{program}"), shell.join(program)).expect("linked");
    }
    let run = Said::of(&command.env("PATH", &shell).output().expect("starts"), &space.path("."));
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.out.contains("git is not installed, though this is a repository"), "{}", run.out);
}

#[test]
fn init_adds_to_a_repository_what_is_missing() {
    let space = Space::empty();
    space.write("README.md", "ours\n");
    space.write(".gitignore", "*.log\n/cache/");
    space.write("data/answers.csv", "own\n");
    let init = ["init", ".", "--template", "labels-only"];
    let said = space.preflow(&init);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("6 files in ."), "{}", said.out);
    assert!(said.out.contains("left as it is: README.md, data/answers.csv"), "{}", said.out);
    assert_eq!(space.read("README.md"), "ours\n");
    assert_eq!(space.read("data/answers.csv"), "own\n");
    assert_eq!(space.read(".gitignore"), "*.log\n/cache/\n/report.html\n");
    assert!(space.read("preflow.yaml").contains("preflow-workspace: 1"));
    let again = space.preflow(&init);
    assert!(again.out.contains("nothing to add in ."), "{}", again.out);
    assert_eq!(space.read(".gitignore"), "*.log\n/cache/\n/report.html\n");
    std::fs::remove_dir_all(space.path("pipelines")).expect("removed");
    space.write("pipelines", "a file\n");
    let refused = space.preflow(&init);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("`./pipelines` is a file"), "{}", refused.err);
}

#[test]
fn where_results_are_kept_is_told_when_the_place_is_made() {
    let space = Space::empty();
    space.write("pipelines/p.yaml", CHAIN);
    space.write("pipelines/src.txt", "text\n");
    let run = |space: &Space| space.preflow(&["run", "pipelines/p.yaml", "side"]).err;
    assert_eq!(run(&space), "note: results are kept in [DIR]/cache\n");
    assert_eq!(run(&space), "");
    let runs = space.preflow(&["runs", "other"]).out;
    assert_eq!(runs, " no such run in [DIR]/cache\n");
    std::fs::remove_dir(space.path(".git")).expect("removed");
    let said = run(&space);
    assert!(said.starts_with("note: results are kept in [DIR]/pipelines/cache, beside"), "{said}");
    assert!(said.contains("preflow init"), "{said}");
}

/// Git in the workspace, as its owner.
fn git(space: &Space, args: &[&str]) {
    let mut command = std::process::Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-C"]).arg(space.path(""));
    let output = command.args(args).output().expect("git starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_store_that_git_keeps_is_told_of() {
    let space = Space::chain();
    std::fs::remove_dir(space.path(".git")).expect("no repository");
    git(&space, &["init", "-q", "-b", "main"]);
    git(&space, &["add", "."]);
    git(&space, &["commit", "-q", "-m", "one"]);
    let told = || space.preflow(&["doctor"]).out.contains("git keeps files of [DIR]/cache");
    space.ran(&["run", "p.yaml"]);
    git(&space, &["add", "."]);
    assert!(!told(), "a store is ignored by itself");
    git(&space, &["add", "-f", "cache/heads-v1"]);
    assert!(told());
    git(&space, &["rm", "-rq", "--cached", "cache"]);
    assert!(!told());
}

#[test]
fn programs_that_a_repository_names_are_not_started() {
    let space = Space::chain();
    std::fs::remove_dir(space.path(".git")).expect("no repository");
    git(&space, &["init", "-q", "-b", "main"]);
    space.write(".gitattributes", "*.txt filter=a=b.c diff=evil\n");
    git(&space, &["add", "p.yaml", "src.txt", ".gitattributes"]);
    git(&space, &["commit", "-q", "-m", "one"]);
    space.write("p.yaml", &CHAIN.replace("one", "two"));
    git(&space, &["commit", "-q", "-a", "-m", "two"]);
    // What lies in `.git` is not cloned, but archives and shared folders carry it.
    let pwned = space.path("pwned").display().to_string();
    let evil = format!("sh -c 'echo x >> {pwned}; cat'");
    for name in ["clean", "smudge", "process"] {
        git(&space, &["config", &format!("filter.a=b.c.{name}"), &evil]);
        // Included from elsewhere it is the repository's own all the same.
        space.write(".git/more", &format!("[filter \"more\"]\n\t{name} = \"{evil}\"\n"));
    }
    git(&space, &["config", "filter.a=b.c.required", "true"]);
    git(&space, &["config", "include.path", "more"]);
    space.write(".git/info/attributes", "p.yaml filter=more\n");
    for (key, value) in [
        ("core.fsmonitor", evil.as_str()),
        ("core.sshCommand", &evil),
        ("core.pager", &evil),
        ("core.askPass", &evil),
        ("diff.external", &evil),
        ("diff.evil.textconv", &evil),
        ("gpg.program", &evil),
        ("extensions.partialClone", "origin"),
        ("remote.origin.url", &format!("ext::{evil}")),
        ("protocol.ext.allow", "always"),
        ("log.showSignature", "true"),
    ] {
        git(&space, &["config", key, value]);
    }
    for hook in ["post-index-change", "post-checkout", "pre-commit", "reference-transaction"] {
        let path = format!(".git/hooks/{hook}");
        space.write(&path, &format!("#!/bin/sh\necho x >> {pwned}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(space.path(&path), mode).expect("set");
    }
    let _ = std::fs::remove_file(space.path("pwned"));
    space.write("src.txt", "more\n");
    for args in [
        &["run", "p.yaml"][..],
        &["doctor"],
        &["diff", "HEAD~1", "--file", "p.yaml"],
        &["diff", "HEAD~1", "HEAD", "--file", "p.yaml"],
        &["status", "p.yaml"],
        &["runs"],
        &["check", "p.yaml"],
        &["lock", "p.yaml"],
    ] {
        let said = space.preflow(args);
        assert!(said.code.is_some_and(|code| code < 2), "{args:?}: {}", said.error());
        assert!(!space.path("pwned").exists(), "{args:?}");
    }
    let commit = space.preflow(&["doctor"]).out;
    assert!(commit.contains("with changes"), "{commit}");
    // That these would have been started by git alone.
    let mut alone = std::process::Command::new("git");
    alone.arg("-C").arg(space.path("")).args(["status", "--porcelain"]).output().expect("starts");
    assert!(space.path("pwned").exists());
}
