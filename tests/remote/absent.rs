//! A program that was built without remotes says so, and does the rest as ever.

use std::process::Command;

#[test]
fn a_configured_remote_is_refused_plainly() {
    let dir = tempfile::tempdir().expect("temp dir");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("write");
    write("preflow.yaml", "preflow-workspace: 1\nremote: { url: s3://bucket }\n");
    write("src.txt", "text\n");
    write(
        "p.yaml",
        "preflow: 1\nname: p\nsources: { src: { path: src.txt, as: file } }\nstages:\n  a:\n    \
         kind: command\n    inputs: { i: src }\n    outputs: { o: file }\n    command: 'cp $IN_i \
         $OUT_o'\n",
    );
    for (args, code, text) in [
        (&["push", "p.yaml"][..], 2, "this preflow was built without remotes"),
        (&["pull", "p.yaml"], 2, "this preflow was built without remotes"),
        (&["push", "p.yaml", "--remote", "none"], 2, "no remote is configured"),
        (&["plan", "p.yaml"], 0, "1 run"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_preflow"));
        command.args(args).current_dir(dir.path()).env_remove("PREFLOW_REMOTE");
        command.env("XDG_STATE_HOME", dir.path().join(".state"));
        let output = command.output().expect("starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(text), "{said}");
    }
}
