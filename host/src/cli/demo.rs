//! `tsunami demo`: the main job, on real parts. A message to Slack waits for an approval, is sent through the tenant's
//! own OpenClaw, and leaves a trace.
//!
//! With `SLACK_BOT_TOKEN` and `SLACK_CHANNEL` it goes to the real Slack. Without, the plugin's setting `base_url`
//! points at a small recorder in this process, and the request that arrived there is printed.

use super::{
    api::Api,
    commands::{follow_task, id_of_tenant, text, timeline, wait_for_instance},
    dev::{DevArgs, Stack, write_private},
    serve::Stop,
};
use crate::config::env_var;
use anyhow::Context;
use axum::{Router, extract::Request, routing::any};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Where `scripts/plugins` puts Slack.
const SLACK: &str = "plugins/target/wasm32-wasip2/release/slack.wasm";
const RECORDER_TOKEN: &str = "xoxb-000000000000-000000000000-demo000000000000000a3f2";
/// Of the demo's tenant.
const SLUG: &str = "acme";
const BODY_BYTES_MAX: usize = 1 << 20;

pub async fn demo(mut args: DevArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let target = Target::choose().await?;
    args.private_hosts.extend(target.host.clone());
    let began = Instant::now();
    println!("1. Starting PostgreSQL, Temporal, the API and the worker.");
    let stack = Stack::start(&args, file, true, stop.asked()).await?;
    println!("{}\n", indented(stack.where_everything_is()));
    let shown = tokio::select! {
        shown = Box::pin(show(&stack, &target, began)) => shown,
        () = stop.asked() => Err(anyhow::anyhow!("it was stopped before the main job was done")),
    };
    if shown.is_ok() {
        stop.asked().await;
    }
    println!("stopping");
    stack.stop().await;
    shown
}

/// What to try when the main job is done, in an order in which it works.
const NEXT: [&str; 9] = [
    "tsunami task list",
    r##"tsunami task create 'Say hello' --step 'slack.send_message={"channel":"#finance","text":"hello"}' --follow"##,
    "tsunami approval list                                      # what waits for a person",
    "tsunami approval show APPROVAL_ID                          # exactly what would be done",
    "tsunami approval approve APPROVAL_ID --note 'looks right'",
    "tsunami task trace TASK_ID",
    "tsunami skill call slack.list_channels --dry-run",
    "tsunami skill config show slack                            # the company's rules",
    "tsunami plugin list",
];
/// Where those lines go, unless the demo goes to a real Slack.
const CHANNEL: &str = "#finance";

async fn show(stack: &Stack, target: &Target, began: Instant) -> anyhow::Result<()> {
    let owner = tenant(stack).await?;
    agent(&owner).await?;
    println!("3. Deploying the tenant's own OpenClaw instance (10 to 20 s the first time).");
    instance(&owner).await?;
    println!("4. Installing the Slack plugin, a sandboxed WebAssembly component.");
    let component = std::fs::read(SLACK)
        .with_context(|| format!("{SLACK} is not there; run scripts/plugins"))?;
    let plugin = owner
        .upload("/plugins", "application/wasm", component)
        .await?;
    println!(
        "   {} actions, hosts {}, digest {:.16}...",
        plugin["actions"].as_array().map_or(0, Vec::len),
        text(&plugin["hosts"]),
        text(&plugin["digest"])
    );
    println!("   {}", target.about);
    println!("5. Storing the bot token, and asking for an approval of every `send_message`.");
    let stored = owner
        .post(
            "/skill-creds",
            &json!({ "skill": "slack", "key": "bot_token", "value": target.token }),
        )
        .await?;
    println!(
        "   stored as {}:****{}",
        text(&stored["key"]),
        text(&stored["last_4"])
    );
    let configs = owner.all("/skill-configs").await?;
    let config = configs
        .iter()
        .find(|c| c["skill"] == "slack")
        .context("the skill has no configuration")?;
    let rules = json!({ "approval_actions": ["send_message"], "settings": target.settings, "rate_limit": { "max_actions": 100, "per_seconds": 3600 },
        "allowed_scopes": { "channels": [target.channel] } });
    owner
        .patch(&format!("/skill-configs/{}", text(&config["id"])), &rules)
        .await?;

    println!(
        "6. Creating the task: Send Q4 summary to {} channel on Slack",
        target.channel
    );
    let objective = format!("Send Q4 summary to {} channel on Slack", target.channel);
    let step = json!({ "skill": "slack", "action": "send_message", "params": { "channel": target.channel, "text": "Q4 summary: revenue up 12 %, costs flat." } });
    let task = owner.post("/agent-tasks", &json!({ "objective": objective, "capabilities": ["data_analysis"], "plan": { "steps": [step] } })).await?;
    let id = text(&task["id"]);
    let waiting = follow_task(&owner, &id).await?;
    println!(
        "   the task is {}: {}",
        text(&waiting["status"]),
        text(&waiting["waiting_for"])
    );
    println!("7. Approving it.");
    owner
        .post(
            &format!("/agent-tasks/{id}/approve"),
            &json!({ "approval_id": waiting["waiting_for"]["approval_id"], "note": "looks right" }),
        )
        .await?;
    let ended = loop {
        let task = follow_task(&owner, &id).await?;
        if task["status"] != "waiting_input" {
            break task;
        }
        tokio::task::yield_now().await;
    };
    let trace = owner.get(&format!("/agent-tasks/{id}/trace")).await?;
    println!(
        "\nThe task is {}. Its trace:\n{}\n",
        text(&ended["status"]),
        timeline(&trace)
    );
    target.tell();
    anyhow::ensure!(
        ended["status"] == "completed",
        "the task did not complete: {}",
        text(&ended["error"]["message"])
    );
    println!(
        "Finished {} s after the start. Everything stays up; press Ctrl-C to stop. Try next, in another terminal:\n",
        began.elapsed().as_secs()
    );
    let program = std::env::current_exe()?;
    println!(
        "  export PATH=\"{}:$PATH\"\n  export TSUNAMI_URL={} TSUNAMI_API_KEY=$(cat {})",
        program.parent().unwrap_or(&program).display(),
        stack.url(),
        stack.data_dir().join("demo-owner-key").display()
    );
    for line in NEXT {
        println!("  {}", line.replace(CHANNEL, &target.channel));
    }
    Ok(())
}

