//! A worker that stays: its process group, questions to its stdin, answers from its stdout, its log
//! on stderr. Knows nothing of what is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::child::{describe, end, hint, new_command, pass_environment, tail};
use super::orphans::MARK;
use super::process::GRACE;
use super::reaper::Reaper;
use super::{Outcome, Stop, log};
use crate::protocol::questions::{Ask, Told};

/// What starts such a worker, again where it died.
pub struct Resident {
    reaper: Reaper,
    command: Vec<String>,
    open: Ask,
    logs: PathBuf,
}

impl Resident {
    /// `reaper` as for [`super::process::Processes`]; `open`: what the worker is told first; its
    /// log lies in `logs`.
    #[must_use]
    pub fn new(reaper: Vec<PathBuf>, command: Vec<String>, open: Ask, logs: PathBuf) -> Self {
        Self { reaper: Reaper::new(reaper), command, open, logs }
    }

    /// One life of the worker: it is told what is `asked`, and `hear` what it says. Ends when it
    /// does, or when `stop` says so.
    pub async fn live(
        &self,
        asked: &mut mpsc::UnboundedReceiver<Ask>,
        hear: &mut dyn FnMut(Told),
        stop: &mut watch::Receiver<Stop>,
    ) -> Outcome {
        let mark = self.reaper.expect();
        let mut child = match self.spawn(&mark) {
            Ok(child) => child,
            Err(error) => return cannot_start(&self.command, &error),
        };
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(group) = pid else { return Outcome::Cancelled };
        self.reaper.born(group);
        debug!(pid = group.as_raw_nonzero().get(), "a worker that stays was started");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut last = None;
        let ended = {
            let ask = ask(stdin, &self.open, asked);
            let mut heard = |told: Told| match told {
                Told::Failed { message, chain, help } => {
                    last = Some(Outcome::Failed { message, chain, help });
                }
                told => hear(told),
            };
            let listen = listen(stdout, &mut heard);
            tokio::pin!(ask, listen);
            tokio::select! {
                // What it said before its end is heard first.
                biased;
                () = &mut listen => false,
                () = &mut ask => false,
                _ = stop.wait_for(|stop| *stop > Stop::Go) => true,
            }
        };
        let outcome = match ended {
            true => {
                end(&mut child, group, stop, GRACE).await;
                Outcome::Cancelled
            }
            false => self.died(&mut child, group, stop).await,
        };
        let _ = kill_process_group(group, Signal::KILL);
        self.reaper.gone(group);
        match (outcome, last) {
            (Outcome::Cancelled, _) => Outcome::Cancelled,
            (_, Some(said)) => said,
            (outcome, None) => outcome,
        }
    }

    fn spawn(&self, mark: &str) -> io::Result<Child> {
        let mut command = new_command(Path::new(&self.command[0]));
        command.args(&self.command[1..]).arg("answer");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log::open(&self.logs)?);
        pass_environment(&mut command, &[]);
        command.env(MARK, mark).current_dir(&self.logs).process_group(0);
        command.spawn()
    }

    /// How a worker ended that says nothing more.
    async fn died(
        &self,
        child: &mut Child,
        group: Pid,
        stop: &mut watch::Receiver<Stop>,
    ) -> Outcome {
        let tail = || tail(&log::path(&self.logs));
        match tokio::time::timeout(GRACE, child.wait()).await {
            Ok(Ok(status)) => {
                Outcome::Crashed { how: describe(status), tail: tail(), help: hint(status) }
            }
            Ok(Err(e)) => Outcome::Crashed { how: format!("lost: {e}"), tail: tail(), help: None },
            Err(_) => {
                end(child, group, stop, GRACE).await;
                let how = "it closed its output and did not end".to_owned();
                Outcome::Crashed { how, tail: tail(), help: None }
            }
        }
    }
}

fn cannot_start(command: &[String], error: &io::Error) -> Outcome {
    Outcome::Failed {
        message: format!("cannot start `{}`", command[0]),
        chain: vec![error.to_string()],
        help: Some("`preflow doctor` looks at the installation".into()),
    }
}

/// Tells the worker what is asked, until it takes no more.
async fn ask(stdin: Option<ChildStdin>, open: &Ask, asked: &mut mpsc::UnboundedReceiver<Ask>) {
    let Some(mut stdin) = stdin else { return };
    let mut next = Some(open.clone());
    while let Some(ask) = next {
        let mut line = serde_json::to_vec(&ask).expect("invariant: a question is JSON");
        line.push(b'\n');
        if stdin.write_all(&line).await.is_err() {
            break;
        }
        next = asked.recv().await;
    }
    // The end of its output tells more than a pipe that it no longer reads.
    std::future::pending().await
}

/// Hears the worker until it says nothing more.
async fn listen(stdout: Option<ChildStdout>, hear: &mut dyn FnMut(Told)) {
    let Some(stdout) = stdout else { return };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(told) => hear(told),
            Err(error) => debug!(%error, "a line that is not understood"),
        }
    }
}
