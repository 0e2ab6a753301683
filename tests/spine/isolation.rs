//! What one tenant has does not exist for another, and for nobody without a key.

use crate::{CANARY, Stories, Theatre, World, shared};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use std::{collections::BTreeMap, sync::Arc};
use tsunami_provenance::PrivateKey;
use tsunami_tests::{
    api::{Answer, Api},
    company::{Company, sending, text},
    component,
    publisher::Publisher,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "another_tenant_finds_nothing_by_any_operation",
        nothing_is_found,
    );
    shared(
        stories,
        theatre,
        "no_operation_answers_without_a_key",
        keys_are_asked_for,
    );
    shared(stories, theatre, "an_auditor_changes_nothing", auditor);
    shared(
        stories,
        theatre,
        "a_query_that_forgets_its_where_returns_nothing_of_others",
        forgotten_where,
    );
}

/// An operation of the API's own description.
pub struct Operation {
    pub id: String,
    pub method: Method,
    /// Below `/api/v1`.
    pub path: String,
    pub has_body: bool,
}

pub async fn operations(api: &Api) -> Vec<Operation> {
    let document = api.get("//openapi.json").await.ok();
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut all = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            all.push(Operation {
                id: text(&operation["operationId"]),
                method: method.to_uppercase().parse().expect("a method"),
                path: path.trim_start_matches("/api/v1").to_owned(),
                has_body: operation.get("requestBody").is_some(),
            });
        }
    }
    assert!(all.len() > 30, "the description is not whole");
    all
}

/// A body that the operation would take. An operation that is not named here is a new one: add it.
pub fn body_of(operation: &str) -> Value {
    match operation {
        "create_task" => sending("not mine"),
        "approve_task" | "reject_task" | "approve" | "reject" | "deploy_instance" => json!({}),
        "create_agent" => json!({ "name": "mole" }),
        "update_agent" => json!({ "paused": true }),
        "relate_agents" => {
            json!({ "to_agent_id": uuid::Uuid::nil(), "relationship_type": "delegates_to", "trust": 0.5 })
        }
        "create_key" => json!({ "name": "mine", "roles": ["auditor"] }),
        "create_user" => {
            json!({ "email": "mole@example.com", "display_name": "Mole", "roles": ["auditor"] })
        }
        "create_tenant" => json!({ "name": "Another", "slug": "another" }),
        "resolve_call" => json!({ "resolution": "done" }),
        "update_config" => json!({ "enabled": false }),
        "store_credential" => json!({ "skill": "slack", "key": "bot_token", "value": CANARY }),
        "call_skill" => json!({ "params": { "channel": "#finance", "text": "not mine" } }),
        "update_plugin" => json!({ "auto_upgrade": false }),
        "upgrade_plugin" => json!({}),
        "create_publisher" => json!({ "namespace": "mole", "name": "Mole" }),
        "update_publisher" => json!({ "name": "Mole" }),
        "add_publisher_key" => {
            json!({ "name": "mine", "public_key": PrivateKey::generate().public().to_string() })
        }
        "publish_release" => {
            json!({ "publisher": "mole", "digest": "0".repeat(64), "key_id": uuid::Uuid::nil(),
                "signature": format!("{}==", "A".repeat(86)), "visibility": "private" })
        }
        "update_release" => json!({ "visibility": "public" }),
        "set_conformance" => json!({ "passed": true }),
        "reject_release" | "yank_release" | "revoke_release" => json!({ "reason": "not mine" }),
        "revoke_component" => json!({ "digest": "0".repeat(64), "reason": "not mine" }),
        "install_plugin" | "bring_component" => Value::Null,
        other => panic!("the operation `{other}` is new: say in isolation.rs what body it takes"),
    }
}

/// Whose keys an operation takes.
#[derive(PartialEq, Eq)]
enum Whose {
    Tenants,
    Operators,
    Both,
}

fn whose(operation: &Operation) -> Whose {
    match operation.id.as_str() {
        "create_tenant" | "list_tenants" => Whose::Operators,
        "approve_release" | "reject_release" | "revoke_component" => Whose::Operators,
        "get_consent" | "list_notices" => Whose::Tenants,
        _ if operation.path.starts_with("/marketplace/") => Whose::Both,
        _ => Whose::Tenants,
    }
}

