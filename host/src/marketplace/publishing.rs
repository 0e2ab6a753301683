//! What has to be true of a release before it is one.

use super::{
    PartyTx, conformance,
    signing::CONTRACT,
    store::{self, KeyRow, PublisherRow, ReleaseRow},
    turn,
};
use crate::{
    app::App,
    caller::Party,
    db::violated_constraint,
    id::{PublisherKeyId, ReleaseId, TenantId},
    plugins::{
        consent::ConsentIdentity,
        intake::{self, Described},
    },
    problem::{Problem, RETRY_AFTER_DEFAULT},
    tenants::Claim,
};
use axum::http::StatusCode;
use semver::Version;
use tsunami_provenance::{
    Asker, Identity, OciError, PublicKey, Pulled, SigstoreError, Statement, StatementError,
};

/// Tenants that one private release is for.
const AUDIENCE_MAX: usize = 1000;

/// The version of the contract that components are built for.
pub fn contract() -> &'static str {
    CONTRACT
}

/// What a publisher sends.
#[derive(Debug)]
pub struct Submission {
    /// The publisher's namespace.
    pub publisher: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// Where it is pulled from, unless it was brought.
    pub oci: Option<String>,
    pub key: PublisherKeyId,
    pub signature: Vec<u8>,
    pub sigstore_bundle: Option<String>,
    pub is_public: bool,
    /// Whom it is for, where it is private.
    pub tenants: Vec<TenantId>,
}

/// Checks a release and writes it down; the same once more finds the one that is there.
pub async fn publish(
    app: &App,
    party: &Party,
    submission: Submission,
    (key, request_sha256): (Option<&str>, &[u8; 32]),
) -> Result<ReleaseId, Problem> {
    check_audience(submission.is_public, &submission.tenants)?;
    let mut tx = PartyTx::begin(app, party).await?;
    if let Claim::Repeat(id) = tx.claim("publish_release", key, request_sha256).await? {
        return Ok(ReleaseId(id));
    }
    // Taken back until there is a release: what follows may take its time.
    drop(tx);
    let pulled = match &submission.oci {
        Some(reference) => Some(pull(app, party, reference, &submission.digest).await?),
        None => None,
    };
    let described = match &pulled {
        Some(pulled) => Some(intake::describe(app, turn(party), &pulled.component).await?),
        None => None,
    };
    // Whatever is refused is so before the component is called for long.
    let mut tx = PartyTx::begin(app, party).await?;
    let described = match described {
        Some(described) => described,
        None => intake::find(&mut tx, &submission.digest)
            .await?
            .ok_or_else(|| not_brought(&submission.digest))?,
    };
    if let Wanted::There(id) = wanted(app, &mut tx, party, &submission, &described).await? {
        return Ok(id);
    }
    drop(tx);
    let component = match &pulled {
        Some(pulled) => pulled.component.clone(),
        None => brought(app, party, &submission.digest).await?,
    };
    let conformance = conformance::examine(app, turn(party), component).await?;
    let mut tx = PartyTx::begin(app, party).await?;
    let id = match tx.claim("publish_release", key, request_sha256).await? {
        Claim::Repeat(id) => return Ok(ReleaseId(id)),
        Claim::New(id) => ReleaseId(id),
    };
    if let Some(pulled) = &pulled {
        tx.keep(&described, &pulled.component).await?;
    }
    let (publisher, key, version) =
        match wanted(app, &mut tx, party, &submission, &described).await? {
            Wanted::There(id) => return Ok(id),
            Wanted::New(new) => *new,
        };
    let identity = check_bundle(
        app,
        &mut tx,
        &publisher,
        &described,
        submission.sigstore_bundle.as_deref(),
    )
    .await?;
    let by = party.name();
    let new = store::NewRelease {
        id,
        publisher: publisher.id,
        owner: publisher.owner_tenant_id,
        namespace: &publisher.namespace,
        name: &described.name,
        version: &described.about.version,
        version_numbers: &numbers(&version),
        prerelease: !version.pre.is_empty(),
        digest: &described.digest,
        contract: CONTRACT,
        kinds: &described.kinds,
        title: &described.about.title,
        summary: &described.about.summary,
        licence: &described.about.licence,
        categories: &described.about.categories,
        homepage: described.about.homepage.as_deref(),
        readme: &described.about.readme,
        key: key.id,
        signature: &submission.signature,
        sigstore: identity.map(|i| serde_json::to_value(i).unwrap_or_default()),
        sigstore_bundle: submission.sigstore_bundle.as_deref(),
        source: pulled.as_ref().map(|p| p.reference.as_str()),
        visibility: if submission.is_public {
            "public"
        } else {
            "private"
        },
        conformance,
        by: &by,
        approved_by: matches!(party, Party::Operator(_)).then_some(by.as_str()),
    };
    store::insert_release(&mut tx, new)
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("plugin_releases_version_taken") => version_taken(&described),
            _ => e.into(),
        })?;
    set_audience(&mut tx, id, publisher.owner_tenant_id, &submission.tenants).await?;
    tx.commit().await?;
    Ok(id)
}

