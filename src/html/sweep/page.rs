//! The page of a sweep: its table, what each param does, and what is bought with KL.
//! Goes by the names of figures; does not know how they were measured.

use maud::{Markup, html};

use super::data::{SweepReport, metric_name, setting, short};
use super::frontier::frontier;
use crate::html::chart::{self, Chart, Series};
use crate::html::markup;
use crate::html::page::page;
use crate::sweep::{Effect, ResultTable, Row, SettingMean};
use crate::text;

/// The whole page.
#[must_use]
pub fn render(data: &SweepReport) -> String {
    let title = if data.question.is_empty() { &data.name } else { &data.question };
    let done = data.trials.iter().filter(|t| t.done).count();
    let all = text::counted(data.trials.len(), "trial");
    let summary = html! {
        p.meta {
            @if !data.question.is_empty() { (markup::visible(&data.name)) " · " }
            (done) " of " (all) " done"
            @if !data.over.is_empty() { " · averaged over " (markup::visible(&data.over.join(", "))) }
        }
    };
    page(title, &summary, &[result(data), effects(data), frontier(data), again(data)])
}

/// What stands on the live page: the table and what each param does.
#[must_use]
pub fn sections(data: &SweepReport) -> Vec<Markup> {
    vec![result(data), effects(data)]
}

