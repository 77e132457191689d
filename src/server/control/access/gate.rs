//! Lets a request through, or says why not.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::buckets::{Buckets, Rate};
use super::credentials::{Credentials, Scope, Webhook};
use super::{origin, token};
use crate::server::control::Problem;
use crate::store::audit;

/// Wrong tokens from one address: so many at once, then so many a minute.
const WRONG: Rate = Rate { burst: 10.0, per_second: 10.0 / 60.0 };

/// Hashes reckoned at once: each takes 19 MiB and some ten milliseconds of a core.
const HASHING: usize = 2;

/// How long a token waits for its hash to be reckoned.
const HASH_WAIT: Duration = Duration::from_secs(5);

/// Verified tokens remembered at the most.
const REMEMBERED: usize = 4_096;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address.
    pub address: SocketAddr,
    /// The SHA-256 of the client certificate, in hex, where one was shown and verified.
    pub certificate: Option<Arc<str>>,
}

/// Who makes a request, once it was let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The credential's name; none where no credentials are asked for.
    pub credential: Option<Arc<str>>,
    /// What the audit log calls it.
    pub actor: String,
}

impl Caller {
    /// The name under which this caller's idempotency keys are kept.
    #[must_use]
    pub fn name(&self) -> &str {
        self.credential.as_deref().unwrap_or("")
    }

    /// The caller that a signed webhook is.
    #[must_use]
    pub fn webhook(id: &str, peer: &Peer) -> Self {
        let name = format!("step-ca {id}");
        Self { actor: described(&format!("webhook {name}"), peer), credential: Some(name.into()) }
    }
}

fn described(who: &str, peer: &Peer) -> String {
    let certificate =
        peer.certificate.as_ref().map(|sha256| format!(" with the client certificate {sha256}"));
    format!("{who} from {}{}", peer.address.ip(), certificate.unwrap_or_default())
}

/// The keyed hash of a token: what is remembered instead of it.
type Mac = [u8; 32];

/// The credentials, and what has been seen of their use.
pub struct Gate {
    /// None: a loopback address where everybody on the machine may do everything.
    credentials: ArcSwap<Option<Credentials>>,
    open_metrics: bool,
    /// Keyed hashes of verified tokens, with the hash that they were verified against.
    verified: Mutex<HashMap<Mac, (Arc<str>, String)>>,
    key: hmac::Key,
    wrong: Buckets<IpAddr>,
    rates: Buckets<Arc<str>>,
    hashing: Arc<Semaphore>,
    /// A hash that no token gives, reckoned for names that do not exist.
    decoy: String,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate for these credentials; without any it is open, which only a loopback address may be.
    ///
    /// # Errors
    /// What the system says when it has no random numbers.
    pub fn new(credentials: Option<Credentials>, open_metrics: bool) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system's random numbers are not available".to_owned())?;
        Ok(Self {
            credentials: ArcSwap::from_pointee(credentials),
            open_metrics,
            verified: Mutex::default(),
            key,
            wrong: Buckets::new(),
            rates: Buckets::new(),
            hashing: Arc::new(Semaphore::new(HASHING)),
            decoy: token::new_token("decoy")?.hash,
        })
    }

    /// Puts other credentials in force: a token that is in them no more is refused from now on.
    pub fn replace(&self, credentials: Option<Credentials>) {
        self.credentials.store(Arc::new(credentials));
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether everybody on the machine may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.credentials.load().is_none()
    }

    /// Whether `/metrics` needs no token.
    #[must_use]
    pub fn has_open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// The webhook with this id.
    #[must_use]
    pub fn webhook(&self, id: &str) -> Option<Webhook> {
        let credentials = self.credentials.load();
        credentials.as_ref().as_ref()?.webhooks.iter().find(|webhook| webhook.id == id).cloned()
    }

    /// Lets a request through that needs `scope`.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn admit(
        &self,
        scope: Scope,
        method: &Method,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Caller, Refusal> {
        let credentials = self.credentials.load_full();
        let Some(credentials) = credentials.as_ref() else {
            origin::check(headers).map_err(|why| Refusal::Foreign(why.to_string()))?;
            return Ok(Caller { credential: None, actor: described("anybody", peer) });
        };
        let (token, basic) = presented(headers).ok_or(Refusal::Missing)?;
        if basic && !matches!(*method, Method::GET | Method::HEAD) {
            // A browser sends a remembered password along with what any page makes it send.
            return Err(Refusal::BasicChange);
        }
        let name = self.verify(credentials, token, peer).await?;
        let credential = credentials.find(&name).ok_or(Refusal::Wrong)?;
        if !credential.may(scope) {
            return Err(Refusal::Scope { name, scope });
        }
        if let Some(rate) = credential.rate {
            let taken = self.rates.take(Arc::clone(&name), Rate::a_minute(rate));
            taken.map_err(|wait| Refusal::Rate { rate, wait })?;
        }
        Ok(Caller { actor: described(&format!("credential {name}"), peer), credential: Some(name) })
    }

    /// The name of the credential whose token this is.
    async fn verify(
        &self,
        credentials: &Credentials,
        presented: SecretString,
        peer: &Peer,
    ) -> Result<Arc<str>, Refusal> {
        let mut mac: Mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.key, presented.expose_secret().as_bytes()).as_ref());
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&mac).cloned();
        // The hash too: the file may have been replaced between the look-up and now.
        if let Some((name, hash)) = known
            && credentials.find(&name).is_some_and(|credential| credential.hash == hash)
        {
            return Ok(name);
        }
        // Taken first and given back when the token is right: guesses at the same time count all.
        let from = network(peer.address.ip());
        self.wrong.take(from, WRONG).map_err(|wait| Refusal::Guessing { wait })?;
        let split = token::split(presented.expose_secret());
        let (name, secret) = split.map_or(("", SecretString::default()), |(name, secret)| {
            (name, SecretString::from(secret.to_owned()))
        });
        let credential = credentials.find(name).cloned();
        let hash = credential.as_ref().map_or_else(|| self.decoy.clone(), |found| found.hash.clone());
        let permit = tokio::time::timeout(HASH_WAIT, Arc::clone(&self.hashing).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            self.wrong.give_back(&from);
            return Err(Refusal::Busy);
        };
        let against = hash.clone();
        let right = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            token::verify(&secret, &against)
        });
        let right = right.await.unwrap_or(false);
        let Some(credential) = credential.filter(|_| right) else {
            tracing::warn!(address = %peer.address, name, "a wrong token was presented to the control listener");
            return Err(Refusal::Wrong);
        };
        self.wrong.give_back(&from);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(mac, (Arc::clone(&credential.name), hash));
        Ok(credential.name)
    }
}

