//! One block of Markdown as elements: a short list of them, whose attributes are ours alone.
//! Refuses a block of which a reader would not see every word.

use std::ops::Range;

use maud::Render as _;
use pulldown_cmark::{Alignment, CodeBlockKind, Event, HeadingLevel, LinkType, Tag, TagEnd};

use super::visible::{write, write_marked};

/// An event of the parser, and where in the text.
pub type PlacedEvent<'a> = (Event<'a>, Range<usize>);

/// Deeper nested blocks are shown as they are written.
const DEEPEST: usize = 20;

/// The words to mark, asked for in the order of the text.
#[derive(Debug)]
pub struct Changed<'a> {
    ranges: &'a [Range<usize>],
    passed: usize,
}

impl<'a> Changed<'a> {
    pub fn new(ranges: &'a [Range<usize>]) -> Self {
        Self { ranges, passed: 0 }
    }

    /// Those that touch a part of the text.
    fn inside(&mut self, at: &Range<usize>) -> &'a [Range<usize>] {
        while self.ranges.get(self.passed).is_some_and(|range| range.end <= at.start) {
            self.passed += 1;
        }
        let rest = &self.ranges[self.passed..];
        &rest[..rest.iter().take_while(|range| range.start < at.end).count()]
    }
}

/// What is open, and how far the text was shown.
struct Writer<'a, 'c> {
    text: &'a str,
    out: String,
    /// Every word before this place is on the page.
    shown: usize,
    depth: usize,
    changed: &'c mut Changed<'a>,
    columns: Vec<Alignment>,
    column: usize,
    head: bool,
    cell: &'static str,
    code: bool,
    /// Of each open link or picture: its address, its title, and what it says.
    links: Vec<[String; 3]>,
}

/// The elements of a block; `None`: it is to be shown as it is written.
pub fn block<'a>(
    text: &'a str,
    events: &[PlacedEvent<'a>],
    changed: &mut Changed<'a>,
) -> Option<String> {
    let shown = events.first()?.1.start;
    let mut writer = Writer {
        text,
        out: String::new(),
        shown,
        depth: 0,
        changed,
        columns: Vec::new(),
        column: 0,
        head: false,
        cell: "td",
        code: false,
        links: Vec::new(),
    };
    let mut rest = events.iter().peekable();
    while let Some((event, at)) = rest.next() {
        match event {
            Event::Start(tag) => {
                let empty = matches!(rest.peek(), Some((Event::End(TagEnd::TableCell), _)));
                writer.start(tag, at, empty)?;
                writer.depth += 1;
                if writer.depth > DEEPEST {
                    return None;
                }
            }
            Event::End(tag) => {
                writer.depth -= 1;
                writer.end(*tag, at)?;
            }
            Event::Text(said) | Event::Html(said) | Event::InlineHtml(said) => {
                writer.words(said, at)?;
            }
            Event::Code(said) => {
                writer.out.push_str("<code>");
                writer.words(said, at)?;
                writer.out.push_str("</code>");
            }
            Event::SoftBreak | Event::HardBreak => writer.words("\n", at)?,
            Event::Rule => writer.out.push_str("<hr>"),
            _ => return None,
        }
    }
    // What a reader would miss at the end.
    let end = events.iter().map(|(_, at)| at.end).max()?;
    writer.passes(end)?;
    Some(writer.out)
}

impl Writer<'_, '_> {
    /// Goes on to a place of the text; `None` where a word before it is on no page.
    fn passes(&mut self, to: usize) -> Option<()> {
        if self.shown < to {
            let signs = self.text.get(self.shown..to)?;
            if signs.chars().any(char::is_alphanumeric) {
                return None;
            }
            self.shown = to;
        }
        Some(())
    }

    /// What is said at a place.
    fn words(&mut self, said: &str, at: &Range<usize>) -> Option<()> {
        self.passes(at.start)?;
        self.shown = self.shown.max(at.end);
        for link in &mut self.links {
            link[2].push_str(said);
        }
        let source = self.text.get(at.clone())?;
        let changed = self.changed.inside(at);
        // Of entities and the like the place of single letters is not known.
        let Some(offset) = source.find(said).map(|offset| at.start + offset) else {
            let all = 0..said.len();
            let changed = if changed.is_empty() { &[][..] } else { std::slice::from_ref(&all) };
            write_marked(&mut self.out, said, changed, self.code);
            return Some(());
        };
        let inside = |range: &Range<usize>| {
            range.start.saturating_sub(offset)..range.end.saturating_sub(offset)
        };
        let changed: Vec<Range<usize>> = changed.iter().map(inside).collect();
        write_marked(&mut self.out, said, &changed, self.code);
        Some(())
    }

    /// The first element of a block takes its direction from its text.
    fn open(&mut self, name: &str, class: &str) {
        self.out.push('<');
        self.out.push_str(name);
        if !class.is_empty() {
            self.out.push_str(&format!(" class=\"{class}\""));
        }
        self.out.push_str(if self.depth == 0 { " dir=\"auto\">" } else { ">" });
    }

