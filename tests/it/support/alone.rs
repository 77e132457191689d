//! Tests that run the components in their own process, on a clock that they move.
//!
//! A PKCS#11 module is one a process and reads its configuration from the environment, so the body of
//! each test runs in a process of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use goodstanding::app::App;
use goodstanding::app::serve::{self, Role};
use goodstanding::app::settings::Settings;
use goodstanding::clock::{Clock, ManualClock, SystemClock, UnixTime};
use goodstanding::config;
use goodstanding::ocsp::{Certificate, CrlReason, Issuer, Revocation, Serial};
use goodstanding::shutdown::Shutdown;
use goodstanding::store::CertificateEntry;
use tokio::sync::Notify;

use super::command::run;
use super::site::{ISSUER, Site};

const INSIDE: &str = "GOODSTANDING_TEST_CONFIGURATION";

/// An installation seen from the process of its own that a test's body runs in.
pub(crate) struct Alone {
    /// The folder of the installation.
    pub(crate) folder: PathBuf,
    /// The configuration.
    pub(crate) settings: Settings,
    /// The time: the present at first, and then what the test makes of it.
    pub(crate) clock: Arc<ManualClock>,
    /// The components.
    pub(crate) app: Arc<App>,
    /// The authority.
    pub(crate) issuer: Issuer,
}

/// Prepares an installation, and runs the body in a process of its own. `name` is the test's path, as
/// libtest knows it.
pub(crate) fn alone(name: &str, prepare: impl FnOnce() -> Site, body: impl AsyncFnOnce(Arc<Alone>)) {
    if let Some(file) = std::env::var_os(INSIDE) {
        let file = PathBuf::from(file);
        let settings = config::load(&file).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(SystemClock.now()));
            let app = Arc::new(App::open(settings.clone(), clock.clone()).await.unwrap());
            let der = app.issuer(ISSUER).await.unwrap().record.certificate;
            let issuer = Issuer::new(Certificate::from_der(&der).unwrap());
            let folder = file.parent().unwrap().to_owned();
            body(Arc::new(Alone { folder, settings, clock, app, issuer })).await;
        });
    }
    let site = prepare();
    let mut inside = Command::new(std::env::current_exe().unwrap());
    inside.args([name, "--exact", "--nocapture"]).env(INSIDE, site.path("goodstanding.toml"));
    let ran = run(inside.envs(site.environment.iter().cloned())).ok();
    assert!(ran.out().contains("1 passed"), "{}", ran.transcript());
}

impl Alone {
    /// Registers so many certificates that last 90 days from yesterday on; every tenth is revoked.
    pub(crate) async fn register(&self, count: u8) -> Vec<Serial> {
        let now = self.clock.now();
        let day = Duration::from_secs(86_400);
        let serials: Vec<_> =
            (0..count).map(|number| Serial::from_unsigned(&[0x4d, number, 0x77]).unwrap()).collect();
        let entries: Vec<_> = serials
            .iter()
            .enumerate()
            .map(|(number, serial)| CertificateEntry {
                serial: *serial,
                not_before: Some(now.minus(day)),
                not_after: now.plus(90 * day),
                revocation: number.is_multiple_of(10).then_some(Revocation {
                    time: UnixTime(now.0 - 3_600),
                    reason: Some(CrlReason::Superseded),
                }),
            })
            .collect();
        let issuer = self.app.issuer(ISSUER).await.unwrap().record.id;
        self.app.store.register(issuer, &entries).await.unwrap();
        serials
    }

    /// The port of the OCSP listener.
    pub(crate) fn ocsp(&self) -> u16 {
        self.settings.endpoint.listen[0].port()
    }

    /// The port of the control listener.
    pub(crate) fn control(&self) -> u16 {
        self.settings.control.listen.port()
    }

    /// Serves in all roles while `meanwhile` runs, on a thread of its own.
    pub(crate) async fn serve(self: &Arc<Self>, meanwhile: impl FnOnce(&Arc<Self>) + Send + 'static) {
        struct Stops(Shutdown);
        impl Drop for Stops {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let shutdown = Shutdown::new();
        let (settings, hangup) = (self.settings.clone(), Arc::new(Notify::new()));
        let roles: BTreeSet<_> = [Role::Ocsp, Role::Signer, Role::Control].into();
        let reload = move || Ok(settings.clone());
        let serving = serve::serve(Arc::clone(&self.app), roles, shutdown.clone(), hangup, reload, |_| {});
        let (stops, alone) = (Stops(shutdown.clone()), Arc::clone(self));
        let driving = tokio::task::spawn_blocking(move || {
            let _stops = stops;
            meanwhile(&alone);
        });
        let (served, drove) = tokio::join!(serving, driving);
        drove.unwrap();
        served.unwrap();
    }
}
