//! A PKCS#11 module for tests: it forwards every call to another module, and does what a control file
//! says on the way: errors before or after the call, delays, hangs, wrong signatures, sessions closed,
//! logins lost, tokens pulled out, and the pace of a slow HSM. `docs/faults.md` explains the file.
//!
//! The path of the control file is in `$FAULTY_TOKEN`. It is read again whenever it changes.
//!
//! The crate is two things: the module (`libfaulty_token.so`), and for the tests that drive it the types
//! that the control file is written from ([`Control`], [`Fault`]) and the page of counts ([`Tally`]).
//!
//! Unsafe code is in three files: `below` (the module forwarded to), `module` (the functions that are
//! called from C) and `tally` (a page of memory shared by the processes).

mod below;
mod codes;
mod control;
mod functions;
mod module;
mod rules;
mod slots;
mod tally;
mod watched;

pub use codes::Code;
pub use control::{Act, Control, Fault, Hex, Mangling};
pub use functions::Function;
pub use tally::{Count, Tally};

/// The environment variable with the path of the control file.
pub const CONTROL_VARIABLE: &str = "FAULTY_TOKEN";
