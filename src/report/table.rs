//! Tables for terminals: columns as wide as they need to be, text folded where the terminal is
//! narrower. Numbers and names are never broken. Does not know what the cells mean.

use crate::text::{clean, markdown};
use textwrap::core::display_width;
use textwrap::{Options, WordSplitter, wrap};
use unicode_width::UnicodeWidthStr as _;

use super::{OutputStyle, Style};

/// Columns of a terminal below which nothing is laid out any more.
const NARROWEST: usize = 60;
/// Columns that a folded column keeps, if its words are not longer.
const LEAST: usize = 14;
/// A column is not made wider than this for the sake of a single long word.
const LONGEST_WORD: usize = 30;
const GAP: usize = 2;

/// A blank at which text is not folded: it is printed as an ordinary one.
pub const GLUE: char = '\u{a0}';

/// Text of one place, in which nothing hides, and its style.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

/// Rows of cells. The key columns are repeated where the others take more than one block.
#[derive(Debug, Clone)]
pub struct Table {
    keys: usize,
    marked: bool,
    rows: Vec<Vec<Cell>>,
    right: Vec<usize>,
    folding: Vec<usize>,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { text: clean(text), style: Style::Plain }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text: clean(&text), style: Style::Plain }
    }
}

impl Cell {
    #[must_use]
    pub fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { text: clean(&text.into()), style }
    }
}

impl Table {
    /// `folding`: columns of text, which are folded when there is no room.
    #[must_use]
    pub fn new(folding: &[usize]) -> Self {
        Self {
            keys: 1,
            marked: false,
            rows: Vec::new(),
            right: Vec::new(),
            folding: folding.to_vec(),
        }
    }

    /// So many columns at the left tell which row it is.
    pub fn keys(&mut self, keys: usize) -> &mut Self {
        self.keys = keys;
        self
    }

    /// The first column is a mark of the second one: a single blank parts them.
    pub fn marked(&mut self) -> &mut Self {
        (self.marked, self.keys) = (true, 2);
        self
    }

    fn gap(&self, column: usize) -> usize {
        if self.marked && column == 0 { 1 } else { GAP }
    }

    /// Aligns a column at its right end.
    pub fn right(&mut self, column: usize) -> &mut Self {
        self.right.push(column);
        self
    }

    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, each line begun with a blank and ended with a line feed.
    #[must_use]
    pub fn text(&self, look: OutputStyle) -> String {
        if look.markdown {
            return self.markdown();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let of = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let natural = |column| of(column).map(|c| c.text.width()).max().unwrap_or(0);
        let natural: Vec<usize> = (0..columns).map(natural).collect();
        let all: Vec<usize> = (0..columns).collect();
        let Some(room) = look.width.map(|w| w.max(NARROWEST)) else {
            return self.block(&natural, &all, look);
        };
        let word = |text: &str| text.split(' ').map(|w| w.width()).max().unwrap_or(0);
        let least = |column| {
            let longest = of(column).map(|c| word(&c.text)).max().unwrap_or(0);
            longest.clamp(LEAST, LONGEST_WORD)
        };
        // The widest column of text gives way first.
        let fitted = |columns: &[usize]| {
            let mut widths = natural.clone();
            let total = |widths: &[usize]| columns.iter().map(|c| widths[*c] + GAP).sum::<usize>();
            while total(&widths) + 1 > room + GAP {
                let folding = self.folding.iter().filter(|c| columns.contains(c));
                let able = folding.filter(|c| widths[**c] > least(**c));
                let Some(&widest) = able.max_by_key(|c| widths[**c]) else { break };
                widths[widest] -= 1;
            }
            widths
        };
        let blocks = blocks(&fitted(&all), self.keys, room).into_iter();
        let shown: Vec<String> = blocks.map(|b| self.block(&fitted(&b), &b, look)).collect();
        shown.join("\n")
    }

    /// The table for a git host; marks stand in a column of their own.
    fn markdown(&self) -> String {
        let text = |cell: &Cell| cell.text.trim().replace(GLUE, " ");
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(text).collect()).collect();
        markdown::table(&rows, &self.right)
    }

    fn block(&self, widths: &[usize], columns: &[usize], look: OutputStyle) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let folded: Vec<Vec<String>> = columns
                .iter()
                .map(|c| row.get(*c).map_or_else(Vec::new, |cell| self.lines(cell, *c, widths)))
                .collect();
            for line in 0..folded.iter().map(Vec::len).max().unwrap_or(0).max(1) {
                let mut text = String::new();
                // Blanks are written when something follows: a line ends with its last word.
                let mut blanks = 1;
                for (column, lines) in columns.iter().zip(&folded) {
                    let piece = lines.get(line).map_or("", String::as_str);
                    let pad = widths[*column].saturating_sub(piece.width());
                    let (before, after) =
                        if self.right.contains(column) { (pad, 0) } else { (0, pad) };
                    if piece.is_empty() {
                        blanks += pad + self.gap(*column);
                        continue;
                    }
                    text.push_str(&" ".repeat(blanks + before));
                    text.push_str(&match row[*column].style {
                        Style::Plain => piece.to_owned(),
                        style => look.paint(style, piece),
                    });
                    blanks = after + self.gap(*column);
                }
                out.push_str(&text.replace(GLUE, " "));
                out.push('\n');
            }
        }
        out
    }

    fn lines(&self, cell: &Cell, column: usize, widths: &[usize]) -> Vec<String> {
        if !self.folding.contains(&column) || cell.text.width() <= widths[column] {
            return vec![cell.text.clone()];
        }
        folded(&cell.text, widths[column])
    }
}

