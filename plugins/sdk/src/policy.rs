//! A routing policy: its settings as a type, and a function that decides.
//!
//! ```
//! use servicetsunami_plugin::{testing::PolicyRequest, *};
//! use servicetsunami_plugin::policy_types::Request;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     /// The most calls of a skill within its window.
//!     calls_max: u64,
//! }
//!
//! fn decide(request: &Request, settings: Settings) -> Decision {
//!     if request.usage.calls_in_window < settings.calls_max {
//!         return allow();
//!     }
//!     deny(format!("{} calls are the most here; wait until the window is over", settings.calls_max))
//! }
//!
//! # fn policy() -> Policy {
//! # let about = About { title: "Calls".into(), summary: String::new(), version: "0.1.0".into(),
//! #     licence: "MIT".into(), categories: vec![], homepage: None, readme: String::new() };
//! Policy::new("calls", about, decide).example(|| json!({ "calls_max": 100 }))
//! # }
//! # let call = PolicyRequest::new("slack", "send_message");
//! # assert_eq!(call.decide(policy, json!({ "calls_max": 1 })), allow());
//! # assert!(matches!(call.decide(policy, json!({ "calls_max": 0 })), Decision::Deny(_)));
//! ```

use crate::{
    About, Risk, Violation,
    policy_types::{Approval, Decision as WitDecision, Manifest, Request, Route},
    skill::schema_of,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Segment;
use std::borrow::Cow;

/// Longest name of a skill or an action, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What a policy says.
pub type Decision = WitDecision;

const ANYWHERE: Route = Route {
    instance: None,
    model: None,
};

/// The call may go ahead.
pub fn allow() -> Decision {
    Decision::Allow(ANYWHERE)
}

/// The call may go ahead, on this instance.
pub fn allow_on_instance(id: &str) -> Decision {
    Decision::Allow(Route {
        instance: Some(id.into()),
        ..ANYWHERE
    })
}

/// The call may go ahead, with this model.
pub fn allow_with_model(id: &str) -> Decision {
    Decision::Allow(Route {
        model: Some(id.into()),
        ..ANYWHERE
    })
}

/// The call is stopped; whoever called reads the reason.
pub fn deny(reason: impl Into<String>) -> Decision {
    Decision::Deny(reason.into())
}

/// A person has to agree, who reads the reason.
pub fn ask(reason: impl Into<String>) -> Asked {
    Asked(Approval {
        reason: reason.into(),
        roles: vec![],
        second_person: false,
        route: ANYWHERE,
    })
}

/// What an approver is asked; `.into()` makes it a [`Decision`].
#[derive(Debug)]
pub struct Asked(Approval);

impl Asked {
    /// Who may approve.
    #[must_use]
    pub fn roles(mut self, roles: &[String]) -> Self {
        self.0.roles = roles.to_vec();
        self
    }
    /// Whoever asked for the call may not approve it.
    #[must_use]
    pub fn second_person(mut self) -> Self {
        self.0.second_person = true;
        self
    }
}

impl From<Asked> for Decision {
    fn from(asked: Asked) -> Self {
        Decision::Ask(asked.0)
    }
}

/// What is wrong with a setting that its type takes, where, and what to mend.
pub fn violation(pointer: impl Into<String>, message: impl Into<String>) -> Violation {
    Violation {
        pointer: pointer.into(),
        message: message.into(),
    }
}

type Decide = Box<dyn Fn(&Request, Value) -> Result<Decision, Violation>>;
type Check = Box<dyn Fn(Value) -> Result<(), Violation>>;

pub struct Policy {
    name: String,
    about: About,
    settings_schema: fn() -> Value,
    examples: Vec<fn() -> Value>,
    check: Check,
    decide: Decide,
}

impl Policy {
    /// With settings as a type, whose schema is derived. Settings that cannot be read deny, and say why.
    pub fn new<S>(name: &str, about: About, decide: fn(&Request, S) -> Decision) -> Self
    where
        S: DeserializeOwned + JsonSchema + 'static,
    {
        Self {
            name: name.into(),
            about,
            settings_schema: schema_of::<S>,
            examples: vec![],
            check: Box::new(|settings| read::<S>(settings).map(drop)),
            decide: Box::new(move |request, settings| Ok(decide(request, read(settings)?))),
        }
    }

    /// With settings that their type alone cannot judge: `prepare` makes of them what `decide` works with. What it
    /// complains of denies every call.
    pub fn prepared<S, P>(
        name: &str,
        about: About,
        prepare: fn(S) -> Result<P, Violation>,
        decide: fn(&Request, &P) -> Decision,
    ) -> Self
    where
        S: DeserializeOwned + JsonSchema + 'static,
        P: 'static,
    {
        let prepared = move |settings| prepare(read(settings)?);
        Self {
            name: name.into(),
            about,
            settings_schema: schema_of::<S>,
            examples: vec![],
            check: Box::new(move |settings| prepared(settings).map(drop)),
            decide: Box::new(move |request, settings| Ok(decide(request, &prepared(settings)?))),
        }
    }

    /// Settings that pass the schema. Made when the policy is described, and not in each of its decisions.
    #[must_use]
    pub fn example(mut self, settings: fn() -> Value) -> Self {
        self.examples.push(settings);
        self
    }

    #[doc(hidden)]
    pub fn manifest(self) -> Manifest {
        Manifest {
            name: self.name,
            about: self.about,
            settings_schema: (self.settings_schema)().to_string(),
            examples: self
                .examples
                .iter()
                .map(|settings| settings().to_string())
                .collect(),
        }
    }

    /// Whether calls can be decided with these settings.
    pub fn check(&self, settings: Value) -> Result<(), Violation> {
        (self.check)(settings)
    }

    pub fn decide(&self, request: Request) -> Decision {
        let decided = parse(&request.settings).and_then(|s| (self.decide)(&request, s));
        decided.unwrap_or_else(|wrong| deny(self.unusable(&wrong)))
    }

    fn unusable(&self, wrong: &Violation) -> String {
        let (name, message) = (&self.name, &wrong.message);
        let place = match wrong.pointer.as_str() {
            "" => String::new(),
            pointer => format!("{pointer}: "),
        };
        format!(
            "the settings of the policy `{name}` cannot be used, and so nothing goes past it: {place}{message}"
        )
    }
}

fn parse(text: &str) -> Result<Value, Violation> {
    let text = if text.is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| violation("", format!("they are no JSON: {error}")))
}

