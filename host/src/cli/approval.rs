//! `tsunami approval`: what waits for a person, and what that person says.

use super::{
    api::{Api, query},
    commands::{Output, fields, list, show, show_request, text},
};
use crate::skills::http::ApprovalStatus;
use clap::{Subcommand, builder::PossibleValuesParser};
use serde_json::{Value, json};

/// Whatever they are.
const ALL: &str = "all";

#[derive(Subcommand)]
pub enum ApprovalCommand {
    /// List what waits for a person.
    List {
        /// What is this instead.
        #[arg(long, default_value = "pending", value_parser = statuses())]
        status: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show exactly what would be done, by whom it was asked for, and who may agree.
    Show {
        approval: String,
        #[command(flatten)]
        output: Output,
    },
    /// Agree to exactly that; shows it once more.
    Approve {
        approval: String,
        /// For the trace.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Refuse it; shows it once more.
    Reject {
        approval: String,
        /// For the trace.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

fn statuses() -> PossibleValuesParser {
    let names = ApprovalStatus::ALL.map(ApprovalStatus::as_str);
    PossibleValuesParser::new(names.into_iter().chain([ALL]))
}

pub async fn run(command: ApprovalCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        ApprovalCommand::List { status, output } => {
            let filter = query([("status", (status != ALL).then_some(status))]);
            let mut approvals = api.all(&format!("/approvals{filter}")).await?;
            for approval in &mut approvals {
                approval["call"] = json!(name_of(approval));
            }
            let columns = [
                "id",
                "status",
                "call",
                "requested_by",
                "expires_at",
                "reason",
            ];
            list(&output, approvals, &columns)
        }
        ApprovalCommand::Show { approval, output } => {
            let asked = api.get(&format!("/approvals/{approval}")).await?;
            show(&output, &asked, approval_card)?;
            if asked["status"] == "pending" {
                eprintln!(
                    "to decide, type  tsunami approval approve {approval}  or  tsunami approval reject {approval}"
                );
            }
            Ok(())
        }
        ApprovalCommand::Approve {
            approval,
            note,
            output,
        } => decide(api, &approval, "approve", note, &output).await,
        ApprovalCommand::Reject {
            approval,
            note,
            output,
        } => decide(api, &approval, "reject", note, &output).await,
    }
}

async fn decide(
    api: &Api,
    approval: &str,
    what: &str,
    note: Option<String>,
    output: &Output,
) -> anyhow::Result<()> {
    show_request(api, approval).await?;
    let path = format!("/approvals/{approval}/{what}");
    let decided = api.post(&path, &json!({ "note": note })).await?;
    show(output, &decided, |v| {
        format!("{} {}", name_of(v), text(&v["status"]))
    })?;
    eprintln!(
        "what comes of it is at  tsunami skill show {}",
        text(&decided["call_id"])
    );
    Ok(())
}

fn name_of(approval: &Value) -> String {
    let request = &approval["request"];
    format!("{}.{}", text(&request["skill"]), text(&request["action"]))
}

fn approval_card(approval: &Value) -> String {
    let request = &approval["request"];
    let mut lines = vec![format!(
        "{}  {}",
        name_of(approval),
        text(&approval["status"])
    )];
    let sets = approval["role_sets"].as_array().into_iter().flatten();
    let sets: Vec<_> = sets.map(|set| format!("one of {}", text(set))).collect();
    let second = match approval["second_person"] == true {
        true => "somebody else than whoever asked",
        false => "",
    };
    let told = [
        ("id", text(&approval["id"])),
        ("call", text(&approval["call_id"])),
        ("task", text(&approval["task_id"])),
        ("asked by", text(&approval["requested_by"])),
        ("because", text(&approval["reason"])),
        ("roles", text(&approval["roles"])),
        ("and", sets.join(", and ")),
        ("by", second.to_owned()),
        ("until", text(&approval["expires_at"])),
        ("decided by", text(&approval["decided_by"])),
        ("decided at", text(&approval["decided_at"])),
        ("note", text(&approval["note"])),
        ("instance", text(&request["instance"])),
        ("plugin", text(&request["plugin_digest"])),
        ("settings", text(&request["settings"])),
    ];
    lines.extend(fields(11, told));
    lines.push(format!("{:#}", request["params"]));
    lines.join("\n")
}
