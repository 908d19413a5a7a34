//! `preflow label serve`: the label page, until Ctrl-C.
//! Decides nothing about votes, links or what is asked.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use serde_json::json;

use crate::catalog::units::Unit;
use crate::cli::interrupts::listen;
use crate::cli::{Exit, Global, complain, print};
use crate::http::ServeError;
use crate::label::{self, Assignment, LabelSession, Links, ServeOptions, SessionError};
use crate::project::{Failure, Project};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};
use crate::store::StoreError;
use crate::user;
use crate::votes::{composed, is_annotator, is_plain};

const USUAL_PORT: u16 = 8765;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub page: Page,
}

/// Where the page is and who may vote.
#[derive(Debug, Clone, Args)]
pub struct Page {
    /// Port to listen on, 0 for any [default: 8765, or one near it]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Address to listen on; others than this machine's own need --share
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// Make a link for each of these annotators
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',', conflicts_with = "annotator")]
    pub share: Vec<String>,
    /// Whose votes these are [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub annotator: Option<String>,
    /// How long links are valid
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = time)]
    pub expires: SignedDuration,
    /// Where people reach the page, if a proxy stands before it
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

/// Open the label page.
///
/// # Errors
/// The stage is unknown, or has nothing to label yet.
pub fn serve(args: &ServeArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    args.page.check()?;
    let (project, assignment) = super::open(&args.words, global)?;
    let folder = folder(&project)?;
    let options = args.page.options(folder.clone())?;
    let session = Arc::new(open_session(assignment, Some(folder))?);
    let runtime = crate::project::execution::runtime()?;
    let ready = |links: &Links| announce(&session, links, &args.page, global, look);
    let ended = runtime.block_on(async {
        let mut interrupts = listen();
        let stop = async move {
            let _ = interrupts.recv().await;
        };
        label::serve(Arc::clone(&session), options, ready, stop).await
    });
    // A write that hangs on its disk must not keep the terminal.
    runtime.shutdown_timeout(Duration::from_millis(300));
    ended.map_err(not_served)?;
    if !global.json {
        let progress = session.progress("nobody", jiff::Timestamp::now()).map_err(refused)?;
        let goal = words(progress.votes, progress.goal);
        complain(&format!("\n {goal}; they are in {}\n", session.assignment().votes.display()));
    }
    Ok(Exit::Done)
}

impl Page {
    /// Refuses what would let anybody vote in somebody's name.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.listen.is_loopback() || !self.share.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "--listen {} lets other machines in: every annotator needs a link",
            self.listen
        ))
        .help("name them: --share ann,bob"))
    }

    /// The same for the server. `folder`: where its key lies.
    pub(super) fn options(&self, folder: PathBuf) -> Result<ServeOptions, Failure> {
        let annotators = match self.share.as_slice() {
            [] => vec![super::annotator(self.annotator.as_deref())?],
            names => names.iter().map(|n| super::annotator(Some(n))).collect::<Result<_, _>>()?,
        };
        Ok(ServeOptions {
            listen: self.listen,
            port: self.port.unwrap_or(USUAL_PORT),
            fallback: self.port.is_none(),
            public_url: self.public_url.clone(),
            annotators,
            expires: self.expires,
            folder,
        })
    }
}

/// The folder of the label pages of a workspace: keys and screens are the user's own business, so
/// that nothing of the kind is taken from a repository.
pub(super) fn folder(project: &Project) -> Result<PathBuf, Failure> {
    let folder = user::private_folder("label", project.store.root()).map_err(|error| {
        let message = format!("cannot keep the key that signs links: {error}");
        Failure::System { message, help: "see that you alone may open it".into() }
    })?;
    let before = project.store.root().join("label/key");
    if std::fs::symlink_metadata(before).is_ok() && !folder.join("key").exists() {
        complain(
            "note: links that an earlier version made no longer open the page: send new ones\n",
        );
    }
    Ok(folder)
}

/// A label session for an assignment that has something to ask.
pub(super) fn open_session(
    assignment: Assignment,
    cache: Option<PathBuf>,
) -> Result<LabelSession, Failure> {
    if assignment.pairs.is_empty() {
        return Err(Failure::usage(format!(
            "stage `{}` has no pairs to compare",
            assignment.stage
        ))
        .help("connect its input `pairs`"));
    }
    LabelSession::open(assignment, cache.as_deref()).map_err(refused)
}

