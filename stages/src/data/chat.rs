//! Chat templates in Jinja, as they come with models of Hugging Face.
//! Knows nothing of tokens.

use std::ops::Range;

use anyhow::{Result, anyhow, bail};
use minijinja::{Environment, ErrorKind, Value, context};
use preflow::conversation::Message;
use regex::Regex;

use super::TemplateValues;
use crate::advice::error_with_help;

/// A conversation as text, and the stretches of bytes that the model writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// `None`: the template does not mark them.
    pub answers: Option<Vec<Range<usize>>>,
}

/// The field in which a message calls tools.
const CALLS: &str = "tool_calls";
/// Fields in which a message thinks.
const THOUGHTS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// What stands around `{% generation %}` blocks while a template is rendered: code points that no
/// text may contain.
const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// It has `{% generation %}` blocks.
    marked: bool,
    /// Names such as `bos_token`, and the tokens.
    special: Vec<(String, String)>,
    /// Arguments of every rendering, a JSON map; those of a row count more.
    pub arguments: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template; `special` are names such as `bos_token` with their tokens.
    ///
    /// # Errors
    /// When it is no template, or uses tags that are not known.
    pub fn new(source: &str, special: Vec<(String, String)>) -> Result<Self> {
        let given = source.to_owned();
        let (source, marked) = mark_answers(&spelled_out(source)?);
        let mut environment = super::jinja::environment()?;
        environment
            .add_template_owned("chat", source)
            .map_err(|e| anyhow!("the chat template is not usable: {e:#}"))?;
        Ok(Self { environment, source: given, marked, special, arguments: None })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as text; `open`: followed by what starts an answer.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        values: &TemplateValues,
        open: bool,
    ) -> Result<Rendered> {
        let rendered = self.rendered(messages, values, open)?;
        if messages.iter().any(|m| m.field(CALLS).is_some()) {
            let mut without = messages.to_vec();
            without.iter_mut().for_each(|m| m.more.retain(|(name, _)| name != CALLS));
            if self.rendered(&without, values, open)? == rendered {
                bail!("the chat template does not write the calls of tools that a message makes");
            }
        }
        let last = messages.last().filter(|m| THOUGHTS.iter().any(|name| m.field(name).is_some()));
        if last.is_some() {
            let mut without = messages.to_vec();
            let more = without.last_mut().map(|m| &mut m.more);
            more.into_iter().for_each(|m| m.retain(|(name, _)| !THOUGHTS.contains(&name.as_str())));
            if self.rendered(&without, values, open)? == rendered {
                bail!("the chat template does not write the reasoning of the last message");
            }
        }
        if values.tools.is_some() {
            let without = TemplateValues { tools: None, ..values.clone() };
            if self.rendered(messages, &without, open)? == rendered {
                bail!("the chat template does not show the tools of column `tools`");
            }
        }
        Ok(rendered)
    }

    fn rendered(
        &self,
        messages: &[Message],
        values: &TemplateValues,
        open: bool,
    ) -> Result<Rendered> {
        let special = Value::from_pairs(self.special.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let json = |text: &str| serde_json::from_str::<Value>(text);
        let turn = |m: &Message| -> serde_json::Result<Value> {
            // What is not said is not there, as TRL has it: `none` would be written as a word.
            let said = m.content.as_deref().map(|text| ("content", Value::from(text)));
            let own = [("role", Value::from(m.role.as_str()))].into_iter().chain(said);
            let more = m.more.iter().map(|(name, value)| Ok((name.as_str(), json(value)?)));
            let more = more.collect::<serde_json::Result<Vec<_>>>()?;
            Ok(Value::from_pairs(own.chain(more)))
        };
        let turns: Vec<Value> = messages.iter().map(turn).collect::<Result<_, _>>()?;
        let tools = values.tools.as_deref().map(json).transpose()?;
        let arguments = [self.arguments.as_deref(), values.arguments.as_deref()];
        let [model, row] = arguments.map(|map| map.map_or(Ok(context! {}), json));
        let values = context! {
            messages => turns,
            tools => tools,
            documents => (),
            add_generation_prompt => open,
            ..context! { ..row?, ..context! { ..model?, ..special } }
        };
        let template = self.environment.get_template("chat")?;
        let text = template.render(values).map_err(|e| match e.kind() {
            ErrorKind::OutOfFuel => anyhow!(
                "the chat template does more work than any conversation asks for: {e:#}; mend it"
            ),
            _ => anyhow!("the chat template refuses the conversation: {e:#}"),
        })?;
        unmark(&text, self.marked)
    }
}

