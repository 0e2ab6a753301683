//! The instance that answers fastest.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Calls, Decision, Policy, Violation, about, allow, allow_on_instance, deny, export_policy,
    policy_types::{Instance, Request},
    violation,
};
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Labels that an instance must have, each with one of its values: `{"region": ["eu-central-1", "eu-west-1"]}`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    labels: BTreeMap<String, Values>,
    /// Instances within so many milliseconds of the fastest are taken for as fast, and the one with the fewest calls
    /// in flight is chosen.
    #[serde(default)]
    #[schemars(range(max = 60_000))]
    tie_ms: u32,
    /// Where an instance stands whose latency nobody measured yet.
    #[serde(default)]
    unmeasured: Unmeasured,
    /// The calls that are routed; the others go ahead where the gateway sends them.
    #[serde(default)]
    calls: Calls,
}

/// One of them is enough.
#[derive(Deserialize, JsonSchema)]
struct Values(#[schemars(length(min = 1, max = 32), inner(length(max = 256)))] Vec<String>);

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unmeasured {
    /// Behind those that were measured.
    #[default]
    Last,
    /// Before them, so that it is measured soon.
    First,
}

pub fn policy() -> Policy {
    Policy::prepared(
        "least-latency-instance",
        about!("Fastest instance", ["routing", "latency"]),
        prepare,
        decide,
    )
    .example(|| json!({ "tie_ms": 20 }))
    .example(|| {
        json!({
            "labels": { "region": ["eu-central-1", "eu-west-1"], "tier": ["production"] },
            "unmeasured": "first",
            "calls": { "risks": ["write", "destructive"] }
        })
    })
}

fn prepare(settings: Settings) -> Result<Settings, Violation> {
    let empty = settings
        .labels
        .iter()
        .find(|(_, values)| values.0.is_empty());
    match empty {
        Some((label, _)) => Err(violation(
            "/labels",
            format!(
                "`{label}` has no value, so that no instance could match: name one, or take the label out"
            ),
        )),
        None => Ok(settings),
    }
}

fn decide(request: &Request, settings: &Settings) -> Decision {
    if !settings.calls.include(request) {
        return allow();
    }
    let matching = request
        .instances
        .iter()
        .filter(|i| settings.match_labels(i));
    match settings.fastest(matching.collect()) {
        Some(instance) => allow_on_instance(&instance.id),
        // Nothing was asked for that another instance could break: the gateway wakes or waits for one.
        None if settings.labels.is_empty() => allow(),
        None => deny(settings.explain(request.instances.len())),
    }
}

impl Settings {
    fn match_labels(&self, instance: &Instance) -> bool {
        self.labels.iter().all(|(name, values)| {
            let mut labels = instance.labels.iter();
            labels.any(|(label, value)| label == name && values.0.contains(value))
        })
    }

    fn fastest<'a>(&self, instances: Vec<&'a Instance>) -> Option<&'a Instance> {
        let (measured, unmeasured): (Vec<_>, Vec<_>) = instances
            .into_iter()
            .partition(|instance| instance.latency_p50_ms.is_some());
        let least = measured.iter().filter_map(|i| i.latency_p50_ms).min();
        let tied_until = least.map(|least| least.saturating_add(self.tie_ms));
        let tied = measured
            .into_iter()
            .filter(|instance| instance.latency_p50_ms <= tied_until);
        let fastest = least_busy(tied);
        let unmeasured = least_busy(unmeasured.into_iter());
        match self.unmeasured {
            Unmeasured::First => unmeasured.or(fastest),
            Unmeasured::Last => fastest.or(unmeasured),
        }
    }

    fn explain(&self, instances: usize) -> String {
        let asked: Vec<_> = self
            .labels
            .iter()
            .map(|(name, values)| format!("{name}={}", values.0.join("|")))
            .collect();
        format!(
            "none of the tenant's running instances ({instances}) has the labels {}: start or label one",
            asked.join(", ")
        )
    }
}

