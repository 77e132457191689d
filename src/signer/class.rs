//! What each return code of PKCS#11 (v2.40 section 5.1, "Function return values"; section 11.1 in
//! v2.20) says about whose fault a failure is.

use cryptoki::error::{Error as Pkcs11Error, RvError};

use super::error::FailureClass;

/// The class of what the module said.
pub(crate) fn classify(error: &Pkcs11Error) -> FailureClass {
    match error {
        Pkcs11Error::Pkcs11(code, _) => class_of(code),
        Pkcs11Error::LibraryLoading(_) | Pkcs11Error::MissingSymbol(_) | Pkcs11Error::NullFunctionPointer => {
            FailureClass::Token
        }
        Pkcs11Error::NotSupported
        | Pkcs11Error::TryFromInt(_)
        | Pkcs11Error::TryFromSlice(_)
        | Pkcs11Error::ParseInt(_)
        | Pkcs11Error::Utf8(_)
        | Pkcs11Error::NulError(_)
        | Pkcs11Error::InvalidValue
        | Pkcs11Error::PinNotSet => FailureClass::Request,
    }
}

/// Every code by name, so that a new one has to be thought about.
fn class_of(code: &RvError) -> FailureClass {
    use RvError as C;
    match code {
        // Whatever the PIN is, trying it again can only lock it; the operator has to act.
        C::PinIncorrect
        | C::PinInvalid
        | C::PinLenRange
        | C::PinExpired
        | C::PinLocked
        | C::PinTooWeak
        | C::NewPinMode
        | C::NextOtp
        | C::UserPinNotInitialized
        | C::UserTypeInvalid => FailureClass::Pin,

        // What another session, with its own login and its own handles, does not have.
        C::SessionHandleInvalid
        | C::SessionClosed
        | C::SessionReadOnly
        | C::OperationActive
        | C::OperationNotInitialized
        | C::ObjectHandleInvalid
        | C::KeyHandleInvalid
        | C::UserNotLoggedIn
        | C::Cancel
        | C::FunctionCanceled
        // May be anything; begun with the mildest cure.
        | C::FunctionFailed
        | C::VendorDefined(_)
        | C::UnknownErrorCode(_) => FailureClass::Session,

        // The token is away or unwell, has no room for a session, or the module has to be left and
        // entered again.
        C::DeviceError
        | C::DeviceMemory
        | C::DeviceRemoved
        | C::GeneralError
        | C::HostMemory
        | C::TokenNotPresent
        | C::TokenNotRecognized
        | C::SlotIdInvalid
        | C::SessionCount
        | C::SessionExists
        | C::SessionReadOnlyExists
        | C::SessionReadWriteSoExists
        | C::SessionParallelNotSupported
        | C::UserAnotherAlreadyLoggedIn
        | C::UserTooManyTypes
        | C::RandomNoRng
        | C::FipsSelfTestFailed
        | C::LibraryLoadFailed
        | C::CantLock
        | C::NeedToCreateThreads
        | C::MutexBad
        | C::MutexNotLocked
        | C::CryptokiNotInitialized
        // Nobody asks for these but the start, which takes them for a success.
        | C::CryptokiAlreadyInitialized
        | C::UserAlreadyLoggedIn => FailureClass::Token,

        // This key, this mechanism, this message.
        C::ArgumentsBad
        | C::ActionProhibited
        | C::AttributeReadOnly
        | C::AttributeSensitive
        | C::AttributeTypeInvalid
        | C::AttributeValueInvalid
        | C::BufferTooSmall
        | C::CurveNotSupported
        | C::DataInvalid
        | C::DataLenRange
        | C::DomainParamsInvalid
        | C::EncryptedDataInvalid
        | C::EncryptedDataLenRange
        | C::ExceededMaxIterations
        | C::FunctionNotParallel
        | C::FunctionNotSupported
        | C::FunctionRejected
        | C::InformationSensitive
        | C::KeyChanged
        | C::KeyFunctionNotPermitted
        | C::KeyIndigestible
        | C::KeyNeeded
        | C::KeyNotNeeded
        | C::KeyNotWrappable
        | C::KeySizeRange
        | C::KeyTypeInconsistent
        | C::KeyUnextractable
        | C::MechanismInvalid
        | C::MechanismParamInvalid
        | C::NoEvent
        | C::PublicKeyInvalid
        | C::RandomSeedNotSupported
        | C::SavedStateInvalid
        | C::SignatureInvalid
        | C::SignatureLenRange
        | C::StateUnsaveable
        | C::TemplateIncomplete
        | C::TemplateInconsistent
        | C::TokenWriteProtected
        | C::UnwrappingKeyHandleInvalid
        | C::UnwrappingKeySizeRange
        | C::UnwrappingKeyTypeInconsistent
        | C::WrappedKeyInvalid
        | C::WrappedKeyLenRange
        | C::WrappingKeyHandleInvalid
        | C::WrappingKeySizeRange
        | C::WrappingKeyTypeInconsistent => FailureClass::Request,
    }
}

