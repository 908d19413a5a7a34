//! The page of whoever runs the labelling: how each annotator does, how much they agree, and what
//! to settle. The figures come from elsewhere; this lays them out.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::call::{App, Call, Failed, Reply};
use super::figures::{figures, people};
use super::outlook::Outlook;
use super::page::{html_reply, shell};
use super::quality::{Dispute, QualityReport};
use super::question::Submission;
use super::queue::side;
use super::session::LabelSession;
use crate::agreement::ADJUDICATOR;
use crate::rendering::rendered;
use crate::text::counted;
use crate::votes::{Choice, Side};

/// Disputes that are shown at a time.
const DISPUTES: usize = 30;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settling {
    vote: Submission,
}

/// `GET /admin`
///
/// # Errors
/// The votes cannot be read.
pub fn page(app: &App, call: &Call) -> Result<Reply, Failed> {
    let report = app.session.quality(call.now)?;
    let progress = app.session.progress(ADJUDICATOR, call.now)?;
    let of = app.session.assignment();
    let alpha = report.overall.alpha_ordinal.map(|e| e.value);
    let agreed = of.ready.alpha <= -1.0 || alpha.is_some_and(|a| a >= of.ready.alpha);
    let outlook = Outlook { disagree: !agreed, ..app.session.outlook(call.now)? };
    let people = people(&report).len();
    let body = html! {
        body.admin data-pairs=(app.session.digest()) {
            header {
                p.brand { "preflow" }
                h1 { (of.pipeline) " · " (of.stage) }
                p.lead {
                    (progress.votes) " of " (progress.goal) " votes · " (report.overall.pairs)
                    " of " (of.pairs.len()) " pairs · " (counted(people, "annotator"))
                    @if report.overall.unused > 0 { " · " (report.overall.unused) " votes kept, unused" }
                }
                progress max=(progress.goal.max(1)) value=(progress.votes.min(progress.goal))
                    aria-label="Votes so far" {}
                @if let Some(why) = outlook.why() { p.stands { "Not enough: " (why) "." } }
                p.dim { "This page follows the votes by itself." }
            }
            main {
                (figures(&report, of.people.quality.min_seconds, ""))
                (disputes(&app.session, &report))
            }
            div.status id="status" role="status" aria-live="polite" {}
        }
    };
    let title = format!("{} · figures", of.stage);
    Ok(html_reply(StatusCode::OK, &shell(&title, Some("/admin.js"), &body)))
}

/// `GET /admin.js`
///
/// # Errors
/// None.
pub fn script(_: &App, _: &Call) -> Result<Reply, Failed> {
    let text = include_str!("admin.js");
    let mut reply = Reply::of(StatusCode::OK, "text/javascript; charset=utf-8", text.into());
    reply.headers.push((header::CACHE_CONTROL, "no-cache".into()));
    Ok(reply)
}

/// `POST /api/admin/settle`: a vote of the adjudicator.
///
/// # Errors
/// See [`super::SessionError`]; nothing was kept.
pub fn settle(app: &App, call: &Call) -> Result<Reply, Failed> {
    let sent: Settling = call.read()?;
    let kept = app.session.vote(ADJUDICATOR, &sent.vote, call.now)?;
    Ok(Reply::json(&json!({ "vote": kept })))
}

fn disputes(session: &Arc<LabelSession>, report: &QualityReport) -> Markup {
    // Pairs that are no longer sampled stay as they are.
    let open = report.disputes.iter().filter(|d| session.texts(&d.pair).is_ok());
    let open: Vec<&Dispute> = open.collect();
    html! {
        section aria-labelledby="disputes" {
            h2 id="disputes" { "To settle" }
            p id="more" hidden { a href="admin" { "Show new pairs to settle" } }
            @if open.is_empty() { p.lead { "No votes contradict each other." } } @else {
                p.lead {
                    (counted(open.len(), "pair")) " with votes that contradict each other. "
                    "What is chosen here decides, and is kept as a vote of “" (ADJUDICATOR) "”."
                    @if open.len() > DISPUTES { " The first " (DISPUTES) " are shown." }
                }
                @for dispute in open.iter().take(DISPUTES) { (settle_one(dispute)) }
            }
        }
    }
}

fn settle_one(dispute: &Dispute) -> Markup {
    let left = side(ADJUDICATOR, &dispute.pair);
    let [prompt, a, b] = dispute.text.clone().unwrap_or_default();
    let (one, other) = if left == Side::A { (a, b) } else { (b, a) };
    let voters = |side: Side| {
        let of = dispute.votes.iter().filter(|(_, choice)| choice.preferred() == Some(side));
        let of = of.map(|(name, choice)| {
            let much = matches!(choice, Choice::AMuch | Choice::BMuch);
            format!("{name}{}", if much { " (much)" } else { "" })
        });
        of.collect::<Vec<_>>().join(", ")
    };
    let neither = dispute.votes.iter().filter(|(_, choice)| choice.preferred().is_none());
    let neither: Vec<&str> = neither.map(|(name, _)| name.as_str()).collect();
    let picks = [
        ("left_much", "1 much better"),
        ("left", "1 better"),
        ("tie", "Tie"),
        ("right", "2 better"),
        ("right_much", "2 much better"),
        ("both_bad", "Both bad"),
    ];
    let answer = |n: &str, text: &str, side: Side| {
        html! {
            div.one {
                p.dim {
                    "Answer " (n) ": "
                    @match voters(side) { names if names.is_empty() => { "nobody" } names => { (names) } }
                }
                (rendered(text))
            }
        }
    };
    html! {
        article.dispute data-pair=(dispute.pair) data-left=(if left == Side::A { "a" } else { "b" }) {
            div.prompt-text { (rendered(&prompt)) }
            div.two { (answer("1", &one, left)) (answer("2", &other, left.other())) }
            @if !neither.is_empty() { p.dim { "Neither: " (neither.join(", ")) } }
            div.picks role="group" aria-label="Settle this pair" {
                @for (pick, label) in picks {
                    button type="button" data-pick=(pick) { (label) }
                }
            }
        }
    }
}
