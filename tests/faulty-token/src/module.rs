//! The functions that a caller of PKCS#11 sees.
//!
//! Each tells [`pass`] what it is and how it is forwarded; `pass` decides what happens to it. Those that
//! are not here are the other module's own.

#![expect(non_snake_case, reason = "the standard's own names")]

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_MECHANISM_INFO,
    CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID,
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR, CKR_KEY_HANDLE_INVALID, CKR_OK, CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_PRESENT,
};

use super::below::{Below, ask};
use super::control::{Act, Fault, Mangling};
use super::functions::Function;
use super::rules::{Call, Rules};
use super::slots::Slots;
use super::tally::Page;
use super::watched::Watched;

/// How often a hanging call looks at the control file.
const LOOK: Duration = Duration::from_millis(2);

struct Module {
    below: Below,
    /// Ours: the other module's, with the functions of this file in their places.
    list: CK_FUNCTION_LIST,
    control: Watched,
    page: Page,
    slots: Slots,
    /// Tokens that are out, whose sessions have been closed.
    out: Mutex<BTreeSet<String>>,
    /// Taken alone by what pulls the ground from under other calls: the other module may not survive a
    /// session that is closed while it signs.
    turn: RwLock<()>,
    /// Rises with every C_Finalize.
    generation: AtomicU64,
}

static MODULE: OnceLock<Option<Module>> = OnceLock::new();

fn load() -> Result<Module, String> {
    let variable = super::CONTROL_VARIABLE;
    let path = std::env::var_os(variable).ok_or(format!("${variable} must name the control file"))?;
    let path = PathBuf::from(path);
    let page = Page::map(&path).map_err(|error| format!("the counts of {}: {error}", path.display()))?;
    let control = Watched::open(path)?;
    let below = Below::load(&control.current().control.module)?;
    let list = functions(below.list);
    Ok(Module {
        below,
        list,
        control,
        page,
        slots: Slots::default(),
        out: Mutex::default(),
        turn: RwLock::new(()),
        generation: AtomicU64::new(0),
    })
}

fn module() -> Option<&'static Module> {
    let loaded = MODULE.get_or_init(|| load().inspect_err(|error| eprintln!("faulty-token: {error}")).ok());
    loaded.as_ref()
}

/// The functions, as PKCS#11 finds them.
///
/// # Safety
/// As the standard has it: `list` is null or a place for one pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(module) = module() else { return CKR_GENERAL_ERROR };
    // SAFETY: it is not null. Callers read the list, they have no business writing to it.
    unsafe { *list = (&raw const module.list).cast_mut() };
    CKR_OK
}

/// What a call is about.
#[derive(Clone, Copy)]
enum About {
    Module,
    Slot(CK_SLOT_ID),
    Session(CK_SESSION_HANDLE),
}

/// A call of this module, as [`pass`] is told of it.
struct Passing<'a> {
    function: Function,
    about: About,
    message: Option<&'a [u8]>,
    length_only: bool,
}

impl Passing<'_> {
    fn of(function: Function, about: About) -> Self {
        Self { function, about, message: None, length_only: false }
    }
}

/// Takes a call on its way: to a fault, to the other module, or both. `forward` is told the fault, for
/// those that change what is given or returned; `abandon` ends what a call that fails would end.
fn pass(
    passing: &Passing<'_>,
    forward: impl FnOnce(&Module, Option<&Fault>) -> CK_RV,
    abandon: impl FnOnce(&Module),
) -> CK_RV {
    let Some(module) = module() else { return CKR_GENERAL_ERROR };
    let function = passing.function;
    if !passing.length_only {
        module.page.called(function);
    }
    let code = module.pass(passing, forward, abandon);
    if code != CKR_OK && !passing.length_only {
        module.page.failed(function);
    }
    code
}

