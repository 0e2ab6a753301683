//! `tsunami policy`: the chain of routing policies, for a tenant, or with an operator's key for all of them.

use super::{
    api::Api,
    commands::{Output, list, show, text},
    plugin::{is_digest, release_to_use},
};
use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::Path;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Put a policy into the chain: it is asked from the next call on.
    Add {
        /// `acme/four-eyes@1.2.0`, `acme/four-eyes` for the newest, a component's SHA-256, or a `.wasm` file.
        what: String,
        /// Its settings, as JSON.
        #[arg(long, default_value = "{}")]
        settings: String,
        /// A skill that it is for; may be given several times. All skills, unless given.
        #[arg(long = "skill")]
        skills: Vec<String>,
        /// The lowest is asked first.
        #[arg(long, default_value_t = 100)]
        position: i32,
        /// Put it there without switching it on.
        #[arg(long)]
        disabled: bool,
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        output: Output,
    },
    /// The chain, in the order in which it is asked.
    List {
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        output: Output,
    },
    /// Change a policy's settings, place or component, or switch it on or off.
    Set {
        id: String,
        #[arg(long)]
        settings: Option<String>,
        #[arg(long)]
        position: Option<i32>,
        #[arg(long)]
        enabled: Option<bool>,
        /// Another version of the same policy: a release, a component's SHA-256, or a `.wasm` file.
        #[arg(long, value_name = "WHAT", alias = "file")]
        to: Option<String>,
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        output: Output,
    },
    /// Take a policy out of the chain.
    Remove {
        id: String,
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        output: Output,
    },
    /// What the policies decided, the newest first.
    Decisions {
        /// Only of this call.
        #[arg(long)]
        call: Option<String>,
        /// Only these: allow, ask or deny.
        #[arg(long)]
        decision: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Try a policy over calls that were made: which decisions would have been others.
    Replay {
        /// A `.wasm` file, a release (`acme/four-eyes@1.2.0`), or a component's SHA-256.
        #[arg(long, value_name = "WHAT")]
        plugin: String,
        #[arg(long, default_value = "{}")]
        settings: String,
        /// How far back: `90m`, `12h` or `7d`.
        #[arg(long, default_value = "7d")]
        since: String,
        #[arg(long = "skill")]
        skills: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Args)]
pub struct Part {
    /// The operator's part of the chain, before every tenant's calls; with an operator's key.
    #[arg(long)]
    operator: bool,
}

impl Part {
    fn path(&self) -> &'static str {
        if self.operator {
            "/operator-policies"
        } else {
            "/policies"
        }
    }
}

const COLUMNS: [&str; 8] = [
    "id", "source", "position", "name", "enabled", "skills", "settings", "digest",
];

pub async fn run(command: PolicyCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Add {
            what,
            settings,
            skills,
            position,
            disabled,
            part,
            output,
        } => {
            let digest = digest_of(api, part.path(), &what).await?;
            let new = json!({ "digest": digest, "settings": parse(&settings)?, "skills": skills, "position": position, "enabled": !disabled });
            let added = api.post(part.path(), &new).await?;
            show(&output, &added, |v| {
                format!("{} {}", text(&v["name"]), text(&v["id"]))
            })
        }
        PolicyCommand::List { part, output } => {
            let chain = api.get(part.path()).await?;
            list(
                &output,
                chain["items"].as_array().cloned().unwrap_or_default(),
                &COLUMNS,
            )
        }
        PolicyCommand::Set {
            id,
            settings,
            position,
            enabled,
            to,
            part,
            output,
        } => {
            let mut change = serde_json::Map::new();
            if let Some(settings) = settings {
                change.insert("settings".into(), parse(&settings)?);
            }
            if let Some(position) = position {
                change.insert("position".into(), position.into());
            }
            if let Some(enabled) = enabled {
                change.insert("enabled".into(), enabled.into());
            }
            if let Some(what) = to {
                let digest = digest_of(api, part.path(), &what).await?;
                change.insert("digest".into(), digest.into());
            }
            if change.is_empty() {
                bail!("nothing to change: give --settings, --position, --enabled or --to");
            }
            let path = format!("{}/{id}", part.path());
            let changed = api.patch(&path, &Value::Object(change)).await?;
            list(&output, vec![changed], &COLUMNS)
        }
        PolicyCommand::Remove { id, part, output } => {
            api.delete(&format!("{}/{id}", part.path())).await?;
            show(&output, &json!({ "id": id, "removed": true }), |_| {
                "removed".to_owned()
            })
        }
        PolicyCommand::Decisions {
            call,
            decision,
            output,
        } => {
            let filters = [("call_id", call), ("decision", decision)];
            let query: Vec<String> = filters
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
                .collect();
            let items = api
                .all(&format!("/policy-decisions?{}", query.join("&")))
                .await?;
            list(
                &output,
                items,
                &[
                    "decided_at",
                    "call_id",
                    "policy",
                    "decision",
                    "reason",
                    "duration_us",
                ],
            )
        }
        PolicyCommand::Replay {
            plugin,
            settings,
            since,
            skills,
            output,
        } => {
            let digest = digest_of(api, "/policies", &plugin).await?;
            let body = json!({ "digest": digest, "settings": parse(&settings)?, "skills": skills, "since": ago(&since)? });
            let report = api.post("/policies/replay", &body).await?;
            show(&output, &report, report_text)
        }
    }
}

