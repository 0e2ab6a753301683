//! Whether a release is its publisher's: at intake, and again before it is run.

use super::store;
use crate::{
    db::TenantTx,
    id::{PublisherKeyId, ReleaseId},
    problem::Problem,
};
use tsunami_provenance::{PublicKey, Statement};

/// The version of the contract that components are built for (`wit/`).
pub const CONTRACT: &str = "0.1.0";

/// Checks the signature of a release that is stored: somebody may have got at the rows.
///
/// # Errors
/// 409 where it does not hold, or the release is of another component.
pub async fn check_stored(
    tx: &mut TenantTx,
    release: ReleaseId,
    digest: &str,
) -> Result<PublisherKeyId, Problem> {
    let stored = store::signed_release(tx, release)
        .await?
        .ok_or_else(|| Problem::internal(&"the release of an installed plugin is not there"))?;
    let holds = Statement::new(
        &stored.namespace,
        &stored.name,
        &stored.version,
        &stored.digest,
        &stored.contract,
    )
    .is_ok_and(|statement| {
        PublicKey::from_bytes(&stored.public_key)
            .is_ok_and(|key| key.verify(&statement, &stored.signature))
    });
    if holds && stored.digest == digest {
        return Ok(stored.key_id);
    }
    tracing::error!(%release, digest, "the signature of an installed plugin does not hold");
    Err(Problem::conflict(
        "signature_invalid",
        format!(
            "The signature of {}/{}@{} does not hold, so it is not run. Tell the operator of this gateway.",
            stored.namespace, stored.name, stored.version
        ),
    ))
}
