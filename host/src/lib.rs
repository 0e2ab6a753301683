//! # tsunami
//!
//! The control plane of ServiceTsunami Skills Gateway. `ARCHITECTURE.md` at the top of the repository
//! says how the parts fit; here is the order to read them in:
//!
//! - [`routes`], [`worker`], [`config`]: what can be asked, what can happen, what can be set;
//! - the slices, a folder a noun of the product: [`tenants`], [`agents`], [`traces`], [`vault`],
//!   [`plugins`], [`marketplace`], [`oauth`], [`instances`], [`skills`], [`tasks`];
//! - the ground that they stand on: [`app`], [`caller`], [`db`], [`problem`], [`id`], [`clock`],
//!   [`page`], [`outbox`], [`outbound`], [`telemetry`].

pub mod app;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
mod connections;
pub mod db;
mod drain;
pub mod extract;
pub mod id;
mod json;
mod openapi;
pub mod outbound;
pub mod outbox;
mod pace;
pub mod page;
mod pool;
pub mod problem;
pub mod routes;
mod shares;
pub mod telemetry;
#[cfg(test)]
mod testing;
mod turns;
pub mod worker;

pub mod agents;
pub mod instances;
pub mod marketplace;
pub mod oauth;
pub mod plugins;
pub mod policies;
pub mod skills;
pub mod tasks;
pub mod tenants;
pub mod traces;
pub mod vault;
