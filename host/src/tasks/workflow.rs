//! A task, from the first thought to the last line of its trace.

use crate::{
    id::{ApprovalId, SkillCallId, TaskId, TenantId},
    skills::workflow::{ApprovalRequested, ApprovalResponse, OutcomeResolved, Waits},
    tasks::activities::{Delegated, Dispatched, ExecuteStep, Finish, TaskActivities, Verdict},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ChildWorkflowOptions, ContinueAsNewOptions, ParentClosePolicy, SyncWorkflowContext,
    WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination, workflows::join_all,
};
use tsunami_durable::workflow::{Patience, activity_options, detached_activity_options, until};

pub const WORKFLOW_TYPE: &str = "TaskExecutionWorkflow";

/// A person who is asked what became of something has as long as it takes; this is how often we look ourselves.
const RESOLUTION_WAIT: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    pub tenant: TenantId,
    pub task: TaskId,
    pub patience: Patience,
    /// Of the time spent working; waiting for a person or for something that is away does not count.
    pub working_time_max: Duration,
    /// Where an earlier run of the workflow left off: a task that waits for long outgrows one history.
    #[serde(default)]
    pub resume: Option<Resume>,
}

/// How far a task had come when its history was closed and another was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resume {
    dispatched: Dispatched,
    step: i32,
    worked: Duration,
}

#[workflow]
pub struct TaskExecutionWorkflow {
    input: Input,
    answered: Vec<ApprovalId>,
    resolved: Vec<SkillCallId>,
    worked: Duration,
}

#[workflow_methods]
impl TaskExecutionWorkflow {
    #[init]
    fn new(_: &WorkflowContextView, input: Input) -> Self {
        let worked = input.resume.as_ref().map_or(Duration::ZERO, |r| r.worked);
        Self {
            input,
            answered: Vec::new(),
            resolved: Vec::new(),
            worked,
        }
    }

    #[run(name = "TaskExecutionWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let input = ctx.state(|s| s.input.clone());
        let done = Self::work(ctx, &input).await;
        let over = matches!(
            done,
            Err(WorkflowTermination::Cancelled { .. } | WorkflowTermination::Failed(_))
        );
        if over {
            // Cancelled, or failed for good: the task must not look as if it went on.
            let finish = Finish {
                tenant: input.tenant,
                task: input.task,
                cancelled: ctx.cancellation_token().is_cancelled(),
            };
            ctx.execute_activity(
                TaskActivities::end_early,
                finish,
                detached_activity_options(&input.patience),
            )
            .await?;
        }
        done
    }

    async fn work(ctx: &mut WorkflowContext<Self>, input: &Input) -> WorkflowResult<()> {
        let options = || activity_options(&input.patience);
        let about = (input.tenant, input.task);
        let (dispatched, first) = match &input.resume {
            Some(resume) => (resume.dispatched.clone(), resume.step),
            None => {
                let dispatched = ctx
                    .execute_activity(TaskActivities::dispatch, about, options())
                    .await?;
                (dispatched, 0)
            }
        };
        let mut verdict = Verdict::Well;
        if let Some(problem) = dispatched.problem {
            verdict = Verdict::Badly(problem);
        } else {
            if input.resume.is_none() {
                ctx.execute_activity(TaskActivities::recall_memory, about, options())
                    .await?;
            }
            for step in first..dispatched.steps {
                verdict = Self::step(ctx, input, &dispatched, step).await?;
                if verdict != Verdict::Well {
                    break;
                }
            }
            if verdict == Verdict::Well && dispatched.delegates {
                verdict = Self::delegate(ctx, input).await?;
            }
        }
        ctx.execute_activity(
            TaskActivities::evaluate,
            (input.tenant, input.task, verdict),
            options(),
        )
        .await?;
        Ok(())
    }

    /// One step, through all of its waits.
    async fn step(
        ctx: &mut WorkflowContext<Self>,
        input: &Input,
        dispatched: &Dispatched,
        step: i32,
    ) -> WorkflowResult<Verdict> {
        loop {
            if ctx.continue_as_new_suggested() {
                let resume = Resume {
                    dispatched: dispatched.clone(),
                    step,
                    worked: ctx.state(|s| s.worked),
                };
                let next = Input {
                    resume: Some(resume),
                    ..input.clone()
                };
                ctx.continue_as_new(next, ContinueAsNewOptions::default())?;
            }
            if ctx.state(|s| s.worked) > input.working_time_max {
                return Ok(Verdict::Badly(format!(
                    "The task has worked for longer than {} s.",
                    input.working_time_max.as_secs()
                )));
            }
            let execute = ExecuteStep {
                tenant: input.tenant,
                task: input.task,
                step,
            };
            let executed = ctx
                .execute_activity(
                    TaskActivities::execute,
                    execute,
                    activity_options(&input.patience),
                )
                .await?;
            ctx.state_mut(|s| s.worked += executed.took);
            match executed.waits {
                Waits::ForNothing => return Ok(executed.verdict),
                Waits::ForApproval { approval, at_most } => {
                    until(ctx, at_most, |state| state.answered.contains(&approval)).await?;
                }
                Waits::ForResolution { call } => {
                    until(ctx, RESOLUTION_WAIT, |state| state.resolved.contains(&call)).await?;
                    ctx.state_mut(|s| s.resolved.retain(|id| *id != call));
                }
                Waits::ForAWhile { pause } => {
                    until(ctx, pause, |_| false).await?;
                }
            }
        }
    }

    /// Child tasks, all at once; each is a workflow of its own.
    async fn delegate(ctx: &mut WorkflowContext<Self>, input: &Input) -> WorkflowResult<Verdict> {
        let about = (input.tenant, input.task);
        let children: Delegated = ctx
            .execute_activity(
                TaskActivities::delegate,
                about,
                activity_options(&input.patience),
            )
            .await?;
        let mut running = Vec::new();
        for child in children.inputs {
            let options = ChildWorkflowOptions::builder()
                .workflow_id(child.task.to_string())
                .parent_close_policy(ParentClosePolicy::RequestCancel)
                .build();
            running.push(
                ctx.start_child_workflow(TaskExecutionWorkflow::run, child, options)
                    .await?,
            );
        }
        let ended = join_all(
            running
                .into_iter()
                .map(|child| child.result())
                .collect::<Vec<_>>(),
        )
        .await;
        if let Some(Err(error)) = ended.into_iter().find(Result::is_err) {
            return Err(error.into());
        }
        Ok(ctx
            .execute_activity(
                TaskActivities::aggregate,
                about,
                activity_options(&input.patience),
            )
            .await?)
    }

    /// A person is asked. The step that asked waits for the answer; this is for whoever reads the history.
    #[signal(name = "approval_requested")]
    pub fn approval_requested(&mut self, _: &mut SyncWorkflowContext<Self>, _: ApprovalRequested) {}

    #[signal(name = "approval_response")]
    pub fn approval_response(
        &mut self,
        _: &mut SyncWorkflowContext<Self>,
        response: ApprovalResponse,
    ) {
        self.answered.push(response.approval);
    }

    #[signal(name = "outcome_resolved")]
    pub fn outcome_resolved(
        &mut self,
        _: &mut SyncWorkflowContext<Self>,
        resolved: OutcomeResolved,
    ) {
        self.resolved.push(resolved.call);
    }
}
