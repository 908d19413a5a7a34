//! `preflow sample STAGE`: talk to a model that a pipeline has made.
//! Goes by port types: the kind whose `model` port takes the output does the work.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use clap::Args;
use serde_json::{Map, Value, json};

use super::perform::perform;
use super::{Exit, Global, complain, print};
use crate::catalog::Catalog;
use crate::exec::Outcome;
use crate::plan::Selection;
use crate::project::conversation::{ANSWERS, Answer, SCORES, answers, find_model, talker, task};
use crate::project::{self, Failure, locate};
use crate::protocol::KindDoc;
use crate::report::{self, OutputStyle};
use crate::text::clean;

#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// What to answer; may be repeated; `-` reads one a line from standard input
    #[arg(short, long, value_name = "TEXT", required = true, allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// What the system says before each prompt
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// For a model that scores: the answer to the prompt; may be repeated
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub answer: Vec<String>,
    /// Answers to each prompt
    #[arg(short, value_name = "N")]
    pub n: Option<u32>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Output of the stage [default: the first that can be talked to]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
}

/// How answers are drawn.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Longest answer
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Another one draws other answers
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Prints answers, or scores.
///
/// # Errors
/// The stage is unknown, makes no such model, or the command line does not fit it.
pub fn sample(args: &SampleArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`sample` talks to one stage's model")
            .help("preflow sample FILE STAGE -p \"…\""));
    };
    let project = project::load(&file, &global.choices())?;
    let catalog = Catalog::builtin();
    let stage = Selection::new(&project.graph, std::slice::from_ref(name), &[], &[])?;
    let stage = (stage, project.graph.find(name).expect("invariant: the selection found it"));
    let (kind, port) = talker(&project, &catalog, stage.1, args.port.as_deref())?;
    let rows = rows(args, kind, name)?;
    let params = params(kind, args.n, &args.sampling)?;
    let Some(model) = find_model(&project, &stage.0, stage.1, port)? else {
        return Ok(never_made(&file, name));
    };
    // Keeps the collector away while the worker reads.
    let _lease = project.store.shared_lease();
    let dir = tempfile::tempdir().map_err(crate::store::StoreError::from)?;
    let task = task(dir.path(), kind, name, (port, &model), &rows, params, false)?;
    match perform(task, look, &mut |_| {})? {
        Outcome::Done { .. } => show(&dir.path().join("out.parquet"), kind, global.json),
        Outcome::Cancelled => Ok(Exit::Interrupted),
        outcome => {
            let text = report::failure(look, name, &outcome, (None, "", ""));
            complain(&format!("{text}\n"));
            Ok(Exit::StageFailed)
        }
    }
}

/// What the worker reads: prompts, with answers where those are scored.
fn rows(args: &SampleArgs, kind: &KindDoc, stage: &str) -> Result<Vec<Value>, Failure> {
    let mut prompts = Vec::new();
    for prompt in &args.prompt {
        if prompt != "-" {
            prompts.push(prompt.clone());
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|e| Failure::usage(format!("standard input: {e}")))?;
            if !line.trim().is_empty() {
                prompts.push(line);
            }
        }
    }
    if prompts.is_empty() {
        return Err(Failure::usage("standard input holds no prompt"));
    }
    let asked = |prompt: &String| match &args.system {
        Some(said) => {
            json!([{ "role": "system", "content": said }, { "role": "user", "content": prompt }])
        }
        None => json!(prompt),
    };
    if kind.name == ANSWERS {
        if !args.answer.is_empty() {
            return Err(Failure::usage(format!("`{stage}` answers, it does not score"))
                .help("leave out --answer, or name a stage whose model scores"));
        }
        return Ok(prompts.iter().map(|p| json!({ "prompt": asked(p) })).collect());
    }
    let answers = &args.answer;
    let pairs: Vec<(&String, &String)> = match (prompts.len(), answers.len()) {
        (1, n) if n > 0 => answers.iter().map(|a| (&prompts[0], a)).collect(),
        (n, m) if n == m => prompts.iter().zip(answers).collect(),
        (n, m) => {
            return Err(Failure::usage(format!(
                "`{stage}` scores answers: {m} of them do not fit {n} prompts"
            ))
            .help("one -a for each -p, or one -p and several -a"));
        }
    };
    Ok(pairs.iter().map(|(p, a)| json!({ "prompt": asked(p), "completion": a })).collect())
}

