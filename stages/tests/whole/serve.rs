//! A model that is served, as clients of OpenAI's meet it: real programs, real requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use preflow_stages::data::Vocabulary;
use serde_json::{Value, json};

use crate::workspace::Workspace;

const PIPELINE: &str = "\
preflow: 1
name: served
sources: { corpus: { path: corpus.txt, as: text } }
stages:
  tokenizer: { kind: tokenizer, text: corpus, algorithm: byte }
  model:
    kind: pretrain
    text: corpus
    tokenizer: tokenizer
    model: { layers: 1, hidden: 32, heads: 2, context: 4096 }
    train: { tokens: 12k, batch_tokens: 4096, lr: 1.0e-2 }
";

/// A workspace with a model, made once.
fn space() -> &'static Workspace {
    static SPACE: OnceLock<Workspace> = OnceLock::new();
    SPACE.get_or_init(|| {
        let space = Workspace::empty();
        let path = |name: &str| space.0.path().join(name);
        let line = "the bike needs a wrench and the lamp needs a new bulb .\n";
        std::fs::write(path("corpus.txt"), line.repeat(400)).expect("written");
        std::fs::write(path("p.yaml"), PIPELINE).expect("written");
        space.ok(&["run", "p.yaml", "--progress", "none"]);
        space
    })
}

