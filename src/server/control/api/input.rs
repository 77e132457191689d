//! Reading requests: each thing wrong with one is a problem document that says what would be right.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::BODY_MAX;
use crate::clock::UnixTime;
use crate::server::control::Problem;

/// A time in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-22T02:37:34Z")]
pub(super) struct Time(pub(super) UnixTime);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        UnixTime::parse_rfc3339(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format_args!(
                "{text:?} is no time such as 2026-11-22T02:37:34Z (RFC 3339): {error}"
            ))
        })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The media type of a request's body, in lower case and without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body, within bounds.
///
/// # Errors
/// 413, and 400 for one that breaks off.
pub(super) async fn read(body: Body) -> Result<Bytes, Problem> {
    axum::body::to_bytes(body, BODY_MAX).await.map_err(|error| {
        use std::error::Error;
        let too_long = error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if too_long {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
                .detail(format!("The body is longer than {BODY_MAX} octets."))
        } else {
            Problem::new(StatusCode::BAD_REQUEST).detail("The body broke off.")
        }
    })
}

/// Reads a JSON document; a field that is not known is an error.
///
/// # Errors
/// 400 for what is no such document; what it says is judged elsewhere, with 422.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST).detail(format!("The body cannot be used: {error}."))
    })
}

/// 415, with what is taken.
pub(super) fn unsupported(headers: &HeaderMap, taken: &str) -> Problem {
    let given = media_type(headers);
    let given = if given.is_empty() { "no Content-Type".to_owned() } else { given };
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .detail(format!("{given} is not taken here; send {taken}."))
}

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if media_type(request.headers()) != "application/json" {
            return Err(unsupported(request.headers(), "application/json"));
        }
        parse(&read(request.into_body()).await?).map(Self)
    }
}

/// Parameters in the path.
pub(super) struct InPath<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(value)| Self(value))
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST).detail(error.body_text()))
    }
}

/// Parameters in the query.
pub(super) struct InQuery<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST).detail(error.body_text()))
    }
}

/// A body that must be empty: a key in it would be read by nobody.
pub(super) async fn none(body: Body) -> Result<(), Problem> {
    if read(body).await?.is_empty() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::BAD_REQUEST).detail("This takes no body."))
}
