//! The contract's types, made from `wit/v0.1`; they are this crate's public types too.

mod adapter_world {
    wasmtime::component::bindgen!({
        path: "../../../wit/v0.1",
        world: "skill-adapter-plugin",
        additional_derives: [PartialEq, Clone, serde::Serialize, serde::Deserialize],
        imports: { default: trappable },
    });
}
mod credentials_world {
    wasmtime::component::bindgen!({
        path: "../../../wit/v0.1",
        world: "credential-schema-plugin",
        additional_derives: [PartialEq, Clone, serde::Serialize, serde::Deserialize],
        imports: { default: trappable },
        with: {
            "servicetsunami:plugin/types": super::adapter_world::servicetsunami::plugin::types,
            "servicetsunami:plugin/log": super::adapter_world::servicetsunami::plugin::log,
        },
    });
}
mod policy_world {
    wasmtime::component::bindgen!({
        path: "../../../wit/v0.1",
        world: "routing-policy-plugin",
        additional_derives: [PartialEq, Clone, serde::Serialize, serde::Deserialize],
        imports: { default: trappable },
        with: {
            "servicetsunami:plugin/types": super::adapter_world::servicetsunami::plugin::types,
            "servicetsunami:plugin/log": super::adapter_world::servicetsunami::plugin::log,
        },
    });
}

pub(crate) use adapter_world::SkillAdapterPlugin;
pub use adapter_world::servicetsunami::plugin::{log, types};

/// Of the interface `skill-adapter`.
pub mod adapter {
    pub use super::adapter_world::exports::servicetsunami::plugin::skill_adapter::*;
}
/// Of the interface `credential-schema`.
pub mod credentials {
    pub use super::credentials_world::exports::servicetsunami::plugin::credential_schema::*;
}
/// Of the interface `routing-policy`.
pub mod policy {
    pub use super::policy_world::exports::servicetsunami::plugin::routing_policy::*;
}
