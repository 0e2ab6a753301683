use crate::provider;
use sigstore_verify::{
    VerificationPolicy, Verifier,
    trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot},
    types::Bundle,
};

/// A bundle's text, at most.
pub const BUNDLE_BYTES_MAX: usize = 256 << 10;

/// Who signs for a publisher, exactly: an address or the URL of a workflow, and who vouches that it is they.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v1`
    pub subject: String,
    /// `https://token.actions.githubusercontent.com`
    pub issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigstoreError {
    #[error("the trusted root cannot be used: {0}")]
    TrustedRoot(String),
    #[error("the bundle is larger than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("this is no Sigstore bundle: {0}")]
    NotABundle(String),
    #[error("the bundle does not show that {subject} signed this file: {why}")]
    NotVerified { subject: String, why: String },
}

/// Checks bundles without a network.
pub struct Sigstore(Verifier);

impl Sigstore {
    /// Against Sigstore's public instance, as it was when this program was built.
    pub fn public_good() -> Result<Self, SigstoreError> {
        Self::with_trusted_root(SIGSTORE_PRODUCTION_TRUSTED_ROOT)
    }

    /// Against an instance of one's own: the JSON of its trusted root.
    pub fn with_trusted_root(json: &str) -> Result<Self, SigstoreError> {
        provider::install();
        let unusable = |e: &dyn std::fmt::Display| SigstoreError::TrustedRoot(e.to_string());
        let root = TrustedRoot::from_json(json).map_err(|e| unusable(&e))?;
        Verifier::new(&root).map(Self).map_err(|e| unusable(&e))
    }

    /// Whether `identity` signed exactly these bytes, while its certificate was valid, for all to see.
    pub fn verify(
        &self,
        artifact: &[u8],
        bundle: &str,
        identity: &Identity,
    ) -> Result<(), SigstoreError> {
        if bundle.len() > BUNDLE_BYTES_MAX {
            return Err(SigstoreError::TooLarge);
        }
        let bundle =
            Bundle::from_json(bundle).map_err(|e| SigstoreError::NotABundle(e.to_string()))?;
        // An exact match of both: there is no pattern in this interface.
        let policy = VerificationPolicy::new(identity.subject.as_str(), identity.issuer.as_str());
        self.0
            .verify(artifact, &bundle, &policy)
            .map(drop)
            .map_err(|e| SigstoreError::NotVerified {
                subject: identity.subject.clone(),
                why: e.to_string(),
            })
    }
}

impl std::fmt::Debug for Sigstore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sigstore")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_root_of_the_public_instance_is_built_in() {
        Sigstore::public_good().unwrap();
        let error = Sigstore::with_trusted_root("{}").unwrap_err();
        assert!(matches!(error, SigstoreError::TrustedRoot(_)), "{error}");
    }
}
