//! For programs: every event as one JSON line on standard output.

use std::io::{Write as _, stdout};

use super::line;
use crate::run::{Reporter, RunEvent};

/// Prints events as they are.
#[derive(Debug, Default)]
pub struct Json;

impl Reporter for Json {
    fn event(&mut self, event: &RunEvent) {
        let text = serde_json::to_string(event).expect("invariant: an event is JSON");
        let mut out = stdout().lock();
        line(&mut out, &text);
        let _ = out.flush();
    }
}
