//! A responder with a fleet whose answers the test can make itself, of any age: the responder's key was
//! made outside the token and imported into it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use goodstanding::clock::{Clock, SystemClock, UnixTime};
use goodstanding::ocsp::response::SingleExtras;
use goodstanding::ocsp::{
    CertId, CertStatus, Certificate, CrlReason, HashAlgorithm, Issuer, Received, ResponderId, ResponseData,
    Revocation, Serial, SingleResponse, request,
};
use goodstanding::store::sqlite::SqliteStore;
use goodstanding::store::{
    AnswerOutcome, CertificateEntry, CertificateRecord, CertificateState, GuardRecord, IssuerId, NewAnswer,
    ResponderNumber, Shard, Store,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tokio::runtime::Runtime;

use super::ca::{KeyKind, utf8};
use super::command::{run, sh};
use super::faulty::FaultyToken;
use super::http;
use super::site::{ISSUER, KEY_LABEL, Site, TOKEN_LABEL};

/// A key that has no business signing answers.
pub(crate) const OTHER_KEY: &str = "another";

/// The responder, its token behind the module that injects faults, and its store, which the test writes
/// to as another process would.
pub(crate) struct Fleet {
    pub(crate) site: Site,
    pub(crate) faulty: FaultyToken,
    pub(crate) issuer: Issuer,
    runtime: Runtime,
    store: SqliteStore,
    issuer_id: IssuerId,
    responder: ResponderNumber,
    delegate: Certificate,
    key: EcdsaKeyPair,
    next_serial: AtomicU32,
    validity: Duration,
    /// How long certificates that are registered last from then on.
    pub(crate) lifetime: Duration,
}

/// What a client was told, under a signature that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Status {
        status: CertStatus,
        this_update: UnixTime,
        next_update: UnixTime,
        nonce: bool,
    },
    /// An OCSP error, by its name in RFC 6960.
    Error(&'static str),
    /// Nobody answered.
    Nothing(String),
}

impl Fleet {
    /// A fleet whose answers last `validity` by the private preset, and are due at `refresh` at the latest.
    pub(crate) fn new(validity: Duration, refresh: Duration) -> Self {
        let mut site = Site::bare(KeyKind::P256);
        let configuration = site
            .default_configuration()
            .replace("preset = \"web-pki\"", "preset = \"private\"")
            .replace("validity = \"7d\"", &format!("validity = \"{}s\"", validity.as_secs()))
            .replace("refresh = \"3d12h\"", &format!("refresh = \"{}s\"", refresh.as_secs()))
            .replace("[control]", "nonce = \"echo\"\n[control]")
            .replace("sessions = 2", "sessions = 2\ncall_timeout = \"1s\"");
        let faulty = FaultyToken::under(&mut site, &configuration);
        let key = import_key(&site, KEY_LABEL, "01");
        import_key(&site, OTHER_KEY, "02");
        let ca = site.ca.certificate();
        site.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", utf8(&ca)]).ok();
        let csr = site.path("responder.csr");
        site.goodstanding(&["responder", "csr", "--issuer", ISSUER, "--out", utf8(&csr)]).ok();
        site.certify(&csr);
        let made = site.responder_certificate();
        site.goodstanding(&["responder", "install", "--issuer", ISSUER, "--certificate", utf8(&made)]).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(SqliteStore::open(&site.database())).unwrap();
        let issuer_id = runtime.block_on(store.issuers()).unwrap()[0].id;
        let responder = runtime.block_on(store.responders()).unwrap()[0].number;
        Self {
            issuer: Issuer::new(certificate(&ca)),
            delegate: certificate(&made),
            site,
            faulty,
            runtime,
            store,
            issuer_id,
            responder,
            key,
            next_serial: AtomicU32::new(1),
            validity,
            lifetime: Duration::from_secs(30 * 86_400),
        }
    }

    /// A serial number that nobody knows yet.
    pub(crate) fn unregistered(&self) -> Serial {
        let number = self.next_serial.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        Serial::from_unsigned(&[&[0x4a; 12][..], &number].concat()).unwrap()
    }

