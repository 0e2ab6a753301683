//! Lock files: what is installed, by digest, and that again.

use super::{cards::served, install::with_consent, release::release_id};
use crate::cli::{api::Api, ask::Yes, commands::text};
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
    /// `credentials` where it describes those of another plugin's skill.
    #[serde(default = "skill", skip_serializing_if = "is_skill")]
    serves: String,
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

fn skill() -> String {
    "skill".to_owned()
}

fn is_skill(serves: &str) -> bool {
    serves == "skill"
}

impl LockedPlugin {
    fn of(plugin: &Value) -> Self {
        let some = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            skill: text(&plugin["skill"]),
            serves: text(&plugin["serves"]),
            release: some(&plugin["release"]["full_name"]),
            sha256: text(&plugin["digest"]),
            consent_sha256: some(&plugin["agreed"]["sha256"]),
            auto_upgrade: plugin["auto_upgrade"] == true,
        }
    }

    /// Whether an installed plugin is what this one takes the place of.
    fn is_for_the_same(&self, plugin: &Value) -> bool {
        plugin["skill"] == self.skill.as_str() && plugin["serves"] == self.serves.as_str()
    }

    fn shown(&self) -> String {
        served(&self.serves, &self.skill)
    }
}

pub async fn lock(api: &Api, file: &Path) -> anyhow::Result<LockFile> {
    let installed = api.all("/plugins").await?;
    let needed = installed.iter().filter(|plugin| !is_unused(plugin));
    let mut plugins: Vec<_> = needed.map(LockedPlugin::of).collect();
    // The skill before its credentials: those are refused beside a version that describes them itself.
    plugins.sort_by(|a, b| (&a.skill, &b.serves).cmp(&(&b.skill, &a.serves)));
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

/// Whether it is there though nothing asks it: it could not be installed again.
fn is_unused(plugin: &Value) -> bool {
    let mut notices = plugin["notices"].as_array().into_iter().flatten();
    notices.any(|notice| notice["code"] == "unused")
}

/// What is to be done about one plugin.
enum Step<'a> {
    Keep(&'a LockedPlugin),
    /// The release's id, of what is published; and what it takes the place of.
    Install(&'a LockedPlugin, Option<String>, Option<&'a Value>),
    Remove(&'a Value),
}

impl Step<'_> {
    /// Whether something that is there goes away.
    fn takes_away(&self) -> bool {
        matches!(self, Self::Install(_, _, Some(_)) | Self::Remove(_))
    }

    /// As people read it, before and after.
    fn describe(&self, (install, remove): (&str, &str)) -> String {
        match self {
            Self::Keep(wanted) => format!("{}: as it should be", wanted.shown()),
            Self::Install(wanted, _, replaced) => {
                let what = wanted.release.as_ref().unwrap_or(&wanted.sha256);
                let instead = replaced.map_or(String::new(), |plugin| {
                    format!(", in the place of {}", name_of(plugin))
                });
                format!("{}: {install} {what}{instead}", wanted.shown())
            }
            Self::Remove(plugin) => format!(
                "{}: {remove}, since the lock file does not name it; credentials and configuration stay",
                LockedPlugin::of(plugin).shown()
            ),
        }
    }
}

/// The release of an installation, or its digest.
fn name_of(plugin: &Value) -> String {
    let release = plugin["release"]["full_name"].as_str();
    release.map_or_else(|| text(&plugin["digest"]), str::to_owned)
}

/// Restores exactly what a lock file names. Says what it will do, and asks where something that is there goes away.
pub async fn restore(
    api: &Api,
    file: &Path,
    from: Option<&Path>,
    yes: &Yes,
) -> anyhow::Result<Vec<String>> {
    let lock = read(file)?;
    let installed = api.all("/plugins").await?;
    let steps = plan(api, &lock, &installed).await?;
    if steps.iter().any(Step::takes_away) {
        for step in &steps {
            eprintln!("{}", step.describe(("to install", "to remove")));
        }
        yes.or_ask("Do all of this?")?;
    }
    let mut done = Vec::new();
    for step in &steps {
        match step {
            Step::Keep(_) => {}
            Step::Install(wanted, Some(release), _) => {
                install_release(api, wanted, release, yes).await?;
            }
            Step::Install(wanted, None, _) => install_uploaded(api, wanted, from).await?,
            Step::Remove(plugin) => {
                let path = format!("/plugins/{}", text(&plugin["id"]));
                api.delete(&path).await?;
            }
        }
        done.push(step.describe(("installed", "removed")));
    }
    Ok(done)
}

fn read(file: &Path) -> anyhow::Result<LockFile> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let lock: LockFile =
        toml::from_str(&text).with_context(|| format!("{shown} is no lock file"))?;
    ensure!(
        lock.version == LOCK_VERSION,
        "{shown} is of form {}, and this program reads form {LOCK_VERSION}",
        lock.version
    );
    Ok(lock)
}

