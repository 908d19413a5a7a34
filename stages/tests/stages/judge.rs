//! Labels by models: a reward model, and a judge behind an endpoint that is biased, busy and slow.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use preflow::protocol::{Event, Execution};
use preflow_stages::data::Column;
use serde_json::{Value, json};

use crate::golden;
use crate::harness::*;

/// Secret in the environment of the worker under test.
const CANARY: &str = "sk-canary-4f9a2c";

/// What the server does with a request: status, further headers, body. It sees how often the same
/// request came before, and the request.
type Answer = dyn Fn(usize, &Value) -> (u16, String, String) + Send + Sync;

/// A server for one test. It ends with the test.
struct Server {
    url: String,
    /// Bodies and authorization headers, in order of arrival.
    seen: Arc<Mutex<Vec<(Value, String)>>>,
}

impl Server {
    fn start(
        answer: impl Fn(usize, &Value) -> (u16, String, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log): (Arc<Answer>, _) = (Arc::new(answer), seen.clone());
        let times = Arc::new(Mutex::new(HashMap::new()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log, times) = (answer.clone(), log.clone(), times.clone());
                std::thread::spawn(move || serve(stream, &*answer, &log, &times));
            }
        });
        Self { url, seen }
    }

    fn requests(&self) -> usize {
        self.seen.lock().expect("log").len()
    }
}

fn serve(
    stream: TcpStream,
    answer: &Answer,
    log: &Mutex<Vec<(Value, String)>>,
    times: &Mutex<HashMap<String, usize>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut line, mut length, mut key) = (String::new(), 0, String::new());
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        assert!(line.starts_with("POST /v1/chat/completions "), "{line}");
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match name.to_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "authorization" => key = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        let before = {
            let mut times = times.lock().expect("times");
            let n = times.entry(request["messages"].to_string()).or_insert(0);
            *n += 1;
            *n - 1
        };
        log.lock().expect("log").push((request.clone(), key));
        let (status, headers, body) = answer(before, &request);
        let text = format!(
            "HTTP/1.1 {status} X\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        (&stream).write_all(text.as_bytes()).ok()?;
    }
}

fn reply(text: &str) -> (u16, String, String) {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": text}}]});
    (200, String::new(), body.to_string())
}

/// The two answers in the order in which the judge sees them.
fn shown(request: &Value) -> [String; 2] {
    let text = request["messages"][0]["content"].as_str().expect("text").to_owned();
    ["answer_a", "answer_b"].map(|tag| {
        let rest = text.split(&format!("<{tag}>\n")).nth(1).expect("an answer");
        rest.split(&format!("\n</{tag}>")).next().expect("its end").to_owned()
    })
}

/// The better answer is the one with the higher number; close ones go to whoever is first.
fn number(answer: &str) -> f64 {
    answer.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn pairs(n: usize) -> String {
    let row = |i: usize| {
        json!({"pair": format!("p{i}"), "prompt": format!("prompt {i}"),
               "response_a": format!("one 5 is {}", 10 + i % 4),
               "response_b": format!("other is {}", if i.is_multiple_of(2) { 10 + i % 4 } else { 30 }),
               "finished_a": true, "finished_b": true})
        .to_string()
            + "\n"
    };
    (0..n).map(row).collect()
}

fn judge(url: &str, more: &Value) -> Value {
    let mut judge = json!({
        "endpoint": url, "model": "tiny-judge", "question": "Which number is higher?",
        "rubric": "Numbers count.", "temperature": 0.0, "max_tokens": 64, "concurrency": 4,
        "timeout": 5.0, "retries": 4, "key_env": "JUDGE_KEY",
    });
    for (name, value) in more.as_object().expect("an object") {
        judge[name] = value.clone();
    }
    json!({"labeler": {"judge": judge}, "ready_when": {"votes": 0, "alpha": -1.0}})
}

const PAIRS: [(&str, &[&str]); 1] = [("pairs", &["pairs.jsonl"])];

/// Runs the stage with the key in the environment of the worker alone.
fn run(shop: &Workshop, name: &str, params: Value) -> Ran {
    let mut task = shop.task(name, "collect_labels", params, &PAIRS);
    task.execution = Execution { env: vec!["JUDGE_KEY".into()], ..task.execution };
    let task = serde_json::to_string(&task).expect("a task");
    let path = shop.write(&format!("{name}.task.json"), task);
    run_file_with(&path, &[("JUDGE_KEY", CANARY)])
}

/// No file below the folder holds the secret.
fn assert_secret(folder: &Path) {
    let mut files = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for item in fs_err::read_dir(dir).expect("listed").flatten() {
            let path = item.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            files += 1;
            let bytes = fs_err::read(&path).expect("read");
            let found = bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
            assert!(!found, "{} holds the key", path.display());
        }
    }
    assert!(files > 2, "nothing was searched");
}

