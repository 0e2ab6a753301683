use crate::{Durable, DurableError};
use std::time::Duration;
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions,
    runtime::{
        AutoscalingOptions, PollerBehavior,
        worker_tuner::{FixedSizeSlotSupplier, TunerHolder},
    },
};
use tokio::sync::watch;

/// Tasks of workflows that one worker runs at once.
const WORKFLOW_TASKS_MAX: usize = 200;
/// Workflows kept in memory between steps. An evicted one that waits leaks in SDK 1.1.1, so: above the number
/// that wait for a person on one worker.
const CACHED_WORKFLOWS_MAX: usize = 10_000;
/// How long the server waits for the worker that knows a workflow before it asks another: what a killed
/// worker costs its workflows.
const STICKY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long activities may go on after the worker was asked to stop.
const GRACEFUL_SHUTDOWN: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A worker that runs until it is stopped.
#[derive(Debug)]
pub struct WorkerHandle {
    stop: watch::Sender<bool>,
    polling: watch::Receiver<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WorkerHandle {
    /// Stops polling, lets what runs finish for a while, and waits until it has.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Whether it takes work right now, and when that changes.
    pub fn polling(&self) -> watch::Receiver<bool> {
        self.polling.clone()
    }
}

impl Durable {
    /// Runs a worker on a thread of its own (the SDK's future is not `Send`); activities run on the runtime
    /// that this is called in. `options` registers workflows and activities, and is called again when the
    /// worker has to be made anew.
    ///
    /// It works on `activities_max` activities at once. Of those that wait, each tenant's are taken in turn
    /// ([`crate::StartRequest::of`]).
    pub fn run_worker(
        &self,
        activities_max: usize,
        options: impl Fn() -> WorkerOptions + Send + 'static,
    ) -> WorkerHandle {
        let (stop, stopping) = watch::channel(false);
        let (says_polling, polling) = watch::channel(false);
        let runtime = tokio::runtime::Handle::current();
        let durable = self.clone();
        let tuned = move || tuned(options(), activities_max);
        let thread = std::thread::Builder::new()
            .name("temporal-worker".into())
            .spawn(move || runtime.block_on(work(durable, tuned, stopping, says_polling)))
            .expect("a thread can be started");
        WorkerHandle {
            stop,
            polling,
            thread: Some(thread),
        }
    }
}

async fn work(
    durable: Durable,
    options: impl Fn() -> WorkerOptions,
    mut stopping: watch::Receiver<bool>,
    polling: watch::Sender<bool>,
) {
    while !*stopping.borrow() {
        if let Err(error) = run_once(&durable, options(), &mut stopping, &polling).await {
            tracing::warn!(%error, "the Temporal worker stopped; starting it again");
        }
        polling.send_replace(false);
        let _ = tokio::time::timeout(RESTART_PAUSE, stopping.wait_for(|stop| *stop)).await;
    }
}

async fn run_once(
    durable: &Durable,
    options: WorkerOptions,
    stopping: &mut watch::Receiver<bool>,
    polling: &watch::Sender<bool>,
) -> Result<(), DurableError> {
    let refused = |e: &dyn std::fmt::Display| DurableError::Refused(e.to_string());
    let client = durable.client().await?.clone();
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(|e| refused(&e))?;
    let mut worker = Worker::new(&runtime, client, options).map_err(|e| refused(&e))?;
    let shutdown = worker.shutdown_handle();
    polling.send_replace(true);
    let asked = async {
        let _ = stopping.wait_for(|stop| *stop).await;
        shutdown();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = worker.run() => ended.map_err(|e| DurableError::Unavailable(e.to_string())),
        () = asked => Ok(()),
    }
}

fn tuned(mut options: WorkerOptions, activities_max: usize) -> WorkerOptions {
    let pollers = || {
        PollerBehavior::Autoscaling(
            AutoscalingOptions::builder()
                .minimum(2)
                .maximum(20)
                .initial(5)
                .build(),
        )
    };
    options.max_cached_workflows = CACHED_WORKFLOWS_MAX;
    options.workflow_task_poller_behavior = Some(pollers());
    options.activity_task_poller_behavior = Some(pollers());
    options.sticky_queue_schedule_to_start_timeout = STICKY_TIMEOUT;
    options.graceful_shutdown_period = Some(GRACEFUL_SHUTDOWN);
    options.tuner = TunerHolder::builder()
        .workflow_task_slot_supplier(FixedSizeSlotSupplier::new(WORKFLOW_TASKS_MAX))
        .activity_task_slot_supplier(FixedSizeSlotSupplier::new(activities_max))
        .local_activity_task_slot_supplier(FixedSizeSlotSupplier::new(activities_max))
        .nexus_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .build()
        .into();
    options
}
