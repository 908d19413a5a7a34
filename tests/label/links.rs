//! Links, the sessions that they become, and keys that are not ours: who gets in and who does not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use super::cdp::Browser;
use super::support::{Client, Server, Workspace, numbered};

/// Answers everything, and tells the heads of all requests.
fn listener() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    let (heard, all) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let head: Vec<String> =
                lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let _ = (&stream).write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
            );
            let _ = heard.send(head.join("\n"));
        }
    });
    (address, all)
}

#[test]
fn another_server_on_this_machine_hears_of_no_cookie() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    let place = browser.eval("location.href").as_str().expect("text").to_owned();
    assert!(place.starts_with(&format!("{}/at/", server.base())), "{place}");
    let (address, heard) = listener();
    browser.go(&format!("http://{address}/"));
    browser.wait("document.body?.textContent === 'hi'");
    let head = heard.recv().expect("a request").to_lowercase();
    assert!(head.starts_with("get / http"), "{head}");
    assert!(!head.contains("cookie"), "{head}");
    // Back on the page the session is still there, on another port it would be too.
    browser.go(&place);
    browser.wait("document.body.dataset.view === 'work'");
    // What a browser keeps is no link, here or at another server of the same pages.
    let client = Client::enter(&server.link("ann"), "ann");
    let session = client.cookie.split_once('=').expect("a value").1.to_owned();
    assert!(!server.link("ann").contains(&session));
    let other = Workspace::new(&numbered(5), "", 0);
    let elsewhere = Server::start(&other, &["--port", "0", "--annotator", "ann"]);
    for base in [server.base(), elsewhere.base()] {
        let mut reply = ureq::get(format!("{base}/in/{session}"))
            .config()
            .http_status_as_error(false)
            .build()
            .call()
            .expect("an answer");
        assert_eq!(reply.status(), 401, "{}", reply.body_mut().read_to_string().expect("text"));
    }
    let mut theirs = client;
    elsewhere.base().clone_into(&mut theirs.base);
    assert_eq!(theirs.get("/api/progress").0, 401);
}

fn said(workspace: &Workspace, words: &[&str]) -> (Option<i32>, String) {
    let output = workspace.command(words).output().expect("starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn links_are_listed_and_taken_back_one_by_one() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--share", "ann,bob"]);
    let ann = Client::enter(&server.link("ann"), "ann");
    let bob = Client::enter(&server.link("bob"), "bob");
    let page = ["demo.yaml", "labels"];
    let list = |extra: &[&str]| said(&workspace, &[&["label", "links"], &page[..], extra].concat());
    let (code, text) = list(&[]);
    assert_eq!(code, Some(0), "{text}");
    for name in ["ann", "bob", "admin"] {
        assert!(text.lines().any(|l| l.contains(name) && l.contains("valid until 20")), "{text}");
    }
    assert!(!text.contains(server.link("ann").rsplit('.').next().expect("signed")), "no secrets");
    let revoke = |word: &str| {
        said(&workspace, &[&["label", "revoke"], &page[..], &["--link", word]].concat())
    };
    let (code, text) = revoke("carol");
    assert!(code == Some(2) && text.contains("no link `carol` was given"), "{text}");
    let (code, text) = revoke("ann");
    assert!(code == Some(0) && text.contains("1 link taken back"), "{text}");
    assert_eq!(ann.get("/api/progress").0, 401, "an open page ends at once");
    assert_eq!(bob.get("/api/progress").0, 200);
    let mut reply = ureq::get(server.link("ann"))
        .config()
        .http_status_as_error(false)
        .build()
        .call()
        .expect("an answer");
    assert_eq!(reply.status(), 401, "{}", reply.body_mut().read_to_string().expect("text"));
    let links: Value = serde_json::from_str(&list(&["--json"]).1).expect("JSON");
    let of = |name: &str| {
        let all = links["links"].as_array().expect("a list");
        all.iter().find(|l| l["name"] == name).expect("listed").clone()
    };
    assert_eq!((&of("ann")["revoked"], &of("bob")["revoked"]), (&true.into(), &false.into()));
    // One of two links of one person; it stays so when the page is served again.
    let port = server.port();
    server.kill();
    let server = Server::start(&workspace, &["--port", &port, "--share", "bob", "--expires", "2d"]);
    assert_eq!(bob.get("/api/progress").0, 200, "sessions outlive the server");
    let (code, text) = revoke(of("bob")["link"].as_str().expect("text"));
    assert!(code == Some(0) && text.contains("1 link taken back"), "{text}");
    assert_eq!(bob.get("/api/progress").0, 401);
    assert_eq!(Client::enter(&server.link("bob"), "bob").get("/api/progress").0, 200);
}

