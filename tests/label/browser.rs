//! The label page in a browser: labelling by keyboard, undo, reload, a server that goes away, phones,
//! light and dark, and what keeps people out.

use std::collections::BTreeMap;

use preflow::votes::{Choice, Effective, Folder, Side, Vote, pair_id};

use super::cdp::Browser;
use super::support::{Server, Workspace};

/// What was chosen of what, as the screen showed it.
struct Chosen {
    pair: String,
    choice: Choice,
}

const KEYS: [(&str, bool, Choice); 9] = [
    ("ArrowLeft", false, Choice::A),
    ("ArrowRight", false, Choice::B),
    ("1", true, Choice::AMuch),
    ("2", false, Choice::B),
    ("=", false, Choice::Tie),
    ("ArrowRight", true, Choice::BMuch),
    ("x", false, Choice::BothBad),
    ("1", false, Choice::A),
    ("s", false, Choice::Skip),
];

/// Texts as they are stored from here on: their pairs are told by them.
fn raw(browser: &mut Browser) {
    browser.wait("document.body.dataset.view === 'work'");
    browser.key("r", false);
    browser.wait("document.getElementById('raw').getAttribute('aria-pressed') === 'true'");
}

/// Presses a key, and waits for the next pair.
fn choose(browser: &mut Browser, (key, shift, left): (&str, bool, Choice)) -> Chosen {
    browser.wait("document.body.dataset.view === 'work'");
    let (prompt, one) = (browser.text("prompt"), browser.text("one"));
    let other = browser.text("other");
    browser.key(key, shift);
    let shown = serde_json::to_string(&prompt).expect("JSON");
    browser.wait(&format!(
        "document.getElementById('prompt').textContent !== {shown} \
         || document.body.dataset.view === 'done'"
    ));
    let choice = if one < other { left } else { left.mirrored() };
    Chosen { pair: pair_id(&prompt, &one, &other), choice }
}

fn sent(browser: &mut Browser) {
    browser.wait("!Object.keys(localStorage).some((key) => key.includes('.ops.'))");
}

fn latest(workspace: &Workspace) -> BTreeMap<String, Vote> {
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    let latest = folder.latest("ann");
    latest.into_iter().map(|((pair, _), vote)| (pair.to_owned(), vote.clone())).collect()
}

fn assert_kept(workspace: &Workspace, chosen: &[Chosen]) {
    let kept = latest(workspace);
    for one in chosen {
        assert_eq!(kept[&one.pair].choice, one.choice, "{:?}", kept[&one.pair]);
    }
}

fn pairs(count: usize) -> Vec<[String; 3]> {
    let answers = [
        "Bring fresh water to the boil and warm the pot with a little of it. Then add one spoon of \
         leaves for each guest, and one for the pot.\n\nPour, cover, and wait four minutes. Tea that \
         stands longer turns bitter, so take the leaves out when the time is up.",
        "It depends on the tea. Green tea wants water well below boiling and two minutes; black tea \
         wants boiling water and four. For a large group, brew it strong in one pot and thin it with \
         hot water in the cups. Serve milk and sugar apart.",
        "1. Warm the pot.\n2. Add the leaves: two grams a cup.\n3. Pour boiling water on them.\n\
         4. Wait four minutes.\n5. Stir once, and pour through a sieve.\n\nKeep the rest warm under a \
         cosy, never on the stove.",
    ];
    (0..count)
        .map(|i| {
            let answer = |k: usize| format!("{} ({i}.{k})", answers[(i + k) % 3]);
            [format!("How do I make good tea for {} people?", i + 2), answer(0), answer(1)]
        })
        .collect()
}

