//! The live page as a browser meets it: a real server, a real run, a real Chromium.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

#[path = "../label/cdp.rs"]
#[expect(dead_code, reason = "the label page needs more of it")]
mod cdp;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use cdp::Browser;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

/// The second stage is slow until somebody writes `go`; the third fails.
const PIPELINE: &str = "\
preflow: 1
name: live
sources: { src: { path: src.txt, as: file } }
stages:
  first: { kind: command, inputs: { i: src }, outputs: { o: file }, command: 'cp $IN_i $OUT_o' }
  slow:
    kind: command
    inputs: { i: first }
    outputs: { o: file }
    command: 'for i in $(seq 600); do test -e go && break; sleep 0.05; done; cp $IN_i $OUT_o'
  bad: { kind: command, inputs: { i: slow }, outputs: { o: file }, command: 'echo no luck; exit 7' }
";

const SWEEP: &str = "\
preflow-sweep: 1
pipeline: p.yaml
question: Which & <i>why</i>?
matrix: { seed: [1, 2] }
metric: { name: first/score, goal: maximize }
";

struct Space {
    dir: tempfile::TempDir,
}

/// `preflow ui`, until dropped.
struct Page {
    child: Child,
    url: String,
}

impl Space {
    fn new() -> Self {
        let space = Self { dir: tempfile::tempdir().expect("temp") };
        space.write("p.yaml", &PIPELINE.replace("sources:", "params: { seed: 1 }\nsources:"));
        space.write("s.yaml", SWEEP);
        space.write("src.txt", "text\n");
        space
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_preflow"));
        command.args(words).current_dir(self.dir.path()).env_remove("PREFLOW_CACHE");
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command.env("XDG_STATE_HOME", self.dir.path().join(".state")).env("PREFLOW_TRUST", "1");
        command
    }

