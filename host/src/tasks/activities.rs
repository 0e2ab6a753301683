//! The steps of a task's workflow. Each may run again, and then finds what it did before.

use super::{
    NewTask, Plan,
    backend::{self, StepRequest},
    create, input_of,
    store::{self, TaskRow},
    workflow,
};
use crate::{
    agents::{self, Wanted},
    app::App,
    db::TenantTx,
    id::{AgentId, TaskId, TenantId, derived},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    skills::{self, Outcome, activities::waits_for, ending, workflow::Waits},
    traces::{self, NewStep, StepType, Subject},
    turns::Mover,
    worker::{self, carry_out_in_turn},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

/// How sure an agent is of a task whose steps all succeeded as they were planned.
const CONFIDENCE_PLANNED: f64 = 0.9;
/// Until a cancelled task's workflow looks again whether it was told.
const CANCELLATION_PAUSE: Duration = Duration::from_secs(1);

pub struct TaskActivities {
    pub app: App,
}

/// Who does it, and what there is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dispatched {
    pub steps: i32,
    pub delegates: bool,
    /// Why nobody does it.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecuteStep {
    pub tenant: TenantId,
    pub task: TaskId,
    pub step: i32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Executed {
    pub waits: Waits,
    pub verdict: Verdict,
    pub took: Duration,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Well,
    Badly(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delegated {
    pub inputs: Vec<workflow::Input>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finish {
    pub tenant: TenantId,
    pub task: TaskId,
    pub cancelled: bool,
}

#[activities]
impl TaskActivities {
    /// Picks the best agent. Status `thinking`.
    #[activity(name = "tasks.dispatch")]
    pub async fn dispatch(
        self: Arc<Self>,
        ctx: ActivityContext,
        about: (TenantId, TaskId),
    ) -> Result<Dispatched, ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::first(about.0, about.1.uuid()),
            dispatch(&self.app, about.0, about.1),
            |_| false,
        )
        .await
    }

    /// What the agent remembers that bears on the task.
    #[activity(name = "tasks.recall_memory")]
    pub async fn recall_memory(
        self: Arc<Self>,
        ctx: ActivityContext,
        about: (TenantId, TaskId),
    ) -> Result<(), ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(about.0, about.1.uuid()),
            recall(&self.app, about.0, about.1),
            |_| false,
        )
        .await
    }

    /// Carries out a step, as far as it goes. Status `executing`, or `waiting_input`.
    #[activity(name = "tasks.execute")]
    pub async fn execute(
        self: Arc<Self>,
        ctx: ActivityContext,
        step: ExecuteStep,
    ) -> Result<Executed, ActivityError> {
        let last = worker::is_last_attempt(&ctx, &self.app);
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(step.tenant, step.task.uuid()),
            Box::pin(execute(&self.app, &step, last)),
            |done| done.waits != Waits::ForNothing,
        )
        .await
    }

    /// Output, confidence, what the agent learns. Status `completed` or `failed`.
    #[activity(name = "tasks.evaluate")]
    pub async fn evaluate(
        self: Arc<Self>,
        ctx: ActivityContext,
        about: (TenantId, TaskId, Verdict),
    ) -> Result<(), ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(about.0, about.1.uuid()),
            evaluate(&self.app, about.0, about.1, &about.2),
            |()| true,
        )
        .await
    }

    /// Makes the child tasks. Status `delegated`.
    #[activity(name = "tasks.delegate")]
    pub async fn delegate(
        self: Arc<Self>,
        ctx: ActivityContext,
        about: (TenantId, TaskId),
    ) -> Result<Delegated, ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(about.0, about.1.uuid()),
            delegate(&self.app, about.0, about.1),
            |_| true,
        )
        .await
    }

    /// What the child tasks came to.
    #[activity(name = "tasks.aggregate")]
    pub async fn aggregate(
        self: Arc<Self>,
        ctx: ActivityContext,
        about: (TenantId, TaskId),
    ) -> Result<Verdict, ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(about.0, about.1.uuid()),
            aggregate(&self.app, about.0, about.1),
            |_| false,
        )
        .await
    }

    /// Ends a task that was cancelled or cannot go on.
    #[activity(name = "tasks.end_early")]
    pub async fn end_early(
        self: Arc<Self>,
        ctx: ActivityContext,
        finish: Finish,
    ) -> Result<(), ActivityError> {
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(finish.tenant, finish.task.uuid()),
            end_early(&self.app, &finish),
            |()| true,
        )
        .await
    }
}

