use crate::{
    ArtifactCache, Class, ClassLimits, Compiler, Limits, LoadError, Plugin, PluginError, TenantKey,
    TenantLimits, Turn, Turns,
    compile::{Artifact, refusal},
    file::check_file,
    limits::{MEMORIES_MAX, STACK_BYTES_MAX, TABLES_MAX},
    sandbox,
};
use moka::future::Cache;
use sha2::{Digest, Sha256};
use std::{
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::coop::consume_budget;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};

/// The epoch's tick: the resolution of [`ClassLimits::call_timeout`].
const TICK: Duration = Duration::from_millis(1);
/// How long work may take, of the processor, on a thread that serves others too.
pub const AT_ONCE: Duration = Duration::from_millis(2);
/// What wasmtime keeps of an instance besides its memories and tables, in bytes.
const CORE_INSTANCE_BYTES_MAX: usize = 1 << 20;
const COMPONENT_INSTANCE_BYTES_MAX: usize = 4 << 20;

/// Loads plugins, keeps what was compiled, and calls them in turn. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost(Arc<Inner>);

struct Inner {
    small: Pool,
    large: Pool,
    /// What machine code must have been made for, to be loaded here.
    engine_key: String,
    limits: Arc<Limits>,
    compiler: Compiler,
    artifacts: Option<ArtifactCache>,
    loaded: Cache<String, Arc<Plugin>>,
    calls: Turns,
    compilations: Turns,
    compiled: AtomicU64,
}

/// The places of one class of guests, and what they are linked with.
struct Pool {
    engine: Engine,
    linker: Linker<sandbox::State>,
}

