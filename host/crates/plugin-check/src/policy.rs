//! A routing policy, asked as the gateway would ask it, and worse.

use crate::{Facts, REPETITIONS, report::Findings, schema, violations};
use serde_json::{Value, json};
use std::time::Instant;
use tsunami_plugin_host::{
    Plugin,
    policy::{Actor, ActorKind, Decision, Instance, Manifest, Model, Request, Usage},
    types::{Risk, ScopeValue},
};

pub fn examine(plugin: &Plugin, manifest: &Manifest, facts: &mut Facts, findings: &mut Findings) {
    let schema = schema(&manifest.settings_schema);
    for (index, example) in manifest.examples.iter().enumerate() {
        let place = format!("policy/examples/{index}");
        let Ok(settings) = serde_json::from_str::<Value>(example) else {
            continue;
        };
        if let Some(wrong) = schema.as_ref().and_then(|s| violations(s, &settings)) {
            findings.error(
                &place,
                format!("it does not pass the policy's own schema: {wrong}"),
                "mend the example or the schema",
            );
        }
        for request in requests(&settings) {
            if facts.is_spent() {
                return;
            }
            ask(plugin, &request, &place, facts, findings);
        }
    }
    for settings in [json!(null), json!([]), json!({ "no_such_setting": 1 })] {
        for request in requests(&settings).into_iter().take(1) {
            let began = Instant::now();
            let answer = plugin.decide(&request).map(|called| called.value);
            facts.took(began.elapsed());
            match answer {
                Ok(Decision::Deny(_)) => {}
                Ok(_) => findings.warning(
                    "decide",
                    format!("with the settings {settings} it does not deny"),
                    "deny where the settings cannot be used, and say why",
                ),
                Err(error) => findings.warning(
                    "decide",
                    format!("with the settings {settings} it fails: {error}"),
                    "deny, and say what is wrong with the settings",
                ),
            }
        }
    }
}

fn ask(
    plugin: &Plugin,
    request: &Request,
    place: &str,
    facts: &mut Facts,
    findings: &mut Findings,
) {
    let mut first = None;
    for _ in 0..REPETITIONS {
        let began = Instant::now();
        let answer = plugin.decide(request);
        facts.took(began.elapsed());
        let decision = match answer {
            Ok(called) => called.value,
            Err(error) => {
                findings.error(
                    place,
                    format!("`decide` failed, which denies every call: {error}"),
                    "answer, whatever the request holds",
                );
                return;
            }
        };
        let first = first.get_or_insert_with(|| decision.clone());
        if *first != decision {
            findings.error(
                place,
                "the same request does not get the same decision",
                "take nothing but the arguments: decisions are replayed",
            );
            return;
        }
        let reason = match &decision {
            Decision::Deny(reason) => reason,
            Decision::Ask(approval) => &approval.reason,
            Decision::Allow(_) => return,
        };
        if reason.trim().is_empty() {
            findings.warning(
                place,
                "it says no, or asks, without a reason",
                "people read the reason; say what rule it is",
            );
        }
    }
}

/// Calls of every kind, and odd ones.
fn requests(settings: &Value) -> Vec<Request> {
    let request = |risk, params: &str, kind, depth, spend| Request {
        skill: "slack".into(),
        action: "send_message".into(),
        risk,
        params: params.into(),
        scopes: vec![ScopeValue {
            scope: "channels".into(),
            value: "#finance".into(),
        }],
        actor: Actor {
            kind,
            id: "a".into(),
            roles: vec!["member".into()],
            trust: 0.5,
            delegation_depth: depth,
        },
        usage: Usage {
            calls_in_window: 3,
            day_spend_micro_usd: spend,
            month_spend_micro_usd: spend,
            estimated_cost_micro_usd: None,
        },
        instances: vec![Instance {
            id: "i".into(),
            labels: vec![],
            in_flight: 0,
            latency_p50_ms: None,
        }],
        models: vec![Model {
            id: "m".into(),
            provider: "p".into(),
            name: "n".into(),
            input_micro_usd_per_mtok: 1,
            output_micro_usd_per_mtok: u64::MAX,
            quality: 50,
            speed: 50,
        }],
        settings: settings.to_string(),
        now: 1_767_225_600_000,
    };
    let nothing = Request {
        skill: String::new(),
        action: String::new(),
        scopes: vec![],
        instances: vec![],
        models: vec![],
        now: 0,
        ..request(Risk::Read, "", ActorKind::System, 0, 0)
    };
    vec![
        request(Risk::Read, "{}", ActorKind::Person, 0, 0),
        request(
            Risk::Write,
            "{\"channel\":\"#finance\",\"text\":\"hello\"}",
            ActorKind::Agent,
            1,
            1,
        ),
        request(
            Risk::Destructive,
            "{\"a\":[[[\"\\u0000\"]]]}",
            ActorKind::Agent,
            u32::MAX,
            u64::MAX,
        ),
        request(Risk::Write, "no JSON", ActorKind::System, 0, 0),
        Request {
            now: u64::MAX,
            ..request(
                Risk::Write,
                &json!({ "text": "A".repeat(50_000) }).to_string(),
                ActorKind::Agent,
                0,
                0,
            )
        },
        Request {
            actor: Actor {
                trust: f64::NAN,
                ..request(Risk::Read, "{}", ActorKind::Agent, 0, 0).actor
            },
            ..request(Risk::Read, "{}", ActorKind::Agent, 0, 0)
        },
        nothing,
    ]
}
