#![doc = include_str!("../README.md")]

mod call;
mod credentials;
mod policy;
mod policy_testing;
mod reply;
mod request;
mod skill;
pub mod testing;

/// The contract's own types, made from `wit/v0.1`: of a skill adapter. A component that exports several interfaces
/// is made from several worlds; their union is what it imports and exports.
pub mod wit {
    wit_bindgen::generate!({
        path: "../../wit/v0.1",
        world: "skill-adapter-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "servicetsunami_plugin::wit",
        additional_derives: [PartialEq, Clone],
    });
}

/// The same of a routing policy.
pub mod wit_policy {
    wit_bindgen::generate!({
        path: "../../wit/v0.1",
        world: "routing-policy-plugin",
        pub_export_macro: true,
        export_macro_name: "export_policy_component",
        default_bindings_module: "servicetsunami_plugin::wit_policy",
        additional_derives: [PartialEq, Clone],
        with: {
            "servicetsunami:plugin/types@0.1.0": crate::wit::servicetsunami::plugin::types,
            "servicetsunami:plugin/log@0.1.0": crate::wit::servicetsunami::plugin::log,
        },
    });
}

/// The same of a credential schema.
pub mod wit_credentials {
    wit_bindgen::generate!({
        path: "../../wit/v0.1",
        world: "credential-schema-plugin",
        pub_export_macro: true,
        export_macro_name: "export_credentials_component",
        default_bindings_module: "servicetsunami_plugin::wit_credentials",
        additional_derives: [PartialEq, Clone],
        with: {
            "servicetsunami:plugin/types@0.1.0": crate::wit::servicetsunami::plugin::types,
            "servicetsunami:plugin/log@0.1.0": crate::wit::servicetsunami::plugin::log,
        },
    });
}

pub use call::{Call, Done, Stop};
pub use credentials::{Credential, Shape};
pub use policy::{
    ActionName, Asked, Calls, Decision, Effect, Policy, RiskLevel, Roles, SkillName, allow,
    allow_on_instance, allow_with_model, ask, deny, strictest, violation,
};
pub use reply::Reply;
pub use request::{FormField, Request, delete, get, patch, post, put};
pub use skill::{ActionBuilder, Skill, action, action_without_schema};

pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
pub use serde_json::{Value, json};
pub use wit::exports::servicetsunami::plugin::skill_adapter::{
    Failure, Invocation, Method, Refusal, Step, Violation,
};
pub use wit::servicetsunami::plugin::types::{About, BasicAuth, Operand, Part, Risk};
pub use wit_credentials::exports::servicetsunami::plugin::credential_schema::{
    ClientAuthentication, Kind as CredentialKind, Oauth, Violation as CredentialViolation,
};
pub use wit_policy::exports::servicetsunami::plugin::routing_policy as policy_types;

/// Writes a line into the trace of the call; the gateway bounds their number and length.
pub mod log {
    use crate::wit::servicetsunami::plugin::log::{Level, write};

    pub fn debug(message: &str) {
        write(Level::Debug, message);
    }
    pub fn info(message: &str) {
        write(Level::Info, message);
    }
    pub fn warn(message: &str) {
        write(Level::Warn, message);
    }
    pub fn error(message: &str) {
        write(Level::Error, message);
    }
}

/// What the package's `Cargo.toml` and `README.md` say of the plugin: `about!("Slack", ["messaging"])`.
#[macro_export]
macro_rules! about {
    ($title:expr, [$($category:expr),* $(,)?]) => {
        $crate::About {
            title: $title.into(),
            summary: env!("CARGO_PKG_DESCRIPTION").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            licence: env!("CARGO_PKG_LICENSE").into(),
            categories: vec![$($category.into()),*],
            homepage: match env!("CARGO_PKG_REPOSITORY") {
                "" => None,
                url => Some(url.into()),
            },
            readme: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).into(),
        }
    };
}

/// Exports a skill and its credentials as the component: `export_skill!(skill, credentials)`, with
/// `pub fn skill() -> Skill` and `pub fn credentials() -> Vec<Credential>`; or `export_skill!(skill)` alone, where it
/// needs none, or another plugin describes them ([`export_credentials!`]). Compiled for the machine itself, as for tests,
/// it exports nothing.
#[macro_export]
macro_rules! export_skill {
    ($skill:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            $crate::export_skill!(@adapter Component, $skill);
        };
    };
    ($skill:path, $credentials:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            $crate::export_skill!(@adapter Component, $skill);
            impl $crate::wit_credentials::exports::servicetsunami::plugin::credential_schema::Guest for Component {
                fn describe() -> $crate::wit_credentials::exports::servicetsunami::plugin::credential_schema::Schema {
                    $skill().credential_schema($credentials())
                }
                fn check(key: String, value: String) -> Result<(), $crate::CredentialViolation> {
                    $crate::Credential::check_among(&$credentials(), &key, &value)
                }
            }
            $crate::wit_credentials::export_credentials_component!(Component with_types_in $crate::wit_credentials);
        };
    };
    (@adapter $component:ident, $skill:path) => {
        impl $crate::wit::exports::servicetsunami::plugin::skill_adapter::Guest for $component {
            fn describe() -> $crate::wit::exports::servicetsunami::plugin::skill_adapter::Manifest {
                $skill().manifest()
            }
            fn next(
                call: $crate::Invocation,
                replies: Vec<$crate::wit::exports::servicetsunami::plugin::skill_adapter::Reply>,
            ) -> Result<$crate::Step, $crate::Failure> {
                $skill().next(call, replies)
            }
        }
        $crate::wit::export_component!($component with_types_in $crate::wit);
    };
}

/// Exports a routing policy as the component: `export_policy!(policy)`, with `fn policy() -> Policy`.
#[macro_export]
macro_rules! export_policy {
    ($policy:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            impl $crate::policy_types::Guest for Component {
                fn describe() -> $crate::policy_types::Manifest {
                    $policy().manifest()
                }
                fn decide(request: $crate::policy_types::Request) -> $crate::policy_types::Decision {
                    $policy().decide(request)
                }
            }
            $crate::wit_policy::export_policy_component!(Component with_types_in $crate::wit_policy);
        };
    };
}

/// Exports credentials alone, for the skill of another plugin:
/// `export_credentials!("slack", about!("…", []), credentials)`.
#[macro_export]
macro_rules! export_credentials {
    ($skill:expr, $about:expr, $credentials:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            impl $crate::wit_credentials::exports::servicetsunami::plugin::credential_schema::Guest for Component {
                fn describe() -> $crate::wit_credentials::exports::servicetsunami::plugin::credential_schema::Schema {
                    $crate::Credential::schema($skill, $about, $credentials())
                }
                fn check(key: String, value: String) -> Result<(), $crate::CredentialViolation> {
                    $crate::Credential::check_among(&$credentials(), &key, &value)
                }
            }
            $crate::wit_credentials::export_credentials_component!(Component with_types_in $crate::wit_credentials);
        };
        // What it is made of is used here, too.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::About = || $about;
    };
}
