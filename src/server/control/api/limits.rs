//! The limiter: accounts and orders that ask for a place, and how the limits stand.

use std::net::IpAddr;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::certificates::{self, Changed};
use super::input::{self, InPath, InQuery, Json, Time};
use super::issued::Issued;
use super::{Services, fresh};
use crate::limits::{
    self, Decision, LimitsError, Mismatch, OrderId, OrderRequest, Outcome, ReleaseCause, Subject, rate_limit,
    rate_limit_policy,
};
use crate::server::control::Problem;
use crate::server::control::access::Caller;
use crate::store::audit::NewLine;

/// The kind of every refusal by a limit, as ACME clients know it (RFC 8555 section 6.7).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";

/// What a refusal for capacity is besides (IETF draft on RateLimit header fields, section on problem types).
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "ip": "192.0.2.7" }))]
pub(super) struct NewRegistration {
    /// The address it is made from, IPv4 or IPv6.
    #[schema(example = "192.0.2.7", min_length = 2, max_length = 45)]
    ip: String,
}

/// A certificate that is to be issued.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "account": "acct-17", "identifiers": ["example.org", "*.example.org"] }))]
pub(super) struct NewOrder {
    /// The account, as the CA names it.
    #[schema(example = "acct-17", min_length = 1, max_length = 255)]
    account: String,
    /// DNS names (Unicode or A-labels, wildcards too) and IP addresses.
    #[schema(example = json!(["example.org"]), min_items = 1, max_items = 100)]
    identifiers: Vec<String>,
    /// The certificate that it renews: its CertID for ARI (RFC 9773), or the name it was committed under.
    #[serde(default)]
    replaces: Option<String>,
}

/// A request that may go on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Its number.
    #[schema(value_type = i64)]
    id: OrderId,
    /// When it was decided.
    at: Time,
    /// Until when its places are held; none for a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Time>,
    /// Whether it is a renewal, which no limit per domain and no shortage of capacity stops.
    renewal: bool,
    /// Whether it is the answer to an earlier request with the same idempotency key.
    repeated: bool,
    /// Limits that are nearly used up, a sentence each.
    warnings: Vec<String>,
    /// Every limit that was looked at, with its numbers.
    #[schema(value_type = Vec<Object>)]
    limits: Value,
}

/// A certificate that was counted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delivered {
    /// The order.
    #[schema(value_type = i64)]
    order: OrderId,
    /// Whether the order's places had been given up before: it counts all the same.
    late: bool,
    /// The certificate and its answer.
    #[serde(flatten)]
    changed: Changed,
}

/// Whose limits are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// A DNS name or an IP address in a certificate.
    #[param(example = "example.org", min_length = 1, max_length = 255)]
    domain: Option<String>,
    /// An account.
    #[param(example = "acct-17", min_length = 1, max_length = 255)]
    account: Option<String>,
    /// An address that accounts are made from.
    #[param(example = "192.0.2.7", min_length = 2, max_length = 45)]
    ip: Option<String>,
}

/// Why an order is given up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Why {
    /// Identifiers whose authorisation failed, separated by commas: a limit may count them.
    #[param(min_length = 1, max_length = 4096)]
    authorization_failed: Option<String>,
}

