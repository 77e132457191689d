//! Opening listening sockets, with errors that say which address and what to do.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel may hold before they are accepted (it caps this at `net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// A listening socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (setting `{setting}`): {source}; {}", advice(.source))]
pub struct ListenError {
    /// The address that was tried.
    pub address: SocketAddr,
    /// The setting it came from, for example `ocsp.listen`.
    pub setting: &'static str,
    /// What the system said.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: stop it (`ss -ltnp` shows which) or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address (`ip address` lists them)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it to the service or choose a higher port"
        }
        _ => "check the address, and the limit on open files (`ulimit -n`)",
    }
}

/// Opens a listening socket on `address`, which came from the setting called `setting`. Must be called
/// inside a tokio runtime.
///
/// # Errors
/// When the address cannot be bound; the error says what to do about it.
pub fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| ListenError { address, setting, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting_and_a_way_out() {
        let first = listen("127.0.0.1:0".parse().unwrap(), "ocsp.listen").unwrap();
        let taken = first.local_addr().unwrap();
        let error = listen(taken, "ocsp.listen").unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("ocsp.listen"), "{error}");
        assert!(error.contains("another process"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_explained() {
        let error = listen("192.0.2.1:0".parse().unwrap(), "ocsp.listen").unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:0") && error.contains("no interface"), "{error}");
    }
}
