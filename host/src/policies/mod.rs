//! # Policies
//!
//! ## What it is
//! Routing policies: WebAssembly components that say of each call whether it may go ahead, whether a person must
//! agree first, and where it goes. They form a chain: the operator's, which no tenant can take away, then the
//! tenant's own, each by position. All are asked, and the strictest answer holds: deny, then ask, then allow.
//!
//! ## Life
//! component brought -> policy in the chain (enabled | not) -> removed. A policy pins its component by digest.
//!
//! ## Always true
//! - What does not answer denies: a trap, a time-out, a wrong answer, a component that cannot be loaded
//!   ([`Answer::from_failure`]; `what_does_not_answer_denies`).
//! - The strictest answer holds, whatever the order ([`Verdict::of`]; `the_strictest_answer_holds`).
//! - Each answer is recorded with policy, digest, input and reason, in the transaction that acts on it
//!   (`tests/spine/policies.rs`).
//! - A tenant's chain contains the operator's policies, and no operation of a tenant touches them.
//!
//! ## To change
//! - What policies are given: the contract in `wit/`, [`Facts`], and [`chain::evaluate`].
//! - How answers are joined: [`Verdict::of`].

pub mod chain;
pub mod http;
mod replay;
mod store;

use crate::{
    app::App,
    db::TenantTx,
    id::TenantId,
    plugins::{self, Origin, intake},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use tsunami_plugin_host::{
    Plugin,
    policy::{Actor, Decision, Instance, Request},
    types::{Risk, ScopeValue},
};
use uuid::Uuid;

pub use chain::evaluate;

/// Policies of a tenant, and of the operator.
pub const POLICIES_MAX: i64 = 32;
/// Of a reason, as it is kept.
const REASON_CHARS_MAX: usize = 1000;

/// Whose part of the chain a policy belongs to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Operator,
    Tenant,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Tenant => "tenant",
        }
    }
}

/// A policy in its place.
#[derive(Debug, Clone)]
pub struct Link {
    pub source: Source,
    pub id: Uuid,
    pub name: String,
    pub origin: Origin,
    pub settings: Value,
}

/// What is known of a call, but for what the chain looks up itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub skill: String,
    pub action: String,
    pub risk: Risk,
    pub params: Value,
    pub scopes: Vec<ScopeValue>,
    /// What the call is expected to cost, where anybody knows.
    pub cost_micro_usd: Option<u64>,
    pub actor: Actor,
    pub instances: Vec<Instance>,
    /// The skill's rate-limit window, in seconds.
    pub window_seconds: u64,
    pub now_ms: u64,
}

/// How strict an answer is, from the least to the most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    Allow,
    Ask,
    Deny,
}

impl Strictness {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// What one policy said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub link: Link,
    pub decision: Decision,
    pub micros: u64,
}

impl Answer {
    /// A policy that did not answer.
    fn from_failure(link: Link, why: &dyn std::fmt::Display, micros: u64) -> Self {
        let reason = format!(
            "the policy `{}` did not answer, and so nothing goes past it: {why}",
            link.name
        );
        Self {
            link,
            decision: Decision::Deny(reason),
            micros,
        }
    }

    pub fn strictness(&self) -> Strictness {
        strictness(&self.decision)
    }

    pub fn reason(&self) -> String {
        let reason = match &self.decision {
            Decision::Allow(_) => "",
            Decision::Deny(reason) => reason,
            Decision::Ask(approval) => &approval.reason,
        };
        let clean = reason.chars().filter(|c| !c.is_control());
        clean.take(REASON_CHARS_MAX).collect()
    }
}

pub fn strictness(decision: &Decision) -> Strictness {
    match decision {
        Decision::Allow(_) => Strictness::Allow,
        Decision::Ask(_) => Strictness::Ask,
        Decision::Deny(_) => Strictness::Deny,
    }
}

/// What a person must be, where policies ask for one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asks {
    pub reasons: Vec<String>,
    /// One role of each is needed.
    pub role_sets: Vec<Vec<String>>,
    pub second_person: bool,
}

/// What the chain as a whole said.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub strictness: Strictness,
    /// Of those that denied.
    pub denials: Vec<String>,
    pub asks: Asks,
    /// The first that a policy named; the operator's come first.
    pub instance: Option<String>,
    pub model: Option<String>,
    /// As traces show it: `[{"policy":"four-eyes","source":"operator","decision":"ask","reason":"..."}]`.
    pub shown: Value,
}

impl Verdict {
    /// The strictest answer holds; without any policy, the call is allowed.
    pub fn of(answers: &[Answer]) -> Self {
        let mut verdict = Self {
            strictness: Strictness::Allow,
            denials: Vec::new(),
            asks: Asks::default(),
            instance: None,
            model: None,
            shown: Value::Array(answers.iter().map(shown).collect()),
        };
        for answer in answers {
            verdict.strictness = verdict.strictness.max(answer.strictness());
            let route = match &answer.decision {
                Decision::Deny(_) => {
                    verdict.denials.push(answer.reason());
                    continue;
                }
                Decision::Ask(approval) => {
                    verdict.asks.reasons.push(answer.reason());
                    verdict.asks.second_person |= approval.second_person;
                    if !approval.roles.is_empty()
                        && !verdict.asks.role_sets.contains(&approval.roles)
                    {
                        verdict.asks.role_sets.push(approval.roles.clone());
                    }
                    &approval.route
                }
                Decision::Allow(route) => route,
            };
            verdict.instance = verdict.instance.or_else(|| route.instance.clone());
            verdict.model = verdict.model.or_else(|| route.model.clone());
        }
        verdict
    }
}

