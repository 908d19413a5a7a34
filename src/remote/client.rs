//! The remote itself: opened without asking anybody, then read and written key by key, with what
//! goes wrong told in words. Does not know what an entry is.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload,
    RetryConfig,
};
use tokio::sync::Semaphore;
use tracing::{Span, debug, info, info_span};

use super::config::{Config, Location, Mode};
use super::error::RemoteError;
use super::http::Connector;
use crate::files;
use crate::identity::{Digest, Fingerprint};
use crate::web;

/// Requests at one time; with [`super::fetch::RANGE`] it bounds the memory of a transfer.
pub(super) const REQUESTS: usize = 8;

/// A place that a team shares. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Remote(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    config: Config,
    url: String,
    pub(super) store: Arc<dyn ObjectStore>,
    base: Key,
    /// One permit a request.
    pub(super) requests: Arc<Semaphore>,
    /// Files that this process sent or found there; whoever sends one holds its lock.
    there: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<bool>>>>,
    /// Where files that this process brought lie now: entries share them.
    pub(super) brought: Mutex<BTreeMap<Digest, PathBuf>>,
    /// What entries of the local store made, and which entries were looked at.
    pub(super) made: Mutex<(BTreeSet<Fingerprint>, BTreeSet<Digest>)>,
}

/// An answer to a read: the bytes, how many the whole has, and what ended it early.
pub(super) struct Read {
    pub bytes: Bytes,
    pub size: u64,
    pub cut: Option<RemoteError>,
}

impl Remote {
    /// Opens it; nobody is asked yet.
    ///
    /// # Errors
    /// The configuration cannot be right, or the environment holds no credentials.
    pub fn open(config: Config) -> Result<Self, RemoteError> {
        let url = config.location.to_string();
        let (store, base) = match &config.location {
            Location::S3 { bucket, prefix } => {
                (s3(&config, &url, bucket)?, Key::from(prefix.as_str()))
            }
            Location::Folder(path) => {
                let base = Key::from_absolute_path(path)
                    .map_err(|e| RemoteError::Config { url: url.clone(), reason: e.to_string() })?;
                let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new().with_fsync(true));
                (store, base)
            }
        };
        Ok(Self(Arc::new(Inner {
            config,
            url,
            store,
            base,
            requests: Arc::new(Semaphore::new(REQUESTS)),
            there: Mutex::default(),
            brought: Mutex::default(),
            made: Mutex::default(),
        })))
    }

    /// Entries may be sent there.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.config.mode == Mode::ReadWrite
    }

    /// A run must not go on without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.0.config.required
    }

    /// Where it is, for people.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Asks whether it is there and lets itself be read.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn ask(&self) -> Result<(), RemoteError> {
        let nobody = self.0.base.clone().join("entries-v1").join("none");
        self.0.get(&nobody, 1).await.map(|_| ())
    }
}

impl Inner {
    pub(super) fn file_key(&self, digest: &Digest) -> Key {
        let hex = digest.hex();
        self.base.clone().join("files-v1").join(&hex[..2]).join(hex)
    }