#[test]
fn a_flaky_and_biased_judge_is_asked_in_both_orders_and_remembered() {
    let shop = Workshop::new();
    shop.write("pairs.jsonl", pairs(40));
    let server = Server::start(|before, request| {
        let [first, second] = shown(request).map(|a| number(&a));
        // The first try of some requests goes wrong, each in its way.
        match (before, (first + second) as u64 % 3, first <= second) {
            (0, 0, true) => return (500, String::new(), "down".into()),
            (0, 0, false) => return (429, "retry-after: 1\r\n".into(), "slow down".into()),
            (0, 1, true) => std::thread::sleep(Duration::from_millis(1500)),
            _ => {}
        }
        reply(if first + 10.0 >= second { "Verdict: A" } else { "I take this one.\n**B**" })
    });
    let params = judge(&server.url, &json!({"timeout": 0.7}));
    let started = Instant::now();
    let ran = run(&shop, "l", params.clone());
    let (summary, table) = (ran.summary(), shop.table("l.labels.parquet"));
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    // Equal numbers: the first wins in both orders, which makes a tie.
    let Some(Column::Text(choices)) = table.column("choice") else { panic!("no choices") };
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(choice.as_deref(), Some(if i % 2 == 0 { "tie" } else { "b" }), "pair {i}");
    }
    assert_eq!((summary["labels"], summary["labels/contradictions"]), (40.0, 20.0));
    assert_eq!(summary["labels/position_bias"], 0.75);
    let notes = ran.notes();
    assert!(notes.contains("warn: the judge prefers the first answer"), "{notes}");
    assert!(notes.contains("LABELS BY A MODEL: no person compared these 40 pairs"), "{notes}");
    assert!(table.bools("simulated", false).expect("a column").iter().all(|s| *s));
    assert_eq!(table.texts("labeler").expect("text")[0], "judge tiny-judge");
    // Equal questions are asked once each: 40 prompts in two orders, some more than once.
    let sent = server.requests();
    assert!(sent > 80, "nothing was sent again: {sent}");
    {
        let seen = server.seen.lock().expect("log");
        assert!(seen.iter().all(|(_, key)| *key == format!("Bearer {CANARY}")));
        let text = seen[0].0["messages"][0]["content"].as_str().expect("text").to_owned();
        assert!(text.contains("Which number is higher?\n\nNumbers count."), "{text}");
        assert_eq!(
            (&seen[0].0["temperature"], &seen[0].0["model"]),
            (&json!(0.0), &json!("tiny-judge"))
        );
    }
    // A second run asks nothing, more pairs only what is new; a changed question everything.
    let bytes = fs_err::read(shop.path("l.labels.parquet")).expect("bytes");
    run(&shop, "again", params.clone()).summary();
    assert_eq!(server.requests(), sent);
    assert_eq!(fs_err::read(shop.path("again.labels.parquet")).expect("bytes"), bytes);
    shop.write("pairs.jsonl", pairs(41));
    run(&shop, "more", params).summary();
    let now = server.requests();
    assert!((sent + 2..sent + 9).contains(&now), "{sent} and then {now}");
    assert_secret(shop.dir.path());
}

