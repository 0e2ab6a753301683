//! Connections that are given back with something left on them.

use crate::{
    Stories,
    ground::{Ground, Server},
    story,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{sync::Arc, time::Duration};
use tsunami::{app::App, db, id::TenantId, problem::Problem};

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "connections::a_transaction_that_is_dropped_holds_no_lock_and_no_connection",
        dropped,
    );
    story(
        stories,
        server,
        "connections::a_statement_that_nobody_waits_for_any_more_answers_nobody_else",
        cancelled,
    );
    story(
        stories,
        server,
        "connections::one_that_the_server_closed_is_replaced",
        closed,
    );
    story(
        stories,
        server,
        "connections::two_transactions_that_met_are_told_apart_from_a_server_that_is_away",
        met,
    );
}

/// A host with a single connection of each kind.
async fn with_one(ground: &Ground) -> App {
    ground
        .host(|config| {
            config.database.connections_max = 1;
            config.database.system_connections_max = 1;
        })
        .await
}

async fn dropped(ground: Ground) {
    let app = with_one(&ground).await;
    let tenant = TenantId::fresh();
    for _ in 0..5 {
        let mut tx = app.db().tenant(tenant).await.expect("a connection");
        // Whoever is not rolled back would keep the next one waiting until its time is over.
        sqlx::query("select pg_advisory_xact_lock(1)")
            .execute(&mut *tx)
            .await
            .expect("the lock");
        sqlx::query("create temporary table left_behind ()")
            .execute(&mut *tx)
            .await
            .expect("it is not there yet");
    }
}

async fn cancelled(ground: Ground) {
    let app = with_one(&ground).await;
    for round in 0..5 {
        let mut connection = app.db().system_at_once().await.expect("a connection");
        let slow = sqlx::query_scalar::<_, i32>("select -1 from pg_sleep(0.3)");
        let gave_up =
            tokio::time::timeout(Duration::from_millis(20), slow.fetch_one(&mut *connection));
        gave_up.await.expect_err("it is slower than that");
        drop(connection);
        let mut connection = app.db().system_at_once().await.expect("a connection");
        let answer: i32 = sqlx::query_scalar("select $1")
            .bind(round)
            .fetch_one(&mut *connection)
            .await
            .expect("an answer");
        assert_eq!(answer, round);
        connection.done();
    }
}

async fn closed(ground: Ground) {
    let app = with_one(&ground).await;
    let mut connection = app.db().nobody().await.expect("a connection");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *connection)
        .await
        .expect("its process");
    let mut superuser = PgConnection::connect(ground.url("postgres"))
        .await
        .expect("the superuser gets in");
    let ended: bool = sqlx::query_scalar("select pg_terminate_backend($1, 5000)")
        .bind(pid)
        .fetch_one(&mut superuser)
        .await
        .expect("it may");
    assert!(ended, "it has ended");
    let error = sqlx::query("select 1").execute(&mut *connection).await;
    assert!(db::is_unavailable(&error.expect_err("nobody is there")));
    drop(connection);
    app.db().ping().await.expect("another connection");
}

async fn met(ground: Ground) {
    let app = with_one(&ground).await;
    for code in ["40P01", "40001"] {
        let mut connection = app.db().nobody().await.expect("a connection");
        let ends = format!(
            "do $$ begin raise exception 'it met another' using errcode = '{code}'; end $$"
        );
        let error = sqlx::raw_sql(AssertSqlSafe(ends))
            .execute(&mut *connection)
            .await
            .expect_err("it is taken back");
        assert!(db::is_rolled_back(&error) && !db::is_unavailable(&error));
        let problem = Problem::from(error);
        assert!(problem.is_unavailable() && problem.retry_after().is_some());
        assert!(
            problem.detail().contains("was taken back"),
            "{}",
            problem.detail()
        );
    }
}