/// Settings as their type; only of an object, since serde takes an array for a struct as well.
fn read<S: DeserializeOwned>(settings: Value) -> Result<S, Violation> {
    if !settings.is_object() {
        return Err(violation("", "they must be a JSON object"));
    }
    serde_path_to_error::deserialize(settings)
        .map_err(|error| violation(pointer(error.path()), error.inner().to_string()))
}

/// As a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let token = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => "/?".into(),
    };
    path.iter().map(token).collect()
}

/// A risk, as settings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskLevel {
    /// Changes nothing outside.
    Read,
    /// Creates or changes something.
    Write,
    /// Deletes, pays, publishes, or cannot be taken back.
    Destructive,
}

impl From<Risk> for RiskLevel {
    fn from(risk: Risk) -> Self {
        match risk {
            Risk::Read => Self::Read,
            Risk::Write => Self::Write,
            Risk::Destructive => Self::Destructive,
        }
    }
}

impl std::fmt::Display for RiskLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        })
    }
}

/// A skill, as settings name it: `slack`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SkillName(String);

impl SkillName {
    pub fn is(&self, request: &Request) -> bool {
        self.0 == request.skill
    }
}

impl TryFrom<String> for SkillName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if is_name(&name, '-') {
            return Ok(Self(name));
        }
        Err(format!(
            "`{}` is no skill's name: write lower-case letters, digits and dashes, as in `slack`",
            shortened(&name)
        ))
    }
}

impl JsonSchema for SkillName {
    fn schema_name() -> Cow<'static, str> {
        "SkillName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,63}$" })
    }
}

/// An action, as settings name it: `delete_message` of any skill, or `slack.delete_message`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ActionName {
    skill: Option<String>,
    action: String,
}

impl ActionName {
    pub fn is(&self, request: &Request) -> bool {
        self.action == request.action
            && self
                .skill
                .as_ref()
                .is_none_or(|skill| *skill == request.skill)
    }
}

