//! The module that is forwarded to.

use std::path::Path;

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID,
    CK_TOKEN_INFO, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

/// Its functions. It stays loaded.
pub(crate) struct Below {
    pub(crate) list: CK_FUNCTION_LIST,
    _library: libloading::Library,
}

/// Calls a function of the list, if the module has it.
macro_rules! ask {
    ($below:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $below.list.$function {
            // SAFETY: pointers that a caller of ours gave go on as they came; all others are to
            // variables of ours that live until the call is back.
            Some(function) => unsafe { function($($argument),*) },
            None => cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}
pub(crate) use ask;

impl Below {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let named = |what: String| format!("the module {}: {what}", path.display());
        // SAFETY: it is the operator of the test who says that this library may run in the process.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| named(error.to_string()))?;
        type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
        // SAFETY: PKCS#11 gives the function of this name this type.
        let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList") }
            .map_err(|error| named(error.to_string()))?;
        let mut list = std::ptr::null_mut();
        // SAFETY: it writes one pointer, to a variable of ours.
        let code = unsafe { get(&raw mut list) };
        if code != CKR_OK || list.is_null() {
            return Err(named(format!("C_GetFunctionList returned {code:#x}")));
        }
        // SAFETY: it is a pointer to a list of functions, as it was OK.
        let list = unsafe { *list };
        Ok(Self { list, _library: library })
    }

    /// The label of the token in a slot.
    pub(crate) fn label(&self, slot: CK_SLOT_ID) -> Option<String> {
        let mut info = CK_TOKEN_INFO::default();
        let code = ask!(self, C_GetTokenInfo(slot, &raw mut info));
        let label = String::from_utf8_lossy(&info.label).trim_end().to_owned();
        (code == CKR_OK).then_some(label)
    }

    /// The slots, as C_GetSlotList has them.
    pub(crate) fn slots(&self, with_token: u8) -> Result<Vec<CK_SLOT_ID>, CK_RV> {
        let mut count = 0;
        match ask!(self, C_GetSlotList(with_token, std::ptr::null_mut(), &raw mut count)) {
            CKR_OK => {}
            code => return Err(code),
        }
        let mut slots = vec![0; count as usize];
        match ask!(self, C_GetSlotList(with_token, slots.as_mut_ptr(), &raw mut count)) {
            CKR_OK => {}
            code => return Err(code),
        }
        slots.truncate(count as usize);
        Ok(slots)
    }

    /// The mechanisms of a slot.
    pub(crate) fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, CK_RV> {
        let mut count = 0;
        match ask!(self, C_GetMechanismList(slot, std::ptr::null_mut(), &raw mut count)) {
            CKR_OK => {}
            code => return Err(code),
        }
        let mut mechanisms = vec![0; count as usize];
        match ask!(self, C_GetMechanismList(slot, mechanisms.as_mut_ptr(), &raw mut count)) {
            CKR_OK => {}
            code => return Err(code),
        }
        mechanisms.truncate(count as usize);
        Ok(mechanisms)
    }

    /// The private key of that label.
    pub(crate) fn private_key(&self, session: CK_SESSION_HANDLE, label: &str) -> Option<CK_OBJECT_HANDLE> {
        let mut class = cryptoki_sys::CKO_PRIVATE_KEY;
        let mut label = label.as_bytes().to_vec();
        let mut template = [
            cryptoki_sys::CK_ATTRIBUTE {
                type_: cryptoki_sys::CKA_CLASS,
                pValue: (&raw mut class).cast(),
                ulValueLen: size_of_val(&class) as u64,
            },
            cryptoki_sys::CK_ATTRIBUTE {
                type_: cryptoki_sys::CKA_LABEL,
                pValue: label.as_mut_ptr().cast(),
                ulValueLen: label.len() as u64,
            },
        ];
        let (mut found, mut count) = (0, 0);
        if ask!(self, C_FindObjectsInit(session, template.as_mut_ptr(), template.len() as u64)) != CKR_OK {
            return None;
        }
        let code = ask!(self, C_FindObjects(session, &raw mut found, 1, &raw mut count));
        ask!(self, C_FindObjectsFinal(session));
        (code == CKR_OK && count == 1).then_some(found)
    }

    /// Ends the signature that a session has begun: it is made and thrown away, because a module ends it
    /// when it reports an error, and this is the only way to do so from outside.
    pub(crate) fn abandon_signature(&self, session: CK_SESSION_HANDLE, message: &mut [u8], many_parts: bool) {
        let mut scratch = vec![0u8; 1 << 14];
        let mut length = scratch.len() as u64;
        let code = if many_parts {
            ask!(self, C_SignFinal(session, scratch.as_mut_ptr(), &raw mut length))
        } else {
            let (at, octets) = (message.as_mut_ptr(), message.len() as u64);
            ask!(self, C_Sign(session, at, octets, scratch.as_mut_ptr(), &raw mut length))
        };
        debug_assert_ne!(code, CKR_FUNCTION_NOT_SUPPORTED, "a module that signs can do so");
    }
}