impl PluginHost {
    /// # Errors
    /// Where this machine gives no address space, even for instances made one at a time.
    pub fn new(
        limits: Limits,
        compiler: Compiler,
        artifacts: Option<ArtifactCache>,
    ) -> wasmtime::Result<Self> {
        let (small, large) = (Pool::new(&limits.small)?, Pool::new(&limits.large)?);
        start_ticking(&small.engine, &large.engine);
        // Nothing weighs so little that more would fit in than there may be.
        let least = limits.loaded_bytes_max / u64::from(limits.loaded_max.max(1));
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        let loaded = Cache::builder()
            .max_capacity(limits.loaded_bytes_max)
            .weigher(move |_, plugin: &Arc<Plugin>| plugin.weight().max(least))
            .build();
        Ok(Self(Arc::new(Inner {
            small,
            large,
            engine_key: engine_key(&compiling_engine()?),
            calls: Turns::new(limits.calls),
            compilations: Turns::new(limits.compilations),
            limits: Arc::new(limits),
            compiler,
            artifacts,
            loaded,
            compiled: AtomicU64::new(0),
        })))
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Compilations that were begun.
    pub fn compiled(&self) -> u64 {
        self.0.compiled.load(Ordering::Relaxed)
    }

    /// Kept artifacts that were not loaded because their mark was wrong.
    pub fn artifacts_rejected(&self) -> u64 {
        self.0.artifacts.as_ref().map_or(0, ArtifactCache::rejected)
    }

    /// The plugin with this digest, if it is loaded.
    pub async fn loaded(&self, digest: &str) -> Option<Arc<Plugin>> {
        self.0.loaded.get(digest).await
    }

    /// What an engine of ours must have been made for, to load an artifact.
    pub fn engine_key(&self) -> &str {
        &self.0.engine_key
    }

    /// Loads a component: as it is kept in memory, as it was compiled before, or compiled now by a child process,
    /// one at a time for each tenant.
    ///
    /// # Errors
    /// What is wrong with the component; [`LoadError::is_transient`] where it may load later.
    pub async fn load(&self, tenant: TenantKey, bytes: Vec<u8>) -> Result<Arc<Plugin>, LoadError> {
        let bytes = Arc::new(bytes);
        let limits = self.0.limits.clone();
        let hashed = bytes.clone();
        let digest = aside(move || hex::encode(Sha256::digest(&*hashed))).await?;
        if let Some(plugin) = self.loaded(&digest).await {
            return Ok(plugin);
        }
        let checked = bytes.clone();
        let class = aside(move || check_file(&checked, &limits)).await??;
        if let Some(plugin) = self.kept(&digest, class).await? {
            self.0.loaded.insert(digest, plugin.clone()).await;
            return Ok(plugin);
        }
        let _turn = self.0.compilations.take(tenant, None).await?;
        // Whoever asks for the same at the same time waits here for one compilation.
        let made = self.compile(&digest, class, &bytes);
        let loaded = self.0.loaded.try_get_with_by_ref(&digest, made).await;
        loaded.map_err(|error| LoadError::clone(&error))
    }

    /// As it was compiled before.
    async fn kept(&self, digest: &str, class: Class) -> Result<Option<Arc<Plugin>>, LoadError> {
        let (host, digest) = (self.clone(), digest.to_owned());
        aside(move || {
            let cache = host.0.artifacts.as_ref()?;
            let bytes_max = host.limits().of(class).artifact_bytes_max;
            let artifact = cache.read(&digest, &host.0.engine_key, bytes_max)?;
            match host.instantiable(&digest, class, &artifact) {
                Ok(plugin) => Some(plugin),
                Err(error) => {
                    tracing::warn!(%digest, %error, "a compiled plugin does not load; it is compiled anew");
                    cache.remove(&digest, &host.0.engine_key);
                    None
                }
            }
        })
        .await
    }

    async fn compile(
        &self,
        digest: &str,
        class: Class,
        bytes: &[u8],
    ) -> Result<Arc<Plugin>, LoadError> {
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
        let limits = self.limits().of(class);
        let artifact = self.0.compiler.compile(bytes, limits).await?;
        let (host, digest) = (self.clone(), digest.to_owned());
        aside(move || {
            let plugin = host.instantiable(&digest, class, &artifact)?;
            if let Some(cache) = &host.0.artifacts
                && let Err(error) = cache.write(&digest, &host.0.engine_key, &artifact)
            {
                tracing::warn!(%digest, %error, "a compiled plugin cannot be kept; it will be compiled again");
            }
            Ok(plugin)
        })
        .await?
    }

    fn instantiable(
        &self,
        digest: &str,
        class: Class,
        artifact: &Artifact,
    ) -> Result<Arc<Plugin>, LoadError> {
        let pool = match class {
            Class::Small => &self.0.small,
            Class::Large => &self.0.large,
        };
        let component = deserialize(&pool.engine, artifact)
            .map_err(|e| refusal(&format!("{e:#}"), self.limits().of(class)))?;
        let pre = pool
            .linker
            .instantiate_pre(&component)
            .map_err(|e| LoadError::Link(format!("{e:#}")))?;
        let weight = u32::try_from(artifact.0.len()).unwrap_or(u32::MAX);
        let plugin = Plugin::new(
            digest.to_owned(),
            class,
            weight,
            &pre,
            self.0.limits.clone(),
        )?;
        Ok(Arc::new(plugin))
    }

    /// Does some work with a plugin when it is the tenant's turn, away from the async threads and within the
    /// tenant's limits. Work that has begun goes on where nobody waits for it any more, and keeps its turn.
    ///
    /// # Errors
    /// [`PluginError::Busy`] where too many calls wait; [`PluginError::Trap`] where the work itself panicked.
    pub async fn call<T: Send + 'static>(
        &self,
        tenant: TenantKey,
        limits: &TenantLimits,
        plugin: &Plugin,
        work: impl FnOnce(&Plugin) -> T + Send + 'static,
    ) -> Result<T, PluginError> {
        let plugin = plugin.within(limits);
        self.work(tenant, limits, move || work(&plugin)).await
    }

    /// One answer of a plugin, as [`Self::call`]. A small guest answers on the thread that asks, as long as it takes no
    /// more than [`AT_ONCE`]: to wake another thread takes longer than most answers do. What takes longer is begun anew
    /// away from the async threads, with all the time that it may have; what a plugin answers has no effect and is
    /// the same each time.
    ///
    /// # Errors
    /// The plugin's; [`PluginError::Busy`] where too many calls wait; [`PluginError::Trap`] where the host itself
    /// panicked.
    pub async fn ask<T: Send + 'static>(
        &self,
        tenant: TenantKey,
        limits: &TenantLimits,
        plugin: &Plugin,
        question: impl Fn(&Plugin) -> Result<T, PluginError> + Send + 'static,
    ) -> Result<T, PluginError> {
        let plugin = plugin.within(limits);
        let turn = self.0.calls.take(tenant, limits.calls_running_max).await?;
        // Many quick answers one after the other let others run too.
        consume_budget().await;
        if let Some(at_once) = plugin.at_once(AT_ONCE) {
            match guarded(|| question(&at_once)).flatten() {
                Err(PluginError::Timeout(_)) => plugin.takes_long(),
                answer => return answer,
            }
        }
        in_turn(turn, move || question(&plugin)).await.flatten()
    }

    /// Work of the host's own that takes as long as strangers make it: it has the turns of the calls, and is done away
    /// from the async threads.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn work<T: Send + 'static>(
        &self,
        tenant: TenantKey,
        limits: &TenantLimits,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PluginError> {
        let turn = self.0.calls.take(tenant, limits.calls_running_max).await?;
        in_turn(turn, work).await
    }

    /// The same for what is known to take no longer than [`AT_ONCE`]: on the thread that asks.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn work_at_once<T>(
        &self,
        tenant: TenantKey,
        limits: &TenantLimits,
        work: impl FnOnce() -> T,
    ) -> Result<T, PluginError> {
        let _turn = self.0.calls.take(tenant, limits.calls_running_max).await?;
        consume_budget().await;
        guarded(work)
    }
}