/// Count a new account, or refuse it.
#[utoipa::path(
    post, path = "/v1/registrations", tag = "limits", operation_id = "registerAccount",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key within a day gets the same reply.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = NewRegistration, content_type = "application/json"),
    responses(
        (status = 201, description = "It counts.", body = Accepted),
        (status = 429, description = "A limit refuses it: which, what counts, and when to come back.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn register(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(new): Json<NewRegistration>,
) -> Result<Response, Problem> {
    let ip = address(&new.ip, StatusCode::UNPROCESSABLE_ENTITY)?;
    let key = idempotency(&headers, &caller);
    let decision = services.limiter.register_account(ip, key.as_deref()).await?;
    decided(&services, &decision, "registration.accept", &json!({ "ip": new.ip }), None).await
}

/// Reserve a place in every limit for a certificate, or refuse it.
#[utoipa::path(
    post, path = "/v1/orders", tag = "limits", operation_id = "order",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key within a day gets the same reply.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = NewOrder, content_type = "application/json"),
    responses(
        (status = 201, description = "Its places are held until `expires`.", body = Accepted,
            headers(("Location" = String, description = "Where the order is shown."))),
        (status = 429, description = "A limit refuses it: which, what counts, and when to come back.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn order(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(new): Json<NewOrder>,
) -> Result<Response, Problem> {
    let detail = json!({ "account": new.account, "identifiers": new.identifiers, "replaces": new.replaces });
    let request = OrderRequest {
        account: new.account,
        identifiers: new.identifiers,
        replaces: new.replaces,
        idempotency: idempotency(&headers, &caller),
    };
    let decision = services.limiter.order(&request).await?;
    decided(&services, &decision, "order.accept", &detail, Some("/v1/orders/")).await
}

/// Show an order.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "limits", operation_id = "showOrder",
    params(("id" = i64, Path, description = "Its number.", example = 1, minimum = 1)),
    responses((status = 200, description = "The order.", body = Object)),
)]
pub(super) async fn view(
    State(services): State<Services>,
    InPath(id): InPath<i64>,
) -> Result<Response, Problem> {
    Ok(fresh(axum::Json(services.limiter.view(OrderId(id)).await?).into_response()))
}

