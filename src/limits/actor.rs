//! The one task that decides. It takes what is waiting, decides all of it in memory, writes it in
//! one transaction, and answers. Where the ledger has gone on without it, it takes its decisions
//! back, reads what is new, and decides again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::LimitsError;
use super::batch::Batch;
use super::book::Book;
use super::decision::Decision;
use super::identifiers::Identifiers;
use super::overrides::{NewOverride, Override};
use super::pressure::Pressure;
use super::profile::Profile;
use super::service::{Committed, Counters, IssuedCertificate, KnownCertificate, OrderView, Released};
use super::show::{ReadSubject, Standing};
use crate::clock::{SharedClock, UnixTime};
use crate::store::{Appended, Ledger, LedgerId, LedgerPosition, StoreError};

/// Records read at once.
const PAGE: u32 = 5_000;

/// How often a group is decided again, because others keep writing, before its callers are told. Each
/// time somebody else has gone on.
const ATTEMPTS: usize = 100;

/// How often records whose time has ended are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Records forgotten at once: short beside a caller's patience.
const TIDY_MOST: usize = 2_000;

pub(super) type Reply<T> = oneshot::Sender<Result<T, LimitsError>>;

/// What is asked of the task.
#[derive(Debug)]
pub(super) enum Request {
    Register {
        ip: IpAddr,
        idempotency: Option<String>,
        reply: Reply<Decision>,
    },
    Order {
        account: String,
        identifiers: Identifiers,
        replaces: Option<String>,
        idempotency: Option<String>,
        reply: Reply<Decision>,
    },
    Commit {
        order: LedgerId,
        certificate: IssuedCertificate,
        reply: Reply<Committed>,
    },
    Remember {
        identifiers: Identifiers,
        known: KnownCertificate,
        reply: Reply<Committed>,
    },
    Release {
        order: LedgerId,
        failed: Vec<String>,
        reply: Reply<Released>,
    },
    View {
        order: LedgerId,
        reply: Reply<OrderView>,
    },
    Show {
        subject: ReadSubject,
        reply: Reply<Standing>,
    },
    AddOverride {
        new: NewOverride,
        reply: Reply<Override>,
    },
    RemoveOverride {
        id: LedgerId,
        reply: Reply<Override>,
    },
    Overrides {
        reply: Reply<Vec<Override>>,
    },
    ReplaceProfile {
        profile: Arc<Profile>,
        reply: Reply<()>,
    },
}

impl Request {
    /// Whether the caller has gone, so that nobody would know of what was decided.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Register { reply, .. } | Self::Order { reply, .. } => reply.is_closed(),
            Self::Commit { reply, .. } | Self::Remember { reply, .. } => reply.is_closed(),
            Self::Release { reply, .. } => reply.is_closed(),
            Self::View { reply, .. } => reply.is_closed(),
            Self::Show { reply, .. } => reply.is_closed(),
            Self::AddOverride { reply, .. } | Self::RemoveOverride { reply, .. } => reply.is_closed(),
            Self::Overrides { reply } => reply.is_closed(),
            Self::ReplaceProfile { reply, .. } => reply.is_closed(),
        }
    }
}

pub(super) struct Actor {
    ledger: Arc<dyn Ledger>,
    book: Book,
    pressure: watch::Receiver<Pressure>,
    clock: SharedClock,
    counters: Arc<Counters>,
    batch: usize,
    tidied: UnixTime,
}

impl Actor {
    /// Reads the whole ledger.
    pub(super) async fn load(
        ledger: Arc<dyn Ledger>,
        profile: Arc<Profile>,
        pressure: watch::Receiver<Pressure>,
        clock: SharedClock,
        counters: Arc<Counters>,
        batch: usize,
    ) -> Result<Self, LimitsError> {
        let tidied = clock.now();
        let book = Book::new(profile);
        let mut actor = Self { ledger, book, pressure, clock, counters, batch: batch.max(1), tidied };
        actor.catch_up().await?;
        Ok(actor)
    }

