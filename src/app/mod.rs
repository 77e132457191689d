//! Builds the components from the settings and joins them; owns the order of their end.

mod audit;
mod engine_figures;
pub mod files;
pub mod guard;
mod limits;
mod metrics;
pub mod rotation;
pub mod serve;
pub mod settings;
mod situation;
mod token_metrics;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OnceCell;

use self::files::FileError;
use self::settings::{IssuerSettings, ResponderSettings, Settings};
use crate::clock::{SharedClock, UnixTime};
use crate::limits::{LimitsError, ProfileError};
use crate::ocsp::delegation::{Delegation, DelegationError};
use crate::ocsp::{Certificate, CertificateError, Issuer, ResponderId, SignatureAlgorithm};
use crate::presign::identity::{Health, Identity};
use crate::presign::{Frames, Policies, Policy};
use crate::responder::ResponderIdForm;
use crate::server::control::ControlError;
use crate::server::ocsp::EndpointError;
use crate::shelf::Frame;
use crate::signer::{self, KeyReference, Signer, SignerError};
use crate::store::{
    self, IssuerId, IssuerRecord, NewResponder, ResponderNumber, ResponderRecord, Store, StoreError,
};

/// How long signatures under way may take at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why a component could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A token.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// No issuer of that name.
    #[error(
        "there is no issuer named {name:?}; known are: {known}. Add it with `goodstanding issuer add` or an [[issuer]] in the configuration"
    )]
    NoIssuer {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The CA is known by another name.
    #[error(
        "the certificate {place} for the issuer {name:?} has the name and key of the issuer {known:?}, which is the same CA: use that name"
    )]
    SameIssuer {
        /// The name asked for.
        name: String,
        /// Where the certificate came from.
        place: String,
        /// The name it is known by.
        known: String,
    },
    /// No token of that name.
    #[error("there is no [[token]] named {name:?} in the configuration; known are: {known}")]
    NoToken {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A certificate does not read.
    #[error("{what}: {error}")]
    Certificate {
        /// Whose certificate, and where it came from.
        what: String,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate may not sign for its issuer.
    #[error("the responder certificate {certificate} cannot sign for the issuer {issuer:?}: {error}")]
    Delegation {
        /// The issuer's name.
        issuer: String,
        /// The file, or the subject.
        certificate: String,
        /// The rule.
        error: DelegationError,
    },
    /// A stored record does not read.
    #[error("responder {number} of the issuer {issuer:?} in the store: {what}")]
    Record {
        /// Its number.
        number: i64,
        /// The issuer's name.
        issuer: String,
        /// What is wrong.
        what: String,
    },
    /// The loop that keeps answers fresh ended.
    #[error(
        "the keeper ended on its own: revocations would no longer be followed, so everything was stopped; the log before this says why"
    )]
    KeeperEnded,
    /// The OCSP endpoint cannot be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The limits profile.
    #[error(transparent)]
    LimitsProfile(#[from] ProfileError),
    /// The limiter.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The control listener cannot be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A store, tokens and the settings: what every command starts from.
pub struct App {
    settings: ArcSwap<Settings>,
    /// The time.
    pub clock: SharedClock,
    /// The store.
    pub store: Arc<dyn Store>,
    /// By name; each is started once, and none waits for another.
    signers: Mutex<HashMap<String, Arc<OnceCell<Signer>>>>,
    patient: AtomicBool,
    /// The further places of keys that are on several tokens, as configured.
    clones: Mutex<HashMap<ResponderNumber, Vec<Place>>>,
}

/// Where a responder's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    token: String,
    key: String,
}

/// An issuer as the store has it, read.
#[derive(Clone, Debug)]
pub struct KnownIssuer {
    /// The record.
    pub record: IssuerRecord,
    /// Its certificate and digests.
    pub issuer: Arc<Issuer>,
}

/// An installed responder, with its certificate judged now.
#[derive(Debug)]
pub struct KnownResponder {
    /// The record.
    pub record: ResponderRecord,
    /// Its issuer.
    pub issuer: KnownIssuer,
    /// Its certificate.
    pub certificate: Certificate,
    /// Whether it may sign.
    pub delegation: Result<Delegation, DelegationError>,
}

