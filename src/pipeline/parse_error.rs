//! What the YAML parser refuses, in our words.
//! Does not know what the document is for.

use std::sync::Arc;

use serde_saphyr::Location;
use serde_saphyr::budget::BudgetBreach;

use super::layout::slip;
use super::limits::{MAX_DEPTH, MAX_REPLAYED};
use crate::diagnostic::{Diagnostic, Span};

/// What the parser refuses, at the place that `span` finds.
pub fn diagnostic(
    error: &serde_saphyr::Error,
    span: &mut dyn FnMut(Location) -> Span,
) -> Diagnostic {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let place = error.location().map(&mut *span);
    let at = |message: String| Diagnostic::new(message, place.clone());
    match error {
        Error::AliasError { error, .. } => diagnostic(error, span),
        Error::CyclicInclude { id, stack, .. } => {
            let chain: Vec<&str> =
                stack.iter().map(String::as_str).skip(1).chain([id.as_str()]).collect();
            at(format!("`{id}` includes itself"))
                .label(format!("the files include each other: {}", chain.join(" → ")))
        }
        Error::ResolverError { target, error, .. } => at(format!("cannot include `{target}`"))
            .label(match error {
                serde_saphyr::IncludeResolveError::Io(e) => e.to_string(),
                serde_saphyr::IncludeResolveError::Message(m) => m.clone(),
                other => format!("{other:?}"),
            })
            .help("paths are relative to the file that includes"),
        Error::UnsupportedTag { .. } => at("unknown tag".to_owned())
            .help("the only tag is `!include FILE`; pipeline files hold no other"),
        // All that is read as text are keys.
        Error::Unexpected { expected, .. } if *expected == "string scalar" => {
            at("a key must be a name".to_owned())
                .label("a list or a map cannot be a key")
                .help("a list, as a value, stands after a name and a colon")
        }
        Error::UnknownAnchor { .. } => {
            at("alias without an anchor".to_owned()).label("no `&name` comes before this `*name`")
        }
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            at("aliases expand to too much".to_owned())
                .label(format!("more than {MAX_REPLAYED} values"))
        }
        Error::MultipleDocuments { .. }
        | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            at("more than one document in the file".to_owned()).label("a second one starts here")
        }
        Error::Budget { breach, .. } => {
            at("the file is too large or too deep".to_owned()).label(breach_words(breach))
        }
        other => {
            let slip = place.as_ref().and_then(|at| slip(&at.source.text, at.range.start));
            let Some((at, slip)) = place.as_ref().zip(slip) else {
                return at(format!("not valid YAML: {}", sentence(&other.to_string())));
            };
            let place = Span { source: Arc::clone(&at.source), range: slip.range };
            Diagnostic::new(format!("not valid YAML: {}", slip.message), Some(place))
                .help(slip.help)
        }
    }
}

fn breach_words(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("nested deeper than {MAX_DEPTH} levels"),
        BudgetBreach::InclusionDepth { .. } => "files include each other too deeply".to_owned(),
        BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. } => {
            "anchors and aliases hold too much".to_owned()
        }
        other => format!("limit reached: {other:?}"),
    }
}

/// A message of the parser in our style: no place (the caret has it), lowercase, no period.
fn sentence(message: &str) -> String {
    let first = message.split(['\n', '\\']).next().unwrap_or_default();
    let cut = first.find(" at line ").unwrap_or(first.len());
    let text = first[..cut].trim_start_matches("error:").trim().trim_end_matches(['.', ',', ':']);
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |c| c.to_lowercase().collect::<String>() + letters.as_str())
}