    /// Decides until nobody is left who could ask.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(self.batch);
        loop {
            match tokio::time::timeout(TIDY_EVERY, queue.recv_many(&mut waiting, self.batch)).await {
                Ok(0) => return,
                Ok(_) => self.serve(&mut waiting).await,
                Err(_) => {}
            }
            self.tidy().await;
        }
    }

    /// Answers everything that is waiting. What asks for no decision is answered between groups, so
    /// that callers see their own order of things.
    async fn serve(&mut self, waiting: &mut Vec<Request>) {
        let mut group = Vec::with_capacity(waiting.len());
        for request in waiting.drain(..).filter(|request| !request.is_abandoned()) {
            match request {
                Request::View { .. }
                | Request::Show { .. }
                | Request::Overrides { .. }
                | Request::ReplaceProfile { .. } => {
                    self.decide(std::mem::take(&mut group)).await;
                    self.look(request).await;
                }
                request => group.push(request),
            }
        }
        self.decide(group).await;
    }

    /// Answers a request that changes nothing in the ledger, from an up-to-date book.
    async fn look(&mut self, request: Request) {
        let fresh = self.refresh().await;
        let now = self.clock.now();
        // A caller that has gone is no matter to any of these.
        match request {
            Request::View { order, reply } => {
                let view = |book: &Book| {
                    let entry = book.order(order).ok_or(LimitsError::NoOrder(order))?;
                    Ok(OrderView::of(order, entry, now))
                };
                drop(reply.send(fresh.and_then(|()| view(&self.book))));
            }
            Request::Show { subject, reply } => {
                let pressure = self.pressure.borrow().clone();
                let show = || super::show::standing(&self.book, &subject, &pressure, now);
                drop(reply.send(fresh.map(|()| show())));
            }
            Request::Overrides { reply } => {
                drop(reply.send(fresh.map(|()| self.book.overrides(now))));
            }
            Request::ReplaceProfile { profile, reply } => {
                if fresh.is_ok() {
                    self.book = self.book.under(profile, now);
                }
                drop(reply.send(fresh));
            }
            // The others change something: `serve` keeps them for a group.
            _ => {}
        }
    }

    /// Decides a group, writes it, and answers.
    async fn decide(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        let mut batch = Batch::new(group);
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let pressure = self.pressure.borrow().clone();
            let expected = self.book.position();
            batch.decide(&mut self.book, &pressure, now);
            let written = if batch.records().is_empty() {
                // Nothing to write: yet a refusal from a state that others have left would be wrong.
                self.ledger
                    .ledger_end()
                    .await
                    .map(|end| if end == expected { Appended::Done(end) } else { Appended::Behind(end) })
            } else {
                self.ledger.ledger_append(expected, batch.records()).await
            };
            match written {
                Ok(Appended::Done(_)) => {
                    self.counters.groups.fetch_add(1, Ordering::Relaxed);
                    batch.answer(&self.counters);
                    return;
                }
                Ok(Appended::Behind(_)) => {
                    self.counters.groups_repeated.fetch_add(1, Ordering::Relaxed);
                    batch.undo(&mut self.book, now);
                    if let Err(error) = self.catch_up().await {
                        batch.fail(&error);
                        return;
                    }
                }
                Err(error) => {
                    // It may be there all the same: the next group finds out before it decides.
                    batch.undo(&mut self.book, now);
                    batch.fail(&Arc::new(error));
                    return;
                }
            }
        }
        batch.fail(&Arc::new(StoreError::Unavailable {
            action: "writing decisions of the limiter to",
            url: "the ledger".to_owned(),
            source: format!("other processes wrote first {ATTEMPTS} times in a row").into(),
        }));
    }

    async fn refresh(&mut self) -> Result<(), LimitsError> {
        if self.ledger.ledger_end().await? != self.book.position() {
            self.catch_up().await.map_err(LimitsError::Store)?;
        }
        Ok(())
    }

    /// Reads what is new in the ledger; all of it when the database was put back from a backup.
    async fn catch_up(&mut self) -> Result<(), Arc<StoreError>> {
        loop {
            let end = self.ledger.ledger_end().await?;
            if end < self.book.position() {
                tracing::warn!(
                    known = self.book.position().0,
                    found = end.0,
                    "the ledger ends before what is known of it: the database was put back; reading it anew"
                );
                self.book = Book::new(Arc::clone(self.book.profile()));
            }
            let news = self.ledger.ledger_after(self.book.position(), PAGE).await?;
            let now = self.clock.now();
            let last = news.len() < PAGE as usize;
            for (position, record) in news {
                self.book.enter(Arc::new(record), Some(position), now);
            }
            if last {
                // Between the last record and the end there may have been some that were forgotten.
                self.book.skip_to(end);
                return Ok(());
            }
        }
    }

    /// Forgets records whose time has ended, now and then.
    async fn tidy(&mut self) {
        let now = self.clock.now();
        if now >= self.tidied && now.since(self.tidied) < TIDY_EVERY {
            return;
        }
        self.tidied = now;
        let ended = self.book.ended(now, TIDY_MOST);
        if ended.is_empty() {
            return;
        }
        match self.ledger.ledger_forget(&ended, now).await {
            // One that another process has changed since comes back with what is read next.
            Ok(_) => self.book.forget(&ended),
            Err(error) => tracing::warn!(%error, "records of the limiter were not forgotten; trying again"),
        }
    }
}

impl From<Arc<StoreError>> for LimitsError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::Store(error)
    }
}

/// Up to where the ledger is known, for logs.
impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LedgerPosition(position) = self.book.position();
        f.debug_struct("Actor").field("position", &position).field("records", &self.book.len()).finish()
    }
}
