//! A headless Chromium, driven over its DevTools protocol: just what the tests need of it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// One browser at a time: two on two cores only wait for each other.
static ONE: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(20);

/// Notes what moves and what is run, from the first moment of every page.
const WATCH: &str = "window.__shift = 0; window.__hits = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.__shift += entry.value;
    }).observe({ type: 'layout-shift', buffered: true });";

/// A browser with one page.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    sent: u64,
    /// Errors and warnings on the console, exceptions, dialogs.
    pub complaints: Vec<String>,
    _home: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

fn program() -> PathBuf {
    let named = std::env::var("CHROME").ok();
    let names = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = named.into_iter().chain(names);
    let mut found = all.flat_map(|name| {
        let direct = name.contains('/').then(|| PathBuf::from(&name));
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        direct.into_iter().chain(dirs.into_iter().map(move |dir| dir.join(&name)))
    });
    found.find(|path| path.is_file()).expect("no Chromium: run scripts/browser.sh, or set CHROME")
}

impl Browser {
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().expect("temp");
        let mut command = Command::new(program());
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking"]);
        command.args(["--disable-component-update", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", home.path().display())).arg("about:blank");
        command.env("HOME", home.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("Chromium starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("DevTools listening on ")?.1.to_owned()))
            .expect("Chromium says where it listens");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let authority = url.trim_start_matches("ws://").split('/').next().expect("an authority");
        let stream = TcpStream::connect(authority).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let (socket, _) = tungstenite::client(&url, stream).expect("a socket");
        let mut browser = Self {
            child,
            socket,
            session: None,
            sent: 0,
            complaints: Vec::new(),
            _home: home,
            _one: one,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }));
        browser.screen(1280, 800);
        browser.dark(false);
        browser
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).expect("sent");
        loop {
            let text = match self.socket.read().expect("an answer of Chromium") {
                Message::Text(text) => text,
                _ => continue,
            };
            let reply: Value = serde_json::from_str(&text).expect("JSON");
            if reply["id"] == id {
                let error = &reply["error"];
                return if error.is_null() {
                    Ok(reply["result"].clone())
                } else {
                    Err(error.clone())
                };
            }
            self.hear(&reply);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" if params["type"] != "log" => params["args"].to_string(),
            "Runtime.exceptionThrown" => params["exceptionDetails"].to_string(),
            "Log.entryAdded" if params["entry"]["level"] != "verbose" => {
                let entry = &params["entry"];
                format!("{}: {} {}", entry["source"], entry["text"], entry["url"])
            }
            "Page.javascriptDialogOpening" => {
                // Left open it would stop the page for good.
                self.sent += 1;
                let answer = json!({ "id": self.sent, "sessionId": self.session,
                    "method": "Page.handleJavaScriptDialog", "params": { "accept": false } });
                self.socket.send(Message::text(answer.to_string())).expect("sent");
                format!("dialog: {}", params["message"])
            }
            _ => return,
        };
        self.complaints.push(complaint);
    }

    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let reply = self.call("Runtime.evaluate", params);
        assert!(reply["exceptionDetails"].is_null(), "{expression}: {reply}");
        reply["result"]["value"].clone()
    }

    pub fn text(&mut self, id: &str) -> String {
        let value = self.eval(&format!("document.getElementById('{id}').textContent"));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true; a page that is just loading counts as false.
    pub fn wait(&mut self, expression: &str) {
        let start = Instant::now();
        let guarded = format!(
            "(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        );
        let params = json!({ "expression": guarded, "returnByValue": true });
        // An error: the page is just being left.
        while self
            .try_call("Runtime.evaluate", params.clone())
            .map(|r| r["result"]["value"] == true)
            != Ok(true)
        {
            let page = "document.body.innerText";
            assert!(start.elapsed() < PATIENCE, "never: {expression}\n{}", self.eval(page));
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Presses a key on a keyboard as in the US.
    pub fn key(&mut self, key: &str, shift: bool) {
        let code = match key {
            k if k.len() == 1 && k.as_bytes()[0].is_ascii_digit() => format!("Digit{key}"),
            "=" => "Equal".to_owned(),
            "/" | "?" => "Slash".to_owned(),
            k if k.len() == 1 => format!("Key{}", k.to_uppercase()),
            k => k.to_owned(),
        };
        let virtual_key = match key {
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "Escape" => 27,
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        let mut event = json!({ "type": "rawKeyDown", "key": key, "code": code,
            "modifiers": if shift { 8 } else { 0 }, "windowsVirtualKeyCode": virtual_key });
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event);
    }

    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    pub fn screen(&mut self, width: u32, height: u32) {
        let phone = width < 700;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "mobile": phone,
                "deviceScaleFactor": if phone { 2 } else { 1 } }),
        );
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": phone }));
    }

    /// Nothing moves in either: half-way through a transition colours are not those of the page.
    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": value },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Writes a picture of the page where PREFLOW_SHOTS names a folder.
    pub fn shoot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("PREFLOW_SHOTS") else { return };
        std::thread::sleep(Duration::from_millis(400));
        let reply = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = reply["data"].as_str().expect("a picture");
        std::fs::create_dir_all(&folder).expect("made");
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, decode_base64(data)).expect("written");
    }

    /// What axe-core finds, as one line each.
    pub fn axe(&mut self) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        let found = std::fs::read_dir(&folder).ok().into_iter().flatten().flatten();
        let path = found.map(|e| e.path().join("axe.min.js")).find(|path| path.is_file());
        let path = path.expect("no axe-core: run scripts/browser.sh");
        let source = std::fs::read_to_string(path).expect("readable");
        self.eval(&format!("{source}; true"));
        let found = self.eval(
            "axe.run().then((r) => r.violations.map((v) => `${v.id}: ${v.help} ${v.nodes.map((n) \
             => n.html + ' ' + n.failureSummary).join(' | ')}`))",
        );
        let list = found.as_array().expect("a list");
        list.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for value in text.bytes().filter_map(|b| LETTERS.iter().position(|l| *l == b)) {
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
