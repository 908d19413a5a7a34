//! All policies in one table: what they are worth, how far they went, whether they copied.
//! Does not draw; claims nothing.

use maud::{Markup, html};

use super::result::{Figures, figure_name, interval, names_of, shown};
use super::{EvaluationRow, ReportData, markup};

/// What is worth comparing besides the headline, in this order.
const TELLING: [&str; 7] =
    ["gold", "reward", "win_rate", "win_rate_people", "kl", "eos_rate", "length"];

/// A policy a row, a figure a column; on a narrow screen a policy a card.
pub fn table(figures: &Figures, headline: &str, bucket: &str) -> Markup {
    let policies = names_of(figures.rows.iter().copied().map(|r| r.policy.as_str()));
    let gain = format!("{headline}_gain");
    let wanted = [headline, &gain].into_iter().chain(TELLING.iter().copied());
    let known = |name: &&str| !figures.standings(name, bucket).is_empty();
    let mut names: Vec<&str> = wanted.filter(known).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    html! {
        @if policies.len() > 1 && names.len() > 2 {
            table.policies {
                caption {
                    "All policies on " (markup::visible(&markup::spaced(bucket))) ", 95 % intervals below"
                    @if names.iter().any(|n| *n == gain || *n == "win_rate") {
                        "; gain and wins against "
                        @match &figures.baseline {
                            Some(baseline) => { (markup::visible(baseline)) }
                            None => { "the policy before it" }
                        }
                    }
                }
                thead {
                    tr {
                        th scope="col" { "policy" }
                        @for name in &names { th scope="col" { (title(headline, name)) } }
                    }
                }
                tbody {
                    @for policy in &policies {
                        tr {
                            th scope="row" { (markup::visible(policy)) }
                            @for name in &names {
                                @let row = value(figures, policy, bucket, name);
                                td class=[row.is_none().then_some("none")] {
                                    span.label { (title(headline, name)) }
                                    (cell(figures, row, name))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The figure, or what is known in its place: of best-of-n the KL has a bound only.
fn value<'a>(
    figures: &Figures<'a>,
    policy: &str,
    bucket: &str,
    name: &str,
) -> Option<&'a EvaluationRow> {
    let found = figures.find(policy, bucket, name);
    found.or_else(|| figures.find(policy, bucket, &format!("{name}_at_most")))
}

fn title(headline: &str, name: &str) -> Markup {
    html! {
        @if name.strip_suffix("_gain") == Some(headline) { "gain" }
        @else if name == "win_rate" { "wins" }
        @else if name == "eos_rate" { "ends" }
        @else { (figure_name(name)) }
    }
}

fn cell(figures: &Figures, row: Option<&EvaluationRow>, name: &str) -> Markup {
    let Some(row) = row else { return html! { span.dim { "–" } } };
    let scale = figures.scale(name);
    html! {
        span.value {
            b { @if row.name != name { "≤ " } (shown(scale, row.value)) }
            @if let Some((low, high)) = interval(row) {
                span.dim { (shown(scale, low)) "…" (shown(scale, high)) }
            }
        }
    }
}

/// Figures that tell learning from copying: on the prompts of training, and on others.
const MEMORY: [&str; 3] = ["copied", "copied_words", "perplexity"];
const TRAIN: &str = "train";

/// Answers to prompts that were trained on against answers to others.
pub fn memory(data: &ReportData) -> Markup {
    let Some(last) = data.evaluation.last() else { return html! {} };
    let figures = Figures::of(data, &last.stage);
    let Some((_, bucket)) = figures.headline() else { return html! {} };
    let policies = names_of(
        figures.rows.iter().copied().filter(|r| r.bucket == TRAIN).map(|r| r.policy.as_str()),
    );
    let known = |name: &&str| !figures.standings(name, TRAIN).is_empty();
    let names: Vec<&str> = MEMORY.into_iter().filter(known).collect();
    let places = [(TRAIN, "trained on"), (bucket, "others")];
    let known = |name: &str, place: &str| !figures.standings(name, place).is_empty();
    let both = names.iter().flat_map(|name| places.map(|(place, word)| (*name, place, word)));
    let columns: Vec<(&str, &str, &str)> = both.filter(|(n, p, _)| known(n, p)).collect();
    html! {
        @if !policies.is_empty() && !names.is_empty() {
            section aria-labelledby="memory" {
                h2 id="memory" { "Learned or copied?" }
                p.lead {
                    "Answers that are, word by word, completions of the training data; the share of \
                     an answer that one of them holds in one run; and perplexity. On prompts that \
                     were trained on, then on "
                    (markup::visible(&markup::spaced(bucket))) "."
                }
                table.policies {
                    thead {
                        tr {
                            th scope="col" { "policy" }
                            @for (name, _, word) in &columns {
                                th scope="col" { (figure_name(name)) ", " (word) }
                            }
                        }
                    }
                    tbody {
                        @for policy in policies {
                            tr {
                                th scope="row" { (markup::visible(policy)) }
                                @for (name, place, word) in &columns {
                                    @let row = figures.find(policy, place, name);
                                    td class=[row.is_none().then_some("none")] {
                                        span.label { (figure_name(name)) ", " (word) }
                                        (cell(&figures, row, name))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