/// Tells that there is no model to talk to.
pub fn never_made(file: &Path, stage: &str) -> Exit {
    let file = file.display();
    complain(&format!(
        "error: stage `{stage}` was never made, or its output is gone\n  = help: `preflow run \
         {file} {stage}` makes it\n"
    ));
    Exit::StageFailed
}

/// The kind's defaults, and what the command line says instead.
///
/// # Errors
/// The kind has no such param, or no answer is asked for.
pub fn params(
    kind: &KindDoc,
    n: Option<u32>,
    sampling: &SamplingArgs,
) -> Result<Map<String, Value>, Failure> {
    let properties = kind.params.get("properties").and_then(Value::as_object);
    let default =
        |(name, schema): (&String, &Value)| Some((name.clone(), schema.get("default")?.clone()));
    let mut params: Map<String, Value> =
        properties.into_iter().flatten().filter_map(default).collect();
    let given = [
        ("n", n.map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("seed", sampling.seed.map(Value::from)),
    ];
    for (name, value) in given {
        let Some(value) = value else { continue };
        match params.get_mut(name) {
            Some(place) => *place = value,
            None => {
                return Err(Failure::usage(format!("a model that scores has no `{name}`")));
            }
        }
    }
    if params.get("n").is_some_and(|n| *n == 0) {
        return Err(Failure::usage("-n 0: at least one answer is needed"));
    }
    Ok(params)
}

fn show(path: &Path, kind: &KindDoc, json: bool) -> Result<Exit, Failure> {
    let answers = answers(path)?;
    let scores = kind.name == SCORES;
    if json {
        let line = |a: &Answer| match scores {
            true => json!({ "prompt": a.prompt, "answer": a.text, "score": a.score }),
            false => json!({ "prompt": a.prompt, "answer": a.text, "finished": a.finished }),
        };
        return Ok(print(&answers.iter().map(|a| format!("{}\n", line(a))).collect::<String>()));
    }
    let exit = print(&plain(&answers, scores, std::io::stdout().is_terminal()));
    let cut = answers.iter().filter(|a| !a.finished).count();
    if !scores && cut > 0 {
        complain(&format!(
            "note: {cut} of {} answers did not end by themselves; see --max-tokens\n",
            answers.len()
        ));
    }
    Ok(exit)
}

/// Answers below their prompts; a single prompt is not repeated.
fn plain(answers: &[Answer], scores: bool, terminal: bool) -> String {
    // What a model says may hold anything; a terminal would obey it.
    let shown = |text: &str| match terminal {
        true => text.lines().map(clean).collect::<Vec<_>>().join("\n"),
        false => text.to_owned(),
    };
    let several = answers.iter().any(|a| a.prompt != answers[0].prompt);
    let mut out = String::new();
    let mut last = None;
    for answer in answers {
        if several && last != Some(&answer.prompt) {
            out.push_str(&format!("> {}\n", shown(&answer.prompt)));
            last = Some(&answer.prompt);
        }
        let text = shown(&answer.text);
        match answer.score {
            Some(score) if scores => out.push_str(&format!("{score:+.3}  {text}\n")),
            _ => out.push_str(&format!("{text}\n")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_no_control_characters_and_nothing_hides_in_it() {
        let answer = |prompt: &str, text: &str| Answer {
            prompt: prompt.into(),
            text: text.into(),
            finished: true,
            tokens: 1,
            score: None,
        };
        let answers = [answer("p", "one\x1b[31m\ntwo"), answer("p", "three")];
        assert_eq!(plain(&answers, false, true), "one␛[31m\ntwo\nthree\n");
        assert_eq!(plain(&answers, false, false), "one\x1b[31m\ntwo\nthree\n");
        let hidden = [answer("p", "ig\u{200b}nore \u{202e}txt\u{e0041} 👩\u{200d}👧")];
        let shown = "ig⟨200B⟩nore ⟨202E⟩txt⟨E0041⟩ 👩\u{200d}👧\n";
        assert_eq!(plain(&hidden, false, true), shown);
        let answers = [answer("p", "a"), answer("q\x07", "b")];
        assert_eq!(plain(&answers, false, true), "> p\na\n> q␇\nb\n");
        let scored = [Answer { score: Some(-0.25), ..answer("p", "a") }];
        assert_eq!(plain(&scored, true, true), "-0.250  a\n");
    }
}
