//! The pages around what the scripts do: labelling, coming in, being turned away.
//! Shows nothing that a model wrote; the scripts do, as text.

use axum::http::{StatusCode, header};
use maud::{Markup, html};

use super::call::{App, Call, Failed, Reply};
use crate::http::{self, PageKind, Refused, Role};
use crate::identity::Digest;
use crate::rendering::rendered;
use crate::text::Shown;

const HTML: &str = "text/html; charset=utf-8";

/// Where the style of all these pages lies.
const STYLE: &str = "/page.css";

/// A page of labelling.
pub fn shell(title: &str, script: Option<&str>, body: &Markup) -> Markup {
    http::document(title, PageKind::Served { style: STYLE, script }, body)
}

/// `GET /in/TOKEN`: a link becomes a cookie.
///
/// # Errors
/// The link is not valid.
pub fn enter(app: &App, call: &Call) -> Result<Reply, Failed> {
    let Some(entered) = app.guard.enter(&call.params["token"], true, call.now) else {
        let why = "this link is not valid here, or has expired: ask for a new one";
        return Err(Failed::Refused(Refused(StatusCode::UNAUTHORIZED, why)));
    };
    let place = if entered.visitor.role == Role::Admin { "/admin" } else { "/" };
    let place = format!("{}{place}", entered.path);
    let mut reply = html_reply(StatusCode::OK, &http::go_on(&place, STYLE));
    reply.headers.push((header::SET_COOKIE, entered.cookie));
    reply.headers.push((header::REFRESH, format!("0; url={place}")));
    Ok(reply)
}

/// A page that says why there is none.
pub fn sorry(status: StatusCode, why: &str) -> Reply {
    let title = match status {
        StatusCode::UNAUTHORIZED => "Link not valid",
        StatusCode::NOT_FOUND => "Page not found",
        _ => "Not possible",
    };
    let body = html! {
        body.plain { main { h1 { (title) } p { (why) "." } } }
    };
    html_reply(status, &shell("preflow", None, &body))
}

pub(super) fn html_reply(status: StatusCode, page: &Markup) -> Reply {
    Reply::of(status, HTML, page.0.clone().into_bytes())
}

/// `GET /page.js`
///
/// # Errors
/// None.
pub fn script(_: &App, _: &Call) -> Result<Reply, Failed> {
    let text = include_str!("page.js");
    Ok(Reply::of(StatusCode::OK, "text/javascript; charset=utf-8", text.into()))
}

/// `GET /page.css`
///
/// # Errors
/// None.
pub fn style(_: &App, _: &Call) -> Result<Reply, Failed> {
    let text = [include_str!("page.css"), crate::rendering::STYLE].concat();
    Ok(Reply::of(StatusCode::OK, "text/css; charset=utf-8", text.into_bytes()))
}

/// `GET /`: the page where people choose.
///
/// # Errors
/// None.
pub fn label(app: &App, call: &Call) -> Result<Reply, Failed> {
    let assignment = app.session.assignment();
    let question = Shown::of(&assignment.people.question, 300).text;
    let scope = app.guard.signer.cookie(Role::Annotator);
    let body = html! {
        body.label data-pairs=(app.session.digest()) data-annotator=(call.name())
            data-scope=(scope) {
            header {
                div.asked {
                    h1 { (question) }
                    p.who { (assignment.pipeline) " · " (assignment.stage) " · " (call.name()) }
                }
                div.far {
                    p id="far" { "\u{a0}" }
                    progress id="bar" max="1" value="0" aria-label="Votes so far" {}
                }
                button.quiet id="theme" type="button" aria-label="Switch between light and dark" {
                    span aria-hidden="true" { "◐" }
                }
            }
            main id="work" tabindex="-1" {
                div.prompt-box {
                    section.prompt aria-label="Prompt" tabindex="0" {
                        div.said id="prompt" {}
                    }
                    button.more id="more" type="button" hidden aria-keyshortcuts="p" {
                        "More" span.unseen { " of the prompt" } kbd aria-hidden="true" { "p" }
                    }
                }
                (answer("1", "one"))
                (answer("2", "other"))
                section.done id="done" hidden aria-live="polite" {
                    h2 id="done-title" {}
                    p id="done-text" {}
                    div.row {
                        button type="button" id="done-again" hidden {}
                        button type="button" id="done-undo" { "Take back the last vote" }
                    }
                }
            }
            div.toast id="banner" role="alert" hidden {}
            div.status id="status" role="status" aria-live="polite" {}
            (controls(&assignment.people.reasons, assignment.guidelines.is_some()))
            (dialogs())
            @if let Some(text) = &assignment.guidelines { (guidelines(text)) }
            noscript { p.toast { "This page needs JavaScript." } }
        }
    };
    let title = format!("{} · preflow", assignment.stage);
    Ok(html_reply(StatusCode::OK, &shell(&title, Some("/page.js"), &body)))
}

