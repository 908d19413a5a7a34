//! What optimisation buys by the distance it goes: best-of-n, policies over √KL, Gao's laws.
//! Goes by the names of figures; does not know how they were measured.

use maud::{Markup, html};

use super::chart::{self, Chart, Series};
use super::evaluation::{Evaluation, names_of};
use super::metrics::{self, ReportPlace, SQRT_KL};
use super::{EvaluationRow, ReportData, markup};
use crate::text;

/// Sizes of the drawings, for screens and for phones.
const BROAD: (u32, u32) = (440, 280);
const NARROW: (u32, u32) = (340, 270);

/// The measures that may part: what is wanted, and what is optimised.
fn measures() -> Vec<&'static str> {
    metrics::told(ReportPlace::Frontier)
}

/// Points (x, gain over the start) of one measure.
type Points = Vec<(f64, f64)>;

/// The curve rows of the last evaluation on one bucket.
struct Curves<'a> {
    evaluation: Evaluation<'a>,
    rows: Vec<&'a EvaluationRow>,
    bucket: &'a str,
}

pub fn section(data: &ReportData) -> Markup {
    let Some(last) = data.evaluation.last() else { return html! {} };
    let evaluation = Evaluation::of(data, &last.stage);
    let Some((_, bucket)) = evaluation.headline() else { return html! {} };
    let inside = |r: &&EvaluationRow| r.stage == last.stage && r.bucket == bucket;
    let rows: Vec<&EvaluationRow> = data.evaluation.iter().filter(inside).collect();
    let curves = Curves { evaluation, rows, bucket };
    let best: Vec<(&str, Points)> = curves.of_measures(|m| curves.best_of(m, |k| k));
    let over: Vec<(&str, Points)> = curves.of_measures(|m| curves.policies(m));
    let has = |points: &[(&str, Points)], n: usize| points.iter().any(|(_, p)| p.len() >= n);
    html! {
        @if has(&best, 2) || has(&over, 1) {
            section aria-labelledby="frontier" {
                h2 id="frontier" { "What optimisation buys" }
                p.lead {
                    "Gain over the reference on " (markup::visible(&markup::spaced(bucket)))
                    ", in what is optimised (the reward model) and what is wanted (gold). Where the \
                     two part, the reward model is being pleased, not people."
                }
                div.charts.large {
                    @if has(&best, 2) { (best_of(&best)) }
                    @if has(&over, 1) || has(&best, 2) { (distance(&curves, &over)) }
                }
                (words(&curves))
            }
        }
    }
}

impl<'a> Curves<'a> {
    fn of_measures(&self, points: impl Fn(&str) -> Points) -> Vec<(&'static str, Points)> {
        measures().into_iter().map(|m| (m, points(m))).filter(|(_, p)| !p.is_empty()).collect()
    }

    fn value(&self, name: &str) -> Option<f64> {
        let found = self.rows.iter().find(|r| r.name == name);
        found.map(|r| r.value).filter(|v| v.is_finite())
    }

