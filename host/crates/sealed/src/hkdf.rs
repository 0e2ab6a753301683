use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What SHA-256 gives, in bytes.
const HASH_BYTES: usize = 32;
/// What SHA-256 works on at once, in bytes.
const BLOCK_BYTES: usize = 64;

type Hash = Zeroizing<[u8; HASH_BYTES]>;

/// HKDF-SHA256 (RFC 5869): the first 32 bytes of its output, which is one round of its second step.
/// `salt` has at most 64 bytes.
pub(crate) fn hkdf_sha256(salt: &[u8], key: &[u8], info: &[u8]) -> Hash {
    const FIRST_ROUND: &[u8] = &[1];
    let pseudorandom = hmac_sha256(salt, &[key]);
    hmac_sha256(pseudorandom.as_slice(), &[info, FIRST_ROUND])
}

/// HMAC-SHA256 (RFC 2104), for keys of at most one block.
pub(crate) fn hmac_sha256(key: &[u8], message: &[&[u8]]) -> Hash {
    const INNER: u8 = 0x36;
    const OUTER: u8 = 0x5c;
    let inner = hash(&padded(key, INNER), message);
    hash(&padded(key, OUTER), &[inner.as_slice()])
}

fn padded(key: &[u8], pad: u8) -> Zeroizing<[u8; BLOCK_BYTES]> {
    assert!(key.len() <= BLOCK_BYTES, "a key of more than one block");
    let mut block = Zeroizing::new([pad; BLOCK_BYTES]);
    for (byte, key_byte) in block.iter_mut().zip(key) {
        *byte ^= key_byte;
    }
    block
}

fn hash(first: &[u8; BLOCK_BYTES], rest: &[&[u8]]) -> Hash {
    let start = Sha256::new().chain_update(first);
    let all = rest
        .iter()
        .fold(start, |hash, part| hash.chain_update(part));
    let mut out = Zeroizing::new([0; HASH_BYTES]);
    all.finalize_into((&mut *out).into());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 2 of RFC 4231.
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mac = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            hex::encode(*mac),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    /// Test cases 1 and 3 of RFC 5869, the first 32 of their 42 bytes.
    #[test]
    fn the_derivation_is_hkdf_sha256() {
        let key = [0x0b; 22];
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        assert_eq!(
            hex::encode(*hkdf_sha256(&salt, &key, &info)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
        assert_eq!(
            hex::encode(*hkdf_sha256(b"", &key, b"")),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        );
    }
}
