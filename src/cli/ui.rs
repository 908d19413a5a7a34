//! `preflow ui`: a pipeline live in the browser, until Ctrl-C. Nothing can be changed there.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::interrupts::listen;
use super::{Exit, Global, print};
use crate::http::{self, ServeError};
use crate::project::{self, Failure, locate};
use crate::report::{OutputStyle, Style};
use crate::ui;

const USUAL_PORT: u16 = 8766;

#[derive(Debug, Args)]
pub struct UiArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub words: Vec<String>,
    /// Also show the table of this sweep
    #[arg(long, value_name = "FILE")]
    pub sweep: Option<PathBuf>,
    /// Port to listen on, on this machine only; 0 for any [default: 8766, or one near it]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Open the page
    #[arg(long)]
    pub open: bool,
}

/// Serves the page.
///
/// # Errors
/// The pipeline is wrong, or nothing can listen there.
pub fn ui(args: &UiArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, rest) = locate::file_and_names(&args.words)?;
    if !rest.is_empty() {
        return Err(Failure::usage("`ui` takes one pipeline file"));
    }
    let project = project::load(&file, &global.choices())?;
    let title = project.graph.name.clone();
    let mut watcher = ui::Watcher::new(file, args.sweep.clone(), global.choices(), project.store);
    watcher.reload()?;
    let runtime = crate::project::execution::runtime()?;
    let ended = runtime.block_on(async {
        let mut interrupts = listen();
        let stop = async move {
            let _ = interrupts.recv().await;
        };
        let ready = |url: &str| announce(url, args.open, global, look);
        let port = args.port.unwrap_or(USUAL_PORT);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = http::listen(here, port, args.port.is_none());
        ui::serve(listener.await?, watcher, title, ready, stop).await
    });
    runtime.shutdown_timeout(Duration::from_millis(300));
    ended.map_err(|e: ServeError| {
        Failure::usage(e.to_string()).help("another --port, or 0 for any that is free")
    })?;
    Ok(Exit::Done)
}

fn announce(url: &str, open: bool, global: &Global, look: OutputStyle) {
    let text = match global.json {
        true => format!("{}\n", json!({ "url": url })),
        false => format!(" {}\n Ctrl-C ends it\n", look.paint(Style::Strong, url)),
    };
    let _ = print(&text);
    if open && let Err(e) = crate::exec::open::open(std::path::Path::new(url)) {
        super::complain(&format!("note: not opened: {e}\n"));
    }
}
