//! Everything that a request or an activity may need, made once a process.

use crate::{
    clock::Clock,
    config::Config,
    db::Db,
    id::{InstanceId, TenantId},
    instances::Gateways,
    marketplace::{self, revocations::Revocations},
    outbound::Outbound,
    shares::{PULLS_MAX, RequestShares, Shares},
    skills::standing::Standings,
    traces::live::Live,
    turns::WorkflowTurns,
    vault::{self, Vault},
};
use moka::future::Cache;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use tsunami_cluster::{Cluster, LocalCluster, LocalSettings};
use tsunami_durable::{CodecKeys, Durable, Settings};
use tsunami_plugin_host::{
    ArtifactCache, ArtifactKeys, Compiler, Limits, PluginHost, Schema, TenantLimits,
    adapter::Manifest,
};
use tsunami_provenance::{Registries, Sigstore};
use tsunami_sealed::Keyring;

/// Entries of each of the small caches below.
const CACHE_ENTRIES_MAX: u64 = 10_000;

/// Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// A compiled JSON Schema, by plugin digest and action.
type Validators = Cache<(String, String), Arc<Schema>>;
/// A journal's id, by instance and the gateway's boot.
type Journals = Cache<(InstanceId, String), String>;

struct Inner {
    config: Config,
    clock: Clock,
    db: Db,
    vault: Vault,
    durable: Durable,
    plugin_host: PluginHost,
    revocations: Revocations,
    registries: Registries,
    pulls: Shares,
    sigstore: Sigstore,
    cluster: Arc<dyn Cluster>,
    gateways: Gateways,
    live: Live,
    request_shares: RequestShares,
    workflow_turns: WorkflowTurns,
    outbox_wake: Notify,
    outbound: Outbound,
    standings: Standings,
    manifests: Cache<String, Arc<Manifest>>,
    validators: Validators,
    journals: Journals,
}

impl App {
    /// Connects to nothing yet: what is away is waited for when it is needed.
    pub async fn new(config: Config) -> anyhow::Result<Self> {
        config.require_servers()?;
        let db = Db::lazy(&config.database)?;
        let keyring = vault::keyring(&config.vault)?;
        let (current, codec_key) = keyring.subkey("temporal-payload", None).await?;
        let mut keys = CodecKeys::new(current, codec_key);
        for id in keyring.ids() {
            let (id, key) = keyring.subkey("temporal-payload", Some(&id)).await?;
            keys = keys.with_old(id, key);
        }
        let settings = Settings {
            url: config.temporal.url.clone(),
            namespace: config.temporal.namespace.clone(),
        };
        let plugin_host = plugin_host(&config, &keyring).await?;
        let tools = &config.instances.tools_dir;
        let cluster = LocalCluster::new(LocalSettings {
            data_dir: config.instances.data_dir.clone(),
            node: tools.join("node/bin/node"),
            openclaw_dir: tools.join("openclaw/node_modules/openclaw"),
            bridge_dir: config.instances.bridge_dir.clone(),
        })?;
        let stale_after = config.marketplace.revocations_stale_seconds;
        let revocations = Revocations::new(db.clone(), Duration::from_secs(stale_after.into()));
        Ok(Self(Arc::new(Inner {
            clock: Clock::system(),
            db,
            revocations,
            registries: marketplace::registries(&config.marketplace),
            pulls: Shares::of(PULLS_MAX),
            sigstore: marketplace::sigstore(&config.marketplace)?,
            vault: Vault::new(keyring),
            durable: Durable::new(settings, keys),
            plugin_host,
            cluster: Arc::new(cluster),
            gateways: Gateways::new(),
            live: Live::new(),
            request_shares: RequestShares::of(usize::try_from(config.http.requests_in_flight_max)?),
            workflow_turns: turns(&config)?,
            outbox_wake: Notify::new(),
            outbound: Outbound::new(&config.skills.private_network_hosts)?,
            standings: Standings::default(),
            manifests: Cache::new(CACHE_ENTRIES_MAX),
            validators: Cache::new(CACHE_ENTRIES_MAX),
            journals: Cache::new(CACHE_ENTRIES_MAX),
            config,
        })))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
    pub fn db(&self) -> &Db {
        &self.0.db
    }
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }
    pub fn durable(&self) -> &Durable {
        &self.0.durable
    }
    pub fn plugin_host(&self) -> &PluginHost {
        &self.0.plugin_host
    }
    /// What a tenant's calls into plugins may take, below the operator's ceiling.
    pub fn plugin_limits(&self, tenant: TenantId) -> TenantLimits {
        let Some(limits) = self.0.config.plugins.tenants.get(&tenant) else {
            return TenantLimits::default();
        };
        TenantLimits {
            call_timeout: limits
                .call_timeout_ms
                .map(|ms| Duration::from_millis(ms.into())),
            memory_bytes_max: limits
                .call_memory_bytes_max
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            calls_running_max: limits
                .calls_running_max
                .map(|calls| usize::try_from(calls).unwrap_or(usize::MAX)),
        }
    }
    /// What skills' calls are decided by.
    pub fn standings(&self) -> &Standings {
        &self.0.standings
    }
    /// Which plugins are not run any more.
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }
    /// Each tenant's places among the pulls from registries.
    pub(crate) fn pulls(&self) -> &Shares {
        &self.0.pulls
    }
    pub fn registries(&self) -> &Registries {
        &self.0.registries
    }
    pub fn sigstore(&self) -> &Sigstore {
        &self.0.sigstore
    }
    pub fn cluster(&self) -> &dyn Cluster {
        &*self.0.cluster
    }
    pub fn gateways(&self) -> &Gateways {
        &self.0.gateways
    }
    pub fn live(&self) -> &Live {
        &self.0.live
    }
    /// What each tenant has of the requests that are served at once.
    pub(crate) fn request_shares(&self) -> &RequestShares {
        &self.0.request_shares
    }
    /// Whose workflow this process's worker moves next.
    pub fn workflow_turns(&self) -> &WorkflowTurns {
        &self.0.workflow_turns
    }
    /// Wakes the outbox's relay, where it runs in this process.
    pub fn outbox_wake(&self) -> &Notify {
        &self.0.outbox_wake
    }
    /// For the gateway's own requests to outside services.
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }
    pub fn manifests(&self) -> &Cache<String, Arc<Manifest>> {
        &self.0.manifests
    }
    pub fn validators(&self) -> &Validators {
        &self.0.validators
    }
    pub fn journals(&self) -> &Journals {
        &self.0.journals
    }
}

