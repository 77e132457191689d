//! The checklist of `docs/conformance.md`, proved against the running server; what is pure is proved
//! beside the code.

pub(crate) mod asker;
mod away;
mod checker;
mod fleet;
mod flood;
mod issuers;
mod live;
mod preferences;
mod proxied;
mod stored;
mod table;
mod unassigned;
