//! YAML text to a tree that knows where every key and value stands.
//! Does not know what a stage is, nor which files exist: whoever calls it brings the files.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned};

use super::limits::{MAX_DEPTH, MAX_INCLUDED_BYTES, MAX_INCLUDES, MAX_REPLAYED};
use super::node::{Key, Node, NodeValue};
use super::parse_error;
use crate::diagnostic::{Diagnostic, SourceText, Span, named};

/// Reads the text of a file that is included. An in-memory one serves tests.
pub type Files = Rc<dyn Fn(&Path) -> std::io::Result<String>>;

/// A tree, and the texts that it was read from: that of the document first, then those it includes.
pub struct Parsed {
    pub root: Node,
    pub texts: Vec<Arc<SourceText>>,
}

/// Parses one document. `name` is what people know the text by; includes are relative to it.
pub fn parse(name: &str, text: &str, files: Option<Files>) -> Result<Parsed, Vec<Diagnostic>> {
    let root = Arc::new(SourceText::new(name, without_mark(text)));
    parse_from(&root, 0, files)
}

/// Parses a text from byte `start` on; spans point into the whole of it.
pub fn parse_from(
    text: &Arc<SourceText>,
    start: usize,
    files: Option<Files>,
) -> Result<Parsed, Vec<Diagnostic>> {
    let sources = Rc::new(RefCell::new(Sources::new(Arc::clone(text), start)));
    let options = options(files, &sources);
    let text = &text.text[start..];
    let parsed = if text.trim().is_empty() {
        Ok(Spanned::new(Raw::Null, Location::UNKNOWN, Location::UNKNOWN))
    } else {
        serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options)
    };
    let mut sources = sources.borrow_mut();
    match parsed {
        Ok(raw) => {
            let mut problems = Vec::new();
            let root = located(raw, &mut sources, &mut problems);
            let texts = std::mem::take(&mut sources.texts);
            if problems.is_empty() { Ok(Parsed { root, texts }) } else { Err(problems) }
        }
        Err(error) => Err(vec![parse_error::diagnostic(&error, &mut |at| sources.span(at))]),
    }
}

/// Without the mark that some editors put first.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn options(files: Option<Files>, sources: &Rc<RefCell<Sources>>) -> Options {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_events: 2_000_000,
            max_nodes: 1_000_000,
            max_inclusion_depth: 16,
            max_reader_input_bytes: Some(16 * 1024 * 1024),
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        ignore_binary_tag_for_string: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let Some(files) = files else { return options };
    let sources = Rc::clone(sources);
    options.with_include_resolver(move |request| {
        let from = match request.from_id {
            Some(id) => id.to_owned(),
            None => sources.borrow().root_name(),
        };
        let refuse = |why: &str| serde_saphyr::IncludeResolveError::Message(why.to_owned());
        let path = included_path(&from, request.spec).map_err(refuse)?;
        if path == normal(Path::new(&sources.borrow().root_name())) {
            return Err(refuse("the files include each other"));
        }
        if sources.borrow().texts.len() > MAX_INCLUDES {
            return Err(refuse(&format!("more than {MAX_INCLUDES} files are included")));
        }
        let name = path.to_string_lossy().into_owned();
        let text = files(&path)?;
        if sources.borrow_mut().exceed(text.len()) {
            let most = MAX_INCLUDED_BYTES >> 20;
            return Err(refuse(&format!("the included files hold more than {most} MiB in all")));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        sources.borrow_mut().add(&name, &text);
        let content = serde_saphyr::InputSource::from_string(text);
        Ok(serde_saphyr::ResolvedInclude::new(name.clone(), name, content))
    })
}

/// Where `spec` lies, seen from the file `from`. Dots are resolved so that a cycle is recognised.
fn included_path(from: &str, spec: &str) -> Result<PathBuf, &'static str> {
    if spec.is_empty() || spec.contains('\0') {
        return Err("not a file name");
    }
    if spec.contains("://") || spec.starts_with('~') || Path::new(spec).is_absolute() {
        return Err("an include is a path relative to the file that includes it");
    }
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    Ok(normal(&folder.join(spec)))
}

/// Without `.` and, where it can be told from the text alone, without `..`.
fn normal(given: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in given.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if path.file_name().is_some_and(|n| n != "..") => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path
}