/// What there is to do. What the marketplace has otherwise than the lock file says is found before anything is done.
async fn plan<'a>(
    api: &Api,
    lock: &'a LockFile,
    installed: &'a [Value],
) -> anyhow::Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for wanted in &lock.plugins {
        let there = installed
            .iter()
            .find(|plugin| wanted.is_for_the_same(plugin));
        if there.map(LockedPlugin::of).as_ref() == Some(wanted) {
            steps.push(Step::Keep(wanted));
            continue;
        }
        let release = match &wanted.release {
            Some(release) => Some(as_locked(api, wanted, release).await?),
            None => None,
        };
        steps.push(Step::Install(wanted, release, there));
    }
    let is_named = |plugin: &&Value| {
        let mut named = lock.plugins.iter();
        named.any(|wanted| wanted.is_for_the_same(plugin))
    };
    let others = installed.iter().filter(|plugin| !is_named(plugin));
    steps.extend(others.map(Step::Remove));
    Ok(steps)
}

/// The id of a release, which must be the component that the lock file names.
async fn as_locked(api: &Api, wanted: &LockedPlugin, release: &str) -> anyhow::Result<String> {
    let id = release_id(api, release).await?;
    let asked = api.get(&format!("/marketplace/releases/{id}")).await?;
    ensure!(
        asked["digest"] == wanted.sha256.as_str(),
        "{release} of this gateway is another component than the lock file's: {} and not {}",
        text(&asked["digest"]),
        wanted.sha256
    );
    // What it takes the place of goes by what it is, and is asked about by what the file says.
    let component = &asked["details"]["component"];
    ensure!(
        wanted.is_for_the_same(component),
        "{release} is {}, and the lock file says {}: it was changed by hand, or is not to be trusted; write it anew with `tsunami plugin lock`",
        served(&text(&component["serves"]), &text(&component["skill"])),
        wanted.shown()
    );
    Ok(id)
}

async fn install_release(
    api: &Api,
    wanted: &LockedPlugin,
    release: &str,
    yes: &Yes,
) -> anyhow::Result<()> {
    let mut new = json!({ "release": release, "auto_upgrade": wanted.auto_upgrade });
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
        let installed = json!({ "skill": "slack", "serves": "skill", "digest": "0".repeat(64), "auto_upgrade": true,
            "release": { "full_name": "acme/slack@1.2.0" }, "agreed": { "sha256": "1".repeat(64) } });
        let uploaded = json!({ "skill": "own", "serves": "credentials", "digest": "2".repeat(64), "release": null, "agreed": null });
        let plugins = vec![LockedPlugin::of(&installed), LockedPlugin::of(&uploaded)];
        let text = toml::to_string_pretty(&LockFile {
            version: 1,
            plugins: plugins.clone(),
        })
        .unwrap();
        let read: LockFile = toml::from_str(&text).unwrap();
        assert_eq!(read.plugins, plugins);
        assert!(text.contains("[[plugin]]"), "{text}");
        assert_eq!(text.matches("serves").count(), 1, "{text}");
    }
}
