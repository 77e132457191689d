//! Keeps the fleet fresh while serving: fills the shelf, follows the store's feed, and signs what
//! comes due.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::desk::{self, Desk, Progress, Request, Tray};
use super::engine::{self, Ended, Engine, Figures, Reach, Seen};
use super::lanes::{self, Lanes, OUTCOMES};
use super::pipeline::{Outcome, Pipeline};
use super::policies::Policies;
use super::reading::{self, Page};
use super::{Frames, entry};
use crate::clock::{Stopwatch, UnixTime};
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::signer::Lane;
use crate::store::{
    CertificateKey, CertificateRecord, CertificateState, FeedPosition, PackNumber, Shard, StoreError,
};

/// Certificates read at a time when the shelf is filled.
const PAGE: u32 = 2_000;

/// How often the feed is read and the schedule looked at. A revocation made by another process is
/// on its way to the token after half of it on average.
const TICK: Duration = Duration::from_millis(200);

/// How long the feed's entries are kept for readers that were away.
pub const FEED_KEPT: Duration = Duration::from_secs(3_600);

/// Between two attempts to fill the shelf.
const LOAD_WAIT: Duration = Duration::from_secs(1);

/// How often the same reason is logged.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Ticks between two reckonings of the figures.
const RECKONING: u64 = 5;

/// How long before the first legal deadline the operator is told that it comes near.
const NEAR: [Duration; 2] = [Duration::from_secs(3_600), Duration::from_secs(4 * 3_600)];

/// Ticks between two looks at the whole shelf.
const HOUSEKEEPING: u64 = 300;

/// Between two changes of the refresh interval that is planned with: each plans ten million certificates
/// anew in about a second.
const STRETCH_WAIT: Duration = Duration::from_secs(30);

/// When an answer that cannot be framed yet is looked at again, if nothing happens before.
const FRAME_WAIT: Duration = Duration::from_secs(30);

/// Why there is no answer for a certificate that was asked for.
const EXPIRED: &str = "the certificate has expired or is gone: it gets no answer";

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
    /// When the store's feed was last read to its end, in Unix seconds; 0 before the shelf is full.
    pub feed_read_at: AtomicI64,
    /// Answers on the shelf that had expired when it was last looked over.
    pub expired: AtomicU64,
    /// What waits in which lane, what is to come, and what is in the way; a second old at the most.
    pub figures: ArcSwap<Figures>,
}

/// What the keeper and the process around it tell each other.
#[derive(Debug, Default)]
pub struct Signals {
    /// From the keeper: issuers or responders changed in the store.
    pub registry_changed: Notify,
    /// To the keeper: other responders sign now, or came back.
    pub responders_changed: Notify,
    /// To the keeper: validity or refresh changed, so every due time has.
    pub policy_changed: Notify,
}

/// Keeps the shelf and the store's answers fresh.
pub struct Keeper {
    pipeline: Pipeline,
    shelf: Arc<Shelf>,
    frames: Arc<ArcSwap<Frames>>,
    signals: Arc<Signals>,
    stats: Arc<KeeperStats>,
    signs: bool,
    engine: Engine,
    position: FeedPosition,
    /// Certificates that the feed named and that are still to be read.
    news: VecDeque<CertificateKey>,
    /// Packs that a certificate was taken out of: those that are left in them are to be read again.
    broken: BTreeSet<PackNumber>,
    /// Certificates with an answer of a responder whose frame is not here yet.
    unframed: Vec<CertificateKey>,
    /// When each reason for a failure was last logged.
    told: HashMap<String, UnixTime>,
    desk: Desk,
    tray: Tray,
    /// The count of answers signed when it was last looked at.
    counted: (u64, Stopwatch),
    /// The monotonic clock.
    running: Stopwatch,
    /// The nearest of [`NEAR`] that was told of.
    near: Option<Duration>,
    /// Answers signed a second while some were; 0 before the first.
    rate: f64,
    /// When everything was last planned anew for another refresh interval.
    stretched: Option<Stopwatch>,
}

