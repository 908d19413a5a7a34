//! What a prompt or an answer is: a text, or the messages of a conversation. Reads the forms in
//! which messages are written, and finds what two conversations have in common.
//! Knows nothing of files, tokens or chat templates.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Roles of messages that are understood.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// One of [`ROLES`].
    pub role: String,
    /// What it says; `None` where it only calls tools.
    pub content: Option<String>,
    /// Further fields that chat templates may look at, such as `tool_calls` or `name`: each with
    /// its value as JSON, in the order in which they were written.
    pub more: Vec<(String, String)>,
}

/// A prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    Text(String),
    Messages(Vec<Message>),
}

/// A prompt and two answers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptAndAnswers {
    pub prompt: Content,
    pub answers: [Content; 2],
}

impl Message {
    /// A message that says something and nothing else.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: Some(content.into()), more: Vec::new() }
    }

    /// Whether the model writes it.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.role == "assistant"
    }

    /// What it says, without what surrounds it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// The value of a further field, as JSON.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.more.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// It is text of that role and nothing else.
    fn is_plain(&self, role: &str) -> bool {
        self.role == role && self.content.is_some() && self.more.is_empty()
    }

    /// One message, in the form of OpenAI (`role`, `content`) or of ShareGPT (`from`, `value`).
    ///
    /// # Errors
    /// What is wrong with it, to follow "message 2".
    fn of(fields: OrderedFields) -> Result<Self, String> {
        let get = |name: &str| {
            let found = fields.0.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.get()).filter(|value| *value != "null")
        };
        let text = |name: &str, value: &str| {
            serde_json::from_str::<String>(value).map_err(|_| format!("`{name}` is no text"))
        };
        let (who, what) =
            if get("from").is_some() { ("from", "value") } else { ("role", "content") };
        let Some(said) = get(who) else { return Err("it has no `role`".into()) };
        let role = role_of(&text(who, said)?)?;
        if get("function_call").is_some() {
            return Err("`function_call` is not read: write it as `tool_calls`".into());
        }
        let content = get(what).map(|value| content(what, value)).transpose()?;
        let mut more = Vec::new();
        for (name, value) in &fields.0 {
            let twice = fields.0.iter().filter(|(key, _)| key == name).count() > 1;
            if twice {
                return Err(format!("key `{name}` is there twice"));
            }
            if name == who || name == what || value.get() == "null" {
                continue;
            }
            more.push((name.clone(), value.get().to_owned()));
        }
        let calls = more.iter().any(|(name, value)| name == "tool_calls" && value != "[]");
        if content.is_none() && !calls {
            return Err(format!("({role}) says nothing: `{what}` is empty and it calls no tool"));
        }
        if let Some((_, weight)) = more.iter().find(|(name, _)| name == "weight")
            && !["0", "1", "0.0", "1.0"].contains(&weight.as_str())
        {
            return Err(format!("`weight` is {weight}; 0 and 1 are understood"));
        }
        Ok(Self { role, content, more })
    }

    fn write(&self, out: &mut String) {
        let text = |text: &str| Value::from(text).to_string();
        out.push_str(&format!("{{\"role\":{}", text(&self.role)));
        match &self.content {
            Some(said) => out.push_str(&format!(",\"content\":{}", text(said))),
            None => out.push_str(",\"content\":null"),
        }
        for (name, value) in &self.more {
            out.push_str(&format!(",{}:{value}", text(name)));
        }
        out.push('}');
    }
}

/// The role that a word stands for, in the spelling of OpenAI, ShareGPT or others.
fn role_of(word: &str) -> Result<String, String> {
    let role = match word {
        "human" => "user",
        "gpt" | "chatgpt" | "model" => "assistant",
        "function" | "observation" | "function_response" | "tool_response" => "tool",
        "function_call" => {
            return Err("role `function_call` is not read: write it as `tool_calls` of a message \
                        of the assistant"
                .into());
        }
        same => same,
    };
    if !ROLES.contains(&role) {
        return Err(format!("unknown role `{word}`; one of {}", ROLES.join(", ")));
    }
    Ok(role.to_owned())
}

/// The text of a message: text, or a list of parts that are all text.
fn content(name: &str, value: &str) -> Result<String, String> {
    if value.starts_with('"') {
        return serde_json::from_str(value)
            .map_err(|_| format!("`{name}` holds half a character, or is no JSON text"));
    }
    let parts: Value = serde_json::from_str(value).map_err(|e| format!("`{name}`: {e}"))?;
    let Some(parts) = parts.as_array() else { return Err(format!("`{name}` is no text")) };
    let mut out = String::new();
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (None | Some("text"), Some(text)) => out.push_str(text),
            (kind, _) => {
                let kind = kind.unwrap_or("no text");
                return Err(format!(
                    "`{name}` holds a part that is no text ({kind}), which is not read"
                ));
            }
        }
    }
    Ok(out)
}

