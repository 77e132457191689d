//! `goodstanding serve` as a child process.

use std::fs::{self, File};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use super::command::{signal, terminate};
use super::site::Site;
use super::{eventually, http};

const PATIENCE: Duration = Duration::from_secs(30);

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server<'s> {
    site: &'s Site,
    child: Child,
}

impl<'s> Server<'s> {
    /// Starts it and waits until `/readyz` says yes.
    pub(crate) fn start(site: &'s Site) -> Self {
        Self::start_with(site, &[])
    }

    /// As [`Server::start`], with more on its command line.
    pub(crate) fn start_with(site: &'s Site, arguments: &[&str]) -> Self {
        Self::launch_with(site, arguments).ready_within(PATIENCE)
    }

    /// Starts it and waits longer than usual until it is ready: it has much to read.
    pub(crate) fn start_within(site: &'s Site, patience: Duration) -> Self {
        Self::launch(site).ready_within(patience)
    }

    fn ready_within(self, patience: Duration) -> Self {
        let mut server = self;
        eventually("readiness", patience, || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended ({status}) instead of serving\n{}", server.log());
            }
            (server.readiness() == Some(200)).then_some(())
        });
        server
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(site: &'s Site) -> Self {
        Self::launch_with(site, &[])
    }

    fn launch_with(site: &'s Site, arguments: &[&str]) -> Self {
        let log = File::create(site.path("serve.log")).unwrap();
        let mut command = site.command();
        command
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self { site, child: command.spawn().unwrap() }
    }

    /// The status of `/readyz`; none while nobody listens.
    pub(crate) fn readiness(&self) -> Option<u16> {
        http::get(self.site.control, "/readyz").ok().map(|reply| reply.status)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site.path("serve.log")).unwrap()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it read its configuration again.
    pub(crate) fn hang_up(&self) {
        signal(&self.child, "HUP");
    }

    /// Sends SIGTERM without waiting.
    pub(crate) fn terminate(&self) {
        terminate(&self.child);
    }

    /// Sends SIGKILL, and waits for its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the server's end", PATIENCE, || self.child.try_wait().unwrap()).0
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A failed test wants to see this; a passed one prints nothing.
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
            let _ = self.child.kill();
        } else {
            self.terminate();
        }
        let _ = self.child.wait();
    }
}
