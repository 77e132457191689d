//! The answers of a simulated fleet by age, and what is signed of them: a fluid model of the engine.

use std::collections::VecDeque;
use std::time::Duration;

use super::model::Terms;

/// Classes of certificates by their place in the spread of refreshes.
const PLACES: usize = 8;

/// Answers by the step they were signed in, for each place in the spread. Numbers are fractions of
/// certificates: the model is a fluid.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    terms: Terms,
    step: Duration,
    /// Oldest step first; all of one length.
    signed: [VecDeque<f64>; PLACES],
    /// What each stored number is multiplied by: certificates that end, end at every age.
    scale: f64,
    /// All of them, so multiplied.
    answered: f64,
    /// Certificates that are revoked and wait for their new answer.
    revoked: f64,
    /// Certificates that wait for their first answer.
    first: f64,
}

/// What a step of signing left.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Signed {
    /// Signatures made.
    pub(super) signatures: f64,
    /// Signatures past their planned time.
    pub(super) overdue: f64,
    /// The age of the oldest answer, in seconds.
    pub(super) oldest: f64,
    /// Answers past their legal deadline.
    pub(super) stale: f64,
    /// Answers past nextUpdate.
    pub(super) expired: f64,
    /// Certificates that wait for their first answer.
    pub(super) first: f64,
    /// Revoked certificates that wait for their new one.
    pub(super) revoked: f64,
}

impl Answers {
    /// A fleet whose answers were signed evenly over the past refresh intervals.
    pub(super) fn steady(terms: Terms, step: Duration, certificates: f64) -> Self {
        let oldest = (terms.refresh.as_secs_f64() / step.as_secs_f64()).ceil() as usize;
        let mut answers = Self {
            terms,
            step,
            signed: std::array::from_fn(|_| VecDeque::from(vec![0.0; oldest])),
            scale: 1.0,
            answered: certificates,
            revoked: 0.0,
            first: 0.0,
        };
        for place in 0..PLACES {
            let steps = ((answers.interval(place, terms.refresh) / step.as_secs_f64()).round() as usize)
                .clamp(1, oldest);
            let each = certificates / PLACES as f64 / steps as f64;
            answers.signed[place].iter_mut().skip(oldest - steps).for_each(|count| *count = each);
        }
        answers
    }

    /// Seconds between two refreshes of a certificate at this place of the spread.
    fn interval(&self, place: usize, refresh: Duration) -> f64 {
        let within = (place as f64 + 0.5) / PLACES as f64;
        refresh.as_secs_f64() * (1.0 - self.terms.spread + self.terms.spread * within)
    }

    /// Certificates that end: of every age alike.
    pub(super) fn expire(&mut self, certificates: f64) {
        if certificates <= 0.0 || self.answered <= 0.0 {
            return;
        }
        let part = (1.0 - certificates / self.answered).max(0.0);
        self.scale *= part;
        self.answered *= part;
        // Far from the limits of floating point.
        if self.scale < 1e-100 {
            let scale = self.scale;
            self.signed.iter_mut().flatten().for_each(|count| *count *= scale);
            self.scale = 1.0;
        }
    }

    /// Certificates that are issued: they want a first answer.
    pub(super) fn issue(&mut self, certificates: f64) {
        self.first += certificates;
    }

    /// Certificates that are revoked: their answers are taken out of service at once.
    pub(super) fn revoke(&mut self, certificates: f64) {
        let certificates = certificates.min(self.answered);
        self.expire(certificates);
        self.revoked += certificates;
    }

