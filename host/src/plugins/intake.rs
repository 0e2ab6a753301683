//! What a component says of itself, of whichever kind it is; checked, and stored once for all who bring it.

use super::{
    CredentialField, Origin, call, installations::Serves, load, not_described, not_loaded_now,
    store,
};
use crate::{
    app::App,
    db::TenantTx,
    extract::read_body,
    id::TenantId,
    problem::{Problem, Violation},
};
use axum::{body::Bytes, extract::Request};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::sync::Arc;
use tsunami_plugin_host::{
    Class, IntakeError, Kinds, LoadError, ManifestError, Plugin, adapter::Manifest, check_file,
    policy, types::About,
};
use tsunami_provenance::sha256_hex;

/// Files that one tenant may bring.
const UPLOADS_MAX: i64 = 1000;

/// A component, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Described {
    pub digest: String,
    pub kinds: Vec<String>,
    /// Its skill, the name of its policy, or `{skill}-credentials`.
    pub name: String,
    pub about: About,
    pub manifest: Option<Manifest>,
    pub schema: Option<SchemaFacts>,
    pub fields: Vec<CredentialField>,
    pub policy: Option<policy::Manifest>,
    pub size_bytes: usize,
}

/// What a credential schema says besides its fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchemaFacts {
    pub skill: String,
    pub about: About,
}

impl Described {
    /// The skill that it is installed for, and what it does for it.
    ///
    /// # Errors
    /// 422 where it does nothing for one.
    pub fn place(&self) -> Result<(&str, Serves), Problem> {
        let place = match (&self.manifest, &self.schema) {
            (Some(manifest), _) => (manifest.skill.as_str(), Serves::Skill),
            (None, Some(schema)) => (schema.skill.as_str(), Serves::Credentials),
            (None, None) => {
                return Err(Problem::unprocessable(
                    "nothing_to_install",
                    "The component exports a routing-policy alone, which does nothing for a skill: it goes into the chain of policies, with `tsunami policy add` or POST /api/v1/policies.",
                ));
            }
        };
        Ok(place)
    }
}

/// The name of a component and what people read of it: those of its skill, its policy or its credentials.
fn named(
    manifest: Option<&Manifest>,
    policy: Option<&policy::Manifest>,
    schema: Option<&SchemaFacts>,
) -> Option<(String, About)> {
    let skill = manifest.map(|m| (m.skill.clone(), m.about.clone()));
    let policy = || policy.map(|p| (p.name.clone(), p.about.clone()));
    // A publisher may have the skill, too.
    let credentials = || schema.map(|s| (format!("{}-credentials", s.skill), s.about.clone()));
    skill.or_else(policy).or_else(credentials)
}

/// Loads a component that nobody has looked at yet.
///
/// # Errors
/// 409 where it is revoked, 422 where it does not load, 503 where the sandbox is busy.
pub async fn load_new(app: &App, tenant: TenantId, bytes: &[u8]) -> Result<Arc<Plugin>, Problem> {
    app.revocations().refuse_revoked(&sha256_hex(bytes))?;
    load(app, tenant, bytes.to_vec())
        .await
        .map_err(|e| not_loaded_now(&e).unwrap_or_else(|| invalid(&e)))
}

/// Which limits hold for a component that is stored.
///
/// # Errors
/// 422 where it exceeds all, which the operator may have lowered.
pub async fn class(app: &App, tx: &mut PgConnection, digest: &str) -> Result<Class, Problem> {
    if let Some(plugin) = app.plugin_host().loaded(digest).await {
        return Ok(plugin.class());
    }
    let bytes = store::component(tx, digest)
        .await?
        .ok_or_else(|| Problem::internal(&"a stored component is not there"))?;
    let host = app.plugin_host().clone();
    tokio::task::spawn_blocking(move || check_file(&bytes, host.limits()))
        .await
        .map_err(|e| Problem::internal(&e))?
        .map_err(|e| invalid(&e))
}

