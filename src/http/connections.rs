//! Connections to a page: how many there may be, and which one makes room for the next. Clients
//! that say nothing, or slowly, never keep out people at work. Does not know what is asked.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tower_service::Service;

/// Connections at a time: below the number of files that a process may open by default.
const MOST: usize = 400;

/// Marks an answer to somebody who was let in.
#[derive(Debug, Clone, Copy)]
pub struct LetIn;

/// All connections there are.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    all: Arc<Mutex<All>>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    /// Oldest first.
    open: BTreeMap<u64, Arc<State>>,
}

/// What one of them is at.
#[derive(Debug, Default)]
struct State {
    /// Requests whose head is there and whose answer is not.
    busy: AtomicUsize,
    /// Somebody who was let in uses it.
    known: AtomicBool,
    leave: Notify,
}

/// A connection's place among them; dropping it frees it.
#[derive(Debug)]
pub struct Permit {
    all: Connections,
    number: u64,
    state: Arc<State>,
}

impl Connections {
    /// A place for one more. Where there is none, the oldest connection leaves that nobody who was
    /// let in has used, else the oldest that is idle. `None`: all of them are at work.
    #[must_use]
    pub fn enter(&self) -> Option<Permit> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.open.len() >= MOST {
            let idle = |state: &State| state.busy.load(Ordering::Relaxed) == 0;
            let stranger = |state: &State| !state.known.load(Ordering::Relaxed);
            let found = all.open.iter().find(|(_, state)| idle(state) && stranger(state));
            let found = found.or_else(|| all.open.iter().find(|(_, state)| idle(state)));
            let number = *found?.0;
            all.open.remove(&number)?.leave.notify_one();
        }
        let number = all.next;
        all.next += 1;
        let state = Arc::<State>::default();
        all.open.insert(number, Arc::clone(&state));
        Some(Permit { all: self.clone(), number, state })
    }
}

impl Permit {
    /// Ends when the connection has to make room.
    pub async fn asked_to_leave(&self) {
        self.state.leave.notified().await;
    }

    /// The same service, which notes what the connection is at.
    pub fn watch<S>(&self, inner: S) -> WatchedService<S> {
        WatchedService { inner, state: Arc::clone(&self.state) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = self.all.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.open.remove(&self.number);
    }
}

/// A service that notes what its connection is at; see [`Permit::watch`].
#[derive(Debug, Clone)]
pub struct WatchedService<S> {
    inner: S,
    state: Arc<State>,
}

/// A request that is being answered.
struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S, B> Service<Request<Incoming>> for WatchedService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.state.busy.fetch_add(1, Ordering::Relaxed);
        let busy = Busy(Arc::clone(&self.state));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if answer.as_ref().is_ok_and(|answer| answer.extensions().get::<LetIn>().is_some()) {
                busy.0.known.store(true, Ordering::Relaxed);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (Connections, Vec<Permit>) {
        let all = Connections::default();
        let places = (0..MOST).map(|_| all.enter().expect("room")).collect();
        (all, places)
    }

    /// Which of the places was asked to leave.
    fn asked(places: &[Permit]) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut found = Vec::new();
            for (i, place) in places.iter().enumerate() {
                let ready = std::future::ready(());
                tokio::select! {
                    biased;
                    () = place.asked_to_leave() => found.push(i),
                    () = ready => {}
                }
            }
            found
        })
    }

    #[test]
    fn strangers_make_room_first_then_whoever_is_idle() {
        let (all, places) = full();
        for place in &places[..10] {
            place.state.known.store(true, Ordering::Relaxed);
        }
        places[10].state.busy.store(1, Ordering::Relaxed);
        let new = all.enter().expect("somebody leaves");
        assert_eq!(asked(&places), [11], "the oldest stranger that is idle");
        drop(new);
        let (all, places) = full();
        for place in &places {
            place.state.known.store(true, Ordering::Relaxed);
        }
        places[0].state.busy.store(1, Ordering::Relaxed);
        assert!(all.enter().is_some());
        assert_eq!(asked(&places), [1]);
        let (all, places) = full();
        for place in &places {
            place.state.busy.store(1, Ordering::Relaxed);
        }
        assert!(all.enter().is_none(), "all are at work");
        assert_eq!(asked(&places), [] as [usize; 0]);
        drop(places);
        assert!(all.enter().is_some());
    }
}
