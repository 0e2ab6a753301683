use std::time::Duration;

/// Why a file is not loaded as a plugin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the file has {bytes} bytes; a plugin may have {max}. Build it with `--release`, `lto = true` and `strip = true`"
    )]
    TooLarge { bytes: usize, max: usize },
    #[error(
        "the file is a WebAssembly core module, not a component. Build it with `--target wasm32-wasip2`"
    )]
    CoreModule,
    #[error(
        "the file is not a WebAssembly component (it begins with {begins}). Build one with `cargo build --release --target wasm32-wasip2`"
    )]
    NotAComponent { begins: String },
    #[error("the component is not valid: {0}")]
    Invalid(String),
    #[error("the component asks for more than a plugin may have: {0}")]
    TooMuch(String),
    #[error(
        "the component imports `{0}`, which plugins do not get. A plugin is a pure function: take what it needs from the call"
    )]
    Import(String),
    #[error(
        "the component exports none of servicetsunami:plugin/skill-adapter, credential-schema and routing-policy @0.1.0, or with other types: {0}"
    )]
    Exports(String),
}

/// Why a call did not give an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PluginError {
    #[error("the plugin ran longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the plugin asked for more than {bytes_max} bytes of memory")]
    Memory { bytes_max: usize },
    #[error("the plugin's stack overflowed; it calls itself too deeply")]
    Stack,
    #[error("the plugin's answer is larger than {bytes_max} bytes")]
    AnswerTooLarge { bytes_max: usize },
    #[error("the plugin wrote more than {lines_max} log lines")]
    LogBudget { lines_max: usize },
    #[error("the plugin failed: {0}")]
    Trap(String),
    #[error("the plugin does not export {0}")]
    NotExported(&'static str),
    #[error("too many plugin calls run at once; try again")]
    Busy,
}

impl PluginError {
    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }
}
