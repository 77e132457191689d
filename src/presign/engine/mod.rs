//! The deadline engine: what is signed next, without any input or output. State and time come in,
//! decisions go out; the keeper and the batch job carry them out with the real pipeline, the
//! simulation in the tests with a modelled token in virtual time.
//!
//! - Three lanes with a bound of their own each, so that a revocation never stands behind refreshes
//!   that are under way already. Inside the refresh lane the earliest legal deadline goes first.
//! - What stands in the way of a whole issuer (its token, its responder, the store) puts the issuer on
//!   hold, with single probes at growing intervals; other issuers go on.
//! - What fails alone is quarantined, and gets at most every eighth turn while anything else is due.
//! - What would come due in bunches is signed early in quiet times, at little more than the rate that
//!   the fleet needs on average.
//! - A step of the wall clock is noticed by the monotonic one.

mod clock_watch;
mod obstacles;
mod quarantine;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clock_watch::ClockWatch;
pub use clock_watch::Step;
pub use obstacles::{Obstacle, Obstacles};
use quarantine::Quarantine;
pub use quarantine::Quarantined;

use super::planner::{Group, Outlook, Plan, Planner, Taken};
use super::policies::Policies;
use crate::clock::UnixTime;
use crate::ocsp::{Freshness, Serial};
use crate::signer::Lane;
use crate::store::{CertificateKey, IssuerId};

/// The lanes of work that is done ahead, the first one first.
pub const LANES: [Lane; 3] = [Lane::Revocation, Lane::First, Lane::Refresh];

/// How much is under way at once in each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Certificates between being taken and being finished, a lane. It has to cover what is read,
    /// signed and written at a time; more only makes later decisions wait.
    pub in_flight: usize,
    /// Whether bunches to come are spread by signing early.
    pub early: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 1_256, early: true }
    }
}

/// What the engine has to know of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands in the store.
    pub key: CertificateKey,
    /// Its issuer.
    pub issuer: IssuerId,
    /// Its serial number.
    pub serial: Serial,
    /// Whether it is revoked.
    pub revoked: bool,
    /// thisUpdate and nextUpdate of the answer for its present status.
    pub answer: Option<(UnixTime, UnixTime)>,
    /// Whether that answer is to be replaced at once: its responder was taken out of use, or the status of
    /// another certificate in its pack has changed.
    pub retired: bool,
    /// It must not be signed before.
    pub not_before: Option<UnixTime>,
}

/// Something to sign now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The certificate.
    pub key: CertificateKey,
    /// The lane; the outcome must come back with it.
    pub lane: Lane,
    /// The legal deadline of the answer it has, else when it became due.
    pub deadline: UnixTime,
}

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This certificate only.
    Item,
    /// Every certificate of its issuer: the token, the responder or the store is the matter.
    Issuer,
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// It is signed and stored; the certificate as it is now.
    Answered(&'a Seen),
    /// Its status changed meanwhile, or somebody else stored an answer: it is looked at again.
    Superseded,
    /// It is gone or expired, or not to be answered before the moment given.
    NotDue(Option<UnixTime>),
    /// It has no new answer.
    Failed(Reach, &'a str),
}

/// The first wait after a failure, doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait of an issuer that is on hold, and of what failed when it was.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// The longest wait of a quarantined certificate.
const LONGEST_QUARANTINE: Duration = Duration::from_secs(300);

/// Turns between two of quarantined certificates, while anything else is due.
const TURNS: u32 = 7;

/// A certificate that has failed so often while its neighbours did not is the matter itself.
const SUSPICIOUS: u32 = 3;

/// What is signed a second while bunches are spread, beside what the fleet needs on average: early
/// answers come due early again.
const EARLY: f64 = 1.15;

/// A demand to come that is a bunch, beside what the fleet needs on average.
const BUNCHED: f64 = 1.05;

/// How often it is looked whether anything is to be signed early.
const LOOK_AHEAD: Duration = Duration::from_secs(600);

/// Something stands in the way of an issuer's certificates.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    /// Until when nothing is tried; none when nothing is in the way.
    until: Option<UnixTime>,
    tries: u32,
    /// One is on its way to find out.
    probing: bool,
    /// Certificates that were answered.
    answered: u64,
}

