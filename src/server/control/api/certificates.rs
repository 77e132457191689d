//! Certificates: registering, revoking, taking back a hold, looking.

use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::Document;
use super::input::{self, InPath, Json, Time};
use super::issued::Issued;
use super::{Services, fresh};
use crate::limits::KnownCertificate;
use crate::ocsp::{CrlReason, Revocation, Serial};
use crate::presign::desk::Progress;
use crate::server::control::Problem;
use crate::store::{
    CertificateEntry, CertificateKey, CertificateRecord, CertificateState, IssuerRecord, StatusChange,
};

/// How long a call waits for the signature, unless `Prefer: wait=SECONDS` says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest wait that can be asked for.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// How long the keeper may take to say what stands in the way of a certificate: it says so between two
/// portions of its work.
const OBSTACLES_PATIENCE: Duration = Duration::from_secs(2);

/// A certificate to register, told instead of sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "issuer": "demo",
    "serial": "04a1b2c3d4",
    "not_before": "2026-11-22T00:00:00Z",
    "not_after": "2027-02-20T00:00:00Z"
}))]
pub(super) struct NewCertificate {
    /// The name of its CA.
    #[schema(example = "demo", min_length = 1, max_length = 255)]
    issuer: String,
    /// Its serial number in hexadecimal.
    #[schema(example = "04a1b2c3d4", pattern = "^-?[0-9A-Fa-f]{1,42}$")]
    serial: String,
    /// The start of its validity.
    #[serde(default)]
    not_before: Option<Time>,
    /// The end of its validity, inclusive.
    not_after: Time,
}

/// Why and when a certificate is revoked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "keyCompromise", "time": "2026-11-22T02:37:34Z" }))]
pub(super) struct NewRevocation {
    /// The reason; none if it is left out.
    #[serde(default)]
    reason: Option<Reason>,
    /// The time; now if it is left out.
    #[serde(default)]
    time: Option<Time>,
}

/// A reason for a revocation (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reason {
    Unspecified,
    KeyCompromise,
    #[serde(rename = "CACompromise")]
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    CertificateHold,
    PrivilegeWithdrawn,
    #[serde(rename = "AACompromise")]
    AaCompromise,
}

impl From<Reason> for CrlReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::CaCompromise => Self::CaCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::CertificateHold => Self::CertificateHold,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
            Reason::AaCompromise => Self::AaCompromise,
        }
    }
}

/// What came of a change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Whether anything changed; it was so before if not.
    changed: bool,
    /// Whether an answer for the present status is signed and served.
    served: bool,
    /// When it may be expected, in seconds from now, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<u64>,
    /// Why it is not served yet, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    /// The certificate as it is now.
    certificate: Document,
}

/// Register a certificate, so that an answer is signed and served for it.
///
/// The body is the certificate itself, DER or PEM, or a JSON document about it. Registering again
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/certificates", tag = "certificates", operation_id = "registerCertificate",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key within a day gets the same reply.", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: how long to wait for the signature, up to 30; 5 without it (RFC 7240).", pattern = "^wait=[0-9]{1,2}$"),
    ),
    request_body(content(
        (NewCertificate = "application/json"),
        (Vec<u8> = "application/pkix-cert"),
        (String = "application/x-pem-file"),
    )),
    responses(
        (status = 200, description = "It was registered before, and its answer is served.", body = Changed),
        (status = 201, description = "It is registered, and its first answer is signed and served.", body = Changed,
            headers(("Location" = String, description = "Where the certificate is shown."))),
        (status = 202, description = "It is registered; its answer is not signed yet.", body = Changed,
            headers(("Retry-After" = u64, description = "When it may be expected, in seconds."), ("Location" = String, description = "Where the certificate is shown."))),
    ),
)]
pub(super) async fn register(
    State(services): State<Services>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let patience = patience(&parts.headers)?;
    let body = input::read(body).await?;
    let issuers = services.store.issuers().await?;
    let (issuer, entry, known) = if input::media_type(&parts.headers) == "application/json" {
        let (issuer, entry) = told(&issuers, input::parse(&body)?)?;
        (issuer, entry, None)
    } else {
        let taken = "application/json, application/pkix-cert (DER) or application/x-pem-file";
        let sent = Issued::read(&parts.headers, &body, &issuers, taken)?;
        let known = KnownCertificate::of(&sent.issuer.name, &sent.certificate, services.clock.now());
        (sent.issuer, sent.entry(), known)
    };
    let registered = services.store.register(issuer.id, std::slice::from_ref(&entry)).await?;
    // So that its renewal is known as one. A failure is mended by sending the same again.
    services.limiter.remember_all(known.into_iter().collect(), services.clock.now()).await?;
    let state = services.store.certificate(issuer.id, &entry.serial).await?.ok_or_else(vanished)?;
    let changed = registered.unchanged == 0;
    let changed = outcome(&services, issuer, state, changed, patience).await?;
    let status = match changed.status() {
        StatusCode::OK if registered.added > 0 => StatusCode::CREATED,
        status => status,
    };
    let retry_after = changed.retry_after();
    let mut response = fresh((status, axum::Json(changed)).into_response());
    mark(&mut response, retry_after, &location(&issuer.name, &entry.serial));
    Ok(response)
}