impl Content {
    /// The messages of a JSON list, or the text of a JSON string.
    ///
    /// # Errors
    /// What it is instead, or which message is not understood.
    pub fn from_json(json: &str) -> Result<Self, String> {
        if json.starts_with('"') {
            let text = serde_json::from_str(json);
            return text.map(Self::Text).map_err(|_| "a text with half a character".into());
        }
        if !json.starts_with('[') {
            return Err("neither text nor a list of messages".into());
        }
        let list: Vec<&RawValue> = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if list.is_empty() {
            return Err("an empty list".into());
        }
        let one = |(i, raw): (usize, &&RawValue)| {
            let fields = serde_json::from_str::<OrderedFields>(raw.get())
                .map_err(|_| "it is no map of `role` and `content`".to_owned());
            fields.and_then(Message::of).map_err(|why| {
                let gap = if why.starts_with('(') { " " } else { ": " };
                format!("message {}{gap}{why}", i + 1)
            })
        };
        list.iter().enumerate().map(one).collect::<Result<_, _>>().map(Self::Messages)
    }

    /// What a text says that programs of ours wrote: messages where it is a JSON list of them.
    #[must_use]
    pub fn of_written(text: &str) -> Self {
        let messages = text.starts_with("[{").then(|| Self::from_json(text).ok()).flatten();
        messages.unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    /// As text by which equal contents are equal: a text, and one plain message of the user or the
    /// assistant, is what it says; other messages are JSON with sorted keys.
    /// [`Content::of_written`] reads it.
    #[must_use]
    pub fn written(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Messages(list) => match list.as_slice() {
                [one] if one.is_plain("user") || one.is_plain("assistant") => {
                    Cow::Borrowed(one.text())
                }
                _ => {
                    let sorted: Value = serde_json::from_str(&self.to_json()).unwrap_or_default();
                    Cow::Owned(sorted.to_string())
                }
            },
        }
    }

    /// As JSON: a string, or a list of messages with their fields in order.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Text(text) => Value::from(text.as_str()).to_string(),
            Self::Messages(list) => {
                let mut out = String::from("[");
                for (i, message) in list.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    message.write(&mut out);
                }
                out.push(']');
                out
            }
        }
    }

    /// The messages; a text is one message of `role`.
    #[must_use]
    pub fn messages(&self, role: &str) -> Cow<'_, [Message]> {
        match self {
            Self::Text(text) => Cow::Owned(vec![Message::new(role, text)]),
            Self::Messages(list) => Cow::Borrowed(list),
        }
    }

    /// What the last message says, or the text: what rules judge of an answer.
    #[must_use]
    pub fn last_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Messages(list) => list.last().map_or("", Message::text),
        }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Messages(list) => list.is_empty(),
        }
    }

    /// For people: one plain message is its text, several are paragraphs with their roles.
    #[must_use]
    pub fn transcript(&self) -> Cow<'_, str> {
        let list = match self {
            Self::Text(text) => return Cow::Borrowed(text),
            Self::Messages(list) => list,
        };
        if let [one] = list.as_slice()
            && one.more.is_empty()
        {
            return Cow::Borrowed(one.text());
        }
        let turn = |message: &Message| {
            let mut letters = message.role.chars();
            let name = letters.next().map(|first| first.to_uppercase().chain(letters));
            let name: String = name.into_iter().flatten().collect();
            let calls = message.field("tool_calls").unwrap_or_default();
            let gap = if message.text().is_empty() || calls.is_empty() { "" } else { "\n" };
            format!("{name}: {}{gap}{calls}", message.text())
        };
        Cow::Owned(list.iter().map(turn).collect::<Vec<_>>().join("\n\n"))
    }
}

/// Parts two conversations that hold a prompt and an answer each: what they have in common up to
/// the last message of the user is the prompt, as TRL reads an implicit prompt.
///
/// # Errors
/// They do not begin alike, or one has no answer.
pub fn split(one: &[Message], other: &[Message]) -> Result<PromptAndAnswers, String> {
    let alike = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    // An answer is never empty: the last message belongs to it.
    let mut alike = alike.min(one.len().saturating_sub(1)).min(other.len().saturating_sub(1));
    // What the assistant says last before they part is still what it answers.
    while alike > 0 && one[alike - 1].is_answer() {
        alike -= 1;
    }
    if alike == 0 {
        return Err("the two conversations do not begin with the same message".to_owned());
    }
    let answer = |list: &[Message]| Content::Messages(list[alike..].to_vec());
    for list in [one, other] {
        if !list[alike].is_answer() {
            return Err(format!(
                "after the {alike} messages that both have in common, message {} is of the {}, not \
                 of the assistant",
                alike + 1,
                list[alike].role
            ));
        }
    }
    let prompt = Content::Messages(one[..alike].to_vec());
    Ok(PromptAndAnswers { prompt, answers: [answer(one), answer(other)] })
}

