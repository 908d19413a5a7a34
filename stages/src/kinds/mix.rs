//! `mix`: one dataset of several, in shares that the pipeline says.
//! Knows nothing of what the rows are for.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Column, RowType, Table};
use crate::kind::{Stage, Summary, many, output};
use crate::preflight::Preflight;
use crate::rng::Stream;

/// Column that says where a row comes from.
const SOURCE: &str = "source";

/// Params of `mix`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// What the rows are; all datasets have the same.
    #[serde(rename = "as")]
    target: RowType,
    /// Dataset → its share, as 3 and 1, or 0.75 and 0.25. Empty, and no `rows`: all rows of all.
    #[serde(default)]
    weights: BTreeMap<String, f64>,
    /// Rows of all datasets together, in the shares of `weights`; 0: as many as there are.
    #[serde(default)]
    #[schemars(extend("x-unit" = "count"))]
    total: u64,
    /// Dataset → number of its rows; others give all of theirs. In place of `weights`.
    #[serde(default)]
    rows: BTreeMap<String, u64>,
    /// Use rows again where a dataset has fewer than are asked of it; else that is an error.
    #[serde(default)]
    repeat: bool,
    /// Names the random streams: which rows are taken, and their order.
    #[serde(default)]
    seed: u64,
}

impl Stage for Mix {
    const NAME: &'static str = "mix";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "mix datasets by weights or numbers of rows";
    const FIGURES: &'static [&'static str] = &["rows", "rows/*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        let datasets = [
            "dataset/text",
            "dataset/prompt",
            "dataset/prompt_completion",
            "dataset/messages",
            "dataset/pairs",
            "dataset/labels",
        ];
        vec![many("datasets", &datasets, "what is mixed, all of the type that `as` says")]
    }

    fn outputs() -> Vec<OutputDoc> {
        let doc = "the rows in random order, with column `source`: the dataset of each";
        vec![output("data", "dataset/{as}", "parquet", doc)]
    }

    fn check(&self, look: &mut Preflight) {
        let all = look.inputs("datasets");
        let names: Vec<&str> = all.iter().map(|input| input.name.as_str()).collect();
        if let Err(e) = self.check_names(&names) {
            let field = if self.rows.is_empty() { "weights" } else { "rows" };
            look.tell::<()>(field, Err(e));
        }
        for input in all {
            if input.port_type != self.target.port_type() {
                let message = format!("`{}` is {}", input.name, input.port_type);
                let help = format!("datasets of `as` are {}", self.target.port_type());
                look.refuse("datasets", message, Some(help));
            }
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let inputs = cx.inputs("datasets").to_vec();
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        self.check_names(&names)?;
        let tables = inputs.iter().map(|input| {
            let context = || format!("input `datasets` ({})", input.name);
            let table = cx.table_of(input).with_context(context)?;
            for column in self.target.columns() {
                table.require(column).with_context(context)?;
            }
            if table.column(SOURCE).is_some() {
                return Err(error_with_help(
                    format!("{}: it has a column `{SOURCE}` of its own", context()),
                    "give that another name: `prepare` with `columns: { from: source }`",
                ));
            }
            Ok(table)
        });
        let tables = tables.collect::<Result<Vec<_>>>()?;
        let sizes: Vec<usize> = tables.iter().map(Table::rows).collect();
        let counts = self.counts(&names, &sizes)?;
        let mut mixed = Table::default();
        let mut figures = Summary::new();
        for (i, table) in tables.iter().enumerate() {
            let mut taken = table.take(&self.taken(names[i], sizes[i], counts[i]));
            taken.set(SOURCE, Column::text(vec![names[i]; counts[i]]))?;
            figures.insert(format!("rows/{}", names[i]), counts[i] as f64);
            if counts[i] > sizes[i] {
                let (name, size, count) = (names[i], sizes[i], counts[i]);
                cx.warn(format!("`{name}` has {size} rows, of which {count} are made"))?;
            }
            if counts[i] > 0 {
                mixed = mixed.stack(taken)?;
            }
        }
        if mixed.rows() == 0 {
            bail!("no row is asked for");
        }
        let order = Stream::new(self.seed, "order", 0, 0).permutation(mixed.rows());
        let mixed = mixed.take(&order);
        cx.write_table("data", &mixed)?;
        figures.insert("rows".into(), mixed.rows() as f64);
        Ok(figures)
    }
}

