use crate::{Limits, LoadError, Plugin, sandbox};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};

/// The epoch's tick: the resolution of [`Limits::call_timeout`].
const TICK: Duration = Duration::from_millis(1);
/// Kept resident of each slot of the pool: resetting this much costs a copy and no system call, in bytes.
const KEEP_RESIDENT: usize = 1 << 20;
/// Core modules inside of one component.
const CORE_INSTANCES_MAX: u32 = 8;

/// Loads plugins and keeps what it compiled, by digest.
#[derive(Clone)]
pub struct PluginHost(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<sandbox::State>,
    limits: Arc<Limits>,
    loaded: Cache<String, Arc<Plugin>>,
}

impl PluginHost {
    /// # Errors
    /// Where this machine gives no address space, even for instances made one at a time.
    pub fn new(limits: Limits) -> wasmtime::Result<Self> {
        // Where address space is capped, the pool does not fit and instances are made on demand, 3 times slower.
        let engine = Engine::new(&config(&limits, true)).or_else(|error| {
            tracing::warn!(%error, "plugin pool does not fit into this machine's address space; making instances on demand");
            Engine::new(&config(&limits, false))
        })?;
        start_ticking(&engine);
        let linker = sandbox::base_linker(&engine)?;
        let loaded = Cache::new(limits.plugins_cached_max);
        Ok(Self(Arc::new(Inner {
            engine,
            linker,
            limits: Arc::new(limits),
            loaded,
        })))
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The plugin with this digest, if it is loaded.
    pub fn loaded(&self, digest: &str) -> Option<Arc<Plugin>> {
        self.0.loaded.get(digest)
    }

    /// Compiles a component, unless it is loaded already. Blocking: tenths of a second of CPU.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        let digest = hex::encode(Sha256::digest(bytes));
        if let Some(plugin) = self.loaded(&digest) {
            return Ok(plugin);
        }
        self.check_file(bytes)?;
        let component = Component::new(&self.0.engine, bytes).map_err(|e| load_error(&e))?;
        let mut linker = self.0.linker.clone();
        sandbox::deny(&mut linker, &component).map_err(|e| LoadError::Invalid(e.to_string()))?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|e| link_error(&e))?;
        let plugin = Arc::new(Plugin::new(digest.clone(), pre, self.0.limits.clone())?);
        self.0.loaded.insert(digest, plugin.clone());
        Ok(plugin)
    }

    fn check_file(&self, bytes: &[u8]) -> Result<(), LoadError> {
        let max = self.0.limits.component_bytes_max;
        if bytes.len() > max {
            return Err(LoadError::TooLarge {
                bytes: bytes.len(),
                max,
            });
        }
        match bytes.get(..8) {
            Some(b"\0asm\x0d\0\x01\0") => Ok(()),
            Some(head) if head.starts_with(b"\0asm\x01\0\0\0") => Err(LoadError::CoreModule),
            _ => Err(LoadError::NotAComponent {
                begins: begins_with(bytes),
            }),
        }
    }
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PluginHost({} loaded)", self.0.loaded.entry_count())
    }
}

fn begins_with(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing: it is empty".into();
    }
    let head = &bytes[..bytes.len().min(8)];
    format!("the bytes {}", hex::encode(head))
}

fn load_error(error: &wasmtime::Error) -> LoadError {
    let text = format!("{error:#}");
    let too_much = [
        "exceeds the limit",
        "exceeds pool",
        "too many",
        "memory index",
        "exceeds the maximum",
        "has a minimum",
    ];
    if too_much.iter().any(|hint| text.contains(hint)) {
        LoadError::TooMuch(text)
    } else {
        LoadError::Invalid(text)
    }
}

fn link_error(error: &wasmtime::Error) -> LoadError {
    let text = format!("{error:#}");
    // wasmtime says: component imports instance `x`, but a matching implementation was not found in the linker
    match text.split('`').nth(1) {
        Some(name) if text.contains("imports") => LoadError::Import(name.to_owned()),
        _ => load_error(error),
    }
}

fn config(limits: &Limits, pooled: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).generate_address_map(false);
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false);
    config
        .max_wasm_stack(limits.stack_bytes_max)
        .memory_init_cow(true);
    if !pooled {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        return config;
    }
    let slots = limits.calls_in_flight_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * 4)
        .total_memories(slots)
        .total_tables(slots * 2)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(256 << 10)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(2)
        .max_tables_per_component(4)
        .max_memories_per_module(1)
        .max_tables_per_module(2)
        .table_elements(limits.table_elements_max)
        .max_memory_size(limits.memory_bytes_max)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::No)
        .max_unused_warm_slots(slots);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// An operating system's thread, not a task: nothing that runs on the async runtime can hold it up.
fn start_ticking(engine: &Engine) {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("plugin-epochs".into())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .expect("a thread can be started");
}