/// A prompt and the two answers of a preference, whichever way it is written: with a prompt of its
/// own, or with two whole conversations that hold the prompt (also as transcripts with turns
/// `Human:` and `Assistant:`).
///
/// # Errors
/// The prompt is missing, or is not what the conversations begin with; only one answer is a list of
/// messages; or the conversations cannot be parted.
pub fn preference(
    prompt: Option<Content>,
    chosen: Content,
    rejected: Content,
) -> Result<PromptAndAnswers, String> {
    let no_prompt = || "no prompt, and the answers are no conversations that hold it".to_owned();
    match (chosen, rejected) {
        (Content::Text(one), Content::Text(other)) => match prompt {
            Some(prompt) => {
                Ok(PromptAndAnswers { prompt, answers: [Content::Text(one), Content::Text(other)] })
            }
            None => match (transcript(&one), transcript(&other)) {
                (Some(one), Some(other)) => split(&one, &other).map(plainly),
                _ => Err(no_prompt()),
            },
        },
        (Content::Messages(one), Content::Messages(other)) => {
            let begin_with_answers = one[0].is_answer() && other[0].is_answer();
            if let Some(prompt) = prompt.clone().filter(|_| begin_with_answers) {
                let answers = [one, other].map(Content::Messages);
                return Ok(PromptAndAnswers { prompt, answers });
            }
            let found = split(&one, &other)?;
            match prompt {
                Some(given) if !begins_with(&found.prompt, &given) => {
                    Err("the prompt is not what the two conversations begin with".into())
                }
                _ => Ok(found),
            }
        }
        _ => Err("of the two answers only one is a list of messages".into()),
    }
}

/// Whether a prompt that stands beside whole conversations is theirs: all of it, or what the user
/// says in it.
fn begins_with(whole: &Content, given: &Content) -> bool {
    let Content::Messages(whole) = whole else { return false };
    match given {
        Content::Messages(given) => given == whole,
        Content::Text(text) => {
            whole.iter().any(|m| m.role == "user" && m.text().trim() == text.trim())
        }
    }
}

/// Texts instead of messages where a prompt is one plain message: transcripts have no roles but
/// these two.
fn plainly(found: PromptAndAnswers) -> PromptAndAnswers {
    let plain = |content: &Content| matches!(content, Content::Messages(list) if list.len() == 1);
    if plain(&found.prompt) && found.answers.iter().all(plain) {
        let text = |content: Content| Content::Text(content.last_text().to_owned());
        let [one, other] = found.answers;
        let answers = [text(one), text(other)];
        return PromptAndAnswers { prompt: text(found.prompt), answers };
    }
    found
}

/// What starts a turn in a transcript of Anthropic's HH data.
const ASSISTANT: &str = "\n\nAssistant:";
const HUMAN: &str = "\n\nHuman:";

/// The messages of a transcript with turns `Human:` and `Assistant:`; `None` where a text is none.
#[must_use]
pub fn transcript(text: &str) -> Option<Vec<Message>> {
    let first = text.strip_prefix(HUMAN).or_else(|| text.trim_start().strip_prefix("Human:"))?;
    let mut messages = Vec::new();
    let (mut role, mut rest) = ("user", first);
    loop {
        let next = [("user", HUMAN), ("assistant", ASSISTANT)]
            .into_iter()
            .filter_map(|(role, mark)| Some((rest.find(mark)?, role, mark)))
            .min();
        let end = next.map_or(rest.len(), |(at, ..)| at);
        messages.push(Message::new(role, rest[..end].trim()));
        let Some((at, of, mark)) = next else { break };
        (role, rest) = (of, &rest[at + mark.len()..]);
    }
    messages.iter().any(Message::is_answer).then_some(messages)
}

/// The fields of a JSON object in the order in which they are written; `None` where it is no
/// object, or has a key twice.
#[must_use]
pub fn ordered_fields(json: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    let OrderedFields(fields) = serde_json::from_str(json).ok()?;
    let twice =
        fields.iter().enumerate().any(|(i, (key, _))| fields[..i].iter().any(|(k, _)| k == key));
    (!twice).then_some(fields)
}

