//! A tenant with what it needs to act: an agent, an instance, Slack and a token.

use crate::{api::Api, component, eventually, gateway::Gateway, recorder::Recorder};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Clone)]
pub struct Company {
    pub id: String,
    /// As its first owner.
    pub owner: Api,
    pub instance: String,
}

impl Company {
    /// A tenant with one owner and nothing else.
    pub async fn found(gateway: &Gateway, slug: &str) -> Self {
        Self::found_by(&gateway.operator(), slug).await
    }

    /// The same, where there is no gateway of the harness.
    pub async fn found_by(operator: &Api, slug: &str) -> Self {
        let new = json!({ "name": slug, "slug": slug });
        let created = operator.post("/tenants", &new).await.ok();
        Self {
            id: text(&created["tenant"]["id"]),
            owner: operator.with_key(&text(&created["owner_key"])),
            instance: String::new(),
        }
    }

    /// With an agent and Slack, which is the recorder, and without an instance.
    pub async fn with_slack(gateway: &Gateway, slug: &str, slack: &Recorder, token: &str) -> Self {
        let company = Self::found(gateway, slug).await;
        company.equip(&slack.url, token).await;
        company
    }

    /// Adds an agent and Slack, which is at `slack`.
    pub async fn equip(&self, slack: &str, token: &str) {
        let agent = json!({ "name": "data_analyst", "capabilities": ["reporting"], "trust": 0.8,
            "skills": [{ "skill": "slack", "proficiency": 0.9 }] });
        self.owner.post("/agents", &agent).await.ok();
        self.install("slack").await;
        self.store_credential("slack", "bot_token", token).await;
        let settings = json!({ "settings": { "base_url": slack } });
        self.configure("slack", &settings).await;
    }

    /// With everything, and an instance that runs.
    pub async fn ready(gateway: &Gateway, slug: &str, slack: &Recorder, token: &str) -> Self {
        let mut company = Self::with_slack(gateway, slug, slack, token).await;
        company.deploy().await;
        company
    }

    pub async fn deploy(&mut self) {
        let instance = self.owner.post("/instances", &json!({})).await.ok();
        self.instance = text(&instance["id"]);
        self.instance_is("running").await;
    }

    pub async fn instance_is(&self, status: &str) -> Value {
        let path = format!("/instances/{}", self.instance);
        eventually(&format!("the instance is {status}"), || async {
            let instance = self.owner.get(&path).await.ok();
            assert!(
                status == "error" || instance["status"] != "error",
                "{instance}"
            );
            (instance["status"] == status).then_some(instance)
        })
        .await
    }

    pub async fn install(&self, plugin: &str) -> Value {
        self.owner.upload("/plugins", component(plugin)).await.ok()
    }

    pub async fn store_credential(&self, skill: &str, key: &str, value: &str) -> Value {
        let credential = json!({ "skill": skill, "key": key, "value": value });
        self.owner.post("/skill-creds", &credential).await.ok()
    }

    pub async fn configure(&self, skill: &str, change: &Value) -> Value {
        let configs = self.owner.get("/skill-configs").await.ok();
        let found = configs["items"].as_array().into_iter().flatten();
        let config = found.clone().find(|config| config["skill"] == skill);
        let id = text(&config.expect("the skill has a configuration")["id"]);
        let path = format!("/skill-configs/{id}");
        self.owner.patch(&path, change).await.ok()
    }

    /// A task of one step that sends a message.
    pub async fn ask_to_send(&self, message: &str) -> String {
        let created = self.owner.post("/agent-tasks", &sending(message)).await;
        text(&created.ok()["id"])
    }

    pub async fn task(&self, id: &str) -> Value {
        self.owner.get(&format!("/agent-tasks/{id}")).await.ok()
    }

    /// Waits until the task is in one of the states; fails where it ends in another.
    pub async fn task_is(&self, id: &str, statuses: &[&str]) -> Value {
        let ended = ["completed", "failed", "cancelled"];
        eventually(&format!("the task is {statuses:?}"), || async {
            // The API may be away for a moment.
            let request = self
                .owner
                .request(reqwest::Method::GET, &format!("/agent-tasks/{id}"));
            let task = Api::try_send(request.timeout(Duration::from_secs(5)))
                .await
                .ok()?;
            let task = task.status.is_success().then(|| task.json())?;
            let status = text(&task["status"]);
            if statuses.contains(&status.as_str()) {
                return Some(task);
            }
            assert!(!ended.contains(&status.as_str()), "{task:#}");
            None
        })
        .await
    }

    pub async fn approve(&self, id: &str) {
        let path = format!("/agent-tasks/{id}/approve");
        self.owner.post(&path, &json!({})).await.ok();
    }

    /// The steps of a task's trace, in order.
    pub async fn trace(&self, id: &str) -> Vec<Value> {
        let trace = self
            .owner
            .get(&format!("/agent-tasks/{id}/trace"))
            .await
            .ok();
        trace.as_array().cloned().unwrap_or_default()
    }

    pub async fn trace_types(&self, id: &str) -> Vec<String> {
        let steps = self.trace(id).await;
        steps.iter().map(|step| text(&step["step_type"])).collect()
    }
}

/// A task of one step that sends a message.
pub fn sending(message: &str) -> Value {
    json!({
        "objective": format!("Send \"{message}\" to #finance channel on Slack"),
        "plan": { "steps": [{ "skill": "slack", "action": "send_message",
            "params": { "channel": "#finance", "text": message } }] },
    })
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
