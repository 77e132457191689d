//! The rows of the matrix: what goes wrong with the token.

use std::time::Duration;

use crate::support::faulty::{Act, Control, Fault, Function, Mangling};
use crate::support::fleet::OTHER_KEY;
use crate::support::site::TOKEN_LABEL;
use Function::{
    C_FindObjects, C_FindObjectsInit, C_GetSlotList, C_Initialize, C_Login, C_OpenSession, C_Sign, C_SignInit,
};

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody mends the token after a while.
    Mended,
    /// It happens so often and not again: nobody but the program itself does anything about it.
    ByItself,
}

/// A row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) ending: Ending,
    /// Whether each lane meets it by itself, one after the other. Where a token goes down again soon
    /// after it was mended, the waits grow; there, all lanes meet it at once.
    pub(crate) each_lane_alone: bool,
    faults: fn() -> Vec<Fault>,
    removed: bool,
}

/// How long a fault lasts that somebody mends: longer than a call may take.
pub(crate) const LASTS: Duration = Duration::from_millis(1_500);

impl Row {
    /// The control file for this fault, from that of a sound token.
    pub(crate) fn control(&self, sound: &Control) -> Control {
        let removed = if self.removed { vec![TOKEN_LABEL.to_owned()] } else { Vec::new() };
        Control { faults: (self.faults)(), removed, ..sound.clone() }
    }
}

const fn mended(name: &'static str, faults: fn() -> Vec<Fault>) -> Row {
    Row { name, ending: Ending::Mended, each_lane_alone: false, faults, removed: false }
}

const fn by_itself(name: &'static str, faults: fn() -> Vec<Fault>) -> Row {
    Row { name, ending: Ending::ByItself, each_lane_alone: false, faults, removed: false }
}

const fn of_a_session(name: &'static str, faults: fn() -> Vec<Fault>) -> Row {
    Row { name, ending: Ending::ByItself, each_lane_alone: true, faults, removed: false }
}

fn times(times: u64, fault: Fault) -> Fault {
    Fault { times: Some(times), ..fault }
}

fn applied(fault: Fault) -> Fault {
    Fault { applied: true, ..fault }
}

/// Every session is closed, so that the program opens new ones and logs in.
fn begin_anew() -> Fault {
    times(1, Fault { act: Some(Act::CloseAllSessions), ..Fault::of(&[C_SignInit]) })
}

fn mangled(signature: Mangling) -> Vec<Fault> {
    vec![Fault { signature: Some(signature), ..Fault::of(&[C_Sign]) }]
}

/// C_Finalize and C_Initialize are needed before anything works.
fn uninitialised() -> Fault {
    Fault { until: Some(C_Initialize), ..Fault::fails(&[], "CKR_CRYPTOKI_NOT_INITIALIZED") }
}

/// The rows of issue 4 that the program recovers from without anybody's help, and their pairs: not
/// applied, and applied but reported failed.
pub(crate) const ROWS: &[Row] = &[
    of_a_session("a session closed", || {
        vec![times(1, Fault { act: Some(Act::CloseSession), ..Fault::of(&[C_SignInit]) })]
    }),
    of_a_session("a session handle invalid", || {
        vec![times(1, Fault::fails(&[C_SignInit], "CKR_SESSION_HANDLE_INVALID"))]
    }),
    of_a_session("every session closed and the login with it", || vec![begin_anew()]),
    of_a_session("the login lost", || {
        vec![Fault {
            act: Some(Act::Logout),
            until: Some(C_Login),
            ..Fault::fails(&[C_SignInit], "CKR_USER_NOT_LOGGED_IN")
        }]
    }),
    of_a_session("another key behind an old handle", || {
        vec![Fault {
            key: Some(OTHER_KEY.to_owned()),
            until: Some(C_FindObjects),
            ..Fault::of(&[C_SignInit])
        }]
    }),
    of_a_session("one signature in three corrupt", || {
        let every =
            |from, signature| Fault { from, every: 6, signature: Some(signature), ..Fault::of(&[C_Sign]) };
        vec![every(1, Mangling::Corrupt), every(4, Mangling::Zero)]
    }),
    Row { removed: true, ..mended("the token removed and put back", Vec::new) },
    mended("a device error, not applied", || vec![Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR")]),
    mended("a device error, applied", || vec![applied(Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR"))]),
    mended("a general error, not applied", || vec![Fault::fails(&[C_Sign], "CKR_GENERAL_ERROR")]),
    mended("a general error, applied", || vec![applied(Fault::fails(&[C_Sign], "CKR_GENERAL_ERROR"))]),
    mended("function failed, not applied", || vec![Fault::fails(&[C_Sign], "CKR_FUNCTION_FAILED")]),
    mended("a code of the vendor's", || vec![Fault::fails(&[C_Sign], "0x80000001")]),
    mended("a signing call that hangs", || vec![Fault { hang: true, ..Fault::of(&[C_Sign]) }]),
    mended("a session that hangs while it is opened", || {
        vec![begin_anew(), Fault { hang: true, ..Fault::of(&[C_OpenSession]) }]
    }),
    mended("every signature corrupt", || mangled(Mangling::Corrupt)),
    mended("every signature too short", || mangled(Mangling::Truncated)),
    mended("slow calls", || vec![Fault { delay_ms: 300, ..Fault::of(&[C_Sign]) }]),
    mended("no slots to be seen", || vec![begin_anew(), Fault::fails(&[C_GetSlotList], "CKR_GENERAL_ERROR")]),
    by_itself("two sessions closed one after the other", || {
        vec![times(2, Fault { act: Some(Act::CloseSession), ..Fault::of(&[C_SignInit]) })]
    }),
    by_itself("C_Finalize needed", || vec![uninitialised()]),
    by_itself("C_Initialize fails twice, not applied", || {
        vec![times(2, Fault::fails(&[C_Initialize], "CKR_GENERAL_ERROR")), uninitialised()]
    }),
    by_itself("C_Initialize fails once, applied", || {
        vec![times(1, applied(Fault::fails(&[C_Initialize], "CKR_GENERAL_ERROR"))), uninitialised()]
    }),
    by_itself("a login fails, not applied", || {
        vec![begin_anew(), times(2, Fault::fails(&[C_Login], "CKR_DEVICE_ERROR"))]
    }),
    by_itself("a login fails, applied", || {
        vec![begin_anew(), times(2, applied(Fault::fails(&[C_Login], "CKR_DEVICE_ERROR")))]
    }),
    by_itself("opening a session fails, not applied", || {
        vec![begin_anew(), times(3, Fault::fails(&[C_OpenSession], "CKR_DEVICE_ERROR"))]
    }),
    by_itself("opening a session fails, applied", || {
        vec![begin_anew(), times(3, applied(Fault::fails(&[C_OpenSession], "CKR_DEVICE_ERROR")))]
    }),
    by_itself("finding the key fails", || {
        vec![begin_anew(), times(2, Fault::fails(&[C_FindObjectsInit], "CKR_DEVICE_ERROR"))]
    }),
];

/// The PIN is locked when the program has to log in again. Only the operator can mend that.
pub(crate) fn pin_locked(sound: &Control) -> Control {
    let faults = vec![begin_anew(), Fault::fails(&[C_Login], "CKR_PIN_LOCKED")];
    Control { faults, ..sound.clone() }
}
