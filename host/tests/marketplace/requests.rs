//! What the API makes of a request that is not quite what somebody meant.

use crate::{Stage, Stories, story, world::World};
use serde_json::{Value, json};
use std::sync::Arc;
use tsunami_tests::{
    api::{Answer, Api},
    chameleon::{chameleon, guise},
    company::text,
};

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "a_rule_that_would_guard_nothing_is_refused",
        mistyped_rules,
    );
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
