//! For people at a terminal: a bar for each running stage, finished lines above.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::live::Watched;
use super::plain::Plain;
use super::terminal::{has_colour, safe};
use super::{Look, words};
use crate::run::{Reporter, RunEvent};

/// Name of the bar of what goes to the remote.
const SENDING: &str = "↑ remote";

/// Bars on standard error, lines above them.
pub struct Fancy {
    plain: Plain,
    look: Look,
    bars: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
    width: usize,
}

impl Fancy {
    #[must_use]
    pub fn new(look: Look, watched: Watched) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { plain: Plain::new(look, watched), look, bars, running: BTreeMap::new(), width: 0 }
    }

    fn start(&mut self, stage: &str) {
        let bar = self.bars.add(ProgressBar::new(0));
        let template =
            format!(" {{spinner}} {{prefix:<{}}}  {{elapsed:>4}}  {{wide_msg}}", self.width);
        bar.set_style(style(&template));
        bar.set_prefix(super::clean(stage));
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Some(old) = self.running.insert(stage.to_owned(), bar) {
            old.finish_and_clear();
        }
    }

    fn stop(&mut self, stage: &str) {
        if let Some(bar) = self.running.remove(stage) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn say(&self, text: &str) {
        let _ = self.bars.println(safe(text, has_colour()));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("invariant: the template is ours")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("━━─")
}

impl Reporter for Fancy {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunStarted { stages, .. } => {
                self.width = stages.iter().map(|s| s.chars().count()).max().unwrap_or(0);
                self.plain.text(event);
            }
            RunEvent::StageStarted { stage, .. } => {
                self.start(stage);
                if let (Some(text), true) = (self.plain.text(event), self.look.verbose) {
                    self.say(&text);
                } else if let (RunEvent::StageStarted { reason, .. }, Some(bar)) =
                    (event, self.running.get(stage))
                {
                    bar.set_message(super::clean(&words::cause(reason)));
                }
            }
            RunEvent::Fetching { stage } => {
                if !self.running.contains_key(stage) {
                    self.start(stage);
                    self.plain.live.start(stage);
                    if let Some(bar) = self.running.get(stage) {
                        bar.set_message("from the remote");
                    }
                }
            }
            RunEvent::Sending { entries: 0, .. } => self.stop(SENDING),
            RunEvent::Sending { done, total, .. } => {
                if !self.running.contains_key(SENDING) {
                    self.start(SENDING);
                }
                let (stage, unit) = (SENDING.to_owned(), "bytes".to_owned());
                let (done, total) = (*done, *total);
                self.event(&RunEvent::Progress { stage, done, total, unit });
            }
            RunEvent::Progress { stage, done, total, unit } => {
                let Some(bar) = self.running.get(stage) else { return };
                if bar.length() != Some(*total) && *total > 0 {
                    let count = match unit.as_str() {
                        "bytes" => "{binary_bytes}/{binary_total_bytes}",
                        _ => "{pos}/{len}",
                    };
                    let template = format!(
                        " {{spinner}} {{prefix:<{}}}  {{elapsed:>4}}  {{bar:10.cyan/dim}} \
                         {count}  {{wide_msg:.dim}}",
                        self.width
                    );
                    bar.set_style(style(&template));
                    bar.set_length(*total);
                }
                bar.set_position(*done);
                self.plain.live.progress(stage, *done, *total);
                let live = self.plain.live.text(stage);
                if !live.is_empty() {
                    bar.set_message(super::clean(&live));
                }
            }
            RunEvent::Metric { stage, values, .. } => {
                self.plain.live.hear(stage, values);
                if let Some(bar) = self.running.get(stage) {
                    bar.set_message(super::clean(&self.plain.live.text(stage)));
                }
            }
            event => {
                match event {
                    RunEvent::StageDone { stage, .. }
                    | RunEvent::StageFailed { stage, .. }
                    | RunEvent::StageFetched { stage, .. }
                    | RunEvent::RemoteTrouble { stage: Some(stage), .. }
                    | RunEvent::StageWaiting { stage, .. } => self.stop(stage),
                    RunEvent::Sent { .. } => self.stop(SENDING),
                    RunEvent::RunEnded { .. } => {
                        for (_, bar) in std::mem::take(&mut self.running) {
                            bar.finish_and_clear();
                        }
                    }
                    _ => {}
                }
                let Some(text) = self.plain.text(event) else { return };
                if super::is_loud(event) || !self.look.quiet {
                    self.say(&text);
                }
            }
        }
    }
}