/// Refuses what cannot be a chat template.
///
/// # Errors
/// It is no template, or does not look at the messages.
pub fn check_template(source: &str) -> Result<()> {
    ChatTemplate::new(source, Vec::new())?;
    if !source.contains("messages") {
        return Err(error_with_help(
            "the chat template does not look at `messages`: it would render nothing of them",
            "a file with the Jinja text that stands in `chat_template` of a model",
        ));
    }
    Ok(())
}

/// The template with those escapes in its texts spelled out that Python reads in another way than
/// minijinja does. Everything else stays as it is.
fn spelled_out(source: &str) -> Result<String> {
    let literal = r#""(?:[^"\\]|\\(?s:.))*"|'(?:[^'\\]|\\(?s:.))*'"#;
    let blocks = format!(
        r"(?s:\{{#.*?#\}}|\{{%[-+]?\s*raw\s*[-+]?%\}}.*?\{{%[-+]?\s*endraw)|\{{[{{%](?:{literal}|[^'\x22])*?[}}%]\}}"
    );
    let regex = |text: &str| Regex::new(text).expect("invariant: the expression is constant");
    let (blocks, literals) = (regex(&blocks), regex(literal));
    let escapes = regex(r"(?s)\\(?:U([0-9a-fA-F]{8})|.)");
    let mut unknown = None;
    let mut escape = |found: &regex::Captures| -> String {
        let whole = &found[0];
        match (&whole[1..], found.get(1)) {
            ("\n", _) => String::new(),
            ("a", _) => "\\u0007".into(),
            ("v", _) => "\\u000b".into(),
            ("/", _) => r"\\/".into(),
            (_, Some(code)) => {
                let code = u32::from_str_radix(code.as_str(), 16).ok().and_then(char::from_u32);
                match code {
                    Some(c @ ('"' | '\'' | '\\')) => format!("\\{c}"),
                    Some(c) => c.to_string(),
                    None => {
                        unknown = Some(whole.to_owned());
                        String::new()
                    }
                }
            }
            ("N", _) => {
                unknown = Some(r"\N{…}".to_owned());
                String::new()
            }
            _ => whole.to_owned(),
        }
    };
    let mut in_literal = |found: &regex::Captures| -> String {
        escapes.replace_all(&found[0], &mut escape).into_owned()
    };
    let out = blocks.replace_all(source, |found: &regex::Captures| match &found[0][..2] {
        "{#" => found[0].to_owned(),
        _ if found[0].ends_with("endraw") => found[0].to_owned(),
        _ => literals.replace_all(&found[0], &mut in_literal).into_owned(),
    });
    let out = out.into_owned();
    match unknown {
        Some(escape) => bail!("the chat template is not usable: `{escape}` is not read here"),
        None => Ok(out),
    }
}

/// Replaces generation tags, which only `transformers` knows, by marks in the text.
fn mark_answers(source: &str) -> (String, bool) {
    let tag = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
        .expect("invariant: the expression is constant");
    let marked = tag.is_match(source);
    // A block stays a block, so that the blanks around it are treated alike.
    let replaced = tag.replace_all(source, |found: &regex::Captures| {
        let mark = MARKS[usize::from(found.get(2).is_some())];
        format!("{{%{} if true %}}{mark}{{% endif {}%}}", &found[1], &found[3])
    });
    (replaced.into_owned(), marked)
}

