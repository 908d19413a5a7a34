//! The page of whoever runs the labelling, in a browser: figures, and disputes that are settled.

use preflow::votes::{Choice, Folder};
use serde_json::json;

use super::cdp::Browser;
use super::support::{Client, Server, Workspace};

/// Ann is always for the left; bob agrees on three of four.
fn voted() -> (Workspace, Server) {
    let pairs: Vec<[String; 3]> = (0..32)
        .map(|i| {
            let hostile = "<img src=x onerror=window.__hits.push(1)> \u{202e}";
            [
                format!("Question {i} {hostile}"),
                format!("An answer {i}"),
                format!("Best: {i} {hostile}"),
            ]
        })
        .collect();
    let settings = "        overlap: { fraction: 100%, annotators: 2 }";
    let workspace = Workspace::new(&pairs, settings, 80);
    let server = Server::start(&workspace, &["--port", "0", "--share", "ann,bob,cleo"]);
    for name in ["ann", "bob"] {
        let client = Client::enter(&server.link(name), name);
        for i in 0.. {
            let hand = client.next(1);
            let Some(question) = hand["order"].get(0).cloned() else { break };
            let pair = question[0].as_str().expect("a pair");
            let odd = pair.ends_with(['0', '4', '8', 'c']);
            let pick = if name == "bob" && odd { "right" } else { "left" };
            let body = client.vote_body(&format!("{name}-{i}"), &question, pick);
            assert_eq!(client.post("/api/vote", &body).0, 200);
        }
    }
    (workspace, server)
}

