//! The cheapest model that is good enough.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Calls, Decision, Policy, Violation, about, allow, allow_with_model, deny, export_policy,
    policy_types::{Model, Request},
    violation,
};
use std::cmp::Reverse;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// 0 to 100.
    #[serde(default)]
    #[schemars(range(max = 100))]
    quality_min: u8,
    /// 0 to 100.
    #[serde(default)]
    #[schemars(range(max = 100))]
    speed_min: u8,
    /// The providers that are allowed, as LLM configurations name them: `anthropic`; empty for any.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    providers: Vec<String>,
    /// How many of a hundred tokens are written rather than read, since the two have prices of their own.
    #[serde(default = "quarter")]
    #[schemars(range(max = 100))]
    output_percent: u8,
    /// The calls that the model is taken for; the others go ahead with the gateway's choice.
    #[serde(default)]
    calls: Calls,
}

fn quarter() -> u8 {
    25
}

pub fn policy() -> Policy {
    Policy::prepared(
        "cheapest-model",
        about!("Cheapest model", ["routing", "cost"]),
        prepare,
        decide,
    )
    .example(|| json!({ "quality_min": 70 }))
    .example(|| {
        json!({
            "quality_min": 60,
            "speed_min": 50,
            "providers": ["anthropic", "google"],
            "output_percent": 10,
            "calls": { "skills": ["gmail"] }
        })
    })
}

fn prepare(settings: Settings) -> Result<Settings, Violation> {
    let percents = [
        ("/quality_min", settings.quality_min),
        ("/speed_min", settings.speed_min),
        ("/output_percent", settings.output_percent),
    ];
    match percents.into_iter().find(|(_, percent)| *percent > 100) {
        Some((pointer, _)) => Err(violation(pointer, "must be 0 to 100")),
        None => Ok(settings),
    }
}

fn decide(request: &Request, settings: &Settings) -> Decision {
    if !settings.calls.include(request) {
        return allow();
    }
    let fitting = request.models.iter().filter(|model| settings.take(model));
    // The best of those that cost the same, and the same one each time.
    let cheapest = fitting.min_by_key(|model| {
        let best = (Reverse(model.quality), Reverse(model.speed));
        (settings.price(model), best, &model.id)
    });
    match cheapest {
        Some(model) => allow_with_model(&model.id),
        None => deny(settings.explain(&request.models)),
    }
}

impl Settings {
    fn take(&self, model: &Model) -> bool {
        self.allow_provider(model)
            && model.quality >= self.quality_min
            && model.speed >= self.speed_min
    }

    fn allow_provider(&self, model: &Model) -> bool {
        self.providers.is_empty() || self.providers.contains(&model.provider)
    }

    /// Of a hundred million tokens, in millionths of a US dollar.
    fn price(&self, model: &Model) -> u128 {
        let output = u128::from(self.output_percent);
        u128::from(model.input_micro_usd_per_mtok) * 100_u128.saturating_sub(output)
            + u128::from(model.output_micro_usd_per_mtok) * output
    }

    fn explain(&self, models: &[Model]) -> String {
        if models.is_empty() {
            return "there is no model to choose from: add an LLM configuration".into();
        }
        let (quality, speed) = (self.quality_min, self.speed_min);
        let allowed: Vec<_> = models.iter().filter(|m| self.allow_provider(m)).collect();
        if allowed.is_empty() {
            return format!(
                "none of the tenant's models ({}) is of a provider that is allowed: {}",
                models.len(),
                self.providers.join(", ")
            );
        }
        let most = |of: fn(&Model) -> u8| allowed.iter().map(|m| of(m)).max().unwrap_or(0);
        format!(
            "none of the tenant's models that are allowed ({}) has quality {quality} and speed {speed} or more: the \
             best quality is {}, the best speed {}; add an LLM configuration, or ask for less",
            allowed.len(),
            most(|m| m.quality),
            most(|m| m.speed)
        )
    }
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use servicetsunami_plugin::testing::{
        PolicyRequest, allowed, denied, readme_shows_examples, settings_are_sound,
    };

    fn model(id: &str, provider: &str, prices: (u64, u64), quality: u8, speed: u8) -> Model {
        Model {
            id: id.into(),
            provider: provider.into(),
            name: format!("name of {id}"),
            input_micro_usd_per_mtok: prices.0,
            output_micro_usd_per_mtok: prices.1,
            quality,
            speed,
        }
    }

