//! The batch job: everything that is missing or due within a span, by the same engine as the keeper.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{self, Ended, Engine, Seen};
use super::lanes::{Lanes, OUTCOMES};
use super::pipeline::{self, ItemError, Outcome, Pipeline};
use super::policies::Policies;
use super::reading::{self, Page};
use crate::clock::{Stopwatch, UnixTime};
use crate::shutdown::Shutdown;
use crate::signer::FailureClass;
use crate::store::{CertificateKey, IssuerId, Shard, Store, StoreError};

/// Certificates whose schedule is read at a time.
const PAGE: u32 = 10_000;

/// How many failures are told one by one; the rest is counted.
const FAILURES_LISTED: usize = 20;

/// What to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Only this issuer's certificates.
    pub issuer: Option<IssuerId>,
    /// What comes due within this span counts as due.
    pub within: Duration,
    /// At most so many.
    pub limit: Option<usize>,
}

/// The work: revocations and certificates without an answer first, then by legal deadline.
#[derive(Debug)]
pub struct Plan {
    engine: Engine,
    /// What is due until then is due now.
    until: UnixTime,
    /// How many certificates are to be signed.
    pub planned: usize,
    /// Unexpired certificates looked at.
    pub considered: usize,
    /// How many of those that are due have no answer yet.
    pub missing: usize,
    /// How many were left out by the limit.
    pub left_out: usize,
    unreadable: Vec<(CertificateKey, StoreError)>,
}

/// How a batch went.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Answers signed and stored.
    pub signed: u64,
    /// Certificates whose status changed, or that somebody else answered, while they were signed.
    pub superseded: u64,
    /// Certificates that expired or vanished before their turn.
    pub not_due: u64,
    /// Certificates that got no answer.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Certificates that were not reached, because the token stopped or somebody asked to stop.
    pub not_reached: u64,
    /// Why the batch ended before its end.
    pub stopped_by: Option<String>,
    /// How long signing and storing took.
    pub seconds: f64,
}

/// A certificate that got no answer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    /// Where it stands in the store: shard and row.
    pub certificate: String,
    /// Why.
    pub reason: String,
}

/// Reads the schedule and picks what to sign at `now`.
///
/// # Errors
/// As [`Store::schedule`].
pub async fn plan(
    store: &dyn Store,
    policies: &Policies,
    selection: &Selection,
    settings: &pipeline::Settings,
    now: UnixTime,
    mut looked_at: impl FnMut(usize),
) -> Result<Plan, StoreError> {
    let until = now.plus(selection.within);
    let settings = engine::Settings { in_flight: settings.room(), early: false };
    let mut engine = Engine::new(settings, Arc::new(policies.clone()), until);
    let (mut considered, mut missing, mut unreadable) = (0, 0, Vec::new());
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let since = now.minus(policies.longest_history());
            let read = |limit| store.schedule(shard, after, limit, since);
            let page = match reading::page(store, shard, after, PAGE, read).await? {
                Page::Rows(page) => page,
                Page::Unreadable(key, error) => {
                    after = key.row;
                    unreadable.push((key, error));
                    continue;
                }
            };
            let Some(last) = page.last() else { break };
            after = last.key.row;
            for entry in &page {
                let answered_until = policies.of(entry.issuer).answered_until(entry.not_after);
                if selection.issuer.is_some_and(|issuer| issuer != entry.issuer) || answered_until < now {
                    continue;
                }
                considered += 1;
                // One from the future was made while the clock was ahead: nobody may serve it.
                let answer = entry.answer.filter(|answer| answer.this_update <= now);
                let due = answer
                    .is_none_or(|answer| policies.due_at(entry.issuer, &entry.serial, &answer) <= until);
                if due && entry.not_before.is_none_or(|not_before| not_before <= now) {
                    missing += usize::from(entry.answer.is_none());
                    let seen = Seen {
                        key: entry.key,
                        issuer: entry.issuer,
                        serial: entry.serial,
                        revoked: false,
                        answer: answer.map(|answer| (answer.this_update, answer.next_update)),
                        retired: answer.is_some_and(|answer| policies.is_to_be_replaced(&answer)),
                        not_before: entry.not_before,
                    };
                    engine.note(&seen, until);
                }
            }
            looked_at(considered);
        }
    }
    let due = engine.planned();
    let planned = due.min(selection.limit.unwrap_or(usize::MAX));
    Ok(Plan { engine, until, planned, considered, missing, left_out: due - planned, unreadable })
}