    fn ui(&self, words: &[&str]) -> Page {
        let mut command = self.command(&["ui", "p.yaml", "--json", "--port", "0"]);
        let mut child = command.args(words).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        Page { child, url: said["url"].as_str().expect("a link").to_owned() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Page {
    fn address(&self) -> &str {
        self.url.trim_start_matches("http://").split('/').next().expect("an address")
    }

    /// The whole answer to a request.
    fn ask(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

/// The state that the page shows of a stage.
fn state(browser: &mut Browser, stage: &str) -> String {
    let found = browser.eval(&format!(
        "[...document.querySelectorAll('.flow li')].filter((l) => \
         l.querySelector('.name').textContent === '{stage}').map((l) => \
         l.querySelector('.state').textContent)[0] || ''"
    ));
    found.as_str().unwrap_or_default().to_owned()
}

fn wait_for(browser: &mut Browser, stage: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let found = state(browser, stage);
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{stage} is {found}, not {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_for_text(browser: &mut Browser, wanted: &str) {
    let begun = Instant::now();
    while !browser.text("live").contains(wanted) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", browser.text("live"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_page_follows_a_run_and_stays_when_it_is_over() {
    let space = Space::new();
    let page = space.ui(&["--sweep", "s.yaml"]);
    let mut browser = Browser::start();
    browser.go(&page.url);
    for stage in ["first", "slow"] {
        wait_for(&mut browser, stage, if stage == "first" { "not run" } else { "waiting" });
    }
    let mut run = space.command(&["run", "p.yaml", "-q"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    wait_for(&mut browser, "first", "done");
    wait_for(&mut browser, "slow", "running");
    assert!(browser.text("live").contains("running"), "in the list of runs too");
    assert_eq!(browser.text("link"), "live");
    assert_eq!(browser.axe(), Vec::<String>::new(), "while it runs");
    browser.shoot("ui");
    space.write("go", "");
    wait_for(&mut browser, "slow", "done");
    wait_for(&mut browser, "bad", "failed");
    assert_eq!(run.wait().expect("ends").code(), Some(1));
    wait_for_text(&mut browser, "2 done · 1 failed");
    let trouble = browser.eval("document.querySelector('.flow ~ .note.warning').innerText");
    let trouble = trouble.as_str().expect("a text");
    assert!(trouble.starts_with("bad failed ") && trouble.contains(": exit 7"), "{trouble}");
    assert!(trouble.contains("no luck"), "{trouble}");
    assert!(trouble.ends_with("preflow logs p.yaml bad"), "{trouble}");
    browser.shoot("ui-failed");
    // A run has a page of its own.
    browser.eval("setTimeout(() => document.querySelector('#live table a').click())");
    browser.wait("document.querySelectorAll('.of-run').length === 3");
    let run = browser.eval("document.body.innerText");
    let run = run.as_str().expect("a text");
    for part in ["slow done", "bad failed", "exit 7", "no luck", "run p.yaml -q"] {
        assert!(run.contains(part), "{part}: {run}");
    }
    let colours = browser.eval(
        "new Set([...document.querySelectorAll('.of-run .state')].map((s) => \
         getComputedStyle(s).color)).size",
    );
    assert_eq!(colours, 2, "done and failed look different");
    for (dark, width) in [(false, 1280), (true, 390)] {
        browser.dark(dark);
        browser.screen(width, 844);
        assert_eq!(browser.axe(), Vec::<String>::new(), "a run, {width} wide");
        let wide = browser.eval("document.documentElement.scrollWidth");
        assert!(wide.as_u64().expect("a number") <= u64::from(width), "{wide}: sideways");
        browser.shoot(&format!("ui-run-{width}"));
    }
    browser.dark(false);
    browser.screen(1280, 844);
    browser.eval("setTimeout(() => document.querySelector('.brand a').click())");
    wait_for(&mut browser, "bad", "failed");
    assert!(
        browser.text("live").contains("What each param does")
            || browser.text("live").contains("No trial has a figure yet.")
    );
    // A mistake in the file is told on the page, and what was known stays.
    space.write("p.yaml", "preflow: 1\nname: live\nstages: { x: 7 }\n");
    wait_for_text(&mut browser, "error");
    assert_eq!(state(&mut browser, "slow"), "done");
    for dark in [false, true] {
        browser.dark(dark);
        browser.screen(390, 844);
        assert_eq!(browser.axe(), Vec::<String>::new(), "on a phone, dark: {dark}");
        let wide = browser.eval("document.documentElement.scrollWidth");
        assert!(wide.as_u64().expect("a number") <= 390, "{wide}: it scrolls sideways");
    }
    browser.shoot("ui-phone");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn only_the_link_leads_in_and_nothing_can_be_changed() {
    let space = Space::new();
    let page = space.ui(&[]);
    let host = page.address().to_owned();
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    for path in ["/", "/events", "/runs/none"] {
        let answer = page.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}"));
        assert_eq!(status(&answer), "401", "{answer}");
    }
    let link = page.url.trim_start_matches("http://").trim_start_matches(&host).to_owned();
    let answer = page.ask(&format!("GET {link} HTTP/1.1\r\nhost: {host}")).to_lowercase();
    assert_eq!(status(&answer), "200");
    let cookie = answer.lines().find_map(|l| l.strip_prefix("set-cookie: ")).expect("a cookie");
    for part in ["httponly", "samesite=strict", "path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().expect("a value").to_owned();
    let asked = |verb: &str, path: &str, host: &str| {
        page.ask(&format!("{verb} {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}"))
    };
    let answer = asked("GET", "/", &host).to_lowercase();
    assert_eq!(status(&answer), "200", "{answer}");
    for part in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert_eq!(status(&asked("GET", "/", "evil.example")), "403", "rebinding");
    for verb in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = asked(verb, "/", &host);
        assert_eq!(status(&answer), "405", "{answer}");
    }
    assert_eq!(status(&asked("GET", "/other", &host)), "404");
    for id in ["none", "..%2f..%2fsrc.txt", "%00"] {
        assert_eq!(status(&asked("GET", &format!("/runs/{id}"), &host)), "404", "{id}");
    }
    let mut bad = link.clone();
    bad.pop();
    assert_eq!(status(&page.ask(&format!("GET {bad} HTTP/1.1\r\nhost: {host}"))), "401");
}

/// Pairs to compare, as a stage would make them.
fn write_pairs(path: &std::path::Path) {
    let column = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; 3])) };
    let prompts: ArrayRef = Arc::new(StringArray::from(vec!["1?", "2?", "3?"]));
    let columns =
        [("prompt", prompts), ("response_a", column("yes")), ("response_b", column("no"))];
    let batch = RecordBatch::try_from_iter(columns).expect("same lengths");
    let file = std::fs::File::create(path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[test]
fn a_stage_that_waits_for_people_says_how_many_votes_and_where() {
    let space = Space::new();
    write_pairs(&space.path("pairs.parquet"));
    space.write(
        "p.yaml",
        "preflow: 1\nname: live\nsources: { pairs: { path: pairs.parquet, as: pairs } }\nstages:\n  \
         labels:\n    kind: collect_labels\n    pairs: pairs\n    labeler: { people: { votes: votes, \
         question: Which? } }\n    ready_when: { votes: 3 }\n",
    );
    let page = space.ui(&[]);
    let mut browser = Browser::start();
    browser.go(&page.url);
    wait_for(&mut browser, "labels", "waiting");
    wait_for_text(&mut browser, "0 of 3 votes");
    assert!(browser.text("live").contains("preflow label serve p.yaml labels"));
    let mut server =
        space.command(&["label", "serve", "p.yaml", "labels", "--json", "--port", "0"]);
    let mut server = server.stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    wait_for_text(&mut browser, "Open the label page");
    let link = browser.eval("document.querySelector('.note a').href");
    assert_eq!(link, said["url"], "the link of the one annotator");
    assert_eq!(browser.axe(), Vec::<String>::new());
    browser.shoot("ui-waiting");
    server.kill().expect("killed");
    server.wait().expect("ended");
    wait_for_text(&mut browser, "preflow label serve p.yaml labels");
}

#[test]
fn a_wrong_file_is_told_before_there_is_a_page() {
    let space = Space::new();
    space.write("p.yaml", "preflow: 1\nname: live\nstages: { x: 7 }\n");
    let output = space.command(&["ui", "p.yaml"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    space.write("p.yaml", PIPELINE);
    let output = space.command(&["ui", "p.yaml", "--sweep", "none.yaml"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
}

/// Two figures of each trial, one of them a KL, so that the page has all its parts.
const TRIALS: &str = "\
preflow: 1
name: trials
params: { a: 1, seed: 1 }
stages:
  e:
    kind: command
    outputs: { o: file }
    command: 'a=${a}; s=${seed}; echo {\\\"score\\\": $((a * 10 + s)), \\\"kl\\\": $((a + s))} | tee $OUT_o > $FIGURES'
";

#[test]
fn the_page_of_a_sweep_is_readable_for_all() {
    let space = Space::new();
    space.write("p.yaml", TRIALS);
    let sweep = "preflow-sweep: 1\npipeline: p.yaml\nquestion: How much?\n\
                 matrix: { a: [1, 2, 3], seed: [1, 2, 4] }\nover: seed\nbaseline: { a: 1 }\n\
                 metric: { name: e/score, goal: maximize }\n";
    space.write("s.yaml", sweep);
    for words in
        [&["sweep", "run", "s.yaml", "-q"][..], &["sweep", "show", "s.yaml", "--html", "s.html"]]
    {
        let done = space.command(words).output().expect("starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let mut browser = Browser::start();
    browser.go(&format!("file://{}", space.path("s.html").display()));
    browser.wait("document.body && document.body.innerText.includes('How much?')");
    let text = browser.eval("document.body.innerText");
    let text = text.as_str().expect("a text");
    assert!(text.contains("e/score by e/kl"), "{text}");
    for (dark, width) in [(false, 1280), (true, 1280), (false, 390), (true, 390)] {
        browser.dark(dark);
        browser.screen(width, 844);
        assert_eq!(browser.axe(), Vec::<String>::new(), "{width} wide, dark: {dark}");
        let wide = browser.eval("document.documentElement.scrollWidth");
        assert!(wide.as_u64().expect("a number") <= u64::from(width), "{wide}: sideways");
        browser.shoot(&format!("sweep-{width}-{dark}"));
        // The plot of KL is drawn at the size it is shown at: its letters stay large.
        let letters = "JSON.stringify([...document.querySelectorAll('#frontier ~ .charts text')]\
            .filter((t) => t.checkVisibility())\
            .map((t) => [t.textContent.trim(), t.getScreenCTM().a * parseFloat(getComputedStyle(t).fontSize)]))";
        let letters = browser.eval(letters);
        let letters: Vec<(String, f64)> =
            serde_json::from_str(letters.as_str().expect("JSON")).expect("pairs");
        let small: Vec<_> =
            letters.iter().filter(|(_, size)| !(11.0..13.0).contains(size)).collect();
        assert_eq!(small, Vec::<&(String, f64)>::new(), "{width} wide");
        for name in ["1", "2", "3", "0"] {
            assert!(letters.iter().any(|(text, _)| text == name), "{name}: {letters:?}");
        }
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Says how far it is, then waits until somebody writes `go`.
const WORKER: &str = r#"
import json, os, sys, time
say = lambda event, **fields: print(json.dumps({"event": event, **fields}), flush=True)
kind = {"name": "slow", "version": 1, "summary": "is slow", "inputs": [], "params": {"type": "object"},
        "outputs": [{"name": "o", "type": "file", "extension": "", "doc": "a file"}], "live": ["loss"]}
if sys.argv[1] == "describe":
    print(json.dumps({"protocol": 1, "kinds": [kind]})); sys.exit()
task = json.load(open(sys.argv[2]))
say("hello", protocol=1, catalog="", worker="slow", backend="none", device="cpu")
for done in range(0, 5):
    say("metric", step=done, values={"loss": 1 / (1 + done)})
    say("progress", done=done * 10, total=100, unit="steps")
    time.sleep(1.1)
while not os.path.exists("go"):
    time.sleep(0.05)
open(task["outputs"]["o"], "w").write("o")
say("output", name="o")
say("done", summary={})
"#;

#[test]
fn a_stage_shows_how_far_it_is() {
    let space = Space::new();
    space.write("worker.py", WORKER);
    space.write(
        "preflow.yaml",
        "preflow-workspace: 1\nworkers: { slow: { command: [python3, worker.py] } }\n",
    );
    space.write("p.yaml", "preflow: 1\nname: far\nstages: { s: { kind: slow } }\n");
    let page = space.ui(&[]);
    let mut browser = Browser::start();
    browser.go(&page.url);
    let mut run = space.command(&["run", "p.yaml", "-q"]).spawn().expect("starts");
    wait_for(&mut browser, "s", "running 40\u{a0}%");
    let time = browser.eval("document.querySelector('.flow .time').textContent");
    assert!(time.as_str().is_some_and(|t| t.contains("left")), "{time}");
    assert!(browser.text("live").contains("loss"), "the curve is drawn");
    assert_eq!(browser.axe(), Vec::<String>::new());
    space.write("go", "");
    wait_for(&mut browser, "s", "done");
    assert_eq!(run.wait().expect("ends").code(), Some(0));
}