impl Module {
    fn pass(
        &self,
        passing: &Passing<'_>,
        forward: impl FnOnce(&Self, Option<&Fault>) -> CK_RV,
        abandon: impl FnOnce(&Self),
    ) -> CK_RV {
        let rules = self.control.current();
        self.pull_out(&rules);
        let (slot, session) = match passing.about {
            About::Module => (None, None),
            About::Slot(slot) => (Some(slot), None),
            About::Session(session) => (self.slots.slot_of(session), Some(session)),
        };
        let label = slot.and_then(|slot| self.label(slot));
        if label.as_ref().is_some_and(|label| rules.control.removed.contains(label)) {
            self.page.injected(passing.function);
            return if session.is_some() { CKR_DEVICE_REMOVED } else { CKR_TOKEN_NOT_PRESENT };
        }
        let call = Call {
            function: passing.function,
            token: label.as_deref(),
            session,
            message: passing.message,
            length_only: passing.length_only,
        };
        let generation = self.generation.load(Ordering::SeqCst);
        let fault = rules.meet(&call);
        let reported = fault.and_then(|fault| fault.code.map(|code| code.0));
        let forwarded = reported.is_none() || fault.is_some_and(|fault| fault.applied);
        if let Some(fault) = fault {
            self.page.injected(call.function);
            std::thread::sleep(Duration::from_millis(fault.delay_ms));
            while fault.hang && Arc::ptr_eq(&rules, &self.control.current()) {
                std::thread::sleep(LOOK);
            }
        }
        if forwarded && !call.length_only && matches!(call.function, Function::C_Sign | Function::C_SignFinal)
        {
            let rate = call.token.and_then(|label| Some((label, rules.control.rate.get(label)?)));
            if let Some((label, rate)) = rate {
                std::thread::sleep(self.page.book(label, *rate));
            }
        }
        if session.is_some() && self.generation.load(Ordering::SeqCst) != generation {
            // The handle is of an initialisation that is over, and may be another's by now.
            return CKR_SESSION_HANDLE_INVALID;
        }
        if let Some(act) = fault.and_then(|fault| fault.act) {
            self.act(act, slot, session);
        }
        if !forwarded {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            abandon(self);
            return reported.unwrap_or(CKR_GENERAL_ERROR);
        }
        let code = if matches!(call.function, Function::C_Initialize | Function::C_Finalize) {
            let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
            forward(self, fault)
        } else {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            forward(self, fault)
        };
        if code == CKR_OK && !call.length_only {
            rules.succeeded(&call);
        }
        reported.unwrap_or(code)
    }

    fn label(&self, slot: CK_SLOT_ID) -> Option<String> {
        self.slots.label(slot, || {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            self.below.label(slot)
        })
    }

    /// Closes the sessions with tokens that have just been pulled out.
    fn pull_out(&self, rules: &Rules) {
        let removed = &rules.control.removed;
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.len() == removed.len() && removed.iter().all(|label| out.contains(label)) {
            return;
        }
        out.retain(|label| removed.contains(label));
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        for slot in self.below.slots(cryptoki_sys::CK_TRUE).unwrap_or_default() {
            let Some(label) = self.slots.label(slot, || self.below.label(slot)) else { continue };
            if removed.contains(&label) && out.insert(label) {
                ask!(self.below, C_CloseAllSessions(slot));
            }
        }
    }

    fn act(&self, act: Act, slot: Option<CK_SLOT_ID>, session: Option<CK_SESSION_HANDLE>) {
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        match (act, slot, session) {
            (Act::CloseSession, _, Some(session)) => _ = ask!(self.below, C_CloseSession(session)),
            (Act::CloseAllSessions, Some(slot), _) => _ = ask!(self.below, C_CloseAllSessions(slot)),
            (Act::Logout, _, Some(session)) => _ = ask!(self.below, C_Logout(session)),
            _ => {}
        }
    }
}

/// The functions that go on as they came.
macro_rules! plain {
    ($($name:ident($about:expr; $($argument:ident: $type:ty),* $(,)?);)*) => {$(
        unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
            pass(
                &Passing::of(Function::$name, $about),
                |module, _| ask!(module.below, $name($($argument),*)),
                |_| {},
            )
        }
    )*};
}

