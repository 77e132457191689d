//! SoftHSM behind the module that injects faults: docs/faults.md.

use std::path::{Path, PathBuf};

pub(crate) use faulty_token::{Act, Control, Count, Fault, Function, Hex, Mangling, Tally};

use super::ca::utf8;
use super::site::{SOFTHSM, Site};

/// Cargo builds the module with these tests, and puts it beside them.
pub(crate) fn module() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let module = tests.with_file_name("libfaulty_token.so");
    assert!(module.exists(), "{} is missing: `cargo test` builds it", module.display());
    module
}

/// The control file of a token that may fail.
#[derive(Debug)]
pub(crate) struct FaultyToken {
    path: PathBuf,
}

impl FaultyToken {
    /// A control file in a folder, with nothing wrong yet.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        let faulty = Self { path: folder.join("faulty.toml") };
        faulty.heal();
        faulty
    }

    /// Puts the module between the program and SoftHSM. `configuration` is changed further by the test.
    pub(crate) fn under(site: &mut Site, configuration: &str) -> Self {
        let faulty = Self::in_folder(&site.path(""));
        let (name, value) = faulty.environment();
        site.environment.push((name.to_owned(), value));
        assert!(configuration.contains(SOFTHSM), "SoftHSM is the module of\n{configuration}");
        site.configure(&configuration.replace(SOFTHSM, utf8(&module())));
        faulty
    }

    /// The variable that the module finds its control file by.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        (faulty_token::CONTROL_VARIABLE, utf8(&self.path).to_owned())
    }

    /// Nothing wrong any more.
    pub(crate) fn heal(&self) {
        self.set(&self.sound());
    }

    /// What [`FaultyToken::heal`] writes, to be added to.
    pub(crate) fn sound(&self) -> Control {
        Control::of(SOFTHSM)
    }

    /// From now on this goes wrong, and nothing else.
    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.set(&Control { faults: faults.into_iter().collect(), ..self.sound() });
    }

    /// Puts a control file in the place of the last.
    pub(crate) fn set(&self, control: &Control) {
        control.write(&self.path).unwrap();
    }

    /// What was counted of a function since the control file was first used.
    pub(crate) fn count(&self, function: Function) -> Count {
        Tally::read(&self.path).unwrap().of(function)
    }
}
