//! The API's operations, for people: tables to read, `--json` for programs.

use super::{
    api::{Api, query},
    ask::{self, Yes},
    exit::Unended,
    plugin::{self, PluginCommand},
};
use crate::tasks::http::TaskStatus;
use anyhow::{Context, bail};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tsunami_plugin_host::is_unprintable;

/// How often progress is looked at.
pub const POLL: Duration = Duration::from_millis(400);
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Decision {
    /// The approval that is decided, and no other.
    #[arg(long)]
    approval: Option<String>,
    #[arg(long)]
    note: Option<String>,
}

#[derive(Subcommand)]
pub enum ApiCommand {
    /// Tenants, for operators.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Tasks.
    #[command(subcommand)]
    Task(TaskCommand),
    /// The tenant's OpenClaw instance.
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Credentials.
    #[command(subcommand)]
    Cred(CredCommand),
    /// Plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Routing policies: what may go ahead, and what a person must agree to.
    #[command(subcommand)]
    Policy(super::policy::PolicyCommand),
    /// Calls of skills.
    #[command(subcommand)]
    Skill(super::skill::SkillCommand),
    /// The people of the tenant.
    #[command(subcommand)]
    User(super::people::UserCommand),
    /// API keys.
    #[command(subcommand)]
    Key(super::people::KeyCommand),
    /// What waits for a person.
    #[command(subcommand)]
    Approval(super::approval::ApprovalCommand),
}

