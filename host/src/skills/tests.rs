//! What holds of calls in the database, whoever writes when.

use super::{
    CallFailure, CallRequest, CallStatus, Origin, Outcome, Who, activities, ending,
    store::{self, End, Ended, Stands, Turn},
    trace,
};
use crate::{
    db::TenantTx,
    id::{SkillCallId, TaskId},
    page::{Page, PageRequest},
    problem::Problem,
    testing::Ground,
    traces::StepType,
};
use serde_json::{Value, json};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(120);

fn failed() -> CallFailure {
    CallFailure::new("failed", "It failed.")
}

async fn end(tx: &mut TenantTx, turn: Turn, end: End<'_>) -> bool {
    let row = store::call(tx, turn.call).await.unwrap().unwrap();
    let ended = Ended {
        turn,
        reply: None,
        end,
        step: trace::step_of(&row, StepType::SkillCall, "ended", json!({})),
    };
    let tenant = tx.tenant();
    store::end(tx, tenant, ended).await.unwrap().is_some()
}

#[tokio::test]
async fn a_process_that_was_overtaken_changes_nothing() {
    let ground = Ground::new().await;
    let call = ground.call("running", None).await;
    ground.request(call, 0, "sending").await;
    let stalled = Turn { call, attempts: 0 };
    let successor = Turn { call, attempts: 1 };

    let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
    assert!(store::next_attempt(&mut tx, stalled).await.unwrap());
    assert!(
        store::sending(&mut tx, successor, 0, "d", "j", LEASE)
            .await
            .unwrap()
    );
    let failure = failed();
    let badly = End::badly(CallStatus::Failed, &failure);
    let reply = json!({});
    // The stalled one got the same answer, and does what it did before it stalled.
    assert!(!store::next_attempt(&mut tx, stalled).await.unwrap());
    assert!(!store::send_anew(&mut tx, stalled, 0).await.unwrap());
    assert!(
        !store::sending(&mut tx, stalled, 1, "d", "j", LEASE)
            .await
            .unwrap()
    );
    assert!(!store::replied(&mut tx, stalled, 0, &reply).await.unwrap());
    assert!(!end(&mut tx, stalled, badly).await);
    let row = store::call(&mut tx, call).await.unwrap().unwrap();
    assert_eq!(
        (row.attempts, row.refusals, row.status()),
        (1, 1, CallStatus::Running)
    );
    let requests = store::requests(&mut tx, call).await.unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].attempt, &requests[0].reply), (Some(1), &None));

    assert!(store::replied(&mut tx, successor, 0, &reply).await.unwrap());
    assert!(end(&mut tx, successor, badly).await);
    // Whoever comes after the end changes nothing either.
    assert!(!end(&mut tx, successor, badly).await);
    assert!(!store::next_attempt(&mut tx, successor).await.unwrap());
}

