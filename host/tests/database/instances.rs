//! An instance's life, where several things happen to it at once, and where it does not come back.

use crate::{
    Stories,
    ground::{Ground, Server, text, until_waiting},
    story,
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::sync::Arc;
use tsunami::instances::keep;
use tsunami_cluster::Phase;

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "instances::what_is_asked_at_once_is_done_once",
        at_once,
    );
    story(
        stories,
        server,
        "instances::one_that_does_not_come_back_keeps_no_other_down",
        one_is_broken,
    );
    story(
        stories,
        server,
        "instances::one_that_is_stopped_while_it_comes_back_is_stopped",
        stopped_meanwhile,
    );
}

struct Instance {
    id: String,
    name: String,
    key: String,
}

/// One that runs, as far as the database knows.
async fn running(ground: &Ground, slug: &str) -> Instance {
    let (_, key) = ground.tenant(slug).await;
    let made = ground.post("/instances", &key, json!({})).await.ok();
    let id = text(&made["id"]);
    let running = format!(
        "update tenant_instances set status = 'running' where id = '{id}'; delete from outbox"
    );
    execute(&mut ground.database("postgres").await, &running).await;
    Instance {
        id,
        name: text(&made["name"]),
        key,
    }
}

async fn execute(database: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(database)
        .await
        .expect("it is done");
}

async fn seen(ground: &Ground, instance: &Instance) -> Value {
    let path = format!("/instances/{}", instance.id);
    ground.get(&path, &instance.key).await.ok()
}

async fn phase(ground: &Ground, instance: &Instance) -> Phase {
    ground.app.cluster().status(&instance.name).await.phase
}

async fn at_once(ground: Ground) {
    let instance = running(&ground, "hasty").await;
    let mut holder = ground.database("postgres").await;
    let mut held = holder.begin().await.expect("a transaction");
    sqlx::query("select from tenant_instances for update")
        .execute(&mut *held)
        .await
        .expect("the row is held");
    let ground = Arc::new(ground);
    let ask = |what: &'static str| {
        let (ground, key) = (ground.clone(), instance.key.clone());
        let path = format!("/instances/{}/{what}", instance.id);
        tokio::spawn(async move { ground.post(&path, &key, json!({})).await })
    };
    let asked = [ask("stop"), ask("restart")];
    until_waiting(&mut ground.database("postgres").await, 2).await;
    held.commit().await.expect("the row is free");
    let mut statuses = Vec::new();
    for answer in asked {
        statuses.push(answer.await.expect("an answer").status);
    }
    statuses.sort();
    assert_eq!(statuses, [StatusCode::ACCEPTED, StatusCode::CONFLICT]);
    let started = sqlx::query("select workflow_id, kind from outbox")
        .fetch_all(&mut ground.database("postgres").await)
        .await
        .expect("the outbox");
    assert_eq!(started.len(), 1, "one workflow");
    let of_the_instance = format!("instance-{}", instance.id);
    assert_eq!(started[0].get::<String, _>(0), of_the_instance);
    assert_eq!(started[0].get::<String, _>(1), "start_again");
    let status = text(&seen(&ground, &instance).await["status"]);
    assert!(["stopping", "provisioning"].contains(&status.as_str()));
}

async fn one_is_broken(ground: Ground) {
    let (broken, whole) = (
        running(&ground, "broken").await,
        running(&ground, "whole").await,
    );
    let mut database = ground.database("postgres").await;
    let spoil = format!(
        "create table kept as select encrypted_secrets from tenant_instances where id = '{0}';
         update tenant_instances set encrypted_secrets = '\\x00' where id = '{0}'",
        broken.id
    );
    execute(&mut database, &spoil).await;
    keep::round(&ground.app).await.expect("a round");
    assert_eq!(phase(&ground, &whole).await, Phase::Running);
    assert_eq!(seen(&ground, &whole).await["status"], "running");
    let told = seen(&ground, &broken).await;
    assert_eq!(told["status"], "error");
    assert!(
        text(&told["error"]).contains("does not come back"),
        "{told}"
    );
    assert_eq!(phase(&ground, &broken).await, Phase::Gone);

    let mend = format!(
        "update tenant_instances set encrypted_secrets = (select encrypted_secrets from kept) where id = '{}'",
        broken.id
    );
    execute(&mut database, &mend).await;
    keep::round(&ground.app).await.expect("a round");
    let told = seen(&ground, &broken).await;
    assert_eq!(
        (&told["status"], &told["error"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(phase(&ground, &broken).await, Phase::Running);
    ground.app.cluster().shutdown().await;
}

async fn stopped_meanwhile(ground: Ground) {
    let instance = running(&ground, "fickle").await;
    let mut holder = ground.database("postgres").await;
    let mut held = holder.begin().await.expect("a transaction");
    sqlx::query("select from tenant_instances for update")
        .execute(&mut *held)
        .await
        .expect("the row is held");
    let app = ground.app.clone();
    let round = tokio::spawn(async move { keep::round(&app).await });
    // It runs by now, and is about to be noted.
    until_waiting(&mut ground.database("postgres").await, 1).await;
    sqlx::query("update tenant_instances set status = 'stopped', desired = 'stopped'")
        .execute(&mut *held)
        .await
        .expect("it is stopped");
    held.commit().await.expect("the row is free");
    round.await.expect("it ends").expect("a round");
    assert_eq!(phase(&ground, &instance).await, Phase::Stopped);
    assert_eq!(seen(&ground, &instance).await["status"], "stopped");
    ground.app.cluster().shutdown().await;
}
