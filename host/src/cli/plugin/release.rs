//! Releases, by the names that people give them.

use crate::cli::{
    api::{Api, query},
    commands::text,
};
use anyhow::{Context, bail, ensure};
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
    let found = versions_of(api, release, plugin, Some(version)).await?;
    found
        .first()
        .map(|release| text(&release["id"]))
        .with_context(|| format!("there is no release {release} that you may see"))
}

/// The release of this name, `acme/four-eyes@1.2.0`, or the newest of `acme/four-eyes`, where it may be used.
pub async fn release_to_use(api: &Api, name: &str) -> anyhow::Result<Value> {
    let (plugin, version) = match name.split_once('@') {
        Some((plugin, version)) => (plugin, Some(version)),
        None => (name, None),
    };
    let mut found = versions_of(api, name, plugin, version).await?;
    if version.is_none() {
        let newest = |release: &Value| semver::Version::parse(&text(&release["version"])).ok();
        // What there is of them says why none will do, where none will.
        let usable =
            |release: &Value| release["state"] == "approved" && release["prerelease"] != true;
        found.sort_by_key(|release| std::cmp::Reverse((usable(release), newest(release))));
    }
    let release = found.into_iter().next().with_context(|| {
        format!("there is no release {name} that you may see; `tsunami plugin search` shows what there is")
    })?;
    let reason = release["state_reason"].as_str().unwrap_or_default();
    let full_name = text(&release["full_name"]);
    match release["state"].as_str().unwrap_or_default() {
        "approved" if version.is_none() && release["prerelease"] == true => {
            bail!("of {name} there are only versions for a trial; name one: {full_name}")
        }
        "approved" => Ok(release),
        "submitted" => bail!("{full_name} is submitted; an operator has to approve it first"),
        state => bail!("{full_name} is {state}: {reason}; choose another version"),
    }
}

/// The releases of a plugin, `acme/slack`, that somebody may see.
async fn versions_of(
    api: &Api,
    asked: &str,
    plugin: &str,
    version: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let (publisher, name) = plugin.split_once('/').with_context(|| {
        format!("`{asked}` must read publisher/plugin@version: acme/slack@1.2.0")
    })?;
    let some = |text: &str| Some(text.to_owned());
    let filter = query([
        ("publisher", some(publisher)),
        ("name", some(name)),
        ("version", version.and_then(some)),
    ]);
    api.all(&format!("/marketplace/releases{filter}")).await
}

/// All that there is to know of a release.
pub async fn release_of(api: &Api, release: &str) -> anyhow::Result<Value> {
    let id = match release.contains('/') && !release.contains('@') {
        true => text(&release_to_use(api, release).await?["id"]),
        false => release_id(api, release).await?,
    };
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
