//! Against a Sigstore of our own: who signed is known exactly, or it is not known.

use serde_json::Value;
use tsunami_provenance::{Identity, Sigstore, SigstoreError, testing::OwnSigstore};

fn workflow() -> Identity {
    Identity {
        subject: "https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v1"
            .into(),
        issuer: "https://token.actions.githubusercontent.com".into(),
    }
}

fn refused(sigstore: &Sigstore, artifact: &[u8], bundle: &str, identity: &Identity) -> String {
    let error = sigstore.verify(artifact, bundle, identity).unwrap_err();
    assert!(
        matches!(error, SigstoreError::NotVerified { .. }),
        "{error}"
    );
    error.to_string()
}

#[test]
fn a_bundle_holds_for_one_identity_one_issuer_and_one_file() {
    let own = OwnSigstore::new();
    let sigstore = Sigstore::with_trusted_root(&own.trusted_root()).unwrap();
    let bundle = own.sign(b"a component", &workflow());
    sigstore
        .verify(b"a component", &bundle, &workflow())
        .unwrap();
    refused(&sigstore, b"another component", &bundle, &workflow());
    for subject in [
        "https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v10",
        "https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v",
        "https://github.com/acme/.*",
        ".*",
        "",
    ] {
        let other = Identity {
            subject: subject.into(),
            ..workflow()
        };
        refused(&sigstore, b"a component", &bundle, &other);
    }
    let other = Identity {
        issuer: "https://accounts.example".into(),
        ..workflow()
    };
    refused(&sigstore, b"a component", &bundle, &other);
}

#[test]
fn a_person_signs_as_well_as_a_workflow() {
    let own = OwnSigstore::new();
    let sigstore = Sigstore::with_trusted_root(&own.trusted_root()).unwrap();
    let person = Identity {
        subject: "dev@acme.example".into(),
        issuer: "https://accounts.example".into(),
    };
    let bundle = own.sign(b"a component", &person);
    sigstore.verify(b"a component", &bundle, &person).unwrap();
}

#[test]
fn a_bundle_of_another_instance_is_refused() {
    let bundle = OwnSigstore::new().sign(b"a component", &workflow());
    let other = Sigstore::with_trusted_root(&OwnSigstore::new().trusted_root()).unwrap();
    refused(&other, b"a component", &bundle, &workflow());
    refused(
        &Sigstore::public_good().unwrap(),
        b"a component",
        &bundle,
        &workflow(),
    );
}

#[test]
fn a_bundle_without_one_of_its_proofs_is_refused() {
    let own = OwnSigstore::new();
    let sigstore = Sigstore::with_trusted_root(&own.trusted_root()).unwrap();
    let bundle: Value = serde_json::from_str(&own.sign(b"a component", &workflow())).unwrap();
    let entry = "/verificationMaterial/tlogEntries/0";
    for part in ["inclusionPromise", "inclusionProof"] {
        let mut without = bundle.clone();
        without
            .pointer_mut(entry)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(part);
        let text = without.to_string();
        assert!(
            sigstore.verify(b"a component", &text, &workflow()).is_err(),
            "{part}"
        );
    }
    // Of another signature by the same.
    let other: Value = serde_json::from_str(&own.sign(b"a component", &workflow())).unwrap();
    for part in [
        "/messageSignature/signature",
        "/verificationMaterial/certificate/rawBytes",
        entry,
    ] {
        let mut mixed = bundle.clone();
        *mixed.pointer_mut(part).unwrap() = other.pointer(part).unwrap().clone();
        refused(&sigstore, b"a component", &mixed.to_string(), &workflow());
    }
}

#[test]
fn what_is_no_bundle_is_said_to_be_none() {
    let sigstore = Sigstore::public_good().unwrap();
    for text in ["", "{}", "null", "[]", "{\"mediaType\":\"x\"}"] {
        let error = sigstore.verify(b"x", text, &workflow()).unwrap_err();
        assert!(
            matches!(
                error,
                SigstoreError::NotABundle(_) | SigstoreError::NotVerified { .. }
            ),
            "{text}: {error}"
        );
    }
    let large = " ".repeat(300 << 10);
    assert_eq!(
        sigstore.verify(b"x", &large, &workflow()),
        Err(SigstoreError::TooLarge)
    );
}
