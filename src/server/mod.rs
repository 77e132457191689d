//! The edges that speak HTTP: the public OCSP endpoint and the control listener, on sockets of their own.

pub mod control;
pub mod listen;
pub mod ocsp;