#[tokio::test]
async fn what_a_person_has_sent_again_is_another_attempt_at_what_is_unknown_alone() {
    let ground = Ground::new().await;
    // The second request may have left; of the other call the one reply meant nothing to the plugin.
    let sent = ground.call("outcome_unknown", None).await;
    ground.request(sent, 0, "finished").await;
    ground.request(sent, 1, "sending").await;
    let answered = ground.call("outcome_unknown", None).await;
    ground.request(answered, 0, "finished").await;
    for (call, left) in [(sent, 1), (answered, 0)] {
        let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
        store::try_again(&mut tx, call, LEASE).await.unwrap();
        // A second time changes nothing: it runs.
        store::try_again(&mut tx, call, LEASE).await.unwrap();
        let row = store::call(&mut tx, call).await.unwrap().unwrap();
        assert_eq!((row.attempts, row.status()), (1, CallStatus::Running));
        assert_eq!(store::requests(&mut tx, call).await.unwrap().len(), left);
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_after_a_request_may_have_left_is_unknown() {
    let ground = Ground::new().await;
    let why = Problem::conflict("instance_stopped", "The instance is stopped.");
    // Whether it may be repeated, what left, and what the call ends as.
    for (idempotent, request, end) in [
        ("null", None, "failed"),
        ("null", Some("sending"), "outcome_unknown"),
        ("false", Some("sending"), "outcome_unknown"),
        ("false", Some("finished"), "outcome_unknown"),
        ("true", Some("sending"), "failed"),
    ] {
        let call = ground.call("running", None).await;
        ground
            .write(&format!(
                "update skill_calls set idempotent = {idempotent} where id = '{call}'"
            ))
            .await;
        if let Some(request) = request {
            ground.request(call, 0, request).await;
        }
        let outcome = ending::give_up(&ground.app, ground.tenant, call, &why)
            .await
            .unwrap();
        assert_eq!(ground.status_of(call).await, end);
        let is_unknown = matches!(outcome, Outcome::OutcomeUnknown { .. });
        assert_eq!(is_unknown, end == "outcome_unknown");
        let steps = format!(
            "select string_agg(details->>'status', ',') from execution_traces where call_id = '{call}'"
        );
        assert_eq!(ground.read(&steps).await, end);
    }
}

#[tokio::test]
async fn what_a_call_costs_is_spent_until_the_service_is_known_to_have_refused_it() {
    const COST: i64 = 7;
    let ground = Ground::new().await;
    let mut spent = 0;
    // The replies to its requests, what the call ends as, and whether it counts.
    for (replies, end, counts) in [
        (vec![Some(200)], "succeeded", true),
        (vec![None], "outcome_unknown", true),
        (vec![], "failed", false),
        (vec![Some(429)], "failed", false),
        (vec![None], "failed", true),
        (vec![Some(429), Some(200)], "failed", true),
        (vec![], "cancelled", false),
    ] {
        let call = ground.call("queued", None).await;
        ground
            .write(&format!(
                "update skill_calls set status = 'running', started_at = now(), cost_micro_usd = {COST} where id = '{call}'"
            ))
            .await;
        assert_eq!(spend(&ground).await, [spent + COST; 2], "while it runs");
        for (seq, reply) in (0..).zip(&replies) {
            ground.request(call, seq, "sending").await;
            if let Some(status) = reply {
                ground
                    .write(&format!(
                        "update skill_call_requests set reply = '{{\"status\": {status}}}' where call_id = '{call}' and seq = {seq}"
                    ))
                    .await;
            }
        }
        let ended = format!("update skill_calls set status = '{end}' where id = '{call}'");
        ground.write(&ended).await;
        spent += if counts { COST } else { 0 };
        assert_eq!(spend(&ground).await, [spent; 2], "{replies:?} {end}");
    }
}

/// What was spent in the month: as it was added up, and as the calls say it.
async fn spend(ground: &Ground) -> [i64; 2] {
    let mut spent = [0; 2];
    for (at, moment) in ["null", "now() + interval '1 second'"].iter().enumerate() {
        let month = format!("select month::text from spent_until({moment})");
        spent[at] = ground.read(&month).await.parse().unwrap();
    }
    spent
}

async fn lapse(ground: &Ground, call: SkillCallId) {
    ground
        .write(&format!(
            "update skill_calls set leased_until = now() - interval '1 second' where id = '{call}'"
        ))
        .await;
}

#[tokio::test]
async fn a_call_that_nobody_works_on_is_seen_through_by_one_workflow() {
    let ground = Ground::new().await;
    let call = ground.call("running", None).await;
    let held = ground.call("running", None).await;
    let of_a_task = ground.call("running", Some(TaskId::fresh())).await;
    lapse(&ground, of_a_task).await;
    let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
    store::extend_lease(&mut tx, held, LEASE).await.unwrap();
    tx.commit().await.unwrap();

    // Twice at once, and again each time that the lease runs out.
    for _ in 0..3 {
        lapse(&ground, call).await;
        let (one, other) = tokio::join!(
            activities::reclaim_once(&ground.app),
            activities::reclaim_once(&ground.app)
        );
        one.unwrap();
        other.unwrap();
        // It was taken, so nobody takes it now.
        activities::reclaim_once(&ground.app).await.unwrap();
    }
    let started = ground
        .read("select string_agg(kind || ' ' || workflow_id, ', ') from outbox")
        .await;
    let once = format!("start_again call-{call}");
    assert_eq!(started, [once.as_str(); 3].join(", "));
}

#[tokio::test]
async fn a_call_that_never_began_is_ended_and_may_be_made_again_under_its_key() {
    let ground = Ground::new().await;
    let call = ground.call("queued", None).await;
    let of_a_task = ground.call("queued", Some(TaskId::fresh())).await;
    let created_long_ago = "update skill_calls set created_at = now() - interval '1 hour'";
    activities::reclaim_once(&ground.app).await.unwrap();
    assert_eq!(
        ground.status_of(call).await,
        "queued",
        "it may be about to begin"
    );
    ground.write(created_long_ago).await;
    activities::reclaim_once(&ground.app).await.unwrap();
    assert_eq!(ground.status_of(call).await, "failed");
    assert_eq!(ground.status_of(of_a_task).await, "queued");
    let step = format!(
        "select details->>'status' || ' ' || (details->'error'->>'code') from execution_traces where call_id = '{call}'"
    );
    assert_eq!(ground.read(&step).await, "refused abandoned");
    assert_eq!(ground.read("select count(*)::text from outbox").await, "0");

    let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
    let row = store::call(&mut tx, call).await.unwrap().unwrap();
    assert!(ending::was_refused(&row));
    store::revive(&mut tx, call, LEASE).await.unwrap();
    let row = store::call(&mut tx, call).await.unwrap().unwrap();
    assert_eq!(row.status(), CallStatus::Queued);
    // One that failed after it had begun stays as it is.
    let failure = CallFailure {
        refused_with: None,
        ..failed()
    };
    let end = End::badly(CallStatus::Failed, &failure);
    assert!(
        store::finish(&mut tx, call, Stands::NotBegun, end)
            .await
            .unwrap()
    );
    store::revive(&mut tx, call, LEASE).await.unwrap();
    let row = store::call(&mut tx, call).await.unwrap().unwrap();
    assert_eq!(row.status(), CallStatus::Failed);
}

#[tokio::test]
async fn a_task_that_ends_leaves_no_call_without_an_owner_and_no_approval_open() {
    let ground = Ground::new().await;
    let task = TaskId::fresh();
    let asked = ground.call("awaiting_approval", Some(task)).await;
    let begun = ground.call("running", Some(task)).await;
    let sent = ground.call("running", Some(task)).await;
    ground.request(sent, 0, "sending").await;
    let tenant = ground.tenant;
    ground
        .write(&format!(
            "insert into approvals (id, tenant_id, task_id, call_id, workflow_id, status, fingerprint, request, reason, requested_by, expires_at)
             values ('{asked}', '{tenant}', '{task}', '{asked}', '{task}', 'pending', sha256(''), '{{}}', '', '', now() + interval '1 day')"
        ))
        .await;
    let mut tx = ground.app.db().tenant(tenant).await.unwrap();
    store::release_calls_of(&mut tx, task).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ground.status_of(asked).await, "cancelled");
    assert_eq!(ground.status_of(begun).await, "cancelled");
    assert_eq!(ground.status_of(sent).await, "running");
    assert_eq!(ground.read("select status from approvals").await, "expired");
    // What may have left is seen through by somebody else.
    lapse(&ground, sent).await;
    activities::reclaim_once(&ground.app).await.unwrap();
    let started = ground
        .read("select string_agg(workflow_id, ', ') from outbox")
        .await;
    assert_eq!(started, format!("call-{sent}"));
}

/// What a call is decided by is kept in memory under the stamp: a table that does not change it would be used as it was.
#[tokio::test]
async fn each_change_of_what_calls_are_decided_by_gives_the_tenant_another_stamp() {
    let ground = Ground::new().await;
    let tenant = ground.tenant;
    let id = "'00000000-0000-0000-0000-000000000001'";
    let digest = "encode(sha256('x'), 'hex')";
    let changes = [
        "insert into plugin_components (digest, bytes, kinds) values ({digest}, 'x', '{routing-policy}')",
        "insert into plugin_versions (id, tenant_id, digest) values ({id}, {tenant}, {digest}) !",
        "insert into plugin_installations (id, tenant_id, plugin_version_id, skill_name, digest, installed_by) values ({id}, {tenant}, {id}, 's', {digest}, 'p') !",
        "update plugin_installations set removed_at = now() !",
        "insert into tenant_data_keys (id, tenant_id, wrapped) values ({id}, {tenant}, 'w')",
        "insert into tenant_instances (id, tenant_id, instance_type, name, version, driver, status, desired, data_key_id, encrypted_secrets, created_by)
             values ({id}, {tenant}, 'openclaw', 'n', 'v', 'local', 'running', 'running', {id}, '', 'p') !",
        "update tenant_instances set status = 'stopped' !",
        "insert into skill_configs (id, tenant_id, skill_name, enabled, requires_approval) values ({id}, {tenant}, 's', true, false) !",
        "update skill_configs set requires_approval = true !",
        "insert into skill_credentials (id, tenant_id, skill_config_id, credential_key, credential_type, data_key_id, encrypted_value, version, last_4, status)
             values ({id}, {tenant}, {id}, 'k', 'pat', {id}, '', 1, '', 'active') !",
        "update skill_credentials set status = 'revoked' !",
        "delete from skill_credentials !",
        "delete from skill_configs !",
        "insert into policies (id, tenant_id, position, name, digest, settings, enabled, created_by) values ({id}, {tenant}, 1, 'n', {digest}, '{}', true, 'p') !",
        "update policies set enabled = false !",
        "delete from policies !",
        "insert into operator_policies (id, position, name, digest, settings, enabled, created_by) values ({id}, 1, 'n', {digest}, '{}', true, 'p') !",
        "delete from operator_policies !",
    ];
    for change in changes {
        let before = stamps(&ground).await;
        let sql = change
            .trim_end_matches('!')
            .replace("{id}", id)
            .replace("{digest}", digest)
            .replace("{tenant}", &format!("'{tenant}'"));
        ground.write(&sql).await;
        let is_changed = stamps(&ground).await != before;
        assert_eq!(is_changed, change.ends_with('!'), "{change}");
    }
}

async fn stamps(ground: &Ground) -> String {
    let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
    store::stamps(&mut tx).await.unwrap()
}

/// A plugin that is asked again, from what is in the database, has to want the same request as the one that left.
#[tokio::test]
async fn what_a_plugin_is_given_before_a_call_is_written_down_is_what_it_is_given_after() {
    let ground = Ground::new().await;
    let given: Value = serde_json::from_str(
        r#"{ "b": [-0.0, 0.0, 0, 1.0, 1e2, 1e20, 1e300, 5e-324, 2.2250738585072011e-308, 1.7976931348623157e308],
             "aa": { "z": 0.1, "y": 123456789.123456789, "longer": 9007199254740993.0, "x": [-1e-7, -0e5] },
             "a": [18446744073709551615, 18446744073709551616, -9223372036854775808, "\u00e9\ud83d\ude00\u007f\n", null] }"#,
    )
    .unwrap();
    let request = CallRequest {
        idempotency_key: "direct:k".to_owned(),
        skill: "slack".to_owned(),
        action: "send_message".to_owned(),
        params: given,
        actor: "Ada".to_owned(),
        who: Who::nobody(),
        origin: Origin::Direct,
    };
    let now = ground.app.clock().now();
    let before = store::draft(SkillCallId::fresh(), &request, now);
    let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
    let draft = store::draft(before.id, &request, now);
    store::submit(&mut tx, draft, LEASE).await.unwrap();
    let after = store::call(&mut tx, before.id).await.unwrap().unwrap();
    assert_eq!(before.params.to_string(), after.params.to_string());
    assert_eq!(before.created_at, after.created_at);
}