fn invalid(error: &LoadError) -> Problem {
    Problem::unprocessable("invalid_plugin", format!("This is no plugin: {error}."))
}

/// Loads a component and asks it what it is, for a tenant or for [`super::OPERATOR`].
///
/// # Errors
/// Those of [`load_new`]; 422 where it is not well-formed.
pub async fn describe(app: &App, tenant: TenantId, bytes: &[u8]) -> Result<Described, Problem> {
    let invalid = |detail: String| Problem::unprocessable("invalid_plugin", detail);
    let plugin = load_new(app, tenant, bytes).await?;
    let said = call(app, tenant, &plugin, Plugin::describe_all)
        .await
        .map_err(|e| not_described(&e))?;
    let said = said.map_err(|error| match error {
        IntakeError::Manifest(wrong) => not_well_formed(wrong),
        other => invalid(format!("{other}.")),
    })?;
    let (manifest, policy) = (said.manifest, said.policy);
    let (schema, fields) = match said.credentials {
        Some(said) => {
            let (skill, about) = (said.skill, said.about);
            (Some(SchemaFacts { skill, about }), said.fields)
        }
        None => (None, Vec::new()),
    };
    let (name, about) = named(manifest.as_ref(), policy.as_ref(), schema.as_ref())
        .ok_or_else(|| invalid("The component describes nothing.".into()))?;
    Ok(Described {
        digest: plugin.digest().to_owned(),
        kinds: kind_names(plugin.kinds()),
        name,
        about,
        schema,
        fields: fields.into_iter().map(CredentialField::from).collect(),
        manifest,
        policy,
        size_bytes: bytes.len(),
    })
}

/// The component that is a request's body, and what it says of itself.
///
/// # Errors
/// Those of [`describe`]; 413 where it is larger than `plugins.component_bytes_max`.
pub async fn read_described(
    app: &App,
    tenant: TenantId,
    request: Request,
) -> Result<(Bytes, Described), Problem> {
    let max = usize::try_from(app.config().plugins.component_bytes_max).unwrap_or(usize::MAX);
    let bytes = read_body(request, max).await?;
    let described = describe(app, tenant, &bytes).await?;
    Ok((bytes, described))
}

