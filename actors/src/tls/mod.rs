//! TLS by rustls, with graviola for the cryptography: Rust and its own assembly, no C (level 1).

mod client;
mod files;
mod provider;
mod server;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod words;

pub(crate) use self::{client::client, words::explained};
pub use self::{
    files::TlsFiles,
    server::{ServerTls, ServerTlsError, ServerTlsFiles},
};
