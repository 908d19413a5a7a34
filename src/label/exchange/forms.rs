//! Forms of data sets: columns, pairs of transcripts, battles.
//! Knows nothing of files; says in one line what is wrong with a row.

use serde_json::{Map, Value};

use super::messages::{form_of, turns, written};
use super::opinions::{Form, Names, Opinion};
use super::rows::FileRow;
use crate::conversation::{Content, Message, preference};
use crate::votes::{Choice, LONGEST_REASON, is_reason};

type Fields = Map<String, Value>;
pub type Preferences = Result<Vec<PreferenceRow>, String>;

/// What a row says; its choice is not in the opinion yet.
#[derive(Debug, Clone)]
pub struct PreferenceRow {
    pub opinion: Opinion,
    pub heard: Heard,
    /// Better means much better.
    pub strong: bool,
}

/// Usual names, the first that is there counts.
pub const PROMPT: &[&str] = &["prompt", "instruction", "question", "input"];
pub const ANSWERS: &[[&str; 2]] = &[
    ["response_a", "response_b"],
    ["answer_a", "answer_b"],
    ["a", "b"],
    ["response1", "response2"],
    ["response_1", "response_2"],
    ["response-1", "response-2"],
    ["answer1", "answer2"],
    ["left", "right"],
    ["text1", "text2"],
];
const CHOICE: &[&str] = &["choice", "winner", "preference", "preferred", "label"];

/// The form of a file, by its rows: a tool leaves out what a record does not have.
pub fn guess(rows: &[FileRow]) -> Form {
    let Some((_, first)) = rows.first() else { return Form::Columns };
    let has = |name: &str| rows.iter().any(|(_, row)| row.contains_key(name));
    let transcript = |name: &str| {
        first.get(name).and_then(Value::as_str).is_some_and(|t| t.contains("\n\nAssistant:"))
    };
    if has("winner") && has("conversation_a") && has("conversation_b") {
        Form::Arena
    } else if has("annotations") && has("data") {
        Form::LabelStudio
    } else if has("responses") && has("fields") {
        Form::Argilla
    } else if !has("prompt") && transcript("chosen") && transcript("rejected") {
        Form::HelpfulHarmless
    } else {
        Form::Columns
    }
}

/// A value and the name of its field.
#[derive(Clone, Copy)]
pub struct RowValue<'a> {
    pub name: &'a str,
    pub value: &'a Value,
}

/// The value of the named field, or else of the first usual name that is there.
pub fn field<'a>(
    fields: &'a Fields,
    named: Option<&'a String>,
    usual: &[&'a str],
    what: &str,
) -> Result<RowValue<'a>, String> {
    let names = named.map_or_else(|| usual.to_vec(), |name| vec![name.as_str()]);
    let found = names.iter().find_map(|name| Some(RowValue { name, value: fields.get(*name)? }));
    found.filter(|cell| !cell.value.is_null()).ok_or_else(|| {
        let have: Vec<&str> = fields.keys().map(String::as_str).collect();
        format!("no {what} (`{}`); it has {}", names.join(" or "), have.join(", "))
    })
}

impl RowValue<'_> {
    /// A text, also where it is a list of turns.
    pub fn text(self) -> Result<String, String> {
        match self.answer()? {
            text if text.is_empty() => Err(format!("`{}` is empty", self.name)),
            text => Ok(text),
        }
    }

    /// A text that may be empty: a model may have said nothing.
    pub fn answer(self) -> Result<String, String> {
        if let Some(turns) = self.turns()? {
            return Ok(Content::Messages(turns).written().into_owned());
        }
        let form = || format!("`{}` is {}, not text", self.name, form_of(self.value));
        self.value.as_str().map(str::to_owned).ok_or_else(form)
    }

    /// A text that may be empty, or messages.
    pub fn content(self) -> Result<Content, String> {
        match self.turns()? {
            Some(messages) => Ok(Content::Messages(messages)),
            None => self.answer().map(Content::Text),
        }
    }

    pub fn turns(self) -> Result<Option<Vec<Message>>, String> {
        turns(self.value).map_err(|why| format!("`{}`: {why}", self.name))
    }

    /// What a word, or a number that stands for one, says of two answers.
    pub fn choice(self, [a, b]: [&str; 2], names: &Names) -> Result<Heard, String> {
        let word = match self.value {
            Value::String(word) => word.trim().to_owned(),
            Value::Number(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            other => return Err(format!("`{}` is {}, no choice", self.name, form_of(other))),
        };
        let unknown = || match names.choices.is_empty() {
            true => format!("`{}`: {}", self.name, unknown_choice(&word)),
            false => format!("`{}`: `{word}` is none of the choices that were named", self.name),
        };
        choice(&word, a, b, names).ok_or_else(unknown)
    }
}

/// What somebody chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Said(Choice),
    /// What it means, only the whole file can tell.
    Number(i64),
}

