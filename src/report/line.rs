//! What a run tells: for each event the line that it becomes, and what it means for bars. Made
//! once, for every screen. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::live::{Live, LiveMetrics};
use super::table::{GLUE, hang};
use super::{OutputStyle, Style, failure, totals, words};
use crate::graph::{Unmet, gate};
use crate::plan::Reason;
use crate::protocol::DETAIL;
use crate::run::{RunEvent, Totals};
use crate::text::{bytes, clean, counted, seconds};

#[cfg(test)]
mod tests;

/// Name of the bar of what goes to the remote.
const SENDING: &str = "↑ remote";
/// A stage that says much is heard this often.
const QUIET_FOR: Duration = Duration::from_secs(10);

/// One line about a run.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// One letter for what happened, before the name of the stage; empty: the text stands alone.
    pub mark: &'static str,
    pub style: Style,
    pub stage: String,
    /// With styles of its own in it; of several lines where one does not do.
    pub text: String,
    /// Said even when asked to be quiet.
    pub loud: bool,
    /// Left out where bars are shown: one of them says the same.
    pub on_bar: bool,
}

/// What an event means for the bar of a stage, where there are bars.
#[derive(Debug, Clone)]
pub enum Bar {
    /// A new one, in place of one of that name.
    Begin {
        name: String,
        says: String,
    },
    /// A new one, unless there is one of that name.
    Ensure {
        name: String,
        says: String,
    },
    /// So much is done. `says`: what it says from now on, if anything new.
    Count {
        name: String,
        done: u64,
        total: u64,
        is_bytes: bool,
        says: Option<String>,
    },
    Say {
        name: String,
        says: String,
    },
    End {
        name: String,
    },
    EndAll,
}

/// What an event tells: a line, what it means for bars, both or nothing.
#[derive(Debug, Default)]
pub struct EventText {
    pub line: Option<Line>,
    pub bars: Vec<Bar>,
}

/// Makes lines of the events of one run.
#[derive(Debug)]
pub struct RunLines {
    look: OutputStyle,
    /// Columns of the longest name of a stage.
    width: usize,
    pipeline: String,
    /// What was typed to start it.
    command: String,
    /// `logs` knows its stages by these names.
    has_logs: bool,
    /// Stages of the run, and those that came to their end.
    all: usize,
    ended: BTreeSet<String>,
    /// Stages that another run makes, so that this is told once.
    busy: BTreeMap<String, Instant>,
    /// When progress of a stage was told last.
    heard: BTreeMap<String, Instant>,
    watched: LiveMetrics,
    live: Live,
}

impl From<Line> for EventText {
    fn from(line: Line) -> Self {
        Self { line: Some(line), bars: Vec::new() }
    }
}

impl From<Bar> for EventText {
    fn from(bar: Bar) -> Self {
        Self { line: None, bars: vec![bar] }
    }
}

impl Line {
    fn of(mark: &'static str, style: Style, stage: &str, text: impl Into<String>) -> Self {
        Self { mark, style, stage: stage.to_owned(), text: text.into(), ..Self::default() }
    }

    fn alone(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn loud(self) -> Self {
        Self { loud: true, ..self }
    }

    fn on_bar(self, on_bar: bool) -> Self {
        Self { on_bar, ..self }
    }

    /// It, and the end of a stage's bar.
    fn ending(self, stage: &str) -> EventText {
        EventText { line: Some(self), bars: vec![Bar::End { name: stage.to_owned() }] }
    }
}

impl RunLines {
    #[must_use]
    pub fn new(look: OutputStyle, watched: LiveMetrics) -> Self {
        let (busy, heard) = (BTreeMap::new(), BTreeMap::new());
        let live = Live::new(watched.clone());
        let (pipeline, command) = (String::new(), String::new());
        Self {
            look,
            width: 0,
            pipeline,
            command,
            has_logs: false,
            all: 0,
            ended: BTreeSet::new(),
            busy,
            heard,
            watched,
            live,
        }
    }