    /// Lets a step pass in which so many signatures can be made: revocations first, then first answers,
    /// then what is due, the earliest deadline first. `unpacked` and `packed` are the signatures for one
    /// certificate, `refresh` the interval planned with.
    pub(super) fn sign(
        &mut self,
        mut signatures: f64,
        unpacked: f64,
        packed: f64,
        refresh: Duration,
    ) -> Signed {
        let offered = signatures;
        let mut fresh = [0.0; PLACES];
        for waiting in [&mut self.revoked, &mut self.first] {
            let made = waiting.min(signatures / unpacked);
            *waiting -= made;
            signatures -= made * unpacked;
            self.answered += made;
            fresh.iter_mut().for_each(|count| *count += made / PLACES as f64);
        }
        let mut overdue = 0.0;
        let length = self.signed[0].len();
        let intervals: [f64; PLACES] = std::array::from_fn(|place| self.interval(place, refresh));
        for bucket in 0..length {
            let age = (length - bucket) as f64 * self.step.as_secs_f64();
            if age < intervals[0] {
                break;
            }
            for place in 0..PLACES {
                if age < intervals[place] {
                    break;
                }
                let due = self.signed[place][bucket] * self.scale;
                if due <= 0.0 {
                    continue;
                }
                let made = due.min(signatures / packed);
                signatures -= made * packed;
                fresh[place] += made;
                let left = due - made;
                // Less than a thousandth of a certificate is rounding.
                self.signed[place][bucket] = if left > 1e-3 { left / self.scale } else { 0.0 };
                overdue += if left > 1e-3 { left * packed } else { 0.0 };
            }
        }
        for (place, count) in fresh.into_iter().enumerate() {
            self.signed[place].push_back(count / self.scale);
        }
        while self.signed[0].len() > 1
            && self.signed.iter().all(|line| line.front().is_some_and(|count| *count <= 0.0))
        {
            for line in &mut self.signed {
                line.pop_front();
            }
        }
        overdue += (self.revoked + self.first) * unpacked;
        let (oldest, stale, expired) = self.ages();
        let signatures = offered - signatures;
        Signed { signatures, overdue, oldest, stale, expired, first: self.first, revoked: self.revoked }
    }

    /// The age of the oldest answer, and how many are past the deadline and past nextUpdate.
    fn ages(&self) -> (f64, f64, f64) {
        let length = self.signed[0].len();
        let age = |bucket: usize| (length - 1 - bucket) as f64 * self.step.as_secs_f64();
        let (mut stale, mut expired) = (0.0, 0.0);
        for bucket in (0..length).take_while(|bucket| age(*bucket) > self.terms.deadline.as_secs_f64()) {
            let count = self.signed.iter().map(|line| line[bucket]).sum::<f64>() * self.scale;
            stale += count;
            expired += if age(bucket) > self.terms.validity.as_secs_f64() { count } else { 0.0 };
        }
        (age(0), stale, expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const STEP: Duration = Duration::from_secs(900);

    fn terms() -> Terms {
        Terms { validity: 168 * HOUR, refresh: 72 * HOUR, deadline: 96 * HOUR, spread: 0.25 }
    }

    #[test]
    fn a_steady_fleet_asks_for_what_the_model_says() {
        let mut answers = Answers::steady(terms(), STEP, 100_000.0);
        let steps = 96 * 30;
        let mut made = 0.0;
        for _ in 0..steps {
            let signed = answers.sign(1e9, 1.0, 1.0, 72 * HOUR);
            assert_eq!((signed.overdue, signed.stale), (0.0, 0.0));
            assert!(signed.oldest <= 72.0 * 3_600.0);
            made += signed.signatures;
        }
        let rate = made / (f64::from(steps) * 900.0);
        let expected = 100_000.0 / terms().mean_refresh();
        assert!((rate / expected - 1.0).abs() < 0.01, "{rate} is not {expected}");
        assert!((answers.answered - 100_000.0).abs() < 1.0, "nothing is lost");
    }

    #[test]
    fn an_outage_ages_the_oldest_answer_by_its_length_and_no_more() {
        let mut answers = Answers::steady(terms(), STEP, 100_000.0);
        let demand = 100_000.0 / terms().mean_refresh() * 900.0;
        let mut oldest: f64 = 0.0;
        for step in 0..96 * 6 {
            let room = if step < 96 { 0.0 } else { demand * 2.0 };
            let signed = answers.sign(room, 1.0, 1.0, 72 * HOUR);
            oldest = oldest.max(signed.oldest);
            assert_eq!(signed.stale, 0.0, "the slack is 24 hours");
        }
        assert!((oldest / 3_600.0 - 96.0).abs() < 1.5, "{}", oldest / 3_600.0);
    }

    #[test]
    fn revocations_and_first_answers_go_before_refreshes() {
        let mut answers = Answers::steady(terms(), STEP, 100_000.0);
        answers.revoke(500.0);
        answers.issue(300.0);
        let signed = answers.sign(600.0, 1.0, 1.0, 72 * HOUR);
        assert_eq!((signed.revoked, signed.first), (0.0, 200.0));
        assert!(signed.overdue > 200.0);
        answers.sign(1e9, 1.0, 1.0, 72 * HOUR);
        assert!((answers.answered - 100_300.0).abs() < 1.0);
    }

    #[test]
    fn certificates_that_end_end_at_every_age() {
        let mut answers = Answers::steady(terms(), STEP, 100_000.0);
        answers.expire(25_000.0);
        assert!((answers.answered - 75_000.0).abs() < 1e-6);
        answers.expire(1e9);
        assert_eq!(answers.answered, 0.0);
    }
}
