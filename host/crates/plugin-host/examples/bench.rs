//! What a call of the Slack adapter costs: as a native function, in an instance that lives on, and in a fresh instance
//! as the gateway calls it. And what a call of one and the same adapter costs in each language of the kit.
//!
//! `scripts/plugins && scripts/kit from-nothing && cargo run --release -p tsunami-plugin-host --features bench --example bench -- [--json] [--seconds 2] [FILE.wasm]`

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};
use tsunami_plugin_host::{Compiler, Limits, Plugin, PluginHost, TenantKey, adapter};

const COMPILE: &str = "compile-plugin";
/// Compiles one file and prints what that took: a process of its own, since the peak is that of all its children.
const ONE: &str = "--compile-one";
/// Components that only tests are for.
const OF_TESTS: [&str; 9] = [
    "chameleon",
    "divided_credentials",
    "divided_skill",
    "exfiltrator",
    "hostile",
    "hostile_file",
    "hostile_restless",
    "hostile_socket",
    "policy_probe",
];
/// The languages that the kit has templates for; the first is what the others are held against.
const LANGUAGES: [&str; 3] = ["rust", "javascript", "python"];
/// Calls of which a 99th percentile says something.
const CALLS_MIN: usize = 500;
/// Lengths of the message, so that the parameters have about so many bytes.
const SIZES: [(&str, usize); 3] = [("200 B", 160), ("4 KiB", 4056), ("64 KiB", 65_496)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == COMPILE) {
        return tsunami_plugin_host::compile_worker(arguments.into_iter().skip(1));
    }
    let done = match arguments.as_slice() {
        [first, file] if first == ONE => compile_one(file.as_ref()),
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let value_of = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let seconds = value_of("--seconds").map_or(Ok(2.0), |text| text.parse::<f64>())?;
    let time = Duration::from_secs_f64(seconds);
    let named = arguments
        .iter()
        .find(|argument| argument.ends_with(".wasm"));
    let file = named.map_or_else(shipped, PathBuf::from);
    let bytes = std::fs::read(&file)
        .map_err(|e| format!("{}: {e}; run scripts/plugins", file.display()))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let began = Instant::now();
    let host = PluginHost::new(Limits::default(), Compiler::this_program([COMPILE])?, None)?;
    let set_up = began.elapsed();
    let began = Instant::now();
    let plugin = runtime.block_on(host.load(TenantKey(1), bytes.clone()))?;
    let loaded = began.elapsed();

    let mut rows = Vec::new();
    for (size, length) in SIZES {
        let call = call(length);
        check(&plugin, &call)?;
        let mut row = vec![("native", measure(time, || native(&call)))];
        row.push(("live", plugin.measure_live(&call, time)));
        row.push(("fresh", measure(time, || plugin.next(&call, &[]).is_ok())));
        rows.extend(
            row.into_iter()
                .map(|(way, times)| Row::new(size, way, times)),
        );
    }
    let guests = guests(&host, &runtime, time)?;
    let compiled = compile_all()?;
    let call = call(SIZES[0].1);
    let one = throughput(&plugin, &call, 1, time);
    let two = throughput(&plugin, &call, 2, time);
    let report = json!({
        "component_bytes": bytes.len(),
        "engines_ms": set_up.as_secs_f64() * 1e3,
        "load_ms": loaded.as_secs_f64() * 1e3,
        "compiled": compiled,
        "guests": guests,
        "calls": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "fresh_200_b": { "calls_per_s_1_thread": one, "calls_per_s_2_threads": two, "ratio": two / one },
    });
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn shipped() -> PathBuf {
    built("wasm32-wasip2/release/slack.wasm")
}

fn built(file: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/target");
    target.join(file)
}

/// The adapter of the templates, in each language: a call in a fresh instance up to its first request.
fn guests(
    host: &PluginHost,
    runtime: &tokio::runtime::Runtime,
    time: Duration,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let call = adapter::Invocation {
        action: "get_item".into(),
        params: json!({ "name": "first" }).to_string(),
        ..call(0)
    };
    let mut rows: Vec<Value> = Vec::new();
    for lang in LANGUAGES {
        let file = built(&format!("templates/{lang}.wasm"));
        let bytes = std::fs::read(&file)
            .map_err(|e| format!("{}: {e}; run scripts/kit from-nothing", file.display()))?;
        let began = Instant::now();
        let plugin = runtime.block_on(host.load(TenantKey(1), bytes.clone()))?;
        let loaded = began.elapsed();
        let step = plugin.next(&call, &[])?.value;
        if !matches!(step, Ok(adapter::Step::Perform(_))) {
            return Err(format!("the adapter in {lang} makes no request: {step:?}").into());
        }
        let times = measure(time, || plugin.next(&call, &[]).is_ok());
        let fresh = Row::new("", "fresh", times);
        let first = rows.first().unwrap_or(&Value::Null);
        let to_rust = |name: &str, own: f64| own / first[name].as_f64().unwrap_or(own);
        rows.push(json!({
            "lang": lang,
            "component_bytes": bytes.len(),
            "load_ms": loaded.as_secs_f64() * 1e3,
            "calls": fresh.calls,
            "p50_us": fresh.p50,
            "p99_us": fresh.p99,
            "p50_to_rust": to_rust("p50_us", fresh.p50),
            "p99_to_rust": to_rust("p99_us", fresh.p99),
        }));
    }
    Ok(rows)
}

/// Each shipped plugin: how long it takes to compile and how much memory, in a process of its own.
fn compile_all() -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let mut files: Vec<_> = std::fs::read_dir(shipped().parent().ok_or("no folder")?)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "wasm"))
        .filter(|path| {
            !OF_TESTS
                .iter()
                .any(|name| path.file_stem() == Some(name.as_ref()))
        })
        .collect();
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        let told = Command::new(std::env::current_exe()?)
            .arg(ONE)
            .arg(&file)
            .output()?;
        if !told.status.success() {
            return Err(String::from_utf8_lossy(&told.stderr).into());
        }
        rows.push(serde_json::from_slice(&told.stdout)?);
    }
    Ok(rows)
}

