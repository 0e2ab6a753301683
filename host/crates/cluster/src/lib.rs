#![doc = include_str!("../README.md")]

#[cfg(feature = "testing")]
mod fake;
mod local;

#[cfg(feature = "testing")]
pub use fake::{Asked, FakeCluster};
pub use local::{LocalCluster, LocalSettings};

use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::mpsc;

/// An instance's name, in characters, at most: it is also a name in Kubernetes (RFC 1123).
pub const NAME_CHARS_MAX: usize = 63;

/// What an instance is made from.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// `openclaw-c024fddd`: lower-case letters, digits and dashes, a letter first.
    pub name: String,
    /// The gateway's shared token.
    pub gateway_token: SecretString,
    /// The control plane's device, which the bridge lets in: 64 lower-case hexadecimal digits.
    pub device_id: String,
    pub device_scopes: Vec<String>,
}

/// How an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It answers that it is ready.
    Running,
    /// It should run, and does not answer yet, or not any more.
    Starting,
    /// It has data and no process.
    Stopped,
    /// There is nothing of it.
    Gone,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    pub phase: Phase,
    pub pid: Option<i32>,
    /// Resident memory of the gateway and its helpers.
    pub memory_bytes: Option<u64>,
    /// Processor time used since the start.
    pub cpu_ms: Option<u64>,
    pub up_seconds: Option<u64>,
    /// How often it had to be started again since `install`.
    pub restarts: u32,
    /// For people: why it is not running, say.
    pub detail: String,
}

#[derive(Debug, Clone, thiserror::Error)]
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
    /// Makes the instance and starts it; gives the URL of its gateway. Does not wait until it is ready.
    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError>;

    /// Stops it and keeps its data. Calls under way are finished first, within limits.
    async fn stop(&self, name: &str) -> Result<(), ClusterError>;

    /// Stops it and starts it again; gives the URL, which may be another one.
    async fn restart(&self, spec: &InstanceSpec) -> Result<String, ClusterError> {
        self.stop(&spec.name).await?;
        self.install(spec).await
    }

    /// Stops it, removes its data, and proves that both are gone.
    async fn destroy(&self, name: &str) -> Result<(), ClusterError>;

    async fn status(&self, name: &str) -> Status;

    /// Waits until the gateway says that it is ready. Returns early where it never will be.
    async fn wait_ready(&self, name: &str, at_most: Duration) -> Result<(), ClusterError>;

    /// The last lines of the gateway's log.
    async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>, ClusterError>;

    /// The last lines, and each further one as it comes, until the receiver is dropped.
    async fn follow_logs(
        &self,
        name: &str,
        lines: usize,
    ) -> Result<mpsc::Receiver<String>, ClusterError>;

    /// Stops what would not run without this process; what does, stays.
    async fn shutdown(&self);
}

/// Refuses a name that could mean anything but one folder, or one release.
fn check_name(name: &str) -> Result<(), ClusterError> {
    let fits = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
    };
    if name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= NAME_CHARS_MAX
        && name.chars().all(fits)
    {
        return Ok(());
    }
    Err(ClusterError::Permanent(format!(
        "`{name}` is no name of an instance: use at most {NAME_CHARS_MAX} lower-case letters, digits and dashes, a letter first"
    )))
}

/// Refuses an id that the bridge does not take: given one, the gateway would refuse its whole configuration, and not
/// say why.
fn check_device_id(id: &str) -> Result<(), ClusterError> {
    const DIGITS: usize = 64;
    let fits = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    if id.len() == DIGITS && id.bytes().all(fits) {
        return Ok(());
    }
    Err(ClusterError::Permanent(format!(
        "device_id `{id}` is no id of a device: it must be {DIGITS} lower-case hexadecimal digits"
    )))
}

#[cfg(test)]
mod tests {
    use super::{check_device_id, check_name};

    #[test]
    fn a_device_id_is_what_the_bridge_takes() {
        check_device_id(&"0f".repeat(32)).unwrap();
        for bad in [
            "",
            "d1",
            &"0F".repeat(32),
            &"0g".repeat(32),
            &"0f".repeat(33),
        ] {
            let error = check_device_id(bad).unwrap_err().to_string();
            assert!(error.contains("device_id"), "{error}");
        }
        // Its own word for it.
        let schema = include_str!("../../../../plugins/openclaw-bridge/openclaw.plugin.json");
        assert!(schema.contains(r#""pattern": "^[0-9a-f]{64}$""#));
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        check_name("openclaw-c024fddd").unwrap();
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "-a",
            "9a",
            "A",
            "a b",
            "é",
            &"a".repeat(64),
        ] {
            check_name(bad).unwrap_err();
        }
    }
}
