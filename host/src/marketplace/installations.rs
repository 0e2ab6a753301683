//! Installing what is published: what is agreed to, what a later version would want more, and the way back.

use super::{
    ReleaseName,
    store::{self, ReleaseRow},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{InstallationId, ReleaseId},
    plugins::{
        Origin,
        consent::{Change, Consent, Provenance},
        installations::{self, Agreed, Install, InstallationRow, Serves},
        intake,
    },
    problem::Problem,
};
use semver::Version;

/// The release that is named, where the tenant sees it.
pub async fn resolve(tx: &mut TenantTx, name: &ReleaseName) -> Result<ReleaseId, Problem> {
    let found = match &name.version {
        Some(version) => store::release_named(tx, &name.namespace, &name.name, version).await?,
        None => store::newest_release(tx, &name.namespace, &name.name).await?,
    };
    found
        .map(|release| release.id)
        .ok_or_else(|| Problem::not_found("release for your organization"))
}

/// What somebody who installs a release agrees to.
pub async fn consent_to(app: &App, tx: &mut TenantTx, id: ReleaseId) -> Result<Consent, Problem> {
    let release = find(tx, id).await?;
    Ok(consent(app, tx, &release).await?.0)
}

async fn find(tx: &mut TenantTx, id: ReleaseId) -> Result<ReleaseRow, Problem> {
    store::release(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("release"))
}

async fn consent(
    app: &App,
    tx: &mut TenantTx,
    release: &ReleaseRow,
) -> Result<(Consent, Serves), Problem> {
    let described = intake::find(tx, &release.digest)
        .await?
        .ok_or_else(|| Problem::internal(&"a release's component is not there"))?;
    let from = Provenance {
        release: release.full_name(),
        publisher: release.namespace.clone(),
        identity: release
            .sigstore
            .clone()
            .and_then(|json| serde_json::from_value(json).ok()),
        digest: release.digest.clone(),
    };
    let (skill, serves) = described.place()?;
    let class = intake::class(app, tx, &release.digest).await?;
    let consent = Consent::new(app, from, skill, &described, class);
    Ok((consent, serves))
}

/// Somebody, and what they say they agree to.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    pub name: &'a str,
    /// The hash of a [`Consent`].
    pub agrees_to: Option<&'a str>,
}

/// Installs a release, in the place of what the skill had.
///
/// # Errors
/// 409 `consent_required` unless the person agrees to exactly what it may do.
pub async fn install(
    app: &App,
    tx: &mut TenantTx,
    id: InstallationId,
    release: ReleaseId,
    person: Person<'_>,
    auto_upgrade: bool,
) -> Result<(), Problem> {
    let release = find(tx, release).await?;
    let (consent, serves) = consent(app, tx, &release).await?;
    may_install(tx, &release).await?;
    if person.agrees_to != Some(consent.sha256().as_str()) {
        return Err(consent_required(&consent, &[]));
    }
    installations::lock(tx, &consent.skill).await?;
    let agreed = Agreed {
        by: person.name.to_owned(),
        at: app.clock().now(),
        consent,
    };
    let new = Install {
        id,
        skill: &agreed.consent.skill.clone(),
        serves,
        origin: &origin_of(&release),
        agreed: Some(agreed),
        by: person.name,
        auto_upgrade,
        previous: None,
    };
    installations::install(tx, new).await
}

fn origin_of(release: &ReleaseRow) -> Origin {
    Origin {
        digest: release.digest.clone(),
        release: Some(release.id),
    }
}

/// Whether a release may be installed now.
async fn may_install(tx: &mut TenantTx, release: &ReleaseRow) -> Result<(), Problem> {
    let name = release.full_name();
    if let Some(reason) = release.revoked() {
        return Err(Problem::conflict(
            "plugin_revoked",
            format!("{name} was revoked: {reason}. Choose another version."),
        ));
    }
    if release.state != "approved" {
        return Err(Problem::conflict(
            "not_approved",
            format!(
                "{name} is {}: an operator of this gateway has to approve it before it is installed.",
                release.state
            ),
        ));
    }
    // Whoever had it may have it again: a lock file restores exactly what was there.
    if release.yanked_at.is_some() && !installations::had(tx, &origin_of(release)).await? {
        let reason = release.yank_reason.as_deref().unwrap_or_default();
        return Err(Problem::conflict(
            "release_yanked",
            format!("{name} was withdrawn: {reason}. Choose another version."),
        ));
    }
    Ok(())
}

fn consent_required(consent: &Consent, changes: &[Change]) -> Problem {
    let what = match changes {
        [] => "`consent` in this answer says",
        _ => "`changes` in this answer says what is more than was agreed to, `consent` says",
    };
    Problem::conflict(
        "consent_required",
        format!("A person has to agree to what {} may do: {what} all of it. Send the request again with {{\"consent\": {{\"sha256\": \"{}\"}}}}.", consent.release, consent.sha256()),
    )
    .with("consent", consent)
    .with("consent_sha256", consent.sha256())
    .with("changes", changes)
}

/// A version that an installation could go to.
#[derive(Debug)]
pub struct Upgrade {
    release: ReleaseRow,
    pub consent: Consent,
    /// Against what was agreed to.
    pub changes: Vec<Change>,
}

impl Upgrade {
    /// Whether somebody has to agree anew.
    pub fn grows(&self) -> bool {
        self.changes.iter().any(|change| change.grows)
    }

    pub fn release_id(&self) -> ReleaseId {
        self.release.id
    }

    pub fn to(&self) -> String {
        self.release.full_name()
    }
}

