//! One company with many tasks, and another with one.

use crate::{CANARY, Stories, Theatre, own};
use futures::future::join_all;
use serde_json::json;
use std::sync::Arc;
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::Gateway,
    recorder::Recorder,
};

/// Tasks of the one that has many.
const MANY: usize = 100;

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "a_tenant_with_many_tasks_keeps_no_other_waiting",
        in_turn,
    );
    own(
        stories,
        theatre,
        "a_task_that_is_cancelled_before_any_worker_has_it_ends",
        cancelled_in_the_queue,
    );
    own(
        stories,
        theatre,
        "a_tenant_whose_tasks_fit_into_a_worker_keeps_no_other_waiting",
        in_turn_in_a_worker,
    );
}

/// Steps are worked on one at a time, so that all but one wait in Temporal; in the order in which they came, the last task
/// would be done with the last of the others.
async fn in_turn() {
    let gateway = Gateway::start_with(&[("TSUNAMI_TASKS__ACTIVITIES_AT_ONCE_MAX", "1")]).await;
    let acme = Company::found(&gateway, "acme").await;
    let globex = Company::found(&gateway, "globex").await;
    for company in [&acme, &globex] {
        let agent = json!({ "name": "Thinker", "capabilities": [] });
        company.owner.post("/agents", &agent).await.ok();
    }
    // Without a plan, and nobody to make one, it ends soon: as failed.
    let new = json!({ "objective": "Think of nothing" });
    let crowd = (0..MANY).map(|_| acme.owner.post("/agent-tasks", &new));
    let crowd: Vec<_> = join_all(crowd).await;
    let crowd: Vec<_> = crowd.into_iter().map(|t| text(&t.ok()["id"])).collect();
    let alone = text(&globex.owner.post("/agent-tasks", &new).await.ok()["id"]);
    let before = count(&acme, "failed").await;
    globex.task_is(&alone, &["failed"]).await;
    let meanwhile = count(&acme, "failed").await - before;
    assert!(
        meanwhile < (MANY - before) * 9 / 10,
        "{before}, then {meanwhile} of {MANY} ended before it"
    );
    for task in crowd {
        acme.task_is(&task, &["failed"]).await;
    }
}

/// Temporal itself says of an activity that no worker had that it was cancelled, in words of its own.
async fn cancelled_in_the_queue() {
    let gateway = Gateway::start_with(&[("TSUNAMI_TASKS__ACTIVITIES_AT_ONCE_MAX", "2")]).await;
    let slack = Recorder::start().await;
    let acme = Company::ready(&gateway, "acme", &slack, CANARY).await;
    let held = hold_both_places(&acme, &slack, ["one", "two"]).await;
    let queued = acme.ask_to_send("three").await;
    let history = async |has: &str| {
        eventually(has, || async {
            let (_, shown) = gateway.workflow("show", &queued);
            shown.contains(has).then_some(shown)
        })
        .await
    };
    let scheduled = history("ACTIVITY_TASK_SCHEDULED").await;
    assert!(!scheduled.contains("ACTIVITY_TASK_STARTED"), "{scheduled}");
    let cancel = format!("/agent-tasks/{queued}/cancel");
    acme.owner.post(&cancel, &json!({})).await.ok();
    history("ACTIVITY_TASK_CANCELED").await;
    slack.release();
    for task in held {
        acme.task_is(&task, &["completed"]).await;
    }
    acme.task_is(&queued, &["cancelled"]).await;
    assert_eq!(slack.count("three"), 0);

    // Nor is anything sent for one whose workflow has not heard of it yet, when its step is due.
    let held = hold_both_places(&acme, &slack, ["four", "five"]).await;
    let unheard = acme.ask_to_send("six").await;
    // What somebody's cancellation writes, without the message that the workflow gets of it.
    let mut database = gateway.database("postgres").await;
    let query = "update agent_tasks set cancel_requested_at = now() where id = $1::uuid";
    let written = sqlx::query(query).bind(&unheard).execute(&mut database);
    assert_eq!(written.await.expect("it is written").rows_affected(), 1);
    slack.release();
    for task in held {
        acme.task_is(&task, &["completed"]).await;
    }
    let looks_again = "EVENT_TYPE_TIMER_STARTED";
    eventually("its workflow waits for the word", || async {
        let (_, shown) = gateway.workflow("show", &unheard);
        (shown.contains(looks_again) || slack.count("six") > 0).then_some(())
    })
    .await;
    let (heard, said) = gateway.workflow("cancel", &unheard);
    assert!(heard, "{said}");
    acme.task_is(&unheard, &["cancelled"]).await;
    assert_eq!(slack.count("six"), 0);
}

/// Two tasks that have a place each, and keep it until the recorder lets them go.
async fn hold_both_places(acme: &Company, slack: &Recorder, texts: [&str; 2]) -> Vec<String> {
    slack.hold();
    let tasks = join_all(texts.map(|text| acme.ask_to_send(text))).await;
    eventually("both are being sent", || async {
        let sent: usize = texts.iter().map(|text| slack.count(text)).sum();
        (sent == 2).then_some(())
    })
    .await;
    tasks
}

/// All tasks fit into the worker, and each makes a call. Where all of them were moved at once, the last one would wait for
/// the steps of all the others, and end with them. As it is, it waits for the two that are moved, and most of the others have
/// not begun when it ends.
async fn in_turn_in_a_worker() {
    let gateway = Gateway::start_with(&[("TSUNAMI_TASKS__WORKFLOWS_MOVED_MAX", "2")]).await;
    let slack = Recorder::start().await;
    let acme = Company::ready(&gateway, "acme", &slack, CANARY).await;
    let globex = Company::ready(&gateway, "globex", &slack, CANARY).await;
    let texts: Vec<_> = (0..MANY).map(|n| format!("one of many: {n}")).collect();
    let crowd = join_all(texts.iter().map(|text| acme.ask_to_send(text))).await;
    let (last, crowd) = crowd.split_last().expect("many");
    let cancel = format!("/agent-tasks/{last}/cancel");
    acme.owner.post(&cancel, &json!({})).await.ok();
    let waiting = count(&acme, "queued").await;
    let alone = globex.ask_to_send("alone").await;
    globex.task_is(&alone, &["completed"]).await;
    let left = count(&acme, "queued").await;
    assert!(
        left > waiting / 2,
        "{left} of {waiting} have not begun when it ends"
    );
    acme.task_is(last, &["cancelled"]).await;
    for task in crowd {
        acme.task_is(task, &["completed"]).await;
    }
    let (of_last, texts) = texts.split_last().expect("many");
    assert_eq!(slack.count(of_last), 0);
    for text in texts {
        assert_eq!(slack.count(text), 1, "{text}");
    }
}

async fn count(company: &Company, status: &str) -> usize {
    let query = format!("/agent-tasks?status={status}&limit=200");
    let tasks = company.owner.get(&query).await;
    tasks.ok()["items"].as_array().map_or(0, Vec::len)
}
