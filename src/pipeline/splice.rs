//! The tree of a text that differs in a few lines from one whose tree is known: only the entries
//! around those lines are parsed. Says nothing where parsing the whole might come to anything else.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::node::{Key, Node, NodeValue};
use super::yaml;
use crate::diagnostic::{SourceText, Span};

/// A text that is no longer cannot hold more values than the parser allows.
const LONGEST: usize = 1 << 20;

/// The tree of `new`, from that of `old`.
///
/// A block map is parsed from left to right, entry by entry: at a line on which one of its keys
/// begins, nothing of the lines before it counts any more. So where such a key stands in both
/// texts, and the lines from there to the next such line that stands in both make up a map of
/// their own, that map's entries are what the whole text has there.
pub fn splice(mut tree: Node, old: &str, new: &Arc<SourceText>) -> Option<Node> {
    if new.text.len() > LONGEST {
        return None;
    }
    let changed = Changed::between(old, &new.text);
    let mut regions: Vec<Region> = Vec::new();
    let (mut map, mut within) = (&tree, old.len());
    while let Some(region) = Region::find(map, old, &changed, within) {
        let entries = map.as_map()?.get(region.entries.clone())?;
        within = region.bytes.end;
        regions.push(region);
        map = match entries {
            [(key, value)] if is_plain(key, value, old) => value,
            _ => break,
        };
    }
    let Region { entries, bytes, column } = regions.pop()?;
    let part = bytes.start..bytes.end + new.text.len() - old.len();
    let directive = old[..bytes.start].lines().any(|line| line.starts_with('%'));
    let bound = leans(old, &bytes) || leans(&new.text, &part);
    if directive || bound || !stands_alone(&new.text, &part, column) {
        return None;
    }
    let parsed = yaml::parse_part(new, part, None).ok()?;
    if parsed.depth() + regions.len() > yaml::MAX_DEPTH / 2 || ends_in_nothing(&parsed, &new.text) {
        return None;
    }
    let NodeValue::Map(fresh) = parsed.value else { return None };
    let moved = Moved { from: bytes.end, old: old.len(), source: new };
    moved.apply(&mut tree);
    let mut place = &mut tree;
    for outer in regions {
        let NodeValue::Map(all) = &mut place.value else { return None };
        place = &mut all[outer.entries.start].1;
    }
    let NodeValue::Map(all) = &mut place.value else { return None };
    all.splice(entries, fresh);
    // Whoever parses the whole says where the first one of that name stands.
    let mut names = HashSet::with_capacity(all.len());
    all.iter().all(|(key, _)| names.insert(key.name.as_str())).then_some(tree)
}

/// What differs.
struct Changed {
    /// Bytes at the beginning that are the same.
    same: usize,
    /// Where the lines begin that are the same from there to the end: bytes of the old text.
    rest: usize,
}

impl Changed {
    fn between(old: &str, new: &str) -> Self {
        let (old, new) = (old.as_bytes(), new.as_bytes());
        let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let ends = old[same..].iter().rev().zip(new[same..].iter().rev());
        let tail = old.len() - ends.take_while(|(a, b)| a == b).count();
        // The line that the tail begins in may have begun in another way.
        let next = old[tail..].iter().position(|b| *b == b'\n');
        Self { same, rest: next.map_or(old.len(), |n| tail + n + 1) }
    }
}

/// Entries of a block map that hold all that differs, from the line of the first one's key to that
/// of the key behind the last one.
struct Region {
    entries: Range<usize>,
    bytes: Range<usize>,
    /// Of the keys, from 0.
    column: usize,
}

impl Region {
    /// `within`: where the map ends.
    fn find(map: &Node, old: &str, changed: &Changed, within: usize) -> Option<Self> {
        let entries = map.as_map()?;
        let starts = || entries.iter().map(|(key, _)| key.span.range.start);
        // A map in braces stands at its brace; what was merged in, where it was first written.
        let block = map.span.range == (starts().next()?..map.span.range.start);
        if !block || !starts().is_sorted_by(|a, b| a < b) {
            return None;
        }
        // Its key is the same, and still a key: so is what makes it one.
        let said = |(key, _): &(Key, Node)| key.span.range.end + 2 <= changed.same;
        let first = entries.partition_point(said).checked_sub(1)?;
        let behind = old.get(entries[first].0.span.range.end..)?;
        if !behind.starts_with(": ") && !behind.starts_with(":\n") {
            return None;
        }
        let next = entries.partition_point(|(key, _)| key.span.range.start < changed.rest);
        let (start, column) = begins_line(old, &entries[first].0)?;
        let end = match entries.get(next) {
            Some((key, _)) => begins_line(old, key).filter(|(_, c)| *c == column)?.0,
            None => within,
        };
        Some(Self { entries: first..next, bytes: start..end, column })
    }
}

