//! The limiter as others use it: one task decides, one after the other, and writes what it decided
//! in groups; nobody is told before it is durable.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::actor::{self, Actor};
use super::decision::Decision;
use super::identifiers::{Identifiers, check_account};
use super::overrides::{NewOverride, Override};
use super::pressure::Pressure;
use super::profile::Profile;
use super::show::{ReadSubject, Standing, Subject};
use super::{LimitsError, times};
use crate::clock::{SharedClock, UnixTime};
use crate::store::{Ledger, LedgerId, OrderEntry, OrderState};

/// The longest idempotency key.
const LONGEST_KEY: usize = 255;

/// How much may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests that may wait for their decision; more wait outside, within their patience. 1,024
    /// are a fifth of a second's work of one disk.
    pub queue: usize,
    /// Decisions that are written together at the most.
    pub batch: usize,
    /// How long a caller waits for an answer. A request that nobody waits for any more is not
    /// decided; one that was being written then may stand, and is found by its idempotency key.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { queue: 1_024, batch: 256, patience: Duration::from_secs(10) }
    }
}

/// A certificate to order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderRequest {
    /// The account, as the CA names it.
    pub account: String,
    /// DNS names (Unicode or A-labels, wildcards too) and IP addresses.
    pub identifiers: Vec<String>,
    /// The certificate that it replaces: its CertID for ARI, or the name it was committed under.
    pub replaces: Option<String>,
    /// The same key with the same request gives the same order. Keys belong to an account, and are
    /// kept for a week at least.
    pub idempotency: Option<String>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its name in lists, for example `issuer/serial`; unique.
    pub name: String,
    /// Its CertID for ARI (RFC 9773 section 4.1), for `replaces`.
    pub ari: Option<String>,
    /// When it ends.
    pub not_after: UnixTime,
}

/// A certificate that was issued without an order here: before the limiter, or past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCertificate {
    /// The account, if it is known; else it counts for none.
    pub account: Option<String>,
    /// Its DNS names and IP addresses.
    pub identifiers: Vec<String>,
    /// From when it counts.
    pub issued_at: UnixTime,
    /// The certificate.
    pub certificate: IssuedCertificate,
}

/// A commit that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// The order.
    pub order: LedgerId,
    /// The certificate's name.
    pub certificate: String,
    /// From when it counts.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// Whether the order had timed out or was released before: it counts all the same, since the
    /// status must be signed, and may go beyond a limit.
    pub late: bool,
    /// Whether it had been committed just so before.
    pub repeated: bool,
}

/// Why an order is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReleaseCause {
    /// No certificate will be issued; nothing more is known.
    #[default]
    Abandoned,
    /// The authorisation of these identifiers failed, which limits may count.
    AuthorizationFailed(Vec<String>),
}

/// A release that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Released {
    /// The order.
    pub order: LedgerId,
    /// When its places were freed.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// Whether it had been released before.
    pub repeated: bool,
}

/// An order as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderView {
    /// Its number.
    pub order: LedgerId,
    /// Whose.
    pub account: String,
    /// For what: A-labels and addresses, sorted.
    pub identifiers: Vec<String>,
    /// When it was accepted.
    #[serde(serialize_with = "times::time")]
    pub at: UnixTime,
    /// `reserved`, `expired`, `issued` or `released`.
    pub state: &'static str,
    /// Until when its places are held.
    #[serde(serialize_with = "times::optional_time")]
    pub expires: Option<UnixTime>,
    /// Its certificate.
    pub certificate: Option<String>,
    /// When its certificate ends.
    #[serde(serialize_with = "times::optional_time")]
    pub not_after: Option<UnixTime>,
    /// The order whose certificate it renews.
    pub renews: Option<LedgerId>,
}

impl OrderView {
    pub(super) fn of(id: LedgerId, order: &OrderEntry, now: UnixTime) -> Self {
        let mut view = Self {
            order: id,
            account: order.account.clone(),
            identifiers: order.identifiers.clone(),
            at: order.at,
            state: "released",
            expires: None,
            certificate: None,
            not_after: None,
            renews: order.renews,
        };
        match &order.state {
            OrderState::Reserved { expires } => {
                view.state = if now < *expires { "reserved" } else { "expired" };
                view.expires = Some(*expires);
            }
            OrderState::Issued { certificate, not_after, .. } => {
                view.state = "issued";
                view.certificate = Some(certificate.clone());
                view.not_after = Some(*not_after);
            }
            OrderState::Released { .. } => {}
        }
        view
    }
}

