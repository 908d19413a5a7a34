//! Exports of labelling tools: Argilla, Label Studio. Several annotators a record.
//! Knows nothing of files; says in one line what is wrong with a record.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::forms::{
    Heard, PROMPT, PreferenceRow, Preferences, RowValue, answer_names, choice, field,
};
use super::messages::form_of;
use super::opinions::{Names, Opinion};
use crate::votes::Choice;

type Fields = Map<String, Value>;

/// Prompt, both answers and the names of their fields.
struct Compared {
    prompt: String,
    answers: [String; 2],
    names: [String; 2],
}

fn compared(fields: &Fields, names: &Names) -> Result<Compared, String> {
    let mut of = answer_names(fields, names);
    if names.a.is_none() && fields.contains_key("chosen") && fields.contains_key("rejected") {
        of = ["chosen".to_owned(), "rejected".to_owned()];
    }
    let answer = |name: &String| field(fields, Some(name), &[], "answer")?.answer();
    Ok(Compared {
        prompt: field(fields, names.prompt.as_ref(), PROMPT, "prompt")?.text()?,
        answers: [answer(&of[0])?, answer(&of[1])?],
        names: of,
    })
}

/// A record of Argilla: `fields` with the prompt and two answers, and what each user responded: a
/// label that names one of them, a ranking of them, or a rating of each.
pub fn argilla(record: &Fields, names: &Names) -> Preferences {
    let fields = record.get("fields").and_then(Value::as_object).ok_or("no `fields`")?;
    let compared = compared(fields, names)?;
    let mut opinions = Vec::new();
    for (user, said) in by_user(record.get("responses").unwrap_or(&Value::Null))? {
        let heard = responded(&said, &compared.names, names)?;
        if !heard.is_none() {
            let opinion = Opinion {
                prompt: compared.prompt.clone(),
                answers: compared.answers.clone(),
                choice: Choice::Tie,
                sides_known: true,
                annotator: Some(user),
                at: None,
                ms: 0,
                reasons: Vec::new(),
            };
            opinions.push(PreferenceRow { opinion, heard, strong: false });
        }
    }
    Ok(opinions)
}

/// User → question → value. Two versions of Argilla nest them the one or the other way round.
fn by_user(responses: &Value) -> Result<BTreeMap<String, BTreeMap<String, Value>>, String> {
    let mut users: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let user = |response: &Value| match response.get("user_id") {
        Some(Value::String(name)) => Ok(name.clone()),
        Some(Value::Number(number)) => Ok(format!("user-{number}")),
        _ => Err("a response without `user_id`".to_owned()),
    };
    let submitted = |response: &Value| {
        response.get("status").and_then(Value::as_str).is_none_or(|s| s == "submitted")
    };
    match responses {
        Value::Null => {}
        // A list of users, each with all answers.
        Value::Array(list) => {
            for response in list.iter().filter(|r| submitted(r)) {
                let values = response.get("values").and_then(Value::as_object);
                for (question, value) in values.ok_or("a response without `values`")? {
                    let value = value.get("value").unwrap_or(value).clone();
                    users.entry(user(response)?).or_default().insert(question.clone(), value);
                }
            }
        }
        // Questions, each with a list of users.
        Value::Object(questions) => {
            for (question, list) in questions {
                let list = list.as_array().ok_or("`responses` holds no lists")?;
                for response in list.iter().filter(|r| submitted(r)) {
                    let value = response.get("value").cloned().unwrap_or(Value::Null);
                    users.entry(user(response)?).or_default().insert(question.clone(), value);
                }
            }
        }
        _ => return Err("`responses` is neither a list nor a map".to_owned()),
    }
    Ok(users)
}

