//! What annotators and whoever runs the labelling are told where votes stay away, and how a page
//! treats long prompts, notes and answers that are empty.

use preflow::votes::{Choice, Folder};
use serde_json::Value;

use super::cdp::Browser;
use super::support::{Server, Workspace, numbered};

fn open(browser: &mut Browser, server: &Server, name: &str) {
    browser.go(&server.link(name));
    browser.wait("document.body.dataset.view === 'work'");
}

fn choose(browser: &mut Browser, key: &str) {
    browser.wait("document.body.dataset.view === 'work'");
    let prompt = serde_json::to_string(&browser.text("prompt")).expect("JSON");
    browser.key(key, false);
    browser.wait(&format!(
        "document.getElementById('prompt').textContent !== {prompt} \
         || document.body.dataset.view === 'done'"
    ));
}

fn sent(browser: &mut Browser) {
    browser.wait("!Object.keys(localStorage).some((key) => key.includes('.ops.'))");
}

fn said(workspace: &Workspace, words: &[&str]) -> String {
    let output = workspace.command(words).output().expect("run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn where_votes_stay_away_everybody_is_told_why_and_skipped_pairs_come_back() {
    let settings = "        overlap: { fraction: 1.0, annotators: 2 }\n";
    let workspace = Workspace::new(&numbered(5), settings, 9);
    let server = Server::start(&workspace, &["--port", "0", "--share", "анна,bob"]);
    let mut browser = Browser::start();
    for (name, skips) in [("bob", 0), ("анна", 2)] {
        open(&mut browser, &server, name);
        for i in 0..5 {
            choose(&mut browser, if i < skips { "s" } else { "1" });
        }
        sent(&mut browser);
        browser.wait("document.getElementById('done-title').textContent === 'Thank you'");
    }
    let why = "at most 8 of the 9 votes can come: 2 pairs were skipped; ask for skipped pairs again, add an \
               annotator or lower `votes`";
    let plain = why.replace('`', "");
    browser.wait(&format!(
        "document.getElementById('done-text').textContent.includes('{}')",
        &plain[1..]
    ));
    let far = browser.text("far");
    assert!(far.contains("8 of 9 votes · 3 by you"), "{far}");
    for (width, height, name) in [(1280, 800, "stalled-desk"), (390, 844, "stalled-phone")] {
        browser.screen(width, height);
        browser.shoot(name);
        assert_eq!(browser.axe(), Vec::<String>::new(), "{name}");
    }
    // The other surfaces say the same.
    let stats = said(&workspace, &["label", "stats", "demo.yaml", "labels"]);
    assert!(stats.contains("8 of 9 votes\n") && stats.contains(why), "{stats}");
    browser.go(server.ready["admin"].as_str().expect("a link"));
    browser.wait("location.pathname.endsWith('/admin') && document.querySelector('.stands')");
    let stands = browser.eval("document.querySelector('.stands').textContent");
    assert!(stands.as_str().expect("text").contains(why), "{stands}");
    browser.shoot("stalled-admin");
    assert_eq!(browser.axe(), Vec::<String>::new(), "admin");

    // What was skipped is asked once more, also after a reload, until it has its votes.
    browser.screen(1280, 800);
    browser.go(&server.link("анна"));
    browser.wait("document.getElementById('done-again').checkVisibility()");
    let button = browser.text("done-again");
    assert_eq!(button, "Ask me again the 2 pairs that I skipped");
    browser.eval("document.getElementById('done-again').click()");
    browser.wait("document.body.dataset.view === 'work'");
    choose(&mut browser, "2");
    choose(&mut browser, "s");
    browser.wait("document.getElementById('done-text').textContent.startsWith('There are enough')");
    sent(&mut browser);
    assert_eq!(browser.text("done-again"), "Ask me again the pair that I skipped");
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    let choices: Vec<Choice> = folder.latest("анна").values().map(|v| v.choice).collect();
    assert_eq!(choices.iter().filter(|c| c.counts()).count(), 4);
    assert_eq!(choices.iter().filter(|c| **c == Choice::Skip).count(), 1);
    assert_eq!(browser.complaints, Vec::<String>::new());
    let stats = said(&workspace, &["label", "stats", "demo.yaml", "labels", "--json"]);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!((&stats["ready"]["ready"], &stats["outlook"]["why"]), (&true.into(), &Value::Null));
    assert_eq!(stats["outlook"]["room"]["with_skipped"], 1);
}

#[test]
fn a_goal_that_all_pairs_together_cannot_meet_is_told_before_anybody_votes() {
    let workspace = Workspace::new(&numbered(5), "", 400);
    let why = "at most 5 of the 400 votes can come: all pairs together take 5; sample more pairs, raise `overlap` or \
               lower `votes`";
    let stats = said(&workspace, &["label", "stats", "demo.yaml", "labels"]);
    assert!(stats.contains(why), "{stats}");
    let run = said(&workspace, &["run", "demo.yaml"]);
    // No run begins that would wait for ever.
    assert!(run.contains("but the pairs can give 5 at most"), "{run}");
}

#[test]
fn a_long_prompt_grows_and_its_rest_is_a_key_away() {
    let long =
        format!("{}What is asked stands at the end?", "A river is long and wide. ".repeat(200));
    let [a, b] = ["Yes, it is.", "No, it is not."].map(str::to_owned);
    let workspace = Workspace::new(&[[long, a, b]], "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    open(&mut browser, &server, "ann");
    let number = |value: Value| value.as_f64().expect("a number");
    for (width, height, name) in [(1280, 800, "long-desk"), (390, 844, "long-phone")] {
        browser.screen(width, height);
        browser.eval("document.querySelector('.prompt').scrollTop = 0");
        browser.wait("document.querySelector('.prompt-box').classList.contains('more')");
        browser.shoot(name);
        let share =
            number(browser.eval("document.querySelector('.prompt').clientHeight / innerHeight"));
        assert!((0.38..=0.401).contains(&share), "{name}: {share}");
        assert_eq!(browser.axe(), Vec::<String>::new(), "{name}");
        let end = "(() => { const p = document.querySelector('.prompt'); \
                   return p.scrollTop + p.clientHeight >= p.scrollHeight - 3; })()";
        let mut pages = 0;
        while browser.eval(end) != true {
            let before = number(browser.eval("document.querySelector('.prompt').scrollTop"));
            browser.key("p", false);
            browser.wait(&format!("document.querySelector('.prompt').scrollTop > {before}"));
            pages += 1;
            assert!(pages < 40, "{name}: the end is never reached");
        }
        browser.wait("!document.querySelector('.prompt-box').classList.contains('more')");
        // And back to the beginning.
        browser.key("p", false);
        browser.wait("document.querySelector('.prompt').scrollTop === 0");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn enter_keeps_a_note_and_an_empty_answer_says_so() {
    let pair = |answer: &str| [format!("Say {answer}."), String::new(), format!("I say {answer}.")];
    let workspace = Workspace::new(&["one", "two"].map(pair), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    open(&mut browser, &server, "ann");
    browser.screen(390, 844);
    let texts = [browser.text("one"), browser.text("other")];
    assert!(texts.contains(&"(nothing)".to_owned()), "{texts:?}");
    browser.shoot("empty-phone");
    assert_eq!(browser.axe(), Vec::<String>::new());
    browser.key("/", false);
    browser.wait("document.activeElement.id === 'note-text'");
    browser.type_text("says nothing");
    browser.key("Enter", false);
    browser.wait("!document.querySelector('dialog[open]')");
    choose(&mut browser, "x");
    browser.key("/", false);
    browser.wait("document.activeElement.id === 'note-text'");
    browser.type_text("a slip");
    browser.eval("document.getElementById('note-drop').click()");
    browser.wait("!document.querySelector('dialog[open]')");
    choose(&mut browser, "=");
    sent(&mut browser);
    let votes = &workspace.votes()["ann"];
    let notes: Vec<&str> = votes.iter().map(|v| v.note.as_str()).collect();
    assert_eq!(notes, ["says nothing", ""]);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn on_a_phone_a_thumb_hits_one_button() {
    let workspace = Workspace::new(&numbered(2), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let mut browser = Browser::start();
    open(&mut browser, &server, "ann");
    for (width, height) in [(390, 844), (360, 740), (320, 568)] {
        browser.screen(width, height);
        browser.shoot(&format!("thumb-{width}"));
        let wrong = "(() => {
            const boxes = [...document.querySelectorAll('button')].filter((b) => b.checkVisibility())
                .map((b) => [b.textContent || b.id, b.getBoundingClientRect()]);
            const small = boxes.filter(([, r]) => r.width < 44 || r.height < 44);
            const near = boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) => {
                const x = Math.max(a.left - b.right, b.left - a.right);
                const y = Math.max(a.top - b.bottom, b.top - a.bottom);
                return Math.max(x, y) < 7.9;
            }).map(([other]) => `${one} and ${other}`));
            return JSON.stringify([small.map(([n, r]) => `${n} ${r.width} ${r.height}`), near]);
        })()";
        assert_eq!(browser.eval(wrong), "[[],[]]", "{width}");
    }
}
