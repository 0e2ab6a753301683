use crate::{
    Class, Limits, LoadError, PluginError, TenantLimits, adapter, credentials,
    limits::CallLimits,
    policy,
    sandbox::{HANDLES_MAX, LogBudget, State},
    wasi::{Chance, Instant},
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use wasmtime::{
    Store, Trap, UpdateDeadline,
    component::{
        Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower,
        types::ComponentItem,
    },
};

/// The most of a guest's own words that an error repeats, in bytes.
const PANIC_BYTES_MAX: usize = 512;
/// The same of the names of its exports.
const EXPORTS_BYTES_MAX: usize = 512;

/// After a call that took too long to be tried at once, so many are not tried.
const LONG_CALLS: u32 = 100;

/// A loaded plugin, and what its calls may take. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    loaded: Arc<Loaded>,
    limits: CallLimits,
}

struct Loaded {
    digest: String,
    class: Class,
    /// Bytes of machine code.
    weight: u32,
    pre: InstancePre<State>,
    adapter: Option<Interface>,
    credentials: Option<Interface>,
    policy: Option<Interface>,
    limits: Arc<Limits>,
    /// Calls yet to come that are not tried at once, because one of late took too long for that.
    long_calls: AtomicU32,
}

/// An interface of the contract that a component exports: each describes itself, and answers one kind of question. A call
/// checks the type of the function that it needs alone, which takes less than the bindings' way to check them all; who
/// describes itself is checked whole.
struct Interface {
    describe: ComponentExportIndex,
    answer: ComponentExportIndex,
}

/// What a call knows of time, and what its draws follow from.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub now: Instant,
    pub seed: String,
}

impl Moment {
    /// Of calls that have neither: `describe` and `check`.
    pub fn none() -> Self {
        Self::at(0, String::new())
    }
    pub fn at(unix_ms: u64, seed: String) -> Self {
        Self {
            now: Instant { unix_ms },
            seed,
        }
    }
}

/// Which interfaces a plugin exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Kinds {
    pub adapter: bool,
    pub credentials: bool,
    pub policy: bool,
}

/// A line that a plugin wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    pub level: String,
    pub message: String,
}

/// An answer, and what the plugin logged on the way.
#[derive(Clone, Debug)]
pub struct Called<T> {
    pub value: T,
    pub log: Vec<LogLine>,
}

impl Plugin {
    pub(crate) fn new(
        digest: String,
        class: Class,
        weight: u32,
        pre: &InstancePre<State>,
        limits: Arc<Limits>,
    ) -> Result<Self, LoadError> {
        let interface = |name: &str, answer: &str| Interface::find(pre.component(), name, answer);
        let adapter = interface("skill-adapter", "next")?;
        let credentials = interface("credential-schema", "check")?;
        let policy = interface("routing-policy", "decide")?;
        if adapter.is_none() && credentials.is_none() && policy.is_none() {
            let mut has = exported(pre).join(", ");
            has.truncate(has.floor_char_boundary(EXPORTS_BYTES_MAX));
            return Err(LoadError::Exports(format!("it exports {has}")));
        }
        let call_limits = CallLimits::of(limits.of(class));
        Ok(Self {
            loaded: Arc::new(Loaded {
                digest,
                class,
                weight,
                pre: pre.clone(),
                adapter,
                credentials,
                policy,
                limits,
                long_calls: AtomicU32::new(0),
            }),
            limits: call_limits,
        })
    }

    /// The same plugin, for calls that may take no more than the tenant has.
    #[must_use]
    pub fn within(&self, limits: &TenantLimits) -> Self {
        Self {
            loaded: self.loaded.clone(),
            limits: self.limits.within(limits),
        }
    }