pub async fn ask(api: &Api, operation: &Operation, path: &str) -> Answer {
    let mut request = api.request(operation.method.clone(), path);
    if operation.has_body {
        request = match body_of(&operation.id) {
            Value::Null => request.header("content-type", "application/wasm").body("x"),
            body => request.json(&body),
        };
    }
    Api::send(request).await
}

/// One of everything that the tenant has, by the path that its id belongs to.
async fn belongings(world: &World) -> BTreeMap<&'static str, String> {
    let acme = &world.acme;
    acme.configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let task = acme.ask_to_send("one of everything").await;
    acme.task_is(&task, &["waiting_input"]).await;
    acme.configure("slack", &json!({ "approval_actions": [] }))
        .await;
    let user = acme.owner.post("/users", &body_of("create_user")).await;
    assert!(
        user.status.is_success() || user.status == 409,
        "{}",
        user.text
    );
    acme.owner
        .post("/api-keys", &body_of("create_key"))
        .await
        .ok();
    let publisher = Publisher::register(&acme.owner, "acme").await;
    publisher.publish(component("slack")).await.ok();
    let mut found = BTreeMap::new();
    for list in [
        "agent-tasks",
        "agents",
        "api-keys",
        "approvals",
        "instances",
        "marketplace/publishers",
        "marketplace/releases",
        "plugins",
        "skill-calls",
        "skill-configs",
        "skill-creds",
        "users",
    ] {
        let page = acme.owner.get(&format!("/{list}")).await.ok();
        let id = text(&page["items"][0]["id"]);
        assert!(!id.is_empty(), "acme has nothing of {list}");
        found.insert(list, id);
    }
    found
}

async fn nothing_is_found(world: Arc<World>) {
    let belongings = belongings(&world).await;
    let intruder = Company::found(&world.gateway, "intruder").await;
    for operation in operations(&world.acme.owner).await {
        let Some((collection, rest)) = operation.path.trim_start_matches('/').split_once("/{id}")
        else {
            let answer = ask(&intruder.owner, &operation, &operation.path).await;
            for id in belongings.values() {
                assert!(
                    !answer.text.contains(id.as_str()),
                    "{} shows {id}: {}",
                    operation.id,
                    answer.text
                );
            }
            continue;
        };
        let id = belongings.get(collection).unwrap_or_else(|| {
            panic!("`{collection}` is new: say in isolation.rs what acme has of it")
        });
        let path = format!("/{collection}/{id}{rest}");
        let answer = ask(&intruder.owner, &operation, &path).await;
        assert_eq!(answer.problem(404), "not_found", "{} {path}", operation.id);
        // An id of another kind is no way in either.
        let other = belongings
            .iter()
            .find(|(kind, _)| **kind != collection)
            .expect("another kind")
            .1;
        let answer = ask(
            &world.acme.owner,
            &operation,
            &format!("/{collection}/{other}{rest}"),
        )
        .await;
        assert_eq!(
            answer.problem(404),
            "not_found",
            "{} with the id of something else",
            operation.id
        );
    }
    // Ids of another tenant inside a body.
    let mut task = sending("not my agent");
    task["agent_id"] = json!(belongings["agents"]);
    let answer = intruder.owner.post("/agent-tasks", &task).await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert_eq!(
        world.slack.count("not mine") + world.slack.count("not my agent"),
        0
    );
    // All of it is still there, and as it was.
    for (collection, id) in &belongings {
        world
            .acme
            .owner
            .get(&format!("/{collection}/{id}"))
            .await
            .ok();
    }
    let instance = world
        .acme
        .owner
        .get(&format!("/instances/{}", belongings["instances"]))
        .await
        .ok();
    assert_eq!(instance["status"], "running");
}

