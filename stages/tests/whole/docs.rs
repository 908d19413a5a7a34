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
            assert!(leads_somewhere(&path, link.0), "{}: no page {}", path.display(), link.0);
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

/// Whether a link of a page leads to a file, and to a heading in it where it names one.
fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let to = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
    let slug = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    to.exists()
        && (heading.is_empty()
            || std::fs::read_to_string(&to).is_ok_and(|text| {
                text.lines().any(|line| line.starts_with('#') && slug(line) == heading)
            }))
}

/// The YAML blocks of a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// What `check` says of a pipeline file, but for names that stand elsewhere on the page.
fn problems(space: &Workspace, pipeline: &str) -> Vec<String> {
    std::fs::write(space.0.path().join("p.yaml"), pipeline).expect("written");
    let (text, _) = space.preflow(&["check", "p.yaml", "--json"]);
    let json = text.find('[').map_or("", |at| &text[at..]);
    let said: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{text}"));
    let all = said[0]["problems"].as_array().cloned().unwrap_or_default();
    let message = |p: &serde_json::Value| p["message"].as_str().unwrap_or_default().to_owned();
    all.iter().map(message).filter(|text| !text.starts_with("unknown reference")).collect()
}

#[test]
fn every_part_of_a_file_in_a_page_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let space = Workspace::empty();
    let mut pages = vec![root.join("README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).expect("docs").flatten().map(|i| i.path()));
    let mut checked = 0;
    let rules = "- { name: short, score: 1, words_over: 12 }\n";
    std::fs::write(space.0.path().join("rules.yaml"), rules).expect("written");
    let worker = root.join("pipelines/foreign/worker.py");
    std::fs::copy(worker, space.0.path().join("worker.py")).expect("copied");
    for path in pages.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        for block in blocks(&std::fs::read_to_string(path).expect("a page")) {
            let file = match block {
                // Whole ones have a test of their own; others are for other programs.
                _ if block.starts_with("preflow: 1") || block.starts_with("# .git") => continue,
                _ if block.starts_with("preflow-workspace: 1") => {
                    std::fs::write(space.0.path().join("preflow.yaml"), block).expect("written");
                    "preflow: 1\nstages: {}\n".to_owned()
                }
                _ if block.starts_with("sources:") && block.contains("stages:") => {
                    format!("preflow: 1\n{block}")
                }
                _ if block.starts_with("sources:") => format!("preflow: 1\n{block}stages: {{}}\n"),
                _ if block.starts_with("preflow-sweep: 1") => continue,
                _ => format!("preflow: 1\nstages:\n{block}"),
            };
            let found = problems(&space, &file);
            assert_eq!(found, Vec::<String>::new(), "{}\n{file}", path.display());
            let _ = std::fs::remove_file(space.0.path().join("preflow.yaml"));
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked} parts of files in pages");
}

/// The blocks of a page that are whole pipeline files.
fn pipelines(page: &str) -> Vec<String> {
    blocks(page).filter(|block| block.starts_with("preflow: 1")).map(str::to_owned).collect()
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
