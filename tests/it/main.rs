//! The integration tests: the built binary against real tokens, databases and clients.
//!
//! `make test` installs the tools they run; a test whose tool is missing fails and says so.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod support;

mod capacity;
mod closed_loop;
mod command_line;
mod conformance;
mod control;
mod control_experiment;
mod corpus;
mod engine;
mod fault_matrix;
mod faults;
mod faulty_token;
mod imports;
mod interop;
mod layers;
mod limits;
mod lint;
mod presign;
mod request_differential;
mod rotation;
mod serving;
mod soak;
mod tokens;
