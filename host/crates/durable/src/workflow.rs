//! What workflows need so that they read like the state diagram.

use futures::pin_mut;
use std::{cell::Cell, time::Duration};
use temporalio_common::RetryPolicy;
use temporalio_sdk::{
    ActivityOptions, CancellableFuture, TimerOptions, TimerResult, WorkflowCancellationToken,
    WorkflowContext, WorkflowResult, WorkflowTermination, workflows::select,
};

/// How an activity is tried again.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Patience {
    /// Before the second attempt.
    pub retry_initial: Duration,
    /// Between two attempts, at most.
    pub retry_max: Duration,
    /// How long one attempt may take.
    pub attempt: Duration,
    /// Without a sign of life for this long, the attempt counts as dead.
    pub heartbeat: Duration,
}

/// Options of an activity that ends by its own verdict: attempts are counted where its errors are made, so
/// that a process that was killed costs none of them.
pub fn activity_options(patience: &Patience) -> ActivityOptions {
    options(patience, None)
}

/// The same for what must be done though the workflow was cancelled.
pub fn detached_activity_options(patience: &Patience) -> ActivityOptions {
    options(patience, Some(WorkflowCancellationToken::new()))
}

fn options(patience: &Patience, token: Option<WorkflowCancellationToken>) -> ActivityOptions {
    let mut options = ActivityOptions::with_start_to_close_timeout(patience.attempt)
        .heartbeat_timeout(patience.heartbeat)
        .cancellation_type(temporalio_sdk::ActivityCancellationType::WaitCancellationCompleted)
        .retry_policy(
            RetryPolicy::builder()
                .initial_interval(patience.retry_initial)
                .backoff_coefficient(2.0)
                .maximum_interval(patience.retry_max)
                .maximum_attempts(0)
                .build(),
        )
        .build();
    if token.is_some() {
        options.cancellation_token = token;
    }
    options
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Happened,
    TimedOut,
}

/// Waits until `condition` holds or `at_most` has passed, and resolves whichever lost: dropped unfinished,
/// it would leak (a defect of SDK 1.1.1).
pub async fn until<W>(
    ctx: &WorkflowContext<W>,
    at_most: Duration,
    mut condition: impl FnMut(&W) -> bool,
) -> WorkflowResult<Wait> {
    let given_up = Cell::new(false);
    let timer = ctx.timer(TimerOptions::builder(at_most).build());
    let happened = ctx.wait_condition(|state| given_up.get() || condition(state));
    pin_mut!(timer, happened);
    let outcome = select! {
        r = happened => { r?; Wait::Happened }
        t = timer => {
            if t == TimerResult::Cancelled {
                return Err(WorkflowTermination::cancelled());
            }
            Wait::TimedOut
        }
    };
    match outcome {
        Wait::Happened => {
            timer.cancel();
            timer.await;
        }
        Wait::TimedOut => {
            given_up.set(true);
            let _ = happened.await;
        }
    }
    Ok(outcome)
}