#[tokio::test]
async fn a_list_of_large_calls_comes_in_pages_that_the_host_can_hold() {
    const MEGABYTE: usize = 1 << 20;
    let ground = Ground::new().await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let call = ground.call("succeeded", None).await;
        calls.insert(0, call.uuid());
    }
    let output = format!("jsonb_build_object('rows', repeat('x', {MEGABYTE}))");
    ground
        .write(&format!("update skill_calls set output = {output}"))
        .await;

    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = PageRequest::new(Some(200), cursor.as_deref()).unwrap();
        let mut tx = ground.app.db().tenant(ground.tenant).await.unwrap();
        let calls = store::list_calls(&mut tx, page, None, None, None).await;
        let page = Page::taken(calls.unwrap(), |row| row.id.uuid(), |row| row);
        assert!((1..=8).contains(&page.items.len()), "{}", page.items.len());
        listed.extend(page.items.iter().map(|row| row.id.uuid()));
        // What was not read of the last query does not stand in the way of another.
        let first = store::call(&mut tx, page.items[0].id).await.unwrap();
        assert!(first.is_some());
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, calls, "each once, the newest first");
}

/// What was masked while its letters stood apart must not be put together again.
#[test]
fn what_is_cleaned_for_the_database_does_not_close_up() {
    let failure = CallFailure::new("x\0o\0x", "x\0o\0x\0b").cleaned();
    assert_eq!(failure.code, "x\u{fffd}o\u{fffd}x");
    assert_eq!(failure.message, "x\u{fffd}o\u{fffd}x\u{fffd}b");
}