    /// Columns of the longest name of a stage; 0 before the run began.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// How far the whole run is; `None`: it has one stage.
    #[must_use]
    pub fn so_far(&self) -> Option<String> {
        (self.all > 1).then(|| format!("{} of {} stages", self.ended.len(), self.all))
    }

    /// The line as it is written, names of stages below each other.
    #[must_use]
    pub fn text(&self, line: &Line) -> String {
        if line.mark.is_empty() {
            return line.text.clone();
        }
        let text = hang(&line.text, self.width + 5, self.look);
        let mark = self.look.paint(line.style, line.mark);
        format!(" {mark} {:<width$}  {text}", line.stage, width = self.width)
    }

    /// What an event tells.
    pub fn hear(&mut self, event: &RunEvent) -> EventText {
        use RunEvent as E;
        if let Some(stage) = ended(event) {
            self.ended.insert(stage.to_owned());
        }
        match event {
            E::RunStarted { stages, pipeline, command, .. } => {
                self.width = stages.iter().map(|s| s.chars().count()).max().unwrap_or(0);
                self.all = stages.len();
                self.pipeline.clone_from(pipeline);
                self.command = typed(command, pipeline);
                self.has_logs = command.get(1).is_some_and(|verb| verb == "run");
                EventText::default()
            }
            E::StageReused { stage, .. } => self.detail("=", stage, "reused"),
            E::StageBlocked { stage, by } => self.detail("-", stage, &format!("blocked by {by}")),
            E::StageBusy { stage } => self.busy(stage),
            E::StageStarted { stage, reason, attempt, .. } => self.started(stage, reason, *attempt),
            E::Progress { stage, done, total, unit } => self.progress(stage, *done, *total, unit),
            E::Metric { stage, values, .. } => {
                self.live.hear(stage, values);
                Bar::Say { name: stage.clone(), says: clean(&self.live.text(stage)) }.into()
            }
            E::Note { stage, level, text } => self.note(stage, level, text),
            E::StageDone { stage, seconds, summary, unchanged, .. } => {
                self.done(stage, *seconds, summary, *unchanged).ending(stage)
            }
            E::StageFailed { stage, outcome, retrying, log, again, .. } => {
                let shows = self.has_logs && !log.is_empty();
                let logs = shows.then(|| format!("preflow logs {} {stage}", self.pipeline));
                let text = failure(self.look, stage, outcome, (logs.as_deref(), log, again));
                let more = if *retrying { "\n  = trying again" } else { "" };
                Line::alone(text + more).loud().ending(stage)
            }
            E::StageWaiting { stage, reason, remedy, .. } => {
                let remedy = remedy.as_ref().map(|r| format!("    → {r}")).unwrap_or_default();
                let text = format!("waiting for people: {}{remedy}", clean(reason));
                Line::of("◌", Style::Warning, stage, text).ending(stage)
            }
            E::GateUnmet { stage, unmet, accepted } => unmet_gate(stage, unmet, *accepted).into(),
            E::Fetching { stage } => {
                Bar::Ensure { name: stage.clone(), says: "from the remote".into() }.into()
            }
            E::StageFetched { stage, files, bytes, .. } => {
                let text = format!("fetched {}", transfer(*files, *bytes));
                Line::of("↓", Style::Good, stage, text).ending(stage)
            }
            E::RemoteTrouble { stage, message, help, lasting } => {
                trouble(stage.as_deref(), message, help.as_deref(), *lasting)
            }
            E::Sending { entries: 0, .. } => Bar::End { name: SENDING.into() }.into(),
            E::Sending { entries, done, total } => self.sending(*entries, *done, *total),
            E::Sent { entries, files, bytes, waiting } => {
                self.sent(*entries, *files, *bytes, *waiting).ending(SENDING)
            }
            E::Interrupted { times: 1 } => Line::alone(
                "stopping: running stages get 5 seconds; press Ctrl-C again to end them now",
            )
            .into(),
            E::Interrupted { .. } => Line::alone("ending running stages now").into(),
            E::RunEnded { totals, seconds, exit } => {
                let line = Some(self.last(totals, *seconds, *exit).loud());
                EventText { line, bars: vec![Bar::EndAll] }
            }
        }
    }

