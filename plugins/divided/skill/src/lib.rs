//! A skill whose credentials another plugin describes.

use servicetsunami_plugin::{
    Call, Deserialize, Done, JsonSchema, Reply, Serialize, Skill, Stop, about, action,
    export_skill, get, json,
};

/// Where the service does not say how long to wait.
const RETRY_AFTER_DEFAULT_MS: u64 = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tell {}

#[derive(Serialize, JsonSchema)]
struct Told {
    /// What the service answered with.
    status: u16,
}

pub fn skill() -> Skill {
    Skill::new("divided", about!("Divided", ["test"]))
        .host("allowed.example")
        .settings::<servicetsunami_plugin::Value>()
        .host_setting("/base_url")
        .action(
            action("tell", tell)
                .title("Tell")
                .summary("Tells the service that somebody called.")
                .credential("api_key")
                .example("Now", || json!({})),
        )
}

fn tell(call: &mut Call, _: Tell) -> Result<Done<Told>, Stop> {
    let base = call.base_url("https://allowed.example");
    let reply = call.send(get(&base).bearer("api_key"))?;
    let status = reply.status();
    if reply.is_success() {
        return Ok(Done::new(Told { status }, "told"));
    }
    Err(refused(&reply))
}

fn refused(reply: &Reply) -> Stop {
    let status = reply.status();
    let message = format!("status {status}");
    let wait = reply.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS);
    match status {
        401 => Stop::credential_rejected("unauthorized", message),
        429 => Stop::later("rate_limited", message, wait),
        400..500 => Stop::refused(format!("status_{status}"), message),
        _ => Stop::unexpected(message),
    }
}

export_skill!(skill);
