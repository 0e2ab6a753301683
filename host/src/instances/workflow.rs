//! Bringing an instance to where it was asked to be.

use crate::{
    id::{InstanceId, TenantId},
    instances::activities::InstanceActivities,
};
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination};
use tsunami_durable::workflow::{Patience, activity_options, detached_activity_options};

pub const WORKFLOW_TYPE: &str = "OpenClawProvisionWorkflow";

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Deploy, or start what was stopped.
    Provision,
    Stop,
    Restart,
    Destroy,
}

/// Which instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceRef {
    pub tenant: TenantId,
    pub instance: InstanceId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    pub instance: InstanceRef,
    pub operation: Operation,
    pub patience: Patience,
}

#[workflow]
pub struct OpenClawProvisionWorkflow {
    input: Input,
}

#[workflow_methods]
impl OpenClawProvisionWorkflow {
    #[init]
    fn new(_: &WorkflowContextView, input: Input) -> Self {
        Self { input }
    }

    #[run(name = "OpenClawProvisionWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let input = ctx.state(|s| s.input.clone());
        let done = match input.operation {
            Operation::Provision => Self::provision(ctx, &input).await,
            Operation::Stop => Self::stop(ctx, &input).await,
            Operation::Restart => match Self::stop(ctx, &input).await {
                Ok(()) => Self::provision(ctx, &input).await,
                failed => failed,
            },
            Operation::Destroy => {
                let options = activity_options(&input.patience);
                ctx.execute_activity(
                    InstanceActivities::helm_uninstall,
                    input.instance.clone(),
                    options,
                )
                .await
                .map_err(Into::into)
            }
        };
        let over = matches!(
            done,
            Err(WorkflowTermination::Cancelled { .. } | WorkflowTermination::Failed(_))
        );
        if over {
            // Also where the workflow was cancelled: the row must not say `provisioning` for ever.
            let options = detached_activity_options(&input.patience);
            ctx.execute_activity(InstanceActivities::give_up, input.clone(), options)
                .await?;
        }
        done
    }

    async fn provision(ctx: &mut WorkflowContext<Self>, input: &Input) -> WorkflowResult<()> {
        let (instance, options) = (&input.instance, || activity_options(&input.patience));
        ctx.execute_activity(
            InstanceActivities::generate_values,
            instance.clone(),
            options(),
        )
        .await?;
        ctx.execute_activity(
            InstanceActivities::helm_install,
            instance.clone(),
            options(),
        )
        .await?;
        ctx.execute_activity(InstanceActivities::wait_ready, instance.clone(), options())
            .await?;
        ctx.execute_activity(
            InstanceActivities::health_check,
            instance.clone(),
            options(),
        )
        .await?;
        ctx.execute_activity(InstanceActivities::register, instance.clone(), options())
            .await?;
        Ok(())
    }

    async fn stop(ctx: &mut WorkflowContext<Self>, input: &Input) -> WorkflowResult<()> {
        let options = activity_options(&input.patience);
        ctx.execute_activity(
            InstanceActivities::scale_down,
            input.instance.clone(),
            options,
        )
        .await?;
        Ok(())
    }
}