    /// The same plugin, for a call that ends within `time`; `None` where such a call would be in vain: an interpreter
    /// takes longer only to start, and so did this plugin of late.
    pub(crate) fn at_once(&self, time: Duration) -> Option<Self> {
        let fewer = |calls: u32| calls.checked_sub(1);
        let long_calls = &self.loaded.long_calls;
        let is_vain = self.loaded.class == Class::Large
            || long_calls.fetch_update(Relaxed, Relaxed, fewer).is_ok();
        let limits = TenantLimits {
            call_timeout: Some(time),
            ..TenantLimits::default()
        };
        (!is_vain).then(|| self.within(&limits))
    }

    /// A call took too long to be tried at once: the next ones are not.
    pub(crate) fn takes_long(&self) {
        self.loaded.long_calls.store(LONG_CALLS, Relaxed);
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    pub fn class(&self) -> Class {
        self.loaded.class
    }

    pub(crate) fn weight(&self) -> u32 {
        self.loaded.weight
    }

    pub fn kinds(&self) -> Kinds {
        Kinds {
            adapter: self.loaded.adapter.is_some(),
            credentials: self.loaded.credentials.is_some(),
            policy: self.loaded.policy.is_some(),
        }
    }

    fn adapter(&self) -> Result<&Interface, PluginError> {
        let adapter = self.loaded.adapter.as_ref();
        adapter.ok_or(PluginError::NotExported("skill-adapter"))
    }

    fn credential_schema(&self) -> Result<&Interface, PluginError> {
        let credentials = self.loaded.credentials.as_ref();
        credentials.ok_or(PluginError::NotExported("credential-schema"))
    }

    fn policy(&self) -> Result<&Interface, PluginError> {
        let policy = self.loaded.policy.as_ref();
        policy.ok_or(PluginError::NotExported("routing-policy"))
    }

    /// What the skill can do. [`crate::check_manifest`] says whether it may be believed.
    pub fn describe(&self) -> Result<Called<adapter::Manifest>, PluginError> {
        self.describe_at(Moment::none())
    }

    pub(crate) fn describe_at(
        &self,
        moment: Moment,
    ) -> Result<Called<adapter::Manifest>, PluginError> {
        type Asked<'a> = (&'a adapter::Invocation, &'a [adapter::Reply]);
        type Answer = Result<adapter::Step, adapter::Failure>;
        self.describe_interface::<Asked, Answer, _>(moment, self.adapter()?)
    }

    /// What comes next in a call, given the replies so far.
    pub fn next(
        &self,
        call: &adapter::Invocation,
        replies: &[adapter::Reply],
    ) -> Result<Called<Result<adapter::Step, adapter::Failure>>, PluginError> {
        let moment = Moment::at(call.now, call.idempotency_key.clone());
        self.call(moment, &self.adapter()?.answer, (call, replies))
    }

    /// Which credentials there are.
    pub fn credentials(&self) -> Result<Called<credentials::Schema>, PluginError> {
        self.credentials_at(Moment::none())
    }

    pub(crate) fn credentials_at(
        &self,
        moment: Moment,
    ) -> Result<Called<credentials::Schema>, PluginError> {
        type Answer = Result<(), credentials::Violation>;
        self.describe_interface::<(&str, &str), Answer, _>(moment, self.credential_schema()?)
    }

    /// What the policy is, and which settings it takes.
    pub fn describe_policy(&self) -> Result<Called<policy::Manifest>, PluginError> {
        self.describe_policy_at(Moment::none())
    }

    pub(crate) fn describe_policy_at(
        &self,
        moment: Moment,
    ) -> Result<Called<policy::Manifest>, PluginError> {
        type Asked<'a> = (&'a policy::Request,);
        self.describe_interface::<Asked, policy::Decision, _>(moment, self.policy()?)
    }

