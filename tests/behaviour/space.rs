//! A workspace of one test, and the real binary in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary workspace.
pub struct Space {
    dir: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

/// Three stages in a row and one aside. Each appends its name to `ran.txt` when it really runs.
pub const CHAIN: &str = "\
preflow: 1
name: chain
params: { p: one, q: quiet }
sources:
  src: { path: src.txt, as: file }
stages:
  a:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'cat \"$IN_i\" > \"$OUT_o\"; echo ${p} >> \"$OUT_o\"; echo a >> ran.txt'
  b:
    kind: command
    inputs: { i: a }
    outputs: { o: file }
    command: ': ${q}; tail -n 1 \"$IN_i\" > \"$OUT_o\"; echo b >> ran.txt'
  c:
    kind: command
    inputs: { i: b }
    outputs: { o: file }
    command: 'cat \"$IN_i\" > \"$OUT_o\"; echo c >> ran.txt'
  side:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'cp \"$IN_i\" \"$OUT_o\"; echo side >> ran.txt'
";

impl Space {
    /// With [`CHAIN`] as `p.yaml`.
    pub fn chain() -> Self {
        let space = Self::empty();
        space.write("p.yaml", CHAIN);
        space.write("src.txt", "text\n");
        space
    }

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

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("read")
    }

    /// Files directly in `folder` whose names begin so.
    pub fn entries_of(&self, folder: &str, start: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.path(folder)).expect("folder").flatten();
        let named = all.filter(|item| item.file_name().to_string_lossy().starts_with(start));
        named.map(|item| item.path()).collect()
    }

    /// `preflow ARGS` in the workspace, ready to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_preflow"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("PREFLOW_REMOTE").env_remove("PREFLOW_REMOTE_MODE");
        command.env_remove("PREFLOW_LOG").env_remove("PREFLOW_LOG_FORMAT");
        command.env_remove("PREFLOW_CACHE").env("NO_COLOR", "1").env("TZ", "UTC");
        // The user's own files are none of a test's business.
        command.env("XDG_STATE_HOME", self.dir.path().join(".state")).env("PREFLOW_TRUST", "1");
        command
    }

    pub fn preflow(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().expect("starts"), self.dir.path())
    }

    /// Runs and returns which stages really ran, sorted; the run must exit 0.
    pub fn ran(&self, args: &[&str]) -> String {
        let said = self.preflow(args);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        self.take_ran()
    }

    /// Names in `ran.txt`, sorted; empties it.
    pub fn take_ran(&self) -> String {
        let text = std::fs::read_to_string(self.path("ran.txt")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("ran.txt"));
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        names.join(" ")
    }

    /// Every file below `folder`, sorted.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let (mut found, mut todo) = (Vec::new(), vec![self.path(folder)]);
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

    /// The object behind a view.
    pub fn object(&self, stage: &str) -> PathBuf {
        self.path(&format!("cache/views/chain/{stage}/o")).canonicalize().expect("a view")
    }
}

impl Said {
    /// Paths of the workspace are shown as `[DIR]`.
    pub fn of(output: &Output, dir: &Path) -> Self {
        let clean = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "[DIR]")
        };
        Self { out: clean(&output.stdout), err: clean(&output.stderr), code: output.status.code() }
    }

    /// The exit code and everything that was said on standard error.
    pub fn error(&self) -> String {
        format!("exit {}\n{}", self.code.unwrap_or(-1), self.err)
    }
}
