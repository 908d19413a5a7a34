//! Labels as tokens, for the kinds that learn from preferences.
//! Knows nothing of losses or of who compared.

use anyhow::{Result, bail};
use tch::Device;

use crate::context::Context;
use crate::data::{Chosen, Example, LeftOut, Room, Table, Vocabulary, choices};
use crate::model::Packed;

/// A comparison of two answers, as tokens. In a tie neither side was preferred.
#[derive(Debug, Clone)]
pub struct Preference {
    /// Row of the labels.
    pub row: usize,
    pub chosen: Example,
    pub rejected: Example,
    pub tie: bool,
}

/// Packs the answers of some pairs into one batch: all chosen ones, then all rejected ones. What
/// both go on from is computed once.
pub fn both_sides<'a>(
    pairs: impl Iterator<Item = (&'a Example, &'a Example)>,
    device: Device,
) -> Packed {
    Packed::pairs(&pairs.collect::<Vec<_>>(), device)
}

/// The comparisons of a `dataset/labels`; those of which an answer is empty or too long are left
/// out, with a warning.
///
/// # Errors
/// When a column is missing or nothing is left.
pub fn preferences(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    room: Room,
    labels: &Table,
) -> Result<Vec<Preference>> {
    let prompts = labels.prompts()?;
    let (chosen, rejected) = (labels.contents("chosen")?, labels.contents("rejected")?);
    let choices = choices(labels)?;
    let ends = [labels.bools("finished_a", true)?, labels.bools("finished_b", true)?];
    let mut left = LeftOut::default();
    let mut out = Vec::new();
    for i in 0..labels.rows() {
        // Which answer was chosen decides which of the two flags is whose.
        let (c, r) = if choices[i] == Chosen::Second { (1, 0) } else { (0, 1) };
        let both = [(&chosen[i], ends[c][i]), (&rejected[i], ends[r][i])];
        let fit = room.rows(vocabulary, &prompts[i], &both)?;
        let Some(mut rows) = left.keep(room, i, fit)? else { continue };
        let (rejected, chosen) = (rows.pop(), rows.pop());
        let (Some(chosen), Some(rejected)) = (chosen, rejected) else { continue };
        out.push(Preference { row: i, chosen, rejected, tie: choices[i] == Chosen::Neither });
    }
    if out.is_empty() {
        bail!("no pair is left: in all {} an answer is empty or too long", left.rows());
    }
    cx.warn_if(left.warning(room.context))?;
    Ok(out)
}