fn result(data: &SweepReport) -> Markup {
    let table = &data.table;
    let compared = table.rows.iter().any(|r| r.against_baseline.is_some());
    let several = table.rows.iter().any(|r| r.metric.n > 1);
    html! {
        section aria-labelledby="result" {
            h2 id="result" { "Result" }
            (claim(data))
            @if let Some(warning) = &data.warning { p.note.warning { (markup::visible(warning)) } }
            div.wide tabindex="0" role="region" aria-label="Result by setting" {
                table {
                    thead { tr {
                        th scope="col" { "setting" }
                        th scope="col" { "n" }
                        th scope="col" { (markup::visible(metric_name(data))) }
                        @if several {
                            th scope="col" { "95 %" }
                            th scope="col" { "spread" } th scope="col" { "range" }
                        }
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

fn line(table: &ResultTable, row: &Row, compared: bool, several: bool) -> Markup {
    html! {
        tr {
            th scope="row" {
                (markup::visible(&setting(table, row)))
                @if row.is_best { " " span.tag { "best" } }
                @if row.is_baseline { " " span.tag { "baseline" } }
            }
            td {
                (row.metric.n)
                @if row.metric.n < row.trials { span.dim { " of " (row.trials) } }
            }
            td { @if let Some(mean) = row.metric.mean { (text::number(mean)) } @else { "–" } }
            @if several {
                td {
                    @if let Some(half) = row.metric.half { "± " (text::number(half)) }
                    @else { "–" }
                }
                (spread(&row.metric))
            }
            @if compared {
                td {
                    @if let Some(cell) = &row.against_baseline {
                        @if let Some(mean) = cell.mean { (signed(mean)) }
                        @if let Some(half) = cell.half {
                            span.dim { " ± " (text::number(half)) }
                        }
                    }
                }
            }
        }
    }
}

/// Spread and range.
fn spread(cell: &SettingMean) -> Markup {
    html! {
        td { @if let Some(spread) = cell.spread { (text::number(spread)) } }
        td.range {
            @if let (Some(low), Some(high), true) = (cell.low, cell.high, cell.n > 1) {
                (text::number(low)) " … " (text::number(high))
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
    html! {
        p.claim {
            "Best mean: " strong { (markup::visible(&setting(table, best))) } ", with "
            (markup::visible(metric_name(data))) " " strong { (text::number(mean)) }
            @if let Some(half) = best.metric.half { " ± " (text::number(half)) }
            "."
        }
        p.under {
            (table.words(text::number).unwrap_or_default())
            @if missing > 0 { " " (text::counted(missing, "setting")) " still lack figures." }
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
                    (markup::visible(metric_name(data))) " by each param, the others averaged out."
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
                                            (markup::visible(&effect.param)) " "
                                            (markup::visible(&effect.value))
                                        }
                                        td { (effect.metric.n) }
                                        td {
                                            @if let Some(mean) = effect.metric.mean {
                                                (text::number(mean))
                                            } @else { "–" }
                                        }
                                        (spread(&effect.metric))
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

fn values_of<'a>(table: &'a ResultTable, param: &'a str) -> impl Iterator<Item = &'a Effect> {
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
            Series {
                name: &trial_name,
                points: &dots,
                weights: Some(&small),
                colour: Some(1),
                ..Series::default()
            },
            Series {
                name: &mean_name,
                points: &means,
                weights,
                colour: Some(0),
                ..Series::default()
            },
        ],
        x: Some((-0.4, place(marks.len()) - 0.6)),
        marks: &marks,
        size: (340, 200),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption {
                span.metric { (markup::visible(param)) }
                span class=(if ordered { "key c1" } else { "key dot c1" }) { "mean" }
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
            pre.command { code { (markup::visible(&data.command)) } }
            details {
                summary { "Every trial" }
                div.wide tabindex="0" role="region" aria-label="Trials" {
                    table {
                        thead { tr {
                            th scope="col" { "trial" } th scope="col" { "state" }
                            th scope="col" { (markup::visible(metric_name(data))) }
                        } }
                        tbody {
                            @for trial in &data.trials {
                                tr {
                                    th scope="row" { (markup::visible(&trial.label)) }
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::html::sweep::SweepTrial;
    use crate::html::sweep::frontier::{kl_figure, places};
    use crate::sweep::Goal;

    const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\" onload='x' </style></title>";

    fn cell(figures: &[f64]) -> SettingMean {
        SettingMean::of(figures)
    }

    /// Three settings, two seeds each; made up.
    fn example() -> SweepReport {
        let figures = [
            ("0.05", [2.0, 2.4], [9.0, 11.0]),
            ("0.2", [3.0, 3.2], [4.0, 5.0]),
            ("0.8", [1.0, 1.2], [6.0, 7.0]),
        ];
        let (params, over) = (vec!["kl_coef".into()], vec!["seed".into()]);
        let mut table = ResultTable { params, over, ..ResultTable::default() };
        let mut trials = Vec::new();
        for (value, metric, kl) in figures {
            let values = vec![value.to_owned()];
            table.rows.push(Row {
                values: values.clone(),
                trials: 2,
                members: Vec::new(),
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
            "<strong>kl_coef 0.2</strong>, with eval/gold/ppo <strong>3.1</strong>.",
            "2 seeds: cannot be told from chance",
            "<span class=\"tag\">best</span>",
            "<span class=\"tag\">baseline</span>",
            "What each param does",
            "What is bought with KL",
            "preflow sweep run kl.yaml",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        // The frontier is drawn for wide and for narrow screens.
        assert_eq!(page.matches("<svg").count(), 3);
        // The axis of the values is marked at each of them.
        for value in ["0.05", "0.2", "0.8"] {
            assert!(page.contains(&format!(">\n{value}\n</text>")), "{value}");
        }
    }

    #[test]
    fn the_best_of_several_settings_has_to_be_better_than_chance() {
        let mut data = example();
        for (row, shift) in data.table.rows.iter_mut().zip([0.0, 1.0, -1.0]) {
            row.metric = cell(&[2.0 + shift, 2.4 + shift, 2.1 + shift]);
            row.trials = 3;
            let half = |x: f64| Some(x).filter(|_| !row.is_baseline);
            row.against_baseline =
                half(0.3).map(|half| SettingMean { half: Some(half), ..cell(&[shift; 3]) });
        }
        let page = render(&data);
        for part in [
            "<strong>3.17</strong> ± 0.517.",
            "+1 ± 0.3 against the baseline (95 %, best of 3): more than chance explains.",
            "<td>± 0.517</td>",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        data.table.rows[1].against_baseline.as_mut().unwrap().half = Some(1.1);
        assert!(
            render(&data)
                .contains("± 1.1 against the baseline (95 %, best of 3): chance may explain it.")
        );
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
            row.metric = SettingMean::default();
            (row.against_baseline, row.is_best) = (None, false);
        }
        data.table.effects.iter_mut().for_each(|e| e.metric = SettingMean::default());
        data.trials.iter_mut().for_each(|t| t.metric = None);
        let page = render(&data);
        assert!(
            page.contains("no stage reports it") && page.contains("0<span class=\"dim\"> of 2")
        );
        assert!(!page.contains("What each param does") && !page.contains("<svg"), "{page}");
        // One trial a setting is no evidence.
        let mut data = example();
        data.table.rows.iter_mut().for_each(|r| r.metric = cell(&[1.0]));
        assert!(render(&data).contains("1 seed: cannot be told from chance"));
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