fn compile_one(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let host = PluginHost::new(Limits::default(), Compiler::this_program([COMPILE])?, None)?;
    let size = bytes.len();
    let began = Instant::now();
    runtime.block_on(host.load(TenantKey(1), bytes))?;
    let took = began.elapsed();
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    println!(
        "{}",
        json!({
            "plugin": file.file_stem().map(|name| name.to_string_lossy()),
            "component_bytes": size,
            "compile_ms": took.as_secs_f64() * 1e3,
            "peak_mib": children.max_rss() as f64 / 1024.0,
        })
    );
    Ok(())
}

fn call(length: usize) -> adapter::Invocation {
    adapter::Invocation {
        action: "send_message".into(),
        params: json!({ "channel": "#finance", "text": "x".repeat(length) }).to_string(),
        settings: "{}".into(),
        idempotency_key: "01890000-0000-7000-8000-000000000001".into(),
        now: 1_700_000_000_000,
    }
}

/// All ways must come to the same request, or they are not worth comparing.
fn check(plugin: &Plugin, call: &adapter::Invocation) -> Result<(), String> {
    let step = plugin.next(call, &[]).map_err(|e| e.to_string())?.value;
    if matches!(step, Ok(adapter::Step::Perform(_))) && native(call) {
        Ok(())
    } else {
        Err(format!("the adapter makes no request: {step:?}"))
    }
}

/// The same sources, compiled for this machine; the adapter builds itself anew at each call, as the component does.
fn native(call: &adapter::Invocation) -> bool {
    let call = servicetsunami_plugin::Invocation {
        action: call.action.clone(),
        params: call.params.clone(),
        settings: call.settings.clone(),
        idempotency_key: call.idempotency_key.clone(),
        now: call.now,
    };
    let step = slack::skill().next(call, vec![]);
    black_box(step).is_ok()
}

