//! What pipeline files may say, and what is said back when they may not.
//! Knows no kinds.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::lines;

fn files(entries: &[(&str, &str)]) -> Files {
    let map: HashMap<String, String> =
        entries.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    Rc::new(move |path: &Path| {
        let text = path.to_str().and_then(|p| map.get(p)).cloned();
        text.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such file"))
    })
}

fn read(text: &str) -> Result<Pipeline, Vec<Diagnostic>> {
    parse("dir/p.yaml", text, None, &[], files(&[]))
}

fn problems(text: &str) -> String {
    lines(&read(text).expect_err("it has a problem"))
}

/// The fields of the only stage, in one line.
fn fields(pipeline: &Pipeline) -> String {
    let shown = |(key, node): &(Key, Node)| format!("{}={}", key.name, show(node));
    pipeline.stages[0].fields.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn show(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "null".to_owned(),
        NodeValue::Bool(b) => b.to_string(),
        NodeValue::Int(i) => i.to_string(),
        NodeValue::Float(f) => format!("{f:?}"),
        NodeValue::String(s) => format!("{s:?}"),
        NodeValue::List(l) => format!("[{}]", l.iter().map(show).collect::<Vec<_>>().join(",")),
        NodeValue::Map(m) => {
            let all: Vec<String> =
                m.iter().map(|(k, v)| format!("{}:{}", k.name, show(v))).collect();
            format!("{{{}}}", all.join(","))
        }
    }
}