plain! {
    C_Initialize(About::Module; arguments: *mut c_void);
    C_GetInfo(About::Module; info: *mut CK_INFO);
    C_GetSlotInfo(About::Module; slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO);
    C_GetTokenInfo(About::Slot(slot); slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO);
    C_GetMechanismInfo(
        About::Slot(slot); slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO
    );
    C_CloseAllSessions(About::Slot(slot); slot: CK_SLOT_ID);
    C_GetSessionInfo(About::Session(session); session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO);
    C_Login(
        About::Session(session);
        session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_BYTE, length: CK_ULONG
    );
    C_Logout(About::Session(session); session: CK_SESSION_HANDLE);
    C_FindObjectsInit(
        About::Session(session); session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG
    );
    C_FindObjects(
        About::Session(session);
        session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, room: CK_ULONG, count: *mut CK_ULONG
    );
    C_FindObjectsFinal(About::Session(session); session: CK_SESSION_HANDLE);
    C_GetAttributeValue(
        About::Session(session);
        session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG
    );
    C_CreateObject(
        About::Session(session);
        session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE
    );
    C_DestroyObject(About::Session(session); session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GenerateKeyPair(
        About::Session(session);
        session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
        public: *mut CK_ATTRIBUTE, public_count: CK_ULONG,
        private: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
        public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE
    );
}

unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    let forward = |module: &Module, _: Option<&Fault>| {
        let code = ask!(module.below, C_Finalize(reserved));
        if code == CKR_OK {
            module.slots.forget();
            module.generation.fetch_add(1, Ordering::SeqCst);
        }
        code
    };
    pass(&Passing::of(Function::C_Finalize, About::Module), forward, |_| {})
}

unsafe extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    slots: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    let forward = |module: &Module, _: Option<&Fault>| match module.below.slots(with_token) {
        Ok(mut found) => {
            let removed = &module.control.current().control.removed;
            if with_token != 0 && !removed.is_empty() {
                found.retain(|slot| {
                    let label = module.slots.label(*slot, || module.below.label(*slot));
                    !label.is_some_and(|label| removed.contains(&label))
                });
            }
            // SAFETY: the caller's own places, as the standard has them.
            unsafe { give_list(&found, slots, count) }
        }
        Err(code) => code,
    };
    pass(&Passing::of(Function::C_GetSlotList, About::Module), forward, |_| {})
}

unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    let forward = |module: &Module, _: Option<&Fault>| match module.below.mechanisms(slot) {
        Ok(mut found) => {
            let hidden = &module.control.current().control.hidden_mechanisms;
            found.retain(|kind| !hidden.contains(kind));
            // SAFETY: the caller's own places, as the standard has them.
            unsafe { give_list(&found, list, count) }
        }
        Err(code) => code,
    };
    pass(&Passing::of(Function::C_GetMechanismList, About::Slot(slot)), forward, |_| {})
}

/// Writes a list as PKCS#11 v2.40 section 5.2 has it: the count alone when `to` is null.
///
/// # Safety
/// `count` is null or a number, which says how many `to` has room for unless that is null.
unsafe fn give_list(found: &[u64], to: *mut u64, count: *mut CK_ULONG) -> CK_RV {
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: it is not null.
    let room = unsafe { std::mem::replace(&mut *count, found.len() as CK_ULONG) };
    if to.is_null() {
        return CKR_OK;
    }
    if (room as usize) < found.len() {
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for so many.
    unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), to, found.len()) };
    CKR_OK
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let forward = |module: &Module, _: Option<&Fault>| {
        let code = ask!(module.below, C_OpenSession(slot, flags, application, notify, session));
        if code == CKR_OK {
            // SAFETY: the other module has just written it.
            module.slots.opened(unsafe { *session }, slot);
        }
        code
    };
    pass(&Passing::of(Function::C_OpenSession, About::Slot(slot)), forward, |_| {})
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let forward = |module: &Module, _: Option<&Fault>| {
        let code = ask!(module.below, C_CloseSession(session));
        module.slots.closed(session);
        code
    };
    pass(&Passing::of(Function::C_CloseSession, About::Session(session)), forward, |_| {})
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let forward = |module: &Module, fault: Option<&Fault>| {
        let key = match fault.and_then(|fault| fault.key.as_deref()) {
            Some(label) => match module.below.private_key(session, label) {
                Some(other) => other,
                None => return CKR_KEY_HANDLE_INVALID,
            },
            None => key,
        };
        ask!(module.below, C_SignInit(session, mechanism, key))
    };
    pass(&Passing::of(Function::C_SignInit, About::Session(session)), forward, |_| {})
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    room: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: the caller gave so many octets.
    let message = unsafe { octets(data, length) };
    let passing = Passing {
        function: Function::C_Sign,
        about: About::Session(session),
        message: Some(&message),
        length_only: signature.is_null(),
    };
    let forward = |module: &Module, fault: Option<&Fault>| {
        let code = ask!(module.below, C_Sign(session, data, length, signature, room));
        // SAFETY: after CKR_OK `room` says how many octets of `signature` are written.
        unsafe { mangle(fault, code, signature, room) };
        code
    };
    pass(&passing, forward, |module| {
        module.below.abandon_signature(session, &mut message.clone(), false);
    })
}

