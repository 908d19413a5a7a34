//! Damaged, full and read-only stores; collection of what nobody needs.

use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;

use crate::space::{CHAIN, Said, Space};

/// Other bytes of the same length under the name of an object.
fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[0] ^= 1;
    std::fs::remove_file(path).expect("remove");
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn verify_finds_every_damaged_object_and_repair_marks_them() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    damage(&space.object("a"));
    std::fs::remove_file(space.object("side")).expect("remove");
    let said = space.preflow(&["verify"]);
    assert_eq!(said.code, Some(4));
    assert_eq!(said.out.matches(" ✗ object").count(), 1, "{}", said.out);
    assert_eq!(said.out.matches(" ✗ entry").count(), 2, "{}", said.out);
    assert_eq!(space.preflow(&["verify", "--repair"]).code, Some(0));
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
    assert_eq!(space.ran(&["run", "p.yaml"]), "a side");
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
}

#[test]
fn a_damaged_object_is_noticed_without_verify() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    damage(&space.object("a"));
    let said = space.preflow(&["plan", "p.yaml"]);
    assert!(said.out.contains("object of `o` damaged"), "{}", said.out);
    assert_eq!(space.ran(&["run", "p.yaml"]), "a");
}

/// Stages `a0` to `a47`, one after the other: enough for entries to be looked at ahead.
fn long_chain() -> Space {
    let space = Space::empty();
    let mut text =
        "preflow: 1\nname: chain\nsources: { s: { path: src.txt } }\nstages:\n".to_owned();
    for i in 0..48 {
        let from = if i == 0 { "s".to_owned() } else { format!("a{}", i - 1) };
        text += &format!("  a{i}:\n    kind: command\n    inputs: {{ i: {from} }}\n");
        let command = format!("echo a{i} >> ran.txt; cat $IN_i > $OUT_o; echo {i} >> $OUT_o");
        text += &format!("    outputs: {{ o: file }}\n    command: {command}\n");
    }
    space.write("p.yaml", &text);
    space.write("src.txt", "text\n");
    space
}

#[test]
fn what_many_stages_left_is_looked_at_file_by_file() {
    let space = long_chain();
    let all = space.ran(&["run", "p.yaml"]);
    assert_eq!(all.split(' ').count(), 48);
    assert_eq!(space.files("cache/scratch-v1"), Vec::<std::path::PathBuf>::new());
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    damage(&space.object("a7"));
    std::fs::remove_file(space.object("a30")).expect("remove");
    let said = space.preflow(&["plan", "p.yaml"]);
    assert_eq!(said.out.matches("object of `o` damaged").count(), 1, "{}", said.out);
    assert_eq!(space.ran(&["run", "p.yaml"]), "a30 a7");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(space.ran(&["run", "p.yaml", "--force", "a9"]), "a9");
    let entries = space.files("cache/entries-v1");
    std::fs::write(&entries[0], "{ half").expect("write");
    std::fs::remove_file(&entries[1]).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]).split(' ').count(), 2);
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    std::fs::remove_dir_all(space.path("cache/views")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(space.files("cache/views").len(), 48);
}

