//! A start that does not come to its end leaves nothing running.

use crate::{Stories, Theatre, own};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{net::TcpListener, sync::Arc};
use tsunami_tests::{eventually, gateway::Gateway};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "a_port_that_is_taken_is_told_before_anything_is_started",
        taken_port,
    );
    own(
        stories,
        theatre,
        "an_interrupt_at_any_moment_of_the_start_leaves_nothing_running",
        interrupted,
    );
    own(
        stories,
        theatre,
        "a_start_that_fails_leaves_nothing_running",
        failing,
    );
}

async fn taken_port() {
    let mut gateway = Gateway::at_rest(&[]);
    let address = gateway.url().replace("http://", "");
    let _other_program = TcpListener::bind(&address).expect("the port is free");
    gateway.spawn();
    assert!(!gateway.ended().await.success());
    let told = gateway.log();
    let words = [&format!("cannot listen on {address}"), "in use", "--listen"];
    assert!(words.iter().all(|word| told.contains(*word)), "{told}");
    gateway.is_gone().await;
    assert!(!gateway.data_dir().join("postgres").exists());
}

/// By the first trace that each part leaves. The later ones meet servers that were there before.
const MOMENTS: [&str; 5] = [
    "postgres/initdb.pid",
    "temporal/pid",
    "postgres/pid",
    "vault-keys",
    "operator-key",
];

async fn interrupted() {
    let mut gateway = Gateway::at_rest(&[]);
    for moment in MOMENTS {
        gateway.spawn();
        let trace = gateway.data_dir().join(moment);
        eventually(moment, || async { trace.exists().then_some(()) }).await;
        let _ = kill(Pid::from_raw(gateway.pid()), Signal::SIGINT);
        gateway.ended().await;
        gateway.is_gone().await;
        let told = gateway.log();
        assert!(!told.contains("panicked"), "{told}");
    }
    // And all that came of it is a gateway that starts.
    gateway.start_host().await;
}

async fn failing() {
    // The last thing that is looked at: PostgreSQL and Temporal run by then.
    let mut gateway = Gateway::at_rest(&[("TSUNAMI_INSTANCES__BRIDGE_DIR", "/nowhere")]);
    gateway.spawn();
    assert!(!gateway.ended().await.success());
    let told = gateway.log();
    assert!(told.contains("/nowhere"), "{told}");
    assert!(gateway.data_dir().join("temporal/temporal.db").exists());
    gateway.is_gone().await;
}
