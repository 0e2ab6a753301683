//! The control plane's identity towards a gateway: an ed25519 key pair.
//!
//! A client that is not on the gateway's own machine gets scopes only as a paired device, so every
//! connection presents one (OpenClaw gateway protocol 4, device authentication, payload version 3).

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer, SigningKey};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// An ed25519 key pair with the id that OpenClaw derives from it. The secret half is wiped on drop.
#[derive(Clone)]
pub struct DeviceIdentity {
    key: SigningKey,
    id: String,
}

impl DeviceIdentity {
    /// A new identity from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give; nothing secure can be done then.
    #[must_use]
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new([0; SECRET_KEY_LENGTH]);
        getrandom::fill(secret.as_mut()).expect("the operating system gives randomness");
        Self::from_secret_bytes(&secret)
    }

    /// The identity of a stored secret key (RFC 8032, 5.1.5: 32 bytes).
    #[must_use]
    pub fn from_secret_bytes(secret: &[u8; SECRET_KEY_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(secret);
        let id = hex::encode(Sha256::digest(key.verifying_key().as_bytes()));
        Self { key, id }
    }

    /// The secret key, to be stored encrypted.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; SECRET_KEY_LENGTH]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// What a deployment lists to approve this device: lower-case hex SHA-256 of the public key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as the gateway wants it: base64url without padding.
    #[must_use]
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes())
    }

    /// The signature over what this connection claims, base64url without padding.
    #[must_use]
    pub fn sign(&self, claim: &ConnectClaim<'_>) -> String {
        let payload = claim.payload(&self.id);
        URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a device signs on connecting. The nonce and the time are the gateway's, from its challenge.
#[derive(Clone, Copy)]
pub struct ConnectClaim<'a> {
    /// From the gateway's list of client ids.
    pub client_id: &'a str,
    /// From the gateway's list of client modes.
    pub client_mode: &'a str,
    /// Such as `operator`.
    pub role: &'a str,
    /// In the order in which they are asked for.
    pub scopes: &'a [&'a str],
    /// The challenge's time, milliseconds since 1970.
    pub signed_at_ms: u64,
    /// The gateway's shared token.
    pub token: &'a SecretString,
    /// The challenge's nonce.
    pub nonce: &'a str,
    /// Lower case.
    pub platform: &'a str,
}

impl ConnectClaim<'_> {
    /// `v3|device|client id|mode|role|scopes|time|token|nonce|platform|family`; we have no device family.
    fn payload(&self, device_id: &str) -> Zeroizing<String> {
        let signed_at = self.signed_at_ms.to_string();
        let scopes = self.scopes.join(",");
        let fields = [
            "v3",
            device_id,
            self.client_id,
            self.client_mode,
            self.role,
            &scopes,
            &signed_at,
            self.token.expose_secret(),
            self.nonce,
            self.platform,
            "",
        ];
        Zeroizing::new(fields.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier};

    use super::*;

    /// RFC 8032, 7.1, test 1.
    const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn known() -> DeviceIdentity {
        DeviceIdentity::from_secret_bytes(&hex::decode(SECRET).unwrap().try_into().unwrap())
    }

    #[test]
    fn the_id_and_the_public_key_follow_from_the_secret() {
        let public = hex::decode(PUBLIC).unwrap();
        assert_eq!(known().public_key(), URL_SAFE_NO_PAD.encode(&public));
        assert_eq!(known().id(), hex::encode(Sha256::digest(&public)));
    }

    #[test]
    fn a_stored_identity_is_the_same_identity() {
        let device = DeviceIdentity::generate();
        let again = DeviceIdentity::from_secret_bytes(&device.to_secret_bytes());
        assert_eq!(again.id(), device.id());
        assert_ne!(DeviceIdentity::generate().id(), device.id());
    }

    #[test]
    fn the_signature_is_over_the_version_3_payload() {
        let device = known();
        let token = SecretString::from("the-token");
        let claim = ConnectClaim {
            client_id: "gateway-client",
            client_mode: "backend",
            role: "operator",
            scopes: &["operator.read", "operator.write"],
            signed_at_ms: 1_795_435_198_967,
            token: &token,
            nonce: "the-nonce",
            platform: "linux",
        };
        let payload = format!(
            "v3|{}|gateway-client|backend|operator|operator.read,operator.write|1795435198967|the-token|the-nonce|linux|",
            device.id()
        );
        let signature = URL_SAFE_NO_PAD.decode(device.sign(&claim)).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        device
            .key
            .verifying_key()
            .verify(payload.as_bytes(), &signature)
            .unwrap();
    }

    #[test]
    fn debug_output_shows_the_id_and_nothing_of_the_secret() {
        let shown = format!("{:?}", known());
        assert!(shown.contains(known().id()));
        assert!(!shown.contains(&SECRET[..8]));
    }
}
