//! Certificates as the limiter knows them, read from the certificates themselves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::identifiers::{Identifier, Identifiers};
use super::profile::Profile;
use super::service::{IssuedCertificate, KnownCertificate, Limiter};
use super::{Counts, LimitsError};
use crate::clock::UnixTime;
use crate::ocsp::Certificate;

/// Certificates that are remembered side by side: as many as are written together.
const AT_ONCE: usize = 256;

impl IssuedCertificate {
    /// A certificate of the issuer of that name.
    #[must_use]
    pub fn of(issuer: &str, certificate: &Certificate) -> Self {
        let serial = certificate.serial();
        // RFC 9773 section 4.1; none without an authority key identifier.
        let ari = certificate.authority_key_identifier().map(|authority| {
            let serial = URL_SAFE_NO_PAD.encode(serial.as_der_content());
            format!("{}.{serial}", URL_SAFE_NO_PAD.encode(authority))
        });
        Self { name: format!("{issuer}/{serial}"), ari, not_after: certificate.not_after() }
    }
}

impl KnownCertificate {
    /// A certificate of the issuer of that name, issued at its start and no later than `now`; none when it
    /// has no name that could be ordered.
    #[must_use]
    pub fn of(issuer: &str, certificate: &Certificate, now: UnixTime) -> Option<Self> {
        let identifiers: Vec<String> = certificate.alt_names().texts().collect();
        Identifiers::parse(&identifiers, usize::MAX).ok()?;
        Some(Self {
            account: None,
            identifiers,
            issued_at: certificate.not_before().min(now),
            certificate: IssuedCertificate::of(issuer, certificate),
        })
    }

    /// Whether it can still count for anything at `now`: in the window of a limit, or as what a renewal
    /// renews.
    #[must_use]
    pub fn matters(&self, profile: &Profile, now: UnixTime) -> bool {
        let counts = |counts| profile.limits.iter().any(|limit| limit.counts == counts);
        counts(Counts::Certificates)
            && (now < self.issued_at.plus(profile.longest())
                || now < self.certificate.not_after.plus(profile.renewal_grace))
    }
}

impl Limiter {
    /// Takes note of certificates that were issued without an order here, as [`Limiter::remember`] does, and
    /// of none that counts for nothing any more. How many are known now that were not before.
    ///
    /// # Errors
    /// As [`Limiter::remember`]; those before are remembered then, and doing it again changes nothing.
    pub async fn remember_all(
        &self,
        known: Vec<KnownCertificate>,
        now: UnixTime,
    ) -> Result<u64, LimitsError> {
        let profile = self.profile();
        let mattering = known.into_iter().filter(|each| each.matters(&profile, now));
        let remembering =
            stream::iter(mattering).map(|each| async move { self.remember(&each).await }).buffered(AT_ONCE);
        remembering.try_fold(0, |new, done| async move { Ok(new + u64::from(!done.repeated)) }).await
    }
}

/// How a certificate's names differ from those of its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Ordered, and not in the certificate.
    pub missing: Vec<String>,
    /// In the certificate, and not ordered.
    pub surplus: Vec<String>,
}

/// Compares a certificate's names with the identifiers of an order: both are to be the same set.
///
/// # Errors
/// [`Mismatch`].
pub fn same_names(ordered: &[String], certificate: &Certificate) -> Result<(), Mismatch> {
    // What is no name that can be ordered is shown as it is.
    let read = |text: String| text.parse::<Identifier>().map_or(text, |name| name.to_string());
    let mut has: Vec<String> = certificate.alt_names().texts().map(read).collect();
    has.sort_unstable();
    has.dedup();
    let less = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|name| !other.contains(name)).cloned().collect()
    };
    let mismatch = Mismatch { missing: less(ordered, &has), surplus: less(&has, ordered) };
    if mismatch.missing.is_empty() && mismatch.surplus.is_empty() { Ok(()) } else { Err(mismatch) }
}
