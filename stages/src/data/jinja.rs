//! Jinja as transformers sets it up for chat templates, where minijinja does otherwise: tests,
//! filters and methods of Python. Checked against Jinja 3.1.
//! Knows nothing of conversations.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;
use serde::Serialize as _;
use serde_json::Value as Json;
use serde_json::ser::{Formatter, Serializer};

/// The time that templates are told it is: the same always, since equal inputs must give equal
/// tokens. Its day is the one that Llama 3.1's own template falls back to.
const NOW: jiff::civil::DateTime = jiff::civil::date(2024, 7, 26).at(0, 0, 0, 0);

/// Work that one rendering may do: instructions, and one for every 64 bytes that it makes. Ten
/// thousand turns take a tenth of it; all of it takes about a second and 640 MB.
const FUEL: u64 = 10_000_000;

/// An environment for chat templates.
///
/// # Errors
/// Never, as the settings are constant.
pub fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_function("strftime_now", |format: &str| {
        // A part that is not known is an error, no text.
        let mut text = String::new();
        jiff::fmt::strtime::BrokenDownTime::from(NOW)
            .format(format, &mut text)
            .map(|()| text)
            .map_err(|e| refused(format!("strftime_now cannot write `{format}`: {e}")))
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("wordcount", |text: &str| text.split_whitespace().count());
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // Whatever has a length and can be indexed.
    environment.add_test("sequence", |value: &Value| {
        let kinds = [ValueKind::Seq, ValueKind::Map, ValueKind::String, ValueKind::Bytes];
        value.is_undefined() || kinds.contains(&value.kind())
    });
    Ok(environment)
}

fn refused(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// Methods of Python's `str` that minijinja's own list lacks, or has otherwise.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, args);
    };
    let first = args.first().and_then(|v| v.as_str());
    match (name, args.len(), first) {
        ("removeprefix", 1, Some(start)) => {
            Ok(Value::from(text.strip_prefix(start).unwrap_or(text)))
        }
        ("removesuffix", 1, Some(end)) => Ok(Value::from(text.strip_suffix(end).unwrap_or(text))),
        ("title", 0, _) => Ok(Value::from(title(text))),
        ("splitlines", 0, _) => Ok(texts(lines(text, false))),
        ("splitlines", 1, _) if args[0].kind() == ValueKind::Bool => {
            Ok(texts(lines(text, args[0].is_true())))
        }
        ("partition", 1, Some(mark)) if !mark.is_empty() => Ok(match text.split_once(mark) {
            Some((before, after)) => texts([before, mark, after]),
            None => texts([text, "", ""]),
        }),
        ("rpartition", 1, Some(mark)) if !mark.is_empty() => Ok(match text.rsplit_once(mark) {
            Some((before, after)) => texts([before, mark, after]),
            None => texts(["", "", text]),
        }),
        ("rsplit", 1 | 2, Some(mark)) if !mark.is_empty() => {
            let most = match args.get(1) {
                None => usize::MAX,
                Some(n) => {
                    let n = n.as_i64().ok_or_else(|| refused("rsplit wants a number".into()))?;
                    usize::try_from(n).map_or(usize::MAX, |n| n + 1)
                }
            };
            let mut parts: Vec<&str> = text.rsplitn(most, mark).collect();
            parts.reverse();
            Ok(texts(parts))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn texts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::from(parts.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

/// A capital wherever a letter follows none.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match after_letter {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        after_letter = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// The lines of a text, with what ends each where that is asked for.
fn lines(text: &str, ends: bool) -> Vec<&str> {
    let (mut out, mut start) = (Vec::new(), 0);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            continue;
        }
        if c == '\r' {
            chars.next_if(|(_, next)| *next == '\n');
        }
        let next = chars.peek().map_or(text.len(), |(next, _)| *next);
        out.push(&text[start..if ends { next } else { at }]);
        start = next;
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}

/// `int`: 0, or the given default, of what is no number.
fn int(value: &Value, default: Option<i64>, options: Kwargs) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or(0);
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let number = match value.as_str() {
        Some(text) => text.trim().parse::<i64>().ok().or_else(|| whole(text.trim().parse().ok()?)),
        None => value.as_i64().or_else(|| whole(f64::try_from(value.clone()).ok()?)),
    };
    let truth = || (value.kind() == ValueKind::Bool).then(|| i64::from(value.is_true()));
    Ok(Value::from(number.or_else(truth).unwrap_or(default)))
}

#[expect(clippy::cast_possible_truncation, reason = "Python cuts off what follows the point")]
fn whole(x: f64) -> Option<i64> {
    (x.abs() < 9e18).then_some(x as i64)
}

/// `float`: 0.0, or the given default, of what is no number.
fn float(value: &Value, default: Option<f64>, options: Kwargs) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or(0.0);
    options.assert_all_used()?;
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(Value::from(number.unwrap_or(default)))
}

/// `tojson` as transformers has it: Python's `json.dumps` with `ensure_ascii` off.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (sort, ascii) = (flag(&options, "sort_keys")?, flag(&options, "ensure_ascii")?);
    options.assert_all_used()?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(refused("separators are a pair of texts".into())),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    let style = Python { comma, colon, indent, ascii, depth: 0, filled: false };
    let mut serializer = Serializer::with_formatter(&mut out, style);
    let written = match sort {
        true => {
            let json = serde_json::to_value(value).map_err(|e| failed(&e))?;
            sorted(json).serialize(&mut serializer)
        }
        false => value.serialize(&mut serializer),
    };
    written.map_err(|e| failed(&e))?;
    String::from_utf8(out).map_err(|e| failed(&e))
}

