//! One run: brings the wanted stages up to date. One task owns all state; everything that happens
//! reaches it as a [`Message`] on one channel. Which stage is next, the scheduler says.
//! Knows nothing of colour or words.

mod attempt;
pub mod committer;
pub mod event;
mod finish;
pub mod journal;
mod outcome;
mod people;
mod remote;
pub mod rerun;
mod runner;
mod sync;
mod task;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tracing::{Instrument as _, info_span};

pub use event::{Reporter, RunEvent};
pub use people::{ChangedSources, People};

use crate::exec::git::GitFailure;
use crate::exec::{Executor, Outcome, Stop};
use crate::graph::Graph;
use crate::identity::Fingerprint;
use crate::lock::Lock;
use crate::plan::{Plan, Selection};
use crate::protocol::Event;
use crate::remote::{Config, RemoteError, Sent};
pub use crate::schedule::Totals;
pub use crate::schedule::pools::{Impossible, Pools};
use crate::store::reading::Reading;
use crate::store::{Sealed, Slot, SourceDigest, Store, StoreError};

/// How to run; none of it changes results.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Id of the run, sortable by time.
    pub id: String,
    /// RFC 3339.
    pub at: String,
    pub keep_going: bool,
    pub pools: Pools,
    /// Stages that may be open at once, from their start until they are published: each holds
    /// files open.
    pub open_stages: usize,
    /// The built-in worker.
    pub worker: Vec<String>,
    /// Directory of the pipeline file: where programs run.
    pub cwd: PathBuf,
    /// For the journal.
    pub command: Vec<String>,
    /// Key of the pipeline's heads: its path within the workspace.
    pub heads_key: String,
    /// Where the workspace stands and what it runs on; asked when something has run.
    pub host: HostInfo,
}

/// What is on record beside each entry, and decides nothing.
#[derive(Debug, Clone, Default)]
pub struct HostInfo {
    /// Top of the workspace.
    pub root: PathBuf,
    /// Commit of the workspace and model of the processor.
    known: Arc<OnceLock<HostFacts>>,
}

/// What was found out about them.
#[derive(Debug, Clone, Default)]
struct HostFacts {
    commit: String,
    cpu: String,
    /// Why git does not tell the commit.
    trouble: Option<GitFailure>,
}

impl HostInfo {
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, known: Arc::default() }
    }

    /// Begins to find out, aside: git takes longer than a small stage, and files change while a
    /// long one runs.
    fn ask(&self) {
        let asker = self.clone();
        std::thread::spawn(move || asker.known());
    }

    /// Why no commit is on record, where there should be one.
    fn trouble(&self) -> Option<GitFailure> {
        self.known().trouble
    }

    fn known(&self) -> HostFacts {
        let look = || {
            let commit = crate::exec::git::commit(&self.root);
            let dirty = if commit.dirty { "+" } else { "" };
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let model = text.lines().find_map(|l| l.strip_prefix("model name"));
            let model = model.and_then(|l| l.split_once(':')).map_or("", |(_, name)| name.trim());
            HostFacts {
                commit: format!("{}{dirty}", commit.id),
                cpu: model.to_owned(),
                trouble: commit.trouble,
            }
        };
        self.known.get_or_init(look).clone()
    }
}

/// What a run needs and leaves alone.
pub struct Inputs<'a> {
    pub graph: &'a Graph,
    pub store: Arc<Store>,
    /// Digests of the sources that wanted stages read.
    pub sources: Vec<Option<SourceDigest>>,
    pub selection: Selection,
    /// What is known of the selected stages; `None`: the run judges each by itself.
    pub plan: Option<Plan>,
    pub executor: &'a dyn Executor,
    /// Stages may make only what this says; `None`: whatever comes out.
    pub locked: Option<Lock>,
    /// Whom to ask when a stage waits for people; `None`: it goes on waiting after the run.
    pub people: Option<&'a dyn People>,
    /// Where others may have made what this run needs, and what it makes goes.
    pub remote: Option<Config>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub totals: Totals,
    pub interrupted: bool,
    /// The disk failed, or the store could not be trusted.
    pub storage: bool,
    /// A gate asks for a figure that its stage does not report.
    pub mistake: bool,
    /// What each stage is that was made or reused, by name.
    pub made: Lock,
    /// Stages that wait for people.
    pub waiting: Vec<String>,
}