    pub(super) fn entry_key(&self, fingerprint: &Fingerprint) -> Key {
        let hex = fingerprint.hex();
        self.base.clone().join("entries-v1").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// Where a file lies that this process brought before.
    pub(super) fn where_brought(&self, digest: &Digest) -> Option<PathBuf> {
        let brought = self.brought.lock().expect("invariant: nobody panics with it");
        brought.get(digest).cloned()
    }

    /// Whether a file is known to be there, held while that is found out.
    pub(super) fn is_there(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<bool>> {
        let mut there = self.there.lock().expect("invariant: nobody panics with it");
        Arc::clone(there.entry(*digest).or_default())
    }

    /// Reads a whole that has at most `most` bytes. `None`: it is not there.
    pub(super) async fn get(&self, key: &Key, most: u64) -> Result<Option<Bytes>, RemoteError> {
        let _permit = self.requests.acquire().await.expect("invariant: never closed");
        let Some(read) = self.read(key, None, most).await? else { return Ok(None) };
        match read.cut {
            Some(error) => Err(error),
            None if read.bytes.len() as u64 == read.size => Ok(Some(read.bytes)),
            None => Err(RemoteError::OtherBytes {
                what: key.filename().unwrap_or_default().to_owned(),
                reason: format!("{} bytes, at most {most} are read", read.size),
            }),
        }
    }

    /// Reads a part, or all. More than `most` bytes are never taken. The caller holds a permit.
    pub(super) async fn read(
        &self,
        key: &Key,
        range: Option<std::ops::Range<u64>>,
        most: u64,
    ) -> Result<Option<Read>, RemoteError> {
        self.refuse_special(key)?;
        let call = Call::begin("GET", key);
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let answer = match self.store.get_opts(key, options).await {
            Ok(answer) => answer,
            Err(e) => return call.ended(self.absent(e).map(|()| None), 0),
        };
        let size = answer.meta.size;
        let mut stream = answer.into_stream();
        let mut bytes = BytesMut::new();
        let cut = loop {
            match stream.try_next().await {
                Ok(Some(more)) => {
                    let room = usize::try_from(most).unwrap_or(usize::MAX) - bytes.len();
                    bytes.extend_from_slice(&more[..more.len().min(room)]);
                    if more.len() >= room {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(e) => break Some(self.explain(&e)),
            }
        };
        let moved = bytes.len() as u64;
        call.ended(Ok(Some(Read { bytes: bytes.freeze(), size, cut })), moved)
    }

    /// Size of what lies under a key. `None`: nothing. The caller holds a permit.
    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, RemoteError> {
        self.refuse_special(key)?;
        let call = Call::begin("HEAD", key);
        let size = match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) => self.absent(e).map(|()| None),
        };
        call.ended(size, 0)
    }

    /// In a folder anything may lie under a key: a named pipe would be waited for.
    fn refuse_special(&self, key: &Key) -> Result<(), RemoteError> {
        let Location::Folder(folder) = &self.config.location else { return Ok(()) };
        let parts = key.prefix_match(&self.base).into_iter().flatten();
        let path = parts.fold(folder.clone(), |path, part| path.join(part.as_ref()));
        match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => Err(RemoteError::OtherBytes {
                what: key.filename().unwrap_or_default().to_owned(),
                reason: format!("`{}` is {}", path.display(), files::describe(&meta)),
            }),
            _ => Ok(()),
        }
    }

    /// Writes a whole. The caller holds a permit.
    pub(super) async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), RemoteError> {
        let (call, moved) = (Call::begin("PUT", key), bytes.len() as u64);
        let put = self.store.put(key, payload(bytes)).await;
        call.ended(put.map(|_| ()).map_err(|e| self.explain(&e)), moved)
    }

    /// Ok where an error only says that nothing lies under a key.
    fn absent(&self, error: Error) -> Result<(), RemoteError> {
        let gone = matches!(error, Error::NotFound { .. }) && code(&error) != "NoSuchBucket";
        match &self.config.location {
            Location::Folder(path) if gone && !path.is_dir() && !self.is_new(path) => {
                Err(self.explain(&error))
            }
            _ if gone => Ok(()),
            _ => Err(self.explain(&error)),
        }
    }

    /// A folder that the first push makes.
    fn is_new(&self, path: &std::path::Path) -> bool {
        let parent = path.parent().is_some_and(std::path::Path::is_dir);
        self.config.mode == Mode::ReadWrite && parent
    }

    pub(super) fn denied_if_read_only(&self) -> Result<(), RemoteError> {
        match self.config.mode {
            Mode::ReadWrite => Ok(()),
            Mode::ReadOnly => Err(RemoteError::ReadOnly { url: self.url.clone() }),
        }
    }

