//! Releases, by the names that people give them.

use crate::cli::{api::Api, commands::text};
use anyhow::{Context, ensure};
use serde_json::Value;

pub const RELEASE_COLUMNS: [&str; 8] = [
    "full_name",
    "title",
    "kinds",
    "state",
    "visibility",
    "downloads",
    "licence",
    "summary",
];

/// The id of `acme/slack@1.2.0`.
pub async fn release_id(api: &Api, release: &str) -> anyhow::Result<String> {
    let Some((plugin, version)) = release.split_once('@') else {
        ensure!(
            !release.contains('/'),
            "`{release}` names no version: acme/slack@1.2.0"
        );
        return Ok(release.to_owned());
    };
    let (publisher, name) = plugin.split_once('/').with_context(|| {
        format!("`{release}` must read publisher/plugin@version: acme/slack@1.2.0")
    })?;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("publisher", publisher)
        .append_pair("name", name)
        .append_pair("version", version)
        .finish();
    let found = api.get(&format!("/marketplace/releases?{query}")).await?;
    found["items"][0]["id"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("there is no release {release} that you may see"))
}

/// All that there is to know of a release.
pub async fn release_of(api: &Api, release: &str) -> anyhow::Result<Value> {
    let id = release_id(api, release).await?;
    api.get(&format!("/marketplace/releases/{id}")).await
}

pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub fn release_line(release: &Value) -> String {
    let reason = release["state_reason"].as_str().map(|r| format!(": {r}"));
    format!(
        "{} is {}{} (digest {})",
        text(&release["full_name"]),
        text(&release["state"]),
        reason.unwrap_or_default(),
        text(&release["digest"])
    )
}
