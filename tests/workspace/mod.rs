//! A workspace of one test and the real binary in it: what all test programs have in common.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A temporary workspace.
pub struct Workspace {
    pub dir: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Workspace {
    /// A folder with the mark of a workspace and nothing else.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join(".git")).expect("mark of a workspace");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }

    /// `preflow ARGS` in the workspace, by way of another program where `by` names one. Nothing of
    /// the user who runs the test reaches it.
    pub fn preflow_by(&self, by: &[&str], args: &[&str]) -> Command {
        let preflow = env!("CARGO_BIN_EXE_preflow");
        let words: Vec<&str> =
            by.iter().copied().chain([preflow]).chain(args.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in [
            "PREFLOW_CACHE",
            "PREFLOW_LOG",
            "PREFLOW_LOG_FORMAT",
            "PREFLOW_REMOTE",
            "PREFLOW_REMOTE_MODE",
        ] {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").env("TZ", "UTC");
        command.env("XDG_STATE_HOME", self.dir.path().join(".state"));
        command
    }

    /// Names in `ran.txt`, where stages write that they really ran, sorted; empties it.
    pub fn take_ran(&self) -> String {
        let text = std::fs::read_to_string(self.path("ran.txt")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("ran.txt"));
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        names.join(" ")
    }

    /// Every file below a folder, sorted.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        files_below(&self.path(folder))
    }

    /// The object behind the view of a stage's port `o`.
    pub fn object_of(&self, pipeline: &str, stage: &str) -> PathBuf {
        let view = format!("cache/views/{pipeline}/{stage}/o");
        self.path(&view).canonicalize().expect("a view")
    }
}

/// Every file and link below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = todo.pop() {
        for item in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if item.file_type().expect("type").is_dir() {
                todo.push(item.path());
            } else {
                found.push(item.path());
            }
        }
    }
    found.sort();
    found
}
