//! Steps of a trace, written by two at once.

use crate::{
    Stories,
    ground::{Ground, Server, until_waiting},
    story,
};
use serde_json::json;
use std::sync::Arc;
use tsunami::{
    db::TenantTx,
    id::{SkillCallId, TaskId, TenantId},
    traces::{self, NewStep, StepType, Subject},
};

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "traces::two_writers_at_once_lose_no_step",
        two_steps,
    );
    story(
        stories,
        server,
        "traces::a_step_that_is_written_twice_at_once_is_there_once",
        same_step,
    );
}

async fn record(tx: &mut TenantTx, subject: Subject, key: &str) -> bool {
    let step = NewStep {
        subject,
        step_type: StepType::SkillCall,
        key: key.to_owned(),
        call: None,
        agent: None,
        details: json!({}),
        duration: None,
    };
    traces::record(tx, step).await.expect("it is written")
}

/// The first writer has written and not yet committed when the second comes; says whether the second's was new.
async fn one_after_the_other(ground: &Ground, subject: Subject, keys: [&'static str; 2]) -> bool {
    let (id, _) = ground.tenant(&format!("t-{}", TaskId::fresh())).await;
    let tenant = TenantId(id.parse().expect("an id"));
    let mut first = ground.app.db().tenant(tenant).await.expect("a transaction");
    let mut second = ground.app.db().tenant(tenant).await.expect("a transaction");
    assert!(record(&mut first, subject, keys[0]).await);
    let writing = tokio::spawn(async move {
        let new = record(&mut second, subject, keys[1]).await;
        second.commit().await.expect("it is kept");
        new
    });
    until_waiting(&mut ground.database("postgres").await, 1).await;
    first.commit().await.expect("it is kept");
    writing.await.expect("the second writer")
}

async fn orders(ground: &Ground) -> Vec<(i32, String)> {
    sqlx::query_as("select step_order, step_key from execution_traces order by step_order")
        .fetch_all(&mut ground.database("postgres").await)
        .await
        .expect("the steps")
}

async fn two_steps(ground: Ground) {
    let wanted = vec![(1, "one".to_owned()), (2, "two".to_owned())];
    let of_task = Subject::Task(TaskId::fresh());
    assert!(one_after_the_other(&ground, of_task, ["one", "two"]).await);
    assert_eq!(orders(&ground).await, wanted);
    let mut superuser = ground.database("postgres").await;
    sqlx::query("delete from execution_traces")
        .execute(&mut superuser)
        .await
        .expect("they are gone");
    let of_call = Subject::Call(SkillCallId::fresh());
    assert!(one_after_the_other(&ground, of_call, ["one", "two"]).await);
    assert_eq!(orders(&ground).await, wanted);
}

async fn same_step(ground: Ground) {
    let subject = Subject::Task(TaskId::fresh());
    assert!(!one_after_the_other(&ground, subject, ["one", "one"]).await);
    assert_eq!(orders(&ground).await, [(1, "one".to_owned())]);
}
