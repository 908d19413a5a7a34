//! What the page asks and tells: questions, votes, votes taken back. JSON in, JSON out.
//! Knows nothing of pages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{App, Call, Failed, Reply};
use super::error::SessionError;
use super::question::{Item, Submission};
use crate::http::Refused;
use crate::rendering::{RenderedText, TextForm, mark_changes};
use axum::http::StatusCode;

/// Most questions that one page holds.
const MOST: usize = 8;
/// Characters of a prompt or an answer that are shown before someone asks for all of it.
const LONGEST: usize = 20_000;
/// Votes that a list of the own ones shows.
const PAST: usize = 100;

/// What a page knows already.
#[derive(Debug, Deserialize)]
struct Knows {
    /// Whom the page was made for: a browser may have been handed on since.
    #[serde(rename = "as")]
    name: String,
    #[serde(default)]
    count: usize,
    /// Questions whose texts it has.
    #[serde(default)]
    known: Vec<(String, bool)>,
}

#[derive(Debug, Deserialize)]
struct Next {
    #[serde(flatten)]
    knows: Knows,
    pairs: String,
}

#[derive(Debug, Deserialize)]
struct Voting {
    #[serde(flatten)]
    knows: Knows,
    vote: Submission,
}

#[derive(Debug, Deserialize)]
struct Undo {
    #[serde(flatten)]
    knows: Knows,
    id: String,
    pairs: String,
    #[serde(default)]
    pair: Option<String>,
    #[serde(default)]
    repeat: bool,
}

impl Knows {
    fn check(&self, call: &Call) -> Result<(), Failed> {
        if self.name == call.name() {
            return Ok(());
        }
        let why = "this browser was since given to another annotator: open your own link again";
        Err(Failed::Refused(Refused(StatusCode::CONFLICT, why)))
    }
}

/// A question with its texts as parts of the page.
fn page(item: &Item) -> Value {
    let mut said =
        [&item.prompt, &item.one, &item.other].map(|text| RenderedText::of(text, LONGEST));
    let [_, one, other] = &mut said;
    mark_changes(one, other);
    let [prompt, one, other] = said.map(|saying| part(&saying));
    json!({
        "pair": item.pair, "repeat": item.repeat, "left": item.left,
        "prompt": prompt, "one": one, "other": other,
    })
}

/// A prompt or an answer, in both ways of reading it.
fn part(saying: &RenderedText) -> Value {
    json!({
        "markdown": saying.page(TextForm::Markdown).0,
        "raw": saying.page(TextForm::Raw).0,
        "cut": saying.cut,
    })
}

/// Questions, and the texts of those that the page does not have.
fn hand(app: &App, call: &Call, knows: &Knows) -> Result<Value, SessionError> {
    let count = knows.count.clamp(1, MOST);
    let order = app.session.next(call.name(), count, call.now)?;
    let new = order.iter().filter(|question| !knows.known.contains(question));
    let item = |(pair, repeat): &(String, bool)| {
        app.session.item(call.name(), pair, *repeat).map(|item| page(&item))
    };
    let items: Result<Vec<_>, _> = new.map(item).collect();
    let progress = app.session.progress(call.name(), call.now)?;
    let mut hand = json!({ "order": order, "items": items?, "progress": progress });
    if order.is_empty() {
        // Looks at every pair, so only where somebody would ask why.
        hand["why"] = json!(app.session.outlook(call.now)?.why());
        hand["skipped"] = json!(app.session.skipped(call.name(), call.now)?);
    }
    Ok(hand)
}

/// `POST /api/next`
///
/// # Errors
/// See [`SessionError`].
pub fn next(app: &App, call: &Call) -> Result<Reply, Failed> {
    let asked: Next = call.read()?;
    asked.knows.check(call)?;
    if asked.pairs != app.session.digest() {
        return Err(SessionError::OtherPairs.into());
    }
    Ok(Reply::json(&hand(app, call, &asked.knows)?))
}

/// `POST /api/again`: what was skipped is asked once more.
///
/// # Errors
/// See [`SessionError`].
pub fn again(app: &App, call: &Call) -> Result<Reply, Failed> {
    let asked: Next = call.read()?;
    asked.knows.check(call)?;
    if asked.pairs != app.session.digest() {
        return Err(SessionError::OtherPairs.into());
    }
    app.session.ask_again(call.name(), call.now)?;
    Ok(Reply::json(&hand(app, call, &asked.knows)?))
}

/// `POST /api/vote`
///
/// # Errors
/// See [`SessionError`]; nothing was kept.
pub fn vote(app: &App, call: &Call) -> Result<Reply, Failed> {
    let sent: Voting = call.read()?;
    sent.knows.check(call)?;
    let kept = app.session.vote(call.name(), &sent.vote, call.now)?;
    // The vote is kept, whatever becomes of the next question.
    let hand = hand(app, call, &sent.knows).unwrap_or(Value::Null);
    Ok(Reply::json(&json!({ "vote": kept, "hand": hand })))
}

/// `POST /api/undo`
///
/// # Errors
/// See [`SessionError`]; nothing was changed.
pub fn undo(app: &App, call: &Call) -> Result<Reply, Failed> {
    let sent: Undo = call.read()?;
    sent.knows.check(call)?;
    if sent.pairs != app.session.digest() {
        return Err(SessionError::OtherPairs.into());
    }
    let named = sent.pair.as_deref().map(|pair| (pair, sent.repeat));
    let past = app.session.undo(call.name(), &sent.id, named, call.now)?;
    let item = app.session.item(call.name(), &past.pair, past.repeat)?;
    let hand = hand(app, call, &sent.knows).unwrap_or(Value::Null);
    Ok(Reply::json(&json!({ "past": past, "item": page(&item), "hand": hand })))
}

/// `GET /api/history`
///
/// # Errors
/// See [`SessionError`].
pub fn history(app: &App, call: &Call) -> Result<Reply, Failed> {
    Ok(Reply::json(&json!({ "votes": app.session.history(call.name(), PAST, call.now)? })))
}

/// `GET /api/progress`
///
/// # Errors
/// See [`SessionError`].
pub fn progress(app: &App, call: &Call) -> Result<Reply, Failed> {
    let progress = app.session.progress(call.name(), call.now)?;
    Ok(Reply::json(&json!({ "pairs": app.session.digest(), "progress": progress })))
}

/// `GET /api/text/PAIR/PART`: all of a text that was cut.
///
/// # Errors
/// The pair is not at hand.
pub fn text(app: &App, call: &Call) -> Result<Reply, Failed> {
    let texts = app.session.texts(&call.params["pair"])?;
    let text = match call.params["part"].as_str() {
        "prompt" => &texts.prompt,
        "a" => &texts.a,
        "b" => &texts.b,
        _ => return Err(SessionError::UnknownPair.into()),
    };
    Ok(Reply::json(&part(&RenderedText::of(text, usize::MAX))))
}