impl TryFrom<String> for ActionName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let (skill, action) = match name.split_once('.') {
            Some((skill, action)) => (Some(skill), action),
            None => (None, name.as_str()),
        };
        if is_name(action, '_') && skill.is_none_or(|skill| is_name(skill, '-')) {
            return Ok(Self {
                skill: skill.map(Into::into),
                action: action.into(),
            });
        }
        Err(format!(
            "`{}` is no action's name: write `delete_message`, or `slack.delete_message` for that of one skill",
            shortened(&name)
        ))
    }
}

impl JsonSchema for ActionName {
    fn schema_name() -> Cow<'static, str> {
        "ActionName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([a-z][a-z0-9-]{0,63}\\.)?[a-z][a-z0-9_]{0,63}$" })
    }
}

fn is_name(name: &str, joiner: char) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= NAME_CHARS_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joiner)
}

/// What somebody wrote, for a message about it.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

/// Which calls a policy, or a rule of it, is about: those within every list that is not empty; without any list, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Of these risks; empty for any.
    #[schemars(length(max = 3))]
    risks: Vec<RiskLevel>,
    /// Of these skills; empty for any.
    #[schemars(length(max = 64))]
    skills: Vec<SkillName>,
    /// Of these actions, as `delete_message` or `slack.delete_message`; empty for any.
    #[schemars(length(max = 256))]
    actions: Vec<ActionName>,
}

impl Calls {
    pub fn include(&self, request: &Request) -> bool {
        let any = |matching: bool, is_empty: bool| matching || is_empty;
        let risk = RiskLevel::from(request.risk);
        any(self.risks.contains(&risk), self.risks.is_empty())
            && any(
                self.skills.iter().any(|skill| skill.is(request)),
                self.skills.is_empty(),
            )
            && any(
                self.actions.iter().any(|action| action.is(request)),
                self.actions.is_empty(),
            )
    }
}

/// Roles of people who may approve, as settings name them: one of them is enough; empty for whoever the tenant's
/// rules name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Roles(
    #[schemars(length(max = 16), inner(regex(pattern = r"^[a-z][a-z0-9_-]{0,63}$")))] Vec<String>,
);

impl std::ops::Deref for Roles {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// What becomes of a call that a rule catches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is stopped.
    #[default]
    Deny,
    /// A person has to agree.
    Ask,
}

impl Effect {
    /// With a reason, and for [`Effect::Ask`] the roles of who may approve.
    pub fn decision(self, reason: impl Into<String>, roles: &Roles) -> Decision {
        match self {
            Self::Deny => deny(reason),
            Self::Ask => ask(reason).roles(roles).into(),
        }
    }
}

