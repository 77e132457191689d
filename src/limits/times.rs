//! Times as JSON shows them.

use serde::Serializer;

use crate::clock::UnixTime;

/// RFC 3339.
pub(super) fn time<S: Serializer>(time: &UnixTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// RFC 3339, or null.
pub(super) fn optional_time<S: Serializer>(time: &Option<UnixTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_none(),
    }
}