#[test]
fn fifty_pairs_by_keyboard_with_undo_reload_and_a_server_that_goes_away() {
    let workspace = Workspace::new(&pairs(60), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let port = server.port();
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("location.pathname.startsWith('/at/') && document.body.dataset.view === 'work'");
    browser.shoot("work-light");
    raw(&mut browser);
    let mut chosen: Vec<Chosen> =
        (0..30).map(|i| choose(&mut browser, KEYS[i % KEYS.len()])).collect();
    sent(&mut browser);
    assert_kept(&workspace, &chosen);

    // Undo walks back through the votes; each comes back to the screen and is chosen anew.
    for back in 1..=3 {
        browser.key("u", false);
        let last = &chosen[chosen.len() - back].pair;
        sent(&mut browser);
        assert_eq!(latest(&workspace)[last].choice, Choice::Retracted);
    }
    chosen.truncate(chosen.len() - 3);
    for _ in 0..3 {
        chosen.push(choose(&mut browser, ("2", true, Choice::BMuch)));
    }
    sent(&mut browser);
    assert_kept(&workspace, &chosen);

    // A reload shows the same pair; undo goes on behind it.
    let before = browser.text("prompt");
    browser.call("Page.reload", serde_json::json!({}));
    browser.wait("document.body.dataset.view === 'work' && window.__shift !== undefined");
    assert_eq!(browser.text("prompt"), before);
    browser.key("u", false);
    browser.wait("document.querySelector('[aria-pressed=true][data-pick]')");
    chosen.pop();
    chosen.push(choose(&mut browser, ("=", false, Choice::Tie)));
    sent(&mut browser);
    assert_kept(&workspace, &chosen);
    assert_eq!(browser.complaints, Vec::<String>::new());

    // Without a server the pairs at hand are voted on; all of it arrives later.
    server.kill();
    chosen.push(choose(&mut browser, ("1", false, Choice::A)));
    browser.wait("!document.getElementById('banner').hidden");
    browser.shoot("gone");
    chosen.push(choose(&mut browser, ("2", false, Choice::B)));
    let server = Server::start(&workspace, &["--port", &port, "--annotator", "ann"]);
    sent(&mut browser);
    browser.wait("document.getElementById('banner').hidden");
    assert_kept(&workspace, &chosen);

    // Also over a reload.
    server.kill();
    chosen.push(choose(&mut browser, ("x", false, Choice::BothBad)));
    chosen.push(choose(&mut browser, ("1", true, Choice::AMuch)));
    let server = Server::start(&workspace, &["--port", &port, "--annotator", "ann"]);
    browser.call("Page.reload", serde_json::json!({}));
    browser.wait("document.body.dataset.view === 'work'");
    sent(&mut browser);
    assert_kept(&workspace, &chosen);
    let expected = |c: &String| !c.contains("ERR_CONNECTION_REFUSED");
    let complaints: Vec<String> =
        browser.complaints.iter().filter(|c| expected(c)).cloned().collect();
    assert_eq!(complaints, Vec::<String>::new());

    while chosen.len() < 60 {
        let i = chosen.len();
        chosen.push(choose(&mut browser, KEYS[i % KEYS.len()]));
    }
    browser.wait("document.body.dataset.view === 'done'");
    browser.wait("document.getElementById('done-title').textContent === 'Thank you'");
    sent(&mut browser);
    assert_kept(&workspace, &chosen);
    assert_eq!(latest(&workspace).len(), 60);
    assert_eq!(browser.eval("window.__shift"), 0);
    let (code, took) = server.interrupt();
    assert_eq!(code, Some(0));
    assert!(took.as_secs_f64() < 1.0, "{took:?}");
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    let counting = chosen.iter().filter(|c| c.choice.counts()).count();
    assert_eq!(Effective::of(&folder).votes(), counting);
}

/// Guidelines open by themselves once, reasons are marked by keys and saved with the choice.
#[test]
fn guidelines_and_reasons() {
    let settings =
        "        guidelines: how.md\n        reasons: [wrong facts, rude, '<b>long</b>']";
    let workspace = Workspace::new(&pairs(5), settings, 0);
    let hostile = "# How to choose\n\n**Facts** first.\n\n- no <script>alert(1)</script>\n";
    std::fs::write(workspace.path("how.md"), hostile).expect("written");
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.screen(1280, 800);
    browser.go(&server.link("ann"));
    let open = "document.getElementById('guidelines-box').open";
    browser.wait(open);
    let text = browser.eval("document.querySelector('.guidelines').textContent");
    let text = text.as_str().expect("a text").to_owned();
    assert!(text.contains("How to choose") && text.contains("<script>alert(1)</script>"), "{text}");
    assert_eq!(browser.eval("document.querySelectorAll('.guidelines strong').length"), 1);
    browser.shoot("guidelines");
    assert_eq!(browser.axe(), Vec::<String>::new());
    browser.key("Escape", false);
    browser.wait(&format!("!{open}"));
    raw(&mut browser);
    let pressed = |n: usize, on: bool| {
        format!("document.querySelectorAll('[data-reason]')[{n}].ariaPressed === '{on}'")
    };
    for key in ["3", "4", "5", "4"] {
        browser.key(key, false);
    }
    for (n, on) in [(0, true), (1, false), (2, true)] {
        browser.wait(&pressed(n, on));
    }
    browser.shoot("reasons");
    assert_eq!(browser.axe(), Vec::<String>::new());
    let one = choose(&mut browser, ("2", false, Choice::B));
    // Of the next pair nothing is marked.
    for n in 0..3 {
        browser.wait(&pressed(n, false));
    }
    sent(&mut browser);
    let both = ["<b>long</b>", "wrong facts"];
    assert_eq!(latest(&workspace)[&one.pair].reasons, both);
    // Undone, they are marked as before; after a reload too, where the server knows them.
    browser.key("u", false);
    browser.wait(&pressed(2, true));
    sent(&mut browser);
    let again = choose(&mut browser, ("1", false, Choice::A));
    assert_eq!(again.pair, one.pair);
    sent(&mut browser);
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    assert_eq!(browser.eval(open), false, "read once is enough");
    browser.key("u", false);
    browser.wait(&pressed(0, true));
    browser.wait(&pressed(1, false));
    browser.key("g", false);
    browser.wait(open);
    browser.key("Escape", false);
    browser.screen(390, 844);
    browser.shoot("reasons-phone");
    assert_eq!(browser.axe(), Vec::<String>::new());
    let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.eval(wide), true);
    browser.key("1", false);
    sent(&mut browser);
    assert_eq!(latest(&workspace)[&one.pair].reasons, both);
    assert_eq!(browser.complaints, Vec::<String>::new());
    // The figures count them.
    let stats =
        workspace.command(&["label", "stats", "demo.yaml", "labels"]).output().expect("ran");
    let stats = String::from_utf8_lossy(&stats.stdout).into_owned();
    assert!(stats.contains("reasons: <b>long</b> 1, wrong facts 1\n"), "{stats}");
}

