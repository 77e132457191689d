//! The checklist of `docs/conformance.md`, proved against the running server; what is pure is proved
//! beside the code.

pub(crate) mod asker;
mod checker;
mod flood;
mod live;
mod proxied;
mod stored;
mod table;
mod unassigned;
