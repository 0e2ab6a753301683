//! Installations that upgrade by themselves, as far as nobody has to agree to more.

use super::{
    installations::{self, Person},
    store,
};
use crate::{
    app::App,
    id::{InstallationId, TenantId},
    problem::Problem,
};
use std::time::Duration;

/// Installations looked at in one query.
const BATCH: i64 = 100;
/// How what this does is signed.
const NAME: &str = "automatic upgrade";

/// For ever. Several processes may: an installation is upgraded under a lock, and once.
pub async fn go_round(app: App) {
    let seconds = app.config().marketplace.auto_upgrade_interval_seconds;
    loop {
        if let Err(problem) = once(&app).await {
            tracing::warn!(%problem, "marketplace: upgrades were not looked for");
        }
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    }
}

async fn once(app: &App) -> Result<(), Problem> {
    let mut after = None;
    loop {
        let found = store::auto_upgrades(&mut app.db().system().await?, after, BATCH).await?;
        for (tenant, installation) in &found {
            match upgrade(app, *tenant, *installation).await {
                Ok(()) => {}
                Err(problem) if problem.is_unavailable() => return Err(problem),
                Err(problem) => {
                    tracing::warn!(%tenant, %installation, %problem, "marketplace: an installation was not upgraded");
                }
            }
        }
        after = match found.last() {
            Some((_, last)) => Some(*last),
            None => return Ok(()),
        };
    }
}

/// Whether somebody of the tenant's has to do something first.
fn waits_for_the_tenant(problem: &Problem) -> bool {
    ["consent_required", "another_kind", "credentials_described"].contains(&problem.code())
}

async fn upgrade(app: &App, tenant: TenantId, installed: InstallationId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let person = Person {
        name: NAME,
        agrees_to: None,
    };
    let upgraded = installations::upgrade(
        app,
        &mut tx,
        InstallationId::fresh(),
        installed,
        None,
        person,
    )
    .await;
    let upgrade = match upgraded {
        Ok(Some(upgrade)) => upgrade,
        Ok(None) => return Ok(()),
        // The tenant finds it among its notices.
        Err(problem) if waits_for_the_tenant(&problem) => return Ok(()),
        Err(problem) => return Err(problem),
    };
    tx.commit().await?;
    tracing::info!(%tenant, release = upgrade.to(), "marketplace: upgraded");
    installations::count_download(app, upgrade.release_id()).await;
    Ok(())
}
