use crate::turns::TurnLimits;
use std::time::Duration;

/// What kind of guest a component is, by what it needs. A small one is what Rust compiles to; a large one brings
/// the interpreter of its language along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Small,
    Large,
}

impl Class {
    /// The smallest first.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];
}

/// What plugins may take, and calls of them: the operator's ceiling.
#[derive(Clone, Debug)]
pub struct Limits {
    pub small: ClassLimits,
    pub large: ClassLimits,
    /// What one answer may hold, in bytes, as it is copied out of the guest.
    pub answer_bytes_max: usize,
    /// Log lines of one call.
    pub log_lines_max: usize,
    /// One log line, in bytes; what is longer is cut.
    pub log_line_bytes_max: usize,
    /// Calls at one instant, over all plugins, and how many may wait.
    pub calls: TurnLimits,
    /// Compilations at one instant, and how many may wait.
    pub compilations: TurnLimits,
    /// Compiled components kept in memory, in bytes of their code; the least used are loaded again when needed.
    pub loaded_bytes_max: u64,
    /// The same by their number: each holds a descriptor, of which a process has few.
    pub loaded_max: u32,
}

/// The same for one class of components.
#[derive(Clone, Debug)]
pub struct ClassLimits {
    /// The component's file, in bytes.
    pub component_bytes_max: usize,
    /// What it compiles to, in bytes.
    pub artifact_bytes_max: usize,
    /// Processor time of its compilation, in seconds.
    pub compile_cpu_seconds_max: u32,
    /// Address space of its compilation, in bytes.
    pub compile_memory_bytes_max: u64,
    /// Functions of all its core modules together.
    pub functions_max: u64,
    /// The body of one function, in bytes.
    pub function_bytes_max: u64,
    /// Core modules that are instantiated.
    pub core_instances_max: u32,
    /// All linear memories of one instance together as they begin, in bytes.
    pub memory_minimum_bytes_max: u64,
    /// All linear memories of one instance together, in bytes.
    pub memory_bytes_max: usize,
    /// All tables of one instance together, in elements.
    pub table_elements_max: usize,
    /// One call, instantiation included; a multiple of 1 ms, the epoch's tick.
    pub call_timeout: Duration,
    /// Places for instances: above the calls at one instant, so that a plugin that is called often finds the
    /// place that it had.
    pub slots: u32,
    /// Kept resident of each place, in bytes: resetting this much costs a copy and no system call.
    pub keep_resident_bytes: usize,
}

/// The stack of a guest, in bytes. Callers need a thread of at least 2 MiB.
pub const STACK_BYTES_MAX: usize = 512 << 10;
/// Local variables of one function, the parameters not counted.
pub const LOCALS_MAX: u64 = 1000;
/// Modules and components within one another.
pub const NESTING_MAX: usize = 8;
/// A compilation by the clock on the wall, on a machine that is busy with other things.
pub const COMPILE_TIME_MAX: Duration = Duration::from_secs(60);
/// Linear memories and tables of one component.
pub const MEMORIES_MAX: u32 = 4;
pub const TABLES_MAX: u32 = 8;

impl Limits {
    pub fn of(&self, class: Class) -> &ClassLimits {
        match class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            small: ClassLimits {
                component_bytes_max: 4 << 20,
                artifact_bytes_max: 16 << 20,
                compile_cpu_seconds_max: 10,
                compile_memory_bytes_max: 2 << 30,
                functions_max: 20_000,
                function_bytes_max: 256 << 10,
                core_instances_max: 8,
                memory_minimum_bytes_max: 8 << 20,
                memory_bytes_max: 32 << 20,
                table_elements_max: 10_000,
                call_timeout: Duration::from_millis(100),
                slots: 1000,
                keep_resident_bytes: 1 << 20,
            },
            large: ClassLimits {
                component_bytes_max: 24 << 20,
                artifact_bytes_max: 64 << 20,
                compile_cpu_seconds_max: 30,
                compile_memory_bytes_max: 2 << 30,
                functions_max: 40_000,
                function_bytes_max: 1 << 20,
                core_instances_max: 64,
                memory_minimum_bytes_max: 32 << 20,
                memory_bytes_max: 128 << 20,
                table_elements_max: 40_000,
                call_timeout: Duration::from_secs(1),
                slots: 32,
                keep_resident_bytes: 1 << 20,
            },
            answer_bytes_max: 1 << 20,
            log_lines_max: 100,
            log_line_bytes_max: 1024,
            calls: TurnLimits::of_calls(processors),
            compilations: TurnLimits::of_compilations(processors),
            loaded_bytes_max: 1 << 30,
            loaded_max: 512,
        }
    }
}

/// What one tenant's calls may take; never more than [`Limits`], whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    pub call_timeout: Option<Duration>,
    pub memory_bytes_max: Option<usize>,
    /// Calls at one instant.
    pub calls_running_max: Option<usize>,
}

/// What one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallLimits {
    pub timeout: Duration,
    pub memory_bytes_max: usize,
}

impl CallLimits {
    pub fn of(class: &ClassLimits) -> Self {
        Self {
            timeout: class.call_timeout,
            memory_bytes_max: class.memory_bytes_max,
        }
    }

    /// The tenant's, below these.
    pub fn within(self, tenant: &TenantLimits) -> Self {
        Self {
            timeout: tenant
                .call_timeout
                .map_or(self.timeout, |t| t.min(self.timeout)),
            memory_bytes_max: tenant
                .memory_bytes_max
                .map_or(self.memory_bytes_max, |m| m.min(self.memory_bytes_max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_may_have_less_than_the_operator_allows_and_never_more() {
        let ceiling = CallLimits::of(&Limits::default().small);
        let less = TenantLimits {
            call_timeout: Some(Duration::from_millis(5)),
            memory_bytes_max: Some(1 << 20),
            calls_running_max: None,
        };
        let within = ceiling.within(&less);
        assert_eq!(within.timeout, Duration::from_millis(5));
        assert_eq!(within.memory_bytes_max, 1 << 20);
        let more = TenantLimits {
            call_timeout: Some(Duration::from_secs(60)),
            memory_bytes_max: Some(usize::MAX),
            calls_running_max: None,
        };
        assert_eq!(ceiling.within(&more), ceiling);
        assert_eq!(ceiling.within(&TenantLimits::default()), ceiling);
    }
}
