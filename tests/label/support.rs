//! A workspace with pairs to label, a server on it, and somebody who talks to it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use preflow::votes::{Folder, Vote};
use serde_json::{Value, json};

/// A folder with a pipeline of one stage, `labels`, whose pairs are a file.
pub struct Workspace {
    pub dir: tempfile::TempDir,
}

impl Workspace {
    /// `settings` are further lines of `labeler.people`, in flow style.
    pub fn new(pairs: &[[String; 3]], settings: &str, ready: u64) -> Self {
        let dir = tempfile::tempdir().expect("temp");
        let workspace = Self { dir };
        workspace.write_pairs(pairs);
        let text = format!(
            "preflow: 1\nname: demo\nsources:\n  pairs: {{ path: pairs.parquet, as: pairs }}\n\
             stages:\n  labels:\n    kind: collect_labels\n    pairs: pairs\n    labeler:\n      \
             people:\n        votes: votes\n        question: Which answer is better?\n{settings}\n    \
             ready_when: {{ votes: {ready} }}\n"
        );
        std::fs::write(workspace.path("demo.yaml"), text).expect("written");
        workspace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write_pairs(&self, pairs: &[[String; 3]]) {
        let column = |i: usize| -> ArrayRef {
            Arc::new(pairs.iter().map(|p| Some(p[i].as_str())).collect::<StringArray>())
        };
        let columns = [("prompt", column(0)), ("response_a", column(1)), ("response_b", column(2))];
        let batch = RecordBatch::try_from_iter(columns).expect("same lengths");
        let file = std::fs::File::create(self.path("pairs.parquet")).expect("created");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    }

    /// A file of the label pages in the user's own folder.
    pub fn private(&self, name: &str) -> PathBuf {
        let folder = self.path(".state/preflow/label");
        let mut all = std::fs::read_dir(folder).expect("a folder").flatten();
        all.next().expect("one workspace").path().join(name)
    }

    pub fn votes(&self) -> BTreeMap<String, Vec<Vote>> {
        let folder = Folder::read(&self.path("votes")).expect("readable votes");
        folder.votes
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_preflow"));
        command.args(words).current_dir(self.dir.path()).env_remove("PREFLOW_CACHE");
        command.env("XDG_STATE_HOME", self.dir.path().join(".state"));
        command
    }
}

/// Pairs with texts that tell them apart.
pub fn numbered(count: usize) -> Vec<[String; 3]> {
    (0..count)
        .map(|i| {
            let prompt = format!("Question {i}: what is {i} and {i}?");
            [prompt, format!("It is {}.", i + i), format!("I would say it is {}.", i + i + 1)]
        })
        .collect()
}

/// `preflow label serve`, until dropped.
pub struct Server {
    child: Child,
    pub ready: Value,
}

impl Server {
    pub fn start(workspace: &Workspace, words: &[&str]) -> Self {
        Self::start_under(workspace, &[], words)
    }

    /// Started by another program, which looks on.
    pub fn start_under(workspace: &Workspace, by: &[&str], words: &[&str]) -> Self {
        let mut command = match by {
            [] => Command::new(env!("CARGO_BIN_EXE_preflow")),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(env!("CARGO_BIN_EXE_preflow"));
                command
            }
        };
        command.current_dir(workspace.dir.path()).env_remove("PREFLOW_CACHE");
        command.env("XDG_STATE_HOME", workspace.path(".state"));
        command.args(["label", "serve", "demo.yaml", "labels", "--json"]);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut said = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut said).expect("readable");
            panic!("the server did not start: {said}")
        });
        // Nobody reads the rest: it must not block on a full pipe.
        let mut stderr = child.stderr.take().expect("piped");
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, ready }
    }

    pub fn base(&self) -> &str {
        self.ready["base"].as_str().expect("an address")
    }

    pub fn address(&self) -> String {
        self.base().trim_start_matches("http://").to_owned()
    }

    pub fn port(&self) -> String {
        self.address().rsplit(':').next().expect("a port").to_owned()
    }

    /// The link of an annotator.
    pub fn link(&self, name: &str) -> String {
        let people = self.ready["annotators"].as_array().expect("a list");
        let one = people.iter().find(|p| p["name"] == name).expect("an annotator");
        one["url"].as_str().expect("a link").to_owned()
    }

    /// What it holds, in the words of the kernel.
    pub fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default().to_owned()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks it to end, as Ctrl-C does; how it ended and how long that took.
    pub fn interrupt(mut self) -> (Option<i32>, Duration) {
        let before = std::time::Instant::now();
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("sent");
        let status = self.child.wait().expect("ended");
        (status.code(), before.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An annotator's browser, as far as HTTP goes.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    pub base: String,
    pub name: String,
    pub cookie: String,
    pub pairs: String,
}

impl Client {
    /// Opens a link.
    pub fn enter(link: &str, name: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        let agent: ureq::Agent = config.into();
        let base = link.split("/in/").next().expect("a link").to_owned();
        let reply = agent.get(link).call().expect("an answer");
        let cookie = reply.headers().get("set-cookie").expect("a cookie").to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a value").to_owned();
        let mut client = Self { agent, base, name: name.to_owned(), cookie, pairs: String::new() };
        let (_, progress) = client.get("/api/progress");
        client.pairs = progress["pairs"].as_str().expect("a digest").to_owned();
        client
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let request = self.agent.get(format!("{}{path}", self.base));
        let mut reply = request.header("cookie", &self.cookie).call().expect("an answer");
        (reply.status().as_u16(), reply.body_mut().read_json().expect("JSON"))
    }

    pub fn try_post(&self, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("cookie", &self.cookie).header("origin", &self.base);
        let mut reply = request.send_json(body)?;
        Ok((reply.status().as_u16(), reply.body_mut().read_json()?))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.try_post(path, body).expect("an answer")
    }

    pub fn next(&self, count: usize) -> Value {
        let body = json!({ "as": self.name, "count": count, "pairs": self.pairs });
        let (status, reply) = self.post("/api/next", &body);
        assert_eq!(status, 200, "{reply}");
        reply
    }

    pub fn vote_body(&self, id: &str, question: &Value, pick: &str) -> Value {
        json!({ "as": self.name, "count": 4, "vote": {
            "id": id, "pairs": self.pairs, "pair": question[0], "repeat": question[1],
            "pick": pick, "left": "a", "ms": 1200, "note": "",
        } })
    }
}

/// Sends bytes, and returns all that comes back before the other end closes or falls silent.
pub fn raw(address: &str, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(patience)).expect("set");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The lines of an annotator's file.
pub fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
