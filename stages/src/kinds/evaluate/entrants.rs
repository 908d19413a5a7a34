//! Who takes part in `evaluate`, and in which role.
//! Knows nothing of answers.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Evaluate;
use crate::context::Context;

/// The policies of one evaluation; roles are places in the list.
pub struct Entrants {
    pub policies: Vec<(String, PathBuf)>,
    /// The policy that all others are compared with; `None`: each with the one before it.
    pub baseline: Option<usize>,
    pub reference: usize,
    /// Draws the answers of best-of-n.
    pub drawer: usize,
}

impl Evaluate {
    /// The policies of port `policies` and their roles.
    pub(super) fn entrants(&self, cx: &Context) -> Result<Entrants> {
        let inputs = cx.inputs("policies").iter();
        self.entrants_of(inputs.map(|i| (i.name.clone(), PathBuf::from(&i.paths[0]))).collect())
    }

    /// The roles of policies, by their names and folders.
    ///
    /// # Errors
    /// When a param names a policy that is not among them.
    pub(super) fn entrants_of(&self, policies: Vec<(String, PathBuf)>) -> Result<Entrants> {
        let names: Vec<&str> = policies.iter().map(|(n, _)| n.as_str()).collect();
        let find = |what: &str, name: &str| match names.iter().position(|n| *n == name) {
            None if !name.is_empty() => {
                bail!("{what} `{name}` is not one of the policies {}", names.join(", "))
            }
            found => Ok(found),
        };
        let reference = find("reference", &self.reference)?;
        let baseline = find("baseline", &self.baseline)?.or(reference);
        let reference = reference.or(baseline).unwrap_or(0);
        let drawer = find("best_of policy", &self.best_of.policy)?.unwrap_or(reference);
        Ok(Entrants { policies, baseline, reference, drawer })
    }
}