async fn find(tx: &mut TenantTx, task: TaskId) -> Result<TaskRow, Problem> {
    store::get(tx, task)
        .await?
        .ok_or_else(|| Problem::not_found("task"))
}

/// A task that is about to end, locked: a step that begins at the same time finds that, or its call is found here.
async fn to_end(tx: &mut TenantTx, task: TaskId) -> Result<TaskRow, Problem> {
    store::lock(tx, task)
        .await?
        .ok_or_else(|| Problem::not_found("task"))
}

fn plan_of(row: &TaskRow) -> Result<Plan, Problem> {
    serde_json::from_value(row.plan.clone()).map_err(|e| Problem::internal(&e))
}

async fn trace(
    tx: &mut TenantTx,
    task: TaskId,
    step_type: StepType,
    key: &str,
    agent: Option<AgentId>,
    details: Value,
) -> Result<(), sqlx::Error> {
    let step = NewStep {
        subject: Subject::Task(task),
        step_type,
        key: key.to_owned(),
        call: None,
        agent,
        details,
        duration: None,
    };
    traces::record(tx, step).await.map(|_| ())
}

async fn dispatch(app: &App, tenant: TenantId, task: TaskId) -> Result<Dispatched, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, task).await?;
    let plan = plan_of(&row)?;
    let delegated_by = store::agent_of_parent(&mut tx, task).await?;
    let mut candidates = agents::candidates(&mut tx, delegated_by).await?;
    if let Some(requested) = row.requested_agent_id {
        candidates.retain(|candidate| candidate.id == requested);
    }
    let wanted = Wanted {
        capabilities: row.capabilities.clone(),
        skills: plan.skills(),
    };
    let steps = i32::try_from(plan.steps.len()).unwrap_or(i32::MAX);
    let Some((agent, score)) = agents::best(&wanted, &candidates) else {
        tx.commit().await?;
        let problem = "No agent can take the task: there is none, or the one asked for is paused. Create one with POST /api/v1/agents.";
        return Ok(Dispatched {
            steps: 0,
            delegates: false,
            problem: Some(problem.into()),
        });
    };
    store::dispatched(&mut tx, task, agent.id).await?;
    let details = json!({ "agent_name": agent.name, "backend": agent.backend.as_str(), "skill_match_score": score.score,
        "capabilities_matched": score.capabilities_matched, "skills_matched": score.skills_matched, "candidates": candidates.len() });
    trace(
        &mut tx,
        task,
        StepType::Dispatched,
        "dispatched",
        Some(agent.id),
        details,
    )
    .await?;
    tx.commit().await?;
    if steps == 0 && plan.delegate.is_empty() {
        let problem = "The task has no plan, and no reasoning backend is configured that could make one. Give it steps: plan.steps[] with skill, action and params.";
        return Ok(Dispatched {
            steps: 0,
            delegates: false,
            problem: Some(problem.into()),
        });
    }
    Ok(Dispatched {
        steps,
        delegates: !plan.delegate.is_empty(),
        problem: None,
    })
}