#[test]
fn what_is_derived_may_be_broken_or_gone() {
    let space = settled_chain();
    let derived = space.files("cache/derived-v1");
    assert_eq!(derived.len(), 3, "digests, a plan, views: {derived:?}");
    for broken in [&b""[..], b"half", &[0; 4096]] {
        derived.iter().for_each(|path| std::fs::write(path, broken).expect("write"));
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
    }
    std::fs::remove_dir_all(space.path("cache/derived-v1")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    // The text decides, whatever is kept of an earlier one.
    let text = space.read("p.yaml").replace("echo 47 ", "echo 4711 ");
    space.write("p.yaml", &text);
    assert_eq!(space.ran(&["run", "p.yaml"]), "a47");
    space.write("p.yaml", &text.replace("kind: command", "kind: comand"));
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(said.err.matches("unknown kind `comand`").count(), 20, "{}", said.err);
    assert!(said.err.contains("and 28 more"), "{}", said.err);
}

/// The same after so long that whatever can be kept of it has been kept: of younger files nobody
/// knows whether they still change.
fn settled_chain() -> Space {
    let space = long_chain();
    assert_eq!(space.ran(&["run", "p.yaml"]).split(' ').count(), 48);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    for _ in 0..2 {
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
    }
    space
}

#[test]
fn what_was_read_before_counts_only_while_its_files_are_as_they_were() {
    let space = settled_chain();
    let plan = || {
        let files = space.entries_of("cache/derived-v1", "plan-");
        std::fs::read(files.first().expect("a plan is kept")).expect("read")
    };
    let before = plan();
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(plan(), before);
    // Another text of the same length at the same place, by the same owner.
    let entries = space.files("cache/entries-v1");
    let text = std::fs::read_to_string(&entries[0]).expect("read");
    std::fs::write(&entries[0], text.replace("command", "cammond")).expect("write");
    std::fs::remove_file(&entries[1]).expect("remove");
    let said = space.preflow(&["plan", "p.yaml"]);
    assert!(said.out.contains("its entry is unreadable"), "{}", said.out);
    assert_eq!(space.ran(&["run", "p.yaml"]).split(' ').count(), 2);
    damage(&space.object("a7"));
    std::fs::remove_file(space.object("a30")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "a30 a7");
    // Links: gone, leading elsewhere, or a folder of them gone.
    let link = |stage: &str| space.path(&format!("cache/views/chain/{stage}/o"));
    let right = std::fs::read_link(link("a3")).expect("a link");
    std::fs::remove_file(link("a3")).expect("remove");
    std::fs::remove_file(link("a4")).expect("remove");
    std::os::unix::fs::symlink(&right, link("a4")).expect("link");
    std::fs::remove_dir_all(space.path("cache/views/chain/a5")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    for stage in [3, 4, 5] {
        let text = std::fs::read_to_string(link(&format!("a{stage}"))).expect("a view");
        assert!(text.ends_with(&format!("\n{stage}\n")), "{text}");
    }
}

#[test]
fn whatever_has_a_say_in_a_plan_is_heard_though_a_plan_is_kept() {
    let space = Space::empty();
    let text = "preflow: 1\nparams: { p: one }\nprofiles: { other: { p: two } }\nstages:\n  \
        a: { kind: command, outputs: { o: file }, command: 'echo ${p} >> ran.txt; echo ${p} > $OUT_o' }\n";
    space.write("p.yaml", text);
    let is_kept = || !space.entries_of("cache/derived-v1", "plan-").is_empty();
    assert_eq!(space.ran(&["run", "p.yaml"]), "one");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert!(!is_kept(), "of files this young nobody knows whether they still change");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert!(is_kept());
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    assert_eq!(space.ran(&["run", "p.yaml", "--profile", "other"]), "two");
    assert_eq!(space.ran(&["run", "p.yaml", "--set", "p=three"]), "three");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    space.write("preflow.yaml", "preflow-workspace: 1\nworkers: { w: { command: [./none] } }\n");
    assert_eq!(space.preflow(&["run", "p.yaml"]).code, Some(2));
    for wrong in ["no workspace file\n", ""] {
        space.write("preflow.yaml", wrong);
        for verb in ["status", "plan", "run"] {
            assert_eq!(space.preflow(&[verb, "p.yaml"]).code, Some(2), "{verb}");
        }
    }
    std::fs::remove_file(space.path("preflow.yaml")).expect("remove");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
    space.write("p.yaml", &text.replace("echo ${p} >> ran.txt", "echo more >> ran.txt"));
    assert_eq!(space.ran(&["run", "p.yaml"]), "more");
}

#[test]
fn garbage_in_an_entry_is_a_miss() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    for entry in space.files("cache/entries-v1") {
        std::fs::write(entry, "{ half").expect("write");
    }
    let said = space.preflow(&["plan", "p.yaml"]);
    assert!(said.out.contains("its entry is unreadable"), "{}", said.out);
    assert_eq!(space.ran(&["run", "p.yaml"]), "a b c side");
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
}

#[test]
fn a_record_whose_figures_changed_is_not_believed() {
    let space = Space::empty();
    let figures = "echo \"{\\\"accuracy\\\": 0.125}\" > \"$FIGURES\"";
    space.write(
        "p.yaml",
        &format!(
            "preflow: 1\nname: chain\nstages:\n  a:\n    kind: command\n    outputs: {{ o: file }}\n    \
             command: '{figures}; echo > $OUT_o; echo a >> ran.txt'\n    \
             gate: {{ accuracy: \">= 0.5\" }}\n  b:\n    kind: command\n    inputs: {{ i: a }}\n    \
             outputs: {{ o: file }}\n    command: 'cat $IN_i > $OUT_o; echo b >> ran.txt'\n"
        ),
    );
    assert_eq!(space.preflow(&["run", "p.yaml"]).code, Some(3));
    assert_eq!(space.take_ran(), "a");
    let entry = space.files("cache/entries-v1").remove(0);
    let text = std::fs::read_to_string(&entry).expect("read");
    std::fs::write(&entry, text.replace("0.125", "0.925")).expect("write");
    let said = space.preflow(&["verify"]);
    assert_eq!(said.code, Some(4));
    assert!(said.out.contains("its bytes do not have its checksum"), "{}", said.out);
    assert_eq!(space.preflow(&["run", "p.yaml"]).code, Some(3), "the gate stays closed");
    assert_eq!(space.take_ran(), "a");
    assert_eq!(space.preflow(&["verify"]).code, Some(0));
}

#[test]
fn an_entry_that_cannot_be_is_made_again() {
    for ports in ["", "\"p\":O", "\"o\":O,\"p\":O"] {
        let space = Space::chain();
        space.ran(&["run", "p.yaml"]);
        let entry = |path: &std::path::PathBuf| {
            let text = std::fs::read_to_string(path).expect("read");
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        };
        let entries = space.files("cache/entries-v1");
        let of_a = entries.iter().find(|path| entry(path).to_string().contains("echo a >>"));
        let path = of_a.expect("the entry of a");
        let mut value = entry(path);
        let output = value["outputs"]["o"].to_string();
        let outputs = format!("{{{}}}", ports.replace('O', &output));
        value["outputs"] = serde_json::from_str(&outputs).expect("JSON");
        value.as_object_mut().expect("a map").remove("sum");
        std::fs::write(path, preflow::store::summed::to_bytes(&value)).expect("write");
        let said = space.preflow(&["why", "p.yaml", "a"]);
        assert!(said.out.contains("its outputs are not those of its stage"), "{}", said.out);
        for verb in ["plan", "status", "report", "diff", "metrics", "trace"] {
            let said = space.preflow(&[verb, "p.yaml"]);
            assert!(said.code.is_some_and(|code| code < 5), "{verb}: {}", said.err);
        }
        assert_eq!(space.ran(&["run", "p.yaml"]), "a");
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
    }
}

#[test]
fn what_a_pipeline_made_last_is_told_when_it_is_damaged_and_mended() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let heads = space.files("cache/heads-v1").remove(0);
    let whole = std::fs::read_to_string(&heads).expect("read");
    for broken in [whole.replacen("side", "sids", 1), whole[..40].to_owned(), String::new()] {
        std::fs::write(&heads, &broken).expect("write");
        let said = space.preflow(&["plan", "p.yaml"]);
        assert_eq!(said.code, Some(0));
        assert!(
            said.err.contains("`preflow verify --repair` moves the file aside"),
            "{}",
            said.err
        );
        let said = space.preflow(&["gc", "--yes", "--grace", "0"]);
        assert_eq!(said.code, Some(4), "it must not guess: {}{}", said.out, said.err);
        assert!(said.err.contains("preflow verify --repair"), "{}", said.err);
        assert_eq!(space.preflow(&["verify"]).code, Some(4));
        assert_eq!(space.preflow(&["verify", "--repair"]).code, Some(0));
        assert!(!heads.exists());
        assert_eq!(space.preflow(&["verify"]).code, Some(0));
        assert_eq!(space.ran(&["run", "p.yaml"]), "");
        assert!(heads.exists());
    }
    std::fs::write(&heads, "half").expect("write");
    let said = space.preflow(&["run", "p.yaml", "a", "--force", "a"]);
    assert!(said.out.contains("what this pipeline made last is not known"), "{}", said.out);
    assert_eq!(space.preflow(&["verify"]).code, Some(0), "it is written anew");
}

