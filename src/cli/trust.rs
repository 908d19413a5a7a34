//! `preflow trust`: lets a workspace start the workers that it names, until they change.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Exit, Global, print};
use crate::project::{
    Failure, locate,
    workers::{commands, read_trust, shown},
};
use crate::text::clean;
use crate::trust::{Commands, Trust, TrustRecord, VARIABLE};

#[derive(Debug, Args)]
pub struct TrustArgs {
    /// Take it back
    #[arg(long, conflicts_with = "list")]
    pub revoke: bool,
    /// List all workspaces that are trusted
    #[arg(long)]
    pub list: bool,
}

/// Shows the commands of the workspace and remembers that the user agrees to them.
///
/// # Errors
/// The workspace file is wrong, or the record cannot be read or written.
pub fn trust(args: &TrustArgs, global: &Global) -> Result<Exit, Failure> {
    let record = record()?;
    if args.list {
        return Ok(list(&read_trust(&record)?, global));
    }
    let root = locate::locate(Path::new("here.yaml"))?.root;
    let place = root.display();
    let text = if args.revoke {
        match change(&record, |trust| trust.remove(&root))? {
            true => format!(" {place} may no longer start its workers\n"),
            false => format!(" {place} was not trusted\n"),
        }
    } else {
        let workers = locate::workspace_file(&root)?.workers;
        if workers.is_empty() {
            return Ok(print(&format!(" {place} names no workers: there is nothing to trust\n")));
        }
        let lines: String =
            workers.iter().map(|w| format!("   {}: {}\n", w.name, shown(&w.command))).collect();
        change(&record, |trust| trust.add(&root, commands(&workers)))?;
        format!(" {place} may start\n{lines} until they change; `preflow trust --revoke` ends it\n")
    };
    Ok(if global.quiet { Exit::Done } else { print(&text) })
}

fn record() -> Result<TrustRecord, Failure> {
    TrustRecord::of_user().ok_or_else(|| {
        Failure::usage("nothing says where your files are: neither HOME nor XDG_STATE_HOME is set")
            .help(format!("set one of them, or {VARIABLE}=1"))
    })
}

fn change<R>(record: &TrustRecord, change: impl FnOnce(&mut Trust) -> R) -> Result<R, Failure> {
    read_trust(record)?;
    record.change(change).map_err(|error| Failure::System {
        message: format!("what you trust cannot be kept: {error}"),
        help: format!("make room there, or set {VARIABLE}=1"),
    })
}

fn list(trust: &Trust, global: &Global) -> Exit {
    let all: Vec<(PathBuf, &Commands)> =
        trust.workspaces().map(|(root, commands)| (root.to_owned(), commands)).collect();
    if global.json {
        let list: Vec<_> =
            all.iter().map(|(root, c)| json!({ "workspace": root, "workers": c })).collect();
        return print(&format!("{}\n", json!({ "trusted": list })));
    }
    let mut text = String::new();
    for (root, commands) in &all {
        text += &format!(" {}\n", clean(&root.to_string_lossy()));
        for (name, command) in *commands {
            text += &format!("   {}: {}\n", clean(name), shown(command));
        }
    }
    if all.is_empty() {
        text.push_str(" no workspace is trusted\n");
    }
    print(&text)
}
