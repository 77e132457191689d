//! A session thread: one session for its life, opened anew when it breaks.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cryptoki::error::Error as Pkcs11Error;
use cryptoki::object::ObjectHandle;

use super::class::{classify, code_of, is_vague};
use super::crew::{Duty, Worker};
use super::error::{FailureClass, SignError, SignerError};
use super::key::Prepared;
use super::module::{Module, lock};
use super::pool::{LOOK_AROUND, Pool};
use super::prepare::PROOF;
use super::queue::{Job, Popped, Work};
use super::settings::Settings;
use super::token::{Access, Connection};

/// The life of a session thread.
pub(crate) fn run(pool: &Pool, worker: &Worker) {
    /// Also when the thread panics: the watcher then starts another.
    struct Discharge<'a>(&'a Pool, &'a Worker);
    impl Drop for Discharge<'_> {
        fn drop(&mut self) {
            self.0.discharge(self.1);
        }
    }
    let _discharge = Discharge(pool, worker);
    let module = lock(&pool.module).as_ref().map(|using| Arc::clone(using.module()));
    if let Some(module) = module {
        let mut thread = SessionThread { pool, worker, module, opened: false, crowded: false, retry: None };
        while thread.step() {}
        if let Some(job) = thread.retry.take() {
            // Back to the others; if there are none, the end of the signer fails it.
            pool.queue.push_again(job);
        }
    }
}

struct SessionThread<'a> {
    pool: &'a Pool,
    worker: &'a Worker,
    module: Arc<Module>,
    opened: bool,
    /// The token had no session left for this thread, and that was logged.
    crowded: bool,
    /// The job whose session broke: it goes first with the next one, here and not elsewhere, because
    /// sessions tend to break together.
    retry: Option<Job>,
}

/// A session with the key handles found through it.
struct Open {
    connection: Connection,
    handles: HashMap<u64, ObjectHandle>,
    /// Whether it signs with copies of the keys.
    session_keys: bool,
}

/// Why a session is given up.
enum Ended {
    /// Asked to: by a stop, a hung call, a re-initialisation.
    Leave,
    /// The session broke; another one may do.
    Broken,
}

