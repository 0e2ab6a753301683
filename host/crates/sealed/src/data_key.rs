use crate::{
    Aad, SealError,
    hkdf::{hkdf_sha256, hmac_sha256},
};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use std::hint::black_box;
use zeroize::Zeroizing;

/// A key, in bytes (256 bits).
pub(crate) const KEY_BYTES: usize = 32;
/// The nonce of AES-GCM, in bytes (96 bits).
pub const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What [`DataKey::mac`] gives, in bytes (256 bits).
pub const MAC_BYTES: usize = 32;
/// The first byte of what is sealed. It names the whole format, so that another can follow:
/// `1`, then the nonce, the ciphertext, the tag, under AES-256-GCM.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + NONCE_BYTES;
/// What sealing adds: format, nonce, tag; in bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// The longest value (a credential, a certificate with its chain) that [`DataKey::seal`] takes, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest message that [`DataKey::seal_large`] takes, in bytes: as much as one gRPC message holds.
pub const LARGE_BYTES_MAX: usize = 4 << 20;
/// How often one key may seal, in calls. Beyond it two random nonces are equal with a chance of more than
/// 2^-32 (NIST SP 800-38D, section 8.3): rotate the key before.
pub const SEALS_PER_KEY_MAX: u64 = 1 << 32;

/// A 256-bit key. It is wiped when dropped, lies in one place on the heap (so that moving it leaves no copy
/// behind), and prints nothing of itself.
pub struct DataKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl DataKey {
    /// A fresh key from the operating system's random source.
    pub fn generate() -> Self {
        let mut key = Self(Box::default());
        fill_with_chance(key.0.as_mut_slice());
        key
    }

    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(Box::new(bytes))
    }

    /// `None` where it is not 32 bytes.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::default());
        (bytes.len() == KEY_BYTES).then(|| key.0.copy_from_slice(bytes))?;
        Some(key)
    }

    /// Seals a value of at most [`VALUE_BYTES_MAX`]; it opens only under the same key and the same `about`.
    ///
    /// Errors: [`SealError::TooLarge`].
    pub fn seal(&self, value: &[u8], about: &Aad) -> Result<Vec<u8>, SealError> {
        self.seal_at_most(VALUE_BYTES_MAX, value, about)
    }

    /// The same for a message of at most [`LARGE_BYTES_MAX`].
    pub fn seal_large(&self, message: &[u8], about: &Aad) -> Result<Vec<u8>, SealError> {
        self.seal_at_most(LARGE_BYTES_MAX, message, about)
    }

    fn seal_at_most(
        &self,
        bytes_max: usize,
        plain: &[u8],
        about: &Aad,
    ) -> Result<Vec<u8>, SealError> {
        let too_large = || SealError::TooLarge {
            bytes: plain.len(),
            bytes_max,
        };
        if plain.len() > bytes_max {
            return Err(too_large());
        }
        let mut nonce = [0; NONCE_BYTES];
        fill_with_chance(&mut nonce);
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let body = (&mut sealed[HEADER_BYTES..]).into();
        let tag = self
            .cipher()
            .encrypt_inout_detached(&nonce.into(), about.as_bytes(), body)
            .map_err(|_| too_large())?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`DataKey::seal`] or [`DataKey::seal_large`] made. What comes out is wiped when dropped;
    /// do not print it, [`Zeroizing`] hides nothing.
    ///
    /// Errors: [`SealError::NotAuthentic`], [`SealError::Malformed`].
    pub fn open(&self, sealed: &[u8], about: &Aad) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Parts { nonce, body, tag } = parts(sealed)?;
        let mut plain = Zeroizing::new(body.to_vec());
        self.cipher()
            .decrypt_inout_detached(
                &nonce.into(),
                about.as_bytes(),
                plain.as_mut_slice().into(),
                &tag.into(),
            )
            .map_err(|_| SealError::NotAuthentic)?;
        Ok(plain)
    }

    /// A key for one purpose, which tells nothing of this one nor of those for other purposes:
    /// HKDF-SHA256 (RFC 5869).
    pub fn subkey(&self, purpose: &str) -> Self {
        let derived = hkdf_sha256(
            b"tsunami-sealed subkey",
            self.0.as_slice(),
            purpose.as_bytes(),
        );
        Self::from_bytes(derived)
    }

    /// A mark that only this key makes, for a message of any length that has to be authentic and is no secret:
    /// HMAC-SHA256 (RFC 2104) over `about`, with its length before it, and the message. Give such messages a
    /// [`DataKey::subkey`] of their own.
    pub fn mac(&self, message: &[u8], about: &Aad) -> [u8; MAC_BYTES] {
        let about = about.as_bytes();
        let length = (about.len() as u64).to_be_bytes();
        *hmac_sha256(self.bytes(), &[&length, about, message])
    }

    /// Whether [`DataKey::mac`] made this mark. How long that takes tells nothing of the right one.
    ///
    /// Errors: [`SealError::NotAuthentic`].
    pub fn verify(&self, message: &[u8], about: &Aad, mac: &[u8]) -> Result<(), SealError> {
        let right = self.mac(message, about);
        let differing = right.iter().zip(mac).fold(0, |all, (a, b)| all | (a ^ b));
        if mac.len() == MAC_BYTES && black_box(differing) == 0 {
            Ok(())
        } else {
            Err(SealError::NotAuthentic)
        }
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.bytes().into())
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