impl Hold {
    fn blocks(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| now < until || self.probing)
    }
}

/// Signing ahead of its time.
#[derive(Clone, Copy, Debug, Default)]
struct Early {
    looked: Option<UnixTime>,
    /// How many may be signed now.
    credit: f64,
    taken: u64,
}

/// What the engine tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What waits, and what is to come.
    pub outlook: Outlook,
    /// Jobs that are under way, in the order of [`Lane::ALL`].
    pub under_way: [u64; 4],
    /// Certificates that are due, or come due within 1, 8 and 24 hours.
    pub due_within: [u64; 3],
    /// Quarantined certificates by reason.
    pub quarantined: Vec<(String, u64)>,
    /// Issuers on hold.
    pub held: u64,
    /// Jobs that were taken ahead of their time.
    pub early: u64,
    /// Steps of the wall clock.
    pub clock_steps: u64,
}

/// The earliest that an answer comes due, in parts of the refresh interval ([`Freshness::due_at`]).
const EARLIEST: f64 = 0.75;

/// A due time so many times as long after thisUpdate, but not past the middle between the refresh interval
/// and the legal deadline.
fn stretched(due: UnixTime, this_update: UnixTime, stretch: f64, freshness: &Freshness) -> UnixTime {
    let deadline = freshness.preset().deadline(freshness.validity());
    let latest = (freshness.refresh() + deadline.max(freshness.refresh())) / 2;
    let span = due.since(this_update);
    this_update.plus(span.mul_f64(stretch).min(latest.max(span)))
}

/// Decides what is signed next.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    planner: Planner,
    policies: Arc<Policies>,
    groups: HashMap<IssuerId, Group>,
    holds: Vec<Hold>,
    under_way: [usize; 4],
    quarantine: Quarantine,
    turns: u32,
    early: Early,
    watch: ClockWatch,
    advanced: UnixTime,
    /// The refresh interval that is planned with, over the one in the policies.
    stretch: f64,
}

/// The least change of the stretch that everything is planned anew for.
const STRETCHED: f64 = 0.02;

impl Engine {
    /// An engine without any certificate.
    #[must_use]
    pub fn new(settings: Settings, policies: Arc<Policies>, now: UnixTime) -> Self {
        Self {
            settings,
            planner: Planner::new(Planner::grain(policies.shortest_refresh()), now),
            policies,
            groups: HashMap::new(),
            holds: Vec::new(),
            under_way: [0; 4],
            quarantine: Quarantine::default(),
            turns: 0,
            early: Early::default(),
            watch: ClockWatch::default(),
            advanced: now,
            stretch: 1.0,
        }
    }

    /// Jobs that may be out in one lane, those that were taken a second time included.
    #[must_use]
    pub const fn room(&self) -> usize {
        // A retry may be taken from a lane that is full.
        self.settings.in_flight + quarantine::AT_ONCE
    }

    fn group(&mut self, issuer: IssuerId) -> Group {
        let next = Group(u16::try_from(self.groups.len()).unwrap_or(u16::MAX));
        let group = *self.groups.entry(issuer).or_insert(next);
        if self.holds.len() <= usize::from(group.0) {
            self.holds.push(Hold::default());
            self.planner.set_freshness(group, self.policies.of(issuer).freshness);
        }
        group
    }

    /// Replaces the rules. What is planned keeps its due time until it is noted again.
    pub fn set_policies(&mut self, policies: Arc<Policies>, now: UnixTime) {
        self.policies = policies;
        for (issuer, group) in &self.groups {
            self.planner.set_freshness(*group, self.policies.of(*issuer).freshness);
        }
        self.planner.reckon_anew(now, |plan| plan);
    }