    /// Whether a value is shaped like the credential. What the plugin logs or prints meanwhile is dropped, also
    /// where it fails: it has seen the value.
    pub fn check(
        &self,
        key: &str,
        value: &str,
    ) -> Result<Result<(), credentials::Violation>, PluginError> {
        let check = &self.credential_schema()?.answer;
        let checked = self.call(Moment::none(), check, (key, value));
        checked.map(|called| called.value).map_err(|e| match e {
            PluginError::Trap(_) => {
                PluginError::Trap("its check of a credential ended with an error".into())
            }
            other => other,
        })
    }

    /// Whether a call may go ahead. The caller treats every error as "deny".
    pub fn decide(
        &self,
        request: &policy::Request,
    ) -> Result<Called<policy::Decision>, PluginError> {
        // It has no key: what it draws follows from what it is asked.
        let seed = format!("{} {} {}", request.skill, request.action, request.now);
        let moment = Moment::at(request.now, seed);
        self.call(moment, &self.policy()?.answer, (request,))
    }

    /// For measurements alone: how long each call of one instance takes that lives on, in so much time. The gateway
    /// makes a fresh one for each call.
    #[doc(hidden)]
    pub fn measure_live(&self, call: &adapter::Invocation, time: Duration) -> Vec<Duration> {
        let Ok(adapter) = self.adapter() else {
            return Vec::new();
        };
        type Next = (Result<adapter::Step, adapter::Failure>,);
        let no_replies: &[adapter::Reply] = &[];
        let mut times = Vec::new();
        let measured = self.in_a_store(Moment::none(), |store| {
            store.set_epoch_deadline(u64::MAX / 2);
            let instance = self.loaded.pre.instantiate(&mut *store)?;
            let next = instance.get_typed_func::<(&adapter::Invocation, &[adapter::Reply]), Next>(
                &mut *store,
                &adapter.answer,
            )?;
            let began = std::time::Instant::now();
            while began.elapsed() < time {
                let called = std::time::Instant::now();
                let _ = std::hint::black_box(next.call(&mut *store, (call, no_replies))?);
                times.push(called.elapsed());
            }
            Ok(())
        });
        measured.map(|_| times).unwrap_or_default()
    }

    /// Calls one function of a fresh instance.
    fn call<P, R>(
        &self,
        moment: Moment,
        function: &ComponentExportIndex,
        params: P,
    ) -> Result<Called<R>, PluginError>
    where
        P: ComponentNamedList + Lower,
        (R,): ComponentNamedList + Lift,
    {
        self.in_a_store(moment, |store| {
            let instance = self.loaded.pre.instantiate(&mut *store)?;
            let function = instance.get_typed_func::<P, (R,)>(&mut *store, function)?;
            let (answer,) = function.call(store, params)?;
            Ok(answer)
        })
    }

    /// What an interface says of itself, where what it answers is of the contract's types too: whoever takes the plugin in
    /// learns of it, and not its first caller.
    fn describe_interface<P, A, R>(
        &self,
        moment: Moment,
        interface: &Interface,
    ) -> Result<Called<R>, PluginError>
    where
        P: ComponentNamedList + Lower,
        (A,): ComponentNamedList + Lift,
        (R,): ComponentNamedList + Lift,
    {
        self.in_a_store(moment, |store| {
            let instance = self.loaded.pre.instantiate(&mut *store)?;
            let describe = instance.get_typed_func::<(), (R,)>(&mut *store, &interface.describe)?;
            instance.get_typed_func::<P, (A,)>(&mut *store, &interface.answer)?;
            let (said,) = describe.call(store, ())?;
            Ok(said)
        })
    }

