//! A page of counts in a file beside the control file, shared by all processes that use it: calls by
//! function, and when each token is free to sign again.
//!
//! 512 words of 64 bits in the machine's order. Word 4·n + 0 … 2 of function n: calls, calls that
//! returned something else than CKR_OK, calls that a fault happened to. From word 256 on, pairs: the
//! hash of a token's label, and when it has signed what it was given, in nanoseconds of Unix time.

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::functions::Function;

const WORDS: usize = 512;
const OCTETS: usize = WORDS * 8;
const RATES: usize = 256;

/// What is counted of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls. A C_Sign that asked for a length only is none.
    pub called: u64,
    /// Calls that returned something else than CKR_OK.
    pub failed: u64,
    /// Calls that a fault happened to.
    pub injected: u64,
}

/// The counts as they stood at a moment.
#[derive(Clone, Debug)]
pub struct Tally(Vec<u64>);

impl Tally {
    /// Reads the counts that belong to a control file; all zero before the first call.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(control: &Path) -> io::Result<Self> {
        let octets = match fs::read(page_of(control)) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let words = octets.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        let mut words: Vec<u64> = words.collect();
        words.resize(WORDS, 0);
        Ok(Self(words))
    }

    /// The counts of one function.
    #[must_use]
    pub fn of(&self, function: Function) -> Count {
        let at = place(function);
        Count { called: self.0[at], failed: self.0[at + 1], injected: self.0[at + 2] }
    }
}

fn page_of(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".calls");
    path.into()
}

const fn place(function: Function) -> usize {
    function as usize * 4
}

/// The page itself.
pub(crate) struct Page(&'static [AtomicU64; WORDS]);

impl Page {
    pub(crate) fn map(control: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(page_of(control))?;
        if file.metadata()?.len() < OCTETS as u64 {
            file.set_len(OCTETS as u64)?;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes it, of a file that is as long.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), OCTETS, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a page is aligned for words, is never unmapped, and everybody uses it as atomics. Nobody
        // makes the file shorter.
        Ok(Self(unsafe { &*address.cast::<[AtomicU64; WORDS]>() }))
    }

    pub(crate) fn called(&self, function: Function) {
        self.0[place(function)].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn failed(&self, function: Function) {
        self.0[place(function) + 1].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn injected(&self, function: Function) {
        self.0[place(function) + 2].fetch_add(1, Ordering::SeqCst);
    }

    /// Gives the token one more signature to make, behind those it has; how long until it is made.
    pub(crate) fn book(&self, label: &str, rate: f64) -> Duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "several processes agree on this time, and no test drives it"
        )]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = now.as_nanos() as u64;
        let service = (1e9 / rate) as u64;
        let free_at = &self.0[self.rate_of(label) + 1];
        let finish = |free_at: u64| free_at.max(nanos) + service;
        let booked = free_at.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |at| Some(finish(at)));
        Duration::from_nanos(booked.map_or(0, finish) - nanos)
    }

    fn rate_of(&self, label: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        label.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        let mut at = RATES;
        while at < WORDS - 2 {
            match self.0[at].compare_exchange(0, hash, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return at,
                Err(taken) if taken == hash => return at,
                Err(_) => at += 2,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> (Page, PathBuf) {
        let path = std::env::temp_dir().join(format!("faulty-token-{name}-{}", std::process::id()));
        (Page::map(&path).unwrap(), path)
    }

    #[test]
    fn counts_are_shared_by_all_who_map_the_page() {
        let (page, path) = page("counts");
        let again = Page::map(&path).unwrap();
        page.called(Function::C_Sign);
        again.called(Function::C_Sign);
        again.failed(Function::C_Sign);
        page.injected(Function::C_SignFinal);
        let tally = Tally::read(&path).unwrap();
        assert_eq!(tally.of(Function::C_Sign), Count { called: 2, failed: 1, injected: 0 });
        assert_eq!(tally.of(Function::C_SignFinal), Count { called: 0, failed: 0, injected: 1 });
        assert_eq!(tally.of(Function::C_Login), Count::default());
        fs::remove_file(page_of(&path)).unwrap();
        assert_eq!(Tally::read(&path).unwrap().of(Function::C_Sign), Count::default());
    }

    #[test]
    fn a_token_makes_one_signature_after_the_other_and_tokens_do_not_wait_for_each_other() {
        let (page, path) = page("rate");
        let waits: Vec<_> = (0..10).map(|_| page.book("a", 10.0).as_millis()).collect();
        for (number, wait) in waits.iter().enumerate() {
            let expected = 100 * (number as u128 + 1);
            assert!((expected - 50..=expected).contains(wait), "{waits:?}");
        }
        assert!(page.book("b", 10.0) <= Duration::from_millis(100));
        fs::remove_file(page_of(&path)).unwrap();
    }
}
