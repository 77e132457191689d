//! PKCS#11 modules: each is loaded once a process and initialised once, however many tokens use it.
//!
//! A module may be initialised anew only when nobody is inside. [`Module::enter`] is taken for the life
//! of a session; [`Module::leaving`] asks everybody to let go.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use sha2::Digest;

use super::class::code_of;
use super::error::SignerError;
use crate::clock::Stopwatch;

/// Every module that this process has loaded. They stay loaded: libraries with threads and exit
/// handlers of their own do not survive being unloaded.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A lock whose holder panicked is still a lock: what it guards is changed in single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loaded module.
pub(crate) struct Module {
    path: PathBuf,
    context: Pkcs11,
    state: Mutex<State>,
    changed: Condvar,
    leaving: AtomicBool,
    /// Serialises logins, and remembers by token label the PINs that were refused.
    logins: Mutex<HashMap<String, RefusedPin>>,
}

#[derive(Default)]
struct State {
    users: usize,
    inside: usize,
    serving: usize,
    initialised: bool,
    generation: u64,
}

/// A PIN that a token refused: known again by its digest, so that it is not tried twice.
pub(crate) struct RefusedPin {
    digest: [u8; 32],
    /// What the module said.
    pub(crate) code: String,
}

impl RefusedPin {
    pub(crate) fn new(pin: &str, code: String) -> Self {
        Self { digest: sha2::Sha256::digest(pin.as_bytes()).into(), code }
    }

    pub(crate) fn is(&self, pin: &str) -> bool {
        self.digest == <[u8; 32]>::from(sha2::Sha256::digest(pin.as_bytes()))
    }
}

/// The use of a module by one signer or one administrative act. The last one to go finalises it.
pub(crate) struct ModuleUse {
    module: Arc<Module>,
    serving: AtomicBool,
}

/// A stay inside a module: as long as it lives, nobody finalises.
pub(crate) struct Entry {
    module: Arc<Module>,
    pub(crate) generation: u64,
}

impl Module {
    /// Loads and initialises the module, or joins those who use it.
    pub(crate) fn open(path: &Path) -> Result<ModuleUse, SignerError> {
        let missing = |source| SignerError::ModuleMissing { token: None, path: path.to_owned(), source };
        let canonical = std::fs::canonicalize(path).map_err(missing)?;
        std::fs::File::open(&canonical).map_err(missing)?;
        let module = {
            let mut modules = lock(&MODULES);
            if let Some(module) = modules.get(&canonical) {
                Arc::clone(module)
            } else {
                let context = Pkcs11::new(&canonical).map_err(|error| SignerError::NotAModule {
                    token: None,
                    path: path.to_owned(),
                    code: code_of(&error),
                })?;
                let module = Arc::new(Self {
                    path: path.to_owned(),
                    context,
                    state: Mutex::default(),
                    changed: Condvar::new(),
                    leaving: AtomicBool::new(false),
                    logins: Mutex::default(),
                });
                modules.insert(canonical, Arc::clone(&module));
                module
            }
        };
        let mut state = lock(&module.state);
        if !state.initialised {
            module.initialise()?;
            state.initialised = true;
            state.generation += 1;
        }
        state.users += 1;
        drop(state);
        Ok(ModuleUse { module, serving: AtomicBool::new(false) })
    }

    fn initialise(&self) -> Result<(), SignerError> {
        match self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => Ok(()),
            Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                tracing::warn!(module = %self.path.display(), "something else in this process has initialised the module already");
                Ok(())
            }
            Err(error) => Err(self.broken(format!(
                "C_Initialize: {}; see the HSM client's own log and configuration",
                code_of(&error)
            ))),
        }
    }

    fn finalise(&self) {
        if let Err(error) = self.context.clone().finalize() {
            tracing::debug!(module = %self.path.display(), code = code_of(&error), "C_Finalize");
        }
    }

    fn broken(&self, what: String) -> SignerError {
        SignerError::Module { token: None, path: self.path.clone(), what }
    }

    /// Whether those inside are asked to let go.
    pub(crate) fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The functions of the module; for use while inside only.
    pub(crate) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// The module's file, as configured.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rises with every initialisation.
    pub(crate) fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Serialises logins of all tokens of the module.
    pub(crate) fn logins(&self) -> MutexGuard<'_, HashMap<String, RefusedPin>> {
        lock(&self.logins)
    }

    /// Goes inside, for one session. Waits while the module is initialised anew, `patience` at most.
    pub(crate) fn enter(self: &Arc<Self>, patience: Duration) -> Result<Entry, SignerError> {
        let waited = Stopwatch::start();
        let mut state = lock(&self.state);
        while self.leaving() {
            let Some(left) = patience.checked_sub(waited.elapsed()) else {
                return Err(self.broken("it is being initialised anew and others hold it up".into()));
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.initialised {
            return Err(self.broken("it could not be initialised anew; it is tried again".into()));
        }
        state.inside += 1;
        Ok(Entry { module: Arc::clone(self), generation: state.generation })
    }

    /// Asks everybody to let go, then finalises and initialises. When somebody has done so since
    /// `seen`, that is enough. Unless `forced`, nothing is done while another token serves well through
    /// the module.
    pub(crate) fn reinitialise(
        &self,
        seen: u64,
        forced: bool,
        patience: Duration,
    ) -> Result<(), SignerError> {
        let waited = Stopwatch::start();
        let mut state = lock(&self.state);
        if (state.generation != seen && state.initialised) || (state.serving > 0 && !forced) {
            return Ok(());
        }
        if self.leaving.swap(true, Ordering::SeqCst) {
            return Err(self.broken("another token is initialising it anew".into()));
        }
        while state.inside > 0 {
            let Some(left) = patience.checked_sub(waited.elapsed()) else {
                self.leaving.store(false, Ordering::SeqCst);
                self.changed.notify_all();
                return Err(self.broken(format!(
                    "{} calls into it have not come back, so it cannot be initialised anew; if the HSM is well, restart this process",
                    state.inside
                )));
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.initialised {
            self.finalise();
        }
        let done = self.initialise();
        state.initialised = done.is_ok();
        state.generation += 1;
        self.leaving.store(false, Ordering::SeqCst);
        self.changed.notify_all();
        done
    }
}

impl ModuleUse {
    /// The module.
    pub(crate) fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Says whether the token of this use serves well, which keeps others from initialising anew.
    pub(crate) fn set_serving(&self, serving: bool) {
        if self.serving.swap(serving, Ordering::SeqCst) != serving {
            let mut state = lock(&self.module.state);
            state.serving = if serving { state.serving + 1 } else { state.serving.saturating_sub(1) };
        }
    }
}

impl Drop for ModuleUse {
    fn drop(&mut self) {
        self.set_serving(false);
        let mut state = lock(&self.module.state);
        state.users = state.users.saturating_sub(1);
        if state.users > 0 || !state.initialised {
            return;
        }
        if state.inside > 0 {
            // Finalising under a hung call is undefined; the end of the process cleans up as well.
            tracing::warn!(module = %self.module.path.display(), calls = state.inside, "not finalised: calls have not come back");
            return;
        }
        self.module.finalise();
        state.initialised = false;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = lock(&self.module.state);
        state.inside = state.inside.saturating_sub(1);
        drop(state);
        self.module.changed.notify_all();
    }
}
