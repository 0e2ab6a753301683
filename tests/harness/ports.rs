//! Where outside services stand in the stories. A gateway is told at its start which hosts of this machine its tenants'
//! skills may reach, each with its port; so the ports are taken before there is a service at each.

use std::{
    net::TcpListener,
    sync::{LazyLock, Mutex, PoisonError},
};

/// Services of one process, at most.
const PORTS: usize = 64;

struct Ports {
    hosts: Vec<String>,
    free: Mutex<Vec<TcpListener>>,
}

static TAKEN: LazyLock<Ports> = LazyLock::new(|| {
    let take = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
    let free: Vec<_> = (0..PORTS).map(take).collect();
    let host = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    Ports {
        hosts: free.iter().map(host).collect(),
        free: Mutex::new(free),
    }
});

/// `127.0.0.1:40123` and so on: every place where a service will be.
pub fn private_hosts() -> &'static [String] {
    &TAKEN.hosts
}

/// The next of them, for a service of this process.
pub fn listen() -> tokio::net::TcpListener {
    let listener = next();
    listener.set_nonblocking(true).expect("it does not wait");
    tokio::net::TcpListener::from_std(listener).expect("a runtime")
}

/// The next of them, for a service that listens by itself.
pub fn port() -> u16 {
    next().local_addr().expect("an address").port()
}

fn next() -> TcpListener {
    let mut free = TAKEN.free.lock().unwrap_or_else(PoisonError::into_inner);
    free.pop().expect("PORTS is as many as there are services")
}
