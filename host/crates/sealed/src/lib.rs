#![doc = include_str!("../README.md")]

mod aad;
mod data_key;
mod hkdf;
mod key_file;
mod keyring;

pub use aad::Aad;
pub use data_key::{
    DataKey, LARGE_BYTES_MAX, MAC_BYTES, NONCE_BYTES, OVERHEAD_BYTES, SEALS_PER_KEY_MAX,
    VALUE_BYTES_MAX,
};
pub use key_file::{KEY_FILE_BYTES_MAX, KeyFile};
pub use keyring::{KekId, KeyProvider, Keyring, WrappedKey};

/// Why something was not sealed or opened. None of these carries a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Wrong key, wrong associated data, or altered bytes: which of them is not told.
    #[error("the sealed value does not open: it was altered, moved, or sealed under another key")]
    NotAuthentic,
    /// Not something that this crate wrote: damaged on the way, or from a newer version.
    #[error("this is no sealed value: {0}")]
    Malformed(&'static str),
    #[error(
        "{bytes} bytes are more than the {bytes_max} that can be sealed here; store less, or in parts"
    )]
    TooLarge { bytes: usize, bytes_max: usize },
    /// The key provider has no key of this name.
    #[error(
        "no key-encryption key is called `{0}`; put its line `{0} = <base64 of 32 bytes>` back into the \
         key provider's keys: what was wrapped under it opens with nothing else"
    )]
    UnknownKey(KekId),
    /// The keys that were given cannot be used; the text says which line and how it should read.
    #[error("the key file is wrong: {0}")]
    KeyFile(String),
    /// For providers elsewhere: trying again later may help.
    #[error("the key provider cannot be reached: {0}; it is tried again with the next call")]
    Unavailable(String),
}
