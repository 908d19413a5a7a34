//! For CI and pipes: one line a change, no cursor movement.

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::time::{Duration, Instant};

use super::live::{Live, Watched};
use super::table::{GLUE, hang};
use super::{Look, Style, clean, failure, line, totals, words};
use crate::graph::{Unmet, gate};
use crate::protocol::DETAIL;
use crate::run::{Reporter, RunEvent};

/// Lines as things happen.
#[derive(Debug)]
pub struct Plain {
    look: Look,
    width: usize,
    busy: BTreeMap<String, Instant>,
    progress: BTreeMap<String, Instant>,
    watched: Watched,
    pub(super) live: Live,
    pipeline: String,
}

/// A stage that says much is heard this often.
const QUIET_FOR: Duration = Duration::from_secs(10);

impl Plain {
    #[must_use]
    pub fn new(look: Look, watched: Watched) -> Self {
        let (busy, progress) = (BTreeMap::new(), BTreeMap::new());
        let live = Live::new(watched.clone());
        Self { look, width: 0, busy, progress, watched, live, pipeline: String::new() }
    }

    /// The line for an event; `None` when there is nothing to say.
    pub fn text(&mut self, event: &RunEvent) -> Option<String> {
        let look = self.look;
        match event {
            RunEvent::RunStarted { stages, pipeline, .. } => {
                self.width = stages.iter().map(|s| s.chars().count()).max().unwrap_or(0);
                self.pipeline.clone_from(pipeline);
                None
            }
            RunEvent::StageReused { stage, .. } if look.verbose => {
                Some(self.row("=", Style::Dim, stage, &look.paint(Style::Dim, "reused")))
            }
            RunEvent::StageReused { .. } => None,
            RunEvent::Fetching { .. } => None,
            RunEvent::StageFetched { stage, files, bytes, .. } => {
                let text = format!("fetched {}", transfer(*files, *bytes));
                Some(self.row("↓", Style::Good, stage, &text))
            }
            RunEvent::RemoteTrouble { stage, message, help, lasting } => {
                let on = if *lasting { "; the run goes on without it" } else { "" };
                let help = help.as_ref().map(|h| format!("\n   = help: {h}")).unwrap_or_default();
                let stage = stage.as_deref().unwrap_or("remote");
                Some(self.row("!", Style::Warning, stage, &format!("{}{on}{help}", clean(message))))
            }
            RunEvent::Sending { entries: 0, .. } => None,
            RunEvent::Sending { entries, done, total } => {
                let text = format!(
                    "sending {}: {} of {}",
                    words::counted(*entries as u64, "stage"),
                    words::bytes(*done),
                    words::bytes(*total)
                );
                self.is_due("")
                    .then(|| self.row("↑", Style::Dim, "remote", &look.paint(Style::Dim, &text)))
            }
            RunEvent::Sent { entries, files, bytes, waiting } => {
                Some(self.sent(*entries, *files, *bytes, *waiting))
            }
            RunEvent::StageBusy { stage } => {
                let first = self.busy.insert(stage.clone(), Instant::now()).is_none();
                first.then(|| {
                    self.row(
                        "◌",
                        Style::Warning,
                        stage,
                        "another run is making it; waiting for that",
                    )
                })
            }
            RunEvent::StageStarted { stage, reason, attempt, .. } => {
                self.live.start(stage);
                let again =
                    if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
                let why = look.paint(Style::Dim, &format!("starts: {}", words::cause(reason)));
                Some(self.row("▸", Style::Busy, stage, &format!("{why}{again}")))
            }
            RunEvent::Progress { stage, done, total, unit } => {
                self.live.progress(stage, *done, *total);
                if !self.is_due(stage) {
                    return None;
                }
                let unit = clean(unit);
                let mut text = match (total, unit.as_str()) {
                    (0, _) => format!("{done} {unit}"),
                    (_, "bytes") => {
                        format!("{} of {}", words::bytes(*done), words::bytes(*total))
                    }
                    _ => format!("{done} of {total} {unit}"),
                };
                let live = self.live.text(stage);
                if !live.is_empty() {
                    text.push_str(&format!("   {live}"));
                }
                Some(self.row(" ", Style::Dim, stage, &look.paint(Style::Dim, &text)))
            }
            RunEvent::Metric { stage, values, .. } => {
                self.live.hear(stage, values);
                None
            }
            RunEvent::Note { level, .. } if level == DETAIL && !look.verbose => None,
            RunEvent::Note { stage, level, text } => {
                let mark = if level == "warn" { "!" } else { "·" };
                let style = if level == "warn" { Style::Warning } else { Style::Dim };
                Some(self.row(mark, style, stage, &clean(text)))
            }
            RunEvent::StageDone { stage, seconds, summary, unchanged, .. } => {
                let mut text = format!("done in {}", words::seconds(*seconds));
                if *unchanged {
                    text.push_str(", same bytes as before");
                }
                let first = self.watched.get(stage).map_or(&[][..], Vec::as_slice);
                // Folded between them, not between a figure and its name.
                let figures = words::figures(summary, first, 3);
                let glued = figures.split("  ").map(|one| one.replace(' ', &GLUE.to_string()));
                let figures = glued.collect::<Vec<_>>().join("  ");
                if !figures.is_empty() {
                    text = format!("{text}   {}", look.paint(Style::Dim, &figures));
                }
                Some(self.row("✓", Style::Good, stage, &text))
            }
            RunEvent::StageFailed { stage, outcome, retrying, log, again, .. } => {
                let mut text = failure(look, stage, outcome, log, again);
                if *retrying {
                    text.push_str("\n  = trying again");
                }
                Some(text)
            }
            RunEvent::StageWaiting { stage, reason, remedy, .. } => {
                let remedy = remedy.as_ref().map(|r| format!("    → {r}")).unwrap_or_default();
                let text = format!("waiting for people: {}{remedy}", clean(reason));
                Some(self.row("◌", Style::Warning, stage, &text))
            }
            RunEvent::StageBlocked { stage, by } if look.verbose => Some(self.row(
                "-",
                Style::Dim,
                stage,
                &look.paint(Style::Dim, &format!("blocked by {by}")),
            )),
            RunEvent::StageBlocked { .. } => None,
            RunEvent::GateUnmet { stage, unmet, accepted } => {
                Some(self.gate(stage, unmet, *accepted))
            }
            RunEvent::Interrupted { times: 1 } => Some(
                "stopping: running stages get 5 seconds; press Ctrl-C again to end them now".into(),
            ),
            RunEvent::Interrupted { .. } => Some("ending running stages now".into()),
            RunEvent::RunEnded { totals: t, seconds, exit } => Some(self.last(t, *seconds, *exit)),
        }
    }