fn unmark(text: &str, marked: bool) -> Result<Rendered> {
    if !marked {
        return Ok(Rendered { text: text.to_owned(), answers: None });
    }
    let (mut out, mut answers, mut open) = (String::with_capacity(text.len()), Vec::new(), None);
    for c in text.chars() {
        match (MARKS.iter().position(|m| *m == c), open) {
            (None, _) => out.push(c),
            (Some(0), None) => open = Some(out.len()),
            (Some(1), Some(start)) => {
                answers.push(start..out.len());
                open = None;
            }
            _ => bail!("the generation blocks of the chat template do not pair up"),
        }
    }
    Ok(Rendered { text: out, answers: Some(answers) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message], open: bool) -> Result<Rendered> {
        ChatTemplate::new(source, vec![("bos_token".into(), "<s>".into())])?.render(
            messages,
            &TemplateValues::default(),
            open,
        )
    }

    #[test]
    fn what_templates_of_models_use_works() {
        let one = [Message::new("user", " é<a> ")];
        let text = |source: &str| render(source, &one, true).expect(source).text;
        assert_eq!(text("{{ bos_token }}{{ messages[0].content.strip() }}"), "<s>é<a>");
        assert_eq!(text("{{ messages[0] | tojson }}"), r#"{"role": "user", "content": " é<a> "}"#);
        assert_eq!(text("{% if tools is none or tools is not defined %}no{% endif %}"), "no");
        assert_eq!(text("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
        assert_eq!(text("{{ [1, {'a': 2}] | tojson(indent=1) }}"), "[\n 1,\n {\n  \"a\": 2\n }\n]");
        assert_eq!(
            text(
                "{% for i in range(9) %}\n  {% if i == 2 %}{% break %}{% endif %}\n{{ i }}{% endfor %}"
            ),
            "01"
        );
        assert_eq!(text("{% set ns = namespace(x=1) %}{% set ns.x = ns.x + 1 %}{{ ns.x }}"), "2");
        assert_eq!(text("{% if add_generation_prompt %}open{% endif %}"), "open");
        let error = render("{{ raise_exception('turns must alternate') }}", &one, false);
        assert!(format!("{:#}", error.expect_err("refused")).contains("turns must alternate"));
        assert!(render("{% nonsense %}", &one, false).is_err());
    }

    /// Each expected text is what Jinja 3.1 gives.
    #[test]
    fn texts_are_escaped_as_python_has_it() {
        for (source, expected) in [
            (r"{{ '\U0001F600' }}|{{ '\a\v' }}|{{ '\/' }}|{{ '\d' }}", "😀|\x07\x0b|\\/|\\d"),
            ("{{ 'one\\\ntwo' }}", "onetwo"),
            (r"{{ '\\a' }}{{ '\U00000027' }}", r"\a'"),
            // Outside of texts a backslash is one.
            (r"\a{# '\a #}{% raw %}{{ '\a' }}{% endraw %}", r"\a{{ '\a' }}"),
            (r#"{{ "}}'\a" }} it's '\a' {% if 'a' == "%}" %}{% endif %}"#, "}}'\x07 it's '\\a' "),
        ] {
            let text = render(source, &[], false).unwrap_or_else(|e| panic!("{source}: {e:#}"));
            assert_eq!(text.text, expected, "{source}");
        }
        let error = render(r"{{ '\N{BULLET}' }}", &[], false).expect_err("refused").to_string();
        assert!(error.contains(r"`\N{…}` is not read here"), "{error}");
    }

    #[test]
    fn a_template_that_works_for_ever_is_refused_and_long_conversations_are_not() {
        let one = [Message::new("user", "hi")];
        for source in [
            "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(10) %}\
             {% endfor %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(s='ab') %}{% for i in range(60) %}\
             {% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
            "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
            "{% for i in range(9999) %}{{ messages | tojson | replace('h', 'hhhhhhhhhh') | length }}\
             {% for j in range(9999) %}{{ (range(9999) | list) | length }}{% endfor %}{% endfor %}",
        ] {
            let error = render(source, &one, false).expect_err(source);
            let text = format!("{error:#}");
            assert!(text.contains("more work than") || text.contains("refuses"), "{text}");
        }
        let source = "{% for m in messages %}{{ '<|' + m.role + '|>' }}\
            {{ m.content | trim | replace('a', 'b') }}{{ '<|end|>\n' }}{% endfor %}";
        let turns: Vec<Message> =
            (0..10_000).map(|_| Message::new("user", &"a word ".repeat(50))).collect();
        assert!(render(source, &turns, true).expect("long").text.len() > 3_000_000);
    }

    #[test]
    fn generation_blocks_say_what_the_model_writes() {
        let source = "{% for m in messages %}{% if m.role == 'user' %}U{{ m.content }}{% else %}A\
                      {%- generation -%} {{ m.content }}!{% endgeneration %}{% endif %}{% endfor %}.";
        let turns = [Message::new("user", "é"), Message::new("assistant", "yes")];
        let rendered = render(source, &turns, false).expect("rendered");
        assert_eq!(rendered.text, "UéAyes!.");
        assert_eq!(rendered.answers.as_deref(), Some(std::slice::from_ref(&(4..8))));
    }
}
