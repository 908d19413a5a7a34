//! Processes and writes that outlive their stage: nothing is made from what was not hashed.

use std::io::Write as _;
use std::path::Path;

use crate::space::Space;

fn pipeline(stages: &[(&str, &str, &str)]) -> Space {
    let space = Space::empty();
    let mut text =
        "preflow: 1\nname: chain\nsources: { s: { path: src.txt } }\nstages:\n".to_owned();
    for (name, from, command) in stages {
        text += &format!("  {name}:\n    kind: command\n    inputs: {{ i: {from} }}\n");
        text += &format!("    outputs: {{ o: file }}\n    command: '{command}'\n");
    }
    space.write("p.yaml", &text);
    space.write("src.txt", "text\n");
    space
}

fn is_alive(space: &Space, file: &str) -> bool {
    let pid = space.read(file);
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    status.is_ok_and(|text| !text.contains(") Z"))
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_stage_starts_in_sessions_of_its_own_ends_with_it() {
    let daemon = |name: &str| {
        format!(
            "setsid sh -c \"echo \\$\\$ > {name}.pid; setsid sleep 1000 & echo \\$! > {name}.deep; \
             wait\" >/dev/null 2>&1 & while ! [ -s {name}.deep ]; do sleep 0.01; done; echo > $OUT_o"
        )
    };
    let other = format!(
        "{}; while ! [ -s one.deep ] || grep -q -v \") Z\" /proc/$(cat one.deep)/stat 2>/dev/null; do \
         sleep 0.01; done; kill -0 $(cat two.pid) && kill -0 $(cat two.deep)",
        daemon("two")
    );
    let space = pipeline(&[("one", "s", &daemon("one")), ("two", "s", &other)]);
    let said = space.preflow(&["run", "-j", "2", "p.yaml"]);
    assert_eq!(said.code, Some(0), "another stage goes on as it was: {}", said.err);
    for file in ["one.pid", "one.deep", "two.pid", "two.deep"] {
        assert!(!is_alive(&space, file), "{file}");
    }
}

#[test]
fn a_writer_that_a_stage_leaves_behind_poisons_nothing() {
    let late = "printf good > $OUT_o; exec 3<>$OUT_o; \
        setsid sh -c \"sleep 0.3; printf evil >&3\" >/dev/null 2>&1 & sleep 0.1";
    let space = pipeline(&[
        ("a", "s", late),
        ("b", "a", "sleep 0.6; cat $IN_i > $OUT_o"),
        ("c", "b", "cat $IN_i > $OUT_o"),
    ]);
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(space.read("cache/views/chain/c/o"), "good");
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
}

#[test]
fn what_is_made_from_an_input_that_changes_meanwhile_is_not_kept() {
    let wait = "while [ -e closed ]; do sleep 0.01; done";
    let space = pipeline(&[
        ("a", "s", "printf good > $OUT_o; echo a >> ran.txt"),
        ("b", "a", &format!("{wait}; cat $IN_i > $OUT_o; echo b >> ran.txt")),
        ("c", "b", "cat $IN_i > $OUT_o; echo c >> ran.txt"),
    ]);
    space.write("closed", "");
    let run =
        space.command(&["run", "p.yaml"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let object = loop {
        let view = space.files("cache/objects-v1");
        if let Some(object) = view.first().filter(|p| space.path("ran.txt").exists() && p.exists())
        {
            break object.clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    // Clocks of file systems are coarse.
    std::thread::sleep(std::time::Duration::from_millis(20));
    overwrite(&object, b"evil");
    std::fs::remove_file(space.path("closed")).unwrap();
    let output = run.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("what stage `a` made changed while the stage read it"), "{error}");
    assert_eq!(space.take_ran(), "a b");
    assert_eq!(space.ran(&["run", "p.yaml"]), "a b c", "all is made from what it should be");
    assert_eq!(space.read("cache/views/chain/c/o"), "good");
    assert!(space.preflow(&["verify"]).out.starts_with(" sound: "));
}

#[test]
fn a_stage_that_writes_to_its_input_fails_and_its_input_is_made_again() {
    let space = pipeline(&[
        ("a", "s", "printf good > $OUT_o; echo a >> ran.txt"),
        (
            "b",
            "a",
            "[ -e once ] || { sleep 0.1; chmod u+w $IN_i; echo evil >> $IN_i; }; cat $IN_i > $OUT_o",
        ),
    ]);
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("the stage itself"), "{}", said.out);
    space.write("once", "");
    assert_eq!(space.take_ran(), "a");
    assert_eq!(space.ran(&["run", "p.yaml"]), "a");
    assert_eq!(space.read("cache/views/chain/b/o"), "good");
}

/// File systems in memory do not note writes through memory maps: inputs there are read again.
#[test]
#[cfg(target_os = "linux")]
fn writes_through_memory_maps_are_seen_where_no_time_tells_of_them() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a file system in memory");
    let kind = rustix::fs::statfs(memory.path()).expect("a file system").f_type;
    assert_eq!(u64::try_from(kind).expect("a number"), 0x0102_1994, "/dev/shm is a tmpfs");
    let space = pipeline(&[
        ("a", "s", "printf good > $OUT_o; echo a >> ran.txt"),
        ("b", "a", "[ -e once ] || python3 map.py $IN_i; cat $IN_i > $OUT_o; echo b >> ran.txt"),
    ]);
    space.write(
        "map.py",
        "import mmap, os, sys\nbefore = os.stat(sys.argv[1])\nos.chmod(sys.argv[1], 0o644)\n\
         with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as m:\n    \
             m[:4] = b'evil'\nos.chmod(sys.argv[1], 0o444)\n\
         assert os.stat(sys.argv[1]).st_mtime_ns == before.st_mtime_ns\n",
    );
    let cache = memory.path().join("cache").display().to_string();
    let run = ["run", "p.yaml", "--cache", &cache];
    let said = space.preflow(&run);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("changed while the stage read it"), "{}", said.out);
    space.write("once", "");
    space.take_ran();
    assert_eq!(space.ran(&run), "a b");
    let made = std::fs::read_to_string(format!("{cache}/views/chain/b/o")).unwrap();
    assert_eq!(made, "good");
}

#[test]
fn what_an_earlier_version_made_from_a_changed_object_is_made_again() {
    let stages = [
        ("a", "s", "printf good > $OUT_o; echo a >> ran.txt"),
        ("b", "a", "cat $IN_i > $OUT_o; echo >> $OUT_o; echo b >> ran.txt"),
        ("c", "b", "cat $IN_i $IN_i > $OUT_o; echo c >> ran.txt"),
    ];
    // (an earlier version made the entries, the times show a write, what runs after a repair)
    for (old, written, again) in [(true, true, "a b"), (true, false, "a"), (false, true, "a")] {
        let space = pipeline(&stages);
        space.ran(&["run", "p.yaml"]);
        if old {
            for path in space.files("cache/entries-v1") {
                let text = std::fs::read_to_string(&path).unwrap();
                let end = text.find(",\"sum\":").expect("a checksum");
                std::fs::write(&path, format!("{}}}\n", &text[..end])).unwrap();
            }
        }
        let object = space.object("a");
        let before = std::fs::metadata(&object).unwrap().modified().unwrap();
        overwrite(&object, b"evil");
        let long_ago = before - std::time::Duration::from_secs(60);
        let file = std::fs::File::open(&object).unwrap();
        file.set_modified(if written { long_ago } else { before }).unwrap();
        let said = space.preflow(&["verify"]);
        assert_eq!(said.code, Some(4));
        let suspects = usize::from(again == "a b");
        assert_eq!(said.out.matches("which was written to").count(), suspects, "{}", said.out);
        assert_eq!(said.out.contains("3 of the entries have no checksum"), old, "{}", said.out);
        assert_eq!(space.preflow(&["verify", "--repair"]).code, Some(0));
        assert_eq!(space.ran(&["run", "p.yaml"]), again);
        assert!(space.preflow(&["verify"]).out.contains(" sound: "));
    }
}

/// Writes over the first bytes of a file, whatever its mode.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .expect("the test owns it");
    let mut file = std::fs::File::options().write(true).open(path).expect("the test owns it");
    file.write_all(bytes).expect("the test owns it");
    drop(file);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
        .expect("the test owns it");
}
