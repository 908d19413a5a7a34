//! From several votes on a pair to one label, or to one a vote.
//! Knows nothing of texts, tables or files.

use std::collections::BTreeSet;

use preflow::agreement::{ADJUDICATOR, MeasurementScale, Ratings, Smoothing, dawid_skene};
use preflow::votes::{Ballot, Choice, Judged};

use preflow::label::Aggregate;

/// Neither answer, on [`MeasurementScale::Answer`].
const NEITHER: usize = 1;

/// What becomes a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Place of the pair among those judged.
    pub item: usize,
    pub choice: Choice,
    /// 2 for much better, 1 for better, 0 for a tie; of several votes the mean in the direction of
    /// the choice, votes for the other answer counted against it, 0 at least.
    pub strength: f64,
    /// Annotators who voted, the adjudicator only when alone.
    pub votes: u32,
    /// Share of their votes that agree with the choice; of a pair that is even, the share of one
    /// side.
    pub agreement: f64,
    pub voters: Vec<String>,
    /// Reasons that those marked who agree with the choice, each once, in order; of a pair that is
    /// even, those of all.
    pub reasons: Vec<String>,
}

/// Labels of the judged pairs, in their order.
pub fn decide(used: &[&Judged], aggregate: Aggregate) -> Vec<Decided> {
    let reliable = (aggregate == Aggregate::DawidSkene).then(|| {
        dawid_skene(
            &Ratings::of(used.iter().copied(), MeasurementScale::Answer),
            Smoothing::default(),
        )
    });
    let mut decided = Vec::new();
    for (item, judged) in used.iter().enumerate() {
        let pair = Pair::of(item, judged);
        match (aggregate, &reliable, pair.adjudicated) {
            (.., Some(last_word)) => decided.push(pair.settled(last_word)),
            (Aggregate::EachVote, ..) => decided.extend(pair.each()),
            (_, Some(model), _) => decided.push(pair.put_together(model.winner(item))),
            _ => decided.push(pair.put_together(pair.majority())),
        }
    }
    decided
}

/// The votes on one pair.
struct Pair<'a> {
    item: usize,
    own: Vec<&'a Ballot>,
    adjudicated: Option<&'a Ballot>,
    /// Votes by class.
    counts: [usize; 3],
}

fn class(choice: Choice) -> usize {
    MeasurementScale::Answer.category(choice).expect("invariant: ballots are opinions")
}

fn score(ballot: &Ballot) -> f64 {
    f64::from(ballot.choice.score().expect("invariant: ballots are opinions"))
}

impl<'a> Pair<'a> {
    fn of(item: usize, judged: &'a Judged) -> Self {
        let votes = || judged.ballots.iter().filter(|b| !b.repeat);
        let own: Vec<&Ballot> = votes().filter(|b| b.annotator != ADJUDICATOR).collect();
        let mut counts = [0; 3];
        own.iter().for_each(|b| counts[class(b.choice)] += 1);
        let adjudicated = votes().find(|b| b.annotator == ADJUDICATOR);
        Self { item, own, adjudicated, counts }
    }

    /// The class that has more votes than any other.
    fn majority(&self) -> Option<usize> {
        let most = self.counts.iter().max()?;
        let mut first = (0..3).filter(|c| self.counts[*c] == *most);
        first.next().filter(|_| first.next().is_none())
    }

    fn agreement(&self, votes: usize) -> f64 {
        if self.own.is_empty() { 1.0 } else { votes as f64 / self.own.len() as f64 }
    }

