//! Whose workflow a worker moves next.
//!
//! Of what waits in Temporal each tenant's comes in turn; but a worker takes whatever it has room for, and from then on
//! the steps of all workflows stand in one line: in the queue of the worker that knows them, and for its processors. So a
//! worker moves few workflows at a time, and those of each tenant in turn; the others wait with their next activity.

use crate::id::TenantId;
use std::{
    collections::HashMap,
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task;
use tokio_util::task::AbortOnDropHandle;
use tsunami_plugin_host::{Busy, Turn, TurnLimits, Turns};
use uuid::Uuid;

/// Workflows that a worker moves at once, for each of its processors.
const MOVED_PER_PROCESSOR: usize = 4;
/// How long an activity has the turn of its workflow, at most. One that takes longer waits most of the time, for a service
/// or an instance, and goes on beside those whose turn is next.
const ACTIVITY_MAX: Duration = Duration::from_millis(250);
/// How long a workflow keeps its turn until its next activity begins, which is mostly here, since this worker asks for it
/// with the workflow's own task; seldom it begins elsewhere, or never. More than it takes on a busy machine: where turns
/// lapsed there, all workflows would be moved at once just when that hurts.
const BETWEEN_MAX: Duration = Duration::from_secs(2);
/// Activities of a workflow in one turn: then it is the next one's. A task of one call has four.
const ACTIVITIES_MAX: u32 = 16;
/// Longer than an attempt at an activity, which ends the wait.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The turns of workflows in one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkflowTurns {
    turns: Turns,
    places: Arc<Places>,
    held: Arc<Mutex<HashMap<Uuid, Held>>>,
}

/// A workflow that is to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Mover {
    tenant: TenantId,
    workflow: Uuid,
    has_begun: bool,
}

impl Mover {
    /// With its first activity.
    pub fn first(tenant: TenantId, workflow: Uuid) -> Self {
        Self {
            tenant,
            workflow,
            has_begun: false,
        }
    }

    /// With a later one, which comes before all that its tenant has not begun: also where a service is slow, or a person
    /// was waited for, what was begun is ended first.
    pub fn further(tenant: TenantId, workflow: Uuid) -> Self {
        Self {
            tenant,
            workflow,
            has_begun: true,
        }
    }

    pub fn workflow(&self) -> Uuid {
        self.workflow
    }
}

#[derive(Debug)]
struct Held {
    turn: Turn,
    /// How many the workflow had in this turn.
    activities: u32,
    lapse: AbortOnDropHandle<()>,
}