/// The network that guesses from an address are counted for: an IPv6 host has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// The token in a request, and whether it came as a password, as a browser sends it.
fn presented(headers: &HeaderMap) -> Option<(SecretString, bool)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((rest.trim().to_owned().into(), false));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        return Some((pair.split_once(':')?.1.to_owned().into(), true));
    }
    None
}

/// Why a request is not let through.
#[derive(Debug)]
pub enum Refusal {
    /// It has no token.
    Missing,
    /// Its token is not a valid one.
    Wrong,
    /// A password, which is for looking only, was sent to change something.
    BasicChange,
    /// Its token does not have the scope.
    Scope {
        /// The credential.
        name: Arc<str>,
        /// What it lacks.
        scope: Scope,
    },
    /// The credential's rate is used up.
    Rate {
        /// Calls a minute.
        rate: u32,
        /// When there is room again.
        wait: Duration,
    },
    /// Too many wrong tokens came from there.
    Guessing {
        /// When another will be looked at.
        wait: Duration,
    },
    /// Too many new tokens at once.
    Busy,
    /// It may come from a web page of somebody else.
    Foreign(String),
}

/// What a refusal for want of a right token asks for. A browser asks its user for the password.
const CHALLENGE: HeaderValue = HeaderValue::from_static(
    "Bearer realm=\"goodstanding\", Basic realm=\"goodstanding\", charset=\"UTF-8\"",
);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let challenge = |detail: &str| {
            Self::new(StatusCode::UNAUTHORIZED).detail(detail).header(header::WWW_AUTHENTICATE, CHALLENGE)
        };
        let later = |wait: Duration| wait.as_secs() + 1;
        match refusal {
            Refusal::Missing => challenge(
                "This needs a token: send Authorization: Bearer gs1.…; `goodstanding credential new` makes one.",
            ),
            Refusal::Wrong => challenge(
                "This token is not valid here: it is misspelt, was withdrawn, or belongs to another server.",
            ),
            Refusal::BasicChange => challenge(
                "A token sent as a password may look only; to change something send it as Authorization: Bearer.",
            ),
            Refusal::Scope { name, scope } => Self::new(StatusCode::FORBIDDEN)
                .detail(format!("The credential {name} does not have the scope `{scope}`, which this needs."))
                .member("scope", scope.name()),
            Refusal::Rate { rate, wait } => Self::new(StatusCode::TOO_MANY_REQUESTS)
                .detail(format!(
                    "This credential may make {rate} calls a minute; the next is possible in {} s.",
                    later(wait)
                ))
                .retry_after(later(wait)),
            Refusal::Guessing { wait } => Self::new(StatusCode::TOO_MANY_REQUESTS)
                .detail(format!(
                    "Too many wrong tokens came from this address; another is looked at in {} s. Tokens already in use go on working.",
                    later(wait)
                ))
                .retry_after(later(wait)),
            Refusal::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE)
                .detail("Too many new tokens came at once; send this one again in a few seconds.")
                .retry_after(5),
            Refusal::Foreign(why) => Self::new(StatusCode::FORBIDDEN).detail(format!("Refused: {why}.")),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// The middleware of routes that need a scope. What they do is done in the caller's name.
pub async fn require(
    State((gate, scope)): State<(Arc<Gate>, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
            .detail("The address of the caller is not known.")
            .into_response();
    };
    match gate.admit(scope, request.method(), request.headers(), &peer).await {
        Ok(caller) => {
            let actor = caller.actor.clone();
            let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
            request.extensions_mut().insert(caller);
            let answered = audit::acting_as(actor, next.run(request));
            if !changes {
                return answered.await;
            }
            // What was begun is brought to its end, whether the client waits for it or has gone: a
            // change in the store that the keeper was not told of would not be served.
            tokio::spawn(answered).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call of the control API ended in a panic");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                    .detail("The call failed within the server; its log says more.")
                    .into_response()
            })
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
