//! What may be spent in a day and in a month.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Calls, Decision, Effect, Policy, Roles, Violation, about, allow, export_policy,
    policy_types::Request, strictest, violation,
};

const MICRO_USD: u64 = 1_000_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What the tenant may spend from midnight to midnight, UTC.
    day: Option<Thresholds>,
    /// What the tenant may spend in a calendar month, UTC.
    month: Option<Thresholds>,
    /// What a call is taken to cost of which nobody knows it, in millionths of a US dollar.
    #[serde(default)]
    #[schemars(range(max = 1_000_000_000_000_000u64))]
    unknown_cost_micro_usd: u64,
    /// Who may approve. One of these roles is enough; empty for whoever the tenant's rules name.
    #[serde(default)]
    roles: Roles,
    /// The calls that are held against the limits; all is counted that the tenant spent, by whichever call.
    #[serde(default)]
    calls: Calls,
}

/// In millionths of a US dollar; what is exactly the threshold is below it.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    /// A call that takes the spending above this needs a person's approval.
    #[schemars(range(max = 1_000_000_000_000_000u64))]
    ask_above_micro_usd: Option<u64>,
    /// A call that takes the spending above this is stopped.
    #[schemars(range(max = 1_000_000_000_000_000u64))]
    deny_above_micro_usd: Option<u64>,
}

pub fn policy() -> Policy {
    Policy::prepared(
        "spending-limit",
        about!("Spending limit", ["governance", "cost"]),
        prepare,
        decide,
    )
    .example(|| {
        json!({
            "day": { "ask_above_micro_usd": 20_000_000, "deny_above_micro_usd": 50_000_000 },
            "month": { "deny_above_micro_usd": 500_000_000 },
            "roles": ["admin", "owner"]
        })
    })
    .example(|| {
        json!({
            "month": { "ask_above_micro_usd": 100_000_000 },
            "unknown_cost_micro_usd": 50_000,
            "calls": { "risks": ["write", "destructive"] }
        })
    })
}

fn prepare(settings: Settings) -> Result<Settings, Violation> {
    let periods = [("/day", settings.day), ("/month", settings.month)];
    for (pointer, thresholds) in periods {
        if let Some(thresholds) = thresholds {
            thresholds.check(pointer)?;
        }
    }
    match settings.day.is_some() || settings.month.is_some() {
        true => Ok(settings),
        false => Err(violation(
            "",
            "they set no limit: set one for the `day` or the `month`",
        )),
    }
}

impl Thresholds {
    fn check(self, pointer: &str) -> Result<(), Violation> {
        match (self.ask_above_micro_usd, self.deny_above_micro_usd) {
            (None, None) => Err(violation(
                pointer,
                "sets no limit: set `ask_above_micro_usd` or `deny_above_micro_usd`",
            )),
            (Some(ask), Some(deny)) if ask >= deny => Err(violation(
                format!("{pointer}/ask_above_micro_usd"),
                "is not below `deny_above_micro_usd`, so that nobody would ever be asked: lower it or leave it out",
            )),
            _ => Ok(()),
        }
    }

    /// The threshold that a sum is above, where it is above one.
    fn passed_by(self, micro_usd: u64) -> Option<(Effect, u64)> {
        let above = |threshold: &u64| micro_usd > *threshold;
        let denied = self.deny_above_micro_usd.filter(above);
        let asked = self.ask_above_micro_usd.filter(above);
        denied
            .map(|threshold| (Effect::Deny, threshold))
            .or(asked.map(|threshold| (Effect::Ask, threshold)))
    }
}

fn decide(request: &Request, settings: &Settings) -> Decision {
    if !settings.calls.include(request) {
        return allow();
    }
    let usage = &request.usage;
    let cost = usage
        .estimated_cost_micro_usd
        .unwrap_or(settings.unknown_cost_micro_usd);
    let periods = [
        (
            "today",
            "at midnight, UTC",
            settings.day,
            usage.day_spend_micro_usd,
        ),
        (
            "this month",
            "with the month, UTC",
            settings.month,
            usage.month_spend_micro_usd,
        ),
    ];
    let found = periods.iter().filter_map(|(period, anew, thresholds, spent)| {
        let total = spent.saturating_add(cost);
        let (effect, threshold) = (*thresholds)?.passed_by(total)?;
        let rule = match effect {
            Effect::Deny => "at most is allowed",
            Effect::Ask => "is allowed without approval",
        };
        let (spent, cost, threshold) = (usd(*spent), usd(cost), usd(threshold));
        let reason = format!(
            "{spent} was spent {period} and this call is expected to cost {cost}, where {threshold} {rule}; it begins \
             anew {anew}"
        );
        Some((effect, reason))
    });
    strictest(&found.collect::<Vec<_>>(), &settings.roles)
}