#[test]
fn a_refusal_says_what_to_do_and_never_the_key() {
    let shop = Workshop::new();
    shop.write("pairs.jsonl", pairs(3));
    let server = Server::start(|_, _| {
        (401, String::new(), format!("{{\"error\": \"Incorrect API key provided: {CANARY}\"}}"))
    });
    let ran = run(&shop, "l", judge(&server.url, &json!({"concurrency": 1})));
    let failure = ran.failure();
    assert!(failure.contains("401") && failure.contains("[key]"), "{failure}");
    assert!(failure.contains("key_env") && !failure.contains(CANARY), "{failure}");
    // A refusal is not asked for twice.
    assert_eq!(server.requests(), 1);
    let down = run(&shop, "down", judge("http://127.0.0.1:9/v1", &json!({"retries": 1})));
    assert!(down.failure().contains("gave no answer"), "{}", down.failure());
    let missing = judge(&server.url, &json!({"key_env": "NO_SUCH_KEY_HERE"}));
    let failure = run(&shop, "m", missing).failure();
    assert!(failure.contains("run: { env: [NO_SUCH_KEY_HERE] }"), "{failure}");
    let page = Server::start(|_, _| (200, String::new(), "<html>hello</html>".into()));
    let failure = run(&shop, "p", judge(&page.url, &json!({}))).failure();
    assert!(failure.contains("not an answer in the form"), "{failure}");
    assert_secret(shop.dir.path());
}

#[test]
fn a_pipeline_passes_the_key_on_and_keeps_it_nowhere() {
    let shop = Workshop::new();
    let server = Server::start(|_, request| {
        let [first, second] = shown(request).map(|a| number(&a));
        reply(if first > second { "A" } else { "B" })
    });
    shop.write("pairs.jsonl", pairs(4));
    let pipeline = |run: &str| {
        format!(
            "preflow: 1\nname: judged\nsources: {{ pairs: {{ path: pairs.jsonl, as: pairs }} }}\n\
             stages:\n  labels:\n    kind: collect_labels\n    pairs: pairs\n    labeler: {{ judge: \
             {{ endpoint: \"{}\", model: m, key_env: JUDGE_KEY }} }}\n{run}",
            server.url
        )
    };
    let preflow = Path::new(WORKER).with_file_name("preflow");
    assert!(preflow.exists(), "build it too: cargo test --workspace");
    let run = |more: &str, args: &[&str]| {
        shop.write("p.yaml", pipeline(more));
        let mut command = std::process::Command::new(&preflow);
        command.args(["run", "p.yaml"]).args(args).current_dir(shop.dir.path());
        command.env("PREFLOW_WORKER", WORKER).env("JUDGE_KEY", CANARY).env_remove("PREFLOW_CACHE");
        command.env("XDG_STATE_HOME", shop.dir.path().join(".state"));
        let output = command.output().expect("starts");
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.code())
    };
    // A stage sees only what it is told to be given.
    let (text, code) = run("", &[]);
    assert!(code == Some(1) && text.contains("run: { env: [JUDGE_KEY] }"), "{text}");
    let (text, code) = run("    run: { env: [JUDGE_KEY] }\n", &[]);
    assert!(code == Some(0) && !text.contains(CANARY), "{text}");
    let sent = server.requests();
    assert_eq!(sent, 8);
    // Made again from its beginning, it finds what it asked before.
    let (text, code) = run("    run: { env: [JUDGE_KEY] }\n", &["--force", "labels"]);
    assert!(code == Some(0) && server.requests() == sent, "{text}");
    assert!(shop.path("cache/answers-v1/collect_labels").is_dir());
    assert_secret(shop.dir.path());
}