impl Heard {
    /// It is known, and no opinion.
    pub fn is_none(self) -> bool {
        matches!(self, Self::Said(choice) if !choice.counts())
    }
}

/// A number as programs write it, `1` and `1.0` alike.
fn number(word: &str) -> Option<i64> {
    let whole = word.split_once('.').map_or(Some(word), |(whole, rest)| {
        (!rest.is_empty() && rest.bytes().all(|b| b == b'0')).then_some(whole)
    });
    whole?.parse().ok()
}

/// What a word of people says; `a` and `b` are the names of the two columns.
pub fn choice(word: &str, a: &str, b: &str, names: &Names) -> Option<Heard> {
    let word = word.trim();
    if !names.choices.is_empty() {
        let same =
            |named: &str| named == word || number(named).is_some_and(|n| number(word) == Some(n));
        return names.choices.iter().find(|(named, _)| same(named)).map(|(_, c)| Heard::Said(*c));
    }
    if word == a || word == b {
        return Some(Heard::Said(if word == a { Choice::A } else { Choice::B }));
    }
    if let Some(number) = number(word) {
        return Some(Heard::Number(number));
    }
    Some(Heard::Said(match word.to_lowercase().replace([' ', '-'], "_").as_str() {
        "a" | "left" | "first" | "model_a" | "response_a" | "answer_a" => Choice::A,
        "b" | "right" | "second" | "model_b" | "response_b" | "answer_b" => Choice::B,
        "a_much" | "a_much_better" => Choice::AMuch,
        "b_much" | "b_much_better" => Choice::BMuch,
        "tie" | "equal" | "same" | "draw" | "both" => Choice::Tie,
        "both_bad" | "bothbad" | "tie_(bothbad)" | "tie_(both_bad)" | "neither" => Choice::BothBad,
        "skip" | "skipped" => Choice::Skip,
        _ => return None,
    }))
}

/// Says which words are understood.
pub fn unknown_choice(word: &str) -> String {
    format!("`{word}` is no choice: a, b, a_much, b_much, tie or both_bad")
}

/// Two answers and a choice, or a chosen and a rejected one.
pub fn columns(fields: &Fields, names: &Names) -> Preferences {
    let annotator = match &names.annotator {
        Some(name) => Some(field(fields, Some(name), &[], "annotator")?.text()?),
        None => None,
    };
    let [a, b] = answer_names(fields, names);
    let has_answers = names.a.is_some() || names.b.is_some() || fields.contains_key(&a);
    let has_choice = CHOICE.iter().any(|name| fields.contains_key(*name));
    // `choice` beside `chosen` and `rejected` alone only tells ties from the others.
    let by_choice = names.choice.is_some()
        || names.chosen.is_none() && has_choice && (has_answers || !fields.contains_key("chosen"));
    if !by_choice {
        return chosen_rejected(fields, names, annotator);
    }
    let prompt = field(fields, names.prompt.as_ref(), PROMPT, "prompt")?.text()?;
    let answer = |name: &String| field(fields, Some(name), &[], "answer")?.answer();
    let said = field(fields, names.choice.as_ref(), CHOICE, "choice")?;
    let heard = said.choice([&a, &b], names)?;
    if heard.is_none() {
        return Ok(Vec::new());
    }
    let opinion = Opinion {
        prompt,
        answers: [answer(&a)?, answer(&b)?],
        choice: Choice::Tie,
        // Labels that were exported keep the sampled sides, not those on a screen.
        sides_known: false,
        annotator,
        at: None,
        ms: 0,
        reasons: reasons(fields, names)?,
    };
    let strong = strength(fields)?.is_some_and(|s| s >= STRONG);
    Ok(vec![PreferenceRow { opinion, heard, strong }])
}

/// Reasons: a list of texts, or one text with commas between them, as labels hold them.
fn reasons(fields: &Fields, names: &Names) -> Result<Vec<String>, String> {
    // Only where it is named: `reasons` of a data set of others may be anything.
    let Some(name) = &names.reasons else { return Ok(Vec::new()) };
    let words: Vec<&str> = match fields.get(name) {
        None => return Err(format!("no reasons (`{name}`)")),
        Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split(',').collect(),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        Some(other) => return Err(format!("`{name}` is {}, not reasons", form_of(other))),
    };
    let mut found: Vec<String> = Vec::new();
    for word in words.into_iter().map(str::trim).filter(|word| !word.is_empty()) {
        if !is_reason(word) {
            let most = format!("at most {LONGEST_REASON} characters of one line, without commas");
            return Err(format!("`{name}`: a reason has {most}"));
        }
        if !found.iter().any(|have| have == word) {
            found.push(word.to_owned());
        }
    }
    Ok(found)
}

/// From here on `strength`, of labels that were exported, says much better.
const STRONG: f64 = 1.5;

fn strength(fields: &Fields) -> Result<Option<f64>, String> {
    match fields.get("strength") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => {
            text.trim().parse().map(Some).map_err(|_| format!("`strength`: `{text}` is no number"))
        }
        Some(other) => Err(format!("`strength` is {}, not a number", form_of(other))),
    }
}

