//! What is said of a fitted reward model: accuracy, calibration, ceiling, where an ensemble
//! disagrees. Knows nothing of how it was fitted.

use anyhow::Result;

use super::fit::Pair;
use crate::data::{Column, Table};
use crate::stats::{Estimate, mean, wilson};

/// Share of the pairs that are no tie and that these Δ get right; a Δ of 0 counts half.
pub fn accuracy(deltas: &[f64], pairs: &[Pair]) -> Estimate {
    let clear = clear(deltas, pairs);
    let points = clear.iter().map(|d| if *d == 0.0 { 0.5 } else { f64::from(u8::from(*d > 0.0)) });
    wilson(points.sum(), clear.len() as u64)
}

/// Δ of the pairs that are no tie.
pub fn clear(deltas: &[f64], pairs: &[Pair]) -> Vec<f64> {
    pairs.iter().zip(deltas).filter(|(p, _)| !p.is_tie()).map(|(_, d)| *d).collect()
}

/// Ten bins of confidence σ(|Δ|) from ½ to 1 with their accuracy, and the expected calibration
/// error: the mean distance of the two, weighted by the number of pairs (Naeini et al. 2015).
pub fn calibration(deltas: &[f64]) -> Result<(Table, f64)> {
    let mut bins: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 10];
    for delta in deltas {
        let confidence = 1.0 / (1.0 + (-delta.abs()).exp());
        let bin = (((confidence - 0.5) * 20.0) as usize).min(9);
        bins[bin].push((confidence, f64::from(u8::from(*delta > 0.0))));
    }
    let used: Vec<(usize, f64, f64, usize)> = bins
        .iter()
        .enumerate()
        .filter(|(_, b)| !b.is_empty())
        .map(|(i, b)| {
            let (c, a): (Vec<f64>, Vec<f64>) = b.iter().copied().unzip();
            (i, mean(&c), mean(&a), b.len())
        })
        .collect();
    let total = deltas.len().max(1) as f64;
    let ece = used.iter().map(|(_, c, a, n)| (c - a).abs() * *n as f64 / total).sum();
    let table = Table::new(vec![
        ("bin", Column::ints(used.iter().map(|b| b.0 as i64))),
        ("confidence", Column::floats(used.iter().map(|b| b.1))),
        ("accuracy", Column::floats(used.iter().map(|b| b.2))),
        ("n", Column::ints(used.iter().map(|b| b.3 as i64))),
    ])?;
    Ok((table, ece))
}

/// What a judge without error would reach on these labels: `eval/ceiling`, and `eval/agreement`
/// where several people voted on one pair.
///
/// Of simulated labels it is known (`certainty`). Of people's it follows from how often two votes
/// on one pair agree, A: a single vote is then predicted right at most (1 + √(2A − 1)) / 2 of the
/// time, the bound reached when all pairs are equally hard.
pub fn ceiling(labels: &Table, rows: &[usize]) -> Result<Vec<(&'static str, f64)>> {
    let pick = |name: &str| -> Result<Vec<f64>> {
        let all = labels.floats(name, f64::NAN)?;
        Ok(rows.iter().map(|r| all[*r]).collect())
    };
    let certainty: Vec<f64> = pick("certainty")?.into_iter().filter(|c| c.is_finite()).collect();
    if !certainty.is_empty() {
        return Ok(vec![("eval/ceiling", mean(&certainty))]);
    }
    let votes = pick("votes")?.into_iter().zip(pick("agreement")?);
    let agree = votes.filter(|(n, share)| *n >= 2.0 && share.is_finite()).map(|(n, share)| {
        let (a, b) = (share * n, (1.0 - share) * n);
        (a * (a - 1.0) + b * (b - 1.0)) / (n * (n - 1.0))
    });
    let agree: Vec<f64> = agree.collect();
    if agree.is_empty() {
        return Ok(Vec::new());
    }
    let a = mean(&agree);
    Ok(vec![
        ("eval/agreement", a),
        ("eval/ceiling", f64::midpoint(1.0, (2.0 * a - 1.0).max(0.0).sqrt())),
    ])
}

