//! Whose turn it is: a bounded number at once, a bounded number waiting, and the next turn to whoever used least.
//!
//! Each tenant has a queue of its own. What its turns took counts as its debt, which melts away as time goes by; a
//! free place goes to the tenant with the least. So a tenant whose turns are short goes before one whose turns are
//! long, however many of them wait, and none can hold all places as long as it may hold fewer than there are.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Whom a turn is for. The host decides what it stands for; here it is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantKey(pub u128);

/// How many turns there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// At one instant, over all tenants.
    pub running_max: usize,
    /// At one instant, of one tenant.
    pub tenant_running_max: usize,
    /// Waiting, over all tenants; beyond it the answer is [`Busy`] at once.
    pub waiting_max: usize,
    /// Waiting, of one tenant.
    pub tenant_waiting_max: usize,
    /// How long one waits before the answer is [`Busy`] after all.
    pub wait_max: Duration,
}

impl TurnLimits {
    /// One tenant leaves a processor to the others; three of them find a place at once.
    pub fn of_calls(processors: usize) -> Self {
        Self {
            running_max: processors * 4,
            tenant_running_max: (processors - 1).max(1),
            waiting_max: 4096,
            tenant_waiting_max: 256,
            wait_max: Duration::from_secs(10),
        }
    }

    /// Half of the processors, and at least two, so that nobody waits for one that takes long.
    pub fn of_compilations(processors: usize) -> Self {
        let running_max = (processors / 2).max(2);
        Self {
            running_max,
            tenant_running_max: 1,
            waiting_max: 64,
            tenant_waiting_max: 4,
            wait_max: Duration::from_secs(90),
        }
    }
}

/// More is waiting than may, or it waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is waiting already; try again")]
pub struct Busy;

/// A tenant's debt grows no further than this.
const DEBT_MAX: Duration = Duration::from_secs(10);
/// Tenants that are remembered only for their debt; beyond it those without any are forgotten.
const TENANTS_REMEMBERED_MAX: usize = 1024;

/// Gives out turns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: TurnLimits,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    running: usize,
    waiting: usize,
    arrivals: u64,
    tenants: HashMap<TenantKey, Share>,
}

#[derive(Debug)]
struct Share {
    running: usize,
    running_max: usize,
    waiting: VecDeque<Waiter>,
    /// When what it used is paid for; in the past where it owes nothing.
    paid_at: Instant,
}

#[derive(Debug)]
struct Waiter {
    arrival: u64,
    /// For a turn with what it has begun; these stand before those of its tenant that have not begun.
    has_begun: bool,
    grant: oneshot::Sender<Turn>,
}

/// Held while the work is done; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    tenant: TenantKey,
    began: Instant,
    held: bool,
}

enum Entered {
    Now(Turn),
    Waits(oneshot::Receiver<Turn>),
}

impl Turns {
    pub fn new(limits: TurnLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            queue: Mutex::default(),
        }))
    }

    /// Waits for a turn. `running_max` is what this tenant may have at once, below [`TurnLimits`].
    ///
    /// # Errors
    /// [`Busy`] where too many wait already, or it waited too long.
    pub async fn take(&self, tenant: TenantKey, running_max: Option<usize>) -> Result<Turn, Busy> {
        self.take_either(tenant, running_max, false).await
    }

    /// Waits for another turn to go on with something, before what the same tenant has not begun yet.
    ///
    /// # Errors
    /// As [`Turns::take`].
    pub async fn take_again(&self, tenant: TenantKey) -> Result<Turn, Busy> {
        self.take_either(tenant, None, true).await
    }

    async fn take_either(
        &self,
        tenant: TenantKey,
        running_max: Option<usize>,
        has_begun: bool,
    ) -> Result<Turn, Busy> {
        // Whoever stops waiting drops the receiver, and with it a turn that came meanwhile.
        match self.enter(tenant, running_max, has_begun)? {
            Entered::Now(turn) => Ok(turn),
            Entered::Waits(granted) => {
                match tokio::time::timeout(self.0.limits.wait_max, granted).await {
                    Ok(Ok(turn)) => Ok(turn),
                    Ok(Err(_)) | Err(_) => Err(Busy),
                }
            }
        }
    }

    fn enter(
        &self,
        tenant: TenantKey,
        running_max: Option<usize>,
        has_begun: bool,
    ) -> Result<Entered, Busy> {
        let limits = &self.0.limits;
        let own_max = running_max.map_or(limits.tenant_running_max, |max| {
            max.clamp(1, limits.tenant_running_max)
        });
        let now = Instant::now();
        let mut queue = self.0.lock();
        queue.forget_the_idle(now);
        let has_room = queue.running < limits.running_max;
        let share = queue.tenants.entry(tenant).or_insert_with(|| Share {
            running: 0,
            running_max: own_max,
            waiting: VecDeque::new(),
            paid_at: now,
        });
        share.running_max = own_max;
        // Where there is room, whoever waits may not run yet: nobody is passed over.
        if has_room && share.waiting.is_empty() && share.running < own_max {
            share.running += 1;
            queue.running += 1;
            return Ok(Entered::Now(self.0.turn(tenant)));
        }
        queue.make_room(limits, tenant)?;
        let (grant, granted) = oneshot::channel();
        let arrival = queue.arrivals;
        queue.arrivals += 1;
        queue.waiting += 1;
        if let Some(share) = queue.tenants.get_mut(&tenant) {
            let waiter = Waiter {
                arrival,
                has_begun,
                grant,
            };
            let place = if has_begun {
                share.waiting.partition_point(|w| w.has_begun)
            } else {
                share.waiting.len()
            };
            share.waiting.insert(place, waiter);
        }
        Ok(Entered::Waits(granted))
    }

    /// How many run and how many wait.
    pub fn load(&self) -> (usize, usize) {
        let queue = self.0.lock();
        (queue.running, queue.waiting)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(self: &Arc<Self>, tenant: TenantKey) -> Turn {
        Turn {
            shared: self.clone(),
            tenant,
            began: Instant::now(),
            held: true,
        }
    }

    /// Fills the free places.
    fn grant(self: &Arc<Self>, queue: &mut Queue) {
        while queue.running < self.limits.running_max {
            let Some(tenant) = queue.next() else { return };
            let Some(share) = queue.tenants.get_mut(&tenant) else {
                return;
            };
            let Some(waiter) = share.waiting.pop_front() else {
                return;
            };
            share.running += 1;
            queue.waiting -= 1;
            queue.running += 1;
            if let Err(mut turn) = waiter.grant.send(self.turn(tenant)) {
                // Nobody waits for it any more. It must not come back here: the queue is locked.
                turn.held = false;
                queue.running -= 1;
                if let Some(share) = queue.tenants.get_mut(&tenant) {
                    share.running -= 1;
                }
            }
        }
    }
}