/// `preflow serve`, until dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(words: &[&str], key: Option<&str>) -> Self {
        let space = space();
        let mut command = Command::new(space.program());
        command.args(["serve", "p.yaml", "model", "--json", "--port", "0"]).args(words);
        command.current_dir(space.0.path());
        command.env_remove("PREFLOW_CACHE").env_remove("PREFLOW_API_KEY");
        command.env("PREFLOW_WORKER", env!("CARGO_BIN_EXE_preflow-worker"));
        command.env("XDG_STATE_HOME", space.0.path().join(".state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(key) = key {
            command.env("PREFLOW_API_KEY", key);
        }
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&said["model"], &said["context"]), (&json!("model"), &json!(4096)), "{said}");
        Self { child, url: said["url"].as_str().expect("an address").to_owned() }
    }

    fn post(&self, route: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.send(route, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    fn send(&self, route: &str, body: &Value) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
        let request = ureq::Agent::from(agent).post(format!("{}/{route}", self.url));
        let request = request.header("content-type", "application/json");
        let mut answer = request.send(body.to_string()).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a body");
        (answer.status().as_u16(), text)
    }

    fn ok(&self, route: &str, body: &Value) -> Value {
        let (status, answer) = self.post(route, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a stream but for its end, which must be there.
    fn stream(&self, route: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.send(route, body);
        assert_eq!(status, 200, "{text}");
        let mut events: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{text}");
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// A request whose answer nobody has read yet.
    fn begin(&self, head: &str, body: &str) -> TcpStream {
        let address = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let length = body.len();
        let request = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    /// The worker's process.
    fn worker(&self) -> Option<u32> {
        let pid = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = text.unwrap_or_default();
        let is_worker = |child: &&str| {
            std::fs::read_to_string(format!("/proc/{child}/cmdline"))
                .is_ok_and(|line| line.contains("answer"))
        };
        children.split_whitespace().find(is_worker).and_then(|child| child.parse().ok())
    }

    fn signal(&self, signal: &str) {
        send_signal(signal, self.child.id());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send_signal(signal: &str, process: u32) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(status.expect("kill").success());
}

/// Processor time of a process, in ticks.
fn ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("alive");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn chat(more: &Value) -> Value {
    let messages = json!([{ "role": "user", "content": "the bike needs" }]);
    let mut body = json!({ "model": "model", "messages": messages, "max_tokens": 24 });
    body.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    body
}

fn completion(more: &Value) -> Value {
    let mut body = json!({ "model": "model", "prompt": "the lamp", "max_tokens": 24 });
    body.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    body
}

#[test]
fn chats_and_completions_are_answered_whole_and_as_streams() {
    let server = Server::start(&[], None);
    let models = format!("{}/models", server.url);
    let models: Value = serde_json::from_str(
        &ureq::get(&models).call().expect("an answer").body_mut().read_to_string().expect("text"),
    )
    .expect("JSON");
    assert_eq!(models["data"][0]["id"], "model");

    let greedy = server.ok("chat/completions", &chat(&json!({ "temperature": 0 })));
    let sampled = space().ok(&[
        "sample",
        "p.yaml",
        "model",
        "-p",
        "the bike needs",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
        "--json",
    ]);
    let sampled: Value =
        serde_json::from_str(sampled.lines().last().expect("a line")).expect("JSON");
    let choice = &greedy["choices"][0];
    let text = choice["message"]["content"].as_str().expect("text");
    assert_eq!(json!(text.trim()), sampled["answer"]);
    assert_eq!(
        choice["finish_reason"],
        if sampled["finished"] == true { "stop" } else { "length" }
    );
    let usage = &greedy["usage"];
    assert_eq!(usage["prompt_tokens"], 3 + "the bike needs".len());

    let warm = json!({ "n": 3, "seed": 11, "logprobs": true, "top_logprobs": 2 });
    let whole = server.ok("chat/completions", &chat(&warm));
    let again = server.ok("chat/completions", &chat(&warm));
    assert_eq!(whole["choices"], again["choices"], "one seed, one answer");
    let other = server.ok("chat/completions", &chat(&json!({ "n": 3, "seed": 12 })));
    assert_ne!(whole["choices"][0]["message"], other["choices"][0]["message"]);
    let mut streamed = warm.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({ "include_usage": true });
    let mut events = server.stream("chat/completions", &chat(&streamed));
    let last = events.pop().expect("numbers");
    assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])));
    for index in 0..3 {
        let of = |event: &Value| {
            let choice = &event["choices"][0];
            (choice["index"] == index).then(|| choice.clone())
        };
        let pieces: Vec<Value> = events.iter().filter_map(of).collect();
        let text: String =
            pieces.iter().filter_map(|piece| piece["delta"]["content"].as_str()).collect();
        let tokens = pieces.iter().filter_map(|piece| piece["logprobs"]["content"].as_array());
        let tokens: Vec<Value> = tokens.flatten().cloned().collect();
        let whole = &whole["choices"][index];
        assert_eq!(json!(text), whole["message"]["content"]);
        assert_eq!(json!(tokens), whole["logprobs"]["content"]);
        assert_eq!(pieces.last().expect("an end")["finish_reason"], whole["finish_reason"]);
        assert_eq!(pieces[0]["delta"]["role"], "assistant");
    }

    let go_on = json!({ "prompt": ["the lamp", "the bike"], "seed": 3, "n": 2 });
    let whole = server.ok("completions", &completion(&go_on));
    let mut streamed = go_on.clone();
    streamed["stream"] = json!(true);
    let events = server.stream("completions", &completion(&streamed));
    for index in 0..4 {
        let mine = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let text: String = mine.filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(json!(text), whole["choices"][index]["text"]);
    }
    let choices = whole["choices"].as_array().expect("a list");
    let text_of = |choice: &Value| choice["text"].as_str().expect("text").to_owned();
    let place = choices.iter().position(|choice| text_of(choice).len() > 8).expect("a long one");
    let text = text_of(&choices[place]);
    let stop: String = text.chars().skip(5).take(2).collect();
    let before = text.split(&stop).next().expect("a part");
    let mut stopped = go_on;
    stopped["stop"] = json!(stop);
    let stopped = &server.ok("completions", &completion(&stopped))["choices"][place];
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&json!(before), &json!("stop")));
}