/// What is to be published.
enum Wanted {
    /// It is published already.
    There(ReleaseId),
    New(Box<(PublisherRow, KeyRow, Version)>),
}

/// Whether a component may be published so, by what is known without calling it.
async fn wanted(
    app: &App,
    tx: &mut PartyTx,
    party: &Party,
    submission: &Submission,
    described: &Described,
) -> Result<Wanted, Problem> {
    let publisher = own_publisher(tx, party, &submission.publisher).await?;
    app.revocations().refuse_revoked(&described.digest)?;
    let version = release_version(described)?;
    let (namespace, name) = (&publisher.namespace, &described.name);
    let there = store::release_named(tx, namespace, name, &described.about.version).await?;
    if let Some(there) = there {
        return same_release(&there, submission, described).map(Wanted::There);
    }
    refuse_other_kind(tx, namespace, described).await?;
    let key = own_key(tx, &publisher, submission.key).await?;
    check_signature(&publisher, described, &key, &submission.signature)?;
    Ok(Wanted::New(Box::new((publisher, key, version))))
}

/// Versions take each other's place, so they do the same for the same skill.
async fn refuse_other_kind(
    tx: &mut PartyTx,
    namespace: &str,
    described: &Described,
) -> Result<(), Problem> {
    let name = &described.name;
    let Some(last) = store::last_release(tx, namespace, name).await? else {
        return Ok(());
    };
    let before = intake::find(tx, &last.digest).await?;
    if before.is_some_and(|before| before.place().ok() != described.place().ok()) {
        return Err(Problem::conflict(
            "another_kind",
            format!(
                "{} is of another kind or for another skill, and versions take each other's place. Give one of them another name.",
                last.full_name()
            ),
        ));
    }
    Ok(())
}

/// The bytes that the party brought.
async fn brought(app: &App, party: &Party, digest: &str) -> Result<Vec<u8>, Problem> {
    let mut tx = PartyTx::begin(app, party).await?;
    let bytes = intake::bytes(&mut tx, digest).await?;
    bytes.ok_or_else(|| not_brought(digest))
}

/// The publisher with this namespace, where the party may publish under it.
async fn own_publisher(
    tx: &mut PartyTx,
    party: &Party,
    namespace: &str,
) -> Result<PublisherRow, Problem> {
    let found = store::publisher_by_namespace(tx, namespace).await?;
    // An operator reviews what tenants publish, and publishes under the operators' own namespaces alone.
    match found {
        Some(publisher) if publisher.owner_tenant_id == party.tenant() => Ok(publisher),
        _ => Err(Problem::unprocessable(
            "unknown_publisher",
            format!(
                "`{namespace}` is no publisher of yours. Register it with POST /api/v1/marketplace/publishers."
            ),
        )),
    }
}