impl SessionThread<'_> {
    /// One session from opening to closing, or one attempt to mend the token. Returns whether there is
    /// more to do.
    fn step(&mut self) -> bool {
        if let Some(refused) = self.retry.take_if(|_| self.pool.is_halted()) {
            // Waits, or fails, with the others.
            self.pool.queue.push_again(refused);
        }
        match self.pool.duty(self.worker) {
            Duty::Wait => {}
            Duty::Leave => return self.worker.is_hung() && self.pool.rejoin(self.worker),
            Duty::Mend { failed_generation, forced } => {
                self.worker.begin("mending the token", None);
                let outcome = self.mend(failed_generation, forced);
                self.worker.end();
                self.pool.mended(self.worker, outcome);
            }
            Duty::Connect => {
                let reply = self.retry.as_mut().map(Job::take_reply);
                self.worker.begin("opening a session", reply);
                let connection = self.connect();
                let (reply, _) = self.worker.end();
                // Without a reply the job was failed because this took too long.
                self.retry = self.retry.take().zip(reply).map(|(mut job, reply)| {
                    job.reply = reply;
                    job
                });
                match connection {
                    Ok(connection) => return self.serve(connection),
                    Err((error, _))
                        if error.is_session_limit() && self.pool.others_connected(self.worker) =>
                    {
                        if !std::mem::replace(&mut self.crowded, true) {
                            tracing::warn!(token = %self.pool.token, %error, "the token allows fewer sessions than `sessions`; going on with those it gave");
                        }
                        self.pool.rest();
                    }
                    Err((error, generation)) => self.pool.trip(&error, generation),
                }
            }
        }
        !self.worker.is_hung() || self.pool.rejoin(self.worker)
    }

    fn connect(&mut self) -> Result<Connection, (SignerError, u64)> {
        let generation = self.module.generation();
        let pool = self.pool;
        let connection = Connection::open(&self.module, &pool.settings, &pool.pin, Access::ReadOnly)
            .map_err(|error| (error, generation))?;
        if self.opened {
            pool.stats.reopened.fetch_add(1, Ordering::Relaxed);
        }
        self.opened = true;
        let mut keeper = lock(&pool.keeper);
        if !keeper.as_ref().is_some_and(Connection::is_alive) {
            // Not to be waited for: whoever initialises the module anew waits for the session above.
            let at_once = Settings { call_timeout: Duration::ZERO, ..pool.settings.clone() };
            let fresh = Connection::open(&self.module, &at_once, &pool.pin, Access::ReadOnly);
            *keeper = match fresh {
                Ok(fresh) => Some(fresh),
                // A token short of sessions had better sign with those it has, and a module that is
                // being left needs none.
                Err(error) if error.is_session_limit() || self.module.leaving() => None,
                Err(error) => return Err((error, generation)),
            };
        }
        drop(keeper);
        if pool.is_halted() {
            // The token failed meanwhile, and whoever mends it has dropped the keeper already.
            pool.drop_keeper();
        }
        Ok(connection)
    }

    /// Initialises the module anew, opens a session, and signs with one of the keys in use.
    fn mend(&self, failed_generation: u64, forced: bool) -> Result<(), SignerError> {
        let pool = self.pool;
        pool.drop_keeper();
        // The rest of the time limit is for C_Finalize and C_Initialize.
        self.module
            .reinitialise(failed_generation, forced, pool.settings.call_timeout / 4)
            .map_err(|error| error.of_token(&pool.token))?;
        pool.note_generation(self.module.generation());
        self.worker.begin("trying a session", None);
        let connection = Connection::open(&self.module, &pool.settings, &pool.pin, Access::ReadOnly)?;
        self.try_keys(&connection)?;
        *lock(&pool.keeper) = Some(connection);
        Ok(())
    }

    /// Signs with the keys in use, until one does: one that has gone for good, or was replaced, is no
    /// reason to keep the others from signing.
    fn try_keys(&self, connection: &Connection) -> Result<(), SignerError> {
        let keys: Vec<Arc<Prepared>> = lock(&self.pool.keys).iter().filter_map(Weak::upgrade).collect();
        let mut unfit = None;
        for key in keys {
            let (schemes, verifier) = (&[key.scheme], &key.verifier);
            let (algorithm, public_key) = (verifier.algorithm(), verifier.public_key());
            match self.pool.prove(connection, &key.reference, algorithm, public_key, schemes) {
                Ok(_) => return Ok(()),
                Err(SignerError::KeyMissing { found, .. }) if !found.is_empty() => {}
                Err(SignerError::KeyMissing { token, .. }) => {
                    return Err(SignerError::Call {
                        token,
                        action: "finding the keys in use".into(),
                        code: "the token has no private keys any more".into(),
                        class: FailureClass::Token,
                    });
                }
                Err(error) if error.class() == FailureClass::Request => unfit = Some(error),
                Err(error) => return Err(error),
            }
        }
        unfit.map_or(Ok(()), Err)
    }

    /// Takes jobs until the session ends. Returns whether there is more to do.
    fn serve(&mut self, connection: Connection) -> bool {
        let session_keys = self.pool.settings.session_keys;
        let mut open = Open { connection, handles: HashMap::new(), session_keys };
        self.worker.set_connected(true);
        let ended = loop {
            if self.pool.is_halted() || self.module.leaving() || self.worker.is_hung() {
                break Ended::Leave;
            }
            let again = self.retry.take();
            if again.is_some() {
                self.wait(self.pool.queue.book());
            }
            let next = match again.or_else(|| self.pool.queue.try_pop()) {
                Some(job) => Popped::Job(job),
                None => {
                    self.pool.hand_on(self.worker.take_signed());
                    self.pool.queue.pop(LOOK_AROUND)
                }
            };
            match next {
                Popped::Job(job) if self.pool.is_halted() || self.module.leaving() => {
                    self.pool.queue.push_again(job);
                }
                Popped::Nothing => {}
                Popped::End => {
                    self.close(open);
                    return false;
                }
                Popped::Job(job) if job.reply.is_abandoned() => {}
                Popped::Job(job) => {
                    if let Err(ended) = self.handle(&mut open, job) {
                        break ended;
                    }
                }
            }
        };
        self.worker.set_connected(false);
        self.pool.hand_on(self.worker.take_signed());
        if matches!(ended, Ended::Leave) && self.module.leaving() {
            // Another token of the module is mended: its keeper and ours must go as well.
            self.worker.begin("closing a session", None);
            self.pool.drop_keeper();
            self.worker.end();
        }
        self.close(open);
        !self.worker.is_hung() || self.pool.rejoin(self.worker)
    }

    fn close(&self, open: Open) {
        self.worker.begin("closing a session", None);
        drop(open);
        self.worker.end();
    }

    fn handle(&mut self, open: &mut Open, job: Job) -> Result<(), Ended> {
        if matches!(job.work, Work::Prepare { .. }) {
            return self.prepare_job(open, job);
        }
        self.sign(open, job)
    }

    /// Waits in portions, so that a thread at a low cap is still there for its session.
    fn wait(&self, mut left: Duration) {
        while !left.is_zero() && !self.pool.is_halted() {
            let portion = left.min(LOOK_AROUND);
            std::thread::sleep(portion);
            left -= portion;
        }
    }

    fn sign(&mut self, open: &mut Open, mut job: Job) -> Result<(), Ended> {
        let reply = job.take_reply();
        let Work::Sign { key, message } = &job.work else { return Ok(()) };
        let prepared = Arc::clone(&key.0);
        if job.find_anew {
            open.handles.remove(&prepared.number);
        }
        self.worker.begin("signing", Some(reply));
        let outcome = open.handle_of(&prepared).and_then(|handle| {
            open.connection.sign(prepared.scheme, handle, message).map_err(|error| Trouble::of(&error))
        });
        let (reply, time) = self.worker.end();
        // Without a reply the call was given up long ago: the signature has nowhere to go.
        let Some(reply) = reply else { return Err(Ended::Leave) };
        job.reply = reply;
        let trouble = match outcome {
            Ok(Some(signature)) => {
                self.pool.stats.call_time.record(time);
                self.pool.load.note_progress();
                if self.worker.keep(job, signature, time, self.pool.settings.sessions) {
                    self.pool.hand_on(self.worker.take_signed());
                }
                return Ok(());
            }
            Ok(None) => Trouble {
                class: FailureClass::Request,
                code: "the signature is not of the curve's size".into(),
                gone: false,
            },
            Err(trouble) => trouble,
        };
        self.pool.stats.failed(&trouble.code);
        self.trouble(open, job, &prepared, trouble)
    }

    /// Decides what becomes of a job that was not signed, and of the session.
    fn trouble(
        &mut self,
        open: &Open,
        mut job: Job,
        prepared: &Prepared,
        trouble: Trouble,
    ) -> Result<(), Ended> {
        let (token, key) = (Arc::clone(&self.pool.token), Arc::clone(&prepared.name));
        let error = SignerError::Call {
            token: token.to_string(),
            action: format!("signing with {key}"),
            code: trouble.code.clone(),
            class: trouble.class,
        };
        let generation = open.connection.entry.generation;
        let vague = is_vague(&trouble.code);
        let class = match trouble.class {
            // Another session mends much of what is reported so; initialising the module anew, which
            // holds everybody up, comes after that.
            _ if vague && !job.session_tried => FailureClass::Session,
            _ if vague && !job.token_tried => {
                self.worker.begin("trying the key", Some(job.take_reply()));
                let signs = open.signs(prepared);
                let (reply, _) = self.worker.end();
                let Some(reply) = reply else { return Err(Ended::Leave) };
                job.reply = reply;
                if signs { FailureClass::Request } else { trouble.class }
            }
            class => class,
        };
        match class {
            FailureClass::Session if trouble.gone && job.session_tried => {
                job.reply.fail(SignError::KeyGone { token, key });
                Ok(())
            }
            FailureClass::Session if !job.session_tried => {
                tracing::warn!(%token, code = trouble.code, "the session broke, opening another");
                job.session_tried = true;
                self.retry = Some(job);
                Err(Ended::Broken)
            }
            // A session that breaks twice with the same job is more than a broken session.
            FailureClass::Session | FailureClass::Token | FailureClass::Pin if !job.token_tried => {
                self.pool.trip(&error, generation);
                job.token_tried = true;
                self.pool.try_again(job);
                Err(Ended::Leave)
            }
            class => {
                job.reply.fail(SignError::Failed { token, key, code: trouble.code });
                if self.pool.item_failed() {
                    self.pool.trip(&error, generation);
                    return Err(Ended::Leave);
                }
                if class == FailureClass::Request { Ok(()) } else { Err(Ended::Broken) }
            }
        }
    }

    /// As for signatures: once more for the session, once more for the token.
    fn prepare_job(&mut self, open: &Open, mut job: Job) -> Result<(), Ended> {
        let reply = job.take_reply();
        let Work::Prepare { reference, algorithm, public_key } = &job.work else { return Ok(()) };
        self.worker.begin("preparing a key", Some(reply));
        let prepared = self.pool.prepare(&open.connection, reference, *algorithm, public_key.clone());
        let (reply, _) = self.worker.end();
        let Some(reply) = reply else { return Err(Ended::Leave) };
        job.reply = reply;
        match prepared.as_ref().map_err(SignerError::class) {
            Err(FailureClass::Session) if !job.session_tried => {
                job.session_tried = true;
                self.retry = Some(job);
                Err(Ended::Broken)
            }
            Err(FailureClass::Session | FailureClass::Token) if !job.token_tried => {
                if let Err(error) = &prepared {
                    self.pool.trip(error, open.connection.entry.generation);
                }
                job.token_tried = true;
                self.pool.try_again(job);
                Err(Ended::Leave)
            }
            _ => {
                job.reply.prepared(prepared);
                Ok(())
            }
        }
    }
}

