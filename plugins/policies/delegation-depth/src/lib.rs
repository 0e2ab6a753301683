//! How far a task may be handed on, and how far an agent must be trusted.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Calls, Decision, Effect, Policy, RiskLevel, Roles, Violation, about, allow, export_policy,
    policy_types::{ActorKind, Request},
    strictest, violation,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How many tasks up the chain of delegation a call may have begun: 0 for a task of a person's own, 1 for one
    /// that another task delegated.
    depth: Option<Depth>,
    /// How far an agent must be trusted, by the risk of what it does.
    #[serde(default)]
    trust: Trust,
    /// Who may approve. One of these roles is enough; empty for whoever the tenant's rules name.
    #[serde(default)]
    roles: Roles,
    /// The calls that are judged; the others go ahead.
    #[serde(default)]
    calls: Calls,
}

/// What is exactly the limit is within it.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Depth {
    /// A call from deeper than this needs a person's approval.
    #[schemars(range(max = 1000))]
    ask_above: Option<u32>,
    /// A call from deeper than this is stopped.
    #[schemars(range(max = 1000))]
    deny_above: Option<u32>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, Default)]
#[serde(default, deny_unknown_fields)]
struct Trust {
    read: Option<Floor>,
    write: Option<Floor>,
    destructive: Option<Floor>,
}

/// 0.0 to 1.0; an agent that is trusted exactly so far is trusted far enough.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Floor {
    /// An agent that is trusted less needs a person's approval.
    #[schemars(range(min = 0.0, max = 1.0))]
    ask_below: Option<f64>,
    /// An agent that is trusted less is stopped.
    #[schemars(range(min = 0.0, max = 1.0))]
    deny_below: Option<f64>,
}

pub fn policy() -> Policy {
    Policy::prepared(
        "delegation-depth",
        about!("Delegation and trust", ["governance", "agents"]),
        prepare,
        decide,
    )
    .example(|| json!({
        "depth": { "ask_above": 1, "deny_above": 3 },
        "trust": { "write": { "ask_below": 0.5 }, "destructive": { "ask_below": 0.9, "deny_below": 0.6 } }
    }))
    .example(|| json!({
        "depth": { "deny_above": 0 },
        "calls": { "risks": ["destructive"] }
    }))
}

fn prepare(settings: Settings) -> Result<Settings, Violation> {
    if let Some(depth) = settings.depth {
        depth.check()?;
    }
    let trust = settings.trust;
    let floors = [
        (RiskLevel::Read, trust.read),
        (RiskLevel::Write, trust.write),
        (RiskLevel::Destructive, trust.destructive),
    ];
    for (risk, floor) in floors {
        if let Some(floor) = floor {
            floor.check(&format!("/trust/{risk}"))?;
        }
    }
    let is_set = settings.depth.is_some() || floors.iter().any(|(_, floor)| floor.is_some());
    match is_set {
        true => Ok(settings),
        false => Err(violation(
            "",
            "they set no limit: set a `depth`, or `trust` for a risk",
        )),
    }
}

impl Depth {
    fn check(self) -> Result<(), Violation> {
        match (self.ask_above, self.deny_above) {
            (None, None) => Err(violation(
                "/depth",
                "sets no limit: set `ask_above` or `deny_above`",
            )),
            (Some(ask), Some(deny)) if ask >= deny => Err(violation(
                "/depth/ask_above",
                "is not below `deny_above`, so that nobody would ever be asked: lower it or leave it out",
            )),
            _ => Ok(()),
        }
    }

    fn judge(self, depth: u32) -> Option<(Effect, String)> {
        let above = |limit: &u32| depth > *limit;
        let denied = self
            .deny_above
            .filter(above)
            .map(|limit| (Effect::Deny, limit));
        let asked = self
            .ask_above
            .filter(above)
            .map(|limit| (Effect::Ask, limit));
        let (effect, limit) = denied.or(asked)?;
        let rule = match effect {
            Effect::Deny => "the most is",
            Effect::Ask => "without approval the most is",
        };
        let reason = format!(
            "the call comes from {depth} tasks down the chain of delegation, and {rule} {limit}"
        );
        Some((effect, reason))
    }
}

impl Trust {
    fn floor(self, risk: RiskLevel) -> Option<Floor> {
        match risk {
            RiskLevel::Read => self.read,
            RiskLevel::Write => self.write,
            RiskLevel::Destructive => self.destructive,
        }
    }
}