async fn own_key(
    tx: &mut PartyTx,
    publisher: &PublisherRow,
    key: PublisherKeyId,
) -> Result<KeyRow, Problem> {
    let keys = store::keys(tx, publisher.id).await?;
    let key = keys.into_iter().find(|k| k.id == key).ok_or_else(|| {
        Problem::unprocessable(
            "unknown_key",
            format!(
                "`{}` has no such key. Register it first; `tsunami plugin keygen` makes one.",
                publisher.namespace
            ),
        )
    })?;
    if key.retired_at.is_some() {
        return Err(Problem::unprocessable(
            "key_retired",
            format!(
                "The key `{}` is retired and signs nothing new. Sign with another.",
                key.name
            ),
        ));
    }
    Ok(key)
}

fn check_signature(
    publisher: &PublisherRow,
    described: &Described,
    key: &KeyRow,
    signature: &[u8],
) -> Result<(), Problem> {
    let statement = Statement::new(
        &publisher.namespace,
        &described.name,
        &described.about.version,
        &described.digest,
        CONTRACT,
    )
    .map_err(|e: StatementError| {
        Problem::unprocessable(
            "invalid_manifest",
            format!("This cannot be published: {e}."),
        )
    })?;
    let public = PublicKey::from_bytes(&key.public_key).map_err(|e| Problem::internal(&e))?;
    if public.verify(&statement, signature) {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "signature_invalid",
        format!(
            "The signature is not that of the key `{}` over this statement: {}",
            key.name,
            statement.text().trim_end().replace('\n', "; ")
        ),
    )
    .with("statement", statement.text()))
}

/// Where the publisher has a recorded identity, each release comes with that identity's bundle.
async fn check_bundle(
    app: &App,
    tx: &mut PartyTx,
    publisher: &PublisherRow,
    described: &Described,
    bundle: Option<&str>,
) -> Result<Option<ConsentIdentity>, Problem> {
    let recorded = publisher
        .sigstore_subject
        .clone()
        .zip(publisher.sigstore_issuer.clone());
    let (identity, bundle) = match (recorded, bundle) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            return Err(Problem::unprocessable(
                "no_identity",
                format!(
                    "`{}` has no recorded identity that a Sigstore bundle could be checked against. Record it first, or leave the bundle out.",
                    publisher.namespace
                ),
            ));
        }
        (Some((subject, issuer)), None) => {
            return Err(Problem::unprocessable(
                "bundle_missing",
                format!(
                    "`{}` signs as {subject} (by {issuer}), so a release needs `sigstore_bundle` of that identity over the component.",
                    publisher.namespace
                ),
            ));
        }
        (Some((subject, issuer)), Some(bundle)) => (Identity { subject, issuer }, bundle),
    };
    let bytes = intake::bytes(tx, &described.digest)
        .await?
        .ok_or_else(|| not_brought(&described.digest))?;
    app.sigstore()
        .verify(&bytes, bundle, &identity)
        .map_err(|e: SigstoreError| Problem::unprocessable("bundle_invalid", format!("{e}.")))?;
    Ok(Some(ConsentIdentity {
        subject: identity.subject,
        issuer: identity.issuer,
    }))
}

fn not_brought(digest: &str) -> Problem {
    Problem::unprocessable(
        "unknown_component",
        format!(
            "There is no component with the digest {digest}. Bring it first with POST /api/v1/marketplace/components, or say with `oci` where it is."
        ),
    )
}

fn release_version(described: &Described) -> Result<Version, Problem> {
    let text = &described.about.version;
    let wrong = |why: &str| {
        Problem::unprocessable(
            "invalid_version",
            format!("The component calls itself version `{text}`; {why}."),
        )
    };
    let version = Version::parse(text).map_err(|_| wrong("that is no semantic version"))?;
    if !version.build.is_empty() {
        return Err(wrong(
            "build metadata (`+...`) does not tell versions apart, so leave it out",
        ));
    }
    if numbers(&version).contains(&i64::MAX) {
        return Err(wrong("its numbers are too large"));
    }
    Ok(version)
}

