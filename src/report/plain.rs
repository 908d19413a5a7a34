//! For CI and pipes: one line a change, no cursor movement.

use std::io::{Write as _, stdout};

use super::line::RunLines;
use super::live::LiveMetrics;
use super::{OutputStyle, line};
use crate::run::{Reporter, RunEvent};

/// Lines on standard output as things happen.
#[derive(Debug)]
pub struct Plain {
    lines: RunLines,
    quiet: bool,
}

impl Plain {
    #[must_use]
    pub fn new(look: OutputStyle, watched: LiveMetrics) -> Self {
        Self { lines: RunLines::new(look, watched), quiet: look.quiet }
    }
}

impl Reporter for Plain {
    fn event(&mut self, event: &RunEvent) {
        let told = self.lines.hear(event).line;
        if let Some(one) = told.filter(|one| one.loud || !self.quiet) {
            let mut out = stdout().lock();
            line(&mut out, &self.lines.text(&one));
            let _ = out.flush();
        }
    }
}
