//! Idempotency keys: a request sent again gets the reply that it got before, and is not done again.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Services, input};
use crate::server::control::Problem;
use crate::server::control::access::Caller;
use crate::store::audit::Digest;
use crate::store::replies::{Begun, Reply, ReplyKey};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that a reply is an earlier one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key.
const KEY_MAX: usize = 255;

/// The longest reply that is kept; those of this API are far below.
const REPLY_MAX: usize = 1024 * 1024;

/// Headers that belong to a reply; the others belong to the connection.
const KEPT: [HeaderName; 4] = [header::CONTENT_TYPE, header::LOCATION, header::RETRY_AFTER, header::LINK];

/// The middleware of POST requests.
pub(super) async fn once(State(services): State<Services>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    match attempt(services, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// The key in a request: bare, or a string in quotes as the draft of the header has it.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if (1..=KEY_MAX).contains(&text.len()) && text.bytes().all(|octet| (0x21..0x7f).contains(&octet)) {
        return Ok(Some(text.to_owned()));
    }
    Err(Problem::new(StatusCode::BAD_REQUEST)
        .detail(format!("Idempotency-Key is 1 to {KEY_MAX} visible ASCII characters, such as a UUID.")))
}

async fn attempt(services: Services, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(key) = key(request.headers())? else { return Ok(next.run(request).await) };
    let caller = request.extensions().get::<Caller>().map(|caller| caller.name().to_owned());
    let key = ReplyKey { caller: caller.unwrap_or_default(), key };
    let (parts, body) = request.into_parts();
    let body = input::read(body).await?;
    let target = parts.uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
    let digest = Digest::of([
        parts.method.as_str().as_bytes(),
        target.as_bytes(),
        input::media_type(&parts.headers).as_bytes(),
        &body,
    ]);
    match services.store.begin_reply(&key, digest, services.clock.now()).await? {
        Begun::New => {}
        Begun::Done(reply) => return Ok(replay(reply)),
        Begun::UnderWay => {
            let detail = "The request with this Idempotency-Key is under way; ask again for its reply.";
            return Err(Problem::new(StatusCode::CONFLICT).detail(detail).retry_after(1));
        }
        Begun::Mismatch => {
            let detail = "Another request was made with this Idempotency-Key within a day; a new request takes a new key.";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, REPLY_MAX).await else {
        services.store.abandon_reply(&key).await?;
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail("The reply cannot be kept."));
    };
    // What failed changed nothing: it may be tried again with the same key.
    if parts.status.is_success() {
        let lines = KEPT.iter().filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some(format!("{name}: {value}\n"))
        });
        let reply = Reply { status: parts.status.as_u16(), headers: lines.collect(), body: body.to_vec() };
        services.store.finish_reply(&key, &reply).await?;
    } else {
        services.store.abandon_reply(&key).await?;
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let pairs = reply.headers.lines().filter_map(|line| line.split_once(": "));
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &[u8]) -> Result<Option<String>, u16> {
        let headers = [(HEADER, HeaderValue::from_bytes(value).unwrap())].into_iter().collect();
        key(&headers).map_err(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn a_key_is_read_bare_or_in_quotes_and_within_bounds() {
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(with(b"8e03978e-40d5-43dd-bc93-6894a57f9324").unwrap().unwrap().len(), 36);
        assert_eq!(with(b"\"k-1\"").unwrap().as_deref(), Some("k-1"));
        for bad in [&b""[..], b"\"\"", b"two words", b"\xff", &[b'x'; 256]] {
            assert_eq!(with(bad), Err(400), "{bad:?}");
        }
    }

    #[test]
    fn a_kept_reply_comes_back_with_its_status_headers_and_body() {
        let headers = "content-type: application/json\nlocation: /v1/x\n".to_owned();
        let response = replay(Reply { status: 201, headers, body: b"{}".to_vec() });
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[header::LOCATION], "/v1/x");
        assert_eq!(response.headers()[REPLAYED], "true");
    }
}
