#![doc = include_str!("../README.md")]

mod client;
pub mod codec;
mod worker;
pub mod workflow;

pub use client::{
    CALL_DEADLINE, Description, Durable, DurableError, Settings, StartRequest, Started,
};
pub use codec::CodecKeys;
pub use worker::WorkerHandle;
