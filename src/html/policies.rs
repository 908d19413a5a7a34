//! All policies in one table: what they are worth, how far they went, whether they copied.
//! Does not draw; claims nothing.

use maud::{Markup, html};

use super::evaluation::{Evaluation, figure_name, interval, names_of, shown};
use super::metrics::{self, AT_MOST, GAIN, ReportPlace, WINS};
use super::{EvaluationRow, ReportData, markup};

/// A policy a row, a figure a column; on a narrow screen a policy a card.
pub fn table(evaluation: &Evaluation, headline: &str, bucket: &str) -> Markup {
    let policies = names_of(evaluation.rows.iter().copied().map(|r| r.policy.as_str()));
    let gain = format!("{headline}{GAIN}");
    let wanted = [headline, &gain].into_iter().chain(metrics::told(ReportPlace::Policies));
    let known = |name: &&str| !evaluation.standings(name, bucket).is_empty();
    let mut names: Vec<&str> = wanted.filter(known).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    html! {
        @if policies.len() > 1 && names.len() > 2 {
            table.policies {
                caption {
                    "All policies on " (markup::visible(&markup::spaced(bucket))) ", 95 % intervals below"
                    @if names.iter().any(|n| *n == gain || *n == WINS) {
                        "; gain and wins against "
                        @match &evaluation.baseline {
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
                                @let row = value(evaluation, policy, bucket, name);
                                td class=[row.is_none().then_some("none")] {
                                    span.label { (title(headline, name)) }
                                    (cell(evaluation, row, name))
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
    evaluation: &Evaluation<'a>,
    policy: &str,
    bucket: &str,
    name: &str,
) -> Option<&'a EvaluationRow> {
    let found = evaluation.find(policy, bucket, name);
    found.or_else(|| evaluation.find(policy, bucket, &format!("{name}{AT_MOST}")))
}

fn title(headline: &str, name: &str) -> Markup {
    html! {
        @if name.strip_suffix(GAIN) == Some(headline) { "gain" }
        @else if let Some(title) = metrics::title(name) { (title) }
        @else { (figure_name(name)) }
    }
}

fn cell(evaluation: &Evaluation, row: Option<&EvaluationRow>, name: &str) -> Markup {
    let Some(row) = row else { return html! { span.dim { "–" } } };
    let scale = evaluation.scale(name);
    html! {
        span.value {
            b { @if row.name != name { "≤ " } (shown(scale, row.value)) }
            @if let Some((low, high)) = interval(row) {
                span.dim { (shown(scale, low)) "…" (shown(scale, high)) }
            }
        }
    }
}

/// The bucket of prompts that were trained on.
const TRAIN: &str = "train";

/// Answers to prompts that were trained on against answers to others.
pub fn memory(data: &ReportData) -> Markup {
    let Some(last) = data.evaluation.last() else { return html! {} };
    let evaluation = Evaluation::of(data, &last.stage);
    let Some((_, bucket)) = evaluation.headline() else { return html! {} };
    let policies = names_of(
        evaluation.rows.iter().copied().filter(|r| r.bucket == TRAIN).map(|r| r.policy.as_str()),
    );
    let known = |name: &&str| !evaluation.standings(name, TRAIN).is_empty();
    let names: Vec<&str> = metrics::told(ReportPlace::Memory).into_iter().filter(known).collect();
    let places = [(TRAIN, "trained on"), (bucket, "others")];
    let known = |name: &str, place: &str| !evaluation.standings(name, place).is_empty();
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
                                    @let row = evaluation.find(policy, place, name);
                                    td class=[row.is_none().then_some("none")] {
                                        span.label { (figure_name(name)) ", " (word) }
                                        (cell(&evaluation, row, name))
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
