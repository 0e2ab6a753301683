//! Who is a person, and who a second one.

use crate::{
    Stories,
    ground::{Answer, Ground, Server, text},
    story,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use std::sync::Arc;
use tsunami::{
    id::{ApprovalId, SkillCallId},
    tenants,
};

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "persons::one_person_with_two_keys_is_no_second_person",
        two_keys,
    );
    story(
        stories,
        server,
        "persons::who_makes_a_key_in_anothers_name_is_no_second_person",
        in_anothers_name,
    );
    story(
        stories,
        server,
        "persons::an_operators_key_ends",
        operators_keys,
    );
}

/// A key as it was made: what it is called by, and what it is.
struct Key {
    id: String,
    text: String,
}

struct Company {
    ground: Ground,
    tenant: String,
    database: PgConnection,
}

impl Company {
    async fn user(&self, by: &str, name: &str) -> Value {
        let new = json!({ "email": format!("{name}@acme.test"), "roles": ["admin"] });
        self.ground.post("/users", by, new).await.ok()["id"].clone()
    }

    async fn key(&self, by: &str, user: &Value) -> Key {
        let new = json!({ "name": "key", "roles": ["admin"], "user_id": user });
        let made = self.ground.post("/api-keys", by, new).await.ok();
        Key {
            id: text(&made["api_key"]["id"]),
            text: text(&made["secret"]),
        }
    }

    async fn write(&mut self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.database)
            .await
            .expect("it is written");
    }

    /// A call that waits for a second person, of whoever came with this key; SQL for where nobody knows.
    async fn asked(&mut self, key: &str) -> String {
        let (call, approval, tenant) = (SkillCallId::fresh(), ApprovalId::fresh(), &self.tenant);
        let insert = format!(
            "insert into skill_calls (id, tenant_id, actor, idempotency_key, request_sha256, skill_name, action, params, status, approval_id)
             values ('{call}', '{tenant}', 'who', '{call}', '', 'slack', 'send_message', '{{}}', 'awaiting_approval', '{approval}');
             insert into approvals (id, tenant_id, call_id, workflow_id, status, fingerprint, request, reason, requested_by, expires_at,
                                    second_person, on_behalf_of, on_behalf_of_key)
             values ('{approval}', '{tenant}', '{call}', 'w', 'pending', sha256(''), '{{}}', 'why', 'who', now() + interval '1 day',
                     true, 'who', {key})"
        );
        self.write(insert).await;
        format!("/approvals/{approval}")
    }

    /// What becomes of it where that key approves what the other asked for.
    async fn approve(&mut self, asked: &Key, approves: &Key) -> Answer {
        let path = self.asked(&format!("'{}'", asked.id)).await;
        self.decide(&path, "approve", &approves.text).await
    }

    async fn decide(&self, path: &str, decision: &str, key: &str) -> Answer {
        let path = format!("{path}/{decision}");
        self.ground.post(&path, key, json!({})).await
    }
}

#[track_caller]
fn is_refused(answer: &Answer) {
    assert_eq!(answer.status, 403, "{}", answer.json);
    assert_eq!(answer.json["code"], "second_person_needed");
}

async fn operators_keys(ground: Ground) {
    let app = &ground.app;
    let lets_in = async |key: &str| ground.get("/tenants", key).await.status.as_u16();
    let soon = app.clock().now() + time::Duration::hours(1);
    let make = async |name: &str, until| {
        let made = tenants::create_operator_key(app, name, until).await;
        made.expect("a key")
    };
    let timed = make("for an hour", Some(soon)).await;
    let other = make("another", None).await;
    assert_eq!((lets_in(&timed).await, lets_in(&other).await), (200, 200));
    let listed = tenants::operator_keys(app).await.expect("the keys");
    let names: Vec<_> = listed.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["another", "for an hour", "tester"]);
    assert_eq!(
        listed[1].expires_at.map(|at| at.unix_timestamp()),
        Some(soon.unix_timestamp())
    );

    let revoke = async |prefix: &str| tenants::revoke_operator_key(app, prefix).await;
    let revoked = revoke(&listed[0].prefix).await.expect("an answer");
    assert_eq!(revoked.as_deref(), Some("another"));
    assert_eq!((lets_in(&timed).await, lets_in(&other).await), (200, 401));
    let unknown = revoke("tso_nobodysnobod").await.expect("an answer");
    assert_eq!(unknown, None);

    let mut database = ground.database("postgres").await;
    sqlx::raw_sql("update operator_keys set expires_at = now() where name = 'for an hour'")
        .execute(&mut database)
        .await
        .expect("its hour is over");
    assert_eq!(lets_in(&timed).await, 401);
    assert_eq!(lets_in(&ground.operator).await, 200);
}

