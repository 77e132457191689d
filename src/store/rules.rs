//! What becomes of a certificate when something is said of it: the rules of the contract, pure, for
//! every engine to apply inside its transaction.

use super::CertificateEntry;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation};

/// What a change of status comes to: the rule of the contract, for engines to apply.
///
/// `unspecified` and no reason are the same thing (RFC 5280 section 5.3.1), and `removeFromCRL` is
/// the end of a hold, so it never revokes anything.
#[must_use]
pub fn may_revoke(present: Option<Revocation>, asked: Revocation) -> RevokeRule {
    let plain = |reason: Option<CrlReason>| reason.filter(|reason| *reason != CrlReason::Unspecified);
    if asked.reason == Some(CrlReason::RemoveFromCrl) {
        return RevokeRule::Refuse;
    }
    match present {
        None => RevokeRule::Apply,
        Some(present) if present.time == asked.time && plain(present.reason) == plain(asked.reason) => {
            RevokeRule::Unchanged
        }
        Some(Revocation { reason: Some(CrlReason::CertificateHold), .. }) => {
            if asked.reason == Some(CrlReason::CertificateHold) {
                RevokeRule::Unchanged
            } else {
                RevokeRule::Apply
            }
        }
        Some(_) => RevokeRule::Refuse,
    }
}

/// See [`may_revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeRule {
    /// Record it and raise the version.
    Apply,
    /// It is so already.
    Unchanged,
    /// It is revoked for good, otherwise.
    Refuse,
}

/// What the store holds of a certificate that can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) not_before: Option<UnixTime>,
    pub(super) not_after: UnixTime,
    pub(super) revocation: Option<Revocation>,
    pub(super) version: i64,
}

impl Standing {
    /// A certificate that is registered for the first time.
    pub(super) fn begin(entry: &CertificateEntry) -> Self {
        Self {
            not_before: entry.not_before,
            not_after: entry.not_after,
            revocation: entry.revocation.filter(|asked| may_revoke(None, *asked) == RevokeRule::Apply),
            version: 1,
        }
    }

    /// Registers a certificate that is there; whether that changed anything.
    pub(super) fn register(&mut self, entry: &CertificateEntry) -> bool {
        let before = *self;
        self.not_before = self.not_before.or(entry.not_before);
        self.not_after = entry.not_after;
        if let Some(asked) = entry.revocation {
            self.revoke(asked);
        }
        *self != before
    }

    /// Applies [`may_revoke`].
    pub(super) fn revoke(&mut self, asked: Revocation) -> RevokeRule {
        let rule = may_revoke(self.revocation, asked);
        if rule == RevokeRule::Apply {
            self.revocation = Some(asked);
            self.version += 1;
        }
        rule
    }

    /// Takes back a hold; [`RevokeRule::Unchanged`] when it is not revoked at all.
    pub(super) fn unhold(&mut self) -> RevokeRule {
        match self.revocation {
            None => RevokeRule::Unchanged,
            Some(Revocation { reason: Some(CrlReason::CertificateHold), .. }) => {
                self.revocation = None;
                self.version += 1;
                RevokeRule::Apply
            }
            Some(_) => RevokeRule::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(time: i64, reason: Option<CrlReason>) -> Revocation {
        Revocation { time: UnixTime(time), reason }
    }

    #[test]
    fn only_a_hold_gives_way_to_another_revocation() {
        let hold = revocation(5, Some(CrlReason::CertificateHold));
        let later_hold = revocation(6, Some(CrlReason::CertificateHold));
        let for_good = revocation(7, Some(CrlReason::KeyCompromise));
        assert_eq!(may_revoke(None, hold), RevokeRule::Apply);
        assert_eq!(may_revoke(Some(hold), later_hold), RevokeRule::Unchanged);
        assert_eq!(may_revoke(Some(hold), for_good), RevokeRule::Apply);
        assert_eq!(may_revoke(Some(for_good), for_good), RevokeRule::Unchanged);
        assert_eq!(may_revoke(Some(for_good), hold), RevokeRule::Refuse);
        assert_eq!(may_revoke(Some(for_good), revocation(8, for_good.reason)), RevokeRule::Refuse);
    }

    #[test]
    fn no_reason_and_unspecified_are_the_same() {
        let bare = revocation(5, None);
        let unspecified = revocation(5, Some(CrlReason::Unspecified));
        assert_eq!(may_revoke(Some(bare), unspecified), RevokeRule::Unchanged);
        assert_eq!(may_revoke(Some(unspecified), bare), RevokeRule::Unchanged);
    }

    #[test]
    fn remove_from_crl_revokes_nothing() {
        let removal = revocation(5, Some(CrlReason::RemoveFromCrl));
        let hold = revocation(5, Some(CrlReason::CertificateHold));
        assert_eq!(may_revoke(None, removal), RevokeRule::Refuse);
        assert_eq!(may_revoke(Some(hold), removal), RevokeRule::Refuse);
        let entry = CertificateEntry {
            serial: "01".parse().unwrap(),
            not_before: None,
            not_after: UnixTime(9),
            revocation: Some(removal),
        };
        assert_eq!(Standing::begin(&entry).revocation, None);
    }
}
