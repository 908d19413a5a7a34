//! The log of the program itself: what is heard at which level, in which form, and that nothing is
//! where nobody asks.

use std::os::unix::ffi::OsStrExt as _;

use crate::space::{Said, Space};

/// What `preflow ARGS` says with these variables set.
fn logged(space: &Space, args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = space.command(args);
    command.envs(variables.iter().copied());
    Said::of(&command.output().expect("starts"), space.dir.path())
}

/// Lines of the log among what was said on standard error.
fn log(said: &Said) -> Vec<&str> {
    let is_log = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit() || c == '{');
    said.err.lines().filter(is_log).collect()
}

/// Levels of the lines of a log, each once, sorted.
fn levels<'a>(log: &[&'a str]) -> Vec<&'a str> {
    let mut levels: Vec<&str> = log.iter().filter_map(|l| l.split_whitespace().nth(1)).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}

#[test]
fn nothing_is_logged_where_nobody_asks() {
    let space = Space::chain();
    let said = space.preflow(&["run", "p.yaml"]);
    assert_eq!((said.code, log(&said)), (Some(0), vec![]));
}

#[test]
fn each_v_logs_one_level_more() {
    for (flag, wanted) in
        [("-v", &["INFO"][..]), ("-vv", &["DEBUG", "INFO"]), ("-vvv", &["DEBUG", "INFO", "TRACE"])]
    {
        let space = Space::chain();
        let said = space.preflow(&["run", "p.yaml", flag]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(levels(&log(&said)), wanted, "{flag}: {}", said.err);
        // Who did it stands before what was done.
        let attempt = "attempt{number=1}: preflow::run::attempt: started";
        assert!(said.err.contains(attempt) && said.err.contains("run{id="), "{}", said.err);
        assert!(said.err.contains("stage{name=a fingerprint="), "{}", said.err);
    }
}

#[test]
fn one_part_is_heard_by_its_name() {
    let space = Space::chain();
    let said = logged(&space, &["run", "p.yaml"], &[("PREFLOW_LOG", "store=debug,worker=trace")]);
    assert!(said.err.contains("DEBUG"), "{}", said.err);
    assert!(log(&said).iter().all(|line| line.contains("preflow::store::")), "{}", said.err);
}

#[test]
fn a_log_of_objects_is_one_a_line() {
    let space = Space::chain();
    let variables = [("PREFLOW_LOG", "debug"), ("PREFLOW_LOG_FORMAT", "json")];
    let said = logged(&space, &["run", "p.yaml"], &variables);
    let read = |line: &&str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let lines: Vec<serde_json::Value> = log(&said).iter().map(read).collect();
    let started = lines.iter().find(|line| line["message"] == "process started");
    let started = started.unwrap_or_else(|| panic!("{}", said.err));
    assert_eq!(started["level"], "DEBUG");
    assert_eq!(started["spans"][1]["name"], "stage", "{started}");
    assert!(started["pid"].is_u64(), "{started}");
}

#[test]
fn a_filter_that_is_not_understood_is_an_error() {
    let space = Space::chain();
    for (variable, value, wanted) in [
        ("PREFLOW_LOG", "stor=debug", "preflow has no part `stor`"),
        ("PREFLOW_LOG", "store=loud", "`loud` is no level"),
        ("PREFLOW_LOG_FORMAT", "xml", "`xml` is no form"),
    ] {
        let said = logged(&space, &["run", "p.yaml"], &[(variable, value)]);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(wanted) && said.err.contains("help: "), "{}", said.err);
        assert!(!space.path("cache").exists(), "nothing was begun");
    }
}

#[test]
fn a_filter_that_is_no_text_is_an_error_too() {
    let space = Space::chain();
    for variable in ["PREFLOW_LOG", "PREFLOW_LOG_FORMAT"] {
        let mut command = space.command(&["run", "p.yaml"]);
        command.env(variable, std::ffi::OsStr::from_bytes(b"\xff"));
        let said = Said::of(&command.output().expect("starts"), space.dir.path());
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(&format!("{variable}: `�` is no ")), "{}", said.err);
    }
}

/// What comes from a pipeline drives no terminal from a log either.
#[test]
fn a_log_drives_no_terminal() {
    let space = Space::chain();
    let evil = "p=\"\\e[2J\\u009b31m\"";
    let said = logged(&space, &["run", "p.yaml", "--set", evil], &[("PREFLOW_LOG", "trace")]);
    assert!(said.err.contains("TRACE"), "{}", said.err);
    assert!(!said.err.contains(['\u{1b}', '\u{9b}']), "{:?}", said.err);
}