#[test]
fn an_echo_says_how_likely_texts_are() {
    let server = Server::start(&[], None);
    let ask = |prompt: Value, max_tokens: u32| {
        let more = json!({ "prompt": prompt, "max_tokens": max_tokens, "echo": true, "logprobs": 2,
                           "temperature": 0 });
        server.ok("completions", &completion(&more))["choices"].clone()
    };
    let texts = ["the bike needs a wrench", "xqz"];
    let by_text = ask(json!(texts), 1);
    let folder = space().0.path().join("cache/views/served/model/model");
    let vocabulary = Vocabulary::open(&folder.join("tokenizer.json")).expect("opens");
    let by_ids = ask(json!(texts.map(|text| vocabulary.opening(text).expect("ids"))), 0);
    let mut means = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let (one, other) = (&by_text[i]["logprobs"], &by_ids[i]["logprobs"]);
        let list = |name: &str| one[name].as_array().expect("a list").clone();
        let logprobs = list("token_logprobs");
        assert_eq!(logprobs.len(), text.len() + 2, "with the one that was drawn");
        assert_eq!(logprobs[0], Value::Null);
        assert_eq!(list("top_logprobs")[0], Value::Null);
        let joined: String = list("tokens")[1..].iter().filter_map(Value::as_str).collect();
        assert_eq!(json!(joined), by_text[i]["text"]);
        assert_eq!(list("text_offset")[..3], [json!(0), json!(0), json!(1)]);
        for place in 1..=text.len() {
            let (a, b) = (logprobs[place].as_f64(), other["token_logprobs"][place].as_f64());
            assert!((a.expect("a number") - b.expect("a number")).abs() < 1e-4);
            let top = list("top_logprobs")[place].clone();
            assert_eq!(top[list("tokens")[place].as_str().expect("text")], logprobs[place]);
        }
        let sum: f64 = logprobs[1..=text.len()].iter().filter_map(Value::as_f64).sum();
        means.push(sum / text.len() as f64);
    }
    assert!(means[0] > means[1] + 0.5, "what was learned is likelier: {means:?}");
}

#[test]
fn what_is_wrong_is_told_in_the_form_of_openai() {
    let server = Server::start(&[], None);
    for (more, status, param, code, part) in [
        (json!({ "model": "gpt" }), 404, "model", "model_not_found", "this server has `model`"),
        (json!({ "messages": [] }), 400, "messages", "", "nothing is asked"),
        (json!({ "max_tokens": 5000 }), 400, "messages", "context_length_exceeded", "4096 tokens"),
        (json!({ "tools": [{}] }), 400, "tools", "", "not supported"),
        (
            json!({ "messages": [{ "role": "assistant", "content": "a" }] }),
            400,
            "messages",
            "",
            "nothing is left to answer",
        ),
        (json!({ "chat_template_kwargs": { "a": 1 } }), 400, "messages", "", "no chat template"),
    ] {
        let (found, answer) = server.post("chat/completions", &chat(&more));
        let error = &answer["error"];
        assert_eq!((found, &error["param"]), (status, &json!(param)), "{answer}");
        assert_eq!(error["code"].as_str().unwrap_or_default(), code);
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().expect("words").contains(part), "{answer}");
        let mut streamed = more.clone();
        streamed["stream"] = json!(true);
        let (found, _) = server.post("chat/completions", &chat(&streamed));
        assert_eq!(found, status, "before a stream begins");
    }
    let (status, answer) = server.post("completions", &completion(&json!({ "prompt": [999_999] })));
    assert!(status == 400 && answer["error"]["param"] == "prompt", "{answer}");
}

#[test]
fn strangers_are_turned_away() {
    let open = Server::start(&[], None);
    let first_line = |server: &Server, head: &str, body: &str| {
        let mut line = String::new();
        BufReader::new(server.begin(head, body)).read_line(&mut line).expect("a line");
        line.trim().to_owned()
    };
    let get = |host: &str| format!("GET /v1/models HTTP/1.1\r\nhost: {host}");
    assert_eq!(first_line(&open, &get("localhost:1"), ""), "HTTP/1.1 200 OK");
    assert_eq!(first_line(&open, &get("evil.example"), ""), "HTTP/1.1 403 Forbidden");
    let post = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain";
    let body = completion(&json!({})).to_string();
    assert_eq!(first_line(&open, post, &body), "HTTP/1.1 415 Unsupported Media Type");

    let closed = Server::start(&[], Some("correct-horse"));
    let with = |key: &str| format!("{}\r\nauthorization: Bearer {key}", get("127.0.0.1"));
    assert_eq!(first_line(&closed, &get("127.0.0.1"), ""), "HTTP/1.1 401 Unauthorized");
    assert_eq!(first_line(&closed, &with("wrong"), ""), "HTTP/1.1 401 Unauthorized");
    assert_eq!(first_line(&closed, &with("correct-horse"), ""), "HTTP/1.1 200 OK");

    let (text, code) = space().preflow(&["serve", "p.yaml", "model", "--listen", "0.0.0.0"]);
    assert!(code == Some(2) && text.contains("they need a key"), "{text}");
    let port = open.url.rsplit(':').next().expect("a port").trim_end_matches("/v1");
    let (text, code) = space().preflow(&["serve", "p.yaml", "model", "--port", port]);
    assert!(code == Some(2) && text.contains("another --port"), "{text}");
    let (text, code) = space().preflow(&["serve", "p.yaml", "tokenizer"]);
    assert!(code == Some(2) && text.contains("makes no model"), "{text}");
}

