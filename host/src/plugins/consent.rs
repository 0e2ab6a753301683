//! What a tenant agrees to when it installs a published plugin, and what more a later version would want.

use super::{CredentialField, OauthField, intake::Described};
use crate::{app::App, config, plugins::http::risk_name};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use tsunami_plugin_host::{Class, ClassLimits, adapter::Action};
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
    /// What a person who signs in is asked to grant, and who is given the client's secret and the tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OauthField>,
}

/// What one call may use; set by the operator, and more for a component that brings the interpreter of its language.
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
    /// `credential_scope`, `oauth`, `oauth_endpoint`, `oauth_scope`, `oauth_param`, `oauth_client`, `limit`, `publisher`
    /// or `identity`.
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

/// What a component may do, as it says of itself.
#[derive(Debug)]
pub struct Powers {
    pub hosts: Vec<String>,
    pub host_settings: Vec<String>,
    pub actions: Vec<ConsentAction>,
    pub credentials: Vec<ConsentCredential>,
}

impl Powers {
    pub fn of(described: &Described) -> Self {
        let manifest = described.manifest.as_ref();
        let actions = manifest.into_iter().flat_map(|m| &m.actions);
        let credentials = described.fields.iter();
        Self {
            hosts: manifest.map(|m| m.hosts.clone()).unwrap_or_default(),
            host_settings: manifest
                .map(|m| m.host_settings.clone())
                .unwrap_or_default(),
            actions: actions.map(ConsentAction::from).collect(),
            credentials: credentials.map(ConsentCredential::from).collect(),
        }
    }
}

impl Consent {
    pub fn new(
        app: &App,
        from: Provenance,
        skill: &str,
        described: &Described,
        class: Class,
    ) -> Self {
        let powers = Powers::of(described);
        let limits = app.plugin_host().limits().of(class);
        Self {
            release: from.release,
            publisher: from.publisher,
            identity: from.identity,
            digest: from.digest,
            skill: skill.to_owned(),
            hosts: powers.hosts,
            host_settings: powers.host_settings,
            actions: powers.actions,
            credentials: powers.credentials,
            limits: ConsentLimits::new(limits, &app.config().skills),
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
        found.credentials(&self.credentials, later);
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
            oauth: field.oauth.clone(),
        }
    }
}

impl ConsentLimits {
    fn new(class: &ClassLimits, skills: &config::SkillsConfig) -> Self {
        let whole = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            call_timeout_ms: u64::try_from(class.call_timeout.as_millis()).unwrap_or(u64::MAX),
            call_memory_bytes_max: whole(class.memory_bytes_max),
            requests_max: skills.steps_max.into(),
            request_timeout_seconds: skills.request_timeout_seconds.into(),
            reply_bytes_max: skills.reply_bytes_max.into(),
        }
    }

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

    fn credentials(&mut self, before: &[ConsentCredential], later: &Consent) {
        let after = &later.credentials;
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
            self.oauth(key, old.oauth.as_ref(), new.oauth.as_ref());
        }
        for old in before {
            if after.iter().any(|new| new.key == old.key) {
                continue;
            }
            // An action that needs it all the same goes by what another plugin says of it, or cannot be called.
            let mut actions = later.actions.iter();
            let is_needed = actions.any(|action| action.credentials.contains(&old.key));
            self.push("credential", &old.key, Some(&old.kind), None, is_needed);
        }
    }
}

impl Changes {
    /// Whoever is told other secrets, or more of them, is agreed to anew.
    fn oauth(&mut self, key: &str, before: Option<&OauthField>, after: Option<&OauthField>) {
        let (old, new) = match (before, after) {
            (Some(old), Some(new)) => (old, new),
            (old, new) => {
                let by = |oauth: &OauthField| oauth.authorize_url.clone();
                let (b, a) = (old.map(by), new.map(by));
                self.replaced("oauth", key, b.as_deref(), a.as_deref(), a.is_some());
                return;
            }
        };
        for (before, after) in [
            (Some(&old.authorize_url), Some(&new.authorize_url)),
            (Some(&old.token_url), Some(&new.token_url)),
            (old.revoke_url.as_ref(), new.revoke_url.as_ref()),
        ] {
            let (b, a) = (before.map(String::as_str), after.map(String::as_str));
            self.replaced("oauth_endpoint", key, b, a, true);
        }
        // Who names no scope is granted what the provider thinks right.
        let grows = match new.scopes.is_empty() {
            true => Grows::WithLess,
            false => Grows::WithMore,
        };
        self.sets("oauth_scope", key, &old.scopes, &new.scopes, grows);
        let params = |oauth: &OauthField| {
            let pairs = oauth.authorize_params.iter();
            let pairs: Vec<_> = pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            pairs.join("&")
        };
        let (b, a) = (params(old), params(new));
        self.replaced("oauth_param", key, Some(&b), Some(&a), true);
        let client = |oauth: &OauthField| {
            let secret = oauth.client_secret.as_deref().unwrap_or("none");
            let how = &oauth.client_authentication;
            format!("{}, secret {secret}, in the {how}", oauth.client_id)
        };
        let (b, a) = (client(old), client(new));
        self.replaced("oauth_client", key, Some(&b), Some(&a), true);
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
                oauth: None,
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
        // What is needed still and described no more.
        assert_eq!(
            told(|c| c.credentials.clear()),
            [("credential".to_owned(), true)]
        );
        let no_more = |c: &mut Consent| {
            c.credentials.clear();
            c.actions[0].credentials.clear();
        };
        assert!(told(no_more).contains(&("credential".to_owned(), false)));
        assert_eq!(told(|c| c.limits.requests_max = 1), shrinks("limit"));
    }

