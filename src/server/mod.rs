//! The sockets: public OCSP endpoint and control listener.
