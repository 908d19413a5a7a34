//! What `--help` shows: verbs in groups, a verb's own options first, those of all verbs last and
//! only where they do something, and two examples each.
//! Does not know what any of them does.

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// Every verb, by what one wants to do.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Run a pipeline", &["run", "plan", "status", "why", "logs", "runs"]),
    ("Write one", &["init", "check", "config", "graph", "kinds", "schema"]),
    (
        "Results and labels",
        &["show", "label", "sample", "chat", "serve", "metrics", "report", "export", "ui"],
    ),
    ("Compare", &["sweep", "diff", "ci", "trace"]),
    ("Share and keep", &["push", "pull", "lock", "gc", "verify"]),
    ("Set up", &["doctor", "trust", "completions"]),
];

/// Options of all verbs, and the verbs that none of these options changes anything for.
const WITHOUT: [(&[&str], &[&str]); 4] = [
    (
        &["sets", "profile"],
        &["runs", "trace", "schema", "kinds", "init", "doctor", "trust", "completions"],
    ),
    (&["cache"], &["graph", "config", "schema", "kinds", "init", "trust", "completions"]),
    (
        &["remote"],
        &[
            "status",
            "why",
            "logs",
            "runs",
            "init",
            "check",
            "config",
            "graph",
            "kinds",
            "schema",
            "label",
            "show",
            "sample",
            "chat",
            "serve",
            "metrics",
            "report",
            "export",
            "ui",
            "diff",
            "ci",
            "trace",
            "lock",
            "gc",
            "verify",
            "trust",
            "completions",
        ],
    ),
    (&["json"], &["graph", "schema", "init", "report", "lock", "logs", "completions"]),
];

/// Verb, or verb and its own verb → what one might type.
pub const EXAMPLES: [(&str, [&str; 2]); 43] = [
    ("run", ["preflow run pipelines/workshop.yaml", "preflow run --from sft --keep-going"]),
    ("plan", ["preflow plan", "preflow plan pipelines/workshop.yaml eval --set seed=3"]),
    ("status", ["preflow status", "preflow status pipelines/workshop.yaml --json"]),
    ("why", ["preflow why sft", "preflow why sft --against HEAD~1"]),
    ("logs", ["preflow logs sft", "preflow logs pipelines/workshop.yaml sft --events"]),
    ("runs", ["preflow runs", "preflow runs workshop --state failed -n 5"]),
    ("init", ["preflow init", "preflow init experiments --template labels-only"]),
    ("check", ["preflow check pipelines/workshop.yaml", "preflow check a.yaml b.yaml --json"]),
    ("config", ["preflow config pipelines/workshop.yaml", "preflow config a.yaml --profile smoke"]),
    ("graph", ["preflow graph a.yaml", "preflow graph a.yaml --format mermaid"]),
    ("kinds", ["preflow kinds", "preflow kinds sft"]),
    ("schema", ["preflow schema", "preflow schema > pipelines/schema.json"]),
    (
        "label serve",
        ["preflow label serve labels", "preflow label serve a.yaml labels --share ann,ben"],
    ),
    ("label ask", ["preflow label ask labels", "preflow label ask a.yaml labels --annotator ann"]),
    ("label stats", ["preflow label stats labels", "preflow label stats a.yaml labels --json"]),
    (
        "label import",
        [
            "preflow label import old.jsonl --votes datasets/votes --annotator ann",
            "preflow label import old.jsonl --votes votes --map annotator=who --skip-bad",
        ],
    ),
    (
        "label export",
        [
            "preflow label export labels --format trl-conversational",
            "preflow label export a.yaml labels --out labels.jsonl",
        ],
    ),
    ("label links", ["preflow label links labels", "preflow label links a.yaml labels --json"]),
    (
        "label revoke",
        ["preflow label revoke labels --link ann", "preflow label revoke a.yaml labels --link ben"],
    ),
    ("export", ["preflow export out -o my-model", "preflow export a.yaml labels.labels -o rows"]),
    ("show", ["preflow show labels", "preflow show a.yaml pairs.pairs -n 10"]),
    ("sample", ["preflow sample sft -p 'Say hello.'", "preflow sample scores -p Hi -a Hello"]),
    ("chat", ["preflow chat dpo", "preflow chat a.yaml sft -s 'Answer in one sentence.'"]),
    ("serve", ["preflow serve dpo", "preflow serve a.yaml sft --port 8080"]),
    ("metrics", ["preflow metrics sft", "preflow metrics --tensorboard events"]),
    ("report", ["preflow report --open", "preflow report a.yaml -o a.html"]),
    ("ui", ["preflow ui --open", "preflow ui a.yaml --port 8080"]),
    ("sweep plan", ["preflow sweep plan sweep.yaml", "preflow sweep plan sweep.yaml --json"]),
    ("sweep run", ["preflow sweep run sweep.yaml", "preflow sweep run sweep.yaml --jobs 8"]),
    (
        "sweep show",
        [
            "preflow sweep show sweep.yaml --html s.html",
            "preflow sweep show sweep.yaml --columns eval/kl --sort kl_coef",
        ],
    ),
    ("diff", ["preflow diff", "preflow diff HEAD~1 --file a.yaml"]),
    ("ci", ["preflow ci origin/main", "preflow ci origin/main --format markdown"]),
    ("trace", ["preflow trace model.safetensors", "preflow trace cache/views/workshop/sft/model"]),
    ("push", ["preflow push", "preflow push --all"]),
    ("pull", ["preflow pull", "preflow pull a.yaml sft --no-lock"]),
    ("lock", ["preflow lock --check", "preflow lock a.yaml --install"]),
    ("gc", ["preflow gc", "preflow gc --days 30 --yes"]),
    ("verify", ["preflow verify --repair", "preflow verify a.yaml --rerun sft"]),
    ("doctor", ["preflow doctor", "preflow doctor --json"]),
    ("trust", ["preflow trust", "preflow trust --list"]),
    (
        "completions",
        [
            "preflow completions bash > ~/.local/share/bash-completion/completions/preflow",
            "preflow completions zsh",
        ],
    ),
    ("sweep", ["preflow sweep plan sweep.yaml", "preflow sweep run sweep.yaml --jobs 8"]),
    ("label", ["preflow label serve labels", "preflow label stats labels"]),
];

