use crate::{Aad, SealError};
use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The nonce of AES-GCM, in bytes (96 bits).
pub const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What sealing adds: version, nonce, tag; in bytes.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
/// The most that is sealed at once, in bytes.
pub const PLAINTEXT_BYTES_MAX: usize = 16 << 20;
/// The first byte of what is sealed: AES-256-GCM, random nonce.
const FORMAT: u8 = 1;

/// A 256-bit key. Wiped when dropped; prints nothing of itself.
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).expect("the operating system's random source answers");
        Self(bytes)
    }

    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Seals `plaintext`; it opens only under the same key and the same `about`.
    pub fn seal(&self, plaintext: &[u8], about: &Aad) -> Result<Vec<u8>, SealError> {
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(SealError::TooLarge { bytes: plaintext.len() });
        }
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the operating system's random source answers");
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: about.as_bytes() })
            .map_err(|_| SealError::TooLarge { bytes: plaintext.len() })?;
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`DataKey::seal`] made.
    pub fn open(&self, sealed: &[u8], about: &Aad) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (&format, rest) = sealed.split_first().ok_or(SealError::Malformed("it is empty"))?;
        if format != FORMAT {
            return Err(SealError::Malformed("its format is not one that this program knows"));
        }
        if rest.len() < NONCE_BYTES + TAG_BYTES {
            return Err(SealError::Malformed("it is too short"));
        }
        let (nonce, body) = rest.split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| SealError::Malformed("it is too short"))?;
        self.cipher()
            .decrypt(&nonce.into(), Payload { msg: body, aad: about.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| SealError::NotAuthentic)
    }

    /// A key for one purpose, which tells nothing of this one: HKDF-SHA256 (RFC 5869), one block.
    pub fn subkey(&self, purpose: &str) -> Self {
        let pseudorandom = Zeroizing::new(hmac_sha256(b"tsunami-sealed subkey", self.0.as_slice()));
        let mut info = purpose.as_bytes().to_vec();
        info.push(1);
        Self(Zeroizing::new(hmac_sha256(pseudorandom.as_slice(), &info)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.0.as_slice().try_into().expect("32 bytes"))
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// RFC 2104, for keys of at most one block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    debug_assert!(key.len() <= BLOCK);
    let mut inner = [0x36; BLOCK];
    let mut outer = [0x5c; BLOCK];
    for (i, byte) in key.iter().enumerate() {
        inner[i] ^= byte;
        outer[i] ^= byte;
    }
    let hash = Sha256::new().chain_update(inner).chain_update(message).finalize();
    let result = Sha256::new().chain_update(outer).chain_update(hash).finalize().into();
    inner.zeroize();
    outer.zeroize();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about(fields: &[&[u8]]) -> Aad {
        fields.iter().fold(Aad::new("test"), |aad, field| aad.field(field))
    }

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (AES-256, 60 bytes, AAD).
    #[test]
    fn the_cipher_is_aes_256_gcm() {
        let key: [u8; 32] = hex::decode("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").unwrap().try_into().unwrap();
        let nonce: [u8; 12] = hex::decode("cafebabefacedbaddecaf888").unwrap().try_into().unwrap();
        let plain = hex::decode("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39").unwrap();
        let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let sealed = DataKey::from_bytes(Zeroizing::new(key)).cipher().encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap();
        assert_eq!(
            hex::encode(sealed),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
        );
    }

    /// Test case 2 of RFC 4231.
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex::encode(mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain in prop::collection::vec(any::<u8>(), 0..2000), field in prop::collection::vec(any::<u8>(), 0..40)) {
            let key = DataKey::generate();
            let about = about(&[&field]);
            let sealed = key.seal(&plain, &about).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&key.open(&sealed, &about).unwrap()[..], &plain[..]);
            if plain.len() >= 8 {
                prop_assert!(!sealed.windows(plain.len()).any(|w| w == plain));
            }
        }

        #[test]
        fn one_flipped_bit_is_noticed(plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let key = DataKey::generate();
            let mut sealed = key.seal(&plain, &about(&[b"a"])).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(key.open(&sealed, &about(&[b"a"])).is_err());
        }

        #[test]
        fn what_is_cut_short_is_noticed(plain in prop::collection::vec(any::<u8>(), 0..100), keep in any::<prop::sample::Index>()) {
            let key = DataKey::generate();
            let sealed = key.seal(&plain, &about(&[])).unwrap();
            prop_assert!(key.open(&sealed[..keep.index(sealed.len())], &about(&[])).is_err());
        }

        #[test]
        fn fields_do_not_run_into_each_other(a in prop::collection::vec(any::<u8>(), 0..20), b in prop::collection::vec(any::<u8>(), 1..20)) {
            let key = DataKey::generate();
            let sealed = key.seal(b"value", &about(&[&a, &b])).unwrap();
            let joined: Vec<u8> = [a.clone(), b.clone()].concat();
            let moved: Vec<u8> = [&a[..], &b[..1]].concat();
            for other in [about(&[&joined]), about(&[&joined, b""]), about(&[&moved, &b[1..]]), about(&[&a, &b, b""]), Aad::new("other").field(&a).field(&b)] {
                prop_assert!(key.open(&sealed, &other).is_err());
            }
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_the_same_way() {
        let key = DataKey::generate();
        let all: std::collections::HashSet<_> = (0..1000).map(|_| key.seal(b"same", &about(&[])).unwrap()[1..=NONCE_BYTES].to_vec()).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn subkeys_differ_by_purpose_and_from_their_key() {
        let key = DataKey::generate();
        assert_eq!(key.subkey("a").bytes(), key.subkey("a").bytes());
        assert_ne!(key.subkey("a").bytes(), key.subkey("b").bytes());
        assert_ne!(key.subkey("a").bytes(), key.bytes());
    }

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", DataKey::generate()), "DataKey(..)");
    }

    #[test]
    fn too_much_is_refused() {
        let key = DataKey::generate();
        assert!(matches!(key.seal(&vec![0; PLAINTEXT_BYTES_MAX + 1], &about(&[])), Err(SealError::TooLarge { .. })));
    }
}
