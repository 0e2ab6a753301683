#![doc = include_str!("../README.md")]

mod keys;
mod oci;
mod provider;
mod registry;
mod sigstore;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;

pub use keys::{KeyError, PrivateKey, PublicKey, SIGNATURE_BYTES};
pub use oci::{Asker, Credentials, OciError, Pulled, Registries, Registry};
pub use sigstore::{BUNDLE_BYTES_MAX, Identity, Sigstore, SigstoreError};
pub use statement::{Statement, StatementError, is_namespace};

use sha2::{Digest, Sha256};

/// SHA-256, as components are named by it: 64 digits of lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