/// Revoke a certificate, or put it on hold.
#[utoipa::path(
    post, path = "/v1/certificates/{issuer}/{serial}/revocation", tag = "certificates", operation_id = "revokeCertificate",
    params(
        ("issuer" = String, Path, description = "The name of its CA.", example = "demo", min_length = 1, max_length = 255),
        ("serial" = String, Path, description = "Its serial number in hexadecimal.", example = "04a1b2c3d4", pattern = "^-?[0-9A-Fa-f]{1,42}$"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key within a day gets the same reply.", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: how long to wait for the signature, up to 30; 5 without it (RFC 7240).", pattern = "^wait=[0-9]{1,2}$"),
    ),
    request_body(content = NewRevocation, content_type = "application/json"),
    responses(
        (status = 200, description = "It is revoked, and the answer that says so is served.", body = Changed),
        (status = 202, description = "It is revoked: the old answer is served no more, and the new one is not signed yet.", body = Changed,
            headers(("Retry-After" = u64, description = "When it may be expected, in seconds."))),
        (status = 409, description = "It is revoked for good, with another time or reason.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(services): State<Services>,
    InPath((issuer, serial)): InPath<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let patience = patience(request.headers())?;
    let (issuer, serial) = named(&services, &issuer, &serial).await?;
    let Json(asked) = Json::<NewRevocation>::from_request(request, &()).await?;
    let now = services.clock.now();
    let time = asked.time.map_or(now, |time| time.0);
    if time > now {
        let detail = format!("{time} is in the future: an answer cannot say that it was revoked then.");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail));
    }
    let preset = services.policies.load().of(issuer.id).freshness.preset();
    if asked.reason == Some(Reason::CertificateHold) && !preset.allows_hold() {
        let detail = format!(
            "The preset {preset} bars certificateHold (Baseline Requirements 4.9.13); the preset private allows it."
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail));
    }
    let revocation = Revocation { time, reason: asked.reason.map(CrlReason::from) };
    let mut changes = services.store.revoke(issuer.id, &[(serial, revocation)]).await?;
    let change = changes.pop().unwrap_or(StatusChange::NotFound);
    changed(&services, &issuer, &serial, change, "is revoked for good already", patience).await
}

