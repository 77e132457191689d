//! The batch job: what it leaves behind when it is killed, and what it does not do twice.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use goodstanding::clock::{Clock, SystemClock, UnixTime};
use goodstanding::ocsp::{Certificate, Serial, SignatureAlgorithm};
use goodstanding::store::sqlite::SqliteStore;
use goodstanding::store::{CertificateState, Shard, Store};

use crate::support::ca::{KeyKind, utf8};
use crate::support::eventually;
use crate::support::site::{ISSUER, Site};

const FLEET: usize = 10_000;

/// Answers a second while it is killed: slow enough that ten runs cannot finish the fleet.
const RATE: &str = "max_rate = 1500";

#[test]
fn ten_kills_leave_exactly_one_fresh_verified_answer_a_certificate() {
    let site = Site::new(KeyKind::P256);
    import_fleet(&site, FLEET);
    let token = TokenFiles::keep(&site);
    site.reconfigure("sessions = 2", &format!("sessions = 2\n{RATE}"));
    for number in 0..10 {
        let mut presign = Presign::start(&site);
        // Half of them die anywhere from their first instruction on, half while they sign.
        if number % 2 == 1 {
            let stored = answered(&site);
            eventually("new answers", Duration::from_secs(60), || {
                presign.must_run();
                (answered(&site) > stored).then_some(())
            });
        }
        std::thread::sleep(random_span());
        presign.kill();
        token.restore();
    }
    site.configure(&site.default_configuration());
    let before = answers(&site).len();
    assert!((1..FLEET).contains(&before), "the kills interrupted nothing: {before} answers are stored");
    let report = site.json(&["presign"]);
    // What was stored before a kill is not signed again.
    assert_eq!(report["signed"].as_u64().unwrap() as usize, FLEET - before, "{report}");

    let now = SystemClock.now();
    let delegate = Certificate::from_der(&pem_to_der(&site)).unwrap();
    let states = answers(&site);
    let serials: BTreeSet<Serial> = states.iter().map(|state| state.certificate.serial).collect();
    assert_eq!((states.len(), serials.len()), (FLEET, FLEET));
    for state in &states {
        check(state, &delegate, now);
    }

    // And there is nothing left to do.
    let report = site.json(&["presign"]);
    assert_eq!(report["signed"], 0, "{report}");
}

/// The answer is for this certificate, fresh, and its signature verifies.
fn check(state: &CertificateState, delegate: &Certificate, now: UnixTime) {
    let answer = state.answer.as_ref().unwrap();
    assert_eq!(answer.version, state.certificate.version);
    assert!(answer.this_update <= now && now < answer.next_update);
    SignatureAlgorithm::EcdsaP256Sha256
        .verify(delegate.public_key(), &answer.response_data, &answer.signature)
        .unwrap();
    let data: rasn_ocsp::ResponseData = rasn::der::decode(&answer.response_data).unwrap();
    for single in &data.responses {
        assert_eq!(single.cert_id.serial_number.to_string(), decimal(&state.certificate.serial));
        assert_eq!(single.cert_status, rasn_ocsp::CertStatus::Good);
        assert_eq!(UnixTime::from(single.this_update), answer.this_update);
        assert_eq!(single.next_update.map(UnixTime::from), Some(answer.next_update));
    }
    assert_eq!(data.responses.len(), 2, "the SHA-1 and SHA-256 pair");
}

/// A serial number as decimals; the fleet's are positive and of at most 16 octets.
fn decimal(serial: &Serial) -> String {
    let octets = serial.as_der_content();
    octets.iter().fold(0_u128, |number, octet| number << 8 | u128::from(*octet)).to_string()
}

/// Imports an OpenSSL index of that many good certificates.
fn import_fleet(site: &Site, size: usize) {
    let mut index = String::new();
    for number in 0..size {
        writeln!(
            index,
            "V\t301231235959Z\t\t{:032X}\tunknown\t/CN=host-{number}",
            (1_u128 << 120) + number as u128
        )
        .unwrap();
    }
    let file = site.path("fleet.txt");
    fs::write(&file, index).unwrap();
    let imported = site.json(&["import", "index", utf8(&file), "--issuer", ISSUER]);
    assert_eq!(imported["added"].as_u64().unwrap() as usize, size, "{imported}");
}

/// A running `presign`.
struct Presign {
    child: Child,
    log: PathBuf,
}

impl Presign {
    fn start(site: &Site) -> Self {
        let log = site.path("presign.log");
        let output = File::create(&log).unwrap();
        let mut command = site.command();
        command.arg("presign").stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        Self { child: command.spawn().unwrap(), log }
    }

    fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("presign ended by itself: {status}\n{}", fs::read_to_string(&self.log).unwrap());
        }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.must_run();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The token as it was before anybody was killed. SoftHSM 2.6.1 rewrites its token file in place at
/// each login, and a process killed just then leaves it empty; no HSM loses its keys that way.
struct TokenFiles(Vec<(PathBuf, Vec<u8>)>);

impl TokenFiles {
    fn keep(site: &Site) -> Self {
        let folders = fs::read_dir(site.path("softhsm/tokens")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let paths = files.map(|file| file.unwrap().path());
        Self(paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect())
    }

    fn restore(&self) {
        for (path, octets) in &self.0 {
            fs::write(path, octets).unwrap();
        }
    }
}

fn random_span() -> Duration {
    Duration::from_millis(RandomState::new().hash_one(0) % 400)
}

/// How many certificates have a current answer.
fn answered(site: &Site) -> u64 {
    with_store(site, async |store| {
        let issuer = store.issuers().await.unwrap().remove(0);
        store.counts(issuer.id, SystemClock.now()).await.unwrap().answered
    })
}

/// Every certificate that has an answer, read from the database itself.
fn answers(site: &Site) -> Vec<CertificateState> {
    with_store(site, async |store| {
        let now = SystemClock.now();
        let mut answered = Vec::new();
        for shard in Shard::all() {
            let mut after = 0;
            loop {
                let page = store.states(shard, after, 1_000, now).await.unwrap();
                let Some(last) = page.last() else { break };
                after = last.certificate.key.row;
                answered.extend(page.into_iter().filter(|state| state.answer.is_some()));
            }
        }
        answered
    })
}

fn with_store<T>(site: &Site, work: impl AsyncFnOnce(&SqliteStore) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&site.database()).await.unwrap();
        let result = work(&store).await;
        store.close().await;
        result
    })
}

fn pem_to_der(site: &Site) -> Vec<u8> {
    let file = site.responder_certificate();
    crate::support::command::sh("openssl", &["x509", "-in", utf8(&file), "-outform", "DER"]).ok().stdout
}
