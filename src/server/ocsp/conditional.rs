//! Conditional requests (RFC 9110 section 13): does the client already hold this answer?

use chrono::{DateTime, NaiveDateTime};
use hyper::HeaderMap;
use hyper::header::{HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};

use crate::clock::UnixTime;

/// Whether a GET or HEAD with these headers is answered 304, for an answer with this ETag (quoted, strong)
/// and this Last-Modified.
pub(super) fn not_modified(headers: &HeaderMap, etag: &[u8], last_modified: UnixTime) -> bool {
    let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    holds(all(IF_NONE_MATCH), all(IF_MODIFIED_SINCE), etag, last_modified)
}

/// Whether a client that sends these values of If-None-Match and of If-Modified-Since holds the answer.
/// If-None-Match, where present, decides alone.
pub(super) fn holds<'v>(
    tags: impl Iterator<Item = &'v [u8]>,
    mut dates: impl Iterator<Item = &'v [u8]>,
    etag: &[u8],
    last_modified: UnixTime,
) -> bool {
    let mut tags = tags.peekable();
    if tags.peek().is_some() {
        return tags.any(|value| names(value, etag));
    }
    match (dates.next(), dates.next()) {
        (Some(date), None) => {
            std::str::from_utf8(date).ok().and_then(parse_date).is_some_and(|since| last_modified <= since)
        }
        _ => false, // a repeated date is no date: the condition is ignored
    }
}

/// Whether an If-None-Match value is `*` or lists `etag`; the comparison is weak, so `W/` is no difference.
fn names(value: &[u8], etag: &[u8]) -> bool {
    let mut rest = value.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        while let [b',' | b' ' | b'\t', after @ ..] = rest {
            rest = after;
        }
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        // A tag runs from quote to quote; a list that breaks this is read no further.
        let Some(inner) = tag.strip_prefix(b"\"") else { return false };
        let Some(length) = inner.iter().position(|&octet| octet == b'"') else { return false };
        if &tag[..length + 2] == etag {
            return true;
        }
        rest = &inner[length + 1..];
    }
}

/// Reads the three forms of an HTTP date (RFC 9110 section 5.6.7).
fn parse_date(text: &str) -> Option<UnixTime> {
    let text = text.trim();
    if text.ends_with("GMT")
        && let Ok(date) = DateTime::parse_from_rfc2822(text)
    {
        return Some(date.into());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|date| date.and_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &[u8] = b"\"abc\"";
    const MODIFIED: UnixTime = UnixTime(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

    fn decided(pairs: &[(hyper::header::HeaderName, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        not_modified(&map, ETAG, MODIFIED)
    }

    /// H7.
    #[test]
    fn if_none_match_takes_lists_stars_and_weak_tags() {
        for value in
            ["\"abc\"", "W/\"abc\"", "*", " * ", "\"x\", \"abc\"", "\"a,b\",W/\"abc\" , \"y\"", ", ,\"abc\""]
        {
            assert!(decided(&[(IF_NONE_MATCH, value)]), "{value}");
        }
        for value in ["", "abc", "\"abcd\"", "\"ABC\"", "\"abc", "w/\"abc\"", "\"x\" \"", "x, \"abc\""] {
            assert!(!decided(&[(IF_NONE_MATCH, value)]), "{value}");
        }
        assert!(decided(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")]));
    }

    /// H7, H8.
    #[test]
    fn if_modified_since_takes_every_form_of_date() {
        for value in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        ] {
            assert!(decided(&[(IF_MODIFIED_SINCE, value)]), "{value}");
        }
        for value in
            ["Sun, 06 Nov 1994 08:49:36 GMT", "", "yesterday", "784111777", "Sun, 06 Nov 1994 08:49:37"]
        {
            assert!(!decided(&[(IF_MODIFIED_SINCE, value)]), "{value}");
        }
    }

    /// H7: RFC 9110 section 13.2.2.
    #[test]
    fn if_none_match_decides_alone_where_both_are_sent() {
        let fresh = "Mon, 07 Nov 1994 08:49:37 GMT";
        assert!(!decided(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, fresh)]));
        assert!(!decided(&[(IF_MODIFIED_SINCE, fresh), (IF_MODIFIED_SINCE, fresh)]));
        assert!(!decided(&[]));
    }
}
