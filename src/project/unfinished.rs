//! What the last attempt of a stage left that did not succeed: how it failed, or where it goes on.
//! Decides nothing.

use serde_json::{Value, json};

use super::Project;
use crate::files;
use crate::identity::Identity;
use crate::plan::Reason;
use crate::protocol::{CHECKPOINT, GoesOnAt};
use crate::report::words;
use crate::store::heads::{FailedAttempt, Heads};
use crate::text;

/// Characters of an error in a table.
const SHORT: usize = 100;

/// What is known of a stage that is not made, beside the reason why it runs.
#[derive(Debug, Clone, Default)]
pub struct Unfinished {
    pub failed: Option<FailedAttempt>,
    /// What would be made is no longer what failed.
    pub changed: bool,
    /// Where its next attempt goes on.
    pub goes_on: Option<GoesOnAt>,
}

impl Unfinished {
    /// Of a stage that must run; `identity`: what would be made, where that is known.
    #[must_use]
    pub fn of(project: &Project, heads: &Heads, stage: &str, identity: Option<&Identity>) -> Self {
        let fingerprint = identity.map(Identity::fingerprint);
        let failed = heads.failed.get(stage).cloned();
        let changed = failed.as_ref().zip(fingerprint).is_some_and(|(f, now)| f.fingerprint != now);
        let goes_on = fingerprint.and_then(|fingerprint| {
            let path = project.store.work_path(&fingerprint).join(CHECKPOINT);
            serde_json::from_slice(&files::read_own(&path, 1 << 16).ok()?).ok()
        });
        Self { failed, changed, goes_on }
    }

    /// The share of its work that need not be done again, 0 to 1.
    #[must_use]
    pub fn share_done(&self) -> f64 {
        match &self.goes_on {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            Some(GoesOnAt { done, total, .. }) if total > done => *done as f64 / *total as f64,
            _ => 0.0,
        }
    }

    /// Why a stage runs, with what its last attempt left.
    #[must_use]
    pub fn words(&self, reason: Option<&Reason>, file: &str, stage: &str) -> String {
        let mut parts = Vec::new();
        let left = self.failed.is_some() || self.goes_on.is_some();
        // That it never ran is no news beside what became of it.
        let said = reason.filter(|r| !(left && **r == Reason::NeverRun));
        parts.extend(said.map(words::reason));
        if let Some(failed) = &self.failed {
            let changed = if self.changed { ", changed since" } else { "" };
            let logs = match &failed.error {
                _ if self.changed => String::new(),
                _ => format!(" → preflow logs {file} {stage}"),
            };
            parts.push(format!("{}{changed}{logs}", headline(failed)));
        }
        parts.extend(self.goes_on.as_ref().map(|at| match at.total {
            0 => format!("goes on at {} {}", text::whole(at.done), at.unit),
            total => {
                format!("goes on at {} of {} {}", text::whole(at.done), text::whole(total), at.unit)
            }
        }));
        parts.join("; ")
    }

    /// The same for programs: fields for the row of a stage.
    #[must_use]
    pub fn json(&self) -> [(&'static str, Option<Value>); 2] {
        let failed = self.failed.as_ref().map(|f| {
            json!({ "at": f.at, "run": f.run, "error": f.error, "changed_since": self.changed })
        });
        [("failed", failed), ("goes_on_at", self.goes_on.as_ref().map(|at| json!(at)))]
    }
}

/// `failed 22:03: exit 3`; with the day when that is another one.
#[must_use]
pub fn headline(failed: &FailedAttempt) -> String {
    let today = jiff::Timestamp::now().to_string();
    let at = match failed.at.get(..10) == today.get(..10) {
        true => failed.at.get(11..16),
        false => failed.at.get(..16),
    };
    let at = at.unwrap_or_default().replace('T', " ");
    let error = crate::text::clean(&failed.error);
    let short = match error.char_indices().nth(SHORT) {
        None => error,
        Some((end, _)) => format!("{}…", &error[..end]),
    };
    format!("failed {at}: {short}")
}
