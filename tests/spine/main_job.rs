//! What a company does with the gateway when nothing goes wrong, and when a rule says no.

use crate::{CANARY, Stories, Theatre, World, shared};
use futures::StreamExt;
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use tsunami_tests::{
    api::Api,
    company::{sending, text},
    eventually,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "a_task_waits_for_its_approval_and_sends_one_message",
        approved,
    );
    shared(stories, theatre, "a_rejected_task_sends_nothing", rejected);
    shared(
        stories,
        theatre,
        "a_cancelled_task_sends_nothing",
        cancelled,
    );
    shared(stories, theatre, "the_same_key_creates_one_task", same_key);
    shared(
        stories,
        theatre,
        "a_direct_call_is_made_once_for_its_key",
        direct_call,
    );
    shared(
        stories,
        theatre,
        "a_dry_run_shows_what_would_happen_and_does_nothing",
        dry_run,
    );
    shared(
        stories,
        theatre,
        "a_live_view_goes_on_where_it_was_cut_off",
        live_view,
    );
    shared(
        stories,
        theatre,
        "a_rate_limit_holds_under_concurrency",
        rate_limit,
    );
    shared(
        stories,
        theatre,
        "a_revoked_credential_is_not_used_by_the_next_call",
        revoked,
    );
    shared(
        stories,
        theatre,
        "a_channel_out_of_scope_is_refused",
        out_of_scope,
    );
}

async fn approved(world: Arc<World>) {
    let acme = &world.acme;
    let message = "Q4 summary: approved";
    acme.configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let task = acme.ask_to_send(message).await;
    acme.task_is(&task, &["waiting_input"]).await;
    assert_eq!(
        world.slack.count(message),
        0,
        "nothing leaves before the approval"
    );
    acme.approve(&task).await;
    acme.task_is(&task, &["completed"]).await;
    acme.configure("slack", &json!({ "approval_actions": [] }))
        .await;

    assert_eq!(
        acme.trace_types(&task).await,
        [
            "dispatched",
            "memory_recall",
            "executing",
            "approval_requested",
            "approval_granted",
            "skill_call",
            "completed"
        ]
    );
    let trace = acme.trace(&task).await;
    let call = trace
        .iter()
        .find(|step| step["step_type"] == "skill_call")
        .expect("the call");
    let used = call["details"]["credentials_used"].to_string();
    assert_eq!(
        used,
        format!("[\"bot_token:****{}\"]", &CANARY[CANARY.len() - 4..])
    );
    let arrivals = world.slack.arrivals();
    let arrived: Vec<_> = arrivals.iter().filter(|a| a.message() == message).collect();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].path, "/api/chat.postMessage");
    assert_eq!(arrived[0].authorization, format!("Bearer {CANARY}"));
}

async fn rejected(world: Arc<World>) {
    let acme = &world.acme;
    acme.configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let task = acme.ask_to_send("rejected").await;
    acme.task_is(&task, &["waiting_input"]).await;
    let path = format!("/agent-tasks/{task}/reject");
    acme.owner.post(&path, &json!({ "note": "no" })).await.ok();
    acme.task_is(&task, &["failed"]).await;
    acme.configure("slack", &json!({ "approval_actions": [] }))
        .await;
    assert!(
        acme.trace_types(&task)
            .await
            .contains(&"approval_rejected".to_owned())
    );
    assert_eq!(world.slack.count("rejected"), 0);
    let again = acme
        .owner
        .post(&format!("/agent-tasks/{task}/approve"), &json!({}))
        .await;
    assert_eq!(again.problem(409), "nothing_to_approve");
    // Who did not hear the answer says the same again.
    acme.owner.post(&path, &json!({ "note": "no" })).await.ok();
}

async fn cancelled(world: Arc<World>) {
    let acme = &world.acme;
    acme.configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let task = acme.ask_to_send("cancelled").await;
    acme.task_is(&task, &["waiting_input"]).await;
    acme.owner
        .post(&format!("/agent-tasks/{task}/cancel"), &json!({}))
        .await
        .ok();
    acme.task_is(&task, &["cancelled"]).await;
    acme.configure("slack", &json!({ "approval_actions": [] }))
        .await;
    assert_eq!(
        acme.trace_types(&task).await.last().map(String::as_str),
        Some("cancelled")
    );
    assert_eq!(world.slack.count("cancelled"), 0);
}

async fn same_key(world: Arc<World>) {
    let owner = &world.acme.owner;
    let create = |message: &str| {
        let request = owner
            .request(Method::POST, "/agent-tasks")
            .header("idempotency-key", "the-same-key");
        Api::send(request.json(&sending(message)))
    };
    let (first, second) = futures::join!(create("same key"), create("same key"));
    let (first, second) = (first.ok(), second.ok());
    assert_eq!(first["id"], second["id"]);
    assert_eq!(
        create("another body").await.problem(422),
        "idempotency_key_reused"
    );
    world
        .acme
        .task_is(&text(&first["id"]), &["completed"])
        .await;
    assert_eq!(world.slack.count("same key"), 1);
}

async fn direct_call(world: Arc<World>) {
    let owner = &world.acme.owner;
    let call = || {
        let body = json!({ "params": { "channel": "#finance", "text": "direct" } });
        let request = owner.request(Method::POST, "/skills/slack/send_message");
        Api::send(request.header("idempotency-key", "direct-1").json(&body))
    };
    let first = call().await.ok();
    assert_eq!(first["status"], "succeeded", "{first}");
    let second = call().await.ok();
    assert_eq!(first["id"], second["id"]);
    assert_eq!(world.slack.count("direct"), 1);

    let unknown = owner
        .post("/skills/slack/no_such_action", &json!({ "params": {} }))
        .await;
    assert_eq!(unknown.problem(404), "unknown_action");
    let wrong = owner
        .post(
            "/skills/slack/send_message",
            &json!({ "params": { "channel": 7 } }),
        )
        .await;
    assert_eq!(wrong.problem(422), "invalid_params");
    let absent = owner
        .post("/skills/no_such_skill/x", &json!({ "params": {} }))
        .await;
    assert_eq!(absent.problem(404), "skill_not_installed");
}

