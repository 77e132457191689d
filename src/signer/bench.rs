//! What a token carries: signatures a second by algorithm and sessions, through the pool and beside it.
//!
//! The raw rate is that of the same number of sessions in bare loops, without queue, verification or
//! anything else, in the same run: slices of both take turns, in alternating order, and medians count,
//! because machines and HSMs have other things to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::admin::{Lifetime, generate, read_public_key};
use super::error::SignerError;
use super::handle::Signer;
use super::key::{KeyReference, PreparedKey};
use super::lane::{Lane, Order};
use super::mechanism::Scheme;
use super::module::Module;
use super::settings::Settings;
use super::spki::PublicKey;
use super::stats::Histogram;
use super::token::{Access, Connection};
use crate::clock::Stopwatch;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

pub use super::chart::svg;

/// What is signed: about as much as the ResponseData of one answer.
const MESSAGE_OCTETS: usize = 250;

/// Which key signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A key pair made for the occasion, in the session: it is gone afterwards.
    Fresh(KeyAlgorithm),
    /// A key that is there, with its public key object.
    Existing(KeyReference),
}

/// What to measure. Takes about `subjects × sessions × slices × 4 × slice`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The keys.
    pub subjects: Vec<Subject>,
    /// How they sign; none for each key's default.
    pub algorithm: Option<SignatureAlgorithm>,
    /// Numbers of sessions.
    pub sessions: Vec<u16>,
    /// Slices of each kind; medians want an odd number, at least 3.
    pub slices: u32,
    /// How long one slice takes.
    pub slice: Duration,
}

/// What one algorithm did with so many sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Kind and size of the key.
    pub key: KeyAlgorithm,
    /// How it signed.
    pub algorithm: SignatureAlgorithm,
    /// Sessions used at once.
    pub sessions: u16,
    /// Signatures a second of bare loops.
    pub raw_rate: f64,
    /// Signatures a second through the pool, every one verified.
    pub rate: f64,
    /// Signatures a second through the pool, none verified. Never used for answers.
    pub unverified_rate: f64,
    /// Median time from request to verified signature, one request a session.
    pub p50: Duration,
    /// 99th percentile of the same.
    pub p99: Duration,
}

impl Measurement {
    /// The share of the raw rate that goes through the pool, with verification.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.raw_rate > 0.0 { self.rate / self.raw_rate } else { 0.0 }
    }
}

/// How far the measuring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Slices done.
    pub done: u32,
    /// Slices in all.
    pub of: u32,
    /// What is being measured.
    pub key: KeyAlgorithm,
    /// With so many sessions.
    pub sessions: u16,
}

#[derive(Clone, Copy)]
enum Kind {
    Raw,
    Verified,
    Unverified,
    Single,
}

/// Measures. The token's cap (`max_rate`) does not apply: do it when others can spare the token.
///
/// # Errors
/// As for starting a signer and preparing keys; an algorithm that the token cannot do is an error too,
/// see [`super::admin::list_tokens`].
pub async fn run(
    settings: &Settings,
    plan: &Plan,
    progress: impl Fn(Progress) + Send,
) -> Result<Vec<Measurement>, SignerError> {
    let mut results = Vec::new();
    let slices = plan.slices.max(1);
    let cells = u32::try_from(plan.subjects.len() * plan.sessions.len()).unwrap_or(u32::MAX);
    let of = cells.saturating_mul(slices).saturating_mul(4);
    let mut done = 0;
    for subject in &plan.subjects {
        let stage = Stage::set(settings, subject, plan.algorithm).await?;
        for sessions in &plan.sessions {
            let (mut raw, mut verified, mut unverified) = (Vec::new(), Vec::new(), Vec::new());
            let times = Histogram::default();
            for slice in 0..slices {
                let mut kinds = [Kind::Raw, Kind::Verified, Kind::Unverified, Kind::Single];
                if slice % 2 == 1 {
                    kinds.reverse();
                }
                for kind in kinds {
                    progress(Progress { done, of, key: stage.public.algorithm, sessions: *sessions });
                    match kind {
                        Kind::Raw => raw.push(stage.raw(*sessions, plan.slice).await?),
                        Kind::Verified => verified.push(stage.pooled(*sessions, plan.slice, true).await?),
                        Kind::Unverified => {
                            unverified.push(stage.pooled(*sessions, plan.slice, false).await?);
                        }
                        Kind::Single => stage.single(*sessions, plan.slice, &times).await?,
                    }
                    done += 1;
                }
            }
            let times = times.summary();
            results.push(Measurement {
                key: stage.public.algorithm,
                algorithm: stage.algorithm,
                sessions: *sessions,
                raw_rate: median(&mut raw),
                rate: median(&mut verified),
                unverified_rate: median(&mut unverified),
                p50: times.p50,
                p99: times.p99,
            });
        }
        stage.strike().await;
    }
    Ok(results)
}

