//! The picture that the dashboard shows, put together from memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::serve::Running;
use crate::clock::UnixTime;
use crate::limits::Limiter;
use crate::presign::planner::{Depth, Outlook};
use crate::server::control::situation::{Fleet, LaneSituation, Situation, TokenSituation};
use crate::signer::{Lane, Signer, Snapshot, TokenState};
use crate::store::audit::AuditHead;

/// The process as it is now.
pub(super) fn situation(running: &Running, draining: bool, audit: AuditHead) -> Situation {
    let now = running.app.clock.now();
    let keeper = &running.keeper;
    let outlook = keeper.figures.load().outlook;
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
        until_stale: outlook.stale_at.map(|at| at.since(now)),
        until_expiry: outlook.expires_at.map(|at| at.since(now)),
        validity: running.app.settings().freshness.validity(),
        lanes: lanes(&snapshots, &outlook, now),
        tokens: snapshots.into_iter().map(token).collect(),
        pressure: running.limiter.get().map(|_| running.pressure().borrow().at(now)),
        tally: running.limiter.get().map(Limiter::tally),
        audit,
    }
}

/// What waits: certificates to be taken up, and signatures before all tokens together.
fn lanes(snapshots: &[Snapshot], outlook: &Outlook, now: UnixTime) -> Vec<LaneSituation> {
    let of = |lane: Lane| {
        let figures = || snapshots.iter().map(move |snapshot| snapshot.lanes[lane.index()]);
        // Nothing is planned for the live lane: what the planner has there are those that failed alone.
        let planned = if lane == Lane::Live { Depth::default() } else { outlook.lanes[lane.index()] };
        let waiting = planned.due + figures().map(|figures| figures.queued as u64).sum::<u64>();
        let queued: Option<Duration> = figures().map(|figures| figures.oldest).max();
        let oldest = queued.max(planned.oldest.map(|at| now.since(at)));
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
