//! Words of others as HTML: what Markdown says, what it would leave out, what would like to run.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::markdown::raw;
use super::{RenderedText, TextForm, mark_changes, markdown, rendered, visible};
use crate::text::Shown;

fn html(text: &str) -> String {
    markdown(text, &[]).into_string()
}

/// Elements that may be on a page, and the attributes of each, word by word.
const ELEMENTS: &[(&str, &[&str])] = &[
    ("p", &["dir=\"auto\"", "class=\"role\"", "class=\"part\"", "class=\"language\" dir=\"auto\""]),
    (
        "div",
        &[
            "class=\"head\"",
            "class=\"head h1\"",
            "class=\"head h2\"",
            "class=\"head\" dir=\"auto\"",
            "class=\"head h1\" dir=\"auto\"",
            "class=\"head h2\" dir=\"auto\"",
            "class=\"turn\"",
            "class=\"written\"",
            "class=\"written\" dir=\"auto\"",
            "class=\"said\"",
            "class=\"sideways\" tabindex=\"0\" role=\"group\" aria-label=\"Table\"",
        ],
    ),
    ("blockquote", &["dir=\"auto\""]),
    ("pre", &["tabindex=\"0\" role=\"group\" aria-label=\"Code\" dir=\"auto\""]),
    ("code", &[]),
    ("ul", &["dir=\"auto\""]),
    ("ol", &["start=\"N\"", "start=\"N\" dir=\"auto\""]),
    ("li", &[]),
    ("table", &["dir=\"auto\""]),
    ("thead", &[]),
    ("tbody", &[]),
    ("tr", &[]),
    ("th", &["class=\"to-right\"", "class=\"to-centre\""]),
    ("td", &["class=\"to-right\"", "class=\"to-centre\""]),
    ("em", &[]),
    ("strong", &[]),
    ("del", &[]),
    ("hr", &[]),
    (
        "span",
        &[
            "class=\"link\"",
            "class=\"address\"",
            "class=\"sign\"",
            "class=\"changed\"",
            "class=\"nothing\"",
        ],
    ),
];

/// The text of a part of a page, its elements left out; each is one of ours, opened and closed.
fn text_of(html: &str) -> String {
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{html}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let (_, known) = ELEMENTS.iter().find(|(known, _)| *known == name).expect(tag);
        let digits = |c: char| c.is_ascii_digit();
        let plain = match attributes.strip_prefix("start=\"") {
            Some(rest) => format!("start=\"N{}", rest.trim_start_matches(digits)),
            None => attributes.to_owned(),
        };
        assert!(plain.is_empty() || known.contains(&plain.as_str()), "{tag}");
        if name != "hr" {
            open.push(name);
        }
    }
    text.push_str(rest);
    assert_eq!(open, Vec::<&str>::new(), "{html}");
    for (sign, c) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")] {
        text = text.replace(sign, c);
    }
    text
}

#[test]
fn markdown_becomes_few_elements() {
    for (text, expected) in [
        ("one\ntwo  \nthree", "<p dir=\"auto\">one\ntwo\nthree</p>"),
        (
            "# a *b* **c** ~~d~~ `e`",
            "<div class=\"head h1\" dir=\"auto\">a <em>b</em> \
            <strong>c</strong> <del>d</del> <code>e</code></div>",
        ),
        (
            "- a\n- b\n  1. c",
            "<ul dir=\"auto\"><li>a</li><li>b<ol start=\"1\"><li>c</li></ol></li></ul>",
        ),
        ("7. a\n8. b", "<ol start=\"7\" dir=\"auto\"><li>a</li><li>b</li></ol>"),
        ("> a\n>\n> b", "<blockquote dir=\"auto\"><p>a</p><p>b</p></blockquote>"),
        ("a\n\n---\n\nb", "<p dir=\"auto\">a</p><hr><p dir=\"auto\">b</p>"),
        (
            "```rust\nlet a = \"<b>\";\n\tx\n```",
            "<p class=\"language\" dir=\"auto\">rust</p>\
            <pre tabindex=\"0\" role=\"group\" aria-label=\"Code\" dir=\"auto\"><code>\
            let a = &quot;&lt;b&gt;&quot;;\n\tx\n</code></pre>",
        ),
        (
            "|a|b|\n|-|-:|\n|1|2|",
            "<div class=\"sideways\" tabindex=\"0\" role=\"group\" \
            aria-label=\"Table\"><table dir=\"auto\"><thead><tr><th>a</th><th class=\"to-right\">b\
            </th></tr></thead><tbody><tr><td>1</td><td class=\"to-right\">2</td></tr></tbody></table>\
            </div>",
        ),
        (
            "[a](http://b \"c\")",
            "<p dir=\"auto\"><span class=\"link\">a <span class=\"address\">\
            (http://b “c”)</span></span></p>",
        ),
        ("<http://b>", "<p dir=\"auto\"><span class=\"link\">http://b</span></p>"),
        (
            "![a](b.png)",
            "<p dir=\"auto\"><span class=\"link\">image: a <span class=\"address\">\
            (b.png)</span></span></p>",
        ),
        (
            "<details open>\n<b>x</b>",
            "<div class=\"written\" dir=\"auto\">&lt;details open&gt;\n\
            &lt;b&gt;x&lt;/b&gt;</div>",
        ),
        (
            "a <b>c</b> &lt;i&gt; \\*d\\*",
            "<p dir=\"auto\">a &lt;b&gt;c&lt;/b&gt; &lt;i&gt; *d*</p>",
        ),
        ("", ""),
    ] {
        assert_eq!(html(text), expected, "{text}");
        text_of(&html(text));
    }
}