/// The same one each time: by its id, in the end.
fn least_busy<'a>(instances: impl Iterator<Item = &'a Instance>) -> Option<&'a Instance> {
    instances.min_by_key(|instance| (instance.in_flight, instance.latency_p50_ms, &instance.id))
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use servicetsunami_plugin::testing::{
        PolicyRequest, allowed, denied, readme_shows_examples, settings_are_sound,
    };

    fn call() -> PolicyRequest {
        PolicyRequest::new("slack", "send_message")
    }

    fn three() -> PolicyRequest {
        call()
            .instance(
                "a",
                Some(40),
                0,
                &[("region", "us-east-1"), ("tier", "production")],
            )
            .instance(
                "b",
                Some(30),
                7,
                &[("region", "eu-west-1"), ("tier", "production")],
            )
            .instance(
                "c",
                Some(35),
                2,
                &[("region", "eu-central-1"), ("tier", "trial")],
            )
    }

    #[track_caller]
    fn chosen(call: &PolicyRequest, settings: &Value) -> Option<String> {
        allowed(call.decide(policy, settings.clone())).instance
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn the_fastest_with_the_labels_is_taken() {
        let cases = [
            (json!({}), "b"),
            (json!({ "labels": {} }), "b"),
            (json!({ "labels": { "region": ["us-east-1"] } }), "a"),
            (
                json!({ "labels": { "region": ["us-east-1", "eu-central-1"] } }),
                "c",
            ),
            (json!({ "labels": { "tier": ["production"] } }), "b"),
            (
                json!({ "labels": { "tier": ["trial"], "region": ["eu-central-1"] } }),
                "c",
            ),
        ];
        for (settings, id) in cases {
            assert_eq!(
                chosen(&three(), &settings).as_deref(),
                Some(id),
                "{settings}"
            );
        }
    }

    #[test]
    fn without_an_instance_of_the_labels_the_call_is_denied() {
        let cases = [
            json!({ "region": ["eu"] }),
            json!({ "region": ["EU-WEST-1"] }),
            json!({ "zone": ["eu-west-1"] }),
            json!({ "region": ["us-east-1"], "tier": ["trial"] }),
            json!({ "": [""] }),
        ];
        for labels in cases {
            let settings = json!({ "labels": labels });
            let reason = denied(three().decide(policy, settings.clone()));
            assert!(reason.contains("running instances (3)"), "{reason}");
            denied(call().decide(policy, settings));
        }
        let settings = json!({ "labels": { "region": ["eu", "asia"], "tier": ["x"] } });
        assert_eq!(
            denied(call().decide(policy, settings)),
            "none of the tenant's running instances (0) has the labels region=eu|asia, tier=x: start or label one"
        );
    }

    #[test]
    fn without_labels_and_instances_the_gateway_chooses() {
        assert_eq!(call().decide(policy, json!({})), allow());
    }

    #[test]
    fn a_label_that_an_instance_has_twice_matches_by_either() {
        let call = call().instance("a", None, 0, &[("team", "red"), ("team", "blue")]);
        for team in ["red", "blue"] {
            let settings = json!({ "labels": { "team": [team] } });
            assert_eq!(chosen(&call, &settings).as_deref(), Some("a"));
        }
    }

    #[test]
    fn ties_go_to_whoever_has_fewest_in_flight_and_then_by_id() {
        let tied = call()
            .instance("c", Some(30), 5, &[])
            .instance("b", Some(30), 4, &[])
            .instance("a", Some(31), 0, &[]);
        assert_eq!(chosen(&tied, &json!({})).as_deref(), Some("b"));
        assert_eq!(chosen(&tied, &json!({ "tie_ms": 1 })).as_deref(), Some("a"));
        let same = call()
            .instance("z", Some(30), 4, &[])
            .instance("y", Some(30), 4, &[]);
        assert_eq!(chosen(&same, &json!({})).as_deref(), Some("y"));
        // Within the tie and as busy: the faster of them.
        let near = call()
            .instance("y", Some(35), 4, &[])
            .instance("z", Some(30), 4, &[]);
        assert_eq!(chosen(&near, &json!({ "tie_ms": 5 })).as_deref(), Some("z"));
        // How far a tie reaches is counted from the fastest, not from one to the next.
        let row = call()
            .instance("a", Some(30), 3, &[])
            .instance("b", Some(40), 2, &[])
            .instance("c", Some(50), 1, &[]);
        assert_eq!(chosen(&row, &json!({ "tie_ms": 10 })).as_deref(), Some("b"));
    }

    #[test]
    fn an_instance_that_was_not_measured_comes_last_or_first() {
        let call = call()
            .instance("new", None, 0, &[])
            .instance("newer", None, 3, &[])
            .instance("slow", Some(u32::MAX), 99, &[]);
        assert_eq!(chosen(&call, &json!({})).as_deref(), Some("slow"));
        assert_eq!(
            chosen(&call, &json!({ "tie_ms": 60_000 })).as_deref(),
            Some("slow")
        );
        assert_eq!(
            chosen(&call, &json!({ "unmeasured": "first" })).as_deref(),
            Some("new")
        );
        let unmeasured = PolicyRequest::new("slack", "send_message").instance("new", None, 0, &[]);
        assert_eq!(chosen(&unmeasured, &json!({})).as_deref(), Some("new"));
    }

    #[test]
    fn calls_that_are_not_chosen_go_where_the_gateway_sends_them() {
        let settings =
            json!({ "labels": { "region": ["mars"] }, "calls": { "skills": ["gmail"] } });
        assert_eq!(three().decide(policy, settings), allow());
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let cases = [
            (
                json!({ "labels": { "region": [] } }),
                "/labels: `region` has no value",
            ),
            (
                json!({ "labels": { "region": "eu" } }),
                "/labels/region: invalid type: string",
            ),
            (
                json!({ "tie_ms": -1 }),
                "/tie_ms: invalid value: integer `-1`",
            ),
            (
                json!({ "unmeasured": "never" }),
                "/unmeasured: unknown variant `never`, expected `last` or `first`",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(three().decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