    /// An error of the service in our words. Its own may hold what must not be shown.
    pub(super) fn explain(&self, error: &Error) -> RemoteError {
        let url = self.url.clone();
        let code = code(error);
        let status = status(error);
        let named =
            |what: &str| if code.is_empty() { what.to_owned() } else { format!("{what} ({code})") };
        match error {
            Error::NotFound { .. } => {
                let what = match &self.config.location {
                    Location::S3 { .. } => named("no such bucket"),
                    Location::Folder(_) => "no such folder".to_owned(),
                };
                return RemoteError::NoPlace { url, reason: what };
            }
            Error::PermissionDenied { .. } => {
                return RemoteError::Denied { url, reason: named("403 forbidden") };
            }
            Error::Unauthenticated { .. } => {
                return RemoteError::Denied { url, reason: named("401 unauthorized") };
            }
            _ => {}
        }
        if let Some(status) = status {
            let reason = named(&format!("status {status}"));
            return match status {
                // Asked for a part behind the end.
                416 => RemoteError::OtherBytes {
                    what: "a file".to_owned(),
                    reason: "it is too short".to_owned(),
                },
                500.. | 429 | 408 => RemoteError::Unreachable { url, reason },
                _ => RemoteError::Config { url, reason },
            };
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
        let mut last = error.to_string();
        while let Some(inner) = cause {
            if let Some(http) = inner.downcast_ref::<HttpError>()
                && http.kind() == HttpErrorKind::Connect
            {
                let why = http.source().map(ToString::to_string).unwrap_or_default();
                let reason = format!("no connection: {why}");
                return RemoteError::Unreachable { url, reason };
            }
            if let Some(io) = inner.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::PermissionDenied
            {
                return RemoteError::Denied { url, reason: io.to_string() };
            }
            last = inner.to_string();
            cause = inner.source();
        }
        if last.contains("redirect") {
            let reason = "it is in another region: `region:` or AWS_REGION names it".to_owned();
            return RemoteError::Config { url, reason };
        }
        RemoteError::Unreachable { url, reason: last }
    }
}

/// One request, for the log.
struct Call {
    span: Span,
    begun: Instant,
}

impl Call {
    fn begin(verb: &'static str, key: &Key) -> Self {
        Self { span: info_span!("remote", verb, %key), begun: Instant::now() }
    }

    /// Hands on how it ended. `bytes`: moved by it.
    fn ended<T>(self, result: Result<T, RemoteError>, bytes: u64) -> Result<T, RemoteError> {
        let ms = self.begun.elapsed().as_millis();
        self.span.in_scope(|| match &result {
            Ok(_) => debug!(bytes, ms, "answered"),
            Err(error) => info!(%error, ms, "failed"),
        });
        result
    }
}

/// In pieces, so that a slow line is seen to move.
pub(super) fn payload(bytes: Bytes) -> PutPayload {
    const PIECE: usize = 64 << 10;
    let pieces = (0..bytes.len()).step_by(PIECE);
    pieces.map(|at| bytes.slice(at..(at + PIECE).min(bytes.len()))).collect()
}

/// The error code that an S3 service answered, letters only.
fn code(error: &Error) -> String {
    let text = error.to_string();
    let inner = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = inner.map(|(code, _)| code).unwrap_or_default();
    code.chars().filter(char::is_ascii_alphanumeric).take(60).collect()
}

/// The status that a service answered. The crate keeps its error type to itself, so it is read
/// from its message.
fn status(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn s3(config: &Config, url: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    let bad = |reason: String| RemoteError::Config { url: url.to_owned(), reason };
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let other_means = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
    ];
    let anonymous = said("AWS_SKIP_SIGNATURE").is_some_and(|v| v == "true" || v == "1");
    let keys = said("AWS_ACCESS_KEY_ID").is_some() && said("AWS_SECRET_ACCESS_KEY").is_some();
    // Without this the crate would ask an address that answers on rented machines only.
    if !keys && !anonymous && !other_means.iter().any(|name| said(name).is_some()) {
        let reason = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".to_owned();
        return Err(RemoteError::Denied { url: url.to_owned(), reason });
    }
    let endpoint = config.endpoint.clone().or_else(|| said("AWS_ENDPOINT_URL_S3"));
    let endpoint = endpoint.or_else(|| said("AWS_ENDPOINT_URL")).or_else(|| said("AWS_ENDPOINT"));
    let loopback = endpoint.as_deref().is_some_and(web::is_loopback);
    let plain = endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
    let allowed = said("AWS_ALLOW_HTTP").is_some_and(|v| v == "true" || v == "1");
    if plain && !loopback && !allowed {
        return Err(
            bad("its endpoint has no encryption; AWS_ALLOW_HTTP=true allows it".to_owned()),
        );
    }
    let patience = web::patience().ok_or_else(|| {
        bad("PREFLOW_REMOTE_TIMEOUT is a number of seconds, 0.1 at least".to_owned())
    })?;
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(15),
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_allow_http(true)
        .with_http_connector(Connector { loopback, https_only: !plain, patience });
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    } else if said("AWS_REGION").is_none() && said("AWS_DEFAULT_REGION").is_none() {
        builder = builder.with_region("us-east-1");
    }
    // Its words may repeat what the environment says; only the kind of problem is told.
    let built = builder.build().map_err(|_| bad("the AWS_ variables cannot be used".to_owned()))?;
    Ok(Arc::new(built))
}
