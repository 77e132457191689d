//! `serve`: the components joined, and the order in which they start and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::audit::AuditHeadWatch;
use super::limits;
use super::metrics::Figures;
use super::rotation::{TurnFigures, Turns, Watch};
use super::settings::Settings;
use super::situation::situation;
use super::{App, AppError, guard};
use crate::clock::UnixTime;
use crate::limits::{Limiter, Pressure};
use crate::presign::identity::Identities;
use crate::presign::keeper::{Keeper, KeeperStats, Signals};
use crate::presign::pipeline::{self, Pipeline};
use crate::responder::early::{self, EarlyReader};
use crate::responder::live::LiveSigner;
use crate::responder::{IssuerDirectory, NoncePolicy, Responder, UNHEARD, UnknownSerial};
use crate::server::control::{self, Check, Control, api};
use crate::server::ocsp::{Endpoint, EndpointMetrics};
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::signer::{Signer, TokenState};
use crate::telemetry::Metrics;

/// How often a token or certificate that could not be used is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// How often certificates are judged anew: one may have come into force or ended.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

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
pub(super) struct Running {
    pub(super) app: Arc<App>,
    roles: BTreeSet<Role>,
    pub(super) shelf: Arc<Shelf>,
    responder: Arc<Responder>,
    identities: Arc<Identities>,
    pipeline: Pipeline,
    frames: Arc<ArcSwap<crate::presign::Frames>>,
    pub(super) signers: Arc<ArcSwap<Vec<Signer>>>,
    signals: Arc<Signals>,
    pub(super) keeper: Arc<KeeperStats>,
    watch: Arc<Watch>,
    /// The control listener's, in a process that has one.
    access: OnceLock<control::Access>,
    /// The limiter, in a process with a control listener.
    pub(super) limiter: OnceLock<Limiter>,
    /// What the guard tells the limiter, its own or another process's.
    pressure: OnceLock<watch::Receiver<Pressure>>,
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
    metrics.registry_mut().register_collector(Box::new(TurnFigures {
        watch: Arc::clone(&running.watch),
        clock: Arc::clone(&app.clock),
    }));
    let audit = Arc::new(AuditHeadWatch::new(Arc::clone(&app.store)));
    metrics.registry_mut().register_collector(Box::new(audit.figures()));