/// Take back a certificateHold.
#[utoipa::path(
    delete, path = "/v1/certificates/{issuer}/{serial}/revocation", tag = "certificates", operation_id = "unholdCertificate",
    params(
        ("issuer" = String, Path, description = "The name of its CA.", example = "demo", min_length = 1, max_length = 255),
        ("serial" = String, Path, description = "Its serial number in hexadecimal.", example = "04a1b2c3d4", pattern = "^-?[0-9A-Fa-f]{1,42}$"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: how long to wait for the signature, up to 30; 5 without it (RFC 7240).", pattern = "^wait=[0-9]{1,2}$"),
    ),
    responses(
        (status = 200, description = "It is good, and the answer that says so is served.", body = Changed),
        (status = 202, description = "It is good; the answer that says so is not signed yet.", body = Changed,
            headers(("Retry-After" = u64, description = "When it may be expected, in seconds."))),
        (status = 409, description = "It is revoked for good.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn unhold(
    State(services): State<Services>,
    InPath((issuer, serial)): InPath<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let patience = patience(request.headers())?;
    let (issuer, serial) = named(&services, &issuer, &serial).await?;
    input::none(request.into_body()).await?;
    let change = services.store.unhold(issuer.id, &serial).await?;
    changed(&services, &issuer, &serial, change, "is revoked for good, not on hold", patience).await
}

/// Show a certificate: its status, its answer, and what happens next.
#[utoipa::path(
    get, path = "/v1/certificates/{issuer}/{serial}", tag = "certificates", operation_id = "showCertificate",
    params(
        ("issuer" = String, Path, description = "The name of its CA.", example = "demo", min_length = 1, max_length = 255),
        ("serial" = String, Path, description = "Its serial number in hexadecimal.", example = "04a1b2c3d4", pattern = "^-?[0-9A-Fa-f]{1,42}$"),
    ),
    responses((status = 200, description = "The certificate.", body = Document)),
)]
pub(super) async fn show(
    State(services): State<Services>,
    InPath((issuer, serial)): InPath<(String, String)>,
) -> Result<Response, Problem> {
    let (issuer, serial) = named(&services, &issuer, &serial).await?;
    let state = services.store.certificate(issuer.id, &serial).await?;
    let state = state.ok_or_else(|| unknown_certificate(&issuer.name, &serial))?;
    let document = document(&services, &issuer.name, &state).await?;
    Ok(fresh(axum::Json(document).into_response()))
}

/// The wait that the caller prefers.
pub(super) fn patience(headers: &HeaderMap) -> Result<Duration, Problem> {
    let text = headers.get("prefer").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let preferences = text.split(',').map(str::trim);
    let Some(wait) = preferences.filter_map(|preference| preference.strip_prefix("wait=")).next() else {
        return Ok(PATIENCE);
    };
    match wait.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(PATIENCE_MAX)),
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST)
            .detail(format!("Prefer: wait={wait} is no number of seconds (RFC 7240 section 4.3)."))),
    }
}

/// What a JSON document says.
fn told(issuers: &[IssuerRecord], new: NewCertificate) -> Result<(&IssuerRecord, CertificateEntry), Problem> {
    let issuer = issuer_named(issuers, &new.issuer)?;
    let serial = serial(&new.serial, StatusCode::UNPROCESSABLE_ENTITY)?;
    let (not_before, not_after) = (new.not_before.map(|time| time.0), new.not_after.0);
    if let Some(not_before) = not_before.filter(|not_before| *not_before > not_after) {
        let detail = format!("not_before, {not_before}, is after not_after, {not_after}.");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail));
    }
    Ok((issuer, CertificateEntry { serial, not_before, not_after, revocation: None }))
}

fn serial(text: &str, status: StatusCode) -> Result<Serial, Problem> {
    // Nothing but digits: one certificate has one address.
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        let detail = format!("The serial {text:?} is not hexadecimal digits alone.");
        return Err(Problem::new(status).detail(detail));
    }
    text.parse().map_err(|error| Problem::new(status).detail(format!("The serial {text:?}: {error}.")))
}

fn issuer_named<'i>(issuers: &'i [IssuerRecord], name: &str) -> Result<&'i IssuerRecord, Problem> {
    issuers.iter().find(|issuer| issuer.name == name).ok_or_else(|| {
        let known: Vec<_> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        Problem::new(StatusCode::NOT_FOUND)
            .detail(format!("There is no issuer named {name:?}; known are: {}.", known.join(", ")))
    })
}

/// The issuer and the serial number in a path.
async fn named(services: &Services, issuer: &str, text: &str) -> Result<(IssuerRecord, Serial), Problem> {
    let serial = serial(text, StatusCode::BAD_REQUEST)?;
    let issuers = services.store.issuers().await?;
    Ok((issuer_named(&issuers, issuer)?.clone(), serial))
}