/// Standard deviation of a few numbers around their mean (n − 1); 0 of one.
pub fn spread(xs: &[f64]) -> f64 {
    let m = mean(xs);
    let squares: f64 = xs.iter().map(|x| (x - m) * (x - m)).sum();
    if xs.len() < 2 { 0.0 } else { (squares / (xs.len() - 1) as f64).sqrt() }
}

/// Where the members of an ensemble disagree, the most first: these labels would teach the most.
/// `deltas[m][i]` is what member `m` says of pair `i`. No rows for a single model.
///
/// # Errors
/// When the columns do not fit each other.
pub fn disagreement(texts: &[[&str; 3]], deltas: &[Vec<f64>]) -> Result<Table> {
    let mut rows: Vec<(usize, f64, f64, f64)> = Vec::new();
    if deltas.len() > 1 {
        for i in 0..texts.len() {
            let said: Vec<f64> = deltas.iter().map(|d| d[i]).collect();
            let first = said.iter().filter(|d| **d > 0.0).count() as f64 / said.len() as f64;
            rows.push((i, mean(&said), spread(&said), first.min(1.0 - first)));
        }
    }
    rows.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    let text = |k: usize| Column::text(rows.iter().map(|r| texts[r.0][k]));
    Table::new(vec![
        ("prompt", text(0)),
        ("response_a", text(1)),
        ("response_b", text(2)),
        ("delta", Column::floats(rows.iter().map(|r| r.1))),
        ("disagreement", Column::floats(rows.iter().map(|r| r.2))),
        ("minority", Column::floats(rows.iter().map(|r| r.3))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_follows_from_how_often_two_votes_agree() {
        let labels = |votes: Vec<i64>, shares: Vec<f64>| {
            Table::new(vec![("votes", Column::ints(votes)), ("agreement", Column::floats(shares))])
                .expect("a table")
        };
        let get = |t: &Table| ceiling(t, &[0, 1, 2]).expect("numbers");
        // Three votes each, 3:0, 3:0 and 2:1: two votes agree 1, 1 and 1/3 of the time.
        let said = get(&labels(vec![3, 3, 3], vec![1.0, 1.0, 2.0 / 3.0]));
        let a: f64 = 7.0 / 9.0;
        assert!((said[0].1 - a).abs() < 1e-12);
        assert!((said[1].1 - (1.0 + (2.0 * a - 1.0).sqrt()) / 2.0).abs() < 1e-12);
        // Single votes say nothing; chance agreement leaves chance.
        assert!(get(&labels(vec![1, 1, 1], vec![1.0; 3])).is_empty());
        assert_eq!(get(&labels(vec![2, 2, 2], vec![0.5; 3]))[1].1, 0.5);
        // p is .8 everywhere: A = .68 gives .8 back.
        let a: f64 = 0.8 * 0.8 + 0.2 * 0.2;
        assert!(((1.0 + (2.0 * a - 1.0).sqrt()) / 2.0 - 0.8).abs() < 1e-12);
    }

    #[test]
    fn calibration_error_of_a_known_case() {
        // ln 4 is a confidence of .8: four of five right is calibrated, all right is off by .2.
        let sure = 4.0_f64.ln();
        let (table, ece) = calibration(&[sure, sure, sure, sure, -sure]).expect("a table");
        assert!(ece.abs() < 1e-12 && table.rows() == 1, "{ece}");
        let (_, ece) = calibration(&[sure; 5]).expect("a table");
        assert!((ece - 0.2).abs() < 1e-12, "{ece}");
    }

    #[test]
    fn the_most_disputed_pair_comes_first() {
        let texts = [["p", "a", "b"], ["q", "c", "d"]];
        let table = disagreement(&texts, &[vec![1.0, 2.0], vec![1.0, -2.0]]).expect("a table");
        assert_eq!(table.texts("prompt").expect("text"), ["q", "p"]);
        assert_eq!(table.floats("disagreement", 0.0).expect("numbers"), [8.0_f64.sqrt(), 0.0]);
        assert_eq!(table.floats("minority", 1.0).expect("numbers"), [0.5, 0.0]);
        assert_eq!(disagreement(&texts, &[vec![1.0, 2.0]]).expect("a table").rows(), 0);
    }
}
