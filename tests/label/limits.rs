//! Clients that are slow, greedy or many, and a disk that is full: the server stays, and nothing is
//! lost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{Client, Server, Workspace, lines, numbered, raw};

#[test]
fn a_client_that_never_finishes_is_let_go() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let (address, client) = (server.address(), Client::enter(&server.link("ann"), "ann"));
    let patience = Duration::from_secs(25);
    std::thread::scope(|scope| {
        let slow_head = scope.spawn(|| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
            let mut byte = [0; 1];
            // One byte of the head at a time, for as long as the other end listens.
            for part in
                b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ".iter().chain([b'y'].iter().cycle())
            {
                let sent = stream.write_all(&[*part]);
                let closed = matches!(stream.read(&mut byte), Ok(0)) || sent.is_err();
                if closed || start.elapsed() > patience {
                    break;
                }
            }
            start.elapsed()
        });
        let slow_body = scope.spawn(|| {
            let start = Instant::now();
            let head = format!(
                "POST /api/vote HTTP/1.1\r\nhost: {address}\r\norigin: http://{address}\r\n\
                 cookie: {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
                client.cookie
            );
            let answer = raw(&address, head.as_bytes(), patience);
            (answer, start.elapsed())
        });
        let (answer, took) = slow_body.join().expect("done");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(took < patience, "{took:?}");
        let took = slow_head.join().expect("done");
        assert!((Duration::from_secs(5)..patience).contains(&took), "{took:?}");
    });
    assert_eq!(client.next(1)["order"].as_array().expect("a list").len(), 1);
}

#[test]
fn what_is_too_large_is_refused() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let (address, client) = (server.address(), Client::enter(&server.link("ann"), "ann"));
    let question = client.next(1)["order"][0].clone();
    let mut body = client.vote_body("one", &question, "left");
    body["vote"]["note"] = json!("x".repeat(70_000));
    let (status, reply) = client.post("/api/vote", &body);
    assert_eq!(status, 413, "{reply}");
    body["vote"]["note"] = json!("x".repeat(3000));
    assert_eq!(client.post("/api/vote", &body).0, 422);
    let head = |rest: &str| {
        format!(
            "POST /api/vote HTTP/1.1\r\nhost: {address}\r\norigin: http://{address}\r\n\
             cookie: {}\r\ncontent-type: application/json\r\n{rest}",
            client.cookie
        )
    };
    let patience = Duration::from_secs(5);
    // Without a length told beforehand.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let endless = head("transfer-encoding: chunked\r\n\r\n") + &chunk.repeat(4);
    let answer = raw(&address, endless.as_bytes(), patience);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let answer =
        raw(&address, head(&format!("x: {}\r\n\r\n", "y".repeat(300_000))).as_bytes(), patience);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(lines(&workspace.path("votes/ann.jsonl")), 0);
    assert_eq!(client.post("/api/vote", &client.vote_body("one", &question, "left")).0, 200);
}

/// Clients that say nothing, or a part of something, and wait.
fn crowd(address: &str, count: usize) -> Vec<TcpStream> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |most| most.min(8192));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("raised");
    let one = |i: usize| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        if i.is_multiple_of(2) {
            stream.write_all(b"GET /page.css HTTP/1.1\r\nhost: 127.").expect("sent");
        }
        stream
    };
    (0..count).map(one).collect()
}

#[test]
fn a_thousand_slow_clients_keep_nobody_from_labelling() {
    let workspace = Workspace::new(&numbered(50), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--share", "ann,bob"]);
    let (address, ann) = (server.address(), Client::enter(&server.link("ann"), "ann"));
    let mut crowd = crowd(&address, 1000);
    let vote = |client: &Client, n: usize| {
        let question = client.next(1)["order"][0].clone();
        let body = client.vote_body(&format!("{}-{n}", client.name), &question, "left");
        assert_eq!(client.post("/api/vote", &body).0, 200);
    };
    // Who is inside goes on, who comes gets in, while others keep coming.
    vote(&ann, 1);
    let bob = Client::enter(&server.link("bob"), "bob");
    for n in 2..10 {
        vote(&ann, n);
        vote(&bob, n);
        for _ in 0..100 {
            crowd.push(TcpStream::connect(&address).expect("a connection"));
        }
    }
    assert_eq!(lines(&workspace.path("votes/ann.jsonl")), 9);
    assert_eq!(lines(&workspace.path("votes/bob.jsonl")), 8);
    // The first of the crowd made room.
    crowd[0].set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    assert!(
        !matches!(crowd[0].read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    );
    let (code, took) = server.interrupt();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_full_disk_is_told_and_the_vote_is_kept_the_next_time() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let client = Client::enter(&server.link("ann"), "ann");
    let order = client.next(2)["order"].clone();
    assert_eq!(client.post("/api/vote", &client.vote_body("one", &order[0], "left")).0, 200);
    let port = server.port();
    let words = ["--port", port.as_str(), "--annotator", "ann"];
    server.kill();
    let full = "inject=fdatasync:error=ENOSPC";
    // -D: the server is our child, strace is not; it ends with the server.
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", full];
    let server = Server::start_under(&workspace, &strace, &words);
    let second = client.vote_body("two", &order[1], "left");
    for _ in 0..2 {
        let (status, reply) = client.post("/api/vote", &second);
        assert_eq!(status, 507, "{reply}");
        assert!(reply["error"].as_str().expect("words").contains("free space"), "{reply}");
        assert_eq!(lines(&workspace.path("votes/ann.jsonl")), 1);
    }
    server.kill();
    let _server = Server::start(&workspace, &words);
    assert_eq!(client.post("/api/vote", &second).0, 200);
    assert_eq!(lines(&workspace.path("votes/ann.jsonl")), 2);
    assert_eq!(lines(&workspace.path("votes/pairs/ann.jsonl")), 2);
}

#[test]
fn what_cannot_be_served_is_said_beforehand() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let refused = |words: &[&str]| {
        let mut command = workspace.command(&["label", "serve", "demo.yaml", "labels"]);
        let output = command.args(words).output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    assert!(refused(&["--port", "0"]).contains(server.base()));
    assert!(refused(&["--listen", "0.0.0.0"]).contains("--share"));
    assert!(refused(&["--annotator", "Ann B"]).contains("lower-case"));
    assert!(refused(&["--expires", "soon"]).contains("30"));
    let port = server.port();
    drop(server);
    let other = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("bound");
    assert!(refused(&["--port", &port]).contains("--port"));
    drop(other);
    assert!(refused(&["--public-url", "https://example.org/label"]).contains("path"));
}
