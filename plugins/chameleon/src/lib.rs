//! A plugin in as many versions as a test wants.

use serde::Deserialize;
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Call, Credential, CredentialKind, Done, Risk, Skill, Stop, about, action_without_schema,
    export_skill, get,
};
use std::hint::black_box;

const MARK: &str = "CHAMELEON:";
const BLOCK_BYTES: usize = 2048;

/// What a test writes over.
static BLOCK: [u8; BLOCK_BYTES] = padded(
    r#"CHAMELEON:{"skill":"chameleon","version":"1.0.0","title":"Chameleon","hosts":["allowed.example"],"actions":[{"name":"tell","risk":"read","scopes":[]}],"credentials":[]}"#,
);

const fn padded(text: &str) -> [u8; BLOCK_BYTES] {
    let text = text.as_bytes();
    let mut block = [b' '; BLOCK_BYTES];
    let mut at = 0;
    while at < text.len() {
        block[at] = text[at];
        at += 1;
    }
    block
}

#[derive(Deserialize)]
struct Guise {
    skill: String,
    version: String,
    title: String,
    hosts: Vec<String>,
    actions: Vec<GuiseAction>,
    credentials: Vec<String>,
}

#[derive(Deserialize)]
struct GuiseAction {
    name: String,
    risk: String,
    scopes: Vec<(String, String)>,
}

fn guise() -> Guise {
    // Not before it runs: the compiler must not know what the block says.
    let block: &[u8] = black_box(&BLOCK);
    let text = std::str::from_utf8(block).expect("a test writes text");
    serde_json::from_str(text.trim_start_matches(MARK).trim_end()).expect("a test writes a guise")
}

/// An instance lives for one call.
fn for_this_call(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

pub fn skill() -> Skill {
    let guise = guise();
    let mut about = about!("", ["test"]);
    about.title = guise.title;
    about.version = guise.version;
    let mut skill = Skill::new(&guise.skill, about)
        .settings::<Value>()
        .host_setting("/base_url");
    for host in &guise.hosts {
        skill = skill.host(host);
    }
    for told in guise.actions {
        let name = for_this_call(told.name);
        let mut action = action_without_schema(name, || json!({}), || json!({}), tell)
            .example("Now", || json!({}))
            .risk(match told.risk.as_str() {
                "read" => Risk::Read,
                "write" => Risk::Write,
                _ => Risk::Destructive,
            });
        for (scope, pointer) in told.scopes {
            action = action.scope(for_this_call(scope), for_this_call(pointer));
        }
        for key in &guise.credentials {
            action = action.credential(for_this_call(key.clone()));
        }
        skill = skill.action(action);
    }
    skill
}

/// Says which version it is, to the service and to the caller.
fn tell(call: &mut Call, _: Value) -> Result<Done<Value>, Stop> {
    let version = guise().version;
    let base = call.base_url("https://allowed.example");
    let first = call.send(get(&base).query("version", &version))?;
    let second = call.send(get(&base).query("version", &version).query("again", true))?;
    let told = json!({ "version": version, "status": [first.status(), second.status()] });
    Ok(Done::new(told, format!("version {version}")))
}

pub fn credentials() -> Vec<Credential> {
    let credential = |key: &String| Credential::new(key, CredentialKind::ApiKey, "Key");
    guise().credentials.iter().map(credential).collect()
}

export_skill!(skill, credentials);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_a_guise() {
        assert_eq!(guise().version, "1.0.0");
        assert_eq!(skill().manifest().skill, "chameleon");
    }
}
