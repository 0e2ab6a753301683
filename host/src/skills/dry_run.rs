//! What a call would do, without doing it.

use super::{
    CallRequest, configs, deciding,
    render::{self, Place},
};
use crate::{app::App, id::TenantId, instances, plugins, policies, problem::Problem, vault};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tsunami_plugin_host::adapter::{self, Step};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// What would happen.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct DryRun {
    /// Whether the call would be made, once approved where it must be.
    pub would_run: bool,
    /// What would stop it.
    pub problems: Vec<Value>,
    pub requires_approval: bool,
    /// What each policy says, and why.
    pub policies: Value,
    /// The reasons for which a person would be asked.
    pub approval_reasons: Vec<String>,
    pub instance: Option<String>,
    pub plugin_digest: Option<String>,
    /// By their masks.
    pub credentials: Vec<String>,
    /// The first request, with credentials as references. What follows depends on the replies.
    pub request: Option<Value>,
    pub llm_model: Option<String>,
    /// In millionths of a US dollar; null where the skill's configuration names no cost of the action.
    pub estimated_cost_micro_usd: Option<u64>,
}

pub async fn dry_run(app: &App, tenant: TenantId, call: &CallRequest) -> Result<DryRun, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let standings = app.standings();
    let standing = standings.now(app.vault(), &mut tx, &call.skill).await?;
    drop(tx);
    let mut out = DryRun {
        would_run: false,
        problems: Vec::new(),
        requires_approval: false,
        policies: Value::Null,
        approval_reasons: Vec::new(),
        instance: None,
        plugin_digest: None,
        credentials: Vec::new(),
        request: None,
        llm_model: None,
        estimated_cost_micro_usd: None,
    };
    let instance = match instances::reach(app, tenant, standing.instance.as_ref()).await {
        Ok(instance) => Some(instance),
        Err(problem) => {
            out.stopped_by(&problem);
            None
        }
    };
    out.instance = instance.as_ref().map(|instance| instance.name.clone());
    let Some(skill) = &standing.skill else {
        return Err(Problem::not_found("skill that is installed"));
    };
    let config = &skill.config;
    let installed = plugins::ready(app, tenant, &skill.plugin).await?;
    let manifest = &installed.manifest;
    let action = manifest
        .actions
        .iter()
        .find(|a| a.name == call.action)
        .ok_or_else(|| Problem::not_found("action of the skill"))?;
    out.plugin_digest = Some(installed.plugin.digest().to_owned());
    out.estimated_cost_micro_usd = configs::cost(app, config, &action.name);
    out.requires_approval =
        config.requires_approval || config.approval_actions.contains(&action.name);
    if let Err(problem) =
        configs::check_call(app, tenant, config, &installed, action, &call.params).await
    {
        out.stopped_by(&problem);
        return Ok(out);
    }
    let facts = deciding::facts(
        app,
        config,
        action,
        &call.params,
        Some(call.who.clone()),
        instance.as_ref(),
    );
    let verdict = policies::evaluate(app, tenant, &standing.chain, facts)
        .await?
        .verdict;
    out.requires_approval |= !verdict.asks.reasons.is_empty();
    for reason in &verdict.denials {
        out.problems
            .push(json!({ "code": deciding::POLICY_DENIED, "detail": reason }));
    }
    out.approval_reasons = verdict.asks.reasons;
    out.policies = verdict.shown;
    let mut references = Vec::new();
    for (key, shown) in skill.credentials.masks(app, &action.credentials) {
        match shown {
            Ok(mask) => out.credentials.push(mask),
            Err(unusable) => {
                out.stopped_by(&Problem::conflict(unusable.code(), unusable.to_string()))
            }
        }
        references.push(vault::Opened {
            value: Zeroizing::new(key.clone()),
            mask: String::new(),
            key,
        });
    }
    let invocation = adapter::Invocation {
        action: call.action.clone(),
        params: call.params.to_string(),
        settings: config.settings.to_string(),
        idempotency_key: "dry-run".into(),
        now: app.clock().now_unix_ms(),
    };
    let asked = plugins::ask(app, tenant, &installed.plugin, move |plugin| {
        plugin.next(&invocation, &[])
    });
    match asked.await.map(|called| called.value) {
        Ok(Ok(Step::Perform(request))) => {
            let place = Place {
                manifest,
                settings: &config.settings,
                private_hosts: &app.config().skills.private_network_hosts,
                credentials: &references,
                kept_back: &[],
            };
            match render::render(&request, &place) {
                Ok(rendered) => out.request = Some(rendered.shown),
                Err(why) => out
                    .problems
                    .push(json!({ "code": "request_refused", "detail": why })),
            }
        }
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => out
            .problems
            .push(json!({ "code": "plugin_refused", "detail": format!("{failure:?}") })),
        Err(error) => out
            .problems
            .push(json!({ "code": "plugin_failed", "detail": error.to_string() })),
    }
    out.would_run = out.problems.is_empty();
    Ok(out)
}

impl DryRun {
    fn stopped_by(&mut self, problem: &Problem) {
        self.problems
            .push(json!({ "code": problem.code(), "detail": problem.detail() }));
    }
}