async fn recall(app: &App, tenant: TenantId, task: TaskId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, task).await?;
    let Some(agent) = row.agent_id else {
        return Ok(());
    };
    let memories = agents::recall(&mut tx, agent, &row.objective).await?;
    let details = json!({ "memories_loaded": memories.len(), "memories": memories });
    trace(
        &mut tx,
        task,
        StepType::MemoryRecall,
        "memory_recall",
        Some(agent),
        details,
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

async fn execute(app: &App, about: &ExecuteStep, last_attempt: bool) -> Result<Executed, Problem> {
    let began = Instant::now();
    let (tenant, task) = (about.tenant, about.task);
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, task).await?;
    let plan = plan_of(&row)?;
    let planned = usize::try_from(about.step)
        .ok()
        .and_then(|i| plan.steps.get(i))
        .ok_or_else(|| Problem::internal(&"the plan has no such step"))?;
    let agent = agents::candidates(&mut tx, None)
        .await?
        .into_iter()
        .find(|agent| Some(agent.id) == row.agent_id);
    let agent = agent.ok_or_else(|| Problem::internal(&"the task's agent is gone"))?;
    let begins_nothing = |waits, verdict| {
        Ok(Executed {
            waits,
            verdict,
            took: Duration::ZERO,
        })
    };
    match store::executing(&mut tx, task).await? {
        store::MayBegin::Yes => {}
        // Nothing is noted. The workflow is told of it at any moment, and ends the task with what it has begun.
        store::MayBegin::Cancelled => {
            let pause = CANCELLATION_PAUSE;
            return begins_nothing(Waits::ForAWhile { pause }, Verdict::Well);
        }
        // And so did what it had begun.
        store::MayBegin::Ended => {
            let verdict = Verdict::Badly("The task has ended.".into());
            return begins_nothing(Waits::ForNothing, verdict);
        }
    }
    let details = json!({ "backend": agent.backend.as_str(), "step": about.step, "tool_called": format!("{}.{}", planned.skill, planned.action), "input": planned.params });
    trace(
        &mut tx,
        task,
        StepType::Executing,
        &format!("executing:{}", about.step),
        row.agent_id,
        details,
    )
    .await?;
    let request = StepRequest {
        task,
        step: about.step,
        agent: row.agent_id,
        agent_name: &agent.name,
        agent_trust: agent.trust,
        delegation_depth: row.delegation_depth,
        created_by: &row.created_by,
        created_by_key: row.created_by_key,
        planned,
    };
    // With the status, which locks the task: one that ends at the same time finds the call, or we find that it has ended.
    let call = backend::submit(app, &mut tx, agent.backend, &request).await?;
    tx.commit().await?;
    let outcome = match backend::advance(app, tenant, call).await {
        Ok(outcome) => outcome,
        // Away is not wrong: it is waited for, and costs no attempt.
        Err(problem) if problem.is_unavailable() => Outcome::Waiting {
            what: problem.detail().to_owned(),
            retry_after: problem.retry_after().unwrap_or(RETRY_AFTER_DEFAULT),
        },
        Err(problem) if problem.retry_after().is_some() => {
            let retry_after = problem.retry_after().unwrap_or(RETRY_AFTER_DEFAULT);
            Outcome::Waiting {
                what: problem.detail().to_owned(),
                retry_after,
            }
        }
        Err(problem) if last_attempt || problem.status().is_client_error() => {
            ending::give_up(app, tenant, call, &problem).await?
        }
        Err(problem) => return Err(problem),
    };
    note(app, about, row.agent_id, &outcome).await?;
    let verdict = match &outcome {
        Outcome::Failed(failure) => Verdict::Badly(format!(
            "{}.{}: {} ({})",
            planned.skill, planned.action, failure.message, failure.code
        )),
        _ => Verdict::Well,
    };
    let took = match outcome {
        // Looking for what is away is no work.
        Outcome::Waiting { .. } => Duration::ZERO,
        _ => began.elapsed(),
    };
    Ok(Executed {
        waits: waits_for(app, call, &outcome),
        verdict,
        took,
    })
}

