//! One HTTP request: sent by `reqwest`, given up when nothing moves any more, however long it
//! takes while something does. Does not know what is asked or who repeats it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep};

use crate::web;

/// Answers other than a file's content are never longer.
const LONGEST_ANSWER: u64 = 4 << 20;

const CONNECT: Duration = Duration::from_secs(5);

/// Makes clients with the limits of this room.
#[derive(Debug)]
pub(super) struct Connector {
    /// The service is on this machine: no proxy stands between.
    pub loopback: bool,
    pub https_only: bool,
    pub patience: Duration,
}

#[derive(Debug)]
struct Service {
    client: reqwest::Client,
    patience: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let patience = self.patience;
        let client = web::client(self.loopback)
            .connect_timeout(CONNECT.min(patience))
            .https_only(self.https_only)
            .build()
            .map_err(|e| object_store::Error::Generic { store: "HTTP", source: Box::new(e) })?;
        Ok(HttpClient::new(Service { client, patience }))
    }
}

impl Service {
    async fn perform(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let url = url.parse().map_err(|e| HttpError::new(HttpErrorKind::Unknown, BadUrl(e)))?;
        let is_get = parts.method == Method::GET;
        let moved = Arc::new(AtomicU64::new(0));
        let mut asked = reqwest::Request::new(parts.method, url);
        *asked.headers_mut() = parts.headers;
        *asked.body_mut() = Some(reqwest::Body::wrap(Counted { body, moved: Arc::clone(&moved) }));
        let answering = self.client.execute(asked);
        tokio::pin!(answering);
        let mut before = 0;
        let answer = loop {
            tokio::select! {
                answer = &mut answering => break answer.map_err(explained)?,
                () = tokio::time::sleep(self.patience) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == before {
                        return Err(stalled(self.patience));
                    }
                    before = now;
                }
            }
        };
        let answer: http::Response<reqwest::Body> = answer.into();
        let (parts, body) = answer.into_parts();
        let left = if is_get && parts.status.is_success() { u64::MAX } else { LONGEST_ANSWER };
        let watch = Box::pin(tokio::time::sleep(self.patience));
        let body = Watched { body, watch, patience: self.patience, left };
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// What `async_trait` makes of the one method; spelled out, it needs no macro.
impl HttpService for Service {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.perform(request))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Silence(String);

#[derive(Debug, thiserror::Error)]
#[error("the address cannot be used: {0}")]
struct BadUrl<E: std::error::Error>(E);

fn stalled(patience: Duration) -> HttpError {
    let text = format!("nothing moved for {} s", patience.as_secs_f64());
    HttpError::new(HttpErrorKind::Timeout, Silence(text))
}

/// Every request of this room may be repeated, so all that a connection can suffer may be tried
/// again.
fn explained(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_builder() {
        HttpErrorKind::Unknown
    } else {
        HttpErrorKind::Request
    };
    HttpError::new(kind, Silence(web::reason(error)))
}

/// Counts what is taken from it to be sent.
struct Counted {
    body: HttpRequestBody,
    moved: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Gives up when nothing comes any more, or too much.
struct Watched {
    body: reqwest::Body,
    watch: Pin<Box<Sleep>>,
    patience: Duration,
    left: u64,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.watch.as_mut().poll(cx).map(|()| Some(Err(stalled(this.patience))));
        };
        this.watch.as_mut().reset(Instant::now() + this.patience);
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame.map(|f| f.map_err(explained)));
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = this.left.checked_sub(length) else {
            let text = "the answer is longer than any answer".to_owned();
            return Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Decode, Silence(text)))));
        };
        this.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
