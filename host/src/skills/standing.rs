//! What a skill's calls are decided by, besides themselves: the instance, the skill's configuration and plugin, its
//! credentials, the policies. It is kept in memory under the tenant's stamp, which the database changes in the
//! transaction that changes any of it (`migrations/*_skills_stamps.sql`): a call compares the stamp when it is written
//! down, and is decided anew where it is another one. So a change acts on the next call, and a call that meets no
//! change reads nothing.

use super::store::{self, ConfigRow};
use crate::{
    db::TenantTx,
    id::TenantId,
    instances::{self, InstanceRow},
    plugins::{self, Origin},
    policies::{self, Link},
    problem::Problem,
    vault::{Closed, Vault},
};
use moka::future::Cache;
use std::{sync::Arc, time::Duration};

/// Of all tenants together.
const BYTES_MAX: u64 = 64 << 20;
/// As long as a data key is kept ([`crate::vault`]).
const KEPT_FOR: Duration = Duration::from_secs(300);

/// As of one stamp.
pub struct Standing {
    pub stamps: String,
    pub instance: Option<InstanceRow>,
    /// None where the skill's plugin is not installed.
    pub skill: Option<Arc<Skill>>,
    /// The policies before the skill's calls, in their order.
    pub chain: Vec<Link>,
}

pub struct Skill {
    pub config: ConfigRow,
    pub plugin: Origin,
    pub credentials: Closed,
}

impl Standing {
    /// Reads it. The stamps were read before this: what changes meanwhile is read, and has another stamp.
    async fn read(
        vault: &Vault,
        tx: &mut TenantTx,
        skill: &str,
        stamps: String,
    ) -> Result<Self, Problem> {
        let instance = instances::live(tx).await?;
        let config = store::config(tx, skill).await?;
        let plugin = plugins::installed_origin(tx, skill).await?;
        let skill_standing = match (config, plugin) {
            (Some(config), Some(plugin)) => Some(Arc::new(Skill {
                credentials: vault.closed(tx, config.id).await?,
                config,
                plugin,
            })),
            _ => None,
        };
        Ok(Self {
            stamps,
            instance,
            skill: skill_standing,
            chain: policies::chain_of(tx, skill).await?,
        })
    }

    /// Bytes that it takes, about.
    fn bytes(&self) -> usize {
        let skill = self.skill.as_ref();
        let of_skill = skill.map_or(0, |skill| {
            skill.credentials.bytes() + skill.config.settings.to_string().len()
        });
        let settings = |link: &Link| size_of::<Link>() + link.settings.to_string().len();
        2048 + of_skill + self.chain.iter().map(settings).sum::<usize>()
    }
}

/// What was read last, by tenant and skill.
pub struct Standings(Cache<(TenantId, String), Arc<Standing>>);

impl Default for Standings {
    fn default() -> Self {
        let bytes = |_: &(TenantId, String), standing: &Arc<Standing>| {
            u32::try_from(standing.bytes()).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .max_capacity(BYTES_MAX)
                .weigher(bytes)
                .time_to_live(KEPT_FOR)
                .build(),
        )
    }
}

impl Standings {
    /// What was read last; whoever uses it compares the stamp.
    pub async fn last(&self, tenant: TenantId, skill: &str) -> Option<Arc<Standing>> {
        self.0.get(&(tenant, skill.to_owned())).await
    }

    /// As it is now; what was read last, where nothing has changed since.
    pub async fn now(
        &self,
        vault: &Vault,
        tx: &mut TenantTx,
        skill: &str,
    ) -> Result<Arc<Standing>, Problem> {
        let key = (tx.tenant(), skill.to_owned());
        let stamps = store::stamps(tx).await?;
        if let Some(last) = self.0.get(&key).await
            && last.stamps == stamps
        {
            return Ok(last);
        }
        let standing = Arc::new(Standing::read(vault, tx, skill, stamps).await?);
        self.0.insert(key, standing.clone()).await;
        Ok(standing)
    }
}
