//! Pages of the votes one by one, for whoever runs the labelling: who chose what when, with notes
//! and reasons. Nothing can be changed there.

use axum::http::StatusCode;
use maud::{Markup, html};

use super::call::{App, Call, Failed, Reply};
use super::error::SessionError;
use super::page::{html_reply, shell};
use crate::text::Shown;
use crate::votes::{Choice, Folder, LONGEST_REASON, PairText, Side, Vote};

/// Votes that are shown: the newest.
const MOST: usize = 200;
/// Characters of a text that are shown.
const LONGEST: usize = 160;

/// One vote that stands.
struct Ballot<'a> {
    annotator: &'a str,
    vote: &'a Vote,
    text: Option<&'a PairText>,
}

/// `GET /admin/votes`
///
/// # Errors
/// The votes cannot be read.
pub fn all(app: &App, _: &Call) -> Result<Reply, Failed> {
    page(app, "Votes", "../admin", &|_| true)
}

/// `GET /admin/notes`: votes with a note.
///
/// # Errors
/// The votes cannot be read.
pub fn noted(app: &App, _: &Call) -> Result<Reply, Failed> {
    page(app, "Votes with a note", "../admin", &|ballot| !ballot.vote.note.trim().is_empty())
}

/// `GET /admin/votes/{name}`: those of one annotator.
///
/// # Errors
/// The votes cannot be read.
pub fn of_one(app: &App, call: &Call) -> Result<Reply, Failed> {
    let name = call.params["name"].as_str();
    page(app, &format!("Votes of {name}"), "../../admin", &|ballot| ballot.annotator == name)
}

fn page(
    app: &App,
    title: &str,
    back: &str,
    wanted: &dyn Fn(&Ballot) -> bool,
) -> Result<Reply, Failed> {
    let of = app.session.assignment();
    let folder = Folder::read(&of.votes).map_err(SessionError::from)?;
    let mut ballots: Vec<Ballot> = Vec::new();
    for annotator in folder.votes.keys() {
        let votes = folder.latest(annotator).into_values();
        let standing = votes.filter(|vote| vote.choice != Choice::Retracted);
        let ballots_of =
            standing.map(|vote| Ballot { annotator, vote, text: folder.texts.get(&vote.pair) });
        ballots.extend(ballots_of.filter(|ballot| wanted(ballot)));
    }
    ballots.sort_by(|a, b| b.vote.at.cmp(&a.vote.at));
    let (count, more) = (ballots.len(), ballots.len() > MOST);
    let body = html! {
        body.admin {
            header {
                p.brand { "preflow" }
                h1 { (title) }
                p.lead {
                    (of.pipeline) " · " (of.stage) " · " (count)
                    @if more { ", the newest " (MOST) " shown; " code { "preflow label export --votes" } " writes all" }
                }
                p {
                    a href=(back) { "Back to the figures" }
                    @for annotator in folder.votes.keys() {
                        " · " a href=(format!("{back}/votes/{annotator}")) { (annotator) }
                    }
                }
            }
            main {
                @if ballots.is_empty() { p.lead { "There are none." } } @else {
                    div.wide tabindex="0" role="group" aria-label="Table of votes" {
                        table.votes {
                            thead { tr {
                                @for head in ["When", "Annotator", "Prompt", "Choice", "Note"] {
                                    th scope="col" { (head) }
                                }
                            } }
                            tbody { @for ballot in ballots.iter().take(MOST) { (row(ballot)) } }
                        }
                    }
                }
            }
        }
    };
    let title = format!("{title} · {}", of.stage);
    Ok(html_reply(StatusCode::OK, &shell(&title, None, &body)))
}

fn row(ballot: &Ballot) -> Markup {
    let vote = ballot.vote;
    let at = vote.at.get(..16).unwrap_or(&vote.at).replace('T', " ");
    let prompt = ballot.text.map_or("", |text| text.prompt.as_str());
    let picked = ballot.text.zip(vote.choice.preferred()).map(|(text, side)| match side {
        Side::A => text.a.as_str(),
        Side::B => text.b.as_str(),
    });
    let reasons: Vec<String> =
        vote.reasons.iter().map(|reason| Shown::of(reason, LONGEST_REASON).text).collect();
    html! {
        tr {
            td { (at) }
            th scope="row" { (ballot.annotator) }
            td { (short(prompt)) }
            td {
                (words(vote.choice)) @if vote.repeat { " (asked again)" }
                @if let Some(text) = picked { span.dim { (short(text)) } }
            }
            td { (short(&vote.note)) @if !reasons.is_empty() { span.dim { (reasons.join(", ")) } } }
        }
    }
}

/// What a choice says of the answer that is shown beside it.
fn words(choice: Choice) -> &'static str {
    match choice {
        Choice::A | Choice::B => "better:",
        Choice::AMuch | Choice::BMuch => "much better:",
        Choice::Tie => "a tie",
        Choice::BothBad => "both bad",
        Choice::Skip => "skipped",
        Choice::Retracted => "taken back",
    }
}

fn short(text: &str) -> String {
    let shown = Shown::of(text, LONGEST);
    if shown.cut { format!("{} …", shown.text) } else { shown.text }
}
