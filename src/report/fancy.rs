//! For people at a terminal: a bar for each running stage, finished lines above.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::OutputStyle;
use super::line::{Bar, RunLines};
use super::live::LiveMetrics;
use super::terminal::{BarsShown, has_colour, safe};
use crate::run::{Reporter, RunEvent};

/// Bars on standard error, lines above them.
pub struct Fancy {
    lines: RunLines,
    quiet: bool,
    bars: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
    /// Below all others: how far the run is.
    total: Option<ProgressBar>,
    _shown: BarsShown,
}

impl Fancy {
    #[must_use]
    pub fn new(look: OutputStyle, watched: LiveMetrics) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let lines = RunLines::new(look, watched);
        let shown = BarsShown::begin(&bars);
        let (running, total) = (BTreeMap::new(), None);
        Self { lines, quiet: look.quiet, bars, running, total, _shown: shown }
    }

    fn show(&mut self, bar: Bar) {
        match bar {
            Bar::Begin { name, says } => self.begin(&name, says),
            Bar::Ensure { name, says } if !self.running.contains_key(&name) => {
                self.begin(&name, says);
            }
            Bar::Ensure { .. } => {}
            Bar::Count { name, done, total, is_bytes, says } => {
                let Some(bar) = self.running.get(&name) else { return };
                if bar.length() != Some(total) && total > 0 {
                    bar.set_style(counting(self.lines.width(), is_bytes));
                    bar.set_length(total);
                }
                bar.set_position(done);
                if let Some(says) = says {
                    bar.set_message(says);
                }
            }
            Bar::Say { name, says } => {
                if let Some(bar) = self.running.get(&name) {
                    bar.set_message(says);
                }
            }
            Bar::End { name } => {
                if let Some(bar) = self.running.remove(&name) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
            Bar::EndAll => {
                let running = std::mem::take(&mut self.running).into_values();
                for bar in running.chain(self.total.take()) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
        }
    }

    /// Says how far the run is, once something takes its time.
    fn show_total(&mut self) {
        let Some(so_far) = self.lines.so_far().filter(|_| !self.running.is_empty()) else { return };
        let total = self.total.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(0));
            bar.set_style(style("   {msg:.dim}  {elapsed:.dim}"));
            bar
        });
        total.set_message(so_far);
    }

    fn begin(&mut self, name: &str, says: String) {
        let bar = match &self.total {
            Some(total) => self.bars.insert_before(total, ProgressBar::new(0)),
            None => self.bars.add(ProgressBar::new(0)),
        };
        let width = self.lines.width();
        bar.set_style(style(&format!(
            " {{spinner}} {{prefix:<{width}}}  {{elapsed:>4}}  {{wide_msg}}"
        )));
        bar.set_prefix(super::clean(name));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar.set_message(says);
        if let Some(old) = self.running.insert(name.to_owned(), bar) {
            old.finish_and_clear();
        }
    }
}

/// The style of a bar that knows how much there is to do.
fn counting(width: usize, is_bytes: bool) -> ProgressStyle {
    let count = if is_bytes { "{binary_bytes}/{binary_total_bytes}" } else { "{pos}/{len}" };
    style(&format!(
        " {{spinner}} {{prefix:<{width}}}  {{elapsed:>4}}  {{bar:10.cyan/dim}} {count}  \
         {{wide_msg:.dim}}"
    ))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("invariant: the template is ours")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("━━─")
}

impl Reporter for Fancy {
    fn event(&mut self, event: &RunEvent) {
        let told = self.lines.hear(event);
        for bar in told.bars {
            self.show(bar);
        }
        let line = told.line.filter(|line| !line.on_bar && (line.loud || !self.quiet));
        if let Some(line) = line {
            let _ = self.bars.println(safe(&self.lines.text(&line), has_colour()));
        }
        self.show_total();
    }
}
