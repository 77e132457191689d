//! `serve`: the components joined, and the order in which they start and end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::metrics::Figures;
use super::settings::Settings;
use super::{App, AppError};
use crate::clock::UnixTime;
use crate::presign::identity::Identities;
use crate::presign::keeper::{Keeper, KeeperStats, Signals};
use crate::presign::pipeline::{self, Pipeline};
use crate::responder::early::{self, EarlyReader};
use crate::responder::live::LiveSigner;
use crate::responder::{IssuerDirectory, Responder};
use crate::server::control::{self, Check, Control};
use crate::server::ocsp::{Endpoint, EndpointMetrics};
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::signer::{Signer, TokenState};
use crate::telemetry::Metrics;

/// How often a token or certificate that could not be used is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// How often certificates are judged anew: one may have come into force or ended.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// When the store's changes have not been read for so long, revocations may be missed.
const FEED_LATE: Duration = Duration::from_secs(15);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Serves OCSP.
    Ocsp,
    /// Signs what comes due, and live answers.
    Signer,
    /// Serves the control listener.
    Control,
}

/// Where a running process can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// The OCSP endpoint.
    pub ocsp: Vec<std::net::SocketAddr>,
    /// The control listener.
    pub control: Option<std::net::SocketAddr>,
}

/// What the parts of a running process share.
struct Running {
    app: Arc<App>,
    roles: BTreeSet<Role>,
    shelf: Arc<Shelf>,
    responder: Arc<Responder>,
    identities: Arc<Identities>,
    pipeline: Pipeline,
    frames: Arc<ArcSwap<crate::presign::Frames>>,
    signers: Arc<ArcSwap<Vec<Signer>>>,
    signals: Arc<Signals>,
    keeper: Arc<KeeperStats>,
}

/// Serves until `shutdown`. `reload` reads the configuration again: it is called when `hangup` is
/// notified. `started` is told the addresses once the sockets are open.
///
/// # Errors
/// [`AppError`] for what keeps it from starting. A token that is away does not: stored answers are
/// served meanwhile, and it is tried again.
pub async fn serve(
    app: Arc<App>,
    roles: BTreeSet<Role>,
    shutdown: Shutdown,
    hangup: Arc<Notify>,
    reload: impl Fn() -> Result<Settings, String> + Send + Sync + 'static,
    started: impl FnOnce(&Addresses),
) -> Result<(), AppError> {
    app.be_patient();
    let settings = app.settings();
    for problem in app.install_configured().await? {
        tracing::error!(%problem, "a configured responder cannot be used");
    }
    if settings.credentials_file.is_some() {
        tracing::warn!(
            "control.credentials_file has no effect yet: the control listener has no API that needs credentials"
        );
    }
    if settings.limits_profile.is_some() {
        tracing::warn!("limits.profile has no effect yet: this version does not limit issuance");
    }
    let running = Arc::new(Running::new(Arc::clone(&app), roles.clone()).await?);
    let stats = Arc::clone(&running.keeper);
    let mut metrics = Metrics::new();
    let endpoint_metrics = EndpointMetrics::register(&mut metrics);
    metrics.registry_mut().register_collector(Box::new(Figures {
        shelf: Arc::clone(&running.shelf),
        keeper: Arc::clone(&stats),
        clock: Arc::clone(&app.clock),
        signers: Arc::clone(&running.signers),
    }));

    // Every socket is opened before anything runs, so that a port in use is told at once.
    let mut addresses = Addresses::default();
    let endpoint = if roles.contains(&Role::Ocsp) {
        let responder = Arc::clone(&running.responder);
        let endpoint =
            Endpoint::bind(settings.endpoint.clone(), responder, Arc::clone(&app.clock), endpoint_metrics)?;
        addresses.ocsp = endpoint.local_addresses().unwrap_or_default();
        Some(endpoint)
    } else {
        None
    };
    let control = if roles.contains(&Role::Control) {
        let control = Control::bind(&settings.control)?;
        addresses.control = control.local_address().ok();
        Some(control)
    } else {
        None
    };
    started(&addresses);

    // The control listener outlives the endpoint, so that a drain can be watched.
    let control_stop = Shutdown::new();
    if let Some(control) = control {
        let readiness = Arc::clone(&running);
        let router = control::router(
            Arc::new(metrics),
            Arc::new(move || readiness.checks()),
            shutdown.clone(),
            axum::Router::new(),
        );
        let stop = control_stop.clone();
        control_stop.spawn(async move { control.serve(router, stop).await });
    }
    let keeper = Keeper::new(
        running.pipeline.clone(),
        Arc::clone(&running.shelf),
        Arc::clone(&running.frames),
        Arc::clone(&running.signals),
        stats,
        roles.contains(&Role::Signer),
    );
    let keeping = shutdown.spawn(watched(keeper.run(shutdown.clone()), shutdown.clone()));
    let looking = Arc::clone(&running);
    let stop = shutdown.clone();
    shutdown.spawn(async move { looking.keep_identities(stop, hangup, reload).await });
    match endpoint {
        Some(endpoint) => {
            let drained = endpoint.serve(shutdown.clone()).await;
            if drained.cut > 0 {
                tracing::warn!(connections = drained.cut, "the drain time ran out; connections were cut");
            }
        }
        None => shutdown.stopped().await,
    }
    if !shutdown.drained(settings.endpoint.drain).await {
        tracing::warn!(
            "signatures under way did not end within the drain time; they are made again next time"
        );
    }
    control_stop.stop();
    control_stop.drained(settings.control.drain).await;
    // One that ended on its own, or panicked, left revocations unfollowed: the process must not go on.
    if keeping.is_finished() && !matches!(keeping.await, Ok(Ended::Asked)) {
        return Err(AppError::KeeperEnded);
    }
    Ok(())
}