    /// Reasons of the votes of one class, or of all.
    fn reasons(&self, winner: Option<usize>) -> Vec<String> {
        let agree = |b: &&&Ballot| winner.is_none_or(|c| class(b.choice) == c);
        let marked = self.own.iter().filter(agree).flat_map(|b| b.reasons.iter().cloned());
        marked.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// One label of all votes; `None`: they are even.
    fn put_together(&self, winner: Option<usize>) -> Decided {
        let bad = self.own.iter().filter(|b| b.choice == Choice::BothBad).count();
        let choice = match winner {
            Some(0) => Choice::A,
            Some(2) => Choice::B,
            Some(_) if 2 * bad > self.counts[NEITHER] => Choice::BothBad,
            _ => Choice::Tie,
        };
        let toward = match winner {
            Some(0) => -1.0,
            Some(2) => 1.0,
            _ => 0.0,
        };
        let mean = self.own.iter().map(|b| score(b)).sum::<f64>() / self.own.len().max(1) as f64;
        let most = self.counts.iter().copied().max().unwrap_or_default();
        Decided {
            item: self.item,
            choice,
            strength: (toward * mean).max(0.0),
            votes: self.own.len() as u32,
            agreement: self.agreement(winner.map_or(most, |c| self.counts[c])),
            voters: self.own.iter().map(|b| b.annotator.clone()).collect(),
            reasons: self.reasons(winner),
        }
    }

    /// The adjudicator's word alone.
    fn settled(&self, last_word: &Ballot) -> Decided {
        let voters = self.own.iter().copied().chain([last_word]);
        Decided {
            item: self.item,
            choice: last_word.choice,
            strength: score(last_word).abs(),
            votes: self.own.len().max(1) as u32,
            agreement: self.agreement(self.counts[class(last_word.choice)]),
            voters: voters.map(|b| b.annotator.clone()).collect(),
            reasons: self.reasons(Some(class(last_word.choice))),
        }
    }

    /// A label a vote.
    fn each(&self) -> impl Iterator<Item = Decided> {
        self.own.iter().map(|ballot| Decided {
            item: self.item,
            choice: ballot.choice,
            strength: score(ballot).abs(),
            votes: 1,
            agreement: self.agreement(self.counts[class(ballot.choice)]),
            voters: vec![ballot.annotator.clone()],
            reasons: ballot.reasons.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use preflow::votes::Side;

    use super::*;

    fn judged(votes: &[(&str, Choice)]) -> Judged {
        let ballot = |(name, choice): &(&str, Choice)| Ballot {
            annotator: (*name).into(),
            repeat: name.ends_with('2'),
            choice: *choice,
            shown_left: Side::A,
            reasons: vec![format!("{choice:?}"), (*name).to_owned()],
        };
        Judged { pair: "p".into(), text: None, ballots: votes.iter().map(ballot).collect() }
    }

    fn one(votes: &[(&str, Choice)], aggregate: Aggregate) -> Decided {
        let decided = decide(&[&judged(votes)], aggregate);
        assert_eq!(decided.len(), 1);
        decided[0].clone()
    }

    #[test]
    fn the_majority_decides_and_even_is_a_tie() {
        use Choice::*;
        let of = |votes: &[Choice]| {
            let names = ["ann", "ben", "cas", "dot", "eve"];
            let votes: Vec<(&str, Choice)> = names.into_iter().zip(votes.iter().copied()).collect();
            let d = one(&votes, Aggregate::Majority);
            (d.choice, d.strength, d.agreement)
        };
        assert_eq!(of(&[AMuch, A, B]), (A, 2.0 / 3.0, 2.0 / 3.0));
        assert_eq!(of(&[A, B]), (Tie, 0.0, 0.5));
        assert_eq!(of(&[A, Tie]), (Tie, 0.0, 0.5));
        assert_eq!(of(&[BMuch, BMuch, Tie]), (B, 4.0 / 3.0, 2.0 / 3.0));
        assert_eq!(of(&[BothBad, BothBad, Tie]), (BothBad, 0.0, 1.0));
        assert_eq!(of(&[BothBad, Tie]), (Tie, 0.0, 1.0));
        // More for a than for anything else, though b is meant more: the margin asks for nothing.
        assert_eq!(of(&[A, A, BMuch, Tie]), (A, 0.0, 0.5));
    }

    #[test]
    fn repeats_are_no_votes_and_each_vote_may_be_a_label() {
        use Choice::*;
        let votes = [("ann", A), ("ann2", B), ("ben", BMuch)];
        let each = decide(&[&judged(&votes)], Aggregate::EachVote);
        let short: Vec<_> = each.iter().map(|d| (d.choice, d.strength, d.agreement)).collect();
        assert_eq!(short, [(A, 1.0, 0.5), (BMuch, 2.0, 0.5)]);
        assert_eq!(each[1].reasons, ["BMuch", "ben"]);
        assert_eq!(one(&votes, Aggregate::Majority).votes, 2);
    }

    #[test]
    fn reasons_are_of_those_who_agree_and_of_all_where_votes_are_even() {
        use Choice::*;
        let of = |votes: &[(&str, Choice)]| one(votes, Aggregate::Majority).reasons;
        assert_eq!(of(&[("ann", A), ("ben", A), ("cas", B)]), ["A", "ann", "ben"]);
        assert_eq!(of(&[("ann", A), ("ben", B)]), ["A", "B", "ann", "ben"]);
        assert_eq!(of(&[("adjudicator", B), ("ann", A), ("ben", B)]), ["B", "ben"]);
    }

    #[test]
    fn the_adjudicator_decides_alone_whatever_the_aggregate() {
        use Choice::*;
        let votes = [("adjudicator", BMuch), ("ann", A), ("ben", A)];
        for aggregate in [Aggregate::Majority, Aggregate::EachVote, Aggregate::DawidSkene] {
            let d = one(&votes, aggregate);
            assert_eq!((d.choice, d.strength, d.votes, d.agreement), (BMuch, 2.0, 2, 0.0));
        }
        let alone = one(&[("adjudicator", A)], Aggregate::DawidSkene);
        assert_eq!((alone.votes, alone.agreement), (1, 1.0));
    }

    #[test]
    fn dawid_and_skene_trust_those_who_agree_with_others() {
        use Choice::*;
        // Two agree on forty pairs, the third votes at random.
        let mut pairs: Vec<Judged> = (0..40)
            .map(|i| {
                let (truth, noise) = (if i % 2 == 0 { A } else { B }, [A, B, B, A][i % 4]);
                judged(&[("ann", truth), ("ben", truth), ("cas", noise)])
            })
            .collect();
        pairs.push(judged(&[("ann", B), ("cas", A)]));
        let used: Vec<&Judged> = pairs.iter().collect();
        assert_eq!(decide(&used, Aggregate::DawidSkene)[40].choice, B);
        assert_eq!(decide(&used, Aggregate::Majority)[40].choice, Tie);
    }
}