/// The value was written behind this key, and nothing else can repeat it.
fn is_plain(key: &Key, value: &Node, text: &str) -> bool {
    let between = text.get(key.span.range.end..value.span.range.start);
    between.is_some_and(|between| !between.contains('&'))
}

/// Where the line of a key begins, and its column, when only spaces stand before it.
fn begins_line(text: &str, key: &Key) -> Option<(usize, usize)> {
    let before = text.get(..key.span.range.start)?;
    let start = before.rfind('\n').map_or(0, |n| n + 1);
    before[start..].bytes().all(|b| b == b' ').then_some((start, before.len() - start))
}

/// No line of it could end the map around it, nor the document, and lines are what they seem.
fn stands_alone(text: &str, part: &Range<usize>, column: usize) -> bool {
    let part = &text[part.clone()];
    let inside = |line: &str| {
        let content = line.trim_start_matches(' ');
        let deep = line.len() - content.len() >= column;
        content.is_empty()
            || content.starts_with('#')
            || (deep && !line.starts_with("---") && !line.starts_with("..."))
    };
    !part.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}']) && part.lines().all(inside)
}

/// What follows may repeat something of it: an alias may stand there of what may be an anchor here.
fn leans(text: &str, part: &Range<usize>) -> bool {
    let (part, rest) = (&text[part.clone()], &text[part.end..]);
    part.match_indices('&').any(|(at, _)| {
        let name = part[at + 1..].split(|c: char| c.is_whitespace() || ",[]{}".contains(c)).next();
        name.is_some_and(|name| !name.is_empty() && rest.contains(&format!("*{name}")))
    })
}

/// Its last value is nothing, or a block of no lines: such may stand where the next key does.
fn ends_in_nothing(node: &Node, text: &str) -> bool {
    let (before, behind) = text.split_at(node.span.range.start);
    match &node.value {
        NodeValue::Map(entries) => entries.last().is_some_and(|(_, v)| ends_in_nothing(v, text)),
        NodeValue::List(items) => items.last().is_some_and(|item| ends_in_nothing(item, text)),
        NodeValue::String(said) => said.is_empty() && !behind.starts_with(['\'', '"']),
        NodeValue::Null => node.span.range.is_empty() && !before.ends_with(':'),
        _ => false,
    }
}

/// Spans of one text in another one: whatever began at or behind `from` ends as far from the end.
struct Moved<'a> {
    from: usize,
    /// Bytes of the other text.
    old: usize,
    source: &'a Arc<SourceText>,
}

