//! From opinions to a votes folder: names, sides, revisions. What was imported before is not again.
//! Knows nothing of the forms the opinions came in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::error::ExchangeError;
use super::opinions::Opinion;
use crate::identity::Digest;
use crate::votes::{
    Choice, Folder, Ledger, PairText, Side, Vote, composed, is_annotator, is_plain,
};

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// New votes by annotator.
    pub added: BTreeMap<String, usize>,
    /// Votes that an earlier import brought.
    pub known: usize,
    /// Opinions that a later row of the same annotator on the same pair replaced.
    pub replaced: usize,
    /// The pairs, each once, in the order of the files, the answer on the left first.
    pub pairs: Vec<[String; 3]>,
}

/// An opinion as a vote, before it is known whether it is new.
struct Ballot {
    text: PairText,
    choice: Choice,
    shown_left: Side,
    at: String,
    ms: u64,
    reasons: Vec<String>,
}

/// Writes opinions to a votes folder. `annotator`: whose they are where a file does not say; `now`:
/// when, likewise.
///
/// # Errors
/// Nobody knows whose they are; the folder cannot be read or written.
pub fn record(
    dir: &Path,
    opinions: &[(&Path, Opinion)],
    annotator: Option<&str>,
    now: &str,
) -> Result<Recorded, ExchangeError> {
    let mut recorded = Recorded::default();
    let mut names = Names::default();
    let mut ballots: BTreeMap<String, BTreeMap<String, Ballot>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for (path, opinion) in opinions {
        let raw = opinion.annotator.as_deref().or(annotator);
        let raw = raw.ok_or_else(|| ExchangeError::Nameless { path: (*path).to_owned() })?;
        let name = names.of(raw)?;
        let ballot = ballot(opinion, now);
        if seen.insert(ballot.text.pair.clone()) {
            recorded.pairs.push(sides(&ballot));
        }
        let own = ballots.entry(name).or_default();
        if own.insert(ballot.text.pair.clone(), ballot).is_some() {
            recorded.replaced += 1;
        }
    }
    let folder = Folder::read(dir)?;
    let mut texts: HashSet<String> = folder.texts.keys().cloned().collect();
    for (name, own) in ballots {
        let (votes, new_texts) = unknown(&folder, &name, own, &mut texts, &mut recorded.known);
        // Before the first write, so that a name that is refused leaves nothing behind.
        let ledger = Ledger::new(dir, &name)?;
        if !votes.is_empty() {
            ledger.append(&votes, &new_texts)?;
        }
        recorded.added.insert(name, votes.len());
    }
    Ok(recorded)
}

fn ballot(opinion: &Opinion, now: &str) -> Ballot {
    let [first, second] = &opinion.answers;
    let text = PairText::new(&opinion.prompt, first, second);
    let first_is_a = text.a == *first;
    let choice = if first_is_a { opinion.choice } else { opinion.choice.mirrored() };
    let shown_left = match (opinion.sides_known, first_is_a) {
        (true, true) => Side::A,
        (true, false) => Side::B,
        // Nobody knows: by the pair's name, so that neither answer is always on the left.
        (false, _) if text.pair.bytes().last().is_some_and(|b| b % 2 == 0) => Side::A,
        (false, _) => Side::B,
    };
    let at = opinion.at.clone().unwrap_or_else(|| now.to_owned());
    Ballot { text, choice, shown_left, at, ms: opinion.ms, reasons: opinion.reasons.clone() }
}

fn sides(ballot: &Ballot) -> [String; 3] {
    let PairText { prompt, a, b, .. } = ballot.text.clone();
    match ballot.shown_left {
        Side::A => [prompt, a, b],
        Side::B => [prompt, b, a],
    }
}

/// The votes of one annotator that no earlier import brought, and the texts that nobody kept.
fn unknown(
    folder: &Folder,
    name: &str,
    own: BTreeMap<String, Ballot>,
    texts: &mut HashSet<String>,
    known: &mut usize,
) -> (Vec<Vote>, Vec<PairText>) {
    let ids: HashSet<&str> =
        folder.votes.get(name).into_iter().flatten().map(|v| v.id.as_str()).collect();
    let latest = folder.latest(name);
    let (mut votes, mut new_texts) = (Vec::new(), Vec::new());
    for (pair, ballot) in own {
        let id = submission(name, &pair, ballot.choice, &ballot.reasons);
        if ids.contains(id.as_str()) {
            *known += 1;
            continue;
        }
        if texts.insert(pair.clone()) {
            new_texts.push(ballot.text);
        }
        votes.push(Vote {
            rev: latest.get(&(pair.as_str(), false)).map_or(0, |v| v.rev + 1),
            pair,
            choice: ballot.choice,
            shown_left: ballot.shown_left,
            ms: ballot.ms,
            at: ballot.at,
            note: String::new(),
            reasons: ballot.reasons,
            id,
            repeat: false,
        });
    }
    (votes, new_texts)
}

/// The same vote has the same name, however often it is imported.
fn submission(annotator: &str, pair: &str, choice: Choice, reasons: &[String]) -> String {
    let bytes = match reasons {
        [] => serde_json::to_vec(&("preflow.import/1", annotator, pair, choice)),
        _ => serde_json::to_vec(&("preflow.import/2", annotator, pair, choice, reasons)),
    };
    let bytes = bytes.expect("invariant: strings are JSON");
    format!("import-{}", &Digest::of(&bytes).hex()[..32])
}

/// Names as files write them → names of annotators.
#[derive(Default)]
struct Names(HashMap<String, String>);

/// Longer names are refused.
const LONGEST: usize = 128;

impl Names {
    fn of(&mut self, raw: &str) -> Result<String, ExchangeError> {
        let raw = composed(raw.trim());
        let refused = || ExchangeError::NoName { name: raw.chars().take(LONGEST).collect() };
        if raw.chars().count() > LONGEST
            || raw.contains(|c: char| c.is_control() || c == '/' || c == '\\')
        {
            return Err(refused());
        }
        let plain = |c: char| if is_plain(c) || c == '_' { c } else { '-' };
        let name: String = composed(&raw.to_lowercase()).chars().map(plain).collect();
        let mut name = name.trim_matches(['-', '_']);
        // Longer ones keep their end, where numbers stand.
        while !name.is_empty() && !is_annotator(name) {
            let mut rest = name.chars();
            rest.next();
            name = rest.as_str();
        }
        if name.is_empty() {
            return Err(refused());
        }
        let name = name.to_owned();
        let first = self.0.entry(name.clone()).or_insert_with(|| raw.clone());
        if *first != raw {
            return Err(ExchangeError::Clash { one: first.clone(), other: raw, name });
        }
        Ok(name)
    }
}
