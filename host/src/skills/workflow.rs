//! A call that was made over the API and has to wait: for a person, or for an instance.

use crate::{
    id::{ApprovalId, SkillCallId, TenantId},
    skills::activities::SkillActivities,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ContinueAsNewOptions, SyncWorkflowContext, WorkflowContext, WorkflowContextView, WorkflowResult,
};
use tsunami_durable::workflow::{Patience, activity_options, until};
use uuid::fmt::Hyphenated;

pub const WORKFLOW_TYPE: &str = "SkillCallWorkflow";
pub const APPROVAL_REQUESTED: &str = "approval_requested";
pub const APPROVAL_RESPONSE: &str = "approval_response";
pub const OUTCOME_RESOLVED: &str = "outcome_resolved";

/// Whose workflow it is, by its id: `call-{call}`, and `call-{call}-{attempt}` from the second attempt on.
pub fn call_of(id: &str) -> Option<SkillCallId> {
    let call = id.strip_prefix("call-")?;
    call.get(..Hyphenated::LENGTH)?.parse().ok()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    pub tenant: TenantId,
    pub call: SkillCallId,
    pub patience: Patience,
}

/// A person is asked. The question is in the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalRequested {
    pub approval: ApprovalId,
}

/// A person decided. What they decided is in the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalResponse {
    pub approval: ApprovalId,
}

/// A person found out about an unknown outcome. What they found is in the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutcomeResolved {
    pub call: SkillCallId,
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waits {
    /// It is over, well or not.
    ForNothing,
    ForApproval {
        approval: ApprovalId,
        at_most: Duration,
    },
    ForResolution {
        call: SkillCallId,
    },
    /// For a while, and then it is tried again.
    ForAWhile {
        pause: Duration,
    },
}

#[workflow]
pub struct SkillCallWorkflow {
    input: Input,
    answered: Vec<ApprovalId>,
}

#[workflow_methods]
impl SkillCallWorkflow {
    #[init]
    fn new(_: &WorkflowContextView, input: Input) -> Self {
        Self {
            input,
            answered: Vec::new(),
        }
    }

    #[run(name = "SkillCallWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let input = ctx.state(|s| s.input.clone());
        loop {
            if ctx.continue_as_new_suggested() {
                ctx.continue_as_new(input.clone(), ContinueAsNewOptions::default())?;
            }
            match ctx
                .execute_activity(
                    SkillActivities::advance,
                    input.clone(),
                    activity_options(&input.patience),
                )
                .await?
            {
                // An unknown outcome ends here: whoever resolves it has the call taken further.
                Waits::ForNothing | Waits::ForResolution { .. } => return Ok(()),
                Waits::ForApproval { approval, at_most } => {
                    until(ctx, at_most, |state| state.answered.contains(&approval)).await?;
                }
                Waits::ForAWhile { pause } => {
                    until(ctx, pause, |_| false).await?;
                }
            }
        }
    }

    #[signal(name = "approval_response")]
    pub fn approval_response(
        &mut self,
        _: &mut SyncWorkflowContext<Self>,
        response: ApprovalResponse,
    ) {
        self.answered.push(response.approval);
    }
}
