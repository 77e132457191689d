//! A keeper that runs in the test's own process.
//!
//! A PKCS#11 module is one a process and reads its configuration from the environment, so the body of
//! each test runs in a process of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use goodstanding::app::App;
use goodstanding::app::settings::Settings;
use goodstanding::clock::{SharedClock, SystemClock, UnixTime};
use goodstanding::config;
use goodstanding::ocsp::{CrlReason, Revocation, Serial};
use goodstanding::presign::desk::Desk;
use goodstanding::presign::identity::Identities;
use goodstanding::presign::keeper::{Keeper, KeeperStats, Signals};
use goodstanding::presign::levers::Levers;
use goodstanding::presign::pipeline::{self, Pipeline};
use goodstanding::presign::{Policies, Policy};
use goodstanding::shelf::{Shelf, Slot};
use goodstanding::shutdown::Shutdown;
use goodstanding::store::{CertificateEntry, CertificateKey, CertificateState, IssuerId, StatusChange};

use crate::support::ca::{KeyKind, utf8};
use crate::support::command::run;
use crate::support::site::{ISSUER, Site};

const INSIDE: &str = "GOODSTANDING_TEST_SITE";

/// Runs the body in a process of its own, with the settings of a fresh installation. `name` is the
/// test's path, as libtest knows it; `prepare` may change the configuration.
pub(super) fn with_site(name: &str, prepare: impl FnOnce(&Site), body: impl AsyncFnOnce(Settings)) {
    if let Some(file) = std::env::var_os(INSIDE) {
        let settings = config::load(&PathBuf::from(file)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(body(settings));
    }
    let site = Site::new(KeyKind::P256);
    prepare(&site);
    let mut inside = Command::new(std::env::current_exe().unwrap());
    inside.args([name, "--exact", "--nocapture"]).env(INSIDE, utf8(&site.path("goodstanding.toml")));
    inside.envs(site.environment.iter().cloned());
    let ran = run(&mut inside).ok();
    println!("{}", ran.transcript());
    assert!(ran.out().contains("1 passed"), "{}", ran.transcript());
}

/// The components of `serve` that sign ahead, over a store and a token.
pub(super) struct Stage {
    pub(super) app: App,
    pub(super) issuer: IssuerId,
    pub(super) identities: Arc<Identities>,
    pub(super) levers: Arc<Levers>,
}

/// A keeper at work.
pub(super) struct Running {
    pub(super) shelf: Arc<Shelf>,
    pub(super) desk: Desk,
    pub(super) stats: Arc<KeeperStats>,
    shutdown: Shutdown,
}

impl Stage {
    pub(super) async fn open(settings: Settings) -> Self {
        Self::open_at(settings, SystemClock::shared()).await
    }

    pub(super) async fn open_at(settings: Settings, clock: SharedClock) -> Self {
        let app = App::open(settings, clock).await.unwrap();
        let problems = app.install_configured().await.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let (identities, problems) = app.identities(&[]).await.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let issuer = app.issuer(ISSUER).await.unwrap().record.id;
        Self { app, issuer, identities: Arc::new(Identities::new(identities)), levers: Arc::default() }
    }

    pub(super) fn now(&self) -> UnixTime {
        self.app.clock.now()
    }

    pub(super) fn pipeline(&self) -> Pipeline {
        Pipeline {
            store: Arc::clone(&self.app.store),
            identities: Arc::clone(&self.identities),
            clock: Arc::clone(&self.app.clock),
            policies: Arc::new(ArcSwap::from_pointee(Policies::new(Policy::new(
                self.app.settings().freshness,
            )))),
            settings: pipeline::Settings::default(),
            levers: Arc::clone(&self.levers),
        }
    }

    /// Registers certificates with these numbers as serial numbers.
    pub(super) async fn register(&self, numbers: impl Iterator<Item = u32>) {
        let now = self.now();
        let entries: Vec<_> = numbers
            .map(|number| CertificateEntry {
                serial: serial(number),
                not_before: Some(now.minus(Duration::from_secs(86_400))),
                not_after: now.plus(Duration::from_secs(90 * 86_400)),
                revocation: None,
            })
            .collect();
        self.app.store.register(self.issuer, &entries).await.unwrap();
    }

    /// Revokes one, by the handle on the store that the keeper has too.
    pub(super) async fn revoke(&self, number: u32) -> CertificateKey {
        let revocation = Revocation { time: self.now(), reason: Some(CrlReason::KeyCompromise) };
        let changes = self.app.store.revoke(self.issuer, &[(serial(number), revocation)]).await.unwrap();
        match &changes[0] {
            StatusChange::Changed(certificate) => certificate.key,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn state(&self, number: u32) -> CertificateState {
        self.app.store.certificate(self.issuer, &serial(number)).await.unwrap().unwrap()
    }

    pub(super) async fn key(&self, number: u32) -> CertificateKey {
        self.state(number).await.certificate.key
    }

    /// Lets go of token and database: a module must not be unloaded while it is used.
    pub(super) async fn close(self) {
        self.identities.replace(Vec::new());
        self.app.close().await;
    }

    pub(super) async fn keep(&self, signs: bool) -> Running {
        let frames = Arc::new(ArcSwap::from_pointee(self.app.frames().await.unwrap()));
        let shelf = Arc::new(Shelf::new());
        let (signals, stats) = (Arc::<Signals>::default(), Arc::<KeeperStats>::default());
        let keeper =
            Keeper::new(self.pipeline(), Arc::clone(&shelf), frames, signals, Arc::clone(&stats), signs);
        let desk = keeper.desk();
        let shutdown = Shutdown::new();
        shutdown.spawn(keeper.run(shutdown.clone()));
        Running { shelf, desk, stats, shutdown }
    }
}

impl Running {
    pub(super) fn slot(&self, stage: &Stage, number: u32) -> Slot {
        self.shelf.get(stage.issuer, &serial(number)).unwrap()
    }

    /// Waits until so many certificates have an answer on the shelf.
    pub(super) async fn until_answered(&self, answers: usize) {
        let waiting = async {
            while self.shelf.answers() < answers {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "{} of {answers} answers", self.shelf.answers());
    }

    pub(super) async fn stop(self) {
        self.shutdown.stop();
        assert!(self.shutdown.drained(Duration::from_secs(30)).await);
    }
}

/// The serial number that stands for a number.
pub(super) fn serial(number: u32) -> Serial {
    let octets = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    Serial::from_unsigned(&[&[0x4d][..], &octets].concat()).unwrap()
}
