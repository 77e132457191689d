//! Keeping web pages out. A browser on this machine will send requests to a loopback address for any
//! page that asks it to; where no token is needed, what a page can send must be told apart.

use axum::http::{HeaderMap, header, uri::Authority};

/// Why a request may come from a web page of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error(
        "the Host header {0:?} names neither an address nor localhost: a page may have pointed its own name here (DNS rebinding). Ask by the address, or give the listener credentials"
    )]
    Host(String),
    #[error("the request comes from a page of {0:?}")]
    Origin(String),
}

/// Whether a program, or this listener's own page, sent this request.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Foreign> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.parse::<Authority>().map(|authority| authority.host().to_owned()).unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    // HTTP/1.0 and some probes send no Host at all; no browser does so.
    if !host.is_empty() && address.is_err() && name != "localhost" {
        return Err(Foreign::Host(host));
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.split_once("://").is_none_or(|(_, origin)| origin != host) => {
            Err(Foreign::Origin(origin))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> Result<(), Foreign> {
        check(&pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn programs_and_the_own_page_pass_and_other_pages_do_not() {
        for host in ["127.0.0.1:8890", "localhost:8890", "[::1]:8890", "127.0.0.1"] {
            with(&[("host", host)]).unwrap();
            with(&[("host", host), ("origin", &format!("http://{host}"))]).unwrap();
            assert!(with(&[("host", host), ("origin", "https://example.org")]).is_err());
            assert!(with(&[("host", host), ("origin", "null")]).is_err());
        }
        with(&[]).unwrap();
        for host in ["rebound.example:8890", "127.0.0.1.example.org", "localhost.example.org", "a b"] {
            assert!(matches!(with(&[("host", host)]), Err(Foreign::Host(_))), "{host}");
        }
    }
}
