//! Questions that are under way: each gets a number, and what is told of it reaches whoever asked.
//! When they are gone, the worker is told to forget it. Does not know what is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use tokio::sync::mpsc;

use super::error::ApiError;
use crate::protocol::questions::{Ask, QuestionSpec, Refusal, Told};

/// Most questions at a time, those that wait included.
const MOST: usize = 256;

/// Where questions are asked. Copies are the same desk.
#[derive(Debug, Clone)]
pub struct Desk {
    asked: mpsc::UnboundedSender<Ask>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// Whether the model has ended an answer since it was opened.
    has_answered: bool,
    askers: HashMap<u64, mpsc::UnboundedSender<Told>>,
}

/// A question that is under way, and what is told of it. Dropping it ends it.
#[derive(Debug)]
pub struct Asked {
    id: u64,
    told: mpsc::UnboundedReceiver<Told>,
    desk: Desk,
}

impl Desk {
    /// A desk, and what is asked at it.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Ask>) {
        let (asked, receiver) = mpsc::unbounded_channel();
        (Self { asked, open: Arc::default() }, receiver)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a question.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn ask(&self, question: QuestionSpec) -> Result<Asked, ApiError> {
        let (tell, told) = mpsc::unbounded_channel();
        let mut open = self.open();
        if open.askers.len() >= MOST {
            let message = format!("{MOST} requests are being answered: try again later");
            return Err(ApiError::of(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message));
        }
        open.last += 1;
        let id = open.last;
        open.askers.insert(id, tell);
        let _ = self.asked.send(Ask::Question(QuestionSpec { id, ..question }));
        Ok(Asked { id, told, desk: self.clone() })
    }

    /// Passes on what the worker tells.
    pub fn hear(&self, told: Told) {
        let mut open = self.open();
        let id = match &told {
            Told::Begun { question, .. }
            | Told::Piece { question, .. }
            | Told::Refused { question, .. } => *question,
            Told::Ended { question, .. } => {
                open.has_answered = true;
                *question
            }
            Told::Ready { .. } | Told::Failed { .. } => return,
        };
        if let Some(asker) = open.askers.get(&id) {
            let _ = asker.send(told);
        }
    }

    /// The worker died: nobody is answered any more. True: it had ended an answer before.
    pub fn lose_all(&self, message: &str) -> bool {
        let mut open = self.open();
        for (question, asker) in open.askers.drain() {
            let message = message.to_owned();
            let _ = asker.send(Told::Refused { question, why: Refusal::Fault, message });
        }
        std::mem::take(&mut open.has_answered)
    }
}

impl Asked {
    /// What is told next; `None`: nothing more.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Not there: the worker that knew it is gone.
        if self.desk.open().askers.remove(&self.id).is_some() {
            let _ = self.desk.asked.send(Ask::Forget { question: self.id });
        }
    }
}
