//! What a plugin is given and what it is not.

use crate::stage::{self, host, invocation, load, send_message, shipped};
use serde_json::{Value, json};
use tsunami_plugin_host::{Class, LoadError, Plugin, adapter, check_file, credentials};

stage::trials![
    slack_describes_itself_and_makes_a_request,
    a_failing_check_says_nothing_of_the_value,
    the_same_call_gives_the_same_answer,
    time_stands_still_at_the_calls_own_and_waiting_takes_none,
    chance_follows_from_the_calls_key,
    what_a_plugin_writes_holds_no_nul,
    what_reaches_for_the_machine_is_refused_by_name,
    every_shipped_plugin_is_a_small_one,
];

fn finished(plugin: &Plugin, call: &adapter::Invocation) -> Value {
    match plugin.next(call, &[]).expect("an answer").value {
        Ok(adapter::Step::Finish(outcome)) => {
            serde_json::from_str(&outcome.output).expect("it is JSON")
        }
        other => panic!("{other:?}"),
    }
}

fn slack_describes_itself_and_makes_a_request() {
    let slack = load(&host(), &shipped("slack")).unwrap();
    let described = slack.describe_all().unwrap();
    assert!(described.manifest.unwrap().actions.len() >= 8);
    assert!(described.credentials.is_some() && described.policy.is_none());
    let step = slack.next(&send_message(), &[]).unwrap().value.unwrap();
    let adapter::Step::Perform(request) = step else {
        panic!("no request: {step:?}")
    };
    assert_eq!(request.method, adapter::Method::Post);
    assert_eq!(
        slack.check("bot_token", "nonsense").unwrap(),
        Err(credentials::Violation::WrongPrefix)
    );
}

fn a_failing_check_says_nothing_of_the_value() {
    let hostile = load(&host(), &shipped("hostile")).unwrap();
    let error = hostile.check("token", "leak-canary-value").unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(hostile.check("token", "fine").unwrap(), Ok(()));
}

fn the_same_call_gives_the_same_answer() {
    let slack = load(&host(), &shipped("slack")).unwrap();
    let first = slack.next(&send_message(), &[]).unwrap().value;
    for _ in 0..100 {
        assert_eq!(slack.next(&send_message(), &[]).unwrap().value, first);
    }
}

fn time_stands_still_at_the_calls_own_and_waiting_takes_none() {
    let hostile = load(&host(), &shipped("hostile")).unwrap();
    let told = finished(&hostile, &invocation("clock", "{}"));
    assert_eq!(
        told,
        json!({ "unix_ms": 1_700_000_000_123_u64, "elapsed_ns": 0 })
    );
    // It asks for three seconds; nothing here may wait, so none pass.
    let told = finished(&hostile, &invocation("sleep", "{}"));
    assert_eq!(told, json!({ "slept_ns": 0 }));
}

fn chance_follows_from_the_calls_key() {
    let hostile = load(&host(), &shipped("hostile")).unwrap();
    let draw = |key: &str| {
        let mut call = invocation("chance", "{}");
        call.idempotency_key = key.into();
        finished(&hostile, &call)
    };
    assert_eq!(draw("one"), draw("one"));
    assert_ne!(draw("one"), draw("two"));
}

fn what_reaches_for_the_machine_is_refused_by_name() {
    let host = host();
    for (name, wants) in [
        ("hostile_file", "wasi:filesystem/preopens@0.2."),
        ("hostile_socket", "wasi:sockets/tcp@0.2."),
    ] {
        let error = load(&host, &shipped(name)).expect_err(name);
        assert!(
            matches!(&error, LoadError::Import(names) if names.iter().any(|n| n.starts_with(wants))),
            "{error}"
        );
        assert!(error.to_string().contains(wants), "{error}");
    }
    assert_eq!(host.compiled(), 0, "nothing of it needs a compiler");
}

fn what_a_plugin_writes_holds_no_nul() {
    let hostile = load(&host(), &shipped("hostile")).unwrap();
    let reply = adapter::Reply {
        status: 200,
        headers: vec![],
        body: vec![],
    };
    let next = |action: &str| {
        let mut call = invocation(action, "{}");
        call.settings = r#"{"base_url":"https://allowed.example"}"#.into();
        hostile.next(&call, std::slice::from_ref(&reply))
    };
    let log = next("nul").unwrap().log;
    assert_eq!(log[0].message, "a\u{fffd}b");
    let error = next("trip").unwrap_err().to_string();
    assert!(error.contains("over the reply"), "{error}");
    assert!(!error.contains('\0'), "{error:?}");
}

fn every_shipped_plugin_is_a_small_one() {
    let limits = stage::limits();
    let mut looked_at = 0;
    for (name, bytes) in stage::all_shipped() {
        if name == "hostile_file" || name == "hostile_socket" {
            continue;
        }
        let class = check_file(&bytes, &limits).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(class, Class::Small, "{name}");
        looked_at += 1;
    }
    assert!(looked_at > 1, "run scripts/plugins");
}
