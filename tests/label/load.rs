//! Sixteen annotators at once, answers sent twice, and a server that is killed again and again: no
//! vote that was acknowledged is lost, none counts twice, no pair is asked beyond its overlap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use preflow::votes::Choice;

use super::support::{Client, Server, Workspace, numbered};

const ANNOTATORS: usize = 16;
const PAIRS: usize = 3000;
const KILL_EVERY: usize = 400;
const LONGEST: Duration = Duration::from_secs(120);

struct Annotator<'a> {
    client: Client,
    acknowledged: &'a Mutex<BTreeSet<(String, String)>>,
    done: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

impl Annotator<'_> {
    /// Votes on whatever is asked, holding questions over as a page does, until nothing is left.
    fn work(&self) {
        let mut hand: Vec<serde_json::Value> = Vec::new();
        let mut count = 0usize;
        while !self.stop.load(Ordering::Relaxed) {
            if hand.is_empty() {
                let body = serde_json::json!({
                    "as": self.client.name, "count": 4, "pairs": self.client.pairs,
                });
                let Ok((200, reply)) = self.client.try_post("/api/next", &body) else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                hand = reply["order"].as_array().expect("a list").clone();
                if hand.is_empty() {
                    if reply["progress"]["left"] == 0 {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
            }
            let question = hand.remove(0);
            count += 1;
            let id = format!("{}-{count}", self.client.name);
            let body = self.client.vote_body(&id, &question, "left");
            // A fifth is sent twice, the second before anybody looks at the first answer.
            let twice = count.is_multiple_of(5);
            let mut sent = 0;
            while sent < 1 + usize::from(twice) {
                match self.client.try_post("/api/vote", &body) {
                    Ok((200, reply)) => {
                        assert_eq!(reply["vote"]["id"], id.as_str());
                        sent += 1;
                    }
                    Ok((status, reply)) => panic!("{status} {reply}"),
                    Err(_) if self.stop.load(Ordering::Relaxed) => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
            self.acknowledged.lock().expect("held").insert((self.client.name.clone(), id));
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_the_overlap_is_exact() {
    let settings = "        overlap: { fraction: 30%, annotators: 3 }";
    let workspace = Workspace::new(&numbered(PAIRS), settings, 0);
    let names: Vec<String> = (0..ANNOTATORS).map(|i| format!("ann{i}")).collect();
    let share = names.join(",");
    let mut server = Server::start(&workspace, &["--port", "0", "--share", &share]);
    let port = server.port();
    let clients: Vec<Client> =
        names.iter().map(|name| Client::enter(&server.link(name), name)).collect();
    let acknowledged = Mutex::new(BTreeSet::new());
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut kills = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .map(|client| Annotator {
                client: client.clone(),
                acknowledged: &acknowledged,
                done: &done,
                stop: &stop,
            })
            .map(|annotator| scope.spawn(move || annotator.work()))
            .collect();
        let started = Instant::now();
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            if started.elapsed() > LONGEST {
                stop.store(true, Ordering::Relaxed);
            }
            if done.load(Ordering::Relaxed) >= (kills + 1) * KILL_EVERY {
                kills += 1;
                server.kill();
                server = Server::start(&workspace, &["--port", &port, "--share", &share]);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(!stop.load(Ordering::Relaxed), "not done after {LONGEST:?}");
    assert!(kills >= 3, "the server was killed only {kills} times");
    let acknowledged = acknowledged.into_inner().expect("held");
    let mut kept = BTreeSet::new();
    let mut per_pair: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut lines = 0;
    for (annotator, votes) in workspace.votes() {
        // Submissions that stand there twice would be passed over by the reader: count lines too.
        lines += super::support::lines(&workspace.path("votes").join(format!("{annotator}.jsonl")));
        for vote in votes {
            assert!(matches!(vote.choice, Choice::A));
            assert!(per_pair.entry(vote.pair).or_default().insert(annotator.clone()));
            kept.insert((annotator.clone(), vote.id));
        }
    }
    assert_eq!(lines, kept.len(), "a submission was written twice");
    assert_eq!(kept, acknowledged);
    assert_eq!(per_pair.len(), PAIRS);
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    for voters in per_pair.values() {
        *sizes.entry(voters.len()).or_default() += 1;
    }
    assert_eq!(sizes.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 3]), "{sizes:?}");
    let share = sizes[&3] as f64 / PAIRS as f64;
    assert!((0.22..0.38).contains(&share), "{share} of the pairs have three votes");
}

/// A measurement, not a check: `cargo test --release --test label -- --ignored --nocapture latency`.
#[test]
#[ignore = "prints figures"]
fn latency_with_a_hundred_thousand_pairs() {
    let settings = "        overlap: { fraction: 20%, annotators: 2 }\n        \
                    quality: { repeats: 5% }";
    let start = Instant::now();
    let workspace = Workspace::new(&numbered(100_000), settings, 0);
    println!("pairs written      {:?}", start.elapsed());
    let start = Instant::now();
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    println!("server ready       {:?}", start.elapsed());
    let client = Client::enter(&server.link("ann"), "ann");
    let mut hand = client.next(4)["order"].as_array().expect("a list").clone();
    let mut times = Vec::new();
    for i in 0..6000 {
        let question = hand.remove(0);
        let body = client.vote_body(&format!("v{i}"), &question, "left");
        let start = Instant::now();
        let (status, reply) = client.post("/api/vote", &body);
        times.push(start.elapsed());
        assert_eq!(status, 200, "{reply}");
        hand = reply["hand"]["order"].as_array().expect("a list").clone();
        if i % 2000 == 1999 {
            times.sort();
            let [p50, p95, p99] = [50, 95, 99].map(|p| times[times.len() * p / 100]);
            println!(
                "votes {:>5}  p50 {p50:?}  p95 {p95:?}  p99 {p99:?}  {}",
                i + 1,
                server.memory()
            );
            times.clear();
        }
    }
    drop(server);
    let start = Instant::now();
    let _server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    println!("ready again        {:?}", start.elapsed());
}
