//! A service that plays a hub, and a second one that plays the place where it keeps large files.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Path → bytes, large or not.
type Content = BTreeMap<String, (Vec<u8>, bool)>;

/// What the hub holds, and how it behaves.
#[derive(Default)]
pub struct Held {
    /// Repository, with `datasets/` before it → branch or commit → commit.
    pub revisions: BTreeMap<(String, String), String>,
    /// Repository and commit → what it holds.
    pub files: BTreeMap<(String, String), Content>,
    /// Answers for large files end after so many bytes; each such answer takes the next.
    pub cuts: Vec<usize>,
    /// Ranges are not known.
    pub no_ranges: bool,
    /// These bytes are given in place of a large file's.
    pub other: Option<Vec<u8>>,
    /// Only who has this token is let in.
    pub token: Option<String>,
    /// In place of every answer: status and code.
    pub refuses: Option<(u16, &'static str)>,
    /// What was asked: `hub` or `files`, path, range, right.
    pub asked: Vec<(String, String, String, String)>,
}

/// The hub, as long as the test lasts.
#[derive(Clone)]
pub struct Hub {
    pub held: Arc<Mutex<Held>>,
    pub address: String,
}

pub fn sha256(bytes: &[u8]) -> String {
    const_hex::encode(Sha256::digest(bytes))
}

fn blob(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    const_hex::encode(hash.finalize())
}

impl Hub {
    pub fn start() -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let large = listen("files", Arc::clone(&held), String::new());
        let address = listen("hub", Arc::clone(&held), large);
        Self { held, address }
    }

    /// A commit of a repository that a branch leads to; files of 100 bytes and more are large.
    pub fn commit(&self, repository: &str, branch: &str, files: &[(&str, &[u8])]) -> String {
        let mut held = self.held.lock().expect("held");
        let of = |(path, bytes): &(&str, &[u8])| {
            ((*path).to_owned(), (bytes.to_vec(), bytes.len() >= 100))
        };
        let files: BTreeMap<_, _> = files.iter().map(of).collect();
        let commit = blob(format!("{repository} {files:?}").as_bytes());
        for revision in [branch, &commit] {
            let key = (repository.to_owned(), revision.to_owned());
            held.revisions.insert(key, commit.clone());
        }
        held.files.insert((repository.to_owned(), commit.clone()), files);
        commit
    }

    pub fn set(&self, how: impl FnOnce(&mut Held)) {
        how(&mut self.held.lock().expect("held"));
    }

    /// What was asked since the last time.
    pub fn take_asked(&self) -> Vec<(String, String, String, String)> {
        std::mem::take(&mut self.held.lock().expect("held").asked)
    }
}

fn listen(who: &'static str, held: Arc<Mutex<Held>>, large: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (held, large) = (Arc::clone(&held), large.clone());
            std::thread::spawn(move || converse(who, &stream, &held, &large));
        }
    });
    // Another name than 127.0.0.1, so that the two are two hosts.
    let host = if who == "hub" { "localhost" } else { "127.0.0.1" };
    format!("http://{host}:{port}")
}

/// One request a connection.
fn converse(who: &str, stream: &TcpStream, held: &Mutex<Held>, large: &str) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut range, mut right) = (String::new(), String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "range" => range = value.to_owned(),
            "authorization" => right = value.to_owned(),
            _ => {}
        }
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut held = held.lock().expect("held");
    held.asked.push((who.to_owned(), path.clone(), range.clone(), right.clone()));
    let answer = match (held.refuses, who) {
        (Some((status, code)), _) => refusal(status, code),
        (None, "hub") => of_hub(&held, &path, &right, large),
        (None, _) => of_files(&mut held, &path, &range),
    };
    drop(held);
    { stream }.write_all(&answer).ok()
}

fn refusal(status: u16, code: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nx-error-code: {code}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .into_bytes()
}

fn whole(bytes: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes].concat()
}

fn of_hub(held: &Held, path: &str, right: &str, large: &str) -> Vec<u8> {
    if held.token.as_ref().is_some_and(|token| right != format!("Bearer {token}")) {
        return refusal(401, "RepoNotFound");
    }
    if let Some(rest) = path.strip_prefix("/api/") {
        let rest = rest.strip_prefix("models/").unwrap_or(rest);
        let Some((repository, revision)) = rest.split_once("/revision/") else {
            return refusal(404, "RepoNotFound");
        };
        let revision = revision.trim_end_matches("?blobs=true").replace("%2F", "/");
        let Some(commit) = held.revisions.get(&(repository.to_owned(), revision)) else {
            let known = held.revisions.keys().any(|(name, _)| name == repository);
            return refusal(404, if known { "RevisionNotFound" } else { "RepoNotFound" });
        };
        let siblings = held.files[&(repository.to_owned(), commit.clone())].iter().map(
            |(path, (bytes, large))| {
                let lfs = large.then(|| json!({ "sha256": sha256(bytes), "size": bytes.len() }));
                json!({ "rfilename": path, "size": bytes.len(), "blobId": blob(bytes), "lfs": lfs })
            },
        );
        let siblings: Vec<_> = siblings.collect();
        return whole(json!({ "sha": commit, "siblings": siblings }).to_string().as_bytes());
    }
    let found = path.trim_start_matches('/').split_once("/resolve/").and_then(|(name, rest)| {
        let (commit, file) = rest.split_once('/')?;
        held.files.get(&(name.to_owned(), commit.to_owned()))?.get(file)
    });
    match found {
        None => refusal(404, "EntryNotFound"),
        Some((bytes, false)) => whole(bytes),
        Some((bytes, true)) => format!(
            "HTTP/1.1 302 Found\r\nlocation: {large}/{}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            sha256(bytes)
        )
        .into_bytes(),
    }
}

fn of_files(held: &mut Held, path: &str, range: &str) -> Vec<u8> {
    let all = held.files.values().flat_map(|files| files.values());
    let wanted = path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let wanted = wanted.split('/').next().unwrap_or_default();
    let Some(bytes) = all.map(|(bytes, _)| bytes).find(|bytes| sha256(bytes) == wanted) else {
        return refusal(404, "");
    };
    let bytes = held.other.clone().unwrap_or_else(|| bytes.clone());
    let start: usize =
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    let start = if held.no_ranges { 0 } else { start };
    if start > 0 && start >= bytes.len() {
        return refusal(416, "");
    }
    let (status, end) = (if start > 0 { 206 } else { 200 }, bytes.len());
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{end}\r\n\
         connection: close\r\n\r\n",
        end - start,
        end - 1,
    );
    let mut answer = [head.as_bytes(), &bytes[start..]].concat();
    if !held.cuts.is_empty() {
        answer.truncate(head.len() + held.cuts.remove(0));
    }
    answer
}
