//! Whether what a plugin says of itself is well-formed. People agree to it, so it must be plain.

use crate::{adapter::Manifest, credentials::Field};
use serde_json::Value;

const ACTIONS_MAX: usize = 64;
const HOSTS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 1000;
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ManifestError {
    pub place: String,
    pub problem: String,
}

/// Checks a manifest, together with the credential fields of the same plugin. Gives everything that is wrong.
pub fn check_manifest(manifest: &Manifest, fields: &[Field]) -> Vec<ManifestError> {
    let mut found = Findings(Vec::new());
    found.name("skill", &manifest.skill, '-');
    found.text("title", &manifest.title, 1);
    found.text("summary", &manifest.summary, 0);
    found.unless(
        is_semver(&manifest.version),
        "version",
        "must be a semantic version: 1.4.0",
    );
    found.unless(
        !manifest.actions.is_empty() && manifest.actions.len() <= ACTIONS_MAX,
        "actions",
        "must be 1 to 64",
    );
    found.unless(
        manifest.hosts.len() <= HOSTS_MAX,
        "hosts",
        "must be at most 16",
    );
    for host in &manifest.hosts {
        found.unless(is_host_pattern(host), &format!("hosts/{host}"), "must be a lower-case DNS name, `*.` allowed as its first label: no scheme, port, path or address");
    }
    found.unless(
        !manifest.hosts.is_empty() || !manifest.host_settings.is_empty(),
        "hosts",
        "must name at least one host",
    );
    for pointer in &manifest.host_settings {
        found.unless(
            pointer.starts_with('/'),
            &format!("host-settings/{pointer}"),
            "must be a JSON Pointer: /base_url",
        );
    }
    found.schema("settings-schema", &manifest.settings_schema);
    for action in &manifest.actions {
        let place = format!("actions/{}", action.name);
        found.name(&place, &action.name, '_');
        found.text(&format!("{place}/title"), &action.title, 1);
        found.text(&format!("{place}/summary"), &action.summary, 0);
        found.schema(&format!("{place}/params-schema"), &action.params_schema);
        found.schema(&format!("{place}/output-schema"), &action.output_schema);
        found.unless(
            manifest
                .actions
                .iter()
                .filter(|other| other.name == action.name)
                .count()
                == 1,
            &place,
            "stands there twice",
        );
        for key in &action.credentials {
            found.unless(
                fields.iter().any(|field| &field.key == key),
                &place,
                &format!("needs the credential `{key}`, which `fields` does not name"),
            );
        }
        for scope in &action.scopes {
            found.name(&format!("{place}/scopes/{}", scope.name), &scope.name, '_');
            found.unless(
                scope.pointer.starts_with('/'),
                &place,
                "a scope's pointer must be a JSON Pointer: /channel",
            );
        }
        for example in &action.examples {
            found.unless(
                serde_json::from_str::<Value>(example).is_ok_and(|v| v.is_object()),
                &format!("{place}/examples"),
                "must be JSON objects",
            );
        }
    }
    for field in fields {
        found.name(&format!("fields/{}", field.key), &field.key, '_');
    }
    found.0
}

struct Findings(Vec<ManifestError>);

impl Findings {
    fn unless(&mut self, holds: bool, place: &str, problem: &str) {
        if !holds {
            let place: String = place.chars().take(200).collect();
            self.0.push(ManifestError {
                place,
                problem: problem.to_owned(),
            });
        }
    }
    fn name(&mut self, place: &str, name: &str, joiner: char) {
        let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= NAME_CHARS_MAX
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joiner);
        self.unless(shaped, place, &format!("must be lower-case letters, digits and `{joiner}`, beginning with a letter, at most {NAME_CHARS_MAX}"));
    }
    fn text(&mut self, place: &str, text: &str, min: usize) {
        let chars = text.chars().count();
        let plain = (min..=TEXT_CHARS_MAX).contains(&chars)
            && !text.chars().any(|c| c.is_control() && c != '\n');
        self.unless(
            plain,
            place,
            &format!("must be {min} to {TEXT_CHARS_MAX} characters without control characters"),
        );
    }
    fn schema(&mut self, place: &str, text: &str) {
        let object = text.len() <= SCHEMA_BYTES_MAX
            && serde_json::from_str::<Value>(text).is_ok_and(|v| v.is_object());
        self.unless(
            object,
            place,
            &format!("must be a JSON Schema: an object of at most {SCHEMA_BYTES_MAX} bytes"),
        );
    }
}

fn is_semver(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = core.split('.').collect();
    text.len() <= NAME_CHARS_MAX
        && parts.len() == 3
        && parts.iter().all(|part| {
            !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit())
        })
}

fn is_host_pattern(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    let labels: Vec<_> = name.split('.').collect();
    let label = |l: &&str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_address = labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && labels.len() >= 2 && labels.iter().all(label) && !is_address
}

/// Whether a pattern covers a host: exactly, or with `*.` for exactly one label.
pub fn host_allowed(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(first, tail)| !first.is_empty() && tail == rest),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_are_names_and_nothing_else() {
        for good in [
            "slack.com",
            "*.atlassian.net",
            "api.github.com",
            "xn--bcher-kva.example",
        ] {
            assert!(is_host_pattern(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "com",
            "https://slack.com",
            "slack.com:443",
            "slack.com/api",
            "127.0.0.1",
            "a.*.com",
            "Slack.com",
            "-a.com",
            "user@slack.com",
            "bücher.example",
        ] {
            assert!(!is_host_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(host_allowed("*.atlassian.net", "acme.atlassian.net"));
        for other in [
            "atlassian.net",
            "a.b.atlassian.net",
            ".atlassian.net",
            "evilatlassian.net",
        ] {
            assert!(!host_allowed("*.atlassian.net", other), "{other}");
        }
        assert!(!host_allowed("slack.com", "slack.com.evil.example"));
    }
}
