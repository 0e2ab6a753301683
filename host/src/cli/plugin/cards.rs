//! Plugins as people read them.

use super::release::release_line;
use crate::cli::commands::{fields, text};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde_json::Value;
use tsunami_plugin_check::Report;

pub fn source_of(plugin: &Value) -> String {
    match plugin["release"]["full_name"].as_str() {
        Some(release) => release.to_owned(),
        None => "upload".to_owned(),
    }
}

/// `slack`, `credentials of slack`
pub fn served(serves: &str, skill: &str) -> String {
    match serves {
        "credentials" => format!("credentials of {skill}"),
        _ => skill.to_owned(),
    }
}

/// `slack 1.2.0`, `credentials of slack 1.2.0`
pub fn title_of(plugin: &Value) -> String {
    let what = served(&text(&plugin["serves"]), &text(&plugin["skill"]));
    format!("{what} {}", text(&plugin["version"]))
}

/// What there is to know of what is installed, before the list.
pub fn warn_of(plugins: &[Value]) {
    for plugin in plugins {
        for notice in plugin["notices"].as_array().into_iter().flatten() {
            eprintln!("{}: {}", title_of(plugin), text(&notice["message"]));
        }
    }
}

/// What an installed plugin may do.
pub fn plugin_card(plugin: &Value) -> String {
    format!(
        "{} {} ({})\nserves    {}\nsource    {}\nhosts     {}\ndigest    {}\n{}",
        text(&plugin["title"]),
        text(&plugin["version"]),
        text(&plugin["skill"]),
        text(&plugin["serves"]),
        source_of(plugin),
        text(&plugin["hosts"]),
        text(&plugin["digest"]),
        actions_table(&plugin["actions"])
    )
}

/// What a component says of itself.
pub fn component_card(component: &Value) -> String {
    let mut lines = vec![
        format!(
            "{} {} ({})",
            text(&component["title"]),
            text(&component["version"]),
            text(&component["name"])
        ),
        format!("kinds         {}", text(&component["kinds"])),
        format!("digest        {}", text(&component["digest"])),
        format!("licence       {}", text(&component["licence"])),
    ];
    lines.extend(powers(component));
    lines.join("\n")
}

/// Where a plugin goes, with which credentials, and what it does there.
fn powers(plugin: &Value) -> [String; 4] {
    let credentials = plugin["credentials"].as_array().into_iter().flatten();
    let credentials: Vec<_> = credentials
        .map(|c| format!("{} ({})", text(&c["key"]), text(&c["scopes"])))
        .collect();
    [
        format!("hosts         {}", text(&plugin["hosts"])),
        format!("hosts set in  {}", text(&plugin["host_settings"])),
        format!("credentials   {}", credentials.join(", ")),
        actions_table(&plugin["actions"]),
    ]
}

/// A release: what it may do, who signed it, and what the check found.
pub fn release_card(release: &Value) -> String {
    let details = &release["details"];
    let mut lines = vec![
        release_line(release),
        component_card(&details["component"]),
        format!("signed by     key {}", text(&details["key_id"])),
    ];
    let identity = &release["sigstore"];
    if identity.is_object() {
        lines.push(format!(
            "and by        {} ({})",
            text(&identity["subject"]),
            text(&identity["issuer"])
        ));
    }
    let told = [
        ("source", &details["source"]),
        ("homepage", &release["homepage"]),
        ("visibility", &release["visibility"]),
        ("for", &details["tenants"]),
        ("downloads", &release["downloads"]),
        ("submitted by", &details["submitted_by"]),
        ("reviewed by", &details["reviewed_by"]),
    ];
    lines.extend(fields(13, told.map(|(name, value)| (name, text(value)))));
    lines.push(match report_of(release) {
        Some(report) => format!("the check, as it was published:\n{report}"),
        None => "the check was not made when it was published".to_owned(),
    });
    lines.join("\n")
}

/// What the conformance check found when a release was published.
pub fn report_of(release: &Value) -> Option<Report> {
    serde_json::from_value(release["details"]["conformance"].clone()).ok()
}

/// What somebody who installs a plugin agrees to, and what is more than they agreed to before.
pub fn consent_card(problem: &Value) -> String {
    let consent = &problem["consent"];
    let mut lines = vec![
        format!("{} wants to do this:", text(&consent["release"])),
        format!("publisher     {}", text(&consent["publisher"])),
        format!("digest        {}", text(&consent["digest"])),
        format!("limits        {}", consent["limits"]),
    ];
    lines.extend(powers(consent));
    let credentials = consent["credentials"].as_array().into_iter().flatten();
    lines.extend(credentials.filter_map(sign_in_line));
    if consent["identity"].is_object() {
        let identity = &consent["identity"];
        lines.insert(
            2,
            format!(
                "signed by     {} ({})",
                text(&identity["subject"]),
                text(&identity["issuer"])
            ),
        );
    }
    let changes = problem["changes"].as_array().into_iter().flatten();
    for change in changes {
        let side = |name: &str| match &change[name] {
            Value::Null => "-".to_owned(),
            value => text(value),
        };
        let mark = if change["grows"] == true {
            "MORE"
        } else {
            "less"
        };
        lines.push(format!(
            "{mark}  {} {}: {} -> {}",
            text(&change["what"]),
            text(&change["of"]),
            side("before"),
            side("after")
        ));
    }
    lines.join("\n")
}

/// Where one signs in for a credential, whom the tokens come from, and what is asked for there.
fn sign_in_line(credential: &Value) -> Option<String> {
    let oauth = credential.get("oauth").filter(|oauth| oauth.is_object())?;
    Some(format!(
        "sign-in       {}: at {}, tokens from {}, for {}",
        text(&credential["key"]),
        text(&oauth["authorize_url"]),
        text(&oauth["token_url"]),
        text(&oauth["scopes"])
    ))
}

pub fn actions_table(actions: &Value) -> String {
    if actions.as_array().is_none_or(Vec::is_empty) {
        return "actions       none".to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["action", "risk", "credentials", ""]);
    for action in actions.as_array().into_iter().flatten() {
        let about = if action["summary"].is_string() {
            &action["summary"]
        } else {
            &action["title"]
        };
        table.add_row([
            text(&action["name"]),
            text(&action["risk"]),
            text(&action["credentials"]),
            text(about),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_for_names_what_is_more() {
        let card = consent_card(&json!({
            "consent": { "release": "acme/slack@1.3.0", "hosts": ["slack.com"], "actions": [] },
            "changes": [{ "what": "host", "of": "", "before": null, "after": "evil.example", "grows": true }],
        }));
        assert!(card.contains("MORE  host : - -> evil.example"), "{card}");
    }

    #[test]
    fn where_one_signs_in_and_for_what_is_agreed_to_by_sight() {
        let oauth = json!({ "authorize_url": "https://a.example/auth", "token_url": "https://t.example/token", "scopes": ["read", "send"] });
        let credentials =
            json!([{ "key": "access_token", "scopes": [], "oauth": oauth }, { "key": "pat" }]);
        let card =
            consent_card(&json!({ "consent": { "credentials": credentials, "actions": [] } }));
        let line = "sign-in       access_token: at https://a.example/auth, tokens from https://t.example/token, for read, send";
        assert!(card.contains(line), "{card}");
    }
}
