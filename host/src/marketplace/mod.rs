//! # Marketplace
//!
//! ## What it is
//! Where publishers offer plugins, operators look at them, and tenants find, agree to and install them; and how a bad
//! one is stopped everywhere within seconds.
//!
//! ## Life
//! A release is submitted (signed by a key of its publisher's) -> approved | rejected by an operator. It never changes
//! after that, it is only thought of differently: yanked (installed no more, stays where it is, may be taken back) or
//! revoked (not run any more, for good).
//!
//! An installation: the tenant reads what the plugin may do, agrees to exactly that, and it is pinned by digest
//! -> upgraded (asked again where a version may do more) | rolled back | removed.
//!
//! ## Always true
//! - What is published under a version never changes: one component, found by its SHA-256 (the tables; a tag that moves
//!   later changes nothing: `host/crates/provenance/tests/oci.rs`).
//! - Nobody but the holder of a publisher's key publishes under its namespace (`a_signature_of_somebody_else_is_refused`),
//!   and a release whose row was changed is not run (`a_release_that_was_tampered_with_is_not_run`).
//! - Nothing published is installed that a person did not agree to, to the letter (`consent` in [`crate::plugins`]).
//! - A revoked component is neither loaded nor called, on any host, after 10 s; also where the notification is lost, and
//!   where the database is away for longer than the setting allows (`tests/spine/marketplace.rs`, `host/tests/marketplace.rs`).
//! - A publisher revokes its own releases, and not the same bytes in somebody else's hands; an operator revokes bytes.
//! - A tenant sees a release that is its own, or approved and meant for it, or that it once installed (row-level security).
//!
//! ## To change
//! - What is agreed to, and what counts as more: `plugins/consent.rs`.
//! - What is checked at intake: `plugins/intake.rs`, and [`publishing`].
//! - What a tenant is told of what it has: `installations.rs` here, and `notices` in `plugins/http.rs`.

mod conformance;
pub mod http;
pub mod installations;
pub mod publishing;
pub mod revocations;
mod signing;
mod store;
pub mod upgrades;

use crate::{
    app::App,
    caller::Party,
    config::{MarketplaceConfig, RegistryConfig},
    db::{SystemTx, TenantTx},
    id::TenantId,
    plugins::{
        self,
        intake::{self, Described},
    },
    problem::Problem,
    tenants::{self, Claim},
};
use anyhow::Context;
use sqlx::PgConnection;
use std::ops::{Deref, DerefMut};
use tsunami_provenance::{Credentials, Registries, Registry, Sigstore};

/// Where components may be pulled from, as the configuration says.
pub fn registries(config: &MarketplaceConfig) -> Registries {
    let registry = |r: &RegistryConfig| Registry {
        host: r.host.clone(),
        plain_http: r.plain_http,
        credentials: (!r.username.is_empty()).then(|| Credentials {
            username: r.username.clone(),
            password: r.password.expose().into(),
            repositories: r.tenant_repositories.clone(),
        }),
    };
    Registries::new(config.registries.iter().map(registry).collect())
}

/// What Sigstore's bundles are checked against.
pub fn sigstore(config: &MarketplaceConfig) -> anyhow::Result<Sigstore> {
    let file = &config.sigstore_trusted_root_file;
    if file.as_os_str().is_empty() {
        return Ok(Sigstore::public_good()?);
    }
    let setting = "setting marketplace.sigstore_trusted_root_file";
    let json = std::fs::read_to_string(file)
        .with_context(|| format!("{setting}: cannot read {}", file.display()))?;
    Sigstore::with_trusted_root(&json).with_context(|| format!("{setting}: {}", file.display()))
}

/// Whose turn it is when a component that a party brings is looked at.
fn turn(party: &Party) -> TenantId {
    match party {
        Party::Tenant(caller) => caller.tenant,
        Party::Operator(_) => plugins::OPERATOR,
    }
}

/// A transaction in which a tenant sees what is for it, and an operator all.
enum PartyTx {
    Tenant(TenantTx),
    Operator(SystemTx),
}

impl PartyTx {
    async fn begin(app: &App, party: &Party) -> Result<Self, Problem> {
        Ok(match party {
            Party::Tenant(caller) => Self::Tenant(app.db().tenant(caller.tenant).await?),
            Party::Operator(_) => Self::Operator(app.db().system().await?),
        })
    }

    /// Stores a component that the party brings; of a tenant it is remembered that it did.
    async fn keep(&mut self, described: &Described, bytes: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Tenant(tx) => intake::bring(tx, described, bytes).await.map(|_| ()),
            Self::Operator(tx) => intake::keep(tx, described, bytes).await,
        }
    }

    /// An Idempotency-Key, for what the party is about to create.
    async fn claim(
        &mut self,
        operation: &'static str,
        key: Option<&str>,
        request_sha256: &[u8; 32],
    ) -> Result<Claim, Problem> {
        match self {
            Self::Tenant(tx) => tenants::claim(tx, operation, key, request_sha256).await,
            Self::Operator(tx) => {
                tenants::claim_of_operator(tx, operation, key, request_sha256).await
            }
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Tenant(tx) => tx.commit().await,
            Self::Operator(tx) => tx.commit().await,
        }
    }
}

impl Deref for PartyTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        match self {
            Self::Tenant(tx) => tx,
            Self::Operator(tx) => tx,
        }
    }
}

impl DerefMut for PartyTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Tenant(tx) => tx,
            Self::Operator(tx) => tx,
        }
    }
}

/// `acme/slack@1.2.0`, as people name a release; without a version it is the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseName {
    pub namespace: String,
    pub name: String,
    pub version: Option<String>,
}

impl std::str::FromStr for ReleaseName {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let (plugin, version) = match text.split_once('@') {
            Some((plugin, version)) => (plugin, Some(version)),
            None => (text, None),
        };
        let parts = plugin.split_once('/');
        let valid = |part: &str| !part.is_empty() && !part.contains(['/', '@', ' ']);
        match parts {
            Some((namespace, name))
                if valid(namespace) && valid(name) && version.is_none_or(valid) =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    version: version.map(str::to_owned),
                })
            }
            _ => Err(Problem::invalid_field(
                "/release",
                "must read publisher/plugin@version, or publisher/plugin for the newest: acme/slack@1.2.0",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_named_by_publisher_plugin_and_version() {
        let parse = |text: &str| text.parse::<ReleaseName>();
        let named = parse("acme/slack@1.2.0-rc.1").unwrap();
        assert_eq!(
            (named.namespace.as_str(), named.name.as_str()),
            ("acme", "slack")
        );
        assert_eq!(named.version.as_deref(), Some("1.2.0-rc.1"));
        assert_eq!(parse("acme/slack").unwrap().version, None);
        for wrong in [
            "",
            "slack",
            "acme/",
            "/slack",
            "acme/slack@",
            "a/b/c",
            "acme/slack@1@2",
            "acme/sl ack",
        ] {
            assert_eq!(parse(wrong).unwrap_err().code(), "invalid_body", "{wrong}");
        }
    }
}