#[test]
fn a_read_only_store_serves_hits_and_refuses_misses_at_once() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    // Root writes through modes; a file where directories must be made stops root too.
    let said = space.preflow(&["run", "p.yaml", "--cache", "/proc/preflow-cannot-be-here"]);
    assert_eq!(said.code, Some(4), "{}{}", said.out, said.err);
    assert!(said.err.contains("cannot be written"), "{}", said.err);
    assert!(said.err.contains("= help: make it writable"), "{}", said.err);
    assert_eq!(space.take_ran(), "", "nothing was started");
    let cache = space.path("cache");
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o555)).expect("mode");
    let said = space.preflow(&["run", "p.yaml"]);
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755)).expect("mode");
    assert!(said.out.starts_with(" nothing to do: 4 reused"), "{}{}", said.out, said.err);
}

#[test]
fn outputs_that_are_no_plain_files_are_refused() {
    for (make, what) in [
        ("mkfifo \"$OUT_o\"", "a named pipe"),
        ("ln -s /etc/passwd \"$OUT_o\"", "a link"),
        ("mkdir \"$OUT_o\"; ln -s / \"$OUT_o/x\"", "a link"),
        ("echo x > \"$OUT_o\"; ln \"$OUT_o\" second-name", "a file with a second name"),
    ] {
        let space = Space::chain();
        let _ = std::fs::remove_file(space.path("second-name"));
        space.write("p.yaml", &CHAIN.replace("cp \"$IN_i\" \"$OUT_o\"", make));
        let said = space.preflow(&["run", "p.yaml", "side"]);
        assert_eq!(said.code, Some(1), "{make}");
        assert!(said.out.contains(what), "{make}: {}", said.out);
        assert_eq!(space.files("cache/entries-v1").len(), 0, "{make}: nothing is kept");
    }
}