/// How long each of the calls took, in so much time, and in more where the calls would be too few for a percentile.
fn measure(time: Duration, mut call: impl FnMut() -> bool) -> Vec<Duration> {
    for _ in 0..100 {
        assert!(call());
    }
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time || times.len() < CALLS_MIN {
        let called = Instant::now();
        assert!(black_box(call()));
        times.push(called.elapsed());
    }
    times
}

fn throughput(
    plugin: &Arc<Plugin>,
    call: &adapter::Invocation,
    threads: usize,
    time: Duration,
) -> f64 {
    let barrier = Barrier::new(threads);
    let counts: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (mut count, began) = (0, Instant::now());
                    while began.elapsed() < time {
                        assert!(plugin.next(call, &[]).is_ok());
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.map(|count| count.unwrap_or(0)).sum()
    });
    counts as f64 / time.as_secs_f64()
}

struct Row {
    size: &'static str,
    way: &'static str,
    calls: usize,
    p50: f64,
    p99: f64,
}

impl Row {
    fn new(size: &'static str, way: &'static str, mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times.get(place).map_or(0.0, |t| t.as_secs_f64() * 1e6)
        };
        Self {
            size,
            way,
            calls: times.len(),
            p50: at(0.5),
            p99: at(0.99),
        }
    }
    fn json(&self) -> Value {
        json!({ "params": self.size, "way": self.way, "calls": self.calls, "p50_us": self.p50, "p99_us": self.p99 })
    }
}

fn print(report: &Value) {
    println!(
        "component {} bytes, engines {:.1} ms, loaded in {:.0} ms",
        report["component_bytes"],
        report["engines_ms"].as_f64().unwrap_or(0.0),
        report["load_ms"].as_f64().unwrap_or(0.0)
    );
    println!(
        "{:8} {:8} {:>10} {:>10} {:>10}",
        "params", "way", "p50 us", "p99 us", "calls"
    );
    for row in report["calls"].as_array().into_iter().flatten() {
        println!(
            "{:8} {:8} {:>10.2} {:>10.2} {:>10}",
            row["params"].as_str().unwrap_or_default(),
            row["way"].as_str().unwrap_or_default(),
            row["p50_us"].as_f64().unwrap_or(0.0),
            row["p99_us"].as_f64().unwrap_or(0.0),
            row["calls"]
        );
    }
    println!(
        "\n{:16} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "guest, fresh", "bytes", "load ms", "p50 us", "p99 us", "p50/rust", "calls"
    );
    for row in report["guests"].as_array().into_iter().flatten() {
        println!(
            "{:16} {:>10} {:>10.0} {:>10.2} {:>10.2} {:>10.1} {:>10}",
            row["lang"].as_str().unwrap_or_default(),
            row["component_bytes"],
            row["load_ms"].as_f64().unwrap_or(0.0),
            row["p50_us"].as_f64().unwrap_or(0.0),
            row["p99_us"].as_f64().unwrap_or(0.0),
            row["p50_to_rust"].as_f64().unwrap_or(0.0),
            row["calls"]
        );
    }
    println!(
        "\n{:16} {:>10} {:>12} {:>10}",
        "compiled", "bytes", "ms", "peak MiB"
    );
    for row in report["compiled"].as_array().into_iter().flatten() {
        println!(
            "{:16} {:>10} {:>12.0} {:>10.0}",
            row["plugin"].as_str().unwrap_or_default(),
            row["component_bytes"],
            row["compile_ms"].as_f64().unwrap_or(0.0),
            row["peak_mib"].as_f64().unwrap_or(0.0)
        );
    }
    let fresh = &report["fresh_200_b"];
    println!(
        "fresh, 200 B: {:.0} calls/s on 1 thread, {:.0} on 2: {:.2} times",
        fresh["calls_per_s_1_thread"].as_f64().unwrap_or(0.0),
        fresh["calls_per_s_2_threads"].as_f64().unwrap_or(0.0),
        fresh["ratio"].as_f64().unwrap_or(0.0)
    );
}
