//! One session with one token: found by its label, logged in, with what can be asked of it.

use std::sync::Arc;
use std::time::Duration;

use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use secrecy::{ExposeSecret, SecretString};

use super::class::{classify, code_of};
use super::error::{FailureClass, SignerError, misfit};
use super::key::{KeyReference, hex};
use super::mechanism::Scheme;
use super::module::{Entry, Module, RefusedPin};
use super::settings::Settings;
use super::spki;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

/// The label of what is no key of the token but a session's copy of one.
const COPY_LABEL: &[u8] = b"goodstanding: a copy for one session";

/// How often a key of which there are several is looked for again, and after how long.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A logged-in session. Stays on the thread that uses it.
pub(crate) struct Connection {
    // Declared, and so dropped, before the entry: the session is closed while still inside.
    pub(crate) session: Session,
    pub(crate) slot: Slot,
    token: String,
    pub(crate) module: Arc<Module>,
    pub(crate) entry: Entry,
}

/// Whether a session may make and destroy objects in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

impl Connection {
    /// Opens a session with the token and logs in, once per process and token.
    pub(crate) fn open(
        module: &Arc<Module>,
        settings: &Settings,
        pin: &SecretString,
        access: Access,
    ) -> Result<Self, SignerError> {
        let entry = module.enter(settings.call_timeout).map_err(|error| error.of_token(&settings.name))?;
        let slot = find_slot(module, settings)?;
        let failed = |action: &str, error: Pkcs11Error| failure(&settings.name, action, &error);
        let session = match access {
            Access::ReadOnly => module.context().open_ro_session(slot),
            Access::ReadWrite => module.context().open_rw_session(slot),
        }
        .map_err(|error| failed("opening a session", error))?;
        login(module, settings, pin, &session)?;
        Ok(Self { session, slot, token: settings.name.clone(), module: Arc::clone(module), entry })
    }

    /// The failure of `action`, with its class.
    pub(crate) fn failure(&self, action: &str, error: &Pkcs11Error) -> SignerError {
        failure(&self.token, action, error)
    }

    /// Every mechanism the token has, as far as they are known here.
    pub(crate) fn mechanisms(&self) -> Result<Vec<MechanismType>, SignerError> {
        self.module
            .context()
            .get_mechanism_list(self.slot)
            .map_err(|error| self.failure("listing the mechanisms", &error))
    }

