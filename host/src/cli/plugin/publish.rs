//! For whoever publishes: keys, publishers, and what they sign.

use super::release::{release_id, release_line};
use crate::cli::{
    api::Api,
    ask::Yes,
    commands::{Output, list, show, text},
    dev::write_private,
};
use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tsunami_provenance::{PrivateKey, Statement, sha256_hex};

#[derive(Subcommand)]
pub enum Publishing {
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
    /// List a publisher's keys.
    Keys {
        /// The publisher's namespace; all of your own, unless given.
        publisher: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Have a key sign nothing new. What it signed stays good.
    RetireKey {
        /// Its id, as `tsunami plugin keys` shows it, or the public key.
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// Stop a key that somebody else got at: what it signed runs on no host any more, for good.
    RevokeKey {
        /// Its id, as `tsunami plugin keys` shows it, or the public key.
        key: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
    /// Show, or record, who signs a publisher's components by Sigstore. From then on every release needs that bundle.
    Identity {
        /// The publisher's namespace.
        publisher: String,
        /// Who signs, exactly as the certificate says: `releases@acme.example`
        #[arg(long, requires = "issuer")]
        subject: Option<String>,
        /// Who vouches for them: `https://accounts.google.com`
        #[arg(long, requires = "subject")]
        issuer: Option<String>,
        /// Take the record away, as an operator.
        #[arg(long, conflicts_with = "subject")]
        remove: bool,
        #[command(flatten)]
        yes: Yes,
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
}

pub async fn run(command: Publishing, api: &Api) -> anyhow::Result<()> {
    match command {
        Publishing::Register {
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
        Publishing::Keys { publisher, output } => {
            let publishers = match publisher {
                Some(namespace) => vec![by_namespace(api, &namespace).await?],
                None => own_publishers(api).await?,
            };
            let keys = publishers.iter().flat_map(keys_of).collect();
            let columns = [
                "id",
                "publisher",
                "name",
                "public_key",
                "created_at",
                "retired_at",
                "revoked_at",
            ];
            list(&output, keys, &columns)
        }
        Publishing::RetireKey { key, output } => {
            let key = find_key(api, &key).await?;
            end_key(api, &key, "retire", &output).await
        }
        Publishing::RevokeKey { key, yes, output } => {
            let key = find_key(api, &key).await?;
            let known = api.get(&path_of_key(&key)).await?;
            eprintln!("{}", reach_of(&known["signed"]));
            yes.or_ask(&format!(
                "Revoke the key `{}` of {}? None of that runs on any host any more; there is no way back.",
                text(&key["name"]),
                text(&key["publisher"])
            ))?;
            end_key(api, &key, "revoke", &output).await
        }
        Publishing::Identity {
            publisher,
            subject,
            issuer,
            remove,
            yes,
            output,
        } => {
            let publisher = by_namespace(api, &publisher).await?;
            let identity = subject.zip(issuer);
            if identity.is_none() && !remove {
                return show(&output, &publisher, identity_line);
            }
            if identity.is_some() {
                yes.or_ask("Every release needs this signature from then on, and only an operator changes it. Record it?")?;
            }
            let identity =
                identity.map(|(subject, issuer)| json!({ "subject": subject, "issuer": issuer }));
            let path = format!("/marketplace/publishers/{}", text(&publisher["id"]));
            let changed = api.patch(&path, &json!({ "sigstore": identity })).await?;
            show(&output, &changed, identity_line)
        }
        Publishing::Publish {
            file,
            publisher,
            key,
            oci,
            bundle,
            tenants,
            output,
        } => {
            let publishing = Work {
                file: &file,
                publisher: publisher.as_deref(),
                key: &key,
                oci,
                bundle: bundle.as_deref().map(read_json).transpose()?,
                tenants,
            };
            show(&output, &publish(api, publishing).await?, release_line)
        }
        Publishing::Yank {
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
    }
}

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

/// A publisher, whoever's it is.
async fn by_namespace(api: &Api, namespace: &str) -> anyhow::Result<Value> {
    let mut publishers = api.all("/marketplace/publishers").await?.into_iter();
    publishers
        .find(|publisher| publisher["namespace"] == namespace)
        .with_context(|| format!("there is no publisher `{namespace}` that you may see"))
}

fn identity_line(publisher: &Value) -> String {
    let namespace = text(&publisher["namespace"]);
    let identity = &publisher["sigstore"];
    match identity.is_object() {
        true => format!(
            "{namespace} is signed for by {} ({}) besides",
            text(&identity["subject"]),
            text(&identity["issuer"])
        ),
        false => format!("nobody is recorded who signs for {namespace} by Sigstore"),
    }
}

/// A publisher's keys, each with whose it is.
fn keys_of(publisher: &Value) -> Vec<Value> {
    let keys = publisher["keys"].as_array().cloned().unwrap_or_default();
    let with_publisher = keys.into_iter().map(|mut key| {
        key["publisher"] = publisher["namespace"].clone();
        key["publisher_id"] = publisher["id"].clone();
        key
    });
    with_publisher.collect()
}

async fn find_key(api: &Api, key: &str) -> anyhow::Result<Value> {
    let publishers = api.all("/marketplace/publishers").await?;
    let mut found: Vec<_> = publishers
        .iter()
        .flat_map(keys_of)
        .filter(|known| known["id"] == key || known["public_key"] == key)
        .collect();
    ensure!(
        found.len() < 2,
        "several publishers have this key; say which by its id: `tsunami plugin keys NAMESPACE` shows it"
    );
    found.pop().with_context(|| {
        format!("there is no key `{key}` that you may see; `tsunami plugin keys` shows yours")
    })
}

fn path_of_key(key: &Value) -> String {
    let (publisher, id) = (text(&key["publisher_id"]), text(&key["id"]));
    format!("/marketplace/publishers/{publisher}/keys/{id}")
}

/// What a key signed, and how many tenants have that.
fn reach_of(signed: &Value) -> String {
    let newest = signed["newest"].as_array().into_iter().flatten();
    let mut lines: Vec<String> = newest
        .map(|release| format!("  {}, in {}", text(&release["name"]), tenants(release)))
        .collect();
    let named = lines.len();
    let releases = signed["releases"].as_u64().unwrap_or_default();
    lines.insert(
        0,
        format!("it signed {releases} releases, in {}", tenants(signed)),
    );
    if usize::try_from(releases).is_ok_and(|releases| releases > named) {
        lines.push("  and older ones".to_owned());
    }
    lines.join("\n")
}

fn tenants(of: &Value) -> String {
    match of["tenants"].as_u64().unwrap_or_default() {
        1 => "1 tenant".to_owned(),
        many => format!("{many} tenants"),
    }
}

async fn end_key(api: &Api, key: &Value, how: &str, output: &Output) -> anyhow::Result<()> {
    let path = format!("{}/{how}", path_of_key(key));
    let changed = api.post(&path, &json!({})).await?;
    let keys = keys_of(&changed);
    let ended = keys.into_iter().find(|known| known["id"] == key["id"]);
    let mut ended = ended.unwrap_or_else(|| changed.clone());
    if changed["signed"].is_object() {
        ended["signed"] = changed["signed"].clone();
    }
    show(output, &ended, |v| {
        let state = match (v["revoked_at"].as_str(), v["retired_at"].as_str()) {
            (Some(at), _) => format!("revoked since {at}"),
            (None, Some(at)) => format!("retired since {at}"),
            (None, None) => "good".to_owned(),
        };
        format!(
            "{} of {} is {state}",
            text(&v["name"]),
            text(&v["publisher"])
        )
    })
}

fn key_of(publisher: &Value, public: &str) -> Option<String> {
    let keys = publisher["keys"].as_array().into_iter().flatten();
    keys.clone()
        .find(|key| key["public_key"] == public)
        .map(|key| text(&key["id"]))
}

struct Work<'a> {
    file: &'a Path,
    publisher: Option<&'a str>,
    key: &'a Path,
    oci: Option<String>,
    bundle: Option<Value>,
    tenants: Vec<String>,
}

async fn publish(api: &Api, what: Work<'_>) -> anyhow::Result<Value> {
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
