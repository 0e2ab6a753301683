//! kill -9 of the host at any step, then a start: the task completes, and one message was sent.

use crate::{CANARY, Stories, Theatre, own};
use reqwest::Method;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tsunami_tests::{
    api::Api,
    company::{Company, sending, text},
    eventually,
    gateway::Gateway,
    recorder::Recorder,
    stage::{Moment, Stage},
};

/// How long the client waits for one answer before it asks again: the gateway may be dead.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "a_host_killed_at_any_step_loses_nothing_and_sends_once",
        any_step,
    );
}

const fn at(
    name: &'static str,
    table: &'static str,
    operation: &'static str,
    rows: &'static str,
) -> Moment {
    Moment {
        name,
        table,
        operation,
        rows,
    }
}

/// Each write of the main job, in its order: the host dies when it is about to be done.
const MOMENTS: [Moment; 19] = [
    at("the task is written", "agent_tasks", "insert", "true"),
    at(
        "its start is noted",
        "outbox",
        "insert",
        "new.kind = 'start'",
    ),
    at(
        "Temporal was told to start",
        "outbox",
        "delete",
        "old.kind = 'start'",
    ),
    at(
        "it is dispatched",
        "execution_traces",
        "insert",
        "new.step_type = 'dispatched'",
    ),
    at(
        "memories are recalled",
        "execution_traces",
        "insert",
        "new.step_type = 'memory_recall'",
    ),
    at(
        "it is being executed",
        "execution_traces",
        "insert",
        "new.step_type = 'executing'",
    ),
    at("the call is written", "skill_calls", "insert", "true"),
    at("an approval is asked for", "approvals", "insert", "true"),
    at(
        "it waits for a person",
        "agent_tasks",
        "update",
        "new.status = 'waiting_input'",
    ),
    at(
        "a person approves",
        "approvals",
        "update",
        "new.status = 'approved'",
    ),
    at(
        "the answer is noted",
        "outbox",
        "insert",
        "new.kind = 'signal'",
    ),
    at(
        "Temporal was told the answer",
        "outbox",
        "delete",
        "old.kind = 'signal'",
    ),
    at(
        "the approval is used",
        "approvals",
        "update",
        "new.status = 'used'",
    ),
    at(
        "the call begins",
        "skill_calls",
        "update",
        "new.status = 'running' and old.status <> 'running'",
    ),
    at(
        "the request is about to leave",
        "skill_call_requests",
        "insert",
        "true",
    ),
    at(
        "the reply came",
        "skill_call_requests",
        "update",
        "new.status = 'finished'",
    ),
    at(
        "the call succeeded",
        "skill_calls",
        "update",
        "new.status = 'succeeded'",
    ),
    at(
        "the call is in the trace",
        "execution_traces",
        "insert",
        "new.step_type = 'skill_call'",
    ),
    at(
        "the task completes",
        "execution_traces",
        "insert",
        "new.step_type = 'completed'",
    ),
];

const TRACE: [&str; 7] = [
    "dispatched",
    "memory_recall",
    "executing",
    "approval_requested",
    "approval_granted",
    "skill_call",
    "completed",
];

async fn any_step() {
    let mut gateway = Gateway::start().await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "killed", &slack, CANARY).await;
    company
        .configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;

    for moment in MOMENTS {
        let began = tokio::time::Instant::now();
        let mut stage = Stage::set(&gateway, moment).await;
        let job = tokio::spawn(main_job(company.clone(), moment.name));
        stage.reached().await;
        gateway.kill();
        stage.clear().await;
        gateway.start_host().await;
        let task = job.await.expect("the job is done");
        one_message_and_one_trace(&company, &slack, &task, moment.name).await;
        println!(
            "killed when {}: {:.1} s",
            moment.name,
            began.elapsed().as_secs_f32()
        );
    }

    // While the service has the request, and has not answered.
    let name = "the service thinks about it";
    slack.hold();
    let job = tokio::spawn(main_job(company.clone(), name));
    eventually("the request arrives", || async {
        (slack.count(name) == 1).then_some(())
    })
    .await;
    gateway.kill();
    slack.release();
    gateway.start_host().await;
    let task = job.await.expect("the job is done");
    one_message_and_one_trace(&company, &slack, &task, name).await;

    // When all is done: nothing is done again.
    let arrived = slack.arrivals().len();
    gateway.kill();
    gateway.start_host().await;
    company.instance_is("running").await;
    let last = company.ask_to_send("after all").await;
    company.task_is(&last, &["waiting_input"]).await;
    company.approve(&last).await;
    company.task_is(&last, &["completed"]).await;
    assert_eq!(slack.arrivals().len(), arrived + 1);

    gateway.stop();
    gateway.is_gone().await;
}

async fn one_message_and_one_trace(company: &Company, slack: &Recorder, task: &str, name: &str) {
    assert_eq!(slack.count(name), 1, "messages after a death when {name}");
    assert_eq!(
        company.trace_types(task).await,
        TRACE,
        "the trace after a death when {name}"
    );
}

/// Creates the task, approves it and waits until it is done, as a client does that asks again where no answer comes.
async fn main_job(company: Company, message: &'static str) -> String {
    let key = format!("job-{message}").replace(' ', "-");
    let created = persist(|| {
        let request = company.owner.request(Method::POST, "/agent-tasks");
        request
            .header("idempotency-key", &key)
            .json(&sending(message))
    })
    .await;
    let id = text(&created["id"]);
    let task = company.task_is(&id, &["waiting_input", "completed"]).await;
    if task["status"] == "waiting_input" {
        let path = format!("/agent-tasks/{id}/approve");
        persist(|| company.owner.request(Method::POST, &path).json(&json!({}))).await;
    }
    company.task_is(&id, &["completed"]).await;
    id
}

/// Sends until an answer comes that is none of "not now".
async fn persist(request: impl Fn() -> reqwest::RequestBuilder) -> serde_json::Value {
    eventually("an answer", || async {
        let answer = Api::try_send(request().timeout(ANSWER_WAIT)).await.ok()?;
        (answer.status != 503).then(|| answer.ok())
    })
    .await
}