/// Whether two answers are equally good, of labels that have a chosen one all the same.
fn tie(fields: &Fields) -> Result<bool, String> {
    let said = match fields.get("tie") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(tie)) => Some(tie.to_string()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(word)) => Some(word.trim().to_lowercase()).filter(|w| !w.is_empty()),
        Some(other) => return Err(format!("`tie` is {}, not true or false", form_of(other))),
    };
    match said.as_deref().map(|word| (word, number(word))) {
        Some(("true" | "yes", _) | (_, Some(1))) => Ok(true),
        Some(("false" | "no", _) | (_, Some(0))) => Ok(false),
        Some((word, _)) => Err(format!("`tie`: `{word}` is neither true nor false")),
        // Then the choice says it, or else the strength.
        None => match fields.get("choice").and_then(Value::as_str) {
            Some(word) => Ok(["tie", "both_bad"].contains(&word.trim())),
            None => Ok(strength(fields)? == Some(0.0)),
        },
    }
}

/// Names of the two answers: those given, or the first usual pair that is there.
pub fn answer_names(fields: &Fields, names: &Names) -> [String; 2] {
    let usual = ANSWERS.iter().find(|pair| pair.iter().all(|name| fields.contains_key(*name)));
    let usual = usual.unwrap_or(&ANSWERS[0]);
    [
        names.a.clone().unwrap_or_else(|| usual[0].to_owned()),
        names.b.clone().unwrap_or_else(|| usual[1].to_owned()),
    ]
}

fn chosen_rejected(fields: &Fields, names: &Names, annotator: Option<String>) -> Preferences {
    let chosen = field(fields, names.chosen.as_ref(), &["chosen"], "chosen answer")?;
    let rejected = field(fields, names.rejected.as_ref(), &["rejected"], "rejected answer")?;
    let prompt = field(fields, names.prompt.as_ref(), PROMPT, "prompt").ok();
    let prompt = prompt.map(RowValue::content).transpose()?;
    if prompt.as_ref().is_some_and(Content::is_empty) {
        return Err("`prompt` is empty".to_owned());
    }
    let found = preference(prompt, chosen.content()?, rejected.content()?)
        .map_err(|why| format!("`{}` and `{}`: {why}", chosen.name, rejected.name))?;
    let texts = written(&found);
    let mut given = preferred(texts, annotator);
    given.opinion.reasons = reasons(fields, names)?;
    if tie(fields)? {
        given.heard = Heard::Said(Choice::Tie);
    }
    given.strong = strength(fields)?.is_some_and(|s| s >= STRONG);
    Ok(vec![given])
}

/// The first answer was preferred; nobody knows on which side it was.
fn preferred([prompt, chosen, rejected]: [String; 3], annotator: Option<String>) -> PreferenceRow {
    PreferenceRow {
        opinion: Opinion {
            prompt,
            answers: [chosen, rejected],
            choice: Choice::A,
            sides_known: false,
            annotator,
            at: None,
            ms: 0,
            reasons: Vec::new(),
        },
        heard: Heard::Said(Choice::A),
        strong: false,
    }
}

/// Two transcripts that share their beginning.
pub fn helpful_harmless(fields: &Fields, names: &Names) -> Preferences {
    let text = |named, usual| field(fields, named, &[usual], "transcript")?.text();
    let chosen = text(names.chosen.as_ref(), "chosen")?;
    let rejected = text(names.rejected.as_ref(), "rejected")?;
    let found = preference(None, Content::Text(chosen), Content::Text(rejected))
        .map_err(|why| format!("the two transcripts: {why}"))?;
    Ok(vec![preferred(written(&found), None)])
}

/// Two conversations with two models, side by side, and a winner.
pub fn arena(fields: &Fields, names: &Names) -> Preferences {
    let get = |name: &'static str| field(fields, None, &[name], "column");
    let conversation = |name: &'static str| {
        let none = || format!("`{name}` is {}, not a list of turns", form_of(&fields[name]));
        get(name)?.turns()?.ok_or_else(none)
    };
    let whole = ["conversation_a", "conversation_b"].map(conversation);
    let [left, right] = whole.map(|messages| messages.map(Content::Messages));
    let [prompt, left, right] = written(&preference(None, left?, right?)?);
    let heard = get("winner")?.choice(["model_a", "model_b"], names)?;
    let at = fields.get("tstamp").and_then(Value::as_f64).and_then(|seconds| {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
        let at = jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        Some(at.to_string())
    });
    let opinion = Opinion {
        prompt,
        answers: [left, right],
        choice: Choice::Tie,
        sides_known: true,
        annotator: fields.get("judge").and_then(Value::as_str).map(ToOwned::to_owned),
        at,
        ms: 0,
        reasons: Vec::new(),
    };
    Ok(vec![PreferenceRow { opinion, heard, strong: false }])
}