impl Floor {
    fn check(self, pointer: &str) -> Result<(), Violation> {
        let bounds = [
            ("ask_below", self.ask_below),
            ("deny_below", self.deny_below),
        ];
        for (name, bound) in bounds {
            if bound.is_some_and(|bound| !(0.0..=1.0).contains(&bound)) {
                return Err(violation(format!("{pointer}/{name}"), "must be 0.0 to 1.0"));
            }
        }
        match (self.ask_below, self.deny_below) {
            (None, None) => Err(violation(
                pointer,
                "sets no limit: set `ask_below` or `deny_below`",
            )),
            (Some(ask), Some(deny)) if ask <= deny => Err(violation(
                format!("{pointer}/ask_below"),
                "is not above `deny_below`, so that nobody would ever be asked: raise it or leave it out",
            )),
            _ => Ok(()),
        }
    }

    fn judge(self, trust: f64, risk: RiskLevel) -> Option<(Effect, String)> {
        if !(0.0..=1.0).contains(&trust) {
            return Some((
                Effect::Deny,
                format!("how far the agent is trusted, {trust}, is not between 0 and 1"),
            ));
        }
        let below = |bound: &f64| trust < *bound;
        let denied = self
            .deny_below
            .filter(below)
            .map(|bound| (Effect::Deny, bound));
        let asked = self
            .ask_below
            .filter(below)
            .map(|bound| (Effect::Ask, bound));
        let (effect, bound) = denied.or(asked)?;
        let rule = match effect {
            Effect::Deny => "takes",
            Effect::Ask => "without approval takes",
        };
        let reason =
            format!("the agent is trusted {trust}, and a call of risk `{risk}` {rule} {bound}");
        Some((effect, reason))
    }
}

