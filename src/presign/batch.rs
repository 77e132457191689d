//! The batch job: everything that is missing or due within a span, nearest expiry first.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::pipeline::{ItemError, Outcome, Pipeline};
use super::policies::Policies;
use crate::clock::{Stopwatch, UnixTime};
use crate::shutdown::Shutdown;
use crate::signer::FailureClass;
use crate::store::{CertificateKey, IssuerId, ScheduleEntry, Shard, Store, StoreError};

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

/// The work, nearest expiry first: certificates without an answer before all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to sign, in order.
    pub keys: Vec<CertificateKey>,
    /// Unexpired certificates looked at.
    pub considered: usize,
    /// How many of the keys have no answer yet.
    pub missing: usize,
    /// How many were left out by the limit.
    pub left_out: usize,
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
    now: UnixTime,
    mut looked_at: impl FnMut(usize),
) -> Result<Plan, StoreError> {
    let mut plan = Plan::default();
    let mut due: Vec<(Option<UnixTime>, CertificateKey)> = Vec::new();
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let page = store.schedule(shard, after, PAGE, now.minus(policies.longest_history())).await?;
            let Some(last) = page.last() else { break };
            after = last.key.row;
            for entry in &page {
                let answered_until = policies.of(entry.issuer).answered_until(entry.not_after);
                if selection.issuer.is_some_and(|issuer| issuer != entry.issuer) || answered_until < now {
                    continue;
                }
                plan.considered += 1;
                if is_due(entry, policies, now.plus(selection.within), now) {
                    plan.missing += usize::from(entry.answer.is_none());
                    due.push((entry.answer.map(|answer| answer.next_update), entry.key));
                }
            }
            looked_at(plan.considered);
        }
    }
    // None, no answer at all, sorts before every expiry.
    due.sort_unstable();
    let limit = selection.limit.unwrap_or(usize::MAX);
    plan.left_out = due.len().saturating_sub(limit);
    plan.keys = due.into_iter().take(limit).map(|(_, key)| key).collect();
    Ok(plan)
}

fn is_due(entry: &ScheduleEntry, policies: &Policies, until: UnixTime, now: UnixTime) -> bool {
    if entry.not_before.is_some_and(|not_before| now < not_before) {
        return false;
    }
    entry
        .answer
        // One from the future was made while the clock was ahead: nobody may serve it.
        .is_none_or(|answer| {
            let times = [answer.this_update, answer.next_update];
            answer.this_update > now
                || policies.due_at(entry.issuer, &entry.serial, answer.responder, times) <= until
        })
}

/// Signs what the plan holds. `progress` is told the number of outcomes so far. A token that stops
/// signing altogether, or `shutdown`, ends the batch early; what was signed is stored.
pub async fn run(
    pipeline: &Pipeline,
    plan: &Plan,
    shutdown: &Shutdown,
    mut progress: impl FnMut(u64),
) -> Report {
    let watch = Stopwatch::start();
    let (to_pipeline, keys) = mpsc::channel(pipeline.settings.portion);
    let (outcomes, mut results) = mpsc::channel(pipeline.settings.portion);
    let stop = Shutdown::new();
    let feed = async {
        for key in &plan.keys {
            tokio::select! {
                sent = to_pipeline.send(*key) => if sent.is_err() { break },
                () = shutdown.stopped() => break,
                () = stop.stopped() => break,
            }
        }
        drop(to_pipeline);
    };
    let collect = async {
        let mut report = Report::default();
        let mut done = 0;
        let mut reasons: HashMap<String, u64> = HashMap::new();
        while let Some(outcome) = results.recv().await {
            match outcome {
                Outcome::Stored(_) => report.signed += 1,
                Outcome::Superseded(_) => report.superseded += 1,
                Outcome::NotDue(..) => report.not_due += 1,
                Outcome::Failed(key, error) => {
                    report.failed += 1;
                    if report.failures.len() < FAILURES_LISTED {
                        let certificate = format!("shard {} row {}", key.shard.0, key.row);
                        report.failures.push(Failure { certificate, reason: error.to_string() });
                    }
                    if is_hopeless(&error) && report.stopped_by.is_none() {
                        report.stopped_by = Some(error.to_string());
                        stop.stop();
                    }
                    *reasons.entry(error.to_string()).or_default() += 1;
                }
            }
            done += 1;
            progress(done);
        }
        for (reason, count) in reasons {
            tracing::error!(count, %reason, "certificates got no answer");
        }
        report.not_reached = plan.keys.len() as u64 - done;
        report
    };
    let ((), (), mut report) = tokio::join!(feed, pipeline.run(keys, outcomes), collect);
    if report.stopped_by.is_none() && report.not_reached > 0 {
        report.stopped_by = Some("a stop was asked for".to_owned());
    }
    report.seconds = watch.elapsed().as_secs_f64();
    report
}

/// Whether going on would only fail again: the token, the PIN or the store is the matter, not one
/// certificate.
fn is_hopeless(error: &ItemError) -> bool {
    match error {
        ItemError::Sign(error) => matches!(error.class(), FailureClass::Token | FailureClass::Pin),
        ItemError::Store(_) => true,
        ItemError::NoResponder | ItemError::Compose(_) => false,
    }
}