impl App {
    /// Opens the store and enters the configured issuers into it. No token is touched.
    ///
    /// # Errors
    /// [`AppError`] for a store that does not open or an issuer whose certificate does not read.
    pub async fn open(settings: Settings, clock: SharedClock) -> Result<Self, AppError> {
        let store = store::open(&settings.store_url).await?;
        let app = Self {
            settings: ArcSwap::from_pointee(settings),
            clock,
            store,
            signers: Mutex::default(),
            patient: AtomicBool::new(false),
            clones: Mutex::default(),
        };
        app.enter_issuers(&app.settings()).await?;
        Ok(app)
    }

    /// The settings now in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Puts other settings in force, once their issuers are entered. The store stays open as it is.
    ///
    /// # Errors
    /// As [`App::open`]; the present settings stay in force then.
    pub async fn replace_settings(&self, settings: Settings) -> Result<(), AppError> {
        self.enter_issuers(&settings).await?;
        self.settings.store(Arc::new(settings));
        Ok(())
    }

    async fn enter_issuers(&self, settings: &Settings) -> Result<(), AppError> {
        for issuer in &settings.issuers {
            let der = files::read_certificate(&issuer.certificate)?;
            self.add_issuer(&issuer.name, &der, &issuer.certificate.display().to_string()).await?;
        }
        Ok(())
    }

    /// Adds an issuer whose certificate came from `place`.
    ///
    /// # Errors
    /// [`AppError::Certificate`], [`AppError::Store`].
    pub async fn add_issuer(&self, name: &str, der: &[u8], place: &str) -> Result<KnownIssuer, AppError> {
        let issuer = Issuer::from_der(der).map_err(|error| AppError::Certificate {
            what: format!("the certificate of the issuer {name:?} ({place})"),
            error,
        })?;
        // A renewed or cross-signed certificate of the same name and key is the same issuer to every
        // CertID, so it is known already: under this name, or under one that must not be doubled.
        let same = |known: &KnownIssuer| {
            known.issuer.certificate().subject_name() == issuer.certificate().subject_name()
                && known.issuer.certificate().public_key() == issuer.certificate().public_key()
        };
        if let Some(known) = self.issuers().await?.into_iter().find(same) {
            if known.record.name == name {
                return Ok(known);
            }
            return Err(AppError::SameIssuer {
                name: name.to_owned(),
                place: place.to_owned(),
                known: known.record.name,
            });
        }
        let record = self.store.add_issuer(name, der).await?;
        Ok(KnownIssuer { record, issuer: Arc::new(issuer) })
    }

    /// Every issuer.
    ///
    /// # Errors
    /// [`AppError::Store`], [`AppError::Certificate`].
    pub async fn issuers(&self) -> Result<Vec<KnownIssuer>, AppError> {
        let read = |record: IssuerRecord| match Issuer::from_der(&record.certificate) {
            Ok(issuer) => Ok(KnownIssuer { issuer: Arc::new(issuer), record }),
            Err(error) => Err(AppError::Certificate {
                what: format!("the stored certificate of the issuer {:?}", record.name),
                error,
            }),
        };
        self.store.issuers().await?.into_iter().map(read).collect()
    }

    /// The issuer of that name.
    ///
    /// # Errors
    /// [`AppError::NoIssuer`] with the names there are.
    pub async fn issuer(&self, name: &str) -> Result<KnownIssuer, AppError> {
        let issuers = self.issuers().await?;
        let known = issuers.iter().map(|issuer| issuer.record.name.clone()).collect::<Vec<_>>().join(", ");
        issuers
            .into_iter()
            .find(|issuer| issuer.record.name == name)
            .ok_or_else(|| AppError::NoIssuer { name: name.to_owned(), known })
    }

    /// The configured issuer of that name.
    #[must_use]
    pub fn issuer_settings(&self, name: &str) -> Option<IssuerSettings> {
        self.settings().issuers.iter().find(|issuer| issuer.name == name).cloned()
    }

