#![doc = include_str!("../README.md")]

mod artifacts;
mod bindings;
mod compile;
mod engine;
mod error;
mod file;
mod imports;
mod intake;
mod limits;
mod manifest;
mod plugin;
mod sandbox;
mod schema;
mod streams;
mod turns;
mod wasi;
mod worker;

pub use artifacts::{ArtifactCache, ArtifactKeys};
pub use bindings::{adapter, credentials, policy, types};
pub use compile::Compiler;
pub use engine::{AT_ONCE, PluginHost};
pub use error::{CompileError, IntakeError, LoadError, PluginError};
pub use file::check_file;
pub use intake::Described;
pub use limits::{Class, ClassLimits, Limits, STACK_BYTES_MAX, TenantLimits};
pub use manifest::{
    ManifestError, check_credential_schema, check_manifest, check_policy, host_allowed,
    is_unprintable,
};
pub use plugin::{Called, Kinds, LogLine, Plugin};
pub use schema::{Schema, SchemaError, SchemaViolation};
pub use turns::{Busy, TenantKey, Turn, TurnLimits, Turns};
pub use worker::compile_worker;