async fn two_keys(ground: Ground) {
    let (tenant, owner) = ground.tenant("acme").await;
    let mut company = Company {
        database: ground.database("postgres").await,
        tenant,
        ground,
    };
    let (alice, bob) = (
        company.user(&owner, "alice").await,
        company.user(&owner, "bob").await,
    );
    let first = company.key(&owner, &alice).await;
    let second = company.key(&owner, &alice).await;
    let other = company.key(&owner, &bob).await;
    // Alice makes herself keys that name nobody, and one of these another.
    let program = company.key(&first.text, &Value::Null).await;
    let sibling = company.key(&second.text, &Value::Null).await;
    let child = company.key(&program.text, &Value::Null).await;
    let hers = [&first, &second, &program, &sibling, &child];
    for asked in hers {
        for approves in hers {
            is_refused(&company.approve(asked, approves).await);
        }
        company.approve(asked, &other).await.ok();
        company.approve(&other, asked).await.ok();
    }

    // Two keys that an owner made without users are that owner's, and no two persons.
    let one = company.key(&owner, &Value::Null).await;
    let two = company.key(&owner, &Value::Null).await;
    is_refused(&company.approve(&one, &two).await);
    company.approve(&one, &first).await.ok();

    // Where nobody wrote down who asked, it may be anybody; and anybody may say no.
    let path = company.asked("null").await;
    is_refused(&company.decide(&path, "approve", &other.text).await);
    company.decide(&path, "reject", &other.text).await.ok();

    // A task knows the key that it was created with, for the calls that are made for it.
    let new = json!({ "objective": "say hello" });
    let task = company.ground.post("/agent-tasks", &child.text, new).await;
    let id = text(&task.ok()["id"]);
    let by: String = sqlx::query_scalar(AssertSqlSafe(format!(
        "select created_by_key::text from agent_tasks where id = '{id}'"
    )))
    .fetch_one(&mut company.database)
    .await
    .expect("a key");
    assert_eq!(by, child.id);
}

async fn in_anothers_name(ground: Ground) {
    let (tenant, owner) = ground.tenant("acme").await;
    let mut company = Company {
        database: ground.database("postgres").await,
        tenant,
        ground,
    };
    let mut users = Vec::new();
    for name in ["ann", "bob", "cleo"] {
        users.push(company.user(&owner, name).await);
    }
    let [ann, bob, cleo] = &users[..] else {
        unreachable!("three were made")
    };
    let (hers, his) = (
        company.key(&owner, ann).await,
        company.key(&owner, bob).await,
    );
    // Ann, an administrator, makes keys that say they are Bob's and Cleo's, and one of these another.
    let as_bob = company.key(&hers.text, bob).await;
    let as_cleo = company.key(&hers.text, cleo).await;
    let further = company.key(&as_bob.text, bob).await;
    for (asked, approves) in [
        (&hers, &as_bob),
        (&as_bob, &hers),
        (&as_bob, &as_cleo),
        (&hers, &further),
        (&further, &as_cleo),
    ] {
        is_refused(&company.approve(asked, approves).await);
    }
    // Bob himself is another, with what an owner made for him and what he makes of it.
    let his_own = company.key(&his.text, bob).await;
    for approves in [&his, &his_own] {
        company.approve(&hers, approves).await.ok();
        company.approve(approves, &hers).await.ok();
    }
    company.approve(&as_cleo, &his_own).await.ok();

    // Lists say so, and so does the trace of what was decided with such a key.
    for (key, marked) in [(&as_bob, true), (&his, true), (&his_own, false)] {
        let path = format!("/api-keys/{}", key.id);
        let shown = company.ground.get(&path, &owner).await.ok();
        assert_eq!(shown["in_anothers_name"], marked, "{shown}");
    }
    let listed = company.ground.get("/api-keys", &owner).await.ok();
    let listed = listed["items"].as_array().expect("a list");
    let marked = listed.iter().filter(|key| key["in_anothers_name"] == true);
    assert_eq!(marked.count(), 4);
    let decided = company.approve(&his_own, &as_cleo).await.ok();
    let by = text(&decided["decided_by"]);
    assert!(by.contains("with a key that key (tsk_"), "{by}");
    let decided = company.approve(&hers, &his_own).await.ok();
    assert!(!text(&decided["decided_by"]).contains("made for them"));

    // Whose name it is sees the key and ends it, whatever their role; nobody else's.
    let new = json!({ "name": "mine", "roles": ["auditor"], "user_id": bob });
    let made = company.ground.post("/api-keys", &owner, new).await.ok();
    let auditor = text(&made["secret"]);
    let seen = company.ground.get("/api-keys", &auditor).await.ok();
    let seen = seen["items"].as_array().expect("a list");
    assert!(seen.iter().all(|key| key["user_id"] == *bob));
    assert!(seen.iter().any(|key| key["id"] == as_bob.id.as_str()));
    let at = |key: &Key| format!("/api-keys/{}", key.id);
    assert_eq!(
        company.ground.delete(&at(&hers), &auditor).await.status,
        404
    );
    company.ground.delete(&at(&as_bob), &auditor).await.ok();
    assert_eq!(
        company.ground.get("/api-keys", &as_bob.text).await.status,
        401
    );
}