    /// Plans with so many times the refresh interval of the policies, but never past the middle between
    /// that and the legal deadline. What is due already and would not be then waits again. Returns whether
    /// that was more than a trifle, so that everything was planned anew.
    pub fn set_stretch(&mut self, stretch: f64, now: UnixTime) -> bool {
        let ratio = stretch / self.stretch;
        if (ratio - 1.0).abs() < STRETCHED && (stretch > 1.0 || self.stretch <= 1.0) {
            return false;
        }
        self.stretch = stretch;
        let freshness: HashMap<Group, Freshness> =
            self.groups.iter().map(|(issuer, group)| (*group, self.policies.of(*issuer).freshness)).collect();
        self.planner.reckon_anew(now, |plan| {
            let (Some((this_update, _)), Some(freshness)) = (plan.answer, freshness.get(&plan.group)) else {
                return plan;
            };
            let least = freshness.refresh().mul_f64(EARLIEST);
            // One that is to be replaced at once stays so.
            if plan.due < this_update.plus(least / 2) {
                return plan;
            }
            let due = stretched(plan.due, this_update, ratio, freshness).max(this_update.plus(least));
            Plan { due, ..plan }
        });
        true
    }

    fn plan(&mut self, seen: &Seen, now: UnixTime) -> Plan {
        let group = self.group(seen.issuer);
        let earliest = seen.not_before.unwrap_or(now);
        match seen.answer {
            Some((this_update, next_update)) if this_update <= now => {
                let freshness = self.policies.of(seen.issuer).freshness;
                let due = if seen.retired {
                    this_update
                } else {
                    let due = freshness.due_at(this_update, next_update, &seen.serial);
                    stretched(due, this_update, self.stretch, &freshness)
                };
                Plan { group, lane: Lane::Refresh, due: due.max(earliest), answer: seen.answer }
            }
            // One from the future was made while the clock was ahead: nobody may serve it.
            _ => {
                let lane = if seen.revoked { Lane::Revocation } else { Lane::First };
                Plan { group, lane, due: earliest.max(now), answer: None }
            }
        }
    }

    /// Takes note of a certificate as it is now; returns when it is due.
    pub fn note(&mut self, seen: &Seen, now: UnixTime) -> UnixTime {
        let plan = self.plan(seen, now);
        self.planner.set(seen.key, plan, now);
        plan.due
    }

    /// Lets a certificate that is due go before all others of its lane.
    pub fn hasten(&mut self, key: CertificateKey) {
        self.planner.hasten(key);
    }

    /// Quarantines a certificate that cannot even be read.
    pub fn quarantine(&mut self, key: CertificateKey, reason: &str, now: UnixTime) {
        self.quarantine.failed(key, Reach::Item, reason, now, 0);
    }

    /// Forgets a certificate.
    pub fn forget(&mut self, key: CertificateKey) {
        self.planner.remove(key);
        self.quarantine.release(key);
    }

    /// What is to be signed next at `now`; none while nothing is due, or enough is under way.
    pub fn take(&mut self, now: UnixTime) -> Option<Job> {
        if now > self.advanced {
            self.advanced = now;
            self.planner.advance(now);
        }
        let taken = self.take_retry(now, false).or_else(|| self.take_due(now));
        let taken = taken.or_else(|| self.take_retry(now, true)).or_else(|| self.take_early(now))?;
        self.under_way[taken.lane.index()] += 1;
        let hold = &mut self.holds[usize::from(taken.group.0)];
        hold.probing |= hold.until.is_some();
        Some(Job { key: taken.key, lane: taken.lane, deadline: taken.deadline })
    }

