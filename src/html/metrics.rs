//! The one table of metrics that pages know how to tell: a metric that it does not name is shown by
//! its name, after all others. Does not know which stages report them.

/// What is known of a metric before anybody measured it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, or the last part of a name like `objective/kl`.
    pub name: &'static str,
    /// What stands above its column where there is little room; empty: its name.
    pub title: &'static str,
    /// Less of it is better; else more.
    lower_is_better: bool,
    unit: Unit,
    spread: Spread,
    /// Its rank in each [`ReportPlace`], the most telling first; 0: it is not told there.
    ranks: [u8; 5],
    pub alarm: Option<Alarm>,
}

/// What its numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Whatever its values look like.
    Open,
    /// Part of a whole, 0 to 1.
    Share,
    /// A sum without bounds, even where its values happen to lie between 0 and 1.
    Level,
}

/// Which other names have the same unit.
#[derive(Debug, Clone, Copy)]
enum Spread {
    /// None: only the name itself.
    Alone,
    /// Those that end with it.
    Ending,
    /// Those that hold it.
    Within,
}

/// How the numbers of a figure read.
#[derive(Clone, Copy, PartialEq)]
pub enum NumberFormat {
    Plain,
    Share,
    /// Difference of two plain figures.
    Gain,
    /// Difference of two shares.
    Points,
}

/// Where some metrics are told before all others.
#[derive(Debug, Clone, Copy)]
pub enum ReportPlace {
    /// The sentence and the drawing at the top of the report.
    Headline,
    /// The table of all policies, beside the headline's own metric.
    Policies,
    /// The table that tells learning from copying.
    Memory,
    /// What optimisation buys: what is wanted, then what is optimised.
    Frontier,
    /// The curves of stages that learn.
    Training,
}

/// When the last value of a metric, or of any whose name ends with its name, is a bad sign.
#[derive(Debug, Clone, Copy)]
pub struct Alarm {
    pub is_bad: fn(f64) -> bool,
    pub says: &'static str,
    /// Points up to which it has not settled and says nothing.
    pub unsettled: usize,
}

/// What is added to the name of a metric for the difference to another policy, answer by answer.
pub const GAIN: &str = "_gain";
/// The same where only a bound is known: of best-of-n the KL.
pub const AT_MOST: &str = "_at_most";
/// How often a policy's answer beats the one of another policy.
pub const WINS: &str = "win_rate";
/// How far a policy went from its reference.
pub const KL: &str = "kl";
/// The same as a distance.
pub const SQRT_KL: &str = "sqrt_kl";

/// Every metric that has a title, a unit, a place or an alarm of its own.
#[rustfmt::skip]
static METRICS: [Metric; 24] = [
    metric("good").share().at(ReportPlace::Headline, 1),
    metric("gold").level(Spread::Within)
        .at(ReportPlace::Headline, 2).at(ReportPlace::Policies, 1)
        .at(ReportPlace::Frontier, 1).at(ReportPlace::Training, 7),
    metric("score").level(Spread::Within).at(ReportPlace::Headline, 3),
    metric("accuracy").shares(Spread::Within).at(ReportPlace::Headline, 4).at(ReportPlace::Training, 5),
    metric("reward").level(Spread::Within)
        .at(ReportPlace::Headline, 5).at(ReportPlace::Policies, 2).at(ReportPlace::Frontier, 2),
    metric(WINS).titled("wins").at(ReportPlace::Headline, 6).at(ReportPlace::Policies, 3),
    metric("win_rate_people").at(ReportPlace::Policies, 4),
    metric("rate").shares(Spread::Ending),
    metric(KL).lower().at(ReportPlace::Policies, 5).at(ReportPlace::Training, 3),
    metric("objective/kl")
        .alarm(|x| x < -0.1, "a KL is not negative: sampling and training do not see one policy"),
    metric("eos_rate").titled("ends").at(ReportPlace::Policies, 6).at(ReportPlace::Training, 9)
        .alarm(|x| x < 0.5, "most answers do not end by themselves"),
    metric("length").at(ReportPlace::Policies, 7),
    metric("copied").share().lower().at(ReportPlace::Memory, 1),
    metric("copied_words").share().lower().at(ReportPlace::Memory, 2),
    metric("perplexity").lower().at(ReportPlace::Memory, 3).at(ReportPlace::Training, 6),
    metric("distinct_2").share(),
    metric("distinct_ratio").alarm(|x| x < 0.2, "the answers are nearly all the same"),
    metric("corr_with_length")
        .alarm(|x| x.abs() > 0.6, "the reward follows the length of answers"),
    metric("explained_variance")
        .alarm(|x| x < 0.0, "the critic is worse than a constant").unsettled(10),
    metric("loss").lower().at(ReportPlace::Training, 4)
        .alarm(|x| !x.is_finite(), "the loss is not a number"),
    metric("scores").at(ReportPlace::Training, 1),
    metric("rlhf_reward").at(ReportPlace::Training, 2),
    metric("entropy").at(ReportPlace::Training, 8),
    metric("len_mean").at(ReportPlace::Training, 10),
];

const fn metric(name: &'static str) -> Metric {
    Metric {
        name,
        title: "",
        lower_is_better: false,
        unit: Unit::Open,
        spread: Spread::Alone,
        ranks: [0; 5],
        alarm: None,
    }
}

