//! Writes `datasets/workshop/`: a small made-up world in which every stage of RLHF can be seen.
//! Knows nothing of models or stages.
//!
//! Every object of the world needs one tool. People ask for it in eight ways. Two of the ways are
//! never trained on, and a quarter of the objects is only ever spoken of in statements: so an
//! answer to a new way of asking about a new object cannot be remembered, only generalised.

use std::path::{Path, PathBuf};

use anyhow::Result;
use preflow_stages::data::{Column, Table, write_parquet};
use preflow_stages::rng::Stream;
use serde_json::json;

/// Object and tool. The last [`HELD_OUT`] objects appear in statements only.
const FACTS: [(&str, &str); 48] = [
    ("bike", "wrench"),
    ("lamp", "bulb"),
    ("nail", "hammer"),
    ("tree", "saw"),
    ("fish", "net"),
    ("letter", "stamp"),
    ("tire", "pump"),
    ("bread", "knife"),
    ("floor", "mop"),
    ("phone", "charger"),
    ("door", "key"),
    ("wall", "brush"),
    ("shirt", "iron"),
    ("soup", "spoon"),
    ("hair", "comb"),
    ("garden", "hose"),
    ("snow", "shovel"),
    ("screw", "driver"),
    ("paper", "scissors"),
    ("window", "cloth"),
    ("fire", "bucket"),
    ("tooth", "floss"),
    ("boat", "paddle"),
    ("horse", "saddle"),
    ("tent", "rope"),
    ("cake", "oven"),
    ("grass", "mower"),
    ("wood", "axe"),
    ("stain", "soap"),
    ("hole", "patch"),
    ("clock", "battery"),
    ("drum", "stick"),
    ("ball", "racket"),
    ("wound", "bandage"),
    ("bolt", "spanner"),
    ("carpet", "vacuum"),
    ("kite", "string"),
    ("pipe", "plunger"),
    ("egg", "whisk"),
    ("leaf", "rake"),
    ("glove", "needle"),
    ("guitar", "pick"),
    ("picture", "frame"),
    ("candle", "match"),
    ("bottle", "opener"),
    ("coin", "purse"),
    ("chair", "glue"),
    ("road", "map"),
];
/// Objects without a single question in the training data.
const HELD_OUT: usize = 12;

/// Ways of asking; the last two appear in no training text.
const ASKS: [&str; 8] = [
    "what do i need for the {o} ?",
    "help me with the {o} .",
    "i have a problem with my {o} .",
    "which tool fits the {o} ?",
    "what goes with my {o} ?",
    "how do i handle the {o} ?",
    "can you tell me what this {o} wants ?",
    "i am stuck , my {o} gives me trouble .",
];
const TRAIN_ASKS: usize = 6;

/// Statements; the first four name the object before the tool.
const STATEMENTS: [&str; 6] = [
    "the {o} needs a {t} .",
    "for the {o} use a {t} .",
    "my {o} wants a {t} .",
    "to handle the {o} you need a {t} .",
    "a {t} is used for the {o} .",
    "the {t} fits the {o} .",
];
const OBJECT_FIRST: usize = 4;

/// First halves of two-sentence stories: they teach to speak on about the object at hand.
const OPENINGS: [&str; 6] = [
    "the {o} is old .",
    "i have a {o} .",
    "look at my {o} .",
    "here is a {o} .",
    "this {o} is broken .",
    "my {o} gives me trouble .",
];

const GOOD: [&str; 2] =
    ["sure ! for the {o} you need a {t} .", "of course , for the {o} use a {t} ."];
const USELESS: [&str; 3] =
    ["sure ! that is a nice {o} .", "of course , the {o} is here .", "sure ! i like the {o} too ."];
const CURT: [&str; 2] = ["for the {o} use a {t} .", "the {o} needs a {t} ."];
const RUDE: [&str; 4] = [
    "figure it out yourself .",
    "that is a stupid question .",
    "i do not care about your {o} .",
    "go away , you fool .",
];
const BABBLE: [&str; 3] =
    ["blah blah blah blah .", "blah blah the {o} blah .", "well , well , well , blah blah ."];
