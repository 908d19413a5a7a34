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
