//! One task performed outside a run. Ctrl-C ends it.

use std::path::PathBuf;

use tokio::sync::{mpsc, watch};

use super::complain;
use crate::exec::process::{GRACE, Processes};
use crate::exec::{Executor as _, Outcome, Stop, Task};
use crate::project::Failure;
use crate::protocol::Event;
use crate::report::{OutputStyle, Style};
use crate::text::clean;

/// Runs the task; what it warns of goes to standard error. `written` gets the pieces of text that
/// it tells while it writes.
///
/// # Errors
/// The machine lets nothing be started.
pub fn perform(
    task: Task,
    look: OutputStyle,
    written: &mut dyn FnMut(&str),
) -> Result<Outcome, Failure> {
    let reaper = std::env::current_exe().map(|exe| vec![exe, PathBuf::from("reaper")]);
    let executor = Processes::new(reaper.unwrap_or_default(), GRACE);
    let runtime = crate::project::execution::runtime()?;
    let (events, mut heard) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(Stop::Go);
    let mut warnings = Vec::new();
    let mut hear = |event: Event| match event {
        Event::Text { text } => written(&text),
        Event::Note { level, text } if level == "warn" => warnings.push(text),
        _ => {}
    };
    let outcome = runtime.block_on(async {
        let mut interrupts = super::interrupts::listen();
        let running = executor.start(task, events, stopped);
        tokio::pin!(running);
        loop {
            tokio::select! {
                outcome = &mut running => return outcome,
                Some((_, event)) = heard.recv() => hear(event),
                Some(()) = interrupts.recv() => stop.send_modify(|stop| {
                    *stop = if *stop == Stop::Go { Stop::Gently } else { Stop::Now };
                }),
            }
        }
    });
    while let Ok((_, event)) = heard.try_recv() {
        hear(event);
    }
    for text in warnings {
        complain(&format!("{} {}\n", look.paint(Style::Warning, "warning:"), clean(&text)));
    }
    Ok(outcome)
}
