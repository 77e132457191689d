//! Keeps the fleet fresh while serving: fills the shelf, follows the store's feed, and signs what
//! comes due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::pipeline::{Outcome, Pipeline};
use super::{Frames, slot};
use crate::clock::UnixTime;
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::store::{CertificateKey, CertificateState, FeedPosition, Shard, StoreError};

/// Certificates read at a time when the shelf is filled.
const PAGE: u32 = 2_000;

/// How often the feed is read and the schedule looked at. A revocation made by another process is
/// on its way to the token after half of it on average.
const TICK: Duration = Duration::from_millis(200);

/// How long the feed's entries are kept for readers that were away.
const FEED_KEPT: Duration = Duration::from_secs(3_600);

/// The first wait after a failure; doubled with each further one up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What the keeper tells of itself.
#[derive(Debug, Default)]
pub struct KeeperStats {
    /// Answers signed and stored.
    pub signed: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Certificates on their way through the pipeline.
    pub under_way: AtomicU64,
    /// The oldest due time among those that wait, in Unix seconds; 0 when none is due.
    pub oldest_due: AtomicI64,
}

/// Keeps the shelf and the store's answers fresh.
pub struct Keeper {
    pipeline: Pipeline,
    shelf: Arc<Shelf>,
    frames: Arc<ArcSwap<Frames>>,
    registry_changed: Arc<Notify>,
    stats: Arc<KeeperStats>,
    signs: bool,
    schedule: Schedule,
    position: FeedPosition,
}

/// When each certificate is due. An entry of the queue counts only while it agrees with `due`, so
/// rescheduling needs no search.
#[derive(Debug, Default)]
struct Schedule {
    queue: BinaryHeap<Reverse<(UnixTime, CertificateKey)>>,
    due: HashMap<CertificateKey, Due>,
    under_way: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: UnixTime,
    failures: u32,
    under_way: bool,
    /// News came while it was under way: it has to be looked at again.
    again: bool,
}

impl Schedule {
    fn set(&mut self, key: CertificateKey, at: UnixTime) {
        let due = self.due.entry(key).or_insert(Due { at, failures: 0, under_way: false, again: false });
        due.at = at;
        if due.under_way {
            due.again = true;
        } else {
            self.queue.push(Reverse((at, key)));
        }
    }

    /// Forgets a certificate that was under way.
    fn remove(&mut self, key: CertificateKey) {
        if self.due.remove(&key).is_some() {
            self.under_way -= 1;
        }
    }

    /// The next certificate that is due at `now`, which then is under way.
    fn take(&mut self, now: UnixTime) -> Option<CertificateKey> {
        while let Some(Reverse((at, key))) = self.queue.peek().copied() {
            if now < at {
                return None;
            }
            self.queue.pop();
            if let Some(due) = self.due.get_mut(&key)
                && due.at == at
                && !due.under_way
            {
                due.under_way = true;
                self.under_way += 1;
                return Some(key);
            }
        }
        None
    }

    /// Ends what was under way; sets the next due time, or the one that news brought.
    fn finish(&mut self, key: CertificateKey, next: UnixTime, failed: bool) {
        if let Some(due) = self.due.get_mut(&key) {
            self.under_way -= u64::from(due.under_way);
            due.under_way = false;
            due.failures = if failed { due.failures + 1 } else { 0 };
            if !std::mem::take(&mut due.again) {
                due.at = next;
            }
            self.queue.push(Reverse((due.at, key)));
        }
    }

    fn failures(&self, key: CertificateKey) -> u32 {
        self.due.get(&key).map_or(0, |due| due.failures)
    }
}

impl Keeper {
    /// A keeper that fills `shelf`. `frames` must hold every installed responder's frame;
    /// `registry_changed` is notified when issuers or responders change in the store. With `signs`
    /// off it only follows what others sign.
    #[must_use]
    pub fn new(
        pipeline: Pipeline,
        shelf: Arc<Shelf>,
        frames: Arc<ArcSwap<Frames>>,
        registry_changed: Arc<Notify>,
        stats: Arc<KeeperStats>,
        signs: bool,
    ) -> Self {
        let (schedule, position) = (Schedule::default(), FeedPosition(0));
        Self { pipeline, shelf, frames, registry_changed, stats, signs, schedule, position }
    }

