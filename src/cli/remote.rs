//! The remote of a workspace: which one, opened, and how transfers are shown.
//! Decides nothing about what is sent or fetched.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Exit, complain};
use crate::project::Failure;
use crate::remote::{RemoteError, TransferProgress};
use crate::report::terminal::{BarsShown, has_colour, safe};
use crate::report::{OutputStyle, Style, line};
use crate::text::clean;

/// How often figures move on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// Shows transfers: a bar on a terminal, else a line for each that is done.
pub struct Show {
    look: OutputStyle,
    json: bool,
    bar: Option<ProgressBar>,
    _shown: Option<BarsShown>,
}

impl Show {
    #[must_use]
    pub fn new(look: OutputStyle, json: bool, what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = (terminal && !look.quiet && !json).then(|| {
            let target = ProgressDrawTarget::stderr();
            let bars = MultiProgress::with_draw_target(target);
            let bar = bars.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template(
                " {prefix} {bar:24} {binary_bytes}/{binary_total_bytes}  {msg}  \
                 {binary_bytes_per_sec}  {eta}",
            );
            bar.set_style(style.expect("invariant: the template is ours").progress_chars("━━─"));
            bar.set_prefix(what);
            (bar, BarsShown::begin(&bars))
        });
        let (bar, shown) = bar.unzip();
        Self { look, json, bar, _shown: shown }
    }

    /// One thing is done.
    pub fn done(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(safe(text, has_colour())),
            None if self.look.quiet || self.json => {}
            None => line(&mut std::io::stdout().lock(), text),
        }
    }

    /// One thing went wrong, and the others go on.
    pub fn warn(&self, stage: &str, error: &RemoteError) {
        let mark = self.look.paint(Style::Warning, "warning:");
        let mut text = format!("{mark} {}: {}\n", clean(stage), clean(&error.to_string()));
        if let Some(help) = error.help() {
            text.push_str(&format!("  = help: {help}\n"));
        }
        complain(&text);
    }

    fn tick(&self, progress: &TransferProgress) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(progress.total().max(progress.bytes()));
        bar.set_position(progress.bytes());
        bar.set_message(format!("{} files", progress.files()));
    }

    /// Does the work and shows it. `None`: interrupted.
    ///
    /// # Errors
    /// Those of the work, and when nothing can be started.
    pub fn drive<T>(
        &self,
        progress: &Arc<TransferProgress>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        let runtime = crate::project::execution::runtime()?;
        let done = runtime.block_on(async {
            let mut interrupts = super::interrupts::listen();
            let mut ticks = tokio::time::interval(TICK);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done.map(Some),
                    Some(()) = interrupts.recv() => return Ok(None),
                    _ = ticks.tick() => self.tick(progress),
                }
            }
        });
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        done
    }
}

/// What is said of a transfer that the user ended.
#[must_use]
pub fn interrupted(verb: &str, look: OutputStyle) -> Exit {
    let mark = look.paint(Style::Warning, "interrupted:");
    complain(&format!("{mark} what was moved is kept; `preflow {verb}` goes on from there\n"));
    Exit::Interrupted
}
