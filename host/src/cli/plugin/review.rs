//! For whoever answers for what is published: the releases, what is decided on them, and what a bad one did.

use super::{
    cards::{release_card, report_of},
    release::{RELEASE_COLUMNS, is_digest, release_id, release_line, release_of},
};
use crate::cli::{
    api::{Api, query},
    ask::Yes,
    commands::{Output, list, show, table, text},
};
use anyhow::{Context, ensure};
use clap::{Subcommand, builder::PossibleValuesParser};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};
use tsunami_provenance::sha256_hex;

#[derive(Subcommand)]
pub enum Reviewing {
    /// List releases: your own, those for you, and for operators all.
    Releases {
        /// Only what is this: `submitted` are those that wait for an operator.
        #[arg(long, value_parser = PossibleValuesParser::new(["submitted", "approved", "rejected"]))]
        state: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a release: what it may do, what the check found, and its readme.
    Release {
        /// `acme/slack@1.2.0`, `acme/slack` for the newest, or its id.
        release: String,
        /// Write its component here, and show nothing.
        #[arg(long, value_name = "FILE")]
        download: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Approve a release, as an operator. Shows it, and asks where it does not conform.
    Approve {
        /// `acme/slack@1.2.0`, or its id.
        release: String,
        #[command(flatten)]
        yes: Yes,
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
    /// Stop a release everywhere, for good. An operator may give a component's SHA-256 instead.
    Revoke {
        release: String,
        /// Tenants read it.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
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

pub async fn run(command: Reviewing, api: &Api) -> anyhow::Result<()> {
    match command {
        Reviewing::Releases { state, output } => {
            let filter = query([("state", state)]);
            let releases = api.all(&format!("/marketplace/releases{filter}")).await?;
            list(&output, releases, &RELEASE_COLUMNS)
        }
        Reviewing::Release {
            release,
            download: Some(file),
            output,
        } => {
            let release = release_of(api, &release).await?;
            save(api, &release, &file).await?;
            let shown = file.display();
            show(&output, &release, |v| {
                format!("{} is in {shown}", text(&v["full_name"]))
            })
        }
        Reviewing::Release {
            release, output, ..
        } => {
            let release = release_of(api, &release).await?;
            show(&output, &release, |v| {
                let readme = text(&v["details"]["readme"]);
                format!("{}\n\n{readme}", release_card(v))
            })
        }
        Reviewing::Approve {
            release,
            yes,
            output,
        } => {
            let id = release_id(api, &release).await?;
            let asked = release_of(api, &id).await?;
            eprintln!("{}", release_card(&asked));
            match report_of(&asked) {
                Some(report) if report.conforms => {}
                Some(_) => yes.or_ask("It does not conform. Approve it all the same?")?,
                None => yes.or_ask("Nobody knows whether it conforms. Approve it all the same?")?,
            }
            // What was shown is what is approved, whatever the name means by now.
            let approved = decide(api, &text(&asked["id"]), "approve", json!({})).await?;
            show(&output, &approved, release_line)
        }
        Reviewing::Reject {
            release,
            reason,
            output,
        } => {
            let rejected = decide(api, &release, "reject", json!({ "reason": reason })).await?;
            show(&output, &rejected, release_line)
        }
        Reviewing::Revoke {
            release,
            reason,
            yes,
            output,
        } => revoke(api, &release, &reason, &yes, &output).await,
        Reviewing::Affected { release, output } => affected(api, &release, &output).await,
    }
}

/// Writes a release's component into a file that is not there yet.
async fn save(api: &Api, release: &Value, file: &Path) -> anyhow::Result<()> {
    let path = format!("/marketplace/releases/{}/component", text(&release["id"]));
    let bytes = api.download(&path).await?;
    ensure!(
        release["digest"] == sha256_hex(&bytes),
        "what the gateway sent is not the component of {}, and is not written",
        text(&release["full_name"])
    );
    let mut new =
        File::create_new(file).with_context(|| format!("cannot write {}", file.display()))?;
    new.write_all(&bytes)
        .with_context(|| format!("cannot write {}", file.display()))
}

async fn decide(api: &Api, release: &str, what: &str, body: Value) -> anyhow::Result<Value> {
    let id = release_id(api, release).await?;
    api.post(&format!("/marketplace/releases/{id}/{what}"), &body)
        .await
}

async fn revoke(
    api: &Api,
    release: &str,
    reason: &str,
    yes: &Yes,
    output: &Output,
) -> anyhow::Result<()> {
    let (uses, columns) = uses(api, release).await?;
    if !uses.is_empty() {
        eprintln!("used so far:\n{}", table(&uses, columns));
    }
    yes.or_ask(&format!(
        "Revoke {release}? No host calls it any more, whoever has it installed; there is no way back."
    ))?;
    if is_digest(release) {
        let body = json!({ "digest": release, "reason": reason });
        let revoked = api.post("/marketplace/revocations", &body).await?;
        return show(output, &revoked, |v| {
            format!("{} is revoked", text(&v["digest"]))
        });
    }
    let revoked = decide(api, release, "revoke", json!({ "reason": reason })).await?;
    show(output, &revoked, release_line)
}

async fn affected(api: &Api, release: &str, output: &Output) -> anyhow::Result<()> {
    let (uses, columns) = uses(api, release).await?;
    list(output, uses, columns)
}

/// What a release was used for, and how that is shown: an operator sees tenants, a tenant its own calls.
async fn uses(api: &Api, release: &str) -> anyhow::Result<(Vec<Value>, &'static [&'static str])> {
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
    Ok((all, columns))
}
