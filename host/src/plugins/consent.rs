//! What a tenant agrees to when it installs a published plugin, and what more a later version would want.

use super::CredentialField;
use crate::{app::App, plugins::http::risk_name};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use tsunami_plugin_host::adapter::{Action, Manifest};
use utoipa::ToSchema;

/// What a published plugin may do. The order of the fields is part of its hash.
#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// `acme/slack@1.2.0`
    pub release: String,
    /// The publisher's namespace.
    pub publisher: String,
    /// Who signed the component besides, by Sigstore.
    pub identity: Option<ConsentIdentity>,
    pub skill: String,
    pub digest: String,
    /// Where its requests may go.
    pub hosts: Vec<String>,
    /// Settings whose URLs it may go to as well, as JSON Pointers.
    pub host_settings: Vec<String>,
    pub actions: Vec<ConsentAction>,
    pub credentials: Vec<ConsentCredential>,
    pub limits: ConsentLimits,
}

#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConsentIdentity {
    pub subject: String,
    pub issuer: String,
}

#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConsentAction {
    pub name: String,
    pub title: String,
    /// `read`, `write` or `destructive`.
    pub risk: String,
    /// Keys of the credentials that it uses.
    pub credentials: Vec<String>,
    /// What the tenant may restrict: `channels (/channel)`.
    pub scopes: Vec<String>,
    /// Whether the gateway may repeat it by itself.
    pub idempotent: bool,
}

#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConsentCredential {
    pub key: String,
    pub kind: String,
    pub required: bool,
    /// What it must be allowed to do at the service.
    pub scopes: Vec<String>,
}

/// What one call may use; set by the operator.
#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConsentLimits {
    pub call_timeout_ms: u64,
    pub call_memory_bytes_max: u64,
    pub requests_max: u64,
    pub request_timeout_seconds: u64,
    pub reply_bytes_max: u64,
}

/// A difference between two versions.
#[derive(Serialize, Deserialize, ToSchema, Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `host`, `host_setting`, `action`, `risk`, `action_credential`, `scope`, `idempotent`, `credential`,
    /// `credential_scope`, `limit`, `publisher` or `identity`.
    pub what: String,
    /// Of what: `send_message`, `slack.com`.
    pub of: String,
    pub before: Option<String>,
    pub after: Option<String>,
    /// Whether the plugin may do more with it, or is held by less.
    pub grows: bool,
}

/// Where a published plugin comes from, as the tenant is told it.
#[derive(Debug, Clone)]
pub struct Provenance {
    pub release: String,
    pub publisher: String,
    pub identity: Option<ConsentIdentity>,
    pub digest: String,
}

impl Consent {
    pub fn new(
        app: &App,
        from: Provenance,
        manifest: &Manifest,
        fields: &[CredentialField],
    ) -> Self {
        let (plugins, skills) = (&app.config().plugins, &app.config().skills);
        Self {
            release: from.release,
            publisher: from.publisher,
            identity: from.identity,
            digest: from.digest,
            skill: manifest.skill.clone(),
            hosts: manifest.hosts.clone(),
            host_settings: manifest.host_settings.clone(),
            actions: manifest.actions.iter().map(ConsentAction::from).collect(),
            credentials: fields.iter().map(ConsentCredential::from).collect(),
            limits: ConsentLimits {
                call_timeout_ms: plugins.call_timeout_ms.into(),
                call_memory_bytes_max: plugins.call_memory_bytes_max,
                requests_max: skills.steps_max.into(),
                request_timeout_seconds: skills.request_timeout_seconds.into(),
                reply_bytes_max: skills.reply_bytes_max.into(),
            },
        }
    }

    /// What whoever agrees sends back.
    pub fn sha256(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(text))
    }

    /// What `later` would change. The version and the digest always differ, and are no change of their own.
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        let mut found = Changes(Vec::new());
        found.replaced(
            "publisher",
            "",
            Some(&self.publisher),
            Some(&later.publisher),
            true,
        );
        let name = |identity: &Option<ConsentIdentity>| {
            identity
                .as_ref()
                .map(|i| format!("{} by {}", i.subject, i.issuer))
        };
        let (before, after) = (name(&self.identity), name(&later.identity));
        found.replaced(
            "identity",
            "",
            before.as_deref(),
            after.as_deref(),
            before.is_some(),
        );
        found.sets("host", "", &self.hosts, &later.hosts, Grows::WithMore);
        found.sets(
            "host_setting",
            "",
            &self.host_settings,
            &later.host_settings,
            Grows::WithMore,
        );
        found.actions(&self.actions, &later.actions);
        found.credentials(&self.credentials, &later.credentials);
        for ((name, before), (_, after)) in self.limits.each().into_iter().zip(later.limits.each())
        {
            let text = |n: u64| Some(n.to_string());
            let (b, a) = (text(before), text(after));
            found.replaced("limit", name, b.as_deref(), a.as_deref(), after > before);
        }
        found.0
    }
}

