//! What an operator does with a token: look around, make keys, read public keys, destroy keys.
//!
//! These calls block, on the calling thread, for as long as the module takes.

use std::path::Path;
use std::time::Duration;

use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::types::Ulong;

use super::class::code_of;
use super::error::SignerError;
use super::key::KeyReference;
use super::mechanism::{Scheme, generation};
use super::module::{Module, ModuleUse};
use super::settings::Settings;
use super::spki::{self, PublicKey};
use super::token::{Access, Connection, KeyEntry};
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

/// A token that a module shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// The slot it is in now; may be another after a restart.
    pub slot: u64,
    /// Its label.
    pub label: String,
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial_number: String,
    /// Its firmware version.
    pub firmware: String,
    /// Whether a user PIN is set.
    pub user_pin_set: bool,
    /// How it can sign, as its list of mechanisms says.
    pub algorithms: Vec<SignatureAlgorithm>,
}

/// The initialised tokens that a module shows. Needs no PIN.
///
/// # Errors
/// [`SignerError::ModuleMissing`], [`SignerError::NotAModule`], or the module does not work.
pub fn list_tokens(module: &Path) -> Result<Vec<TokenEntry>, SignerError> {
    let using = Module::open(module)?;
    let entry = using.module().enter(Duration::from_secs(10))?;
    let context = using.module().context();
    let failed = |action: &str, error: &Pkcs11Error| SignerError::Module {
        token: None,
        path: module.to_owned(),
        what: format!("{action}: {}", code_of(error)),
    };
    let slots = context.get_slots_with_token().map_err(|error| failed("listing the slots", &error))?;
    let mut tokens = Vec::new();
    for slot in slots {
        let info = context.get_token_info(slot).map_err(|error| failed("asking for a token", &error))?;
        if !info.token_initialized() {
            continue;
        }
        let mechanisms =
            context.get_mechanism_list(slot).map_err(|error| failed("listing the mechanisms", &error))?;
        tokens.push(TokenEntry {
            slot: slot.id(),
            label: info.label().to_owned(),
            manufacturer: info.manufacturer_id().to_owned(),
            model: info.model().to_owned(),
            serial_number: info.serial_number().to_owned(),
            firmware: info.firmware_version().to_string(),
            user_pin_set: info.user_pin_initialized(),
            algorithms: SignatureAlgorithm::ALL
                .into_iter()
                .filter(|each| Scheme::of(*each).iter().any(|scheme| mechanisms.contains(&scheme.kind())))
                .collect(),
        });
    }
    drop(entry);
    tokens.sort_by(|one, other| one.label.cmp(&other.label).then(one.slot.cmp(&other.slot)));
    Ok(tokens)
}

/// A session for one administrative act.
struct Desk {
    // Declared, and so dropped, before the use of the module: the session is closed first.
    connection: Connection,
    _using: ModuleUse,
}

fn desk(settings: &Settings, access: Access) -> Result<Desk, SignerError> {
    let pin =
        settings.pin.read().map_err(|source| SignerError::Pin { token: settings.name.clone(), source })?;
    let using = Module::open(&settings.module).map_err(|error| error.of_token(&settings.name))?;
    let connection = Connection::open(using.module(), settings, &pin, access)?;
    Ok(Desk { connection, _using: using })
}

/// The private keys of a token, by label.
///
/// # Errors
/// [`SignerError`], as for starting a signer.
pub fn list_keys(settings: &Settings) -> Result<Vec<KeyEntry>, SignerError> {
    let desk = desk(settings, Access::ReadOnly)?;
    let mut keys = desk
        .connection
        .objects(ObjectClass::PRIVATE_KEY, None)?
        .into_iter()
        .map(|handle| desk.connection.describe(handle))
        .collect::<Result<Vec<_>, _>>()?;
    keys.sort_by(|one, other| one.label.cmp(&other.label).then_with(|| one.id.cmp(&other.id)));
    Ok(keys)
}

/// Makes a key pair that stays in the token: sensitive, not extractable, for signing only.
///
/// # Errors
/// [`SignerError::KeyExists`] when the label or the id is taken; [`SignerError::MechanismMissing`].
pub fn generate_key(
    settings: &Settings,
    label: &str,
    id: &[u8],
    algorithm: KeyAlgorithm,
) -> Result<PublicKey, SignerError> {
    let desk = desk(settings, Access::ReadWrite)?;
    for reference in [KeyReference::Label(label.to_owned()), KeyReference::Id(id.to_owned())] {
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            if !desk.connection.objects(class, Some(&reference))?.is_empty() {
                return Err(SignerError::KeyExists { token: settings.name.clone(), key: reference });
            }
        }
    }
    let (public, _) = generate(&desk.connection, settings, label, id, algorithm, Lifetime::Token)?;
    read_public_key(&desk.connection, settings, public, &KeyReference::Label(label.to_owned()))
}

/// Where a key pair lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// In the token, for good.
    Token,
    /// In the session, gone with it.
    Session,
}

