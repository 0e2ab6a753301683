//! Reads a file: its installation is refused, since it imports `wasi:filesystem`.

use serde_json::{Value, json};
use servicetsunami_plugin::{
    Call, Credential, Done, Skill, Stop, about, action_without_schema, export_skill,
};

pub fn skill() -> Skill {
    let action = action_without_schema("try", || json!({}), || json!({}), attempt);
    Skill::new("hostile-file", about!("Hostile", ["test"]))
        .host("allowed.example")
        .settings::<Value>()
        .action(action.example("Now", || json!({})))
}

fn attempt(_: &mut Call, _: Value) -> Result<Done<Value>, Stop> {
    let read = std::fs::read_to_string("/etc/passwd").map_err(|e| e.to_string());
    Ok(Done::new(json!(read), ""))
}

pub fn credentials() -> Vec<Credential> {
    vec![]
}

export_skill!(skill, credentials);