impl From<&Action> for ConsentAction {
    fn from(action: &Action) -> Self {
        let scope = |s: &tsunami_plugin_host::adapter::Scope| format!("{} ({})", s.name, s.pointer);
        Self {
            name: action.name.clone(),
            title: action.title.clone(),
            risk: risk_name(action.risk).to_owned(),
            credentials: action.credentials.clone(),
            scopes: action.scopes.iter().map(scope).collect(),
            idempotent: action.idempotent,
        }
    }
}

impl From<&CredentialField> for ConsentCredential {
    fn from(field: &CredentialField) -> Self {
        Self {
            key: field.key.clone(),
            kind: field.kind.clone(),
            required: field.required,
            scopes: field.scopes.clone(),
        }
    }
}

impl ConsentLimits {
    fn each(&self) -> [(&'static str, u64); 5] {
        [
            ("call_timeout_ms", self.call_timeout_ms),
            ("call_memory_bytes_max", self.call_memory_bytes_max),
            ("requests_max", self.requests_max),
            ("request_timeout_seconds", self.request_timeout_seconds),
            ("reply_bytes_max", self.reply_bytes_max),
        ]
    }
}

/// In which direction a set of things may go without asking.
#[derive(Clone, Copy)]
enum Grows {
    /// Each new one lets the plugin do more.
    WithMore,
    /// Each that is gone holds the plugin less.
    WithLess,
}

struct Changes(Vec<Change>);

impl Changes {
    fn push(
        &mut self,
        what: &str,
        of: &str,
        before: Option<&str>,
        after: Option<&str>,
        grows: bool,
    ) {
        self.0.push(Change {
            what: what.to_owned(),
            of: of.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
            grows,
        });
    }

    fn replaced(
        &mut self,
        what: &str,
        of: &str,
        before: Option<&str>,
        after: Option<&str>,
        grows: bool,
    ) {
        if before != after {
            self.push(what, of, before, after, grows);
        }
    }

    fn sets(&mut self, what: &str, of: &str, before: &[String], after: &[String], grows: Grows) {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (before.iter().collect(), after.iter().collect());
        for added in new.difference(&old) {
            self.push(
                what,
                of,
                None,
                Some(added),
                matches!(grows, Grows::WithMore),
            );
        }
        for removed in old.difference(&new) {
            self.push(
                what,
                of,
                Some(removed),
                None,
                matches!(grows, Grows::WithLess),
            );
        }
    }

    fn actions(&mut self, before: &[ConsentAction], after: &[ConsentAction]) {
        for new in after {
            let name = &new.name;
            let Some(old) = before.iter().find(|old| old.name == *name) else {
                self.push("action", name, None, Some(&new.risk), true);
                continue;
            };
            let riskier = risk_rank(&new.risk) > risk_rank(&old.risk);
            self.replaced("risk", name, Some(&old.risk), Some(&new.risk), riskier);
            self.sets(
                "action_credential",
                name,
                &old.credentials,
                &new.credentials,
                Grows::WithMore,
            );
            self.sets("scope", name, &old.scopes, &new.scopes, Grows::WithLess);
            let yes = |b: bool| if b { "yes" } else { "no" };
            let (b, a) = (yes(old.idempotent), yes(new.idempotent));
            self.replaced("idempotent", name, Some(b), Some(a), new.idempotent);
        }
        for old in before {
            if !after.iter().any(|new| new.name == old.name) {
                self.push("action", &old.name, Some(&old.risk), None, false);
            }
        }
    }

