//! What a tenant sets for a skill, and whether a call keeps to it.

use super::store::ConfigRow;
use crate::{
    app::App,
    config::COST_MICRO_USD_MAX,
    db::TenantTx,
    id::TenantId,
    plugins::{self, Installed},
    problem::{Problem, Violation, pointer_part},
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tsunami_plugin_host::{
    adapter::{Action, Manifest},
    types::ScopeValue,
};

/// At most so many actions within so many seconds, whenever the window begins.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// 1 to 10,000.
    pub max_actions: i64,
    /// 1 to 2,592,000 (30 days).
    pub per_seconds: u64,
}

impl RateLimit {
    pub fn per(self) -> Duration {
        Duration::from_secs(self.per_seconds)
    }

    pub fn check(&self) -> Result<(), Problem> {
        if !(1..=10_000).contains(&self.max_actions) {
            return Err(Problem::invalid_field(
                "/rate_limit/max_actions",
                "must be 1 to 10000",
            ));
        }
        if !(1..=2_592_000).contains(&self.per_seconds) {
            return Err(Problem::invalid_field(
                "/rate_limit/per_seconds",
                "must be 1 to 2592000",
            ));
        }
        Ok(())
    }
}

pub fn rate_limit(config: &ConfigRow) -> Option<RateLimit> {
    config
        .rate_limit
        .clone()
        .and_then(|json| serde_json::from_value(json).ok())
}

/// What a call of the action costs, in millionths of a US dollar: what the tenant says, and at least what the operator
/// does (`skills.least_costs_micro_usd`). None where nobody says anything.
pub fn cost(app: &App, config: &ConfigRow, action: &str) -> Option<u64> {
    let least = app.config().skills.least_cost(&config.skill_name, action);
    let said = config.costs.get(action).and_then(Value::as_u64);
    least.max(said)
}

/// Refuses costs that nothing costs.
///
/// # Errors
/// 422 with the action.
pub fn check_costs(costs: &BTreeMap<String, u64>) -> Result<(), Problem> {
    let dear = costs.iter().find(|(_, cost)| **cost > COST_MICRO_USD_MAX);
    dear.map_or(Ok(()), |(action, _)| {
        Err(Problem::invalid_field(
            &format!("/costs/{}", pointer_part(action)),
            &format!("must be 0 to {COST_MICRO_USD_MAX} millionths of a US dollar"),
        ))
    })
}

/// Step 2 of the router: enabled, parameters, scopes.
pub async fn check_call(
    app: &App,
    tenant: TenantId,
    config: &ConfigRow,
    installed: &Installed,
    action: &Action,
    params: &Value,
) -> Result<(), Problem> {
    if !config.enabled {
        return Err(Problem::forbidden(
            "skill_disabled",
            format!(
                "The skill `{}` is switched off. An administrator switches it on in its configuration.",
                config.skill_name
            ),
        ));
    }
    if config.disabled_actions.contains(&action.name) {
        return Err(Problem::forbidden(
            "action_disabled",
            format!(
                "The action `{}` is switched off in the configuration of `{}`.",
                action.name, config.skill_name
            ),
        ));
    }
    let violations = violations_of(app, tenant, installed.plugin.digest(), action, params).await?;
    if !violations.is_empty() {
        return Err(Problem::unprocessable(
            "invalid_params",
            format!(
                "The parameters are not what `{}` takes; `errors` says where.",
                action.name
            ),
        )
        .with_errors(violations));
    }
    check_scopes(&config.skill_name, &config.allowed_scopes, action, params)
}

/// What a configuration names of its plugin.
pub struct Named {
    approval_actions: Vec<String>,
    disabled_actions: Vec<String>,
    priced_actions: Vec<String>,
    scopes: Vec<String>,
}

impl Named {
    pub fn by(config: &ConfigRow) -> Self {
        Self {
            approval_actions: config.approval_actions.clone(),
            disabled_actions: config.disabled_actions.clone(),
            priced_actions: names_in(&config.costs).cloned().collect(),
            scopes: names_in(&config.allowed_scopes).cloned().collect(),
        }
    }
}

fn names_in(object: &Value) -> impl Iterator<Item = &String> {
    object
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
}