    /// Registers a certificate, which then waits for its first answer.
    pub(crate) fn register(&self, serial: Serial) {
        self.register_all(&[serial], None);
    }

    fn register_all(&self, serials: &[Serial], not_before: Option<UnixTime>) {
        let not_after = SystemClock.now().plus(self.lifetime);
        let entry =
            |serial: &Serial| CertificateEntry { serial: *serial, not_before, not_after, revocation: None };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        let registered = self.runtime.block_on(self.store.register(self.issuer_id, &entries)).unwrap();
        assert_eq!(registered.added, serials.len() as u64);
    }

    /// Registers certificates that have an answer of this age already.
    pub(crate) fn register_answered(
        &self,
        count: usize,
        age: Duration,
        not_before: Option<UnixTime>,
    ) -> Vec<Serial> {
        let serials: Vec<_> = (0..count).map(|_| self.unregistered()).collect();
        self.register_all(&serials, not_before);
        self.answer_all(serials.iter().map(|serial| self.state(serial).certificate), |_| age);
        serials
    }

    /// Registers a whole fleet, whose answers have the ages that `age` gives by place.
    pub(crate) fn register_fleet(&self, count: usize, age: impl Fn(usize) -> Duration) -> Vec<Serial> {
        let serials: Vec<_> = (0..count).map(|_| self.unregistered()).collect();
        serials.chunks(5_000).for_each(|part| self.register_all(part, None));
        let all = self.states().map(|state| state.certificate);
        self.answer_all(all, age);
        serials
    }

    fn answer_all(&self, records: impl Iterator<Item = CertificateRecord>, age: impl Fn(usize) -> Duration) {
        let now = SystemClock.now();
        let answers: Vec<_> =
            records.enumerate().map(|(at, record)| self.answer(&record, now.minus(age(at)))).collect();
        for part in answers.chunks(5_000) {
            let outcomes = self.runtime.block_on(self.store.store_answers(part, now)).unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == AnswerOutcome::Stored));
        }
    }

    fn answer(&self, record: &CertificateRecord, this_update: UnixTime) -> NewAnswer {
        let next_update = UnixTime(this_update.plus(self.validity).0 - 1);
        let single = |hash| SingleResponse {
            cert_id: self.issuer.cert_id(hash, record.serial),
            status: CertStatus::Good,
            this_update,
            next_update,
            extras: SingleExtras::default(),
        };
        let data = ResponseData {
            responder_id: ResponderId::by_key(&self.delegate),
            produced_at: this_update,
            responses: [HashAlgorithm::Sha1, HashAlgorithm::Sha256].map(single).to_vec(),
            nonce: None,
            extended_revoke: false,
        };
        let response_data = data.encode().unwrap();
        let signature = self.key.sign(&ring::rand::SystemRandom::new(), &response_data).unwrap();
        NewAnswer {
            key: record.key,
            version: record.version,
            responder: self.responder,
            this_update,
            next_update,
            response_data: response_data.into(),
            signature: signature.as_ref().to_vec().into(),
            packed: false,
        }
    }

    /// What the capacity guard has written down.
    pub(crate) fn guard(&self) -> GuardRecord {
        self.runtime.block_on(self.store.guard()).unwrap().unwrap()
    }

    /// Puts another document in its place.
    pub(crate) fn keep_guard(&self, document: &str) {
        let record = GuardRecord { document: document.to_owned(), ..self.guard() };
        self.runtime.block_on(self.store.keep_guard(&record)).unwrap();
    }

    /// Measures the token.
    pub(crate) fn bench(&self, arguments: &[&str]) {
        self.site.goodstanding(&[&["hsm", "bench"], arguments].concat()).ok();
    }

    /// Revokes as another process would.
    pub(crate) fn revoke(&self, serial: Serial) {
        let revocation = Revocation { time: SystemClock.now(), reason: Some(CrlReason::KeyCompromise) };
        self.runtime.block_on(self.store.revoke(self.issuer_id, &[(serial, revocation)])).unwrap();
    }

    pub(crate) fn state(&self, serial: &Serial) -> CertificateState {
        self.runtime.block_on(self.store.certificate(self.issuer_id, serial)).unwrap().unwrap()
    }

    /// Certificates whose stored answer is not of their version, or older than `since`.
    pub(crate) fn unanswered(&self, since: UnixTime) -> Vec<Serial> {
        let answered = |state: &CertificateState| {
            let version = state.certificate.version;
            state
                .answer
                .as_ref()
                .is_some_and(|answer| answer.version == version && answer.this_update >= since)
        };
        self.states().filter(|state| !answered(state)).map(|state| state.certificate.serial).collect()
    }

    /// Every certificate in the store.
    pub(crate) fn states(&self) -> impl Iterator<Item = CertificateState> {
        let now = SystemClock.now();
        let page =
            move |shard, after| self.runtime.block_on(self.store.states(shard, after, 2_000, now)).unwrap();
        Shard::all().flat_map(move |shard| {
            let mut after = 0;
            let pages = std::iter::from_fn(move || {
                let states = page(shard, after);
                after = states.last()?.certificate.key.row;
                Some(states)
            });
            pages.flatten()
        })
    }

    /// Where questions go; for other threads.
    pub(crate) fn asker(&self) -> Asker {
        Asker { issuer: self.issuer.clone(), port: self.site.ocsp }
    }
}