impl Keeper {
    /// A keeper that fills `shelf`. `frames` must hold every installed responder's frame. With `signs`
    /// off it only follows what others sign.
    #[must_use]
    pub fn new(
        pipeline: Pipeline,
        shelf: Arc<Shelf>,
        frames: Arc<ArcSwap<Frames>>,
        signals: Arc<Signals>,
        stats: Arc<KeeperStats>,
        signs: bool,
    ) -> Self {
        let (desk, tray) = desk::desk();
        let settings = engine::Settings { in_flight: pipeline.settings.room(), early: true };
        let engine = Engine::new(settings, pipeline.policies.load_full(), pipeline.clock.now());
        Self {
            pipeline,
            shelf,
            frames,
            signals,
            stats,
            signs,
            engine,
            position: FeedPosition(0),
            news: VecDeque::new(),
            broken: BTreeSet::new(),
            unframed: Vec::new(),
            told: HashMap::new(),
            desk,
            tray,
            counted: (0, Stopwatch::start()),
            running: Stopwatch::start(),
            near: None,
            rate: 0.0,
            stretched: None,
        }
    }

    /// Where others ask this keeper for an answer out of turn.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Fills the shelf, then keeps everything fresh until the stop. Failures are logged and tried
    /// again; signatures under way at the stop are stored.
    pub async fn run(mut self, shutdown: Shutdown) {
        while let Err(error) = self.load().await {
            tracing::error!(%error, "cannot fill the shelf from the store; trying again");
            tokio::select! {
                () = tokio::time::sleep(LOAD_WAIT) => {}
                () = shutdown.stopped() => return,
            }
        }
        let (lanes, outcomes, work) = Lanes::open(&self.pipeline, &self.engine);
        tokio::join!(work, self.keep(lanes, outcomes, &shutdown));
    }

    /// Puts every unexpired certificate on the shelf and into the schedule.
    async fn load(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.pipeline.store);
        let history = self.pipeline.policies.load().longest_history();
        // Taken before the first page, so that what changes while pages are read is not missed.
        self.position = store.feed_position().await?;
        for shard in Shard::all() {
            let mut after = 0;
            loop {
                match reading::states(&*store, shard, after, PAGE, self.now().minus(history)).await? {
                    Page::Rows(page) => {
                        let Some(last) = page.last() else { break };
                        after = last.certificate.key.row;
                        for state in &page {
                            self.note(state);
                        }
                    }
                    Page::Unreadable(key, error) => {
                        after = key.row;
                        self.unreadable(key, &error);
                    }
                }
            }
        }
        self.news.clear();
        self.shelf.set_complete();
        self.stats.feed_read_at.store(self.now().0, Ordering::Relaxed);
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

    /// The last moment at which a certificate is answered for.
    fn answered_until(&self, certificate: &CertificateRecord) -> UnixTime {
        self.pipeline.policies.load().of(certificate.issuer).answered_until(certificate.not_after)
    }

    /// Shelves a certificate as it is now, and plans its next answer. Returns when that is due.
    fn note(&mut self, state: &CertificateState) -> UnixTime {
        let certificate = &state.certificate;
        let now = self.now();
        if self.answered_until(certificate) < now
            && self.shelf.get(certificate.issuer, &certificate.serial).is_none()
        {
            return UnixTime::MAX;
        }
        let seen = self.shelve(state);
        if self.signs { self.engine.note(&seen, now) } else { now }
    }

    /// Shelves a certificate, and tells who waits for it; returns what the engine has to know of it.
    fn shelve(&mut self, state: &CertificateState) -> Seen {
        let now = self.now();
        let certificate = &state.certificate;
        let policies = self.pipeline.policies.load();
        let entry = entry(state, &self.frames.load(), &policies);
        let shelved = entry.answer.as_ref().map(|answer| (answer.this_update, answer.next_update));
        self.shelf.put_at(certificate.issuer, certificate.serial, &entry, now);
        let mut seen = seen(state, &policies);
        let former = state.answer.as_ref().filter(|answer| answer.version != certificate.version);
        self.broken.extend(former.and_then(|answer| answer.pack).map(|pack| pack.number));
        match shelved {
            Some((this_update, next_update)) if this_update <= now && now <= next_update => {
                self.tray.shelved(state);
            }
            None if seen.answer.is_some() => {
                // Another process signed it with a responder that this one is just getting to know.
                self.unframed.push(certificate.key);
                (seen.answer, seen.not_before) = (None, Some(now.plus(FRAME_WAIT)));
            }
            _ => {}
        }
        seen
    }