impl Queue {
    /// The tenant with the least debt, among those that wait and may run; of equals, whoever came first.
    fn next(&self) -> Option<TenantKey> {
        let eligible = self.tenants.iter().filter_map(|(tenant, share)| {
            let first = share.waiting.front()?;
            (share.running < share.running_max).then_some((share.paid_at, first.arrival, *tenant))
        });
        eligible
            .min_by_key(|(paid_at, arrival, _)| (*paid_at, *arrival))
            .map(|(_, _, tenant)| tenant)
    }

    /// Whether one more may wait; those that gave up make room first.
    fn make_room(&mut self, limits: &TurnLimits, tenant: TenantKey) -> Result<(), Busy> {
        let is_full = |queue: &Self| {
            let own = queue.tenants.get(&tenant).map_or(0, |s| s.waiting.len());
            queue.waiting >= limits.waiting_max || own >= limits.tenant_waiting_max
        };
        if is_full(self) {
            for share in self.tenants.values_mut() {
                let before = share.waiting.len();
                share.waiting.retain(|waiter| !waiter.grant.is_closed());
                self.waiting -= before - share.waiting.len();
            }
        }
        if is_full(self) { Err(Busy) } else { Ok(()) }
    }

    fn forget_the_idle(&mut self, now: Instant) {
        if self.tenants.len() > TENANTS_REMEMBERED_MAX {
            self.tenants
                .retain(|_, s| s.running > 0 || !s.waiting.is_empty() || s.paid_at > now);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let now = Instant::now();
        let mut queue = self.shared.lock();
        queue.running -= 1;
        if let Some(share) = queue.tenants.get_mut(&self.tenant) {
            share.running -= 1;
            let used = now.saturating_duration_since(self.began);
            share.paid_at = (share.paid_at.max(now) + used).min(now + DEBT_MAX);
        }
        self.shared.grant(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future::BoxFuture};

    const HEAVY: TenantKey = TenantKey(1);
    const LIGHT: TenantKey = TenantKey(2);

    fn turns(running_max: usize, tenant_running_max: usize) -> Turns {
        Turns::new(TurnLimits {
            running_max,
            tenant_running_max,
            waiting_max: 4,
            tenant_waiting_max: 3,
            wait_max: Duration::from_secs(60),
        })
    }

    /// Asks, and is in the queue when this returns.
    fn ask(turns: &Turns, tenant: TenantKey) -> BoxFuture<'static, Result<Turn, Busy>> {
        let turns = turns.clone();
        let mut asked = async move { turns.take(tenant, None).await }.boxed();
        match asked.as_mut().now_or_never() {
            Some(answer) => std::future::ready(answer).boxed(),
            None => asked,
        }
    }

    fn now(asked: &mut BoxFuture<'static, Result<Turn, Busy>>) -> Option<Turn> {
        asked
            .as_mut()
            .now_or_never()
            .map(|turn| turn.expect("a turn"))
    }

    /// A turn that took so long.
    fn spend(turn: Turn, time: Duration) {
        let mut turn = turn;
        turn.began -= time;
    }

    #[tokio::test]
    async fn one_tenant_never_holds_all_places() {
        let turns = turns(2, 1);
        let held = now(&mut ask(&turns, HEAVY)).expect("a free place");
        let mut more = ask(&turns, HEAVY);
        assert!(now(&mut more).is_none());
        assert!(now(&mut ask(&turns, LIGHT)).is_some());
        drop(held);
        assert!(now(&mut more).is_some());
    }

    #[tokio::test]
    async fn whoever_used_least_goes_first() {
        let turns = turns(1, 1);
        spend(
            now(&mut ask(&turns, HEAVY)).unwrap(),
            Duration::from_millis(100),
        );
        let held = now(&mut ask(&turns, HEAVY)).unwrap();
        let mut heavy = ask(&turns, HEAVY);
        let mut light = ask(&turns, LIGHT);
        drop(held);
        let turn = now(&mut light).expect("its turn, though it came later");
        assert!(now(&mut heavy).is_none());
        spend(turn, Duration::from_millis(1));
        assert!(now(&mut heavy).is_some());
    }

    #[tokio::test]
    async fn equals_go_in_the_order_in_which_they_came() {
        let turns = turns(1, 1);
        let held = now(&mut ask(&turns, TenantKey(9))).unwrap();
        let mut first = ask(&turns, LIGHT);
        let mut second = ask(&turns, HEAVY);
        let mut third = ask(&turns, LIGHT);
        // Both arrive without any debt, within one instant or not: the earlier one has paid earlier.
        drop(held);
        let turn = now(&mut first).expect("the first");
        assert!(now(&mut second).is_none());
        spend(turn, Duration::from_millis(5));
        let turn = now(&mut second).expect("the second, who used less");
        drop(turn);
        assert!(now(&mut third).is_some());
    }

    #[tokio::test]
    async fn what_has_begun_goes_before_what_its_tenant_has_not_begun() {
        let turns = turns(1, 1);
        let held = now(&mut ask(&turns, HEAVY)).unwrap();
        let mut new = ask(&turns, HEAVY);
        let again = || {
            let turns = turns.clone();
            let mut asked = async move { turns.take_again(HEAVY).await }.boxed();
            assert!(now(&mut asked).is_none());
            asked
        };
        let (mut one, mut two) = (again(), again());
        let mut light = ask(&turns, LIGHT);
        drop(held);
        drop(now(&mut light).expect("who used least"));
        drop(now(&mut one).expect("the first that had begun"));
        assert!(now(&mut new).is_none());
        drop(now(&mut two).expect("the second"));
        assert!(now(&mut new).is_some());
    }

    #[tokio::test]
    async fn too_many_that_wait_are_told_so_and_those_who_gave_up_make_room() {
        let turns = turns(1, 1);
        let _held = now(&mut ask(&turns, HEAVY)).unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| ask(&turns, HEAVY)).collect();
        assert_eq!(turns.take(HEAVY, None).await.err(), Some(Busy));
        let _light = ask(&turns, LIGHT);
        assert_eq!(turns.take(TenantKey(3), None).await.err(), Some(Busy));
        waiting.pop();
        assert!(now(&mut ask(&turns, HEAVY)).is_none());
        assert_eq!(turns.load(), (1, 4));
    }