    fn in_a_store<T>(
        &self,
        moment: Moment,
        run: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Called<T>, PluginError> {
        let loaded = &*self.loaded;
        let state = State::new(
            &loaded.limits,
            loaded.limits.of(loaded.class),
            self.limits.memory_bytes_max,
            moment.now,
            Chance::new(moment.seed),
        );
        let mut store = Store::new(loaded.pre.engine(), state);
        store.limiter(|state| &mut state.quota);
        // Before the instance is made: a start function is the guest's code too.
        let mut countdown = Countdown::new(self.limits.timeout);
        store.set_epoch_deadline(countdown.first_look());
        store.epoch_deadline_callback(move |_| countdown.look());
        store.set_hostcall_fuel(loaded.limits.answer_bytes_max);
        store.set_max_component_handles(HANDLES_MAX);
        match run(&mut store) {
            Ok(value) => Ok(Called {
                value,
                log: std::mem::take(&mut store.data_mut().log),
            }),
            Err(error) => Err(self.explain(&error, store.data())),
        }
    }

    fn explain(&self, error: &wasmtime::Error, state: &State) -> PluginError {
        let limits = &self.loaded.limits;
        if error.downcast_ref::<LogBudget>().is_some() {
            return PluginError::LogBudget {
                lines_max: limits.log_lines_max,
            };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => return PluginError::Timeout(self.limits.timeout),
            Some(Trap::StackOverflow) => return PluginError::Stack,
            _ => {}
        }
        let text = format!("{error:#}");
        if text.contains("too much data is being copied") {
            return PluginError::AnswerTooLarge {
                bytes_max: limits.answer_bytes_max,
            };
        }
        if text.contains("maximum concurrent") {
            return PluginError::Busy;
        }
        if state.quota.refused {
            return PluginError::Memory {
                bytes_max: self.limits.memory_bytes_max,
            };
        }
        let printed = state.printed();
        let words = if printed.is_empty() {
            error.root_cause().to_string()
        } else {
            printed
        };
        let end = words.floor_char_boundary(PANIC_BYTES_MAX);
        PluginError::Trap(words[..end].to_owned())
    }
}

impl Interface {
    /// Where the component exports this interface, of this version or a later patch of it.
    fn find(component: &Component, name: &str, answer: &str) -> Result<Option<Self>, LoadError> {
        let export = format!("servicetsunami:plugin/{name}@0.1.0");
        let Some(interface) = component.get_export_index(None, &export) else {
            return Ok(None);
        };
        let function = |name: &str| {
            let found = component.get_export_index(Some(&interface), name);
            found.ok_or_else(|| {
                LoadError::Exports(format!("its `{export}` has no function `{name}`"))
            })
        };
        Ok(Some(Self {
            describe: function("describe")?,
            answer: function(answer)?,
        }))
    }
}

/// Counts the processor time of a call, which a busy machine gives it late. It looks for the first time after a
/// quarter of the limit, so that a short call asks the system nothing; that quarter counts in full.
struct Countdown {
    timeout: Duration,
    used_at_first: Option<Duration>,
    looks: u32,
}

impl Countdown {
    /// On a machine that is busy with other things, a call may take so many times its limit by the clock on the wall.
    const WALL_TIMES_MAX: u32 = 10;
    /// Looks for each limit's worth of time.
    const LOOKS: u32 = 4;

    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            used_at_first: None,
            looks: 0,
        }
    }

    fn first_look(&self) -> u64 {
        ticks(self.timeout / Self::LOOKS)
    }

    fn look(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let now = thread_time();
        let quarter = self.timeout / Self::LOOKS;
        let used = quarter + now.saturating_sub(*self.used_at_first.get_or_insert(now));
        self.looks += 1;
        if used >= self.timeout || self.looks >= Self::LOOKS * Self::WALL_TIMES_MAX {
            return Err(Trap::Interrupt.into());
        }
        let left = (self.timeout - used).min(quarter);
        Ok(UpdateDeadline::Continue(ticks(left)))
    }
}

/// In epochs, which are milliseconds.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What this thread used of a processor.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The names of what a component exports.
fn exported(pre: &InstancePre<State>) -> Vec<String> {
    let engine = pre.engine();
    let exports = pre.component().component_type();
    exports
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_)))
        .map(|(name, _)| name.to_owned())
        .collect()
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({})", self.loaded.digest)
    }
}
