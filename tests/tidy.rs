//! The house rules of ARCHITECTURE.md, checked: who may import whom, what no room mentions, size.
//! Reads source as text; knows nothing of what it does.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file in lines; tests beside the code may be longer, stories are not cut up.
const LONGEST: usize = 500;
const LONGEST_TESTS: usize = 900;
const WIDEST: usize = 100;
/// Words of machine learning: kinds are data, `src/` does not know what they do.
const FOREIGN: [&str; 3] = ["ppo", "reward", "tensor"];
/// Rooms that show results to people may say what they are about.
const FOREIGN_ALLOWED: [&str; 2] = ["label", "html"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`: path relative to it, and text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder_now) = open.pop() {
        for entry in std::fs::read_dir(&folder_now).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("readable file");
                found.push((path.strip_prefix(folder).expect("inside").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// Folders of source, and the headings in ARCHITECTURE.md of the tables of their rooms.
const PACKAGES: [(&str, &str); 2] = [("src", "## Rooms"), ("stages/src", "### Rooms of stages/")];

/// Room → rooms it may import; `None`: all of them. From the table under `heading` in
/// ARCHITECTURE.md.
fn rooms(heading: &str) -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = text.lines().skip_while(|l| *l != heading);
    let rows = rows.skip_while(|l| !l.starts_with("| room |")).skip(2);
    let rows = rows.take_while(|l| l.starts_with('|'));
    let mut rooms = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let allowed = match cells[2] {
            "anything" => None,
            "nothing" => Some(BTreeSet::new()),
            list => Some(list.split(',').map(|r| r.trim().to_owned()).collect()),
        };
        for room in cells[0].split(',') {
            rooms.insert(room.trim().to_owned(), allowed.clone());
        }
    }
    assert!(rooms.len() > 8, "the table of rooms under `{heading}` was not found");
    rooms
}

/// `pipeline/yaml.rs` → `pipeline`; `graph.rs` → `graph`.
fn room_of(path: &Path) -> String {
    let first = path.components().next().expect("a path has parts").as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The text with comment lines emptied, so that lines still count.
fn code(text: &str) -> String {
    let kept = |l: &str| if l.trim_start().starts_with("//") { "" } else { l }.to_owned() + "\n";
    text.lines().map(kept).collect()
}

/// Rooms named after `crate::`, with their lines; `use crate::{a, b}` included.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let word = |s: &str| -> String {
            s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level(list).map(|part| (line, word(part.trim())))),
            None => found.push((line, word(rest))),
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The parts of a brace list, inner braces kept together.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 1;
    let mut parts = Vec::new();
    let mut start = 0;
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            parts.push(&list[start..i]);
            start = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts.into_iter()
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut problems = Vec::new();
    for (folder, heading) in PACKAGES {
        let rooms = rooms(heading);
        for (path, text) in sources(&root().join(folder)) {
            let room = room_of(&path);
            // Tests of a room may furnish it from anywhere.
            if room == "main" || room == "lib" || path.ends_with("tests.rs") {
                continue;
            }
            let place = format!("{folder}/{}", path.display());
            let Some(allowed) = rooms.get(&room) else {
                problems.push(format!("{place}: `{room}` is not in the table"));
                continue;
            };
            let Some(allowed) = allowed else { continue };
            for (line, name) in imports(&code(&text)) {
                if rooms.contains_key(&name) && name != room && !allowed.contains(&name) {
                    problems.push(format!("{place}:{line}: `{room}` may not import `{name}`"));
                }
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_room_of_the_tables_is_there() {
    let mut problems = Vec::new();
    for (folder, heading) in PACKAGES {
        let found: BTreeSet<String> =
            sources(&root().join(folder)).iter().map(|(path, _)| room_of(path)).collect();
        let gone = rooms(heading).into_keys().filter(|room| !found.contains(room));
        problems.extend(gone.map(|room| format!("{folder}: there is no room `{room}`")));
    }
    assert_none(&problems);
}

#[test]
fn imports_are_found_in_every_spelling() {
    let names = |text: &str| -> Vec<String> {
        imports(&code(text)).into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(names("use crate::store::Digest;"), ["store"]);
    assert_eq!(names("use crate::{plan::{a, b},\n    graph};\n"), ["plan", "graph"]);
    assert_eq!(names("let x = crate::cli::run(crate::exec::y);"), ["cli", "exec"]);
    assert!(names("use mycrate::store; \n  // crate::store\n").is_empty());
    assert_eq!(imports("\n\nuse crate::store;")[0].0, 3);
}

#[test]
fn files_say_what_they_are_for_and_stay_small() {
    let mut problems = Vec::new();
    let folders = ["src", "stages/src"].map(|at| (at, sources(&root().join(at))));
    for (at, (path, text)) in
        folders.into_iter().flat_map(|(at, all)| all.into_iter().map(move |f| (at, f)))
    {
        let name = path.display();
        if !text.starts_with("//! ") {
            problems.push(format!("{at}/{name}: the first line does not say what it is for"));
        }
        let tests = path.ends_with("tests.rs");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let (lines, most) = if tests {
            (text.lines().count(), LONGEST_TESTS)
        } else {
            (code.lines().count(), LONGEST)
        };
        if lines > most {
            problems.push(format!("{at}/{name}: {lines} lines, at most {most}"));
        }
        for (i, line) in text.lines().enumerate() {
            let snapshot = tests || line.contains("assert_snapshot") || line.contains('"');
            if line.chars().count() > WIDEST && !snapshot {
                problems.push(format!("{at}/{name}:{}: wider than {WIDEST} columns", i + 1));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_orchestrator_does_not_speak_of_learning() {
    let mut problems = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        if FOREIGN_ALLOWED.contains(&room_of(&path).as_str()) {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let words = lower.split(|c: char| !c.is_alphanumeric());
            for word in words.filter(|w| FOREIGN.contains(&w.trim_end_matches('s'))) {
                problems.push(format!("src/{}:{}: says `{word}`", path.display(), i + 1));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_orchestrator_never_links_libtorch() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "-p", "preflow", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("serde"), "{tree}");
    let bad = tree.lines().filter(|l| l.starts_with("tch ") || l.starts_with("torch-sys "));
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Files that others may have made are opened by one room, which never waits and has limits.
#[test]
fn files_are_opened_by_the_room_for_it() {
    // What the system itself offers under `/proc`, files that were looked at a moment ago, folders
    // that are synced, and new files.
    let own = [
        ("exec/orphans.rs", 3),
        ("exec/reaper.rs", 1),
        ("run/mod.rs", 1),
        ("project/execution.rs", 1),
        ("store/digest.rs", 1),
        ("store/publish.rs", 2),
        ("store/mod.rs", 1),
        ("votes/folder.rs", 2),
        ("user.rs", 1),
        // What a person names may be a pipe of their shell.
        ("label/exchange/rows.rs", 1),
    ];
    let opens = [
        "fs::read(",
        "fs_err::read(",
        "fs::read_to_string(",
        "fs_err::read_to_string(",
        "File::open(",
        "OpenOptions::new(",
    ];
    let mut problems = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        if path.ends_with("tests.rs") || path == Path::new("files.rs") {
            continue;
        }
        let text = text.split("mod tests {").next().unwrap_or_default();
        let found =
            text.lines().filter(|line| opens.iter().any(|open| line.contains(open))).count();
        let allowed = own.iter().find(|(file, _)| path == Path::new(file)).map_or(0, |(_, n)| *n);
        if found != allowed {
            problems.push(format!(
                "src/{}: opens {found} files by itself, not {allowed}: use `files::`",
                path.display()
            ));
        }
    }
    assert_none(&problems);
}

/// A reader who meets a name knows which type it is: no two public types of a package share one.
#[test]
fn one_public_name_is_one_type() {
    let mut problems = Vec::new();
    for (folder, _) in PACKAGES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, text) in sources(&root().join(folder)) {
            for name in code(&text).lines().filter_map(public_type) {
                places.entry(name.to_owned()).or_default().push(path.display().to_string());
            }
        }
        assert!(places.len() > 80, "{folder}: types were not found");
        places.retain(|_, at| at.len() > 1);
        let twice = places.iter().map(|(name, at)| format!("{folder}: {name}: {}", at.join(", ")));
        problems.extend(twice);
    }
    assert_none(&problems);
}

/// The type that a line makes public, to the package or beyond.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = rest.split_once(") ").filter(|_| rest.starts_with('(')).map_or(rest, |(_, r)| r);
    let (what, rest) = rest.trim_start().split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    ["struct", "enum", "trait", "type"].contains(&what).then(|| &rest[..end])
}

#[test]
fn public_types_are_found_in_every_spelling() {
    assert_eq!(public_type("pub struct A<T> {"), Some("A"));
    assert_eq!(public_type("    pub(super) enum B {"), Some("B"));
    assert_eq!(public_type("pub(in crate::x) type C = u8;"), Some("C"));
    assert_eq!(public_type("struct D;"), None);
    assert_eq!(public_type("pub fn e() {"), None);
}

/// A module by its path: `["label", "queue"]`.
type Module = Vec<String>;

/// Modules under `folder` with their code, without tests.
fn modules(folder: &Path) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    for (path, text) in sources(folder) {
        if path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests")) {
            continue;
        }
        let mut parts: Module =
            path.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            parts.pop();
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        found.insert(parts, code(text));
    }
    found
}

/// Every path of a `use` tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths_of(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let (head, list) = match tree.split_once('{') {
        Some((head, list)) => (head.trim().trim_end_matches("::"), Some(list)),
        None => (tree.split(" as ").next().unwrap_or_default().trim(), None),
    };
    let joined = [prefix, head].iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>();
    let joined = joined.join("::");
    match list {
        Some(list) => top_level(list).for_each(|part| paths_of(&joined, part, paths)),
        None => paths.push(joined),
    }
}

/// Paths that a module's code names: in `use` lines that are not re-exports, and in place.
fn named_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with([';', '}', ']', ')', '{', 'b'])
        });
        match start {
            Some(at) if statement[..at].trim_end().ends_with("pub") => {}
            Some(at) => paths_of("", statement[at + 4..].trim_end_matches(';'), &mut paths),
            None => rest.push_str(statement),
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(start) {
            let before = rest[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let is_path = |c: &char| c.is_alphanumeric() || *c == '_' || *c == ':';
            paths.push(rest[at..].chars().take_while(is_path).collect());
        }
    }
    paths
}

/// The module that a path leads into, seen from another one; `None`: no module of this crate.
fn target(from: &Module, path: &str, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut here = from.clone();
    let mut parts = path.split("::").filter(|part| !part.is_empty()).peekable();
    match parts.peek()? {
        &"crate" => {
            here.clear();
            parts.next();
        }
        &"super" | &"self" => {
            while let Some(part) = parts.next_if(|part| ["super", "self"].contains(part)) {
                if part == "super" {
                    here.pop();
                }
            }
        }
        _ => return None,
    }
    let least = here.len();
    here.extend(parts.map(str::to_owned));
    let lengths = (least.max(1)..=here.len()).rev();
    lengths.map(|n| here[..n].to_vec()).find(|module| all.contains_key(module) && module != from)
}

/// Modules that import each other in a loop: of each loop all members, sorted.
fn loops(folder: &Path) -> BTreeSet<Vec<String>> {
    let all = modules(folder);
    let edges: BTreeMap<&Module, BTreeSet<Module>> = all
        .iter()
        .map(|(module, code)| {
            let targets = named_paths(code).into_iter().filter_map(|p| target(module, &p, &all));
            (module, targets.collect())
        })
        .collect();
    let reached = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&Module> = edges[from].iter().collect();
        while let Some(next) = todo.pop() {
            if seen.insert(next.clone()) {
                todo.extend(&edges[next]);
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> = all.keys().map(|m| (m, reached(m))).collect();
    let looped = all.keys().filter(|module| reach[module].contains(*module));
    looped
        .map(|module| {
            let back = reach[module].iter().filter(|other| reach[other].contains(module));
            back.map(|module| module.join("::")).collect()
        })
        .collect()
}

#[test]
fn modules_do_not_import_each_other_in_a_loop() {
    let mut problems = Vec::new();
    for (folder, _) in PACKAGES {
        for names in loops(&root().join(folder)) {
            problems.push(format!("{folder}: {} import each other", names.join(", ")));
        }
    }
    assert_none(&problems);
}

/// Kinds of `folder` that import another one: what two kinds share lies outside of `kinds`.
fn kinds_that_import_kinds(folder: &Path) -> Vec<String> {
    let all = modules(folder);
    let kind_of = |module: &Module| match module.as_slice() {
        [room, kind, ..] if room == "kinds" => Some(kind.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (module, code) in &all {
        let Some(own) = kind_of(module) else { continue };
        let targets = named_paths(code).into_iter().filter_map(|p| target(module, &p, &all));
        let others = targets.filter_map(|t| kind_of(&t)).filter(|kind| *kind != own);
        found.extend(others.map(|other| format!("{} imports {other}", module.join("::"))));
    }
    found
}

#[test]
fn kinds_do_not_import_each_other() {
    assert_none(&kinds_that_import_kinds(&root().join("stages/src")));
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("kinds/mod.rs", "mod a;\nmod b;\n");
    write("kinds/a.rs", "mod part;\nuse part::X;\nuse crate::data::Y;\n");
    write("kinds/a/part.rs", "use super::Z;\nuse crate::kinds::b::B;\n");
    write("kinds/b.rs", "fn f() { super::a::g(); }\n");
    assert_eq!(
        kinds_that_import_kinds(folder.path()),
        ["kinds::a::part imports b", "kinds::b imports a"]
    );
}

#[test]
fn loops_are_found_in_every_spelling() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("lib.rs", "pub mod a;\npub mod b;\n");
    write("a.rs", "use std::fs;\nuse crate::b::{self, c::{D, E}};\n");
    write("b/mod.rs", "pub mod c;\npub use c::D;\npub use crate::a::X;\n");
    write("b/c.rs", "// crate::a\nuse super::f::G;\n");
    write("b/f.rs", "pub struct G;\n");
    assert_eq!(loops(folder.path()), BTreeSet::new());
    write("b/f.rs", "pub fn g() { crate::a::h(); }\n");
    assert_eq!(
        loops(folder.path()),
        BTreeSet::from([["a", "b::c", "b::f"].map(Into::into).into()])
    );
    write("b/f.rs", "use super::c::D;\n");
    assert_eq!(loops(folder.path()), BTreeSet::from([["b::c", "b::f"].map(Into::into).into()]));
}
