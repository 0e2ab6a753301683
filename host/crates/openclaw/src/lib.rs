#![doc = include_str!("../README.md")]

mod bridge;
mod client;
mod connection;
mod device;
mod frame;

pub use bridge::{BridgeStatus, ExecuteError, ExecuteReply, ExecuteRequest, HttpReply, HttpRequest};
pub use client::{CallError, Client, Endpoint, Options, State};
pub use connection::Hello;
pub use device::DeviceIdentity;

/// The scopes that the control plane asks for.
pub const SCOPES: [&str; 2] = ["operator.read", "operator.write"];