    /// A row that cannot be read has no answer, and must not keep others from theirs.
    fn unreadable(&mut self, key: CertificateKey, error: &StoreError) {
        let reason = error.to_string();
        self.tray.failed(key, &reason);
        self.tell(key, &reason);
        self.engine.quarantine(key, &reason, self.now());
    }

    async fn keep(&mut self, lanes: Lanes, mut outcomes: lanes::Outcomes, shutdown: &Shutdown) {
        let signals = Arc::clone(&self.signals);
        let mut lanes = Some(lanes);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        let mut ended = Vec::with_capacity(OUTCOMES);
        loop {
            let stopping = lanes.is_none();
            if self.signs
                && let Some(lanes) = &lanes
            {
                lanes.feed(&mut self.engine, self.pipeline.clock.now(), usize::MAX);
            }
            tokio::select! {
                biased;
                // The pipelines end when their sources do, and then the outcomes do.
                () = shutdown.stopped(), if !stopping => lanes = None,
                count = outcomes.recv_many(&mut ended, OUTCOMES) => {
                    if count == 0 {
                        return;
                    }
                    ended.drain(..).for_each(|(lane, outcome)| self.finish(lane, outcome));
                }
                Some(request) = self.tray.next(), if !stopping => self.take_up(request).await,
                _ = tick.tick(), if !stopping => {
                    ticks += 1;
                    self.follow(ticks).await;
                }
                () = signals.responders_changed.notified(), if !stopping => self.responders_changed(),
                () = signals.policy_changed.notified(), if !stopping => self.plan_anew().await,
                // A long import must not keep what is due from the token: a portion at a time.
                () = std::future::ready(()), if !self.news.is_empty() && !stopping => self.take_in().await,
            }
        }
    }

