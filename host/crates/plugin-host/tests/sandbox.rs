//! The sandbox, with real components: Slack as we ship it, and one that means harm.
//! Build them first: `scripts/plugins`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tsunami_plugin_host::{
    Limits, LoadError, Plugin, PluginError, PluginHost, adapter, check_credential_schema,
    check_manifest,
};

/// Far above what a limit takes, far below what a hang would: the machines of tests are slow.
const IN_TIME: Duration = Duration::from_secs(2);

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(
        "../../../plugins/target/wasm32-wasip2/release/{name}.wasm"
    ));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run scripts/plugins", path.display()))
}

fn host() -> PluginHost {
    PluginHost::new(Limits::default()).expect("an engine")
}

fn call(
    plugin: &Plugin,
    action: &str,
) -> Result<Result<adapter::Step, adapter::Failure>, PluginError> {
    let invocation = adapter::Invocation {
        action: action.into(),
        params: "{}".into(),
        settings: "{}".into(),
        idempotency_key: "k".into(),
        now: 0,
    };
    plugin.next(&invocation, &[]).map(|called| called.value)
}

fn send_message() -> adapter::Invocation {
    adapter::Invocation {
        action: "send_message".into(),
        params: r##"{"channel":"#finance","text":"hello"}"##.into(),
        settings: "{}".into(),
        idempotency_key: "k".into(),
        now: 0,
    }
}

#[test]
fn slack_describes_itself_and_makes_a_request() {
    let slack = host().load(&file("slack")).unwrap();
    let manifest = slack.describe().unwrap().value;
    let schema = slack.credentials().unwrap().value;
    assert_eq!(check_manifest(&manifest, &schema.fields), []);
    assert_eq!(check_credential_schema(&schema, Some("slack")), []);
    assert!(manifest.actions.len() >= 8);
    let step = slack.next(&send_message(), &[]).unwrap().value.unwrap();
    let adapter::Step::Perform(request) = step else {
        panic!("no request: {step:?}")
    };
    assert_eq!(request.method, adapter::Method::Post);
    assert_eq!(
        slack.check("bot_token", "nonsense").unwrap(),
        Err(tsunami_plugin_host::credentials::Violation::WrongPrefix)
    );
}

/// What each attack must end with.
fn expected(attack: &str, error: &PluginError) -> bool {
    match attack {
        "loop" => matches!(error, PluginError::Timeout(_)),
        // Whichever limit is met first on this machine.
        "allocate" => matches!(error, PluginError::Memory { .. } | PluginError::Timeout(_)),
        // A Rust guest's stack lies in its memory, below its data: it overflows into what is not there.
        "recurse" => matches!(error, PluginError::Stack | PluginError::Trap(_)),
        "huge_answer" => matches!(
            error,
            PluginError::AnswerTooLarge { .. }
                | PluginError::Memory { .. }
                | PluginError::Timeout(_)
        ),
        "panic" => matches!(error, PluginError::Trap(words) if words.contains("on purpose")),
        "log" => matches!(error, PluginError::LogBudget { .. }),
        "long_line" => matches!(
            error,
            PluginError::AnswerTooLarge { .. } | PluginError::Timeout(_)
        ),
        "clock" | "sleep" => {
            matches!(error, PluginError::Trap(words) if words.contains("wasi:clocks"))
        }
        "file" | "socket" => {
            matches!(error, PluginError::Trap(words) if words.contains("wasi:filesystem") || words.contains("wasi:sockets"))
        }
        "exit" => matches!(error, PluginError::Trap(_)),
        _ => false,
    }
}

