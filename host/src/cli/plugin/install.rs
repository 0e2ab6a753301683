//! For whoever installs plugins: what can be had, what is there, and what takes its place.

use super::{
    cards::{component_card, consent_card, plugin_card, source_of, title_of, warn_of},
    lock::{LOCK_FILE, lock, restore},
    release::RELEASE_COLUMNS,
};
use crate::cli::{
    api::{Api, query},
    ask::{Yes, asked},
    commands::{Output, list, show, text},
};
use anyhow::{Context, bail, ensure};
use clap::{Subcommand, builder::PossibleValuesParser};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

#[derive(Subcommand)]
pub enum Installing {
    /// Find plugins that can be installed.
    Search {
        /// Words, or their beginnings.
        words: Vec<String>,
        #[arg(long)]
        category: Option<String>,
        #[arg(long, value_parser = PossibleValuesParser::new(["skill-adapter", "credential-schema", "routing-policy"]))]
        kind: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Install a plugin: from the marketplace, from its file, or all that a lock file names.
    Install {
        /// `acme/slack@1.2.0`, `acme/slack` for the newest, or a `.wasm` file.
        #[arg(required_unless_present = "locked", conflicts_with = "locked")]
        what: Option<String>,
        /// Restore exactly what a lock file names: install it by digest, and remove what it does not name.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = LOCK_FILE)]
        locked: Option<PathBuf>,
        /// Where the files lie that a lock file names and that were uploaded.
        #[arg(long, value_name = "FOLDER", requires = "locked")]
        from: Option<PathBuf>,
        /// Let later versions take its place by themselves, as long as they may do no more.
        #[arg(long)]
        auto_upgrade: bool,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
    /// What an installed plugin may do.
    Show {
        /// Its skill, its release (`acme/slack`), or the installation's id.
        plugin: String,
        #[command(flatten)]
        output: Output,
    },
    /// Put a newer version in a plugin's place.
    Upgrade {
        /// Its skill, its release (`acme/slack`), or the installation's id.
        plugin: String,
        /// The newest, unless given.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
    /// Put the version back that was there before.
    Rollback {
        /// Its skill, its release (`acme/slack`), or the installation's id.
        plugin: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a plugin.
    Remove {
        /// Its skill, its release (`acme/slack`), or the installation's id.
        plugin: String,
        /// What becomes of the skill's credentials; you are asked, unless it is given.
        #[arg(long)]
        credentials: Option<Leftover>,
        /// What becomes of its configuration; you are asked, unless it is given.
        #[arg(long)]
        configuration: Option<Leftover>,
        #[command(flatten)]
        output: Output,
    },
    /// Write down what is installed, by digest.
    Lock {
        #[arg(default_value = LOCK_FILE)]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Leftover {
    Keep,
    Delete,
}

pub async fn run(command: Installing, api: &Api) -> anyhow::Result<()> {
    match command {
        Installing::Search {
            words,
            category,
            kind,
            output,
        } => search(api, &words, category, kind, &output).await,
        Installing::Install {
            locked: Some(file),
            from,
            yes,
            output,
            ..
        } => {
            let done = restore(api, &file, from.as_deref(), &yes).await?;
            show(&output, &json!(done), |_| done.join("\n"))
        }
        Installing::Install {
            what,
            auto_upgrade,
            yes,
            output,
            ..
        } => {
            let what = what.unwrap_or_default();
            if Path::new(&what).is_file() || what.ends_with(".wasm") {
                ensure!(
                    !auto_upgrade,
                    "--auto-upgrade is for what comes from the marketplace: no later version of a file is known"
                );
                let installed = install_file(api, Path::new(&what), &yes).await?;
                return show(&output, &installed, |v| {
                    format!("installed: {}", title_of(v))
                });
            }
            let new = json!({ "release": what, "auto_upgrade": auto_upgrade });
            let installed = with_consent(api, "/plugins", new, &yes).await?;
            show(&output, &installed, plugin_card)
        }
        Installing::List { output } => {
            let plugins = api.all("/plugins").await?;
            if !output.json {
                warn_of(&plugins);
            }
            let columns = [
                "id",
                "skill",
                "serves",
                "version",
                "source",
                "digest",
                "installed_at",
            ];
            let with_source = plugins.into_iter().map(|mut plugin| {
                plugin["source"] = json!(source_of(&plugin));
                plugin
            });
            list(&output, with_source.collect(), &columns)
        }
        Installing::Show { plugin, output } => {
            show(&output, &find(api, &plugin).await?, plugin_card)
        }
        Installing::Upgrade {
            plugin,
            to,
            yes,
            output,
        } => {
            let upgraded = upgrade(api, &plugin, to.as_deref(), &yes).await?;
            show(&output, &upgraded, plugin_card)
        }
        Installing::Rollback { plugin, output } => {
            let id = text(&find(api, &plugin).await?["id"]);
            let path = format!("/plugins/{id}/rollback");
            show(&output, &api.post(&path, &json!({})).await?, plugin_card)
        }
        Installing::Remove {
            plugin,
            credentials,
            configuration,
            output,
        } => {
            let removed = remove(api, &plugin, credentials, configuration).await?;
            show(&output, &removed, |v| format!("removed: {}", title_of(v)))
        }
        Installing::Lock { file, output } => {
            let locked = lock(api, &file).await?;
            let count = locked.plugins.len();
            let shown = file.display();
            show(&output, &serde_json::to_value(&locked)?, |_| {
                format!("{count} plugins in {shown}")
            })
        }
    }
}

async fn search(
    api: &Api,
    words: &[String],
    category: Option<String>,
    kind: Option<String>,
    output: &Output,
) -> anyhow::Result<()> {
    let q = (!words.is_empty()).then(|| words.join(" "));
    let filter = query([("q", q), ("category", category), ("kind", kind)]);
    let found = api.all(&format!("/marketplace/search{filter}")).await?;
    list(output, found, &RELEASE_COLUMNS)
}

/// Shows what a file may do, and asks where it takes the place of something that may do less or was reviewed.
async fn install_file(api: &Api, file: &Path, yes: &Yes) -> anyhow::Result<Value> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let brought = api
        .upload("/marketplace/components", "application/wasm", bytes.clone())
        .await?;
    eprintln!("{}", component_card(&brought));
    let installed = api.all("/plugins").await?;
    let there = installed
        .iter()
        .find(|p| p["skill"] == brought["skill"] && p["serves"] == brought["serves"]);
    let more = there.map(|there| what_is_more(there, &brought));
    if let Some(more) = more.filter(|more| !more.is_empty()) {
        eprintln!("{}", more.join("\n"));
        yes.or_ask("Put the file in the place of what is installed?")?;
    }
    api.upload("/plugins", "application/wasm", bytes).await
}

/// Why somebody should look twice before a file takes an installation's place.
fn what_is_more(installed: &Value, brought: &Value) -> Vec<String> {
    let mut more = Vec::new();
    if let Some(release) = installed["release"]["full_name"].as_str() {
        more.push(format!(
            "the file takes the place of {release}, a release that was reviewed, and of what was agreed to for it"
        ));
    }
    for (what, field) in [("host", "hosts"), ("host set in", "host_settings")] {
        let before = installed[field].as_array().cloned().unwrap_or_default();
        let after = brought[field].as_array().into_iter().flatten();
        let new = after.filter(|one| !before.contains(one));
        more.extend(new.map(|one| format!("MORE  {what} {}", text(one))));
    }
    more
}

/// Sends a request that somebody may have to agree to, and asks whoever runs the command.
pub async fn with_consent(
    api: &Api,
    path: &str,
    mut body: Value,
    yes: &Yes,
) -> anyhow::Result<Value> {
    let (status, answer) = api.try_post(path, &body).await?;
    if status == StatusCode::CONFLICT && answer["code"] == "consent_required" {
        eprintln!("{}", consent_card(&answer));
        yes.or_ask("Do you agree?")?;
        body["consent"] = json!({ "sha256": answer["consent_sha256"] });
        return api.post(path, &body).await;
    }
    Api::answered(status, answer)
}

async fn upgrade(api: &Api, plugin: &str, to: Option<&str>, yes: &Yes) -> anyhow::Result<Value> {
    let installed = find(api, plugin).await?;
    let path = format!("/plugins/{}/upgrade", text(&installed["id"]));
    let mut body = json!({});
    if let Some(version) = to {
        body["to"] = json!(version);
    }
    with_consent(api, &path, body, yes).await
}

/// The installation of a skill, of a release in whichever version, or the one with this id. Of two for one skill it is
/// the one that carries its calls out.
async fn find(api: &Api, plugin: &str) -> anyhow::Result<Value> {
    let is_release = |one: &Value| {
        let full_name = one["release"]["full_name"].as_str();
        let name = full_name.and_then(|name| name.split_once('@'));
        name.is_some_and(|(name, _)| name == plugin)
    };
    let installed = api.all("/plugins").await?;
    let found = installed
        .into_iter()
        .filter(|p| p["skill"] == plugin || p["id"] == plugin || is_release(p))
        .max_by_key(|p| p["serves"] == "skill");
    match found {
        Some(found) => Ok(found),
        // One that was removed is known by its id alone.
        None if plugin.len() == 36 => api.get(&format!("/plugins/{plugin}")).await,
        None => bail!("no plugin for `{plugin}` is installed; `tsunami plugin list` shows what is"),
    }
}

async fn remove(
    api: &Api,
    plugin: &str,
    credentials: Option<Leftover>,
    configuration: Option<Leftover>,
) -> anyhow::Result<Value> {
    let installed = find(api, plugin).await?;
    let skill = text(&installed["skill"]);
    let delete = |given: Option<Leftover>, what: &str| -> anyhow::Result<&str> {
        let is_person = std::io::stdin().is_terminal();
        let delete = match given {
            Some(given) => given == Leftover::Delete,
            None if is_person => asked(&format!("Delete the {what} of `{skill}` too?"))?,
            None => false,
        };
        Ok(if delete { "delete" } else { "keep" })
    };
    let credentials = delete(credentials, "credentials")?;
    let configuration = match credentials {
        "keep" if configuration.is_none() => "keep",
        _ => delete(configuration, "configuration")?,
    };
    let path = format!(
        "/plugins/{}?credentials={credentials}&configuration={configuration}",
        text(&installed["id"])
    );
    api.delete(&path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_a_releases_place_or_reaches_further_is_looked_at_twice() {
        let own = json!({ "hosts": ["slack.com"], "host_settings": [], "release": null });
        let brought = |hosts: &[&str]| json!({ "hosts": hosts, "host_settings": [] });
        assert!(what_is_more(&own, &brought(&["slack.com"])).is_empty());
        assert!(what_is_more(&own, &brought(&[])).is_empty());
        let more = what_is_more(&own, &brought(&["slack.com", "evil.example"]));
        assert_eq!(more, ["MORE  host evil.example"]);
        let mut setting = brought(&["slack.com"]);
        setting["host_settings"] = json!(["/base_url"]);
        assert_eq!(
            what_is_more(&own, &setting),
            ["MORE  host set in /base_url"]
        );
        let mut release = own;
        release["release"] = json!({ "full_name": "acme/slack@1.2.0" });
        let more = what_is_more(&release, &brought(&["slack.com"]));
        assert!(more[0].contains("acme/slack@1.2.0"), "{more:?}");
    }
}