/// Signs what the plan holds. `progress` is told the number of outcomes so far. A token that stops
/// signing altogether, or `shutdown`, ends the batch early; what was signed is stored. Each
/// certificate is tried once: run it again for those that failed.
pub async fn run(
    pipeline: &Pipeline,
    plan: Plan,
    shutdown: &Shutdown,
    mut progress: impl FnMut(u64),
) -> Report {
    let watch = Stopwatch::start();
    let mut engine = plan.engine;
    let mut tally = Tally::default();
    for (key, error) in plan.unreadable {
        tally.failed(key, &error.to_string());
    }
    let pipeline = Pipeline { settings: pipeline.settings.unhurried(), ..pipeline.clone() };
    let (lanes, mut outcomes, work) = Lanes::open(&pipeline, &engine);
    let keep = async {
        let mut lanes = Some(lanes);
        let mut left = plan.planned;
        let mut done = 0;
        let mut ended = Vec::with_capacity(OUTCOMES);
        loop {
            if let Some(open) = &lanes {
                left -= open.feed(&mut engine, plan.until, left);
                if left == 0 || tally.report.stopped_by.is_some() {
                    // The pipelines end when their sources do, and then the outcomes do.
                    lanes = None;
                }
            }
            tokio::select! {
                count = outcomes.recv_many(&mut ended, OUTCOMES) => {
                    if count == 0 {
                        break;
                    }
                    for (lane, outcome) in ended.drain(..) {
                        let key = tally.count(outcome);
                        engine.finish(lane, key, Ended::NotDue(None), plan.until);
                    }
                    done += count as u64;
                    progress(done);
                }
                () = shutdown.stopped(), if lanes.is_some() => lanes = None,
            }
        }
        done
    };
    let ((), done) = tokio::join!(work, keep);
    for (reason, count) in tally.reasons {
        tracing::error!(count, %reason, "certificates got no answer");
    }
    let mut report = tally.report;
    report.not_reached = plan.planned as u64 - done;
    if report.stopped_by.is_none() && report.not_reached > 0 {
        report.stopped_by = Some("a stop was asked for".to_owned());
    }
    report.seconds = watch.elapsed().as_secs_f64();
    report
}

/// What the outcomes so far come to.
#[derive(Default)]
struct Tally {
    report: Report,
    reasons: HashMap<String, u64>,
}

impl Tally {
    /// Counts an outcome; returns whose it is.
    fn count(&mut self, outcome: Outcome) -> CertificateKey {
        match outcome {
            Outcome::Stored(state) => {
                self.report.signed += 1;
                state.certificate.key
            }
            Outcome::Superseded(key) => {
                self.report.superseded += 1;
                key
            }
            Outcome::NotDue(key, _) => {
                self.report.not_due += 1;
                key
            }
            Outcome::Failed(key, error) => {
                let reason = error.to_string();
                self.failed(key, &reason);
                if is_hopeless(&error) && self.report.stopped_by.is_none() {
                    self.report.stopped_by = Some(reason);
                }
                key
            }
        }
    }

    fn failed(&mut self, key: CertificateKey, reason: &str) {
        self.report.failed += 1;
        if self.report.failures.len() < FAILURES_LISTED {
            let certificate = format!("shard {} row {}", key.shard.0, key.row);
            self.report.failures.push(Failure { certificate, reason: reason.to_owned() });
        }
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }
}

/// Whether going on would only fail again: the token, the PIN or the store is the matter, not one
/// certificate.
fn is_hopeless(error: &ItemError) -> bool {
    match error {
        ItemError::Sign(error) => matches!(error.class(), FailureClass::Token | FailureClass::Pin),
        ItemError::Store(error) => !reading::is_of_one_row(error),
        ItemError::NoResponder | ItemError::Compose(_) => false,
    }
}