/// Decisions since the start. What the guard takes for the offered issuance is `new_orders`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// New certificates asked for, accepted and refused, renewals left out.
    pub new_orders: u64,
    /// Those refused for whatever reason.
    pub new_orders_refused: u64,
    /// Those refused because of capacity, which the nominal limits would have let pass.
    pub new_orders_refused_for_capacity: u64,
    /// Renewals asked for.
    pub renewals: u64,
    /// Renewals refused.
    pub renewals_refused: u64,
    /// Accounts asked for.
    pub registrations: u64,
    /// Accounts refused.
    pub registrations_refused: u64,
    /// What limits in shadow mode would have refused.
    pub shadow_refusals: u64,
    /// Certificates committed.
    pub committed: u64,
    /// Orders released.
    pub released: u64,
    /// Groups written to the ledger.
    pub groups: u64,
    /// Groups decided again because another process had written meanwhile.
    pub groups_repeated: u64,
}

/// The counters behind a [`Tally`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) new_orders: AtomicU64,
    pub(super) new_orders_refused: AtomicU64,
    pub(super) new_orders_refused_for_capacity: AtomicU64,
    pub(super) renewals: AtomicU64,
    pub(super) renewals_refused: AtomicU64,
    pub(super) registrations: AtomicU64,
    pub(super) registrations_refused: AtomicU64,
    pub(super) shadow_refusals: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) groups: AtomicU64,
    pub(super) groups_repeated: AtomicU64,
}

impl Counters {
    pub(super) fn tally(&self) -> Tally {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            new_orders: of(&self.new_orders),
            new_orders_refused: of(&self.new_orders_refused),
            new_orders_refused_for_capacity: of(&self.new_orders_refused_for_capacity),
            renewals: of(&self.renewals),
            renewals_refused: of(&self.renewals_refused),
            registrations: of(&self.registrations),
            registrations_refused: of(&self.registrations_refused),
            shadow_refusals: of(&self.shadow_refusals),
            committed: of(&self.committed),
            released: of(&self.released),
            groups: of(&self.groups),
            groups_repeated: of(&self.groups_repeated),
        }
    }
}

/// The limiter. A handle: clones speak to the same one, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Limiter {
    requests: mpsc::Sender<actor::Request>,
    profile: Arc<ArcSwap<Profile>>,
    counters: Arc<Counters>,
    patience: Duration,
}

impl Limiter {
    /// Reads the ledger and starts to decide. The handle ends once every limiter is dropped.
    ///
    /// # Errors
    /// [`LimitsError::Store`].
    pub async fn start(
        ledger: Arc<dyn Ledger>,
        profile: Arc<Profile>,
        pressure: watch::Receiver<Pressure>,
        clock: SharedClock,
        settings: Settings,
    ) -> Result<(Self, JoinHandle<()>), LimitsError> {
        let (requests, queue) = mpsc::channel(settings.queue.max(1));
        let limiter = Self {
            requests,
            profile: Arc::new(ArcSwap::new(Arc::clone(&profile))),
            counters: Arc::default(),
            patience: settings.patience,
        };
        let counters = Arc::clone(&limiter.counters);
        let actor = Actor::load(ledger, profile, pressure, clock, counters, settings.batch).await?;
        Ok((limiter, tokio::spawn(actor.run(queue))))
    }