/// Signatures a second of bare loops with a key that is there, as [`Measurement::raw_rate`]: the yardstick
/// alone, for measurements of more than the pool. The token's cap does not apply.
///
/// # Errors
/// As [`run`].
pub async fn raw_rate(
    settings: &Settings,
    key: &KeyReference,
    sessions: u16,
    slice: Duration,
) -> Result<f64, SignerError> {
    let stage = Stage::set(settings, &Subject::Existing(key.clone()), None).await?;
    let rate = stage.raw(sessions, slice).await;
    stage.strike().await;
    rate
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// One key, ready to be measured.
struct Stage {
    settings: Settings,
    reference: KeyReference,
    public: PublicKey,
    algorithm: SignatureAlgorithm,
    /// The session that a fresh key pair lives in.
    home: Connection,
    // Declared, and so dropped, last.
    using: super::module::ModuleUse,
}

async fn blocking<T: Send + 'static>(
    token: &str,
    body: impl FnOnce() -> Result<T, SignerError> + Send + 'static,
) -> Result<T, SignerError> {
    tokio::task::spawn_blocking(body).await.unwrap_or_else(|error| {
        Err(SignerError::Settings {
            token: token.to_owned(),
            what: format!("a measuring thread failed: {error}"),
        })
    })
}

impl Stage {
    async fn set(
        settings: &Settings,
        subject: &Subject,
        algorithm: Option<SignatureAlgorithm>,
    ) -> Result<Self, SignerError> {
        let mut settings = settings.clone();
        settings.max_rate = None;
        let subject = subject.clone();
        let token = settings.name.clone();
        blocking(&token, move || {
            let pin = settings
                .pin
                .read()
                .map_err(|source| SignerError::Pin { token: settings.name.clone(), source })?;
            let using = Module::open(&settings.module).map_err(|error| error.of_token(&settings.name))?;
            let home = Connection::open(using.module(), &settings, &pin, Access::ReadWrite)?;
            let (reference, public) = match subject {
                Subject::Fresh(key) => {
                    let label = format!("goodstanding bench {} {key}", std::process::id());
                    let reference = KeyReference::Label(label.clone());
                    let (public, _) =
                        generate(&home, &settings, &label, label.as_bytes(), key, Lifetime::Session)?;
                    let public = read_public_key(&home, &settings, public, &reference)?;
                    (reference, public)
                }
                Subject::Existing(reference) => {
                    let public = super::admin::public_key(&settings, &reference)?;
                    (reference, public)
                }
            };
            let algorithm = algorithm
                .filter(|algorithm| algorithm.fits(public.algorithm))
                .unwrap_or(public.algorithm.default_signature());
            Ok(Self { settings, reference, public, algorithm, home, using })
        })
        .await
    }

    /// Gives the session up, and a fresh key pair with it.
    async fn strike(self) {
        // Closing may take its time, and fails to nobody's harm.
        drop(
            tokio::task::spawn_blocking(move || {
                drop(self.home);
                drop(self.using);
            })
            .await,
        );
    }

    async fn pool(&self, sessions: u16, verified: bool) -> Result<(Signer, PreparedKey), SignerError> {
        let mut settings = self.settings.clone();
        settings.sessions = sessions;
        let signer = if verified {
            Signer::start(settings).await?
        } else {
            Signer::start_measured(settings, 0).await?
        };
        let key = signer.prepare_key(self.reference.clone(), self.algorithm, self.public.key.clone()).await?;
        Ok((signer, key))
    }

    /// Bare loops: a thread and a session each, nothing but C_Sign.
    async fn raw(&self, sessions: u16, slice: Duration) -> Result<f64, SignerError> {
        let (signer, key) = self.pool(1, true).await?;
        let scheme: Scheme = key.0.scheme;
        end(&signer).await;
        let (settings, reference) = (self.settings.clone(), self.reference.clone());
        let module = std::sync::Arc::clone(self.using.module());
        blocking(&self.settings.name, move || {
            let pin = settings
                .pin
                .read()
                .map_err(|source| SignerError::Pin { token: settings.name.clone(), source })?;
            let open = (0..sessions)
                .map(|_| Connection::open(&module, &settings, &pin, Access::ReadOnly))
                .collect::<Result<Vec<_>, _>>()?;
            let (stop, session_keys) = (AtomicBool::new(false), settings.session_keys);
            let counts = std::thread::scope(|scope| {
                let threads: Vec<_> = open
                    .into_iter()
                    .map(|connection| {
                        let (stop, reference) = (&stop, &reference);
                        scope.spawn(move || bare_loop(&connection, reference, scheme, session_keys, stop))
                    })
                    .collect();
                std::thread::sleep(slice);
                stop.store(true, Ordering::Relaxed);
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>, _>>()
            })?;
            Ok(counts.into_iter().sum())
        })
        .await
    }

