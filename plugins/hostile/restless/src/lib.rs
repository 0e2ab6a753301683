//! Describes itself by the clock: never twice the same, unless time stands still for both.

use serde_json::{Value, json};
use servicetsunami_plugin::{
    Call, Credential, Done, Skill, Stop, about, action_without_schema, export_skill,
};
use std::time::SystemTime;

pub fn skill() -> Skill {
    let mut about = about!("Restless", ["test"]);
    about.summary = format!("It is {:?}.", SystemTime::now());
    let action = action_without_schema("try", || json!({}), || json!({}), attempt);
    Skill::new("hostile-restless", about)
        .host("allowed.example")
        .settings::<Value>()
        .action(action.example("Now", || json!({})))
}

fn attempt(_: &mut Call, _: Value) -> Result<Done<Value>, Stop> {
    Ok(Done::new(json!({}), ""))
}

pub fn credentials() -> Vec<Credential> {
    vec![]
}

export_skill!(skill, credentials);
