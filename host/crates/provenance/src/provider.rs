//! `ring` for `sigstore-verify`; and, where a signature stands over a digest, which ring does not verify, `p256`
//! and `p384`.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest, Sha256, Sha384, Sha512, digest::DynDigest};
use sigstore_crypto::{
    CryptoProvider, Error, HashContext, Result, SigningScheme, install_default_provider,
};
use sigstore_verify::types::HashAlgorithm;

#[derive(Debug)]
struct Ring;

static RING: Ring = Ring;

/// Once a process; a second call finds it installed.
pub fn install() {
    let _ = install_default_provider(&RING);
}

struct Hashing(Box<dyn DynDigest + Send>);

impl HashContext for Hashing {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        let digest: Box<dyn DynDigest + Send> = match algorithm {
            HashAlgorithm::Sha2256 => Box::new(Sha256::new()),
            HashAlgorithm::Sha2384 => Box::new(Sha384::new()),
            HashAlgorithm::Sha2512 => Box::new(Sha512::new()),
            other => return Err(unsupported(format!("the digest {other}"))),
        };
        Ok(Box::new(Hashing(digest)))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        public_key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        UnparsedPublicKey::new(algorithm(scheme)?, public_key)
            .verify(data, signature)
            .map_err(|_| Error::Verification(format!("{} signature invalid", scheme.name())))
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        use SigningScheme as S;
        let verified = match scheme {
            S::EcdsaP256Sha256 | S::EcdsaP256Sha384 => p256(public_key, digest, signature),
            S::EcdsaP384Sha256 | S::EcdsaP384Sha384 => p384(public_key, digest, signature),
            other => return Err(unsupported(format!("{} over a digest", other.name()))),
        };
        verified.map_err(|_| Error::Verification(format!("{} signature invalid", scheme.name())))
    }
}

type Verified = std::result::Result<(), p256::ecdsa::Error>;

fn p256(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Verified {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key)?;
    key.verify_prehash(digest, &p256::ecdsa::Signature::from_der(signature)?)
}

fn p384(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Verified {
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key)?;
    key.verify_prehash(digest, &p384::ecdsa::Signature::from_der(signature)?)
}

fn algorithm(scheme: SigningScheme) -> Result<&'static dyn VerificationAlgorithm> {
    use SigningScheme as S;
    Ok(match scheme {
        S::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
        S::EcdsaP256Sha384 => &ECDSA_P256_SHA384_ASN1,
        S::EcdsaP384Sha256 => &ECDSA_P384_SHA256_ASN1,
        S::EcdsaP384Sha384 => &ECDSA_P384_SHA384_ASN1,
        S::Ed25519 => &ED25519,
        S::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        S::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        S::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        S::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        S::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        S::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        other => return Err(unsupported(other.name().to_owned())),
    })
}

fn unsupported(what: String) -> Error {
    Error::UnsupportedAlgorithm(format!("{what} is not supported"))
}