/// How the keeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// A stop was asked for.
    Asked,
    /// On its own.
    Alone,
}

/// Runs the keeper; when it ends, in whatever way, everything does.
async fn watched(keeper: impl Future<Output = ()>, shutdown: Shutdown) -> Ended {
    struct StopsAll(Shutdown);
    impl Drop for StopsAll {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let all = StopsAll(shutdown);
    keeper.await;
    if all.0.is_stopped() { Ended::Asked } else { Ended::Alone }
}

impl Running {
    async fn new(app: Arc<App>, roles: BTreeSet<Role>) -> Result<Self, AppError> {
        let settings = app.settings();
        let shelf = Arc::new(Shelf::new());
        let identities = Arc::new(Identities::default());
        let freshness = Arc::new(ArcSwap::from_pointee(settings.freshness));
        let clock = Arc::clone(&app.clock);
        let live = LiveSigner::new(Arc::clone(&identities), clock, Arc::clone(&freshness), settings.live);
        let directory = directory(&app).await?;
        let clock = Arc::clone(&app.clock);
        let frames = Arc::new(ArcSwap::from_pointee(app.frames().await?));
        let early = EarlyReader::new(
            Arc::clone(&app.store),
            Arc::clone(&shelf),
            Arc::clone(&frames),
            Arc::clone(&freshness),
            early::Settings::default(),
        );
        let responder = Responder::new(directory, Arc::clone(&shelf), live, clock, settings.responder)
            .reading_early(early);
        let pipeline = Pipeline {
            store: Arc::clone(&app.store),
            identities: Arc::clone(&identities),
            clock: Arc::clone(&app.clock),
            freshness,
            settings: pipeline::Settings::default(),
        };
        Ok(Self {
            app,
            roles,
            shelf,
            responder: Arc::new(responder),
            identities,
            pipeline,
            frames,
            signers: Arc::default(),
            signals: Arc::default(),
            keeper: Arc::default(),
        })
    }

    /// What has to be so before traffic comes: from memory only.
    fn checks(&self) -> Vec<Check> {
        let check = |name: &str, ready, detail: String| Check { name: name.to_owned(), ready, detail };
        let mut checks = Vec::new();
        if self.roles.contains(&Role::Ocsp) {
            let detail = format!(
                "{} of {} certificates answered, {} of the answers expired",
                self.shelf.answers(),
                self.shelf.certificates(),
                self.keeper.expired.load(Ordering::Relaxed)
            );
            checks.push(check("shelf", self.shelf.is_complete(), detail));
            let read_at = UnixTime(self.keeper.feed_read_at.load(Ordering::Relaxed));
            let age = self.app.clock.now().since(read_at);
            let detail = format!("changes in the store were read to their end at {read_at}");
            checks.push(check("feed", age < FEED_LATE, detail));
        }
        if self.roles.contains(&Role::Signer) {
            // A token that is away must not take the endpoint out of service: it serves what is stored.
            let serving = |signer: &&Signer| signer.state() == TokenState::Serving;
            let signers = self.signers.load();
            let detail =
                format!("{} of {} tokens in use sign", signers.iter().filter(serving).count(), signers.len());
            checks.push(check("tokens", true, detail));
        }
        checks
    }

    /// Makes responders ready, again when something changed or could not be used, until the stop.
    async fn keep_identities(
        &self,
        shutdown: Shutdown,
        hangup: Arc<Notify>,
        reload: impl Fn() -> Result<Settings, String>,
    ) {
        let mut told = BTreeSet::new();
        loop {
            let complete = self.refresh(&mut told).await;
            let wait = if complete { LOOK_AGAIN } else { TRY_AGAIN };
            tokio::select! {
                () = shutdown.stopped() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.signals.registry_changed.notified() => tracing::info!("issuers or responders changed in the store"),
                () = hangup.notified() => {
                    self.reload(&reload).await;
                    told.clear();
                }
            }
        }
    }

    /// Reads issuers and responders from the store. Returns whether every responder can be used;
    /// each reason why not is logged once, until it changes.
    async fn refresh(&self, told: &mut BTreeSet<String>) -> bool {
        match self.try_refresh().await {
            Ok(problems) => {
                let problems: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
                for problem in problems.difference(told) {
                    tracing::error!(%problem, "a responder cannot be used; trying again");
                }
                *told = problems;
                told.is_empty()
            }
            Err(error) => {
                tracing::error!(%error, "cannot read issuers and responders; trying again");
                false
            }
        }
    }

    async fn try_refresh(&self) -> Result<Vec<AppError>, AppError> {
        self.responder.replace_issuers(directory(&self.app).await?);
        self.frames.store(Arc::new(self.app.frames().await?));
        if !self.roles.contains(&Role::Signer) {
            self.signals.responders_changed.notify_one();
            return Ok(Vec::new());
        }
        let (identities, problems) = self.app.identities(&self.identities.all()).await?;
        self.identities.replace(identities);
        self.signals.responders_changed.notify_one();
        self.signers.store(Arc::new(
            self.app.running_signers().await.into_iter().map(|(_, signer)| signer).collect(),
        ));
        Ok(problems)
    }

    /// Validates the configuration anew, then swaps it in. What only a restart can change is told.
    async fn reload(&self, reload: &impl Fn() -> Result<Settings, String>) {
        let settings = match reload() {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(%error, "the configuration was not reloaded; the one in force stays");
                return;
            }
        };
        let old = self.app.settings();
        let fixed = [
            ("store.url", old.store_url == settings.store_url),
            ("ocsp (listen, paths, max_connections, drain)", old.endpoint == settings.endpoint),
            ("ocsp (live_rate, live_in_flight)", old.live == settings.live),
            ("control.listen", old.control == settings.control),
            ("[[token]]", old.tokens == settings.tokens),
        ];
        for (setting, same) in fixed {
            if !same {
                tracing::warn!(setting, "this setting changed; it takes effect at the next restart");
            }
        }
        let (responder, freshness) = (settings.responder, settings.freshness);
        if let Err(error) = self.app.replace_settings(settings).await {
            tracing::error!(%error, "the configuration was not reloaded; the one in force stays");
            return;
        }
        self.responder.replace_settings(responder);
        self.pipeline.freshness.store(Arc::new(freshness));
        if old.freshness != freshness {
            self.signals.policy_changed.notify_one();
        }
        match self.app.install_configured().await {
            Ok(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "a configured responder cannot be used");
                }
            }
            Err(error) => tracing::error!(%error, "cannot install the configured responders"),
        }
        tracing::info!("the configuration was reloaded");
    }
}

async fn directory(app: &App) -> Result<IssuerDirectory, AppError> {
    let issuers = app.issuers().await?;
    Ok(IssuerDirectory::new(issuers.into_iter().map(|issuer| (issuer.record.id, issuer.issuer))))
}
