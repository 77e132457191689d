//! What a caller of PKCS#11 sees of each fault of the faulty token: the tests that lean on it may.
//!
//! A module and its configuration belong to a process, so each test runs in one of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use goodstanding::clock::Stopwatch;
use secrecy::SecretString;

use crate::support::ca::utf8;
use crate::support::command::{run, sh};
use crate::support::faulty::{Act, Control, Fault, FaultyToken, Function, Hex, Mangling, module};
use crate::support::site::root;
use Function::{C_FindObjects, C_GetSlotList, C_Initialize, C_Login, C_OpenSession, C_Sign, C_SignInit};

const INSIDE: &str = "GOODSTANDING_TEST_FOLDER";
const LABEL: &str = "faulty";
const DIGEST: [u8; 32] = [7; 32];

/// A caller of the faulty token, with a session, a login and two keys.
struct Caller {
    faulty: FaultyToken,
    pkcs11: Pkcs11,
    pin: SecretString,
    slot: Slot,
    session: Session,
    /// The private and the public key.
    key: (ObjectHandle, ObjectHandle),
}

/// Runs the test's body in a process of its own, with a token of its own.
fn in_own_process(name: &str, body: impl FnOnce(Caller)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return body(Caller::new(FaultyToken::in_folder(&PathBuf::from(folder))));
    }
    let folder = tempfile::tempdir().unwrap();
    sh(utf8(&root().join("softhsm/token")), &[utf8(folder.path()), LABEL]).ok();
    let faulty = FaultyToken::in_folder(folder.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("faulty_token::{name}"), "--exact", "--nocapture"]).env(INSIDE, folder.path());
    command.env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf")).envs([faulty.environment()]);
    run(&mut command).ok().says(&["1 passed"]);
}

fn initialise(pkcs11: &Pkcs11) -> Result<(), RvError> {
    outcome(pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)))
}

fn outcome<T>(result: Result<T, Error>) -> Result<T, RvError> {
    result.map_err(|error| match error {
        Error::Pkcs11(code, _) => code,
        other => panic!("no return code: {other}"),
    })
}

impl Caller {
    fn new(faulty: FaultyToken) -> Self {
        let folder = PathBuf::from(std::env::var_os(INSIDE).unwrap());
        let pin = std::fs::read_to_string(folder.join("pin")).unwrap().trim().to_owned().into();
        let pkcs11 = Pkcs11::new(module()).unwrap();
        initialise(&pkcs11).unwrap();
        let slot = pkcs11.get_slots_with_token().unwrap()[0];
        let session = pkcs11.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&pin)).unwrap();
        let mut keys = [LABEL, "another"].into_iter().map(|label| {
            let label = Attribute::Label(label.into());
            let curve = Attribute::EcParams(vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
            let public = [Attribute::Token(true), label.clone(), curve, Attribute::Verify(true)];
            let private = [Attribute::Token(true), label, Attribute::Sign(true)];
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap()
        });
        let (public, private) = keys.next().unwrap();
        keys.next().unwrap();
        Self { faulty, pin, slot, session, key: (private, public), pkcs11 }
    }

    fn open(&self) -> Result<Session, RvError> {
        outcome(self.pkcs11.open_ro_session(self.slot))
    }

    fn login(&self, session: &Session) -> Result<(), RvError> {
        outcome(session.login(UserType::User, Some(&self.pin)))
    }

    fn sign(&self) -> Result<Vec<u8>, RvError> {
        sign(&self.session, self.key.0)
    }

    fn find(&self, session: &Session) -> Result<Vec<ObjectHandle>, RvError> {
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(LABEL.into())];
        outcome(session.find_objects(&template))
    }

    fn verifies(&self, signature: &[u8]) -> bool {
        self.session.verify(&Mechanism::Ecdsa, self.key.1, &DIGEST, signature).is_ok()
    }
}

fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, RvError> {
    outcome(session.sign(&Mechanism::Ecdsa, key, &DIGEST))
}