/// What one user says of the two answers.
fn responded(
    said: &BTreeMap<String, Value>,
    [a, b]: &[String; 2],
    names: &Names,
) -> Result<Heard, String> {
    let asked = |name: &String| names.choice.as_ref().is_none_or(|q| q == name);
    let asked = || said.iter().filter(|(name, value)| asked(name) && !value.is_null());
    for (_, value) in asked() {
        if let Some(found) = ranked(value, a, b) {
            return Ok(Heard::Said(found));
        }
        if let Some(found) = value.as_str().and_then(|word| choice(word, a, b, names)) {
            return Ok(found);
        }
    }
    // A rating of each: its question is named after the answer.
    let rating = |of: &str| {
        let mut own = said.iter().filter(|(name, _)| name.contains(of));
        own.find_map(|(_, value)| value.as_f64())
    };
    if let (Some(first), Some(second)) = (rating(a), rating(b)) {
        return Ok(Heard::Said(by_size(first, second)));
    }
    match asked().next() {
        Some((name, value @ Value::String(_))) => RowValue { name, value }.choice([a, b], names),
        Some((name, value)) => {
            let form = form_of(value);
            Err(format!("`{name}` is {form}: it neither names, ranks nor rates the two answers"))
        }
        None => Ok(Heard::Said(Choice::Skip)),
    }
}

fn by_size(first: f64, second: f64) -> Choice {
    if first > second {
        Choice::A
    } else if first < second {
        Choice::B
    } else {
        Choice::Tie
    }
}

/// A list in order of preference, of names or of `{value, rank}`.
fn ranked(value: &Value, a: &str, b: &str) -> Option<Choice> {
    let list = value.as_array()?;
    let place = |name: &str| {
        list.iter().enumerate().find_map(|(i, item)| {
            let (said, rank) = match item {
                Value::String(said) => (said.as_str(), i as f64),
                other => (other.get("value")?.as_str()?, other.get("rank")?.as_f64()?),
            };
            (said == name).then_some(rank)
        })
    };
    // The first place is the best.
    Some(by_size(place(b)?, place(a)?))
}

/// A task of Label Studio with a pairwise comparison, or with choices named after the sides.
pub fn label_studio(task: &Fields, names: &Names) -> Preferences {
    let data = task.get("data").and_then(Value::as_object).ok_or("no `data`")?;
    let compared = compared(data, names)?;
    let annotations = match task.get("annotations") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().ok_or("`annotations` is no list")?,
    };
    let mut opinions = Vec::new();
    for annotation in annotations {
        let results = annotation.get("result").and_then(Value::as_array);
        let cancelled = annotation.get("was_cancelled").and_then(Value::as_bool) == Some(true);
        if cancelled || results.is_none_or(Vec::is_empty) {
            continue;
        }
        let Some(value) = selected(annotation) else {
            return Err("an annotation that selects neither side".to_owned());
        };
        let [a, b] = &compared.names;
        let heard = RowValue { name: "result", value }.choice([a, b], names)?;
        if heard.is_none() {
            continue;
        }
        let at = annotation.get("created_at").and_then(Value::as_str);
        let seconds = annotation.get("lead_time").and_then(Value::as_f64).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let ms = (seconds.max(0.0) * 1000.0).round() as u64;
        let opinion = Opinion {
            prompt: compared.prompt.clone(),
            answers: compared.answers.clone(),
            choice: Choice::Tie,
            sides_known: true,
            annotator: completed_by(annotation),
            at: at.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(|at| at.to_string()),
            ms,
            reasons: Vec::new(),
        };
        opinions.push(PreferenceRow { opinion, heard, strong: false });
    }
    Ok(opinions)
}

/// The side in the first result that has one.
fn selected(annotation: &Value) -> Option<&Value> {
    let results = annotation.get("result")?.as_array()?;
    results.iter().find_map(|result| {
        let value = result.get("value")?;
        value.get("selected").or_else(|| value.get("choices")?.as_array()?.first())
    })
}

/// A number, or a user with an address; what follows `@` is left out.
fn completed_by(annotation: &Value) -> Option<String> {
    let by = annotation.get("completed_by")?;
    if let Some(email) = by.get("email").and_then(Value::as_str) {
        return Some(email.split('@').next().unwrap_or(email).to_owned());
    }
    let id = by.get("id").unwrap_or(by);
    id.as_u64().map(|id| format!("user-{id}")).or_else(|| id.as_str().map(ToOwned::to_owned))
}
