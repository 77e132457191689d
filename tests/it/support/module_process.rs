//! A PKCS#11 module in a process of its own (`p11-kit server`), as network HSMs have it: the process can
//! be killed and stopped under the program.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ca::utf8;
use super::command::sh;
use super::eventually;
use super::faulty::module;
use super::site::{Site, TOKEN_LABEL};

/// The module that speaks to the process.
const CLIENT: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";

/// The faulty module in a process of its own.
pub(crate) struct ModuleProcess {
    environment: Vec<(String, String)>,
    socket: PathBuf,
    running: Option<Child>,
}

impl ModuleProcess {
    /// Starts it, and configures the site to use it instead of the module itself.
    pub(crate) fn between(site: &mut Site) -> Self {
        let socket = site.path("module.socket");
        let environment = site.environment.clone();
        let configuration = std::fs::read_to_string(site.path("goodstanding.toml")).unwrap();
        let direct = utf8(&module()).to_owned();
        assert!(configuration.contains(&direct), "{configuration}");
        site.configure(&configuration.replace(&direct, CLIENT));
        site.environment
            .push(("P11_KIT_SERVER_ADDRESS".to_owned(), format!("unix:path={}", socket.display())));
        let mut process = Self { environment, socket, running: None };
        process.start();
        process
    }

    /// Starts it, at the same address.
    pub(crate) fn start(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let child = Command::new("p11-kit")
            .args(["server", "-f", "-n", utf8(&self.socket), "--provider", utf8(&module())])
            .arg(format!("pkcs11:token={TOKEN_LABEL}"))
            .envs(self.environment.iter().cloned())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("p11-kit: {error}: `make test` installs the tools"));
        self.running = Some(child);
        eventually("the module's process", Duration::from_secs(30), || self.socket.exists().then_some(()));
    }

    /// SIGKILL, for it and what it forked.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut child) = self.running.take() {
            child.wait().unwrap();
        }
    }

    /// A signal, for it and what it forked: STOP and CONT, above all.
    pub(crate) fn signal(&self, signal: &str) {
        if let Some(child) = &self.running {
            // The shell's own kill; and no panic in a drop.
            let said = sh("sh", &["-c".to_owned(), format!("kill -{signal} -{}", child.id())]);
            assert!(std::thread::panicking() || said.code() == 0, "{}", said.transcript());
        }
    }
}

impl Drop for ModuleProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
