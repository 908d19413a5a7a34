//! The page of a sweep: its table, what each param does, and what is bought with KL.
//! Goes by the names of figures; does not know how they were measured.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::chart::{self, Chart, Series};
use super::{page, text};
use crate::sweep::{Cell, Effect, Goal, Row, Table};

/// Everything that the page shows.
#[derive(Debug, Clone, Default)]
pub struct SweepReport {
    pub name: String,
    pub question: String,
    /// The command that brings all trials up to date.
    pub command: String,
    /// Name of the metric and which way is better; `None`: the sweep names none.
    pub metric: Option<(String, Goal)>,
    /// Params that are averaged.
    pub over: Vec<String>,
    pub table: Table,
    pub trials: Vec<SweepTrial>,
    /// What is wrong with the metric, if anything.
    pub warning: Option<String>,
}

/// One trial, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct SweepTrial {
    pub label: String,
    /// As the params of the table.
    pub values: Vec<String>,
    pub done: bool,
    pub metric: Option<f64>,
    /// Every figure of its finished stages, as `STAGE/FIGURE`.
    pub figures: BTreeMap<String, f64>,
}

/// A setting by what it costs and what it brings.
struct Place<'a> {
    row: &'a Row,
    kl: f64,
    metric: f64,
    /// No other setting has as much for as little.
    ahead: bool,
}

/// The whole page.
#[must_use]
pub fn render(data: &SweepReport) -> String {
    let title = if data.question.is_empty() { &data.name } else { &data.question };
    let done = data.trials.iter().filter(|t| t.done).count();
    let all = text::counted(data.trials.len(), "trial");
    let summary = html! {
        p.meta {
            @if !data.question.is_empty() { (text::visible(&data.name)) " · " }
            (done) " of " (all) " done"
            @if !data.over.is_empty() { " · averaged over " (text::visible(&data.over.join(", "))) }
        }
    };
    page(title, &summary, &[result(data), effects(data), frontier(data), again(data)])
}

/// What stands on the live page: the table and what each param does.
#[must_use]
pub fn sections(data: &SweepReport) -> Vec<Markup> {
    vec![result(data), effects(data)]
}

fn metric_name(data: &SweepReport) -> &str {
    data.metric.as_ref().map_or("metric", |(name, _)| name)
}

fn goal(data: &SweepReport) -> Goal {
    data.metric.as_ref().map_or(Goal::Maximize, |(_, goal)| *goal)
}

/// `kl_coef 0.2, lr 0.001`.
fn setting(table: &Table, row: &Row) -> String {
    let pairs = table.params.iter().zip(&row.values).filter(|(_, v)| !v.is_empty());
    let all: Vec<String> = pairs.map(|(param, value)| format!("{param} {value}")).collect();
    if all.is_empty() { "as the file says".to_owned() } else { all.join(", ") }
}

fn result(data: &SweepReport) -> Markup {
    let table = &data.table;
    let compared = table.rows.iter().any(|r| r.against_baseline.is_some());
    let several = table.rows.iter().any(|r| r.metric.n > 1);
    html! {
        section aria-labelledby="result" {
            h2 id="result" { "Result" }
            (claim(data))
            @if let Some(warning) = &data.warning { p.note.warning { (text::visible(warning)) } }
            div.wide tabindex="0" role="region" aria-label="Result by setting" {
                table {
                    thead { tr {
                        th scope="col" { "setting" }
                        th scope="col" { "n" }
                        th scope="col" { (text::visible(metric_name(data))) }
                        @if several { th scope="col" { "spread" } th scope="col" { "range" } }
                        @if compared { th scope="col" { "against baseline" } }
                    } }
                    tbody {
                        @for row in &table.rows { (line(table, row, compared, several)) }
                    }
                }
            }
        }
    }
}

fn line(table: &Table, row: &Row, compared: bool, several: bool) -> Markup {
    html! {
        tr {
            th scope="row" {
                (text::visible(&setting(table, row)))
                @if row.is_best { " " span.tag { "best" } }
                @if row.is_baseline { " " span.tag { "baseline" } }
            }
            td {
                (row.metric.n)
                @if row.metric.n < row.trials { span.dim { " of " (row.trials) } }
            }
            (cells(&row.metric, several))
            @if compared {
                td {
                    @if let Some(cell) = &row.against_baseline {
                        @if let Some(mean) = cell.mean { (signed(mean)) }
                        @if let Some(spread) = cell.spread {
                            span.dim { " ± " (text::number(spread)) }
                        }
                    }
                }
            }
        }
    }
}

