//! Text of models that would like to be more than text: nothing of it runs, all of it can be read.

use super::cdp::Browser;
use super::support::{Server, Workspace};
use preflow::text::Shown;

/// Would call `hit` if it were ever anything but text.
fn payloads() -> Vec<String> {
    let calls = ["hit(1)", "alert(1)", "window.__hits.push(1)"];
    let markup = [
        "<script>CALL</script>",
        "<SCRIPT SRC=\"data:text/javascript,CALL\"></SCRIPT>",
        "<script type=module>CALL</script>",
        "</script><script>CALL</script>",
        "<img src=x onerror=CALL>",
        "<img src=x onerror=\"CALL\"//",
        "<svg onload=CALL>",
        "<svg><script>CALL</script></svg>",
        "<svg><animate onbegin=CALL attributeName=x dur=1s>",
        "<svg><foreignObject><iframe srcdoc=\"<script>parent.CALL</script>\"></foreignObject></svg>",
        "<math><mtext><table><mglyph><style><img src=x onerror=CALL>",
        "<iframe src=\"javascript:CALL\"></iframe>",
        "<iframe srcdoc=\"<script>parent.CALL</script>\"></iframe>",
        "<object data=\"javascript:CALL\"></object>",
        "<embed src=\"javascript:CALL\">",
        "<a href=\"javascript:CALL\" autofocus onfocus=CALL>x</a>",
        "<body onload=CALL>",
        "<details open ontoggle=CALL>x</details>",
        "<video><source onerror=CALL></video>",
        "<audio src=x onerror=CALL>",
        "<input autofocus onfocus=CALL>",
        "<select autofocus onfocus=CALL>",
        "<textarea autofocus onfocus=CALL>",
        "<marquee onstart=CALL>x</marquee>",
        "<form action=\"javascript:CALL\"><button>x</button></form>",
        "<base href=\"javascript:CALL//\">",
        "<meta http-equiv=refresh content=\"0;url=javascript:CALL\">",
        "<link rel=stylesheet href=\"data:text/css,*{background:url(javascript:CALL)}\">",
        "<style>@import 'javascript:CALL'; body { display: none }</style>",
        "<template><script>CALL</script></template>",
        "<noscript><p title=\"</noscript><img src=x onerror=CALL>\">",
        "<!--><img src=x onerror=CALL>-->",
        "<![CDATA[<script>CALL</script>]]>",
        "<?xml version=\"1.0\"?><script>CALL</script>",
        "\"><script>CALL</script>",
        "'><img src=x onerror=CALL>",
        "\" onmouseover=\"CALL\" x=\"",
        "' autofocus onfocus='CALL",
        "</textarea><script>CALL</script>",
        "</title><script>CALL</script>",
        "</div></section></main><script>CALL</script>",
        "&lt;script&gt;CALL&lt;/script&gt;",
        "&#60;script&#62;CALL&#60;/script&#62;",
        "&#x3c;img src=x onerror=CALL&#x3e;",
        "\\u003cscript\\u003eCALL\\u003c/script\\u003e",
        "\\x3cscript\\x3eCALL\\x3c/script\\x3e",
        "%3Cscript%3ECALL%3C/script%3E",
        "+ADw-script+AD4-CALL+ADw-/script+AD4-",
        "javascript:CALL",
        "data:text/html,<script>CALL</script>",
        "{{constructor.constructor('CALL')()}}",
        "${CALL}",
        "`${CALL}`",
        "#{CALL}",
        "<%= CALL %>",
        "{% CALL %}",
        "[x](javascript:CALL)",
        "[x](<javascript:CALL> 'title\" onmouseover=\"CALL')",
        "<javascript:CALL>",
        "[x]: javascript:CALL \"CALL\"\n\n[x] and [CALL][x]",
        "![CALL](https://example.org/CALL.png \"onload=CALL\")",
        "[![x](data:image/svg+xml,<svg/onload=CALL>)](javascript:CALL)",
        "# <img src=x onerror=CALL> #",
        "- <script>CALL</script>\n  > <svg onload=CALL>",
        "| <img src=x onerror=CALL> |\n|-|\n| `<script>CALL</script>` | CALL |",
        "```html onload=CALL\n<script>CALL</script>\n```",
        "```\"><img src=x onerror=CALL>\n</code></pre><script>CALL</script>\n```",
        "    </code></pre><script>CALL</script>",
        "<details open\nontoggle=CALL>\n\n**x** <b onclick=CALL>y</b>\n\n</details>",
        "&lt;img src=x onerror=CALL&gt; **&#x3c;script&#x3e;CALL**",
        "*a <img src=x onerror='*' title='CALL*'>*",
        "[^1] and\n\n[^1]: <script>CALL</script>",
        "x {onclick=CALL}\n# y {#id .z onclick=CALL}",
        "![x](x\"onerror=\"CALL)",
        "';CALL;//",
        "\");CALL;//",
        "\"}]});CALL;//",
        "__proto__[x]=CALL",
        "<scr\u{0}ipt>CALL</scr\u{0}ipt>",
        "<img\u{b}src=x\u{c}onerror=CALL>",
        "\u{feff}<script>CALL</script>",
        "\u{ff1c}script\u{ff1e}CALL\u{ff1c}/script\u{ff1e}",
    ];
    let mut all: Vec<String> =
        markup.iter().flat_map(|m| calls.map(|call| m.replace("CALL", call))).collect();
    let hidden = [
        "Answer \u{202e}2 is better\u{202c} than 1",
        "\u{2066}isolated\u{2069} \u{2067}right to left\u{2069}",
        "a\u{200b}b\u{200c}c\u{200d}d\u{2060}e\u{feff}f",
        "soft\u{ad}hyphen and \u{180e}vowel separator",
        "\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{1b}[H",
        "\u{1b}]0;title\u{7}\u{1b}]52;c;aGk=\u{7}",
        "\u{9b}31m and \u{9d}0;x\u{9c}",
        "bell\u{7} backspace\u{8}\u{8}\u{8} delete\u{7f}",
        "carriage\rreturn and line\u{2028}and\u{2029}paragraph",
        "\u{e0041}\u{e0042}tags\u{e007f}",
        "\u{0}nul\u{0}",
        "tab\tvertical\u{b}form\u{c}feed",
        "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301} Zalgo",
        "עברית and العربية and 日本語 and 👩\u{200d}👧",
        "ﷺﷺﷺﷺﷺﷺ \u{3164} \u{115f}",
    ];
    all.extend(hidden.map(str::to_owned));
    all
}

