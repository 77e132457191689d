//! Bearer tokens: `gs1.NAME.SECRET`. The name finds the credential, so that one hash is reckoned for a
//! token, not one for each credential; the secret is 32 random octets in base64url.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

/// What every token begins with, so that scanners of leaked secrets can know one.
const PREFIX: &str = "gs1.";

/// Octets of the secret.
const SECRET: usize = 32;

/// The bounds of a hash's cost: below, it protects too little; above, it takes the machine's memory.
const MEMORY_KIB: std::ops::RangeInclusive<u32> = 7_168..=262_144;
const PASSES: std::ops::RangeInclusive<u32> = 1..=10;

/// A token as it is made: shown once, never kept.
#[derive(Debug)]
pub struct NewToken {
    /// What the caller sends.
    pub token: SecretString,
    /// What the file of credentials holds: a PHC string of argon2id.
    pub hash: String,
}

/// Makes a token for a credential of this name.
///
/// # Errors
/// What the system says when it has no random numbers.
pub fn new_token(name: &str) -> Result<NewToken, String> {
    let mut secret = [0; SECRET];
    let mut salt = [0; 16];
    let random = SystemRandom::new();
    random
        .fill(&mut secret)
        .and_then(|()| random.fill(&mut salt))
        .map_err(|_| "the system's random numbers are not available".to_owned())?;
    let secret = URL_SAFE_NO_PAD.encode(secret);
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(secret.as_bytes(), &salt)
        .map_err(|error| error.to_string())?;
    Ok(NewToken { token: format!("{PREFIX}{name}.{secret}").into(), hash: hash.to_string() })
}

/// Name and secret in a token; none when it is no token.
pub(super) fn split(token: &str) -> Option<(&str, &str)> {
    let (name, secret) = token.strip_prefix(PREFIX)?.rsplit_once('.')?;
    (!name.is_empty() && secret.len() <= 2 * SECRET).then_some((name, secret))
}

/// Whether the secret gives the hash, a PHC string that [`check_hash`] accepted. Takes as long whether
/// it does or not; some ten milliseconds.
pub(super) fn verify(secret: &SecretString, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(secret.expose_secret().as_bytes(), &hash).is_ok()
}

/// What is wrong with the hash in a file.
pub(super) fn check_hash(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).map_err(|error| {
        format!("no PHC string ({error}); `goodstanding credential new` makes the whole entry")
    })?;
    if hash.algorithm.as_str() != Algorithm::Argon2id.as_str() {
        return Err(format!("{} is not argon2id", hash.algorithm));
    }
    let params = Params::try_from(&hash).map_err(|error| error.to_string())?;
    if !MEMORY_KIB.contains(&params.m_cost()) || !PASSES.contains(&params.t_cost()) {
        return Err(format!(
            "argon2id with m={} t={}; m must be from {} to {} (KiB), t from {} to {}",
            params.m_cost(),
            params.t_cost(),
            MEMORY_KIB.start(),
            MEMORY_KIB.end(),
            PASSES.start(),
            PASSES.end()
        ));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("it has no salt or no hash".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_verifies_against_its_hash_and_nothing_else_does() {
        let made = new_token("ra-1").unwrap();
        check_hash(&made.hash).unwrap();
        let token = made.token.expose_secret().to_owned();
        let (name, secret) = split(&token).unwrap();
        assert_eq!((name, secret.len()), ("ra-1", 43));
        assert!(verify(&secret.to_owned().into(), &made.hash));
        assert!(!verify(&format!("{}A", &secret[..42]).into(), &made.hash) || secret.ends_with('A'));
        assert!(!verify(&String::new().into(), &made.hash));
        assert!(!made.hash.contains(secret));
        assert_ne!(new_token("ra-1").unwrap().hash, made.hash);
    }

    #[test]
    fn what_is_no_token_is_not_taken_apart() {
        for text in ["", "gs1.", "gs1.x", "gs1..x", "ra-1.secret", "gs2.ra.secret"] {
            assert_eq!(split(text), None, "{text}");
        }
        assert_eq!(split(&format!("gs1.a.{}", "x".repeat(65))), None);
        assert_eq!(split("gs1.a.b.c"), Some(("a.b", "c")));
    }

    #[test]
    fn weak_foreign_and_costly_hashes_are_refused() {
        let made = new_token("x").unwrap().hash;
        for (old, new, said) in [
            ("argon2id", "argon2d", "not argon2id"),
            ("m=19456", "m=64", "m=64"),
            ("m=19456", "m=4194304", "m=4194304"),
            ("t=2", "t=99", "t=99"),
        ] {
            let error = check_hash(&made.replace(old, new)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for text in ["", "secret", "$argon2id$v=19$m=19456,t=2,p=1"] {
            assert!(check_hash(text).is_err(), "{text}");
        }
    }
}