/// The fields of a JSON object in the order in which they are written, repeated ones too: a map
/// would keep the last of two equal keys.
#[derive(Debug)]
pub struct OrderedFields(pub Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for OrderedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = OrderedFields;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedFields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(OrderedFields(fields))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<Message> {
        match Content::from_json(json) {
            Ok(Content::Messages(list)) => list,
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_messages_is_read_and_others_are_named() {
        let turns = [Message::new("user", "q"), Message::new("assistant", "a")];
        for json in [
            r#"[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]"#,
            r#"[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]"#,
            r#"[{"content":[{"type":"text","text":"q"}],"role":"user","name":null},
                {"role":"assistant","content":[{"text":"a"}],"tool_calls":null}]"#,
        ] {
            assert_eq!(read(json), turns, "{json}");
        }
        let calls = concat!(
            r#"[{"role":"assistant","content":null,"tool_calls":[{"name":"f","a":1}]},"#,
            r#"{"role":"tool","content":"2"}]"#
        );
        let list = read(calls);
        assert_eq!(
            (&list[0].content, list[0].field("tool_calls")),
            (&None, Some(r#"[{"name":"f","a":1}]"#))
        );
        assert_eq!(Content::Messages(list).to_json(), calls);
        for (json, why) in [
            ("3", "neither text nor a list"),
            ("[]", "an empty list"),
            ("[1]", "message 1: it is no map"),
            (r#"[{"content":"x"}]"#, "message 1: it has no `role`"),
            (
                r#"[{"role":"user","content":"x"},{"role":"x","content":"y"}]"#,
                "message 2: unknown role `x`",
            ),
            (r#"[{"role":"assistant","content":null}]"#, "message 1 (assistant) says nothing"),
            (
                r#"[{"role":"user","content":[{"type":"image_url"}]}]"#,
                "a part that is no text (image_url)",
            ),
            (r#"[{"role":"user","content":"a","content":"b"}]"#, "key `content` is there twice"),
            (r#"[{"role":"assistant","content":"a","weight":0.5}]"#, "`weight` is 0.5"),
            (
                r#"[{"role":"assistant","content":"a","function_call":{}}]"#,
                "`function_call` is not read",
            ),
        ] {
            let found = Content::from_json(json).expect_err(json);
            assert!(found.contains(why), "{json}: {found}");
        }
    }

    #[test]
    fn one_plain_message_is_named_as_its_text_and_others_by_their_messages() {
        let one = Content::Messages(vec![Message::new("user", "q")]);
        assert_eq!(one.written(), "q");
        let two = Content::from_json(
            r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#,
        );
        let two = two.expect("messages");
        let text = r#"[{"content":"s","role":"system"},{"content":"q","role":"user"}]"#;
        assert_eq!(two.written(), text);
        assert_eq!(Content::of_written(text), two);
        assert_eq!(two.transcript(), "System: s\n\nUser: q");
        for text in ["", "[1]", "[{\"role\": 3}]", "plain"] {
            assert_eq!(Content::of_written(text), Content::Text(text.into()));
        }
    }

    #[test]
    fn a_prompt_is_what_two_conversations_have_in_common() {
        let turns = |list: &[(&str, &str)]| -> Vec<Message> {
            list.iter().map(|(role, text)| Message::new(role, text)).collect()
        };
        let all = |list: &[(&str, &str)]| Content::Messages(turns(list));
        let (q, a, b) = (("user", "q"), ("assistant", "a"), ("assistant", "b"));
        let found = preference(None, all(&[q, a, q, a]), all(&[q, a, q, b])).expect("parted");
        assert_eq!(found.prompt, all(&[q, a, q]));
        assert_eq!(found.answers, [all(&[a]), all(&[b])]);
        // The answer that both give before they part is part of the answers.
        let found = preference(None, all(&[q, a, q, a]), all(&[q, a])).expect("parted");
        assert_eq!((found.prompt, found.answers[1].clone()), (all(&[q]), all(&[a])));
        let said = |text: &str| Some(Content::Text(text.into()));
        assert!(preference(said("q"), all(&[q, a]), all(&[q, b])).is_ok());
        let error = preference(said("other"), all(&[q, a]), all(&[q, b])).expect_err("refused");
        assert!(error.contains("not what the two conversations begin with"), "{error}");
        let kept = preference(said("p"), all(&[a]), all(&[b])).expect("as they are");
        assert_eq!(kept.prompt, Content::Text("p".into()));
        let text = |text: &str| Content::Text(text.into());
        assert!(preference(None, text("x"), text("y")).is_err());
        assert!(preference(said("p"), text("x"), all(&[a])).is_err());
        let hh = |answer: &str| text(&format!("\n\nHuman: q\n\nAssistant: {answer}"));
        let found = preference(None, hh("a"), hh("b")).expect("transcripts");
        assert_eq!((found.prompt, found.answers), (text("q"), [text("a"), text("b")]));
    }
}