/// Hand in an order's certificate: it counts, is registered, and its first answer is signed.
#[utoipa::path(
    post, path = "/v1/orders/{id}/certificate", tag = "limits", operation_id = "deliverCertificate",
    params(
        ("id" = i64, Path, description = "The order's number.", example = 1, minimum = 1),
        ("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key within a day gets the same reply.", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: how long to wait for the signature, up to 30; 5 without it (RFC 7240).", pattern = "^wait=[0-9]{1,2}$"),
    ),
    request_body(content((Vec<u8> = "application/pkix-cert"), (String = "application/x-pem-file"))),
    responses(
        (status = 200, description = "It was handed in before, and its answer is served.", body = Delivered),
        (status = 201, description = "It counts, and its first answer is signed and served.", body = Delivered,
            headers(("Location" = String, description = "Where the certificate is shown."))),
        (status = 202, description = "It counts; its answer is not signed yet.", body = Delivered,
            headers(("Retry-After" = u64, description = "When it may be expected, in seconds."), ("Location" = String, description = "Where the certificate is shown."))),
        (status = 409, description = "The order has another certificate.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Its names are not those of the order, which stays reserved; or it is no certificate of a known issuer.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn deliver(
    State(services): State<Services>,
    InPath(id): InPath<i64>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let patience = certificates::patience(&parts.headers)?;
    let body = input::read(body).await?;
    let issuers = services.store.issuers().await?;
    let taken = "application/pkix-cert (DER) or application/x-pem-file";
    let issued = Issued::read(&parts.headers, &body, &issuers, taken)?;
    let entry = issued.entry();
    // Counted first: a failure after it is mended by sending the same again.
    let certificate = issued.issued();
    let order = services.limiter.view(OrderId(id)).await?;
    // An order that has another certificate already is refused for that.
    if order.certificate.is_none_or(|known| known == certificate.name) {
        limits::same_names(&order.identifiers, &issued.certificate)
            .map_err(|mismatch| other_names(id, &order.identifiers, mismatch))?;
    }
    let detail = json!({ "order": id, "certificate": certificate.name });
    let committed = services.limiter.commit(OrderId(id), certificate).await?;
    if !committed.repeated {
        services.store.append_audit(&NewLine::new("order.commit", &detail)).await?;
    }
    let issuer = issued.issuer;
    let registered = services.store.register(issuer.id, std::slice::from_ref(&entry)).await?;
    let state = services.store.certificate(issuer.id, &entry.serial).await?;
    let state = state.ok_or_else(certificates::vanished)?;
    let changed = registered.unchanged == 0 || !committed.repeated;
    let changed = certificates::outcome(&services, issuer, state, changed, patience).await?;
    let status = match changed.status() {
        StatusCode::OK if !committed.repeated => StatusCode::CREATED,
        status => status,
    };
    let retry_after = changed.retry_after();
    let body = Delivered { order: committed.order, late: committed.late, changed };
    let mut response = fresh((status, axum::Json(body)).into_response());
    certificates::mark(&mut response, retry_after, &certificates::location(&issuer.name, &entry.serial));
    Ok(response)
}

/// The certificate is not the one that was ordered: nothing was counted, and the order holds its places.
fn other_names(id: i64, ordered: &[String], mismatch: Mismatch) -> Problem {
    let Mismatch { missing, surplus } = mismatch;
    let part = |names: &[String], what: &str| match names {
        [] => String::new(),
        names => format!(" {what}: {}.", names.join(", ")),
    };
    let detail = format!(
        "The names of this certificate are not those of the order {id}, which holds its places as before.{}{} Hand in the certificate that was ordered, or give the order up and make another one.",
        part(&missing, "It lacks"),
        part(&surplus, "It has what was not ordered"),
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .detail(detail)
        .member("ordered", ordered.to_vec())
        .member("missing", missing)
        .member("surplus", surplus)
}

/// Give an order up: its places are free again.
#[utoipa::path(
    delete, path = "/v1/orders/{id}", tag = "limits", operation_id = "releaseOrder",
    params(("id" = i64, Path, description = "Its number.", example = 1, minimum = 1), Why),
    responses(
        (status = 200, description = "Its places are free.", body = Object),
        (status = 409, description = "It has its certificate already.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn release(
    State(services): State<Services>,
    InPath(id): InPath<i64>,
    InQuery(why): InQuery<Why>,
    request: Request,
) -> Result<Response, Problem> {
    input::none(request.into_body()).await?;
    let failed = why.authorization_failed.as_deref();
    let cause = failed.map_or(ReleaseCause::Abandoned, |names| {
        ReleaseCause::AuthorizationFailed(names.split(',').map(|name| name.trim().to_owned()).collect())
    });
    let released = services.limiter.release(OrderId(id), cause).await?;
    if !released.repeated {
        let detail = json!({ "order": id, "authorization_failed": failed });
        services.store.append_audit(&NewLine::new("order.release", &detail)).await?;
    }
    Ok(fresh(axum::Json(released).into_response()))
}

/// Show how the limits stand for a domain, an account or an address.
#[utoipa::path(
    get, path = "/v1/limits", tag = "limits", operation_id = "showLimits",
    params(Whose),
    responses((status = 200, description = "Each limit with its numbers and what counts; without parameters those that count everybody together.", body = Object)),
)]
pub(super) async fn show(
    State(services): State<Services>,
    InQuery(whose): InQuery<Whose>,
) -> Result<Response, Problem> {
    let ip = whose.ip.map(|text| address(&text, StatusCode::UNPROCESSABLE_ENTITY)).transpose()?;
    let subject = Subject { domain: whose.domain, account: whose.account, ip };
    Ok(fresh(axum::Json(services.limiter.show(subject).await?).into_response()))
}

/// Show what the HSMs carry, and what that means for new certificates.
#[utoipa::path(
    get, path = "/v1/capacity", tag = "limits", operation_id = "showCapacity",
    responses((status = 200, description = "The guard's report, of this process or the one that signs, once there was one; the pressure on the limits and the limiter's decisions.", body = Object)),
)]
pub(super) async fn capacity(State(services): State<Services>) -> Response {
    let now = services.clock.now();
    // The guard's report where there is one, and beside it what the limiter makes of it.
    let report = services.capacity.as_ref().and_then(|capacity| capacity());
    let mut document = report.unwrap_or_else(|| json!({ "at": now.to_string() }));
    document["pressure"] = json!(services.pressure.borrow().at(now));
    document["orders"] = json!(services.limiter.tally());
    fresh(axum::Json(document).into_response())
}

fn address(text: &str, status: StatusCode) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| {
        Problem::new(status).detail(format!("{text:?} is no IP address such as 192.0.2.7 or 2001:db8::7."))
    })
}

/// The limiter's key for a caller's: each caller has keys of its own. The middleware has judged it.
fn idempotency(headers: &HeaderMap, caller: &Caller) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    let digest = crate::store::audit::Digest::of([caller.name().as_bytes(), key.as_bytes()]);
    Some(digest.to_string())
}

