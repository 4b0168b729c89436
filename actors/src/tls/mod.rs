//! TLS by rustls, with graviola for the cryptography: Rust and its own assembly, no C (level 1).

mod client;
mod files;
mod provider;
#[cfg(test)]
pub(crate) mod testing;
mod words;

pub use self::files::TlsFiles;
pub(crate) use self::{client::client, words::explained};