/// The help for what was typed: of the verb in it, or of preflow.
#[must_use]
pub fn help(typed: impl IntoIterator<Item = String>) -> StyledStr {
    let mut whole = Cli::command();
    whole.build();
    let (mut verb, mut path, mut is_short) = (&whole, Vec::new(), false);
    for word in typed {
        is_short |= word == "-h";
        if let Some(inner) = verb.find_subcommand(&word) {
            (verb, path) = (inner, [path, vec![word]].concat());
        }
    }
    let Some(top) = path.first() else { return of_all(whole).render_help() };
    let mut verb = of_verb(verb.clone(), &path.join(" "), top);
    // As clap does: in short where there is no more to say.
    let says_more = |arg: &Arg| {
        let mut values = arg.get_possible_values().into_iter();
        arg.get_long_help().is_some() || values.any(|value| value.get_help().is_some())
    };
    match verb.get_arguments().any(|arg| !arg.is_hide_set() && says_more(arg)) && !is_short {
        true => verb.render_long_help(),
        false => verb.render_help(),
    }
}

fn of_all(command: Command) -> Command {
    let groups: Vec<String> = GROUPS.iter().map(|group| listed(&command, group)).collect();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\n\n{{all-args}}\n\n`preflow VERB \
         --help` shows the options of one.",
        groups.concat().trim_end()
    );
    command
        .override_usage("preflow [OPTIONS] VERB …")
        .help_template(template)
        .mut_subcommands(|verb| verb.hide(true))
}

fn listed(command: &Command, (title, verbs): &(&str, &[&str])) -> String {
    let lines = verbs.iter().map(|name| {
        let verb = command.find_subcommand(name).expect("invariant: a test knows all verbs");
        format!("  {name:<12} {}\n", verb.get_about().cloned().unwrap_or_default())
    });
    format!("{title}:\n{}\n", lines.collect::<String>())
}

/// With examples, and without options that do nothing there.
fn of_verb(verb: Command, name: &str, top: &str) -> Command {
    let hidden = WITHOUT.iter().filter(|(_, verbs)| verbs.contains(&top));
    let verb = hidden.flat_map(|(options, _)| *options).fold(verb, |verb, option| {
        let has_it = verb.get_arguments().any(|arg| arg.get_id() == option);
        if has_it { verb.mut_arg(option, |arg| arg.hide(true)) } else { verb }
    });
    match EXAMPLES.iter().find(|(of, _)| *of == name) {
        Some((_, examples)) => verb.after_help(format!("Examples:\n  {}", examples.join("\n  "))),
        None => verb,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Words as a shell would take them apart; only quotes matter here.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap_or_default();
        let parts = line.split('\'').enumerate();
        parts
            .flat_map(|(i, part)| match i % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_verb_stands_in_one_group_and_has_examples_that_can_be_typed() {
        let command = Cli::command();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| *verbs).copied().collect();
        listed.sort_unstable();
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let mut verbs: Vec<&Command> = verbs.collect();
        verbs.sort_by_key(|verb| verb.get_name().to_owned());
        assert_eq!(listed, verbs.iter().map(|verb| verb.get_name()).collect::<Vec<_>>());
        let has = |name: &str| EXAMPLES.iter().any(|(of, _)| *of == name);
        for verb in verbs {
            let name = verb.get_name();
            for inner in verb.get_subcommands() {
                let inner = format!("{name} {}", inner.get_name());
                assert!(has(&inner), "{inner}");
            }
            assert!(has(name) || verb.has_subcommands(), "{name}");
        }
        let mut wrong = Vec::new();
        for (verb, examples) in EXAMPLES {
            for example in examples {
                assert!(example.starts_with(&format!("preflow {verb}")), "{example}");
                if let Err(error) = Cli::try_parse_from(words(example)) {
                    wrong.push(format!("{example}: {error}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.concat());
        for (options, verbs) in WITHOUT {
            let known = |name: &&str| command.find_subcommand(*name).is_some();
            assert!(verbs.iter().all(known));
            let global = |id: &&&str| command.get_arguments().any(|arg| arg.get_id() == **id);
            assert!(options.iter().all(|id| global(&id)));
        }
    }

    #[test]
    fn help_shows_groups_and_only_options_that_do_something() {
        let help = |line: &str| super::help(words(line)).to_string();
        let all = help("--help");
        assert!(all.contains("Run a pipeline:\n  run          Bring stages up to date\n"), "{all}");
        let completions = help("completions --help");
        assert!(
            !completions.contains("--set") && !completions.contains("--remote"),
            "{completions}"
        );
        assert!(completions.contains("Examples:\n  preflow completions bash"), "{completions}");
        let serve = help("--profile x label serve a.yaml --help");
        assert!(serve.contains("--set") && !serve.contains("--remote"), "{serve}");
        let (own, global) = (serve.find("--port"), serve.find("--set"));
        assert!(own < global, "{serve}");
    }
}