    fn credentials(&mut self, before: &[ConsentCredential], after: &[ConsentCredential]) {
        for new in after {
            let key = &new.key;
            let Some(old) = before.iter().find(|old| old.key == *key) else {
                self.push("credential", key, None, Some(&new.kind), true);
                continue;
            };
            self.replaced("credential", key, Some(&old.kind), Some(&new.kind), true);
            self.sets(
                "credential_scope",
                key,
                &old.scopes,
                &new.scopes,
                Grows::WithMore,
            );
        }
        for old in before {
            if !after.iter().any(|new| new.key == old.key) {
                self.push("credential", &old.key, Some(&old.kind), None, false);
            }
        }
    }
}

/// An unknown risk is the worst.
fn risk_rank(risk: &str) -> u8 {
    match risk {
        "read" => 0,
        "write" => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent() -> Consent {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        Consent {
            release: "acme/slack@1.0.0".into(),
            publisher: "acme".into(),
            identity: None,
            skill: "slack".into(),
            digest: "0".repeat(64),
            hosts: texts(&["slack.com"]),
            host_settings: texts(&["/base_url"]),
            actions: vec![ConsentAction {
                name: "send_message".into(),
                title: "Send a message".into(),
                risk: "write".into(),
                credentials: texts(&["bot_token"]),
                scopes: texts(&["channels (/channel)"]),
                idempotent: false,
            }],
            credentials: vec![ConsentCredential {
                key: "bot_token".into(),
                kind: "bot_token".into(),
                required: true,
                scopes: texts(&["chat:write"]),
            }],
            limits: ConsentLimits {
                call_timeout_ms: 100,
                call_memory_bytes_max: 1 << 25,
                requests_max: 32,
                request_timeout_seconds: 30,
                reply_bytes_max: 1 << 22,
            },
        }
    }

    /// What changes in a later version, and whether it has to be agreed to.
    fn told(change: impl FnOnce(&mut Consent)) -> Vec<(String, bool)> {
        let mut later = consent();
        later.release = "acme/slack@1.1.0".into();
        later.digest = "1".repeat(64);
        change(&mut later);
        let changes = consent().changes(&later);
        changes.into_iter().map(|c| (c.what, c.grows)).collect()
    }

    #[test]
    fn another_version_of_the_same_is_no_change() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(told(|c| c.actions[0].title = "Say something".into()), []);
    }

    #[test]
    fn whatever_lets_a_plugin_do_more_grows() {
        let grows = |what: &str| vec![(what.to_owned(), true)];
        assert_eq!(told(|c| c.hosts.push("evil.example".into())), grows("host"));
        assert_eq!(
            told(|c| c.host_settings.push("/other".into())),
            grows("host_setting")
        );
        assert_eq!(
            told(|c| c.actions.push(ConsentAction {
                name: "delete".into(),
                ..c.actions[0].clone()
            })),
            grows("action")
        );
        assert_eq!(
            told(|c| c.actions[0].risk = "destructive".into()),
            grows("risk")
        );
        assert_eq!(
            told(|c| c.actions[0].credentials.push("admin".into())),
            grows("action_credential")
        );
        assert_eq!(told(|c| c.actions[0].scopes.clear()), grows("scope"));
        assert_eq!(
            told(|c| c.actions[0].idempotent = true),
            grows("idempotent")
        );
        assert_eq!(
            told(|c| c.credentials.push(ConsentCredential {
                key: "admin".into(),
                ..c.credentials[0].clone()
            })),
            grows("credential")
        );
        assert_eq!(
            told(|c| c.credentials[0].kind = "secret".into()),
            grows("credential")
        );
        assert_eq!(
            told(|c| c.credentials[0].scopes.push("admin".into())),
            grows("credential_scope")
        );
        assert_eq!(told(|c| c.limits.requests_max = 64), grows("limit"));
        assert_eq!(told(|c| c.publisher = "other".into()), grows("publisher"));
    }

    #[test]
    fn whatever_lets_it_do_less_does_not() {
        let shrinks = |what: &str| vec![(what.to_owned(), false)];
        assert_eq!(told(|c| c.hosts.clear()), shrinks("host"));
        assert_eq!(told(|c| c.actions.clear()), shrinks("action"));
        assert_eq!(told(|c| c.actions[0].risk = "read".into()), shrinks("risk"));
        assert_eq!(
            told(|c| c.actions[0].scopes.push("users (/user)".into())),
            shrinks("scope")
        );
        assert_eq!(told(|c| c.credentials.clear()), shrinks("credential"));
        assert_eq!(told(|c| c.limits.requests_max = 1), shrinks("limit"));
    }

    #[test]
    fn a_scope_that_points_elsewhere_holds_less() {
        let changes = told(|c| c.actions[0].scopes[0] = "channels (/other)".into());
        assert_eq!(
            changes,
            [("scope".to_owned(), false), ("scope".to_owned(), true)]
        );
    }

    #[test]
    fn an_identity_that_goes_away_or_changes_is_asked_for_and_a_new_one_is_not() {
        let identity = || {
            Some(ConsentIdentity {
                subject: "a".into(),
                issuer: "b".into(),
            })
        };
        assert_eq!(
            told(|c| c.identity = identity()),
            [("identity".to_owned(), false)]
        );
        let signed = Consent {
            identity: identity(),
            ..consent()
        };
        assert!(signed.changes(&consent())[0].grows);
    }

    #[test]
    fn the_hash_is_of_all_that_is_agreed_to() {
        let mut other = consent();
        assert_eq!(other.sha256(), consent().sha256());
        other.actions[0].risk = "read".into();
        assert_ne!(other.sha256(), consent().sha256());
    }
}
