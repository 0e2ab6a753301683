//! A cluster that starts nothing and remembers what it was asked.

use crate::{Cluster, ClusterError, InstanceSpec, Phase, Status, check_name};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// What a [`FakeCluster`] was asked to do, with the instance's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Install(String),
    Stop(String),
    Destroy(String),
    WaitReady(String),
    Shutdown,
}

/// Instances are running as soon as they are installed. Behaves as the real ones do where an operation is repeated, or
/// asked of an instance that is not there.
#[derive(Debug, Default)]
pub struct FakeCluster(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    url: Option<String>,
    asked: Vec<Asked>,
    failures: VecDeque<(Asked, ClusterError)>,
    instances: HashMap<String, Phase>,
}

impl FakeCluster {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose instances are all at this URL: that of a fake gateway, say.
    pub fn at(url: impl Into<String>) -> Self {
        let fake = Self::new();
        fake.memory().url = Some(url.into());
        fake
    }

    /// The next time that it is asked this, it fails. Several times: as often.
    pub fn fail(&self, asked: Asked, error: ClusterError) {
        self.memory().failures.push_back((asked, error));
    }

    /// Everything so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.memory().asked.clone()
    }

    /// As if the machine had lost it.
    pub fn lose(&self, name: &str) {
        self.memory().instances.remove(name);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the question; `Err` where this one is to fail.
    fn ask(&self, name: &str, asked: Asked) -> Result<MutexGuard<'_, Memory>, ClusterError> {
        let mut memory = self.memory();
        memory.asked.push(asked.clone());
        check_name(name)?;
        match memory
            .failures
            .iter()
            .position(|(planned, _)| *planned == asked)
        {
            Some(at) => Err(memory
                .failures
                .remove(at)
                .map_or(ClusterError::Temporary("planned".into()), |(_, error)| {
                    error
                })),
            None => Ok(memory),
        }
    }
}

#[async_trait::async_trait]
impl Cluster for FakeCluster {
    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError> {
        let mut memory = self.ask(&spec.name, Asked::Install(spec.name.clone()))?;
        memory.instances.insert(spec.name.clone(), Phase::Running);
        Ok(memory
            .url
            .clone()
            .unwrap_or_else(|| format!("ws://{}.invalid:18789", spec.name)))
    }

    async fn stop(&self, name: &str) -> Result<(), ClusterError> {
        let mut memory = self.ask(name, Asked::Stop(name.into()))?;
        if let Some(phase) = memory.instances.get_mut(name) {
            *phase = Phase::Stopped;
        }
        Ok(())
    }

    async fn destroy(&self, name: &str) -> Result<(), ClusterError> {
        self.ask(name, Asked::Destroy(name.into()))?
            .instances
            .remove(name);
        Ok(())
    }

    async fn status(&self, name: &str) -> Status {
        let phase = self
            .memory()
            .instances
            .get(name)
            .copied()
            .unwrap_or(Phase::Gone);
        Status {
            phase,
            pid: None,
            memory_bytes: None,
            cpu_ms: None,
            up_seconds: None,
            restarts: 0,
            detail: String::new(),
        }
    }

    async fn wait_ready(&self, name: &str, _at_most: Duration) -> Result<(), ClusterError> {
        let memory = self.ask(name, Asked::WaitReady(name.into()))?;
        match memory.instances.get(name) {
            Some(Phase::Running) => Ok(()),
            _ => Err(ClusterError::Temporary(format!(
                "{name} is not running here"
            ))),
        }
    }

    async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>, ClusterError> {
        check_name(name)?;
        let there = self.memory().instances.contains_key(name);
        Ok(Vec::from_iter(
            (there && lines > 0).then(|| format!("{name}: a fake, with nothing to say")),
        ))
    }

    async fn follow_logs(
        &self,
        name: &str,
        lines: usize,
    ) -> Result<mpsc::Receiver<String>, ClusterError> {
        let (sender, receiver) = mpsc::channel(1);
        for line in self.logs(name, lines).await? {
            let _ = sender.try_send(line);
        }
        Ok(receiver)
    }

    async fn shutdown(&self) {
        self.memory().asked.push(Asked::Shutdown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> InstanceSpec {
        InstanceSpec {
            name: name.into(),
            gateway_token: "secret".into(),
            device_id: "device".into(),
            device_scopes: vec![],
        }
    }

    #[tokio::test]
    async fn it_remembers_what_it_was_asked_and_fails_as_planned() {
        let fake = FakeCluster::at("ws://127.0.0.1:1");
        fake.fail(
            Asked::Stop("a".into()),
            ClusterError::Temporary("busy".into()),
        );
        assert_eq!(fake.install(&spec("a")).await.unwrap(), "ws://127.0.0.1:1");
        fake.wait_ready("a", Duration::ZERO).await.unwrap();
        assert_eq!(fake.stop("a").await.unwrap_err().to_string(), "busy");
        fake.stop("a").await.unwrap();
        assert_eq!(fake.status("a").await.phase, Phase::Stopped);
        fake.wait_ready("a", Duration::ZERO).await.unwrap_err();
        fake.restart(&spec("a")).await.unwrap();
        fake.destroy("a").await.unwrap();
        assert_eq!(fake.status("a").await.phase, Phase::Gone);
        let name = || "a".to_owned();
        let stops = fake
            .asked()
            .iter()
            .filter(|asked| **asked == Asked::Stop(name()))
            .count();
        assert_eq!(stops, 3);
        assert_eq!(fake.asked().last(), Some(&Asked::Destroy(name())));
    }
}
