//! kill -9 of the tenant's OpenClaw at any step: no second message, no task that is lost, and none that claims what it
//! cannot know.

use crate::{CANARY, Stories, Theatre, own};
use serde_json::json;
use std::sync::Arc;
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::Gateway,
    processes,
    recorder::Recorder,
    stage::{Moment, Stage},
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "an_instance_killed_at_any_step_sends_nothing_twice",
        any_step,
    );
}

/// Writes around the sending of the request: the instance dies when one is about to be done.
const MOMENTS: [Moment; 3] = [
    Moment {
        name: "the call begins",
        table: "skill_calls",
        operation: "update",
        rows: "new.status = 'running' and old.status <> 'running'",
    },
    Moment {
        name: "the request is about to leave",
        table: "skill_call_requests",
        operation: "insert",
        rows: "true",
    },
    Moment {
        name: "the reply came",
        table: "skill_call_requests",
        operation: "update",
        rows: "new.status = 'finished'",
    },
];

struct Scene {
    gateway: Gateway,
    slack: Recorder,
    company: Company,
    pid_file: String,
}

impl Scene {
    async fn kill_instance(&self) {
        let pid = eventually("the instance's process is there", || async {
            self.gateway.pid_of(&self.pid_file)
        });
        processes::end(pid.await);
    }

    /// Waits until the service has the request, and kills the instance before there is an answer.
    async fn kill_in_flight(&self, message: &str, earlier: usize) {
        eventually("the request arrives", || async {
            (self.slack.count(message) > earlier).then_some(())
        })
        .await;
        self.kill_instance().await;
        self.slack.release();
    }
}

async fn any_step() {
    let gateway = Gateway::start().await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "bereaved", &slack, CANARY).await;
    let instance = company.instance_is("running").await;
    let pid_file = format!("instances/{}/pid", text(&instance["name"]));
    let scene = Scene {
        gateway,
        slack,
        company,
        pid_file,
    };

    for moment in MOMENTS {
        let mut stage = Stage::set(&scene.gateway, moment).await;
        let task = scene.company.ask_to_send(moment.name).await;
        stage.reached().await;
        scene.kill_instance().await;
        stage.clear().await;
        scene.company.task_is(&task, &["completed"]).await;
        let sent = scene.slack.count(moment.name);
        assert_eq!(sent, 1, "messages after a death when {}", moment.name);
    }
    idle(&scene).await;
    unknown_and_done(&scene).await;
    unknown_and_again(&scene).await;
    unknown_twice(&scene).await;
    revoked_meanwhile(&scene).await;
    reading_is_asked_again(&scene).await;
}

async fn idle(scene: &Scene) {
    scene.kill_instance().await;
    let task = scene.company.ask_to_send("while it is away").await;
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.count("while it is away"), 1);
}

/// Nobody can know whether the message was sent: a person says that it was.
async fn unknown_and_done(scene: &Scene) {
    let message = "unknown, and done";
    scene.slack.hold();
    let task = scene.company.ask_to_send(message).await;
    scene.kill_in_flight(message, 0).await;
    let call = unknown_call(scene, &task).await;
    let resolved = json!({ "resolution": "done", "note": "I saw it in the channel" });
    let path = format!("/skill-calls/{call}/resolve");
    scene.company.owner.post(&path, &resolved).await.ok();
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.count(message), 1);
    let again = scene.company.owner.post(&path, &resolved).await;
    assert_eq!(again.problem(409), "not_unknown");
}

/// A person says that it was not: it is sent again, once.
async fn unknown_and_again(scene: &Scene) {
    let message = "unknown, and sent again";
    scene.slack.hold();
    let task = scene.company.ask_to_send(message).await;
    scene.kill_in_flight(message, 0).await;
    let call = unknown_call(scene, &task).await;
    assert_eq!(scene.slack.count(message), 1, "never again by itself");
    let resolved = json!({ "resolution": "try_again" });
    let path = format!("/skill-calls/{call}/resolve");
    scene.company.owner.post(&path, &resolved).await.ok();
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.count(message), 2, "as the person said");
}

/// A person has it sent again, and again nobody can know: it is not sent a third time by itself.
async fn unknown_twice(scene: &Scene) {
    let message = "unknown, and unknown again";
    scene.slack.hold();
    let task = scene.company.ask_to_send(message).await;
    scene.kill_in_flight(message, 0).await;
    let call = unknown_call(scene, &task).await;
    let path = format!("/skill-calls/{call}/resolve");
    scene.slack.hold();
    let again = json!({ "resolution": "try_again" });
    scene.company.owner.post(&path, &again).await.ok();
    scene.kill_in_flight(message, 1).await;
    eventually("it is unknown again", || async {
        let call = scene
            .company
            .owner
            .get(&format!("/skill-calls/{call}"))
            .await
            .ok();
        (call["status"] == "outcome_unknown").then_some(())
    })
    .await;
    assert_eq!(scene.slack.count(message), 2, "never again by itself");
    let done = json!({ "resolution": "done" });
    scene.company.owner.post(&path, &done).await.ok();
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.count(message), 2);
}

/// What was sent was sent, also where it could not be sent any more: the call does not claim that it failed.
async fn revoked_meanwhile(scene: &Scene) {
    let message = "revoked meanwhile";
    let owner = &scene.company.owner;
    scene.slack.hold();
    let task = scene.company.ask_to_send(message).await;
    eventually("the request arrives", || async {
        (scene.slack.count(message) == 1).then_some(())
    })
    .await;
    let credentials = owner.get("/skill-creds").await.ok();
    let items = credentials["items"].as_array().cloned().unwrap_or_default();
    let active = items.iter().find(|one| one["status"] == "active");
    let id = text(&active.expect("a credential")["id"]);
    owner.delete(&format!("/skill-creds/{id}")).await.ok();
    scene.kill_instance().await;
    scene.slack.release();
    let call = unknown_call(scene, &task).await;
    scene
        .company
        .store_credential("slack", "bot_token", CANARY)
        .await;
    let done = json!({ "resolution": "done" });
    owner
        .post(&format!("/skill-calls/{call}/resolve"), &done)
        .await
        .ok();
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.count(message), 1);
}

/// The call whose outcome is unknown; the task says so, and what to do.
async fn unknown_call(scene: &Scene, task: &str) -> String {
    let waiting = scene.company.task_is(task, &["waiting_input"]).await;
    let told = text(&waiting["waiting_for"]["outcome_unknown"]);
    assert!(told.contains("/resolve"), "{waiting:#}");
    let trace = scene.company.trace(task).await;
    let step = trace
        .iter()
        .find(|step| step["details"]["status"] == "outcome_unknown");
    text(&step.expect("it is in the trace")["call_id"])
}

/// What only reads is idempotent, and is asked again without a person.
async fn reading_is_asked_again(scene: &Scene) {
    let earlier = scene.slack.arrivals().len();
    scene.slack.hold();
    let new = json!({ "objective": "List the channels",
        "plan": { "steps": [{ "skill": "slack", "action": "list_channels", "params": {} }] } });
    let created = scene.company.owner.post("/agent-tasks", &new).await.ok();
    let task = text(&created["id"]);
    eventually("the request arrives", || async {
        (scene.slack.arrivals().len() > earlier).then_some(())
    })
    .await;
    scene.kill_instance().await;
    scene.slack.release();
    scene.company.task_is(&task, &["completed"]).await;
    assert_eq!(scene.slack.arrivals().len(), earlier + 2);
}
