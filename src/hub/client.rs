//! Questions to a hub or a web server: one request each, redirects followed where they lead to no
//! plainer place, refusals told apart. Does not know what is done with the answers.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use sha1::{Digest as _, Sha1};

use super::listing::ListedFile;
use super::{HubError, HubSettings, Listing};
use crate::identity::Digest;
use crate::store::Store;
use crate::web;

/// Redirects of one request.
const HOPS: usize = 10;
/// The list of a repository is never longer.
const LONGEST_LISTING: usize = 256 << 20;
/// How often a request is made that nobody answers.
const TRIES: u32 = 4;
/// The wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// Nobody waits longer because a server says so.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A hub, and the right to ask it.
#[derive(Debug)]
pub struct Hub {
    pub(super) settings: HubSettings,
    client: Client,
}

impl Hub {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// The environment says what cannot be.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let patience = web::patience().ok_or(HubError::Timeout)?;
        let follow = reqwest::redirect::Policy::custom(|attempt| {
            if attempt.previous().len() > HOPS {
                return attempt.error("too many redirects");
            }
            let to = attempt.url();
            if to.scheme() == "https" || web::is_loopback(to.as_str()) {
                return attempt.follow();
            }
            attempt.error("it leads to an address without encryption")
        });
        let client = web::client(web::is_loopback(&settings.endpoint))
            .redirect(follow)
            .connect_timeout(patience)
            .read_timeout(patience)
            .build()
            .map_err(|e| HubError::Away { host: settings.host(), reason: web::reason(e) })?;
        Ok(Self { settings, client })
    }

    /// What the repository (`ORG/NAME` or `datasets/ORG/NAME`) holds at a revision. Small files
    /// that `wanted` takes are read, since only their bytes say their hash; they wait in the store.
    ///
    /// # Errors
    /// It is not there, may not be read, nobody answers, or a file is not what the hub says.
    pub async fn listing(
        &self,
        store: &Arc<Store>,
        repository: &str,
        revision: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Listing, HubError> {
        let what = format!("`{repository}` at `{revision}`");
        let kind = if repository.starts_with("datasets/") { "" } else { "models/" };
        let endpoint = &self.settings.endpoint;
        let mut url = Url::parse(endpoint).map_err(|_| HubError::Endpoint(endpoint.clone()))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("api");
            path.extend(format!("{kind}{repository}").split('/'));
            path.push("revision").push(revision);
        }
        url.set_query(Some("blobs=true"));
        let answer = self.open(url, &HubQuestion::of(repository, revision, &what), 0).await?;
        let bytes = self.whole(answer, LONGEST_LISTING).await?;
        let odd = |reason| HubError::Odd { host: self.settings.host(), reason };
        let mut listing = Listing::read(&bytes).map_err(odd)?;
        for file in listing.files.iter_mut().filter(|file| wanted(&file.path)) {
            if file.digest.is_none() {
                file.digest = Some(self.small(store, repository, &listing.commit, file).await?);
            }
        }
        Ok(listing)
    }

    /// The address of a file of a repository.
    #[must_use]
    pub fn address(&self, repository: &str, commit: &str, path: &str) -> Option<Url> {
        let mut url = Url::parse(&self.settings.endpoint).ok()?;
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(repository.split('/'))
            .extend(["resolve", commit])
            .extend(path.split('/'));
        Some(url)
    }

    /// The hash of a small file, whose bytes are left where a fetch finds them.
    async fn small(
        &self,
        store: &Arc<Store>,
        repository: &str,
        commit: &str,
        file: &ListedFile,
    ) -> Result<Digest, HubError> {
        let what = format!("`{}` of `{repository}`", file.path);
        let url = self.address(repository, commit, &file.path);
        let url = url.ok_or_else(|| HubError::Endpoint(self.settings.endpoint.clone()))?;
        let answer = self.open(url, &HubQuestion::of(repository, commit, &what), 0).await?;
        let longest = usize::try_from(file.size).unwrap_or(usize::MAX);
        let bytes = self.whole(answer, longest).await?;
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", bytes.len()));
        hash.update(&bytes);
        if const_hex::encode(hash.finalize()) != file.blob {
            let reason = format!("they have not the git hash {}", file.blob);
            return Err(HubError::OtherBytes { what, reason });
        }
        let digest = Digest::of(&bytes);
        // Where that fails they come once more.
        let _ = store.keep_part(&digest, &bytes);
        Ok(digest)
    }

    /// All of an answer that may not be long.
    async fn whole(&self, mut answer: Response, longest: usize) -> Result<Vec<u8>, HubError> {
        let host = answer.url().host_str().unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > longest => {
                    return Err(HubError::Odd {
                        host,
                        reason: "it is longer than it may be".into(),
                    });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes),
                Err(e) => return Err(HubError::Away { host, reason: web::reason(e) }),
            }
        }
    }

    /// An answer that says yes; asked again where nobody answers or a server is busy.
    ///
    /// # Errors
    /// It is not there, may not be read, or nobody answers.
    pub(super) async fn open(
        &self,
        url: Url,
        asked: &HubQuestion<'_>,
        from: u64,
    ) -> Result<Response, HubError> {
        if self.settings.offline && asked.repository.is_some() {
            return Err(HubError::Offline { what: asked.what.to_owned() });
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut tries = 0;
        loop {
            tries += 1;
            let mut request = self.client.get(url.clone()).headers(self.right(asked));
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let (error, wait) = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let busy = answer.status() == StatusCode::TOO_MANY_REQUESTS
                        || answer.status().is_server_error();
                    let wait = seconds(answer.headers());
                    let error = self.refusal(&host, &answer, asked);
                    if !busy {
                        return Err(error);
                    }
                    (error, wait)
                }
                Err(e) if e.is_redirect() || e.is_builder() => {
                    return Err(HubError::Odd { host, reason: web::reason(e) });
                }
                Err(e) => (HubError::Away { host: host.clone(), reason: web::reason(e) }, None),
            };
            if tries == TRIES {
                return Err(error);
            }
            let wait = wait.unwrap_or(FIRST_WAIT * 2_u32.pow(tries - 1));
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// The token, for the hub alone: a redirect to another host goes on without it.
    fn right(&self, asked: &HubQuestion<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let token = self.settings.token.as_ref().filter(|_| asked.repository.is_some());
        let value = token.and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok());
        if let Some(mut value) = value {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// What a refusal means. The hub's code says more than its status: a repository that is not
    /// there and one that may not be seen look alike.
    fn refusal(&self, host: &str, answer: &Response, asked: &HubQuestion<'_>) -> HubError {
        let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let (host, what) = (host.to_owned(), asked.what.to_owned());
        let Some((repository, revision)) = asked.repository.zip(asked.revision) else {
            return match answer.status().as_u16() {
                404 | 410 => HubError::NotThere { host, what },
                status => HubError::Refused { host, what, status },
            };
        };
        match (code, answer.status().as_u16()) {
            (Some("GatedRepo"), _) => {
                let page = format!("{}/{repository}", self.settings.endpoint);
                HubError::Gated { what: format!("`{repository}`"), page }
            }
            (Some("RevisionNotFound"), _) => HubError::NoRevision {
                repository: repository.to_owned(),
                revision: revision.to_owned(),
            },
            (_, 401 | 403) if self.settings.token.is_none() => HubError::NoToken { host, what },
            (_, 401 | 403) => HubError::BadToken { host, what },
            (_, 404) => HubError::NotThere { host, what },
            (_, status) => HubError::Refused { host, what, status },
        }
    }
}

/// What is asked for, for messages and for the right to ask.
pub(super) struct HubQuestion<'a> {
    pub what: &'a str,
    /// `None`: a file of the web.
    pub repository: Option<&'a str>,
    pub revision: Option<&'a str>,
}

impl<'a> HubQuestion<'a> {
    pub fn of(repository: &'a str, revision: &'a str, what: &'a str) -> Self {
        Self { what, repository: Some(repository), revision: Some(revision) }
    }
}

/// How long a server asks to be left alone.
fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
