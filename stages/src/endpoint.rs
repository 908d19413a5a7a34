//! Questions to an OpenAI-compatible `/chat/completions`: patience, secrecy, and a memory of what
//! was answered. Knows nothing of what is asked.

mod judge;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backon::{BlockingRetryable as _, ExponentialBuilder};
use preflow::store::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::advice::error_with_help;

pub use judge::{JudgeParams, Judging, last_words};

/// First wait before a request is sent again, and the longest.
const WAIT: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// A server that wants more patience than this gets no more requests.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest answer of a server that is read.
const LONGEST: u64 = 4 << 20;
/// Characters of a server's complaint that are shown.
const EXCERPT: usize = 300;

/// Where and how questions are asked.
pub struct Chat {
    /// `…/chat/completions`.
    url: String,
    key: Option<Key>,
    agent: ureq::Agent,
    /// The param that holds all this.
    field: String,
    model: String,
    temperature: f64,
    max_tokens: u32,
    retries: u32,
    answers: PathBuf,
    /// Requests sent, those sent again included.
    sent: AtomicU64,
}

/// What a pipeline says of an endpoint.
pub struct Endpoint<'a> {
    /// The param that says it, for messages.
    pub field: &'a str,
    pub url: &'a str,
    pub key_env: &'a str,
    pub model: &'a str,
    pub temperature: f64,
    pub max_tokens: u32,
    pub timeout: f64,
    pub retries: u32,
}

/// A secret. It is no `Debug`, and leaves this file in a header only.
struct Key(String);

impl Key {
    /// The text with the secret blotted out: servers quote what they were sent.
    fn blot(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct ChatMessage {
    pub role: &'static str,
    pub content: String,
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    reply: String,
}

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{status} {reason}: {body}")]
    Status { status: u16, reason: String, body: String, after: Option<Duration> },
    #[error("{0}")]
    Connection(String),
    #[error("not an answer in the form of chat completions: {0}")]
    Form(String),
}

impl Refusal {
    /// Worth another try: the server is busy or broken, or cannot be reached.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, after, .. } => {
                let waits = after.is_none_or(|after| after <= PATIENCE);
                (matches!(status, 408 | 425 | 429) || *status >= 500) && waits
            }
            Self::Connection(_) => true,
            Self::Form(_) => false,
        }
    }

    fn after(&self) -> Duration {
        match self {
            Self::Status { after: Some(after), .. } => *after,
            _ => Duration::ZERO,
        }
    }

    fn help(&self, endpoint: &str, field: &str) -> String {
        match self {
            Self::Status { status: 401 | 403, .. } => {
                format!("the server does not take this key: see {field}.key_env")
            }
            Self::Status { status: 404, .. } => {
                format!(
                    "is `{endpoint}` the base of the API (it often ends in /v1), and the model there?"
                )
            }
            Self::Status { status, .. } if *status < 500 && *status != 429 => {
                format!("the server understood and refused: see {field}")
            }
            Self::Form(_) => "is this the base of an OpenAI-compatible API?".into(),
            _ => format!(
                "run again when it works: answers so far are kept; or raise {field}.retries"
            ),
        }
    }
}

impl Chat {
    /// Questions to `endpoint`; answers are kept in the folder `answers`.
    ///
    /// # Errors
    /// When the address cannot be one, or the key is not in the environment.
    pub fn new(endpoint: &Endpoint, answers: PathBuf) -> Result<Self> {
        let url = format!("{}/chat/completions", checked(endpoint.url, endpoint.field)?);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs_f64(endpoint.timeout)))
            .max_redirects(0)
            .user_agent(concat!("preflow/", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            url,
            key: key(endpoint.key_env)?,
            field: endpoint.field.to_owned(),
            agent: config.build().new_agent(),
            model: endpoint.model.to_owned(),
            temperature: endpoint.temperature,
            max_tokens: endpoint.max_tokens,
            retries: endpoint.retries,
            answers,
            sent: AtomicU64::new(0),
        })
    }

    /// The key would travel where others can read it.
    pub fn warning(&self) -> Option<String> {
        let far = self.key.is_some()
            && self.url.strip_prefix("http://").is_some_and(|rest| {
                !["127.", "localhost", "[::1]"].iter().any(|near| rest.starts_with(near))
            });
        far.then(|| "the key travels unencrypted: the endpoint is http, not https".to_owned())
    }

    /// How many requests were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The answer to a conversation: the one that is kept, or else a new one. `usable` says whether
    /// an answer is worth keeping.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached after all retries.
    pub fn ask(&self, messages: &[ChatMessage], usable: impl Fn(&str) -> bool) -> Result<String> {
        let request = json!({
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        });
        let file = self.file(&request);
        if let Some(kept) = kept(&file).filter(|kept| usable(kept)) {
            return Ok(kept);
        }
        let waits = ExponentialBuilder::default()
            .with_min_delay(WAIT[0])
            .with_max_delay(WAIT[1])
            .with_max_times(self.retries as usize)
            .with_jitter();
        let answer = (|| self.send(&request))
            .retry(waits)
            .when(Refusal::may_pass)
            // The server may ask for more time than is waited anyway.
            .notify(|refusal, wait| std::thread::sleep(refusal.after().saturating_sub(wait)))
            .call();
        let reply = answer.map_err(|refusal| {
            let message = format!("the judge at {} gave no answer: {refusal}", self.url);
            error_with_help(message, refusal.help(&self.url, &self.field))
        })?;
        if usable(&reply) {
            self.keep(&file, &reply)?;
        }
        Ok(reply)
    }

    /// Named after what was asked of whom. The key has no part in it.
    fn file(&self, request: &Value) -> PathBuf {
        let asked = json!(["preflow.answer/1", self.url, request]).to_string();
        let digest: String = Sha256::digest(asked).iter().map(|b| format!("{b:02x}")).collect();
        self.answers.join(&digest[..2]).join(format!("{digest}.json"))
    }

    fn keep(&self, file: &Path, reply: &str) -> Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let bytes = serde_json::to_vec(&Kept { reply: reply.to_owned() })?;
        write_atomic(file, &bytes).with_context(|| format!("cannot keep {}", file.display()))
    }

    fn send(&self, request: &Value) -> Result<String, Refusal> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut post = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {}", key.0));
        }
        let lost = |e: ureq::Error| Refusal::Connection(self.blot(&e.to_string()));
        let mut response = post.send(request.to_string()).map_err(lost)?;
        let status = response.status();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
        let after = after.and_then(seconds);
        let body = response.body_mut().with_config().limit(LONGEST).read_to_string();
        let body = self.blot(&body.map_err(lost)?);
        if !status.is_success() {
            let reason = status.canonical_reason().unwrap_or("").to_owned();
            let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
            let body = body.chars().take(EXCERPT).collect();
            return Err(Refusal::Status { status: status.as_u16(), reason, body, after });
        }
        let value: Value = serde_json::from_str(&body).map_err(|e| Refusal::Form(e.to_string()))?;
        let content = &value["choices"][0]["message"]["content"];
        let missing = || Refusal::Form("no text at choices[0].message.content".into());
        content.as_str().map(str::to_owned).ok_or_else(missing)
    }

    fn blot(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.blot(text))
    }
}

