//! What a tenant sets for a skill, and whether a call keeps to it.

use super::store::ConfigRow;
use crate::{
    app::App,
    db::TenantTx,
    plugins::{self, Installed},
    problem::{Problem, Violation},
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tsunami_plugin_host::{Schema, adapter::Action, types::ScopeValue};

/// Violations that one answer lists.
const VIOLATIONS_SHOWN_MAX: usize = 20;

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

/// Step 2 of the router: enabled, parameters, scopes.
pub async fn check_call(
    app: &App,
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
    let violations = violations_of(app, installed.plugin.digest(), action, params).await?;
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

/// Refuses settings that are not what the plugin's schema says.
pub async fn check_settings(
    app: &App,
    tx: &mut TenantTx,
    config: &ConfigRow,
) -> Result<(), Problem> {
    let Some(installed) = plugins::installed(app, tx, &config.skill_name).await? else {
        return Ok(());
    };
    let schema =
        Schema::compile(&installed.manifest.settings_schema).map_err(|e| Problem::internal(&e))?;
    let schema = Arc::new(schema);
    let violations: Vec<_> = plugins::violations(&schema, &config.settings, VIOLATIONS_SHOWN_MAX)
        .await?
        .into_iter()
        .map(|found| Violation {
            pointer: format!("/settings{}", found.pointer),
            message: found.message,
        })
        .collect();
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
    digest: &str,
    action: &Action,
    params: &Value,
) -> Result<Vec<Violation>, Problem> {
    let key = (digest.to_owned(), action.name.clone());
    let validator = match app.validators().get(&key).await {
        Some(validator) => validator,
        None => {
            let built =
                Schema::compile(&action.params_schema).map_err(|e| Problem::internal(&e))?;
            let validator = Arc::new(built);
            app.validators().insert(key, validator.clone()).await;
            validator
        }
    };
    Ok(
        plugins::violations(&validator, params, VIOLATIONS_SHOWN_MAX)
            .await?
            .into_iter()
            .map(|found| Violation {
                pointer: format!("/params{}", found.pointer),
                message: found.message,
            })
            .collect(),
    )
}

/// The values that the action's scopes point at.
pub fn scope_values(action: &Action, params: &Value) -> Vec<ScopeValue> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut all = Vec::new();
    for scope in &action.scopes {
        let values = match params.pointer(&scope.pointer) {
            None => continue,
            Some(Value::Array(values)) => values.iter().map(text).collect(),
            Some(value) => vec![text(value)],
        };
        all.extend(values.into_iter().map(|value| ScopeValue {
            scope: scope.name.clone(),
            value,
        }));
    }
    all
}

/// Each value that a scope points at must be one that the tenant allows. Where there is none, the action would choose
/// for itself, and that is refused too.
fn check_scopes(
    skill: &str,
    allowed_scopes: &Value,
    action: &Action,
    params: &Value,
) -> Result<(), Problem> {
    let denied = |detail: String| Problem::new(StatusCode::FORBIDDEN, "scope_denied", detail);
    for scope in &action.scopes {
        let Some(allowed) = allowed_scopes.get(&scope.name).and_then(Value::as_array) else {
            continue;
        };
        let values: &[Value] = match params.pointer(&scope.pointer) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(values)) => values,
            Some(value) => std::slice::from_ref(value),
        };
        let among = || {
            let (name, allowed) = (&scope.name, Value::from(allowed.clone()));
            format!("the {name} that `{skill}` may be used with: {allowed}")
        };
        if values.is_empty() {
            let place = &scope.pointer;
            return Err(denied(format!(
                "The call names nothing at `{place}` of its parameters. Name one of {}.",
                among()
            )));
        }
        if let Some(other) = values.iter().find(|value| !allowed.contains(value)) {
            return Err(denied(format!("{other} is not among {}.", among())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action() -> Action {
        let action = json!({
            "name": "post", "title": "Post", "summary": "Posts.", "risk": "Write", "params_schema": "{}", "output_schema": "{}",
            "examples": [], "credentials": [], "idempotent": false, "pagination": null,
            "scopes": [{ "name": "channels", "pointer": "/channel" }],
        });
        serde_json::from_value(action).expect("an action")
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
    }
}