    fn take_due(&mut self, now: UnixTime) -> Option<Taken> {
        let holds = &self.holds;
        let blocked = |group: Group| holds[usize::from(group.0)].blocks(now);
        let taken = LANES.into_iter().find_map(|lane| {
            let room = self.under_way[lane.index()] < self.settings.in_flight;
            if room { self.planner.take(lane, blocked) } else { None }
        });
        self.turns = self.turns.saturating_add(u32::from(taken.is_some()));
        taken
    }

    /// One that failed alone before: when it is its turn, or when there is `nothing_else`.
    fn take_retry(&mut self, now: UnixTime, nothing_else: bool) -> Option<Taken> {
        if !(nothing_else || self.turns >= TURNS) || !self.planner.has_retry() || !self.quarantine.has_room()
        {
            return None;
        }
        let holds = &self.holds;
        let taken = self.planner.take_retry(|group| holds[usize::from(group.0)].blocks(now))?;
        self.turns = 0;
        self.quarantine.taken(taken.key);
        Some(taken)
    }

    /// One that is not due yet, when nothing else is to be done and much is to come at once.
    fn take_early(&mut self, now: UnixTime) -> Option<Taken> {
        if !self.settings.early {
            return None;
        }
        let since = self.early.looked.map_or(LOOK_AHEAD, |looked| now.since(looked));
        if since >= LOOK_AHEAD {
            let mean = self.planner.demand();
            let (bunched, early) = (self.planner.is_bunched(now, BUNCHED * mean), &mut self.early);
            early.looked = Some(now);
            // What could not be taken then is no credit for now, but for a fraction.
            let credit = EARLY * mean * since.min(2 * LOOK_AHEAD).as_secs_f64();
            early.credit = if bunched { early.credit.clamp(0.0, 1.0) + credit } else { 0.0 };
        }
        let busy = self.under_way[Lane::Refresh.index()] > self.settings.in_flight / 4;
        if self.early.credit < 1.0 || busy || self.holds.iter().any(|hold| hold.until.is_some()) {
            return None;
        }
        let taken = self.planner.take_early(|_| false);
        match taken {
            Some(_) => {
                (self.early.credit, self.early.taken) = (self.early.credit - 1.0, self.early.taken + 1)
            }
            None => self.early.credit = 0.0,
        }
        taken
    }

    /// Ends a job.
    pub fn finish(&mut self, lane: Lane, key: CertificateKey, ended: Ended<'_>, now: UnixTime) {
        let under_way = &mut self.under_way[lane.index()];
        *under_way = under_way.saturating_sub(1);
        self.quarantine.finished(key);
        let group = self.planner.group(key);
        match ended {
            Ended::Answered(seen) => {
                if let Some(hold) = group.and_then(|group| self.holds.get_mut(usize::from(group.0))) {
                    *hold = Hold { answered: hold.answered + 1, ..Hold::default() };
                }
                self.quarantine.release(key);
                let plan = self.plan(seen, now);
                self.planner.finish(lane, key, plan, now);
            }
            Ended::Superseded => {
                self.stop_probing(group);
                self.planner.put_back(lane, key, now, false, now);
            }
            Ended::NotDue(None) => {
                self.stop_probing(group);
                if self.planner.forget(lane, key, now) {
                    self.quarantine.release(key);
                }
            }
            Ended::NotDue(Some(not_before)) => {
                self.stop_probing(group);
                self.planner.put_back(lane, key, not_before, false, now);
            }
            Ended::Failed(reach, reason) => self.failed(lane, key, group, reach, reason, now),
        }
    }

    fn stop_probing(&mut self, group: Option<Group>) {
        if let Some(hold) = group.and_then(|group| self.holds.get_mut(usize::from(group.0))) {
            hold.probing = false;
        }
    }