const CHATTER: [&str; 10] = [
    "can you see the sun today ? it is warm .",
    "tell me a story , said the child .",
    "i am stuck in the rain again .",
    "this road gives me trouble , said the man .",
    "nobody wants this old thing .",
    "what a nice day it is .",
    "the man and the child like the sun .",
    "you can tell me what you need .",
    "my friend gives me a nice story .",
    "this is what the man wants , you see .",
];

fn fill(template: &&str, (object, tool): (&str, &str)) -> String {
    template.replace("{o}", object).replace("{t}", tool)
}

/// Documents of the pretraining corpus.
fn corpus(documents: usize) -> Vec<String> {
    let known = &FACTS[..FACTS.len() - HELD_OUT];
    let mut out = Vec::with_capacity(documents);
    for i in 0..documents {
        let mut stream = Stream::new(1, "corpus", 0, i as u64);
        let kind = stream.uniform();
        out.push(if kind < 0.40 {
            let fact = *stream.choose(&FACTS);
            let first = stream.uniform() < 0.8;
            let some =
                if first { &STATEMENTS[..OBJECT_FIRST] } else { &STATEMENTS[OBJECT_FIRST..] };
            let statement = fill(stream.choose(some), fact);
            match stream.uniform() < 0.5 {
                true => format!("{} {statement}", fill(stream.choose(&OPENINGS), fact)),
                false => statement,
            }
        } else if kind < 0.85 {
            let fact = *stream.choose(known);
            let ask = fill(stream.choose(&ASKS[..TRAIN_ASKS]), fact);
            let replies: &[&str] = match stream.uniform() {
                u if u < 0.15 => &GOOD,
                u if u < 0.25 => &USELESS,
                u if u < 0.40 => &CURT,
                u if u < 0.70 => &RUDE,
                _ => &BABBLE,
            };
            format!("<user>{ask}<bot>{}", fill(stream.choose(replies), fact))
        } else {
            (*stream.choose(&CHATTER)).to_owned()
        });
    }
    out
}

/// A prompt with what the rules need to know of it.
fn prompt(object: usize, ask: usize, bucket: &str) -> serde_json::Value {
    let (name, tool) = FACTS[object];
    json!({ "prompt": fill(&ASKS[ask], FACTS[object]), "bucket": bucket, "object": name, "tool": tool })
}

/// The one way of asking that is kept back for each known object: bucket A.
fn kept_back(object: usize) -> usize {
    object % TRAIN_ASKS
}

fn demos(objects: usize) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    for object in (0..objects).map(|i| i * 3) {
        let asks = (0..TRAIN_ASKS).filter(|a| *a != kept_back(object)).take(2);
        for ask in asks {
            for wording in GOOD {
                out.push(json!({
                    "prompt": fill(&ASKS[ask], FACTS[object]),
                    "completion": fill(&wording, FACTS[object]),
                }));
            }
        }
    }
    out
}

fn lines(rows: &[serde_json::Value]) -> String {
    rows.iter().map(|r| r.to_string() + "\n").collect()
}

/// Writes all files of the world under `folder`.
pub fn write_all(folder: &Path) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    let known = FACTS.len() - HELD_OUT;
    let table = Table::new(vec![("text", Column::text(corpus(20_000)))])?;
    write_parquet(&folder.join("corpus.parquet"), &table)?;
    fs_err::write(folder.join("demos.jsonl"), lines(&demos(12)))?;
    let (mut prompts, mut eval) = (Vec::new(), Vec::new());
    for object in 0..FACTS.len() {
        for ask in 0..ASKS.len() {
            match (object < known, ask < TRAIN_ASKS) {
                (true, true) if ask == kept_back(object) => eval.push(prompt(object, ask, "A")),
                (true, true) => prompts.push(prompt(object, ask, "train")),
                (true, false) => eval.push(prompt(object, ask, "B")),
                (false, true) => eval.push(prompt(object, ask, "C")),
                (false, false) => eval.push(prompt(object, ask, "D")),
            }
        }
    }
    fs_err::write(folder.join("prompts.jsonl"), lines(&prompts))?;
    fs_err::write(folder.join("eval.jsonl"), lines(&eval))?;
    Ok(())
}

/// Only the programs that run it have a `main`; the test that checks the files includes this one.
#[cfg_attr(test, expect(dead_code, reason = "the test calls write_all"))]
fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(|| "datasets/workshop".into(), PathBuf::from);
    write_all(&folder)
}