/// The texts that one document is made of, numbered as the parser numbers them: from 1, the root
/// first.
struct Sources {
    texts: Vec<Arc<SourceText>>,
    /// Bytes of the first text before the part that is parsed.
    skipped: usize,
    /// Bytes of all texts that are included.
    included: usize,
    /// Byte offset of every character; `None` for plain ASCII, where there is nothing to convert.
    offsets: HashMap<usize, Option<Vec<usize>>>,
}

impl Sources {
    fn new(root: Arc<SourceText>, skipped: usize) -> Self {
        Self { texts: vec![root], skipped, included: 0, offsets: HashMap::new() }
    }

    fn add(&mut self, name: &str, text: &str) {
        self.texts.push(Arc::new(SourceText::new(name, text)));
    }

    /// Counts a text that is included; whether that is too much.
    fn exceed(&mut self, bytes: usize) -> bool {
        self.included += bytes;
        self.included > MAX_INCLUDED_BYTES
    }

    fn root_name(&self) -> String {
        self.texts[0].name.clone()
    }

    fn span(&mut self, at: Location) -> Span {
        let number = (at.source_id() as usize).saturating_sub(1).min(self.texts.len() - 1);
        let skipped = if number == 0 { self.skipped } else { 0 };
        let source = Arc::clone(&self.texts[number]);
        let text = &source.text[skipped..];
        let first = at.span().offset() as usize;
        let last = first + at.span().len() as usize;
        let offsets = self.offsets.entry(number).or_insert_with(|| {
            let offsets = text.char_indices().map(|(i, _)| i).chain([text.len()]);
            (!text.is_ascii()).then(|| offsets.collect())
        });
        let byte = |c: usize| match &*offsets {
            Some(offsets) => offsets[c.min(offsets.len() - 1)],
            None => c.min(text.len()),
        };
        let (start, end) = (byte(first), byte(last));
        let end = start + text[start..end].trim_end().len();
        Span { source, range: skipped + start..skipped + end }
    }
}

/// A node as the parser hands it over, before locations become spans.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Spanned<Raw>>),
    /// A key is `None` where `null`, `~` or nothing stands in its place.
    Map(Vec<(Spanned<Option<String>>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(i128::try_from(value).map_or(Raw::Float(value as f64), Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::String(value))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn located(raw: Spanned<Raw>, sources: &mut Sources, problems: &mut Vec<Diagnostic>) -> Node {
    let span = sources.span(raw.defined);
    let value = match raw.value {
        Raw::Null => NodeValue::Null,
        Raw::Bool(b) => NodeValue::Bool(b),
        Raw::Int(i) => NodeValue::Int(i),
        Raw::Float(f) if f.is_finite() => NodeValue::Float(f),
        Raw::Float(_) => {
            let problem = Diagnostic::new("numbers must be finite", Some(span.clone()));
            problems.push(problem.label("not a finite number"));
            NodeValue::Null
        }
        Raw::String(s) => NodeValue::String(s),
        Raw::List(items) => {
            NodeValue::List(items.into_iter().map(|i| located(i, sources, problems)).collect())
        }
        Raw::Map(entries) => {
            let mut located_entries: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
            let mut seen: HashMap<String, usize> = HashMap::with_capacity(entries.len());
            for (key, value) in entries {
                let span = sources.span(key.defined);
                let value = located(value, sources, problems);
                let Some(name) = key.value else {
                    problems.push(no_key(span));
                    continue;
                };
                let key = Key { span, name };
                match seen.get(&key.name) {
                    Some(first) => problems.push(duplicate(&key, &located_entries[*first].0)),
                    None => {
                        seen.insert(key.name.clone(), located_entries.len());
                        located_entries.push((key, value));
                    }
                }
            }
            NodeValue::Map(located_entries)
        }
    };
    Node { value, span, via: None }
}

/// Nothing, where a key should stand.
fn no_key(span: Span) -> Diagnostic {
    let written = span.source.text.get(span.range.clone()).unwrap_or_default().trim();
    let (message, help) = match written {
        "null" | "Null" | "NULL" | "~" => (
            format!("`{written}` cannot be a key here"),
            format!("it means nothing in YAML; for the word write it in quotes: \"{written}\""),
        ),
        _ => ("a key is missing".to_owned(), "write a name before the colon".to_owned()),
    };
    Diagnostic::new(message, Some(span)).help(help)
}

fn duplicate(key: &Key, first: &Key) -> Diagnostic {
    let (line, _) = first.span.line_column();
    Diagnostic::new(format!("duplicate key `{}`", named(&key.name)), Some(key.span.clone()))
        .label(format!("already given on line {line}"))
}