    fn finish(&mut self, lane: Lane, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::Stored(state) => {
                self.stats.signed.fetch_add(1, Ordering::Relaxed);
                let seen = self.shelve(&state);
                self.engine.finish(lane, seen.key, Ended::Answered(&seen), now);
            }
            // Its news come through the feed or came already; look at it again at once.
            Outcome::Superseded(key) => self.engine.finish(lane, key, Ended::Superseded, now),
            Outcome::NotDue(key, not_before) => {
                match not_before {
                    None => self.tray.failed(key, EXPIRED),
                    Some(at) => self.tray.not_before(key, at, now),
                }
                self.engine.finish(lane, key, Ended::NotDue(not_before), now);
            }
            Outcome::Failed(key, error) => {
                self.stats.failed.fetch_add(1, Ordering::Relaxed);
                let (reach, reason) = (error.reach(), error.to_string());
                if reach == Reach::Item {
                    self.tray.failed(key, &reason);
                }
                self.tell(key, &reason);
                self.engine.finish(lane, key, Ended::Failed(reach, &reason), now);
            }
        }
    }

    /// Logs a failure, each reason once a minute: when a token is away, the whole fleet fails for it.
    fn tell(&mut self, key: CertificateKey, reason: &str) {
        let now = self.now();
        self.told.retain(|_, at| now.since(*at) < TOLD_EVERY);
        if !self.told.contains_key(reason) {
            tracing::error!(shard = key.shard.0, row = key.row, %reason, "no answer; trying again with growing waits");
            self.told.insert(reason.to_owned(), now);
        }
    }

    /// Reads what was asked for over the desk, shelves it as it is, and signs what has no answer
    /// before all else.
    async fn take_up(&mut self, request: Request) {
        let (mut keys, told) = match request {
            Request::Answer { keys, told } => (keys, told),
            Request::Obstacles { key, issuer, told } => {
                // Whoever asked may have gone.
                drop(told.send(self.signs.then(|| self.engine.obstacles(key, issuer))));
                return;
            }
        };
        let (states, unreadable) = match reading::certificates(&*self.pipeline.store, &keys).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, certificates = keys.len(), "cannot read what was asked for");
                let reason = error.to_string();
                for key in &keys {
                    desk::tell(&told, *key, Progress::Failed(reason.clone()));
                }
                self.news.extend(keys);
                return;
            }
        };
        for (key, error) in unreadable {
            keys.retain(|other| *other != key);
            desk::tell(&told, key, Progress::Failed(error.to_string()));
            self.unreadable(key, &error);
        }
        let mut by_key: HashMap<_, _> =
            states.into_iter().map(|state| (state.certificate.key, state)).collect();
        let now = self.now();
        for key in keys {
            let Some(state) = by_key.remove(&key) else {
                desk::tell(&told, key, Progress::Failed("there is no such certificate".to_owned()));
                continue;
            };
            let certificate = &state.certificate;
            if self.answered_until(certificate) < now {
                desk::tell(&told, key, Progress::Failed(EXPIRED.to_owned()));
                continue;
            }
            self.tray.keep(key, certificate.version, told.clone());
            if self.note(&state) <= now && self.signs {
                self.engine.hasten(key);
            }
            if let Some(at) = certificate.not_before.filter(|at| now < *at) {
                self.tray.not_before(key, at, now);
            }
        }
    }

    fn responders_changed(&mut self) {
        self.engine.wake(self.pipeline.clock.now());
        self.news.extend(self.unframed.drain(..));
    }

    async fn plan_anew(&mut self) {
        self.engine.set_policies(self.pipeline.policies.load_full(), self.pipeline.clock.now());
        if let Err(error) = self.load().await {
            tracing::error!(%error, "cannot plan anew; due times stay as they were until each is signed again");
        }
    }

    /// Reads the feed, and now and then does the housekeeping.
    async fn follow(&mut self, ticks: u64) {
        if let Some(step) = self.engine.watch(self.pipeline.clock.now(), self.running.elapsed()) {
            tracing::warn!(
                seconds = step.seconds,
                "the wall clock was set while running; due times follow it, and answers from the future give way"
            );
        }
        match self.read_feed().await {
            Ok(()) => self.stats.feed_read_at.store(self.now().0, Ordering::Relaxed),
            Err(error) => {
                let now = self.now();
                let reason = error.to_string();
                if self.told.insert(reason, now).is_none_or(|at| now.since(at) >= TOLD_EVERY) {
                    tracing::error!(%error, "cannot follow the store's changes; trying again");
                }
            }
        }
        self.take_apart().await;
        let now = self.now();
        self.obey(now);
        self.stats.under_way.store(self.engine.under_way() as u64, Ordering::Relaxed);
        if ticks % RECKONING == 1 {
            self.reckon(now);
        }
        self.tray.tidy();
        self.tell_wait();
        if ticks.is_multiple_of(HOUSEKEEPING) {
            let expired = self.shelf.sweep(now);
            self.stats.expired.store(expired as u64, Ordering::Relaxed);
            if let Err(error) = self.pipeline.store.prune_feed(now, FEED_KEPT).await {
                tracing::warn!(%error, "cannot prune the feed");
            }
        }
    }

    /// Plans with the refresh interval that the capacity guard lends slack to.
    fn obey(&mut self, now: UnixTime) {
        let stretch = self.pipeline.levers.stretch();
        if self.signs
            && self.stretched.is_none_or(|since| since.elapsed() >= STRETCH_WAIT)
            && self.engine.set_stretch(stretch, now)
        {
            tracing::info!(stretch, "the refresh interval is planned with this many times its length");
            self.stretched = Some(Stopwatch::start());
        }
    }

    /// Reckons the figures, and tells the operator when the first legal deadline comes near.
    fn reckon(&mut self, now: UnixTime) {
        let figures = self.engine.figures(now);
        let oldest = self.engine.oldest_due(&figures.outlook).filter(|at| *at <= now);
        self.stats.oldest_due.store(oldest.map_or(0, |at| at.0), Ordering::Relaxed);
        let left = figures.outlook.stale_at.map(|at| at.since(now));
        let near = left.and_then(|left| NEAR.into_iter().find(|near| left <= *near));
        if near != self.near {
            let late = figures.outlook.lanes[Lane::Refresh.index()].due;
            if let (Some(left), true) = (left, near.is_some() && (self.near.is_none() || near < self.near)) {
                tracing::error!(
                    seconds_left = left.as_secs(),
                    certificates_due = late,
                    "an answer reaches its legal deadline soon: see which token is away or too slow"
                );
            } else if near.is_none() {
                tracing::info!(certificates_due = late, "legal deadlines are far again");
            }
            self.near = near;
        }
        self.stats.figures.store(Arc::new(figures));
    }

    /// Reckons how long an answer that is asked for now will take: what is in the pipeline goes first.
    fn tell_wait(&mut self) {
        let signed = self.stats.signed.load(Ordering::Relaxed);
        let (before, watch) = std::mem::replace(&mut self.counted, (signed, Stopwatch::start()));
        let rate = (signed - before) as f64 / watch.elapsed().as_secs_f64();
        // While nothing is under way, the last known rate stands.
        if rate > 0.0 {
            self.rate = if self.rate == 0.0 { rate } else { self.rate + 0.2 * (rate - self.rate) };
        }
        if self.rate > 0.0 {
            let ahead = (self.engine.ahead_of(Lane::First) + 1) as f64;
            self.tray.set_wait(Duration::from_secs_f64(ahead / self.rate) + self.pipeline.settings.patience);
        }
    }

    /// What is left in a pack that a certificate was taken out of gets another answer.
    async fn take_apart(&mut self) {
        for pack in std::mem::take(&mut self.broken) {
            match self.pipeline.store.pack_members(pack).await {
                Ok(members) => self.news.extend(members),
                Err(error) => {
                    tracing::warn!(%error, "cannot read which certificates a broken pack answers for; trying again");
                    self.broken.insert(pack);
                }
            }
        }
    }

    async fn read_feed(&mut self) -> Result<(), StoreError> {
        let changes = self.pipeline.store.changes(self.position).await?;
        if changes.registry {
            self.signals.registry_changed.notify_one();
        }
        if changes.gap {
            tracing::warn!("the feed was pruned past this reader; reading everything again");
            return self.load().await;
        }
        self.position = changes.position;
        let mut keys = changes.keys;
        keys.sort_unstable();
        keys.dedup();
        // A few certificates are a revocation or a registration, and do not wait behind an import.
        if keys.len() <= self.pipeline.settings.portion {
            keys.into_iter().rev().for_each(|key| self.news.push_front(key));
            self.take_in().await;
        } else {
            self.news.extend(keys);
        }
        Ok(())
    }

    /// Reads the next portion of the certificates that the feed named.
    async fn take_in(&mut self) {
        let count = self.pipeline.settings.portion.min(self.news.len());
        let portion: Vec<_> = self.news.drain(..count).collect();
        match reading::certificates(&*self.pipeline.store, &portion).await {
            Ok((states, unreadable)) => {
                for state in &states {
                    self.note(state);
                }
                unreadable.iter().for_each(|(key, error)| self.unreadable(*key, error));
            }
            Err(error) => {
                tracing::error!(%error, certificates = count, "cannot read what the feed named; trying again");
                self.news.extend(portion);
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// What the engine has to know of a certificate.
fn seen(state: &CertificateState, policies: &Policies) -> Seen {
    let certificate = &state.certificate;
    let current = state.answer.as_ref().filter(|answer| answer.version == certificate.version);
    Seen {
        key: certificate.key,
        issuer: certificate.issuer,
        serial: certificate.serial,
        revoked: certificate.revocation.is_some(),
        answer: current.map(|answer| (answer.this_update, answer.next_update)),
        retired: current.is_some_and(|answer| policies.is_to_be_replaced(&answer.times())),
        not_before: certificate.not_before,
    }
}
