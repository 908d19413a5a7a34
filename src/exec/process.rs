//! Tasks as child processes: own process group, lifeline on stdin, events on stdout, log on
//! stderr. Knows nothing of what the events mean beyond how a task ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use tracing::debug;

use super::child::{describe, end, hint, new_command, pass_environment, tail};
use super::inputs::InputError;
use super::orphans::MARK;
use super::reaper::Reaper;
use super::{Executor, Outcome, Program, Running, Stop, Task, figures, inputs, log, orphans};
use crate::files;
use crate::protocol::{Event, PROTOCOL};

/// Time between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// Longest event line that is read; longer ones are dropped and counted.
const LINE_LIMIT: usize = 1 << 20;

/// Runs tasks as processes of this machine.
pub struct Processes {
    reaper: Rc<Reaper>,
    grace: Duration,
}

impl Processes {
    /// `reaper`: command line of a process that calls [`super::reaper::main`]; it ends what is
    /// left when this process is killed.
    #[must_use]
    pub fn new(reaper: Vec<PathBuf>, grace: Duration) -> Self {
        Self { reaper: Rc::new(Reaper::new(reaper)), grace }
    }
}

impl Executor for Processes {
    fn start(
        &self,
        task: Task,
        events: mpsc::UnboundedSender<(usize, Event)>,
        stop: watch::Receiver<Stop>,
    ) -> Running {
        let (reaper, grace) = (Rc::clone(&self.reaper), self.grace);
        Box::pin(async move { perform(task, events, stop, &reaper, grace).await })
    }
}

async fn perform(
    task: Task,
    events: mpsc::UnboundedSender<(usize, Event)>,
    mut stop: watch::Receiver<Stop>,
    reaper: &Reaper,
    grace: Duration,
) -> Outcome {
    let inputs = match tell_inputs(&task, &events) {
        Ok(inputs) => inputs,
        Err(e) => {
            return Outcome::Failed { message: e.to_string(), chain: vec![], help: None };
        }
    };
    let mark = reaper.expect();
    let mut child = match spawn(&task, &inputs, &mark) {
        Ok(child) => child,
        Err(e) => return cannot_start(&task, &e),
    };
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let Some(group) = pid else { return Outcome::Cancelled };
    reaper.born(group);
    debug!(pid = group.as_raw_nonzero().get(), program = task.program.name(), "process started");
    // The worker leaves when this pipe closes: it is held until the child is gone.
    let lifeline = child.stdin.take();
    let stdout = child.stdout.take();
    let protocol = matches!(task.program, Program::Worker(_));
    let mut listener = Listener::new(task.stage, events, protocol);
    let ended = {
        let watch = watch_over(&mut child, group, &mut stop, task.timeout, grace);
        tokio::pin!(watch);
        tokio::select! {
            ended = &mut watch => ended,
            () = listener.listen(stdout, &task.logs) => watch.await,
        }
    };
    listener.drain().await;
    drop(lifeline);
    // Grandchildren end with their task.
    let _ = kill_process_group(group, Signal::KILL);
    orphans::end(&mark, group, |child| child != group && reaper.knows(child)).await;
    reaper.gone(group);
    debug!(status = ?ended, "process ended");
    conclude(&task, ended, listener)
}

/// The variables that tell a plain program where its inputs lie.
fn tell_inputs(
    task: &Task,
    events: &mpsc::UnboundedSender<(usize, Event)>,
) -> Result<Vec<(String, String)>, InputError> {
    let Program::Direct(argv) = &task.program else { return Ok(Vec::new()) };
    let command = argv.join(" ");
    let mut variables = Vec::new();
    for (port, inputs) in &task.spec.inputs {
        let paths: Vec<String> = inputs.iter().flat_map(|i| &i.paths).cloned().collect();
        let told =
            inputs::tell(port, &paths, " ", &command, &task.logs, task.lists.contains(port))?;
        variables.extend(told.variables);
        if let Some(text) = told.warning {
            let _ = events.send((task.stage, Event::Note { level: "warn".into(), text }));
        }
    }
    Ok(variables)
}

