//! Coefficients against published worked examples, EM against the paper and another program.

use proptest::prelude::*;

use super::*;
use crate::votes::{Ballot, Side};

/// Items from rows of digits, a column an annotator; `.` is a missing rating, digits count from 1.
fn ratings(rows: &str, annotators: &[usize], categories: usize) -> Ratings {
    let rating = |(column, digit): (usize, char)| {
        let category = digit.to_digit(10)? as usize - 1;
        Some(Rating { annotator: annotators[column], category })
    };
    let item = |row: &str| row.chars().enumerate().filter_map(rating).collect();
    let most = annotators.iter().max().map_or(0, |m| m + 1);
    let names = (0..most).map(|i| format!("r{i}")).collect();
    Ratings { annotators: names, categories, items: rows.split_whitespace().map(item).collect() }
}

fn near(found: Option<f64>, expected: f64, within: f64) {
    let found = found.expect("defined");
    assert!((found - expected).abs() < within, "{found} is not {expected}");
}

/// The reliability data of Krippendorff (2011), section C: four observers, twelve units.
fn krippendorff() -> Ratings {
    let rows = "11.1 2232 3333 3333 2222 1234 4444 1121 2222 .555 ..11 .3..";
    ratings(rows, &[0, 1, 2, 3], 5)
}

/// The table of fourteen raters and ten subjects in the encyclopaedia's article on Fleiss' kappa.
fn fleiss_table() -> Ratings {
    let table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ];
    let item = |counts: &[usize; 5]| {
        let said = counts.iter().enumerate().flat_map(|(c, n)| std::iter::repeat_n(c, *n));
        said.enumerate().map(|(annotator, category)| Rating { annotator, category }).collect()
    };
    let annotators = (0..14).map(|i| format!("r{i}")).collect();
    Ratings { annotators, categories: 5, items: table.iter().map(item).collect() }
}

/// Dawid and Skene (1979), table 1: 45 patients; the first of five observers saw each three times.
fn patients() -> Ratings {
    let rows = "1111111 3334343 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 \
                4444444 2223343 1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 \
                2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121 \
                1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 \
                1111111 1212111 2322222 1211111 2222222";
    ratings(rows, &[0, 0, 0, 1, 2, 3, 4], 4)
}

#[test]
fn alpha_is_the_published_one() {
    near(alpha(&krippendorff(), Distance::Nominal), 0.743, 5e-4);
    near(alpha(&krippendorff(), Distance::Ordinal), 0.815, 5e-4);
}

#[test]
fn fleiss_is_the_published_one() {
    near(fleiss(&fleiss_table()), 0.210, 5e-4);
    near(percent(&fleiss_table()), 0.378, 5e-4);
}

