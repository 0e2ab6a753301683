//! Typed ids: an agent's id cannot stand where a task's is wanted.
//!
//! All are UUID version 7 (RFC 9562): they sort by creation, so that an index on the id is also an
//! index on time, and a cursor is the last id seen.

use sha2::{Digest, Sha256};
use tsunami_plugin_host::TenantKey;
use uuid::Uuid;

#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
fn fresh() -> Uuid {
    Uuid::now_v7()
}

/// 256 bits from the operating system, for secrets and tokens.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random source answers");
    bytes
}

/// An id that follows from what it is for, so that work that is done again finds what it made before
/// (RFC 9562 version 8: 122 bits of SHA-256 over the length-prefixed parts).
pub fn derived(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, sqlx::Type, utoipa::ToSchema)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one, later in order than every one before.
            pub fn fresh() -> Self {
                Self(fresh())
            }
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

ids! {
    TenantId, UserId, ApiKeyId, OperatorKeyId,
    AgentId, MemoryId,
    TaskId, MessageId, TraceId,
    CredentialId, DataKeyId, GrantId, OauthClientId,
    PluginVersionId, InstallationId,
    PublisherId, PublisherKeyId, ReleaseId, RevocationId,
    InstanceId,
    SkillConfigId, SkillCallId, ApprovalId,
    PolicyId, PolicyDecisionId,
}

/// How those that give out turns, and know of no tenants, tell whose it is.
impl From<TenantId> for TenantKey {
    fn from(tenant: TenantId) -> Self {
        Self(tenant.uuid().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_tells_its_parts_apart() {
        assert_eq!(derived(&[b"a", b"b"]), derived(&[b"a", b"b"]));
        assert_ne!(derived(&[b"a", b"b"]), derived(&[b"ab"]));
        assert_ne!(derived(&[b"a", b"b"]), derived(&[b"b", b"a"]));
    }

    #[test]
    fn ids_sort_by_creation() {
        let first = TaskId::fresh();
        assert!(first < TaskId::fresh());
    }
}
