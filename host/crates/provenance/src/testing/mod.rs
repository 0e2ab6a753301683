//! For the tests of whoever asks where a component comes from: a real registry, and a Sigstore of one's own.

mod registry;
mod sigstore;

pub use registry::{DockerRegistry, component};
pub use sigstore::OwnSigstore;