    /// A line for those who asked for all of them.
    fn detail(&self, mark: &'static str, stage: &str, text: &str) -> EventText {
        if !self.look.verbose {
            return EventText::default();
        }
        Line::of(mark, Style::Dim, stage, self.look.paint(Style::Dim, text)).into()
    }

    fn busy(&mut self, stage: &str) -> EventText {
        match self.busy.insert(stage.to_owned(), Instant::now()) {
            Some(_) => EventText::default(),
            None => {
                let text = "another run is making it; waiting for that";
                Line::of("◌", Style::Warning, stage, text).into()
            }
        }
    }

    fn started(&mut self, stage: &str, reason: &Reason, attempt: u32) -> EventText {
        self.live.start(stage);
        let cause = words::cause(reason);
        let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        let why = self.look.paint(Style::Dim, &format!("starts: {cause}"));
        let line = Line::of("▸", Style::Busy, stage, format!("{why}{again}"));
        let verbose = self.look.verbose;
        let says = if verbose { String::new() } else { clean(&cause) };
        let bar = Bar::Begin { name: stage.to_owned(), says };
        EventText { line: Some(line.on_bar(!verbose)), bars: vec![bar] }
    }

    fn progress(&mut self, stage: &str, done: u64, total: u64, unit: &str) -> EventText {
        self.live.progress(stage, done, total);
        let (live, is_bytes) = (self.live.text(stage), unit == "bytes");
        let says = Some(clean(&live)).filter(|says| !says.is_empty());
        let bar = Bar::Count { name: stage.to_owned(), done, total, is_bytes, says };
        if !self.is_due(stage) {
            return bar.into();
        }
        let unit = clean(unit);
        let mut text = match total {
            0 => format!("{done} {unit}"),
            _ if is_bytes => format!("{} of {}", bytes(done), bytes(total)),
            _ => format!("{done} of {total} {unit}"),
        };
        if !live.is_empty() {
            text.push_str(&format!("   {live}"));
        }
        let line = Line::of(" ", Style::Dim, stage, self.look.paint(Style::Dim, &text));
        EventText { line: Some(line.on_bar(true)), bars: vec![bar] }
    }

    fn note(&self, stage: &str, level: &str, text: &str) -> EventText {
        let (mark, style) = match level {
            DETAIL if !self.look.verbose => return EventText::default(),
            "warn" => ("!", Style::Warning),
            _ => ("·", Style::Dim),
        };
        Line::of(mark, style, stage, clean(text)).into()
    }

    fn done(
        &self,
        stage: &str,
        took: f64,
        summary: &BTreeMap<String, Option<f64>>,
        unchanged: bool,
    ) -> Line {
        let mut text = format!("done in {}", seconds(took));
        if unchanged {
            text.push_str(", same bytes as before");
        }
        let first = self.watched.get(stage).map_or(&[][..], Vec::as_slice);
        // Folded between them, not between a figure and its name.
        let figures = words::figures(summary, first, 3);
        let glued = figures.split("  ").map(|one| one.replace(' ', &GLUE.to_string()));
        let figures = glued.collect::<Vec<_>>().join("  ");
        if !figures.is_empty() {
            text = format!("{text}   {}", self.look.paint(Style::Dim, &figures));
        }
        Line::of("✓", Style::Good, stage, text)
    }

    fn sending(&mut self, entries: usize, done: u64, total: u64) -> EventText {
        let name = || SENDING.to_owned();
        self.live.progress(SENDING, done, total);
        let says = Some(clean(&self.live.text(SENDING))).filter(|says| !says.is_empty());
        let bars = vec![
            Bar::Ensure { name: name(), says: String::new() },
            Bar::Count { name: name(), done, total, is_bytes: true, says },
        ];
        let line = self.is_due("").then(|| {
            let stages = counted(entries, "stage");
            let text = format!("sending {stages}: {} of {}", bytes(done), bytes(total));
            let text = self.look.paint(Style::Dim, &text);
            Line::of("↑", Style::Dim, "remote", text).on_bar(true)
        });
        EventText { line, bars }
    }