fn turns(config: &Config) -> anyhow::Result<WorkflowTurns> {
    let moved_max = config.tasks.workflows_moved_max.map(usize::try_from);
    let places = usize::try_from(config.tasks.activities_at_once_max)?;
    Ok(WorkflowTurns::new(moved_max.transpose()?, places))
}

/// The hidden command that compiles one plugin, in a process of its own (`cli/mod.rs`).
pub const COMPILE_COMMAND: &str = "compile-plugin";

async fn plugin_host(config: &Config, keyring: &Keyring) -> anyhow::Result<PluginHost> {
    let settings = &config.plugins;
    let mut limits = Limits::default();
    let bytes_max = usize::try_from(settings.component_bytes_max)?;
    limits.small.component_bytes_max = limits.small.component_bytes_max.min(bytes_max);
    limits.large.component_bytes_max = bytes_max;
    limits.small.call_timeout = Duration::from_millis(settings.call_timeout_ms.into());
    limits.small.memory_bytes_max = usize::try_from(settings.call_memory_bytes_max)?;
    limits.large.call_timeout = Duration::from_millis(settings.large_call_timeout_ms.into());
    limits.large.memory_bytes_max = usize::try_from(settings.large_call_memory_bytes_max)?;
    let purpose = "plugin-artifact";
    let (current, key) = keyring.subkey(purpose, None).await?;
    let mut keys = ArtifactKeys::new(current, key);
    for id in keyring.ids() {
        let (id, key) = keyring.subkey(purpose, Some(&id)).await?;
        keys = keys.with_old(id, key);
    }
    let folder = config.plugin_cache_dir();
    let cache = ArtifactCache::open(&folder, keys, settings.cache_bytes_max).map_err(|e| {
        anyhow::anyhow!(
            "compiled plugins cannot be kept in {}: {e}. Name another folder with the setting plugins.cache_dir (TSUNAMI_PLUGINS__CACHE_DIR)",
            folder.display()
        )
    })?;
    let compiler = Compiler::this_program([COMPILE_COMMAND])?;
    PluginHost::new(limits, compiler, Some(cache))
        .map_err(|e| anyhow::anyhow!("the plugin sandbox cannot be set up: {e}"))
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}