fn unknown_certificate(issuer: &str, serial: &Serial) -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail(format!(
        "There is no certificate {serial} of {issuer}; register it first (POST /v1/certificates)."
    ))
}

pub(super) fn vanished() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail("The certificate is not there any more.")
}

async fn changed(
    services: &Services,
    issuer: &IssuerRecord,
    serial: &Serial,
    change: StatusChange,
    refusal: &str,
    patience: Duration,
) -> Result<Response, Problem> {
    let changed = match change {
        StatusChange::Changed(_) => true,
        StatusChange::Unchanged(_) => false,
        StatusChange::NotFound => return Err(unknown_certificate(&issuer.name, serial)),
        StatusChange::Refused(record) => {
            let since = record.revocation.map(|revocation| {
                let reason = revocation.reason.map(|reason| format!(", {reason}")).unwrap_or_default();
                format!(" (since {}{reason})", revocation.time)
            });
            return Err(Problem::new(StatusCode::CONFLICT).detail(format!(
                "The certificate {serial} of {} {refusal}{}.",
                issuer.name,
                since.unwrap_or_default()
            )));
        }
    };
    let state = services.store.certificate(issuer.id, serial).await?.ok_or_else(vanished)?;
    let changed = outcome(services, issuer, state, changed, patience).await?;
    let (status, retry_after) = (changed.status(), changed.retry_after());
    let mut response = fresh((status, axum::Json(changed)).into_response());
    mark(&mut response, retry_after, &location(&issuer.name, serial));
    Ok(response)
}

/// Waits for the answer to be served, and tells how far it has come.
pub(super) async fn outcome(
    services: &Services,
    issuer: &IssuerRecord,
    state: CertificateState,
    changed: bool,
    patience: Duration,
) -> Result<Changed, Problem> {
    let key = state.certificate.key;
    let progress = progress(services, key, patience).await;
    let (served, eta, waiting_for, state) = match progress {
        Progress::Signed(state) => (true, None, None, *state),
        Progress::Waiting { eta } => (false, Some(eta), None, again(services, state).await?),
        // One that is over is never answered: there is nothing to wait for.
        Progress::Failed(reason) if state.certificate.not_after < services.clock.now() => {
            (false, None, Some(reason), state)
        }
        Progress::Failed(reason) => {
            (false, Some(services.desk.wait()), Some(reason), again(services, state).await?)
        }
    };
    let eta_seconds = eta.map(|eta| eta.as_secs().max(1));
    let certificate = document(services, &issuer.name, &state).await?;
    Ok(Changed { changed, served, eta_seconds, waiting_for, certificate })
}

impl Changed {
    /// 200, or 202 while there is something to wait for.
    pub(super) fn status(&self) -> StatusCode {
        if self.eta_seconds.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
    }

    /// When to look again, in seconds.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.eta_seconds
    }
}

/// Adds when to look again, and where.
pub(super) fn mark(response: &mut Response, retry_after: Option<u64>, location: &str) {
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

async fn progress(services: &Services, key: CertificateKey, patience: Duration) -> Progress {
    let progress = services.desk.answer(vec![key], patience).await.pop();
    progress.unwrap_or(Progress::Waiting { eta: services.desk.wait() })
}

/// The certificate as it is after the wait.
async fn again(services: &Services, state: CertificateState) -> Result<CertificateState, Problem> {
    let found = services.store.certificates(&[state.certificate.key]).await?;
    Ok(found.into_iter().next().unwrap_or(state))
}

async fn document(services: &Services, issuer: &str, state: &CertificateState) -> Result<Document, Problem> {
    let responders = services.store.responders().await?;
    let CertificateRecord { key, issuer: id, .. } = state.certificate;
    let obstacles = services.desk.obstacles(key, id, OBSTACLES_PATIENCE).await;
    let policies = services.policies.load();
    Ok(Document::new(issuer, state, &responders, &policies, obstacles, services.clock.now()))
}

/// Where the control API shows a certificate.
pub fn location(issuer: &str, serial: &Serial) -> String {
    let issuer = percent_encoding::utf8_percent_encode(issuer, percent_encoding::NON_ALPHANUMERIC);
    format!("/v1/certificates/{issuer}/{serial}")
}
