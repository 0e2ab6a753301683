use crate::{
    Limits, LoadError, PluginError, adapter,
    bindings::{CredentialSchemaPluginPre, RoutingPolicyPluginPre, SkillAdapterPluginPre},
    credentials, policy,
    sandbox::{LogBudget, State},
};
use std::sync::Arc;
use wasmtime::{Store, Trap, component::InstancePre};

/// The most of a guest's own words that an error repeats, in bytes.
const PANIC_BYTES_MAX: usize = 512;

/// A loaded plugin.
pub struct Plugin {
    digest: String,
    pre: InstancePre<State>,
    adapter: Option<SkillAdapterPluginPre<State>>,
    credentials: Option<CredentialSchemaPluginPre<State>>,
    policy: Option<RoutingPolicyPluginPre<State>>,
    limits: Arc<Limits>,
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
        pre: InstancePre<State>,
        limits: Arc<Limits>,
    ) -> Result<Self, LoadError> {
        let adapter = SkillAdapterPluginPre::new(pre.clone());
        let credentials = CredentialSchemaPluginPre::new(pre.clone());
        let policy = RoutingPolicyPluginPre::new(pre.clone());
        if let (Err(error), Err(_), Err(_)) = (&adapter, &credentials, &policy) {
            return Err(LoadError::Exports(format!("{error:#}")));
        }
        Ok(Self {
            digest,
            pre,
            adapter: adapter.ok(),
            credentials: credentials.ok(),
            policy: policy.ok(),
            limits,
        })
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn kinds(&self) -> Kinds {
        Kinds {
            adapter: self.adapter.is_some(),
            credentials: self.credentials.is_some(),
            policy: self.policy.is_some(),
        }
    }

    /// What the skill can do. [`crate::check_manifest`] says whether it may be believed.
    pub fn describe(&self) -> Result<Called<adapter::Manifest>, PluginError> {
        let pre = self
            .adapter
            .as_ref()
            .ok_or(PluginError::NotExported("skill-adapter"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_skill_adapter()
                .call_describe(store)
        })
    }

    /// What comes next in a call, given the replies so far.
    pub fn next(
        &self,
        call: &adapter::Invocation,
        replies: &[adapter::Reply],
    ) -> Result<Called<Result<adapter::Step, adapter::Failure>>, PluginError> {
        let pre = self
            .adapter
            .as_ref()
            .ok_or(PluginError::NotExported("skill-adapter"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_skill_adapter()
                .call_next(store, call, replies)
        })
    }

    /// Which credentials there are.
    pub fn credentials(&self) -> Result<Called<credentials::Schema>, PluginError> {
        let pre = self
            .credentials
            .as_ref()
            .ok_or(PluginError::NotExported("credential-schema"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_credential_schema()
                .call_describe(store)
        })
    }

    /// What the policy is, and which settings it takes.
    pub fn describe_policy(&self) -> Result<Called<policy::Manifest>, PluginError> {
        let pre = self
            .policy
            .as_ref()
            .ok_or(PluginError::NotExported("routing-policy"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_routing_policy()
                .call_describe(store)
        })
    }

    /// Whether a value is shaped like the credential. What the plugin logs or prints meanwhile is dropped, also
    /// where it fails: it has seen the value.
    pub fn check(
        &self,
        key: &str,
        value: &str,
    ) -> Result<Result<(), credentials::Violation>, PluginError> {
        let pre = self
            .credentials
            .as_ref()
            .ok_or(PluginError::NotExported("credential-schema"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_credential_schema()
                .call_check(store, key, value)
        })
        .map(|called| called.value)
        .map_err(|error| match error {
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
        let pre = self
            .policy
            .as_ref()
            .ok_or(PluginError::NotExported("routing-policy"))?;
        self.call(|store| {
            pre.instantiate(&mut *store)?
                .servicetsunami_plugin_routing_policy()
                .call_decide(store, request)
        })
    }

    fn call<T>(
        &self,
        run: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Called<T>, PluginError> {
        let mut store = Store::new(self.pre.engine(), State::new(&self.limits));
        store.limiter(|state| &mut state.quota);
        // Before the instance is made: a start function is the guest's code too.
        store.set_epoch_deadline(
            u64::try_from(self.limits.call_timeout.as_millis())
                .unwrap_or(1)
                .max(1),
        );
        store.set_hostcall_fuel(self.limits.answer_bytes_max);
        store.set_max_component_handles(256);
        match run(&mut store) {
            Ok(value) => Ok(Called {
                value,
                log: std::mem::take(&mut store.data_mut().log),
            }),
            Err(error) => Err(self.explain(&error, store.data())),
        }
    }

    fn explain(&self, error: &wasmtime::Error, state: &State) -> PluginError {
        let limits = &self.limits;
        if error.downcast_ref::<LogBudget>().is_some() {
            return PluginError::LogBudget {
                lines_max: limits.log_lines_max,
            };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => return PluginError::Timeout(limits.call_timeout),
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
                bytes_max: limits.memory_bytes_max,
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

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({})", self.digest)
    }
}
