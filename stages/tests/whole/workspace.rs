//! A workspace with the shipped pipelines, and both binaries in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A workspace with copies of the shipped pipelines, datasets and templates.
pub struct Workspace(pub tempfile::TempDir);

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for item in std::fs::read_dir(from).expect("read").flatten() {
        // What somebody ran here is no part of the project.
        if item.path().extension().is_some_and(|e| e == "lock") {
            continue;
        }
        let target = to.join(item.file_name());
        if item.file_type().expect("type").is_dir() {
            copy(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).expect("copy");
        }
    }
}

impl Workspace {
    pub fn new() -> Self {
        let space = Self::empty();
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in ["pipelines", "datasets", "templates"] {
            copy(&project.join(folder), &space.0.path().join(folder));
        }
        space
    }

    pub fn empty() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join(".git")).expect("mark of a workspace");
        Self(dir)
    }

    pub fn preflow(&self, args: &[&str]) -> (String, Option<i32>) {
        self.run(Command::new(self.program()).args(args))
    }

    /// Lines as somebody types them, one after the other, until one fails.
    pub fn shell(&self, lines: &str) -> (String, Option<i32>) {
        let bin = self.program().parent().expect("a folder").to_owned();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
        self.run(Command::new("sh").args(["-e", "-c", lines]).env("PATH", path))
    }

    pub fn program(&self) -> PathBuf {
        let preflow = Path::new(env!("CARGO_BIN_EXE_preflow-worker")).with_file_name("preflow");
        assert!(preflow.exists(), "build it too: cargo test --workspace");
        preflow
    }

    pub fn run(&self, command: &mut Command) -> (String, Option<i32>) {
        let worker = PathBuf::from(env!("CARGO_BIN_EXE_preflow-worker"));
        let output: Output = command
            .current_dir(self.0.path())
            .env("PREFLOW_WORKER", worker)
            .env("PREFLOW_TRUST", "1")
            .env("XDG_STATE_HOME", self.0.path().join(".state"))
            .env_remove("PREFLOW_CACHE")
            .output()
            .expect("starts");
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.code())
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let (text, code) = self.preflow(args);
        assert_eq!(code, Some(0), "{text}");
        text
    }
}

/// Names of the stages that a run or a plan did not reuse, in its order.
pub fn stages(text: &str, mark: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.trim_start().strip_prefix(mark));
    rows.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned)).collect()
}