#[test]
fn without_faults_every_call_arrives_and_is_counted() {
    in_own_process("without_faults_every_call_arrives_and_is_counted", |caller| {
        for _ in 0..3 {
            let signature = caller.sign().unwrap();
            assert!(caller.verifies(&signature));
        }
        let count = |function| caller.faulty.count(function);
        assert_eq!((count(C_Sign).called, count(C_SignInit).called, count(C_Login).called), (3, 3, 1));
        assert_eq!((count(C_Sign).failed, count(C_Sign).injected), (0, 0));
    });
}

#[test]
fn a_signature_fails_when_it_is_told_to_and_the_session_signs_again_after_it() {
    in_own_process("a_signature_fails_when_it_is_told_to_and_the_session_signs_again_after_it", |caller| {
        for applied in [false, true] {
            let fails = Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR");
            caller.faulty.inject([Fault { from: 2, every: 2, times: Some(2), applied, ..fails }]);
            let signed: Vec<bool> = (0..7).map(|_| caller.sign().is_ok()).collect();
            assert_eq!(signed, [true, false, true, false, true, true, true]);
        }
        caller.faulty.inject([Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR")]);
        assert_eq!(caller.sign(), Err(RvError::DeviceError));
        let count = caller.faulty.count(C_Sign);
        assert_eq!((count.called, count.failed, count.injected), (15, 5, 5));
        caller.faulty.heal();
        assert!(caller.sign().is_ok(), "no operation is left active");
    });
}

#[test]
fn a_login_that_is_applied_and_reported_failed_is_there_and_one_not_applied_is_not() {
    in_own_process(
        "a_login_that_is_applied_and_reported_failed_is_there_and_one_not_applied_is_not",
        |caller| {
            let state = || caller.session.get_session_info().unwrap().session_state();
            let fails = || Fault { times: Some(1), ..Fault::fails(&[C_Login], "CKR_DEVICE_ERROR") };
            caller.session.logout().unwrap();
            caller.faulty.inject([fails()]);
            assert_eq!(caller.login(&caller.session), Err(RvError::DeviceError));
            assert_eq!(state(), SessionState::RwPublic);
            caller.faulty.inject([Fault { applied: true, ..fails() }]);
            assert_eq!(caller.login(&caller.session), Err(RvError::DeviceError));
            assert_eq!(state(), SessionState::RwUser);
            assert_eq!(caller.login(&caller.session), Err(RvError::UserAlreadyLoggedIn));
        },
    );
}

#[test]
fn a_pin_is_refused_before_the_token_sees_it() {
    in_own_process("a_pin_is_refused_before_the_token_sees_it", |caller| {
        caller.session.logout().unwrap();
        caller.faulty.inject([Fault::fails(&[C_Login], "CKR_PIN_LOCKED")]);
        assert_eq!(caller.login(&caller.session), Err(RvError::PinLocked));
        caller.faulty.heal();
        assert_eq!(caller.login(&caller.session), Ok(()));
        let count = caller.faulty.count(C_Login);
        assert_eq!((count.called, count.failed, count.injected), (3, 1, 1));
    });
}

#[test]
fn a_call_takes_its_time_or_hangs_until_the_file_changes() {
    in_own_process("a_call_takes_its_time_or_hangs_until_the_file_changes", |caller| {
        caller.faulty.inject([Fault { delay_ms: 120, ..Fault::of(&[C_Sign]) }]);
        let watch = Stopwatch::start();
        assert!(caller.sign().is_ok());
        assert!(watch.elapsed() >= Duration::from_millis(120), "{:?}", watch.elapsed());
        caller.faulty.inject([Fault { hang: true, ..Fault::of(&[C_Sign]) }]);
        let watch = Stopwatch::start();
        let faulty = &caller.faulty;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                faulty.heal();
            });
            let second = caller.open().unwrap();
            let key = caller.find(&second).unwrap()[0];
            assert!(watch.elapsed() < Duration::from_millis(250), "other calls do not hang");
            assert!(sign(&second, key).is_ok());
        });
        assert!(watch.elapsed() >= Duration::from_millis(300), "{:?}", watch.elapsed());
    });
}

