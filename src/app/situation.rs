//! The picture that the dashboard shows, put together from memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::serve::Running;
use crate::clock::UnixTime;
use crate::limits::Limiter;
use crate::server::control::situation::{Fleet, LaneSituation, Situation, TokenSituation};
use crate::signer::{Lane, Signer, Snapshot, TokenState};
use crate::store::audit::AuditHead;

/// The process as it is now. What it does not know of itself (how long until an answer is stale) stays
/// out.
pub(super) fn situation(running: &Running, draining: bool, audit: AuditHead) -> Situation {
    let now = running.app.clock.now();
    let keeper = &running.keeper;
    let oldest = UnixTime(keeper.oldest_due.load(Ordering::Relaxed));
    let snapshots: Vec<Snapshot> = running.signers.load().iter().map(Signer::stats).collect();
    Situation {
        at: now,
        draining,
        checks: running.checks(),
        fleet: Fleet {
            certificates: running.shelf.certificates() as u64,
            answers: running.shelf.answers() as u64,
            expired: keeper.expired.load(Ordering::Relaxed),
            under_way: keeper.under_way.load(Ordering::Relaxed),
            signed: keeper.signed.load(Ordering::Relaxed),
            failed: keeper.failed.load(Ordering::Relaxed),
            oldest_due: (oldest != UnixTime::EPOCH).then(|| now.since(oldest)),
        },
        until_stale: None,
        until_expiry: None,
        validity: running.app.settings().freshness.validity(),
        lanes: lanes(&snapshots),
        tokens: snapshots.into_iter().map(token).collect(),
        pressure: running.limiter.get().map(|_| running.pressure.borrow().at(now)),
        tally: running.limiter.get().map(Limiter::tally),
        audit,
    }
}

/// What waits before all tokens together.
fn lanes(snapshots: &[Snapshot]) -> Vec<LaneSituation> {
    let of = |lane: Lane| {
        let figures = || snapshots.iter().map(move |snapshot| snapshot.lanes[lane.index()]);
        let waiting = figures().map(|figures| figures.queued as u64).sum();
        let oldest: Option<Duration> = figures().map(|figures| figures.oldest).max();
        LaneSituation { name: lane.name().to_owned(), waiting, oldest: oldest.filter(|_| waiting > 0) }
    };
    Lane::ALL.into_iter().map(of).collect()
}

fn token(snapshot: Snapshot) -> TokenSituation {
    TokenSituation {
        serving: snapshot.state == TokenState::Serving,
        state: snapshot.state.to_string(),
        sessions: snapshot.sessions,
        rate: snapshot.rate.map(|rate| rate.per_second),
        p50: snapshot.call_time.p50,
        p99: snapshot.call_time.p99,
        signed: snapshot.signed,
        failures: snapshot.failures.values().sum(),
        name: snapshot.token,
    }
}