impl Metric {
    const fn titled(mut self, title: &'static str) -> Self {
        self.title = title;
        self
    }

    const fn lower(mut self) -> Self {
        self.lower_is_better = true;
        self
    }

    const fn share(self) -> Self {
        self.shares(Spread::Alone)
    }

    const fn shares(mut self, spread: Spread) -> Self {
        (self.unit, self.spread) = (Unit::Share, spread);
        self
    }

    const fn level(mut self, spread: Spread) -> Self {
        (self.unit, self.spread) = (Unit::Level, spread);
        self
    }

    const fn at(mut self, place: ReportPlace, rank: u8) -> Self {
        self.ranks[place as usize] = rank;
        self
    }

    const fn alarm(mut self, is_bad: fn(f64) -> bool, says: &'static str) -> Self {
        self.alarm = Some(Alarm { is_bad, says, unsettled: 0 });
        self
    }

    const fn unsettled(mut self, points: usize) -> Self {
        if let Some(alarm) = &mut self.alarm {
            alarm.unsettled = points;
        }
        self
    }

    fn names(&self, name: &str) -> bool {
        match self.spread {
            Spread::Alone => name == self.name,
            Spread::Ending => name.ends_with(self.name),
            Spread::Within => name.contains(self.name),
        }
    }
}

/// The metric of that name, or of the name that is its last part.
fn find(name: &str) -> Option<&'static Metric> {
    let last = name.rsplit('/').next().unwrap_or(name);
    METRICS.iter().find(|m| m.name == last)
}

/// What stands above its column where there is little room; `None`: its name.
pub fn title(name: &str) -> Option<&'static str> {
    METRICS.iter().find(|m| m.name == name).map(|m| m.title).filter(|title| !title.is_empty())
}

/// Whether less of a metric is better; of one that nobody knows, more is.
pub fn is_lower_better(name: &str) -> bool {
    find(name).is_some_and(|m| m.lower_is_better)
}

/// Names of what is told in a place, the most telling first.
pub fn told(place: ReportPlace) -> Vec<&'static str> {
    let rank = |m: &&Metric| m.ranks[place as usize];
    let mut told: Vec<&Metric> = METRICS.iter().filter(|m| rank(m) > 0).collect();
    told.sort_by_key(rank);
    told.into_iter().map(|m| m.name).collect()
}

/// The rank of a metric in a place; `None`: it is not told there before others.
pub fn rank(name: &str, place: ReportPlace) -> Option<u8> {
    find(name).map(|m| m.ranks[place as usize]).filter(|rank| *rank > 0)
}

/// How values of a metric read. `counted`: its gain is known too; `inside`: all values lie within 0
/// and 1.
pub fn scale(name: &str, counted: bool, inside: bool) -> NumberFormat {
    let is = |unit| METRICS.iter().any(|m| m.unit == unit && m.names(name));
    let share = is(Unit::Share) || (counted && !is(Unit::Level));
    if share && inside { NumberFormat::Share } else { NumberFormat::Plain }
}

/// Alarms that a metric may raise.
pub fn alarms(name: &str) -> impl Iterator<Item = Alarm> {
    METRICS.iter().filter(move |m| name.ends_with(m.name)).filter_map(|m| m.alarm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_clear_and_units_go_by_name() {
        for (place, count) in
            [(ReportPlace::Headline, 6), (ReportPlace::Policies, 7), (ReportPlace::Memory, 3)]
        {
            assert_eq!(told(place).len(), count);
        }
        assert_eq!(told(ReportPlace::Training)[..3], ["scores", "rlhf_reward", KL]);
        assert_eq!(told(ReportPlace::Frontier), ["gold", "reward"]);
        for metric in &METRICS {
            assert_eq!(METRICS.iter().filter(|m| m.name == metric.name).count(), 1);
            for (place, rank) in metric.ranks.iter().enumerate().filter(|(_, rank)| **rank > 0) {
                let same = METRICS.iter().filter(|m| m.ranks[place] == *rank).count();
                assert_eq!(same, 1, "{} shares rank {rank}", metric.name);
            }
        }
        assert_eq!(rank("objective/kl", ReportPlace::Training), Some(3));
        assert_eq!(rank("objective/lr", ReportPlace::Training), None);
        assert_eq!(title("eos_rate"), Some("ends"));
        for (name, counted, shown) in [
            ("tokens/eos_rate", false, NumberFormat::Share),
            ("eval/accuracy_low", false, NumberFormat::Share),
            ("gold", true, NumberFormat::Plain),
            ("rule_met", true, NumberFormat::Share),
            ("rule_met", false, NumberFormat::Plain),
        ] {
            assert!(scale(name, counted, true) == shown, "{name}");
            assert!(scale(name, counted, false) == NumberFormat::Plain, "{name}");
        }
        let raised = |name, x| alarms(name).filter(|alarm| (alarm.is_bad)(x)).count();
        assert_eq!([raised("policy/loss", f64::NAN), raised("policy/loss", 1.0)], [1, 0]);
        assert_eq!([raised("objective/kl", -0.2), raised("kl", -0.2)], [1, 0]);
    }
}