fn kept(file: &Path) -> Option<String> {
    let kept: Kept = serde_json::from_slice(&fs_err::read(file).ok()?).ok()?;
    Some(kept.reply)
}

/// What `Retry-After` asks for: seconds, or a time.
fn seconds(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)))
}

/// The address without a slash at its end; `field`: the param that holds the endpoint.
///
/// # Errors
/// It is no address, or holds a secret.
pub fn checked<'a>(url: &'a str, field: &str) -> Result<&'a str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let help = "name the base of the API, for example https://api.openai.com/v1";
    let Some(rest) = rest.filter(|r| !r.trim_matches('/').is_empty()) else {
        return Err(error_with_help(format!("{field}.endpoint: `{url}` is no http address"), help));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') || rest.contains(['?', '#']) {
        // It may be a secret: it is not repeated here.
        let help = format!("a key belongs into an environment variable, see {field}.key_env");
        return Err(error_with_help(format!("{field}.endpoint holds more than an address"), help));
    }
    Ok(url.trim_end_matches('/'))
}

/// The key, out of the environment; none where the server asks for none.
fn key(name: &str) -> Result<Option<Key>> {
    if name.is_empty() {
        return Ok(None);
    }
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(Some(Key(key.trim().to_owned()))),
        _ => Err(error_with_help(
            format!("the judge's key is not there: environment variable `{name}` is not set"),
            format!(
                "set it and pass it on to the stage: `run: {{ env: [{name}] }}`; for a server \
                 without keys: `key_env: \"\"`"
            ),
        )),
    }
}

/// The answers to questions 0 to `total`, `concurrency` of them asked at a time; `told` hears how
/// many are answered. The first refusal ends it: answers so far are kept.
///
/// # Errors
/// Those of `ask` and `told`.
pub fn ask_all<T: Send>(
    total: usize,
    concurrency: u32,
    ask: impl Fn(usize) -> Result<T> + Sync,
    mut told: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let mut answers: Vec<Option<T>> = (0..total).map(|_| None).collect();
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..concurrency.max(1) {
            let (send, next, ask) = (send.clone(), &next, &ask);
            scope.spawn(move || {
                loop {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task >= total {
                        break;
                    }
                    let said = ask(task);
                    if said.is_err() {
                        // Nobody takes another question after a refusal.
                        next.store(total, Ordering::Relaxed);
                    }
                    if send.send((task, said)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut done = 0;
        for (task, said) in receive {
            answers[task] = Some(said?);
            done += 1;
            told(done)?;
        }
        Ok(())
    })
    .map(|()| answers.into_iter().map(|a| a.expect("invariant: every question")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_address_and_holds_no_secret() {
        assert_eq!(
            checked("http://127.0.0.1:8000/v1/", "x").expect("fine"),
            "http://127.0.0.1:8000/v1"
        );
        for bad in ["", "ftp://x", "https://", "localhost:8000"] {
            assert!(
                checked(bad, "x").expect_err("refused").to_string().contains("no http address")
            );
        }
        for secret in ["https://me:sesame@host/v1", "https://host/v1?key=sesame"] {
            let error = checked(secret, "x").expect_err("refused");
            assert!(!format!("{error:?}").contains("sesame"));
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(seconds("2"), Some(Duration::from_secs(2)));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }
}