#[test]
fn a_signature_comes_back_wrong_or_short() {
    in_own_process("a_signature_comes_back_wrong_or_short", |caller| {
        for (mangling, length) in [(Mangling::Corrupt, 64), (Mangling::Truncated, 63), (Mangling::Zero, 64)] {
            caller.faulty.inject([Fault { signature: Some(mangling), ..Fault::of(&[C_Sign]) }]);
            let signature = caller.sign().unwrap();
            assert_eq!(signature.len(), length);
            assert!(!caller.verifies(&signature), "{mangling:?}");
        }
    });
}

#[test]
fn a_handle_names_another_key_until_the_session_finds_its_key_anew() {
    in_own_process("a_handle_names_another_key_until_the_session_finds_its_key_anew", |caller| {
        let stale =
            Fault { key: Some("another".into()), until: Some(C_FindObjects), ..Fault::of(&[C_SignInit]) };
        caller.faulty.inject([stale]);
        let wrong = caller.sign().unwrap();
        assert_eq!(wrong.len(), 64);
        assert!(!caller.verifies(&wrong));
        let fresh = caller.open().unwrap();
        let key = caller.find(&fresh).unwrap()[0];
        let right = sign(&fresh, key).unwrap();
        assert!(caller.verifies(&right));
        assert!(!caller.verifies(&caller.sign().unwrap()), "each session for itself");
        caller.find(&caller.session).unwrap();
        assert!(caller.verifies(&caller.sign().unwrap()));
    });
}

#[test]
fn a_session_is_closed_behind_its_owners_back() {
    in_own_process("a_session_is_closed_behind_its_owners_back", |caller| {
        let second = caller.open().unwrap();
        let close = |act| Fault { act: Some(act), times: Some(1), ..Fault::of(&[C_SignInit]) };
        caller.faulty.inject([close(Act::CloseSession)]);
        assert_eq!(sign(&second, caller.key.0), Err(RvError::SessionHandleInvalid));
        assert_eq!(sign(&second, caller.key.0), Err(RvError::SessionHandleInvalid), "it stays closed");
        assert!(caller.sign().is_ok(), "others are not");
        let third = caller.open().unwrap();
        caller.faulty.inject([close(Act::CloseAllSessions)]);
        assert_eq!(caller.sign(), Err(RvError::SessionHandleInvalid));
        assert_eq!(sign(&third, caller.key.0), Err(RvError::SessionHandleInvalid));
        let fresh = caller.open().unwrap();
        let state = fresh.get_session_info().unwrap().session_state();
        assert_eq!(state, SessionState::RoPublic, "the login goes with the last session");
    });
}

#[test]
fn a_login_is_lost_until_the_next_one() {
    in_own_process("a_login_is_lost_until_the_next_one", |caller| {
        caller.faulty.inject([Fault {
            act: Some(Act::Logout),
            until: Some(C_Login),
            from: 2,
            ..Fault::fails(&[C_SignInit], "CKR_USER_NOT_LOGGED_IN")
        }]);
        assert!(caller.sign().is_ok());
        for _ in 0..3 {
            assert_eq!(caller.sign(), Err(RvError::UserNotLoggedIn));
        }
        assert_eq!(caller.session.get_session_info().unwrap().session_state(), SessionState::RwPublic);
        assert_eq!(caller.find(&caller.session).unwrap().len(), 0, "private keys cannot be seen");
        caller.login(&caller.session).unwrap();
        let key = caller.find(&caller.session).unwrap()[0];
        assert!(sign(&caller.session, key).is_ok());
    });
}

#[test]
fn a_token_is_pulled_out_and_put_back() {
    in_own_process("a_token_is_pulled_out_and_put_back", |caller| {
        caller.faulty.set(&Control { removed: vec![LABEL.into()], ..caller.faulty.sound() });
        assert_eq!(caller.sign(), Err(RvError::DeviceRemoved));
        let labels = || {
            let slots = caller.pkcs11.get_slots_with_token().unwrap();
            let infos = slots.into_iter().filter_map(|slot| caller.pkcs11.get_token_info(slot).ok());
            infos.map(|info| info.label().to_owned()).collect::<Vec<_>>()
        };
        assert!(!labels().contains(&LABEL.to_owned()));
        assert_eq!(outcome(caller.pkcs11.get_token_info(caller.slot)).err(), Some(RvError::TokenNotPresent));
        assert_eq!(caller.open().err(), Some(RvError::TokenNotPresent));
        caller.faulty.heal();
        assert!(labels().contains(&LABEL.to_owned()));
        assert_eq!(caller.sign(), Err(RvError::SessionHandleInvalid), "the sessions went with the token");
        let session = caller.open().unwrap();
        caller.login(&session).unwrap();
        let key = caller.find(&session).unwrap()[0];
        assert!(sign(&session, key).is_ok());
    });
}

