//! What is bought with KL: settings by how far they went and what they brought.
//! Goes by the names of figures; does not know how they were measured.

use maud::{Markup, html};

use super::super::chart::{self, Chart, Series};
use super::super::markup;
use super::super::metrics::KL;
use super::data::{SweepReport, goal, metric_name, setting, short};
use crate::sweep::{Row, SettingMean};
use crate::text;

/// A setting by what it costs and what it brings.
pub(super) struct SettingPoint<'a> {
    pub(super) row: &'a Row,
    pub(super) kl: f64,
    metric: f64,
    /// No other setting has as much for as little.
    pub(super) ahead: bool,
}

/// The figure that says how far trials went: that of the policy that the metric is about, or else
/// of training.
pub(super) fn kl_figure(data: &SweepReport) -> Option<String> {
    let (metric, _) = data.metric.as_ref()?;
    let parts: Vec<&str> = metric.split('/').collect();
    let beside = (0..parts.len()).map(|i| {
        let mut parts = parts.clone();
        parts[i] = KL;
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
    let found = near.or_else(|| known.iter().find(|name| name.rsplit('/').next() == Some(KL)));
    found.map(|name| (*name).clone())
}

/// Settings that have both figures, each a mean over its trials; nearest first.
pub(super) fn places<'a>(data: &'a SweepReport, kl: &str) -> Vec<SettingPoint<'a>> {
    let mut found: Vec<SettingPoint> = Vec::new();
    for row in &data.table.rows {
        let trials = data.trials.iter().filter(|t| t.values == row.values);
        let both: Vec<(f64, f64)> =
            trials.filter_map(|t| Some((*t.figures.get(kl)?, t.metric?))).collect();
        let of = |one: fn(&(f64, f64)) -> f64| {
            SettingMean::of(&both.iter().map(one).collect::<Vec<_>>())
        };
        if let (Some(kl), Some(metric)) = (of(|p| p.0).mean, of(|p| p.1).mean) {
            found.push(SettingPoint { row, kl, metric, ahead: false });
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

pub(super) fn frontier(data: &SweepReport) -> Markup {
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
                (markup::visible(metric)) " by " (markup::visible(&kl))
                ": no setting off the line is better at as little KL."
            }
            div.charts.single { (drawing(data, &kl, &places)) }
            details {
                summary { "As a table" }
                div.wide tabindex="0" role="region" aria-label="Settings by KL" {
                    table {
                        thead { tr {
                            th scope="col" { "setting" } th scope="col" { "KL" }
                            th scope="col" { (markup::visible(metric)) }
                        } }
                        tbody {
                            @for place in &places {
                                tr {
                                    th scope="row" {
                                        (markup::visible(&setting(&data.table, place.row)))
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

fn drawing(data: &SweepReport, kl: &str, places: &[SettingPoint]) -> Markup {
    let trials: Vec<(f64, f64)> =
        data.trials.iter().filter_map(|t| Some((*t.figures.get(kl)?, t.metric?))).collect();
    let point = |place: &SettingPoint| (place.kl, place.metric);
    let settings: Vec<(f64, f64)> = places.iter().map(point).collect();
    let line: Vec<(f64, f64)> = places.iter().filter(|p| p.ahead).map(point).collect();
    let (small, large) = (vec![1.0; trials.len()], vec![20.0; settings.len()]);
    let name = |place: &SettingPoint| short(&place.row.values.join(", "));
    let names: Vec<String> = places.iter().map(name).collect();
    let dots = |name, points, weights| Series { name, points, weights, ..Series::default() };
    let far = trials.iter().map(|p| p.0).fold(0.0, f64::max);
    let chart = Chart {
        title: format!("{} by {kl}", metric_name(data)),
        series: vec![
            Series { name: "frontier", points: &line, colour: Some(0), ..Series::default() },
            Series { colour: Some(1), ..dots("trials", &trials, Some(&small)) },
            Series { colour: Some(0), names: &names, ..dots("settings", &settings, Some(&large)) },
        ],
        x: Some((0.0, if far > 0.0 { far * 1.08 } else { 1.0 })),
        size: (640, 300),
        narrow: Some((340, 270)),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption {
                span.metric { (markup::visible(metric_name(data))) " by KL" }
                span.key.c1 { "frontier" } span.key.dot.c1 { "settings" }
                span.key.dot.c2 { "trials" }
            }
            (chart::svg(&chart))
        }
    }
}