    /// Counts a new account from an address, or refuses it.
    ///
    /// # Errors
    /// [`LimitsError::Idempotency`], [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn register_account(
        &self,
        ip: IpAddr,
        idempotency: Option<&str>,
    ) -> Result<Decision, LimitsError> {
        let idempotency = idempotency.map(|key| scoped("registration", key)).transpose()?;
        self.ask(|reply| actor::Request::Register { ip: ip.to_canonical(), idempotency, reply }).await
    }

    /// Reserves a place in every limit for a certificate, or refuses it.
    ///
    /// # Errors
    /// [`LimitsError::Identifier`], [`LimitsError::Idempotency`], [`LimitsError::Overloaded`],
    /// [`LimitsError::Store`].
    pub async fn order(&self, order: &OrderRequest) -> Result<Decision, LimitsError> {
        check_account(&order.account)?;
        let most = self.profile.load().identifiers_most;
        let identifiers = Identifiers::parse(&order.identifiers, most)?;
        let scope = format!("order {}", order.account);
        let idempotency = order.idempotency.as_deref().map(|key| scoped(&scope, key)).transpose()?;
        let (account, replaces) = (order.account.clone(), order.replaces.clone());
        self.ask(|reply| actor::Request::Order { account, identifiers, replaces, idempotency, reply }).await
    }

    /// Counts an order's certificate from now on. The same certificate again changes nothing.
    ///
    /// # Errors
    /// [`LimitsError::NoOrder`], [`LimitsError::Issued`] for another certificate,
    /// [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn commit(
        &self,
        order: LedgerId,
        certificate: IssuedCertificate,
    ) -> Result<Committed, LimitsError> {
        self.ask(|reply| actor::Request::Commit { order, certificate, reply }).await
    }

    /// Takes note of a certificate that was issued without an order here, so that it counts, and so
    /// that its renewal is known as one. One whose name is known changes nothing.
    ///
    /// # Errors
    /// [`LimitsError::Identifier`], [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn remember(&self, known: &KnownCertificate) -> Result<Committed, LimitsError> {
        if let Some(account) = &known.account {
            check_account(account)?;
        }
        let identifiers = Identifiers::parse(&known.identifiers, usize::MAX)?;
        let known = known.clone();
        self.ask(|reply| actor::Request::Remember { identifiers, known, reply }).await
    }

    /// Frees the places of an order that will have no certificate.
    ///
    /// # Errors
    /// [`LimitsError::NoOrder`], [`LimitsError::Issued`], [`LimitsError::Identifier`] for a failed
    /// identifier that does not read, [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn release(&self, order: LedgerId, cause: ReleaseCause) -> Result<Released, LimitsError> {
        let failed = match cause {
            ReleaseCause::Abandoned => Vec::new(),
            ReleaseCause::AuthorizationFailed(names) => {
                Identifiers::parse(&names, usize::MAX)?.texts().to_vec()
            }
        };
        self.ask(|reply| actor::Request::Release { order, failed, reply }).await
    }

    /// An order as it stands.
    ///
    /// # Errors
    /// [`LimitsError::NoOrder`], [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn view(&self, order: LedgerId) -> Result<OrderView, LimitsError> {
        self.ask(|reply| actor::Request::View { order, reply }).await
    }

    /// How the limits stand for a subject.
    ///
    /// # Errors
    /// [`LimitsError::Identifier`], [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn show(&self, subject: Subject) -> Result<Standing, LimitsError> {
        let subject = ReadSubject::read(subject)?;
        self.ask(|reply| actor::Request::Show { subject, reply }).await
    }

    /// Sets other numbers for one key of one limit; replaces those that are set.
    ///
    /// # Errors
    /// [`LimitsError::Override`], [`LimitsError::Identifier`], [`LimitsError::Overloaded`],
    /// [`LimitsError::Store`].
    pub async fn add_override(&self, new: NewOverride) -> Result<Override, LimitsError> {
        self.ask(|reply| actor::Request::AddOverride { new, reply }).await
    }

    /// Every override in force, by limit and key.
    ///
    /// # Errors
    /// [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn overrides(&self) -> Result<Vec<Override>, LimitsError> {
        self.ask(|reply| actor::Request::Overrides { reply }).await
    }

    /// Takes back an override, and tells which it was.
    ///
    /// # Errors
    /// [`LimitsError::Override`] when there is none of that number, [`LimitsError::Overloaded`],
    /// [`LimitsError::Store`].
    pub async fn remove_override(&self, id: LedgerId) -> Result<Override, LimitsError> {
        self.ask(|reply| actor::Request::RemoveOverride { id, reply }).await
    }

    /// Puts another profile in force. What counts stays: it is counted anew by the new limits, as far
    /// back as the longest period of the old profile.
    ///
    /// # Errors
    /// [`LimitsError::Overloaded`], [`LimitsError::Store`].
    pub async fn replace_profile(&self, profile: Arc<Profile>) -> Result<(), LimitsError> {
        let new = Arc::clone(&profile);
        self.ask(|reply| actor::Request::ReplaceProfile { profile: new, reply }).await?;
        self.profile.store(profile);
        Ok(())
    }

    /// The profile in force.
    #[must_use]
    pub fn profile(&self) -> Arc<Profile> {
        self.profile.load_full()
    }

    /// The decisions since the start.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.counters.tally()
    }

    /// The counters, for metrics.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LimitsError>>) -> actor::Request,
    ) -> Result<T, LimitsError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(request(reply)).await.map_err(|_| LimitsError::Stopped)?;
            answer.await.map_err(|_| LimitsError::Stopped)?
        };
        tokio::time::timeout(self.patience, asked).await.unwrap_or_else(|_| {
            Err(LimitsError::Overloaded {
                waited: self.patience,
                queued: self.requests.max_capacity() - self.requests.capacity(),
            })
        })
    }
}

fn scoped(scope: &str, key: &str) -> Result<String, LimitsError> {
    if key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
        return Err(LimitsError::IdempotencyKey { longest: LONGEST_KEY });
    }
    Ok(format!("{scope} {key}"))
}
