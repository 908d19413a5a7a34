//! What came out of a sweep: one row a setting, averaged over seeds, and what each param does.
//! Does not know where figures come from.

use std::collections::HashMap;

use serde::Serialize;

use super::interval::half;
use super::trials::{agrees, shown};
use super::{Goal, Sweep, Trial};

/// Results by setting, in the order of the trials.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResultTable {
    /// Params that tell rows apart.
    pub params: Vec<String>,
    /// Params that are averaged.
    pub over: Vec<String>,
    pub rows: Vec<Row>,
    pub effects: Vec<Effect>,
}

/// One setting: the trials that agree in all params but those that are averaged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// As `params` of the table; empty where the trial leaves a param alone.
    pub values: Vec<String>,
    pub trials: usize,
    /// Which trials these are, in the order of all.
    #[serde(skip)]
    pub members: Vec<usize>,
    pub metric: SettingMean,
    /// Against the baseline, trial by trial where both have the same seed. Its interval is
    /// corrected for all the settings that are compared.
    pub against_baseline: Option<SettingMean>,
    pub is_baseline: bool,
    pub is_best: bool,
}

/// A mean over some trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SettingMean {
    /// Trials that have a figure.
    pub n: usize,
    pub mean: Option<f64>,
    /// Standard deviation between trials (n − 1); `None` for fewer than two.
    pub spread: Option<f64>,
    /// Half of the 95 % interval of the mean; `None` for fewer than three.
    pub half: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// What one value of a param does, the other params averaged out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    pub param: String,
    pub value: String,
    pub metric: SettingMean,
    /// Mean minus the mean over all trials.
    pub effect: Option<f64>,
}

impl SettingMean {
    /// Mean, spread and range of some figures.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        if figures.is_empty() {
            return Self::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "few trials")]
        let n = figures.len() as f64;
        let mean = figures.iter().sum::<f64>() / n;
        let squares: f64 = figures.iter().map(|x| (x - mean).powi(2)).sum();
        let spread = (figures.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Self {
            n: figures.len(),
            mean: Some(mean),
            spread,
            half: spread.and_then(|spread| half(figures.len(), spread, 1)),
            low: figures.iter().copied().reduce(f64::min),
            high: figures.iter().copied().reduce(f64::max),
        }
    }
}

/// Puts the figures of trials into a table; `figures` goes with `trials`.
#[must_use]
pub fn table(sweep: &Sweep, trials: &[Trial], figures: &[Option<f64>]) -> ResultTable {
    let over: Vec<&str> = sweep.over.iter().map(|w| w.text.as_str()).collect();
    let all: Vec<&str> = sweep.params().into_iter().filter(|p| !over.contains(p)).collect();
    // A param that never changes tells no rows apart.
    let params: Vec<&str> = all.iter().copied().filter(|p| varies(trials, p)).collect();
    let setting = |trial: &Trial| -> Vec<String> {
        params.iter().map(|p| trial.value(p).unwrap_or_default()).collect()
    };
    let mut order: Vec<Vec<String>> = Vec::new();
    let mut groups: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
    for (i, trial) in trials.iter().enumerate() {
        let key = setting(trial);
        groups.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        groups.entry(setting(trial)).and_modify(|g| g.push(i));
    }
    let is_baseline = |i: usize| {
        let wanted = sweep.baseline.as_ref();
        wanted.is_some_and(|wanted| agrees(&trials[i].values, wanted))
    };
    let by_seed: HashMap<Vec<Option<String>>, f64> = (0..trials.len())
        .filter(|i| is_baseline(*i))
        .filter_map(|i| Some((seeds(&trials[i], &over), figures[i]?)))
        .collect();
    let known =
        |group: &[usize]| -> Vec<f64> { group.iter().filter_map(|i| figures[*i]).collect() };
    let mut rows: Vec<Row> = order
        .iter()
        .map(|values| {
            let group = &groups[values];
            let differences = group
                .iter()
                .filter_map(|i| Some(figures[*i]? - by_seed.get(&seeds(&trials[*i], &over))?));
            let differences: Vec<f64> = differences.collect();
            let is_baseline = group.iter().all(|i| is_baseline(*i));
            Row {
                values: values.clone(),
                trials: group.len(),
                members: group.clone(),
                metric: SettingMean::of(&known(group)),
                against_baseline: (!is_baseline && !differences.is_empty())
                    .then(|| SettingMean::of(&differences)),
                is_baseline,
                is_best: false,
            }
        })
        .collect();
    if let Some(best) = best(&rows, sweep.metric.as_ref().map_or(Goal::Maximize, |m| m.goal)) {
        rows[best].is_best = true;
    }
    let effects = params.iter().flat_map(|p| effects(p, trials, figures)).collect();
    let words = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
    let mut table = ResultTable { params: words(params), over: words(over), rows, effects };
    let comparisons = table.settings().saturating_sub(1);
    for cell in table.rows.iter_mut().filter_map(|row| row.against_baseline.as_mut()) {
        cell.half = cell.spread.and_then(|spread| half(cell.n, spread, comparisons));
    }
    table
}

fn varies(trials: &[Trial], param: &str) -> bool {
    let mut values = trials.iter().map(|t| t.value(param));
    let first = values.next();
    values.any(|value| Some(value) != first)
}

fn seeds(trial: &Trial, over: &[&str]) -> Vec<Option<String>> {
    over.iter().map(|p| trial.value(p)).collect()
}

fn best(rows: &[Row], goal: Goal) -> Option<usize> {
    let known = rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.metric.mean?)));
    let best = known.reduce(|a, b| if goal.better(b.1, a.1) { b } else { a });
    best.map(|(i, _)| i)
}

fn effects(param: &str, trials: &[Trial], figures: &[Option<f64>]) -> Vec<Effect> {
    let mut order: Vec<String> = Vec::new();
    let mut groups: HashMap<String, Vec<f64>> = HashMap::new();
    for (trial, figure) in trials.iter().zip(figures) {
        let Some(value) = trial.values.iter().find(|(k, _)| k.name == param).map(|(_, v)| shown(v))
        else {
            continue;
        };
        if !order.contains(&value) {
            order.push(value.clone());
        }
        groups.entry(value).or_default().extend(figure);
    }
    let all: Vec<f64> = groups.values().flatten().copied().collect();
    let overall = SettingMean::of(&all).mean;
    let one = |value: String| {
        let metric = SettingMean::of(&groups[&value]);
        let effect = metric.mean.zip(overall).map(|(mean, overall)| mean - overall);
        Effect { param: param.to_owned(), value, metric, effect }
    };
    order.into_iter().map(one).collect()
}
