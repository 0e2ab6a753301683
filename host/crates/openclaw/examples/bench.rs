//! Measures the client and the bridge in a real OpenClaw: a call that does nothing and one that does an
//! exchange with a recorder on loopback, one after another and 32 in flight.
//!
//! `cargo run --release -p tsunami-openclaw --example bench [calls]`

#[path = "../tests/real_openclaw/gateway.rs"]
mod gateway;
#[path = "../tests/real_openclaw/recorder.rs"]
mod recorder;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use gateway::Gateway;
use recorder::Recorder;
use tsunami_openclaw::{
    Client,
    bridge::{ExecuteRequest, HttpRequest, PrivateNetwork},
};

const DEADLINE: Duration = Duration::from_secs(30);
const IN_FLIGHT: usize = 32;
/// Calls that let the gateway's code get compiled before anything is measured.
const WARM_UP: usize = 300;

#[tokio::main]
async fn main() {
    let calls = std::env::args()
        .nth(1)
        .map_or(2000, |calls| calls.parse().expect("a number of calls"));
    let mut gateway = Gateway::start().await;
    let recorder = Recorder::start().await;
    let client = gateway.client();
    client
        .wait_ready(DEADLINE)
        .await
        .expect("the gateway is ready");

    let url = recorder.url("/bench");
    println!(
        "{:<10} {:>9} {:>9} {:>9} {:>9}",
        "", "in flight", "p50 ms", "p99 ms", "calls/s"
    );
    for (name, operation) in [
        ("status", Operation::Status),
        ("execute", Operation::Execute(&url)),
    ] {
        measure(&client, &operation, IN_FLIGHT, WARM_UP).await;
        for in_flight in [1, IN_FLIGHT] {
            let (mut times, total) = measure(&client, &operation, in_flight, calls).await;
            times.sort_unstable();
            let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1000.0;
            println!(
                "{name:<10} {in_flight:>9} {:>9.3} {:>9.3} {:>9.0}",
                at(50),
                at(99),
                times.len() as f64 / total.as_secs_f64()
            );
        }
    }

    let executed = executed();
    recorder.arrived("/bench", executed).await;
    assert_eq!(
        recorder.seen("/bench").len(),
        executed,
        "each exchange arrives once"
    );

    let killed = Instant::now();
    gateway.kill();
    gateway.start_again().await;
    let ready = killed.elapsed();
    client.bridge_status(DEADLINE).await.expect("a status");
    println!(
        "killed: ready again after {:.1} s, first answer after {:.1} s",
        ready.as_secs_f64(),
        killed.elapsed().as_secs_f64()
    );
}

enum Operation<'a> {
    Status,
    Execute(&'a str),
}

/// The time of each call, and of all.
async fn measure(
    client: &Client,
    operation: &Operation<'_>,
    in_flight: usize,
    calls: usize,
) -> (Vec<Duration>, Duration) {
    let begun = Instant::now();
    let lanes = (0..in_flight).map(|_| async {
        let mut times = Vec::with_capacity(calls / in_flight);
        for _ in 0..calls / in_flight {
            let begun = Instant::now();
            perform(client, operation).await;
            times.push(begun.elapsed());
        }
        times
    });
    let times = join_all(lanes).await.concat();
    (times, begun.elapsed())
}

async fn perform(client: &Client, operation: &Operation<'_>) {
    match operation {
        Operation::Status => drop(client.bridge_status(DEADLINE).await.expect("a status")),
        Operation::Execute(url) => drop(client.execute(&exchange(url)).await.expect("a reply")),
    }
}

static EXECUTED: AtomicUsize = AtomicUsize::new(0);

fn executed() -> usize {
    EXECUTED.load(Ordering::Relaxed)
}

fn exchange(url: &str) -> ExecuteRequest {
    ExecuteRequest {
        call_id: format!("bench-{}", EXECUTED.fetch_add(1, Ordering::Relaxed)),
        resend: false,
        journal_id: None,
        sent_ago: Duration::ZERO,
        retry_unknown: false,
        digest: "sha256:bench".into(),
        timeout: DEADLINE,
        max_response_bytes: 1024 * 1024,
        secrets: vec!["a-credential-of-the-bench".into()],
        private_network: PrivateNetwork::Allow,
        journal_reply: true,
        request: HttpRequest {
            method: "POST".into(),
            url: url.into(),
            headers: vec![
                (
                    "authorization".into(),
                    "Bearer a-credential-of-the-bench".into(),
                ),
                ("content-type".into(), "application/json".into()),
            ],
            body: Some(
                br##"{"channel":"#finance","text":"Q4 summary"}"##
                    .to_vec()
                    .into(),
            ),
        },
    }
}
