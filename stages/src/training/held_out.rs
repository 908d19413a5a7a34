//! What may be said of figures on held-out rows.
//! Knows nothing of any one kind.

/// Fewer held-out rows than this tell nothing: their interval is wider than any gain.
const ENOUGH: usize = 20;

/// A warning where figures rest on `rows` held-out rows, which are too few; of none something else
/// is said.
pub fn too_few(rows: usize, what: &str) -> Option<String> {
    (1..ENOUGH).contains(&rows).then(|| {
        format!(
            "figures on {rows} held-out {what} are on too few to tell anything: {ENOUGH} or more, a \
             larger eval_fraction or more prompts"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_and_none_and_enough_are_not() {
        let told = [0, 1, 19, 20].map(|rows| too_few(rows, "pairs").is_some());
        assert_eq!(told, [false, true, true, false]);
    }
}
