#![doc = include_str!("../README.md")]

mod bindings;
mod engine;
mod error;
mod limits;
mod manifest;
mod plugin;
mod sandbox;

pub use bindings::{adapter, credentials, policy, types};
pub use engine::PluginHost;
pub use error::{LoadError, PluginError};
pub use limits::Limits;
pub use manifest::{
    ManifestError, check_credential_schema, check_manifest, check_policy, host_allowed,
};
pub use plugin::{Called, Kinds, LogLine, Plugin};
