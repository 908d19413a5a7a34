//! The remote of a workspace: which one, opened, and how transfers are shown.
//! Decides nothing about what is sent or fetched.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::Failure;
use super::workspace::Loaded;
use super::{Exit, Global, complain, sweep};
use crate::diagnostic::Diagnostic;
use crate::pipeline;
use crate::remote::{Config, Mode, Progress, Remote, RemoteError, Site};
use crate::report::terminal::{has_colour, safe};
use crate::report::{Look, Style, line};
use crate::text::clean;
use crate::workspace;

/// How often figures move on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// The remote that the user named, or that the workspace at `root` does. `None`: neither does.
/// Nobody is asked yet.
///
/// # Errors
/// What names it is wrong, or the environment holds no credentials for it.
pub fn open(global: &Global, root: &Path) -> Result<Option<Remote>, Failure> {
    Ok(config(global, root)?.map(Remote::open).transpose()?)
}

/// The same, but for opening it.
///
/// # Errors
/// What names it is wrong.
pub fn config(global: &Global, root: &Path) -> Result<Option<Config>, Failure> {
    let written = written(root)?;
    let mut config = match global.remote.as_deref() {
        Some("none") => return Ok(None),
        Some(url) if !url.is_empty() => {
            let here = std::path::absolute(".").unwrap_or_default();
            let site = Site::parse(url, &here)
                .map_err(|e| Failure::usage(format!("--remote: {}", e.reason)).help(e.help))?;
            // The file's endpoint belongs to the file's place.
            let same = written.filter(|written| written.site == site);
            same.unwrap_or_else(|| Config::at(site))
        }
        _ => match written {
            Some(config) => config,
            None => return Ok(None),
        },
    };
    if let Some(word) = global.remote_mode.as_deref().filter(|word| !word.is_empty()) {
        config.mode = Mode::parse(word).ok_or_else(|| {
            Failure::usage(format!("PREFLOW_REMOTE_MODE: `{}` is no mode", clean(word)))
                .help(format!("one of {}", Mode::WORDS.join(", ")))
        })?;
    }
    Ok(Some(config))
}

/// What the workspace file says.
fn written(root: &Path) -> Result<Option<Config>, Failure> {
    let read = super::workspace::workspace_file(root)?;
    let Some(remote) = read.and_then(|file| file.remote) else { return Ok(None) };
    let site = Site::parse(&remote.url, root).map_err(|e| {
        // Without the line itself: it may hold a password.
        let at = pipeline::place(&remote.span);
        let problem = Diagnostic::new(format!("{at}: `url`: {}", e.reason), None);
        Failure::Diagnostics(vec![problem.help(e.help)])
    })?;
    let mode = if remote.read_only { Mode::ReadOnly } else { Mode::ReadWrite };
    let workspace::Remote { endpoint, region, required, .. } = remote;
    Ok(Some(Config { site, mode, endpoint, region, required }))
}

/// The remote, for a verb that is about nothing else.
///
/// # Errors
/// As [`open`], and where there is none.
pub fn needed(global: &Global, root: &Path) -> Result<Remote, Failure> {
    open(global, root)?.ok_or_else(|| {
        Failure::usage("no remote is configured").help(
            "`remote: { url: s3://BUCKET/PREFIX }` in preflow.yaml, PREFLOW_REMOTE, or --remote",
        )
    })
}

/// A pipeline, or all trials of a sweep that are known so far, as one graph. `over`: trials without
/// a figure are out of a halving sweep.
///
/// # Errors
/// The file is wrong, or the store.
pub fn load(file: &Path, over: bool, global: &Global) -> Result<Loaded, Failure> {
    if !sweep::is_sweep(file) {
        return super::workspace::load(file, global);
    }
    // Nothing is run, so nobody need be asked about their number.
    let which = sweep::Which { file: file.to_owned(), yes: true };
    Ok(sweep::open(&which, global)?.survey(global, over)?.loaded)
}

/// Shows transfers: a bar on a terminal, else a line for each that is done.
pub struct Show {
    look: Look,
    json: bool,
    bar: Option<ProgressBar>,
}

impl Show {
    #[must_use]
    pub fn new(look: Look, json: bool, what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = (terminal && !look.quiet && !json).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                " {prefix} {bar:24} {binary_bytes}/{binary_total_bytes}  {msg}  \
                 {binary_bytes_per_sec}  {eta}",
            );
            bar.set_style(style.expect("invariant: the template is ours").progress_chars("━━─"));
            bar.set_prefix(what);
            bar
        });
        Self { look, json, bar }
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
        match &self.bar {
            Some(bar) => bar.suspend(|| complain(&text)),
            None => complain(&text),
        }
    }

    fn tick(&self, progress: &Progress) {
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
        progress: &Arc<Progress>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        let runtime = super::run::runtime()?;
        let done = runtime.block_on(async {
            let mut interrupts = super::run::listen();
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
pub fn interrupted(verb: &str, look: Look) -> Exit {
    let mark = look.paint(Style::Warning, "interrupted:");
    complain(&format!("{mark} what was moved is kept; `preflow {verb}` goes on from there\n"));
    Exit::Interrupted
}

/// Waits for an answer of the remote, as `doctor` does.
///
/// # Errors
/// It does not answer, or refuses.
pub fn ask(remote: &Remote) -> Result<(), Failure> {
    let runtime = super::run::runtime()?;
    Ok(runtime.block_on(remote.ask())?)
}
