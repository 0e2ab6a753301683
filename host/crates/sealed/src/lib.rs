#![doc = include_str!("../README.md")]

mod aad;
mod cipher;
mod provider;

pub use aad::Aad;
pub use cipher::{DataKey, NONCE_BYTES, OVERHEAD_BYTES, PLAINTEXT_BYTES_MAX};
pub use provider::{KeyFile, KeyProvider, Keyring, KekId, WrappedKey};

/// Why something was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Wrong key, wrong associated data, or altered bytes: which of them is not told.
    #[error("the sealed value does not open: it was altered, moved, or sealed under another key")]
    NotAuthentic,
    #[error("this is no sealed value: {0}")]
    Malformed(&'static str),
    #[error("{bytes} bytes are more than the {PLAINTEXT_BYTES_MAX} that can be sealed at once")]
    TooLarge { bytes: usize },
    #[error("no key-encryption key is called `{0}`; put its line back into the key provider's keys")]
    UnknownKey(String),
    #[error("the key file is wrong: {0}")]
    KeyFile(String),
    #[error("the key provider cannot be reached: {0}")]
    Unavailable(String),
}