#[test]
fn answers_without_a_verdict_are_asked_again_and_too_many_are_a_failure() {
    let shop = Workshop::new();
    shop.write("pairs.jsonl", pairs(20));
    // Of one pair it never says anything, of the others only when reminded.
    let server = Server::start(|_, request| {
        let messages = request["messages"].as_array().expect("messages");
        let text = messages[0]["content"].as_str().expect("text");
        let mute = text.contains("prompt 7\n");
        reply(if mute || messages.len() == 1 { "Both have merits." } else { "TIE" })
    });
    let none = json!({"key_env": ""});
    let ran = run(&shop, "l", judge(&server.url, &none));
    let summary = ran.summary();
    assert_eq!((summary["labels"], summary["labels/ties"]), (19.0, 19.0));
    assert_eq!((summary["labels/no_opinion"], summary["labels/contradictions"]), (1.0, 0.0));
    // 19 pairs in two orders with one reminder, one with two.
    assert_eq!(server.requests(), 19 * 2 * 2 + 2 * 3);
    assert_eq!(server.seen.lock().expect("log")[0].1, "", "no key is sent where none is asked for");
    let dumb = Server::start(|_, _| reply("I cannot say."));
    let failure = run(&shop, "d", judge(&dumb.url, &none)).failure();
    assert!(failure.contains("no verdict on 20 of 20 pairs"), "{failure}");
}

