//! API keys: `tsk_` (a tenant's) or `tso_` (an operator's), 12 characters to know the key by, and 43 that
//! are the secret (256 bits, base64url).

use crate::id::random_bytes;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX_CHARS: usize = 12;
const SECRET_CHARS: usize = 43;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tenant,
    Operator,
}

impl Kind {
    fn tag(self) -> &'static str {
        match self {
            Self::Tenant => "tsk_",
            Self::Operator => "tso_",
        }
    }
}

/// A key that somebody came with; the secret is hashed already.
#[derive(Debug, PartialEq, Eq)]
pub struct PresentedKey {
    pub kind: Kind,
    pub prefix: String,
    pub secret_sha256: [u8; 32],
}

/// Takes a key apart; `None` where it is not shaped like one.
pub fn parse(text: &str) -> Option<PresentedKey> {
    let kind = [Kind::Tenant, Kind::Operator]
        .into_iter()
        .find(|kind| text.starts_with(kind.tag()))?;
    let rest = &text[kind.tag().len()..];
    let (prefix, secret) = rest.split_once('_')?;
    let shaped = prefix.len() == PREFIX_CHARS
        && prefix.bytes().all(|b| b.is_ascii_alphanumeric())
        && secret.len() == SECRET_CHARS;
    shaped.then(|| PresentedKey {
        kind,
        prefix: format!("{}{prefix}", kind.tag()),
        secret_sha256: Sha256::digest(secret.as_bytes()).into(),
    })
}

/// A key that was just made; its text is shown once and kept nowhere.
pub struct NewKey {
    text: Zeroizing<String>,
    pub prefix: String,
    pub secret_sha256: [u8; 32],
}

impl NewKey {
    pub fn generate(kind: Kind) -> Self {
        // Hexadecimal, so that a prefix never holds the separator.
        let prefix = format!(
            "{}{}",
            kind.tag(),
            hex::encode(random_bytes::<{ PREFIX_CHARS / 2 }>())
        );
        let secret =
            Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(Zeroizing::new(random_bytes::<32>())));
        Self {
            secret_sha256: Sha256::digest(secret.as_bytes()).into(),
            text: Zeroizing::new(format!("{prefix}_{}", secret.as_str())),
            prefix,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Compares in a time that does not depend on where they differ.
pub fn same_hash(a: &[u8], b: &[u8; 32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stored_only_as_its_hash() {
        for kind in [Kind::Tenant, Kind::Operator] {
            let key = NewKey::generate(kind);
            let presented = parse(key.text()).expect("parses");
            assert_eq!((presented.kind, &presented.prefix), (kind, &key.prefix));
            assert!(same_hash(&presented.secret_sha256, &key.secret_sha256));
            let secret = key
                .text()
                .rsplit_once(&format!("{}_", key.prefix))
                .unwrap()
                .1;
            assert!(!key.prefix.contains(secret));
            assert_ne!(key.secret_sha256.as_slice(), secret.as_bytes());
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for text in [
            "",
            "tsk_",
            "tsk_abc_def",
            "sk-live-123",
            "tsk_zzzzzzzzzzzz",
            "tsk_ÿÿÿÿÿÿ_x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn another_secret_does_not_pass() {
        let (a, b) = (
            NewKey::generate(Kind::Tenant),
            NewKey::generate(Kind::Tenant),
        );
        assert!(!same_hash(&a.secret_sha256, &b.secret_sha256));
    }
}
