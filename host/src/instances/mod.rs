//! # Instances
//!
//! ## What it is
//! The tenant's own OpenClaw gateway, which carries out every outside action of the tenant and nobody else's.
//!
//! ## Life
//! provisioning -> running -> stopping -> stopped; error where a step failed for good; destroying -> destroyed. A
//! request says what is desired; [`workflow::OpenClawProvisionWorkflow`] brings it about. A round every minute
//! ([`keep`]) brings back what should run and does not, as after a start of the worker, and keeps `health` current.
//!
//! ## Always true
//! - A tenant has at most one instance that is not destroyed (a unique index).
//! - The gateway's token and our device key are sealed in the row, and in the environment of that one gateway.
//! - The connection to an instance is one a process, shared by all calls ([`Gateways`]).
//! - Each activity brings about a state, and so may run again.
//! - One thing at a time is done to an instance: a request finds the status that the one before it has set, under a
//!   lock of the row, and the workflows of one instance bear one id (`what_is_asked_at_once_is_done_once`).
//! - An instance that does not come back keeps no other one down (`one_that_does_not_come_back_keeps_no_other_down`).
//!
//! ## To change
//! - Where instances run: another `tsunami_cluster::Cluster`, [`crate::config::Driver`], and the choice in
//!   [`App::new`].
//! - What can be asked of an instance: [`workflow::Operation`], its arm in the workflow, and the statuses from which it
//!   is allowed (`http::change`).

pub mod activities;
pub mod http;
pub mod keep;
mod store;
pub mod workflow;

use crate::{
    app::App,
    db::TenantTx,
    id::{InstanceId, TenantId},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    vault::SealedValue,
};
use moka::future::Cache;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tsunami_cluster::InstanceSpec;
use tsunami_openclaw::{Client, DeviceIdentity, Endpoint, Options, SCOPES_WANTED};
use tsunami_sealed::Aad;
use zeroize::Zeroizing;

pub use store::InstanceRow;

/// Connections kept open; the least used are closed.
const GATEWAYS_CONNECTED_MAX: u64 = 2000;
const GATEWAY_IDLE_MAX: Duration = Duration::from_secs(3600);

/// What is sealed in an instance's row.
#[derive(Serialize, Deserialize)]
struct Secrets {
    gateway_token: Zeroizing<String>,
    /// Hexadecimal.
    device_key: Zeroizing<String>,
}

impl Secrets {
    fn generate() -> Self {
        Self {
            gateway_token: Zeroizing::new(hex::encode(crate::id::random_bytes::<32>())),
            device_key: Zeroizing::new(hex::encode(
                DeviceIdentity::generate().to_secret_bytes().as_slice(),
            )),
        }
    }

    fn device(&self) -> Result<DeviceIdentity, Problem> {
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(self.device_key.as_bytes(), secret.as_mut_slice())
            .map_err(|e| Problem::internal(&e))?;
        Ok(DeviceIdentity::from_secret_bytes(&secret))
    }
}

fn secrets_aad(tenant: TenantId, id: InstanceId) -> Aad {
    Aad::new("instance-secrets")
        .field(tenant.uuid().as_bytes())
        .field(id.uuid().as_bytes())
}

async fn open_secrets(app: &App, tx: &mut TenantTx, row: &InstanceRow) -> Result<Secrets, Problem> {
    let sealed = SealedValue {
        data_key: row.data_key_id,
        bytes: row.encrypted_secrets.clone(),
    };
    let bytes = app
        .vault()
        .open(tx, &secrets_aad(tx.tenant(), row.id), &sealed)
        .await?;
    serde_json::from_slice(&bytes).map_err(|e| Problem::internal(&e))
}

/// What the cluster makes the instance from.
async fn spec_of(app: &App, tx: &mut TenantTx, row: &InstanceRow) -> Result<InstanceSpec, Problem> {
    let secrets = open_secrets(app, tx, row).await?;
    Ok(InstanceSpec {
        name: row.name.clone(),
        gateway_token: SecretString::from(secrets.gateway_token.as_str()),
        device_id: secrets.device()?.id().to_owned(),
        device_scopes: SCOPES_WANTED.map(String::from).to_vec(),
    })
}