    /// It is a while since something of this name was told.
    fn is_due(&mut self, name: &str) -> bool {
        let now = Instant::now();
        let last = self.progress.entry(name.to_owned()).or_insert(now);
        let due = now.duration_since(*last) >= QUIET_FOR;
        if due {
            *last = now;
        }
        due
    }

    fn sent(&self, entries: usize, files: u64, bytes: u64, waiting: usize) -> String {
        let mut parts = Vec::new();
        if entries > 0 {
            let stages = words::counted(entries as u64, "stage");
            parts.push(format!("sent {stages}: {}", transfer(files, bytes)));
        }
        if waiting > 0 {
            let verb = if waiting == 1 { "waits" } else { "wait" };
            let stages = words::counted(waiting as u64, "stage");
            parts.push(format!("{stages} {verb} to be sent → preflow push {}", self.pipeline));
        }
        let style = if waiting > 0 { Style::Warning } else { Style::Good };
        self.row("↑", style, "remote", &parts.join("; "))
    }

    fn last(&self, t: &crate::run::Totals, seconds: f64, exit: u8) -> String {
        let counts = totals(t);
        let mut text = format!(" {}   {}", counts, words::seconds(seconds));
        if t.done + t.failed + t.waiting + t.blocked + t.skipped + t.gated == 0 {
            text = format!(" nothing to do: {counts}   {}", words::seconds(seconds));
        }
        if exit == 130 {
            text =
                format!("{text}\n interrupted; `preflow run {}` goes on from here", self.pipeline);
        }
        text
    }

    fn gate(&self, stage: &str, unmet: &[Unmet], accepted: bool) -> String {
        let text = format!("gate of `{stage}` not met: {}", gate::sentence(unmet));
        if accepted {
            return self.row("!", Style::Warning, stage, &format!("{text}; accepted"));
        }
        let remedy = if unmet.iter().any(Unmet::is_mistake) {
            format!("name one of those under `gate:` of `{stage}`")
        } else {
            format!(
                "what depends on it does not run; improve `{stage}`, or go on all the same with \
                 --accept-gate {stage}"
            )
        };
        self.row("◌", Style::Warning, stage, &format!("{text}\n   = help: {remedy}"))
    }

    fn row(&self, mark: &str, style: Style, stage: &str, text: &str) -> String {
        let text = hang(text, self.width + 5, self.look);
        let stage = format!("{stage:<width$}", width = self.width);
        format!(" {} {stage}  {text}", self.look.paint(style, mark))
    }
}

/// What moved: `3 files, 1.2 MiB`.
fn transfer(files: u64, bytes: u64) -> String {
    format!("{}, {}", words::counted(files, "file"), words::bytes(bytes))
}

impl Reporter for Plain {
    fn event(&mut self, event: &RunEvent) {
        let loud = super::is_loud(event);
        if let Some(text) = self.text(event)
            && (loud || !self.look.quiet)
        {
            let mut out = stdout().lock();
            line(&mut out, &text);
            let _ = out.flush();
        }
    }
}