    async fn pooled(&self, sessions: u16, slice: Duration, verified: bool) -> Result<f64, SignerError> {
        let (signer, key) = self.pool(sessions, verified).await?;
        // A slow token should not have to work off hundreds after the slice.
        let watch = Stopwatch::start();
        signer.sign(&key, message(0), Order::at_once(Lane::Refresh)).await?;
        let one = watch.elapsed().as_secs_f64().max(1e-6);
        let in_flight = ((0.25 / one) as usize).clamp(4, 256) * usize::from(sessions);
        let (sender, mut receiver) = signer.batch(in_flight.min(1024));
        let mut number = 1;
        let mut done = 0_u64;
        let watch = Stopwatch::start();
        while watch.elapsed() < slice {
            while !sender.is_full() {
                sender.submit(&key, message(number), Order::at_once(Lane::Refresh), ()).await;
                number += 1;
            }
            let mut next = receiver.next().await;
            while let Some(signed) = next {
                signed.signature?;
                done += 1;
                next = receiver.ready();
            }
        }
        let rate = done as f64 / watch.elapsed().as_secs_f64();
        drop(sender);
        while receiver.next().await.is_some() {}
        end(&signer).await;
        Ok(rate)
    }

    /// One request after the other, as many at once as there are sessions.
    async fn single(&self, sessions: u16, slice: Duration, times: &Histogram) -> Result<(), SignerError> {
        let (signer, key) = self.pool(sessions, true).await?;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..u64::from(sessions) {
            let (signer, key) = (signer.clone(), key.clone());
            callers.spawn(async move {
                let mut taken = Vec::new();
                let watch = Stopwatch::start();
                let mut number = caller << 32;
                while watch.elapsed() < slice {
                    let one = Stopwatch::start();
                    signer.sign(&key, message(number), Order::at_once(Lane::Refresh)).await?;
                    taken.push(one.elapsed());
                    number += 1;
                }
                Ok::<_, SignerError>(taken)
            });
        }
        while let Some(taken) = callers.join_next().await {
            for time in taken.unwrap_or_else(|_| Ok(Vec::new()))? {
                times.record(time);
            }
        }
        end(&signer).await;
        Ok(())
    }
}

async fn end(signer: &Signer) {
    if !signer.stop(Duration::from_secs(30)).await {
        tracing::warn!(token = signer.token(), "a measuring pool did not end in 30 s");
    }
}

fn message(number: u64) -> Bytes {
    let mut octets = vec![0x30; MESSAGE_OCTETS];
    octets[..8].copy_from_slice(&number.to_be_bytes());
    Bytes::from(octets)
}

/// Signatures a second of one session that does nothing else.
fn bare_loop(
    connection: &Connection,
    reference: &KeyReference,
    scheme: Scheme,
    session_keys: bool,
    stop: &AtomicBool,
) -> Result<f64, SignerError> {
    let mut handle = connection.private_key(reference)?;
    if session_keys {
        handle = connection
            .session_copy(handle)
            .map_err(|error| connection.failure("copying the key into the session (session_keys)", &error))?;
    }
    let octets = message(0);
    let input = scheme.input(&octets);
    let mechanism = scheme.mechanism();
    let mut done = 0_u64;
    let watch = Stopwatch::start();
    while !stop.load(Ordering::Relaxed) {
        connection
            .session
            .sign(&mechanism, handle, input.as_slice())
            .map_err(|error| connection.failure("signing", &error))?;
        done += 1;
    }
    Ok(done as f64 / watch.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::admin::list_keys;
    use crate::signer::testing::{block_on, test_name, with_token};

    #[test]
    fn the_middle_slice_counts() {
        assert!((median(&mut [9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }

    #[test]
    fn a_measurement_fills_every_column_and_leaves_no_key_behind() {
        with_token(test_name!(), |place| {
            place.key("existing", KeyAlgorithm::Rsa2048);
            let plan = Plan {
                subjects: vec![
                    Subject::Fresh(KeyAlgorithm::P256),
                    Subject::Existing(KeyReference::Label("existing".into())),
                ],
                algorithm: Some(SignatureAlgorithm::RsaPssSha256),
                sessions: vec![1, 2],
                slices: 1,
                slice: Duration::from_millis(60),
            };
            let seen = std::sync::Mutex::new(Vec::new());
            let rows = block_on(run(&place.settings(), &plan, |progress| {
                seen.lock().unwrap().push(progress);
            }))
            .unwrap();
            assert_eq!(rows.len(), 4);
            for row in &rows {
                assert!(row.rate > 0.0 && row.raw_rate > 0.0 && row.unverified_rate > 0.0, "{row:?}");
                assert!(row.p50 > Duration::ZERO && row.p50 <= row.p99, "{row:?}");
            }
            let existing = KeyReference::Label("existing".into());
            let settings = place.settings();
            let alone = raw_rate(&settings, &existing, 2, Duration::from_millis(60));
            assert!(block_on(alone).unwrap() > 0.0);
            assert_eq!(rows[0].algorithm, SignatureAlgorithm::EcdsaP256Sha256);
            assert_eq!(rows[2].algorithm, SignatureAlgorithm::RsaPssSha256);
            let seen = seen.into_inner().unwrap();
            assert_eq!((seen.len(), seen[15].done, seen[15].of), (16, 15, 16));
            assert_eq!(list_keys(&place.settings()).unwrap().len(), 1);
        });
    }
}