async fn keys_are_asked_for(world: Arc<World>) {
    let nobody = world.gateway.anybody();
    let guess = nobody.with_key("tsk_AAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let operator = world.gateway.operator();
    for operation in operations(&nobody).await {
        let path = operation
            .path
            .replace("{id}", &uuid::Uuid::nil().to_string());
        let path = path
            .replace("{skill}", "slack")
            .replace("{action}", "send_message");
        // An operator runs the gateway and sees nothing inside a tenant; for a tenant's key, its operations do not exist.
        let whose = whose(&operation);
        for api in [&nobody, &guess, &nobody.with_key("nonsense")] {
            if whose == Whose::Operators && api.key.starts_with("tsk_") {
                continue;
            }
            assert_eq!(
                ask(api, &operation, &path).await.problem(401),
                "unauthorized",
                "{}",
                operation.id
            );
        }
        let (other, status) = match whose {
            Whose::Operators => (&world.acme.owner, 404),
            Whose::Tenants => (&operator, 403),
            Whose::Both => continue,
        };
        ask(other, &operation, &path).await.problem(status);
    }
}

async fn auditor(world: Arc<World>) {
    let key = world
        .acme
        .owner
        .post("/api-keys", &body_of("create_key"))
        .await
        .ok();
    let auditor = world.gateway.anybody().with_key(&text(&key["secret"]));
    for operation in operations(&auditor).await {
        if whose(&operation) == Whose::Operators {
            continue;
        }
        let path = operation
            .path
            .replace("{id}", &uuid::Uuid::nil().to_string());
        let path = path
            .replace("{skill}", "slack")
            .replace("{action}", "send_message");
        let answer = ask(&auditor, &operation, &path).await;
        if operation.method == Method::GET {
            assert!(
                answer.status != 403
                    || operation.id == "read_logs"
                    || operation.path.starts_with("/skill-creds")
                    || operation.path.starts_with("/api-keys")
                    || operation.path.starts_with("/users"),
                "{}: {}",
                operation.id,
                answer.text
            );
        } else {
            assert_eq!(answer.problem(403), "missing_role", "{}", operation.id);
        }
    }
}

/// Tables that hold nothing of one tenant, or what is shared with others by design: `host/tests/marketplace` says with
/// whom. A new one is named here, or it has a `tenant_id`.
const OF_NO_TENANT: [&str; 8] = [
    "_sqlx_migrations",
    "operator_keys",
    "plugin_components",
    "plugin_releases",
    "plugin_revocations",
    "publisher_keys",
    "publishers",
    "tenants",
];

async fn forgotten_where(world: Arc<World>) {
    let intruder = Company::found(&world.gateway, "forgetful").await;
    let mut owner = world.gateway.database("postgres").await;
    let tables: Vec<(String, bool, i64)> = sqlx::query(
        "select c.relname::text, exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'), 0::int8
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'public' and c.relkind in ('r', 'p') order by 1",
    )
    .fetch_all(&mut owner)
    .await
    .expect("the tables")
    .iter()
    .map(|row| (row.get(0), row.get(1), row.get(2)))
    .collect();
    let mut app = world.gateway.database("tsunami_app").await;
    let mut of_tenants = 0;
    for (table, has_tenant, _) in &tables {
        if !has_tenant {
            assert!(
                OF_NO_TENANT.contains(&table.as_str()),
                "`{table}` has no tenant_id"
            );
            continue;
        }
        of_tenants += 1;
        let all = format!(
            "select count(*) from {table} where tenant_id <> '{}'",
            intruder.id
        );
        let there = count(&mut owner, &all)
            .await
            .expect("the superuser sees all");
        app.execute("begin").await.expect("a transaction");
        let tenant = format!("set local tsunami.tenant_id = '{}'", intruder.id);
        app.execute(AssertSqlSafe(tenant))
            .await
            .expect("the tenant is set");
        // Where the role may read the table at all.
        if let Ok(seen) = count(&mut app, &all).await {
            assert_eq!(
                seen, 0,
                "{table} shows {seen} of the {there} rows of others"
            );
        }
        app.execute("rollback").await.expect("the end");
        // And without a tenant: nothing, or an error.
        let seen = count(&mut app, &format!("select count(*) from {table}")).await;
        assert!(
            !matches!(seen, Ok(1..)),
            "{table} without a tenant: {seen:?}"
        );
    }
    assert!(of_tenants > 12, "there are more tables than that");
    assert!(
        count(&mut app, "select count(*) from operator_keys")
            .await
            .is_err()
    );
    let powers: bool = sqlx::query_scalar(
        "select bool_or(r.rolsuper or r.rolbypassrls or exists (select from pg_class c where c.relowner = r.oid))
         from pg_roles r where rolname = 'tsunami_app'",
    )
    .fetch_one(&mut owner)
    .await
    .expect("the role");
    assert!(
        !powers,
        "the application's role owns tables, or may bypass row-level security"
    );
}

async fn count(connection: &mut PgConnection, query: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
}