async fn dry_run(world: Arc<World>) {
    let before = world.slack.arrivals().len();
    let body = json!({ "params": { "channel": "#finance", "text": "dry" } });
    let shown = world
        .acme
        .owner
        .post("/skills/slack/send_message?dry_run=true", &body)
        .await
        .ok();
    let shown = shown.to_string();
    assert!(shown.contains("{{bot_token}}"), "{shown}");
    assert!(shown.contains("chat.postMessage"), "{shown}");
    assert!(!shown.contains(CANARY));
    assert_eq!(world.slack.arrivals().len(), before);
}

async fn live_view(world: Arc<World>) {
    let acme = &world.acme;
    let task = acme.ask_to_send("live").await;
    let path = format!("/agent-tasks/{task}/trace");
    let watch = |last: Option<String>| {
        let request = acme
            .owner
            .request(Method::GET, &path)
            .header("accept", "text/event-stream");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        async {
            let response = request.send().await.expect("an answer");
            let mut stream = response.bytes_stream();
            let mut text = String::new();
            while let Some(Ok(part)) = stream.next().await {
                text.push_str(&String::from_utf8_lossy(&part));
            }
            text
        }
    };
    let all = watch(None).await;
    let ids: Vec<_> = all
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .map(str::trim)
        .collect();
    assert_eq!(ids.len(), acme.trace(&task).await.len(), "{all}");
    assert!(all.contains("completed"), "{all}");
    let rest = watch(Some(ids[1].to_owned())).await;
    let rest_ids: Vec<_> = rest
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .map(str::trim)
        .collect();
    assert_eq!(rest_ids, ids[2..], "{rest}");
}

async fn rate_limit(world: Arc<World>) {
    let acme = &world.acme;
    let calls = acme.owner.get("/skill-calls?limit=200").await.ok();
    let counted = calls["items"].as_array().map_or(0, |calls| {
        calls
            .iter()
            .filter(|call| call["skill"] == "slack" && !call["started_at"].is_null())
            .count()
    });
    let limit = json!({ "rate_limit": { "max_actions": counted + 5, "per_seconds": 3600 } });
    acme.configure("slack", &limit).await;
    let call = |n: i32| {
        let body = json!({ "params": { "channel": "#finance", "text": format!("limited {n}") } });
        async move { acme.owner.post("/skills/slack/send_message", &body).await }
    };
    let answers = futures::future::join_all((0..20).map(call)).await;
    acme.configure("slack", &json!({ "rate_limit": null }))
        .await;
    let refused: Vec<_> = answers.iter().filter(|a| a.status == 429).collect();
    let arrived = (0..20)
        .map(|n| world.slack.count(&format!("limited {n}")))
        .sum::<usize>();
    assert_eq!((arrived, refused.len()), (5, 15));
    assert_eq!(refused[0].problem(429), "rate_limited");
    assert!(refused[0].headers.contains_key("retry-after"));
}

async fn revoked(world: Arc<World>) {
    let acme = &world.acme;
    let body = json!({ "params": { "channel": "#finance", "text": "revoked" } });
    let credentials = acme.owner.get("/skill-creds").await.ok();
    let id = text(&credentials["items"][0]["id"]);
    acme.owner.delete(&format!("/skill-creds/{id}")).await.ok();
    let refused = acme.owner.post("/skills/slack/send_message", &body).await;
    assert_eq!(refused.problem(409), "credential_revoked");

    let mut database = world.gateway.database("tsunami_owner").await;
    let soon: String = sqlx::query_scalar(
        r#"select to_char(now() at time zone 'utc' + interval '2 s', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#,
    )
    .fetch_one(&mut database)
    .await
    .expect("the time");
    let expiring =
        json!({ "skill": "slack", "key": "bot_token", "value": CANARY, "expires_at": soon });
    acme.owner.post("/skill-creds", &expiring).await.ok();
    eventually("the credential expires", || async {
        let body = json!({ "params": { "channel": "#finance", "text": "expiring" } });
        let answer = acme.owner.post("/skills/slack/send_message", &body).await;
        (!answer.status.is_success()).then(|| assert_eq!(answer.problem(409), "credential_expired"))
    })
    .await;
    acme.store_credential("slack", "bot_token", CANARY).await;
    acme.owner
        .post("/skills/slack/send_message", &body)
        .await
        .ok();
    assert_eq!(world.slack.count("revoked"), 1);
}

async fn out_of_scope(world: Arc<World>) {
    let acme = &world.acme;
    acme.configure(
        "slack",
        &json!({ "allowed_scopes": { "channels": ["#finance"] } }),
    )
    .await;
    let body = json!({ "params": { "channel": "#board", "text": "out of scope" } });
    let refused = acme.owner.post("/skills/slack/send_message", &body).await;
    acme.configure("slack", &json!({ "allowed_scopes": {} }))
        .await;
    assert_eq!(refused.problem(403), "scope_denied");
    let call = text(&refused.json()["call_id"]);
    let ended = acme.owner.get(&format!("/skill-calls/{call}")).await.ok();
    assert_eq!(ended["status"], "rejected");
    let trace = acme
        .owner
        .get(&format!("/skill-calls/{call}/trace"))
        .await
        .ok();
    assert_eq!(
        trace[0]["details"]["error"]["code"], "scope_denied",
        "{trace}"
    );
    assert_eq!(world.slack.count("out of scope"), 0);
}
