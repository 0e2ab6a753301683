//! Opens a connection: its installation is refused, since it imports `wasi:sockets`.

use serde_json::{Value, json};
use servicetsunami_plugin::{
    Call, Credential, Done, Skill, Stop, about, action_without_schema, export_skill,
};

pub fn skill() -> Skill {
    let action = action_without_schema("try", || json!({}), || json!({}), attempt);
    Skill::new("hostile-socket", about!("Hostile", ["test"]))
        .host("allowed.example")
        .settings::<Value>()
        .action(action.example("Now", || json!({})))
}

fn attempt(_: &mut Call, _: Value) -> Result<Done<Value>, Stop> {
    let connected = std::net::TcpStream::connect("127.0.0.1:22").map(|_| ());
    Ok(Done::new(json!(connected.map_err(|e| e.to_string())), ""))
}

pub fn credentials() -> Vec<Credential> {
    vec![]
}

export_skill!(skill, credentials);
