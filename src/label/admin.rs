//! The page of whoever runs the labelling: how each annotator does, how much they agree, and what
//! to settle. The figures come from elsewhere; this lays them out.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::call::{App, Call, Failed, Reply};
use super::error::SessionError;
use super::figures::{figures, people};
use super::outlook::Outlook;
use super::page::{html_reply, shell};
use super::quality::{Dispute, QualityReport};
use super::question::Submission;
use super::queue::side;
use super::session::LabelSession;
use crate::agreement::ADJUDICATOR;
use crate::http::Role;
use crate::rendering::rendered;
use crate::text::counted;
use crate::votes::{Choice, Side, is_annotator};

/// Disputes that are shown at a time.
const DISPUTES: usize = 30;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFor {
    name: String,
}

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
                p.dim {
                    "This page follows the votes by itself. "
                    a href="admin/votes" { "All votes" } " · "
                    a href="admin/notes" { "Votes with a note" }
                }
            }
            main {
                (figures(&report, of.people.quality.min_seconds, ""))
                (disputes(&app.session, &report))
                (links(app, call)?)
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

/// `POST /api/admin/link`: a link for an annotator, put on record.
///
/// # Errors
/// It is no name, or the record cannot be written.
pub fn link(app: &App, call: &Call) -> Result<Reply, Failed> {
    let asked: LinkFor = call.read()?;
    if !is_annotator(&asked.name) {
        return Err(SessionError::BadName(asked.name).into());
    }
    let late = |_| Failed::Bad("--expires is too long".to_owned());
    let until = call.now.checked_add(app.expires).map_err(late)?;
    let token = app.guard.signer.give(Role::Annotator, &asked.name, until);
    let token = token.map_err(|e| Failed::Bad(format!("the link is not on record: {e}")))?;
    Ok(Reply::json(&json!({ "url": format!("{}/in/{token}", app.base) })))
}

/// Links that were given out, and a way to make one.
fn links(app: &App, call: &Call) -> Result<Markup, Failed> {
    let record = app.guard.signer.given().read();
    let record = record.map_err(|e| Failed::Bad(format!("links cannot be read: {e}")))?;
    let now = call.now.as_second();
    let given = record.links.values().filter(|link| !link.admin && link.until > now);
    let mut given: Vec<_> = given.collect();
    given.sort_by(|a, b| a.name.cmp(&b.name).then(b.until.cmp(&a.until)));
    Ok(html! {
        section aria-labelledby="links" {
            h2 id="links" { "Links" }
            p.lead {
                "Whoever has a link votes in its name. " code { "preflow label revoke" }
                " takes one back."
            }
            form.make-link id="make-link" {
                label for="link-name" { "A link for" }
                input id="link-name" required maxlength="64" autocomplete="off" spellcheck="false"
                    placeholder="name";
                button type="submit" { "Make it" }
            }
            p.made-link id="made-link" hidden {
                input id="link" readonly aria-label="The new link";
                button type="button" id="copy-link" { "Copy" }
            }
            @if !given.is_empty() {
                ul.given {
                    @for link in given {
                        li {
                            (link.name) span.dim {
                                " until " (day(link.until)) @if link.revoked { ", taken back" }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn day(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).map(|at| at.to_string());
    at.unwrap_or_default().chars().take(10).collect()
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