    /// Fills the shelf, then keeps everything fresh until the stop. Failures are logged and tried
    /// again; signatures under way at the stop are stored.
    pub async fn run(mut self, shutdown: Shutdown) {
        while let Err(error) = self.load().await {
            tracing::error!(%error, "cannot fill the shelf from the store; trying again");
            tokio::select! {
                () = tokio::time::sleep(FIRST_WAIT) => {}
                () = shutdown.stopped() => return,
            }
        }
        let (to_pipeline, keys) = mpsc::channel(self.pipeline.settings.portion);
        let (outcomes, results) = mpsc::channel(self.pipeline.settings.portion);
        let pipeline = self.pipeline.clone();
        tokio::join!(pipeline.run(keys, outcomes), self.keep(to_pipeline, results, &shutdown));
    }

    /// Puts every unexpired certificate on the shelf and into the schedule.
    async fn load(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.pipeline.store);
        // Taken before the first page, so that what changes while pages are read is not missed.
        self.position = store.feed_position().await?;
        for shard in Shard::all() {
            let mut after = 0;
            loop {
                let page = store.states(shard, after, PAGE, self.now()).await?;
                let Some(last) = page.last() else { break };
                after = last.certificate.key.row;
                page.iter().for_each(|state| self.note(state));
            }
        }
        self.shelf.set_complete();
        tracing::info!(
            certificates = self.shelf.certificates(),
            answers = self.shelf.answers(),
            "the shelf holds everything that the store does"
        );
        Ok(())
    }

    fn now(&self) -> UnixTime {
        self.pipeline.clock.now()
    }

    /// Shelves a certificate as it is now, and schedules it.
    fn note(&mut self, state: &CertificateState) {
        let due = self.shelve(state);
        if self.signs {
            self.schedule.set(state.certificate.key, due);
        }
    }

    /// Shelves a certificate; returns when it is due.
    fn shelve(&self, state: &CertificateState) -> UnixTime {
        let slot = slot(state, &self.frames.load(), &self.pipeline.freshness.load());
        let answered = slot.answer.as_ref().map(|answer| answer.renewed_at);
        let certificate = &state.certificate;
        let now = self.now();
        self.shelf.put(certificate.issuer, certificate.serial, slot);
        answered.unwrap_or_else(|| certificate.not_before.map_or(now, |not_before| not_before.max(now)))
    }

    async fn keep(
        &mut self,
        to_pipeline: mpsc::Sender<CertificateKey>,
        mut results: mpsc::Receiver<Outcome>,
        shutdown: &Shutdown,
    ) {
        let mut to_pipeline = Some(to_pipeline);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        let mut next = None;
        let mut stopping = false;
        loop {
            if stopping {
                // The pipeline ends when its source does, and then the outcomes do.
                to_pipeline = None;
            } else if next.is_none() && self.signs {
                next = self.schedule.take(self.now());
            }
            tokio::select! {
                biased;
                () = shutdown.stopped(), if !stopping => stopping = true,
                outcome = results.recv() => match outcome {
                    Some(outcome) => self.finish(outcome),
                    None => return,
                },
                _ = tick.tick(), if !stopping => {
                    ticks += 1;
                    self.follow(ticks).await;
                }
                permit = reserve(to_pipeline.as_ref()), if next.is_some() && !stopping => {
                    if let (Some(permit), Some(key)) = (permit, next.take()) {
                        permit.send(key);
                    }
                }
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::Stored(state) => {
                self.stats.signed.fetch_add(1, Ordering::Relaxed);
                let due = self.shelve(&state);
                self.schedule.finish(state.certificate.key, due, false);
            }
            // Its news come through the feed or came already; look at it again at once.
            Outcome::Superseded(key) => self.schedule.finish(key, now, false),
            Outcome::NotDue(key) => self.schedule.remove(key),
            Outcome::Failed(key, error) => {
                self.stats.failed.fetch_add(1, Ordering::Relaxed);
                let failures = self.schedule.failures(key);
                let wait = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
                if failures == 0 {
                    tracing::error!(shard = key.shard.0, row = key.row, %error, "no answer; trying again with growing waits");
                }
                self.schedule.finish(key, now.plus(wait), true);
            }
        }
    }

    /// Reads the feed, and now and then does the housekeeping.
    async fn follow(&mut self, ticks: u64) {
        if let Err(error) = self.read_feed().await {
            tracing::error!(%error, "cannot follow the store's changes");
        }
        self.tell_backlog();
        if ticks.is_multiple_of(1_500) {
            self.shelf.sweep(self.now());
            if let Err(error) = self.pipeline.store.prune_feed(self.now(), FEED_KEPT).await {
                tracing::warn!(%error, "cannot prune the feed");
            }
        }
    }

    async fn read_feed(&mut self) -> Result<(), StoreError> {
        let changes = self.pipeline.store.changes(self.position).await?;
        if changes.registry {
            self.registry_changed.notify_one();
        }
        if changes.gap {
            tracing::warn!("the feed was pruned past this reader; reading everything again");
            return self.load().await;
        }
        let mut keys = changes.keys;
        keys.sort_unstable();
        keys.dedup();
        for portion in keys.chunks(self.pipeline.settings.portion) {
            for state in self.pipeline.store.certificates(portion).await? {
                self.note(&state);
            }
        }
        self.position = changes.position;
        Ok(())
    }

    fn tell_backlog(&self) {
        let oldest = self.schedule.queue.peek().map_or(UnixTime::MAX, |Reverse((at, _))| *at);
        self.stats.oldest_due.store(if oldest <= self.now() { oldest.0 } else { 0 }, Ordering::Relaxed);
        self.stats.under_way.store(self.schedule.under_way, Ordering::Relaxed);
    }
}

