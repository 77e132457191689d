//! Certificates, requests and keys in files: PEM, with whatever text around it, or DER.

use std::path::{Path, PathBuf};

/// A file is not what was expected of it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {what} {path}: {source}")]
    Unreadable {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no {what}: neither DER nor a PEM block {labels}")]
    Other {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The PEM labels looked for.
        labels: String,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the first PEM block with one of these labels, or the file itself where it is DER.
///
/// # Errors
/// [`FileError::Unreadable`], [`FileError::Other`].
pub fn read_der(path: &Path, what: &'static str, labels: &[&str]) -> Result<Vec<u8>, FileError> {
    let octets = std::fs::read(path).map_err(|source| FileError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })?;
    if octets.first() == Some(&0x30) {
        return Ok(octets);
    }
    let blocks = pem::parse_many(&octets).unwrap_or_default();
    let found = blocks.into_iter().find(|block| labels.contains(&block.tag()));
    found.map(pem::Pem::into_contents).ok_or_else(|| FileError::Other {
        what,
        path: path.to_owned(),
        labels: labels.join(" or "),
    })
}

/// Reads a certificate.
///
/// # Errors
/// As [`read_der`].
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, FileError> {
    read_der(path, "certificate", &["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"])
}

/// Writes a PEM block, whole or not at all.
///
/// # Errors
/// [`FileError::Unwritable`].
pub fn write_pem(path: &Path, label: &str, der: &[u8]) -> Result<(), FileError> {
    let text = pem_text(label, der);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

/// A PEM block.
#[must_use]
pub fn pem_text(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_with_text_around_it_and_der_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let der = [0x30, 3, 2, 1, 5];
        std::fs::write(&path, format!("Certificate:\n  Data:\n{}trailing\n", pem_text("CERTIFICATE", &der)))
            .unwrap();
        assert_eq!(read_certificate(&path).unwrap(), der);
        std::fs::write(&path, der).unwrap();
        assert_eq!(read_certificate(&path).unwrap(), der);
        write_pem(&path, "PRIVATE KEY", &der).unwrap();
        let error = read_certificate(&path).unwrap_err().to_string();
        assert!(error.contains("ca.pem holds no certificate"), "{error}");
        assert!(read_certificate(Path::new("no/such.pem")).unwrap_err().to_string().contains("no/such.pem"));
    }
}
