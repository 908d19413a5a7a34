//! Labels as tokens, for the kinds that learn from preferences.
//! Knows nothing of losses or of who compared.

use anyhow::Result;
use tch::Device;

use crate::context::Context;
use crate::data::{Column, Example, Examples, Table, Vocabulary};
use crate::model::Packed;

/// One comparison as tokens. A tie keeps both answers in either order.
#[derive(Debug, Clone)]
pub struct Preference {
    /// Row of the labels.
    pub row: usize,
    pub chosen: Example,
    pub rejected: Example,
    pub tie: bool,
}

/// Chosen and rejected answers of some pairs in one batch: the chosen ones first.
pub fn both_sides<'a>(
    pairs: impl Iterator<Item = (&'a Example, &'a Example)>,
    device: Device,
) -> Packed {
    let (mut sides, rejected): (Vec<&Example>, Vec<&Example>) = pairs.unzip();
    sides.extend(rejected);
    Packed::new(&sides, device)
}

/// The comparisons of a `dataset/labels`; those of which an answer is empty or too long are left
/// out, with a warning.
///
/// # Errors
/// When a column is missing or nothing is left.
pub fn preferences(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    context: usize,
    labels: &Table,
) -> Result<Vec<Preference>> {
    let prompts = labels.texts("prompt")?;
    let (chosen, rejected) = (labels.texts("chosen")?, labels.texts("rejected")?);
    let ties = labels.bools("tie", false);
    let ends = [labels.bools("finished_a", true), labels.bools("finished_b", true)];
    // Which answer was chosen decides which of the two flags is whose.
    let second: Vec<bool> = match labels.column("choice") {
        Some(Column::Text(v)) => {
            v.iter().map(|c| matches!(c.as_deref(), Some("b" | "b_much"))).collect()
        }
        _ => vec![false; labels.rows()],
    };
    let both = (0..labels.rows()).flat_map(|i| {
        let (c, r) = if second[i] { (1, 0) } else { (0, 1) };
        [(prompts[i], chosen[i], ends[c][i]), (prompts[i], rejected[i], ends[r][i])]
    });
    let examples = Examples::new(vocabulary, context, both)?;
    cx.warn_if(examples.warning(context))?;
    let mut by_source: Vec<Option<Example>> = vec![None; 2 * labels.rows()];
    for (row, source) in examples.rows.into_iter().zip(examples.sources) {
        by_source[source] = Some(row);
    }
    let mut out = Vec::new();
    for row in 0..labels.rows() {
        let (chosen, rejected) = (by_source[2 * row].take(), by_source[2 * row + 1].take());
        if let (Some(chosen), Some(rejected)) = (chosen, rejected) {
            out.push(Preference { row, chosen, rejected, tie: ties[row] });
        }
    }
    Ok(out)
}
