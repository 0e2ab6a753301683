use crate::{manifest::ManifestError, turns::Busy};
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
        "the component imports {}, which plugins do not get. A plugin is a pure function: take what it needs from the call. Rust imports these where some code may open a file or a connection, even if it is never called; JavaScript and Python are built with `--backend-qjs-stub-wasi` and `--stub-wasi`",
        listed(.0)
    )]
    Import(Vec<String>),
    #[error(
        "the component imports something of an interface that plugins get, which is not in it or has another type: {0}"
    )]
    Link(String),
    #[error(
        "the component exports none of servicetsunami:plugin/skill-adapter, credential-schema and routing-policy @0.1.0, or with other types: {0}"
    )]
    Exports(String),
    #[error("the component was not compiled: {0}")]
    Compile(#[from] CompileError),
    #[error("too many plugins are compiled at once; try again")]
    Busy,
}

impl LoadError {
    /// Whether the same file may load later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Compile(CompileError::Slow { .. } | CompileError::Unavailable(_))
        )
    }
}

impl From<Busy> for LoadError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// What became of a compilation that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error(
        "it takes more than {seconds} s of a processor. Split its largest functions, or build it with `opt-level = \"s\"`"
    )]
    Time { seconds: u64 },
    #[error(
        "it was not done within {seconds} s: the gateway's machine is busy, and a compilation yields to all else"
    )]
    Slow { seconds: u64 },
    #[error("it takes more than {bytes_max} bytes of memory. Split its largest functions")]
    Memory { bytes_max: u64 },
    #[error(
        "it grows to more than {bytes_max} bytes. Build it with `opt-level = \"s\"`, `lto = true` and fewer dependencies"
    )]
    ArtifactTooLarge { bytes_max: usize },
    #[error("the compiler ended without an answer ({0})")]
    Died(String),
    #[error("the compiler cannot be started: {0}")]
    Unavailable(String),
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

impl From<Busy> for PluginError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// Why a component that loads is not taken for a plugin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("`{function}` of the plugin failed: {error}")]
    Failed {
        function: &'static str,
        error: PluginError,
    },
    #[error(
        "`{function}` of the plugin answers differently from call to call. It must depend on nothing, neither on time nor on chance"
    )]
    Differs { function: &'static str },
    #[error("what the plugin says of itself is not well-formed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Manifest(Vec<ManifestError>),
}
