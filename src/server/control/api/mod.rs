//! The API: JSON in and out, RFC 3339 times, serial numbers in lower-case hexadecimal, a problem
//! document for every error.

mod certificates;
mod document;
mod hooks;
mod idempotency;
mod input;
mod issued;
mod limits;
mod openapi;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use tokio::sync::watch;

pub use self::certificates::location as certificate_path;
use super::access::{Gate, Scope, require};
use super::problem::Problem;
use crate::clock::SharedClock;
use crate::limits::{Limiter, Pressure};
use crate::presign::Policies;
use crate::presign::desk::Desk;
use crate::store::{Store, StoreError};

/// The longest body of a request: a large certificate in PEM.
pub const BODY_MAX: usize = 64 * 1024;

/// The guard's report as a JSON document.
pub type CapacityReport = Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>;

/// What the API works on.
#[derive(Clone)]
pub struct Services {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: SharedClock,
    /// The running keeper, who signs and shelves what the API changes.
    pub desk: Desk,
    /// What the answers of each issuer are held to, as it is now.
    pub policies: Arc<ArcSwap<Policies>>,
    /// Who decides on new accounts and certificates.
    pub limiter: Limiter,
    /// What the guard tells the limiter.
    pub pressure: watch::Receiver<Pressure>,
    /// The guard's report, its own or another process's; none before the first.
    pub capacity: Option<CapacityReport>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}

/// The routes of the API, each behind the scope that it needs.
pub fn router(services: Services, gate: &Arc<Gate>) -> Router {
    let guarded = |routes: Router<Services>, scope: Scope| {
        routes
            .route_layer(middleware::from_fn_with_state(services.clone(), idempotency::once))
            .route_layer(middleware::from_fn_with_state((Arc::clone(gate), scope), require))
    };
    // One path may have methods of different scopes: routers with the same path are merged by method.
    let route = |path: &str, methods: MethodRouter<Services>| Router::new().route(path, methods);
    let certificate = "/v1/certificates/{issuer}/{serial}";
    let revocation = "/v1/certificates/{issuer}/{serial}/revocation";
    Router::new()
        .merge(guarded(route("/v1/certificates", post(certificates::register)), Scope::Certificates))
        .merge(guarded(route(certificate, get(certificates::show)), Scope::Read))
        .merge(guarded(
            route(revocation, post(certificates::revoke).delete(certificates::unhold)),
            Scope::Revoke,
        ))
        .merge(guarded(route("/v1/registrations", post(limits::register)), Scope::Orders))
        .merge(guarded(route("/v1/orders", post(limits::order)), Scope::Orders))
        .merge(guarded(route("/v1/orders/{id}", delete(limits::release)), Scope::Orders))
        .merge(guarded(route("/v1/orders/{id}/certificate", post(limits::deliver)), Scope::Orders))
        .merge(guarded(
            route("/v1/orders/{id}", get(limits::view))
                .route("/v1/limits", get(limits::show))
                .route("/v1/capacity", get(limits::capacity)),
            Scope::Read,
        ))
        // Signed by its sender instead of carrying a token.
        .merge(route("/v1/hooks/step-ca", post(hooks::step_ca)))
        .merge(guarded(route("/openapi.json", get(openapi::document)), Scope::Read))
        .layer(axum::Extension(openapi::Open(gate.is_open())))
        .layer(axum::Extension(Arc::clone(gate)))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(services)
}

/// Nobody keeps a copy of what changes.
fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The store did not do what was asked: the caller's doing, or a failure that the log tells of.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        use axum::http::StatusCode;
        match error {
            StoreError::Conflict(what) => Self::new(StatusCode::CONFLICT).detail(what),
            error => {
                tracing::error!(%error, "a call of the control API failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE)
                    .detail("The database does not do its work; nothing was changed, and the server's log says more.")
                    .retry_after(5)
            }
        }
    }
}
