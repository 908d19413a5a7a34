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

#[test]
fn too_many_connections_are_turned_away_and_those_inside_go_on() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let (address, client) = (server.address(), Client::enter(&server.link("ann"), "ann"));
    let mut crowd: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(&address).expect("a connection")).collect();
    // The annotator's connection is open already.
    let question = client.next(1)["order"][0].clone();
    assert_eq!(client.post("/api/vote", &client.vote_body("one", &question, "left")).0, 200);
    let mut turned_away = 0;
    for stream in &mut crowd[400..] {
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        turned_away += usize::from(answer.starts_with("HTTP/1.1 503"));
    }
    assert_eq!(turned_away, 100);
    drop(crowd);
    let start = Instant::now();
    while !raw(&address, b"GET / HTTP/1.0\r\n\r\n", Duration::from_secs(2)).contains(" 403 ") {
        assert!(start.elapsed() < Duration::from_secs(5), "nobody gets in any more");
    }
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
