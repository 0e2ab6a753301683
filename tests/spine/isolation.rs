//! What one tenant has does not exist for another, and for nobody without a key.

use crate::{CANARY, Stories, Theatre, World, shared};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tsunami_provenance::{PrivateKey, sha256_hex};
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
        "an_id_of_another_tenant_in_a_body_is_as_one_of_nobody",
        ids_of_others,
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
    whose: Whose,
}

/// An id that nothing has.
pub const NOBODYS: &str = "00000000-0000-7000-8000-000000000000";

impl Operation {
    /// The path to one thing; what else it names is Slack's, or nobody's.
    pub fn path_to(&self, id: &str) -> String {
        self.path
            .replace("{id}", id)
            .replace("{key}", NOBODYS)
            .replace("{skill}", "slack")
            .replace("{action}", "send_message")
    }
}

pub async fn operations(api: &Api) -> Vec<Operation> {
    operations_of(&api.get("//openapi.json").await.ok())
}

fn operations_of(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut all = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            all.push(Operation {
                id: text(&operation["operationId"]),
                method: method.to_uppercase().parse().expect("a method"),
                path: path.trim_start_matches("/api/v1").to_owned(),
                has_body: operation.get("requestBody").is_some(),
                whose: whose(operation),
            });
        }
    }
    assert!(all.len() > 30, "the description is not whole");
    all
}

/// What Gmail's plugin names.
const OAUTH_HOSTS: [&str; 2] = ["accounts.google.com", "oauth2.googleapis.com"];
const OAUTH_CLIENT: &str = "123456789012-acme.apps.googleusercontent.com";

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
        "create_owner_key" => json!({}),
        "create_tenant" => json!({ "name": "Another", "slug": "another" }),
        "resolve_call" => json!({ "resolution": "done" }),
        "update_config" => json!({ "enabled": false }),
        "store_credential" => json!({ "skill": "slack", "key": "bot_token", "value": CANARY }),
        "register_oauth_client" => {
            json!({ "skill": "gmail", "key": "access_token", "client_id": OAUTH_CLIENT, "client_secret": CANARY, "hosts": OAUTH_HOSTS })
        }
        "start_sign_in" => json!({ "skill": "gmail", "key": "access_token" }),
        "confirm_sign_in" => json!({ "sign_in_id": uuid::Uuid::nil(), "code": "0000-0000" }),
        "call_skill" => json!({ "params": { "channel": "#finance", "text": "not mine" } }),
        "create_policy" | "create_operator_policy" => json!({ "digest": "0".repeat(64) }),
        "update_policy" | "update_operator_policy" => json!({ "enabled": false }),
        "replay_policy" => json!({ "digest": "0".repeat(64), "since": "2026-01-01T00:00:00Z" }),
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
        "reject_release" | "yank_release" | "revoke_release" => json!({ "reason": "not mine" }),
        "revoke_component" => json!({ "digest": "0".repeat(64), "reason": "not mine" }),
        "install_plugin"
        | "bring_component"
        | "add_policy_component"
        | "add_operator_policy_component" => Value::Null,
        other => panic!("the operation `{other}` is new: say in isolation.rs what body it takes"),
    }
}

/// Whose keys an operation takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Tenants,
    Operators,
    Both,
}