    #[tokio::test]
    async fn a_turn_for_somebody_who_left_goes_to_the_next() {
        let turns = turns(1, 1);
        let held = now(&mut ask(&turns, HEAVY)).unwrap();
        let left = ask(&turns, HEAVY);
        let mut stays = ask(&turns, LIGHT);
        drop(left);
        drop(held);
        assert!(now(&mut stays).is_some());
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_turn_that_comes_while_its_taker_leaves_is_not_lost() {
        let turns = turns(1, 1);
        let held = now(&mut ask(&turns, HEAVY)).unwrap();
        let leaves = ask(&turns, HEAVY);
        drop(held);
        assert_eq!(turns.load(), (1, 0));
        drop(leaves);
        assert_eq!(turns.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_tenant_may_be_given_fewer_places_than_the_others_and_never_more() {
        let turns = turns(4, 2);
        let _one = now(&mut ask(&turns, LIGHT)).unwrap();
        assert!(turns.take(LIGHT, Some(1)).now_or_never().is_none());
        let _two = now(&mut ask(&turns, HEAVY)).unwrap();
        let _three = turns.take(HEAVY, Some(100)).await.unwrap();
        assert!(turns.take(HEAVY, Some(100)).now_or_never().is_none());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let mut limits = turns(1, 1).0.limits;
        limits.wait_max = Duration::from_millis(20);
        let turns = Turns::new(limits);
        let _held = now(&mut ask(&turns, HEAVY)).unwrap();
        assert_eq!(turns.take(LIGHT, None).await.err(), Some(Busy));
    }

    #[tokio::test]
    async fn debt_has_an_end() {
        let turns = turns(1, 1);
        spend(
            now(&mut ask(&turns, HEAVY)).unwrap(),
            Duration::from_secs(3600),
        );
        let queue = turns.0.lock();
        let owes = queue.tenants[&HEAVY]
            .paid_at
            .saturating_duration_since(Instant::now());
        assert!(owes <= DEBT_MAX, "{owes:?}");
    }
}
