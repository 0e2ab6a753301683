//! What the API makes of a request that is not quite what somebody meant.

use crate::{Stage, Stories, story, world::World};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use std::sync::Arc;
use tsunami_provenance::PrivateKey;
use tsunami_tests::{
    api::{Answer, Api},
    chameleon::{chameleon, guise},
    company::text,
    component,
};

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "a_rule_that_would_guard_nothing_is_refused",
        mistyped_rules,
    );
    story(
        stories,
        stage,
        "a_text_that_shows_as_another_is_refused",
        texts,
    );
    story(
        stories,
        stage,
        "an_idempotency_key_is_kept_to_or_refused",
        keys,
    );
    story(
        stories,
        stage,
        "a_list_is_narrowed_by_what_there_is_and_by_nothing_else",
        filters,
    );
}

async fn texts(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let owner = &world.acme;
    let nobodys = "00000000-0000-7000-8000-000000000000";
    let of = |path: &str| format!("/marketplace/releases/{nobodys}/{path}");
    let names = [
        (owner, "/agents".to_owned(), json!({}), "name"),
        (
            owner,
            "/api-keys".to_owned(),
            json!({ "roles": ["auditor"] }),
            "name",
        ),
        (
            owner,
            "/users".to_owned(),
            json!({ "email": "ada@example.com", "roles": ["auditor"] }),
            "display_name",
        ),
        (
            &world.operator,
            "/tenants".to_owned(),
            json!({ "slug": "other" }),
            "name",
        ),
        (
            owner,
            "/marketplace/publishers".to_owned(),
            json!({ "namespace": "ada" }),
            "name",
        ),
    ];
    let lines = [
        (owner, of("yank"), json!({}), "reason"),
        (&world.operator, of("reject"), json!({}), "reason"),
        (&world.operator, of("revoke"), json!({}), "reason"),
    ];
    let multi = [(owner, "/agent-tasks".to_owned(), json!({}), "objective")];
    let everywhere = ["a\u{1b}[2J", "a\u{202e}cod", "a\rb", "a\u{2028}b"];
    let in_lines = ["a\nb", "a\tb"];
    let in_names = ["Ada (tsk_0123456789ab)", "Ada\u{ff08}tso_0123456789ab"];
    for (things, wrong) in [
        (&names[..], [&everywhere[..], &in_lines, &in_names].concat()),
        (&lines[..], [&everywhere[..], &in_lines].concat()),
        (&multi[..], everywhere.to_vec()),
    ] {
        for (api, path, body, field) in things {
            for text in &wrong {
                let mut body = body.clone();
                body[*field] = json!(text);
                let answer = api.post(path, &body).await;
                assert_eq!(answer.problem(422), "invalid_body", "{path} {text:?}");
                let pointer = &answer.json()["errors"][0]["pointer"];
                assert_eq!(*pointer, format!("/{field}"), "{path}: {}", answer.text);
            }
        }
    }
    let fine = json!({ "objective": "First line\n\tsecond line" });
    owner.post("/agent-tasks", &fine).await.ok();
    let fine = json!({ "name": "Zo\u{eb} (night shift)" });
    owner.post("/agents", &fine).await.ok();
}

/// Once more under the same key.
async fn post_once(api: &Api, path: &str, body: &Value, key: &str) -> Answer {
    let request = api.request(Method::POST, path).json(body);
    Api::send(request.header("idempotency-key", key)).await
}