/// As the description says; `keys_are_asked_for` holds it to that.
fn whose(operation: &Value) -> Whose {
    let takes = |key: &str| {
        let mut all = operation["security"].as_array().into_iter().flatten();
        all.any(|one| one.get(key).is_some())
    };
    match (takes("api_key"), takes("operator_key")) {
        (false, true) => Whose::Operators,
        (true, true) => Whose::Both,
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
    let brought = acme
        .owner
        .upload("/policies/components", component("policy_probe"))
        .await
        .ok();
    let settings = json!({ "answer": "allow" });
    let policy = json!({ "digest": brought["digest"], "settings": settings, "enabled": false });
    acme.owner.post("/policies", &policy).await.ok();
    let publisher = Publisher::register(&acme.owner, &new_namespace("acme")).await;
    let mut release = publisher.prepare(component("slack")).await;
    release["visibility"] = json!("private");
    release["tenants"] = json!([acme.id]);
    acme.owner
        .post("/marketplace/releases", &release)
        .await
        .ok();
    acme.install("gmail").await;
    let client = body_of("register_oauth_client");
    let client = acme
        .owner
        .request(Method::PUT, "/skill-creds/oauth/client")
        .json(&client);
    Api::send(client).await.ok();
    // A sign-in that somebody began: its id is no way in either, and its state is nowhere.
    let start = body_of("start_sign_in");
    let begun = acme.owner.post("/skill-creds/oauth/start", &start).await;
    assert!(
        begun.status.is_success() || begun.status == 429,
        "{}",
        begun.text
    );
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
        "policies",
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

/// A namespace that nobody has.
fn new_namespace(of: &str) -> String {
    let unique = sha256_hex(PrivateKey::generate().public().to_string().as_bytes());
    format!("{of}-{}", &unique[..12])
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
        if operation.whose == Whose::Operators && !belongings.contains_key(collection) {
            let path = operation.path_to(NOBODYS);
            let answer = ask(&intruder.owner, &operation, &path).await;
            assert_eq!(answer.problem(404), "not_found", "{}", operation.id);
            continue;
        }
        let id = belongings.get(collection).unwrap_or_else(|| {
            panic!("`{collection}` is new: say in isolation.rs what acme has of it")
        });
        let rest = rest.replace("{key}", NOBODYS);
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
    assert_eq!(world.slack.count("not mine"), 0);
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

/// Every place for an id but the path, by operation: in the body by its pointer, in the query by its name.
fn places_of_ids(document: &Value) -> BTreeSet<(String, String)> {
    let mut places = BTreeSet::new();
    let paths = document["paths"].as_object().expect("paths");
    for operation in paths
        .values()
        .flat_map(|path| path.as_object().expect("operations").values())
    {
        let id = text(&operation["operationId"]);
        let content = operation["requestBody"]["content"].as_object();
        for body in content.into_iter().flat_map(|content| content.values()) {
            let mut found = BTreeSet::new();
            pointers_of_ids(document, &body["schema"], "", &mut found);
            places.extend(found.into_iter().map(|pointer| (id.clone(), pointer)));
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = text(&parameter["name"]);
            if parameter["in"] == "query" && name.ends_with("_id") {
                places.insert((id.clone(), name));
            }
        }
    }
    places
}

/// The pointers of the fields below a schema that hold an id. What is named within itself is followed four deep.
fn pointers_of_ids(document: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    const DEPTH_MAX: usize = 4;
    if at.matches('/').count() > DEPTH_MAX {
        return;
    }
    if let Some(name) = schema["$ref"].as_str() {
        let named = document.pointer(name.trim_start_matches('#'));
        return pointers_of_ids(document, named.expect("the schema is described"), at, found);
    }
    for kind in ["allOf", "oneOf", "anyOf"] {
        for part in schema[kind].as_array().into_iter().flatten() {
            pointers_of_ids(document, part, at, found);
        }
    }
    if schema["items"].is_object() {
        pointers_of_ids(document, &schema["items"], &format!("{at}/-"), found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let pointer = format!("{at}/{name}");
        if name.ends_with("_id") || name.ends_with("_ids") {
            found.insert(pointer.clone());
        }
        pointers_of_ids(document, field, &pointer, found);
    }
}

/// A place for an id of one's own tenant, and what belongs to another that is put there.
struct Place {
    operation: &'static str,
    pointer: &'static str,
    belongs_to: &'static str,
    /// One's own thing in the path, where there is one.
    own: String,
    body: Value,
}

async fn ids_of_others(world: Arc<World>) {
    let mut belongings = belongings(&world).await;
    let path = format!(
        "/marketplace/publishers/{}",
        belongings["marketplace/publishers"]
    );
    let publisher = world.acme.owner.get(&path).await.ok();
    belongings.insert("keys of publishers", text(&publisher["keys"][0]["id"]));
    let intruder = Company::found(&world.gateway, "borrower").await;
    let created = |path: &'static str, body: Value| {
        let intruder = &intruder;
        async move { text(&intruder.owner.post(path, &body).await.ok()["id"]) }
    };
    let agent = created("/agents", json!({ "name": "mole" })).await;
    let task = created("/agent-tasks", json!({ "objective": "my own" })).await;
    let publisher = Publisher::register(&intruder.owner, &new_namespace("mole")).await;
    let release = publisher.prepare(component("slack")).await;
    let place = |operation, pointer, belongs_to, own: &str, body| Place {
        operation,
        pointer,
        belongs_to,
        own: own.to_owned(),
        body,
    };
    let places = [
        place(
            "create_task",
            "/agent_id",
            "agents",
            "",
            sending("not my agent"),
        ),
        place(
            "relate_agents",
            "/to_agent_id",
            "agents",
            &agent,
            body_of("relate_agents"),
        ),
        place("create_key", "/user_id", "users", "", body_of("create_key")),
        place(
            "approve_task",
            "/approval_id",
            "approvals",
            &task,
            json!({}),
        ),
        place("reject_task", "/approval_id", "approvals", &task, json!({})),
        place(
            "publish_release",
            "/key_id",
            "keys of publishers",
            "",
            release,
        ),
        place(
            "confirm_sign_in",
            "/sign_in_id",
            "skill-creds",
            "",
            body_of("confirm_sign_in"),
        ),
        place("list_tasks", "agent_id", "agents", "", Value::Null),
        place("list_calls", "task_id", "agent-tasks", "", Value::Null),
        place(
            "list_policy_decisions",
            "call_id",
            "skill-calls",
            "",
            Value::Null,
        ),
    ];
    let document = world.acme.owner.get("//openapi.json").await.ok();
    let known: BTreeSet<_> = places
        .iter()
        .map(|place| (place.operation.to_owned(), place.pointer.to_owned()))
        .collect();
    let mut ids = places_of_ids(&document);
    // The provider's word, and no id of anything here.
    ids.remove(&("register_oauth_client".to_owned(), "/client_id".to_owned()));
    assert_eq!(ids, known, "a place for an id is new, or gone");
    let operations = operations_of(&document);
    for place in &places {
        let operation = operations.iter().find(|known| known.id == place.operation);
        let operation = operation.expect("it is described");
        let path = operation.path_to(&place.own);
        let ask = async |id: &str| {
            let Some(name) = place.pointer.strip_prefix('/') else {
                let asked = format!("{path}?{}={id}", place.pointer);
                let request = intruder.owner.request(operation.method.clone(), &asked);
                return Api::send(request).await;
            };
            let request = intruder.owner.request(operation.method.clone(), &path);
            let mut body = place.body.clone();
            body[name] = json!(id);
            Api::send(request.json(&body)).await
        };
        let theirs = ask(&belongings[place.belongs_to]).await;
        let nobodys = ask("00000000-0000-7000-8000-000000000000").await;
        let what = (place.operation, place.pointer);
        // What belongs to others looks like what is not there at all.
        let seen = |answer: &Answer| (answer.status, answer.json()["detail"].clone());
        assert_eq!(seen(&theirs), seen(&nobodys), "{what:?}");
        match operation.method {
            Method::GET => assert_eq!(theirs.json()["items"], json!([]), "{what:?}"),
            _ => assert!(theirs.status.is_client_error(), "{what:?} {}", theirs.text),
        }
    }
    // A sign-in that somebody else began is as one of nobody.
    let mut superuser = world.gateway.database("postgres").await;
    let theirs: String =
        sqlx::query_scalar("select id::text from oauth_grants where tenant_id::text = $1 limit 1")
            .bind(&world.acme.id)
            .fetch_one(&mut superuser)
            .await
            .expect("acme's sign-in");
    let confirmation = json!({ "sign_in_id": theirs, "code": "0000-0000" });
    let answer = intruder
        .owner
        .post("/skill-creds/oauth/confirm", &confirmation)
        .await;
    assert_eq!(answer.problem(404), "not_found");
    // A component is named by its digest, and is its owner's all the same.
    let policy = world.acme.owner.get("/policies").await.ok();
    let digest = json!({ "digest": policy["items"][0]["digest"] });
    let answer = intruder.owner.post("/policies", &digest).await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert_eq!(world.slack.count("not my agent"), 0);
    let path = format!("/approvals/{}", belongings["approvals"]);
    assert_eq!(world.acme.owner.get(&path).await.ok()["status"], "pending");
}

async fn keys_are_asked_for(world: Arc<World>) {
    let nobody = world.gateway.anybody();
    let guess = nobody.with_key("tsk_AAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let operator = world.gateway.operator();
    for operation in operations(&nobody).await {
        let path = operation.path_to(NOBODYS);
        // An operator runs the gateway and sees nothing inside a tenant; for a tenant's key, its operations do not exist.
        let whose = operation.whose;
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
        if operation.whose == Whose::Operators {
            continue;
        }
        let path = operation.path_to(NOBODYS);
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
const OF_NO_TENANT: [&str; 11] = [
    "_sqlx_migrations",
    "operator_idempotency_keys",
    "operator_keys",
    "operator_policies",
    "plugin_components",
    "plugin_releases",
    "plugin_revocations",
    "publisher_keys",
    "publishers",
    "stamps",
    "tenants",
];

/// Tables that may hold nothing at a given moment: what is in them is taken out at once, or comes with other stories.
const MAY_BE_EMPTY: [&str; 2] = ["outbox", "policy_decisions"];

async fn forgotten_where(world: Arc<World>) {
    one_row_of_each(&world).await;
    let intruder = Company::found(&world.gateway, "forgetful").await;
    let mut superuser = world.gateway.database("postgres").await;
    let tables: Vec<(String, bool)> = sqlx::query_as(
        "select c.relname::text, exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id')
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'public' and c.relkind in ('r', 'p') order by 1",
    )
    .fetch_all(&mut superuser)
    .await
    .expect("the tables");
    let mut app = world.gateway.database("tsunami_app").await;
    let mut of_tenants = 0;
    for (table, has_tenant) in &tables {
        if !has_tenant {
            assert!(
                OF_NO_TENANT.contains(&table.as_str()),
                "`{table}` has no tenant_id"
            );
            continue;
        }
        of_tenants += 1;
        let others = format!("from {table} where tenant_id <> '{}'", intruder.id);
        let there = count(&mut superuser, &format!("select count(*) {others}"))
            .await
            .expect("the superuser sees all");
        assert!(
            there > 0 || MAY_BE_EMPTY.contains(&table.as_str()),
            "nobody has anything in {table}: nothing is shown by that"
        );
        let mut intrusion = Intrusion {
            app: &mut app,
            tenant: &intruder.id,
        };
        // Where the role may read the table at all.
        if let Ok(seen) = intrusion.count(&format!("select count(*) {others}")).await {
            assert_eq!(
                seen, 0,
                "{table} shows {seen} of the {there} rows of others"
            );
        }
        for change in [
            format!(
                "update {table} set tenant_id = tenant_id where tenant_id <> '{}'",
                intruder.id
            ),
            format!("delete {others}"),
        ] {
            intrusion.changes_nothing(&change).await;
        }
        if let Some(copy) = copy_of_a_row(&mut superuser, table, &others).await {
            intrusion.is_refused(&copy).await;
        }
        // And without a tenant: nothing, or an error.
        let seen = count(&mut app, &format!("select count(*) from {table}")).await;
        assert!(
            !matches!(seen, Ok(1..)),
            "{table} without a tenant: {seen:?}"
        );
    }
    assert!(of_tenants > 12, "there are more tables than that");
    // What is one's own cannot be given to another tenant either.
    let mut intrusion = Intrusion {
        app: &mut app,
        tenant: &intruder.id,
    };
    let give = format!("update api_keys set tenant_id = '{}'", world.acme.id);
    intrusion.is_refused(&give).await;
    assert!(
        count(&mut app, "select count(*) from operator_keys")
            .await
            .is_err()
    );
    let powers: bool = sqlx::query_scalar(
        "select bool_or(r.rolsuper or r.rolbypassrls or exists (select from pg_class c where c.relowner = r.oid))
         from pg_roles r where rolname = 'tsunami_app'",
    )
    .fetch_one(&mut superuser)
    .await
    .expect("the role");
    assert!(
        !powers,
        "the application's role owns tables, or may bypass row-level security"
    );
}

/// Something of acme's in each table.
async fn one_row_of_each(world: &World) {
    belongings(world).await;
    let acme = &world.acme;
    acme.configure("slack", &json!({ "costs": { "send_message": 1 } }))
        .await;
    let task = acme.ask_to_send("a row of each").await;
    acme.task_is(&task, &["completed"]).await;
    acme.configure("slack", &json!({ "costs": {} })).await;
    let colleague = json!({ "name": format!("colleague of {task}") });
    let request = acme.owner.request(Method::POST, "/agents").json(&colleague);
    let colleague = Api::send(request.header("idempotency-key", &task))
        .await
        .ok();
    let agents = acme.owner.get("/agents").await.ok();
    let first = agents["items"]
        .as_array()
        .expect("agents")
        .last()
        .expect("an agent");
    let relation = json!({ "to_agent_id": colleague["id"], "relationship_type": "collaborates_with", "trust": 0.5 });
    let path = format!("/agents/{}/relationships", text(&first["id"]));
    let request = acme.owner.request(Method::PUT, &path).json(&relation);
    assert!(Api::send(request).await.status.is_success());
}

/// An insert of a row like one that is there, of all its columns that may be given.
async fn copy_of_a_row(superuser: &mut PgConnection, table: &str, others: &str) -> Option<String> {
    let columns: String = sqlx::query_scalar(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = '' and attidentity = ''",
    )
    .bind(table)
    .fetch_one(&mut *superuser)
    .await
    .expect("the columns");
    let row = format!("select quote_literal(to_jsonb(one)) from (select * {others} limit 1) one");
    let row: Option<String> = sqlx::query_scalar(AssertSqlSafe(row))
        .fetch_optional(superuser)
        .await
        .expect("a row");
    let row = row?;
    Some(format!(
        "insert into {table} ({columns}) select {columns} from jsonb_populate_record(null::{table}, {row}::jsonb)"
    ))
}

/// The application's role, in transactions of a tenant that the rows are not of.
struct Intrusion<'a> {
    app: &'a mut PgConnection,
    tenant: &'a str,
}

impl Intrusion<'_> {
    async fn begin(&mut self) {
        let begin = format!("begin; set local tsunami.tenant_id = '{}'", self.tenant);
        let begun = sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *self.app);
        begun.await.expect("a transaction");
    }

    async fn rollback(&mut self) {
        self.app.execute("rollback").await.expect("the end");
    }

    async fn count(&mut self, query: &str) -> Result<i64, sqlx::Error> {
        self.begin().await;
        let counted = count(self.app, query).await;
        self.rollback().await;
        counted
    }

    async fn change(&mut self, statement: &str) -> Result<u64, sqlx::Error> {
        self.begin().await;
        let changed = self.app.execute(AssertSqlSafe(statement.to_owned())).await;
        self.rollback().await;
        changed.map(|done| done.rows_affected())
    }

    /// It finds no row, or the role may not do it at all.
    async fn changes_nothing(&mut self, statement: &str) {
        match self.change(statement).await {
            Ok(rows) => assert_eq!(rows, 0, "{statement}"),
            Err(error) => is_forbidden(&error, statement),
        }
    }

    async fn is_refused(&mut self, statement: &str) {
        match self.change(statement).await {
            Ok(rows) => panic!("{rows} rows: {statement}"),
            Err(error) => is_forbidden(&error, statement),
        }
    }
}

#[track_caller]
fn is_forbidden(error: &sqlx::Error, statement: &str) {
    /// `insufficient_privilege`: of the role, or by the row-level security.
    const FORBIDDEN: &str = "42501";
    let code = error.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some(FORBIDDEN), "{statement}: {error}");
}

async fn count(connection: &mut PgConnection, query: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
}