struct Parts<'a> {
    nonce: [u8; NONCE_BYTES],
    body: &'a [u8],
    tag: [u8; TAG_BYTES],
}

fn parts(sealed: &[u8]) -> Result<Parts<'_>, SealError> {
    const SHORT: SealError = SealError::Malformed("it is too short");
    let (&format, rest) = sealed.split_first().ok_or(SHORT)?;
    if format != FORMAT {
        return Err(SealError::Malformed(
            "its first byte names a format that this program does not know",
        ));
    }
    if sealed.len() > LARGE_BYTES_MAX + OVERHEAD_BYTES {
        return Err(SealError::Malformed("it is longer than anything sealed"));
    }
    let (&nonce, rest) = rest.split_first_chunk().ok_or(SHORT)?;
    let (body, &tag) = rest.split_last_chunk().ok_or(SHORT)?;
    Ok(Parts { nonce, body, tag })
}

pub(crate) fn fill_with_chance(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system's random source answers");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about(fields: &[&[u8]]) -> Aad {
        fields
            .iter()
            .fold(Aad::new("test"), |aad, field| aad.field(field))
    }

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (AES-256, 60 bytes, AAD).
    #[test]
    fn the_cipher_is_aes_256_gcm() {
        let key = DataKey::from_bytes(Zeroizing::new(unhex(
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        )));
        let nonce: [u8; NONCE_BYTES] = unhex("cafebabefacedbaddecaf888");
        let mut text: [u8; 60] = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        let aad: [u8; 20] = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let body = text.as_mut_slice().into();
        let tag = key
            .cipher()
            .encrypt_inout_detached(&nonce.into(), &aad, body)
            .unwrap();
        assert_eq!(
            hex::encode(text),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
             c5f61e6393ba7a0abcc9f662"
        );
        assert_eq!(hex::encode(tag), "76fc6ece0f4e1768cddf8853bb2d551b");
    }

    #[test]
    fn a_mark_holds_for_its_message_its_subject_and_its_key_alone() {
        let key = DataKey::generate();
        let mark = key.mac(b"message", &about(&[b"a"]));
        key.verify(b"message", &about(&[b"a"]), &mark).unwrap();
        let mut flipped = mark;
        flipped[MAC_BYTES - 1] ^= 1;
        for (what, verified) in [
            ("message", key.verify(b"massage", &about(&[b"a"]), &mark)),
            ("subject", key.verify(b"message", &about(&[b"b"]), &mark)),
            (
                "key",
                DataKey::generate().verify(b"message", &about(&[b"a"]), &mark),
            ),
            ("mark", key.verify(b"message", &about(&[b"a"]), &flipped)),
            (
                "length",
                key.verify(b"message", &about(&[b"a"]), &mark[..31]),
            ),
            ("nothing", key.verify(b"message", &about(&[b"a"]), b"")),
        ] {
            assert!(matches!(verified, Err(SealError::NotAuthentic)), "{what}");
        }
    }

    /// A byte that moves from the subject to the message, or back, changes the mark.
    #[test]
    fn a_mark_tells_where_the_subject_ends() {
        let key = DataKey::generate();
        let (short, long) = (Aad::new("a"), Aad::new("a").field(b"b"));
        let rest = &long.as_bytes()[short.as_bytes().len()..];
        assert_ne!(key.mac(rest, &short), key.mac(b"", &long));
    }

    /// Sealed elsewhere, with another program's AES-256-GCM: key 00..1f, nonce a0..ab, "test" and "a" as
    /// fields, "a sealed value" inside. What is stored today must open for ever.
    #[test]
    fn the_first_format_opens() {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        key.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let sealed = hex::decode("01a0a1a2a3a4a5a6a7a8a9aaab87380f4824a767db4213e6bf721febc25d11aea728a23ab93944fe3622db").unwrap();
        let opened = DataKey::from_bytes(key).open(&sealed, &about(&[b"a"]));
        assert_eq!(&opened.unwrap()[..], b"a sealed value");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            plain in prop::collection::vec(any::<u8>(), 0..2000),
            field in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let key = DataKey::generate();
            let about = about(&[&field]);
            let sealed = key.seal(&plain, &about).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&key.open(&sealed, &about).unwrap()[..], &plain[..]);
            if plain.len() >= 8 {
                prop_assert!(!sealed.windows(8).any(|w| w == &plain[..8]));
            }
        }

        #[test]
        fn one_flipped_bit_is_noticed(
            plain in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let key = DataKey::generate();
            let mut sealed = key.seal(&plain, &about(&[b"a"])).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            let opened = key.open(&sealed, &about(&[b"a"]));
            if at == 0 {
                prop_assert!(matches!(opened, Err(SealError::Malformed(_))));
            } else {
                prop_assert!(matches!(opened, Err(SealError::NotAuthentic)));
            }
        }

        #[test]
        fn what_is_cut_short_or_longer_is_noticed(
            plain in prop::collection::vec(any::<u8>(), 0..100),
            keep in any::<prop::sample::Index>(),
            more in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let key = DataKey::generate();
            let sealed = key.seal(&plain, &about(&[])).unwrap();
            prop_assert!(key.open(&sealed[..keep.index(sealed.len())], &about(&[])).is_err());
            prop_assert!(key.open(&[sealed, more].concat(), &about(&[])).is_err());
        }

        #[test]
        fn what_is_no_sealed_value_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(DataKey::generate().open(&bytes, &about(&[])).is_err());
        }

        #[test]
        fn fields_do_not_run_into_each_other(
            a in prop::collection::vec(any::<u8>(), 0..20),
            b in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let key = DataKey::generate();
            let sealed = key.seal(b"value", &about(&[&a, &b])).unwrap();
            let joined = [&a[..], &b].concat();
            let moved = [&a[..], &b[..1]].concat();
            let others = [
                about(&[&joined]),
                about(&[&joined, b""]),
                about(&[&moved, &b[1..]]),
                about(&[&a, &b, b""]),
                Aad::new("other").field(&a).field(&b),
            ];
            for other in others {
                prop_assert!(matches!(key.open(&sealed, &other), Err(SealError::NotAuthentic)));
            }
        }
    }

    #[test]
    fn another_key_does_not_open_it() {
        let sealed = DataKey::generate().seal(b"value", &about(&[])).unwrap();
        let opened = DataKey::generate().open(&sealed, &about(&[]));
        assert!(matches!(opened, Err(SealError::NotAuthentic)));
    }

    #[test]
    fn the_same_value_is_never_sealed_the_same_way() {
        let key = DataKey::generate();
        let nonce = |_| key.seal(b"same", &about(&[])).unwrap()[1..HEADER_BYTES].to_vec();
        let nonces: std::collections::HashSet<_> = (0..1000).map(nonce).collect();
        assert_eq!(nonces.len(), 1000);
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
    fn the_longest_that_is_sealed_opens_and_more_is_refused() {
        let key = DataKey::generate();
        let about = about(&[]);
        let value = vec![7; VALUE_BYTES_MAX + 1];
        let sealed = key.seal(&value[1..], &about).unwrap();
        assert_eq!(&key.open(&sealed, &about).unwrap()[..], &value[1..]);
        assert!(matches!(
            key.seal(&value, &about),
            Err(SealError::TooLarge {
                bytes_max: VALUE_BYTES_MAX,
                ..
            })
        ));

        let message = vec![7; LARGE_BYTES_MAX + 1];
        let sealed = key.seal_large(&message[1..], &about).unwrap();
        assert_eq!(key.open(&sealed, &about).unwrap().len(), LARGE_BYTES_MAX);
        assert!(key.seal_large(&message, &about).is_err());
        let longer = [sealed, vec![0]].concat();
        assert!(matches!(
            key.open(&longer, &about),
            Err(SealError::Malformed(_))
        ));
    }
}
