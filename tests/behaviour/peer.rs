//! A service on this machine that answers JSON, as tests want it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

/// What was asked.
pub struct Asked {
    pub how: String,
    /// With its query.
    pub path: String,
    pub body: Value,
    /// The header that says who asks, in lower case.
    pub right: String,
}

/// Starts a service for the rest of the test; returns its address.
pub fn serve(answer: impl Fn(&Asked) -> (u16, Value) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(stream, &answer));
        }
    });
    address
}

fn converse(stream: TcpStream, answer: &impl Fn(&Asked) -> (u16, Value)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (mut length, mut right) = (0, String::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
            if header.starts_with("authorization: ") || header.starts_with("private-token: ") {
                right = header;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = line.split(' ').map(str::to_owned);
        let asked = Asked {
            how: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            right,
        };
        let (status, value) = answer(&asked);
        let text = if value.is_null() { String::new() } else { value.to_string() };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", text.len());
        (&stream).write_all(format!("{head}{text}").as_bytes())?;
    }
}
