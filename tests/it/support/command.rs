//! Runs a program to its end, within bounds, and keeps everything it said.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use goodstanding::clock::Stopwatch;

/// Longer than anything a test runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    line: String,
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ran {
    /// The exit status; a signal is none and fails the test.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed by a signal\n{}", self.transcript()))
    }

    /// Itself, if it exited 0.
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Itself, if it exited with this status.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit status\n{}", self.transcript());
        self
    }

    /// What it wrote to standard output.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it wrote to standard error.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Both, for clients that are not particular about which they use.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.out(), self.err())
    }

    /// Command line, exit status and everything said, for messages.
    pub(crate) fn transcript(&self) -> String {
        format!("$ {}\n{}\n{}", self.line, self.text(), self.status)
    }

    /// Fails unless all of `parts` occur in what it said.
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.text().contains(part), "{part:?} is missing in\n{}", self.transcript());
        }
        self
    }
}

/// Runs a command to its end. Panics when it cannot be started or does not end in two minutes.
pub(crate) fn run(command: &mut Command) -> Ran {
    let line = line(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("$ {line}\n{error}: `make test` installs the tools"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let running = Stopwatch::start();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if running.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("$ {line}\nstill ran after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    Ran { line, status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// [`run`] for a program and its arguments.
pub(crate) fn sh<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Ran {
    run(Command::new(program).args(arguments))
}

/// Asks a child of ours to end, by its process id. `kill` is the shell's own: the program of that
/// name is not on every Debian.
pub(crate) fn terminate(child: &Child) {
    signal(child, "TERM");
}

/// Sends a signal to a child of ours, by its process id.
pub(crate) fn signal(child: &Child, name: &str) {
    sh("sh", &["-c".to_owned(), format!("kill -{name} {}", child.id())]);
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}
