//! The roles against configured servers.

use crate::{Stories, Theatre, World, shared};
use sqlx::{Connection, PgConnection, Row};
use std::{
    process::{Command, Output},
    sync::Arc,
};
use tsunami_tests::{host::Host, repository, tools};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "the_doctor_finds_servers_well_and_says_what_an_old_schema_lacks",
        schemas,
    );
}

async fn schemas(world: Arc<World>) {
    let gateway = &world.gateway;
    let run = |command: &str, urls: &[(&str, &str)]| -> Output {
        let mut program: Command = Host::command(gateway, command, 0);
        program
            .env("TSUNAMI_INSTANCES__TOOLS_DIR", tools())
            .env(
                "TSUNAMI_INSTANCES__BRIDGE_DIR",
                repository().join("plugins/openclaw-bridge"),
            )
            .envs(urls.iter().copied());
        tokio::task::block_in_place(|| program.output()).expect("tsunami runs")
    };
    let said = |output: &Output| {
        let [out, err] = [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s));
        format!("{out}{err}")
    };
    let well = run("doctor", &[]);
    assert!(well.status.success(), "{}", said(&well));

    // As a new server has it, and then as a version before this one left it.
    let mut superuser = gateway.database("postgres").await;
    let create = "create database before_migrations owner tsunami_owner";
    sqlx::query(create)
        .execute(&mut superuser)
        .await
        .expect("it is created");
    let other = |role: &str| {
        let url = gateway.database_url(role);
        url.replace("/tsunami?", "/before_migrations?")
    };
    let [app, system, owner] = ["app", "system", "owner"].map(|r| other(&format!("tsunami_{r}")));
    let urls = [
        ("TSUNAMI_DATABASE__URL", app.as_str()),
        ("TSUNAMI_DATABASE__SYSTEM_URL", system.as_str()),
    ];
    let is_refused = |command: &str| {
        let output = run(command, &urls);
        let said = said(&output);
        assert!(!output.status.success(), "{command}: {said}");
        assert!(said.contains("tsunami migrate"), "{command}: {said}");
    };
    for command in ["doctor", "serve", "worker"] {
        is_refused(command);
    }
    let migrated = run(
        "migrate",
        &[("TSUNAMI_DATABASE__OWNER_URL", owner.as_str())],
    );
    assert!(migrated.status.success(), "{}", said(&migrated));
    let well = run("doctor", &urls);
    assert!(well.status.success(), "{}", said(&well));

    let mut database = PgConnection::connect(&owner).await.expect("the owner");
    let forget = "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations) returning version";
    let forgotten = sqlx::query(forget).fetch_one(&mut database).await;
    assert!(forgotten.expect("one is forgotten").get::<i64, _>(0) > 0);
    for command in ["doctor", "serve", "worker"] {
        is_refused(command);
    }
    database.close().await.expect("it is closed");
    let drop = "drop database before_migrations with (force)";
    sqlx::query(drop)
        .execute(&mut superuser)
        .await
        .expect("it is dropped");
}