fn spawn(task: &Task, inputs: &[(String, String)], mark: &str) -> io::Result<Child> {
    let log = log::open(&task.logs)?;
    let mut command = match &task.program {
        Program::Worker(worker) => {
            let mut command = new_command(Path::new(&worker[0]));
            command.args(&worker[1..]).arg("run").arg(task.logs.join("task.json"));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command
        }
        Program::Direct(argv) => {
            let mut command = new_command(Path::new(&argv[0]));
            command.args(&argv[1..]);
            command.envs(inputs.iter().map(|(name, value)| (name, value)));
            for (port, path) in &task.spec.outputs {
                command.env(format!("OUT_{}", port.replace('-', "_")), path);
            }
            command.env("FIGURES", figures::path(&task.logs));
            command.stdin(Stdio::null()).stdout(log.try_clone()?);
            command
        }
    };
    pass_environment(&mut command, &task.spec.execution.env);
    if !task.gpus.is_empty() {
        let list: Vec<String> = task.gpus.iter().map(u32::to_string).collect();
        command.env("CUDA_VISIBLE_DEVICES", list.join(","));
    }
    command.env(MARK, mark);
    command.stderr(log).current_dir(&task.cwd).process_group(0);
    command.spawn()
}

fn cannot_start(task: &Task, error: &io::Error) -> Outcome {
    let program = match &task.program {
        Program::Worker(argv) => argv[0].clone(),
        Program::Direct(argv) => argv[0].clone(),
    };
    let help = match (&task.program, error.kind()) {
        (Program::Worker(_), io::ErrorKind::NotFound) => {
            "build it with `cargo build --release`, or name it in PREFLOW_WORKER"
        }
        (Program::Direct(_), io::ErrorKind::NotFound) => "is the program installed and on PATH?",
        (_, io::ErrorKind::WouldBlock) => {
            "the system lets this user start no more processes (`ulimit -u`): end some, or run \
             fewer stages at once with --jobs"
        }
        (_, io::ErrorKind::ArgumentListTooLong) => {
            "its inputs have more paths in all than the system takes: give folders as sources"
        }
        _ => "see the error above",
    };
    Outcome::Failed {
        message: format!("cannot start `{program}`"),
        chain: vec![error.to_string()],
        help: Some(help.to_owned()),
    }
}

/// How a process came to its end.
#[derive(Debug)]
enum Ended {
    Exit(io::Result<ExitStatus>),
    TimedOut(Duration),
    Cancelled,
}

async fn watch_over(
    child: &mut Child,
    group: Pid,
    stop: &mut watch::Receiver<Stop>,
    limit: Option<Duration>,
    grace: Duration,
) -> Ended {
    let far = Duration::from_secs(60 * 60 * 24 * 365);
    let deadline = Instant::now() + limit.unwrap_or(far);
    let ended = tokio::select! {
        status = child.wait() => return Ended::Exit(status),
        () = tokio::time::sleep_until(deadline) => Ended::TimedOut(limit.unwrap_or(far)),
        _ = stop.wait_for(|s| *s > Stop::Go) => Ended::Cancelled,
    };
    end(child, group, stop, grace).await;
    ended
}

/// Reads a worker's stdout, keeps a copy, passes events on, remembers how it said it ended.
struct Listener {
    stage: usize,
    events: mpsc::UnboundedSender<(usize, Event)>,
    protocol: bool,
    reader: Option<BufReader<ChildStdout>>,
    copy: Option<std::fs::File>,
    log: Option<std::fs::File>,
    line: Vec<u8>,
    hello: Option<(u32, String, String, String)>,
    last: Option<Event>,
    garbage: u64,
}

impl Listener {
    fn new(stage: usize, events: mpsc::UnboundedSender<(usize, Event)>, protocol: bool) -> Self {
        Self {
            stage,
            events,
            protocol,
            reader: None,
            copy: None,
            log: None,
            line: Vec::new(),
            hello: None,
            last: None,
            garbage: 0,
        }
    }

    /// Until end of file. Cancel safe: what was read so far stays in `self`.
    async fn listen(&mut self, stdout: Option<ChildStdout>, logs: &Path) {
        let Some(stdout) = stdout else { return };
        self.reader = Some(BufReader::new(stdout));
        self.copy = files::append_own(&logs.join("events.jsonl")).ok();
        self.log = log::open(logs).ok();
        self.pump().await;
    }

    /// The process is gone; what it wrote may still be in the pipe. A grandchild may hold the
    /// other end open for ever, so silence ends it too.
    async fn drain(&mut self) {
        while self.reader.is_some() {
            let before = (self.line.len(), self.garbage, self.last.is_some());
            if timeout(Duration::from_millis(100), self.pump()).await.is_ok()
                || before == (self.line.len(), self.garbage, self.last.is_some())
            {
                break;
            }
        }
        if !self.line.is_empty() {
            self.take_line();
        }
    }