/// The digest of what is named: a file is brought, a release is looked up.
async fn digest_of(api: &Api, path: &str, what: &str) -> anyhow::Result<String> {
    let file = Path::new(what);
    if file.is_file() || what.ends_with(".wasm") {
        return bring(api, path, file).await;
    }
    if is_digest(what) {
        return Ok(what.to_ascii_lowercase());
    }
    ensure!(
        what.contains('/'),
        "`{what}` is no file here; a published policy is named with its publisher: acme/four-eyes@1.2.0"
    );
    let release = release_to_use(api, what).await?;
    let kinds = release["kinds"].as_array().into_iter().flatten();
    ensure!(
        kinds.clone().any(|kind| kind == "routing-policy"),
        "{} is no policy, it is a {}; `tsunami plugin search --kind routing-policy` shows those that are",
        text(&release["full_name"]),
        text(&release["kinds"])
    );
    Ok(text(&release["digest"]))
}

/// Brings a component, and gives its digest.
async fn bring(api: &Api, path: &str, file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let brought = api
        .upload(&format!("{path}/components"), "application/wasm", bytes)
        .await?;
    Ok(text(&brought["digest"]))
}

fn parse(settings: &str) -> anyhow::Result<Value> {
    serde_json::from_str(settings).context("the settings are no JSON")
}

fn ago(text: &str) -> anyhow::Result<String> {
    let wrong = || format!("`{text}` must be a number and a unit: 90m, 12h or 7d");
    let (number, unit) =
        text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let number: i64 = number.parse().with_context(wrong)?;
    let ago = match unit {
        "m" => Duration::minutes(number),
        "h" => Duration::hours(number),
        "d" => Duration::days(number),
        _ => bail!(wrong()),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a command has no clock of its own"
    )]
    let now = OffsetDateTime::now_utc();
    let since = now.checked_sub(ago).with_context(wrong)?;
    Ok(since.format(&Rfc3339)?)
}

fn report_text(report: &Value) -> String {
    let mut lines = vec![format!(
        "{} calls: the policy allows {}, asks for {}, denies {}. As a whole {} decisions would be others.",
        text(&report["calls"]),
        text(&report["allowed"]),
        text(&report["asked"]),
        text(&report["denied"]),
        text(&report["changed"])
    )];
    if report["truncated"] == true {
        lines.push(
            "There were more calls than one replay looks at; give a shorter --since.".to_owned(),
        );
    }
    for change in report["changes"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {}  {}.{}  {} -> {}  {}",
            text(&change["called_at"]),
            text(&change["skill"]),
            text(&change["action"]),
            text(&change["before"]),
            text(&change["after"]),
            text(&change["reason"])
        ));
    }
    lines.join("\n")
}