fn numbers(version: &Version) -> [i64; 3] {
    [version.major, version.minor, version.patch].map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// The version is there already: the same component is no mistake, another is one.
fn same_release(
    there: &ReleaseRow,
    submission: &Submission,
    described: &Described,
) -> Result<ReleaseId, Problem> {
    if there.digest == described.digest && there.key_id == submission.key {
        return Ok(there.id);
    }
    Err(version_taken(described))
}

fn version_taken(described: &Described) -> Problem {
    Problem::conflict(
        "version_taken",
        format!(
            "Version {} of `{}` is published already, and what is published does not change. Publish this under a higher version.",
            described.about.version, described.name
        ),
    )
}

async fn pull(app: &App, party: &Party, reference: &str, digest: &str) -> Result<Pulled, Problem> {
    let max = usize::try_from(app.config().plugins.component_bytes_max).unwrap_or(usize::MAX);
    let asker = match party {
        Party::Operator(_) => Asker::Operator,
        Party::Tenant(_) => Asker::Tenant,
    };
    // Operators are few.
    let _place = match party.tenant() {
        Some(tenant) => Some(app.pulls().take(tenant).ok_or_else(too_many_pulls)?),
        None => None,
    };
    let pulled = app
        .registries()
        .pull(reference, max, asker)
        .await
        .map_err(|e| oci_problem(&e))?;
    if tsunami_provenance::sha256_hex(&pulled.component) == digest {
        return Ok(pulled);
    }
    // What is there instead is not everybody's to know.
    Err(Problem::unprocessable(
        "other_digest",
        format!("{reference} holds another component than {digest}."),
    ))
}

fn too_many_pulls() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_pulls",
        "Components are being pulled for your organization, as many as may be at once. Publish again when one has come.",
    )
    .with_retry_after(RETRY_AFTER_DEFAULT)
}

fn oci_problem(error: &OciError) -> Problem {
    let told = format!("The component cannot be pulled: {error}.");
    match error {
        OciError::Away { .. } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "registry_unavailable",
            told,
        )
        .with_retry_after(RETRY_AFTER_DEFAULT),
        OciError::TooLarge { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "component_too_large", told)
        }
        OciError::NotAReference(_)
        | OciError::NotAllowed { .. }
        | OciError::Unauthorized(_)
        | OciError::NotFound(_)
        | OciError::Layout(..)
        | OciError::OtherDigest { .. } => Problem::unprocessable("oci_refused", told),
    }
}

/// Whom a private release is for.
pub fn check_audience(is_public: bool, tenants: &[TenantId]) -> Result<(), Problem> {
    if is_public && !tenants.is_empty() {
        return Err(Problem::invalid_field(
            "/tenants",
            "must be empty where `visibility` is public: everybody sees the release",
        ));
    }
    if tenants.len() > AUDIENCE_MAX {
        let told = format!(
            "has {} entries; it must have at most {AUDIENCE_MAX}",
            tenants.len()
        );
        return Err(Problem::invalid_field("/tenants", &told));
    }
    Ok(())
}

/// Says whom a release is for.
pub(super) async fn set_audience(
    tx: &mut PartyTx,
    id: ReleaseId,
    owner: Option<TenantId>,
    tenants: &[TenantId],
) -> Result<(), Problem> {
    store::set_audience(tx, id, owner, tenants)
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("release_audience_tenant_known") => Problem::invalid_field(
                "/tenants",
                "names a tenant that is not there; use the ids that GET /api/v1/tenant shows its members",
            ),
            _ => e.into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let version = |text: &str| numbers(&Version::parse(text).unwrap());
        assert!(version("1.10.0") > version("1.9.9"));
        assert!(version("2.0.0") > version("1.99.99"));
        assert_eq!(version("18446744073709551615.0.0")[0], i64::MAX);
    }
}