/// Mean and, where any row has them, spread and range.
fn cells(cell: &Cell, several: bool) -> Markup {
    html! {
        td { @if let Some(mean) = cell.mean { (text::number(mean)) } @else { "–" } }
        @if several {
            td { @if let Some(spread) = cell.spread { "± " (text::number(spread)) } }
            td.range {
                @if let (Some(low), Some(high), true) = (cell.low, cell.high, cell.n > 1) {
                    (text::number(low)) " … " (text::number(high))
                }
            }
        }
    }
}

fn signed(x: f64) -> String {
    if x > 0.0 { format!("+{}", text::number(x)) } else { text::number(x) }
}

/// The best setting, and how far it can be believed.
fn claim(data: &SweepReport) -> Markup {
    let table = &data.table;
    let Some(best) = table.rows.iter().find(|r| r.is_best) else {
        return html! { p.claim { "No trial has a figure yet." } };
    };
    let Some(mean) = best.metric.mean else { return html! {} };
    let missing = table.rows.iter().filter(|r| r.metric.n < r.trials).count();
    let doubt = match (&best.against_baseline, best.is_baseline) {
        _ if best.metric.n < 2 => {
            "One trial: how much chance there is in it, nobody can say.".to_owned()
        }
        (Some(Cell { mean: Some(mean), spread: Some(spread), .. }), _) => {
            let (apart, spread_shown) = (signed(*mean), text::number(*spread));
            let judged = if mean.abs() > *spread { "more" } else { "less" };
            format!(
                "Against the baseline {apart}, which is {judged} than the ± {spread_shown} by which \
                 that difference varies."
            )
        }
        (_, true) => "It is the baseline.".to_owned(),
        _ => String::new(),
    };
    html! {
        p.claim {
            "Best mean: " strong { (text::visible(&setting(table, best))) } ", with "
            (text::visible(metric_name(data))) " " strong { (text::number(mean)) }
            @if let Some(spread) = best.metric.spread { " ± " (text::number(spread)) }
            "."
        }
        @if !doubt.is_empty() || missing > 0 {
            p.under {
                (doubt)
                @if missing > 0 { " " (text::counted(missing, "setting")) " still lack figures." }
            }
        }
    }
}

