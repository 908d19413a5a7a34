//! What can still come: why labelling stands still, and what helps.
//! Knows neither files nor pages.

use serde::Serialize;

/// Votes that may still be made before every pair has what it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    /// By those who label, of pairs that they have neither judged nor skipped.
    pub now: u64,
    /// The same if they were asked once more what they skipped.
    pub with_skipped: u64,
    /// By as many people as it takes.
    pub with_people: u64,
    /// Pairs that lack votes and that somebody skipped.
    pub skipped: u64,
}

/// How many votes there are, how many are asked for, and how many there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outlook {
    pub votes: u64,
    pub goal: u64,
    pub room: Room,
    /// There are enough votes, and they do not agree enough.
    pub disagree: bool,
}

impl Outlook {
    /// Most votes that there will be if nothing changes.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.votes + self.room.now
    }

    /// Why what is asked for does not come, and what helps; `None` while it may.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let Self { votes, goal, room, disagree } = *self;
        let ever = votes + room.with_people;
        if votes >= goal {
            let still = disagree && room.now == 0;
            return still.then(|| {
                "every pair has its votes, and they do not agree enough: sample more pairs, have \
                 more people judge the same ones (`overlap`), or lower `alpha`"
                    .to_owned()
            });
        }
        // While people have something to do, only what no people could mend is told.
        if room.now > 0 && ever >= goal {
            return None;
        }
        let mut causes = Vec::new();
        let mut remedies = Vec::new();
        if room.skipped > 0 && room.with_skipped > room.now {
            causes.push(count(room.skipped, "pair was skipped", "pairs were skipped"));
            remedies.push("ask for skipped pairs again");
        }
        if room.with_people > room.with_skipped {
            let lack = room.with_people - room.with_skipped;
            causes.push(count(
                lack,
                "vote needs another annotator",
                "votes need another annotator",
            ));
        }
        if room.with_people > room.now {
            remedies.push("add an annotator");
        }
        if ever < goal {
            causes.push(format!("all pairs together take {ever}"));
            remedies.push("sample more pairs");
            remedies.push("raise `overlap`");
        }
        remedies.push("lower `votes`");
        let last = remedies.pop().unwrap_or_default();
        let remedies = match remedies.is_empty() {
            true => last.to_owned(),
            false => format!("{} or {last}", remedies.join(", ")),
        };
        let (most, causes) = (self.most(), causes.join(", "));
        Some(format!("at most {most} of the {goal} votes can come: {causes}; {remedies}"))
    }
}

fn count(n: u64, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(votes: u64, goal: u64, now: u64, with_skipped: u64, with_people: u64) -> String {
        let skipped = with_skipped - now;
        let room = Room { now, with_skipped, with_people, skipped };
        let outlook = Outlook { votes, goal, room, disagree: false };
        outlook.why().unwrap_or_default()
    }

    #[test]
    fn what_holds_it_up_is_named_with_what_helps() {
        assert_eq!(
            why(37, 40, 0, 4, 4),
            "at most 37 of the 40 votes can come: 4 pairs were skipped; ask for skipped pairs again, add an annotator \
             or lower `votes`"
        );
        assert_eq!(
            why(30, 40, 0, 0, 12),
            "at most 30 of the 40 votes can come: 12 votes need another annotator; add an annotator or lower `votes`"
        );
        assert_eq!(
            why(30, 400, 0, 0, 0),
            "at most 30 of the 400 votes can come: all pairs together take 30; sample more pairs, raise `overlap` or \
             lower `votes`"
        );
        // What no people could mend is told at once, the rest only when nothing is left to do.
        assert!(
            why(3, 400, 27, 27, 27)
                .starts_with("at most 30 of the 400 votes can come: all pairs together take 30")
        );
        assert_eq!(why(3, 40, 1, 5, 60), "");
        assert_eq!(why(40, 40, 0, 4, 4), "");
    }

    #[test]
    fn votes_that_do_not_agree_need_more_of_them() {
        let outlook = Outlook { votes: 40, goal: 40, room: Room::default(), disagree: true };
        assert!(outlook.why().expect("told").contains("lower `alpha`"));
        let room = Room { now: 1, with_skipped: 1, with_people: 1, skipped: 0 };
        assert_eq!(Outlook { room, ..outlook }.why(), None);
    }
}