/// The return code and function, for example `DeviceError in Sign`: names, because cryptoki's own text
/// for a code is a paragraph of the standard.
pub(crate) fn code_of(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(RvError::VendorDefined(code), function) => {
            format!("VendorDefined({code:#x}) in {function:?}")
        }
        Pkcs11Error::Pkcs11(RvError::UnknownErrorCode(code), function) => {
            format!("UnknownErrorCode({code:#x}) in {function:?}")
        }
        Pkcs11Error::Pkcs11(code, function) => format!("{code:?} in {function:?}"),
        other => other.to_string(),
    }
}

/// Whether a code, as [`code_of`] gives it, may stand for anything: a broken session, a token that is
/// unwell, or one message that the token cannot sign. A new session comes first then; after that the
/// token is tried with another message before it, or the item, is blamed.
pub(crate) fn is_vague(code: &str) -> bool {
    let name = code.split([' ', '(']).next().unwrap_or_default();
    matches!(
        name,
        "GeneralError"
            | "FunctionFailed"
            | "DeviceError"
            | "DeviceMemory"
            | "HostMemory"
            | "VendorDefined"
            | "UnknownErrorCode"
    )
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn in_sign(code: RvError) -> Pkcs11Error {
        Pkcs11Error::Pkcs11(code, Function::Sign)
    }

    /// The rows of "Recovery without restart from", and what must not be tried again.
    #[test]
    fn each_failure_asks_for_what_mends_it() {
        use FailureClass::{Pin, Request, Session, Token};
        use RvError as C;
        for (what, codes, class) in [
            ("session closed", &[C::SessionClosed][..], Session),
            ("session handle invalid", &[C::SessionHandleInvalid], Session),
            ("login lost", &[C::UserNotLoggedIn], Session),
            ("old handles", &[C::KeyHandleInvalid, C::ObjectHandleInvalid], Session),
            ("an operation left over", &[C::OperationActive, C::OperationNotInitialized], Session),
            ("a call cancelled by the module", &[C::FunctionCanceled, C::Cancel], Session),
            (
                "a code that says nothing",
                &[C::FunctionFailed, C::VendorDefined(0x8000_0001), C::UnknownErrorCode(0x201)],
                Session,
            ),
            (
                "token removed",
                &[C::DeviceRemoved, C::TokenNotPresent, C::TokenNotRecognized, C::SlotIdInvalid],
                Token,
            ),
            ("device error", &[C::DeviceError, C::DeviceMemory, C::FipsSelfTestFailed], Token),
            ("C_Finalize needed", &[C::CryptokiNotInitialized, C::GeneralError], Token),
            ("module out of memory or locks", &[C::HostMemory, C::CantLock, C::MutexBad], Token),
            ("no session to be had", &[C::SessionCount], Token),
            ("somebody else is logged in", &[C::UserAnotherAlreadyLoggedIn, C::UserTooManyTypes], Token),
            ("PIN locked", &[C::PinLocked], Pin),
            ("PIN wrong", &[C::PinIncorrect, C::PinInvalid, C::PinLenRange, C::PinExpired], Pin),
            ("no PIN yet", &[C::UserPinNotInitialized], Pin),
            ("poison", &[C::DataInvalid, C::DataLenRange, C::ArgumentsBad, C::FunctionRejected], Request),
            (
                "a key that may not",
                &[C::KeyFunctionNotPermitted, C::KeyTypeInconsistent, C::KeySizeRange],
                Request,
            ),
            ("a mechanism that is not there", &[C::MechanismInvalid, C::MechanismParamInvalid], Request),
        ] {
            for code in codes {
                assert_eq!(classify(&in_sign(*code)), class, "{what}: {code:?}");
            }
        }
        assert_eq!(classify(&Pkcs11Error::NullFunctionPointer), Token);
        assert_eq!(classify(&Pkcs11Error::InvalidValue), Request);
    }

    #[test]
    fn a_code_is_told_by_name_and_a_vendors_as_vendors_write_it() {
        for (code, text, vague) in [
            (RvError::DeviceError, "DeviceError in Sign", true),
            (RvError::GeneralError, "GeneralError in Sign", true),
            (RvError::VendorDefined(0x8000_0001), "VendorDefined(0x80000001) in Sign", true),
            (RvError::UnknownErrorCode(0x201), "UnknownErrorCode(0x201) in Sign", true),
            (RvError::DeviceRemoved, "DeviceRemoved in Sign", false),
            (RvError::SessionClosed, "SessionClosed in Sign", false),
            (RvError::DataLenRange, "DataLenRange in Sign", false),
        ] {
            let told = code_of(&in_sign(code));
            assert_eq!((told.as_str(), is_vague(&told)), (text, vague));
        }
    }
}
