//! Tests a policy as the plain function that it is.

use crate::{
    Decision, Policy, Risk,
    policy_types::{Actor, ActorKind, Approval, Instance, Model, Request, Route, Usage},
    wit::servicetsunami::plugin::types::ScopeValue,
};
use serde_json::{Value, json};

/// A call that a policy is asked about. What a test does not name is ordinary: a person of the role `member` reads,
/// without parameters; nothing was spent, and there are no instances and no models.
///
/// ```
/// # use servicetsunami_plugin::{Risk, testing::PolicyRequest};
/// let call = PolicyRequest::new("slack", "delete_message").risk(Risk::Destructive).agent("a1", 0.4).depth(2);
/// ```
#[derive(Clone, Debug)]
pub struct PolicyRequest(Request);

impl PolicyRequest {
    pub fn new(skill: &str, action: &str) -> Self {
        Self(Request {
            skill: skill.into(),
            action: action.into(),
            risk: Risk::Read,
            params: "{}".into(),
            scopes: vec![],
            actor: Actor {
                kind: ActorKind::Person,
                id: "u1".into(),
                roles: vec!["member".into()],
                trust: 1.0,
                delegation_depth: 0,
            },
            usage: Usage {
                calls_in_window: 0,
                day_spend_micro_usd: 0,
                month_spend_micro_usd: 0,
                estimated_cost_micro_usd: None,
            },
            instances: vec![],
            models: vec![],
            settings: "{}".into(),
            now: 1_700_000_000_000,
        })
    }

    #[must_use]
    pub fn risk(mut self, risk: Risk) -> Self {
        self.0.risk = risk;
        self
    }

    #[must_use]
    pub fn params(self, params: Value) -> Self {
        self.params_text(&params.to_string())
    }

    /// Parameters that may be no JSON.
    #[must_use]
    pub fn params_text(mut self, params: &str) -> Self {
        self.0.params = params.into();
        self
    }

    #[must_use]
    pub fn scope(mut self, scope: &str, value: &str) -> Self {
        self.0.scopes.push(ScopeValue {
            scope: scope.into(),
            value: value.into(),
        });
        self
    }

    #[must_use]
    pub fn person(self, id: &str, roles: &[&str]) -> Self {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        self.actor(ActorKind::Person, id, roles, 1.0)
    }

    #[must_use]
    pub fn agent(self, id: &str, trust: f64) -> Self {
        self.actor(ActorKind::Agent, id, vec![], trust)
    }

    #[must_use]
    pub fn system(self) -> Self {
        self.actor(ActorKind::System, "system", vec![], 1.0)
    }

    fn actor(mut self, kind: ActorKind, id: &str, roles: Vec<String>, trust: f64) -> Self {
        let actor = &mut self.0.actor;
        actor.kind = kind;
        actor.id = id.into();
        actor.roles = roles;
        actor.trust = trust;
        self
    }

    /// How many tasks up the chain of delegation the call began.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> Self {
        self.0.actor.delegation_depth = depth;
        self
    }

    #[must_use]
    pub fn calls_in_window(mut self, calls: u64) -> Self {
        self.0.usage.calls_in_window = calls;
        self
    }

    /// What was spent of the day and of the month before the call, in millionths of a US dollar.
    #[must_use]
    pub fn spent(mut self, day_micro_usd: u64, month_micro_usd: u64) -> Self {
        self.0.usage.day_spend_micro_usd = day_micro_usd;
        self.0.usage.month_spend_micro_usd = month_micro_usd;
        self
    }

    /// What the call is expected to cost.
    #[must_use]
    pub fn costs(mut self, micro_usd: u64) -> Self {
        self.0.usage.estimated_cost_micro_usd = Some(micro_usd);
        self
    }

    #[must_use]
    pub fn instance(
        mut self,
        id: &str,
        latency_p50_ms: Option<u32>,
        in_flight: u32,
        labels: &[(&str, &str)],
    ) -> Self {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.0.instances.push(Instance {
            id: id.into(),
            labels: labels.iter().map(text).collect(),
            in_flight,
            latency_p50_ms,
        });
        self
    }

    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.0.models.push(model);
        self
    }

    #[must_use]
    pub fn now_ms(mut self, now_ms: u64) -> Self {
        self.0.now = now_ms;
        self
    }

    pub fn into_request(self) -> Request {
        self.0
    }

    /// What the policy says with these settings; fails where it says something else the second time.
    #[track_caller]
    pub fn decide(&self, policy: fn() -> Policy, settings: Value) -> Decision {
        let request = Request {
            settings: settings.to_string(),
            ..self.0.clone()
        };
        let decision = policy().decide(request.clone());
        assert_eq!(decision, policy().decide(request), "decisions are replayed");
        decision
    }
}

/// A decision without its reasons, for tables of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Allow,
    Ask,
    Deny,
}

pub fn said(decision: &Decision) -> Said {
    match decision {
        Decision::Allow(_) => Said::Allow,
        Decision::Ask(_) => Said::Ask,
        Decision::Deny(_) => Said::Deny,
    }
}

/// Where the call goes; fails where it does not go ahead.
#[track_caller]
pub fn allowed(decision: Decision) -> Route {
    match decision {
        Decision::Allow(route) => route,
        other => panic!("it is not allowed: {other:?}"),
    }
}

/// Why it is denied; fails where it is not.
#[track_caller]
pub fn denied(decision: Decision) -> String {
    match decision {
        Decision::Deny(reason) => reason,
        other => panic!("it is not denied: {other:?}"),
    }
}

/// What an approver is asked; fails where nobody is.
#[track_caller]
pub fn asked(decision: Decision) -> Approval {
    match decision {
        Decision::Ask(approval) => approval,
        other => panic!("nobody is asked: {other:?}"),
    }
}

/// Whether a policy has two examples or more, each of which it can work with, and denies with settings that are none.
#[track_caller]
pub fn settings_are_sound(policy: fn() -> Policy) {
    let examples = policy().manifest().examples;
    assert!(
        examples.len() >= 2,
        "{} examples are too few",
        examples.len()
    );
    for example in examples {
        let settings = serde_json::from_str(&example).expect("an example is JSON");
        let checked = policy().check(settings);
        assert!(checked.is_ok(), "{example}: {checked:?}");
    }
    let call = PolicyRequest::new("slack", "send_message");
    for wrong in [
        json!(null),
        json!([]),
        json!("x"),
        json!({ "no_such_setting": 1 }),
    ] {
        let reason = denied(call.decide(policy, wrong.clone()));
        assert!(
            reason.contains("settings of the policy"),
            "{wrong}: {reason}"
        );
    }
}

/// Whether the readme shows the examples, and no other settings: its blocks of `json`.
#[track_caller]
pub fn readme_shows_examples(policy: fn() -> Policy) {
    let manifest = policy().manifest();
    let blocks = manifest.about.readme.split("```json\n").skip(1);
    let shown: Vec<Value> = blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .map(|block| serde_json::from_str(block).expect("a block of the readme is JSON"))
        .collect();
    let examples: Vec<Value> = manifest
        .examples
        .iter()
        .map(|example| serde_json::from_str(example).expect("an example is JSON"))
        .collect();
    assert_eq!(shown, examples);
}
