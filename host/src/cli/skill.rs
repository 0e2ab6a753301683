//! `tsunami skill`: calls of skills, what became of them, and what a person says of one that nobody knows.

use super::{
    api::{Api, query},
    commands::{Output, POLL, fields, list, show, spinner, text, timeline},
    exit::Unended,
};
use crate::skills::CallStatus;
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum, builder::PossibleValuesParser};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub enum SkillCommand {
    /// Call a skill. Where it waits for a person, says how to approve it, and ends with 3.
    #[command(after_help = super::exit::HELP)]
    Call {
        /// `slack.send_message`
        action: String,
        /// JSON
        #[arg(default_value = "{}")]
        params: String,
        /// Show what would happen, and do none of it.
        #[arg(long)]
        dry_run: bool,
        /// An Idempotency-Key: the same call under the same key is made once. A fresh one where it is left out.
        #[arg(long)]
        key: Option<String>,
        /// Stay until it has ended, also where a person has to approve it first.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// The company's rules for a skill: what waits for a person, what is allowed, how often.
    #[command(subcommand)]
    Config(super::rules::ConfigCommand),
    /// List the calls.
    Calls {
        /// Only those that are this: `outcome_unknown` are the ones that somebody has to look at.
        #[arg(long, value_parser = PossibleValuesParser::new(CallStatus::ALL.map(CallStatus::as_str)))]
        status: Option<String>,
        /// Only those of this skill.
        #[arg(long)]
        skill: Option<String>,
        /// Only those of this task.
        #[arg(long, value_name = "ID")]
        task: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// One call: what was asked for, and what came of it.
    Show {
        call: String,
        #[command(flatten)]
        output: Output,
    },
    /// What happened, step by step, of a call that no task made.
    Trace {
        call: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say what became of a call whose outcome is unknown.
    Resolve {
        call: String,
        /// What you found at the service.
        found: Found,
        /// For the trace.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Found {
    /// It happened: the call counts as succeeded.
    Done,
    /// It did not: the call is sent again.
    #[value(alias = "try_again")]
    Again,
}

pub async fn run(command: SkillCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        SkillCommand::Call {
            action,
            params,
            dry_run,
            key,
            wait,
            output,
        } => {
            let (path, body) = asked(&action, &params)?;
            if dry_run {
                let would = api.post(&format!("{path}?dry_run=true"), &body).await?;
                return show(&output, &would, dry_run_card);
            }
            let made = make(api, &path, &body, key).await?;
            let call = if wait { ended(api, made).await? } else { made };
            told(&output, &call)
        }
        SkillCommand::Config(command) => super::rules::run(command, api).await,
        SkillCommand::Calls {
            status,
            skill,
            task,
            output,
        } => {
            let filter = query([("status", status), ("skill", skill), ("task_id", task)]);
            let mut calls = api.all(&format!("/skill-calls{filter}")).await?;
            for call in &mut calls {
                call["call"] = json!(name_of(call));
                call["what"] = json!(gist(call));
            }
            let columns = ["id", "status", "call", "actor", "created_at", "what"];
            list(&output, calls, &columns)
        }
        SkillCommand::Show { call, output } => {
            let call = api.get(&format!("/skill-calls/{call}")).await?;
            shown(&output, &call)
        }
        SkillCommand::Trace { call, output } => {
            let trace = api.get(&format!("/skill-calls/{call}/trace")).await?;
            show(&output, &trace, timeline)
        }
        SkillCommand::Resolve {
            call,
            found,
            note,
            output,
        } => {
            let resolution = match found {
                Found::Done => "done",
                Found::Again => "try_again",
            };
            let body = json!({ "resolution": resolution, "note": note });
            let path = format!("/skill-calls/{call}/resolve");
            shown(&output, &api.post(&path, &body).await?)
        }
    }
}

fn asked(action: &str, params: &str) -> anyhow::Result<(String, Value)> {
    let (skill, action) = action
        .split_once('.')
        .context("the action must read skill.action: slack.send_message")?;
    let params: Value = serde_json::from_str(params).context("the parameters are no JSON")?;
    let path = format!("/skills/{skill}/{action}");
    Ok((path, json!({ "params": params })))
}

async fn make(api: &Api, path: &str, body: &Value, key: Option<String>) -> anyhow::Result<Value> {
    let key =
        key.unwrap_or_else(|| format!("cli-{}", hex::encode(crate::id::random_bytes::<16>())));
    let (status, answer) = api.try_post_once(path, body, &key).await?;
    match Api::answered(status, answer.clone()) {
        Err(refusal) if answer["code"] == "outcome_unknown" => {
            let resolve = to_resolve(&text(&answer["call_id"]));
            bail!(Unended::OutcomeUnknown(format!("{refusal:#}\n{resolve}")))
        }
        answered => answered,
    }
}

/// The call when it has ended. A person who does not decide ends it too: approvals expire.
async fn ended(api: &Api, mut call: Value) -> anyhow::Result<Value> {
    let progress = spinner();
    let path = format!("/skill-calls/{}", text(&call["id"]));
    let mut said = String::new();
    while let Some(next) = next(&call).filter(|_| call["status"] != "outcome_unknown") {
        if next != said {
            // Not through the progress bar: that shows nothing where there is no terminal.
            progress.suspend(|| eprintln!("{next}"));
            said = next;
        }
        progress.set_message(text(&call["status"]));
        tokio::time::sleep(POLL).await;
        call = api.get(&path).await?;
    }
    progress.finish_and_clear();
    Ok(call)
}

/// Shows a call that was made here; an error where it did not do what was asked for.
fn told(output: &Output, call: &Value) -> anyhow::Result<()> {
    show(output, call, call_card)?;
    let next = next(call).unwrap_or_default();
    match call["status"].as_str().unwrap_or_default() {
        "succeeded" => Ok(()),
        "awaiting_approval" => bail!(Unended::WaitsForPerson(next)),
        "queued" | "running" => bail!(Unended::GoesOn(next)),
        "outcome_unknown" => bail!(Unended::OutcomeUnknown(next)),
        status => bail!("the call is {status}: {}", gist(call)),
    }
}

/// A call, and on standard error what to type next where it has not ended.
fn shown(output: &Output, call: &Value) -> anyhow::Result<()> {
    show(output, call, call_card)?;
    if let Some(next) = next(call) {
        eprintln!("{next}");
    }
    Ok(())
}

/// What to type next, where a call has not ended.
fn next(call: &Value) -> Option<String> {
    let id = text(&call["id"]);
    match call["status"].as_str()? {
        "awaiting_approval" => {
            let approval = text(&call["approval_id"]);
            Some(format!(
                "it waits for a person: tsunami approval show {approval}\n\
                 who agrees types          tsunami approval approve {approval}\n\
                 and what came of it is at tsunami skill show {id}"
            ))
        }
        "queued" | "running" => Some(format!(
            "it goes on by itself; what came of it is at tsunami skill show {id}"
        )),
        "outcome_unknown" => Some(to_resolve(&id)),
        _ => None,
    }
}

fn to_resolve(call: &str) -> String {
    format!(
        "what was sent is at       tsunami skill show {call}\n\
         if it happened, type      tsunami skill resolve {call} done\n\
         if it did not, type       tsunami skill resolve {call} again"
    )
}

fn name_of(call: &Value) -> String {
    format!("{}.{}", text(&call["skill"]), text(&call["action"]))
}

/// What a call came to, in a few words.
fn gist(call: &Value) -> String {
    match call["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => text(&call["summary"]),
    }
}

fn call_card(call: &Value) -> String {
    let mut lines = vec![format!("{}  {}", name_of(call), text(&call["status"]))];
    let told = [
        ("id", &call["id"]),
        ("task", &call["task_id"]),
        ("by", &call["actor"]),
        ("params", &call["params"]),
        ("with", &call["credentials_used"]),
        ("approval", &call["approval_id"]),
        ("plugin", &call["plugin_digest"]),
        ("created", &call["created_at"]),
        ("finished", &call["finished_at"]),
        ("error", &call["error"]["message"]),
        ("summary", &call["summary"]),
        ("output", &call["output"]),
    ];
    lines.extend(fields(9, told.map(|(name, value)| (name, text(value)))));
    lines.join("\n")
}

/// What would happen, and what would stop it.
fn dry_run_card(would: &Value) -> String {
    let mut lines = vec![match would["would_run"] == true {
        true => "it would be made".to_owned(),
        false => "it would not be made".to_owned(),
    }];
    for problem in would["problems"].as_array().into_iter().flatten() {
        let detail = problem["detail"].as_str().or(problem["message"].as_str());
        let said = detail.map_or_else(|| problem.to_string(), str::to_owned);
        lines.push(format!("problem   {said}"));
    }
    if would["requires_approval"] == true {
        let reasons = text(&would["approval_reasons"]);
        lines.push(format!("approval  a person is asked: {reasons}"));
    }
    let told = [
        ("instance", &would["instance"]),
        ("plugin", &would["plugin_digest"]),
        ("with", &would["credentials"]),
    ];
    lines.extend(fields(9, told.map(|(name, value)| (name, text(value)))));
    if would["request"].is_object() {
        lines.push(format!("request   {:#}", would["request"]));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_a_call_can_be_asked_for() {
        for name in CallStatus::ALL.map(CallStatus::as_str) {
            let status: CallStatus = serde_json::from_value(json!(name)).expect(name);
            assert_eq!(status.as_str(), name);
        }
    }

    #[test]
    fn a_call_that_has_not_ended_says_what_to_type_next() {
        let call = |status: &str| json!({ "id": "C", "approval_id": "A", "status": status });
        let said = |status: &str| next(&call(status)).unwrap_or_default();
        assert!(said("awaiting_approval").contains("tsunami approval approve A"));
        assert!(said("running").contains("tsunami skill show C"));
        for resolution in ["done", "again"] {
            let command = format!("tsunami skill resolve C {resolution}");
            assert!(said("outcome_unknown").contains(&command));
        }
        for ended in ["succeeded", "failed", "rejected", "cancelled"] {
            assert_eq!(next(&call(ended)), None, "{ended}");
        }
    }
}
