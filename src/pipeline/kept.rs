//! The text and tree of a file as bytes: reading them is many times faster than reading YAML.
//! Does not know where they are kept, nor who vouches that they belong to a text.

use std::sync::Arc;

use super::Document;
use super::node::{Key, Node, NodeValue};
use super::splice::splice;
use crate::diagnostic::{SourceText, Span};

/// Goes into the key under which bytes are kept; changes with their meaning.
pub const FORMAT: &str = "tree/2";

/// Deeper than any tree of a file: broken bytes must not end the stack.
const DEEPEST: usize = 2 * super::yaml::MAX_DEPTH;

impl Document {
    /// `None`: it includes other files, whose changes its own text does not show.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(1 << 16);
        self.alone.then(|| {
            write_text(&self.tree.span.source.text, &mut out);
            write_node(&self.tree, &mut out);
        })?;
        Some(out)
    }

    /// The document with this text, from what [`Document::to_bytes`] gave for it or for another
    /// one that is much like it, and whether it was the same one. `None`: the bytes are something
    /// else, or do not help.
    #[must_use]
    pub fn from_bytes(path: &str, text: &str, bytes: &[u8]) -> Option<(Self, bool)> {
        let source = |text: &str| Arc::new(SourceText::new(path, text));
        let text = super::yaml::without_mark(text);
        let mut reader = Reader { rest: bytes, source: Arc::default() };
        let old = reader.text()?;
        reader.source = source(&old);
        let tree = reader.node(0)?;
        if !reader.rest.is_empty() {
            return None;
        }
        let same = old == text;
        let tree = if same { tree } else { splice(tree, &old, &source(text))? };
        Some((Self { path: path.to_owned(), tree, alone: true }, same))
    }
}

fn write_node(node: &Node, out: &mut Vec<u8>) {
    write_span(&node.span, out);
    match &node.value {
        NodeValue::Null => out.push(0),
        NodeValue::Bool(value) => out.extend([1, u8::from(*value)]),
        NodeValue::Int(value) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        NodeValue::Float(value) => {
            out.push(3);
            out.extend(value.to_bits().to_le_bytes());
        }
        NodeValue::String(text) => {
            out.push(4);
            write_text(text, out);
        }
        NodeValue::List(items) => {
            out.push(5);
            write_number(items.len(), out);
            items.iter().for_each(|item| write_node(item, out));
        }
        NodeValue::Map(entries) => {
            out.push(6);
            write_number(entries.len(), out);
            for (key, value) in entries {
                write_span(&key.span, out);
                write_text(&key.name, out);
                write_node(value, out);
            }
        }
    }
}

fn write_span(span: &Span, out: &mut Vec<u8>) {
    write_number(span.range.start, out);
    write_number(span.range.end, out);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_number(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Files are far smaller than four gigabytes.
fn write_number(number: usize, out: &mut Vec<u8>) {
    let number = u32::try_from(number).expect("invariant: the largest file has two mebibytes");
    out.extend(number.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
    source: Arc<SourceText>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn text(&mut self) -> Option<String> {
        let n = self.number()?;
        String::from_utf8(self.take(n)?.to_vec()).ok()
    }

    fn span(&mut self) -> Option<Span> {
        let range = self.number()?..self.number()?;
        self.source.text.get(range.clone())?;
        Some(Span { source: Arc::clone(&self.source), range })
    }

    fn node(&mut self, depth: usize) -> Option<Node> {
        let span = self.span()?;
        let value = match self.take(1)?[0] {
            0 => NodeValue::Null,
            1 => NodeValue::Bool(self.take(1)?[0] == 1),
            2 => NodeValue::Int(i128::from_le_bytes(self.take(16)?.try_into().ok()?)),
            3 => {
                let bits = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
                NodeValue::Float(f64::from_bits(bits))
            }
            4 => NodeValue::String(self.text()?),
            5 if depth < DEEPEST => {
                let n = self.number()?;
                NodeValue::List((0..n).map(|_| self.node(depth + 1)).collect::<Option<_>>()?)
            }
            6 if depth < DEEPEST => {
                let n = self.number()?;
                let entry = |_| {
                    let span = self.span()?;
                    Some((Key { name: self.text()?, span }, self.node(depth + 1)?))
                };
                NodeValue::Map((0..n).map(entry).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        Some(Node { value, span, via: None })
    }
}