async fn reserve(
    to_pipeline: Option<&mpsc::Sender<CertificateKey>>,
) -> Option<mpsc::Permit<'_, CertificateKey>> {
    to_pipeline?.reserve().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(row: i64) -> CertificateKey {
        CertificateKey { shard: Shard(0), row }
    }

    #[test]
    fn certificates_are_taken_in_the_order_of_their_due_times() {
        let mut schedule = Schedule::default();
        for (row, at) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
            schedule.set(key(row), UnixTime(at));
        }
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take(UnixTime(50))).map(|key| key.row).collect();
        assert_eq!(taken, [2, 3, 1]);
        assert_eq!(schedule.under_way, 3);
    }

    #[test]
    fn rescheduling_counts_and_the_old_due_time_does_not() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        schedule.set(key(1), UnixTime(40));
        assert_eq!(schedule.take(UnixTime(20)), None);
        assert_eq!(schedule.take(UnixTime(40)), Some(key(1)));
        assert_eq!(schedule.take(UnixTime(40)), None, "taken once only");
    }

    #[test]
    fn news_while_under_way_bring_it_back_at_once() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        assert_eq!(schedule.take(UnixTime(10)), Some(key(1)));
        schedule.set(key(1), UnixTime(11));
        assert_eq!(schedule.take(UnixTime(50)), None, "never twice at once");
        schedule.finish(key(1), UnixTime(1_000), false);
        assert_eq!(schedule.take(UnixTime(50)), Some(key(1)));
        schedule.finish(key(1), UnixTime(1_000), false);
        assert_eq!(schedule.take(UnixTime(999)), None);
        assert_eq!(schedule.under_way, 0);
    }

    #[test]
    fn failures_are_counted_until_it_succeeds() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        for failures in 1..=3 {
            let at = UnixTime(10 + i64::from(failures));
            assert!(schedule.take(at).is_some());
            schedule.finish(key(1), at, true);
            assert_eq!(schedule.failures(key(1)), failures);
        }
        assert!(schedule.take(UnixTime(20)).is_some());
        schedule.finish(key(1), UnixTime(90), false);
        assert_eq!(schedule.failures(key(1)), 0);
    }
}