/// A failed signature.
struct Trouble {
    class: FailureClass,
    code: String,
    /// The key is not in the token, others are.
    gone: bool,
}

impl Trouble {
    fn of(error: &Pkcs11Error) -> Self {
        Self { class: classify(error), code: code_of(error), gone: false }
    }
}

impl Open {
    /// Whether the key signs another message than the one it failed with.
    fn signs(&self, key: &Prepared) -> bool {
        let Some(handle) = self.handles.get(&key.number) else { return false };
        matches!(self.signs_with(key, *handle), Ok(true))
    }

    /// Whether what is signed with this handle is the key's.
    fn signs_with(&self, key: &Prepared, handle: ObjectHandle) -> Result<bool, Pkcs11Error> {
        let signature = self.connection.sign(key.scheme, handle, PROOF)?;
        Ok(signature.is_some_and(|signature| key.verifier.verify(PROOF, &signature).is_ok()))
    }

    /// The session's own copy of a key, once it has signed. The key itself if the token makes none, or one
    /// that does not sign: should the session or the token be broken, signing will tell.
    fn copy_of(&self, key: &Prepared, handle: ObjectHandle) -> ObjectHandle {
        let copied = self.connection.session_copy(handle);
        let trouble = match copied.and_then(|copy| Ok((copy, self.signs_with(key, copy)?))) {
            Ok((copy, true)) => return copy,
            Ok((_, false)) => "what the copy signs does not verify".to_owned(),
            Err(error) => code_of(&error),
        };
        tracing::warn!(key = %key.name, trouble, "session_keys: the token makes no copy of the key that signs; it signs with the key itself");
        handle
    }

    /// The session's handle for a key, found once.
    fn handle_of(&mut self, key: &Prepared) -> Result<ObjectHandle, Trouble> {
        if let Some(handle) = self.handles.get(&key.number) {
            return Ok(*handle);
        }
        let handle = match self.connection.private_key(&key.reference) {
            Ok(handle) => handle,
            Err(SignerError::KeyMissing { found, .. }) => {
                // An empty token has been exchanged or hidden; one key less was destroyed by somebody.
                let gone = !found.is_empty();
                let class = if gone { FailureClass::Session } else { FailureClass::Token };
                return Err(Trouble { class, code: "the key is not there any more".into(), gone });
            }
            Err(SignerError::Call { code, class, .. }) => return Err(Trouble { class, code, gone: false }),
            Err(error) => {
                return Err(Trouble { class: error.class(), code: error.to_string(), gone: false });
            }
        };
        let handle = if self.session_keys { self.copy_of(key, handle) } else { handle };
        self.handles.insert(key.number, handle);
        Ok(handle)
    }
}
