//! Who may call the control listener, and how often.
//!
//! On a loopback address without a file of credentials everybody on the machine may do everything
//! (except web pages: see `origin`). With one, each call but `/livez` and `/readyz` needs a token
//! that has the scope for it.

mod buckets;
mod credentials;
mod gate;
mod origin;
mod token;

pub use credentials::{Credential, Credentials, CredentialsError, Scope, Webhook, check_name};
pub use gate::{Caller, Gate, Peer, require};
pub use token::{NewToken, new_token};