/// What several rules found, as one decision with all the reasons of the strictest: those of the denials, else those
/// of the questions. Where they found nothing, the call is allowed.
pub fn strictest(found: &[(Effect, String)], roles: &Roles) -> Decision {
    let of = |effect: Effect| {
        let reasons = found.iter().filter(|(e, _)| *e == effect);
        let reasons: Vec<_> = reasons.map(|(_, reason)| reason.as_str()).collect();
        (!reasons.is_empty()).then(|| effect.decision(reasons.join("; "), roles))
    };
    of(Effect::Deny)
        .or_else(|| of(Effect::Ask))
        .unwrap_or_else(allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PolicyRequest, denied};
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[serde(default)]
        calls: Calls,
        #[serde(default)]
        effect: Effect,
        #[serde(default)]
        roles: Roles,
        #[serde(default)]
        limits: std::collections::BTreeMap<String, u8>,
    }

    fn policy() -> Policy {
        let about = About {
            title: "All".into(),
            summary: "All calls".into(),
            version: "0.1.0".into(),
            licence: "MIT".into(),
            categories: vec![],
            homepage: None,
            readme: String::new(),
        };
        fn prepare(settings: Settings) -> Result<Settings, Violation> {
            match settings.limits.is_empty() {
                true => Ok(settings),
                false => Err(violation("/limits", "leave them out")),
            }
        }
        fn decide(request: &Request, settings: &Settings) -> Decision {
            match settings.calls.include(request) {
                true => settings.effect.decision("caught", &settings.roles),
                false => allow(),
            }
        }
        Policy::prepared("all", about, prepare, decide)
    }

    fn deleting() -> PolicyRequest {
        PolicyRequest::new("slack", "delete_message").risk(Risk::Destructive)
    }

    #[test]
    fn a_call_is_chosen_that_is_within_every_list_that_is_not_empty() {
        let cases = [
            (json!({}), true),
            (json!({ "risks": [], "skills": [], "actions": [] }), true),
            (json!({ "risks": ["destructive"] }), true),
            (json!({ "risks": ["read", "write"] }), false),
            (json!({ "skills": ["gmail", "slack"] }), true),
            (json!({ "skills": ["gmail"] }), false),
            (json!({ "actions": ["delete_message"] }), true),
            (json!({ "actions": ["slack.delete_message"] }), true),
            (json!({ "actions": ["gmail.delete_message"] }), false),
            (json!({ "actions": ["delete"] }), false),
            (
                json!({ "risks": ["destructive"], "actions": ["send_message"] }),
                false,
            ),
            (
                json!({ "risks": ["write"], "skills": ["slack"], "actions": ["delete_message"] }),
                false,
            ),
        ];
        for (calls, chosen) in cases {
            let decision = deleting().decide(policy, json!({ "calls": calls }));
            assert_eq!(decision != allow(), chosen, "{calls}");
        }
    }

    #[test]
    fn an_effect_asks_the_roles_or_denies() {
        let asking = json!({ "effect": "ask", "roles": ["admin"] });
        let asked = ask("caught").roles(&["admin".into()]);
        assert_eq!(deleting().decide(policy, asking), asked.into());
        assert_eq!(deleting().decide(policy, json!({})), deny("caught"));
    }

    #[test]
    fn the_strictest_of_what_rules_found_holds_with_all_its_reasons() {
        let found = |effects: &[(Effect, &str)]| -> Decision {
            let found: Vec<_> = effects.iter().map(|(e, r)| (*e, (*r).into())).collect();
            strictest(&found, &Roles(vec!["admin".into()]))
        };
        assert_eq!(found(&[]), allow());
        let asked = ask("a; b").roles(&["admin".into()]);
        assert_eq!(
            found(&[(Effect::Ask, "a"), (Effect::Ask, "b")]),
            asked.into()
        );
        assert_eq!(
            found(&[(Effect::Ask, "a"), (Effect::Deny, "b"), (Effect::Deny, "c")]),
            deny("b; c")
        );
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_where() {
        let cases = [
            (json!(null), "they must be a JSON object"),
            (json!([]), "they must be a JSON object"),
            (json!({ "no_such": 1 }), "unknown field `no_such`"),
            (
                json!({ "calls": { "risks": ["severe"] } }),
                "/calls/risks/0: unknown variant `severe`, expected one of `read`, `write`, `destructive`",
            ),
            (
                json!({ "calls": { "skills": ["Slack"] } }),
                "/calls/skills/0: `Slack` is no skill's name",
            ),
            (
                json!({ "calls": { "actions": ["slack."] } }),
                "/calls/actions/0: `slack.` is no action's name",
            ),
            (json!({ "limits": { "a/b~": 300 } }), "/limits/a~1b~0: "),
            (json!({ "limits": { "a": 3 } }), "/limits: leave them out"),
        ];
        for (settings, complaint) in cases {
            let reason = denied(deleting().decide(policy, settings.clone()));
            assert!(
                reason.starts_with("the settings of the policy `all` cannot be used"),
                "{reason}"
            );
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
        let broken = Request {
            settings: "{".into(),
            ..deleting().into_request()
        };
        assert!(denied(policy().decide(broken)).contains("they are no JSON"));
    }

    #[test]
    fn no_settings_are_an_empty_object() {
        let none = Request {
            settings: String::new(),
            ..deleting().into_request()
        };
        assert_eq!(policy().decide(none), deny("caught"));
    }

    #[test]
    fn names_are_bounded() {
        let longest = "a".repeat(NAME_CHARS_MAX);
        assert!(ActionName::try_from(longest.clone()).is_ok());
        for wrong in [
            format!("{longest}a"),
            String::new(),
            ".x".into(),
            "a.b.c".into(),
            "a/b".into(),
            "-a".into(),
        ] {
            assert!(ActionName::try_from(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
