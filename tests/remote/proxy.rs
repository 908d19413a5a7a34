//! A proxy that does to connections what networks do: cuts, stalls, flips a bit, refuses.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    None,
    /// After so many bytes of answers, every connection is closed at once.
    CutAfter(u64),
    /// After so many bytes of answers this connection is closed; others go on. Once.
    CutOnce(u64),
    /// After so many bytes of requests, every connection is closed at once.
    CutUpAfter(u64),
    /// After so many bytes of answers nothing comes any more, and nothing is closed.
    StallAfter(u64),
    /// One bit of the answer is another, so many bytes on. Once.
    FlipAt(u64),
    /// The next so many requests get this status.
    Answer(u16, &'static str, u32),
    /// Answers come in pieces with a pause between.
    Slow(Duration),
}

struct State {
    fault: Mutex<Fault>,
    /// Bytes of answers and of requests since the fault was set.
    down: AtomicU64,
    up: AtomicU64,
    /// Requests that were answered here.
    answered: AtomicU64,
}

/// Listens on a port of its own until the process ends.
pub struct Proxy {
    pub address: String,
    state: Arc<State>,
}

impl Proxy {
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            fault: Mutex::new(Fault::None),
            down: AtomicU64::new(0),
            up: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let (shared, server) = (Arc::clone(&state), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (state, server) = (Arc::clone(&shared), server.clone());
                std::thread::spawn(move || connection(client, &server, &state));
            }
        });
        Self { address, state }
    }

    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("as it was made") = fault;
        self.state.down.store(0, Ordering::SeqCst);
        self.state.up.store(0, Ordering::SeqCst);
        self.state.answered.store(0, Ordering::SeqCst);
    }

    /// Bytes of answers since the fault was set.
    pub fn down(&self) -> u64 {
        self.state.down.load(Ordering::SeqCst)
    }

    /// Bytes of requests since the fault was set.
    pub fn up(&self) -> u64 {
        self.state.up.load(Ordering::SeqCst)
    }

    /// Requests that got the status of [`Fault::Answer`].
    pub fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }
}

impl State {
    fn fault(&self) -> Fault {
        self.fault.lock().expect("as it was made").clone()
    }

    /// Takes one of the refusals, if there are any left.
    fn refusal(&self) -> Option<(u16, &'static str)> {
        let mut fault = self.fault.lock().expect("as it was made");
        let Fault::Answer(status, code, left) = &mut *fault else { return None };
        if *left == 0 {
            return None;
        }
        *left -= 1;
        self.answered.fetch_add(1, Ordering::SeqCst);
        Some((*status, *code))
    }
}

fn connection(mut client: TcpStream, server: &str, state: &Arc<State>) {
    if let Some((status, code)) = state.refusal() {
        refuse(&mut client, status, code);
        return;
    }
    if let Fault::CutAfter(most) = state.fault()
        && state.down.load(Ordering::SeqCst) >= most
    {
        return;
    }
    let Ok(upstream) = TcpStream::connect(server) else { return };
    let (from, to) = (
        client.try_clone().expect("as it was made"),
        upstream.try_clone().expect("as it was made"),
    );
    let shared = Arc::clone(state);
    std::thread::spawn(move || requests(from, to, &shared));
    answers(upstream, client, state);
}

/// Reads one request whole and answers it as a service would.
fn refuse(client: &mut TcpStream, status: u16, code: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if client.read_exact(&mut body).is_err() {
        return;
    }
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message/></Error>");
    let body = if text.starts_with("head ") { String::new() } else { body };
    let _ = write!(
        client,
        "HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn requests(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        let before = state.up.fetch_add(n as u64, Ordering::SeqCst);
        if let Fault::CutUpAfter(most) = state.fault()
            && before + n as u64 > most
        {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn answers(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        // In one step: connections share the count, and each byte has one place in it.
        let before = state.down.fetch_add(n as u64, Ordering::SeqCst);
        let after = before + n as u64;
        match state.fault() {
            Fault::CutAfter(most) if after > most => break,
            Fault::CutOnce(most) if after > most => {
                *state.fault.lock().expect("as it was made") = Fault::None;
                break;
            }
            Fault::StallAfter(most) if after > most => {
                std::thread::sleep(Duration::from_secs(60));
                break;
            }
            Fault::FlipAt(at) if before <= at && at < after => {
                buffer[usize::try_from(at - before).expect("as it was made")] ^= 4;
                *state.fault.lock().expect("as it was made") = Fault::None;
            }
            Fault::Slow(pause) => std::thread::sleep(pause),
            _ => {}
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
