//! What a client can see of the checklist, in the order of the table.

/// A requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The line of the checklist.
    pub(super) id: &'static str,
    /// What it asks for.
    pub(super) requirement: &'static str,
    /// Where that stands.
    pub(super) source: &'static str,
}

macro_rules! rules {
    ($($name:ident = $id:literal, $requirement:literal, $source:literal;)+) => {
        $(pub(super) const $name: Rule = Rule { id: $id, requirement: $requirement, source: $source };)+
        /// Every rule.
        pub(super) const ALL: &[Rule] = &[$($name),+];
    };
}

rules! {
    BOTH_METHODS = "B1", "GET and POST are answered", "RFC 6960 A.1, BR 4.9.9";
    DER = "C2", "every answer is an OCSPResponse in DER", "RFC 6960 4.2.1";
    HASHES = "C7", "questions with SHA-1 and with SHA-256 are answered", "RFC 9919 3.1.1";
    ECHOED = "C8", "the CertID asked for is the one answered, hash included", "RFC 6960 4.2.1";
    PARAMETERS = "C9", "hash parameters NULL and absent are the same", "RFC 6960 4.1.1, RFC 4055 2.1";
    SIGNED = "C15", "the signature verifies with the named signer's key", "RFC 6960 3.2";
    ALGORITHM = "B13", "no answer is signed with SHA-1, not on request either", "BR 7.1.3.2.1";
    MAY_SIGN = "C18", "the signer may sign for the issuer", "RFC 6960 4.2.2.2";
    INCLUDED = "L4", "the delegate's certificate is in certs", "RFC 9919 3.2.2";
    DELEGATE = "L6", "the delegate's certificate bends no rule", "RFC 9919 3.2.2, BR 7.1.2.8";
    BY_KEY = "L5", "the responder is named by key", "RFC 9919 3.2.2";
    ONE_OR_PAIR = "L2", "one SingleResponse, or one a hash for the same certificate", "RFC 9919 3.2.1 (SHOULD)";
    NO_EXTENSIONS = "L3", "an answer without nonce has no responseExtensions", "RFC 9919 3.2.1 (SHOULD)";
    NO_REASON_CODE = "B9", "no reasonCode in singleExtensions", "BR 7.3";
    NEXT_UPDATE = "L8", "nextUpdate is there, lies ahead, and no time has fractions", "RFC 9919 3.2.4";
    TIMES = "C16", "thisUpdate ≤ producedAt ≤ now", "RFC 6960 2.4";
    IN_FORCE = "C17", "producedAt lies in the certificate's validity", "RFC 6960 2.2";
    SAME_TIMES = "L10", "producedAt is thisUpdate", "RFC 9919 6, 7.2 (both readings)";
    VALIDITY = "B2", "the validity is from 8 hours to 10 days", "BR 4.9.9";
    MICROSOFT = "B4", "the validity is at most 7 days", "Microsoft root programme";
    SUB_CA = "B10", "the validity is at most twelve months", "BR 4.9.9";
    OUTLIVED = "B5", "no certificate in certs ends before nextUpdate", "BR 4.9.9";
    CONTENT_TYPE = "L9", "Content-Type is application/ocsp-response", "RFC 6960 A.2";
    CONTENT_LENGTH = "L9", "Content-Length is the answer's", "RFC 9919 6, 7.2";
    DATE = "L9", "Date is there", "RFC 9919 6, 7.2";
    CACHE_CONTROL = "L9", "Cache-Control has max-age, public, no-transform, must-revalidate", "RFC 9919 6, 7.2";
    ETAG = "L9", "ETag is strong", "RFC 9919 6, 7.2";
    ETAG_DIGEST = "L9", "ETag is the answer's SHA-256", "RFC 9919 7.2 (RECOMMENDED)";
    EXPIRES = "L9", "Expires is nextUpdate", "RFC 9919 6, 7.2";
    LAST_MODIFIED = "L9", "Last-Modified is when the answer was made", "RFC 9919 6, 7.2";
    MAX_AGE = "L11", "max-age ends before nextUpdate", "RFC 9919 7.1, 7.2";
    GMT = "H8", "the dates in headers end in GMT", "RFC 9110 5.6.7";
    UNASSIGNED = "B7", "a random serial number is never good", "BR 4.9.9";
    NO_RECORD = "L7", "no record is answered unauthorized", "RFC 9919 3.2.3";
    NEVER_ISSUED = "C20", "revoked for never issued: on hold since 1970, extended-revoke", "RFC 6960 2.2, 4.4.8";
    HOLD = "B8", "nothing is on hold", "BR 4.9.13";
    ISSUER = "C5", "an issuer of another key gets no status", "RFC 6960 4.1.1";
    MALFORMED = "C1", "what is no request is answered malformedRequest", "RFC 6960 2.3";
    IN_200 = "H10", "OCSP errors travel in HTTP 200", "RFC 6960 A.2";
    NO_CACHE = "L12", "an error got by GET is not to be cached", "RFC 9919 7.2 (SHOULD)";
    UNKNOWN_EXTENSION = "C12", "an unknown extension is ignored, a critical one refused", "RFC 6960 4.4";
    SEVERAL = "C11", "every CertID in one request is answered", "RFC 6960 4.2.1";
    REQUESTOR = "L1", "a requestorName changes nothing", "RFC 9919 3.1.2";
    NONCE_REFUSED = "N1", "a nonce of 0 or over 128 octets is malformed", "RFC 9654 2.1";
    NONCE_ECHOED = "N2", "a nonce of 16 to 32 octets is echoed", "RFC 9654 2.1";
    NONCE_OTHER = "N3", "a nonce of another length does no harm", "RFC 9654 2.1, RFC 9919 3.2.1";
    NONCE_PRIVATE = "N5", "an answer with a nonce is for no cache", "RFC 9111 3";
    LONG_GET = "H1", "GET takes 2,048 characters of base64", "RFC 6960 A.1, RFC 9110 4.1";
    PATHS = "H2", "GET takes any percent-encoding and leading slashes, without redirect", "RFC 6960 A.1, RFC 3986";
    BASE64 = "H3", "GET takes base64url and missing padding", "none (leniency)";
    POST_TYPES = "H4", "POST is answered whatever its type", "none (leniency)";
    HEAD = "H6", "HEAD has the headers of GET", "RFC 9110 9.3.2";
    ALLOW = "H6", "other methods are 405 with Allow", "RFC 9110 15.5.6";
    NOT_MODIFIED = "H7", "who holds the answer gets 304 with its cache headers", "RFC 9110 13.1, 15.4.5";
    HTTP_1_0 = "H9", "HTTP/1.0 gets a Content-Length and no chunks", "RFC 9112 6.1";
}