async fn keys(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    for (api, policies) in [
        (&world.acme, "/policies"),
        (&world.operator, "/operator-policies"),
    ] {
        let brought = api
            .upload(
                &format!("{policies}/components"),
                component("delegation_depth"),
            )
            .await
            .ok();
        let settings = brought["examples"][0].clone();
        let policy = json!({ "digest": brought["digest"], "settings": settings });
        let first = post_once(api, policies, &policy, "a").await.ok();
        let again = post_once(api, policies, &policy, "a").await;
        assert_eq!(again.headers["etag"], "\"1\"");
        assert_eq!(again.ok()["id"], first["id"], "{policies}");
        let other =
            json!({ "digest": brought["digest"], "settings": policy["settings"], "position": 7 });
        let reused = post_once(api, policies, &other, "a").await;
        assert_eq!(reused.problem(422), "idempotency_key_reused");
        let second = post_once(api, policies, &policy, "b").await.ok();
        assert_ne!(second["id"], first["id"]);
        let chain = api.get(policies).await.ok();
        let of_ours = |policy: &&Value| policy["id"] == first["id"] || policy["id"] == second["id"];
        assert_eq!(
            chain["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(of_ours)
                .count(),
            2
        );
    }
    // For an operator as for a tenant.
    for (api, namespace) in [(&world.acme, "acme"), (&world.operator, "us")] {
        let publisher = json!({ "namespace": namespace, "name": "Ours" });
        let made = post_once(api, "/marketplace/publishers", &publisher, "a")
            .await
            .ok();
        let again = post_once(api, "/marketplace/publishers", &publisher, "a")
            .await
            .ok();
        assert_eq!(again["id"], made["id"]);
        let path = format!("/marketplace/publishers/{}/keys", text(&made["id"]));
        let key = json!({ "name": "a machine", "public_key": PrivateKey::generate().public().to_string() });
        let first = post_once(api, &path, &key, "a").await.ok();
        let again = post_once(api, &path, &key, "a").await.ok();
        assert_eq!(again["keys"], first["keys"]);
        assert_eq!(first["keys"].as_array().map(Vec::len), Some(1), "{first}");
    }
    // A secret is in the first answer alone; the same for another tenant is another request.
    let [acme, globex] = [
        world.tenant(&world.acme).await,
        world.tenant(&world.globex).await,
    ];
    let path = format!("/tenants/{acme}/owner-keys");
    let made = post_once(&world.operator, &path, &json!({}), "a")
        .await
        .ok();
    let again = post_once(&world.operator, &path, &json!({}), "a")
        .await
        .ok();
    assert_eq!(again["api_key"]["id"], made["api_key"]["id"]);
    assert!(
        made["secret"].is_string() && again["secret"].is_null(),
        "{again}"
    );
    let path = format!("/tenants/{globex}/owner-keys");
    let other = post_once(&world.operator, &path, &json!({}), "a").await;
    assert_eq!(other.problem(422), "idempotency_key_reused");
    // Where it is not read it is not ignored.
    let new = json!({ "name": "initech", "slug": "initech" });
    let refused = post_once(&world.operator, "/tenants", &new, "a").await;
    assert_eq!(refused.problem(400), "idempotency_key_not_read");
    world.operator.post("/tenants", &new).await.ok();
}

async fn only_config(api: &Api) -> Value {
    api.get("/skill-configs").await.ok()["items"][0].clone()
}

async fn configure(api: &Api, change: Value) -> Answer {
    let id = text(&only_config(api).await["id"]);
    api.patch(&format!("/skill-configs/{id}"), &change).await
}

async fn mistyped_rules(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = &world.acme;
    let mut said = guise("1.0.0");
    said["actions"] = json!([
        { "name": "tell", "risk": "read", "scopes": [["channels", "/channel"]] },
        { "name": "shout", "risk": "write", "scopes": [] },
    ]);
    acme.upload("/plugins", chameleon(&said)).await.ok();
    let asked = json!({ "approval_actions": ["tell", "shuot"], "disabled_actions": ["Tell"],
        "allowed_scopes": { "channel": ["#a"] } });
    let refused = configure(acme, asked).await;
    assert_eq!(refused.problem(422), "unknown_name");
    let errors = refused.json()["errors"].clone();
    let places: Vec<_> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|e| text(&e["pointer"]))
        .collect();
    assert_eq!(
        places,
        [
            "/approval_actions/1",
            "/disabled_actions/0",
            "/allowed_scopes/channel"
        ]
    );
    let message = text(&errors[0]["message"]);
    assert!(
        message.contains("`shuot`") && message.contains("tell, shout"),
        "{message}"
    );
    assert!(
        text(&errors[2]["message"]).ends_with("which has channels"),
        "{errors}"
    );
    for values in [json!("#a"), json!([42]), json!([null]), json!({})] {
        let refused = configure(acme, json!({ "allowed_scopes": { "channels": values } })).await;
        assert_eq!(refused.problem(422), "invalid_body");
    }
    let untouched = only_config(acme).await;
    assert_eq!(
        (&untouched["version"], &untouched["allowed_scopes"]),
        (&json!(1), &json!({}))
    );

    // What it named while the plugin had it stays, and does not stand in the way of other rules.
    let rules = json!({ "approval_actions": ["shout"], "disabled_actions": ["shout"], "allowed_scopes": { "channels": ["#a"] } });
    configure(acme, rules.clone()).await.ok();
    acme.upload("/plugins", chameleon(&guise("2.0.0")))
        .await
        .ok();
    let changed = configure(acme, json!({ "requires_approval": true }))
        .await
        .ok();
    assert_eq!(changed["approval_actions"], json!(["shout"]));
    configure(acme, rules).await.ok();
    configure(acme, json!({ "approval_actions": ["tell"] }))
        .await
        .ok();
    let again = configure(acme, json!({ "approval_actions": ["shout"] })).await;
    assert_eq!(again.problem(422), "unknown_name");
}