/// Columns that stand side by side; the first `keys` of them are repeated.
fn blocks(widths: &[usize], keys: usize, room: usize) -> Vec<Vec<usize>> {
    let keys = keys.min(widths.len());
    let own: usize = widths[..keys].iter().map(|w| w + GAP).sum();
    let mut blocks = vec![(0..keys).collect::<Vec<_>>()];
    let mut used = own;
    for (column, width) in widths.iter().enumerate().skip(keys) {
        // A blank at the left, and no gap after the last one.
        if used + width + 1 > room && used > own {
            blocks.push((0..keys).collect());
            used = own;
        }
        used += width + GAP;
        blocks.last_mut().expect("invariant: there is a block").push(column);
    }
    blocks
}

/// Text in lines of that width. Words stay whole unless they are longer than a line.
fn folded(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1)).word_splitter(WordSplitter::NoHyphenation);
    wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Text that begins after so many columns and goes on below its own beginning. Lines that it has
/// already are kept.
#[must_use]
pub fn hang(text: &str, indent: usize, look: OutputStyle) -> String {
    let Some(room) = look.width.map(|w| w.max(NARROWEST)) else {
        return text.replace(GLUE, " ");
    };
    let room = room.saturating_sub(indent).max(LEAST);
    let lines: Vec<String> = text
        .lines()
        .flat_map(
            |line| if display_width(line) > room { folded(line, room) } else { vec![line.into()] },
        )
        .collect();
    lines.join(&format!("\n{}", " ".repeat(indent))).replace(GLUE, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(width: usize) -> OutputStyle {
        OutputStyle { width: Some(width), ..OutputStyle::default() }
    }

    fn plan() -> Table {
        let mut table = Table::new(&[2]);
        table.right(3);
        table.row(["stage", "state", "why", "est"]);
        table.row(["tokenizer", "reuse", "", "–"]);
        table.row([
            "base",
            "run",
            "train.lr 0.0005 → 0.00025, input text changed, seed 7 → 9",
            "51s",
        ]);
        table
    }

    #[test]
    fn text_is_folded_below_itself_and_numbers_stay_whole() {
        assert_eq!(
            plan().text(look(60)),
            " stage      state  why                                   est\n \
             tokenizer  reuse                                          –\n \
             base       run    train.lr 0.0005 → 0.00025, input      51s\n \
             \x20                 text changed, seed 7 → 9\n"
        );
        let whole = plan().text(OutputStyle::default());
        assert_eq!(whole.lines().count(), 3);
        assert_eq!(whole, plan().text(look(200)));
        // A terminal of forty columns breaks lines itself: less than sixty is not laid out.
        assert_eq!(plan().text(look(40)), plan().text(look(60)));
    }

    #[test]
    fn columns_without_room_follow_below_beside_the_first() {
        let mut table = Table::new(&[]);
        let numbers: Vec<String> = (0..9).map(|i| format!("0.15{i} ± 0.02")).collect();
        table.row(std::iter::once("who".to_owned()).chain((0..9).map(|i| format!("figure {i}"))));
        table.row(std::iter::once("ann".to_owned()).chain(numbers.clone()));
        let text = table.text(look(60));
        assert!(text.lines().all(|l| l.width() <= 60), "{text}");
        assert_eq!(text.lines().filter(|l| l.starts_with(" ann")).count(), 3, "{text}");
        assert!(numbers.iter().all(|n| text.contains(n.as_str())), "{text}");
    }

    #[test]
    fn long_words_are_broken_only_where_nothing_else_fits() {
        let mut table = Table::new(&[1]);
        table.row(["a", &"x".repeat(100)]);
        table.row(["b", &format!("2026-01-31{GLUE}22:03 {}", "word ".repeat(12))]);
        let text = table.text(look(60));
        assert!(text.lines().all(|l| l.width() <= 60), "{text}");
        assert!(text.contains("2026-01-31 22:03"), "{text}");
    }

    #[test]
    fn a_text_hangs_below_its_beginning() {
        let text = "one two three four five six seven eight nine ten eleven twelve";
        let hung = hang(&format!("{text}\n= help: {text}"), 10, look(60));
        assert!(hung.lines().skip(1).all(|l| l.starts_with(&" ".repeat(10))), "{hung}");
        assert!(hung.lines().skip(1).all(|l| l.width() <= 60), "{hung}");
        assert_eq!(hang(text, 10, OutputStyle::default()), text);
        let glued = format!("{} figure{GLUE}400", "word ".repeat(10).trim_end());
        assert_eq!(hang(&glued, 2, look(60)).lines().last(), Some("  figure 400"));
        assert!(hang(&glued, 2, OutputStyle::default()).ends_with("word figure 400"));
    }
}