fn flag(options: &Kwargs, name: &str) -> Result<bool, Error> {
    Ok(options.get::<Option<bool>>(name)?.unwrap_or(false))
}

fn sorted(value: Json) -> Json {
    match value {
        Json::Array(list) => Json::Array(list.into_iter().map(sorted).collect()),
        Json::Object(map) => {
            let mut pairs: Vec<(String, Json)> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(pairs.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        other => other,
    }
}

/// Writes JSON as Python's `json.dumps` does.
struct Python {
    comma: String,
    colon: String,
    indent: Option<usize>,
    /// Other characters than ASCII are escaped.
    ascii: bool,
    depth: usize,
    /// The list or map that is open has something in it.
    filled: bool,
}

impl Python {
    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        match self.indent {
            Some(n) => write!(writer, "\n{}", " ".repeat(n * self.depth)),
            None => Ok(()),
        }
    }

    fn next<W: ?Sized + Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.comma.as_bytes())?;
        }
        self.line(writer)
    }

    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, mark: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(mark)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, mark: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(writer)?;
        }
        self.filled = true;
        writer.write_all(mark)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.colon.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                out.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let tools = Value::from(());
        let map: std::collections::BTreeMap<&str, i64> = [("b", 1), ("a", 2)].into();
        let names = minijinja::context! { tools, none => (), map, word => "a.b.c", deep => "é😀" };
        environment()?.render_str(source, names)
    }

    /// Each expected text is what Jinja 3.1 gives, set up as in transformers 5.
    #[test]
    fn expressions_give_what_jinja_gives() {
        for (source, expected) in [
            ("{{ tools is iterable and tools | length > 0 }}", "False"),
            (
                "{{ none is iterable }} {{ 3 is iterable }} {{ 'a' is iterable }}",
                "False False True",
            ),
            ("{{ [] is sequence }} {{ 'a' is sequence }} {{ map is sequence }}", "True True True"),
            ("{{ none is sequence }} {{ 3 is sequence }}", "False False"),
            ("{{ 'x' | int }} {{ 'x' | int(7) }} {{ ' 42 ' | int }} {{ '4.9' | int }}", "0 7 42 4"),
            ("{{ 4.9 | int }} {{ true | int }} {{ none | int }} {{ [1] | int }}", "4 1 0 0"),
            ("{{ 'x' | float }} {{ '1.5' | float }}", "0.0 1.5"),
            (
                "{{ word.rsplit('.', 1) | join('|') }} {{ word.rsplit('.') | join('|') }}",
                "a.b|c a|b|c",
            ),
            (
                "{{ word.partition('.') | join('|') }} {{ word.partition('x') | join('|') }}",
                "a|.|b.c a.b.c||",
            ),
            ("{{ word.rpartition('.')[0] }}", "a.b"),
            ("{{ word.removeprefix('a.') }} {{ word.removesuffix('x') }}", "b.c a.b.c"),
            ("{{ \"they're a-b 3d\".title() }}", "They'Re A-B 3D"),
            (
                r"{{ 'a\r\nb\x0bc\u2028\n'.splitlines() | join('|') }}{{ 'a\r\nb'.splitlines(true) | tojson }}",
                r#"a|b|c|["a\r\n", "b"]"#,
            ),
            ("{{ strftime_now('%H:%M:%S %d') }}", "00:00:00 26"),
            ("{{ 'one two' | wordcount }} {{ 'a b/c' | urlencode }}", "2 a%20b/c"),
            ("{{ {'b': 1, 'a': [1, {}]} | tojson }}", r#"{"b": 1, "a": [1, {}]}"#),
            ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", r#"{"a": 2, "b": 1}"#),
            ("{{ {'b': [1, 2]} | tojson(separators=(',', ':')) }}", r#"{"b":[1,2]}"#),
            ("{{ deep | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83d\ude00""#),
            ("{{ {'a': [1, []]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    []\n  ]\n}"),
        ] {
            let text = render(source).unwrap_or_else(|e| panic!("{source}: {e:#}"));
            assert_eq!(text, expected, "{source}");
        }
        // What is not known is refused.
        for source in [
            "{{ [1] | random }}",
            "{{ map | tojson(default=1) }}",
            "{{ word.nonsense() }}",
            "{{ nothing | tojson }}",
            "{{ strftime_now('%Z') }}",
        ] {
            assert!(render(source).is_err(), "{source}");
        }
    }
}