/// The reply to a decision; what was accepted is a line of the audit log.
async fn decided(
    services: &Services,
    decision: &Decision,
    action: &'static str,
    detail: &Value,
    location: Option<&str>,
) -> Result<Response, Problem> {
    let Outcome::Allowed { order, expires } = &decision.outcome else {
        return Err(with_limits(refusal(decision), decision));
    };
    if !decision.repeated {
        let mut detail = detail.clone();
        detail["id"] = json!(order);
        services.store.append_audit(&NewLine::new(action, &detail)).await?;
    }
    let accepted = Accepted {
        id: *order,
        at: Time(decision.at),
        expires: expires.map(Time),
        renewal: decision.renewal.is_some(),
        repeated: decision.repeated,
        warnings: decision.warnings.iter().map(|warning| warning.detail.clone()).collect(),
        limits: serde_json::to_value(&decision.limits).unwrap_or_default(),
    };
    let mut response = fresh((StatusCode::CREATED, axum::Json(accepted)).into_response());
    for (name, value) in limit_headers(decision) {
        response.headers_mut().insert(name, value);
    }
    if let Some(Ok(location)) = location.map(|path| HeaderValue::try_from(format!("{path}{order}"))) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The problem document of a refusal.
pub(super) fn refusal(decision: &Decision) -> Problem {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS);
    let Some(refusal) = decision.refusal() else { return problem };
    let mut problem = problem
        .kind(RATE_LIMITED, refusal.title(&decision.help))
        .detail(refusal.detail.clone())
        .member("cause", json!(refusal.cause))
        .member("limit", refusal.limit.clone())
        .member("key", refusal.key.clone())
        .member("count", refusal.count)
        .member("nominal", refusal.nominal)
        .member("effective", refusal.effective)
        .member("counted", json!(refusal.counted));
    if let Some(tier) = refusal.tier {
        problem = problem.member("period_seconds", tier.period.as_secs());
    }
    if let Some(at) = refusal.retry_at {
        problem = problem.member("retry_at", at.to_string());
    }
    if let Some(capacity) = &refusal.capacity {
        let mut member = json!(capacity);
        member["type"] = REDUCED_CAPACITY.into();
        problem = problem.member("capacity", member);
    }
    if let Outcome::Refused { refusals, .. } = &decision.outcome
        && refusals.len() > 1
    {
        let others: Vec<_> = refusals[1..].iter().map(|other| other.detail.clone()).collect();
        problem = problem.member("others", others);
    }
    match decision.retry_after() {
        Some(wait) => problem.retry_after(wait.as_secs()),
        None => problem,
    }
}

fn with_limits(mut problem: Problem, decision: &Decision) -> Problem {
    for (name, value) in limit_headers(decision) {
        problem = problem.header(name, value);
    }
    problem
}

/// `RateLimit-Policy`, `RateLimit`, and where the limits are explained.
fn limit_headers(decision: &Decision) -> Vec<(HeaderName, HeaderValue)> {
    let help = (!decision.help.is_empty()).then(|| format!("<{}>; rel=\"help\"", decision.help));
    [
        (POLICY, rate_limit_policy(decision)),
        (LIMIT, rate_limit(decision)),
        (header::LINK, help.unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
    .collect()
}

impl From<LimitsError> for Problem {
    fn from(error: LimitsError) -> Self {
        let problem = |status| Self::new(status).detail(sentence(&error.to_string()));
        match &error {
            LimitsError::Identifier(_)
            | LimitsError::Idempotency { .. }
            | LimitsError::IdempotencyKey { .. }
            | LimitsError::Override(_) => problem(StatusCode::UNPROCESSABLE_ENTITY),
            LimitsError::NoOrder(_) => problem(StatusCode::NOT_FOUND),
            LimitsError::Issued { .. } => problem(StatusCode::CONFLICT),
            LimitsError::Overloaded { .. } | LimitsError::Stopped => {
                problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(5)
            }
            LimitsError::Store(source) => {
                tracing::error!(error = %source, "the limiter's ledger failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE)
                    .detail("The database does not do its work; nothing was decided, and the server's log says more.")
                    .retry_after(5)
            }
        }
    }
}

/// An error's text as a sentence.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str().trim_end_matches('.'))
}