/// `openclaw-c024fddd`: from the end of the id, where a version 7 UUID is random.
fn name_of(tenant: TenantId) -> String {
    let hex = tenant.uuid().simple().to_string();
    format!("openclaw-{}", &hex[hex.len() - 8..])
}

/// The open connections, by instance and address.
#[derive(Clone)]
pub struct Gateways(Cache<(InstanceId, String), Client>);

impl Gateways {
    pub fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(GATEWAYS_CONNECTED_MAX)
                .time_to_idle(GATEWAY_IDLE_MAX)
                .build(),
        )
    }

    async fn at_hand(&self, row: &InstanceRow) -> Option<Client> {
        let url = row.internal_url.clone()?;
        self.0.get(&(row.id, url)).await
    }

    /// The connection to an instance, made where there is none.
    async fn client(
        &self,
        app: &App,
        tx: &mut TenantTx,
        row: &InstanceRow,
    ) -> Result<Client, Problem> {
        let url = row.internal_url.clone().ok_or_else(|| not_running(row))?;
        let key = (row.id, url.clone());
        if let Some(client) = self.0.get(&key).await {
            return Ok(client);
        }
        let secrets = open_secrets(app, tx, row).await?;
        let endpoint = Endpoint {
            url,
            token: SecretString::from(secrets.gateway_token.as_str()),
            device: secrets.device()?,
        };
        Ok(self
            .0
            .get_with(key, async { Client::new(endpoint, Options::default()) })
            .await)
    }

    /// Closes every connection, before the instances of this process are stopped.
    pub fn close_all(&self) {
        self.0.invalidate_all();
    }

    async fn forget(&self, row: &InstanceRow) {
        if let Some(url) = &row.internal_url {
            self.0.invalidate(&(row.id, url.clone())).await;
        }
    }
}

impl Default for Gateways {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gateways({})", self.0.entry_count())
    }
}

/// An instance that can be called.
#[derive(Clone)]
pub struct Reachable {
    pub id: InstanceId,
    pub name: String,
    pub client: Client,
}

/// The tenant's running instance, for a call.
///
/// # Errors
/// 409 where the tenant has none, or it was stopped; 503 while it is being made or has failed.
pub async fn reach(
    app: &App,
    tenant: TenantId,
    row: Option<&InstanceRow>,
) -> Result<Reachable, Problem> {
    let row = row.ok_or_else(|| {
        Problem::conflict(
            "no_instance",
            "Your organization has no OpenClaw instance. Deploy one with POST /api/v1/instances.",
        )
    })?;
    if row.status != "running" {
        return Err(not_running(row));
    }
    let client = match app.gateways().at_hand(row).await {
        Some(client) => client,
        None => {
            let mut tx = app.db().tenant(tenant).await?;
            app.gateways().client(app, &mut tx, row).await?
        }
    };
    Ok(Reachable {
        id: row.id,
        name: row.name.clone(),
        client,
    })
}

/// The tenant's instance: the one that is not destroyed.
pub async fn live(tx: &mut TenantTx) -> Result<Option<InstanceRow>, sqlx::Error> {
    store::live(tx).await
}

fn not_running(row: &InstanceRow) -> Problem {
    match row.status.as_str() {
        "stopped" => Problem::conflict(
            "instance_stopped",
            "The OpenClaw instance is stopped. Start it with POST /api/v1/instances/{id}/start.",
        ),
        "error" => Problem::unavailable(
            "The OpenClaw instance, which is in error,",
            RETRY_AFTER_DEFAULT,
        )
        .with("instance_error", &row.error),
        other => Problem::unavailable(
            &format!("The OpenClaw instance ({other})"),
            RETRY_AFTER_DEFAULT,
        ),
    }
}
