//! Steps 1 to 3 of the router: what a call is decided by.

use super::{
    CallFailure, CallStatus, Outcome, Who, WhoKind, approvals, configs,
    router::find,
    standing::{Skill, Standing},
    store::{self, CallRow, ConfigRow, Stands},
    trace::record,
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    instances::{self, Reachable},
    plugins::{self, Installed},
    policies::{self, Asks, Strictness, chain::Evaluated},
    problem::Problem,
    traces::StepType,
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use tsunami_plugin_host::{adapter::Action, policy};

/// The code of a call that a policy stopped.
pub const POLICY_DENIED: &str = "policy_denied";

/// What a call needs, checked.
pub(super) struct Prepared {
    pub skill: Arc<Skill>,
    pub installed: Installed,
    pub action: Action,
    pub instance: Reachable,
}

/// A call, and what was decided of it as things stood. Nothing of that is written down yet.
pub(super) struct Decided {
    pub stamps: String,
    pub prepared: Prepared,
    pub evaluated: Evaluated,
}

/// Steps 1 to 3: the instance, what the tenant set, and the policies.
pub(super) async fn decide(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: Arc<Standing>,
) -> Result<Decided, Problem> {
    let prepared = prepare(app, tenant, row, &standing).await?;
    let config = &prepared.skill.config;
    let (action, instance) = (&prepared.action, Some(&prepared.instance));
    let facts = facts(app, config, action, &row.params, who(row), instance);
    let evaluated = policies::evaluate(app, tenant, &standing.chain, facts).await?;
    Ok(Decided {
        stamps: standing.stamps.clone(),
        prepared,
        evaluated,
    })
}

/// The call's action, as the plugin describes it.
pub(super) fn action_of(installed: &Installed, row: &CallRow) -> Option<Action> {
    let mut actions = installed.manifest.actions.iter();
    actions.find(|action| action.name == row.action).cloned()
}

/// Steps 1 and 2: the instance, and what the tenant set for the skill.
async fn prepare(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: &Standing,
) -> Result<Prepared, Problem> {
    let instance = instances::reach(app, tenant, standing.instance.as_ref()).await?;
    let (skill, installed, action) = check(app, tenant, row, standing).await?;
    Ok(Prepared {
        skill,
        installed,
        action,
        instance,
    })
}

/// Step 2: what the tenant set for the skill.
async fn check(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: &Standing,
) -> Result<(Arc<Skill>, Installed, Action), Problem> {
    let skill = standing.skill.clone().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "skill_not_installed",
            format!(
                "The skill `{}` is not installed. Install its plugin with POST /api/v1/plugins.",
                row.skill_name
            ),
        )
    })?;
    let installed = plugins::ready(app, tenant, &skill.plugin).await?;
    let action = action_of(&installed, row).ok_or_else(|| unknown_action(&installed, row))?;
    let config = &skill.config;
    configs::check_call(app, tenant, config, &installed, &action, &row.params).await?;
    Ok((skill, installed, action))
}

/// What the rules say now of a call that was made before.
pub(super) struct Judged {
    /// Under these; see [`store::stamps`].
    pub stamps: String,
    pub skill: Arc<Skill>,
    /// What whoever has it sent again must be, where a policy or the tenant asks for somebody.
    pub asks: Asks,
    pub asks_a_person: bool,
}

/// Steps 2 and 3 for a call that a person wants sent again; none where its outcome is not unknown. Its instance may be
/// away: it is waited for.
///
/// # Errors
/// What stops a new call of this kind now: the skill or its action switched off, scopes, a policy.
pub(super) async fn judge_again(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
) -> Result<Option<Judged>, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, id).await?;
    if row.status() != CallStatus::OutcomeUnknown {
        return Ok(None);
    }
    let standings = app.standings();
    let standing = standings.now(app.vault(), &mut tx, &row.skill_name).await?;
    drop(tx);
    let (skill, _, action) = check(app, tenant, &row, &standing).await?;
    let instance = instances::reach(app, tenant, standing.instance.as_ref()).await;
    let (config, instance) = (&skill.config, instance.as_ref().ok());
    let facts = facts(app, config, &action, &row.params, who(&row), instance);
    let verdict = policies::evaluate(app, tenant, &standing.chain, facts)
        .await?
        .verdict;
    if !verdict.denials.is_empty() {
        let reasons = verdict.denials.join("; ");
        return Err(Problem::forbidden(
            POLICY_DENIED,
            format!("A policy denies the call by now: {reasons}."),
        ));
    }
    Ok(Some(Judged {
        stamps: standing.stamps.clone(),
        asks_a_person: asks_a_person(config, &action.name),
        asks: verdict.asks,
        skill,
    }))
}

