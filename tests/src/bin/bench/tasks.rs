//! A task of one skill call beside a bare workflow with as many activities, on the same Temporal server.
//!
//! Both are timed from asking for them until their last activity has done its work: for a task, until the last line of
//! its trace is committed, which PostgreSQL tells.

use crate::{
    Size,
    measure::{IN_FLIGHT, Round, Rounds, in_lanes, rounded, turns},
    site::{MESSAGE, Site},
};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    WorkerOptions, WorkflowContext, WorkflowContextView, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};
use tokio::sync::broadcast;
use tsunami::worker::patience;
use tsunami_durable::{
    StartRequest, WorkerHandle,
    workflow::{Patience, activity_options},
};
use tsunami_tests::{api::Api, company::sending, company::text};
use uuid::Uuid;

const TASK_QUEUE: &str = "bench-bare";
/// One that ended may be told of while it is still being started.
const BACKLOG: usize = 1024;
/// The longest that a task or a workflow may take.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// How Temporal's history names an activity that was asked for, in small letters.
const SCHEDULED: &str = "activitytaskscheduledeventattributes";

#[derive(Serialize)]
pub struct Figures {
    pub speed_ratio_aim: f64,
    /// Of a task's workflow, and so of the bare one.
    pub activities: usize,
    pub rows: Vec<Row>,
    pub first_trace_row: FirstTraceRow,
}

#[derive(Serialize)]
pub struct Row {
    pub what: &'static str,
    pub about: &'static str,
    pub in_flight: usize,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub per_second: f64,
    pub speed_ratio: f64,
    pub p50_ms_of_rounds: Rounds,
}

/// From `POST /agent-tasks` until the first line of the task's trace is committed; one task after the other.
#[derive(Serialize)]
pub struct FirstTraceRow {
    pub tasks: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

const WHATS: [(&str, &str); 2] = [
    (
        "bare workflow",
        "as many activities that do nothing, started straight at Temporal",
    ),
    (
        "task",
        "POST /agent-tasks with one planned step, until its trace is complete",
    ),
];

pub async fn measure(site: &Site, size: &Size) -> anyhow::Result<Figures> {
    let known = Known::of(site).await?;
    let bare = Bare::start(site, known.activities).await?;
    let tasks = Tasks::new(site, known.trace_rows);
    let mut rows = Vec::new();
    // Pollers adapt to the load, so the many come first, and warm up what follows.
    let sizes = IN_FLIGHT.into_iter().zip(size.tasks).rev();
    bare.run(IN_FLIGHT[1], size.tasks[1]).await?;
    tasks.run(IN_FLIGHT[1], size.tasks[1]).await?;
    for (in_flight, count) in sizes {
        let mut rounds = [Rounds::default(), Rounds::default()];
        tasks
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for round in 0..size.rounds {
            eprintln!(
                "bench: tasks, {in_flight} in flight, round {} of {}",
                round + 1,
                size.rounds
            );
            for turn in turns(round, 2) {
                rounds[turn].push(match turn {
                    0 => bare.run(in_flight, count).await?,
                    _ => tasks.run(in_flight, count).await?,
                });
            }
        }
        rows.splice(0..0, as_rows(rounds, in_flight));
    }
    bare.worker.stop().await;
    Ok(Figures {
        speed_ratio_aim: 0.5,
        activities: known.activities,
        rows,
        first_trace_row: tasks.first_trace_row(),
    })
}

fn as_rows(rounds: [Rounds; 2], in_flight: usize) -> Vec<Row> {
    let ratios = [1.0, rounds[1].speed_ratio(&rounds[0])];
    let all = WHATS.into_iter().zip(rounds).zip(ratios);
    all.map(|(((what, about), rounds), ratio)| Row {
        what,
        about,
        in_flight,
        count: rounds.count(),
        p50_ms: rounded(rounds.percentile_ms(50)),
        p99_ms: rounded(rounds.percentile_ms(99)),
        per_second: rounded(rounds.per_second()),
        speed_ratio: rounded(ratio),
        p50_ms_of_rounds: rounds,
    })
    .collect()
}

/// What one task consists of, seen of the first.
struct Known {
    activities: usize,
    trace_rows: usize,
}

impl Known {
    async fn of(site: &Site) -> anyhow::Result<Self> {
        let task = site.company.ask_to_send(MESSAGE).await;
        site.company.task_is(&task, &["completed"]).await;
        let history = site.app.durable().history_json(&task).await?;
        let history = String::from_utf8_lossy(&history).to_lowercase();
        let activities = history.matches(SCHEDULED).count();
        ensure!(activities > 0, "the task's history shows no activity");
        Ok(Self {
            activities,
            trace_rows: site.company.trace(&task).await.len(),
        })
    }
}

/// Waits until something is told of `id` so many times, and calls `each` at each.
async fn told(
    heard: &mut broadcast::Receiver<Uuid>,
    id: Uuid,
    times: usize,
    mut each: impl FnMut(usize),
) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(ENDS_WITHIN, async {
        let mut count = 0;
        while count < times {
            // Lagging behind is an error here: what was missed may be what is waited for.
            if heard.recv().await? == id {
                each(count);
                count += 1;
            }
        }
        anyhow::Ok(())
    });
    waited
        .await
        .with_context(|| format!("{id} did not end within {} s", ENDS_WITHIN.as_secs()))?
}