/// What Markdown would not show is shown as it is written.
#[test]
fn no_word_is_left_out() {
    for (text, expected) in [
        ("see [a].\n\n[a]: http://b \"hidden words\"", "[a]: http://b \"hidden words\""),
        ("[a]: c\n[a]: twice\n\nx", "[a]: c\n[a]: twice"),
        ("> [x]: quoted\n>\n> said", "> [x]: quoted\n>\n> said"),
        ("|a|\n|-|\n|1|surplus|", "|a|\n|-|\n|1|surplus|"),
        ("[^1]: word\n\na[^1]", "[^1]: word"),
        ("``` rust {.class secret}\nx\n```", "rust {.class secret}"),
        ("<!-- comment -->\n\nx", "<!-- comment -->"),
    ] {
        let shown = html(text);
        assert!(text_of(&shown).contains(expected), "{shown}");
    }
}

#[test]
fn nothing_hides_and_emoji_stay_whole() {
    let shown = visible("a<b>&\"\u{202e}x\u{0}\u{1b}[31m\u{200b}\u{e0041}\nb").into_string();
    assert_eq!(
        shown,
        "a&lt;b&gt;&amp;&quot;<span class=\"sign\">⟨202E⟩</span>x<span class=\"sign\">␀␛</span>[31m\
         <span class=\"sign\">⟨200B⟩⟨E0041⟩</span>\nb"
    );
    let emoji = "👩\u{200d}👧 ❤\u{fe0f}";
    assert_eq!(visible(emoji).into_string(), emoji);
    assert!(visible(&"x".repeat(9999)).into_string().len() < 4100);
    // Also where an entity or code brings it in.
    assert!(html("a&#x202e;b").contains("<span class=\"sign\">⟨202E⟩</span>"));
    assert!(html("`\u{200b}\u{1b}`").contains("<span class=\"sign\">⟨200B⟩␛</span>"));
    assert!(html("a\u{200b}\u{fe0f}\u{200b}").contains("⟨200B⟩⟨FE0F⟩⟨200B⟩"));
}