impl Summary {
    /// Ended by the user before anything ran.
    #[must_use]
    pub fn interrupted() -> Self {
        Self {
            totals: Totals::default(),
            interrupted: true,
            storage: false,
            mistake: false,
            made: Lock::default(),
            waiting: Vec::new(),
        }
    }

    /// 130 interrupted · 4 storage · 1 a stage failed · 2 a gate that cannot be met · 3 waiting,
    /// or a gate not met · 0 done.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self { interrupted: true, .. } => 130,
            Self { storage: true, .. } => 4,
            s if s.totals.failed > 0 => 1,
            Self { mistake: true, .. } => 2,
            s if s.totals.waiting + s.totals.gated > 0 => 3,
            _ => 0,
        }
    }
}

/// Everything that can reach the loop.
enum Message {
    /// A worker said something.
    Event(usize, Event),
    /// An attempt ended; the slot comes back.
    Ended(usize, Box<Slot>, Outcome),
    /// An input's bytes are not what they were: the producing stages must run again.
    InputsDamaged(usize, Box<Slot>, Vec<usize>),
    /// What the stage that is named made changed while this one read it.
    InputChanged(usize, Box<Slot>, (String, Reading)),
    Sealed(usize, Box<Result<Sealed, Box<(Slot, StoreError)>>>),
    Published(Box<committer::Published>),
    /// Time to look again whether another process is done.
    LookAgain(usize),
    /// People gave their word, or nobody waits for it any longer.
    Answered(usize, ChangedSources),
    /// Bytes of a stage's entry that came from the remote so far, and all.
    Fetching(usize, u64, u64),
    /// The remote's answer about a stage.
    Found(usize, Box<(Fingerprint, remote::FetchResult)>),
    /// Entries are on their way to the remote.
    Sending,
    Uploaded(Fingerprint, Result<Sent, RemoteError>),
    Interrupt,
}

/// Runs the wanted stages. `interrupts` yields once for every Ctrl-C or TERM.
///
/// # Errors
/// A stage asks for more than the machine has, or the store cannot be written though something
/// must be made.
pub async fn run(
    inputs: Inputs<'_>,
    options: &RunOptions,
    reporter: &mut dyn Reporter,
    mut interrupts: mpsc::UnboundedReceiver<()>,
) -> Result<Summary, RunError> {
    for stage in &inputs.selection.wanted {
        let node = &inputs.graph.stages[*stage];
        options.pools.check(&node.name, &node.execution)?;
    }
    let (sender, mut messages) = mpsc::unbounded_channel();
    let (stop, _) = watch::channel(Stop::Go);
    let local = LocalSet::new();
    let for_interrupts = sender.clone();
    let span = info_span!("run", id = %options.id, pipeline = %inputs.graph.name);
    local.spawn_local(async move {
        while interrupts.recv().await.is_some() {
            let _ = for_interrupts.send(Message::Interrupt);
        }
    });
    local
        .run_until(async {
            let (events, mut heard) = mpsc::unbounded_channel();
            let leave = watch::channel(false).0;
            let channels = runner::Channels { messages: sender, events, stop, leave };
            let wanted = inputs.selection.wanted.clone();
            let mut runner = runner::Runner::new(inputs, options, reporter, channels);
            runner.begin(&wanted);
            while runner.advance()? {
                runner.handle(next(&mut heard, &mut messages).await)?;
            }
            runner.send_the_rest();
            while runner.is_sending() {
                runner.handle(next(&mut heard, &mut messages).await)?;
            }
            runner.finish()
        })
        .instrument(span)
        .await
}

/// What reaches the loop next. What workers said comes first: it was said before their end.
async fn next(
    heard: &mut mpsc::UnboundedReceiver<(usize, Event)>,
    messages: &mut mpsc::UnboundedReceiver<Message>,
) -> Message {
    tokio::select! {
        biased;
        Some((stage, event)) = heard.recv() => Message::Event(stage, event),
        Some(message) = messages.recv() => message,
        else => unreachable!("invariant: the runner holds a sender of both"),
    }
}

/// A run that could not go on at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error(transparent)]
    Store(#[from] StoreError),
}