    fn start(&mut self, tag: &Tag, at: &Range<usize>, empty: bool) -> Option<()> {
        match tag {
            Tag::Paragraph => self.open("p", ""),
            // No headings of the page: its outline is its own.
            Tag::Heading { level, .. } => self.open("div", heading(*level)),
            Tag::BlockQuote(_) => self.open("blockquote", ""),
            Tag::HtmlBlock => self.open("div", "written"),
            Tag::CodeBlock(kind) => {
                self.passes(at.start)?;
                if let CodeBlockKind::Fenced(info) = kind {
                    let line = self.text.get(at.clone())?.find('\n');
                    self.shown = self.shown.max(at.start + line.unwrap_or(at.len()));
                    if !info.trim().is_empty() {
                        self.out.push_str("<p class=\"language\" dir=\"auto\">");
                        write(&mut self.out, info, false);
                        self.out.push_str("</p>");
                    }
                }
                self.out.push_str(CODE);
                self.code = true;
            }
            Tag::List(None) => self.open("ul", ""),
            Tag::List(Some(first)) => {
                let direction = if self.depth == 0 { " dir=\"auto\"" } else { "" };
                self.out.push_str(&format!("<ol start=\"{first}\"{direction}>"));
            }
            Tag::Item => {
                self.passes(at.start)?;
                // The number before an item is told by the list.
                let item = self.text.get(at.clone())?;
                let number = item.trim_start_matches(|c: char| c.is_ascii_digit());
                self.shown = self.shown.max(at.start + (item.len() - number.len()));
                self.out.push_str("<li>");
            }
            Tag::Table(columns) => {
                self.columns.clone_from(columns);
                self.out.push_str(
                    "<div class=\"sideways\" tabindex=\"0\" role=\"group\" aria-label=\"Table\">",
                );
                self.open("table", "");
            }
            Tag::TableHead => {
                (self.head, self.column) = (true, 0);
                self.out.push_str("<thead><tr>");
            }
            Tag::TableRow => {
                self.column = 0;
                self.out.push_str("<tr>");
            }
            Tag::TableCell => {
                let class = match self.columns.get(self.column) {
                    Some(Alignment::Right) => " class=\"to-right\"",
                    Some(Alignment::Center) => " class=\"to-centre\"",
                    _ => "",
                };
                // A head that says nothing is none.
                self.cell = if self.head && !empty { "th" } else { "td" };
                self.out.push_str(&format!("<{}{class}>", self.cell));
            }
            Tag::Emphasis => self.out.push_str("<em>"),
            Tag::Strong => self.out.push_str("<strong>"),
            Tag::Strikethrough => self.out.push_str("<del>"),
            Tag::Link { link_type, dest_url, title, .. } => {
                // An address of mail is its own text.
                let address = if *link_type == LinkType::Email { "" } else { dest_url };
                self.link("", address, title, at)?;
            }
            Tag::Image { dest_url, title, .. } => self.link("image: ", dest_url, title, at)?,
            _ => return None,
        }
        Some(())
    }

    fn link(&mut self, what: &str, address: &str, title: &str, at: &Range<usize>) -> Option<()> {
        self.passes(at.start)?;
        self.links.push([address.to_owned(), title.to_owned(), String::new()]);
        self.out.push_str("<span class=\"link\">");
        self.out.push_str(what);
        Some(())
    }

    fn end(&mut self, tag: TagEnd, at: &Range<usize>) -> Option<()> {
        let close = match tag {
            TagEnd::Paragraph => "</p>",
            TagEnd::Heading(_) | TagEnd::HtmlBlock => "</div>",
            TagEnd::BlockQuote(_) => "</blockquote>",
            TagEnd::CodeBlock => {
                self.code = false;
                "</code></pre>"
            }
            TagEnd::List(true) => "</ol>",
            TagEnd::List(false) => "</ul>",
            TagEnd::Item => "</li>",
            TagEnd::Table => "</tbody></table></div>",
            TagEnd::TableHead => {
                self.head = false;
                "</tr></thead><tbody>"
            }
            TagEnd::TableRow => "</tr>",
            TagEnd::TableCell => {
                self.column += 1;
                if self.cell == "th" { "</th>" } else { "</td>" }
            }
            TagEnd::Emphasis => "</em>",
            TagEnd::Strong => "</strong>",
            TagEnd::Strikethrough => "</del>",
            TagEnd::Link | TagEnd::Image => {
                self.address();
                self.shown = self.shown.max(at.end);
                "</span>"
            }
            _ => return None,
        };
        self.out.push_str(close);
        Some(())
    }

    /// Where a link leads, unless that is what it says.
    fn address(&mut self) {
        let [address, title, said] = self.links.pop().unwrap_or_default();
        if title.is_empty() && (address.is_empty() || address == said) {
            return;
        }
        self.out.push_str(" <span class=\"address\">(");
        write(&mut self.out, &address, false);
        if !title.is_empty() {
            let gap = if address.is_empty() { "" } else { " " };
            format!("{gap}“").render_to(&mut self.out);
            write(&mut self.out, &title, false);
            self.out.push('”');
        }
        self.out.push_str(")</span>");
    }
}

/// Code that is too wide scrolls by itself, also by keyboard.
pub const CODE: &str = "<pre tabindex=\"0\" role=\"group\" aria-label=\"Code\" dir=\"auto\"><code>";

fn heading(level: HeadingLevel) -> &'static str {
    match level {
        HeadingLevel::H1 => "head h1",
        HeadingLevel::H2 => "head h2",
        _ => "head",
    }
}
