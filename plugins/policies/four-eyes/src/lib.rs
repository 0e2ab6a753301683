//! Nobody alone does what cannot be taken back.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    ActionName, Decision, Policy, RiskLevel, Roles, Violation, about, allow, ask, export_policy,
    policy_types::Request, violation,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Actions of these risks need a second person; `destructive` where it is left out.
    #[serde(default = "destructive")]
    #[schemars(length(max = 3))]
    risks: Vec<RiskLevel>,
    /// Actions that need one whatever their risk, as `send_message` or `gmail.send_message`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    actions: Vec<ActionName>,
    /// Actions that need none, although their risk is named. What stands in `actions` too needs one.
    #[serde(default)]
    #[schemars(length(max = 256))]
    except: Vec<ActionName>,
    /// Who the second person may be. One of these roles is enough; empty for whoever the tenant's rules name.
    #[serde(default)]
    roles: Roles,
}

fn destructive() -> Vec<RiskLevel> {
    vec![RiskLevel::Destructive]
}

pub fn policy() -> Policy {
    Policy::prepared(
        "four-eyes",
        about!("Four eyes", ["governance", "approvals"]),
        prepare,
        decide,
    )
    .example(|| json!({}))
    .example(|| {
        json!({
            "risks": ["destructive"],
            "actions": ["gmail.send_message", "github.merge_pull_request"],
            "except": ["slack.delete_message"],
            "roles": ["admin", "owner"]
        })
    })
}

fn prepare(settings: Settings) -> Result<Settings, Violation> {
    match settings.risks.is_empty() && settings.actions.is_empty() {
        true => Err(violation(
            "",
            "they choose no action: name `risks` or `actions`",
        )),
        false => Ok(settings),
    }
}

fn decide(request: &Request, settings: &Settings) -> Decision {
    match why(request, settings) {
        Some(why) => {
            let reason = format!(
                "`{}.{}` {why}, and so a second person has to approve it",
                request.skill, request.action
            );
            ask(reason).second_person().roles(&settings.roles).into()
        }
        None => allow(),
    }
}

/// Why a call needs a second person, where it does.
fn why(request: &Request, settings: &Settings) -> Option<String> {
    let among = |actions: &[ActionName]| actions.iter().any(|action| action.is(request));
    if among(&settings.actions) {
        return Some("is on the list of four eyes".into());
    }
    let risk = RiskLevel::from(request.risk);
    let chosen = settings.risks.contains(&risk) && !among(&settings.except);
    chosen.then(|| match risk {
        RiskLevel::Read => "reads".into(),
        RiskLevel::Write => "changes something".into(),
        RiskLevel::Destructive => "cannot be taken back".into(),
    })
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use servicetsunami_plugin::{
        Risk,
        testing::{PolicyRequest, asked, denied, readme_shows_examples, settings_are_sound},
    };

    const DELETING: (&str, Risk) = ("delete_message", Risk::Destructive);
    const SENDING: (&str, Risk) = ("send_message", Risk::Write);
    const READING: (&str, Risk) = ("read_history", Risk::Read);

    fn call((action, risk): (&str, Risk)) -> PolicyRequest {
        PolicyRequest::new("slack", action).risk(risk)
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn a_second_person_is_asked_for_what_is_chosen() {
        let everything = json!(["read", "write", "destructive"]);
        let cases: [(Value, [bool; 3]); 10] = [
            (json!({}), [true, false, false]),
            (json!({ "risks": ["write"] }), [false, true, false]),
            (json!({ "risks": everything }), [true, true, true]),
            (json!({ "actions": ["send_message"] }), [true, true, false]),
            (
                json!({ "actions": ["slack.send_message"] }),
                [true, true, false],
            ),
            (
                json!({ "actions": ["gmail.send_message"] }),
                [true, false, false],
            ),
            (
                json!({ "risks": [], "actions": ["read_history"] }),
                [false, false, true],
            ),
            (
                json!({ "except": ["delete_message"] }),
                [false, false, false],
            ),
            (
                json!({ "except": ["gmail.delete_message"] }),
                [true, false, false],
            ),
            (
                json!({ "actions": ["slack.delete_message"], "except": ["delete_message"] }),
                [true, false, false],
            ),
        ];
        for (settings, expected) in cases {
            let asks = [DELETING, SENDING, READING]
                .map(|action| call(action).decide(policy, settings.clone()) != allow());
            assert_eq!(asks, expected, "{settings}");
        }
    }

    #[test]
    fn whoever_calls_it_is_a_second_person_that_is_asked() {
        let callers = [
            call(DELETING).person("u1", &["owner"]),
            call(DELETING).agent("a1", 1.0).depth(3),
            call(DELETING).system(),
        ];
        for caller in callers {
            let approval = asked(caller.decide(policy, json!({ "roles": ["admin", "owner"] })));
            assert!(approval.second_person);
            assert_eq!(approval.roles, ["admin", "owner"]);
            assert_eq!(
                approval.reason,
                "`slack.delete_message` cannot be taken back, and so a second person has to approve it"
            );
        }
        let anybody = asked(call(DELETING).decide(policy, json!({})));
        assert!(anybody.roles.is_empty() && anybody.second_person);
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let cases = [
            (
                json!({ "risks": [] }),
                "they choose no action: name `risks` or `actions`",
            ),
            (
                json!({ "risks": ["severe"] }),
                "/risks/0: unknown variant `severe`",
            ),
            (json!({ "risks": "write" }), "/risks: invalid type: string"),
            (
                json!({ "actions": ["Delete everything"] }),
                "/actions/0: `Delete everything` is no action's name",
            ),
            (json!({ "roles": "admin" }), "/roles: invalid type: string"),
        ];
        for (settings, complaint) in cases {
            let reason = denied(call(READING).decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
