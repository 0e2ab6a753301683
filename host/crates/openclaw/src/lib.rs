#![doc = include_str!("../README.md")]

mod backoff;
pub mod bridge;
mod client;
mod connection;
mod device;
mod error;
mod frame;
mod handshake;
mod secret_buffer;
mod state;
mod supervisor;

pub use client::{Client, Endpoint, MAX_CALLS_IN_FLIGHT, Options};
pub use device::{ConnectClaim, DeviceIdentity};
pub use error::{CallError, NotSent, Refusal};
pub use frame::{Answer, MAX_PAYLOAD_BYTES};
pub use handshake::SCOPES_WANTED;
pub use state::{
    Connected, Features, Granted, Hello, Incompatible, Outage, Policy, Problem, Server, State,
};