/// What an installation could go to: the version that is named, or the newest. `None` where it has that already.
///
/// # Errors
/// 409 where it came by no release, or has a newer one than the version that is named.
pub async fn upgrade_of(
    app: &App,
    tx: &mut TenantTx,
    installed: &InstallationRow,
    version: Option<&str>,
) -> Result<Option<Upgrade>, Problem> {
    let Some(release_id) = installed.release_id else {
        return Err(Problem::conflict(
            "not_published",
            "This plugin is a file of your organization's own. Install its newer file with POST /api/v1/plugins.",
        ));
    };
    let current = find(tx, release_id).await?;
    let release = match version.or(installed.newest.as_deref()) {
        Some(version) => store::release_named(tx, &current.namespace, &current.name, version)
            .await?
            .ok_or_else(|| Problem::not_found("version of this plugin"))?,
        None => return Ok(None),
    };
    if release.id == current.id {
        return Ok(None);
    }
    if is_older(&release, &current) {
        return Err(Problem::conflict(
            "older_version",
            format!(
                "{} is older than {}, which is installed: that is no upgrade. To go back to the version that was installed before, use POST /api/v1/plugins/{}/rollback.",
                release.version, current.version, installed.id
            ),
        ));
    }
    let (consent, serves) = consent(app, tx, &release).await?;
    if (consent.skill.as_str(), serves) != (installed.skill_name.as_str(), installed.serves) {
        return Err(Problem::conflict(
            "another_kind",
            format!(
                "{} is for another skill, or does something else for it than what is installed. Install it with POST /api/v1/plugins.",
                release.full_name()
            ),
        ));
    }
    let changes = match installed.agreed() {
        Some(agreed) => agreed.consent.changes(&consent),
        None => {
            return Err(Problem::internal(
                &"a release was installed without consent",
            ));
        }
    };
    Ok(Some(Upgrade {
        release,
        consent,
        changes,
    }))
}

fn is_older(release: &ReleaseRow, than: &ReleaseRow) -> bool {
    let version = |release: &ReleaseRow| Version::parse(&release.version).ok();
    match (version(release), version(than)) {
        (Some(one), Some(other)) => one < other,
        _ => false,
    }
}

/// Puts another version in the place of an installed one. `None` where it is there already.
///
/// # Errors
/// 409 `consent_required` where it may do more, and the person does not say that they agree to it.
pub async fn upgrade(
    app: &App,
    tx: &mut TenantTx,
    id: InstallationId,
    installed: InstallationId,
    version: Option<&str>,
    person: Person<'_>,
) -> Result<Option<Upgrade>, Problem> {
    let installed = locked(tx, installed).await?;
    let Some(upgrade) = upgrade_of(app, tx, &installed, version).await? else {
        return Ok(None);
    };
    may_install(tx, &upgrade.release).await?;
    let agrees = person.agrees_to == Some(upgrade.consent.sha256().as_str());
    if upgrade.grows() && !agrees {
        return Err(consent_required(&upgrade.consent, &upgrade.changes));
    }
    let earlier = installed.agreed();
    let agreed = match earlier.filter(|_| !agrees) {
        // Within what somebody agreed to before.
        Some(earlier) => Agreed {
            consent: upgrade.consent.clone(),
            ..earlier
        },
        None => Agreed {
            consent: upgrade.consent.clone(),
            by: person.name.to_owned(),
            at: app.clock().now(),
        },
    };
    let new = Install {
        id,
        skill: &installed.skill_name,
        serves: installed.serves,
        origin: &origin_of(&upgrade.release),
        agreed: Some(agreed),
        by: person.name,
        auto_upgrade: installed.auto_upgrade,
        previous: None,
    };
    installations::install(tx, new).await?;
    Ok(Some(upgrade))
}

/// Puts the version back that was there before. It stays until somebody upgrades it.
///
/// # Errors
/// 409 where there was none, or it is not run any more.
pub async fn roll_back(
    tx: &mut TenantTx,
    id: InstallationId,
    installed: InstallationId,
    by: &str,
) -> Result<(), Problem> {
    let installed = locked(tx, installed).await?;
    let previous = match installed.previous_id {
        Some(previous) => installations::find(tx, previous).await?,
        None => None,
    };
    let previous = previous.ok_or_else(|| {
        Problem::conflict(
            "nothing_before",
            "There was no other version before this one. Remove the plugin, or install another version.",
        )
    })?;
    if previous.revoke_reason.is_some() || previous.key_revoked_at.is_some() {
        return Err(Problem::conflict(
            "plugin_revoked",
            "The version before this one is revoked and not run any more. Install another version.",
        ));
    }
    let new = Install {
        id,
        skill: &previous.skill_name,
        serves: previous.serves,
        origin: &previous.origin(),
        agreed: previous.agreed(),
        by,
        auto_upgrade: false,
        previous: Some(previous.previous_id),
    };
    installations::install(tx, new).await
}

/// An installation that is live, and stays so until the transaction ends.
async fn locked(tx: &mut TenantTx, id: InstallationId) -> Result<InstallationRow, Problem> {
    let missing = || Problem::not_found("plugin");
    let skill = installations::find(tx, id)
        .await?
        .ok_or_else(missing)?
        .skill_name;
    installations::lock(tx, &skill).await?;
    let installed = installations::find(tx, id).await?.ok_or_else(missing)?;
    if installed.removed_at.is_none() {
        return Ok(installed);
    }
    Err(Problem::conflict(
        "not_installed",
        "This installation was replaced or removed. GET /api/v1/plugins lists what is installed now.",
    ))
}

/// Counts that a release was taken. Nothing fails where it cannot be counted.
pub async fn count_download(app: &App, release: ReleaseId) {
    let counted = async {
        let mut tx = app.db().system().await?;
        store::count_download(&mut tx, release).await?;
        tx.commit().await
    };
    if let Err(error) = counted.await {
        tracing::warn!(%release, %error, "a download was not counted");
    }
}