/// Tasks over the API.
struct Tasks {
    site: Site,
    trace_rows: usize,
    /// Until the first line of the trace.
    first: Arc<Mutex<Vec<Duration>>>,
}

impl Tasks {
    fn new(site: &Site, trace_rows: usize) -> Self {
        Self {
            site: site.clone(),
            trace_rows,
            first: Arc::default(),
        }
    }

    async fn run(&self, in_flight: usize, count: usize) -> anyhow::Result<Round> {
        let ids = Arc::new(Mutex::new(Vec::new()));
        let (site, first, made, rows) = (
            self.site.clone(),
            self.first.clone(),
            ids.clone(),
            self.trace_rows,
        );
        let round = in_lanes(in_flight, count, move || {
            let (site, first, made) = (site.clone(), first.clone(), made.clone());
            async move {
                let id = task(&site, rows, &first).await?;
                made.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                Ok(())
            }
        });
        let round = round.await?;
        let ids = std::mem::take(&mut *ids.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            let task = self.site.company.task(&id.to_string()).await;
            ensure!(
                task["status"] == "completed",
                "a task did not complete: {task}"
            );
        }
        Ok(round)
    }

    fn first_trace_row(&self) -> FirstTraceRow {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Rounds::default();
        all.push(Round::new(first.clone(), Duration::ZERO));
        FirstTraceRow {
            tasks: all.count(),
            p50_ms: rounded(all.percentile_ms(50)),
            p99_ms: rounded(all.percentile_ms(99)),
        }
    }
}

async fn task(site: &Site, rows: usize, first: &Mutex<Vec<Duration>>) -> anyhow::Result<Uuid> {
    let began = Instant::now();
    let mut heard = site.app.live().watch();
    let request = site
        .company
        .owner
        .request(reqwest::Method::POST, "/agent-tasks");
    let answer = Api::try_send(request.json(&sending(MESSAGE))).await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.text);
    let id: Uuid = text(&answer.json()["id"]).parse()?;
    told(&mut heard, id, rows, |row| {
        if row == 0 {
            first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(began.elapsed());
        }
    })
    .await?;
    Ok(id)
}

/// Workflows whose activities do nothing.
struct Bare {
    site: Site,
    activities: usize,
    worker: WorkerHandle,
    ended: broadcast::Sender<Uuid>,
}

impl Bare {
    async fn start(site: &Site, activities: usize) -> anyhow::Result<Self> {
        let ended = broadcast::Sender::new(BACKLOG);
        let tells = ended.clone();
        let at_once = usize::try_from(site.app.config().tasks.activities_at_once_max)?;
        let worker = site.app.durable().run_worker(at_once, move || {
            WorkerOptions::new(TASK_QUEUE)
                .register_workflow::<BareWorkflow>()
                .expect("it is registered once")
                .register_activities(BareActivities {
                    ended: tells.clone(),
                })
                .build()
        });
        worker.polling().wait_for(|polling| *polling).await?;
        Ok(Self {
            site: site.clone(),
            activities,
            worker,
            ended,
        })
    }

    async fn run(&self, in_flight: usize, count: usize) -> anyhow::Result<Round> {
        let (site, activities, ended) = (self.site.clone(), self.activities, self.ended.clone());
        in_lanes(in_flight, count, move || {
            let (site, mut heard) = (site.clone(), ended.subscribe());
            async move {
                let id = tsunami::id::TaskId::fresh().uuid();
                let input = Input {
                    id,
                    activities,
                    patience: patience(&site.app),
                };
                let input = serde_json::to_value(input)?;
                let start = StartRequest::new(WORKFLOW_TYPE, &id.to_string(), TASK_QUEUE, input);
                site.app.durable().start(start).await?;
                told(&mut heard, id, 1, |_| ()).await
            }
        })
        .await
    }
}

const WORKFLOW_TYPE: &str = "BareWorkflow";

#[derive(Clone, Serialize, Deserialize)]
pub struct Input {
    id: Uuid,
    activities: usize,
    patience: Patience,
}

#[workflow]
pub struct BareWorkflow {
    input: Input,
}

#[workflow_methods]
impl BareWorkflow {
    #[init]
    fn new(_: &WorkflowContextView, input: Input) -> Self {
        Self { input }
    }

    #[run(name = "BareWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let Input {
            id,
            activities,
            patience,
        } = ctx.state(|s| s.input.clone());
        for left in (0..activities).rev() {
            let options = activity_options(&patience);
            ctx.execute_activity(BareActivities::nothing, (id, left), options)
                .await?;
        }
        Ok(())
    }
}

pub struct BareActivities {
    ended: broadcast::Sender<Uuid>,
}

#[activities]
impl BareActivities {
    /// The last one says that it ran.
    #[activity(name = "bench.nothing")]
    pub async fn nothing(
        self: Arc<Self>,
        _: ActivityContext,
        about: (Uuid, usize),
    ) -> Result<(), ActivityError> {
        if about.1 == 0 {
            let _ = self.ended.send(about.0);
        }
        Ok(())
    }
}