fn decide(request: &Request, settings: &Settings) -> Decision {
    if !settings.calls.include(request) {
        return allow();
    }
    let (actor, risk) = (&request.actor, RiskLevel::from(request.risk));
    let too_deep = settings
        .depth
        .and_then(|depth| depth.judge(actor.delegation_depth));
    let floor = settings
        .trust
        .floor(risk)
        .filter(|_| actor.kind == ActorKind::Agent);
    let too_little_trust = floor.and_then(|floor| floor.judge(actor.trust, risk));
    let found: Vec<_> = too_deep.into_iter().chain(too_little_trust).collect();
    strictest(&found, &settings.roles)
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use servicetsunami_plugin::{
        Risk, ask,
        testing::{
            PolicyRequest,
            Said::{Allow, Ask, Deny},
            asked, denied, readme_shows_examples, said, settings_are_sound,
        },
    };

    fn agent(risk: Risk, trust: f64) -> PolicyRequest {
        PolicyRequest::new("slack", "send_message")
            .risk(risk)
            .agent("a1", trust)
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn exactly_the_depth_is_within_it() {
        let both = json!({ "depth": { "ask_above": 1, "deny_above": 3 } });
        let own = json!({ "depth": { "deny_above": 0 } });
        let asking = json!({ "depth": { "ask_above": 0 } });
        let cases = [
            (0, [Allow, Allow, Allow]),
            (1, [Allow, Deny, Ask]),
            (2, [Ask, Deny, Ask]),
            (3, [Ask, Deny, Ask]),
            (4, [Deny, Deny, Ask]),
            (u32::MAX, [Deny, Deny, Ask]),
        ];
        for (depth, expected) in cases {
            let all = [&both, &own, &asking].map(|settings| {
                said(
                    &agent(Risk::Read, 1.0)
                        .depth(depth)
                        .decide(policy, settings.clone()),
                )
            });
            assert_eq!(all, expected, "{depth}");
        }
    }

    #[test]
    fn a_delegated_call_is_one_whoever_makes_it() {
        let settings = json!({ "depth": { "deny_above": 0 } });
        let call = PolicyRequest::new("slack", "send_message").depth(1);
        for call in [call.clone().person("u1", &["owner"]), call.system()] {
            denied(call.decide(policy, settings.clone()));
        }
    }

    #[test]
    fn exactly_the_trust_is_enough_and_each_risk_has_its_own() {
        let settings = json!({ "trust": {
            "write": { "ask_below": 0.5 },
            "destructive": { "ask_below": 0.9, "deny_below": 0.6 }
        } });
        let cases = [
            (0.0, [Allow, Ask, Deny]),
            (0.49, [Allow, Ask, Deny]),
            (0.5, [Allow, Allow, Deny]),
            (0.59, [Allow, Allow, Deny]),
            (0.6, [Allow, Allow, Ask]),
            (0.89, [Allow, Allow, Ask]),
            (0.9, [Allow, Allow, Allow]),
            (1.0, [Allow, Allow, Allow]),
        ];
        for (trust, expected) in cases {
            let all = [Risk::Read, Risk::Write, Risk::Destructive]
                .map(|risk| said(&agent(risk, trust).decide(policy, settings.clone())));
            assert_eq!(all, expected, "{trust}");
        }
    }

    #[test]
    fn a_trust_that_is_none_denies_where_trust_is_asked_for() {
        let settings = json!({ "trust": { "write": { "ask_below": 0.5 } } });
        for trust in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
            let reason = denied(agent(Risk::Write, trust).decide(policy, settings.clone()));
            assert!(reason.contains("not between 0 and 1"), "{reason}");
            assert_eq!(
                agent(Risk::Read, trust).decide(policy, settings.clone()),
                allow()
            );
        }
    }

    #[test]
    fn people_are_not_held_to_the_trust_of_agents() {
        let settings = json!({ "trust": { "write": { "deny_below": 1.0 } } });
        denied(agent(Risk::Write, 0.99).decide(policy, settings.clone()));
        let person = agent(Risk::Write, 0.0).person("u1", &["member"]);
        assert_eq!(person.decide(policy, settings), allow());
    }

    #[test]
    fn the_stricter_of_depth_and_trust_holds_and_says_why() {
        let settings = json!({
            "depth": { "ask_above": 1, "deny_above": 3 },
            "trust": { "write": { "ask_below": 0.5, "deny_below": 0.2 } },
            "roles": ["approver"]
        });
        let call = |depth, trust| {
            agent(Risk::Write, trust)
                .depth(depth)
                .decide(policy, settings.clone())
        };
        let both = asked(call(2, 0.4));
        assert_eq!(
            both.reason,
            "the call comes from 2 tasks down the chain of delegation, and without approval the most is 1; the agent \
             is trusted 0.4, and a call of risk `write` without approval takes 0.5"
        );
        assert_eq!(
            Decision::from(ask(both.reason.clone()).roles(&["approver".into()])),
            call(2, 0.4)
        );
        assert_eq!(
            denied(call(2, 0.1)),
            "the agent is trusted 0.1, and a call of risk `write` takes 0.2"
        );
        assert_eq!(
            denied(call(4, 0.4)),
            "the call comes from 4 tasks down the chain of delegation, and the most is 3"
        );
    }

    #[test]
    fn calls_that_are_not_chosen_go_ahead() {
        let settings =
            json!({ "depth": { "deny_above": 0 }, "calls": { "risks": ["destructive"] } });
        let call = agent(Risk::Write, 1.0).depth(9);
        assert_eq!(call.decide(policy, settings), allow());
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let cases = [
            (json!({}), "they set no limit"),
            (json!({ "trust": {} }), "they set no limit"),
            (json!({ "depth": {} }), "/depth: sets no limit"),
            (
                json!({ "depth": { "ask_above": 3, "deny_above": 3 } }),
                "/depth/ask_above: is not below",
            ),
            (
                json!({ "depth": { "deny_above": -1 } }),
                "/depth/deny_above: invalid value: integer `-1`",
            ),
            (
                json!({ "trust": { "write": {} } }),
                "/trust/write: sets no limit",
            ),
            (
                json!({ "trust": { "write": { "ask_below": 1.01 } } }),
                "/trust/write/ask_below: must be 0.0 to 1.0",
            ),
            (
                json!({ "trust": { "read": { "deny_below": -0.5 } } }),
                "/trust/read/deny_below: must be 0.0 to 1.0",
            ),
            (
                json!({ "trust": { "destructive": { "ask_below": 0.5, "deny_below": 0.5 } } }),
                "/trust/destructive/ask_below: is not above `deny_below`",
            ),
            (
                json!({ "trust": { "severe": {} } }),
                "unknown field `severe`",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(agent(Risk::Read, 1.0).decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
