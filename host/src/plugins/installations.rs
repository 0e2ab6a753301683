//! What is installed for a skill, and what takes its place. Which release that may be is the marketplace's to say.

use super::{Origin, consent::Consent, store};
use crate::{db::TenantTx, id::InstallationId, problem::Problem};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

pub use store::InstallationRow;

/// What an installation does for its skill. A skill has one of each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Serves {
    /// It carries the skill's calls out. Where it describes the credentials as well, nothing else does.
    Skill,
    /// It describes the credentials that the first one names.
    Credentials,
}

/// Who agreed to what, and when.
#[derive(Debug, Clone)]
pub struct Agreed {
    pub consent: Consent,
    pub by: String,
    pub at: OffsetDateTime,
}

/// What is to be installed.
#[derive(Debug)]
pub struct Install<'a> {
    pub id: InstallationId,
    pub skill: &'a str,
    pub serves: Serves,
    pub origin: &'a Origin,
    /// None for a file of the tenant's own.
    pub agreed: Option<Agreed>,
    pub by: &'a str,
    pub auto_upgrade: bool,
    /// Of a rollback: what the version before came after.
    pub previous: Option<Option<InstallationId>>,
}

/// Makes those who change what is installed for one skill wait for each other, until the transaction ends.
pub async fn lock(tx: &mut TenantTx, skill: &str) -> Result<(), Problem> {
    Ok(store::lock_skill(tx, skill).await?)
}

/// Puts a version in the place of the one that is installed. Calls that are under way go on with theirs.
///
/// # Errors
/// 409 `credentials_described` for a credential schema whose skill describes its credentials itself.
pub async fn install(tx: &mut TenantTx, new: Install<'_>) -> Result<(), Problem> {
    if new.serves == Serves::Credentials && store::describes_itself(tx, new.skill).await? {
        return Err(Problem::conflict(
            "credentials_described",
            format!(
                "The plugin that is installed for `{}` describes its credentials itself, so that a schema beside it would not be asked.",
                new.skill
            ),
        ));
    }
    let version = store::ensure_version(tx, new.origin).await?;
    let consent = new
        .agreed
        .as_ref()
        .map(|agreed| serde_json::to_value(&agreed.consent));
    let consent_sha256 = new.agreed.as_ref().map(|agreed| agreed.consent.sha256());
    let row = store::Installing {
        id: new.id,
        version,
        skill: new.skill,
        serves: new.serves,
        digest: &new.origin.digest,
        by: new.by,
        previous: new.previous,
        consent: consent.transpose().map_err(|e| Problem::internal(&e))?,
        consent_sha256: consent_sha256.as_deref(),
        agreed_by: new.agreed.as_ref().map(|agreed| agreed.by.as_str()),
        agreed_at: new.agreed.as_ref().map(|agreed| agreed.at),
        auto_upgrade: new.auto_upgrade,
    };
    store::install(tx, row).await?;
    store::ensure_config(tx, new.skill).await?;
    Ok(())
}

pub async fn find(
    tx: &mut TenantTx,
    id: InstallationId,
) -> Result<Option<InstallationRow>, Problem> {
    Ok(store::get(tx, id).await?)
}

/// Whether the tenant brought this file, or had this release once: then it is nothing new.
pub async fn had(tx: &mut TenantTx, origin: &Origin) -> Result<bool, Problem> {
    Ok(store::has_version(tx, origin).await?)
}

impl InstallationRow {
    pub fn origin(&self) -> Origin {
        Origin {
            digest: self.digest.clone(),
            release: self.release_id,
        }
    }

    /// What was agreed to when it was installed.
    pub fn agreed(&self) -> Option<Agreed> {
        Some(Agreed {
            consent: serde_json::from_value(self.consent.clone()?).ok()?,
            by: self.agreed_by.clone()?,
            at: self.agreed_at?,
        })
    }
}