fn kind_names(kinds: Kinds) -> Vec<String> {
    [
        (kinds.adapter, "skill-adapter"),
        (kinds.credentials, "credential-schema"),
        (kinds.policy, "routing-policy"),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn not_well_formed(wrong: Vec<ManifestError>) -> Problem {
    let errors = wrong.into_iter().map(|e| Violation {
        pointer: format!("/{}", e.place),
        message: e.problem,
    });
    Problem::unprocessable(
        "invalid_manifest",
        "What the component says of itself is not well-formed; `errors` says where.",
    )
    .with_errors(errors.collect())
}

/// Stores a component.
pub async fn keep(
    tx: &mut PgConnection,
    described: &Described,
    bytes: &[u8],
) -> Result<(), Problem> {
    let json = |value| -> Result<serde_json::Value, Problem> {
        serde_json::to_value(value).map_err(|e: serde_json::Error| Problem::internal(&e))
    };
    let policy = described
        .policy
        .as_ref()
        .map(serde_json::to_value)
        .transpose();
    let manifest = described
        .manifest
        .as_ref()
        .map(serde_json::to_value)
        .transpose();
    let schema = described
        .schema
        .as_ref()
        .map(serde_json::to_value)
        .transpose();
    let new = store::NewComponent {
        digest: &described.digest,
        bytes,
        kinds: &described.kinds,
        manifest: manifest.map_err(|e| Problem::internal(&e))?,
        credential_fields: json(&described.fields)?,
        credential_schema: schema.map_err(|e| Problem::internal(&e))?,
        policy_manifest: policy.map_err(|e| Problem::internal(&e))?,
    };
    store::insert_component(tx, new).await?;
    Ok(())
}

/// Stores a component that a tenant brings, and remembers that it did.
///
/// # Errors
/// 409 where it brought as many as it may.
pub async fn bring(
    tx: &mut TenantTx,
    described: &Described,
    bytes: &[u8],
) -> Result<Origin, Problem> {
    let origin = Origin {
        digest: described.digest.clone(),
        release: None,
    };
    keep(tx, described, bytes).await?;
    if !store::has_version(tx, &origin).await? && store::uploads(tx).await? >= UPLOADS_MAX {
        return Err(Problem::conflict(
            "too_many_uploads",
            format!(
                "Your organization has brought {UPLOADS_MAX} different components, which is the most. Use those that are there."
            ),
        ));
    }
    store::ensure_version(tx, &origin).await?;
    Ok(origin)
}

/// How a tenant comes by a component that is not installed, such as a policy: as a file of its own that it brought, or
/// else by the newest release that is for it.
pub async fn origin(tx: &mut TenantTx, digest: &str) -> Result<Option<Origin>, Problem> {
    let own = Origin {
        digest: digest.to_owned(),
        release: None,
    };
    if store::has_version(tx, &own).await? {
        return Ok(Some(own));
    }
    let release = store::newest_release(tx, digest).await?;
    Ok(release.map(|release| Origin {
        release: Some(release),
        ..own
    }))
}

/// Remembers that a tenant uses such a component; it can read it from then on. `is_given` where the operator lets all
/// tenants have it: it is then as if the tenant had brought the file, and stays when the operator needs it no more.
///
/// # Errors
/// 409 where there is no way to it but by releases that are revoked.
pub async fn adopt(tx: &mut TenantTx, digest: &str, is_given: bool) -> Result<(), Problem> {
    let origin = match origin(tx, digest).await? {
        Some(origin) => origin,
        None if is_given => Origin {
            digest: digest.to_owned(),
            release: None,
        },
        None if store::is_release_revoked(tx, digest).await? => {
            return Err(revoked("its release, or the key that signed it"));
        }
        None => return Ok(()),
    };
    store::ensure_version(tx, &origin).await?;
    Ok(())
}

/// Refuses what the operator revoked, as the database has it now.
///
/// # Errors
/// 409
pub async fn refuse_revoked(tx: &mut PgConnection, digest: &str) -> Result<(), Problem> {
    match store::revoked(tx, digest).await? {
        Some(reason) => Err(revoked(&reason)),
        None => Ok(()),
    }
}

fn revoked(reason: &str) -> Problem {
    Problem::conflict(
        "plugin_revoked",
        format!("The component was revoked: {reason}. It is not run any more. Choose another."),
    )
}

/// What is stored of a component, for whoever may read it.
pub async fn find(tx: &mut PgConnection, digest: &str) -> Result<Option<Described>, Problem> {
    let Some(row) = store::component_facts(tx, digest).await? else {
        return Ok(None);
    };
    let manifest: Option<Manifest> = parse(row.manifest)?;
    let policy: Option<policy::Manifest> = parse(row.policy_manifest)?;
    let schema: Option<SchemaFacts> = parse(row.credential_schema)?;
    let (name, about) = named(manifest.as_ref(), policy.as_ref(), schema.as_ref())
        .ok_or_else(|| Problem::internal(&"a stored component describes nothing"))?;
    Ok(Some(Described {
        digest: row.digest,
        kinds: row.kinds,
        name,
        about,
        manifest,
        schema,
        fields: parse(Some(row.credential_fields))?.unwrap_or_default(),
        policy,
        size_bytes: usize::try_from(row.size_bytes).unwrap_or_default(),
    }))
}

fn parse<T: serde::de::DeserializeOwned>(
    json: Option<serde_json::Value>,
) -> Result<Option<T>, Problem> {
    json.map(serde_json::from_value)
        .transpose()
        .map_err(|e| Problem::internal(&e))
}

/// The bytes of a component, for whoever may read them.
pub async fn bytes(tx: &mut PgConnection, digest: &str) -> Result<Option<Vec<u8>>, Problem> {
    Ok(store::component(tx, digest).await?)
}