fn shown(answer: &Answer) -> Value {
    serde_json::json!({
        "policy": answer.link.name, "source": answer.link.source, "digest": answer.link.origin.digest,
        "decision": answer.strictness(), "reason": answer.reason(),
    })
}

/// The policies that are on for a skill, the operator's first.
pub async fn chain_of(tx: &mut TenantTx, skill: &str) -> Result<Vec<Link>, sqlx::Error> {
    store::chain(tx, skill).await
}

/// The component of a policy, loaded, unless it is not run any more. A transaction is opened only where something of it
/// is not at hand.
async fn loaded(app: &App, tenant: TenantId, origin: &Origin) -> Result<Arc<Plugin>, String> {
    let digest = &origin.digest;
    if app.revocations().knows(origin)
        && let Some(plugin) = app.plugin_host().loaded(digest).await
    {
        let checked = app.revocations().check(origin);
        return checked.map(|()| plugin).map_err(|e| e.to_string());
    }
    let mut tx = app.db().tenant(tenant).await.map_err(|e| e.to_string())?;
    let admitted = app.revocations().admit(&mut tx, origin).await;
    admitted.map_err(|e| e.to_string())?;
    let bytes = intake::bytes(&mut tx, digest)
        .await
        .map_err(|e| e.to_string())?
        .ok_or("its component is not there")?;
    drop(tx);
    let plugin = plugins::load(app, tenant, bytes)
        .await
        .map_err(|e| e.to_string())?;
    if plugin.digest() != digest {
        return Err("its component is not the one that was brought".into());
    }
    Ok(plugin)
}

/// Asks one policy, with its own settings.
async fn ask(
    app: &App,
    tenant: TenantId,
    plugin: Result<Arc<Plugin>, String>,
    link: Link,
    input: &Request,
) -> Answer {
    let began = std::time::Instant::now();
    let micros =
        |began: std::time::Instant| u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let plugin = match plugin {
        Ok(plugin) => plugin,
        Err(why) => return Answer::from_failure(link, &why, micros(began)),
    };
    let request = Request {
        settings: link.settings.to_string(),
        ..input.clone()
    };
    let decided = plugins::ask(app, tenant, &plugin, move |plugin| plugin.decide(&request));
    match decided.await {
        Ok(called) => Answer {
            link,
            decision: called.value,
            micros: micros(began),
        },
        Err(why) => Answer::from_failure(link, &why, micros(began)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tsunami_plugin_host::policy::{Approval, Route};

    fn link(name: &str) -> Link {
        Link {
            source: Source::Tenant,
            id: Uuid::nil(),
            name: name.into(),
            origin: Origin {
                digest: "d".into(),
                release: None,
            },
            settings: json!({}),
        }
    }

    fn answer(name: &str, decision: Decision) -> Answer {
        Answer {
            link: link(name),
            decision,
            micros: 1,
        }
    }

    fn allow(instance: Option<&str>) -> Decision {
        Decision::Allow(Route {
            instance: instance.map(Into::into),
            model: None,
        })
    }

    fn ask(roles: &[&str], second_person: bool) -> Decision {
        Decision::Ask(Approval {
            reason: "because".into(),
            roles: roles.iter().map(|r| (*r).into()).collect(),
            second_person,
            route: Route {
                instance: Some("b".into()),
                model: None,
            },
        })
    }

    #[test]
    fn the_strictest_answer_holds() {
        assert_eq!(Verdict::of(&[]).strictness, Strictness::Allow);
        let orders = [
            [allow(None), ask(&[], false), Decision::Deny("no".into())],
            [Decision::Deny("no".into()), allow(None), ask(&[], false)],
        ];
        for order in orders {
            let answers: Vec<_> = order.into_iter().map(|d| answer("p", d)).collect();
            let verdict = Verdict::of(&answers);
            assert_eq!(verdict.strictness, Strictness::Deny);
            assert_eq!(verdict.denials, ["no"]);
        }
        let two = [answer("a", allow(None)), answer("b", ask(&[], false))];
        assert_eq!(Verdict::of(&two).strictness, Strictness::Ask);
    }

    #[test]
    fn what_is_asked_for_adds_up_and_the_first_route_holds() {
        let verdict = Verdict::of(&[
            answer("a", allow(Some("a"))),
            answer("b", ask(&["admin"], false)),
            answer("c", ask(&["owner", "approver"], true)),
            answer("d", ask(&["admin"], false)),
        ]);
        assert_eq!(verdict.instance.as_deref(), Some("a"));
        assert!(verdict.asks.second_person);
        assert_eq!(
            verdict.asks.role_sets,
            [vec!["admin"], vec!["owner", "approver"]]
        );
    }

    #[test]
    fn what_does_not_answer_denies() {
        let answer = Answer::from_failure(link("late"), &"it ran too long", 3);
        assert_eq!(answer.strictness(), Strictness::Deny);
        assert!(answer.reason().contains("late") && answer.reason().contains("too long"));
    }
}