impl Mix {
    /// Refuses shares that say too much or too little.
    fn check_names(&self, names: &[&str]) -> Result<()> {
        if !self.weights.is_empty() && !self.rows.is_empty() {
            bail!("give `weights` or `rows`, not both");
        }
        if self.total > 0 && self.weights.is_empty() {
            let help = "for example weights: { demos: 3, chats: 1 }";
            return Err(error_with_help("`total` wants `weights`", help));
        }
        let unknown = self.weights.keys().chain(self.rows.keys());
        if let Some(name) = unknown.into_iter().find(|name| !names.contains(&name.as_str())) {
            let help = format!("the datasets are {}", names.join(", "));
            return Err(error_with_help(format!("no dataset is named `{name}`"), help));
        }
        let missing = names.iter().find(|name| !self.weights.contains_key(**name));
        if let Some(name) = missing.filter(|_| !self.weights.is_empty()) {
            bail!("`weights` names no share for `{name}`; 0 leaves it out");
        }
        let bad = self.weights.iter().find(|(_, w)| !w.is_finite() || **w < 0.0);
        if let Some((name, weight)) = bad {
            bail!("the weight of `{name}` is {weight}; it must be 0 or more");
        }
        if !self.weights.is_empty() && self.weights.values().all(|w| *w == 0.0) {
            bail!("all weights are 0");
        }
        Ok(())
    }

    /// Number of rows of each dataset.
    fn counts(&self, names: &[&str], sizes: &[usize]) -> Result<Vec<usize>> {
        let counts = match self.weights.is_empty() {
            true => {
                let of = |(name, size): (&&str, &usize)| {
                    self.rows.get(*name).map_or(*size, |rows| *rows as usize)
                };
                names.iter().zip(sizes).map(of).collect()
            }
            false => {
                let weights: Vec<f64> = names.iter().map(|name| self.weights[*name]).collect();
                let sum: f64 = weights.iter().sum();
                let shares: Vec<f64> = weights.iter().map(|w| w / sum).collect();
                let total = match self.total {
                    // The dataset that is used up first says how many there are.
                    0 => sizes
                        .iter()
                        .zip(&shares)
                        .filter(|(_, share)| **share > 0.0)
                        .map(|(size, share)| (*size as f64 / share + 1e-9) as usize)
                        .min()
                        .unwrap_or_default(),
                    total => total as usize,
                };
                apportion(total, &shares)
            }
        };
        let short = (0..names.len()).find(|i| counts[*i] > sizes[*i]);
        match short {
            Some(i) if !self.repeat || sizes[i] == 0 => Err(error_with_help(
                format!("{} rows are asked of `{}`, which has {}", counts[i], names[i], sizes[i]),
                "ask for fewer, or say `repeat: true`: rows are then used again",
            )),
            _ => Ok(counts),
        }
    }

    /// Rows of one dataset: each once before any is used again.
    fn taken(&self, name: &str, size: usize, count: usize) -> Vec<usize> {
        let rounds = count.div_ceil(size.max(1)) as u64;
        let purpose = format!("rows of {name}");
        (0..rounds)
            .flat_map(|round| Stream::new(self.seed, &purpose, round, 0).permutation(size))
            .take(count)
            .collect()
    }
}

/// Whole numbers in these shares whose sum is `total` (largest remainders, Hamilton).
fn apportion(total: usize, shares: &[f64]) -> Vec<usize> {
    let exact: Vec<f64> = shares.iter().map(|share| share * total as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|x| (x + 1e-9) as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let rest = |i: usize| exact[i] - counts[i] as f64;
    order.sort_by(|a, b| rest(*b).total_cmp(&rest(*a)).then(a.cmp(b)));
    let left = total.saturating_sub(counts.iter().sum());
    for i in order.into_iter().take(left) {
        counts[i] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_apportioned_by_the_largest_remainders() {
        assert_eq!(apportion(10, &[0.75, 0.25]), [8, 2]);
        assert_eq!(apportion(100, &[1.0 / 3.0; 3]), [34, 33, 33]);
        assert_eq!(apportion(0, &[0.5, 0.5]), [0, 0]);
        // Seats of five parties at 43 seats.
        let votes = [47.0, 16.0, 15.8, 12.0, 9.2];
        let sum: f64 = votes.iter().sum();
        let shares: Vec<f64> = votes.iter().map(|v| v / sum).collect();
        assert_eq!(apportion(43, &shares), [20, 7, 7, 5, 4]);
    }
}
