//! Times, and what is shared or kept in place, as JSON shows them.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use smallvec::{Array, SmallVec};

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

/// A text that is shared.
pub(super) fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// A text that is shared, or null.
pub(super) fn optional_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}

/// A list that is kept in place.
pub(super) fn list<S, A>(list: &SmallVec<A>, to: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    A: Array<Item: Serialize>,
{
    list.as_slice().serialize(to)
}