    /// `best_of_K/measure`, as gain over K = 1; `x` maps K.
    fn best_of(&self, measure: &str, x: impl Fn(f64) -> f64) -> Points {
        let mut points: Points = self
            .rows
            .iter()
            .filter_map(|r| {
                let (size, name) = r.name.strip_prefix("best_of_")?.split_once('/')?;
                let size: f64 = size.parse().ok().filter(|_| name == measure)?;
                r.value.is_finite().then_some((size, r.value))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let start = points.first().map_or(0.0, |p| p.1);
        points.into_iter().map(|(k, v)| (x(k), v - start)).collect()
    }

    /// Policies that were measured against a reference, which lies at 0.
    fn places(&self) -> Vec<(&'a str, f64)> {
        let rows = self.evaluation.standings(SQRT_KL, self.bucket);
        rows.into_iter().map(|r| (r.policy.as_str(), r.value)).collect()
    }

    /// The reference and those after it, as gain over it; not a number where it is not known.
    fn policies(&self, measure: &str) -> Points {
        let level = |policy: &str| {
            let row = self.evaluation.find(policy, self.bucket, measure)?;
            row.value.is_finite().then_some(row.value)
        };
        let after = self.after();
        let Some(start) = after.first().and_then(|(reference, _)| level(reference)) else {
            return Vec::new();
        };
        // Every policy has a place, so that names go with points; what is not known is not drawn.
        let gain = |policy: &str| level(policy).map_or(f64::NAN, |level| level - start);
        let points: Points = after.iter().map(|(policy, d)| (*d, gain(policy))).collect();
        if points.iter().filter(|p| p.1.is_finite()).count() > 1 { points } else { Vec::new() }
    }

    /// The reference, at 0, and the policies after it.
    fn after(&self) -> Vec<(&'a str, f64)> {
        let places = self.places();
        let reference = places.iter().position(|(_, d)| *d == 0.0);
        reference.map_or_else(Vec::new, |reference| places[reference..].to_vec())
    }

    /// A fitted law, drawn from 0 to `end`.
    fn law(&self, fit: &str, measure: &str, end: f64) -> Points {
        let get = |what: &str| self.value(&format!("{fit}/{measure}/{what}"));
        let Some((alpha, beta)) = get("alpha").zip(get("beta")) else { return Vec::new() };
        let gain = |d: f64| match fit {
            "best_of_fit" => d * (alpha - beta * d),
            _ if d == 0.0 => 0.0,
            _ => d * (alpha - beta * d.ln()),
        };
        (0..=60).map(|i| f64::from(i) / 60.0 * end).map(|d| (d, gain(d))).collect()
    }
}

fn best_of(measures: &[(&str, Points)]) -> Markup {
    let series = measures.iter().enumerate().map(|(i, (name, points))| Series {
        name,
        points,
        colour: Some(i),
        ..Series::default()
    });
    let chart = Chart {
        title: "Gain by the number of answers that the reward model picks from".into(),
        series: series.collect(),
        size: BROAD,
        narrow: Some(NARROW),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption {
                span.metric { "best of n, gain by n" }
                @for (i, (name, _)) in measures.iter().enumerate() {
                    span class={ "key c" (i + 1) } { (markup::spaced(name)) }
                }
            }
            (chart::svg(&chart))
        }
    }
}

/// √KL of the best of k, at most.
fn best_of_distance(k: f64) -> f64 {
    (k.ln() - (k - 1.0) / k).max(0.0).sqrt()
}

fn distance(curves: &Curves, policies: &[(&str, Points)]) -> Markup {
    let mut lines: Vec<(String, Points, usize, bool)> = Vec::new();
    let names: Vec<String> = curves.after().iter().map(|(name, _)| markup::plain(name)).collect();
    for (i, measure) in measures().into_iter().enumerate() {
        let dots = policies.iter().find(|(m, _)| *m == measure).map(|(_, p)| p.clone());
        let dots = dots.unwrap_or_default();
        let best = curves.best_of(measure, best_of_distance);
        let end = dots.iter().chain(&best).map(|p| p.0).fold(0.0, f64::max);
        let law = curves.law("policy_fit", measure, end);
        let law = if law.is_empty() { curves.law("best_of_fit", measure, end) } else { law };
        lines.push((format!("{measure}, fitted"), law, i, false));
        lines.push((format!("{measure}, best of n"), best, i + 2, false));
        lines.push((format!("{measure}, policies"), dots, i, true));
    }
    lines.retain(|(_, points, ..)| !points.is_empty());
    let far = lines.iter().flat_map(|(_, p, ..)| p).map(|p| p.0).fold(0.0, f64::max);
    let ones: Vec<Vec<f64>> = lines.iter().map(|(_, p, ..)| vec![16.0; p.len()]).collect();
    let series = lines.iter().zip(&ones).map(|((name, points, colour, dots), ones)| Series {
        name,
        points,
        weights: dots.then_some(ones.as_slice()),
        colour: Some(*colour),
        names: if *dots { &names } else { &[] },
    });
    let chart = Chart {
        title: "Gain over the reference by √KL from it; dots are policies".into(),
        series: series.collect(),
        x: Some((0.0, if far > 0.0 { far * 1.08 } else { 1.0 })),
        size: BROAD,
        narrow: Some(NARROW),
        ..Chart::default()
    };
    let has = |word: &str| lines.iter().any(|(name, ..)| name.ends_with(word));
    html! {
        figure {
            figcaption {
                span.metric { "gain by √KL" }
                @if has("policies") || has("fitted") {
                    @for (i, measure) in measures().iter().enumerate() {
                        span class={ "key c" (i + 1) } { (measure) }
                    }
                }
                @if has("best of n") {
                    @for (i, measure) in measures().iter().enumerate() {
                        span class={ "key c" (i + 3) } { (measure) ", best of n" }
                    }
                }
                @if has("policies") { span { "● policies" } }
            }
            (chart::svg(&chart))
        }
    }
}

/// Where the laws have their peaks, and where the policies stand.
fn words(curves: &Curves) -> Markup {
    let peak = |fit: &str| curves.value(&format!("{fit}/gold/peak"));
    let places = curves.places();
    let names = names_of(places.iter().map(|(name, _)| *name));
    let far = |name: &str| places.iter().find(|(n, _)| *n == name).map_or(0.0, |p| p.1);
    html! {
        @if !names.is_empty() {
            p.finals {
                "√KL from the reference: "
                @for (i, name) in names.iter().enumerate() {
                    @if i > 0 { " · " }
                    (markup::visible(name)) " " b { (text::two_places(far(name))) }
                }
            }
        }
        @if let Some(d) = peak("policy_fit") {
            p.finals { "By the law fitted to the policies, gold is highest at √KL " b { (text::two_places(d)) } "." }
        }
        @if let Some(d) = peak("best_of_fit") {
            p.finals { "By the law fitted to best of n, gold is highest at √KL " b { (text::two_places(d)) } "." }
        }
    }
}
