//! Asks a gateway of this machine whether it is ready.

use crate::ClusterError;
use std::time::Duration;

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct Probe {
    http: reqwest::Client,
    port: u16,
}

#[derive(serde::Deserialize)]
struct Answer {
    ready: bool,
}

impl Probe {
    pub fn new(port: u16) -> Result<Self, ClusterError> {
        // One TLS provider for everything; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[expect(
            clippy::disallowed_methods,
            reason = "probes its own child processes on loopback, and nothing else"
        )]
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PROBE_TIMEOUT)
            .build();
        let http = http.map_err(|error| ClusterError::Permanent(error.to_string()))?;
        Ok(Self { http, port })
    }

    /// The same client, for another gateway.
    pub fn of(&self, port: u16) -> Self {
        Self {
            http: self.http.clone(),
            port,
        }
    }

    /// Its word alone counts: an answer of another program at that port does not.
    pub async fn is_ready(&self) -> bool {
        let Ok(response) = self
            .http
            .get(format!("http://127.0.0.1:{}/readyz", self.port))
            .send()
            .await
        else {
            return false;
        };
        response.status().is_success()
            && response
                .json()
                .await
                .is_ok_and(|answer: Answer| answer.ready)
    }

    pub async fn until_ready(&self) {
        while !self.is_ready().await {
            tokio::time::sleep(POLL).await;
        }
    }
}
