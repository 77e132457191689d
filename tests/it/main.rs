//! The integration tests: the built binary against real tokens, databases and clients.
//!
//! `make test` installs the tools they run; a test whose tool is missing fails and says so.

mod support;

mod control_experiment;
mod layers;