fn answer(name: &str, id: &str) -> Markup {
    html! {
        section.answer id=(format!("{id}-box")) aria-labelledby=(format!("{id}-name")) {
            h2 id=(format!("{id}-name")) { span.number { (name) } span.unseen { "Answer " (name) } }
            div.text tabindex="0" role="group" aria-label=(format!("Text of answer {name}")) {
                div.said id=(id) {}
            }
        }
    }
}

/// How to choose, in the words of whoever runs the labelling.
fn guidelines(text: &str) -> Markup {
    let digest = Digest::of(text.as_bytes()).hex();
    html! {
        dialog.wide-box id="guidelines-box" aria-labelledby="guidelines-title" data-digest=(digest) {
            h2 id="guidelines-title" { "Guidelines" }
            div.guidelines { (rendered(text)) }
            form method="dialog" { button.choice { "Close" } }
        }
    }
}

/// Buttons of choices, reasons to mark beside them, and what else there is to do.
fn controls(reasons: &[String], guidelines: bool) -> Markup {
    let choice = |pick: &str, key: &str, label: &str| {
        html! {
            button.choice type="button" data-pick=(pick) disabled aria-keyshortcuts=(key) {
                span { (label) } kbd aria-hidden="true" { (key) }
            }
        }
    };
    let tool = |id: &str, key: &str, label: &str| {
        html! {
            button.tool type="button" id=(id) aria-keyshortcuts=(key) {
                span { (label) } kbd aria-hidden="true" { (key) }
            }
        }
    };
    html! {
        footer {
            div.choices role="group" aria-label="Which answer is better" {
                (choice("left_much", "⇧1", "1 much better"))
                (choice("left", "1", "1 better"))
                (choice("tie", "=", "Tie"))
                (choice("right", "2", "2 better"))
                (choice("right_much", "⇧2", "2 much better"))
            }
            @if !reasons.is_empty() {
                div.reasons role="group" aria-label="Reasons, before the choice" {
                    @for (key, reason) in (3..).zip(reasons) {
                        button type="button" data-reason=(reason) aria-pressed="false" disabled
                            aria-keyshortcuts=(key) {
                            span { (Shown::of(reason, 40).text) } kbd aria-hidden="true" { (key) }
                        }
                    }
                }
            }
            div.tools role="group" aria-label="More" {
                button.tool type="button" data-pick="both_bad" disabled aria-keyshortcuts="x" {
                    span { "Both bad" } kbd aria-hidden="true" { "x" }
                }
                button.tool type="button" data-pick="skip" disabled aria-keyshortcuts="s" {
                    span { "Skip" } kbd aria-hidden="true" { "s" }
                }
                (tool("undo", "u", "Undo"))
                (tool("diff", "d", "Differences"))
                (tool("raw", "r", "Raw"))
                (tool("note", "/", "Note"))
                @if guidelines { (tool("guidelines", "g", "Guidelines")) }
                (tool("keys", "?", "Keys"))
            }
        }
    }
}

fn dialogs() -> Markup {
    let keys = [
        ("← or 1", "answer 1 is better"),
        ("→ or 2", "answer 2 is better"),
        ("⇧ with these", "much better"),
        ("=", "a tie: equally good"),
        ("x", "both are bad"),
        ("s", "skip: somebody else decides"),
        ("3 to 9", "mark a reason, where some are offered; then choose"),
        ("u", "take the last vote back, as often as you like"),
        ("d", "mark the words that differ"),
        ("r", "the text as it is stored, or as Markdown again"),
        ("/", "write a note on this pair"),
        ("g", "the guidelines, where there are some"),
        ("p", "go on in the prompt"),
        ("↑ ↓", "scroll both answers"),
        ("Esc", "close what is open"),
    ];
    html! {
        dialog id="keys-box" aria-labelledby="keys-title" {
            h2 id="keys-title" { "Keys" }
            dl { @for (key, does) in keys { div { dt { kbd { (key) } } dd { (does) } } } }
            p { "Every choice is saved at once. Which answer stands first is drawn by lot." }
            form method="dialog" { button.choice { "Close" } }
        }
        dialog id="note-box" aria-labelledby="note-title" {
            form method="dialog" {
                h2 id="note-title" { label for="note-text" { "Note on this pair" } }
                textarea id="note-text" rows="5" maxlength="2000" {}
                p { "Enter keeps it, shift and Enter starts a line. It is saved with your choice." }
                div.row {
                    button.choice { "Keep the note" }
                    button.choice type="button" id="note-drop" { "Remove it" }
                }
            }
        }
    }
}
