use crate::Statement;
use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{
    Signature, Signer, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding},
};
use zeroize::Zeroizing;

/// An ed25519 signature (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the file holds no ed25519 key in PKCS #8 (`-----BEGIN PRIVATE KEY-----`)")]
    NotPkcs8,
    #[error("a public key is 32 bytes in base64; `tsunami plugin keygen` prints it")]
    NotAPublicKey,
    #[error("this public key is of a kind that lets anybody sign")]
    Weak,
}

/// A publisher's key. It stays with the publisher.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the operating system's random source answers");
        Self(SigningKey::from_bytes(&seed))
    }

    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(text)
            .map(Self)
            .map_err(|_| KeyError::NotPkcs8)
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes are always encoded")
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub fn sign(&self, statement: &Statement) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(statement.text().as_bytes()).to_bytes()
    }
}

/// What a publisher registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = bytes.try_into().map_err(|_| KeyError::NotAPublicKey)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPublicKey)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    pub fn parse(base64: &str) -> Result<Self, KeyError> {
        let bytes = BASE64_STANDARD
            .decode(base64.trim())
            .map_err(|_| KeyError::NotAPublicKey)?;
        Self::from_bytes(&bytes)
    }

    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Strictly: one signature has one form.
    pub fn verify(&self, statement: &Statement, signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else {
            return false;
        };
        self.0
            .verify_strict(statement.text().as_bytes(), &signature)
            .is_ok()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.to_bytes()))
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256_hex;

    fn statement(version: &str) -> Statement {
        Statement::new("acme", "slack", version, &sha256_hex(b"x"), "0.1.0").unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_key_and_its_statement_alone() {
        let key = PrivateKey::generate();
        let signature = key.sign(&statement("1.0.0"));
        assert!(key.public().verify(&statement("1.0.0"), &signature));
        assert!(!key.public().verify(&statement("1.0.1"), &signature));
        assert!(
            !PrivateKey::generate()
                .public()
                .verify(&statement("1.0.0"), &signature)
        );
        assert!(!key.public().verify(&statement("1.0.0"), &signature[1..]));
        let mut other = signature;
        other[0] ^= 1;
        assert!(!key.public().verify(&statement("1.0.0"), &other));
    }

    #[test]
    fn a_key_comes_back_from_its_file() {
        let key = PrivateKey::generate();
        let pem = key.to_pem();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let again = PrivateKey::from_pem(&pem).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(
            PublicKey::parse(&key.public().to_string()),
            Ok(key.public())
        );
        assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
    }

    #[test]
    fn what_is_no_key_and_what_anybody_could_sign_for_is_refused() {
        assert_eq!(
            PrivateKey::from_pem("nonsense").err(),
            Some(KeyError::NotPkcs8)
        );
        for text in ["", "????", "AAAA"] {
            assert_eq!(PublicKey::parse(text), Err(KeyError::NotAPublicKey));
        }
        // The neutral element of the curve.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::from_bytes(&neutral), Err(KeyError::Weak));
    }
}