#[test]
fn gc_shows_first_keeps_what_is_needed_and_removes_the_rest() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    space.ran(&["run", "p.yaml", "--set", "p=two"]);
    let entries = || space.files("cache/entries-v1").len();
    assert_eq!(entries(), 7);
    let said = space.preflow(&["gc"]);
    assert!(said.out.starts_with(" nothing to collect; 7 entries kept"), "{}", said.out);
    // All runs are old and nothing is young: the file's own values are still needed, and so is
    // what the pipeline used last.
    let said = space.preflow(&["gc", "--days", "0", "--grace", "0"]);
    assert!(said.out.contains("nothing was touched"), "{}", said.out);
    assert_eq!(entries(), 7);
    space.ran(&["run", "p.yaml", "--set", "p=three"]);
    let said = space.preflow(&["gc", "--days", "0", "--grace", "0", "--yes"]);
    assert!(said.out.starts_with(" removed 3 entries, 2 objects"), "{}", said.out);
    assert_eq!(entries(), 7, "those of p=one and p=three");
    assert_eq!(space.files("cache/derived-v1"), [space.path("cache/derived-v1/memo")]);
    assert_eq!(space.preflow(&["verify"]).code, Some(0));
    assert_eq!(space.ran(&["run", "p.yaml"]), "");
}

#[test]
fn gc_refuses_when_a_pipeline_cannot_be_read() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    space.write("broken.yaml", "preflow: 1\nstages: { x: { kind: nonsense } }\n");
    assert_snapshot!(space.preflow(&["gc", "--yes"]).error(), @r"
    exit 2
    error: `[DIR]/broken.yaml` has errors (see `preflow check`); what it needs is unknown, so nothing is removed
    ");
    assert_eq!(space.files("cache/entries-v1").len(), 4);
}

/// A workspace inside this one has a store of its own: what its pipelines need does not lie here,
/// and workers that it names need not be trusted for it. Where one store is named for both, it does.
#[test]
fn gc_leaves_workspaces_inside_this_one_alone() {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    let inner = "preflow-workspace: 1\nworkers: { w: { command: [python3, worker.py] } }\n";
    space.write("inner/preflow.yaml", inner);
    space.write("inner/deep/p.yaml", "preflow: 1\nstages: { x: { kind: of_its_worker } }\n");
    let mut gc = space.command(&["gc", "--yes", "--days", "0", "--grace", "0"]);
    let said =
        Said::of(&gc.env_remove("PREFLOW_TRUST").output().expect("starts"), space.dir.path());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(space.ran(&["run", "p.yaml"]), "", "nothing that is needed went");
    let shared = space.preflow(&["gc", "--yes", "--cache", "cache"]);
    assert!(shared.err.contains("inner/deep/p.yaml` has errors"), "{}", shared.error());
    // A folder that is no workspace is part of this one.
    std::fs::remove_file(space.path("inner/preflow.yaml")).expect("removed");
    let said = space.preflow(&["gc", "--yes"]);
    assert!(said.err.contains("inner/deep/p.yaml` has errors"), "{}", said.error());
    assert_eq!(space.files("cache/entries-v1").len(), 4);
}

#[test]
fn a_full_disk_is_named_and_a_second_try_goes_on() {
    let space = Space::chain();
    // A small disk of its own, where that is allowed; elsewhere `tests/faults.rs` stands for it.
    std::fs::create_dir(space.path("disk")).expect("mkdir");
    let mount = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).output();
        done.is_ok_and(|d| d.status.success())
    };
    let disk = space.path("disk").display().to_string();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", &disk]) {
        eprintln!("no disk of its own could be mounted: only root can");
        return;
    }
    let filler = space.path("disk/filler");
    let make = format!(
        "cp \"$IN_i\" \"$OUT_o\"; test -e {0} || {{ head -c 900000 /dev/zero > {0}; exit 1; }}",
        filler.display()
    );
    space.write("p.yaml", &CHAIN.replace("cp \"$IN_i\" \"$OUT_o\"", &make));
    let cache = space.path("disk/cache").display().to_string();
    let full = space.preflow(&["run", "p.yaml", "side", "--cache", &cache]);
    std::fs::write(&filler, "").expect("truncate");
    let again = space.preflow(&["run", "p.yaml", "side", "--cache", &cache]);
    let sound = space.preflow(&["verify", "--cache", &cache]);
    assert!(mount(&["umount", &disk]), "unmounted");
    assert_eq!(full.code, Some(4), "{}{}", full.out, full.err);
    assert!(full.out.contains("is full: 0 bytes are free"), "{}", full.out);
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.err);
    assert_eq!(sound.code, Some(0), "{}{}", sound.out, sound.err);
}