/// Asks as a client does.
#[derive(Clone)]
pub(crate) struct Asker {
    issuer: Issuer,
    port: u16,
}

impl Asker {
    /// What a client is told of a certificate; an error is what no client may see.
    pub(crate) fn ask(&self, serial: Serial, nonce: Option<&[u8]>) -> Result<Told, String> {
        let cert_id: CertId = self.issuer.cert_id(HashAlgorithm::Sha256, serial);
        let question = request::encode(std::slice::from_ref(&cert_id), nonce).unwrap();
        let reply = match http::post(self.port, &question) {
            Ok(reply) if reply.status == 200 => reply,
            Ok(reply) => return Ok(Told::Nothing(format!("HTTP {}", reply.status))),
            Err(error) => return Ok(Told::Nothing(error.to_string())),
        };
        let received = match Received::decode(&reply.body) {
            Ok(received) => received,
            Err(goodstanding::ocsp::response::ResponseError::Status(name)) => return Ok(Told::Error(name)),
            Err(error) => return Err(format!("{serial}: no OCSPResponse: {error}")),
        };
        let signer = received.signer(&self.issuer).ok_or(format!("{serial}: signed by nobody known"))?;
        received.verify(&signer).map_err(|error| format!("{serial}: {error}"))?;
        let single = received.single(&cert_id).ok_or(format!("{serial}: another certificate's answer"))?;
        let now = SystemClock.now();
        let next_update = single.next_update.ok_or(format!("{serial}: no nextUpdate"))?;
        if single.this_update > now || next_update < now {
            return Err(format!("{serial}: from {} to {next_update}, and it is {now}", single.this_update));
        }
        let wanted = nonce.map(<[u8]>::to_vec);
        if received.nonce.is_some() && received.nonce != wanted {
            return Err(format!("{serial}: a nonce that was not asked with"));
        }
        let nonce = received.nonce.is_some();
        Ok(Told::Status { status: single.status, this_update: single.this_update, next_update, nonce })
    }
}

/// Makes a key outside the token and imports it.
fn import_key(site: &Site, label: &str, id: &str) -> EcdsaKeyPair {
    let file = site.path(&format!("{label}.pem"));
    let curve = "ec_paramgen_curve:P-256";
    sh("openssl", &["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", utf8(&file)]).ok();
    let pin = std::fs::read_to_string(site.path("softhsm/pin")).unwrap();
    let mut command = std::process::Command::new("softhsm2-util");
    command.args(["--import", utf8(&file), "--token", TOKEN_LABEL, "--label", label, "--id", id]);
    command.args(["--pin", pin.trim()]).envs(site.environment.iter().cloned());
    run(&mut command).ok();
    let pem = pem::parse(std::fs::read(&file).unwrap()).unwrap();
    let random = ring::rand::SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pem.contents(), &random).unwrap()
}

fn certificate(path: &std::path::Path) -> Certificate {
    Certificate::from_der(pem::parse(std::fs::read(path).unwrap()).unwrap().contents()).unwrap()
}
