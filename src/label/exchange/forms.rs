//! Forms of data sets: columns, pairs of transcripts, battles.
//! Knows nothing of files; says in one line what is wrong with a row.

use serde_json::{Map, Value};

use super::messages::{Turn, split_transcripts, split_turns, text, turns};
use super::rows::Row;
use super::{Form, Names, Opinion};
use crate::votes::Choice;

type Fields = Map<String, Value>;
pub type Found = Result<Vec<Opinion>, String>;

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

/// The form of a file, by its first row.
pub fn guess(rows: &[Row]) -> Form {
    let Some((_, first)) = rows.first() else { return Form::Columns };
    let has = |name: &str| first.contains_key(name);
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

/// The value of the named field, or else of the first usual name that is there.
pub fn field<'a>(
    fields: &'a Fields,
    named: Option<&String>,
    usual: &[&str],
    what: &str,
) -> Result<&'a Value, String> {
    let found = match named {
        Some(name) => fields.get(name),
        None => usual.iter().find_map(|name| fields.get(*name)),
    };
    found.filter(|v| !v.is_null()).ok_or_else(|| {
        let have: Vec<&str> = fields.keys().map(String::as_str).collect();
        let wanted = named.map_or_else(|| usual.join(" or "), Clone::clone);
        format!("no {what} (`{wanted}`); it has {}", have.join(", "))
    })
}

/// A text, also where it is a list of turns.
pub fn as_text(value: &Value, what: &str) -> Result<String, String> {
    if let Some(turns) = turns(value) {
        return Ok(text(&turns));
    }
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        Some(_) => Err(format!("the {what} is empty")),
        None => Err(format!("the {what} is no text")),
    }
}

/// What a word of people says; `a` and `b` are the names of the two columns.
pub fn choice(word: &str, a: &str, b: &str) -> Option<Choice> {
    let word = word.trim();
    if word == a || word == b {
        return Some(if word == a { Choice::A } else { Choice::B });
    }
    Some(match word.to_lowercase().replace([' ', '-'], "_").as_str() {
        "a" | "1" | "left" | "first" | "model_a" | "response_a" | "answer_a" => Choice::A,
        "b" | "2" | "right" | "second" | "model_b" | "response_b" | "answer_b" => Choice::B,
        "a_much" | "a_much_better" => Choice::AMuch,
        "b_much" | "b_much_better" => Choice::BMuch,
        "tie" | "equal" | "same" | "draw" | "both" => Choice::Tie,
        "both_bad" | "bothbad" | "tie_(bothbad)" | "tie_(both_bad)" | "neither" => Choice::BothBad,
        "skip" | "skipped" => Choice::Skip,
        _ => return None,
    })
}

/// Says which words are understood.
pub fn unknown_choice(word: &str) -> String {
    format!("`{word}` is no choice: a, b, a_much, b_much, tie or both_bad")
}

/// Two answers and a choice, or a chosen and a rejected one.
pub fn columns(fields: &Fields, names: &Names) -> Found {
    let annotator = match &names.annotator {
        Some(name) => Some(as_text(field(fields, Some(name), &[], "annotator")?, "annotator")?),
        None => None,
    };
    let by_choice = names.chosen.is_none()
        && (names.choice.is_some() || CHOICE.iter().any(|name| fields.contains_key(*name)));
    if !by_choice {
        return chosen_rejected(fields, names, annotator);
    }
    let prompt = as_text(field(fields, names.prompt.as_ref(), PROMPT, "prompt")?, "prompt")?;
    let [a, b] = answer_names(fields, names);
    let answer =
        |name: &str| as_text(field(fields, Some(&name.to_owned()), &[], "answer")?, "answer");
    let said = field(fields, names.choice.as_ref(), CHOICE, "choice")?;
    let word = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
    let found = choice(&word, &a, &b).ok_or_else(|| unknown_choice(&word))?;
    if !found.counts() {
        return Ok(Vec::new());
    }
    Ok(vec![Opinion {
        prompt,
        answers: [answer(&a)?, answer(&b)?],
        choice: stronger(found, fields),
        // Labels that were exported keep the sampled sides, not those on a screen.
        sides_known: false,
        annotator,
        at: None,
        ms: 0,
    }])
}

/// `strength`, of labels that were exported, tells much better from better.
fn stronger(choice: Choice, fields: &Fields) -> Choice {
    let strength = fields.get("strength").and_then(|s| match s {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_f64(),
    });
    match (choice, strength) {
        (Choice::A, Some(s)) if s >= 1.5 => Choice::AMuch,
        (Choice::B, Some(s)) if s >= 1.5 => Choice::BMuch,
        (same, _) => same,
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

fn chosen_rejected(fields: &Fields, names: &Names, annotator: Option<String>) -> Found {
    let chosen = field(fields, names.chosen.as_ref(), &["chosen"], "chosen answer")?;
    let rejected = field(fields, names.rejected.as_ref(), &["rejected"], "rejected answer")?;
    let prompt = field(fields, names.prompt.as_ref(), PROMPT, "prompt");
    let whole = |turns: &[Turn]| turns.len() > 1 && turns[0].role != "assistant";
    let texts = match (prompt, turns(chosen), turns(rejected)) {
        // Whole conversations hold the prompt once more, or are the only ones that do.
        (_, Some(chosen), Some(rejected)) if whole(&chosen) => split_turns(&chosen, &rejected)?,
        (Ok(prompt), ..) => [
            as_text(prompt, "prompt")?,
            as_text(chosen, "chosen answer")?,
            as_text(rejected, "rejected answer")?,
        ],
        (Err(reason), ..) => return Err(reason),
    };
    Ok(vec![preferred(texts, annotator)])
}

/// The first answer was preferred; nobody knows on which side it was.
fn preferred([prompt, chosen, rejected]: [String; 3], annotator: Option<String>) -> Opinion {
    Opinion {
        prompt,
        answers: [chosen, rejected],
        choice: Choice::A,
        sides_known: false,
        annotator,
        at: None,
        ms: 0,
    }
}

/// Two transcripts that share their beginning.
pub fn helpful_harmless(fields: &Fields, names: &Names) -> Found {
    let text = |named: Option<&String>, usual: &str| {
        as_text(field(fields, named, &[usual], "transcript")?, "transcript")
    };
    let chosen = text(names.chosen.as_ref(), "chosen")?;
    let rejected = text(names.rejected.as_ref(), "rejected")?;
    let texts = split_transcripts(&chosen, &rejected)?;
    Ok(vec![preferred(texts, None)])
}

/// Two conversations with two models, side by side, and a winner.
pub fn arena(fields: &Fields) -> Found {
    let get = |name: &str| field(fields, None, &[name], "column");
    let conversation =
        |name: &str| turns(get(name)?).ok_or_else(|| format!("`{name}` is no list of turns"));
    let [prompt, left, right] =
        split_turns(&conversation("conversation_a")?, &conversation("conversation_b")?)?;
    let word = as_text(get("winner")?, "winner")?;
    let choice = choice(&word, "model_a", "model_b").ok_or_else(|| unknown_choice(&word))?;
    let at = fields.get("tstamp").and_then(Value::as_f64).and_then(|seconds| {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
        let at = jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        Some(at.to_string())
    });
    Ok(vec![Opinion {
        prompt,
        answers: [left, right],
        choice,
        sides_known: true,
        annotator: fields.get("judge").and_then(Value::as_str).map(ToOwned::to_owned),
        at,
        ms: 0,
    }])
}