/// Makes a key pair: its public and its private handle.
pub(crate) fn generate(
    connection: &Connection,
    settings: &Settings,
    label: &str,
    id: &[u8],
    algorithm: KeyAlgorithm,
    lifetime: Lifetime,
) -> Result<(ObjectHandle, ObjectHandle), SignerError> {
    let (kind, mechanism) = generation(algorithm);
    if !connection.mechanisms()?.contains(&kind) {
        return Err(SignerError::MechanismMissing {
            token: settings.name.clone(),
            act: "make a key for",
            algorithm: algorithm.to_string(),
            mechanisms: kind.to_string(),
        });
    }
    let token = Attribute::Token(lifetime == Lifetime::Token);
    let names = [Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(id.to_vec())];
    let mut public = vec![token.clone(), Attribute::Private(false), Attribute::Verify(true)];
    public.extend(names.clone());
    let params = match algorithm {
        KeyAlgorithm::P256 => Some(spki::P256_PARAMS),
        KeyAlgorithm::P384 => Some(spki::P384_PARAMS),
        KeyAlgorithm::Ed25519 => Some(spki::ED25519_PARAMS),
        _ => None,
    };
    public.extend(params.map(|params| Attribute::EcParams(params.to_vec())));
    if let Some(bits) = algorithm.modulus_bits() {
        public.push(Attribute::ModulusBits(Ulong::new(bits.into())));
        public.push(Attribute::PublicExponent(vec![1, 0, 1]));
    }
    let mut private = vec![
        token,
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend(names);
    // Tokens switch other uses on by themselves. Some know them for RSA only, and refuse to hear of
    // them for other keys.
    let mut only_signing = private.clone();
    only_signing.push(Attribute::Derive(false));
    if algorithm.modulus_bits().is_some() {
        only_signing.extend([Attribute::Decrypt(false), Attribute::Unwrap(false)]);
    }
    match connection.session.generate_key_pair(&mechanism, &public, &only_signing) {
        Err(Pkcs11Error::Pkcs11(
            RvError::AttributeTypeInvalid | RvError::AttributeValueInvalid | RvError::TemplateInconsistent,
            _,
        )) => connection.session.generate_key_pair(&mechanism, &public, &private),
        other => other,
    }
    .map_err(|error| connection.failure(&format!("making a {algorithm} key {label}"), &error))
}

/// The public key that belongs to a private key: the public key object of the same reference.
///
/// # Errors
/// [`SignerError::KeyMissing`] when there is no such private key; [`SignerError::KeyUnfit`] when it has
/// no public key object, or one that is not supported.
pub fn public_key(settings: &Settings, key: &KeyReference) -> Result<PublicKey, SignerError> {
    let desk = desk(settings, Access::ReadOnly)?;
    let private = desk.connection.private_key(key)?;
    let found = desk.connection.objects(ObjectClass::PUBLIC_KEY, Some(key))?;
    let public = match found.as_slice() {
        [one] => *one,
        // Same label, several objects: the id tells them apart.
        _ => {
            let id = KeyReference::Id(desk.connection.describe(private)?.id);
            match desk.connection.objects(ObjectClass::PUBLIC_KEY, Some(&id))?.as_slice() {
                [one] => *one,
                several => {
                    return Err(SignerError::KeyUnfit {
                        token: settings.name.clone(),
                        key: key.clone(),
                        what: format!(
                            "the token has {} public key objects for it, where one is needed; import the public key beside it with the same CKA_ID and CKA_LABEL",
                            several.len()
                        ),
                    });
                }
            }
        }
    };
    read_public_key(&desk.connection, settings, public, key)
}

pub(crate) fn read_public_key(
    connection: &Connection,
    settings: &Settings,
    handle: ObjectHandle,
    key: &KeyReference,
) -> Result<PublicKey, SignerError> {
    let wanted = [
        AttributeType::KeyType,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::EcParams,
        AttributeType::EcPoint,
    ];
    let attributes = connection
        .session
        .get_attributes(handle, &wanted)
        .map_err(|error| connection.failure("reading a public key", &error))?;
    let (mut kind, mut modulus, mut exponent, mut params, mut point) = (None, None, None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(found) => kind = Some(found),
            Attribute::Modulus(octets) => modulus = Some(octets),
            Attribute::PublicExponent(octets) => exponent = Some(octets),
            Attribute::EcParams(octets) => params = Some(octets),
            Attribute::EcPoint(octets) => point = Some(octets),
            _ => {}
        }
    }
    let read = match kind {
        Some(KeyType::RSA) => modulus.zip(exponent).and_then(|(n, e)| PublicKey::rsa(&n, &e)),
        Some(KeyType::EC | KeyType::EC_EDWARDS) => {
            params.zip(point).and_then(|(params, point)| PublicKey::ec(&params, &point))
        }
        _ => None,
    };
    read.ok_or_else(|| SignerError::KeyUnfit {
        token: settings.name.clone(),
        key: key.clone(),
        what: format!("its public key is none of {}", KeyAlgorithm::ALL.map(KeyAlgorithm::name).join(", ")),
    })
}

/// Destroys a private key and its public key object, for good.
///
/// # Errors
/// [`SignerError::KeyMissing`] or [`SignerError::KeyAmbiguous`] when the reference does not name exactly
/// one private key.
pub fn destroy_key(settings: &Settings, key: &KeyReference) -> Result<KeyEntry, SignerError> {
    let desk = desk(settings, Access::ReadWrite)?;
    let private = desk.connection.private_key(key)?;
    let entry = desk.connection.describe(private)?;
    let public = desk.connection.objects(ObjectClass::PUBLIC_KEY, Some(key))?;
    for handle in std::iter::once(private).chain(public) {
        desk.connection
            .session
            .destroy_object(handle)
            .map_err(|error| desk.connection.failure(&format!("destroying {key}"), &error))?;
    }
    Ok(entry)
}
