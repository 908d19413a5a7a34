//! A difference as a person reads it in a terminal.

use crate::identity::Change;
use crate::project::diff::{DataChange, FigureChange, ParamChange, PipelineDiff};
use crate::report::table::{Table, hang};
use crate::report::{OutputStyle, Style, words};
use crate::text::{self, clean};
use crate::votes::ChangedVotes;

/// Figures shown a stage, unless more are asked for.
const FIGURES: usize = 8;

/// All of it, section by section; empty ones are left out.
pub fn text(all: &PipelineDiff, look: OutputStyle) -> String {
    let side = |text: &str| hang(&clean(text), 4, look);
    let heads = format!(" A  {}\n B  {}\n", side(&all.a), side(&all.b));
    let mut out = heads.clone();
    let mut section = |title: &str, rows: Vec<(String, String)>| {
        if rows.is_empty() {
            return;
        }
        out.push_str(&format!("\n {}\n", look.paint(Style::Strong, title)));
        let mut table = Table::new(&[1]);
        for (left, right) in rows {
            table.row([format!("  {left}"), right]);
        }
        out.push_str(&table.text(look));
    };
    let named = |(name, a, b): &(String, String, String)| (name.clone(), format!("{a} → {b}"));
    let stages = [("only in A", &all.only_in_a), ("only in B", &all.only_in_b)];
    let stages = stages.into_iter().filter(|(_, names)| !names.is_empty());
    section("stages", stages.map(|(side, names)| (side.to_owned(), names.join(", "))).collect());
    section("params", all.params.iter().map(param).collect());
    let votes = all
        .votes
        .iter()
        .map(|(stage, v)| (stage.clone(), words::votes(&ChangedVotes::new("votes", *v, None))));
    section("votes", votes.collect());
    section("data", all.data.iter().map(data).collect());
    section("code", all.code.iter().map(named).collect());
    section("environment", all.environment.iter().map(named).collect());
    section("figures", figures(all, look));
    let samples = all.samples.iter().flat_map(|s| {
        let asked = format!("{} {}", s.stage, s.source).trim_end().to_owned();
        [
            (asked, short(&s.prompt)),
            ("  A".to_owned(), short(&s.a)),
            ("  B".to_owned(), short(&s.b)),
        ]
    });
    section("answers that differ", samples.collect());
    if !all.unknown.is_empty() {
        let names = all.unknown.join(", ");
        section("not known yet", vec![(names, "something upstream must run first".to_owned())]);
    }
    if out == heads {
        out.push_str("\n nothing differs\n");
    }
    out
}

fn param(change: &ParamChange) -> (String, String) {
    let text = match &change.change {
        Change::Param { name, .. } => {
            let text = words::change(&change.change);
            let value = text.strip_prefix(name.as_str()).unwrap_or(&text).trim_start().to_owned();
            return (format!("{}.{name}", change.stage), value);
        }
        other => words::change(other),
    };
    (change.stage.clone(), text)
}

fn data(change: &DataChange) -> (String, String) {
    let text = match &change.rows {
        None => "other content".to_owned(),
        Some(r) if r.added + r.removed == 0 => {
            format!("{} rows, the same in another form", r.now)
        }
        Some(r) => format!("{} → {} rows: +{} −{}", r.before, r.now, r.added, r.removed),
    };
    (format!("{}.{}", change.stage, change.port), text)
}

fn figures(all: &PipelineDiff, look: OutputStyle) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut stages: Vec<&str> = all.figures.iter().map(|f| f.stage.as_str()).collect();
    stages.dedup();
    for stage in stages {
        let mut of_stage: Vec<&FigureChange> =
            all.figures.iter().filter(|f| f.stage == stage).collect();
        of_stage.sort_by_key(|f| f.name.matches('/').count());
        let most = if look.verbose { usize::MAX } else { FIGURES };
        let more = of_stage.len().saturating_sub(most);
        for figure in of_stage.into_iter().take(most) {
            let change = match (figure.a[0], figure.b[0]) {
                (Some(a), Some(b)) if b >= a => format!("   +{}", text::figure(b - a)),
                (Some(a), Some(b)) => format!("   −{}", text::figure(a - b)),
                _ => String::new(),
            };
            let text = format!("{} → {}{change}", value(figure.a), value(figure.b));
            rows.push((format!("{stage}  {}", figure.name), text));
        }
        if more > 0 {
            rows.push((format!("{stage}  …"), format!("{more} more with -v")));
        }
    }
    rows
}

/// `0.71 [0.68, 0.74]`.
fn value([x, low, high]: [Option<f64>; 3]) -> String {
    let figure = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), text::figure);
    match (low, high) {
        (Some(_), Some(_)) => format!("{} [{}, {}]", figure(x), figure(low), figure(high)),
        _ => figure(x),
    }
}

fn short(text: &str) -> String {
    let text = clean(text).replace('\n', " ⏎ ");
    match text.char_indices().nth(100) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
