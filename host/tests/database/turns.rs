//! Work that strangers can make long, and whose turn it is.

use crate::{
    Stories,
    ground::{Ground, Server},
    story,
};
use serde_json::json;
use std::{
    sync::{Arc, mpsc},
    thread::available_parallelism,
};
use tsunami::{app::App, id::TenantId, plugins};
use tsunami_plugin_host::{TenantKey, TenantLimits, TurnLimits};

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "turns::a_schema_is_applied_when_it_is_the_tenants_turn",
        schemas,
    );
}

const SCHEMA: &str = r#"{ "type": "object", "properties": { "a": { "type": "string" } } }"#;

async fn violations(app: &App, tenant: TenantId) -> usize {
    let schema = plugins::compiled(app, tenant, SCHEMA).await;
    let schema = schema.expect("a turn").expect("a schema");
    let found = plugins::violations(app, tenant, &schema, &json!({ "a": 1 }), "").await;
    found.expect("a turn").len()
}

async fn schemas(ground: Ground) {
    let app = &ground.app;
    let (busy, other) = (TenantId::fresh(), TenantId::fresh());
    let schema = plugins::compiled(app, busy, SCHEMA).await;
    let schema = schema.expect("a turn").expect("a schema");
    // The one tenant has all the turns that it may have at once, and others that wait.
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let (begun, begins) = mpsc::channel::<()>();
    let turns = available_parallelism().map_or(1, usize::from);
    let holders: Vec<_> = (0..turns)
        .map(|_| {
            let (app, held, begun) = (app.clone(), held.clone(), begun.clone());
            let work = move || {
                let _ = begun.send(());
                let _ = held.lock().expect("nobody panicked").recv();
            };
            tokio::spawn(async move {
                let key = TenantKey(busy.uuid().as_u128());
                let limits = TenantLimits::default();
                app.plugin_host().work(key, &limits, work).await
            })
        })
        .collect();
    let at_once = TurnLimits::of_calls(turns).tenant_running_max;
    let all_begun = move || (0..at_once).all(|_| begins.recv().is_ok());
    let all_begun = tokio::task::spawn_blocking(all_begun).await;
    assert!(all_begun.expect("it ends"), "the turns are taken");
    let compiling = {
        let app = app.clone();
        tokio::spawn(async move { plugins::compiled(&app, busy, SCHEMA).await.is_ok() })
    };
    let applying = {
        let app = app.clone();
        tokio::spawn(async move {
            let found = plugins::violations(&app, busy, &schema, &json!({ "a": 1 }), "").await;
            found.expect("a turn").len()
        })
    };
    for _ in 0..50 {
        assert_eq!(violations(app, other).await, 1, "others have their turns");
    }
    assert!(!compiling.is_finished() && !applying.is_finished());
    for _ in 0..turns {
        release.send(()).expect("somebody waits");
    }
    assert!(compiling.await.expect("it ends"));
    assert_eq!(applying.await.expect("it ends"), 1);
    for holder in holders {
        holder.await.expect("it ends").expect("it had its turn");
    }
}