#[test]
fn guidelines_that_are_no_text_are_refused_before_anybody_votes() {
    let workspace = Workspace::new(&pairs(2), "        guidelines: how.md", 0);
    std::fs::write(workspace.path("how.md"), [0xff, 0xfe, 0x00]).expect("written");
    let words = ["label", "serve", "demo.yaml", "labels", "--port", "0"];
    let ran = workspace.command(&words).output().expect("ran");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("how.md"), "{said}");
}

#[test]
fn a_note_the_keys_and_the_differences() {
    let workspace = Workspace::new(&pairs(5), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    raw(&mut browser);
    browser.key("d", false);
    let marked = "[...document.querySelectorAll('.changed')]\
        .filter((e) => getComputedStyle(e).backgroundColor !== 'rgba(0, 0, 0, 0)').length";
    browser.wait(&format!("{marked} > 1"));
    browser.shoot("differences");
    browser.key("?", true);
    browser.wait("document.getElementById('keys-box').open");
    // Keys of the page are dead while something is open.
    browser.key("1", false);
    browser.shoot("keys");
    browser.key("Escape", false);
    browser.wait("!document.getElementById('keys-box').open");
    browser.key("/", false);
    browser.wait("document.activeElement.id === 'note-text'");
    browser.type_text("2 x 1 = s");
    browser.shoot("note");
    browser.key("Escape", false);
    browser.wait("!document.querySelector('dialog[open]')");
    let one = choose(&mut browser, ("2", false, Choice::B));
    sent(&mut browser);
    let kept = latest(&workspace);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[&one.pair].note, "2 x 1 = s");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

fn shoot_all(browser: &mut Browser) {
    for (width, height, name) in [(390, 844, "tea-phone"), (1280, 800, "tea-desk")] {
        browser.screen(width, height);
        for (dark, look) in [(true, "dark"), (false, "light")] {
            browser.dark(dark);
            browser.shoot(&format!("{name}-{look}"));
        }
    }
}

#[test]
fn the_same_side_at_every_visit_and_both_sides_over_many_pairs() {
    let workspace = Workspace::new(&pairs(40), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    raw(&mut browser);
    for i in 0..40 {
        choose(&mut browser, ("1", false, Choice::A));
        if i == 20 && std::env::var_os("PREFLOW_SHOTS").is_some() {
            std::thread::sleep(std::time::Duration::from_secs(2));
            shoot_all(&mut browser);
        }
    }
    sent(&mut browser);
    let kept = latest(&workspace);
    let left_a = kept.values().filter(|v| v.shown_left == Side::A).count();
    assert!((8..=32).contains(&left_a), "{left_a} of 40 had a on the left");
    for vote in kept.values() {
        let left = if vote.shown_left == Side::A { Choice::A } else { Choice::B };
        assert_eq!(vote.choice, left);
    }
}

#[test]
fn phones_darkness_and_what_keeps_people_out() {
    let mut all = pairs(6);
    all.push([
        "Write about rivers. ".repeat(60),
        "A river is long. ".repeat(400),
        format!("See {}", "x".repeat(3000)),
    ]);
    let workspace = Workspace::new(&all, "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    for (width, height, name) in [(1280, 800, "desk"), (390, 844, "phone"), (320, 568, "small")] {
        browser.screen(width, height);
        for dark in [false, true] {
            browser.dark(dark);
            browser.shoot(&format!("{name}-{}", if dark { "dark" } else { "light" }));
            assert_eq!(browser.axe(), Vec::<String>::new(), "{name} dark: {dark}");
            let sideways = "document.documentElement.scrollWidth > innerWidth \
                || [...document.querySelectorAll('.text, .prompt')]\
                    .some((e) => e.scrollWidth > e.clientWidth)";
            assert_eq!(browser.eval(sideways), false, "{name} scrolls sideways");
            let cut = "[...document.querySelectorAll('button')].filter((b) => b.offsetParent)\
                .filter((b) => { const r = b.getBoundingClientRect(); \
                    return r.left < 0 || r.right > innerWidth || r.bottom > innerHeight \
                        || b.scrollWidth > b.clientWidth + 1; }).map((b) => b.textContent).join()";
            assert_eq!(browser.eval(cut), "", "{name}: buttons that do not fit");
        }
    }
    // The switch overrules the system, and is remembered.
    browser.screen(1280, 800);
    browser.dark(false);
    browser.eval("document.getElementById('theme').click()");
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(22, 24, 27)'");
    browser.call("Page.reload", serde_json::json!({}));
    browser.wait("document.body.dataset.view === 'work'");
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(22, 24, 27)'");
    for open in ["keys", "note"] {
        browser.eval(&format!("document.getElementById('{open}').click()"));
        assert_eq!(browser.axe(), Vec::<String>::new(), "{open}");
        browser.key("Escape", false);
        browser.wait("!document.querySelector('dialog[open]')");
    }
    // By finger: the buttons do what the keys do.
    browser.screen(390, 844);
    let place =
        "JSON.stringify(document.querySelector('[data-pick=right]').getBoundingClientRect())";
    let before_all = browser.eval(place);
    for _ in 0..7 {
        browser.wait("document.body.dataset.view === 'work'");
        let before = browser.text("prompt");
        browser.eval("document.querySelector('[data-pick=right]').click()");
        browser.wait(&format!(
            "document.getElementById('prompt').textContent !== {} \
             || document.body.dataset.view === 'done'",
            serde_json::to_string(&before).expect("JSON")
        ));
        // Whatever is asked, the buttons stay where the thumb is.
        assert_eq!(browser.eval(place), before_all);
    }
    browser.wait("document.getElementById('done-title').textContent === 'Thank you'");
    browser.shoot("done");
    assert_eq!(browser.axe(), Vec::<String>::new(), "done");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn other_pairs_under_an_open_page_lose_no_vote() {
    let all = pairs(12);
    let workspace = Workspace::new(&all, "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let port = server.port();
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    raw(&mut browser);
    let first = choose(&mut browser, ("1", false, Choice::A));
    sent(&mut browser);
    server.kill();
    // The pair on the screen stays among the pairs; the next one does not.
    let (kept, prompt) = (browser.text("one"), browser.text("prompt"));
    let second = choose(&mut browser, ("2", false, Choice::B));
    let gone = browser.text("prompt");
    let third = choose(&mut browser, ("x", false, Choice::BothBad));
    assert!(!kept.is_empty() && prompt != gone);
    let rest: Vec<[String; 3]> = all.into_iter().filter(|p| p[0] != gone).collect();
    workspace.write_pairs(&rest);
    let _server = Server::start(&workspace, &["--port", &port, "--annotator", "ann"]);
    browser.wait("document.querySelector('#banner button')?.textContent === 'Load again'");
    browser.shoot("other-pairs");
    browser.eval("document.querySelector('#banner button').click()");
    browser.wait(
        "document.getElementById('banner').textContent.includes('made on pairs that are gone')",
    );
    browser.wait("document.body.dataset.view === 'work'");
    assert_kept(&workspace, &[first, second]);
    assert!(!latest(&workspace).contains_key(&third.pair));
    let left = browser.eval(
        "JSON.parse(localStorage[Object.keys(localStorage).find((k) => k.endsWith('.kept'))])[0].pair",
    );
    assert_eq!(left, third.pair.as_str());
}

#[test]
fn a_browser_that_is_handed_on_does_not_vote_for_the_one_before() {
    let workspace = Workspace::new(&pairs(12), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--share", "ann,bob"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    raw(&mut browser);
    // Bob opens his link in another tab.
    let link = serde_json::to_string(&server.link("bob")).expect("JSON");
    browser.eval(&format!("fetch({link}).then((r) => r.status)"));
    choose(&mut browser, ("1", false, Choice::A));
    browser.wait("document.getElementById('banner').textContent.includes('another annotator')");
    assert!(!workspace.path("votes").exists());
    let link = serde_json::to_string(&server.link("ann")).expect("JSON");
    browser.eval(&format!("fetch({link}).then((r) => r.status)"));
    sent(&mut browser);
    assert_eq!(latest(&workspace).len(), 1);
    assert_eq!(workspace.votes().len(), 1);
}

#[test]
fn a_link_that_ends_while_the_page_is_open_loses_no_vote() {
    let workspace = Workspace::new(&pairs(12), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let port = server.port();
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    raw(&mut browser);
    server.kill();
    // Without its key no link is valid any more.
    std::fs::remove_file(workspace.private("key")).expect("there");
    let server = Server::start(&workspace, &["--port", &port, "--annotator", "ann"]);
    let chosen = choose(&mut browser, ("1", false, Choice::A));
    browser.wait("document.getElementById('banner').textContent.includes('ask for a new one')");
    assert!(!workspace.path("votes").exists());
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    sent(&mut browser);
    assert_kept(&workspace, &[chosen]);
}

#[test]
fn the_tab_key_goes_from_what_is_read_to_what_is_chosen() {
    let workspace = Workspace::new(&pairs(3), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    let mut order = Vec::new();
    for _ in 0..16 {
        browser.key("Tab", false);
        let now = browser.eval(
            "(document.activeElement.dataset.pick ?? '') + document.activeElement.id \
             + (document.activeElement.getAttribute('aria-label') ?? '')",
        );
        order.push(now.as_str().expect("a name").to_owned());
    }
    let expected = [
        "themeSwitch between light and dark",
        "Prompt",
        "Text of answer 1",
        "Text of answer 2",
        "left_much",
        "left",
        "tie",
        "right",
        "right_much",
        "both_bad",
        "skip",
        "undo",
        "diff",
        "raw",
        "note",
        "keys",
    ];
    assert_eq!(order, expected);
    // What has the focus is seen to have it.
    assert_eq!(browser.eval("getComputedStyle(document.activeElement).outlineStyle"), "solid");
}

/// Twenty turns with all that chats hold.
fn chat() -> [String; 3] {
    let turns: Vec<serde_json::Value> = (0..20)
        .map(|i| {
            let text = match i {
                0 => "You are a **careful** assistant for a hospital kitchen.".to_owned(),
                2 => format!(
                    "Use this:\n\n```python\ndef total(rows):\n\treturn sum(r['grams'] for r in rows)  \
                     # {}\n```\n\nand see [the manual](https://example.org/manual \"3rd edition\").",
                    "a long remark ".repeat(12)
                ),
                4 => "| Meal | Grams | Who | Remark |\n|:--|--:|:-:|--|\n| Soup | 250 | all | \
                      warm |\n| Bread | 80 | most | without seeds, as the ward asked for it |"
                    .to_owned(),
                5 => "كم غراماً من الخبز يحتاج كل مريض؟ أجب **باختصار** من فضلك.".to_owned(),
                6 => "- ثمانون غراماً للفرد\n- أربعون للأطفال\n\n1. first\n2. second".to_owned(),
                8 => format!("# A long one\n\n{}", "All the words of a long answer. ".repeat(156)),
                10 => "> quoted\n> twice\n\nx".to_owned() + &"x".repeat(300),
                i if i % 2 == 1 => format!("Question {i}: how much *bread* for {i} guests?"),
                i => format!("About **{}** grams, `{i} * 80`.", i * 80),
            };
            let role = if i == 0 { "system" } else { ["assistant", "user"][i % 2] };
            serde_json::json!({ "role": role, "content": text })
        })
        .collect();
    let calls = serde_json::json!([
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c1", "type": "function",
            "function": { "name": "scale", "arguments": "{\"grams\": 1520, \"of\": \"bread\"}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": "1.5 kg" },
        { "role": "assistant", "content": "## Bread\n\nTake **1.5 kg**." },
    ]);
    let plain = "Take:\n\n1. 1.5 kg of bread\n2. butter\n\n```sh\nweigh --of bread --grams 1520 \
        --and-a-very-long-option-that-does-not-fit-into-a-narrow-column yes\n```";
    [serde_json::Value::from(turns).to_string(), plain.to_owned(), calls.to_string()]
}

#[test]
fn a_chat_is_read_as_turns_in_markdown_or_raw() {
    let workspace = Workspace::new(&[chat(), pairs(1).remove(0)], "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    browser.go(&server.link("ann"));
    browser.wait("document.body.dataset.view === 'work'");
    if browser.eval("document.querySelectorAll('#prompt .turn').length") == 0 {
        browser.key("s", false);
    }
    browser.wait("document.querySelectorAll('#prompt .turn').length === 20");
    // The last turn is what is answered.
    let last = "(() => { const box = document.querySelector('.prompt').getBoundingClientRect(); \
        const turn = document.querySelector('#prompt .turn:last-child').getBoundingClientRect(); \
        return turn.top >= box.top && turn.top < box.bottom; })()";
    assert_eq!(browser.eval(last), true);
    for reading in ["markdown", "raw"] {
        for (width, height, name) in [(1280, 800, "desk"), (390, 844, "phone")] {
            browser.screen(width, height);
            for dark in [false, true] {
                browser.dark(dark);
                let name = format!("chat-{reading}-{name}-{}", if dark { "dark" } else { "light" });
                browser.shoot(&name);
                assert_eq!(browser.axe(), Vec::<String>::new(), "{name}");
                let sideways = "document.documentElement.scrollWidth > innerWidth \
                    || [...document.querySelectorAll('.text, .prompt')]\
                        .some((e) => e.scrollWidth > e.clientWidth)";
                assert_eq!(browser.eval(sideways), false, "{name} scrolls sideways");
            }
            if reading == "markdown" {
                for (turn, what) in [(2, "code"), (4, "table"), (6, "arabic"), (8, "long")] {
                    browser.eval(&format!(
                        "document.querySelectorAll('#prompt .turn')[{turn}].scrollIntoView()"
                    ));
                    browser.shoot(&format!("chat-{what}-{name}"));
                }
            }
        }
        if reading == "markdown" {
            let found = "JSON.stringify(['pre', 'table', 'th', 'strong', 'ul li', 'ol li', 'blockquote', \
                '.head', '.address'].filter((s) => !document.querySelector(`#prompt ${s}`)))";
            assert_eq!(browser.eval(found), "[]");
            let right = "getComputedStyle(document.querySelectorAll('#prompt .turn')[5]\
                .querySelector('[dir=auto]')).direction";
            assert_eq!(browser.eval(right), "rtl");
            let code = "(() => { const pre = document.querySelector('#prompt pre'); \
                return pre.scrollWidth > pre.clientWidth; })()";
            assert_eq!(browser.eval(code), true, "code scrolls in its block");
            raw(&mut browser);
        }
    }
    let text = browser.text("prompt");
    assert!(text.contains("def total(rows):\n␉return sum") && text.contains("# A long one\n\nAll"));
    assert_eq!(
        browser.eval("document.querySelectorAll('.said :is(pre:not(.part + pre), table)').length"),
        0
    );
    // For the pairs that follow too, and after a reload.
    browser.key("1", false);
    sent(&mut browser);
    browser.call("Page.reload", serde_json::json!({}));
    browser.wait("document.getElementById('raw').getAttribute('aria-pressed') === 'true'");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
