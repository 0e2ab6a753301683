//! What the tests stand on.

use libtest_mimic::Trial;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tsunami_plugin_host::{
    ArtifactCache, Compiler, Limits, LoadError, Plugin, PluginHost, TenantKey, adapter,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The argument that makes this program the compiler's process.
pub const COMPILE: &str = "compile-plugin";
pub const TENANT: TenantKey = TenantKey(1);
pub const OTHER_TENANT: TenantKey = TenantKey(2);

/// A test by the name of its function.
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(crate::stage::trial(module, stringify!($test), $test)),+]
        }
    };
}
pub(crate) use trials;

pub fn trial(module: &str, name: &str, test: fn()) -> Trial {
    Trial::test(format!("{module}::{name}"), move || {
        test();
        Ok(())
    })
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

/// What a compilation here may take of a processor, in times the usual: half of the compiler is built without
/// optimisation, beside other tests. Who tests that limit takes the usual one.
const COMPILE_CPU_TIMES: u32 = 6;

/// The usual ones, with few places: many hosts live at once in these tests.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.small.slots = 64;
    limits.large.slots = 8;
    limits.small.compile_cpu_seconds_max *= COMPILE_CPU_TIMES;
    limits.large.compile_cpu_seconds_max *= COMPILE_CPU_TIMES;
    limits
}

/// What a compilation may take of the clock on the wall here, where other tests keep each processor busy.
pub const COMPILE_PATIENCE: Duration = Duration::from_secs(600);

pub fn compiler() -> Compiler {
    let compiler = Compiler::this_program([COMPILE]).expect("this program");
    compiler.patient(COMPILE_PATIENCE)
}

pub fn host() -> PluginHost {
    host_with(limits(), None)
}

pub fn host_with(limits: Limits, artifacts: Option<ArtifactCache>) -> PluginHost {
    let _guard = runtime().enter();
    PluginHost::new(limits, compiler(), artifacts).expect("an engine")
}

pub fn load(host: &PluginHost, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
    runtime().block_on(host.load(TENANT, bytes.to_vec()))
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn built() -> PathBuf {
    here().join("../../../plugins/target/wasm32-wasip2/release")
}

/// A component as `scripts/plugins` builds it.
pub fn shipped(name: &str) -> Vec<u8> {
    read(&built().join(format!("{name}.wasm")))
}

/// All of them, by name.
pub fn all_shipped() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(built()).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let components = paths.filter(|path| path.extension().is_some_and(|e| e == "wasm"));
    components
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), read(&path))))
        .collect()
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}; run scripts/plugins", path.display()))
}

pub fn wit() -> PathBuf {
    here().join("../../../wit/v0.1")
}

/// A component of `tests/hostile`, by the name of its file.
pub fn hostile(name: &str) -> Vec<u8> {
    let path = here().join("tests/hostile").join(format!("{name}.wat"));
    let text = String::from_utf8(read(&path)).expect("it is text");
    if name.ends_with(".component") {
        return wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let world = text
        .lines()
        .find_map(|line| line.strip_prefix(";; world: "));
    guest(world.expect("its world"), &text)
}

/// A core module as a component of one of the contract's worlds.
pub fn guest(world: &str, module: &str) -> Vec<u8> {
    guest_of(&wit(), world, module)
}

/// The same of another contract, whose files are in this folder.
pub fn guest_of(contract: &Path, world: &str, module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap_or_else(|e| panic!("{e}"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(contract).expect("the contract");
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("its metadata");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("a module");
    encoder.encode().unwrap_or_else(|e| panic!("{e:#}"))
}

pub fn invocation(action: &str, params: &str) -> adapter::Invocation {
    adapter::Invocation {
        action: action.into(),
        params: params.into(),
        settings: "{}".into(),
        idempotency_key: "k".into(),
        now: 1_700_000_000_123,
    }
}

pub fn send_message() -> adapter::Invocation {
    invocation("send_message", r##"{"channel":"#finance","text":"hello"}"##)
}

/// Waits for something that will be so.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(60), what, look)
}

pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
