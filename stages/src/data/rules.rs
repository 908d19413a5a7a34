//! Rules that score an answer: what the simulated annotator judges by and `evaluate` counts.
//! Knows nothing of who wrote the answer.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, bail};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;

/// One rule: a name, a score, and exactly one of the conditions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// What the rule is called in reports, for example `rude`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Points that an answer gets when the rule holds; 0 only counts how often it holds.
    #[schemars(range(min = -1e9, max = 1e9))]
    pub score: f64,
    /// Condition: the answer matches this regular expression. `{column}` stands for the value of
    /// that column of the prompt's row, taken literally; `\{` is a brace. Empty: not used.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Condition: the answer did not end by itself.
    pub no_eos: bool,
    /// Condition: a clause of two words or more occurs twice.
    pub repeated_clause: bool,
    /// Condition: the answer has more words than this; `score` counts for every further word.
    /// 0: not used.
    #[schemars(extend("x-unit" = "count"))]
    pub words_over: u64,
    /// Turns the condition round: the rule holds when the condition does not.
    pub not: bool,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub text: &'a str,
    /// The answer ended with the end-of-sequence token.
    pub finished: bool,
}

/// The rules of one list, checked and ready.
#[derive(Debug)]
pub struct RuleBook {
    rules: Vec<CompiledRule>,
}

/// A rule and the expressions made from it so far.
#[derive(Debug)]
pub struct CompiledRule {
    rule: Rule,
    cache: HashMap<String, Regex>,
}

impl RuleBook {
    /// Checks the rules.
    ///
    /// # Errors
    /// When a rule has no name or a name twice, not exactly one condition, or a bad expression.
    pub fn new(rules: &[Rule]) -> Result<Self> {
        for (i, rule) in rules.iter().enumerate() {
            let number = i + 1;
            if rule.name.is_empty() {
                bail!("rule {number} has no name");
            }
            if rules[..i].iter().any(|r| r.name == rule.name) {
                bail!("two rules are named `{}`", rule.name);
            }
            let conditions = usize::from(!rule.pattern.is_empty())
                + usize::from(rule.no_eos)
                + usize::from(rule.repeated_clause)
                + usize::from(rule.words_over > 0);
            if conditions != 1 {
                bail!(
                    "rule `{}` has {conditions} conditions; give exactly one of match, no_eos, \
                     repeated_clause, words_over",
                    rule.name
                );
            }
            let literal = substitute(&rule.pattern, |_| Some(String::new()))?;
            Regex::new(&literal).with_context(|| format!("rule `{}`: bad match", rule.name))?;
        }
        let compile = |r: &Rule| CompiledRule { rule: r.clone(), cache: HashMap::new() };
        Ok(Self { rules: rules.iter().map(compile).collect() })
    }

    /// Names of the rules, in order.
    pub fn names(&self) -> Vec<String> {
        self.rules.iter().map(|r| r.rule.name.clone()).collect()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Which rules hold for an answer to row `row` of `prompts`, and the points they add up to.
    ///
    /// # Errors
    /// When a rule names a column that the prompts do not have.
    pub fn judge(
        &mut self,
        answer: Answer,
        prompts: &Table,
        row: usize,
    ) -> Result<(Vec<bool>, f64)> {
        let mut score = 0.0;
        let mut holds = Vec::with_capacity(self.rules.len());
        for compiled in &mut self.rules {
            let times = compiled.times(answer, prompts, row)?;
            score += compiled.rule.score * times;
            holds.push(times > 0.0);
        }
        Ok((holds, score))
    }
}

impl CompiledRule {
    /// How often the score counts: 0 or 1, or the number of words too many.
    fn times(&mut self, answer: Answer, prompts: &Table, row: usize) -> Result<f64> {
        let rule = &self.rule;
        let times = if !rule.pattern.is_empty() {
            let name = &rule.name;
            let literal = substitute(&rule.pattern, |column| {
                prompts.column(column)?.display(row).map(|v| regex::escape(&v))
            })
            .with_context(|| format!("rule `{name}`"))?;
            if !self.cache.contains_key(&literal) {
                self.cache.insert(literal.clone(), Regex::new(&literal)?);
            }
            f64::from(u8::from(self.cache[&literal].is_match(answer.text)))
        } else if rule.no_eos {
            f64::from(u8::from(!answer.finished))
        } else if rule.repeated_clause {
            f64::from(u8::from(repeats_a_clause(answer.text)))
        } else {
            answer.text.split_whitespace().count().saturating_sub(rule.words_over as usize) as f64
        };
        Ok(if rule.not { f64::from(u8::from(times == 0.0)) } else { times })
    }
}

/// Replaces every `{name}` (a lower-case word, so not `{2,3}`) by what `value` gives for it.
fn substitute(pattern: &str, value: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        out.push_str(before);
        let name = after[1..].split('}').next().unwrap_or_default();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && after.len() > name.len() + 1;
        if !is_name || before.ends_with('\\') {
            out.push('{');
            rest = &after[1..];
            continue;
        }
        let Some(text) = value(name) else {
            bail!("the prompts have no column `{name}` (or it is empty in this row)");
        };
        out.push_str(&text);
        rest = &after[name.len() + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a clause of two words or more, between `. , ! ? ;`, occurs twice.
fn repeats_a_clause(text: &str) -> bool {
    let mut seen: BTreeMap<String, ()> = BTreeMap::new();
    text.split(['.', ',', '!', '?', ';']).any(|clause| {
        let words: Vec<&str> = clause.split_whitespace().collect();
        words.len() >= 2 && seen.insert(words.join(" "), ()).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Column;

    fn judge(rule: Rule, text: &str) -> f64 {
        let prompts = Table::new(vec![("tool", Column::text(["c++ (1)"]))]).expect("table");
        let mut book = RuleBook::new(&[Rule { name: "r".into(), score: 1.0, ..rule }]).expect("ok");
        book.judge(Answer { text, finished: true }, &prompts, 0).expect("judged").1
    }

    #[test]
    fn columns_are_taken_literally() {
        let rule = Rule { pattern: "^use {tool}$".into(), ..Rule::default() };
        assert_eq!(judge(rule.clone(), "use c++ (1)"), 1.0);
        assert_eq!(judge(rule, "use ccc 1"), 0.0);
        let count = Rule { pattern: "^a{2,3}$".into(), ..Rule::default() };
        assert_eq!(judge(count, "aaa"), 1.0);
    }

    #[test]
    fn clauses_words_ends_and_not() {
        let repeated = Rule { repeated_clause: true, ..Rule::default() };
        assert_eq!(judge(repeated.clone(), "blah blah , well , blah  blah ."), 1.0);
        assert_eq!(judge(repeated, "no , no , use it ."), 0.0);
        assert_eq!(judge(Rule { words_over: 2, ..Rule::default() }, "a b c d"), 2.0);
        assert_eq!(judge(Rule { no_eos: true, not: true, ..Rule::default() }, "a"), 1.0);
    }

    #[test]
    fn bad_rules_are_refused_by_name() {
        let message = |rules: &[Rule]| format!("{:#}", RuleBook::new(rules).expect_err("refused"));
        let rude = Rule { name: "rude".into(), pattern: "x".into(), ..Rule::default() };
        assert!(message(&[Rule::default()]).contains("rule 1 has no name"));
        assert!(message(&[rude.clone(), rude.clone()]).contains("two rules are named `rude`"));
        assert!(message(&[Rule { no_eos: true, ..rude.clone() }]).contains("2 conditions"));
        assert!(message(&[Rule { pattern: "(".into(), ..rude }]).contains("rule `rude`"));
    }
}