    // The guard is where it is signed; a limiter elsewhere follows it.
    let capacity = if roles.contains(&Role::Signer) {
        let asking = Arc::clone(&running);
        let sources = guard::Sources {
            app: Arc::clone(&app),
            shelf: Arc::clone(&running.shelf),
            keeper: Arc::clone(&stats),
            levers: Arc::clone(&running.pipeline.levers),
            signers: Arc::clone(&running.signers),
            live: Box::new({
                let responder = Arc::clone(&running.responder);
                move || responder.live_signatures()
            }),
            offered: Box::new(move || asking.limiter.get().map_or(0, |limiter| limiter.tally().new_orders)),
        };
        let findings = guard::start(sources, &shutdown).await?;
        let figures = guard::CapacityFigures(findings.report.clone());
        metrics.registry_mut().register_collector(Box::new(figures));
        _ = running.pressure.set(findings.pressure);
        Some(guard::told(findings.report))
    } else if roles.contains(&Role::Control) {
        let asking = Arc::clone(&running);
        let offered = move || asking.limiter.get().map_or(0, |limiter| limiter.tally().new_orders);
        let followed = guard::follow(&app, offered, &shutdown).await;
        _ = running.pressure.set(followed.pressure);
        Some(guard::heard(followed.report))
    } else {
        None
    };

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
        _ = running.access.set(control.access());
        Some(control)
    } else {
        None
    };
    started(&addresses);

    let keeper = Keeper::new(
        running.pipeline.clone(),
        Arc::clone(&running.shelf),
        Arc::clone(&running.frames),
        Arc::clone(&running.signals),
        stats,
        roles.contains(&Role::Signer),
    );

    // The control listener outlives the endpoint, so that a drain can be watched.
    let control_stop = Shutdown::new();
    if let Some(control) = control {
        let readiness = Arc::clone(&running);
        let (pictured, stopping, anchor) = (Arc::clone(&running), shutdown.clone(), Arc::clone(&audit));
        // Nobody waits for its task: whoever asked it something waits for the answer.
        let (limiter, _task) = app.start_limiter(running.pressure()).await?;
        limiter.register_metrics(&mut metrics);
        _ = running.limiter.set(limiter.clone());
        let services = api::Services {
            limiter,
            pressure: running.pressure(),
            capacity,
            store: Arc::clone(&app.store),
            clock: Arc::clone(&app.clock),
            desk: keeper.desk(),
            policies: Arc::clone(&running.pipeline.policies),
        };
        let router = control::router(
            Arc::new(metrics),
            Arc::new(move || readiness.checks()),
            Arc::new(move || situation(&pictured, stopping.is_stopped(), anchor.head())),
            shutdown.clone(),
            &control.access().gate,
            api::router(services, &control.access().gate),
        );
        let stop = control_stop.clone();
        control_stop.spawn(async move { control.serve(router, stop).await });
    }
    let keeping = shutdown.spawn(watched(keeper.run(shutdown.clone()), shutdown.clone()));
    let chain = Arc::clone(&audit);
    let stop = control_stop.clone();
    control_stop.spawn(async move { chain.watch(stop).await });
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
        let policies = Arc::new(ArcSwap::from_pointee(app.policies().await?));
        let keeper = Arc::<KeeperStats>::default();
        let clock = Arc::clone(&app.clock);
        let live = LiveSigner::new(Arc::clone(&identities), clock, Arc::clone(&policies), settings.live);
        let directory = directory(&app).await?;
        let clock = Arc::clone(&app.clock);
        let frames = Arc::new(ArcSwap::from_pointee(app.frames().await?));
        let early = EarlyReader::new(
            Arc::clone(&app.store),
            Arc::clone(&shelf),
            Arc::clone(&frames),
            Arc::clone(&policies),
            early::Settings::default(),
        );
        let responder = Responder::new(
            directory,
            Arc::clone(&shelf),
            live,
            clock,
            Arc::clone(&policies),
            Arc::clone(&keeper),
            settings.responder,
        )
        .reading_early(early);
        let pipeline = Pipeline {
            store: Arc::clone(&app.store),
            identities: Arc::clone(&identities),
            clock: Arc::clone(&app.clock),
            policies,
            settings: pipeline::Settings::default(),
            levers: Arc::default(),
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
            keeper,
            watch: Arc::default(),
            access: OnceLock::new(),
            limiter: OnceLock::new(),
            pressure: OnceLock::new(),
        })
    }

    /// What the guard tells the limiter; where there is no guard nothing presses.
    pub(super) fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.get().cloned().unwrap_or_else(|| watch::channel(Pressure::none()).1)
    }

    /// What has to be so before traffic comes: from memory only.
    pub(super) fn checks(&self) -> Vec<Check> {
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
            checks.push(check("feed", age < UNHEARD, detail));
        }
        if self.roles.contains(&Role::Signer) {
            // A token that is away must not take the endpoint out of service: it serves what is stored.
            let serving = |signer: &&Signer| signer.state() == TokenState::Serving;
            let signers = self.signers.load();
            let detail =
                format!("{} of {} tokens in use sign", signers.iter().filter(serving).count(), signers.len());
            checks.push(check("tokens", true, detail));
            checks.push(check("live", true, self.live_standing()));
            checks.push(check("responders", true, self.watch.standing(self.app.clock.now())));
        }
        checks
    }

    /// Whether what cannot be stored ahead is signed now. It is no matter of readiness: without a token a
    /// nonce gets the stored answer, and the rest tryLater, which another process could not better.
    fn live_standing(&self) -> String {
        let settings = self.app.settings().responder;
        let mut wanted = vec!["several certificates in one request"];
        if settings.nonce == NoncePolicy::Echo {
            wanted.push("nonces");
        }
        if settings.unknown_serial != UnknownSerial::Unauthorized {
            wanted.push("serial numbers on no record");
        }
        let wanted = wanted.join(", ");
        if self.signers.load().iter().any(|signer| signer.state() == TokenState::Serving) {
            format!("answers are signed on the spot for: {wanted}")
        } else {
            format!("no token signs, so stored answers or tryLater are given for: {wanted}")
        }
    }

    /// Makes responders ready, again when something changed or could not be used, until the stop.
    async fn keep_identities(
        &self,
        shutdown: Shutdown,
        hangup: Arc<Notify>,
        reload: impl Fn() -> Result<Settings, String>,
    ) {
        let mut told = BTreeSet::new();
        let mut alarms = BTreeMap::new();
        loop {
            let complete = self.refresh(&mut told).await;
            self.watch.sound(&mut alarms, self.app.clock.now());
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
        let policies = self.app.policies().await?;
        self.watch.replace(Turns::of(&self.app.responders().await?, &policies));
        if **self.pipeline.policies.load() != policies {
            self.pipeline.policies.store(Arc::new(policies));
            self.signals.policy_changed.notify_one();
        }
        self.frames.store(Arc::new(self.app.frames().await?));
        if !self.roles.contains(&Role::Signer) {
            self.signals.responders_changed.notify_one();
            return Ok(Vec::new());
        }
        let so_far = |identities| {
            self.signers.store(Arc::new(self.app.running_signers()));
            self.identities.replace(identities);
            self.signals.responders_changed.notify_one();
        };
        let (identities, problems) = self.app.identities_one_by_one(&self.identities.all(), so_far).await?;
        so_far(identities);
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
            ("control.listen", old.control.listen == settings.control.listen),
            ("control (open_metrics)", old.control.open_metrics == settings.control.open_metrics),
            (
                "control (TLS switched on or off, credentials_file set or not)",
                old.control.tls.is_some() == settings.control.tls.is_some()
                    && old.control.credentials_file.is_some() == settings.control.credentials_file.is_some(),
            ),
            ("[[token]]", old.tokens == settings.tokens),
        ];
        for (setting, same) in fixed {
            if !same {
                tracing::warn!(setting, "this setting changed; it takes effect at the next restart");
            }
        }
        if let Some(access) = self.access.get()
            && let Err(error) = access.reload(&settings.control)
        {
            tracing::error!(%error, "the configuration was not reloaded; the one in force stays");
            return;
        }
        if let Some(running) = self.limiter.get()
            && let Err(error) = limits::reload(running, &settings).await
        {
            tracing::error!(%error, "the configuration was not reloaded; the one in force stays");
            return;
        }
        let responder = settings.responder;
        if let Err(error) = self.app.replace_settings(settings).await {
            tracing::error!(%error, "the configuration was not reloaded; the one in force stays");
            return;
        }
        self.responder.replace_settings(responder);
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