/// Away from the async threads, in a turn that ends with it.
async fn in_turn<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PluginError> {
    let worked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    worked.await.map_err(|e| PluginError::Trap(e.to_string()))
}

/// Here and now. A panic ends this work and not its task.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, PluginError> {
    // What was half done is dropped with the closure: nobody sees it again.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| PluginError::Trap("the host panicked".into()))
}

/// Away from the async threads.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| LoadError::Invalid(format!("reading it failed: {e}")))
}

#[expect(
    unsafe_code,
    reason = "an Artifact comes from our own compiler or bears our own mark, see the README"
)]
fn deserialize(engine: &Engine, artifact: &Artifact) -> wasmtime::Result<Component> {
    // SAFETY: wasmtime runs what it is given as machine code. `Artifact` is made in two places: from the answer of
    // the child process that we started, and from a file whose mark our key made over every byte of it.
    unsafe { Component::deserialize(engine, &artifact.0) }
}

impl Pool {
    fn new(limits: &ClassLimits) -> wasmtime::Result<Self> {
        // Where address space is capped, the pool does not fit and instances are made on demand, 3 times slower.
        let engine = Engine::new(&config(Some(limits))).or_else(|error| {
            tracing::warn!(%error, "plugin pool does not fit into this machine's address space; making instances on demand");
            Engine::new(config(None).enable_compiler(false))
        })?;
        let linker = sandbox::linker(&engine)?;
        Ok(Self { engine, linker })
    }
}

/// The engine of the child process: makes what the pools load, on one thread (wasmtime is built without its feature
/// `parallel-compilation`).
pub(crate) fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(&config(None))
}

/// The same for every engine as far as code is concerned, so that what one compiles another loads. With a pool it
/// compiles nothing.
fn config(pool: Option<&ClassLimits>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).generate_address_map(false);
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        // What copies between two components within one, as JavaScript's and Python's tools put WASI's place holders
        // beside the interpreter, sees the memories of both. A module of its own still has one: see the pool.
        .wasm_multi_memory(true);
    config.max_wasm_stack(STACK_BYTES_MAX).memory_init_cow(true);
    let Some(limits) = pool else {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        return config;
    };
    let slots = limits.slots;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * limits.core_instances_max)
        .total_memories(slots * 2)
        .total_tables(slots * 4)
        .max_component_instance_size(COMPONENT_INSTANCE_BYTES_MAX)
        .max_core_instance_size(CORE_INSTANCE_BYTES_MAX)
        .max_core_instances_per_component(limits.core_instances_max)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(2)
        .table_elements(limits.table_elements_max)
        .max_memory_size(limits.memory_bytes_max)
        .linear_memory_keep_resident(limits.keep_resident_bytes)
        .table_keep_resident(64 << 10)
        // In wasmtime 48 it can leave bytes of one instance for the next.
        .pagemap_scan(Enabled::No)
        .max_unused_warm_slots(slots);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config.enable_compiler(false);
    config
}

/// wasmtime's version, its settings and the processor's features, as one name.
fn engine_key(engine: &Engine) -> String {
    let mut digest = Digesting(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut digest);
    hex::encode(digest.0.finalize())
}

/// What is hashed, as SHA-256: the same in every process and of every version of Rust.
struct Digesting(Sha256);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
    }
}

/// An operating system's thread, not a task: nothing that runs on the async runtime can hold it up.
fn start_ticking(small: &Engine, large: &Engine) {
    let (small, large) = (small.weak(), large.weak());
    std::thread::Builder::new()
        .name("plugin-epochs".into())
        .spawn(move || {
            while let (Some(small), Some(large)) = (small.upgrade(), large.upgrade()) {
                small.increment_epoch();
                large.increment_epoch();
                drop((small, large));
                std::thread::sleep(TICK);
            }
        })
        .expect("a thread can be started");
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (running, waiting) = self.0.calls.load();
        write!(
            f,
            "PluginHost({} loaded, {running} calls run, {waiting} wait)",
            self.0.loaded.entry_count()
        )
    }
}
