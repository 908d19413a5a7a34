//! The server while it runs: the worker behind it is started, and again where it dies.
//! Does not know what is asked.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::desk::Desk;
use super::guard::ApiGuard;
use super::routes::{ApiState, router};
use crate::exec::resident::Resident;
use crate::exec::{Outcome, Stop};
use crate::http::{accept, logging};
use crate::protocol::questions::{Ask, Told};

/// Deaths of the worker one after the other, without an answer between them, that are one too many.
const DEATHS: u32 = 3;
/// An answer may take this long on a connection whose time is over.
const LAST_ANSWER: Duration = Duration::from_secs(24 * 60 * 60);

/// What is served, and to whom.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The name that clients give the model.
    pub model: String,
    /// Names its weights.
    pub fingerprint: String,
    pub key: Option<String>,
}

/// Serves a model until `stop`. `ready` learns once, when it is open, how many tokens a prompt and
/// its answer may have; `died`, how the worker ended that is started again.
///
/// # Errors
/// How the worker ended: it could not open the model, or dies without answering anything.
pub async fn serve(
    listener: TcpListener,
    options: ApiOptions,
    resident: &Resident,
    ready: impl FnOnce(u64),
    died: impl Fn(&Outcome),
    stop: watch::Receiver<Stop>,
) -> Result<(), Outcome> {
    let (desk, asked) = Desk::new();
    let (open, opened) = oneshot::channel();
    let (over, mut ended) = watch::channel(false);
    let guard_open = listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    let working = async {
        let result = keep(resident, &desk, asked, open, died, stop).await;
        over.send_replace(true);
        result
    };
    let answering = async {
        let Ok(context) = opened.await else { return };
        let state = Arc::new(ApiState {
            desk: desk.clone(),
            guard: ApiGuard::new(options.key.as_deref(), guard_open),
            model: options.model,
            fingerprint: options.fingerprint,
            created: Timestamp::now().as_second(),
            context,
        });
        ready(context);
        let stop = async move {
            let _ = ended.wait_for(|over| *over).await;
        };
        accept(listener, logging(router(state)), LAST_ANSWER, stop).await;
    };
    let (result, ()) = tokio::join!(working, answering);
    result
}

/// Keeps a worker alive until `stop`. `open` learns of the first one that is ready.
async fn keep(
    resident: &Resident,
    desk: &Desk,
    mut asked: mpsc::UnboundedReceiver<Ask>,
    open: oneshot::Sender<u64>,
    died: impl Fn(&Outcome),
    mut stop: watch::Receiver<Stop>,
) -> Result<(), Outcome> {
    let (mut open, mut deaths) = (Some(open), 0);
    loop {
        let mut is_ready = false;
        let mut hear = |told: Told| match told {
            Told::Ready { context } => {
                is_ready = true;
                if let Some(open) = open.take() {
                    let _ = open.send(context);
                }
            }
            told => desk.hear(told),
        };
        let outcome = resident.live(&mut asked, &mut hear, &mut stop).await;
        // What was asked of this one is not asked of the next: it may be what killed it.
        while asked.try_recv().is_ok() {}
        let answered = desk.lose_all("the worker died while it answered; it is started again");
        if outcome == Outcome::Cancelled {
            return Ok(());
        }
        deaths = if answered { 1 } else { deaths + 1 };
        if !is_ready || deaths >= DEATHS {
            return Err(outcome);
        }
        died(&outcome);
    }
}
