use std::time::Duration;

/// What one plugin, and one call of it, may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The component's file, in bytes.
    pub component_bytes_max: usize,
    /// One call, instantiation included; a multiple of 1 ms, the epoch's tick.
    pub call_timeout: Duration,
    /// All linear memories of one instance together, in bytes.
    pub memory_bytes_max: usize,
    /// All tables of one instance together, in elements.
    pub table_elements_max: usize,
    /// What one answer may hold, in bytes, as it is copied out of the guest.
    pub answer_bytes_max: usize,
    /// Log lines of one call.
    pub log_lines_max: usize,
    /// One log line, in bytes; what is longer is cut.
    pub log_line_bytes_max: usize,
    /// The stack of the guest, in bytes. Callers need a thread of at least 2 MiB.
    pub stack_bytes_max: usize,
    /// Calls that run at one instant, over all plugins.
    pub calls_in_flight_max: u32,
    /// Compiled components kept in memory; the least used are compiled again when needed.
    pub plugins_cached_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes_max: 4 << 20,
            call_timeout: Duration::from_millis(20),
            memory_bytes_max: 32 << 20,
            table_elements_max: 10_000,
            answer_bytes_max: 1 << 20,
            log_lines_max: 100,
            log_line_bytes_max: 1024,
            stack_bytes_max: 512 << 10,
            calls_in_flight_max: 256,
            plugins_cached_max: 1000,
        }
    }
}
