//! A policy that answers as its settings say, also wrongly.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Decision, Policy, about, allow, ask, deny, export_policy, policy_types::Request,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    answer: Answer,
    /// Only for this action; the others are allowed.
    action: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    second_person: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Allow,
    Ask,
    Deny,
    /// Says all that it was given, as its reason.
    Tell,
    Loop,
    Panic,
}

pub fn policy() -> Policy {
    Policy::new("policy-probe", about!("Probe", ["test"]), decide)
        .example(|| json!({ "answer": "allow" }))
}

fn decide(request: &Request, settings: Settings) -> Decision {
    if settings
        .action
        .is_some_and(|action| action != request.action)
    {
        return allow();
    }
    match settings.answer {
        Answer::Allow => allow(),
        Answer::Ask => {
            let asked = ask("the probe asks").roles(&settings.roles);
            if settings.second_person {
                asked.second_person().into()
            } else {
                asked.into()
            }
        }
        Answer::Deny => deny("the probe says no"),
        Answer::Tell => deny(format!("{request:?}")),
        Answer::Loop => loop {
            std::hint::black_box(0);
        },
        Answer::Panic => panic!("the probe panics"),
    }
}

export_policy!(policy);