#[test]
fn cohen_is_the_published_one() {
    // Fifty proposals: both yes 20, both no 15, only one of them yes 5 and 10.
    let table = [((0, 0), 20), ((0, 1), 5), ((1, 0), 10), ((1, 1), 15)];
    let items: Vec<(usize, usize)> =
        table.iter().flat_map(|(item, n)| std::iter::repeat_n(*item, *n)).collect();
    near(cohen(&items), 0.4, 1e-12);
    // 45/25/15/15 of a hundred in the same article: .1304 and .2593 for its second table.
    let hundred = |n: [usize; 4]| -> Vec<(usize, usize)> {
        let cells = [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().zip(n);
        cells.flat_map(|(item, n)| std::iter::repeat_n(item, n)).collect()
    };
    near(cohen(&hundred([45, 15, 25, 15])), 0.1304, 5e-5);
    near(cohen(&hundred([25, 35, 5, 35])), 0.2593, 5e-5);
    assert_eq!(cohen(&[]), None);
    assert_eq!(cohen(&[(1, 1), (1, 1)]), None);
}

#[test]
fn wilson_matches_published_bounds() {
    // Newcombe 1998, table I, method 3: 81 of 263 and 0 of 20.
    let e = wilson(81, 263).expect("some");
    assert!((e.low - 0.2553).abs() < 1e-4 && (e.high - 0.3662).abs() < 1e-4, "{e:?}");
    let e = wilson(0, 20).expect("some");
    assert!(e.low == 0.0 && (e.high - 0.1611).abs() < 1e-4, "{e:?}");
    assert_eq!(wilson(0, 0), None);
}

#[test]
fn em_finds_what_the_paper_found() {
    let found = dawid_skene(&patients(), Smoothing::NONE);
    // Table 4 of the paper: .40 .42 .11 .07, and the first observer's row of the second category.
    for (p, expected) in found.prevalence.iter().zip([0.40, 0.42, 0.11, 0.07]) {
        assert!((p - expected).abs() < 5e-3, "{:?}", found.prevalence);
    }
    for (p, expected) in found.confusion[0][1].iter().zip([0.07, 0.88, 0.05, 0.0]) {
        assert!((p - expected).abs() < 5e-3, "{:?}", found.confusion[0]);
    }
    // More digits from a program of twenty lines that multiplies out the formulas of the paper.
    let digits = [0.399_555, 0.421_983, 0.111_795, 0.066_667];
    for (p, expected) in found.prevalence.iter().zip(digits) {
        assert!((p - expected).abs() < 2e-6, "{:?}", found.prevalence);
    }
    assert!((found.log_likelihood + 190.981_338_7).abs() < 1e-6, "{}", found.log_likelihood);
}

#[test]
fn smoothed_em_agrees_with_another_program() {
    // Figures by that program, the same imagined votes added to its counts.
    let found = dawid_skene(&patients(), Smoothing::default());
    assert!((found.log_likelihood + 202.064_271_7).abs() < 1e-5, "{}", found.log_likelihood);
    assert!((found.posterior[2][0] - 0.074_849).abs() < 1e-5, "{:?}", found.posterior[2]);
    let rows = "1.11 2221 3.3. 1121 ..23 222. 3133 1.1. 2231 3223 .111 2..2";
    let found = dawid_skene(&ratings(rows, &[0, 1, 2, 3], 3), Smoothing::default());
    for (found, expected) in [
        (&found.prevalence, [0.336_848, 0.481_232, 0.181_919]),
        (&found.posterior[4], [0.036_133, 0.811_051, 0.152_815]),
        (&found.posterior[9], [0.001_410, 0.888_395, 0.110_195]),
        (&found.confusion[3][2], [0.081_171, 0.080_610, 0.838_219]),
    ] {
        for (p, expected) in found.iter().zip(expected) {
            assert!((p - expected).abs() < 1e-5, "{found:?}");
        }
    }
}

#[test]
fn one_bad_annotator_does_not_outvote_a_good_one() {
    // Two annotators who agree with each other on forty items, one who says the opposite of them.
    let mut rows = "112 221 ".repeat(20);
    // Here the good ones are not of one mind: what the third says counts for its opposite.
    rows.push_str("1.1 .22");
    let found = dawid_skene(&ratings(&rows, &[0, 1, 2], 2), Smoothing::default());
    assert_eq!((found.winner(40), found.winner(41)), (Some(0), Some(1)));
    assert!(found.confusion[2][0][0] < 0.25 && found.confusion[0][0][0] > 0.9);
    let even = dawid_skene(&ratings("12 21", &[0, 1], 2), Smoothing::default());
    assert_eq!((even.winner(0), even.winner(1)), (None, None));
    let nobody = dawid_skene(&ratings("12 .. 11", &[0, 1], 2), Smoothing::default());
    assert!((nobody.posterior[1].iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn intervals_are_the_same_again_and_cover_the_value() {
    let two = [
        alpha_estimate(&krippendorff(), Distance::Ordinal, 500, 7).expect("defined"),
        alpha_estimate(&krippendorff(), Distance::Ordinal, 500, 7).expect("defined"),
    ];
    assert_eq!(two[0], two[1]);
    assert!(two[0].low < two[0].value && two[0].value < two[0].high, "{:?}", two[0]);
    assert_eq!(two[0].n, 11);
    // Of a mean, the bootstrap is close to the normal interval.
    let mut random = fastrand::Rng::with_seed(3);
    let xs: Vec<f64> = (0..400).map(|_| random.f64()).collect();
    let of = |drawn: &[usize]| Some(drawn.iter().map(|i| xs[*i]).sum::<f64>() / 400.0);
    let e = bootstrap(400, 2000, 1, of).expect("defined");
    let half = 1.96 * (1.0_f64 / 12.0).sqrt() / 20.0;
    assert!((e.high - e.value - half).abs() < 0.005, "{e:?} against ±{half}");
}

#[test]
fn the_ceiling_lies_between_its_bounds() {
    // p = .8 everywhere: the upper bound is exact.
    assert!((accuracy_ceiling(0.68).1 - 0.8).abs() < 1e-12);
    // Half of the pairs certain, half a toss: agreement .75, accuracy .75: the lower bound is.
    assert_eq!(accuracy_ceiling(0.75).0, 0.75);
    assert_eq!(accuracy_ceiling(1.0), (1.0, 1.0));
    assert_eq!(accuracy_ceiling(0.3), (0.5, 0.5));
}

#[test]
fn repeats_and_the_adjudicator_are_no_agreement() {
    let ballot = |annotator: &str, repeat, choice| Ballot {
        annotator: annotator.into(),
        repeat,
        choice,
        shown_left: Side::A,
        reasons: Vec::new(),
    };
    let judged = Judged {
        pair: "p".into(),
        text: None,
        ballots: vec![
            ballot(ADJUDICATOR, false, Choice::B),
            ballot("ann", false, Choice::AMuch),
            ballot("ann", true, Choice::B),
            ballot("ben", false, Choice::BothBad),
        ],
    };
    let of = Ratings::of([&judged], MeasurementScale::Strength);
    assert_eq!(of.annotators, ["ann", "ben"]);
    assert_eq!(of.between(0, 1), [(0, 2)]);
    assert_eq!(Ratings::of([&judged], MeasurementScale::Answer).between(0, 1), [(0, 1)]);
    assert_eq!(MeasurementScale::Answer.category(Choice::Skip), None);
    assert_eq!(of.shared(), 1);
}

/// Items by annotators, some missing.
fn any_ratings() -> impl Strategy<Value = Ratings> {
    let cell = prop::option::weighted(0.8, 0..4_usize);
    prop::collection::vec(prop::collection::vec(cell, 4), 2..20).prop_map(|rows| {
        let item = |row: Vec<Option<usize>>| {
            let rating = |(annotator, c): (usize, Option<usize>)| {
                c.map(|category| Rating { annotator, category })
            };
            row.into_iter().enumerate().filter_map(rating).collect()
        };
        Ratings {
            annotators: (0..4).map(|i| format!("r{i}")).collect(),
            categories: 4,
            items: rows.into_iter().map(item).collect(),
        }
    })
}

fn all_of(r: &Ratings) -> [Option<f64>; 4] {
    [alpha(r, Distance::Nominal), alpha(r, Distance::Ordinal), fleiss(r), percent(r)]
}

fn same(one: &[Option<f64>; 4], other: &[Option<f64>; 4]) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (a, b) => a == b,
    })
}

proptest! {
    #[test]
    fn who_is_who_and_the_order_of_items_have_no_say(r in any_ratings(), turn in 0..20_usize) {
        let mut turned = r.clone();
        let n = turned.items.len();
        turned.items.rotate_left(turn % n);
        for rating in turned.items.iter_mut().flatten() {
            rating.annotator = 3 - rating.annotator;
        }
        turned.items.iter_mut().for_each(|i| i.reverse());
        prop_assert!(same(&all_of(&r), &all_of(&turned)));
        // Categories the other way round: their order is kept.
        turned.items.iter_mut().flatten().for_each(|x| x.category = 3 - x.category);
        prop_assert!(same(&all_of(&r), &all_of(&turned)));
    }

    #[test]
    fn perfect_agreement_is_one(truth in prop::collection::vec(0..4_usize, 2..20)) {
        prop_assume!(truth.iter().any(|t| *t != truth[0]));
        let item = |category: &usize| {
            (0..3).map(|annotator| Rating { annotator, category: *category }).collect()
        };
        let annotators = (0..3).map(|i| format!("r{i}")).collect();
        let r = Ratings { annotators, categories: 4, items: truth.iter().map(item).collect() };
        prop_assert!(same(&all_of(&r), &[Some(1.0); 4]));
        prop_assert!((cohen(&r.between(0, 2)).expect("defined") - 1.0).abs() < 1e-9);
    }

    #[test]
    fn em_never_leaves_the_simplex(r in any_ratings()) {
        let found = dawid_skene(&r, Smoothing::default());
        for likely in &found.posterior {
            prop_assert!((likely.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}