fn unknown_action(installed: &Installed, row: &CallRow) -> Problem {
    let known: Vec<_> = installed
        .manifest
        .actions
        .iter()
        .map(|a| a.name.as_str())
        .collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_action",
        format!(
            "The skill `{}` has no action `{}`. It has {}.",
            row.skill_name,
            row.action,
            known.join(", ")
        ),
    )
}

/// Who made the call, where that was written down.
pub(super) fn who(row: &CallRow) -> Option<Who> {
    serde_json::from_value(row.actor_context.clone()?).ok()
}

/// What policies are told of a call.
pub(super) fn facts(
    app: &App,
    config: &ConfigRow,
    action: &Action,
    params: &Value,
    who: Option<Who>,
    instance: Option<&Reachable>,
) -> policies::Facts {
    let who = who.unwrap_or_else(Who::nobody);
    let instances = instance.map(|instance| policy::Instance {
        id: instance.id.to_string(),
        labels: vec![("name".to_owned(), instance.name.clone())],
        in_flight: 0,
        latency_p50_ms: None,
    });
    policies::Facts {
        skill: config.skill_name.clone(),
        action: action.name.clone(),
        risk: action.risk,
        params: params.clone(),
        scopes: configs::scope_values(action, params),
        cost_micro_usd: configs::cost(app, config, &action.name),
        actor: policy::Actor {
            kind: match who.kind {
                WhoKind::Person => policy::ActorKind::Person,
                WhoKind::Agent => policy::ActorKind::Agent,
                WhoKind::System => policy::ActorKind::System,
            },
            id: who.id,
            roles: who.roles,
            trust: who.trust,
            delegation_depth: who.delegation_depth,
        },
        instances: instances.into_iter().collect(),
        window_seconds: configs::rate_limit(config).map_or(3600, |limit| limit.per_seconds),
        now_ms: app.clock().now_unix_ms(),
    }
}

/// Step 3, people: whether one must agree first. Also where an approval is taken up, once, if it is still for this.
pub(super) async fn gate(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    decided: &Decided,
) -> Result<Option<Outcome>, Problem> {
    let prepared = &decided.prepared;
    let config = &prepared.skill.config;
    let verdict = &decided.evaluated.verdict;
    if verdict.strictness == Strictness::Deny {
        policies::chain::record(tx, row.id, &decided.evaluated).await?;
        return denied(tx, row, &verdict.denials).await.map(Some);
    }
    // Who was asked decides, also where nobody would be asked any more.
    let was_asked = row.approval_id.is_some();
    if !asks_a_person(config, &row.action) && !was_asked && verdict.strictness == Strictness::Allow
    {
        return Ok(None);
    }
    let outcome = match approvals::take_up(app, tx, row, prepared, &verdict.asks).await? {
        approvals::Taken::Granted => return Ok(None),
        approvals::Taken::Waiting {
            approval,
            expires_at,
        } => Outcome::AwaitingApproval {
            approval,
            expires_at,
        },
        approvals::Taken::Refused(failure) => Outcome::Failed(failure),
    };
    policies::chain::record(tx, row.id, &decided.evaluated).await?;
    Ok(Some(outcome))
}

/// Whether the tenant wants a person to agree to the action.
pub(super) fn asks_a_person(config: &ConfigRow, action: &str) -> bool {
    config.requires_approval || config.approval_actions.iter().any(|asked| asked == action)
}

/// A policy said no: the call ends, with its reason.
async fn denied(tx: &mut TenantTx, row: &CallRow, reasons: &[String]) -> Result<Outcome, Problem> {
    let failure = CallFailure::new(
        POLICY_DENIED,
        format!("A policy denies the call: {}.", reasons.join("; ")),
    )
    .cleaned();
    let end = store::End::badly(CallStatus::Rejected, &failure);
    if store::finish(tx, row.id, Stands::NotBegun, end).await? {
        let details = json!({
            "skill": row.skill_name, "action": row.action, "actor": row.actor, "status": "denied",
            "policies": row.policy_verdict, "error": failure,
        });
        record(
            tx,
            row,
            StepType::SkillCall,
            "skill_call:denied",
            details,
            None,
        )
        .await?;
    }
    Ok(Outcome::Failed(failure))
}