/// A label session's error as a verb reports it.
pub(super) fn refused(error: SessionError) -> Failure {
    let help = error.help();
    match error {
        SessionError::Cache { source, .. } => Failure::Store(StoreError::Io(source)),
        e if e.is_full() => Failure::Store(StoreError::Io(std::io::Error::new(
            std::io::ErrorKind::StorageFull,
            e.to_string(),
        ))),
        e => Failure::usage(e.to_string()).help(help),
    }
}

pub(super) fn not_served(error: ServeError) -> Failure {
    let help = match &error {
        ServeError::Listen { .. } => "choose another --port, or 0 for any",
        ServeError::BadUrl { .. } => "as in --public-url https://label.example.org",
        ServeError::Key(_) => "choose another place with --cache",
        ServeError::Expires => "as in --expires 30d",
    };
    Failure::usage(error.to_string()).help(help)
}

fn words(votes: u64, goal: u64) -> String {
    format!("{votes} of {goal} votes")
}

/// Says where the page is.
pub(super) fn announce(
    session: &LabelSession,
    links: &Links,
    args: &Page,
    global: &Global,
    look: OutputStyle,
) {
    let of = session.assignment();
    if global.json {
        let people: Vec<_> =
            links.annotators.iter().map(|(n, url)| json!({ "name": n, "url": url })).collect();
        let value = json!({
            "url": links.annotators[0].1, "annotators": people, "admin": links.admin,
            "base": links.base, "pipeline": of.pipeline, "stage": of.stage,
            "votes": of.votes, "pairs": of.pairs.len(),
        });
        let _ = print(&format!("{value}\n"));
        return;
    }
    let so_far = session.progress("nobody", jiff::Timestamp::now());
    let so_far = so_far.map_or(String::new(), |p| format!(", {}", words(p.votes, p.goal)));
    let mut text = format!(" {} pairs of `{}`{so_far}\n", of.pairs.len(), of.stage);
    let mut table = Table::new(&[]);
    for (name, url) in &links.annotators {
        table.row([Cell::from(name.as_str()), Cell::styled(Style::Strong, url)]);
    }
    table.row(["admin", links.admin.as_str()]);
    text.push_str(&table.text(look));
    if !links.address.ip().is_loopback() && !links.base.starts_with("https:") {
        let mark = look.paint(Style::Warning, "warning:");
        text.push_str(&format!(
            "{mark} there is no TLS: whoever sees this traffic can read it and vote; put a proxy \
             before it (--public-url) or use a tunnel\n"
        ));
    }
    if !args.share.is_empty() {
        text.push_str(" send each annotator their own link; whoever has it votes in their name\n");
    }
    text.push_str(" Ctrl-C ends it; every vote is on the disk at once\n");
    let _ = print(&text);
}

/// A time as in pipeline files.
#[expect(clippy::cast_possible_truncation, reason = "ten years of seconds fit")]
fn time(text: &str) -> Result<SignedDuration, String> {
    let seconds = Unit::Seconds
        .parse(text)
        .map_err(|_| format!("`{text}` is no time; {}", Unit::Seconds.fitting()))?;
    if (1.0..=3650.0 * 86400.0).contains(&seconds) {
        Ok(SignedDuration::from_secs(seconds as i64))
    } else {
        Err("links are valid for a second to ten years".to_owned())
    }
}

/// A name as annotators have it, made of whatever the system calls the user.
pub(super) fn fit(user: &str) -> String {
    let lower = composed(&user.to_lowercase());
    let kept = lower.chars().filter(|c| is_plain(*c) || "-_".contains(*c)).take(64);
    let kept: String = kept.collect();
    let kept = kept.trim_start_matches(['-', '_']);
    if is_annotator(kept) { kept.to_owned() } else { "me".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_become_annotators() {
        let names = ["Ann", "Bob Smith", "_www-data", "Ωmega", "日本", "", "root"];
        assert_eq!(names.map(fit), ["ann", "bobsmith", "www-data", "ωmega", "日本", "me", "root"]);
    }

    #[test]
    fn times_are_whole_and_have_a_unit() {
        assert_eq!(time("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(time("90m"), Ok(SignedDuration::from_mins(90)));
        for bad in ["", "30", "d", "0d", "-1d", "1x", "9999999d", "99999999999999999999d", "1 d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
