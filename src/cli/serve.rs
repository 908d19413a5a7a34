//! `preflow serve STAGE`: a model of a pipeline over HTTP, as clients of OpenAI's ask one; until
//! Ctrl-C. Knows nothing of what is asked.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::watch;

use super::interrupts::listen;
use super::sample::never_made;
use super::{Exit, Global, complain, print};
use crate::catalog::Catalog;
use crate::exec::resident::Resident;
use crate::exec::{Outcome, Stop};
use crate::http;
use crate::openai::{self, ApiOptions};
use crate::plan::Selection;
use crate::project::conversation::{ANSWERS, find_model, talker};
use crate::project::execution::worker_command;
use crate::project::{self, Failure, locate};
use crate::protocol::questions::Ask;
use crate::protocol::{Execution, PROTOCOL};
use crate::report::{self, OutputStyle, Style};

const USUAL_PORT: u16 = 8767;

#[derive(Debug, Args)]
pub struct ServeModelArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// Port to listen on, 0 for any [default: 8767, or one near it]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Address to listen on; others than this machine's own need --api-key
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// What clients must send as `Authorization: Bearer KEY`; better in the environment, which
    /// others of this machine do not see
    #[arg(long, value_name = "KEY", env = "PREFLOW_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Output of the stage [default: the first that answers]
    #[arg(long, value_name = "PORT")]
    pub output: Option<String>,
}

/// Serves the model.
///
/// # Errors
/// The stage is unknown, makes no model that answers, or nothing can listen there.
pub fn serve(args: &ServeModelArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    args.check()?;
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(
            Failure::usage("`serve` serves one stage's model").help("preflow serve FILE STAGE")
        );
    };
    let project = project::load(&file, &global.choices())?;
    let catalog = Catalog::builtin();
    let selection = Selection::new(&project.graph, std::slice::from_ref(name), &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    let (kind, port) = talker(&project, &catalog, stage, args.output.as_deref())?;
    if kind.name != ANSWERS {
        return Err(Failure::usage(format!("`{name}` scores, it does not answer"))
            .help("preflow sample STAGE -p PROMPT -a ANSWER prints what it gives an answer"));
    }
    let Some(model) = find_model(&project, &selection, stage, port)? else {
        return Ok(never_made(&file, name));
    };
    // Keeps the collector away until the weights are in memory.
    let lease = project.store.shared_lease();
    let dir = tempfile::tempdir().map_err(crate::store::StoreError::from)?;
    let open = Ask::Open {
        protocol: PROTOCOL,
        model: model.to_string_lossy().into_owned(),
        execution: Execution::default(),
    };
    let reaper = std::env::current_exe().map(|exe| vec![exe, PathBuf::from("reaper")]);
    let logs = dir.path().to_owned();
    let resident = Resident::new(reaper.unwrap_or_default(), worker_command(), open, logs);
    // The beginning of its digest.
    let digest = model.file_name().unwrap_or_default().to_string_lossy();
    let fingerprint = digest.chars().take(16).collect();
    let options = ApiOptions { model: name.clone(), fingerprint, key: args.api_key.clone() };
    let runtime = project::execution::runtime()?;
    let ended = runtime.block_on(async {
        let port = args.port.unwrap_or(USUAL_PORT);
        let listener = http::listen(args.listen, port, args.port.is_none()).await?;
        let address = listener.local_addr().map_err(http::ServeError::Key)?;
        let url = format!("http://{address}/v1");
        let ready = |context: u64| {
            drop(lease);
            args.announce(&url, name, context, global, look);
        };
        let died = |outcome: &Outcome| {
            let text = report::failure(look, name, outcome, (None, "", ""));
            complain(&format!("{text}\nnote: the worker is started again\n"));
        };
        Ok(openai::serve(listener, options, &resident, ready, died, stop()).await)
    });
    runtime.shutdown_timeout(Duration::from_millis(300));
    let ended = ended.map_err(|e: http::ServeError| {
        Failure::usage(e.to_string()).help("another --port, or 0 for any that is free")
    })?;
    Ok(match ended {
        Ok(()) => Exit::Done,
        Err(outcome) => {
            complain(&format!("{}\n", report::failure(look, name, &outcome, (None, "", ""))));
            Exit::StageFailed
        }
    })
}

/// Ctrl-C, once gently and then at once.
fn stop() -> watch::Receiver<Stop> {
    let (stop, stopped) = watch::channel(Stop::Go);
    let mut interrupts = listen();
    tokio::spawn(async move {
        while interrupts.recv().await.is_some() {
            stop.send_modify(|stop| {
                *stop = if *stop == Stop::Go { Stop::Gently } else { Stop::Now };
            });
        }
    });
    stopped
}

impl ServeModelArgs {
    /// Refuses what would let anybody ask.
    fn check(&self) -> Result<(), Failure> {
        match &self.api_key {
            Some(key) if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(Failure::usage("an API key is letters, digits and signs of ASCII, no blanks"))
            }
            None if !self.listen.is_loopback() => Err(Failure::usage(format!(
                "--listen {} lets other machines in: they need a key",
                self.listen
            ))
            .help("choose one: PREFLOW_API_KEY=… preflow serve …")),
            _ => Ok(()),
        }
    }

    /// Says where the model is.
    fn announce(&self, url: &str, model: &str, context: u64, global: &Global, look: OutputStyle) {
        if global.json {
            let line = json!({ "url": url, "model": model, "context": context });
            let _ = print(&format!("{line}\n"));
            return;
        }
        let mut text = format!(
            " {}\n model `{model}`, context {context} tokens\n",
            look.paint(Style::Strong, url)
        );
        if !self.listen.is_loopback() {
            let mark = look.paint(Style::Warning, "warning:");
            text.push_str(&format!(
                "{mark} there is no TLS: whoever sees this traffic can read it, and the key; put a \
                 proxy before it or use a tunnel\n"
            ));
        }
        text.push_str(" Ctrl-C ends it\n");
        let _ = print(&text);
    }
}