/// A request that takes long.
fn endless(stream: bool) -> String {
    completion(&json!({ "max_tokens": 4000, "stream": stream, "seed": 1, "n": 16 })).to_string()
}

const POST: &str = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n\
                    content-type: application/json";

#[test]
fn nothing_is_drawn_for_a_client_that_went_away() {
    let server = Server::start(&[], None);
    let worker = server.worker().expect("a worker");
    for stream in [true, false] {
        let mut client = server.begin(POST, &endless(stream));
        let before = ticks(worker);
        wait_until("it draws", || ticks(worker) > before + 10);
        if stream {
            client.read_exact(&mut [0; 100]).expect("it has begun");
        }
        drop(client);
        wait_until("it draws no more", || {
            let before = ticks(worker);
            std::thread::sleep(Duration::from_millis(300));
            ticks(worker) <= before + 1
        });
    }
    server.ok("chat/completions", &chat(&json!({})));
    assert_eq!(server.worker(), Some(worker), "the same one answers");
}

#[test]
fn a_worker_that_dies_is_started_again_and_one_that_cannot_live_ends_the_server() {
    let mut server = Server::start(&[], None);
    for stream in [true, false] {
        let worker = server.worker().expect("a worker");
        let before = ticks(worker);
        let mut client = server.begin(POST, &endless(stream));
        wait_until("it draws", || ticks(worker) > before + 10);
        send_signal("-KILL", worker);
        let mut answer = String::new();
        let mut end = vec![0; 1 << 16];
        while !answer.contains("started again") {
            let n = client.read(&mut end).expect("an answer");
            assert!(n > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&end[..n]));
        }
        assert!(answer.starts_with(if stream { "HTTP/1.1 200" } else { "HTTP/1.1 500" }));
        server.ok("chat/completions", &chat(&json!({})));
        assert!(server.worker().is_some_and(|now| now != worker), "another one");
    }
    for _ in 0..3 {
        if server.child.try_wait().expect("asked").is_some() {
            break;
        }
        wait_until("a worker", || {
            server.worker().is_some() || server.child.try_wait().expect("asked").is_some()
        });
        if let Some(worker) = server.worker() {
            send_signal("-KILL", worker);
            wait_until("it is gone", || server.worker() != Some(worker));
        }
    }
    wait_until("the server ends", || server.child.try_wait().expect("asked").is_some());
    assert_eq!(server.child.wait().expect("ended").code(), Some(1));
    let mut told = String::new();
    server.child.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert!(told.contains("killed by signal 9") && told.contains("started again"), "{told}");
}

#[test]
fn the_worker_ends_with_the_server_however_that_ends() {
    for (signal, code) in [("-INT", Some(0)), ("-TERM", Some(0)), ("-KILL", None)] {
        let mut server = Server::start(&[], None);
        let worker = server.worker().expect("a worker");
        let before = ticks(worker);
        let _client = server.begin(POST, &endless(true));
        wait_until("it draws", || ticks(worker) > before + 10);
        server.signal(signal);
        assert_eq!(server.child.wait().expect("ended").code(), code, "{signal}");
        let place = format!("/proc/{worker}");
        wait_until("the worker is gone", || {
            let stat = std::fs::read_to_string(format!("{place}/stat")).unwrap_or_default();
            stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
        });
    }
}