#[derive(Subcommand)]
pub enum TenantCommand {
    /// Create a tenant; prints the first owner's key, once.
    Create {
        name: String,
        #[arg(long)]
        slug: String,
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Make a tenant an owner's key anew, where it was lost; prints it, once.
    OwnerKey {
        /// Its id or its slug.
        tenant: String,
        /// How the tenant's people see the key in their list.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum AgentCommand {
    Create {
        name: String,
        /// What it can do; may be given several times.
        #[arg(long = "can")]
        capabilities: Vec<String>,
        /// A skill and how good it is at it, 0 to 1: `slack=0.9`. May be given several times.
        #[arg(long = "skill")]
        skills: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum TaskCommand {
    /// Create a task, and follow it with --follow.
    Create {
        /// What is to be done, in words.
        objective: String,
        /// A step: `slack.send_message={"channel":"#finance","text":"hello"}`. May be given several times.
        #[arg(long = "step")]
        steps: Vec<String>,
        /// Stay until it ends or a person is asked.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        output: Output,
    },
    List {
        /// Only those that are this.
        #[arg(long, value_parser = PossibleValuesParser::new(TaskStatus::ALL.map(TaskStatus::as_str)))]
        status: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    Show {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// What happened, step by step.
    Trace {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Approve one request of a task. Without --approval, shows the one that waits and decides nothing.
    Approve {
        id: String,
        #[command(flatten)]
        decision: Decision,
        #[command(flatten)]
        output: Output,
    },
    /// Reject one request of a task. Without --approval, shows the one that waits and decides nothing.
    Reject {
        id: String,
        #[command(flatten)]
        decision: Decision,
        #[command(flatten)]
        output: Output,
    },
    Cancel {
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum InstanceCommand {
    /// Deploy the tenant's instance, and wait until it runs.
    Deploy {
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
    Stop {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    Start {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    Restart {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// End the instance for good. Its data goes with it.
    Destroy {
        id: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
    Logs {
        id: String,
        #[arg(long, default_value_t = 100)]
        lines: usize,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum CredCommand {
    /// What a skill takes, and how each is had.
    Schema(super::sign_in::Schema),
    /// Show or register the client of a credential that is had by signing in.
    Client(super::sign_in::Client),
    /// Sign in for a credential, in a browser.
    SignIn(super::sign_in::SignIn),
    /// Store a credential. Its value is read from standard input; on a terminal it is asked for, and not shown.
    Set {
        skill: String,
        key: String,
        /// When the service stops taking it, if it does: `2027-01-31`, or `2027-01-31T12:00:00Z`.
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        expires: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Forget a credential's value, and have the provider of one that was signed in for revoke it.
    Revoke {
        id: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
}

pub async fn run(command: ApiCommand) -> anyhow::Result<()> {
    let api = Api::from_environment;
    match command {
        ApiCommand::Tenant(command) => tenant(command, &api()?).await,
        ApiCommand::Agent(command) => agent(command, &api()?).await,
        ApiCommand::Task(command) => task(command, &api()?).await,
        ApiCommand::Instance(command) => instance(command, &api()?).await,
        ApiCommand::Cred(command) => cred(command, &api()?).await,
        ApiCommand::Plugin(command) => plugin::run(command).await,
        ApiCommand::Policy(command) => super::policy::run(command, &api()?).await,
        ApiCommand::Skill(command) => super::skill::run(command, &api()?).await,
        ApiCommand::User(command) => super::people::user(command, &api()?).await,
        ApiCommand::Key(command) => super::people::key(command, &api()?).await,
        ApiCommand::Approval(command) => super::approval::run(command, &api()?).await,
    }
}

async fn tenant(command: TenantCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create { name, slug, output } => {
            let created = api
                .post("/tenants", &json!({ "name": name, "slug": slug }))
                .await?;
            if !output.json {
                eprintln!("the first owner's key, shown this once:");
            }
            show(&output, &created, |v| text(&v["owner_key"]))
        }
        TenantCommand::List { output } => list(
            &output,
            api.all("/tenants").await?,
            &["id", "slug", "name", "created_at"],
        ),
        TenantCommand::OwnerKey {
            tenant,
            name,
            output,
        } => {
            let id = match uuid::Uuid::parse_str(&tenant) {
                Ok(_) => tenant,
                Err(_) => id_of_tenant(api, &tenant).await?.with_context(|| {
                    format!("no tenant has the slug `{tenant}`; `tsunami tenant list` shows all")
                })?,
            };
            let body = name.map_or(json!({}), |name| json!({ "name": name }));
            let made = api
                .post(&format!("/tenants/{id}/owner-keys"), &body)
                .await?;
            if !output.json {
                eprintln!("an owner's key, shown this once:");
            }
            show(&output, &made, |v| text(&v["secret"]))
        }
    }
}

/// The tenant with this slug, if there is one.
pub async fn id_of_tenant(api: &Api, slug: &str) -> anyhow::Result<Option<String>> {
    let tenants = api.all("/tenants").await?;
    let found = tenants.iter().find(|tenant| tenant["slug"] == slug);
    Ok(found.map(|tenant| text(&tenant["id"])))
}

async fn agent(command: AgentCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        AgentCommand::Create {
            name,
            capabilities,
            skills,
            output,
        } => {
            let skills = skills
                .iter()
                .map(|s| parse_skill(s))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let created = api
                .post(
                    "/agents",
                    &json!({ "name": name, "capabilities": capabilities, "skills": skills }),
                )
                .await?;
            show(&output, &created, |v| text(&v["id"]))
        }
        AgentCommand::List { output } => list(
            &output,
            api.all("/agents").await?,
            &["id", "name", "status", "backend", "trust", "capabilities"],
        ),
    }
}

fn parse_skill(text: &str) -> anyhow::Result<Value> {
    let (skill, proficiency) = text
        .split_once('=')
        .with_context(|| format!("`{text}` must read skill=proficiency: slack=0.9"))?;
    let proficiency: f64 = proficiency
        .parse()
        .with_context(|| format!("`{proficiency}` is no number"))?;
    Ok(json!({ "skill": skill, "proficiency": proficiency }))
}

async fn task(command: TaskCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        TaskCommand::Create {
            objective,
            steps,
            follow,
            output,
        } => {
            let steps = steps
                .iter()
                .map(|s| parse_step(s))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let created = api
                .post(
                    "/agent-tasks",
                    &json!({ "objective": objective, "plan": { "steps": steps } }),
                )
                .await?;
            if follow {
                let ended = follow_task(api, &text(&created["id"])).await?;
                return followed(&output, &ended);
            }
            show(&output, &created, |v| text(&v["id"]))
        }
        TaskCommand::List { status, output } => {
            let filter = query([("status", status)]);
            list(
                &output,
                api.all(&format!("/agent-tasks{filter}")).await?,
                &["id", "status", "priority", "objective", "created_at"],
            )
        }
        TaskCommand::Show { id, output } => {
            show_task(&output, &api.get(&format!("/agent-tasks/{id}")).await?)
        }
        TaskCommand::Trace { id, output } => {
            let trace = api.get(&format!("/agent-tasks/{id}/trace")).await?;
            show(&output, &trace, timeline)
        }
        TaskCommand::Approve {
            id,
            decision,
            output,
        } => decide(api, &id, "approve", decision, &output).await,
        TaskCommand::Reject {
            id,
            decision,
            output,
        } => decide(api, &id, "reject", decision, &output).await,
        TaskCommand::Cancel { id, output } => show_task(
            &output,
            &api.post(&format!("/agent-tasks/{id}/cancel"), &json!({}))
                .await?,
        ),
    }
}

fn parse_step(text: &str) -> anyhow::Result<Value> {
    let (name, params) = text.split_once('=').unwrap_or((text, "{}"));
    let (skill, action) = name
        .split_once('.')
        .with_context(|| format!("`{name}` must read skill.action: slack.send_message"))?;
    let params: Value = serde_json::from_str(params)
        .with_context(|| format!("the parameters of {name} are no JSON"))?;
    Ok(json!({ "skill": skill, "action": action, "params": params }))
}

async fn decide(
    api: &Api,
    id: &str,
    what: &str,
    Decision { approval, note }: Decision,
    output: &Output,
) -> anyhow::Result<()> {
    let Some(approval) = approval else {
        let task = api.get(&format!("/agent-tasks/{id}")).await?;
        let pending = task["waiting_for"]["approval_id"].as_str();
        let pending = pending.context("the task waits for no approval")?;
        show_request(api, pending).await?;
        anyhow::bail!(
            "nothing is decided yet; this is: tsunami task {what} {id} --approval {pending}"
        );
    };
    // The task may ask for something else by now: what is shown is what is decided.
    show_request(api, &approval).await?;
    let decided = api
        .post(
            &format!("/agent-tasks/{id}/{what}"),
            &json!({ "approval_id": approval, "note": note }),
        )
        .await?;
    show(output, &decided, |v| {
        format!("{} {}", text(&v["request"]["action"]), text(&v["status"]))
    })
}

/// What a person is asked, on standard error.
pub async fn show_request(api: &Api, approval: &str) -> anyhow::Result<()> {
    let asked = api.get(&format!("/approvals/{approval}")).await?;
    let request = &asked["request"];
    let shown = format!(
        "{}.{}, asked for by {}, {} until {}\n{}\n{}",
        text(&request["skill"]),
        text(&request["action"]),
        text(&asked["requested_by"]),
        text(&asked["status"]),
        text(&asked["expires_at"]),
        text(&asked["reason"]),
        serde_json::to_string_pretty(&request["params"])?
    );
    eprintln!("{shown}");
    Ok(())
}

pub fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(TICK);
    progress
}

/// Shows progress until the task ends, or a person is asked.
pub async fn follow_task(api: &Api, id: &str) -> anyhow::Result<Value> {
    let progress = spinner();
    loop {
        let task = api.get(&format!("/agent-tasks/{id}")).await?;
        let status = text(&task["status"]);
        if matches!(
            status.as_str(),
            "completed" | "failed" | "cancelled" | "waiting_input"
        ) {
            progress.finish_and_clear();
            return Ok(task);
        }
        progress.set_message(status);
        tokio::time::sleep(POLL).await;
    }
}

/// A task, and on standard error what to type next where it waits for a person.
fn show_task(output: &Output, task: &Value) -> anyhow::Result<()> {
    show(output, task, task_card)?;
    if let Some(unended) = waits(task) {
        eprintln!("{unended}");
    }
    Ok(())
}

/// A task that was made and followed here; an error where it is not completed.
fn followed(output: &Output, task: &Value) -> anyhow::Result<()> {
    show(output, task, task_card)?;
    match waits(task) {
        Some(unended) => Err(unended.into()),
        None if task["status"] == "completed" => Ok(()),
        None => bail!("the task is {}", text(&task["status"])),
    }
}

/// What a task waits for, and what to type.
fn waits(task: &Value) -> Option<Unended> {
    let waiting = &task["waiting_for"];
    if waiting["outcome_unknown"].is_string() {
        let id = text(&task["id"]);
        return Some(Unended::OutcomeUnknown(format!(
            "somebody has to look: tsunami skill calls --task {id} --status outcome_unknown"
        )));
    }
    let approval = waiting["approval_id"].as_str()?;
    Some(Unended::WaitsForPerson(format!(
        "it waits for a person: tsunami approval show {approval}\n\
         who agrees types        tsunami approval approve {approval}"
    )))
}

fn task_card(v: &Value) -> String {
    let mut lines = vec![
        format!("{}  {}", text(&v["status"]), text(&v["objective"])),
        format!("id        {}", text(&v["id"])),
    ];
    for (name, value) in [
        ("waiting", &v["waiting_for"]),
        ("error", &v["error"]["message"]),
        ("output", &v["output"]),
    ] {
        if !value.is_null() {
            lines.push(format!("{name:<9} {}", text(value)));
        }
    }
    lines.join("\n")
}

/// The trace as people read it: when, what, how long, and the gist.
pub fn timeline(trace: &Value) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["#", "at", "step", "took", ""]);
    for step in trace.as_array().into_iter().flatten() {
        let at = text(&step["created_at"]);
        let clock = at
            .split('T')
            .nth(1)
            .unwrap_or(&at)
            .chars()
            .take(12)
            .collect::<String>();
        let took = step["duration_ms"]
            .as_i64()
            .map(|ms| format!("{ms} ms"))
            .unwrap_or_default();
        table.add_row([
            text(&step["step_order"]),
            clock,
            text(&step["step_type"]),
            took,
            gist(step),
        ]);
    }
    table.to_string()
}

fn gist(step: &Value) -> String {
    let d = &step["details"];
    match step["step_type"].as_str().unwrap_or_default() {
        "dispatched" => format!(
            "{} (match {})",
            text(&d["agent_name"]),
            text(&d["skill_match_score"])
        ),
        "memory_recall" => format!("{} memories", text(&d["memories_loaded"])),
        "executing" => format!("{} by {}", text(&d["tool_called"]), text(&d["backend"])),
        "approval_requested" => format!(
            "{}.{} {}",
            text(&d["skill"]),
            text(&d["action"]),
            d["params"]
        ),
        "approval_granted" => format!("by {}", text(&d["approved_by"])),
        "approval_rejected" => format!("by {}", text(&d["rejected_by"])),
        "skill_call" => {
            let what = if d["summary"].is_string() {
                text(&d["summary"])
            } else {
                text(&d["error"]["message"])
            };
            format!(
                "{}.{}: {} {what}, with {}",
                text(&d["skill"]),
                text(&d["action"]),
                text(&d["status"]),
                text(&d["credentials_used"])
            )
        }
        "delegated" => text(&d["objective"]),
        "completed" => format!("confidence {}", text(&d["confidence"])),
        "failed" => text(&d["error"]),
        _ => text(&d["reason"]),
    }
}

async fn instance(command: InstanceCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        InstanceCommand::Deploy { output } => {
            let created = api.post("/instances", &json!({})).await?;
            let instance = wait_for_instance(api, &text(&created["id"]), &["running"]).await?;
            show(&output, &instance, |v| {
                format!("{} {}", text(&v["name"]), text(&v["status"]))
            })
        }
        InstanceCommand::List { output } => list(
            &output,
            api.all("/instances").await?,
            &["id", "name", "status", "version", "error"],
        ),
        InstanceCommand::Stop { id, output } => {
            change_instance(api, &id, "stop", "stopped", &output).await
        }
        InstanceCommand::Start { id, output } => {
            change_instance(api, &id, "start", "running", &output).await
        }
        InstanceCommand::Restart { id, output } => {
            change_instance(api, &id, "restart", "running", &output).await
        }
        InstanceCommand::Destroy { id, yes, output } => {
            let instance = api.get(&format!("/instances/{id}")).await?;
            yes.or_ask(&format!(
                "Destroy {}, which is {}? Its data goes with it, and does not come back.",
                text(&instance["name"]),
                text(&instance["status"])
            ))?;
            api.delete(&format!("/instances/{id}")).await?;
            let destroyed = wait_for_instance(api, &id, &["destroyed"]).await?;
            show(&output, &destroyed, |v| text(&v["status"]))
        }
        InstanceCommand::Logs { id, lines, output } => {
            let logs = api
                .get(&format!("/instances/{id}/logs?lines={lines}"))
                .await?;
            show(&output, &logs, |v| {
                let lines = v["lines"].as_array().into_iter().flatten();
                lines.map(text).collect::<Vec<_>>().join("\n")
            })
        }
    }
}

async fn change_instance(
    api: &Api,
    id: &str,
    what: &str,
    until: &str,
    output: &Output,
) -> anyhow::Result<()> {
    api.post(&format!("/instances/{id}/{what}"), &json!({}))
        .await?;
    let instance = wait_for_instance(api, id, &[until]).await?;
    show(output, &instance, |v| {
        format!("{} {}", text(&v["name"]), text(&v["status"]))
    })
}

/// Shows progress until the instance is where it should be.
///
/// # Errors
/// Where it cannot come there any more: it failed, or somebody asked for something else meanwhile.
pub async fn wait_for_instance(api: &Api, id: &str, until: &[&str]) -> anyhow::Result<Value> {
    let progress = spinner();
    loop {
        let instance = api.get(&format!("/instances/{id}")).await?;
        let status = text(&instance["status"]);
        if until.contains(&status.as_str()) {
            progress.finish_and_clear();
            return Ok(instance);
        }
        if let Some(why) = never(&instance, until) {
            progress.finish_and_clear();
            anyhow::bail!(why);
        }
        progress.set_message(format!("the instance is {status}"));
        tokio::time::sleep(POLL).await;
    }
}

/// Why an instance does not come to one of these by itself any more, if it does not.
fn never(instance: &Value, until: &[&str]) -> Option<String> {
    let status = instance["status"].as_str().unwrap_or_default();
    match status {
        "error" => Some(format!("the instance failed: {}", text(&instance["error"]))),
        // What is desired was set with the status: the wait began after that, and these are somebody else's wish.
        "stopping" | "stopped" if until == ["running"] => Some(format!(
            "the instance is {status}: somebody stopped it meanwhile. `tsunami instance start {}` starts it",
            text(&instance["id"])
        )),
        "destroying" | "destroyed" if !until.contains(&"destroyed") => Some(format!(
            "the instance is {status}: somebody destroyed it meanwhile. `tsunami instance deploy` makes another"
        )),
        _ => None,
    }
}

async fn cred(command: CredCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        CredCommand::Schema(asked) => super::sign_in::schema(&asked, api).await,
        CredCommand::Client(asked) => super::sign_in::client(&asked, api).await,
        CredCommand::SignIn(asked) => super::sign_in::sign_in(&asked, api).await,
        CredCommand::Set {
            skill,
            key,
            expires,
            output,
        } => {
            let value = ask::secret(&format!("value of {skill}/{key}"))?;
            let mut new = json!({ "skill": skill, "key": key, "value": value });
            if let Some(at) = expires {
                new["expires_at"] = json!(at);
            }
            let stored = api.post("/skill-creds", &new).await?;
            show(&output, &stored, |v| {
                let until = match v["expires_at"].as_str() {
                    Some(at) => format!(" until {at}"),
                    None => String::new(),
                };
                format!("{}:****{}{until}", text(&v["key"]), text(&v["last_4"]))
            })
        }
        CredCommand::List { output } => list(
            &output,
            api.all("/skill-creds").await?,
            &[
                "id",
                "skill",
                "key",
                "last_4",
                "status",
                "expires_at",
                "last_used_at",
            ],
        ),
        CredCommand::Revoke { id, yes, output } => {
            let stored = api.get(&format!("/skill-creds/{id}")).await?;
            yes.or_ask(&format!(
                "Revoke {} of {}, ****{}? Its value is forgotten, and what the skill does with it fails from then on.",
                text(&stored["key"]),
                text(&stored["skill"]),
                text(&stored["last_4"])
            ))?;
            let revoked = api.delete(&format!("/skill-creds/{id}")).await?;
            show(&output, &revoked, |v| text(&v["status"]))
        }
    }
}

pub fn show(
    output: &Output,
    value: &Value,
    readable: impl FnOnce(&Value) -> String,
) -> anyhow::Result<()> {
    match output.json {
        // A program reads it: not a character is another one.
        true => std::println!("{}", escaped(&serde_json::to_string_pretty(value)?)),
        false => println!("{}", readable(value)),
    }
    Ok(())
}

/// What others wrote, as a terminal may show it: nothing in it moves the cursor, hides or turns around what stands there.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match is_unprintable(c) {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().map(shown).collect()
}

/// JSON with the same characters written as escapes: it means the same, and may be shown.
pub fn escaped(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match is_unprintable(c) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    shown
}

/// A line for each that says something, with its name in a column so wide.
pub fn fields<'a>(
    width: usize,
    all: impl IntoIterator<Item = (&'a str, String)>,
) -> impl Iterator<Item = String> {
    let told = all.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(move |(name, value)| format!("{name:<width$} {value}"))
}

pub fn list(output: &Output, items: Vec<Value>, columns: &[&str]) -> anyhow::Result<()> {
    show(output, &json!(items), |_| table(&items, columns))
}

/// Things as rows.
pub fn table(items: &[Value], columns: &[&str]) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(columns.iter().map(|c| c.replace('_', " ")));
    for item in items {
        table.add_row(columns.iter().map(|column| text(&item[*column])));
    }
    table.to_string()
}

/// A day, or a moment, as the API takes it.
pub fn moment(text: &str) -> Result<String, String> {
    let whole = match text.contains('T') {
        true => text.to_owned(),
        false => format!("{text}T00:00:00Z"),
    };
    match OffsetDateTime::parse(&whole, &Rfc3339) {
        Ok(_) => Ok(whole),
        Err(_) => Err("must be a day or a moment: 2027-01-31, or 2027-01-31T12:00:00Z".to_owned()),
    }
}

/// A value without the quotes of JSON; a list as its entries.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_an_instance_that_does_not_come() {
        let ends = |status: &str, until: &[&str]| {
            never(
                &json!({ "id": "I", "status": status, "error": "no disk" }),
                until,
            )
            .is_some()
        };
        for (status, until) in [
            ("error", "running"),
            ("stopping", "running"),
            ("stopped", "running"),
            ("destroying", "running"),
            ("destroyed", "running"),
            ("destroyed", "stopped"),
        ] {
            assert!(ends(status, &[until]), "{status}, for {until}");
        }
        for (status, until) in [
            ("provisioning", "running"),
            ("upgrading", "running"),
            ("stopping", "stopped"),
            ("destroying", "destroyed"),
        ] {
            assert!(!ends(status, &[until]), "{status}, for {until}");
        }
    }

    #[test]
    fn what_others_wrote_cannot_act_on_the_terminal() {
        let readme = "fine\n\tand \u{1b}[2J\u{1b}]0;title\u{7} \u{202e}gpj.exe\r\u{9b}1A";
        let shown = printable(readme);
        assert!(shown.starts_with("fine\n\tand "), "{shown}");
        for harmful in ['\u{1b}', '\u{7}', '\u{202e}', '\r', '\u{9b}'] {
            assert!(!shown.contains(harmful), "{harmful:?}");
        }
    }

    #[test]
    fn json_that_may_be_shown_means_the_same() {
        let value = json!({ "name": "\u{1b}[2J \u{202e}\u{7f}\u{9b} Zoë\n" });
        let shown = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(is_unprintable), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_day_and_a_moment_are_taken_and_nothing_else() {
        assert_eq!(moment("2027-01-31").unwrap(), "2027-01-31T00:00:00Z");
        for same in ["2027-01-31T12:00:00Z", "2027-01-31T12:00:00+02:00"] {
            assert_eq!(moment(same).unwrap(), same);
        }
        for wrong in [
            "",
            "tomorrow",
            "2027-02-30",
            "31.1.2027",
            "2027-01-31T12:00",
        ] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