    /// It is a while since something of this name was told.
    fn is_due(&mut self, name: &str) -> bool {
        let now = Instant::now();
        let last = self.heard.entry(name.to_owned()).or_insert(now);
        let due = now.duration_since(*last) >= QUIET_FOR;
        if due {
            *last = now;
        }
        due
    }

    fn sent(&self, entries: usize, files: u64, bytes: u64, waiting: usize) -> Line {
        let mut parts = Vec::new();
        if entries > 0 {
            parts.push(format!("sent {}: {}", counted(entries, "stage"), transfer(files, bytes)));
        }
        if waiting > 0 {
            let verb = if waiting == 1 { "waits" } else { "wait" };
            let stages = counted(waiting, "stage");
            parts.push(format!("{stages} {verb} to be sent → preflow push {}", self.pipeline));
        }
        let style = if waiting > 0 { Style::Warning } else { Style::Good };
        Line::of("↑", style, "remote", parts.join("; "))
    }

    fn last(&self, t: &Totals, took: f64, exit: u8) -> Line {
        let (counts, took) = (totals(t), seconds(took));
        let idle = t.done + t.failed + t.waiting + t.blocked + t.skipped + t.stopped + t.gated == 0;
        let mut text = match idle {
            true => format!(" nothing to do: {counts}   {took}"),
            false => format!(" {counts}   {took}"),
        };
        if exit == 130 {
            text.push_str(&format!("\n interrupted; `{}` goes on from here", self.command));
        }
        Line::alone(text)
    }
}

/// The stage that an event says is settled, for good or ill.
fn ended(event: &RunEvent) -> Option<&str> {
    match event {
        RunEvent::StageReused { stage, .. }
        | RunEvent::StageFetched { stage, .. }
        | RunEvent::StageDone { stage, .. }
        | RunEvent::StageWaiting { stage, .. }
        | RunEvent::StageBlocked { stage, .. }
        | RunEvent::StageFailed { stage, retrying: false, .. } => Some(stage),
        _ => None,
    }
}

/// What was typed, as it can be typed again.
fn typed(command: &[String], pipeline: &str) -> String {
    let words = command.iter().skip(1).map(String::as_str);
    match shlex::try_join(std::iter::once("preflow").chain(words)) {
        Ok(text) if command.len() > 1 => clean(&text),
        _ => format!("preflow run {pipeline}"),
    }
}

fn trouble(stage: Option<&str>, message: &str, help: Option<&str>, lasting: bool) -> EventText {
    let on = if lasting { "; the run goes on without it" } else { "" };
    let help = help.map(|h| format!("\n   = help: {h}")).unwrap_or_default();
    let text = format!("{}{on}{help}", clean(message));
    let line = Line::of("!", Style::Warning, stage.unwrap_or("remote"), text).loud();
    match stage {
        Some(stage) => line.ending(stage),
        None => line.into(),
    }
}

fn unmet_gate(stage: &str, unmet: &[Unmet], accepted: bool) -> Line {
    let text = format!("gate of `{stage}` not met: {}", gate::sentence(unmet));
    if accepted {
        return Line::of("!", Style::Warning, stage, format!("{text}; accepted")).loud();
    }
    let remedy = if unmet.iter().any(Unmet::is_mistake) {
        format!("name one of those under `gate:` of `{stage}`")
    } else {
        format!(
            "what depends on it does not run; improve `{stage}`, or go on all the same with \
             --accept-gate {stage}"
        )
    };
    Line::of("◌", Style::Warning, stage, format!("{text}\n   = help: {remedy}")).loud()
}

/// What moved: `3 files, 1.2 MiB`.
fn transfer(files: u64, size: u64) -> String {
    format!("{}, {}", counted(files, "file"), bytes(size))
}