#[test]
fn a_reward_model_labels_by_its_rewards() {
    let shop = Workshop::new();
    golden::world(&shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(7) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
    let params = |tie_below: f64| json!({"labeler": {"model": {"tie_below": tie_below, "batch": 7}}, "ready_when": {"votes": 0, "alpha": -1.0}});
    let inputs: [(&str, &[&str]); 2] =
        [("pairs", &["pairs.pairs.parquet"]), ("reward", &["reward.reward"])];
    let ran = shop.run("m", "collect_labels", params(0.0), &inputs);
    let table = shop.table("m.labels.parquet");
    // The same rewards by the kind that scores.
    let column = |from: &str, to: &str| {
        let mut pairs = shop.table("pairs.pairs.parquet");
        pairs.rename(&[("completion".into(), from.into())].into()).expect("a column");
        pairs.rename(&[("finished".into(), to.into())].into()).expect("a column");
        preflow_stages::data::write_parquet(&shop.path("side.parquet"), &pairs).expect("written");
        let inputs: [(&str, &[&str]); 2] =
            [("model", &["reward.reward"]), ("answers", &["side.parquet"])];
        shop.run("s", "score", json!({}), &inputs).summary();
        shop.table("s.answers.parquet").floats("score", f64::NAN).expect("a column")
    };
    let (a, b) = (column("response_a", "finished_a"), column("response_b", "finished_b"));
    assert_eq!(ran.summary()["labels"] as usize, a.len());
    let certainty = table.floats("certainty", f64::NAN).expect("a column");
    for (i, choice) in table.texts("choice").expect("text").into_iter().enumerate() {
        let delta = a[i] - b[i];
        let expected = if delta > 0.0 {
            "a"
        } else if delta < 0.0 {
            "b"
        } else {
            "tie"
        };
        assert!(choice == expected || delta.abs() < 1e-5, "row {i}: {choice}, {delta}");
        assert!((certainty[i] - 1.0 / (1.0 + (-delta.abs()).exp())).abs() < 1e-5);
    }
    assert_eq!(table.texts("labeler").expect("text")[0], "model");
    assert!(ran.notes().contains("LABELS BY A MODEL"));
    let ties = shop.run("t", "collect_labels", params(1e6), &inputs).summary();
    assert_eq!(ties["labels/ties"], ties["labels"]);
    let alone = shop.run("n", "collect_labels", params(0.0), &inputs[..1]);
    assert!(alone.failure().contains("`reward` is not connected"), "{}", alone.failure());
    assert!(!matches!(alone.events.last(), Some(Event::Waiting { .. })));
}

#[test]
fn a_judge_scores_answers_as_a_named_reward_and_is_remembered() {
    let shop = Workshop::new();
    golden::world(&shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(4) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
    let unclear = Arc::new(AtomicUsize::new(0));
    let not_said = Arc::clone(&unclear);
    let server = Server::start(move |before, request| {
        let text = request["messages"][0]["content"].as_str().expect("text");
        let answer = text.split("<answer>\n").nth(1).and_then(|t| t.split("\n</answer>").next());
        let vowels = answer.expect("an answer").matches(['a', 'e', 'i', 'o', 'u']).count();
        let reminded = request["messages"].as_array().expect("messages").len() > 1;
        match (before, vowels % 3, reminded) {
            (0, 0, _) => (500, String::new(), "down".into()),
            (_, 1, false) => {
                unclear.fetch_add(1, Ordering::Relaxed);
                reply("I would rather not say.")
            }
            _ => reply(&format!("Because of its vowels.\nScore: {}/10", vowels.min(10))),
        }
    });
    // The same once more, by a program.
    shop.write("score.py", "import sys, json\nfor line in sys.stdin:\n    print(min(10, sum(c in 'aeiou' for c in json.loads(line)['response'])) / 10)\n");
    let run = |url: &str, more: Value| {
        let mut judge = json!({"endpoint": url, "model": "tiny-judge", "rubric": "Vowels count.",
                               "timeout": 5.0, "retries": 3, "key_env": ""});
        for (name, value) in more.as_object().expect("an object") {
            judge[name] = value.clone();
        }
        let named = json!([{"name": "judged", "weight": 2.0, "judge": judge},
                           {"name": "same", "weight": 0.0, "command": "python3 $IN_score"}]);
        let params = json!({"updates": 1, "batch": 16, "max_tokens": 8, "seed": 4,
                            "rewards": {"named": named}, "eos": {"mode": "keep"}});
        let inputs: [(&str, &[&str]); 3] =
            [("policy", &["sft.model"]), ("prompts", &["prompts.jsonl"]), ("files", &["score.py"])];
        shop.run("judged", "rloo", params, &inputs)
    };
    let figure = |ran: &Ran, name: &str| {
        let of = |e: &Event| match e {
            Event::Metric { values, .. } => values.get(name).copied().flatten(),
            _ => None,
        };
        ran.summary();
        ran.events.iter().find_map(of).expect("a figure")
    };
    let ran = run(&server.url, json!({}));
    let names = ["reward/judged/mean", "reward/judged/std", "reward/mean"];
    let [mean, std, total] = names.map(|name| figure(&ran, name));
    close(&[mean, std], &["mean", "std"].map(|n| figure(&ran, &format!("reward/same/{n}"))), 1e-9);
    close(&[total], &[2.0 * mean], 1e-9);
    assert!(std > 0.0, "all answers are worth the same: nothing was compared");
    let before = (server.requests(), not_said.load(Ordering::Relaxed));
    assert!(before.1 > 0, "nobody was reminded");
    let again = run(&server.url, json!({}));
    assert_eq!(figure(&again, "reward/judged/mean"), mean);
    // Only what was no score is asked again.
    let [asked, not_said] = [server.requests(), not_said.load(Ordering::Relaxed)];
    assert_eq!(asked - before.0, not_said - before.1, "what it answered is kept");

    let mute = Server::start(|_, _| reply("I cannot say."));
    let failure = run(&mute.url, json!({})).failure();
    assert!(
        failure.contains("gave no score for 5 of 5") && failure.contains("max_tokens"),
        "{failure}"
    );
    let failure = run("localhost:1", json!({})).failure();
    assert!(failure.contains("no http address"), "{failure}");
    let failure = run(&mute.url, json!({"key_env": "NO_SUCH_KEY"})).failure();
    assert!(failure.contains("NO_SUCH_KEY") && failure.contains("run: { env"), "{failure}");
}
