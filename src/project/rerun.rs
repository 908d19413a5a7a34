//! A stage that was made once more, held against what the store has of it.
//! Does not know how differences are shown.

use super::{Failure, Project};
use crate::compare::{FirstDifference, compare};
use crate::exec::{Outcome, Task};
use crate::run::rerun::Made;
use crate::store::{CachedEntry, EntryOutput, StoreError};

/// One output, as it was made then and again.
pub struct Compared<'a> {
    pub port: &'a str,
    pub before: &'a EntryOutput,
    pub now: &'a EntryOutput,
    pub first: Option<FirstDifference>,
}

/// Every output; those with other digests are looked into.
///
/// # Errors
/// An output cannot be read, or changed meanwhile.
pub fn compare_all<'a>(
    project: &Project,
    entry: &'a CachedEntry,
    made: &'a Made,
) -> Result<Vec<Compared<'a>>, Failure> {
    let mut compared = Vec::new();
    for (port, before) in &entry.outputs {
        let now = &made.outputs[port];
        let first = match before.digest == now.digest {
            true => None,
            false => {
                let found = compare(&project.store.object_path(&before.digest), &made.paths[port])
                    .map_err(StoreError::from)?;
                Some(found.ok_or_else(|| {
                    Failure::usage(format!("output `{port}` changed while it was compared"))
                })?)
            }
        };
        compared.push(Compared { port, before, now, first });
    }
    Ok(compared)
}

/// What decides no identity and may still be why bytes differ: name, then, now.
#[must_use]
pub fn environment(
    entry: &CachedEntry,
    outcome: &Outcome,
    task: &Task,
) -> Vec<(&'static str, String, String)> {
    let made = &entry.made;
    let Outcome::Done { worker, backend, device, .. } = outcome else { return Vec::new() };
    let threads = task.spec.execution.threads.unwrap_or_default().to_string();
    let all = [
        ("threads", made.threads.to_string(), threads),
        ("device", made.device.clone(), device.clone()),
        ("backend", made.backend.clone(), backend.clone()),
        ("worker", made.worker.clone(), worker.clone()),
        ("preflow", made.version.clone(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.into_iter().filter(|(_, then, now)| then != now).collect()
}