    fn failed(
        &mut self,
        lane: Lane,
        key: CertificateKey,
        group: Option<Group>,
        reach: Reach,
        reason: &str,
        now: UnixTime,
    ) {
        let hold = group.and_then(|group| self.holds.get_mut(usize::from(group.0)));
        let answered = hold.as_ref().map_or(0, |hold| hold.answered);
        let (reach, wait) = self.quarantine.failed(key, reach, reason, now, answered);
        if let Some(hold) = hold {
            // What was under way when the hold began says nothing new.
            if reach == Reach::Issuer && hold.until.is_none_or(|until| until <= now) {
                hold.until = Some(now.plus(backoff(hold.tries, LONGEST_HOLD)));
                hold.tries += 1;
            }
            hold.probing = false;
        }
        self.planner.put_back(lane, key, now.plus(wait), reach == Reach::Item, now);
    }

    /// Tries again at once what something stood in the way of that may have changed.
    pub fn wake(&mut self, now: UnixTime) {
        for hold in &mut self.holds {
            hold.until = hold.until.map(|until| until.min(now));
            hold.tries = 0;
        }
        for key in self.quarantine.wake() {
            self.planner.wake(key, now);
        }
    }

    /// Compares the wall clock with the monotonic one (time since any fixed moment). To be called at
    /// short intervals. After a step backwards, answers that lie in the future give way.
    pub fn watch(&mut self, now: UnixTime, monotonic: Duration) -> Option<Step> {
        let step = self.watch.look(now, monotonic)?;
        if step.seconds < 0 {
            let before = self.advanced;
            self.advanced = now;
            self.planner.reckon_anew(now, |plan| match plan.answer {
                Some((this_update, _)) if this_update > now => {
                    Plan { lane: Lane::First, due: now, answer: None, ..plan }
                }
                // It had been due, by a clock that was ahead.
                None if plan.due <= before => Plan { due: plan.due.min(now), ..plan },
                _ => plan,
            });
        }
        self.early = Early { looked: None, credit: 0.0, ..self.early };
        self.wake(now);
        Some(step)
    }

    /// Since when the oldest certificate has been due that waits or fails at `now`.
    #[must_use]
    pub fn oldest_due(&self, outlook: &Outlook) -> Option<UnixTime> {
        let waiting = outlook.lanes.iter().filter_map(|depth| depth.oldest);
        waiting.chain(self.quarantine.oldest()).min()
    }

    /// The quarantined certificates, in no order.
    pub fn quarantined(&self) -> impl Iterator<Item = Quarantined<'_>> {
        self.quarantine.list()
    }

    /// Jobs that are under way, in any lane.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.iter().sum()
    }

    /// Jobs in a lane that an answer asked for now would have to wait for: those of its own lane and
    /// of the lanes before it that are under way. What is asked for goes before all that waits.
    #[must_use]
    pub fn ahead_of(&self, lane: Lane) -> usize {
        self.under_way[..=lane.index()].iter().sum()
    }

    /// Certificates that are planned.
    #[must_use]
    pub const fn planned(&self) -> usize {
        self.planner.planned()
    }

    /// Certificates that are due at `now` and not under way.
    pub fn due(&mut self, now: UnixTime) -> usize {
        self.planner.advance(now);
        self.planner.due()
    }

    /// What the engine tells of itself.
    #[must_use]
    pub fn figures(&self, now: UnixTime) -> Figures {
        let outlook = self.planner.outlook(now);
        let due = self.planner.due() as u64 + self.under_way() as u64;
        let hours = [1, 8, 24].map(|hours| now.plus(Duration::from_secs(hours * 3_600)));
        Figures {
            outlook,
            under_way: self.under_way.map(|count| count as u64),
            due_within: hours.map(|until| due + self.planner.due_until(until) as u64),
            quarantined: self.quarantine.reasons(),
            held: self.holds.iter().filter(|hold| hold.until.is_some()).count() as u64,
            early: self.early.taken,
            clock_steps: self.watch.steps(),
        }
    }
}

/// The wait after so many failures.
fn backoff(failures: u32, longest: Duration) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(longest)
}