    fn oauth() -> OauthField {
        OauthField {
            authorize_url: "https://id.example/authorize".into(),
            token_url: "https://id.example/token".into(),
            revoke_url: None,
            scopes: vec!["mail.read".into()],
            authorize_params: vec![("access_type".into(), "offline".into())],
            client_id: "client_id".into(),
            client_secret: Some("client_secret".into()),
            client_authentication: "body".into(),
        }
    }

    /// The same of a credential that is had by signing in.
    fn told_of_sign_in(change: impl FnOnce(&mut OauthField)) -> Vec<(String, bool)> {
        let of = |oauth| {
            let mut consent = consent();
            consent.credentials[0].oauth = Some(oauth);
            consent
        };
        let mut later = oauth();
        change(&mut later);
        let changes = of(oauth()).changes(&of(later));
        changes.into_iter().map(|c| (c.what, c.grows)).collect()
    }

    #[test]
    fn what_a_person_who_signs_in_grants_and_to_whom_is_agreed_to() {
        let grows = |what: &str| vec![(what.to_owned(), true)];
        assert_eq!(told_of_sign_in(|_| {}), []);
        assert_eq!(
            told_of_sign_in(|o| o.scopes.push("admin".into())),
            grows("oauth_scope")
        );
        // The provider's own choice, which may be everything.
        assert_eq!(told_of_sign_in(|o| o.scopes.clear()), grows("oauth_scope"));
        assert_eq!(
            told_of_sign_in(|o| o.authorize_params.push(("acr".into(), "x".into()))),
            grows("oauth_param")
        );
        for endpoint in [
            |o: &mut OauthField| o.authorize_url.push('2'),
            |o: &mut OauthField| o.token_url.push('2'),
            |o: &mut OauthField| o.revoke_url = Some("https://evil.example/".into()),
        ] {
            assert_eq!(told_of_sign_in(endpoint), grows("oauth_endpoint"));
        }
        assert_eq!(
            told_of_sign_in(|o| o.client_secret = Some("bot_token".into())),
            grows("oauth_client")
        );
        assert_eq!(
            told(|c| c.credentials[0].oauth = Some(oauth())),
            grows("oauth")
        );
    }

    #[test]
    fn fewer_scopes_need_nobody() {
        let mut before = consent();
        let mut more = oauth();
        more.scopes.push("admin".into());
        before.credentials[0].oauth = Some(more);
        let mut after = consent();
        after.credentials[0].oauth = Some(oauth());
        let changes = before.changes(&after);
        assert!(changes.len() == 1 && !changes[0].grows, "{changes:?}");
    }

    #[test]
    fn a_field_is_agreed_to_with_how_it_is_had() {
        let field = CredentialField {
            key: "token".into(),
            kind: "oauth_token".into(),
            required: true,
            label: "Token".into(),
            help: String::new(),
            placeholder: String::new(),
            scopes: vec!["mail".into()],
            oauth: Some(oauth()),
        };
        assert_eq!(ConsentCredential::from(&field).oauth, Some(oauth()));
    }

    #[test]
    fn what_was_agreed_to_before_sign_in_was_part_of_it_is_read_and_hashed_as_it_was() {
        let old = serde_json::to_value(consent()).unwrap();
        assert!(old["credentials"][0].get("oauth").is_none(), "{old}");
        let read: Consent = serde_json::from_value(old).unwrap();
        assert_eq!(read.sha256(), consent().sha256());
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
