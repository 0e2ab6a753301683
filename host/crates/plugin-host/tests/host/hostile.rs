//! Every attempt that we know of: what it ends with, what it cost, and that another tenant's calls went on meanwhile.

use crate::{
    bombs, image,
    stage::{self, OTHER_TENANT, TENANT, host, host_with, hostile, runtime, send_message, shipped},
};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tsunami_plugin_host::{
    IntakeError, Limits, LoadError, Plugin, PluginHost, TenantLimits, adapter::Manifest, policy,
    types::Risk,
};

stage::trials![
    every_attempt_ends_with_its_error_while_others_go_on,
    the_check_of_a_credential_says_nothing_of_its_value,
];

/// What no attempt may take: a hang. That a limit of time held is read from the error, not from this machine's clock.
const HANG: Duration = stage::COMPILE_PATIENCE;
/// What an attempt may leave behind in this process, and what it may take meanwhile, in KiB.
const LEFT_BEHIND_KIB_MAX: i64 = 200 << 10;
const TAKEN_KIB_MAX: i64 = 600 << 10;

/// What the neighbour rests between two calls: compilers are nice, and would wait for one that never rests.
const BETWEEN_CALLS: Duration = Duration::from_millis(2);

/// Where the component comes from.
enum Source {
    /// A file of `tests/hostile`.
    File(&'static str),
    /// Made here.
    Made(fn() -> Vec<u8>),
    /// A crate of `plugins/hostile`.
    Rust(&'static str),
    /// The golden plugin's manifest, changed.
    Says(fn(&mut Manifest)),
}

/// What is done with it.
#[derive(Clone, Copy)]
enum Use {
    Load,
    /// With the usual time of a processor, which it does not get by with.
    LoadHurried,
    Intake,
    Next(&'static str),
    Check,
    Decide,
}

struct Attempt {
    name: &'static str,
    source: Source,
    used: Use,
    /// Words that the error must hold; one of them, where limits race.
    ends_with: Vec<&'static str>,
}

impl Attempt {
    fn hurried(self) -> Self {
        let used = Use::LoadHurried;
        Self { used, ..self }
    }
}

fn file(name: &'static str, used: Use, ends_with: &'static [&'static str]) -> Attempt {
    Attempt {
        name,
        source: Source::File(name),
        used,
        ends_with: ends_with.into(),
    }
}

fn made(name: &'static str, make: fn() -> Vec<u8>, ends_with: &'static [&'static str]) -> Attempt {
    Attempt {
        name,
        source: Source::Made(make),
        used: Use::Load,
        ends_with: ends_with.into(),
    }
}

fn rust(action: &'static str, ends_with: &'static [&'static str]) -> Attempt {
    Attempt {
        name: action,
        source: Source::Rust("hostile"),
        used: Use::Next(action),
        ends_with: ends_with.into(),
    }
}

/// A plugin whose manifest was changed so; what intake says of it.
fn said(name: &'static str, change: fn(&mut Manifest), ends_with: &'static str) -> Attempt {
    Attempt {
        name,
        source: Source::Says(change),
        used: Use::Intake,
        ends_with: [ends_with].into(),
    }
}

const TIME: &[&str] = &["ran longer than 100 ms"];

fn attempts() -> Vec<Attempt> {
    use Use::{Check, Decide, Intake, Load, Next};
    vec![
        // Time.
        file("endless_describe", Intake, TIME),
        file("endless_next", Next("x"), TIME),
        file("endless_credentials", Intake, TIME),
        file("endless_check", Check, TIME),
        file("endless_policy", Intake, TIME),
        file("endless_decide", Decide, TIME),
        file("endless_start", Next("x"), TIME),
        file("endless_realloc", Next("x"), TIME),
        file("endless_fill", Next("x"), TIME),
        rust("loop", TIME),
        // Memory, tables, stack.
        file(
            "memory_grow",
            Next("x"),
            &["more than 33554432 bytes of memory"],
        ),
        file("table_grow", Next("x"), &["unreachable"]),
        file("stack", Next("x"), &["stack overflowed"]),
        rust("allocate", &["bytes of memory", "ran longer"]),
        // A Rust guest's stack lies in its memory, below its data: it overflows into what is not there.
        rust("recurse", &["stack overflowed", "out of bounds"]),
        // Instructions that trap.
        file("divide_by_zero", Next("x"), &["divide by zero"]),
        file("read_out_of_bounds", Next("x"), &["out of bounds"]),
        file("call_wrong_type", Next("x"), &["type mismatch"]),
        rust("panic", &["on purpose"]),
        rust("exit", &["exit"]),
        // Answers.
        file("answer_no_utf8", Next("x"), &["utf-8"]),
        file(
            "answer_out_of_bounds",
            Next("x"),
            &["out of bounds", "out-of-bounds"],
        ),
        file(
            "answer_far_away",
            Next("x"),
            &["out of bounds", "out-of-bounds"],
        ),
        file("answer_not_aligned", Next("x"), &["align"]),
        file("answer_unknown_variant", Next("x"), &["discriminant"]),
        file(
            "answer_huge_list",
            Next("x"),
            &["larger than", "out of bounds", "out-of-bounds"],
        ),
        file(
            "answer_huge_text",
            Next("x"),
            &["larger than 1048576 bytes"],
        ),
        file(
            "answer_wide_list",
            Next("x"),
            &["larger than 1048576 bytes"],
        ),
        file(
            "realloc_out_of_bounds",
            Next("x"),
            &["out of bounds", "end of memory"],
        ),
        file(
            "reentrant_realloc",
            Next("x"),
            &["cannot leave component instance", "unreachable"],
        ),
        rust(
            "huge_answer",
            &["larger than", "bytes of memory", "ran longer"],
        ),
        // Words.
        file("log_flood", Next("x"), &["more than 100 log lines"]),
        file("log_long_line", Next("x"), &["larger than 1048576 bytes"]),
        file("log_unknown_level", Next("x"), &["discriminant"]),
        rust("log", &["more than 100 log lines"]),
        rust("long_line", &["larger than", "ran longer"]),
        rust("print", &["and on and on"]),
        // What it is, and what it wants.
        file("no_exports.component", Load, &["exports none of"]),
        file("wrong_type.component", Load, &["exports none of"]),
        file("half_wrong_type.component", Intake, &["expected `record`"]),
        Attempt {
            used: Intake,
            ..made(
                "a `next` of another type",
                || image::with_another_next(&manifest()),
                &["expected `record`"],
            )
        },
        file("other_version.component", Load, &["exports none of"]),
        file(
            "imports_http.component",
            Load,
            &["`wasi:http/outgoing-handler@0.2.6`"],
        ),
        file("imports_more_of_log.component", Load, &["read"]),
        file(
            "imports_function.component",
            Load,
            &["`servicetsunami:plugin/log@0.1.0`"],
        ),
        Attempt {
            name: "a crate that opens files",
            source: Source::Rust("hostile_file"),
            used: Load,
            ends_with: vec!["`wasi:filesystem/types@0.2."],
        },
        Attempt {
            name: "a crate that opens connections",
            source: Source::Rust("hostile_socket"),
            used: Load,
            ends_with: vec!["`wasi:sockets/network@0.2."],
        },
        Attempt {
            name: "describes itself by the clock",
            source: Source::Rust("hostile_restless"),
            used: Intake,
            ends_with: vec!["differently from call to call"],
        },
        // Before it is instantiated.
        file(
            "memory_twice.component",
            Load,
            &["41943040 bytes of memory"],
        ),
        file("memory_4g.component", Load, &["4294967296 bytes of memory"]),
        file("memory_64.component", Load, &["memory64"]),
        file("memory_many.component", Load, &["memor"]),
        file("table_huge.component", Load, &["10000000 table elements"]),
        file("start_function.component", Load, &["exports none of"]),
        made(
            "10,000 instances",
            || bombs::many_instances(10_000),
            &["10000 core modules"],
        ),
        made(
            "a million instances in 1 kB",
            || bombs::multiplying(6),
            &["bytes of memory", "exceeds", "instances"],
        ),
        made(
            "a type 2,000 deep",
            || bombs::deep_type(2000),
            &["deep", "nesting"],
        ),
        made(
            "a type doubled 40 times",
            || bombs::doubling_type(40),
            &["effective type size exceeds"],
        ),
        // The compiler.
        made(
            "600 branches, 1,000 live locals",
            || bombs::live_locals(1, 600),
            &["exports none of"],
        ),
        made(
            "4 times 9,000 branches",
            || bombs::live_locals(4, 9000),
            &["s of a processor", "bytes of memory"],
        )
        .hurried(),
        made(
            "60,000 branches, 1,000 live locals",
            || bombs::live_locals(1, 60_000),
            &["more than 2147483648 bytes of memory", "s of a processor"],
        )
        .hurried(),
        made(
            "a function of 900 kB",
            || bombs::long_function(500_000),
            &["exports none of"],
        ),
        made(
            "a function of 2 MB",
            || bombs::long_function(1_200_000),
            &["bytes in one function"],
        ),
        made(
            "100,000 functions",
            || bombs::many_functions(100_000),
            &["100000 functions"],
        ),
        made(
            "code that swells to 20 MB",
            || bombs::swelling(4000, 100),
            &["grows to more than", "exports none of"],
        ),
        // What it says of itself.
        said("2,000 actions", bombs::many_actions, "must be 1 to 64"),
        said(
            "20,000 hosts",
            |m| m.hosts = vec![String::new(); 20_000],
            "must be at most 16",
        ),
        said(
            "20,000 categories",
            |m| m.about.categories = vec![String::new(); 20_000],
            "must be 1 to 8",
        ),
        said(
            "a host beneath every name",
            |m| m.hosts = vec!["*.com".into()],
            "must be a lower-case DNS name",
        ),
        said(
            "a host that is an address",
            |m| m.hosts = vec!["169.254.169.254".into()],
            "must be a lower-case DNS name",
        ),
        said(
            "a title that reads backwards",
            |m| m.about.title = "\u{202e}kcalS".into(),
            "without control characters",
        ),
        said(
            "a readme of 900 kB",
            |m| m.about.readme = "x".repeat(900_000),
            "at most 65536 bytes",
        ),
        said(
            "a schema that doubles 40 times",
            bombs::doubling_schema,
            "steps for one value",
        ),
        said(
            "a schema of itself twice",
            |m| m.settings_schema = r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##.into(),
            "without an end",
        ),
        said(
            "a schema of a million brackets",
            |m| m.settings_schema = "[".repeat(1_000_000),
            "a schema may have 65536",
        ),
        said(
            "a schema 8,000 deep",
            |m| m.settings_schema = "{\"not\":".repeat(8_000) + "{}" + &"}".repeat(8_000),
            "not JSON",
        ),
        said(
            "a schema on another computer",
            |m| m.settings_schema = r#"{"$ref":"http://169.254.169.254/"}"#.into(),
            "no place in this schema",
        ),
        said(
            "a pattern that swells",
            |m| m.settings_schema = r#"{"pattern":"((a{100}){100}){100}"}"#.into(),
            "settings-schema",
        ),
        said(
            "a pattern that looks back",
            |m| m.settings_schema = r#"{"pattern":"(a)\\1"}"#.into(),
            "settings-schema",
        ),
        // Dear, and within every limit.
        said("128 schemas of 8 kB", bombs::many_schemas, "no error"),
        // Not what it says it is.
        made("an empty file", Vec::new, &["it is empty"]),
        made(
            "a script",
            || b"#!/bin/sh\nrm -rf /".to_vec(),
            &["wasm32-wasip2"],
        ),
        made(
            "a core module",
            || b"\0asm\x01\0\0\0".to_vec(),
            &["core module"],
        ),
        made(
            "25 MB of nothing",
            || vec![0; 25 << 20],
            &["a plugin may have 25165824"],
        ),
        made(
            "half a file",
            || {
                let all = shipped("slack");
                all[..all.len() / 2].to_vec()
            },
            &["not valid"],
        ),
        made(
            "a damaged file",
            || {
                let all = shipped("slack");
                bombs::flipped(&all, all.len() / 2)
            },
            &["not valid"],
        ),
    ]
}

fn manifest() -> Manifest {
    static MANIFEST: OnceLock<Manifest> = OnceLock::new();
    MANIFEST.get_or_init(|| image::golden(&host())).clone()
}

/// Whatever it does, whoever asked learns that it failed, and nothing that it could choose by the value.
fn the_check_of_a_credential_says_nothing_of_its_value() {
    let host = host();
    for name in [
        "check_tells_by_case",
        "check_tells_by_address",
        "check_tells_by_pointer",
    ] {
        let plugin = stage::load(&host, &hostile(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let errors = ["x", "y"].map(|value| {
            let checked = plugin.check("token", value);
            checked.expect_err("it tells").to_string()
        });
        assert_eq!(errors[0], errors[1], "{name}");
        assert!(
            errors[0].contains("check of a credential"),
            "{name}: {}",
            errors[0]
        );
    }
}

/// What came of one attempt.
struct Came {
    error: String,
    took: Duration,
    left_behind_kib: i64,
    taken_kib: i64,
    neighbour: Vec<Duration>,
}

fn every_attempt_ends_with_its_error_while_others_go_on() {
    let host = host();
    let mut limits = stage::limits();
    let usual = Limits::default();
    limits.small.compile_cpu_seconds_max = usual.small.compile_cpu_seconds_max;
    limits.large.compile_cpu_seconds_max = usual.large.compile_cpu_seconds_max;
    let hurried = host_with(limits, None);
    let slack = runtime()
        .block_on(host.load(OTHER_TENANT, shipped("slack")))
        .expect("the neighbour's plugin");
    let neighbour = Neighbour::start(&host, &slack);
    let mut wrong = Vec::new();
    eprintln!(
        "| attempt | ends with | ms | KiB at most | KiB left | neighbour's calls | p50 µs | max ms |"
    );
    eprintln!("|---|---|---:|---:|---:|---:|---:|---:|");
    for attempt in attempts() {
        let tried_by = match attempt.used {
            Use::LoadHurried => &hurried,
            _ => &host,
        };
        let came = try_it(tried_by, &attempt, &neighbour);
        eprintln!("{}", row(&attempt, &came));
        wrong.extend(complaint(&attempt, &came));
    }
    neighbour.stop();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn try_it(host: &PluginHost, attempt: &Attempt, neighbour: &Neighbour) -> Came {
    let bytes = match &attempt.source {
        Source::File(name) => hostile(name),
        Source::Made(make) => make(),
        Source::Rust(name) => shipped(name),
        Source::Says(change) => {
            let mut manifest = manifest();
            change(&mut manifest);
            image::plugin(&manifest)
        }
    };
    let before = resident_kib();
    neighbour.take();
    neighbour.most_kib.store(before, Ordering::SeqCst);
    let began = Instant::now();
    let ended = runtime()
        .block_on(async { tokio::time::timeout(HANG, use_it(host, bytes, attempt.used)).await });
    let took = began.elapsed();
    // Without an end to wait for there is nothing to say of the neighbour: it must get through.
    let mut calls = neighbour.take();
    while calls.is_empty() && began.elapsed() < HANG {
        std::thread::yield_now();
        calls = neighbour.take();
    }
    Came {
        error: match ended {
            Ok(ended) => ended.err().unwrap_or_else(|| "no error".into()),
            Err(_) => format!("no end within {HANG:?}"),
        },
        took,
        left_behind_kib: resident_kib() - before,
        taken_kib: neighbour.most_kib.load(Ordering::SeqCst) - before,
        neighbour: calls,
    }
}

async fn use_it(host: &PluginHost, bytes: Vec<u8>, used: Use) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let loaded: Result<_, LoadError> = host.load(TENANT, bytes).await;
    let plugin = loaded.map_err(|e| text(&e))?;
    let limits = TenantLimits::default();
    if matches!(used, Use::Intake) {
        let described = host.call(TENANT, &limits, &plugin, Plugin::describe_all);
        let described = described.await.map_err(|e| text(&e))?;
        return described.map(drop).map_err(|e: IntakeError| text(&e));
    }
    let asked = host.ask(TENANT, &limits, &plugin, move |plugin| match used {
        Use::Load | Use::LoadHurried | Use::Intake => Ok(()),
        Use::Next(action) => plugin.next(&stage::invocation(action, "{}"), &[]).map(drop),
        Use::Check => plugin.check("token", "value").map(drop),
        Use::Decide => plugin.decide(&request()).map(drop),
    });
    asked.await.map_err(|e| text(&e))
}

fn request() -> policy::Request {
    policy::Request {
        skill: "slack".into(),
        action: "send_message".into(),
        risk: Risk::Write,
        params: "{}".into(),
        scopes: vec![],
        actor: policy::Actor {
            kind: policy::ActorKind::Agent,
            id: "agent".into(),
            roles: vec![],
            trust: 0.5,
            delegation_depth: 0,
        },
        usage: policy::Usage {
            calls_in_window: 0,
            day_spend_micro_usd: 0,
            month_spend_micro_usd: 0,
            estimated_cost_micro_usd: None,
        },
        instances: vec![],
        models: vec![],
        settings: "{}".into(),
        now: 0,
    }
}

fn complaint(attempt: &Attempt, came: &Came) -> Option<String> {
    let name = attempt.name;
    let error = came.error.to_lowercase();
    let expected = attempt
        .ends_with
        .iter()
        .any(|words| error.contains(&words.to_lowercase()));
    if !expected {
        let expected = &attempt.ends_with;
        return Some(format!("{name}: {}; expected {expected:?}", came.error));
    }
    if came.left_behind_kib > LEFT_BEHIND_KIB_MAX {
        return Some(format!("{name}: left {} KiB", came.left_behind_kib));
    }
    if came.taken_kib > TAKEN_KIB_MAX {
        return Some(format!("{name}: took {} KiB", came.taken_kib));
    }
    (came.neighbour.is_empty()).then(|| format!("{name}: the neighbour stood still"))
}

fn row(attempt: &Attempt, came: &Came) -> String {
    let mut times = came.neighbour.clone();
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = times.last().copied().unwrap_or_default();
    let error: String = came.error.chars().take(100).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        attempt.name,
        error.replace(['\n', '|'], " "),
        came.took.as_millis(),
        came.taken_kib,
        came.left_behind_kib,
        times.len(),
        middle.as_micros(),
        longest.as_millis()
    )
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("its memory")
}

/// Another tenant, which calls its own plugin one time after the other.
struct Neighbour {
    over: Arc<AtomicBool>,
    times: Arc<Mutex<Vec<Duration>>>,
    /// The most memory of this process that was seen between its calls.
    most_kib: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<()>,
}

impl Neighbour {
    fn start(host: &PluginHost, plugin: &Arc<Plugin>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let times = Arc::new(Mutex::new(Vec::new()));
        let most_kib = Arc::new(AtomicI64::new(0));
        let task = runtime().spawn({
            let (host, plugin) = (host.clone(), plugin.clone());
            let (over, times) = (over.clone(), times.clone());
            let most_kib = most_kib.clone();
            async move {
                while !over.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let limits = TenantLimits::default();
                    let called = host
                        .ask(OTHER_TENANT, &limits, &plugin, |plugin| {
                            plugin.next(&send_message(), &[])
                        })
                        .await;
                    assert!(called.expect("an answer").value.is_ok());
                    let took = began.elapsed();
                    most_kib.fetch_max(resident_kib(), Ordering::SeqCst);
                    times
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(took);
                    tokio::time::sleep(BETWEEN_CALLS).await;
                }
            }
        });
        Self {
            over,
            times,
            most_kib,
            task,
        }
    }

    /// What its calls took since the last time.
    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(self) {
        self.over.store(true, Ordering::SeqCst);
        runtime().block_on(self.task).expect("every call answered");
    }
}
