//! `preflow label stats`: how much annotators agree, and how each does.
//! Computes nothing.

use clap::Args;
use serde_json::json;

use crate::agreement::Interval;
use crate::cli::{Exit, Global, complain, print};
use crate::label::{
    self, AnnotatorReport, Assignment, LabelSession, Outlook, OverallReport, QualityReport,
    Readiness,
};
use crate::project::Failure;
use crate::report::table::{Cell, Table, hang};
use crate::report::{OutputStyle, Style};
use crate::text::{clean, two_places};
use crate::votes::{Effective, Folder};

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
}

/// Shows how much annotators agree, and how each does.
///
/// # Errors
/// The stage does not ask people, or its votes cannot be read.
pub fn stats(args: &StatsArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (_, assignment) = super::open(&args.words, global)?;
    let folder = Folder::read(&assignment.votes)
        .map_err(|error| Failure::usage(error.to_string()).help(error.help()))?;
    for problem in &folder.problems {
        let place = format!("{}:{}", problem.path.display(), problem.line);
        complain(&format!("warning: {place}: {}\n", problem.what));
    }
    let report = label::quality(&assignment, &folder);
    let ready = label::readiness(&assignment, &Effective::of(&folder));
    let outlook = outlook(&assignment, &ready);
    if global.json {
        let outlook = outlook.map(|o| json!({ "room": o.room, "most": o.most(), "why": o.why() }));
        let all = json!({ "quality": report, "ready": ready, "outlook": outlook });
        return Ok(print(&format!("{all}\n")));
    }
    let mut out = table(&report, look);
    out.push_str(&summary(&report, look));
    out.push_str(&progress(&ready, look));
    if let Some(why) = outlook.and_then(|o| o.why()) {
        out.push_str(&format!("   {why}\n"));
    }
    if !report.disputes.is_empty() {
        let n = report.disputes.len();
        let text =
            "pairs have votes that disagree; those of an annotator `adjudicator` settle them";
        out.push_str(&format!(" {}\n", hang(&format!("{n} {text}"), 1, look)));
    }
    Ok(print(&out))
}

/// What can still come; `None` where the stage has no pairs yet.
pub(super) fn outlook(assignment: &Assignment, ready: &Readiness) -> Option<Outlook> {
    if assignment.pairs.is_empty() {
        return None;
    }
    let session = LabelSession::open(assignment.clone(), None).ok()?;
    let room = session.outlook(jiff::Timestamp::now()).ok()?.room;
    let disagree = !ready.ready && ready.votes >= ready.need;
    Some(Outlook { votes: ready.votes, goal: ready.need, room, disagree })
}

fn percent(estimate: Option<Interval>) -> String {
    estimate.map_or("–".to_owned(), |e| {
        let [value, low, high] = [e.value, e.low, e.high].map(|x| 100.0 * x);
        format!("{value:.0} % ({low:.0}–{high:.0})")
    })
}

fn number(estimate: Option<Interval>) -> String {
    estimate.map_or("–".to_owned(), |e| {
        let [value, low, high] = [e.value, e.low, e.high].map(two_places);
        format!("{value} ({low} to {high})")
    })
}

fn table(report: &QualityReport, look: OutputStyle) -> String {
    if report.annotators.is_empty() {
        return " nobody has voted yet\n".to_owned();
    }
    let mut table = Table::new(&[]);
    let few = report.annotators.iter().any(|a| a.too_few);
    let mut head = vec![
        "annotator",
        "votes",
        "skips",
        "ties",
        "an hour",
        "seconds",
        "too fast",
        "left",
        "longer",
        "gold",
        "again",
        "agrees",
    ];
    head.extend(few.then_some(""));
    table.row(head);
    for annotator in &report.annotators {
        let mut cells = row(annotator);
        cells.extend(annotator.too_few.then(|| "too few".to_owned()));
        let style = if annotator.too_few { Style::Dim } else { Style::Plain };
        table.row(cells.into_iter().map(|text| Cell::styled(style, text)));
    }
    table.text(look)
}

fn row(a: &AnnotatorReport) -> Vec<String> {
    let or_none =
        |x: Option<f64>, digits: usize| x.map_or("–".to_owned(), |x| format!("{x:.digits$}"));
    vec![
        a.annotator.clone(),
        a.votes.to_string(),
        a.skips.to_string(),
        a.ties.to_string(),
        or_none(a.per_hour, 0),
        or_none(a.seconds, 1),
        a.too_fast.to_string(),
        percent(a.left),
        percent(a.longer),
        percent(a.gold),
        percent(a.consistency),
        percent(a.agreement),
    ]
}

fn summary(report: &QualityReport, look: OutputStyle) -> String {
    let OverallReport { pairs, shared, votes, unused, .. } = &report.overall;
    let mut out = format!("\n {votes} votes on {pairs} pairs, {shared} of them seen by several");
    if *unused > 0 {
        out.push_str(&format!("; {unused} votes on other pairs are kept, unused"));
    }
    out.push('\n');
    out.push_str(&reasons(&report.overall));
    if *shared == 0 {
        return out + " agreement cannot be told: no pair was seen by two annotators\n";
    }
    let overall = &report.overall;
    let mut rows = vec![
        ("agreement", percent(overall.percent)),
        ("Cohen's kappa", kappa(overall.cohen)),
        ("Fleiss' kappa", kappa(overall.fleiss)),
        ("Krippendorff's alpha", format!("{} nominal", number(overall.alpha_nominal))),
        ("", format!("{} ordinal", number(overall.alpha_ordinal))),
    ];
    rows.extend(overall.ceiling.map(|(low, high)| {
        let [low, high] = [low, high].map(|x| 100.0 * x);
        ("best possible model", format!("{low:.0} to {high:.0} % right on single votes"))
    }));
    let mut table = Table::new(&[]);
    // Fewer than twenty items: the figures are there, and not to be trusted.
    let (style, few) = match report.too_few {
        true => (Style::Dim, "too few"),
        false => (Style::Plain, ""),
    };
    for (name, value) in rows {
        table.row([name, &value, few].map(|text| Cell::styled(style, text)));
    }
    out + &table.text(look)
}

/// How often each reason was marked, a line.
fn reasons(of: &OverallReport) -> String {
    let counts: Vec<String> =
        of.reasons.iter().map(|r| format!("{} {}", clean(&r.reason), r.votes)).collect();
    if counts.is_empty() { String::new() } else { format!(" reasons: {}\n", counts.join(", ")) }
}

fn kappa(x: Option<f64>) -> String {
    x.map_or("–".to_owned(), two_places)
}

fn progress(ready: &Readiness, look: OutputStyle) -> String {
    let Readiness { votes, need, alpha, need_alpha, ready } = ready;
    let mut text = format!("{votes} of {need} votes");
    if *need_alpha > -1.0 {
        let alpha = alpha.map_or("unknown".to_owned(), |a| format!("{a:.2}"));
        text.push_str(&format!(", agreement {alpha} of {need_alpha:.2}"));
    }
    let mark =
        if *ready { look.paint(Style::Good, "✓") } else { look.paint(Style::Warning, "◌") };
    format!(" {mark} {text}\n")
}
