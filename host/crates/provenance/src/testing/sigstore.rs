use crate::Identity;
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

/// Who vouched for the identity (Fulcio's extension, form 2).
const ISSUER: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 8];
/// RFC 6962, 3.3.
const SCT_LIST: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];

/// A certificate authority, a log of its certificates and a log of signatures: what Sigstore is, with keys of its own.
pub struct OwnSigstore {
    authority: Issuer<'static, KeyPair>,
    authority_der: Vec<u8>,
    certificates_log: KeyPair,
    signatures_log: KeyPair,
}

impl OwnSigstore {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "own authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now() - Duration::days(1);
        params.not_after = now() + Duration::days(1);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            authority_der: certificate.der().to_vec(),
            authority: Issuer::new(params, key),
            certificates_log: KeyPair::generate().expect("a key"),
            signatures_log: KeyPair::generate().expect("a key"),
        }
    }

    /// What trusts this instance and no other.
    pub fn trusted_root(&self) -> String {
        let since = json!({ "start": "2020-01-01T00:00:00Z" });
        let log = |key: &KeyPair| {
            json!([{
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": encode(key.subject_public_key_info()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": { "keyId": encode(log_id(key)) },
            }])
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": log(&self.signatures_log),
            "ctlogs": log(&self.certificates_log),
            "certificateAuthorities": [{
                "subject": { "organization": "own", "commonName": "own authority" },
                "uri": "https://authority.example",
                "certChain": { "certificates": [{ "rawBytes": encode(&self.authority_der) }] },
                "validFor": since,
            }],
        })
        .to_string()
    }

    /// Signs as `identity`, and gives the bundle.
    pub fn sign(&self, artifact: &[u8], identity: &Identity) -> String {
        let key = KeyPair::generate().expect("a key");
        let certificate = self.certificate(&key, identity);
        let signature = key.sign(artifact).expect("a signature");
        let digest = Sha256::digest(artifact);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": encode(&certificate) },
                "tlogEntries": [self.entry(&digest, &signature, &certificate)],
            },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": encode(digest) },
                "signature": encode(signature),
            },
        })
        .to_string()
    }

    /// A certificate for ten minutes, which the log of certificates has seen.
    fn certificate(&self, key: &KeyPair, identity: &Identity) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(vec![1, 2, 3, 4, 5, 6, 7, 8]));
        params.not_before = now() - Duration::minutes(5);
        params.not_after = now() + Duration::minutes(5);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        let subject = identity.subject.clone().try_into().expect("ASCII");
        params.subject_alt_names = vec![match identity.subject.contains("://") {
            true => SanType::URI(subject),
            false => SanType::Rfc822Name(subject),
        }];
        let issuer =
            CustomExtension::from_oid_content(ISSUER, der(0x0c, identity.issuer.as_bytes()));
        params.custom_extensions = vec![issuer];
        let seen = params
            .signed_by(key, &self.authority)
            .expect("a certificate");
        let stamps = self.stamps(to_be_signed(seen.der()));
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                SCT_LIST,
                der(0x04, &stamps),
            ));
        let certificate = params
            .signed_by(key, &self.authority)
            .expect("a certificate");
        certificate.der().to_vec()
    }

    /// The log's receipt for a certificate, in a list of one (RFC 6962, 3.2 and 3.3).
    fn stamps(&self, to_be_signed: &[u8]) -> Vec<u8> {
        let at = u64::try_from(now().unix_timestamp()).expect("after 1970") * 1000;
        let mut signed = vec![0, 0];
        signed.extend(at.to_be_bytes());
        signed.extend([0, 1]);
        signed.extend(Sha256::digest(
            self.authority.key().subject_public_key_info(),
        ));
        signed.extend(
            &u32::try_from(to_be_signed.len())
                .expect("short")
                .to_be_bytes()[1..],
        );
        signed.extend(to_be_signed);
        signed.extend([0, 0]);
        let signature = self.certificates_log.sign(&signed).expect("a signature");
        let mut stamp = vec![0];
        stamp.extend(log_id(&self.certificates_log));
        stamp.extend(at.to_be_bytes());
        stamp.extend([0, 0, 4, 3]);
        stamp.extend(with_length(&signature));
        with_length(&with_length(&stamp))
    }

    /// The first and only entry of the log of signatures, with all proofs of it.
    fn entry(&self, digest: &[u8], signature: &[u8], certificate: &[u8]) -> Value {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            encode(certificate)
                .as_bytes()
                .chunks(64)
                .map(|line| String::from_utf8_lossy(line))
                .collect::<Vec<_>>()
                .join("\n")
        );
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex::encode(digest) } },
                "signature": { "content": encode(signature), "publicKey": { "content": encode(pem) } },
            },
        })
        .to_string();
        let key = &self.signatures_log;
        let at = now().unix_timestamp();
        // Canonical JSON: the keys in this order, without spaces.
        let promise = format!(
            r#"{{"body":"{}","integratedTime":{at},"logID":"{}","logIndex":0}}"#,
            encode(&body),
            hex::encode(log_id(key))
        );
        let mut leaf = vec![0];
        leaf.extend(body.as_bytes());
        let root = Sha256::digest(leaf);
        let note = format!("log.example\n1\n{}\n", encode(root));
        let mut signed = log_id(key)[..4].to_vec();
        signed.extend(key.sign(note.as_bytes()).expect("a signature"));
        json!({
            "logIndex": "0",
            "logId": { "keyId": encode(log_id(key)) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.1" },
            "integratedTime": at.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": encode(key.sign(promise.as_bytes()).expect("a signature")) },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": encode(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": { "envelope": format!("{note}\n\u{2014} log.example {}\n", encode(signed)) },
            },
            "canonicalizedBody": encode(body),
        })
    }
}

impl Default for OwnSigstore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OwnSigstore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnSigstore")
    }
}

fn log_id(key: &KeyPair) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut all = u16::try_from(bytes.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    all.extend(bytes);
    all
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![tag];
    match content.len() {
        short @ 0..0x80 => all.push(short as u8),
        long => {
            all.push(0x82);
            all.extend(u16::try_from(long).expect("short").to_be_bytes());
        }
    }
    all.extend(content);
    all
}

/// The first element of a certificate, which is what its issuer signs.
fn to_be_signed(certificate: &[u8]) -> &[u8] {
    // Both lengths of a certificate of 256 to 65,535 bytes have two octets behind 0x82.
    assert_eq!(
        (certificate[1], certificate[5]),
        (0x82, 0x82),
        "a certificate of the usual size"
    );
    let length = usize::from(u16::from_be_bytes([certificate[6], certificate[7]]));
    &certificate[4..8 + length]
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's certificates are valid now"
)]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