/// What the step came to, as a status and as a message.
async fn note(
    app: &App,
    about: &ExecuteStep,
    agent: Option<AgentId>,
    outcome: &Outcome,
) -> Result<(), Problem> {
    let mut tx = app.db().tenant(about.tenant).await?;
    let (status, waiting_for, message) = match outcome {
        Outcome::Succeeded { summary, .. } => ("executing", None, Some(("done", summary.clone()))),
        Outcome::Failed(failure) => ("executing", None, Some(("failed", failure.message.clone()))),
        Outcome::AwaitingApproval { approval, .. } => (
            "waiting_input",
            Some(json!({ "approval_id": approval })),
            Some(("asked", "I wait for an approval.".to_owned())),
        ),
        Outcome::OutcomeUnknown { message } => (
            "waiting_input",
            Some(json!({ "outcome_unknown": message })),
            Some(("unknown", message.clone())),
        ),
        Outcome::Waiting { what, .. } => ("executing", Some(json!({ "unavailable": what })), None),
    };
    store::set_status(&mut tx, about.task, status, waiting_for.as_ref()).await?;
    if let Some((key, content)) = message {
        store::insert_message(
            &mut tx,
            about.task,
            agent,
            &format!("step:{}:{key}", about.step),
            "agent",
            &content,
        )
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn evaluate(
    app: &App,
    tenant: TenantId,
    task: TaskId,
    verdict: &Verdict,
) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = to_end(&mut tx, task).await?;
    if row.is_finished() {
        return Ok(());
    }
    skills::release_calls_of(&mut tx, task).await?;
    let calls = store::calls_of(&mut tx, task).await?;
    let results: Vec<Value> = calls.iter().map(|c| json!({ "step": c.task_step, "skill": c.skill_name, "action": c.action, "status": c.status, "summary": c.summary, "output": c.output })).collect();
    let children = store::children_of(&mut tx, task).await?;
    let output = json!({ "steps": results, "delegated": children });
    if let Some(agent) = row.agent_id {
        for call in &calls {
            agents::learn(&mut tx, agent, &call.skill_name, call.status == "succeeded").await?;
        }
        let told = calls
            .iter()
            .filter_map(|c| c.summary.as_deref())
            .collect::<Vec<_>>()
            .join("; ");
        let (memory, importance) = match verdict {
            Verdict::Well => (format!("{}: {told}", row.objective), 0.5),
            Verdict::Badly(why) => (format!("{}: did not succeed: {why}", row.objective), 0.7),
        };
        agents::remember(&mut tx, agent, task, &memory, importance).await?;
    }
    match verdict {
        Verdict::Well => {
            let cost = store::complete(&mut tx, task, &output, CONFIDENCE_PLANNED).await?;
            let details = json!({ "confidence": CONFIDENCE_PLANNED, "tokens_used": 0, "cost_micro_usd": cost.unwrap_or(0), "llm_model": null });
            trace(
                &mut tx,
                task,
                StepType::Completed,
                "end",
                row.agent_id,
                details,
            )
            .await?;
        }
        Verdict::Badly(why) => {
            store::fail(&mut tx, task, "failed", &output, &json!({ "message": why })).await?;
            trace(
                &mut tx,
                task,
                StepType::Failed,
                "end",
                row.agent_id,
                json!({ "error": why }),
            )
            .await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn delegate(app: &App, tenant: TenantId, task: TaskId) -> Result<Delegated, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, task).await?;
    let plan = plan_of(&row)?;
    let mut inputs = Vec::new();
    for (i, child) in plan.delegate.iter().enumerate() {
        let id = TaskId(derived(&[
            b"delegated task",
            task.uuid().as_bytes(),
            &i.to_be_bytes(),
        ]));
        let depth = row.delegation_depth + 1;
        if store::get(&mut tx, id).await?.is_none() {
            let new = NewTask {
                id,
                objective: &child.objective,
                priority: &row.priority,
                agent: None,
                parent: Some(task),
                depth,
                capabilities: &child.capabilities,
                plan: &child.plan,
                created_by: &row.created_by,
                created_by_key: row.created_by_key,
            };
            create(app, &mut tx, &new).await?;
        }
        trace(
            &mut tx,
            task,
            StepType::Delegated,
            &format!("delegated:{i}"),
            row.agent_id,
            json!({ "child_task_id": id, "objective": child.objective }),
        )
        .await?;
        inputs.push(input_of(app, &tx, id, depth));
    }
    store::set_status(&mut tx, task, "delegated", None).await?;
    tx.commit().await?;
    Ok(Delegated { inputs })
}

async fn aggregate(app: &App, tenant: TenantId, task: TaskId) -> Result<Verdict, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let children = store::children_of(&mut tx, task).await?;
    let failed: Vec<&str> = children
        .iter()
        .filter(|c| c["status"] != "completed")
        .filter_map(|c| c["objective"].as_str())
        .collect();
    if failed.is_empty() {
        Ok(Verdict::Well)
    } else {
        Ok(Verdict::Badly(format!(
            "Delegated tasks did not succeed: {}.",
            failed.join("; ")
        )))
    }
}

async fn end_early(app: &App, finish: &Finish) -> Result<(), Problem> {
    let mut tx = app.db().tenant(finish.tenant).await?;
    let row = to_end(&mut tx, finish.task).await?;
    if row.is_finished() {
        return Ok(());
    }
    let ending = match finish.cancelled {
        true => End::CANCELLED,
        false => End::failed(
            "A step of the task's workflow failed for good; the gateway's log says why.",
        ),
    };
    end(&mut tx, &row, &ending).await?;
    tx.commit().await?;
    Ok(())
}

/// How a task ends that does not run to its end.
pub(super) struct End {
    status: &'static str,
    step_type: StepType,
    why: &'static str,
}

impl End {
    pub(super) const CANCELLED: Self = Self::cancelled("Somebody cancelled the task.");

    pub(super) const fn cancelled(why: &'static str) -> Self {
        Self {
            status: "cancelled",
            step_type: StepType::Cancelled,
            why,
        }
    }

    pub(super) const fn failed(why: &'static str) -> Self {
        Self {
            status: "failed",
            step_type: StepType::Failed,
            why,
        }
    }
}

/// Ends a task, which is locked, and what it had begun.
pub(super) async fn end(tx: &mut TenantTx, row: &TaskRow, ending: &End) -> Result<(), Problem> {
    let why = ending.why;
    skills::release_calls_of(tx, row.id).await?;
    let error = json!({ "message": why });
    store::fail(tx, row.id, ending.status, &Value::Null, &error).await?;
    let details = json!({ "reason": why });
    trace(tx, row.id, ending.step_type, "end", row.agent_id, details).await?;
    Ok(())
}
