#![doc = include_str!("../README.md")]

mod local;

pub use local::{LocalCluster, LocalSettings};

use secrecy::SecretString;
use std::time::Duration;

/// What an instance is made from.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `openclaw-c024fddd`
    pub name: String,
    /// The gateway's shared token.
    pub gateway_token: SecretString,
    /// The control plane's device, which the bridge lets in.
    pub device_id: String,
    pub device_scopes: Vec<String>,
}

/// How an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Running,
    Starting,
    Stopped,
    Gone,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    pub phase: Phase,
    pub memory_bytes: Option<u64>,
    /// For people: why it is not running, say.
    pub detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Trying again may help.
    #[error("{0}")]
    Temporary(String),
    /// Somebody has to change something first.
    #[error("{0}")]
    Permanent(String),
}

/// A place where gateways run. Every operation may be repeated: it brings about a state.
#[async_trait::async_trait]
pub trait Cluster: Send + Sync {
    /// Makes the instance and starts it; gives the URL of its gateway.
    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError>;
    /// Stops it and keeps its data.
    async fn stop(&self, name: &str) -> Result<(), ClusterError>;
    /// Stops it, removes its data, and proves that both are gone.
    async fn destroy(&self, name: &str) -> Result<(), ClusterError>;
    async fn status(&self, name: &str) -> Status;
    /// Waits until the gateway says that it is ready.
    async fn wait_ready(&self, name: &str, at_most: Duration) -> Result<(), ClusterError>;
    /// The last lines of the gateway's log.
    async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>, ClusterError>;
    /// Ends what belongs to this process; what outlives it stays.
    async fn shutdown(&self);
}