    fn call() -> PolicyRequest {
        [
            model("large", "anthropic", (15_000_000, 75_000_000), 95, 40),
            model("middle", "anthropic", (3_000_000, 15_000_000), 85, 70),
            model("small", "anthropic", (250_000, 1_250_000), 60, 90),
            model("other", "google", (1_250_000, 5_000_000), 80, 75),
        ]
        .into_iter()
        .fold(
            PolicyRequest::new("slack", "send_message"),
            PolicyRequest::model,
        )
    }

    #[track_caller]
    fn chosen(call: &PolicyRequest, settings: Value) -> Option<String> {
        allowed(call.decide(policy, settings)).model
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn the_cheapest_that_is_good_enough_is_taken() {
        let cases = [
            (json!({}), "small"),
            (json!({ "quality_min": 60 }), "small"),
            (json!({ "quality_min": 61 }), "other"),
            (json!({ "quality_min": 80, "speed_min": 75 }), "other"),
            (json!({ "quality_min": 81 }), "middle"),
            (json!({ "quality_min": 95 }), "large"),
            (
                json!({ "quality_min": 61, "providers": ["anthropic"] }),
                "middle",
            ),
            (json!({ "quality_min": 61, "providers": [] }), "other"),
            (json!({ "providers": ["google", "nobody"] }), "other"),
        ];
        for (settings, id) in cases {
            assert_eq!(
                chosen(&call(), settings.clone()).as_deref(),
                Some(id),
                "{settings}"
            );
        }
    }

    #[test]
    fn where_none_is_good_enough_the_call_is_denied() {
        let cases = [
            (
                json!({ "quality_min": 96 }),
                "(4) has quality 96 and speed 0 or more: the best quality is 95",
            ),
            (
                json!({ "quality_min": 85, "speed_min": 71 }),
                "(4) has quality 85 and speed 71",
            ),
            (
                json!({ "providers": ["Anthropic"] }),
                "(4) is of a provider that is allowed: Anthropic",
            ),
            (
                json!({ "providers": ["google"], "quality_min": 81 }),
                "(1) has quality 81",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(call().decide(policy, settings));
            assert!(reason.contains(complaint), "{reason}");
        }
        let none = PolicyRequest::new("slack", "send_message").decide(policy, json!({}));
        assert_eq!(
            denied(none),
            "there is no model to choose from: add an LLM configuration"
        );
    }

    #[test]
    fn what_is_cheaper_depends_on_how_much_is_written() {
        let call = PolicyRequest::new("slack", "send_message")
            .model(model("reads cheaply", "a", (1, 100), 50, 50))
            .model(model("writes cheaply", "a", (20, 20), 50, 50));
        for (percent, id) in [
            (0, "reads cheaply"),
            (19, "reads cheaply"),
            (20, "writes cheaply"),
            (100, "writes cheaply"),
        ] {
            let settings = json!({ "output_percent": percent });
            assert_eq!(chosen(&call, settings).as_deref(), Some(id), "{percent}");
        }
    }

    #[test]
    fn of_those_that_cost_the_same_the_best_is_taken_whatever_their_order() {
        let alike = [
            model("d", "a", (1, 1), 50, 60),
            model("c", "a", (1, 1), 60, 50),
            model("b", "a", (1, 1), 60, 60),
            model("a", "a", (2, 2), 99, 99),
            model("e", "a", (1, 1), 60, 60),
        ];
        let call = |models: Vec<Model>| {
            models.into_iter().fold(
                PolicyRequest::new("slack", "send_message"),
                PolicyRequest::model,
            )
        };
        let backwards = alike.iter().rev().cloned().collect();
        for call in [call(alike.to_vec()), call(backwards)] {
            assert_eq!(chosen(&call, json!({})).as_deref(), Some("b"));
        }
    }

    #[test]
    fn prices_beyond_measure_are_compared_all_the_same() {
        let call = PolicyRequest::new("slack", "send_message")
            .model(model("dearest", "a", (u64::MAX, u64::MAX), 50, 50))
            .model(model("dear", "a", (u64::MAX, u64::MAX - 1), 50, 50));
        assert_eq!(chosen(&call, json!({})).as_deref(), Some("dear"));
    }

    #[test]
    fn calls_that_are_not_chosen_are_left_to_the_gateway() {
        let settings = json!({ "quality_min": 100, "calls": { "skills": ["gmail"] } });
        assert_eq!(call().decide(policy, settings), allow());
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let cases = [
            (
                json!({ "quality_min": 101 }),
                "/quality_min: must be 0 to 100",
            ),
            (
                json!({ "speed_min": 256 }),
                "/speed_min: invalid value: integer `256`",
            ),
            (
                json!({ "output_percent": 200 }),
                "/output_percent: must be 0 to 100",
            ),
            (
                json!({ "providers": "anthropic" }),
                "/providers: invalid type: string",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(call().decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
