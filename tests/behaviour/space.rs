//! A workspace of one test, and the real binary in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use crate::workspace::{Said, Workspace as Space};

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
        let mut command = self.preflow_by(&[], args);
        command.env("PREFLOW_TRUST", "1");
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

    /// The object behind a view.
    pub fn object(&self, stage: &str) -> PathBuf {
        self.object_of("chain", stage)
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
