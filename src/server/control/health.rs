//! Whether the process lives, and whether it should get traffic.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One thing that has to be so before the process is sent traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, for example `shelf`.
    pub name: String,
    /// Whether it is so.
    pub ready: bool,
    /// What is known of it: the reason when it is not so.
    pub detail: String,
}

/// What the readiness probe asks. It is asked often and must answer from memory: never from the HSM, and
/// never from the database.
pub trait Readiness: Send + Sync + 'static {
    /// Every check with its present state.
    fn checks(&self) -> Vec<Check>;
}

impl<F: Fn() -> Vec<Check> + Send + Sync + 'static> Readiness for F {
    fn checks(&self) -> Vec<Check> {
        self()
    }
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    draining: bool,
    checks: Vec<Check>,
}

/// `/livez`: the process answers.
pub(super) async fn live() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "alive\n").into_response()
}

/// `/readyz`: 200 when every check holds and no drain has begun, else 503; the reasons either way.
pub(super) fn report(readiness: &dyn Readiness, draining: bool) -> Response {
    let checks = readiness.checks();
    let ready = !draining && checks.iter().all(|check| check.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(Report { ready, draining, checks })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
