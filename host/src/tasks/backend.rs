//! Who carries out a step, by the agent's backend.

use super::PlannedStep;
use crate::{
    agents::Backend,
    app::App,
    db::TenantTx,
    id::{AgentId, ApiKeyId, SkillCallId, TaskId, TenantId},
    problem::Problem,
    skills::{CallRequest, Origin, Outcome, Who, WhoKind, router},
};
use serde_json::Value;

/// A step to carry out.
pub struct StepRequest<'a> {
    pub task: TaskId,
    pub step: i32,
    pub agent: Option<AgentId>,
    pub agent_name: &'a str,
    /// How far the agent is trusted, 0 to 1.
    pub agent_trust: f64,
    pub delegation_depth: i32,
    /// Who created the task.
    pub created_by: &'a str,
    pub created_by_key: Option<ApiKeyId>,
    pub planned: &'a PlannedStep,
}

/// The call that a step is, written down.
pub async fn submit(
    app: &App,
    tx: &mut TenantTx,
    backend: Backend,
    request: &StepRequest<'_>,
) -> Result<SkillCallId, Problem> {
    match backend {
        // A planned step is a skill call whatever the agent reasons with; without a plan an ADK agent makes its own.
        Backend::Openclaw | Backend::Adk | Backend::Mcp => {
            let origin = Origin::Task {
                task: request.task,
                step: request.step,
                agent: request.agent,
            };
            let call = CallRequest {
                idempotency_key: router::task_key(&origin).unwrap_or_default(),
                skill: request.planned.skill.clone(),
                action: request.planned.action.clone(),
                params: Value::Object(request.planned.params.clone()),
                actor: format!("agent {}", request.agent_name),
                who: Who {
                    kind: WhoKind::Agent,
                    id: request.agent.map(|id| id.to_string()).unwrap_or_default(),
                    roles: Vec::new(),
                    trust: request.agent_trust,
                    delegation_depth: u32::try_from(request.delegation_depth).unwrap_or(0),
                    on_behalf_of: request.created_by.to_owned(),
                    on_behalf_of_key: request.created_by_key,
                },
                origin,
            };
            let submitted = router::submit(app, tx, SkillCallId::fresh(), &call).await?;
            Ok(submitted.row.id)
        }
    }
}

/// Takes the step as far as it goes.
pub async fn advance(app: &App, tenant: TenantId, call: SkillCallId) -> Result<Outcome, Problem> {
    router::advance(app, tenant, call)
        .await
        .map(|advanced| advanced.outcome)
}