/// Whatever lies in the store came with the repository, for all that anybody knows.
#[test]
fn a_key_or_screens_that_a_repository_carries_are_not_used() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let label = workspace.path("cache/label");
    std::fs::create_dir_all(&label).expect("made");
    std::fs::write(label.join("key"), [65; 32]).expect("written");
    let target = workspace.path("target");
    std::fs::write(&target, "mine").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&target, mode).expect("set");
    for name in ["labels.leases", "labels.lock"] {
        std::os::unix::fs::symlink(&target, label.join(name)).expect("linked");
    }
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    // The format of links is no secret; the key is.
    let votes = workspace.path("votes").canonicalize().unwrap_or(workspace.path("votes"));
    let dir = tempfile::tempdir().expect("temp");
    std::fs::copy(label.join("key"), dir.path().join("key")).expect("copied");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.path().join("key"), mode).expect("set");
    let scope = ["demo", "labels", &*votes.to_string_lossy()];
    let forger = preflow::http::Signer::open(dir.path(), &scope).expect("a key");
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1000);
    let token = forger.sign(preflow::http::Role::Admin, "admin", later);
    let mut reply = ureq::get(format!("{}/in/{token}", server.base()))
        .config()
        .http_status_as_error(false)
        .build()
        .call()
        .expect("an answer");
    assert_eq!(reply.status(), 401, "{}", reply.body_mut().read_to_string().expect("text"));
    let client = Client::enter(&server.link("ann"), "ann");
    assert_eq!(client.next(1)["order"].as_array().expect("a list").len(), 1);
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "mine");
    let meta = std::fs::metadata(&target).expect("there");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o644);
    // Ours lies in the user's own folder, closed to others.
    let key = std::fs::metadata(workspace.private("key")).expect("there");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
}

/// Requests can be logged; what lets somebody in is in no line.
#[test]
fn a_log_of_requests_holds_no_link_and_no_session() {
    let workspace = Workspace::new(&numbered(5), "", 0);
    let script = "PREFLOW_LOG=http=info exec \"$0\" \"$@\" 2> log.txt";
    let words = ["--port", "0", "--annotator", "ann"];
    let server = Server::start_under(&workspace, &["sh", "-c", script], &words);
    let link = server.link("ann");
    let client = Client::enter(&link, "ann");
    // The pages lie below the path of the cookie too.
    let entered = ureq::get(&link).call().expect("an answer");
    let cookie = entered.headers().get("set-cookie").expect("a cookie").to_str().expect("text");
    let place = cookie.split("Path=").nth(1).expect("a path").split(';').next().expect("a path");
    assert!(place.starts_with("/at/"), "{place}");
    let below = format!("{place}api/progress");
    assert_eq!(client.get(&below).0, 200);
    assert_eq!(server.interrupt().0, Some(0));
    let log = std::fs::read_to_string(workspace.path("log.txt")).expect("a log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("request{")).collect();
    assert!(lines.iter().any(|l| l.contains("route=\"/in/{token}\"")), "{log}");
    assert!(lines.iter().any(|l| l.contains("route=\"/api/progress\"")), "{log}");
    assert!(lines.iter().all(|l| l.contains("status=") && l.contains(" ms=")), "{log}");
    let token = link.rsplit('/').next().expect("a token");
    let (name, session) = client.cookie.split_once('=').expect("a session");
    for secret in [token, session, name, place] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}