#[test]
fn scalars_are_yaml_1_2() {
    let p = read(
        "preflow: 1\nstages:\n  a: { kind: k, no: no, yes: Yes, on: on, t: true, n: ~, i: 17, \
         f: 2.0e-3, s: '17', under: 1_000, octal: 0755, date: 2026-11-23, big: 123456789012345678901, \
         time: 12:30, tilde: '~', unit: 400k }\n",
    )
    .unwrap();
    insta::assert_snapshot!(fields(&p), @r#"no="no" yes="Yes" on="on" t=true n=null i=17 f=0.002 s="17" under="1_000" octal="0755" date="2026-11-23" big=1.2345678901234568e20 time="12:30" tilde="~" unit="400k""#);
}

#[test]
fn params_take_the_last_word_and_remember_whose_it_was() {
    let text = "preflow: 1\nparams: { lr: 1.0e-3, seed: 1, name: x, list: [1, 2] }\nprofiles:\n  \
                smoke: { lr: 0.5, seed: 2 }\nstages:\n  a: { kind: k, lr: $lr, s: $seed, \
                t: \"run-${seed}-${name}\", l: $list, cost: $$5, shell: 'echo $HOME ${lr}', \
                deep: { x: [$seed] } }\n";
    let set = ["seed=3".to_owned()];
    let p = parse("dir/p.yaml", text, Some("smoke"), &set, files(&[])).unwrap();
    insta::assert_snapshot!(fields(&p), @r#"lr=0.5 s=3 t="run-3-x" l=[1,2] cost="$5" shell="echo $HOME 0.5" deep={x:[3]}"#);
    let origins: Vec<String> =
        p.params.iter().map(|p| format!("{}: {}", p.name.name, p.origin)).collect();
    insta::assert_snapshot!(origins.join("\n"), @r#"
    lr: profile smoke, dir/p.yaml:4
    seed: --set seed=3
    name: dir/p.yaml:2
    list: dir/p.yaml:2
    "#);
    let lr = &p.stages[0].fields[0].1;
    assert_eq!(lr.via.as_ref().map(|v| v.param.as_str()), Some("lr"));
    assert_eq!(&lr.span.source.text[lr.span.range.clone()], "$lr");
}

#[test]
fn params_may_use_those_above() {
    let head = "preflow: 1\nparams:\n";
    let tail = "stages: { a: { kind: k, x: $b } }\n";
    let p = read(&format!("{head}  a: 1\n  b: x-${{a}}\n{tail}")).unwrap();
    assert_eq!(fields(&p), r#"x="x-1""#);
    insta::assert_snapshot!(problems(&format!("{head}  b: $a\n  a: 1\n{tail}")), @"dir/p.yaml:3:6 [$a] param `a` is used above its own line | a param may use the params above it");
    insta::assert_snapshot!(problems(&format!("{head}  b: $b\n{tail}")), @"dir/p.yaml:3:6 [$b] param `b` is used above its own line | a param may use the params above it");
}

#[test]
fn params_cannot_blow_up() {
    let mut text = "preflow: 1\nparams:\n  p0: aaaaaaaaaaaaaaaa\n".to_owned();
    for i in 1..64 {
        text.push_str(&format!("  p{i}: [$p{0}, $p{0}]\n", i - 1));
    }
    text.push_str("stages: { a: { kind: k, x: $p63 } }\n");
    insta::assert_snapshot!(problems(&text), @"dir/p.yaml:22:15 [$p18] params expand to too much | more than 16 MiB in all");
}

#[test]
fn overrides_must_name_params() {
    let text = "preflow: 1\nparams: { seed: 1 }\nprofiles: { smoke: { sead: 2 } }\n\
                stages: { a: { kind: k, x: $sede, y: 'a ${nobody} b', z: 'a ${list}' } }\n";
    insta::assert_snapshot!(problems(text), @r#"
    dir/p.yaml:3:22 [sead] profile `smoke` sets unknown param `sead` | did you mean `seed`?
    dir/p.yaml:4:28 [$sede] unknown param `sede` | `params` has no `sede` | did you mean `seed`?
    dir/p.yaml:4:38 [\'a ${nobody} b\'] unknown param `nobody` | `params` has no `nobody` | params: seed
    dir/p.yaml:4:58 [\'a ${list}\'] unknown param `list` | `params` has no `list` | params: seed
    "#);
    let text = "preflow: 1\nparams: { seed: 1 }\nprofiles: { smoke: {} }\nstages: {}\n";
    let sets = ["sed=1", "seed", "seed=[1", "seed=!include x"].map(ToOwned::to_owned);
    let found = parse("p.yaml", text, Some("smoek"), &sets, files(&[])).unwrap_err();
    insta::assert_snapshot!(lines(&found), @r#"
    [] unknown profile `smoek` | did you mean `smoke`?
    --set:1:1 [sed] `--set` names unknown param `sed` | did you mean `seed`?
    --set:1:1 [seed] `--set` takes name=value | no `=`
    --set:1:6 [[] not valid YAML: unclosed bracket '['
    --set:1:15 [x] unknown tag | the only tag is `!include FILE`; pipeline files hold no other
    "#);
}

#[test]
fn includes_are_relative_to_the_file_and_keep_their_places() {
    let included = files(&[
        ("shared/train.yaml", "# größe\nlr: 0.5\nwarmup: !include more/warmup.yaml\n"),
        ("shared/more/warmup.yaml", "oops: ${x}\n"),
    ]);
    let text = "preflow: 1\nparams: { x: 1 }\nstages:\n  a:\n    kind: k\n    train: !include ../shared/train.yaml\n    b: 2\n";
    let p = parse("dir/p.yaml", text, None, &[], included).unwrap();
    assert_eq!(fields(&p), r#"train={lr:0.5,warmup:{oops:1}} b=2"#);
    let train = p.stages[0].fields[0].1.as_map().unwrap();
    assert_eq!(place(&train[0].0.span), "shared/train.yaml:2");
    assert_eq!(&train[0].0.span.source.text[train[0].0.span.range.clone()], "lr");
    let warmup = train[1].1.as_map().unwrap();
    assert_eq!(place(&warmup[0].1.span), "shared/more/warmup.yaml:1");
    assert_eq!(place(&p.stages[0].fields[1].0.span), "dir/p.yaml:7");
}

#[test]
fn includes_go_wrong_in_words() {
    let check = |spec: &str| {
        let text = format!("preflow: 1\nstages:\n  a: !include {spec}\n");
        let included = files(&[
            ("dir/self.yaml", "kind: !include p2.yaml\n"),
            ("dir/p2.yaml", "x: !include self.yaml\n"),
            ("dir/bad.yaml", "kind: [k\n"),
            ("dir/dup.yaml", "kind: k\nä: 1\nä: 2\n"),
            ("dir/p.yaml", "kind: k\n"),
        ]);
        lines(&parse("dir/p.yaml", &text, None, &[], included).unwrap_err())
    };
    insta::assert_snapshot!(check("missing.yaml"), @"dir/p.yaml:3:15 [missing.yaml] cannot include `missing.yaml` | no such file | paths are relative to the file that includes");
    insta::assert_snapshot!(check("self.yaml"), @"dir/p2.yaml:1:13 [self.yaml] `dir/self.yaml` includes itself | the files include each other: dir/self.yaml → dir/p2.yaml → dir/self.yaml");
    insta::assert_snapshot!(check("/etc/passwd"), @"dir/p.yaml:3:15 [/etc/passwd] cannot include `/etc/passwd` | an include is a path relative to the file that includes it | paths are relative to the file that includes");
    insta::assert_snapshot!(check("https://example.org/x.yaml"), @"dir/p.yaml:3:15 [https://example.org/x.yaml] cannot include `https://example.org/x.yaml` | an include is a path relative to the file that includes it | paths are relative to the file that includes");
    insta::assert_snapshot!(check("bad.yaml"), @"dir/bad.yaml:1:7 [[] not valid YAML: unclosed bracket '['");
    insta::assert_snapshot!(check("dup.yaml"), @"dir/dup.yaml:3:1 [ä] duplicate key `ä` | already given on line 2");
    insta::assert_snapshot!(check("../dir/p.yaml"), @"dir/p.yaml:3:15 [../dir/p.yaml] cannot include `../dir/p.yaml` | the files include each other | paths are relative to the file that includes");
}

#[test]
fn merge_keys_are_expanded() {
    let p = read(
        "preflow: 1\nstages:\n  a: { <<: &d { lr: 1, seed: 2 }, kind: k, seed: 3 }\n  \
         b: { kind: k, <<: *d }\n",
    )
    .unwrap();
    let mut all: Vec<&str> = p.stages[0].fields.iter().map(|(k, _)| k.name.as_str()).collect();
    all.sort_unstable();
    assert_eq!(all, ["lr", "seed"]);
    assert_eq!(p.stages[1].fields.len(), 2);
}

#[test]
fn broken_yaml_is_refused_at_its_place() {
    insta::assert_snapshot!(problems("preflow: 1\nstages: [a\n"), @"dir/p.yaml:2:9 [[] not valid YAML: unclosed bracket '['");
    insta::assert_snapshot!(problems("preflow: 1\nstages:\n\ta: {}\n"), @r"dir/p.yaml:3:1 [\t] not valid YAML: a tab in the indentation | indent with spaces");
    insta::assert_snapshot!(problems("preflow: 1\nname: x\nname: y\nstages: {}\n"), @"dir/p.yaml:3:1 [name] duplicate key `name` | already given on line 2");
    insta::assert_snapshot!(problems("preflow: 1\nname: !rust x\nstages: {}\n"), @"dir/p.yaml:2:13 [x] unknown tag | the only tag is `!include FILE`; pipeline files hold no other");
    insta::assert_snapshot!(problems("preflow: 1\nparams: { null: 1, ~: 2, : 3 }\nstages: {}\n"), @r#"
    dir/p.yaml:2:11 [null] `null` cannot be a key here | it means nothing in YAML; for the word write it in quotes: "null"
    dir/p.yaml:2:20 [~] `~` cannot be a key here | it means nothing in YAML; for the word write it in quotes: "~"
    dir/p.yaml:2:26 [] a key is missing | write a name before the colon
    "#);
    insta::assert_snapshot!(problems("preflow: 1\nstages: { a: { kind: x, k: { ? : 1 } } }\nNull: 1\n"), @r#"
    dir/p.yaml:2:32 [] a key is missing | write a name before the colon
    dir/p.yaml:3:1 [Null] `Null` cannot be a key here | it means nothing in YAML; for the word write it in quotes: "Null"
    "#);
    insta::assert_snapshot!(problems("preflow: 1\nparams: { 'null': 1, [a]: 2 }\nstages: {}\n"), @"dir/p.yaml:2:22 [[] a key must be a name | a list or a map cannot be a key | a list, as a value, stands after a name and a colon");
    insta::assert_snapshot!(problems("preflow: 1\nname: *nobody\nstages: {}\n"), @"dir/p.yaml:2:7 [*] alias without an anchor | no `&name` comes before this `*name`");
    insta::assert_snapshot!(problems("preflow: 1\nstages: {}\n---\npreflow: 1\n"), @"dir/p.yaml:3:1 [---] more than one document in the file | a second one starts here");
    insta::assert_snapshot!(problems("- preflow\n"), @"dir/p.yaml:1:1 [] a pipeline file is a map | found a list");
    insta::assert_snapshot!(problems(""), @r#"
    dir/p.yaml:1:1 [] the file does not say `preflow: 1` | the first line of a pipeline file is `preflow: 1`
    dir/p.yaml:1:1 [] the file has no `stages` | stages: { NAME: { kind: KIND, … } }
    "#);
    insta::assert_snapshot!(problems(&format!("preflow: 1\nstages: {}1{}\n", "[".repeat(100), "]".repeat(100))), @"dir/p.yaml:2:56 [[] the file is too large or too deep | nested deeper than 48 levels");
    insta::assert_snapshot!(problems("preflow: 1\n? [a, b]\n: 1\n"), @"dir/p.yaml:2:3 [[] a key must be a name | a list or a map cannot be a key | a list, as a value, stands after a name and a colon");
}

#[test]
fn bombs_do_not_go_off() {
    let mut bomb = String::from("preflow: 1\nparams:\n  a0: &a0 [lol, lol, lol]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("  a{i}: &a{i} [{refs}]\n"));
    }
    bomb.push_str("stages: {}\n");
    let said = problems(&bomb);
    assert!(said.contains("aliases") && said.lines().count() == 1, "{said}");
}

#[test]
fn versions_and_top_level_keys() {
    insta::assert_snapshot!(problems("stages: {}\n"), @"dir/p.yaml:1:1 [] the file does not say `preflow: 1` | the first line of a pipeline file is `preflow: 1`");
    insta::assert_snapshot!(problems("preflow: 2\nstages: {}\n"), @"dir/p.yaml:1:10 [2] this `preflow` reads format 1 only | another format | write `preflow: 1`, or use the version of preflow the file is for");
    insta::assert_snapshot!(problems("preflow-sweep: 1\npipeline: x.yaml\n"), @"dir/p.yaml:1:1 [preflow-sweep] this is a sweep, not a pipeline | `preflow sweep plan FILE` reads it");
    insta::assert_snapshot!(problems("preflow: 1\nstage: {}\nstagez: {}\n"), @r#"
    dir/p.yaml:2:1 [stage] unknown key `stage` in pipeline file | did you mean `stages`? | a pipeline file has preflow, name, params, profiles, sources, stages
    dir/p.yaml:3:1 [stagez] unknown key `stagez` in pipeline file | did you mean `stages`? | a pipeline file has preflow, name, params, profiles, sources, stages
    "#);
    insta::assert_snapshot!(problems("preflow: 1\nname: ../../x\nsources: 3\nstages: []\n"), @r#"
    dir/p.yaml:2:7 [../../x] `../../x` cannot name a pipeline | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first
    dir/p.yaml:3:10 [3] `sources` must be a map | found a whole number
    dir/p.yaml:4:9 [[] `stages` must be a map | found a list
    "#);
}

#[test]
fn sources_elsewhere_have_a_shape() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = |source: &str| format!("preflow: 1\nsources: {{ a: {source} }}\nstages: {{}}\n");
    for good in [
        "{ hub: gpt2 }".to_owned(),
        "{ hub: org/Some-Model_1.5B, revision: refs/pr/1, as: huggingface }".to_owned(),
        format!("{{ hub: datasets/org/rows, revision: {commit}, files: 'data/train-*.parquet' }}"),
        format!("{{ url: 'https://host/a/rows.jsonl?x=1', sha256: {hash}, as: text }}"),
        format!("{{ url: 'http://localhost:8000/rows.csv', sha256: 'sha256:{hash}' }}"),
    ] {
        assert!(read(&text(&good)).is_ok(), "{good}");
    }
    let wrong = [
        "{ hub: https://huggingface.co/org/name }",
        "{ hub: org/name@main }",
        "{ hub: ../name }",
        "{ hub: a/b/c }",
        "{ hub: org/name, revision: 'a b' }",
        "{ hub: org/name, revision: 1.0 }",
        "{ hub: datasets/org/rows }",
        "{ hub: org/name, files: ../x }",
        "{ hub: org/name, files: 'a[' }",
        "{ hub: org/name, path: x }",
        "{ hub: org/name, sha256: x }",
        "{ path: x, revision: main }",
        "{ url: 'https://host/x.csv' }",
        "{ url: 'https://host/x.csv', sha256: abc }",
        "{ url: 'http://host/x.csv', sha256: abc }",
        "{ url: 'https://me:secret@host/x.csv', sha256: abc }",
        "{ url: 'https://host/', sha256: abc }",
        "{ url: 'ftp://host/x', sha256: abc }",
        "{ url: x, sha256: abc }",
        "{ revision: main }",
    ];
    let said: Vec<String> = wrong.iter().map(|w| format!("{w}\n{}", problems(&text(w)))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn sources_and_stages_have_a_shape() {
    insta::assert_snapshot!(problems(
        "preflow: 1\nsources:\n  a: x.txt\n  b: { pth: x }\n  c: { path: ~/x }\n  \
         d: { path: 'http://x' }\n  e: { path: \"a\\0b\" }\n  F/g: { path: x }\nstages: {}\n"
    ), @r#"
    dir/p.yaml:3:6 [x.txt] source `a` must be a map | found text | NAME: { path: FILE, as: TYPE }
    dir/p.yaml:4:8 [pth] unknown key `pth` in source `b` | did you mean `path`? | a source has `path` (a file here), `hub` with `revision` and `files` (a repository of a hub) or `url` with `sha256` (a file of the web), and `as`
    dir/p.yaml:5:14 [~/x] a source needs a file | `~` is not expanded: paths are relative to the pipeline file
    dir/p.yaml:6:14 [\'http://x\'] a source needs a file | an address, not a file | `url:` with `sha256:` names a file of the web, `hub: ORG/NAME` a repository
    dir/p.yaml:7:14 [\"a\\0b\"] a source needs a file | not a file name
    dir/p.yaml:8:3 [F/g] `F/g` cannot name a source | lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first
    "#);
    insta::assert_snapshot!(problems("preflow: 1\nstages:\n  a: k\n  b: { knd: k }\n  c: { kind: 3 }\n"), @r#"
    dir/p.yaml:3:6 [k] stage `a` must be a map | found text | NAME: { kind: KIND, … }
    dir/p.yaml:4:3 [b] stage `b` has no `kind` | `preflow kinds` lists them
    dir/p.yaml:5:14 [3] `kind` must be text | found a whole number
    "#);
}

#[test]
fn places_count_bytes_and_characters_alike() {
    let text = "preflow: 1\r\n# 日本語 🦀\r\nstages:\r\n  a: { kind: k, x: 'é🦀', \"ключ\": $nö }\r\n  \
                b: { kind: k, y: '🦀 ${who}' }\r\n";
    insta::assert_snapshot!(problems(&text.replace("$nö", "$no")), @r#"
    dir/p.yaml:4:34 [$no] unknown param `no` | `params` has no `no` | the file has no params
    dir/p.yaml:5:20 [\'🦀 ${who}\'] unknown param `who` | `params` has no `who` | the file has no params
    "#);
    let p = read("\u{feff}preflow: 1\nstages: { a: { kind: k, x: é } }\n").unwrap();
    let span = &p.stages[0].fields[0].1.span;
    assert_eq!(&span.source.text[span.range.clone()], "é");
}

#[test]
fn the_name_falls_back_to_the_file() {
    for (path, name) in [
        ("pipelines/workshop.yaml", "workshop"),
        ("My Run (2).yaml", "my-run--2-"),
        ("-.yaml", "pipeline"),
    ] {
        let p = parse(path, "preflow: 1\nstages: {}\n", None, &[], files(&[])).unwrap();
        assert_eq!(p.name, name);
    }
}

#[test]
fn files_that_are_not_files_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.yaml");
    std::fs::write(&path, vec![b' '; 2 * 1024 * 1024 + 1]).unwrap();
    let said = lines(&load(path.to_str().unwrap(), None, &[]).unwrap_err());
    assert!(said.ends_with("larger than 2 MiB"), "{said}");
    let said = lines(&load("/dev/null", None, &[]).unwrap_err());
    assert!(said.ends_with("not a regular file"), "{said}");
    let said = lines(&load("no/such.yaml", None, &[]).unwrap_err());
    assert!(said.contains("cannot read no/such.yaml: No such file"), "{said}");
}

#[test]
fn what_files_include_is_bounded_in_depth_number_and_size() {
    let refused = |text: &str, files: Files| {
        let problem = parse("dir/p.yaml", text, None, &[], files).unwrap_err().remove(0);
        format!("{} | {}", problem.message, problem.label)
    };
    // Each includes the next one.
    let read = Rc::new(std::cell::Cell::new(0));
    let count = Rc::clone(&read);
    let chain = move |path: &Path| {
        count.set(count.get() + 1);
        let name = path.file_stem().unwrap().to_str().unwrap();
        Ok(format!("x: !include {}.yaml\n", name.parse::<u32>().unwrap() + 1))
    };
    let said = refused("x: !include 0.yaml\n", Rc::new(chain));
    assert_eq!(said, "the file is too large or too deep | files include each other too deeply");
    assert!(read.get() < 30, "{}", read.get());
    // One file, very often.
    let items = "  - !include b.yaml\n";
    let often = |n: usize| format!("preflow: 1\nstages: {{}}\nparams:\n x:\n{}", items.repeat(n));
    let small = || files(&[("dir/b.yaml", "1\n")]);
    assert!(parse("dir/p.yaml", &often(1000), None, &[], small()).is_ok());
    let said = refused(&often(1001), small());
    assert_eq!(said, "cannot include `b.yaml` | more than 1000 files are included");
    // Ten, each of which includes the next ten times.
    let bomb = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let next = name.parse::<u32>().unwrap() + 1;
        Ok(if next < 10 { format!("- !include {next}.yaml\n").repeat(10) } else { "1".into() })
    };
    let said = refused("x: !include 0.yaml\n", Rc::new(bomb));
    assert!(said.ends_with(" | more than 1000 files are included"), "{said}");
    let large = "# comment\n".repeat(100_000) + "1\n";
    let large = files(&[("dir/b.yaml", large.as_str())]);
    let said = refused(&often(20), large);
    assert!(said.ends_with(" | the included files hold more than 8 MiB in all"), "{said}");
}

#[test]
fn included_maps_can_be_merged() {
    let included = files(&[("dir/base.yaml", "lr: 1\nseed: 2\n")]);
    let text = "preflow: 1\nstages:\n  a: { <<: !include base.yaml, kind: k, seed: 3 }\n";
    let p = parse("dir/p.yaml", text, None, &[], included).unwrap();
    let mut all: Vec<String> =
        p.stages[0].fields.iter().map(|(k, n)| format!("{}={}", k.name, show(n))).collect();
    all.sort();
    assert_eq!(all, ["lr=1", "seed=3"]);
}

#[test]
fn nesting_is_fine_up_to_the_limit() {
    let deep = |n: usize| {
        let (open, close) = ("[".repeat(n), "]".repeat(n));
        read(&format!("preflow: 1\nstages: {{ a: {{ kind: k, x: {open}1{close} }} }}\n"))
    };
    assert!(deep(40).is_ok());
    assert!(deep(60).is_err());
    let maps = |n: usize| "{a: ".repeat(n) + "1" + &"}".repeat(n);
    assert!(read(&format!("preflow: 1\nparams: {{ p: {} }}\nstages: {{}}\n", maps(40))).is_ok());
}

/// Pieces that meet in broken files.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "preflow: 1\n",
        "stages:\n",
        "  a: ",
        "kind: k",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "- ",
        "\n",
        "\t",
        "&a ",
        "*a",
        "<<: *a",
        "!include x.yaml",
        "!x ",
        "'",
        "\"",
        "|",
        ">",
        "%",
        "@",
        "`",
        "$p",
        "${p}",
        "$$",
        "é🦀",
        "\u{feff}",
        "\u{0}",
        "\r\n",
        "---\n",
        "...\n",
        "# c\n",
        "? ",
        "~",
        "1e999",
        ".nan",
        "0x1F",
        "params: { p: 1 }\n",
        "profiles: ",
        "sources: ",
        "\\",
        "  ",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        let included = files(&[("dir/x.yaml", "k: [1, *a, !include x.yaml]\n")]);
        if let Err(problems) = parse("dir/p.yaml", &text, None, &["p=[1".to_owned()], included) {
            prop_assert!(!problems.is_empty());
            for problem in &problems {
                // Spans must be cut at characters, or rendering would panic.
                if let Some(span) = &problem.span {
                    prop_assert!(span.source.text.get(span.range.clone()).is_some());
                }
            }
        }
    }
}
