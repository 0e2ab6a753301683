//! `tsunami plugin`: what is installed, what is published, and what is done about a bad one.

use super::{
    api::Api,
    commands::{Output, list, show, text},
    dev::write_private,
};
use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Subcommand;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};
use tsunami_provenance::{PrivateKey, Statement, sha256_hex};

/// The form of a lock file.
const LOCK_VERSION: u32 = 1;
const LOCK_FILE: &str = "tsunami-plugins.lock";

#[derive(Subcommand)]
pub enum PluginCommand {
    /// Begin a plugin: a project that builds, passes its tests and conforms.
    New(super::kit::New),
    /// Check whether a component keeps the contract, and what to mend.
    Check(super::kit::Check),
    /// Play a plugin's recorded calls, and show what goes otherwise.
    Test(super::kit::Test),
    /// Build, check and install a plugin with each change of its sources, and call it.
    Dev(super::kit::Dev),
    /// Find plugins that can be installed.
    Search {
        /// Words, or their beginnings.
        words: Vec<String>,
        #[arg(long)]
        category: Option<String>,
        /// `skill-adapter`, `credential-schema` or `routing-policy`
        #[arg(long)]
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
        /// Agree to what it may do without being asked.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
    /// What an installed plugin may do.
    Show {
        /// Its skill, or the installation's id.
        plugin: String,
        #[command(flatten)]
        output: Output,
    },
    /// Put a newer version in a plugin's place.
    Upgrade {
        /// Its skill, or the installation's id.
        plugin: String,
        /// The newest, unless given.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        /// Agree to what it may do more without being asked.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Put the version back that was there before.
    Rollback {
        /// Its skill, or the installation's id.
        plugin: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a plugin.
    Remove {
        /// Its skill, or the installation's id.
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
    /// Make a key to sign releases with; prints the public half.
    Keygen {
        /// Where to write it. Nobody else may read the file.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Register a publisher and its key.
    Register {
        /// `acme` of `acme/slack`
        namespace: String,
        /// In words; the namespace, unless given.
        #[arg(long)]
        name: Option<String>,
        /// The private key of `tsunami plugin keygen`. Only its public half is sent.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Sign a component and publish it. Name and version are those that it gives itself.
    Publish {
        /// The `.wasm` file.
        file: PathBuf,
        /// The publisher's namespace; needed where you have several.
        #[arg(long)]
        publisher: Option<String>,
        /// The private key of `tsunami plugin keygen`.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The same component in an OCI registry, which the gateway pulls it from.
        #[arg(long, value_name = "REFERENCE")]
        oci: Option<String>,
        /// A Sigstore bundle over the file.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// The id of a tenant that it is for; may be given several times. It is for all, unless given.
        #[arg(long = "for", value_name = "TENANT")]
        tenants: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List releases: your own, those for you, and for operators all.
    Releases {
        /// Only what is `submitted`, `approved` or `rejected`.
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Approve a release, as an operator.
    Approve {
        /// `acme/slack@1.2.0`, or its id.
        release: String,
        #[command(flatten)]
        output: Output,
    },
    /// Reject a release, as an operator.
    Reject {
        release: String,
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        output: Output,
    },
    /// Withdraw a release: it stays where it is installed, and nobody else installs it.
    Yank {
        release: String,
        #[arg(long, required_unless_present = "undo")]
        reason: Option<String>,
        /// Take it back.
        #[arg(long, conflicts_with = "reason")]
        undo: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Stop a release everywhere, for good. An operator may give a component's SHA-256 instead.
    Revoke {
        release: String,
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        output: Output,
    },
    /// What a release was used for.
    Affected {
        /// `acme/slack@1.2.0`, its id, or a component's SHA-256.
        release: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Leftover {
    Keep,
    Delete,
}

pub async fn run(command: PluginCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        PluginCommand::New(new) => super::kit::new(&new),
        PluginCommand::Check(check) => super::kit::check_file(&check),
        PluginCommand::Test(test) => super::kit::test(&test),
        PluginCommand::Dev(dev) => super::kit::dev(&dev, api).await,
        PluginCommand::Search {
            words,
            category,
            kind,
            output,
        } => search(api, &words, category, kind, &output).await,
        PluginCommand::Install {
            locked: Some(file),
            from,
            yes,
            output,
            ..
        } => {
            let done = restore(api, &file, from.as_deref(), yes).await?;
            show(&output, &json!(done), |_| done.join("\n"))
        }
        PluginCommand::Install {
            what,
            auto_upgrade,
            yes,
            output,
            ..
        } => {
            let installed = install(api, &what.unwrap_or_default(), auto_upgrade, yes).await?;
            show(&output, &installed, plugin_card)
        }
        PluginCommand::List { output } => {
            let plugins = api.all("/plugins").await?;
            if !output.json {
                warn_of(&plugins);
            }
            let columns = ["id", "skill", "version", "source", "digest", "installed_at"];
            let with_source = plugins.into_iter().map(|mut plugin| {
                plugin["source"] = json!(source_of(&plugin));
                plugin
            });
            list(&output, with_source.collect(), &columns)
        }
        PluginCommand::Show { plugin, output } => {
            show(&output, &find(api, &plugin).await?, plugin_card)
        }
        PluginCommand::Upgrade {
            plugin,
            to,
            yes,
            output,
        } => {
            let upgraded = upgrade(api, &plugin, to.as_deref(), yes).await?;
            show(&output, &upgraded, plugin_card)
        }
        PluginCommand::Rollback { plugin, output } => {
            let id = text(&find(api, &plugin).await?["id"]);
            let path = format!("/plugins/{id}/rollback");
            show(&output, &api.post(&path, &json!({})).await?, plugin_card)
        }
        PluginCommand::Remove {
            plugin,
            credentials,
            configuration,
            output,
        } => {
            let removed = remove(api, &plugin, credentials, configuration).await?;
            show(&output, &removed, |v| {
                format!("{} is removed", text(&v["skill"]))
            })
        }
        PluginCommand::Lock { file, output } => {
            let locked = lock(api, &file).await?;
            let count = locked.plugins.len();
            let shown = file.display();
            show(&output, &serde_json::to_value(&locked)?, |_| {
                format!("{count} plugins in {shown}")
            })
        }
        PluginCommand::Keygen { file, output } => keygen(&file, &output),
        PluginCommand::Register {
            namespace,
            name,
            key,
            output,
        } => {
            let publisher = register(api, &namespace, name.as_deref(), &key).await?;
            show(&output, &publisher, |v| {
                format!(
                    "{} publishes with {} keys",
                    text(&v["namespace"]),
                    v["keys"].as_array().map_or(0, Vec::len)
                )
            })
        }
        PluginCommand::Publish {
            file,
            publisher,
            key,
            oci,
            bundle,
            tenants,
            output,
        } => {
            let publishing = Publishing {
                file: &file,
                publisher: publisher.as_deref(),
                key: &key,
                oci,
                bundle: bundle.as_deref().map(read_json).transpose()?,
                tenants,
            };
            show(&output, &publish(api, publishing).await?, release_line)
        }
        PluginCommand::Releases { state, output } => {
            let filter = state.map(|s| format!("?state={s}")).unwrap_or_default();
            let releases = api.all(&format!("/marketplace/releases{filter}")).await?;
            list(&output, releases, &RELEASE_COLUMNS)
        }
        PluginCommand::Approve { release, output } => {
            let approved = decide(api, &release, "approve", json!({})).await?;
            show(&output, &approved, release_line)
        }
        PluginCommand::Reject {
            release,
            reason,
            output,
        } => {
            let rejected = decide(api, &release, "reject", json!({ "reason": reason })).await?;
            show(&output, &rejected, release_line)
        }
        PluginCommand::Yank {
            release,
            reason,
            output,
            ..
        } => {
            let path = format!(
                "/marketplace/releases/{}/yank",
                release_id(api, &release).await?
            );
            let decided = match reason {
                Some(reason) => api.post(&path, &json!({ "reason": reason })).await?,
                None => api.delete(&path).await?,
            };
            show(&output, &decided, release_line)
        }
        PluginCommand::Revoke {
            release,
            reason,
            output,
        } if is_digest(&release) => {
            let body = json!({ "digest": release, "reason": reason });
            let revoked = api.post("/marketplace/revocations", &body).await?;
            show(&output, &revoked, |v| {
                format!("{} is revoked", text(&v["digest"]))
            })
        }
        PluginCommand::Revoke {
            release,
            reason,
            output,
        } => {
            let revoked = decide(api, &release, "revoke", json!({ "reason": reason })).await?;
            show(&output, &revoked, release_line)
        }
        PluginCommand::Affected { release, output } => affected(api, &release, &output).await,
    }
}

const RELEASE_COLUMNS: [&str; 7] = [
    "full_name",
    "title",
    "state",
    "visibility",
    "downloads",
    "licence",
    "summary",
];

async fn search(
    api: &Api,
    words: &[String],
    category: Option<String>,
    kind: Option<String>,
    output: &Output,
) -> anyhow::Result<()> {
    let q = (!words.is_empty()).then(|| words.join(" "));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("q", q), ("category", category), ("kind", kind)] {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    let found = api
        .all(&format!("/marketplace/search?{}", query.finish()))
        .await?;
    list(output, found, &RELEASE_COLUMNS)
}

// ---- installing -----------------------------------------------------------------------------------------------------

async fn install(api: &Api, what: &str, auto_upgrade: bool, yes: bool) -> anyhow::Result<Value> {
    let file = Path::new(what);
    if file.is_file() || what.ends_with(".wasm") {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {what}"))?;
        return api.upload("/plugins", "application/wasm", bytes).await;
    }
    let new = json!({ "release": what, "auto_upgrade": auto_upgrade });
    with_consent(api, "/plugins", new, yes).await
}

/// Sends a request that somebody may have to agree to, and asks whoever runs the command.
async fn with_consent(api: &Api, path: &str, mut body: Value, yes: bool) -> anyhow::Result<Value> {
    let (status, answer) = api.try_post(path, &body).await?;
    if status == StatusCode::CONFLICT && answer["code"] == "consent_required" {
        eprintln!("{}", consent_card(&answer));
        agree(yes)?;
        body["consent"] = json!({ "sha256": answer["consent_sha256"] });
        return api.post(path, &body).await;
    }
    Api::answered(status, answer)
}

fn agree(yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "somebody has to agree to this: say so with --yes"
    );
    ensure!(asked("Do you agree?")?, "nothing was installed");
    Ok(())
}

/// Asks a question that is answered by y or n; anything else is no.
fn asked(question: &str) -> anyhow::Result<bool> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn upgrade(api: &Api, plugin: &str, to: Option<&str>, yes: bool) -> anyhow::Result<Value> {
    let installed = find(api, plugin).await?;
    let path = format!("/plugins/{}/upgrade", text(&installed["id"]));
    let mut body = json!({});
    if let Some(version) = to {
        body["to"] = json!(version);
    }
    with_consent(api, &path, body, yes).await
}

/// The installation of a skill, or the one with this id.
async fn find(api: &Api, plugin: &str) -> anyhow::Result<Value> {
    let installed = api.all("/plugins").await?;
    let found = installed
        .into_iter()
        .find(|p| p["skill"] == plugin || p["id"] == plugin);
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

// ---- lock files -----------------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u32,
    #[serde(default, rename = "plugin")]
    plugins: Vec<LockedPlugin>,
}

/// One installation, exactly.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
struct LockedPlugin {
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

async fn lock(api: &Api, file: &Path) -> anyhow::Result<LockFile> {
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
async fn restore(
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

// ---- publishing -----------------------------------------------------------------------------------------------------

/// Makes a key, where there is none.
pub fn keygen(file: &Path, output: &Output) -> anyhow::Result<()> {
    ensure!(
        !file.exists(),
        "{} is there already; a key is never overwritten",
        file.display()
    );
    let key = PrivateKey::generate();
    write_private(file, key.to_pem().trim_end())
        .with_context(|| format!("cannot write {}", file.display()))?;
    if !output.json {
        eprintln!("keep {} to yourself. The public key:", file.display());
    }
    let made = json!({ "public_key": key.public().to_string() });
    show(output, &made, |v| text(&v["public_key"]))
}

fn read_key(file: &Path) -> anyhow::Result<PrivateKey> {
    let pem =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    PrivateKey::from_pem(&pem).with_context(|| file.display().to_string())
}

fn read_json(file: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))
}

/// Registers a publisher, unless it is there, and its key, unless it has it.
async fn register(
    api: &Api,
    namespace: &str,
    name: Option<&str>,
    key: &Path,
) -> anyhow::Result<Value> {
    let public = read_key(key)?.public().to_string();
    let own = own_publishers(api).await?;
    let publisher = match own.into_iter().find(|p| p["namespace"] == namespace) {
        Some(publisher) => publisher,
        None => {
            let new = json!({ "namespace": namespace, "name": name.unwrap_or(namespace) });
            api.post("/marketplace/publishers", &new).await?
        }
    };
    if key_of(&publisher, &public).is_some() {
        return Ok(publisher);
    }
    let path = format!("/marketplace/publishers/{}/keys", text(&publisher["id"]));
    let file_name = key.file_name().unwrap_or_default().to_string_lossy();
    let new = json!({ "name": file_name, "public_key": public });
    api.post(&path, &new).await
}

async fn own_publishers(api: &Api) -> anyhow::Result<Vec<Value>> {
    let mut publishers = api.all("/marketplace/publishers").await?;
    publishers.retain(|publisher| publisher["own"] == true);
    Ok(publishers)
}

fn key_of(publisher: &Value, public: &str) -> Option<String> {
    let keys = publisher["keys"].as_array().into_iter().flatten();
    keys.clone()
        .find(|key| key["public_key"] == public)
        .map(|key| text(&key["id"]))
}

struct Publishing<'a> {
    file: &'a Path,
    publisher: Option<&'a str>,
    key: &'a Path,
    oci: Option<String>,
    bundle: Option<Value>,
    tenants: Vec<String>,
}

async fn publish(api: &Api, what: Publishing<'_>) -> anyhow::Result<Value> {
    let key = read_key(what.key)?;
    let bytes =
        std::fs::read(what.file).with_context(|| format!("cannot read {}", what.file.display()))?;
    let digest = sha256_hex(&bytes);
    let publishers = own_publishers(api).await?;
    let publisher = publishers
        .iter()
        .find(|p| what.publisher.is_none_or(|wanted| p["namespace"] == wanted));
    let publisher = match publisher {
        Some(one) if what.publisher.is_some() || publishers.len() == 1 => one,
        Some(_) => bail!("you have several publishers; say which with --publisher"),
        None => bail!("you have no such publisher; `tsunami plugin register` makes one"),
    };
    let key_id = key_of(publisher, &key.public().to_string())
        .context("the publisher does not have this key; `tsunami plugin register` adds it")?;
    let described = api
        .upload("/marketplace/components", "application/wasm", bytes)
        .await?;
    // The digest is that of the file here, whatever the gateway says.
    let statement = Statement::new(
        &text(&publisher["namespace"]),
        &text(&described["name"]),
        &text(&described["version"]),
        &digest,
        &text(&described["contract"]),
    )?;
    eprintln!("signing:\n{}", statement.text());
    let visibility = if what.tenants.is_empty() {
        "public"
    } else {
        "private"
    };
    let mut release = json!({
        "publisher": publisher["namespace"],
        "digest": digest,
        "key_id": key_id,
        "signature": BASE64_STANDARD.encode(key.sign(&statement)),
        "visibility": visibility,
        "tenants": what.tenants,
    });
    let optional = [
        ("oci", what.oci.map(Value::from)),
        ("sigstore_bundle", what.bundle),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            release[name] = value;
        }
    }
    api.post("/marketplace/releases", &release).await
}

async fn decide(api: &Api, release: &str, what: &str, body: Value) -> anyhow::Result<Value> {
    let id = release_id(api, release).await?;
    api.post(&format!("/marketplace/releases/{id}/{what}"), &body)
        .await
}

/// The id of `acme/slack@1.2.0`.
async fn release_id(api: &Api, release: &str) -> anyhow::Result<String> {
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
pub(super) async fn release_to_use(api: &Api, name: &str) -> anyhow::Result<Value> {
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
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("publisher", publisher)
        .append_pair("name", name);
    if let Some(version) = version {
        query.append_pair("version", version);
    }
    api.all(&format!("/marketplace/releases?{}", query.finish()))
        .await
}

pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn affected(api: &Api, release: &str, output: &Output) -> anyhow::Result<()> {
    let path = match is_digest(release) {
        true => format!("/marketplace/digests/{release}/affected"),
        false => format!(
            "/marketplace/releases/{}/affected",
            release_id(api, release).await?
        ),
    };
    let mut all = Vec::new();
    let mut cursor = String::new();
    let columns: &[&str] = loop {
        let page = api.get(&format!("{path}?limit=200{cursor}")).await?;
        let (calls, tenants) = (page["calls"].as_array(), page["tenants"].as_array());
        all.extend(calls.into_iter().chain(tenants).flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None if all.iter().any(|row| row["slug"].is_string()) => {
                break &[
                    "tenant_id",
                    "slug",
                    "calls",
                    "first_at",
                    "last_at",
                    "installed",
                ];
            }
            None => break &["id", "skill", "action", "status", "actor", "created_at"],
        }
    };
    list(output, all, columns)
}

// ---- as people read it ----------------------------------------------------------------------------------------------

fn source_of(plugin: &Value) -> String {
    match plugin["release"]["full_name"].as_str() {
        Some(release) => release.to_owned(),
        None => "upload".to_owned(),
    }
}

/// What there is to know of what is installed, before the list.
fn warn_of(plugins: &[Value]) {
    for plugin in plugins {
        for notice in plugin["notices"].as_array().into_iter().flatten() {
            eprintln!("{}: {}", text(&plugin["skill"]), text(&notice["message"]));
        }
    }
}

fn release_line(release: &Value) -> String {
    let reason = release["state_reason"].as_str().map(|r| format!(": {r}"));
    format!(
        "{} is {}{} (digest {})",
        text(&release["full_name"]),
        text(&release["state"]),
        reason.unwrap_or_default(),
        text(&release["digest"])
    )
}

/// What an installed plugin may do.
pub fn plugin_card(plugin: &Value) -> String {
    format!(
        "{} {} ({})\nsource    {}\nhosts     {}\ndigest    {}\n{}",
        text(&plugin["title"]),
        text(&plugin["version"]),
        text(&plugin["skill"]),
        source_of(plugin),
        text(&plugin["hosts"]),
        text(&plugin["digest"]),
        actions_table(&plugin["actions"])
    )
}

/// What somebody who installs a plugin agrees to, and what is more than they agreed to before.
fn consent_card(problem: &Value) -> String {
    let consent = &problem["consent"];
    let credentials: Vec<String> = consent["credentials"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| format!("{} ({})", text(&c["key"]), text(&c["scopes"])))
        .collect();
    let mut lines = vec![
        format!("{} wants to do this:", text(&consent["release"])),
        format!("publisher     {}", text(&consent["publisher"])),
        format!("digest        {}", text(&consent["digest"])),
        format!("hosts         {}", text(&consent["hosts"])),
        format!("hosts set in  {}", text(&consent["host_settings"])),
        format!("credentials   {}", credentials.join(", ")),
        format!("limits        {}", consent["limits"]),
        actions_table(&consent["actions"]),
    ];
    if consent["identity"].is_object() {
        let identity = &consent["identity"];
        lines.insert(
            2,
            format!(
                "signed by     {} ({})",
                text(&identity["subject"]),
                text(&identity["issuer"])
            ),
        );
    }
    let changes = problem["changes"].as_array().into_iter().flatten();
    for change in changes {
        let side = |name: &str| match change[name].as_str() {
            Some(text) => text.to_owned(),
            None => "-".to_owned(),
        };
        let mark = if change["grows"] == true {
            "MORE"
        } else {
            "less"
        };
        lines.push(format!(
            "{mark}  {} {}: {} -> {}",
            text(&change["what"]),
            text(&change["of"]),
            side("before"),
            side("after")
        ));
    }
    lines.join("\n")
}

fn actions_table(actions: &Value) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["action", "risk", "credentials", ""]);
    for action in actions.as_array().into_iter().flatten() {
        let about = if action["summary"].is_string() {
            &action["summary"]
        } else {
            &action["title"]
        };
        table.add_row([
            text(&action["name"]),
            text(&action["risk"]),
            text(&action["credentials"]),
            text(about),
        ]);
    }
    table.to_string()
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

    #[test]
    fn what_is_asked_for_names_what_is_more() {
        let card = consent_card(&json!({
            "consent": { "release": "acme/slack@1.3.0", "hosts": ["slack.com"], "actions": [] },
            "changes": [{ "what": "host", "of": "", "before": null, "after": "evil.example", "grows": true }],
        }));
        assert!(card.contains("MORE  host : - -> evil.example"), "{card}");
    }
}