/// `$1.50`, with more digits only where they say something.
fn usd(micro_usd: u64) -> String {
    let cents = format!("{:06}", micro_usd % MICRO_USD);
    let digits = cents.trim_end_matches('0').len().max(2);
    let cents = cents.get(..digits).unwrap_or(&cents);
    format!("${}.{cents}", micro_usd / MICRO_USD)
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use servicetsunami_plugin::{
        Risk, ask,
        testing::{
            PolicyRequest,
            Said::{Allow, Ask, Deny},
            asked, denied, readme_shows_examples, said, settings_are_sound,
        },
    };

    fn call() -> PolicyRequest {
        PolicyRequest::new("slack", "send_message").risk(Risk::Write)
    }

    fn day() -> Value {
        json!({ "day": { "ask_above_micro_usd": 1_000, "deny_above_micro_usd": 2_000 } })
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn the_cost_of_the_call_counts_and_exactly_the_threshold_is_below_it() {
        let cases = [
            (0, Some(0), Allow),
            (0, Some(1_000), Allow),
            (999, Some(1), Allow),
            (1_000, Some(0), Allow),
            (1_000, None, Allow),
            (1_000, Some(1), Ask),
            (1_001, None, Ask),
            (0, Some(2_000), Ask),
            (1_999, Some(1), Ask),
            (2_000, Some(0), Ask),
            (1_999, Some(2), Deny),
            (2_001, None, Deny),
            (0, Some(u64::MAX), Deny),
            (u64::MAX, Some(u64::MAX), Deny),
            (u64::MAX, None, Deny),
        ];
        for (spent, cost, expected) in cases {
            let call = match cost {
                Some(cost) => call().spent(spent, spent).costs(cost),
                None => call().spent(spent, spent),
            };
            let decision = call.decide(policy, day());
            assert_eq!(said(&decision), expected, "{spent} {cost:?}: {decision:?}");
        }
    }

    #[test]
    fn day_and_month_are_held_apart_and_the_stricter_holds() {
        let settings = json!({
            "day": { "ask_above_micro_usd": 10, "deny_above_micro_usd": 20 },
            "month": { "ask_above_micro_usd": 100, "deny_above_micro_usd": 200 }
        });
        let cases = [
            (10, 100, Allow),
            (11, 100, Ask),
            (10, 101, Ask),
            (21, 100, Deny),
            (10, 201, Deny),
            (21, 101, Deny),
            (11, 201, Deny),
        ];
        for (day, month, expected) in cases {
            let decision = call().spent(day, month).decide(policy, settings.clone());
            assert_eq!(said(&decision), expected, "{day} {month}: {decision:?}");
        }
        let both = denied(call().spent(21, 201).decide(policy, settings));
        assert!(
            both.contains("today") && both.contains("this month"),
            "{both}"
        );
    }

    #[test]
    fn one_threshold_alone_is_a_limit() {
        let asking = json!({ "month": { "ask_above_micro_usd": 5 } });
        assert_eq!(said(&call().spent(u64::MAX, 6).decide(policy, asking)), Ask);
        let denying = json!({ "day": { "deny_above_micro_usd": 0 } });
        assert_eq!(
            said(&call().spent(0, 9).decide(policy, denying.clone())),
            Allow
        );
        assert_eq!(said(&call().costs(1).decide(policy, denying)), Deny);
    }

    #[test]
    fn an_unknown_cost_is_what_the_settings_take_it_for() {
        let mut settings = day();
        settings["unknown_cost_micro_usd"] = json!(1_500);
        assert_eq!(said(&call().decide(policy, settings.clone())), Ask);
        assert_eq!(said(&call().costs(0).decide(policy, settings)), Allow);
    }

    #[test]
    fn calls_that_are_not_chosen_go_ahead() {
        let mut settings = day();
        settings["calls"] = json!({ "risks": ["destructive"] });
        let decision = call().spent(u64::MAX, u64::MAX).decide(policy, settings);
        assert_eq!(decision, allow());
    }

    #[test]
    fn the_reason_has_the_sums_in_dollars() {
        let settings = json!({
            "day": { "ask_above_micro_usd": 10_000_000 }, "roles": ["admin"],
        });
        let decision = call()
            .spent(9_999_999, 0)
            .costs(250_000)
            .decide(policy, settings);
        let reason = "$9.999999 was spent today and this call is expected to cost $0.25, where $10.00 is allowed \
                      without approval; it begins anew at midnight, UTC";
        assert_eq!(asked(decision.clone()).reason, reason);
        assert_eq!(decision, ask(reason).roles(&["admin".into()]).into());
        assert_eq!(usd(0), "$0.00");
        assert_eq!(usd(1_000_001), "$1.000001");
        assert_eq!(usd(1_230_000), "$1.23");
        assert_eq!(usd(u64::MAX), "$18446744073709.551615");
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let cases = [
            (json!({}), "they set no limit"),
            (json!({ "day": null, "month": null }), "they set no limit"),
            (json!({ "day": {} }), "/day: sets no limit"),
            (
                json!({ "day": { "deny_above_micro_usd": 1 }, "month": {} }),
                "/month: sets no limit",
            ),
            (
                json!({ "month": { "ask_above_micro_usd": 5, "deny_above_micro_usd": 5 } }),
                "/month/ask_above_micro_usd: is not below `deny_above_micro_usd`",
            ),
            (
                json!({ "day": { "deny_above_micro_usd": -1 } }),
                "/day/deny_above_micro_usd: invalid value: integer `-1`",
            ),
            (
                json!({ "day": { "deny_above_micro_usd": 1.5 } }),
                "/day/deny_above_micro_usd: invalid type: floating point `1.5`",
            ),
            (
                json!({ "day": { "deny_above_usd": 1 } }),
                "unknown field `deny_above_usd`",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(call().decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
