//! People who share a remote: each has a workspace with the same pipeline and a store of their own.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::proxy::Proxy;
use crate::server::{self, Server};
pub use crate::workspace::{Said, Workspace, files_below};

/// A secret that must never be seen anywhere but in the environment.
pub const SECRET: &str = "canary+SECRET/never0000written0000anywhere00";

/// One person's workspace.
pub struct Member {
    workspace: Workspace,
    remote: String,
    endpoint: Option<String>,
}

impl std::ops::Deref for Member {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.workspace
    }
}

/// A small file, a tree with an empty file and two equal ones, an empty file, and one file of
/// `bytes` bytes. Each stage appends its name to `ran.txt` when it really runs.
pub fn pipeline(bytes: u64) -> String {
    format!(
        "\
preflow: 1
name: shared
params: {{ p: one }}
sources:
  src: {{ path: src.txt, as: file }}
stages:
  small:
    kind: command
    inputs: {{ i: src }}
    outputs: {{ o: file }}
    command: 'cat \"$IN_i\" > \"$OUT_o\"; echo ${{p}} >> \"$OUT_o\"; echo small >> ran.txt'
  tree:
    kind: command
    inputs: {{ i: small }}
    outputs: {{ o: file }}
    command: 'mkdir -p \"$OUT_o/sub/deep\"; cp \"$IN_i\" \"$OUT_o/sub/deep/x\"; cp \"$IN_i\" \"$OUT_o/y\"; seq 1000 > \"$OUT_o/z\"; : > \"$OUT_o/empty\"; echo tree >> ran.txt'
  empty:
    kind: command
    inputs: {{ i: small }}
    outputs: {{ o: file }}
    command: ': \"$IN_i\" > \"$OUT_o\"; echo empty >> ran.txt'
  big:
    kind: command
    inputs: {{ i: small }}
    outputs: {{ o: file }}
    command: ': \"$IN_i\"; seq 10000000 99999999 | head -c {bytes} > \"$OUT_o\"; echo big >> ran.txt'
"
    )
}

impl Member {
    /// Somebody whose remote is a folder or a url.
    pub fn at(remote: &str, endpoint: Option<&str>, bytes: u64) -> Self {
        let workspace = Workspace::empty();
        let (remote, endpoint) = (remote.to_owned(), endpoint.map(str::to_owned));
        let member = Self { workspace, remote, endpoint };
        member.write("p.yaml", &pipeline(bytes));
        member.write("src.txt", "text\n");
        member
    }

    /// Somebody else with the same remote and the same files, as after `git clone`.
    pub fn colleague(&self) -> Self {
        let other = Self::at(&self.remote, self.endpoint.as_deref(), 1);
        for name in ["p.yaml", "p.lock", "src.txt", "preflow.yaml"] {
            if self.path(name).exists() {
                std::fs::copy(self.path(name), other.path(name)).expect("copied");
            }
        }
        other
    }

    /// The same remote, but by way of a proxy.
    pub fn by_way_of(mut self, proxy: &Proxy) -> Self {
        self.endpoint = Some(proxy.address.clone());
        self
    }

    /// `preflow ARGS` in the workspace, ready to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// The same, started by another program.
    pub fn wrapped(&self, by: &[&str], args: &[&str]) -> Command {
        let mut command = self.preflow_by(by, args);
        command.env("PREFLOW_REMOTE", &self.remote);
        if std::env::var_os("PREFLOW_TEST_S3").is_none() {
            command.env("AWS_ACCESS_KEY_ID", "AKIDTEST").env("AWS_SECRET_ACCESS_KEY", SECRET);
            command.env_remove("AWS_SESSION_TOKEN").env("AWS_REGION", "us-east-1");
        }
        match &self.endpoint {
            Some(endpoint) => command.env("AWS_ENDPOINT_URL", endpoint),
            None => command.env_remove("AWS_ENDPOINT_URL"),
        };
        command
    }

    pub fn preflow(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().expect("starts"))
    }

    /// The same, which must end well.
    pub fn does(&self, args: &[&str]) -> String {
        let said = self.preflow(args);
        assert_eq!(said.code, Some(0), "{args:?}\n{}{}", said.out, said.err);
        said.out
    }

    /// The JSON that a command prints, and its exit code.
    pub fn json(&self, args: &[&str]) -> (Value, Option<i32>) {
        let said = self.preflow(&[args, &["--json"]].concat());
        let value = serde_json::from_str(&said.out);
        (value.unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err)), said.code)
    }

    /// Runs and returns which stages really ran, sorted; the run must end well.
    pub fn ran(&self) -> String {
        // Transfers are made by hand here.
        self.does(&["run", "p.yaml", "--remote", "none"]);
        self.take_ran()
    }

    /// Bytes that a cut transfer left to go on from.
    pub fn parts(&self) -> u64 {
        let parts = self.files("cache/scratch-v1");
        let parts = parts.iter().filter(|p| p.extension().is_some_and(|e| e == "part"));
        parts.map(|p| p.metadata().map_or(0, |meta| meta.len())).sum()
    }

    /// The store is sound and nothing is left of transfers.
    pub fn is_sound(&self) {
        self.does(&["verify"]);
        assert_eq!(self.files("cache/scratch-v1"), Vec::<PathBuf>::new());
    }

    /// The object behind a view.
    pub fn object(&self, stage: &str) -> PathBuf {
        self.object_of("shared", stage)
    }
}

impl Said {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { out: text(&output.stdout), err: text(&output.stderr), code: output.status.code() }
    }

    /// It ended with this code, and said this.
    pub fn is(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert!(self.err.contains(text) || self.out.contains(text), "{}{}", self.out, self.err);
    }
}

/// Somebody who has run a pipeline with a big file, on a bucket of the shared server.
pub fn on_s3(bytes: u64) -> Member {
    on(server::shared(), bytes)
}

/// The same on another server.
pub fn on(server: &Server, bytes: u64) -> Member {
    let remote = format!("s3://{}/some/prefix", server.bucket());
    let member = Member::at(&remote, Some(&server.address), bytes);
    assert_eq!(member.ran(), "big empty small tree");
    member
}
