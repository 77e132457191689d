//! A certificate as the body of a request, and whose it is.

use axum::http::{HeaderMap, StatusCode};

use super::input;
use crate::import::certificates::KnownIssuer;
use crate::limits::IssuedCertificate;
use crate::ocsp::Certificate;
use crate::server::control::Problem;
use crate::store::{CertificateEntry, IssuerRecord};

/// A certificate that one of the known issuers issued.
pub(super) struct Issued<'i> {
    pub(super) issuer: &'i IssuerRecord,
    pub(super) certificate: Certificate,
}

impl<'i> Issued<'i> {
    /// Reads a body, DER or PEM; `taken` says what else could have been sent.
    ///
    /// # Errors
    /// 415 for another media type, 422 for what is no certificate or nobody's.
    pub(super) fn read(
        headers: &HeaderMap,
        body: &[u8],
        issuers: &'i [IssuerRecord],
        taken: &str,
    ) -> Result<Self, Problem> {
        let refused = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(detail);
        let read = match input::media_type(headers).as_str() {
            "application/pkix-cert" => Certificate::from_der(body),
            "application/x-pem-file" | "application/pem-certificate-chain" => {
                Certificate::from_der(&first_block(body)?)
            }
            _ => return Err(input::unsupported(headers, taken)),
        };
        let certificate = read.map_err(|error| refused(format!("The body is no certificate: {error}.")))?;
        let known = KnownIssuer::of(issuers).map_err(|error| {
            tracing::error!(%error, "an issuer in the store does not read");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail("An issuer in the store does not read.")
        })?;
        let issuer = known.iter().find(|known| known.has_issued(&certificate));
        let issuer = issuer.and_then(|known| issuers.iter().find(|record| record.id == known.id));
        let Some(issuer) = issuer else {
            return Err(refused(format!(
                "None of the known issuers issued this certificate; its issuer is {}. Add it with `goodstanding issuer add`.",
                certificate.issuer()
            )));
        };
        Ok(Self { issuer, certificate })
    }

    /// What the store is told of it.
    pub(super) fn entry(&self) -> CertificateEntry {
        CertificateEntry {
            serial: self.certificate.serial(),
            not_before: Some(self.certificate.not_before()),
            not_after: self.certificate.not_after(),
            revocation: None,
        }
    }

    /// What the limiter is told of it.
    pub(super) fn issued(&self) -> IssuedCertificate {
        IssuedCertificate::of(&self.issuer.name, &self.certificate)
    }
}

/// The first certificate of a PEM text; in a chain that is the end entity's.
fn first_block(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let blocks = pem::parse_many(text).unwrap_or_default();
    let found = blocks.into_iter().find(|block| matches!(block.tag(), "CERTIFICATE" | "X509 CERTIFICATE"));
    found.map(pem::Pem::into_contents).ok_or_else(|| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .detail("There is no PEM block CERTIFICATE in the body.")
    })
}
