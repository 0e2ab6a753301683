//! Lock files: what is installed, by digest, and that again.

use super::{install::with_consent, release::release_id};
use crate::cli::{api::Api, commands::text};
use anyhow::{Context, bail, ensure};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use tsunami_provenance::sha256_hex;

/// The form of a lock file.
const LOCK_VERSION: u32 = 1;
pub const LOCK_FILE: &str = "tsunami-plugins.lock";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    version: u32,
    #[serde(default, rename = "plugin")]
    pub plugins: Vec<LockedPlugin>,
}

/// One installation, exactly.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct LockedPlugin {
    skill: String,
    /// `acme/slack@1.2.0`; none for a file that was uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    sha256: String,
    /// What was agreed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    consent_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    auto_upgrade: bool,
}

impl LockedPlugin {
    fn of(plugin: &Value) -> Self {
        let some = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            skill: text(&plugin["skill"]),
            release: some(&plugin["release"]["full_name"]),
            sha256: text(&plugin["digest"]),
            consent_sha256: some(&plugin["agreed"]["sha256"]),
            auto_upgrade: plugin["auto_upgrade"] == true,
        }
    }
}

pub async fn lock(api: &Api, file: &Path) -> anyhow::Result<LockFile> {
    let mut plugins: Vec<_> = api
        .all("/plugins")
        .await?
        .iter()
        .map(LockedPlugin::of)
        .collect();
    plugins.sort_by(|a, b| a.skill.cmp(&b.skill));
    let lock = LockFile {
        version: LOCK_VERSION,
        plugins,
    };
    let text = format!(
        "# What is installed, by digest. `tsunami plugin lock` writes this file, `tsunami plugin install --locked` restores it.\n{}",
        toml::to_string_pretty(&lock)?
    );
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(lock)
}

/// Restores exactly what a lock file names.
pub async fn restore(
    api: &Api,
    file: &Path,
    from: Option<&Path>,
    yes: bool,
) -> anyhow::Result<Vec<String>> {
    let shown = file.display();
    let text_of = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let lock: LockFile =
        toml::from_str(&text_of).with_context(|| format!("{shown} is no lock file"))?;
    ensure!(
        lock.version == LOCK_VERSION,
        "{shown} is of form {}, and this program reads form {LOCK_VERSION}",
        lock.version
    );
    let installed = api.all("/plugins").await?;
    let mut done = Vec::new();
    for wanted in &lock.plugins {
        let there = installed
            .iter()
            .find(|p| p["skill"] == wanted.skill.as_str());
        if there.map(LockedPlugin::of).as_ref() == Some(wanted) {
            done.push(format!("{}: as it should be", wanted.skill));
            continue;
        }
        install_locked(api, wanted, from, yes).await?;
        let what = wanted.release.as_ref().unwrap_or(&wanted.sha256);
        done.push(format!("{}: installed {what}", wanted.skill));
    }
    for plugin in installed {
        if !lock
            .plugins
            .iter()
            .any(|wanted| plugin["skill"] == wanted.skill.as_str())
        {
            api.delete(&format!("/plugins/{}", text(&plugin["id"])))
                .await?;
            done.push(format!(
                "{}: removed, since the lock file does not name it; credentials and configuration stay",
                text(&plugin["skill"])
            ));
        }
    }
    Ok(done)
}

async fn install_locked(
    api: &Api,
    wanted: &LockedPlugin,
    from: Option<&Path>,
    yes: bool,
) -> anyhow::Result<()> {
    let Some(release) = &wanted.release else {
        return install_uploaded(api, wanted, from).await;
    };
    let id = release_id(api, release).await?;
    let asked = api.get(&format!("/marketplace/releases/{id}")).await?;
    ensure!(
        asked["digest"] == wanted.sha256.as_str(),
        "{release} of this gateway is another component than the lock file's: {} and not {}",
        text(&asked["digest"]),
        wanted.sha256
    );
    let mut new = json!({ "release": id, "auto_upgrade": wanted.auto_upgrade });
    if let Some(agreed) = &wanted.consent_sha256 {
        new["consent"] = json!({ "sha256": agreed });
    }
    with_consent(api, "/plugins", new, yes).await.map(drop)
}

/// A file that the tenant brought before, or that lies in a folder.
async fn install_uploaded(
    api: &Api,
    wanted: &LockedPlugin,
    from: Option<&Path>,
) -> anyhow::Result<()> {
    let (status, answer) = api
        .try_post("/plugins", &json!({ "digest": wanted.sha256 }))
        .await?;
    if status != StatusCode::NOT_FOUND {
        return Api::answered(status, answer).map(drop);
    }
    let Some(folder) = from else {
        bail!(
            "{} was a file, and this tenant has not brought it: name the folder that it lies in with --from",
            wanted.skill
        );
    };
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if sha256_hex(&bytes) == wanted.sha256 {
            return api
                .upload("/plugins", "application/wasm", bytes)
                .await
                .map(drop);
        }
    }
    bail!(
        "no file in {} has the SHA-256 {} of {}",
        folder.display(),
        wanted.sha256,
        wanted.skill
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_comes_back_as_it_was_written() {
        let installed = json!({ "skill": "slack", "digest": "0".repeat(64), "auto_upgrade": true,
            "release": { "full_name": "acme/slack@1.2.0" }, "agreed": { "sha256": "1".repeat(64) } });
        let uploaded =
            json!({ "skill": "own", "digest": "2".repeat(64), "release": null, "agreed": null });
        let plugins = vec![LockedPlugin::of(&installed), LockedPlugin::of(&uploaded)];
        let text = toml::to_string_pretty(&LockFile {
            version: 1,
            plugins: plugins.clone(),
        })
        .unwrap();
        let read: LockFile = toml::from_str(&text).unwrap();
        assert_eq!(read.plugins, plugins);
        assert!(text.contains("[[plugin]]"), "{text}");
    }
}