/// The column of each entry of a list, sorted.
async fn column(api: &Api, list: &str, name: &str) -> Vec<String> {
    let page = api.get(list).await.ok();
    let mut all: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| text(&item[name]))
        .collect();
    all.sort();
    all
}

async fn filters(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (acme, tenant) = (&world.acme, world.tenant(&world.acme).await);
    for list in ["/skill-calls", "/approvals", "/agent-tasks"] {
        for query in [
            "status=pendng",
            "status=",
            "status=PENDING",
            "stauts=pending",
            "task_id=7",
        ] {
            let refused = acme.get(&format!("{list}?{query}")).await;
            assert_eq!(refused.problem(400), "invalid_query", "{list}?{query}");
        }
    }
    let task = json!({ "objective": "narrow", "plan": { "steps": [] } });
    let task = text(&acme.post("/agent-tasks", &task).await.ok()["id"]);
    let mut superuser = world.database("postgres").await;
    let calls = [
        "queued",
        "awaiting_approval",
        "running",
        "outcome_unknown",
        "succeeded",
        "failed",
        "rejected",
        "cancelled",
    ];
    for (nr, status) in calls.iter().enumerate() {
        let skill = if nr % 2 == 0 { "slack" } else { "github" };
        let of = if *status == "failed" {
            format!("'{task}'")
        } else {
            "null".to_owned()
        };
        let call = format!("insert into skill_calls (id, tenant_id, task_id, actor, idempotency_key, request_sha256, skill_name, action, params, status, started_at)
            values (uuidv7(), '{tenant}', {of}, 'somebody', '{nr}', '', '{skill}', 'act', '{{}}', '{status}', case when '{status}' in ('running', 'outcome_unknown') then now() end)");
        superuser
            .execute(AssertSqlSafe(call))
            .await
            .expect("a call");
    }
    for status in calls {
        let found = column(acme, &format!("/skill-calls?status={status}"), "status").await;
        assert_eq!(found, [status]);
    }
    assert_eq!(
        column(acme, "/skill-calls?skill=github", "status").await,
        [
            "awaiting_approval",
            "cancelled",
            "failed",
            "outcome_unknown"
        ]
    );
    let of_task = format!("/skill-calls?task_id={task}");
    assert_eq!(column(acme, &of_task, "status").await, ["failed"]);
    assert!(
        column(acme, &format!("{of_task}&skill=slack"), "status")
            .await
            .is_empty()
    );
    // The filter holds over its pages.
    let first = acme.get("/skill-calls?skill=github&limit=3").await.ok();
    let rest = format!(
        "/skill-calls?skill=github&cursor={}",
        text(&first["next_cursor"])
    );
    assert_eq!(column(acme, &rest, "status").await, ["awaiting_approval"]);
    assert_eq!(
        column(&world.globex, "/skill-calls?skill=github", "status").await,
        [""; 0]
    );
    assert_eq!(
        column(acme, "/agent-tasks?status=queued", "id").await,
        [task]
    );
    for status in [
        "thinking",
        "executing",
        "waiting_input",
        "delegated",
        "completed",
        "failed",
        "cancelled",
    ] {
        assert!(
            column(acme, &format!("/agent-tasks?status={status}"), "id")
                .await
                .is_empty(),
            "{status}"
        );
    }
    for status in ["pending", "approved", "rejected", "expired", "used"] {
        assert!(
            column(acme, &format!("/approvals?status={status}"), "id")
                .await
                .is_empty(),
            "{status}"
        );
    }
}