    async fn pump(&mut self) {
        loop {
            let Some(reader) = &mut self.reader else { return };
            let Ok(available) = reader.fill_buf().await else { break };
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|b| *b == b'\n');
            let take = end.map_or(available.len(), |i| i + 1);
            // Beyond the limit only the fact that it is too long is kept.
            let room = (LINE_LIMIT + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&available[..take.min(room)]);
            reader.consume(take);
            if end.is_some() {
                self.take_line();
            }
        }
        self.reader = None;
    }

    fn take_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if let Some(copy) = &mut self.copy {
            use std::io::Write as _;
            let _ = copy.write_all(&line);
            if line.last() != Some(&b'\n') {
                let _ = copy.write_all(b"\n");
            }
        }
        if line.len() > LINE_LIMIT {
            self.garbage += 1;
            return;
        }
        let event = serde_json::from_slice::<Event>(&line);
        if let (Some(log), Some(words)) = (&mut self.log, event.as_ref().ok().and_then(log::words))
        {
            use std::io::Write as _;
            let _ = log.write_all(words.as_bytes());
        }
        match event {
            Ok(Event::Hello { protocol, worker, backend, device, .. }) => {
                self.hello = Some((protocol, worker, backend, device));
            }
            Ok(event @ (Event::Done { .. } | Event::Failed { .. } | Event::Waiting { .. })) => {
                self.last = Some(event);
            }
            Ok(event) => {
                let _ = self.events.send((self.stage, event));
            }
            // An event of a later version informs only; anything else is not the protocol.
            Err(_) => {
                let known = serde_json::from_slice::<serde_json::Value>(&line)
                    .is_ok_and(|v| v.get("event").is_some_and(serde_json::Value::is_string));
                self.garbage += u64::from(!known);
            }
        }
    }
}

fn conclude(task: &Task, ended: Ended, seen: Listener) -> Outcome {
    let tail = || tail(&log::path(&task.logs));
    let status = match ended {
        Ended::Cancelled => return Outcome::Cancelled,
        Ended::TimedOut(limit) => {
            return Outcome::TimedOut { seconds: limit.as_secs_f64(), tail: tail() };
        }
        Ended::Exit(Err(e)) => {
            return Outcome::Crashed { how: format!("lost: {e}"), tail: tail(), help: None };
        }
        Ended::Exit(Ok(status)) => status,
    };
    if !seen.protocol {
        return match status.code() {
            Some(0) => match figures::read(&task.logs) {
                Ok(summary) => Outcome::Done {
                    summary,
                    worker: "program".into(),
                    backend: String::new(),
                    device: "cpu".into(),
                },
                Err(outcome) => outcome,
            },
            _ => Outcome::Crashed { how: describe(status), tail: tail(), help: hint(status) },
        };
    }
    let Some((protocol, worker, backend, device)) = seen.hello else {
        return no_word(status, tail(), seen.garbage, "said no hello");
    };
    if protocol != PROTOCOL {
        return Outcome::Failed {
            message: format!("the worker speaks protocol {protocol}, this preflow {PROTOCOL}"),
            chain: vec![],
            help: Some("build both from the same sources".into()),
        };
    }
    match seen.last {
        Some(Event::Failed { message, chain, help }) => Outcome::Failed { message, chain, help },
        Some(Event::Done { summary }) if status.success() => {
            Outcome::Done { summary, worker, backend, device }
        }
        Some(Event::Waiting { reason, have, need }) if status.success() => {
            Outcome::Waiting { reason, have, need }
        }
        Some(_) => Outcome::Crashed {
            how: format!("{} after it said it was done", describe(status)),
            tail: tail(),
            help: hint(status),
        },
        None => no_word(status, tail(), seen.garbage, "ended without a final event"),
    }
}

fn no_word(status: ExitStatus, tail: String, garbage: u64, what: &str) -> Outcome {
    let garbage = match garbage {
        0 => String::new(),
        n => format!(", and printed {n} lines that are no events"),
    };
    Outcome::Crashed {
        how: format!("{}; it {what}{garbage}", describe(status)),
        tail,
        help: hint(status),
    }
}
