//! TLS for the control listener: rustls with ring, and client certificates where a CA for them is set.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The listener's certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Certificates that clients' certificates must lead to, PEM. With it, a connection without such a
    /// certificate is refused.
    pub client_ca: Option<PathBuf>,
}

/// The listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds no certificate or key.
    #[error("cannot read the {what} {path} (setting `control.{setting}`): {reason}")]
    File {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the certificate {certificate} and the key {key} cannot be used for TLS: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The clients' CA cannot be used.
    #[error("the certificates in {path} (setting `control.client_ca`) cannot verify clients: {source}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
    /// This build of rustls lacks what is needed.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

impl Settings {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file and the setting.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, "client_ca")? {
                    roots.add(certificate).map_err(|error| TlsError::File {
                        what: "clients' CA",
                        path: path.clone(),
                        setting: "client_ca",
                        reason: error.to_string(),
                    })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates(&self.certificate, "tls_certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File {
            what: "private key",
            path: self.key.clone(),
            setting: "tls_key",
            reason: error.to_string(),
        })?;
        let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &PathBuf, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { what: "certificate", path: path.clone(), setting, reason };
    let read: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    if read.is_empty() { Err(failed("there is no PEM block CERTIFICATE in it".to_owned())) } else { Ok(read) }
}

/// Whether a failed handshake is the client's doing, so that it is told at debug level only.
pub(super) fn is_ordinary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
