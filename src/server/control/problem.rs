//! Problem documents (RFC 9457): how every error of the control listener looks.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// An error as a client of the control listener sees it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` where the status says it all.
    #[serde(rename = "type")]
    kind: String,
    /// What kind of problem it is, in short.
    title: String,
    /// The status of the reply.
    status: u16,
    /// What happened this time, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Members that belong to this kind of problem.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    members: Map<String, Value>,
    /// Headers that go with it.
    #[serde(skip)]
    #[schema(ignore)]
    headers: Box<HeaderMap>,
}

impl Problem {
    /// The media type of problem documents.
    pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

    /// The problem that `status` names by itself.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: None,
            members: Map::new(),
            headers: Box::default(),
        }
    }

    /// A problem of a kind of its own: its URI and its short name, which is the same every time.
    #[must_use]
    pub fn kind(mut self, uri: impl Into<String>, title: impl Into<String>) -> Self {
        self.kind = uri.into();
        self.title = title.into();
        self
    }

    /// What happened this time, and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// An extension member (RFC 9457 section 3.2). The standard members cannot be replaced by it.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !matches!(name, "type" | "title" | "status" | "detail" | "instance") {
            self.members.insert(name.to_owned(), value.into());
        }
        self
    }
}

impl Problem {
    /// When to try again, in seconds from now: a member and the header.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.member("retry_after", seconds).header(header::RETRY_AFTER, seconds.into())
    }

    /// A header that goes with it.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let headers = std::mem::take(&mut self.headers);
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, Self::CONTENT_TYPE);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().extend(*headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_its_status_and_members_once() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS)
            .kind("urn:ietf:params:acme:error:rateLimited", "Too many")
            .detail("five of five")
            .member("retry_after", 7)
            .member("status", 200);
        let text = serde_json::to_string(&problem).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "type": "urn:ietf:params:acme:error:rateLimited",
                "title": "Too many",
                "status": 429,
                "detail": "five of five",
                "retry_after": 7,
            })
        );
        assert_eq!(text.matches("\"status\"").count(), 1);
        let response = problem.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