fn effects(data: &SweepReport) -> Markup {
    let table = &data.table;
    let shown = table.params.iter().filter(|p| values_of(table, p).count() > 1);
    let shown: Vec<&String> = shown.collect();
    html! {
        @if !shown.is_empty() && table.effects.iter().any(|e| e.metric.mean.is_some()) {
            section aria-labelledby="effects" {
                h2 id="effects" { "What each param does" }
                p.lead {
                    (text::visible(metric_name(data))) " by each param, the others averaged out."
                }
                div.charts { @for param in &shown { (effect(data, param)) } }
                details {
                    summary { "As a table" }
                    div.wide tabindex="0" role="region" aria-label="Effect of each param" {
                        table {
                            thead { tr {
                                @for head in ["value", "n", "mean", "spread", "range", "effect"] {
                                    th scope="col" { (head) }
                                }
                            } }
                            tbody {
                                @for effect in shown.iter().flat_map(|p| values_of(table, p)) {
                                    tr {
                                        th scope="row" {
                                            (text::visible(&effect.param)) " "
                                            (text::visible(&effect.value))
                                        }
                                        td { (effect.metric.n) }
                                        (cells(&effect.metric, true))
                                        td { @if let Some(x) = effect.effect { (signed(x)) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn values_of<'a>(table: &'a Table, param: &'a str) -> impl Iterator<Item = &'a Effect> {
    table.effects.iter().filter(move |e| e.param == param)
}

/// The metric by the values of one param: numbers in order with a line through their means.
fn effect(data: &SweepReport, param: &str) -> Markup {
    let mut values: Vec<&Effect> = values_of(&data.table, param).collect();
    let number = |e: &&Effect| e.value.parse::<f64>().ok().filter(|x| x.is_finite());
    let ordered = values.iter().all(|e| number(e).is_some());
    if ordered {
        let key = |e: &&Effect| number(e).unwrap_or_default();
        values.sort_by(|a, b| key(a).total_cmp(&key(b)));
    }
    let place = |i: usize| i as f64;
    let means: Vec<(f64, f64)> =
        values.iter().enumerate().filter_map(|(i, e)| Some((place(i), e.metric.mean?))).collect();
    let column = data.table.params.iter().position(|p| p == param).unwrap_or_default();
    let dots: Vec<(f64, f64)> = data
        .trials
        .iter()
        .filter_map(|t| {
            let value = t.values.get(column)?;
            Some((place(values.iter().position(|e| e.value == *value)?), t.metric?))
        })
        .collect();
    let marks: Vec<String> = values.iter().map(|e| short(&e.value)).collect();
    let (small, large) = (vec![1.0; dots.len()], vec![20.0; means.len()]);
    let (mean_name, trial_name) = ("mean".to_owned(), "trials".to_owned());
    let weights = (!ordered).then_some(large.as_slice());
    let chart = Chart {
        title: format!("{} by {param}", metric_name(data)),
        series: vec![
            Series { name: &trial_name, points: &dots, weights: Some(&small), colour: Some(1) },
            Series { name: &mean_name, points: &means, weights, colour: Some(0) },
        ],
        x: Some((-0.4, place(marks.len()) - 0.6)),
        y: None,
        marks: &marks,
        diagonal: false,
        size: (340, 200),
    };
    html! {
        figure {
            figcaption {
                span.metric { (text::visible(param)) }
                span class=(if ordered { "key c1" } else { "key dot c1" }) { "mean" }
                span.key.dot.c2 { "trials" }
            }
            (chart::svg(&chart))
        }
    }
}

/// A value that fits below an axis.
fn short(value: &str) -> String {
    let value = text::plain(value);
    match value.char_indices().nth(12) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value,
    }
}

/// The figure that says how far trials went: that of the policy that the metric is about, or else
/// of training.
fn kl_figure(data: &SweepReport) -> Option<String> {
    let (metric, _) = data.metric.as_ref()?;
    let parts: Vec<&str> = metric.split('/').collect();
    let beside = (0..parts.len()).map(|i| {
        let mut parts = parts.clone();
        parts[i] = "kl";
        parts.join("/")
    });
    let wanted: Vec<String> = beside.filter(|name| name.contains('/')).collect();
    let known = data.trials.iter().filter(|t| t.metric.is_some()).flat_map(|t| t.figures.keys());
    let mut known: Vec<&String> = known.collect();
    known.sort();
    known.dedup();
    let is = |name: &str, wanted: &str| {
        name == wanted || name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('/'))
    };
    let near = wanted.iter().find_map(|w| known.iter().find(|name| is(name, w)));
    let found = near.or_else(|| known.iter().find(|name| name.rsplit('/').next() == Some("kl")));
    found.map(|name| (*name).clone())
}

/// Settings that have both figures, each a mean over its trials; nearest first.
fn places<'a>(data: &'a SweepReport, kl: &str) -> Vec<Place<'a>> {
    let mut found: Vec<Place> = Vec::new();
    for row in &data.table.rows {
        let trials = data.trials.iter().filter(|t| t.values == row.values);
        let both: Vec<(f64, f64)> =
            trials.filter_map(|t| Some((*t.figures.get(kl)?, t.metric?))).collect();
        let of = |one: fn(&(f64, f64)) -> f64| Cell::of(&both.iter().map(one).collect::<Vec<_>>());
        if let (Some(kl), Some(metric)) = (of(|p| p.0).mean, of(|p| p.1).mean) {
            found.push(Place { row, kl, metric, ahead: false });
        }
    }
    found.sort_by(|a, b| a.kl.total_cmp(&b.kl));
    let goal = goal(data);
    for i in 0..found.len() {
        let beaten = found.iter().enumerate().any(|(j, other)| {
            let no_worse = !goal.better(found[i].metric, other.metric) && other.kl <= found[i].kl;
            let better = goal.better(other.metric, found[i].metric) || other.kl < found[i].kl;
            j != i && no_worse && better
        });
        found[i].ahead = !beaten;
    }
    found
}

fn frontier(data: &SweepReport) -> Markup {
    let Some(kl) = kl_figure(data) else { return html! {} };
    let places = places(data, &kl);
    if places.len() < 2 {
        return html! {};
    }
    let metric = metric_name(data);
    html! {
        section aria-labelledby="frontier" {
            h2 id="frontier" { "What is bought with KL" }
            p.lead {
                (text::visible(metric)) " by " (text::visible(&kl))
                ": no setting off the line is better at as little KL."
            }
            div.charts.single { (drawing(data, &kl, &places)) }
            details {
                summary { "As a table" }
                div.wide tabindex="0" role="region" aria-label="Settings by KL" {
                    table {
                        thead { tr {
                            th scope="col" { "setting" } th scope="col" { "KL" }
                            th scope="col" { (text::visible(metric)) }
                        } }
                        tbody {
                            @for place in &places {
                                tr {
                                    th scope="row" {
                                        (text::visible(&setting(&data.table, place.row)))
                                        @if place.ahead { " " span.tag { "frontier" } }
                                    }
                                    td { (text::number(place.kl)) }
                                    td { (text::number(place.metric)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn drawing(data: &SweepReport, kl: &str, places: &[Place]) -> Markup {
    let trials: Vec<(f64, f64)> =
        data.trials.iter().filter_map(|t| Some((*t.figures.get(kl)?, t.metric?))).collect();
    let point = |place: &Place| (place.kl, place.metric);
    let settings: Vec<(f64, f64)> = places.iter().map(point).collect();
    let line: Vec<(f64, f64)> = places.iter().filter(|p| p.ahead).map(point).collect();
    let (small, large) = (vec![1.0; trials.len()], vec![20.0; settings.len()]);
    let chart = Chart {
        title: format!("{} by {kl}", metric_name(data)),
        series: vec![
            Series { name: "frontier", points: &line, weights: None, colour: Some(0) },
            Series { name: "trials", points: &trials, weights: Some(&small), colour: Some(1) },
            Series { name: "settings", points: &settings, weights: Some(&large), colour: Some(0) },
        ],
        x: Some(chart::range(trials.iter().map(|p| p.0), 0.06)),
        y: None,
        marks: &[],
        diagonal: false,
        size: (640, 280),
    };
    html! {
        figure {
            figcaption {
                span.metric { (text::visible(metric_name(data))) " by KL" }
                span.key.c1 { "frontier" } span.key.dot.c1 { "settings" }
                span.key.dot.c2 { "trials" }
            }
            (chart::svg(&chart))
        }
    }
}

fn again(data: &SweepReport) -> Markup {
    html! {
        section aria-labelledby="again" {
            h2 id="again" { "Make it again" }
            pre.command { code { (text::visible(&data.command)) } }
            details {
                summary { "Every trial" }
                div.wide tabindex="0" role="region" aria-label="Trials" {
                    table {
                        thead { tr {
                            th scope="col" { "trial" } th scope="col" { "state" }
                            th scope="col" { (text::visible(metric_name(data))) }
                        } }
                        tbody {
                            @for trial in &data.trials {
                                tr {
                                    th scope="row" { (text::visible(&trial.label)) }
                                    td { @if trial.done { "done" } @else { "not done" } }
                                    td {
                                        @if let Some(x) = trial.metric { (text::number(x)) }
                                        @else { "–" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\" onload='x' </style></title>";

    fn cell(figures: &[f64]) -> Cell {
        Cell::of(figures)
    }

    /// Three settings, two seeds each; made up.
    fn example() -> SweepReport {
        let figures = [
            ("0.05", [2.0, 2.4], [9.0, 11.0]),
            ("0.2", [3.0, 3.2], [4.0, 5.0]),
            ("0.8", [1.0, 1.2], [6.0, 7.0]),
        ];
        let mut table = Table { params: vec!["kl_coef".into()], ..Table::default() };
        let mut trials = Vec::new();
        for (value, metric, kl) in figures {
            let values = vec![value.to_owned()];
            table.rows.push(Row {
                values: values.clone(),
                trials: 2,
                metric: cell(&metric),
                against_baseline: (value != "0.05")
                    .then(|| cell(&[metric[0] - 2.0, metric[1] - 2.4])),
                is_baseline: value == "0.05",
                is_best: value == "0.2",
            });
            let mean = cell(&metric).mean;
            table.effects.push(Effect {
                param: "kl_coef".into(),
                value: value.into(),
                metric: cell(&metric),
                effect: mean.map(|m| m - 2.0),
            });
            for seed in 0..2 {
                let kl = BTreeMap::from([
                    ("eval/kl/ppo".to_owned(), kl[seed]),
                    ("ppo/objective/kl".to_owned(), 77.0),
                ]);
                trials.push(SweepTrial {
                    label: format!("kl{value}-s{seed}"),
                    values: values.clone(),
                    done: true,
                    metric: Some(metric[seed]),
                    figures: kl,
                });
            }
        }
        SweepReport {
            name: "kl".into(),
            question: "How much KL?".into(),
            command: "preflow sweep run kl.yaml".into(),
            metric: Some(("eval/gold/ppo".into(), Goal::Maximize)),
            over: vec!["seed".into()],
            table,
            trials,
            warning: None,
        }
    }

    fn ahead(data: &SweepReport) -> Vec<(&str, f64)> {
        let kl = kl_figure(data).unwrap();
        let places = places(data, &kl);
        places.iter().filter(|p| p.ahead).map(|p| (p.row.values[0].as_str(), p.kl)).collect()
    }

    #[test]
    fn the_page_says_what_came_out_and_loads_nothing() {
        let page = render(&example());
        for bad in ["http://", "https://", "<script", "src=", "@import", "url(", "<link"] {
            assert!(!page.contains(bad), "{bad}");
        }
        for part in [
            "How much KL?",
            "6 of 6 trials done · averaged over seed",
            "<strong>kl_coef 0.2</strong>, with eval/gold/ppo <strong>3.1</strong> ± 0.141.",
            "Against the baseline +0.9, which is more than the ± 0.141",
            "<span class=\"tag\">best</span>",
            "<span class=\"tag\">baseline</span>",
            "What each param does",
            "What is bought with KL",
            "preflow sweep run kl.yaml",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        // The axis of the values is marked at each of them.
        for value in ["0.05", "0.2", "0.8"] {
            assert!(page.contains(&format!(">\n{value}\n</text>")), "{value}");
        }
    }

    #[test]
    fn the_frontier_holds_what_nothing_beats() {
        let mut data = example();
        assert_eq!(kl_figure(&data).as_deref(), Some("eval/kl/ppo"), "beside the metric");
        assert_eq!(ahead(&data), [("0.2", 4.5)], "best, and nearest");
        data.metric = Some(("eval/gold/ppo".into(), Goal::Minimize));
        assert_eq!(ahead(&data), [("0.2", 4.5), ("0.8", 6.5)]);
        for trial in &mut data.trials {
            trial.figures.remove("eval/kl/ppo");
        }
        assert_eq!(kl_figure(&data).as_deref(), Some("ppo/objective/kl"), "that of training");
        data.trials.iter_mut().for_each(|t| t.figures.clear());
        assert_eq!(kl_figure(&data), None);
        assert!(!render(&data).contains("What is bought with KL"));
    }

    #[test]
    fn what_is_missing_leaves_a_sound_page() {
        assert!(render(&SweepReport::default()).contains("No trial has a figure yet."));
        let mut data = example();
        data.warning = Some("no stage reports it".into());
        for row in &mut data.table.rows {
            row.metric = Cell::default();
            (row.against_baseline, row.is_best) = (None, false);
        }
        data.table.effects.iter_mut().for_each(|e| e.metric = Cell::default());
        data.trials.iter_mut().for_each(|t| t.metric = None);
        let page = render(&data);
        assert!(
            page.contains("no stage reports it") && page.contains("0<span class=\"dim\"> of 2")
        );
        assert!(!page.contains("What each param does") && !page.contains("<svg"), "{page}");
        // One trial a setting is no evidence.
        let mut data = example();
        data.table.rows.iter_mut().for_each(|r| r.metric = cell(&[1.0]));
        assert!(render(&data).contains("One trial: how much chance"));
    }

    #[test]
    fn hostile_text_stays_text() {
        let h = || HOSTILE.to_owned();
        let mut data = example();
        (data.name, data.question, data.command, data.over) = (h(), h(), h(), vec![h()]);
        data.metric = Some((h(), Goal::Maximize));
        data.table.params = vec![h()];
        data.warning = Some(h());
        for (i, effect) in data.table.effects.iter_mut().enumerate() {
            (effect.param, effect.value) = (h(), format!("{i}{HOSTILE}"));
        }
        data.table.rows.iter_mut().for_each(|r| r.values = vec![h()]);
        data.trials.iter_mut().for_each(|t| (t.label, t.values) = (h(), vec![h()]));
        let page = render(&data);
        assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
        assert!(!page.contains('\u{202e}'));
        assert_eq!(page.matches("</title>").count(), 1 + page.matches("<svg").count());
        assert_eq!(page.matches("</style>").count(), 1);
    }
}
