//! What the models say: the same prompts side by side, and one policy over the steps.
//! Shows the first prompts there are, never chosen ones.

use std::collections::HashMap;

use maud::{Markup, html};

use super::data::is_unseen;
use super::{ReportData, SampleRow, markup};
use crate::text;

/// Prompts shown at once, and in all.
const OPEN: usize = 6;
const MOST: usize = 24;
/// Steps shown of a policy that learns, and answers at each.
const STEPS: usize = 6;
const PER_STEP: usize = 3;

struct Question<'a> {
    prompt: &'a str,
    bucket: &'a str,
    answers: Vec<&'a SampleRow>,
}

pub fn side_by_side(data: &ReportData) -> Markup {
    let rows: Vec<&SampleRow> =
        data.samples.iter().filter(|r| steps(data, &r.stage).len() <= 1).collect();
    let mut unseen: Vec<String> =
        data.evaluation.last().map_or_else(Vec::new, |r| data.unseen_buckets(&r.stage));
    unseen.extend(rows.iter().map(|r| r.bucket.clone()).filter(|b| is_unseen(b)));
    let questions = questions(&rows, &unseen);
    let policies = questions.iter().map(|q| q.answers.len()).max().unwrap_or(0);
    if questions.is_empty() {
        return html! {};
    }
    let (open, folded) = questions.split_at(questions.len().min(OPEN));
    let unseen = open.iter().all(|q| unseen.iter().any(|b| b == q.bucket));
    html! {
        section aria-labelledby="answers" {
            h2 id="answers" { "Same prompts, every policy" }
            p.lead {
                @if unseen { "Prompts that nobody labelled. " }
                "The first ones of the evaluation, not chosen ones."
            }
            div style={ "--columns:" (policies.clamp(1, 4)) } {
                @for question in open { (asked(question)) }
                @if !folded.is_empty() {
                    details {
                        summary { (text::counted(folded.len(), "more prompt")) }
                        @for question in folded { (asked(question)) }
                    }
                }
            }
        }
    }
}

fn asked(question: &Question) -> Markup {
    html! {
        article.asked {
            div.prompt {
                (markup::rendered(question.prompt))
                @if !question.bucket.is_empty() {
                    span.tag { (markup::visible(&markup::spaced(question.bucket))) }
                }
            }
            div.answers {
                @for answer in &question.answers {
                    div.answer {
                        p.who {
                            span { (markup::visible(&answer.source)) }
                            @if let Some(score) = answer.score {
                                span.score { (text::two_places(score)) }
                            }
                        }
                        (markup::rendered(&answer.response))
                    }
                }
            }
        }
    }
}

/// Of each policy the first answer to each prompt; unseen prompts first, the buckets in turn.
fn questions<'a>(rows: &[&'a SampleRow], unseen: &[String]) -> Vec<Question<'a>> {
    let mut questions: Vec<Question> = Vec::new();
    let mut known = HashMap::new();
    for row in rows {
        let at = *known.entry((row.prompt.as_str(), row.bucket.as_str())).or_insert_with(|| {
            let (prompt, bucket) = (row.prompt.as_str(), row.bucket.as_str());
            questions.push(Question { prompt, bucket, answers: Vec::new() });
            questions.len() - 1
        });
        if !questions[at].answers.iter().any(|a| a.source == row.source) {
            questions[at].answers.push(row);
        }
    }
    let mut turns: HashMap<&str, usize> = HashMap::new();
    questions.sort_by_cached_key(|q| {
        let turn = turns.entry(q.bucket).or_default();
        *turn += 1;
        (!unseen.iter().any(|b| b == q.bucket), *turn)
    });
    questions.truncate(MOST);
    questions
}

pub fn by_step(data: &ReportData) -> Markup {
    let mut stages: Vec<&str> = Vec::new();
    for row in &data.samples {
        if !stages.contains(&row.stage.as_str()) && steps(data, &row.stage).len() > 1 {
            stages.push(&row.stage);
        }
    }
    html! {
        @if !stages.is_empty() {
            section aria-labelledby="steps" {
                h2 id="steps" { "Samples while it learned" }
                @for stage in stages {
                    h3 { (markup::visible(stage)) }
                    div.steps {
                        @for step in spread(&steps(data, stage)) { (at_step(data, stage, step)) }
                    }
                }
            }
        }
    }
}

fn at_step(data: &ReportData, stage: &str, step: f64) -> Markup {
    let rows = data.samples.iter().filter(|r| r.stage == stage && r.step.total_cmp(&step).is_eq());
    html! {
        div.step {
            h4 { "step " (text::number(step)) }
            @for row in rows.take(PER_STEP) {
                div.answer {
                    div.who {
                        (markup::rendered(&row.prompt))
                        @if let Some(score) = row.score { span.score { (text::two_places(score)) } }
                    }
                    (markup::rendered(&row.response))
                }
            }
        }
    }
}

fn steps(data: &ReportData, stage: &str) -> Vec<f64> {
    let mut steps: Vec<f64> =
        data.samples.iter().filter(|r| r.stage == stage).map(|r| r.step).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    steps
}

/// First, last, and some between.
fn spread(steps: &[f64]) -> Vec<f64> {
    if steps.len() <= STEPS {
        return steps.to_vec();
    }
    (0..STEPS).map(|i| steps[i * (steps.len() - 1) / (STEPS - 1)]).collect()
}