/// What is on the page and not one of the few elements and attributes that Markdown may become, and
/// what the page would follow, fetch or run.
const FOREIGN: &str = "JSON.stringify([...document.querySelectorAll('.said *')].filter((e) => \
    !['P', 'DIV', 'BLOCKQUOTE', 'PRE', 'CODE', 'UL', 'OL', 'LI', 'TABLE', 'THEAD', 'TBODY', 'TR', \
        'TH', 'TD', 'EM', 'STRONG', 'DEL', 'HR', 'SPAN'].includes(e.nodeName) \
    || [...e.attributes].some((a) => !['class', 'dir', 'tabindex', 'role', 'aria-label', 'start']\
        .includes(a.name) || /hit|alert|push|javascript/.test(a.value)))\
    .map((e) => e.outerHTML)\
    .concat(document.scripts.length === 1 && !frames.length && !document.links.length \
        && !document.images.length && window.__hits.length === 0 \
        ? [] : ['something runs']))";

#[test]
fn nothing_that_a_model_wrote_is_run_or_hidden() {
    let payloads = payloads();
    assert!(payloads.len() >= 200);
    let pairs: Vec<[String; 3]> = payloads
        .iter()
        .enumerate()
        .map(|(i, text)| [text.clone(), format!("{i}: {text}"), format!("{text} :{i}")])
        .collect();
    let workspace = Workspace::new(&pairs, "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        serde_json::json!({ "source": "window.hit = (x) => { window.__hits.push(x); };" }),
    );
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    // In raw text all of it must be there, letter by letter; before each choice as Markdown too.
    browser.key("r", false);
    let state = "JSON.stringify({
        said: ['prompt', 'one', 'other'].map((id) => document.getElementById(id).textContent),
        inside: document.querySelectorAll('.said *:not(span.sign, span.changed, div.written)').length,
        signs: [...document.querySelectorAll('.said span.sign')].map((e) => e.attributes.length),
        scripts: document.scripts.length, frames: frames.length, hits: window.__hits.length,
        view: document.body.dataset.view })";
    let mut left: std::collections::BTreeSet<[String; 3]> = pairs
        .iter()
        .map(|texts| {
            let [prompt, one, other] = texts.each_ref().map(|t| Shown::of(t, 20_000).text);
            if one < other { [prompt, one, other] } else { [prompt, other, one] }
        })
        .collect();
    let mut before = String::new();
    while !left.is_empty() {
        let mut text = String::new();
        for _ in 0..1000 {
            let now = browser.eval(state);
            now.as_str().expect("text").clone_into(&mut text);
            if text != before && text.contains(r#""view":"work""#) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        before.clone_from(&text);
        let page: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(page["view"], "work", "{} are missing", left.len());
        assert_eq!((&page["inside"], &page["scripts"]), (&0.into(), &1.into()), "{text}");
        assert_eq!((&page["frames"], &page["hits"]), (&0.into(), &0.into()), "{text}");
        assert!(page["signs"].as_array().expect("a list").iter().all(|n| *n == 1), "{text}");
        let said: [String; 3] = serde_json::from_value(page["said"].clone()).expect("texts");
        let [prompt, one, other] = said;
        let shown = if one < other { [prompt, one, other] } else { [prompt, other, one] };
        // By the classes of Unicode: controls, format characters, separators of lines.
        let hidden = r"['prompt', 'one', 'other'].some((id) => /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(
            document.getElementById(id).textContent.replace(/👩\u200d👧/gu, '').replace(/\n/g, '')))";
        assert_eq!(browser.eval(hidden), false, "{shown:?}");
        assert!(left.remove(&shown), "shown otherwise: {shown:?}");
        browser.key("r", false);
        assert_eq!(browser.eval(FOREIGN), "[]", "{shown:?}");
        assert_eq!(browser.eval(hidden), false, "{shown:?}");
        browser.key("r", false);
        browser.key("=", false);
    }
    browser.wait("document.body.dataset.view === 'done'");
    assert_eq!(browser.eval("window.__hits.length"), 0);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_long_answer_is_cut_and_shown_in_full_when_asked() {
    let long = "word ".repeat(6000);
    let pairs = vec![["Go on.".to_owned(), long.clone(), "short".to_owned()]];
    let workspace = Workspace::new(&pairs, "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.querySelectorAll('button.all').length === 1");
    browser.key("r", false);
    browser.wait("document.getElementById('raw').getAttribute('aria-pressed') === 'true'");
    browser.eval("document.querySelector('button.all').click()");
    browser.wait("document.querySelectorAll('button.all').length === 0");
    let (one, other) = (browser.text("one"), browser.text("other"));
    assert!(one == long || other == long);
    assert_eq!(browser.complaints, Vec::<String>::new());
}
