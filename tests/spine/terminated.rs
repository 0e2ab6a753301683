//! A task whose workflow was terminated in Temporal: it is taken up where it stands, and its message is sent once.

use crate::{Stories, Theatre, World, shared};
use serde_json::json;
use std::sync::Arc;
use tsunami_tests::eventually;

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "a_task_whose_workflow_was_terminated_goes_on_when_it_is_approved",
        approved,
    );
    shared(
        stories,
        theatre,
        "a_task_whose_workflow_was_terminated_is_found_without_a_signal",
        found,
    );
    shared(
        stories,
        theatre,
        "a_task_whose_workflow_was_terminated_can_be_cancelled",
        cancelled,
    );
    shared(
        stories,
        theatre,
        "a_task_whose_workflow_is_terminated_each_time_ends_as_failed",
        each_time,
    );
    shared(
        stories,
        theatre,
        "a_call_whose_workflow_was_terminated_is_made_when_it_is_approved",
        call,
    );
}

/// Ends a workflow as an operator can: nothing of it runs any more, not what it would do at its end either.
fn terminate(world: &World, workflow: &str) {
    let ran = world.gateway.workflow("terminate", workflow);
    assert!(ran.0, "{}", ran.1);
}

async fn waiting(world: &World, message: &str) -> String {
    let ask = json!({ "approval_actions": ["send_message"] });
    world.acme.configure("slack", &ask).await;
    let task = world.acme.ask_to_send(message).await;
    world.acme.task_is(&task, &["waiting_input"]).await;
    task
}

async fn ask_no_more(world: &World) {
    let change = json!({ "approval_actions": [] });
    world.acme.configure("slack", &change).await;
}

async fn approved(world: Arc<World>) {
    let task = waiting(&world, "terminated and approved").await;
    terminate(&world, &task);
    world.acme.approve(&task).await;
    world.acme.task_is(&task, &["completed"]).await;
    assert_eq!(world.slack.count("terminated and approved"), 1);
    let steps = world.acme.trace_types(&task).await;
    let once = |step: &str| steps.iter().filter(|s| *s == step).count() == 1;
    assert!(
        once("dispatched") && once("skill_call") && once("completed"),
        "{steps:?}"
    );
    ask_no_more(&world).await;
}

/// A minute passes for the task.
async fn stands_still(world: &World, task: &str) {
    let mut database = world.gateway.database("postgres").await;
    sqlx::query("update agent_tasks set updated_at = now() - interval '2 minutes', looked_at = null where id = $1::uuid")
        .bind(task)
        .execute(&mut database)
        .await
        .expect("time passes");
}

/// Waits until another workflow has taken the task up.
async fn taken_up(world: &World, task: &str) {
    let query = "select taken_up from agent_tasks where id = $1::uuid";
    let database = tokio::sync::Mutex::new(world.gateway.database("postgres").await);
    eventually("the task is taken up", || async {
        let mut database = database.lock().await;
        let row = sqlx::query_scalar::<_, i32>(query).bind(task);
        let counted = row.fetch_one(&mut *database).await.expect("the task");
        (counted == 1).then_some(())
    })
    .await;
}

async fn found(world: Arc<World>) {
    let task = waiting(&world, "terminated and found").await;
    terminate(&world, &task);
    stands_still(&world, &task).await;
    taken_up(&world, &task).await;
    let (_, described) = world.gateway.workflow("describe", &task);
    assert!(described.contains("STATUS_RUNNING"), "{described}");
    world.acme.task_is(&task, &["waiting_input"]).await;
    world.acme.approve(&task).await;
    world.acme.task_is(&task, &["completed"]).await;
    assert_eq!(world.slack.count("terminated and found"), 1);
    ask_no_more(&world).await;
}

async fn cancelled(world: Arc<World>) {
    let task = waiting(&world, "terminated and cancelled").await;
    terminate(&world, &task);
    let path = format!("/agent-tasks/{task}/cancel");
    world.acme.owner.post(&path, &json!({})).await.ok();
    world.acme.task_is(&task, &["cancelled"]).await;
    let steps = world.acme.trace_types(&task).await;
    assert_eq!(steps.last().map(String::as_str), Some("cancelled"));
    assert_eq!(world.slack.count("terminated and cancelled"), 0);
    ask_no_more(&world).await;
}

async fn each_time(world: Arc<World>) {
    let task = waiting(&world, "terminated each time").await;
    let mut database = world.gateway.database("postgres").await;
    sqlx::query("update agent_tasks set taken_up = 5 where id = $1::uuid")
        .bind(&task)
        .execute(&mut database)
        .await
        .expect("it was taken up five times");
    terminate(&world, &task);
    stands_still(&world, &task).await;
    let ended = world.acme.task_is(&task, &["failed"]).await;
    assert!(
        ended["error"].to_string().contains("again and again"),
        "{ended}"
    );
    let steps = world.acme.trace_types(&task).await;
    assert_eq!(steps.last().map(String::as_str), Some("failed"));
    // What it had asked for is not decided any more.
    assert_eq!(world.slack.count("terminated each time"), 0);
    ask_no_more(&world).await;
}

async fn call(world: Arc<World>) {
    let ask = json!({ "approval_actions": ["send_message"] });
    world.acme.configure("slack", &ask).await;
    let owner = &world.acme.owner;
    let params = json!({ "params": { "channel": "#finance", "text": "terminated call" } });
    let made = owner
        .post("/skills/slack/send_message", &params)
        .await
        .json();
    let call = made["id"].as_str().expect("a call").to_owned();
    let workflow = format!("call-{call}");
    eventually("its workflow runs", || async {
        let (there, _) = world.gateway.workflow("describe", &workflow);
        there.then_some(())
    })
    .await;
    terminate(&world, &workflow);
    let approval = made["approval_id"].as_str().expect("an approval");
    let path = format!("/approvals/{approval}/approve");
    owner.post(&path, &json!({})).await.ok();
    eventually("the call is made", || async {
        let call = owner.get(&format!("/skill-calls/{call}")).await.ok();
        (call["status"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(world.slack.count("terminated call"), 1);
    ask_no_more(&world).await;
}