/// Refuses a changed configuration that does not fit the plugin. What it named `before` it may go on naming: a version
/// that lacks an action does not take the other rules with it.
pub async fn check(
    app: &App,
    tx: &mut TenantTx,
    config: &ConfigRow,
    before: &Named,
) -> Result<(), Problem> {
    let Some(installed) = plugins::installed(app, tx, &config.skill_name).await? else {
        return Ok(());
    };
    let unknown = unknown_names(&installed.manifest, config, before);
    if !unknown.is_empty() {
        return Err(Problem::unprocessable(
            "unknown_name",
            "The configuration names what the plugin does not have, and so would guard nothing; `errors` says what there is.",
        )
        .with_errors(unknown));
    }
    check_settings(app, tx.tenant(), &installed.manifest, config).await
}

/// Actions and scopes that are neither the plugin's nor named before.
fn unknown_names(manifest: &Manifest, config: &ConfigRow, before: &Named) -> Vec<Violation> {
    let skill = &config.skill_name;
    let actions: Vec<_> = manifest
        .actions
        .iter()
        .map(|action| action.name.as_str())
        .collect();
    let mut scopes: Vec<_> = manifest
        .actions
        .iter()
        .flat_map(|action| action.scopes.iter().map(|scope| scope.name.as_str()))
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    let all = actions.join(", ");
    let no_action = |name: &String| format!("`{name}` is no action of `{skill}`, which has {all}");
    let none_listed = |list: &str, names: &[String], before: &[String]| -> Vec<Violation> {
        unknown(names.iter(), &actions, before)
            .map(|(at, name)| Violation {
                pointer: format!("/{list}/{at}"),
                message: no_action(name),
            })
            .collect()
    };
    let priced = names_in(&config.costs);
    let no_priced = unknown(priced, &actions, &before.priced_actions).map(|(_, name)| Violation {
        pointer: format!("/costs/{}", pointer_part(name)),
        message: no_action(name),
    });
    let restricted = names_in(&config.allowed_scopes);
    let no_scope = unknown(restricted, &scopes, &before.scopes).map(|(_, name)| Violation {
        pointer: format!("/allowed_scopes/{}", pointer_part(name)),
        message: match scopes.as_slice() {
            [] => format!("`{name}` is no scope of `{skill}`, which has none"),
            all => format!(
                "`{name}` is no scope of `{skill}`, which has {}",
                all.join(", ")
            ),
        },
    });
    let mut found = none_listed(
        "approval_actions",
        &config.approval_actions,
        &before.approval_actions,
    );
    found.extend(none_listed(
        "disabled_actions",
        &config.disabled_actions,
        &before.disabled_actions,
    ));
    found.extend(no_priced);
    found.extend(no_scope);
    found.truncate(plugins::VIOLATIONS_SHOWN_MAX);
    found
}

/// Those that are neither known nor named before, each with its place.
fn unknown<'a>(
    names: impl Iterator<Item = &'a String>,
    known: &[&str],
    before: &[String],
) -> impl Iterator<Item = (usize, &'a String)> {
    names
        .enumerate()
        .filter(|(_, name)| !known.contains(&name.as_str()) && !before.contains(name))
}

/// Refuses settings that are not what the plugin's schema says.
async fn check_settings(
    app: &App,
    tenant: TenantId,
    manifest: &Manifest,
    config: &ConfigRow,
) -> Result<(), Problem> {
    let schema = plugins::compiled(app, tenant, &manifest.settings_schema).await?;
    let schema = schema.map_err(|e| Problem::internal(&e))?;
    let settings = &config.settings;
    let violations = plugins::violations(app, tenant, &schema, settings, "/settings").await?;
    if violations.is_empty() {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "invalid_settings",
        "The settings are not what the plugin takes; `errors` says where.",
    )
    .with_errors(violations))
}

/// Where the parameters depart from the action's schema.
async fn violations_of(
    app: &App,
    tenant: TenantId,
    digest: &str,
    action: &Action,
    params: &Value,
) -> Result<Vec<Violation>, Problem> {
    let key = (digest.to_owned(), action.name.clone());
    let validator = match app.validators().get(&key).await {
        Some(validator) => validator,
        None => {
            let built = plugins::compiled(app, tenant, &action.params_schema).await?;
            let validator = built.map_err(|e| Problem::internal(&e))?;
            app.validators().insert(key, validator.clone()).await;
            validator
        }
    };
    plugins::violations(app, tenant, &validator, params, "/params").await
}

