//! Where a client stands with its gateway, for callers to read and to wait on.

use std::{fmt, sync::Arc, time::Duration};

use serde::Deserialize;

use crate::connection::Link;

/// A client's standing. It changes on its own: the client keeps trying whatever the problem is.
#[derive(Clone, Debug)]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    /// Calls go through.
    Ready(Connected),
    /// Calls do not go through.
    Down(Outage),
}

/// A usable connection.
#[derive(Clone, Debug)]
pub struct Connected {
    /// What the gateway said of itself.
    pub hello: Arc<Hello>,
    pub(crate) link: Link,
}

/// Why there is no connection, and when the next attempt is due.
#[derive(Clone, Debug)]
pub struct Outage {
    /// What stands in the way.
    pub problem: Problem,
    /// From the moment this state was entered until the next attempt.
    pub retry_after: Duration,
}

/// What stands in the way of a connection. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// TCP, TLS or the WebSocket did not come about.
    #[error(
        "it cannot be reached ({0}); check that the instance runs and that its address is right"
    )]
    Unreachable(String),
    /// The connection ended.
    #[error("the connection ended ({0}); trying again")]
    Lost(String),
    /// The gateway announced that it stops or restarts.
    #[error("the gateway is stopping or restarting; trying again")]
    Stopping,
    /// The gateway is up and does not serve yet.
    #[error("the gateway is starting ({0}); trying again")]
    Starting(String),
    /// This device waits for its approval.
    #[error(
        "device {device_id} is not approved; list it in the bridge's `approvedDevices`, or approve it with `openclaw devices approve {request_id}`"
    )]
    NotApproved {
        /// Our device.
        device_id: String,
        /// The gateway's name for the pending request.
        request_id: String,
        /// Whether it waited longer than the bridge takes to approve a listed device.
        overdue: bool,
    },
    /// The gateway does not let this client in.
    #[error("the gateway refuses this client: {message} ({code}); check its token and its device")]
    Rejected {
        /// The finest code that it gave.
        code: String,
        /// Its words.
        message: String,
    },
    /// Too many wrong credentials came from this address; right ones are refused as well for a while.
    #[error(
        "the gateway has locked out this address after wrong credentials; it opens again by itself"
    )]
    LockedOut,
    /// The connection stands, and is of no use.
    #[error("{0}")]
    Incompatible(Incompatible),
}

/// What a gateway lacks that calls need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// It speaks another protocol.
    #[error("the gateway does not speak protocol 4; install a supported OpenClaw version")]
    Protocol,
    /// It granted less than was asked for.
    #[error(
        "the gateway granted no {0}; off its own machine that takes an approved device: list ours in the bridge's `approvedDevices`"
    )]
    Scope(String),
    /// A plugin is missing.
    #[error(
        "the gateway has no method {0}; install the openclaw-bridge plugin, check that its files are regular and not world-writable, and restart the instance"
    )]
    Method(String),
    /// A proxy sits between that the gateway does not trust.
    #[error(
        "the gateway answered HTTP 403: a proxy on the way adds forwarding headers; use a plain TCP path or list it in `gateway.trustedProxies`"
    )]
    Proxy,
}

impl Problem {
    /// Whether somebody has to change something before it gets better. Calls do not wait for that.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Stopping | Self::Starting(_) => false,
            Self::NotApproved { overdue, .. } => *overdue,
            Self::Rejected { .. } | Self::LockedOut | Self::Incompatible(_) => true,
        }
    }
}

/// What a gateway says of itself on connecting (`hello-ok`), as far as we use it.
#[derive(Debug, Deserialize)]
pub struct Hello {
    /// The protocol's version.
    pub protocol: u32,
    /// Its program.
    pub server: Server,
    /// What it can do.
    pub features: Features,
    /// What we may do.
    pub auth: Granted,
    /// Its limits.
    pub policy: Policy,
}

/// The gateway's program.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Such as `2026.9.6`.
    pub version: String,
    /// Another one after each start.
    pub boot_id: String,
}

/// What a gateway can do.
#[derive(Deserialize)]
pub struct Features {
    /// Names of all methods, plugins' included.
    pub methods: Vec<String>,
}

/// What the gateway granted to this connection.
#[derive(Debug, Deserialize)]
pub struct Granted {
    /// May be fewer than were asked for, or none.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// A gateway's limits.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Bytes of one frame.
    pub max_payload: usize,
    /// Milliseconds between two `tick` events.
    pub tick_interval_ms: u64,
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} methods", self.methods.len())
    }
}