    /// The settings of a token.
    ///
    /// # Errors
    /// [`AppError::NoToken`] with the names there are.
    pub fn token(&self, name: &str) -> Result<signer::Settings, AppError> {
        let settings = self.settings();
        let found = settings.tokens.iter().find(|token| token.name == name).cloned();
        found.ok_or_else(|| AppError::NoToken {
            name: name.to_owned(),
            known: settings.tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// From now on a token that is away is waited for in the background, instead of failing whoever
    /// asks for its signer.
    pub fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// The signer of a token, started at the first call.
    ///
    /// # Errors
    /// [`AppError::NoToken`], [`AppError::Signer`].
    pub async fn signer(&self, token: &str) -> Result<Signer, AppError> {
        let settings = self.token(token)?;
        let cell = Arc::clone(lock(&self.signers).entry(token.to_owned()).or_default());
        let start = || async {
            if self.patient.load(Ordering::Relaxed) {
                Signer::start_patiently(settings).await
            } else {
                Signer::start(settings).await
            }
        };
        Ok(cell.get_or_try_init(start).await?.clone())
    }

    /// The signers that are running.
    #[must_use]
    pub fn running_signers(&self) -> Vec<Signer> {
        let mut running: Vec<_> =
            lock(&self.signers).values().filter_map(|cell| cell.get().cloned()).collect();
        running.sort_by(|one, other| one.token().cmp(other.token()));
        running
    }

    /// Installs a responder for an issuer after checking its certificate against every rule.
    ///
    /// # Errors
    /// [`AppError::Delegation`] naming the rule.
    pub async fn install(
        &self,
        issuer: &KnownIssuer,
        responder: &ResponderSettings,
    ) -> Result<KnownResponder, AppError> {
        self.token(&responder.token)?;
        let place = responder.certificate.display().to_string();
        let der = files::read_certificate(&responder.certificate)?;
        let certificate = Certificate::from_der(&der).map_err(|error| AppError::Certificate {
            what: format!("the responder certificate {place}"),
            error,
        })?;
        let refuse = |error| AppError::Delegation {
            issuer: issuer.record.name.clone(),
            certificate: place.clone(),
            error,
        };
        let now = self.clock.now();
        let delegation = Delegation::check(&issuer.issuer, certificate.clone(), now).map_err(refuse)?;
        let algorithm = delegation.signature_algorithm(responder.algorithm).map_err(refuse)?;
        let new = NewResponder {
            issuer: issuer.record.id,
            token: responder.token.clone(),
            key: responder.key.to_string(),
            algorithm: algorithm.to_string(),
            certificate: der,
            not_after: certificate.not_after(),
            from: responder.from,
        };
        let record = self.store.add_responder(&new, now).await?;
        Ok(KnownResponder { record, issuer: issuer.clone(), certificate, delegation: Ok(delegation) })
    }

    /// Installs the configured responders whose certificate is there. One whose certificate another
    /// of the same issuer has is that one, with its key on one more token. Returns what is wrong with
    /// the others.
    ///
    /// # Errors
    /// [`AppError::Store`]; what concerns one responder only is in the list.
    pub async fn install_configured(&self) -> Result<Vec<AppError>, AppError> {
        let mut problems = Vec::new();
        let mut clones: HashMap<ResponderNumber, Vec<Place>> = HashMap::new();
        for settings in &self.settings().issuers {
            let issuer = self.issuer(&settings.name).await?;
            let mut installed = HashMap::new();
            for responder in &settings.responders {
                let identity = files::read_certificate(&responder.certificate).ok();
                let identity = identity.map(|der| (der, responder.algorithm));
                if let Some(number) = identity.as_ref().and_then(|identity| installed.get(identity)) {
                    let place = Place { token: responder.token.clone(), key: responder.key.to_string() };
                    clones.entry(*number).or_default().push(place);
                    continue;
                }
                match self.install(&issuer, responder).await {
                    Ok(known) => {
                        installed.extend(identity.map(|identity| (identity, known.record.number)));
                    }
                    Err(AppError::Store(error)) => return Err(error.into()),
                    Err(error) => problems.push(error),
                }
            }
        }
        *lock(&self.clones) = clones;
        Ok(problems)
    }

    /// Every installed responder in order of preference: those that take over at a chosen time, the
    /// latest first, then the configured ones in the configured order, then those installed last.
    ///
    /// # Errors
    /// [`AppError::Store`], [`AppError::Certificate`].
    pub async fn responders(&self) -> Result<Vec<KnownResponder>, AppError> {
        let issuers: HashMap<IssuerId, KnownIssuer> =
            self.issuers().await?.into_iter().map(|issuer| (issuer.record.id, issuer)).collect();
        let mut responders = Vec::new();
        for record in self.store.responders().await? {
            let Some(issuer) = issuers.get(&record.responder.issuer).cloned() else { continue };
            let certificate = Certificate::from_der(&record.responder.certificate).map_err(|error| {
                AppError::Certificate {
                    what: format!("the stored responder certificate {}", record.number.0),
                    error,
                }
            })?;
            let delegation = Delegation::check(&issuer.issuer, certificate.clone(), self.clock.now());
            responders.push(KnownResponder { record, issuer, certificate, delegation });
        }
        // Of several certificates for one key, the one installed last signs.
        responders.sort_by_key(|responder| {
            let record = &responder.record;
            (Reverse(record.responder.from), self.preference(responder), Reverse(record.number))
        });
        Ok(responders)
    }

    /// The place of a responder in its issuer's configuration; the end for one that is only in the
    /// store.
    fn preference(&self, responder: &KnownResponder) -> usize {
        let settings = self.issuer_settings(&responder.issuer.record.name);
        let configured = settings.map_or_else(Vec::new, |settings| settings.responders);
        let new = &responder.record.responder;
        let is = |each: &ResponderSettings| each.token == new.token && each.key.to_string() == new.key;
        configured.iter().position(is).unwrap_or(usize::MAX)
    }

    /// What the answers of each issuer are held to.
    ///
    /// # Errors
    /// [`AppError::Store`].
    pub async fn policies(&self) -> Result<Policies, AppError> {
        let settings = self.settings();
        let mut policies = Policies::new(Policy::new(settings.freshness));
        for record in self.store.issuers().await? {
            if let Some(own) = settings.issuers.iter().find(|own| own.name == record.name) {
                let freshness = own.freshness.unwrap_or(settings.freshness);
                policies.set(record.id, Policy { freshness, history: own.history });
            }
        }
        for responder in self.store.responders().await? {
            if responder.retired_at.is_some() {
                policies.retire(responder.number);
            }
        }
        Ok(policies)
    }

    /// What stands around the answers of each responder ever installed.
    ///
    /// # Errors
    /// As [`App::responders`].
    pub async fn frames(&self) -> Result<Frames, AppError> {
        let responders = self.responders().await?;
        responders
            .iter()
            .map(|responder| Ok((responder.record.number, Arc::new(frame(responder)?))))
            .collect()
    }

    /// Makes the installed responders ready to sign: their tokens are started and their keys found
    /// and tried, unless they are among those `ready` already. Returns what is wrong with those that
    /// are not.
    ///
    /// # Errors
    /// As [`App::responders`].
    pub async fn identities(
        &self,
        ready: &[Arc<Identity>],
    ) -> Result<(Vec<Identity>, Vec<AppError>), AppError> {
        self.identities_one_by_one(ready, |_| {}).await
    }

    /// As [`App::identities`]; all tokens at once, so that one that hangs holds nobody up: `so_far` is
    /// told those that can be used whenever there is one more.
    ///
    /// # Errors
    /// As [`App::responders`].
    pub async fn identities_one_by_one(
        &self,
        ready: &[Arc<Identity>],
        mut so_far: impl FnMut(Vec<Identity>),
    ) -> Result<(Vec<Identity>, Vec<AppError>), AppError> {
        let responders = self.responders().await?;
        let standing = |responder: &KnownResponder| {
            (responder.record.responder.clone(), self.preference(responder) < usize::MAX)
        };
        let ranks = rotation::ranks(&responders.iter().map(standing).collect::<Vec<_>>());
        let mut slots: Vec<Option<Identity>> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        for (responder, rank) in responders.iter().zip(ranks) {
            let ended = matches!(responder.delegation, Err(DelegationError::Ended(_)));
            if ended || responder.record.retired_at.is_some() {
                // The way of all responders; one that nothing replaced is missed by who needs it.
                continue;
            }
            for place in self.places(responder) {
                let known = ready.iter().find(|identity| {
                    identity.responder == responder.record.number && identity.signer.token() == place.token
                });
                let slot = slots.len();
                slots.push(known.map(|known| Identity::clone(known)));
                under_way.push(async move { (slot, self.identity(responder, &place, rank, known).await) });
            }
        }
        let mut problems = Vec::new();
        while let Some((slot, outcome)) = under_way.next().await {
            match outcome {
                Ok(identity) => slots[slot] = Some(identity),
                Err(error) => {
                    slots[slot] = None;
                    problems.push(error);
                }
            }
            so_far(slots.iter().flatten().cloned().collect());
        }
        Ok((slots.into_iter().flatten().collect(), problems))
    }

    /// Where a responder's key is: what the store remembers, and the other places as configured.
    fn places(&self, responder: &KnownResponder) -> Vec<Place> {
        let new = &responder.record.responder;
        let mut places = vec![Place { token: new.token.clone(), key: new.key.clone() }];
        let clones = lock(&self.clones).get(&responder.record.number).cloned().unwrap_or_default();
        places.extend(clones.into_iter().filter(|clone| clone.token != new.token));
        places
    }

    async fn identity(
        &self,
        responder: &KnownResponder,
        place: &Place,
        rank: usize,
        known: Option<&Arc<Identity>>,
    ) -> Result<Identity, AppError> {
        let name = &responder.issuer.record.name;
        if let Err(error) = &responder.delegation {
            let certificate =
                format!("number {} ({})", responder.record.number.0, responder.certificate.subject());
            return Err(AppError::Delegation { issuer: name.clone(), certificate, error: error.clone() });
        }
        let frame = frame(responder)?;
        let reference: KeyReference = place.key.parse().map_err(|error| record_error(responder, error))?;
        let same = |known: &&Arc<Identity>| {
            known.signer.token() == place.token
                && *known.key.reference() == reference
                && known.key.algorithm() == frame.algorithm
        };
        let known = known.filter(same);
        let (signer, key) = match known {
            Some(known) => (known.signer.clone(), known.key.clone()),
            None => {
                let signer = self.signer(&place.token).await?;
                let public_key = responder.certificate.public_key().to_vec();
                let key = signer.prepare_key(reference, frame.algorithm, public_key).await?;
                (signer, key)
            }
        };
        let certificate = &responder.certificate;
        let own = self.issuer_settings(name);
        Ok(Identity {
            issuer: Arc::clone(&responder.issuer.issuer),
            issuer_id: responder.issuer.record.id,
            responder: responder.record.number,
            responder_id: match self.settings().responder_id {
                ResponderIdForm::ByKey => ResponderId::by_key(certificate),
                ResponderIdForm::ByName => ResponderId::by_name(certificate),
            },
            frame: Arc::new(frame),
            not_before: certificate
                .not_before()
                .max(responder.record.responder.from.unwrap_or(UnixTime::EPOCH)),
            not_after: certificate.not_after(),
            rank,
            crl_url: own.as_ref().and_then(|own| own.crl_url.as_deref().map(Arc::from)),
            history: own.as_ref().map_or(Duration::ZERO, |own| own.history),
            cert_id_hashes: own.map_or_else(IssuerSettings::default_hashes, |own| own.cert_id_hashes),
            signer,
            key,
            health: known.map_or_else(Health::default, |known| known.health.clone()),
        })
    }

    /// Lets go of the tokens and the store.
    pub async fn close(&self) {
        let signers: Vec<_> =
            lock(&self.signers).drain().filter_map(|(_, cell)| cell.get().cloned()).collect();
        let stopping = signers.iter().map(|signer| async move {
            if !signer.stop(STOP_PATIENCE).await {
                tracing::warn!(
                    token = signer.token(),
                    "a call into the module has not come back; leaving it behind"
                );
            }
        });
        futures_util::future::join_all(stopping).await;
        self.store.close().await;
    }
}

/// A lock whose holder panicked is still a lock: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frame(responder: &KnownResponder) -> Result<Frame, AppError> {
    let algorithm: SignatureAlgorithm =
        responder.record.responder.algorithm.parse().map_err(|error| record_error(responder, error))?;
    let own = responder.certificate.public_key() == responder.issuer.issuer.certificate().public_key();
    Ok(Frame { algorithm, certificate: (!own).then(|| responder.certificate.der().to_vec()) })
}

fn record_error(responder: &KnownResponder, what: impl std::fmt::Display) -> AppError {
    AppError::Record {
        number: responder.record.number.0,
        issuer: responder.issuer.record.name.clone(),
        what: what.to_string(),
    }
}
