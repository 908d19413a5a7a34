//! The pages under `docs/`: every command of their `sh` blocks, in order, each page in a place of its own.

use std::path::Path;

use crate::workspace::Workspace;

/// The lines of the page's `sh` blocks.
fn script(page: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => lines.push(line),
            _ => {}
        }
    }
    lines.join("\n")
}

#[test]
fn every_page_does_what_it_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut pages = 0;
    for item in std::fs::read_dir(&folder).expect("docs").flatten() {
        let path = item.path();
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let page = std::fs::read_to_string(&path).expect("a page");
        for link in page.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            assert!(folder.join(link.0).exists(), "{}: no page {}", path.display(), link.0);
        }
        let script = script(&page);
        if script.is_empty() {
            continue;
        }
        let space = Workspace::empty();
        let (text, code) = space.shell(&script);
        assert_eq!(code, Some(0), "{}\n{text}", path.display());
        pages += 1;
    }
    assert!(pages >= 5, "{pages} pages show commands");
}

/// The blocks of a page that are whole pipeline files.
fn pipelines(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("preflow: 1")).map(str::to_owned).collect()
}

#[test]
fn every_pipeline_in_a_page_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let space = Workspace::empty();
    let mut pages = vec![root.join("README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).expect("docs").flatten().map(|i| i.path()));
    let mut checked = 0;
    for path in pages.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        for pipeline in pipelines(&std::fs::read_to_string(path).expect("a page")) {
            std::fs::write(space.0.path().join("p.yaml"), &pipeline).expect("written");
            let (text, code) = space.preflow(&["check", "p.yaml"]);
            assert_eq!(code, Some(0), "{}: {text}\n{pipeline}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked} pipelines in pages");
}