#[test]
fn a_library_that_lost_its_token_works_again_after_finalize_and_initialize() {
    in_own_process("a_library_that_lost_its_token_works_again_after_finalize_and_initialize", |caller| {
        let code = "CKR_CRYPTOKI_NOT_INITIALIZED";
        caller.faulty.inject([Fault { until: Some(C_Initialize), ..Fault::fails(&[], code) }]);
        let lost = Err(RvError::CryptokiNotInitialized);
        assert_eq!(caller.sign(), lost);
        assert_eq!(outcome(caller.pkcs11.get_slots_with_token()).err(), lost.clone().err());
        assert_eq!(caller.open().err(), lost.err());
        let Caller { pkcs11, session, pin, slot, .. } = caller;
        drop(session);
        pkcs11.clone().finalize().unwrap();
        initialise(&pkcs11).unwrap();
        let session = pkcs11.open_ro_session(slot).unwrap();
        session.login(UserType::User, Some(&pin)).unwrap();
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(LABEL.into())];
        let key = session.find_objects(&template).unwrap()[0];
        assert!(sign(&session, key).is_ok());
    });
}

#[test]
fn sessions_and_slots_fail_when_they_are_told_to() {
    in_own_process("sessions_and_slots_fail_when_they_are_told_to", |caller| {
        caller.faulty.inject([Fault::fails(&[C_OpenSession], "CKR_SESSION_COUNT")]);
        assert_eq!(caller.open().err(), Some(RvError::SessionCount));
        caller.faulty.inject([Fault::fails(&[C_GetSlotList], "CKR_GENERAL_ERROR")]);
        let slots = outcome(caller.pkcs11.get_slots_with_token());
        assert_eq!(slots.err(), Some(RvError::GeneralError));
        caller.faulty.inject([Fault {
            token: Some("elsewhere".into()),
            ..Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR")
        }]);
        assert!(caller.sign().is_ok(), "a fault of another token");
    });
}

#[test]
fn a_message_can_be_poison_and_a_mechanism_missing() {
    in_own_process("a_message_can_be_poison_and_a_mechanism_missing", |caller| {
        let poison = Fault { message: Some(Hex(vec![7; 4])), ..Fault::fails(&[C_Sign], "CKR_DATA_INVALID") };
        caller.faulty.inject([poison]);
        assert_eq!(caller.sign(), Err(RvError::DataInvalid));
        assert!(caller.session.sign(&Mechanism::Ecdsa, caller.key.0, &[8; 32]).is_ok());
        let has = |kind| caller.pkcs11.get_mechanism_list(caller.slot).unwrap().contains(&kind);
        assert!(has(MechanismType::RSA_PKCS) && has(MechanismType::SHA256_RSA_PKCS));
        caller.faulty.set(&Control { hidden_mechanisms: vec![1], ..caller.faulty.sound() });
        assert!(!has(MechanismType::RSA_PKCS) && has(MechanismType::SHA256_RSA_PKCS));
    });
}

#[test]
fn a_slow_token_gives_all_sessions_together_its_rate() {
    in_own_process("a_slow_token_gives_all_sessions_together_its_rate", |caller| {
        let rate = [(LABEL.to_owned(), 50.0)].into();
        caller.faulty.set(&Control { rate, ..caller.faulty.sound() });
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let session = caller.open().unwrap();
                let key = caller.find(&session).unwrap()[0];
                scope.spawn(move || (0..10).for_each(|_| assert!(sign(&session, key).is_ok())));
            }
        });
        let took = watch.elapsed();
        assert!((Duration::from_millis(395)..Duration::from_millis(800)).contains(&took), "{took:?}");
    });
}