/// A scope's values are texts, whatever the parameter is: 42 is `42`.
fn scope_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The values that the action's scopes point at.
pub fn scope_values(action: &Action, params: &Value) -> Vec<ScopeValue> {
    let scopes = action.scopes.iter();
    let values = scopes.flat_map(|scope| {
        values_at(params, &scope.pointer)
            .iter()
            .map(|value| ScopeValue {
                scope: scope.name.clone(),
                value: scope_text(value),
            })
    });
    values.collect()
}

/// Each value of a scope that the tenant restricts must be one that it allows. An action may have several places for
/// them, as an e-mail has for recipients: one at least names some. Where none does, the action would choose for itself, and
/// that is refused too.
fn check_scopes(
    skill: &str,
    allowed_scopes: &Value,
    action: &Action,
    params: &Value,
) -> Result<(), Problem> {
    let denied = |detail: String| Problem::new(StatusCode::FORBIDDEN, "scope_denied", detail);
    for (restricted, allowed) in allowed_scopes.as_object().into_iter().flatten() {
        let scopes = action.scopes.iter().filter(|s| s.name == *restricted);
        let places: Vec<_> = scopes.map(|scope| scope.pointer.as_str()).collect();
        if places.is_empty() {
            continue;
        }
        let among = || format!("the {restricted} that `{skill}` may be used with: {allowed}");
        let named: Vec<_> = places.iter().flat_map(|at| values_at(params, at)).collect();
        if named.is_empty() {
            return Err(denied(format!(
                "The call names nothing at `{}` of its parameters. Name one of {}.",
                places.join("` or `"),
                among()
            )));
        }
        let is_allowed = |value: &Value| {
            let text = scope_text(value);
            let mut allowed = allowed.as_array().into_iter().flatten();
            allowed.any(|allowed| scope_text(allowed) == text)
        };
        if let Some(other) = named.into_iter().find(|value| !is_allowed(value)) {
            return Err(denied(format!("{other} is not among {}.", among())));
        }
    }
    Ok(())
}

/// A value, or each of a list; none where nothing is there.
fn values_at<'a>(params: &'a Value, pointer: &str) -> &'a [Value] {
    match params.pointer(pointer) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values,
        Some(value) => std::slice::from_ref(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use serde_json::json;
    use tsunami_plugin_host::adapter::Scope;

    fn action() -> Action {
        let name = "channels".to_owned();
        let pointer = "/channel".to_owned();
        Action {
            scopes: vec![Scope { name, pointer }],
            ..testing::action()
        }
    }

    fn allowed(params: &Value) -> bool {
        check_scopes(
            "slack",
            &json!({ "channels": ["#a", "#b"] }),
            &action(),
            params,
        )
        .is_ok()
    }

    #[test]
    fn what_is_restricted_has_to_be_named() {
        for params in [
            json!({}),
            json!({ "channel": null }),
            json!({ "channel": [] }),
            json!({ "channel": "#c" }),
            json!({ "channel": ["#a", "#c"] }),
        ] {
            assert!(!allowed(&params), "{params}");
        }
        for params in [
            json!({ "channel": "#a" }),
            json!({ "channel": ["#b", "#a"] }),
        ] {
            assert!(allowed(&params), "{params}");
        }
        assert!(check_scopes("slack", &json!({}), &action(), &json!({})).is_ok());
        let numbers = json!({ "channels": ["42"] });
        let passes = |params: &Value| check_scopes("slack", &numbers, &action(), params).is_ok();
        assert!(passes(&json!({ "channel": 42 })) && !passes(&json!({ "channel": 43 })));
    }

    #[test]
    fn of_several_places_of_a_scope_one_has_to_name_something_and_all_are_held_to_it() {
        let mut action = action();
        let mut copies = action.scopes.clone();
        copies[0].pointer = "/copies".into();
        action.scopes.extend(copies);
        let allowed = json!({ "channels": ["#a", "#b"] });
        let passes = |params: &Value| check_scopes("slack", &allowed, &action, params).is_ok();
        assert!(passes(&json!({ "channel": "#a" })));
        assert!(passes(&json!({ "channel": "#a", "copies": ["#b"] })));
        assert!(passes(&json!({ "copies": ["#b"] })));
        assert!(!passes(&json!({ "channel": "#a", "copies": ["#b", "#c"] })));
        assert!(!passes(&json!({ "channel": "#c", "copies": ["#b"] })));
        let nothing = check_scopes("slack", &allowed, &action, &json!({ "copies": [] }));
        let told = nothing.expect_err("nothing is named").detail().to_owned();
        assert!(told.contains("`/channel` or `/copies`"), "{told}");
    }
}
