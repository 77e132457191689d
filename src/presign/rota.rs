//! Who is on duty: which of an issuer's responders signs at a time, until when somebody does without
//! a gap, and when the operator is to be told that this end is near.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::store::ResponderNumber;

/// A certificate that ends sooner signs nothing any more: its answer would be of no use.
pub const LEAST_LIFE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(86_400);

/// How long ahead the operator is told that nobody will sign any more.
pub const AHEAD: [Duration; 3] = [
    Duration::from_secs(30 * DAY.as_secs()),
    Duration::from_secs(7 * DAY.as_secs()),
    Duration::from_secs(DAY.as_secs()),
];

/// The time that a responder may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// The responder.
    pub responder: ResponderNumber,
    /// When it signs first: the start of its certificate, or the later time that was chosen.
    pub begins: UnixTime,
    /// The end of its certificate.
    pub ends: UnixTime,
}

impl Duty {
    /// Whether it may sign at `now`.
    #[must_use]
    pub fn is_on_at(&self, now: UnixTime) -> bool {
        self.begins <= now && now.plus(LEAST_LIFE) <= self.ends
    }
}

/// The duties of one issuer's responders, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rota(pub Vec<Duty>);

/// How soon nobody signs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Within this time.
    Within(Duration),
    /// Now.
    Now,
}

impl Rota {
    /// Who signs at `now`: the first whose certificate outlives an answer of that `validity`; where
    /// none does, the one that lasts longest.
    #[must_use]
    pub fn on_duty(&self, now: UnixTime, validity: Duration) -> Option<&Duty> {
        let on = self.0.iter().filter(|duty| duty.is_on_at(now));
        on.rev().max_by_key(|duty| duty.ends.min(now.plus(validity)))
    }

    /// Until when somebody signs, from `now` on and without a gap; none when nobody does.
    #[must_use]
    pub fn signed_until(&self, now: UnixTime) -> Option<UnixTime> {
        let mut until = None;
        let mut at = now;
        while let Some(last) = self.0.iter().filter(|duty| duty.is_on_at(at)).map(|duty| duty.ends).max() {
            until = Some(last);
            // It is the last one's turn until then; whoever begins by then goes on.
            at = UnixTime(last.0 - LEAST_LIFE.as_secs().cast_signed());
            if self.0.iter().all(|duty| duty.ends <= last || duty.begins > at) {
                break;
            }
        }
        until
    }

    /// What the operator has to be told at `now`. A time ahead that a certificate's whole life is less
    /// than twice of does not count: its alarm would be on most of the time.
    #[must_use]
    pub fn alarm(&self, now: UnixTime) -> Option<Alarm> {
        let Some(until) = self.signed_until(now) else { return Some(Alarm::Now) };
        let left = until.since(now);
        let last = self.0.iter().filter(|duty| duty.ends == until);
        let life = last.map(|duty| duty.ends.since(duty.begins)).max().unwrap_or_default();
        let reached = AHEAD.into_iter().filter(|ahead| left <= *ahead && life >= *ahead * 2);
        reached.min().map(Alarm::Within)
    }

    /// Where one responder takes over from another so late that answers are cut short before (B5),
    /// and signed the more often: the one that ends, the one that follows, and their time together.
    #[must_use]
    pub fn late_handovers(&self, now: UnixTime, validity: Duration) -> Vec<(Duty, Duty, Duration)> {
        let ending = self.0.iter().filter(|duty| now < duty.ends);
        let followed = ending.filter_map(|duty| {
            let successors = self.0.iter().filter(|other| other.ends > duty.ends);
            let next = successors.min_by_key(|other| other.begins)?;
            let together = duty.ends.since(next.begins.max(duty.begins));
            (together < validity && next.begins > now).then_some((*duty, *next, together))
        });
        followed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: UnixTime = UnixTime(1_795_315_054);

    fn duty(number: i64, begins: u32, ends: u32) -> Duty {
        Duty { responder: ResponderNumber(number), begins: T.plus(DAY * begins), ends: T.plus(DAY * ends) }
    }

    #[test]
    fn the_first_that_outlives_an_answer_is_on_duty() {
        let rota = Rota(vec![duty(2, 20, 90), duty(1, 0, 40)]);
        let on = |day: u32| rota.on_duty(T.plus(DAY * day), DAY * 7).map(|duty| duty.responder.0);
        assert_eq!([on(0), on(19), on(20), on(41), on(89)], [Some(1), Some(1), Some(2), Some(2), Some(2)]);
        assert_eq!(on(90), None, "an answer of no life is of no use");
        // Without a successor in force yet the old one goes on to its end.
        let late = Rota(vec![duty(2, 39, 90), duty(1, 0, 40)]);
        assert_eq!(late.on_duty(T.plus(DAY * 38), DAY * 7).unwrap().responder.0, 1);
    }

    #[test]
    fn a_chain_without_a_gap_counts_to_its_end_and_one_with_a_gap_to_the_gap() {
        let until = |duties: &[Duty], day: u32| Rota(duties.to_vec()).signed_until(T.plus(DAY * day));
        assert_eq!(until(&[], 0), None);
        assert_eq!(until(&[duty(1, 0, 40)], 0), Some(T.plus(DAY * 40)));
        assert_eq!(until(&[duty(1, 0, 40), duty(2, 30, 90), duty(3, 80, 120)], 0), Some(T.plus(DAY * 120)));
        assert_eq!(until(&[duty(3, 90, 120), duty(1, 0, 40), duty(2, 30, 90)], 0), Some(T.plus(DAY * 90)));
        assert_eq!(until(&[duty(1, 5, 40)], 0), None);
        assert_eq!(until(&[duty(1, 0, 40)], 40), None);
    }

    #[test]
    fn the_operator_is_told_thirty_seven_and_one_days_ahead() {
        let alarm = |rota: &Rota, day: u32| rota.alarm(T.plus(DAY * day));
        let long = Rota(vec![duty(1, 0, 90)]);
        let within = |days: u32| Some(Alarm::Within(DAY * days));
        assert_eq!([alarm(&long, 59), alarm(&long, 60), alarm(&long, 82)], [None, within(30), within(30)]);
        assert_eq!([alarm(&long, 83), alarm(&long, 88), alarm(&long, 89)], [within(7), within(7), within(1)]);
        assert_eq!(alarm(&long, 90), Some(Alarm::Now));
        // A certificate of thirty days is not alarming for all its life.
        let short = Rota(vec![duty(1, 0, 30)]);
        assert_eq!([alarm(&short, 0), alarm(&short, 22), alarm(&short, 23)], [None, None, within(7)]);
        // A successor ends the alarm.
        let followed = Rota(vec![duty(2, 85, 180), duty(1, 0, 90)]);
        assert_eq!(alarm(&followed, 89), None);
        assert!(Alarm::Now > Alarm::Within(DAY));
    }

    #[test]
    fn a_handover_that_cuts_answers_short_is_found() {
        let late = |duties: &[Duty]| Rota(duties.to_vec()).late_handovers(T, DAY * 7);
        assert_eq!(late(&[duty(1, 0, 40), duty(2, 30, 90)]), []);
        assert_eq!(late(&[duty(1, 0, 40), duty(2, 38, 90)]), [(duty(1, 0, 40), duty(2, 38, 90), DAY * 2)]);
        assert_eq!(late(&[duty(1, 0, 40), duty(2, 50, 90)])[0].2, Duration::ZERO);
        assert_eq!(late(&[duty(1, 0, 40)]), []);
    }
}
