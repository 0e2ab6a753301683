//! What can happen: every workflow and activity, and the jobs that go round.

use crate::{
    app::App,
    id::TenantId,
    instances::{self, activities::InstanceActivities, workflow::OpenClawProvisionWorkflow},
    marketplace, oauth, outbox,
    problem::{Problem, RETRY_AFTER_DEFAULT},
    skills::{self, activities::SkillActivities, workflow::SkillCallWorkflow},
    tasks::{self, activities::TaskActivities, workflow::TaskExecutionWorkflow},
    turns::Mover,
};
use futures::future::BoxFuture;
use std::time::Duration;
use temporalio_sdk::{
    ApplicationFailure, WorkerOptions,
    activities::{ActivityContext, ActivityError},
};
use tokio::task::JoinSet;
use tsunami_durable::{WorkerHandle, workflow::Patience};

/// Where all workflows of the gateway are done.
pub const TASK_QUEUE: &str = "servicetsunami-orchestration";
/// The longest single attempt at an activity: a new instance may take five minutes.
const ATTEMPT_MAX: Duration = Duration::from_secs(600);
/// Signs of life an activity gives within its heartbeat time-out.
const HEARTBEATS_PER_TIMEOUT: u32 = 4;

/// The worker of this process.
#[derive(Debug)]
pub struct Running {
    worker: WorkerHandle,
    jobs: JoinSet<()>,
}

/// Starts the worker and the jobs that go round.
pub fn start(app: &App) -> Running {
    let registered = app.clone();
    let at_once = app.config().tasks.activities_at_once_max;
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
    let durable = app.durable();
    let worker = durable.run_worker(at_once, move || options(&registered));
    let mut jobs = JoinSet::new();
    jobs.spawn(outbox::relay(app.clone(), bereaved));
    jobs.spawn(tasks::lost::look(app.clone()));
    jobs.spawn(instances::keep::keep(app.clone()));
    jobs.spawn(skills::activities::reclaim(app.clone()));
    jobs.spawn(marketplace::revocations::watch(app.clone()));
    jobs.spawn(marketplace::upgrades::go_round(app.clone()));
    jobs.spawn(oauth::sweep(app.clone()));
    Running { worker, jobs }
}

impl Running {
    pub fn polling(&self) -> tokio::sync::watch::Receiver<bool> {
        self.worker.polling()
    }

    /// Lets what runs finish for a while.
    pub async fn stop(mut self) {
        self.jobs.shutdown().await;
        self.worker.stop().await;
    }
}

fn options(app: &App) -> WorkerOptions {
    WorkerOptions::new(TASK_QUEUE)
        .register_workflow::<TaskExecutionWorkflow>()
        .and_then(|o| o.register_workflow::<SkillCallWorkflow>())
        .and_then(|o| o.register_workflow::<OpenClawProvisionWorkflow>())
        .expect("each workflow is registered once")
        .register_activities(TaskActivities { app: app.clone() })
        .register_activities(SkillActivities { app: app.clone() })
        .register_activities(InstanceActivities { app: app.clone() })
        .build()
}

/// Sees to what a workflow looked after that is gone. Its id says what that is; nobody waits for what others are told.
fn bereaved(
    app: App,
    tenant: TenantId,
    workflow: String,
) -> BoxFuture<'static, Result<(), Problem>> {
    Box::pin(async move {
        if let Ok(task) = workflow.parse() {
            return tasks::lost::take_up(&app, tenant, task).await;
        }
        match skills::workflow::call_of(&workflow) {
            Some(call) => skills::activities::succeed(&app, tenant, call).await,
            None => Ok(()),
        }
    })
}

/// How activities are tried again, as the configuration says.
pub fn patience(app: &App) -> Patience {
    let tasks = &app.config().tasks;
    let seconds = |s: u32| Duration::from_secs(s.into());
    Patience {
        retry_initial: seconds(tasks.retry_initial_seconds),
        retry_max: seconds(tasks.retry_seconds_max),
        attempt: ATTEMPT_MAX,
        heartbeat: seconds(tasks.heartbeat_seconds),
    }
}

/// Whether a failure now is final. A process that dies costs no attempt of its own: the server counts it, so only
/// failures that are told are judged here.
pub fn is_last_attempt(ctx: &ActivityContext, app: &App) -> bool {
    ctx.info().attempt >= app.config().tasks.attempts_max
}

/// Carries an activity out, giving signs of life meanwhile, so that a killed process is noticed within the heartbeat
/// time-out.
pub async fn carry_out<T>(
    ctx: &ActivityContext,
    app: &App,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, ActivityError> {
    let _place = app.workflow_turns().place();
    retry_or_fail(ctx, app, keep_alive(ctx, work).await)
}

/// The same for workflows of which a tenant may have many: when the turn of this one has come. `rests` says of what was
/// done whether the workflow has ended with it, or waits for something; otherwise it keeps its turn for what comes next.
/// What is cancelled while it waits is not begun.
pub async fn carry_out_in_turn<T>(
    ctx: &ActivityContext,
    app: &App,
    mover: Mover,
    work: impl Future<Output = Result<T, Problem>>,
    rests: impl FnOnce(&T) -> bool,
) -> Result<T, ActivityError> {
    let turns = app.workflow_turns();
    let _place = turns.place();
    let turn = keep_alive(ctx, turns.take(mover));
    tokio::select! {
        biased;
        () = ctx.cancelled() => return Err(ActivityError::cancelled()),
        turn = turn => {
            let busy = |_| Problem::unavailable("The worker", RETRY_AFTER_DEFAULT);
            retry_or_fail(ctx, app, turn.map_err(busy))?;
        }
    }
    let done = keep_alive(ctx, work).await;
    if done.as_ref().map_or(true, rests) {
        turns.give_back(mover.workflow());
    } else {
        turns.keep(mover.workflow());
    }
    retry_or_fail(ctx, app, done)
}

/// Says of a failure whether trying again helps: what is away is tried until it is back, a mistake in the request is
/// not tried again, and anything else a few times.
fn retry_or_fail<T>(
    ctx: &ActivityContext,
    app: &App,
    result: Result<T, Problem>,
) -> Result<T, ActivityError> {
    result.map_err(|problem| {
        let away = problem.is_unavailable();
        let last = !away && (problem.status().is_client_error() || is_last_attempt(ctx, app));
        let failure = ApplicationFailure::builder(anyhow::anyhow!("{problem}"))
            .type_name(problem.code().to_owned())
            .non_retryable(last)
            .maybe_next_retry_delay(problem.retry_after().filter(|_| away))
            .build();
        ActivityError::application(failure)
    })
}

/// Gives signs of life while `work` goes on.
async fn keep_alive<T>(ctx: &ActivityContext, work: impl Future<Output = T>) -> T {
    let every = ctx
        .info()
        .heartbeat_timeout
        .map_or(Duration::from_secs(5), |timeout| {
            timeout / HEARTBEATS_PER_TIMEOUT
        });
    let beat = async {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = ctx.record_heartbeat(()).await {
                tracing::debug!(?error, "a sign of life was not taken");
            }
        }
    };
    tokio::select! {
        done = work => done,
        () = beat => unreachable!("the heart beats for ever"),
    }
}
