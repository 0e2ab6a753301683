//! Two tenants: what the one does with its turns, the other does not feel.

use crate::stage::{
    self, OTHER_TENANT, TENANT, host_with, hostile, limits, runtime, send_message, shipped,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tsunami_plugin_host::{Plugin, PluginError, PluginHost, TenantLimits};

stage::trials![
    a_tenant_that_loops_in_many_calls_slows_no_other,
    a_tenant_has_its_own_limits_below_the_operators,
    a_tenant_that_asks_for_too_much_at_once_is_told_to_wait,
    a_question_that_takes_long_is_answered_away_from_the_thread_that_asks,
    a_guest_that_prints_is_answered_where_it_was_asked,
    a_panic_of_the_host_ends_the_question_and_gives_its_turn_back,
];

/// The time limit of the looping calls: whoever had to wait for one of them would wait for most of it.
const LOOP: Duration = Duration::from_secs(2);
const LOOPS: usize = 64;
const CALLS: usize = 200;
/// What the README states: how much slower the middle one of the other tenant's calls may be, and what no call waits.
/// (A machine that is busy with other things adds a few times what a scheduler gives each of them.)
const SLOWER_MAX: u32 = 5;
const NOISE: Duration = Duration::from_millis(20);

fn call_times(host: &PluginHost, plugin: &Arc<Plugin>) -> Vec<Duration> {
    let mut times: Vec<_> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            let limits = TenantLimits::default();
            let called = host.ask(OTHER_TENANT, &limits, plugin, |plugin| {
                plugin.next(&send_message(), &[])
            });
            let answer = runtime().block_on(called);
            assert!(answer.is_ok(), "{answer:?}");
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn a_tenant_that_loops_in_many_calls_slows_no_other() {
    let mut limits = limits();
    limits.small.call_timeout = LOOP;
    let host = host_with(limits, None);
    let slack = stage::load(&host, &shipped("slack")).unwrap();
    let endless = stage::load(&host, &hostile("endless_next")).unwrap();
    let alone = call_times(&host, &slack);
    let loops: Vec<_> = (0..LOOPS)
        .map(|_| {
            let (host, endless) = (host.clone(), endless.clone());
            runtime().spawn(async move {
                let limits = TenantLimits::default();
                let call = |plugin: &Plugin| plugin.next(&stage::invocation("x", "{}"), &[]);
                host.ask(TENANT, &limits, &endless, call).await
            })
        })
        .collect();
    stage::eventually("they wait for each other", || {
        format!("{host:?}").contains("wait").then_some(())
    });
    let meanwhile = call_times(&host, &slack);
    let is_looping = loops.iter().any(|looping| !looping.is_finished());
    for looping in loops {
        looping.abort();
    }
    let (before, after) = (alone[CALLS / 2], meanwhile[CALLS / 2]);
    let longest = meanwhile[CALLS - 1];
    eprintln!(
        "alone: p50 {before:?}, max {:?}; while another loops: p50 {after:?}, p99 {:?}, max {longest:?}",
        alone[CALLS - 1],
        meanwhile[CALLS * 99 / 100]
    );
    assert!(is_looping, "it was over before the other's calls");
    assert!(after < before * SLOWER_MAX + NOISE, "{before:?} {after:?}");
    assert!(longest < LOOP / 2, "it waited for a loop: {longest:?}");
}

fn a_tenant_has_its_own_limits_below_the_operators() {
    let host = stage::host();
    let endless = stage::load(&host, &hostile("endless_next")).unwrap();
    let hungry = stage::load(&host, &hostile("memory_grow")).unwrap();
    let limits = TenantLimits {
        call_timeout: Some(Duration::from_millis(7)),
        memory_bytes_max: Some(2 << 20),
        calls_running_max: Some(1),
    };
    let next = |plugin: &Plugin| plugin.next(&stage::invocation("x", "{}"), &[]).map(drop);
    let error = runtime().block_on(host.ask(TENANT, &limits, &endless, next));
    assert!(
        matches!(error, Err(PluginError::Timeout(t)) if t == Duration::from_millis(7)),
        "{error:?}"
    );
    let error = runtime().block_on(host.ask(TENANT, &limits, &hungry, next));
    assert!(
        matches!(error, Err(PluginError::Memory { bytes_max }) if bytes_max == 2 << 20),
        "{error:?}"
    );
    let more = TenantLimits {
        call_timeout: Some(Duration::from_secs(3600)),
        ..limits
    };
    let error = runtime().block_on(host.ask(TENANT, &more, &endless, next));
    assert!(
        matches!(error, Err(PluginError::Timeout(t)) if t == Duration::from_millis(100)),
        "{error:?}"
    );
}

fn a_tenant_that_asks_for_too_much_at_once_is_told_to_wait() {
    let mut limits = limits();
    limits.calls.tenant_running_max = 1;
    limits.calls.tenant_waiting_max = 2;
    let host = host_with(limits, None);
    let endless = stage::load(&host, &hostile("endless_next")).unwrap();
    let answers = runtime().block_on(futures::future::join_all((0..8).map(|_| {
        let limits = TenantLimits::default();
        let (host, endless) = (host.clone(), endless.clone());
        async move {
            host.ask(TENANT, &limits, &endless, |plugin| {
                plugin.next(&stage::invocation("x", "{}"), &[]).map(drop)
            })
            .await
        }
    })));
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(PluginError::Busy)))
        .count();
    assert_eq!(busy, 5, "one runs and two wait: {answers:?}");
}

