//! Where the remote is: `preflow.yaml`, the environment, the command line; and what is refused.

use crate::team::{Member, Said};

/// A workspace whose file says this, with nothing in the environment.
fn with(remote: &str) -> Member {
    let member = Member::at("", None, 1000);
    member.write("preflow.yaml", &format!("preflow-workspace: 1\n{remote}"));
    member
}

#[test]
fn a_folder_counts_from_the_top_of_the_workspace() {
    let one = with("remote: { url: shared/cache }\n");
    std::fs::create_dir(one.path("shared")).expect("mkdir");
    std::fs::create_dir(one.path("sub")).expect("mkdir");
    one.ran();
    let mut command = one.command(&["push", "../p.yaml"]);
    let said = Said::of(&command.current_dir(one.path("sub")).output().expect("ends"));
    said.is(0, "pushed 4 stages");
    assert_eq!(one.files("shared/cache/entries-v1").len(), 4);
    let (pulled, _) = one.json(&["pull", "p.yaml"]);
    assert_eq!(pulled["here"], 4);
    let doctor = one.preflow(&["doctor"]).out;
    assert!(doctor.contains("shared/cache answers, read-write"), "{doctor}");
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let one = with("remote: { url: file, mode: read-only }\n");
    one.ran();
    one.preflow(&["push", "p.yaml"]).is(2, "is read-only here");
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = one.command(args);
        command.envs(environment.iter().copied());
        Said::of(&command.output().expect("ends"))
    };
    let variable = ("PREFLOW_REMOTE", "environment");
    run(&["push", "p.yaml"], &[variable]).is(0, "pushed 4");
    assert_eq!(one.files("environment/entries-v1").len(), 4);
    run(&["push", "p.yaml", "--remote", "line"], &[variable]).is(0, "pushed 4");
    assert_eq!(one.files("line/entries-v1").len(), 4);
    assert_eq!(one.files("file").len(), 0);
    run(&["push", "p.yaml", "--remote", "none"], &[variable]).is(2, "no remote is configured");
    run(&["push", "p.yaml"], &[("PREFLOW_REMOTE_MODE", "read-write")]).is(0, "pushed 4");
    run(&["push", "p.yaml"], &[("PREFLOW_REMOTE_MODE", "write-only")]).is(2, "is no mode");
    run(&["push", "p.yaml"], &[variable, ("PREFLOW_REMOTE_MODE", "read-only")]).is(2, "read-only");
}

#[test]
fn what_is_wrong_with_the_file_is_shown_where_it_stands() {
    for (remote, text) in [
        ("remote: { ulr: x }\n", "did you mean `url`?"),
        ("remote: { mode: read-only }\n", "`remote` has no `url`"),
        ("remote: { url: x, mode: both }\n", "`mode` must be `read-write` or `read-only`"),
        ("remote: { url: x, required: maybe }\n", "`required` must be true or false"),
        ("remote: [x]\n", "`remote` must be a map"),
        ("remote: { url: 5 }\n", "`url` must be a text"),
        ("remote: { url: gopher://x }\n", "remotes of kind `gopher` are not known"),
        ("remote: { url: 's3://' }\n", "names no bucket"),
        ("remote: { url: s3://bucket/../up }\n", "names no bucket"),
        ("remote: { url: file://x }\n", "absolute path"),
        ("remote: { url: s3://b, endpoint: x }\n", "`endpoint` must be the address"),
    ] {
        let said = with(remote).preflow(&["pull", "p.yaml"]);
        said.is(2, text);
        assert!(said.err.contains("preflow.yaml:2"), "{}", said.err);
    }
    let none = with("");
    none.preflow(&["pull", "p.yaml"]).is(2, "no remote is configured");
}

#[test]
fn credentials_belong_in_the_environment() {
    for remote in [
        "remote: { url: 's3://key:hunter2secret@bucket/x' }\n",
        "remote: { url: 's3://bucket?secret=hunter2secret' }\n",
        "remote: { url: s3://bucket, endpoint: 'https://key:hunter2secret@host' }\n",
    ] {
        let said = with(remote).preflow(&["push", "p.yaml"]);
        said.is(2, "preflow.yaml:2");
        assert!(said.err.contains("environment"), "{}", said.err);
        assert!(!said.err.contains("hunter2secret"), "{}", said.err);
    }
    let one = with("remote: { url: s3://some-bucket }\n");
    one.ran();
    let mut command = one.command(&["push", "p.yaml"]);
    let said = Said::of(&command.env_remove("AWS_ACCESS_KEY_ID").output().expect("ends"));
    said.is(4, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set");
    let mut command = one.command(&["push", "p.yaml"]);
    let said = command.env("AWS_ENDPOINT_URL", "http://192.0.2.1:9000").output().expect("ends");
    Said::of(&said).is(2, "no encryption");
    let mut command = one.command(&["push", "p.yaml"]);
    let said = command.env("PREFLOW_REMOTE_TIMEOUT", "soon").output().expect("ends");
    Said::of(&said).is(2, "PREFLOW_REMOTE_TIMEOUT is a number of seconds");
}

#[test]
fn a_folder_that_is_not_mounted_is_no_empty_remote() {
    let one = with("remote: { url: /no/such/mount/point }\n");
    one.ran();
    std::fs::remove_dir_all(one.path("cache")).expect("removed");
    one.preflow(&["pull", "p.yaml"]).is(4, "is not there: no such folder");
}