    /// The objects of a class that answer to the reference; all of the class without one.
    pub(crate) fn objects(
        &self,
        class: ObjectClass,
        key: Option<&KeyReference>,
    ) -> Result<Vec<ObjectHandle>, SignerError> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(key.map(KeyReference::attribute));
        self.session.find_objects(&template).map_err(|error| self.failure("finding keys", &error))
    }

    /// The one private key that answers to the reference.
    pub(crate) fn private_key(&self, key: &KeyReference) -> Result<ObjectHandle, SignerError> {
        let mut found = self.objects(ObjectClass::PRIVATE_KEY, Some(key))?;
        for _ in 0..LOOKS {
            if found.len() <= 1 {
                break;
            }
            // A copy that another session is making has the key's own label at first.
            std::thread::sleep(BETWEEN_LOOKS);
            found = self.objects(ObjectClass::PRIVATE_KEY, Some(key))?;
        }
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(SignerError::KeyMissing {
                token: self.token.clone(),
                key: key.clone(),
                found: self.key_names()?,
            }),
            several => Err(SignerError::KeyAmbiguous {
                token: self.token.clone(),
                key: key.clone(),
                count: several.len(),
            }),
        }
    }

    /// Copies a private key into the session, with which the copy ends. It answers to no reference: another
    /// session that looks for the key finds the key alone.
    pub(crate) fn session_copy(&self, key: ObjectHandle) -> Result<ObjectHandle, Pkcs11Error> {
        let template =
            [Attribute::Token(false), Attribute::Label(COPY_LABEL.to_vec()), Attribute::Id(Vec::new())];
        self.session.copy_object(key, &template)
    }

    fn key_names(&self) -> Result<Vec<String>, SignerError> {
        let mut names = Vec::new();
        for handle in self.objects(ObjectClass::PRIVATE_KEY, None)? {
            match self.describe(handle) {
                Ok(entry) if entry.label.as_bytes() != COPY_LABEL => names.push(entry.to_string()),
                // A copy, or one that ended with its session meanwhile.
                Ok(_) => {}
                Err(_) if self.is_alive() => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    /// What the token says of a private or public key.
    pub(crate) fn describe(&self, handle: ObjectHandle) -> Result<KeyEntry, SignerError> {
        let wanted = [
            AttributeType::Label,
            AttributeType::Id,
            AttributeType::KeyType,
            AttributeType::Modulus,
            AttributeType::EcParams,
        ];
        let attributes = self
            .session
            .get_attributes(handle, &wanted)
            .map_err(|error| self.failure("reading a key's attributes", &error))?;
        let (mut label, mut id, mut kind, mut algorithm) = (String::new(), Vec::new(), None, None);
        for attribute in attributes {
            match attribute {
                Attribute::Label(octets) => label = String::from_utf8_lossy(&octets).into_owned(),
                Attribute::Id(octets) => id = octets,
                Attribute::KeyType(found) => kind = Some(found),
                Attribute::Modulus(octets) => algorithm = spki::rsa_of_bits(spki::bits(&octets)),
                Attribute::EcParams(octets) => algorithm = spki::curve(&octets),
                _ => {}
            }
        }
        let kind = match kind {
            Some(KeyType::RSA) => "RSA".to_owned(),
            Some(KeyType::EC) => "EC".to_owned(),
            Some(KeyType::EC_EDWARDS) => "EC Edwards".to_owned(),
            Some(other) => other.to_string(),
            None => "unknown".to_owned(),
        };
        Ok(KeyEntry { label, id, kind, algorithm })
    }

    /// Checks that the key may sign, without asking for a PIN each time, with this algorithm.
    pub(crate) fn check_fit(
        &self,
        handle: ObjectHandle,
        key: &KeyReference,
        wanted: KeyAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), SignerError> {
        let unfit =
            |what: String| SignerError::KeyUnfit { token: self.token.clone(), key: key.clone(), what };
        let found = self.describe(handle)?;
        match found.algorithm {
            Some(found) if !algorithm.fits(found) => return Err(unfit(misfit(Some(found), algorithm))),
            Some(found) if found != wanted => {
                return Err(unfit(format!(
                    "it is a key for {found}, but the certificate's key is for {wanted}"
                )));
            }
            // A token may keep the modulus or the curve of a private key to itself; the signature made
            // and verified next decides then.
            _ => {}
        }
        let flags = [AttributeType::Sign, AttributeType::AlwaysAuthenticate];
        for attribute in self
            .session
            .get_attributes(handle, &flags)
            .map_err(|error| self.failure("reading a key's attributes", &error))?
        {
            match attribute {
                Attribute::Sign(false) => {
                    return Err(unfit("it may not sign (CKA_SIGN is false); make a key that may".into()));
                }
                Attribute::AlwaysAuthenticate(true) => {
                    return Err(unfit(
                        "it asks for the PIN at every signature (CKA_ALWAYS_AUTHENTICATE); make a key without that".into(),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One signature, unverified, in its X.509 form; none when the token returned nonsense.
    pub(crate) fn sign(
        &self,
        scheme: Scheme,
        handle: ObjectHandle,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, Pkcs11Error> {
        let signature = self.session.sign(&scheme.mechanism(), handle, scheme.input(message).as_slice())?;
        Ok(scheme.output(signature))
    }

    /// Whether the session is alive and logged in.
    pub(crate) fn is_alive(&self) -> bool {
        self.session.get_session_info().is_ok_and(|info| is_user(info.session_state()))
    }
}

fn is_user(state: SessionState) -> bool {
    matches!(state, SessionState::RoUser | SessionState::RwUser)
}

pub(crate) fn failure(token: &str, action: &str, error: &Pkcs11Error) -> SignerError {
    SignerError::Call {
        token: token.to_owned(),
        action: action.to_owned(),
        code: code_of(error),
        class: classify(error),
    }
}

fn find_slot(module: &Module, settings: &Settings) -> Result<Slot, SignerError> {
    let failed = |action: &str, error: Pkcs11Error| failure(&settings.name, action, &error);
    let slots =
        module.context().get_slots_with_token().map_err(|error| failed("listing the slots", error))?;
    let mut found = Vec::new();
    let mut labels = Vec::new();
    for slot in slots {
        // A slot that does not answer is not the one, or will be missed below by its label.
        let Ok(info) = module.context().get_token_info(slot) else { continue };
        if !info.token_initialized() {
            continue;
        }
        if info.label() == settings.label {
            found.push(slot);
        }
        labels.push(info.label().to_owned());
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(SignerError::TokenMissing {
            token: settings.name.clone(),
            label: settings.label.clone(),
            module: module.path().to_owned(),
            found: labels,
        }),
        several => Err(SignerError::TokenAmbiguous {
            token: settings.name.clone(),
            label: settings.label.clone(),
            module: module.path().to_owned(),
            count: several.len(),
        }),
    }
}

/// Logs in, unless another session of this process has: the login belongs to the process. A PIN that
/// was refused is never sent again.
fn login(
    module: &Module,
    settings: &Settings,
    pin: &SecretString,
    session: &Session,
) -> Result<(), SignerError> {
    let mut refused = module.logins();
    let state = session
        .get_session_info()
        .map_err(|error| failure(&settings.name, "asking for the session's state", &error))?
        .session_state();
    if is_user(state) {
        return Ok(());
    }
    let refusal = |code: &str| SignerError::PinRefused {
        token: settings.name.clone(),
        pin: settings.pin.to_string(),
        code: code.to_owned(),
    };
    if let Some(before) = refused.get(&settings.label)
        && before.is(pin.expose_secret())
    {
        return Err(refusal(&before.code));
    }
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            refused.remove(&settings.label);
            Ok(())
        }
        Err(error) if classify(&error) == FailureClass::Pin => {
            let code = code_of(&error);
            refused.insert(settings.label.clone(), RefusedPin::new(pin.expose_secret(), code.clone()));
            Err(refusal(&code))
        }
        Err(error) => Err(failure(&settings.name, "logging in", &error)),
    }
}

/// A key as its token describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub id: Vec<u8>,
    /// CKA_KEY_TYPE: `RSA`, `EC`, `EC Edwards`, or the standard's name.
    pub kind: String,
    /// Kind and size, where it is one that can sign here.
    pub algorithm: Option<KeyAlgorithm>,
}

impl std::fmt::Display for KeyEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", if self.label.is_empty() { "(no label)" } else { &self.label })?;
        if !self.id.is_empty() {
            write!(f, " id:{}", hex(&self.id))?;
        }
        match self.algorithm {
            Some(algorithm) => write!(f, " ({algorithm})"),
            None => write!(f, " ({})", self.kind),
        }
    }
}