unsafe extern "C" fn C_SignUpdate(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, length: CK_ULONG) -> CK_RV {
    // SAFETY: the caller gave so many octets.
    let message = unsafe { octets(data, length) };
    let passing =
        Passing { message: Some(&message), ..Passing::of(Function::C_SignUpdate, About::Session(session)) };
    let forward =
        |module: &Module, _: Option<&Fault>| ask!(module.below, C_SignUpdate(session, data, length));
    pass(&passing, forward, |module| module.below.abandon_signature(session, &mut [], true))
}

unsafe extern "C" fn C_SignFinal(
    session: CK_SESSION_HANDLE,
    signature: *mut CK_BYTE,
    room: *mut CK_ULONG,
) -> CK_RV {
    let passing = Passing {
        length_only: signature.is_null(),
        ..Passing::of(Function::C_SignFinal, About::Session(session))
    };
    let forward = |module: &Module, fault: Option<&Fault>| {
        let code = ask!(module.below, C_SignFinal(session, signature, room));
        // SAFETY: after CKR_OK `room` says how many octets of `signature` are written.
        unsafe { mangle(fault, code, signature, room) };
        code
    };
    pass(&passing, forward, |module| module.below.abandon_signature(session, &mut [], true))
}

/// What the caller gives to be signed.
///
/// # Safety
/// `data` is null or has so many octets.
unsafe fn octets(data: *const CK_BYTE, length: CK_ULONG) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(data, length as usize) }.to_vec()
}

/// Does to a signature what the fault says.
///
/// # Safety
/// When the code is CKR_OK and `signature` is not null, `*room` octets of it are written.
unsafe fn mangle(fault: Option<&Fault>, code: CK_RV, signature: *mut CK_BYTE, room: *mut CK_ULONG) {
    let Some(mangling) = fault.and_then(|fault| fault.signature) else { return };
    if code != CKR_OK || signature.is_null() {
        return;
    }
    // SAFETY: the caller says so.
    let (octets, room) = unsafe { (std::slice::from_raw_parts_mut(signature, *room as usize), &mut *room) };
    match (mangling, octets.last_mut()) {
        (Mangling::Corrupt, Some(last)) => *last ^= 1,
        (Mangling::Truncated, Some(_)) => *room -= 1,
        (Mangling::Zero, _) => octets.fill(0),
        (_, None) => {}
    }
}

/// The other module's functions with those of this file in their places.
fn functions(below: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        C_GetFunctionList: Some(C_GetFunctionList),
        C_Initialize: Some(C_Initialize),
        C_Finalize: Some(C_Finalize),
        C_GetInfo: Some(C_GetInfo),
        C_GetSlotList: Some(C_GetSlotList),
        C_GetSlotInfo: Some(C_GetSlotInfo),
        C_GetTokenInfo: Some(C_GetTokenInfo),
        C_GetMechanismList: Some(C_GetMechanismList),
        C_GetMechanismInfo: Some(C_GetMechanismInfo),
        C_OpenSession: Some(C_OpenSession),
        C_CloseSession: Some(C_CloseSession),
        C_CloseAllSessions: Some(C_CloseAllSessions),
        C_GetSessionInfo: Some(C_GetSessionInfo),
        C_Login: Some(C_Login),
        C_Logout: Some(C_Logout),
        C_FindObjectsInit: Some(C_FindObjectsInit),
        C_FindObjects: Some(C_FindObjects),
        C_FindObjectsFinal: Some(C_FindObjectsFinal),
        C_GetAttributeValue: Some(C_GetAttributeValue),
        C_CreateObject: Some(C_CreateObject),
        C_DestroyObject: Some(C_DestroyObject),
        C_GenerateKeyPair: Some(C_GenerateKeyPair),
        C_SignInit: Some(C_SignInit),
        C_Sign: Some(C_Sign),
        C_SignUpdate: Some(C_SignUpdate),
        C_SignFinal: Some(C_SignFinal),
        ..below
    }
}