impl Moved<'_> {
    fn apply(&self, node: &mut Node) {
        self.span(&mut node.span);
        match &mut node.value {
            NodeValue::List(items) => items.iter_mut().for_each(|item| self.apply(item)),
            NodeValue::Map(entries) => {
                for (key, value) in entries {
                    self.span(&mut key.span);
                    self.apply(value);
                }
            }
            _ => {}
        }
    }

    fn span(&self, span: &mut Span) {
        let place = |at: usize| at + self.source.text.len() - self.old;
        if span.range.start >= self.from {
            span.range = place(span.range.start)..place(span.range.end);
        }
        span.source = Arc::clone(self.source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::document;
    use super::*;

    fn spliced(old: &str, new: &str) -> Option<Node> {
        let tree = document("p.yaml", old).unwrap().tree;
        splice(tree, old, &Arc::new(SourceText::new("p.yaml", new)))
    }

    const TEXT: &str = "\
# A file with a little of everything.
preflow: 1
params: { p: 1, q: [a, b] } # two
base: &base { kind: command, n: 1 }
sources:
  text: { path: data/*.txt }
stages:
  one:
    kind: command
    inputs: { i: text }
    command: |
      cat $IN_i |
        sort && echo done

      # no comment

    outputs: { o: file }

  # Before the second.
  two:
    'quoted key': \"two
      lines\"
    plain: two
      more lines
    folded: >-
      a
      b
    nothing:
    list:
    - a: 1
      b: 2
    - [x,
       y]
  based: { <<: *base, n: 3 }
  drei_ü: { kind: k, inputs: { i: one/o }, 日本: é🦀,
    more: 1 }
  last:
    kind: k
    run: { retries: 2 }
";

    /// `TEXT` with one passage replaced.
    fn with(old: &str, new: &str) -> String {
        assert_eq!(TEXT.matches(old).count(), 1, "{old}");
        TEXT.replace(old, new)
    }

    #[test]
    fn ordinary_changes_are_spliced_into_what_the_whole_text_says() {
        for (old, new) in [
            ("p: 1, q: [a, b]", "p: 2, q: [a, b, c]"),
            ("data/*.txt", "data/**/*.parquet"),
            ("        sort", "        uniq"),
            ("    plain: two\n      more lines\n", "    plain: one line\n"),
            ("    nothing:\n", "    nothing: something\n"),
            ("    list:\n", "    other: 5\n    list:\n"),
            ("    - a: 1\n", "    - a: 1\n      c: ü\n"),
            ("kind: k, inputs", "kind: l, inputs"),
            ("retries: 2 }\n", "retries: 3 }\n"),
            ("retries: 2 }\n", "retries: 3 }"),
            ("  last:\n    kind: k\n", "  more:\n    kind: n\n  last:\n    kind: m\n"),
            ("    kind: k\n    run: { retries: 2 }\n", "    kind: k\n"),
            ("  # Before the second.\n", ""),
        ] {
            let new = with(old, new);
            let tree = document("p.yaml", &new).unwrap().tree;
            assert_eq!(spliced(TEXT, &new), Some(tree), "{new}");
        }
    }

    /// Said or not said, it is what the whole text says.
    fn agree(old: &str, new: &str) {
        if let Some(tree) = spliced(old, new) {
            let whole = document("p.yaml", new).map(|d| d.tree);
            assert_eq!(Ok(tree), whole, "{old}\n=== to ===\n{new}");
        }
    }

    #[test]
    fn what_reaches_beyond_its_lines_is_not_guessed_at() {
        for (old, new) in [
            // Ends the map, or the document.
            ("    kind: k\n    run", "kind: k\n    run"),
            ("    kind: k\n    run", "...\n    kind: k\n    run"),
            ("preflow: 1\n", "preflow: 1\n---\n"),
            // Goes on where it did not, or no longer.
            ("  two:\n", "  two: {\n"),
            ("    plain: two\n", "    plain: 'two\n"),
            ("      # no comment\n", "  # no comment\n"),
            ("    command: |\n", "    command: |+\n"),
            ("    list:\n", "    list: x\n"),
            ("    folded: >-\n      a\n      b\n", "    folded: >-\n\n"),
            // Means something elsewhere, or comes from there.
            ("&base { kind: command, n: 1 }", "&base { kind: command, n: 2 }"),
            ("&base ", ""),
            ("    kind: k\n    run", "    kind: *base\n    run"),
            ("    kind: k\n    run", "    kind: !include x.yaml\n    run"),
            // Is there already.
            ("  last:\n", "  one: { kind: k }\n  last:\n"),
            ("    kind: k\n    run", "    run: 1\n    kind: k\n    run"),
            ("# A file", "%YAML 1.1\n---\n# A file"),
            ("    kind: k\n    run", "    kind: k\rrun: 1\n    run"),
            ("    kind: k\n    run", "    kind: .inf\n    run"),
            (TEXT, ""),
            (TEXT, "x\n"),
        ] {
            agree(TEXT, &with(old, new));
        }
        let value = with("&base { kind: command, n: 1 }", "&base { kind: command, n: 2 }");
        assert_eq!(spliced(TEXT, &value), None, "`based` has that kind as well");
        assert_eq!(spliced(TEXT, &with("  last:\n", "  one: { kind: k }\n  last:\n")), None);
    }

    #[test]
    fn shipped_pipelines_lose_or_double_any_line() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()) {
            if file.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            // Files that include others are never spliced.
            let text = std::fs::read_to_string(file).unwrap().replace("!include ", "");
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for i in 0..lines.len() {
                count += 1;
                agree(&text, &[&lines[..i], &lines[i + 1..]].concat().concat());
                agree(&text, &[&lines[..i], &[lines[i]], &lines[i..]].concat().concat());
            }
        }
        assert!(count > 100, "{count}");
    }

    /// Pieces of lines that mean something to YAML.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "",
            " ",
            "  ",
            "    ",
            "\n",
            "\n\n",
            "\t",
            "\r\n",
            "x",
            "one",
            "two",
            "last",
            ":",
            ": ",
            "? ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "'",
            "\"",
            "|",
            "|+",
            ">-",
            "&a ",
            "&base ",
            "*a",
            "*base",
            "<<: *base",
            "!x ",
            "!include x",
            "%",
            "---",
            "...",
            "#",
            " # c",
            "~",
            "1e999",
            "é🦀",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "\\",
            "kind: k",
            "  x: 1\n",
            "    y: {z: 1}\n",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1000, failure_persistence: None, ..Default::default()
        })]

        /// Anything in place of up to three lines, at the beginning of a line or within it.
        #[test]
        fn a_tree_is_never_spliced_otherwise_than_parsed(
            at in 0..TEXT.lines().count(),
            lost in 0..4_usize,
            column in 0..12_usize,
            pieces in prop::collection::vec(piece(), 0..6),
        ) {
            let lines: Vec<&str> = TEXT.split_inclusive('\n').collect();
            let end = lines.len().min(at + lost);
            let kept: String = lines[at].chars().take(column).collect();
            let kept = if kept.ends_with('\n') { "" } else { &kept };
            let new = [&lines[..at].concat(), kept, &pieces.concat(), &lines[end..].concat()];
            agree(TEXT, &new.concat());
        }
    }
}