/// The demo's tenant, made on the first run. Where that one was killed before it had written the key down, or the key
/// is not valid any more, there is a new key.
async fn tenant(stack: &Stack) -> anyhow::Result<Api> {
    let key_file = stack.data_dir().join("demo-owner-key");
    let operator = Api::new(&stack.url(), &stack.operator_key)?;
    if let Ok(key) = std::fs::read_to_string(&key_file) {
        let owner = operator.with_key(key.trim());
        if owner.get("/tenant").await.is_ok() {
            println!("2. Using the tenant and the agent of the last run.");
            return Ok(owner);
        }
    }
    let key = match id_of_tenant(&operator, SLUG).await? {
        Some(id) => {
            println!("2. Using the tenant of an earlier run, with a new key.");
            let name = json!({ "name": "demo" });
            let path = format!("/tenants/{id}/owner-keys");
            text(&operator.post(&path, &name).await?["secret"])
        }
        None => {
            println!("2. Creating a tenant, Acme, and an agent.");
            let new = json!({ "name": "Acme", "slug": SLUG });
            text(&operator.post("/tenants", &new).await?["owner_key"])
        }
    };
    write_private(&key_file, &key)?;
    Ok(operator.with_key(&key))
}

async fn agent(owner: &Api) -> anyhow::Result<()> {
    if owner.all("/agents").await?.is_empty() {
        let agent = json!({ "name": "data_analyst", "description": "Summarises numbers and tells people.",
            "capabilities": ["data_analysis", "reporting"], "trust": 0.8, "skills": [{ "skill": "slack", "proficiency": 0.9 }] });
        owner.post("/agents", &agent).await?;
    }
    Ok(())
}

async fn instance(owner: &Api) -> anyhow::Result<()> {
    let instances = owner.all("/instances").await?;
    let live = instances.iter().find(|i| i["status"] != "destroyed");
    let id = match live {
        None => text(&owner.post("/instances", &json!({})).await?["id"]),
        Some(instance) => {
            let id = text(&instance["id"]);
            if matches!(instance["status"].as_str(), Some("stopped" | "error")) {
                owner
                    .post(&format!("/instances/{id}/start"), &json!({}))
                    .await?;
            }
            id
        }
    };
    let instance = wait_for_instance(owner, &id, &["running"]).await?;
    println!(
        "   {} is {} (OpenClaw {}, {})",
        text(&instance["name"]),
        text(&instance["status"]),
        text(&instance["version"]),
        text(&instance["health"]["detail"])
    );
    Ok(())
}

/// Where the message goes.
struct Target {
    about: String,
    /// Of this machine, where it is one.
    host: Option<String>,
    token: String,
    channel: String,
    settings: Value,
    recorded: Option<Arc<Mutex<Vec<String>>>>,
}

impl Target {
    async fn choose() -> anyhow::Result<Self> {
        match (env_var("SLACK_BOT_TOKEN"), env_var("SLACK_CHANNEL")) {
            (Some(token), Some(channel)) => Ok(Self {
                about: format!("The message goes to the real Slack, {channel}."),
                host: None,
                token,
                channel,
                settings: json!({}),
                recorded: None,
            }),
            _ => Self::recorder().await,
        }
    }

    /// Stands where Slack would: notes what arrives, and answers as Slack does.
    async fn recorder() -> anyhow::Result<Self> {
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let notes = recorded.clone();
        let handler = move |request: Request| {
            let notes = notes.clone();
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                let token = request
                    .headers()
                    .get("authorization")
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or_default()
                    .to_owned();
                let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)
                    .await
                    .unwrap_or_default();
                let note = format!(
                    "{line}\nauthorization: {}\n{}",
                    masked(&token),
                    String::from_utf8_lossy(&body)
                );
                notes
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(note);
                axum::Json(
                    json!({ "ok": true, "channel": "C0FINANCE", "ts": "1700000000.000100", "channels": [], "messages": [] }),
                )
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let base_url = format!("http://{host}/api");
        tokio::spawn(
            async move { axum::serve(listener, Router::new().fallback(any(handler))).await },
        );
        Ok(Self {
            about: format!(
                "No SLACK_BOT_TOKEN and SLACK_CHANNEL: the message goes to a recorder at {base_url} that stands in for Slack."
            ),
            host: Some(host),
            token: RECORDER_TOKEN.into(),
            channel: "#finance".into(),
            settings: json!({ "base_url": base_url }),
            recorded: Some(recorded),
        })
    }

    fn tell(&self) {
        let Some(recorded) = &self.recorded else {
            return;
        };
        let notes = recorded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        println!(
            "The recorder that stands in for Slack got {} request(s):",
            notes.len()
        );
        for note in notes.iter() {
            println!("{}\n", indented(note));
        }
    }
}

/// The end of a token is enough to know it by.
fn masked(authorization: &str) -> String {
    let end: String = authorization
        .chars()
        .rev()
        .take(4)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    format!("Bearer ****{end}")
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("   {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_what_the_demo_prints_last() {
        let readme = include_str!("../../../README.md");
        for line in NEXT {
            assert!(readme.contains(line), "{line}");
        }
    }
}