/// Nested by the thousand, or a megabyte long: a page stays small and is there at once.
#[test]
fn deep_and_huge_texts_are_shown_in_time() {
    let n = 10_000;
    let texts = [
        ">".repeat(n) + " deep",
        "> ".repeat(n) + "deep",
        "*".repeat(n) + "deep" + &"*".repeat(n),
        "*a ".repeat(n) + &"b*".repeat(n),
        "**a _b ".repeat(n),
        "- ".repeat(n) + "deep",
        (0..2000).map(|i| " ".repeat(2 * i) + "- deep\n").collect::<String>(),
        "[".repeat(n) + "deep" + &"](x)".repeat(n),
        "![".repeat(n) + "deep",
        "`".repeat(n) + "deep",
        (1..1400).map(|i| "`".repeat(i) + " ").collect::<String>(),
        "<div>\n".repeat(n),
        "<!--".repeat(n),
        "<a b='".repeat(n),
        "&".repeat(n) + "#x",
        "|a".repeat(n) + "\n" + &"|-".repeat(n) + "\n" + &"|deep".repeat(n),
        format!("[a]: {}\n\n", "deep".repeat(n)) + &"[a] ".repeat(n),
        "\\".repeat(n),
        "1. ".repeat(n),
        "~~a ".repeat(n),
        "word ".repeat(200_000),
        "**bold** and `code`\n\n- item\n".repeat(36_000),
        "# head\n".repeat(150_000),
        "\u{202e}".repeat(350_000),
        "a\u{200b}".repeat(100_000),
    ];
    for text in texts {
        let start = Instant::now();
        let page = html(&text);
        let took = start.elapsed();
        let begin: String = text.chars().take(20).collect();
        assert!(took < Duration::from_secs(8), "{begin}: {took:?}");
        assert!(page.len() < 12 * text.len() + 400_000, "{begin}: {} bytes", page.len());
        text_of(&page);
        let (mut depth, mut deepest) = (0_i64, 0);
        for (at, _) in page.match_indices('<') {
            depth += if page[at..].starts_with("</") {
                -1
            } else {
                i64::from(!page[at..].starts_with("<hr"))
            };
            deepest = deepest.max(depth);
        }
        assert!(deepest < 60, "{begin}: {deepest} deep");
    }
}

#[test]
fn changed_words_are_marked_inside_of_markdown() {
    let (mut one, mut other) = (
        RenderedText::of("the **red** cat &amp; `x`", 99),
        RenderedText::of("the **blue** cat &amp; `y`", 99),
    );
    mark_changes(&mut one, &mut other);
    let shown = one.page(TextForm::Markdown).into_string();
    assert!(shown.contains("<span class=\"changed\">red</span>"), "{shown}");
    assert!(shown.contains("<code><span class=\"changed\">x</span></code>"), "{shown}");
    assert!(!shown.contains("cat</span>"), "{shown}");
    let shown = other.page(TextForm::Raw).into_string();
    assert!(shown.contains("<span class=\"changed\">**blue**</span>"), "{shown}");
}

#[test]
fn turns_have_roles_and_say_all_that_they_hold() {
    let chat = r#"[{"role":"system","content":"Be **short**."},
        {"role":"user","content":"Weather?"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
            "function":{"name":"get_weather","arguments":"{\"city\": \"Oslo\"}"}}]},
        {"role":"tool","name":"get_weather","tool_call_id":"c1","content":"<b>4</b>"},
        {"role":"developer","content":""}]"#;
    let saying = RenderedText::of(chat, 1000);
    let page = saying.page(TextForm::Markdown).into_string();
    let text = text_of(&page);
    for part in [
        "System",
        "User",
        "Assistant",
        "Tool",
        "Developer",
        "calls get_weather (c1)",
        "{\"city\": \"Oslo\"}",
        "tool_call_id",
        "<b>4</b>",
        "(nothing)",
    ] {
        assert!(text.contains(part), "{part}: {page}");
    }
    assert!(page.contains("<strong>short</strong>"));
    assert!(saying.page(TextForm::Raw).into_string().contains("Be **short**."));
    assert!(!saying.cut);
    // Long ones are cut as a whole, none of it turned into JSON.
    let saying = RenderedText::of(chat, 20);
    assert!(saying.cut);
    assert!(!text_of(&saying.page(TextForm::Markdown).into_string()).contains("Tool"));
    // A plain answer has no heading; one that only looks like a list of messages is a text.
    assert_eq!(text_of(&rendered(r#"[{"role":"assistant","content":"hi"}]"#).into_string()), "hi");
    assert_eq!(text_of(&rendered("[{nothing").into_string()), "[{nothing");
    assert_eq!(text_of(&rendered("").into_string()), "(nothing)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is written: elements are ours and closed, and no word of it is missing.
    #[test]
    fn every_word_is_on_the_page(text in "([a-c]|[ \n\t>*_`#|:&;()<!-]|\\[|\\]|\\\\|1\\.|~~|é|ש|\u{202e}|http://x){0,60}") {
        let shown = text_of(&html(&text));
        let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphabetic()).collect() };
        let hidden = Shown::of(&text, usize::MAX).text;
        prop_assert_eq!(letters(&shown).replace("image", ""), letters(&hidden).replace("image", ""));
        let whole = raw(&text, &[]).into_string();
        prop_assert_eq!(text_of(&whole), hidden);
    }
}