#[test]
fn figures_and_disputes() {
    let (workspace, server) = voted();
    let mut browser = Browser::start();
    let admin = server.ready["admin"].as_str().expect("a link").to_owned();
    browser.go(&admin);
    browser.wait("location.pathname.endsWith('/admin') && document.querySelector('.dispute')");
    let page = browser.eval("document.body.innerText");
    let page = page.as_str().expect("text");
    for expected in
        ["64 of 80 votes", "32 of 32 pairs", "2 annotators", "Krippendorff’s α, ordinal"]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let rows = browser.eval(
        "JSON.stringify([...document.querySelectorAll('tbody tr')].map((r) => \
         [r.querySelector('th').textContent, r.cells[1].textContent]))",
    );
    assert_eq!(rows, r#"[["ann","32"],["bob","32"]]"#);
    for (width, height, dark, name) in [
        (1280, 800, false, "admin-light"),
        (1280, 800, true, "admin-dark"),
        (390, 844, false, "admin-phone"),
    ] {
        browser.screen(width, height);
        browser.dark(dark);
        browser.shoot(name);
        assert_eq!(browser.axe(), Vec::<String>::new(), "{name}");
        let sideways = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.eval(sideways), false, "{name} scrolls sideways");
    }
    let before = browser.eval("document.querySelectorAll('.dispute').length").as_u64();
    let pair = browser.eval("document.querySelector('.dispute').dataset.pair");
    let left = browser.eval("document.querySelector('.dispute').dataset.left");
    browser.eval("document.querySelector('.dispute [data-pick=left_much]').click()");
    browser.wait("document.querySelector('.dispute.settled [aria-pressed=true]')");
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    let kept = &folder.votes["adjudicator"];
    let expected = if left == "a" { Choice::AMuch } else { Choice::BMuch };
    assert_eq!((kept.len(), kept[0].choice), (1, expected));
    assert_eq!(pair, kept[0].pair.as_str());
    browser.call("Page.reload", json!({}));
    browser.wait("window.__shift !== undefined && document.querySelector('.dispute')");
    let after = browser.eval("document.querySelectorAll('.dispute').length").as_u64();
    assert_eq!(after, before.map(|n| n - 1));
    // Votes that come in show by themselves.
    let (name, question) = ("cleo", json!([pair, false]));
    let client = Client::enter(&server.link(name), name);
    assert_eq!(client.post("/api/vote", &client.vote_body("late", &question, "tie")).0, 200);
    browser.wait("document.querySelectorAll('tbody tr').length === 3");
    assert_eq!(browser.eval("window.__hits.length"), 0);
    assert_eq!(
        browser.eval("document.querySelectorAll('.said *:not(span.sign, p, div.written)').length"),
        0
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn few_votes_are_told_to_be_few() {
    let workspace = Workspace::new(&super::support::numbered(3), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--annotator", "ann"]);
    let client = Client::enter(&server.link("ann"), "ann");
    let question = client.next(1)["order"][0].clone();
    assert_eq!(client.post("/api/vote", &client.vote_body("one", &question, "left")).0, 200);
    let mut browser = Browser::start();
    browser.go(server.ready["admin"].as_str().expect("a link"));
    browser.wait("document.querySelector('tr.few')");
    let page = browser.eval("document.body.innerText");
    let page = page.as_str().expect("text");
    assert!(page.contains("too few") && page.contains("Too few: under 20"), "{page}");
    assert_eq!(browser.axe(), Vec::<String>::new());
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// The page is there, and its script too.
const ADMIN_READY: &str = "location.pathname.endsWith('/admin') && document.readyState === \
                           'complete' && document.querySelector('#make-link')";

#[test]
fn votes_and_notes_are_read_one_by_one_and_links_are_made() {
    let workspace = Workspace::new(&super::support::numbered(9), "", 0);
    let server = Server::start(&workspace, &["--port", "0", "--share", "ann,bob"]);
    let client = Client::enter(&server.link("ann"), "ann");
    for (i, note) in ["", "<b>odd</b> \u{202e}"].into_iter().enumerate() {
        let question = client.next(1)["order"][0].clone();
        let mut body = client.vote_body(&format!("vote-{i}"), &question, "left_much");
        body["vote"]["note"] = json!(note);
        assert_eq!(client.post("/api/vote", &body).0, 200);
    }
    let mut browser = Browser::start();
    browser.go(server.ready["admin"].as_str().expect("a link"));
    browser.wait(ADMIN_READY);
    browser.eval("document.querySelector('a[href=\"admin/votes\"]').click()");
    browser.wait("document.querySelector('table.votes')");
    let rows = "document.querySelectorAll('tbody tr').length";
    assert_eq!(browser.eval(rows), 2);
    let text = browser.eval("document.querySelector('tbody').innerText");
    let text = text.as_str().expect("text");
    assert!(text.contains("ann") && text.contains("much better:"), "{text}");
    assert!(text.contains("<b>odd</b> ⟨202E⟩"), "{text}");
    for (width, name) in [(1280, "votes"), (390, "votes-phone")] {
        browser.screen(width, 844);
        browser.shoot(name);
        assert_eq!(browser.axe(), Vec::<String>::new(), "{name}");
        let sideways = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.eval(sideways), false, "{name} scrolls sideways");
    }
    browser.eval(
        "[...document.querySelectorAll('header a')].find((a) => a.textContent === 'ann').click()",
    );
    browser.wait("location.pathname.endsWith('/admin/votes/ann')");
    assert_eq!(browser.eval(rows), 2);
    browser.eval("document.querySelector('header a').click()");
    browser.wait(ADMIN_READY);
    browser.eval("document.querySelector('a[href=\"admin/notes\"]').click()");
    browser.wait("location.pathname.endsWith('/admin/notes')");
    assert_eq!(browser.eval(rows), 1);
    browser.eval("document.querySelector('header a').click()");
    browser.wait(ADMIN_READY);
    // A link for somebody new opens the page in their name.
    let make = |name: &str| {
        format!(
            "document.getElementById('link-name').value = '{name}'; \
             document.querySelector('#make-link button').click()"
        )
    };
    browser.eval(&make("Not A Name"));
    browser.wait("document.getElementById('status').textContent.includes('lower-case letters')");
    browser.eval(&make("cleo"));
    browser.wait("document.getElementById('link').value");
    let link = browser.eval("document.getElementById('link').value");
    let link = link.as_str().expect("a link").to_owned();
    let cleo = Client::enter(&link, "cleo");
    let question = cleo.next(1)["order"][0].clone();
    let said = cleo.post("/api/vote", &cleo.vote_body("first", &question, "tie"));
    assert_eq!(said.0, 200, "{}", said.1);
    assert!(workspace.path("votes").join("cleo.jsonl").exists());
    browser.call("Page.reload", json!({}));
    browser.wait("document.querySelector('.given')?.innerText.includes('cleo')");
    assert_eq!(browser.axe(), Vec::<String>::new());
    // Nobody but the admin makes links.
    assert_eq!(client.post("/api/admin/link", &json!({ "name": "eve" })).0, 403);
}