/// The places that a worker has for activities.
#[derive(Debug)]
struct Places {
    all: usize,
    taken: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkflowTurns {
    /// `moved_max` is how many workflows are moved at once, or four for each processor; `places` how many activities the
    /// worker takes, which is how many may wait. One tenant's leave a turn to the others.
    pub fn new(moved_max: Option<usize>, places: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let running_max = moved_max.unwrap_or(processors * MOVED_PER_PROCESSOR);
        Self {
            turns: Turns::new(TurnLimits {
                running_max,
                tenant_running_max: (running_max - 1).max(1),
                waiting_max: places,
                tenant_waiting_max: places,
                wait_max: WAIT_MAX,
            }),
            places: Arc::new(Places {
                all: places,
                taken: AtomicUsize::new(0),
            }),
            held: Arc::default(),
        }
    }

    /// For an activity that is carried out or waits for its turn.
    pub fn place(&self) -> Place {
        self.places.taken.fetch_add(1, Ordering::Relaxed);
        Place(self.places.clone())
    }

    /// Waits for a workflow's turn, unless it has one, which its next activity then has for a while.
    ///
    /// # Errors
    /// [`Busy`] where more wait than may.
    pub async fn take(&self, mover: Mover) -> Result<(), Busy> {
        let Mover {
            tenant,
            workflow,
            has_begun,
        } = mover;
        let own = self.held().remove(&workflow);
        let (turn, before) = match own {
            Some(held) => (held.turn, held.activities),
            None if has_begun => (self.turns.take_again(tenant.into()).await?, 0),
            None => (self.turns.take(tenant.into(), None).await?, 0),
        };
        self.hold(workflow, turn, before + 1, ACTIVITY_MAX);
        Ok(())
    }

    /// An activity has ended, and another is to follow. Where all places are taken it does not come soon: it has to wait
    /// for one first.
    pub fn keep(&self, workflow: Uuid) {
        let is_full = self.places.taken.load(Ordering::Relaxed) >= self.places.all;
        let held = self.held().remove(&workflow);
        if let Some(held) = held
            && !is_full
            && held.activities < ACTIVITIES_MAX
        {
            self.hold(workflow, held.turn, held.activities, BETWEEN_MAX);
        }
    }

    /// The workflow has ended, or waits.
    pub fn give_back(&self, workflow: Uuid) {
        let held = self.held().remove(&workflow);
        drop(held);
    }

    fn hold(&self, workflow: Uuid, turn: Turn, activities: u32, lasts: Duration) {
        let own = self.clone();
        let mut all = self.held();
        // Under the lock, so that it does not lapse before it is there.
        let lapse = tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            own.lapse(workflow, task::id());
        });
        let held = Held {
            turn,
            activities,
            lapse: AbortOnDropHandle::new(lapse),
        };
        let replaced = all.insert(workflow, held);
        drop(all);
        drop(replaced);
    }

    /// What a timer does that has run out: one that comes late ends no later turn.
    fn lapse(&self, workflow: Uuid, timer: task::Id) {
        let mut all = self.held();
        let is_this = all
            .get(&workflow)
            .is_some_and(|h| h.lapse.abort_handle().id() == timer);
        let held = is_this.then(|| all.remove(&workflow)).flatten();
        drop(all);
        drop(held);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// With three turns for one tenant.
    fn four(places: usize) -> (WorkflowTurns, TenantId) {
        (WorkflowTurns::new(Some(4), places), TenantId::fresh())
    }

    fn workflows() -> [Uuid; 4] {
        std::array::from_fn(|_| TenantId::fresh().uuid())
    }

    /// Whether each of them has its turn, or gets it at once.
    fn taken(turns: &WorkflowTurns, tenant: TenantId, workflows: &[Uuid]) -> Vec<bool> {
        let take = |workflow: &Uuid| {
            let taken = turns.take(Mover::first(tenant, *workflow)).now_or_never();
            taken.is_some()
        };
        workflows.iter().map(take).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_workflow_keeps_its_turn_until_it_gives_it_back() {
        let (turns, acme) = four(10);
        let all = workflows();
        assert_eq!(taken(&turns, acme, &all), [true, true, true, false]);
        assert!(taken(&turns, acme, &all[..1])[0], "it has one");
        turns.keep(all[0]);
        assert_eq!(taken(&turns, acme, &all), [true, true, true, false]);
        turns.give_back(all[0]);
        turns.give_back(all[0]);
        assert_eq!(taken(&turns, acme, &all[3..]), [true]);
        assert_eq!(taken(&turns, acme, &all[..1]), [false]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_tenant_leaves_a_turn_to_the_others() {
        let (turns, acme) = four(10);
        assert_eq!(taken(&turns, acme, &workflows()), [true, true, true, false]);
        let globex = TenantId::fresh();
        assert_eq!(taken(&turns, globex, &workflows()[..2]), [true, false]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn where_all_places_are_taken_no_turn_is_kept_for_what_follows() {
        let (turns, acme) = four(2);
        let all = workflows();
        assert_eq!(taken(&turns, acme, &all[..3]), [true; 3]);
        let _one = turns.place();
        let other = turns.place();
        turns.keep(all[0]);
        assert_eq!(taken(&turns, acme, &all[3..]), [true], "it was given back");
        drop(other);
        turns.keep(all[1]);
        assert_eq!(taken(&turns, acme, &all[..1]), [false], "it is kept");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_workflow_of_many_activities_gives_its_turn_to_the_next() {
        let (turns, acme) = (WorkflowTurns::new(Some(1), 10), TenantId::fresh());
        let [long, next, ..] = workflows();
        turns
            .take(Mover::first(acme, long))
            .await
            .expect("the turn");
        let waits = turns.take(Mover::first(acme, next));
        tokio::pin!(waits);
        for _ in 1..ACTIVITIES_MAX {
            turns.keep(long);
            assert!(waits.as_mut().now_or_never().is_none(), "it is kept");
            let again = turns.take(Mover::further(acme, long));
            again.await.expect("the same turn");
        }
        turns.keep(long);
        assert!(waits.now_or_never().is_some(), "it is the next one's");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_workflow_that_has_begun_goes_on_before_others_begin() {
        let (turns, acme) = (WorkflowTurns::new(Some(1), 10), TenantId::fresh());
        let [slow, new, ..] = workflows();
        turns.take(Mover::first(acme, slow)).await.expect("a turn");
        turns.give_back(slow);
        let other = turns.turns.take(acme.into(), None).await.expect("a turn");
        let begins = turns.take(Mover::first(acme, new));
        let goes_on = turns.take(Mover::further(acme, slow));
        tokio::pin!(begins, goes_on);
        assert!(begins.as_mut().now_or_never().is_none());
        assert!(goes_on.as_mut().now_or_never().is_none());
        drop(other);
        assert!(begins.as_mut().now_or_never().is_none());
        assert!(goes_on.now_or_never().is_some());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_turn_lapses_and_a_timer_of_an_earlier_one_ends_no_later_one() {
        let (turns, acme) = four(10);
        let all = workflows();
        let take = |workflow| turns.take(Mover::further(acme, workflow));
        take(all[0]).await.expect("a turn");
        let first = turns.held()[&all[0]].lapse.abort_handle().id();
        take(all[0]).await.expect("the same turn");
        turns.lapse(all[0], first);
        assert_eq!(turns.held().len(), 1);
        for workflow in all {
            take(workflow).await.expect("a turn, when one has lapsed");
        }
    }
}
