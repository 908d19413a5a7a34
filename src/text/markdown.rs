//! Output for pull requests and wikis: Markdown as git hosts read it (GitHub, GitLab). Whatever
//! comes from files or models is text there: no markup, no HTML, nobody is notified by it.

/// A table; the first row is its heads. Columns at `right` are aligned at their right end.
#[must_use]
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cell = |i: usize| row.get(i).map(|text| escaped(text)).unwrap_or_default();
        format!("| {} |\n", (0..columns).map(cell).collect::<Vec<_>>().join(" | "))
    };
    let mut lines = rows.iter().map(line);
    let Some(mut out) = lines.next() else { return String::new() };
    let rule = |i: usize| if right.contains(&i) { "---:" } else { "---" };
    out.push_str(&format!("| {} |\n", (0..columns).map(rule).collect::<Vec<_>>().join(" | ")));
    out.extend(lines);
    out
}

/// Text in which nothing is markup: characters that would be are entities, and the signs of
/// mentions and references are parted from what follows.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '@' | '#' | '!' => out.push_str(&format!("&#{};<!-- -->", u32::from(c))),
            '\n' | '\r' => out.push_str("<br>"),
            // Addresses and names of emoji.
            ':' if rest
                .peek()
                .is_some_and(|next| next.is_alphanumeric() || "/+-_".contains(*next)) =>
            {
                out.push_str(":<!-- -->");
            }
            '&' | '<' | '>' | '"' | '`' | '*' | '_' | '~' | '[' | ']' | '|' | '\\' | '$' => {
                out.push_str(&format!("&#{};", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    // Hosts make links of these without any markup.
    out.replace("www.", "www<!-- -->.")
}

/// A part that is folded until somebody opens it.
#[must_use]
pub fn folded(title: &str, body: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n\n{}\n</details>\n",
        escaped(title),
        body.trim_end_matches('\n').to_owned() + "\n"
    )
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;

    /// What a reader of Markdown makes of it: the text, and everything that is not text.
    fn read(markdown: &str) -> (String, Vec<String>) {
        let (mut text, mut other) = (String::new(), Vec::new());
        for event in Parser::new_ext(markdown, Options::all()) {
            match event {
                Event::Text(part) => text.push_str(&part),
                Event::Start(Tag::Paragraph) | Event::End(_) => {}
                Event::InlineHtml(html) if &*html == "<!-- -->" => {}
                event => other.push(format!("{event:?}")),
            }
        }
        (text, other)
    }

    #[test]
    fn whatever_is_said_stays_text() {
        let sayings = [
            "`code` *bold* __bold__ ~~gone~~ <img src=x onerror=alert(1)> [a](http://x) ![b](c)",
            "a | b \\| c &amp; &lt;b&gt; $x^2$ \\* https://example.org/x#y",
            "www.example.org 12%",
            "train.lr 0.0005 → 0.00025",
        ];
        for said in sayings {
            let (text, other) = read(&escaped(said));
            assert_eq!(text, said);
            assert_eq!(other, Vec::<String>::new(), "{said}");
        }
        // Hosts look for these in the text between tags.
        for (said, written) in [("@all", "&#64;<!-- -->all"), ("a#12", "a&#35;<!-- -->12")] {
            assert_eq!(escaped(said), written);
        }
    }

    #[test]
    fn a_table_has_as_many_cells_in_each_row() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["stage", "why", "est"]), row(&["sft", "a|b\nc"]), row(&[])];
        let text = table(&rows, &[2]);
        let right = "| stage | why | est |\n| --- | --- | ---: |\n\
                     | sft | a&#124;b<br>c |  |\n|  |  |  |\n";
        assert_eq!(text, right);
        let cells = Parser::new_ext(&text, Options::all())
            .filter(|event| matches!(event, Event::Start(Tag::TableCell)))
            .count();
        assert_eq!(cells, 9);
        assert_eq!(table(&[], &[]), "");
    }
}