/// Nothing else would run meanwhile: this runtime has the one thread.
fn a_question_that_takes_long_is_answered_away_from_the_thread_that_asks() {
    let host = stage::host();
    let endless = stage::load(&host, &hostile("endless_next")).unwrap();
    let slack = stage::load(&host, &shipped("slack")).unwrap();
    let alone = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let asking = std::thread::current().id();
    let answered_by = |plugin: Arc<Plugin>| {
        let (tell, told) = std::sync::mpsc::channel();
        let asked =
            alone.block_on(
                host.ask(TENANT, &TenantLimits::default(), &plugin, move |plugin| {
                    tell.send(std::thread::current().id()).expect("it is read");
                    plugin.next(&send_message(), &[]).map(drop)
                }),
            );
        (asked, told.into_iter().collect::<Vec<_>>())
    };
    let (answer, threads) = answered_by(slack.clone());
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(threads, [asking], "a quick answer comes where it was asked");
    let (answer, threads) = answered_by(endless.clone());
    assert!(
        matches!(answer, Err(PluginError::Timeout(t)) if t == Duration::from_millis(100)),
        "{answer:?}"
    );
    assert_eq!(
        threads.len(),
        2,
        "it is tried at once, and then with all its time"
    );
    assert!(threads[0] == asking && threads[1] != asking, "{threads:?}");
    let (_, threads) = answered_by(endless);
    assert!(
        threads.len() == 1 && threads[0] != asking,
        "it took long before: {threads:?}"
    );
}

/// What writes to a stream waits for it, which an async thread must not do by its runtime.
fn a_guest_that_prints_is_answered_where_it_was_asked() {
    let host = stage::host();
    let prints = stage::load(&host, &shipped("exfiltrator")).unwrap();
    let asking = std::thread::current().id();
    let (tell, told) = std::sync::mpsc::channel();
    let limits = TenantLimits::default();
    let check = move |plugin: &Plugin| {
        tell.send(std::thread::current().id()).expect("it is read");
        plugin.check("token", "value")
    };
    let asked = runtime().block_on(host.ask(TENANT, &limits, &prints, check));
    asked.expect("an answer").expect("any value is fine");
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [asking]);
}

fn a_panic_of_the_host_ends_the_question_and_gives_its_turn_back() {
    let mut limits = limits();
    limits.calls.running_max = 1;
    let host = host_with(limits, None);
    let slack = stage::load(&host, &shipped("slack")).unwrap();
    let limits = TenantLimits::default();
    let panics = |_: &Plugin| -> Result<(), PluginError> { panic!("on purpose") };
    let answer = runtime().block_on(host.ask(TENANT, &limits, &slack, panics));
    assert!(matches!(answer, Err(PluginError::Trap(_))), "{answer:?}");
    let next = |plugin: &Plugin| plugin.next(&send_message(), &[]).map(drop);
    let answer = runtime().block_on(host.ask(TENANT, &limits, &slack, next));
    assert!(answer.is_ok(), "{answer:?}");
}
