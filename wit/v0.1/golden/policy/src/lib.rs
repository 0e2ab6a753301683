//! A policy that answers in each way that there is.

wit_bindgen::generate!({ path: "../..", world: "routing-policy-plugin" });

use exports::servicetsunami::plugin::routing_policy::{
    ActorKind, Approval, Decision, Guest, Manifest, Request, Route,
};
use servicetsunami::plugin::{
    log,
    types::{About, Risk},
};

struct Golden;
export!(Golden);

impl Guest for Golden {
    fn describe() -> Manifest {
        Manifest {
            name: "golden-policy".into(),
            about: About {
                title: "Golden policy".into(),
                summary: "Answers in each way that there is.".into(),
                version: "0.1.0".into(),
                licence: "Apache-2.0".into(),
                categories: vec!["test".into()],
                homepage: None,
                readme: String::new(),
            },
            settings_schema: r#"{"type":"object","properties":{"trust_min":{"type":"number"}}}"#.into(),
            examples: vec![r#"{"trust_min":0.5}"#.into()],
        }
    }

    fn decide(request: Request) -> Decision {
        log::write(log::Level::Warn, &format!("{} {}", request.skill, request.action));
        let route = Route {
            instance: request
                .instances
                .iter()
                .min_by_key(|instance| (instance.in_flight, instance.latency_p50_ms))
                .map(|instance| instance.id.clone()),
            model: request
                .models
                .iter()
                .max_by_key(|model| model.quality)
                .map(|model| model.id.clone()),
        };
        if request.actor.kind == ActorKind::Agent && request.actor.trust < 0.5 {
            return Decision::Deny(format!("{} is trusted {}", request.actor.id, request.actor.trust));
        }
        if request.risk == Risk::Destructive || request.usage.estimated_cost_micro_usd > Some(1_000_000) {
            return Decision::Ask(Approval {
                reason: format!("{} of {} scopes", request.params, request.scopes.len()),
                roles: request.actor.roles,
                second_person: true,
                route,
            });
        }
        Decision::Allow(route)
    }
}
