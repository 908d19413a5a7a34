//! What `evaluate` tells: the names of its figures, the headline, answers side by side.
//! Knows nothing of how anything is measured.

use anyhow::Result;

use super::Evaluate;
use super::measures::{Answers, Figure, Judged};
use crate::data::{Column, Table};
use crate::kind::{Stage, Summary};
use crate::preflight::Preflight;

impl Evaluate {
    /// `eval/WHAT/POLICY`, and of comparisons also `eval/WHAT`.
    pub(super) fn announced(&self, look: &Preflight) -> Vec<String> {
        let mut names = Vec::new();
        let rules = self.rules.iter().map(|r| r.name.as_str());
        for what in <Self as Stage>::FIGURES.iter().copied().chain(rules) {
            if what.ends_with('*') {
                names.push(format!("eval/{what}"));
                continue;
            }
            for input in look.inputs("policies") {
                // Also "NAME, best of 16".
                names.push(format!("eval/{what}/{}*", input.name));
                names.push(format!("eval/{what}_gain/{}*", input.name));
            }
            let compared =
                if what == "win_rate" { what.to_owned() } else { format!("{what}_gain") };
            names.extend(["", "_low", "_high"].map(|end| format!("eval/{compared}{end}")));
        }
        names
    }

    /// Answers to the same few prompts of each bucket, the first sample of each policy.
    pub(super) fn shown(
        &self,
        prompts: &Table,
        answers: &[Answers],
        buckets: &[(String, Vec<usize>)],
    ) -> Result<Table> {
        let texts = prompts.transcripts("prompt")?;
        let named = buckets.len() - self.groups.len() - 1;
        let shown = if named > 0 { &buckets[..named] } else { buckets };
        let mut rows: Vec<(&str, &str, &str, &Judged)> = Vec::new();
        for (bucket, members) in shown {
            let count = (self.show as usize).min(members.len());
            for i in 0..count {
                let row = members[i * members.len() / count];
                for policy in answers {
                    rows.push((&policy.name, bucket, &texts[row], policy.shown(row)));
                }
            }
        }
        let score = |j: &Judged| if self.rules.is_empty() { j.reward } else { j.gold };
        Table::new(vec![
            ("step", Column::ints(rows.iter().map(|_| 0))),
            ("source", Column::text(rows.iter().map(|r| r.0))),
            ("bucket", Column::text(rows.iter().map(|r| r.1))),
            ("prompt", Column::text(rows.iter().map(|r| r.2))),
            ("response", Column::text(rows.iter().map(|r| r.3.text.as_str()))),
            ("score", Column::floats(rows.iter().map(|r| score(r.3)))),
        ])
    }

    /// `eval/NAME/POLICY` of the headline bucket, and `eval/NAME` of the last policy's comparison.
    pub(super) fn headline(&self, figures: &[Figure], last: &str) -> Summary {
        let bucket = self.headline_bucket();
        let mut summary = Summary::new();
        for figure in figures.iter().filter(|f| f.bucket == bucket) {
            let Figure { policy, name, estimate, .. } = figure;
            summary.insert(format!("eval/{name}/{policy}"), estimate.value);
            let compares = name == "win_rate" || name.ends_with("_gain");
            if policy == last && compares {
                summary.insert(format!("eval/{name}"), estimate.value);
                summary.insert(format!("eval/{name}_low"), estimate.low);
                summary.insert(format!("eval/{name}_high"), estimate.high);
            }
        }
        summary
    }
}
