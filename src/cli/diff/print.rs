//! A difference as a person reads it in a terminal.

use crate::identity::Change;
use crate::project::diff::{DataChange, FigureChange, ParamChange, PipelineDiff};
use crate::report::table::{Table, hang};
use crate::report::{OutputStyle, Style, words};
use crate::text::{self, clean, markdown};
use crate::votes::ChangedVotes;

/// Figures shown a stage, unless more are asked for.
const FIGURES: usize = 8;

/// All of it, section by section; empty ones are left out.
pub fn text(all: &PipelineDiff, look: OutputStyle) -> String {
    let heads = match look.markdown {
        true => {
            let side = |text: &str| markdown::escaped(&clean(text));
            format!("A: {}\\\nB: {}\n", side(&all.a), side(&all.b))
        }
        false => {
            let side = |text: &str| hang(&clean(text), 4, look);
            format!(" A  {}\n B  {}\n", side(&all.a), side(&all.b))
        }
    };
    let sections = Sections::of(all, look);
    match sections.is_empty() {
        true => heads + "\n nothing differs\n",
        false => heads + &sections.text(look),
    }
}

/// What differs, under titles; each row is what it is of, and how it differs.
pub struct Sections(Vec<(&'static str, Vec<(String, String)>)>);

impl Sections {
    /// Those that have a row.
    pub fn of(all: &PipelineDiff, look: OutputStyle) -> Self {
        let named = |(name, a, b): &(String, String, String)| (name.clone(), format!("{a} → {b}"));
        let environment = |(name, a, b): &(String, String, String)| match name.as_str() {
            "commit" => (name.clone(), format!("{} → {}", words::commit(a), words::commit(b))),
            _ => (name.clone(), format!("{a} → {b}")),
        };
        // A run knows the stages that it was asked for.
        let only = |side: &'static str, other: &str, alone: &'static str| match () {
            () if other.starts_with("run ") => alone,
            () => side,
        };
        let stages = [
            (only("only in A", &all.b, "not asked for in B"), &all.only_in_a),
            (only("only in B", &all.a, "not asked for in A"), &all.only_in_b),
        ];
        let stages = stages.into_iter().filter(|(_, names)| !names.is_empty());
        let votes = all
            .votes
            .iter()
            .map(|(stage, v)| (stage.clone(), words::votes(&ChangedVotes::new("votes", *v, None))));
        let samples = all.samples.iter().flat_map(|s| {
            let asked = format!("{} {}", s.stage, s.source).trim_end().to_owned();
            [
                (asked, short(&s.prompt)),
                ("  A".to_owned(), short(&s.a)),
                ("  B".to_owned(), short(&s.b)),
            ]
        });
        let unknown = (!all.unknown.is_empty())
            .then(|| (all.unknown.join(", "), "something upstream must run first".to_owned()));
        let mut sections: Vec<(&'static str, Vec<(String, String)>)> = vec![
            ("stages", stages.map(|(side, names)| (side.to_owned(), names.join(", "))).collect()),
            ("params", all.params.iter().map(param).collect()),
            ("votes", votes.collect()),
            ("data", all.data.iter().map(data).collect()),
            ("code", all.code.iter().map(named).collect()),
            ("environment", all.environment.iter().map(environment).collect()),
            ("figures", figures(all, look)),
            ("answers that differ", samples.collect()),
            ("not known yet", unknown.into_iter().collect()),
        ];
        sections.retain(|(_, rows)| !rows.is_empty());
        Self(sections)
    }

    /// Those with one of these titles, and the others.
    pub fn split(self, titles: &[&str]) -> (Self, Self) {
        let (these, others) = self.0.into_iter().partition(|(title, _)| titles.contains(title));
        (Self(these), Self(others))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn text(&self, look: OutputStyle) -> String {
        let mut out = String::new();
        for (title, rows) in &self.0 {
            let mut table = Table::new(&[1]);
            if look.markdown {
                table.row([*title, ""]);
                out.push('\n');
            } else {
                out.push_str(&format!("\n {}\n", look.paint(Style::Strong, title)));
            }
            for (left, right) in rows {
                table.row([format!("  {left}"), right.clone()]);
            }
            out.push_str(&table.text(look));
        }
        out
    }
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
        Some(r) => format!("{} → {} rows: +{} -{}", r.before, r.now, r.added, r.removed),
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
                (Some(a), Some(b)) => format!("   -{}", text::figure(a - b)),
                _ => String::new(),
            };
            let text = format!("{} → {}{change}", value(figure.a), value(figure.b));
            let own = figure.name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('/'));
            let name = if own { figure.name.clone() } else { format!("{stage}  {}", figure.name) };
            rows.push((name, text));
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
