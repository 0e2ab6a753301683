//! Somebody who publishes plugins, with a key.

use crate::{
    api::{Answer, Api},
    company::text,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tsunami_provenance::{PrivateKey, Statement, sha256_hex};

pub struct Publisher {
    pub api: Api,
    pub id: String,
    pub namespace: String,
    pub key: PrivateKey,
    pub key_id: String,
}

impl Publisher {
    pub async fn register(api: &Api, namespace: &str) -> Self {
        let new = json!({ "namespace": namespace, "name": namespace });
        let publisher = api.post("/marketplace/publishers", &new).await.ok();
        let key = PrivateKey::generate();
        let id = text(&publisher["id"]);
        let key_id = Self::add_key(api, &id, &key).await;
        Self {
            api: api.clone(),
            id,
            namespace: namespace.to_owned(),
            key,
            key_id,
        }
    }

    pub async fn add_key(api: &Api, publisher: &str, key: &PrivateKey) -> String {
        let public = key.public().to_string();
        let path = format!("/marketplace/publishers/{publisher}/keys");
        let new = json!({ "name": "of a test", "public_key": public });
        let publisher = api.post(&path, &new).await.ok();
        let keys = publisher["keys"].as_array().into_iter().flatten();
        let added = keys.clone().find(|k| k["public_key"] == public.as_str());
        text(&added.expect("the key is there")["id"])
    }

    /// Brings a component, and gives what to publish of it.
    pub async fn prepare(&self, component: Vec<u8>) -> Value {
        let digest = sha256_hex(&component);
        let brought = self
            .api
            .upload("/marketplace/components", component)
            .await
            .ok();
        assert_eq!(brought["digest"], digest.as_str());
        self.signed(&text(&brought["name"]), &text(&brought["version"]), &digest)
    }

    /// What to publish of a component that need not be there.
    pub fn signed(&self, name: &str, version: &str, digest: &str) -> Value {
        let statement = Statement::new(&self.namespace, name, version, digest, "0.1.0");
        let signature = self.key.sign(&statement.expect("a statement"));
        json!({
            "publisher": self.namespace,
            "digest": digest,
            "key_id": self.key_id,
            "signature": BASE64_STANDARD.encode(signature),
            "visibility": "public",
        })
    }

    pub async fn publish(&self, component: Vec<u8>) -> Answer {
        let release = self.prepare(component).await;
        self.api.post("/marketplace/releases", &release).await
    }

    /// Publishes, and has an operator approve; gives the release.
    pub async fn publish_approved(&self, component: Vec<u8>, operator: &Api) -> Value {
        let release = self.publish(component).await.ok();
        let path = format!("/marketplace/releases/{}/approve", text(&release["id"]));
        operator.post(&path, &json!({})).await.ok()
    }
}

/// Reads what a release may do, agrees, and installs it.
pub async fn agree_and_install(api: &Api, release: &Value) -> Value {
    let id = text(&release["id"]);
    let asked = api
        .get(&format!("/marketplace/releases/{id}/consent"))
        .await
        .ok();
    let new = json!({ "release": id, "consent": { "sha256": asked["consent_sha256"] } });
    api.post("/plugins", &new).await.ok()
}
