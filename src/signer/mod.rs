//! Signing through PKCS#11.