#[test]
fn every_attack_ends_in_time_with_its_name_while_others_go_on() {
    let host = host();
    let hostile = host.load(&file("hostile")).unwrap();
    let slack = host.load(&file("slack")).unwrap();
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let neighbour = std::thread::spawn({
        let (stop, served) = (stop.clone(), served.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                assert!(slack.next(&send_message(), &[]).unwrap().value.is_ok());
                served.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for attack in [
        "loop",
        "allocate",
        "recurse",
        "huge_answer",
        "panic",
        "log",
        "long_line",
        "clock",
        "file",
        "socket",
        "sleep",
        "exit",
    ] {
        let before = served.load(Ordering::SeqCst);
        let began = Instant::now();
        let error = call(&hostile, attack).expect_err(attack);
        assert!(
            began.elapsed() < IN_TIME,
            "{attack} took {:?}",
            began.elapsed()
        );
        assert!(expected(attack, &error), "{attack}: {error}");
        while served.load(Ordering::SeqCst) == before {
            assert!(
                began.elapsed() < IN_TIME,
                "{attack}: the neighbour stands still"
            );
            std::thread::yield_now();
        }
        assert!(call(&hostile, "fine").unwrap().is_ok(), "after {attack}");
    }
    stop.store(true, Ordering::SeqCst);
    neighbour.join().unwrap();
}

#[test]
fn what_a_plugin_writes_holds_no_nul() {
    let hostile = host().load(&file("hostile")).unwrap();
    let reply = adapter::Reply {
        status: 200,
        headers: vec![],
        body: vec![],
    };
    let next = |action: &str| {
        let invocation = adapter::Invocation {
            action: action.into(),
            settings: r#"{"base_url":"https://allowed.example"}"#.into(),
            ..send_message()
        };
        hostile.next(&invocation, std::slice::from_ref(&reply))
    };
    let log = next("nul").unwrap().log;
    assert_eq!(log[0].message, "a\u{fffd}b");
    let error = next("trip").unwrap_err().to_string();
    assert!(error.contains("over the reply"), "{error}");
    assert!(!error.contains('\0'), "{error:?}");
}

#[test]
fn a_failing_check_says_nothing_of_the_value() {
    let hostile = host().load(&file("hostile")).unwrap();
    let error = hostile.check("token", "leak-canary-value").unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(hostile.check("token", "fine").unwrap(), Ok(()));
}

#[test]
fn what_is_no_component_is_refused_with_what_to_do() {
    let host = host();
    let slack = file("slack");
    let refused = |bytes: &[u8]| host.load(bytes).expect_err("refused");
    assert!(matches!(refused(b""), LoadError::NotAComponent { .. }));
    assert!(
        refused(b"#!/bin/sh\nrm -rf /")
            .to_string()
            .contains("wasm32-wasip2")
    );
    assert!(matches!(
        refused(&wat::parse_str("(module)").unwrap()),
        LoadError::CoreModule
    ));
    assert!(matches!(
        refused(&vec![0; (4 << 20) + 1]),
        LoadError::TooLarge { .. }
    ));
    assert!(matches!(
        refused(&slack[..slack.len() / 2]),
        LoadError::Invalid(_)
    ));
    assert!(matches!(
        refused(&wat::parse_str("(component)").unwrap()),
        LoadError::Exports(_)
    ));
    let imports =
        wat::parse_str(r#"(component (import "evil:host/run" (instance (export "run" (func)))))"#)
            .unwrap();
    assert!(matches!(refused(&imports), LoadError::Import(name) if name == "evil:host/run"));
    let memory = wat::parse_str(
        "(component (core module $m (memory 65536)) (core instance (instantiate $m)))",
    )
    .unwrap();
    assert!(matches!(refused(&memory), LoadError::TooMuch(_)));
}

#[test]
fn flipped_bits_never_crash_the_host() {
    let host = host();
    let slack = file("slack");
    let mut seed = 0x9e37_79b9_u32;
    for _ in 0..200 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut mutated = slack[..slack.len().min(4096)].to_vec();
        let at = seed as usize % mutated.len();
        mutated[at] ^= 1 << (seed >> 29);
        let _ = host.load(&mutated);
    }
}

#[test]
fn the_same_call_gives_the_same_answer() {
    let slack = host().load(&file("slack")).unwrap();
    let first = slack.next(&send_message(), &[]).unwrap().value;
    for _ in 0..100 {
        assert_eq!(slack.next(&send_message(), &[]).unwrap().value, first);
    }
}
