//! A test double: outcomes by script, no processes. Tasks end in the order they were started,
//! one at a time, so that a journal can be compared as text.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};

use super::{Executor, Outcome, Running, Stop, Task};
use crate::protocol::Event;

/// What a scripted task does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Writes these bytes to every output and is done.
    Write(String),
    /// Does what a task without a script does, and reports these figures.
    Report(BTreeMap<String, Option<f64>>),
    /// Ends so.
    End(Outcome),
    /// Runs until it is stopped.
    Hang,
    /// Appends to this file, then does what a task without a script does.
    Touch(PathBuf),
}

/// Executor that follows a script: stage name → acts, one an attempt.
#[derive(Debug, Default)]
pub struct Scripted {
    script: RefCell<BTreeMap<String, VecDeque<Act>>>,
    /// Stage names in the order in which they were started.
    pub started: RefCell<Vec<String>>,
}

impl Scripted {
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = (&'static str, Vec<Act>)>) -> Self {
        let script = script.into_iter().map(|(s, acts)| (s.to_owned(), acts.into())).collect();
        Self { script: RefCell::new(script), started: RefCell::default() }
    }
}

impl Executor for Scripted {
    fn start(
        &self,
        task: Task,
        _events: mpsc::UnboundedSender<(usize, Event)>,
        mut stop: watch::Receiver<Stop>,
    ) -> Running {
        self.started.borrow_mut().push(task.spec.stage.clone());
        let act = self
            .script
            .borrow_mut()
            .get_mut(&task.spec.stage)
            .and_then(VecDeque::pop_front)
            .unwrap_or_else(|| Act::Write(format!("made by {}\n", task.spec.stage)));
        let mut summary = BTreeMap::new();
        let act = match act {
            Act::Report(figures) => {
                summary = figures;
                Act::Write(format!("made by {}\n", task.spec.stage))
            }
            Act::Touch(path) => {
                touch(&path);
                Act::Write(String::new())
            }
            act => act,
        };
        Box::pin(async move {
            match act {
                Act::Touch(_) | Act::Report(_) => unreachable!("invariant: replaced above"),
                Act::End(outcome) => outcome,
                Act::Hang => {
                    let _ = stop.wait_for(|s| *s > Stop::Go).await;
                    Outcome::Cancelled
                }
                Act::Write(text) => {
                    for path in task.spec.outputs.values() {
                        #[expect(clippy::disallowed_methods, reason = "stands for a worker")]
                        if let Err(e) = std::fs::write(path, &text) {
                            let (how, tail) = (e.to_string(), String::new());
                            return Outcome::Crashed { how, tail, help: None };
                        }
                    }
                    Outcome::Done {
                        summary,
                        worker: "scripted".into(),
                        backend: String::new(),
                        device: "cpu".into(),
                    }
                }
            }
        })
    }
}

#[expect(clippy::expect_used, reason = "a test double may fail its test")]
fn touch(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(path).expect("a file to touch");
    file.write_all(b"more").expect("writable");
}
