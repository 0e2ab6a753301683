//! The credentials of a skill that another plugin carries out.

use servicetsunami_plugin::{Credential, CredentialKind, Shape, about, export_credentials};

pub fn credentials() -> Vec<Credential> {
    let shape = Shape {
        prefixes: vec!["key-"],
        length: 8..=200,
        ..Shape::default()
    };
    vec![
        Credential::new("api_key", CredentialKind::ApiKey, "API key")
            .placeholder("key-...")
            .shape(shape),
    ]
}

export_credentials!(
    "divided",
    about!("Divided, its credentials", ["test"]),
    credentials
);
