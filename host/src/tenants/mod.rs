//! # Tenants
//!
//! ## What it is
//! The organizations that the gateway serves, their people, and the keys that programs and people
//! come with. Everything else in the product belongs to exactly one tenant.
//!
//! ## Life
//! An operator creates a tenant and gets the first owner's key, once; where it is lost, an operator makes another, which
//! the tenant's people see. Owners and admins create users
//! and keys; a key ends by expiry or revocation, and does so on the very next request.
//!
//! ## Always true
//! - Of a key only the prefix and a SHA-256 are stored (`a_key_is_stored_only_as_its_hash`).
//! - Another tenant's things answer 404, by row-level security and not by a `where`
//!   (`guard_tenant_table` in `migrations/*_ground_roles.sql`).
//! - A person with two keys is one person: keys of one user, and those that a key made without a user ([`person`],
//!   `one_person_with_two_keys_is_no_second_person`).
//! - Who makes a key in another's name, and is no owner, counts as its holder too ([`holders`],
//!   `who_makes_a_key_in_anothers_name_is_no_second_person`). Such keys are marked in lists and in the trace, and their
//!   user sees and revokes them.
//! - Nobody but an owner hands out a role that they lack (`http::check_roles`).
//! - An operator's key reads nothing inside a tenant, and a tenant's key nothing of the operators' (`caller`). But an
//!   operator can make an owner's key of any tenant ([`http`], `create_owner_key`), which the tenant's people see in
//!   their list: whoever has an operator's key has every tenant. It ends by its time, or because it was revoked
//!   (`persons::an_operators_key_ends`).
//!
//! ## To change
//! - A role: [`crate::caller::Role`], the checks in the migration, [`crate::caller::Permission`].
//! - What a key carries: the table, [`store::KeyRow`], [`http::ApiKey`].

pub mod http;
pub mod keys;
mod store;

use crate::{
    app::App,
    caller::{Caller, Operator, Role},
    db::{SystemTx, TenantTx},
    id::{ApiKeyId, OperatorKeyId, UserId},
    problem::Problem,
};
use keys::PresentedKey;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The longest that an operator's key may be good for, in days.
pub const OPERATOR_KEY_DAYS_MAX: u16 = 366;
/// Operators' keys that a list shows.
const OPERATOR_KEYS_LISTED_MAX: i64 = 1000;
/// `last_used_at` is written at most this often for one key.
const LAST_USE_RESOLUTION: Duration = Duration::minutes(1);

/// Who comes with this key; `None` where it is unknown, expired or revoked.
pub async fn authenticate(app: &App, key: &PresentedKey) -> Result<Option<Caller>, Problem> {
    let mut connection = app.db().system_at_once().await?;
    let Some(row) = store::find_key(&mut connection, &key.prefix).await? else {
        return Ok(None);
    };
    let now = app.clock().now();
    if !is_live(&row, now) || !keys::same_hash(&row.secret_sha256, &key.secret_sha256) {
        return Ok(None);
    }
    if stale(row.last_used_at, now) {
        store::touch_key(&mut connection, row.id, now).await?;
    }
    connection.done();
    Ok(Some(Caller {
        tenant: row.tenant_id,
        key: row.id,
        user: row.user_id,
        name: format!("{} ({})", row.name, key.prefix),
        roles: row
            .roles
            .iter()
            .filter_map(|role| Role::parse(role))
            .collect(),
    }))
}

/// Whether a key that was let in would be let in again.
pub async fn is_valid(
    tx: &mut TenantTx,
    key: ApiKeyId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let row = store::get_key(tx, key).await?;
    Ok(row.is_some_and(|row| is_live(&row, now)))
}

fn is_live(row: &store::KeyRow, now: OffsetDateTime) -> bool {
    row.revoked_at.is_none() && row.expires_at.is_none_or(|at| at > now)
}

/// A person, as far as the gateway can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    User(UserId),
    /// Whoever was given a key that belongs to no user, and that nobody of the tenant made.
    Bearer(ApiKeyId),
}

/// The person behind a key: its user; without one, the person who made it.
pub async fn person(tx: &mut TenantTx, key: ApiKeyId) -> Result<Option<Person>, sqlx::Error> {
    let origin = store::origin_of_key(tx, key).await?;
    Ok(origin.map(|(key, user)| user.map_or(Person::Bearer(key), Person::User)))
}

/// Everybody who may come with a key: its person, and whoever had a hand in making it, for they saw it. Owners do not
/// count, since somebody must make the first key of each person: what they make is its user's.
pub async fn holders(tx: &mut TenantTx, key: ApiKeyId) -> Result<Vec<Person>, sqlx::Error> {
    let line = store::line_of_key(tx, key).await?;
    let Some(root) = line.last() else {
        return Ok(Vec::new());
    };
    let mut after = Person::Bearer(root.id);
    let mut holders = Vec::new();
    for (generation, key) in line.iter().enumerate().rev() {
        after = key.user.map_or(after, Person::User);
        let is_owner = key.roles.iter().any(|role| role == Role::Owner.as_str());
        if generation == 0 || !is_owner {
            holders.push(after);
        }
    }
    Ok(holders)
}

/// How a caller is named where it matters who holds the key.
pub async fn name_of(tx: &mut TenantTx, caller: &Caller) -> Result<String, sqlx::Error> {
    let named = store::in_anothers_name(tx, &[caller.key.uuid()]).await?;
    let maker = match named.is_empty() {
        true => None,
        false => store::get_key(tx, caller.key).await?,
    };
    Ok(match maker {
        Some(row) => format!(
            "{}, with a key that {} made for them",
            caller.name, row.created_by
        ),
        None => caller.name.clone(),
    })
}

/// Which operator comes with this key.
pub async fn authenticate_operator(
    app: &App,
    key: &PresentedKey,
) -> Result<Option<Operator>, Problem> {
    let mut connection = app.db().system_at_once().await?;
    let Some(row) = store::find_operator_key(&mut connection, &key.prefix).await? else {
        return Ok(None);
    };
    let now = app.clock().now();
    let ended = row.revoked_at.is_some() || row.expires_at.is_some_and(|at| at <= now);
    if ended || !keys::same_hash(&row.secret_sha256, &key.secret_sha256) {
        return Ok(None);
    }
    if stale(row.last_used_at, now) {
        store::touch_operator_key(&mut connection, row.id, now).await?;
    }
    connection.done();
    Ok(Some(Operator {
        key: row.id,
        name: row.name,
    }))
}

fn stale(last_used_at: Option<OffsetDateTime>, now: OffsetDateTime) -> bool {
    last_used_at.is_none_or(|at| now - at > LAST_USE_RESOLUTION)
}

/// A key of somebody who runs the gateway, as it is listed.
pub struct OperatorKey {
    pub name: String,
    pub prefix: String,
    pub created_at: OffsetDateTime,
    pub last_used_at: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

/// Operators' keys, the newest first, as many as are shown.
pub async fn operator_keys(app: &App) -> Result<Vec<OperatorKey>, sqlx::Error> {
    let mut tx = app.db().system().await?;
    store::list_operator_keys(&mut tx, OPERATOR_KEYS_LISTED_MAX).await
}

/// Ends an operator's key; gives its name, and none where there is none of this prefix.
pub async fn revoke_operator_key(app: &App, prefix: &str) -> Result<Option<String>, sqlx::Error> {
    let mut tx = app.db().system().await?;
    let name = store::revoke_operator_key(&mut tx, prefix, app.clock().now()).await?;
    tx.commit().await?;
    Ok(name)
}

/// Makes an operator's key and returns its text, which is shown this once.
pub async fn create_operator_key(
    app: &App,
    name: &str,
    expires_at: Option<OffsetDateTime>,
) -> Result<String, sqlx::Error> {
    let key = keys::NewKey::generate(keys::Kind::Operator);
    let mut tx = app.db().system().await?;
    store::insert_operator_key(&mut tx, OperatorKeyId::fresh(), name, &key, expires_at).await?;
    tx.commit().await?;
    Ok(key.text().to_owned())
}

/// What became of an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The first request with this key, or one without a key: make the thing under this id.
    New(Uuid),
    /// The same request came before and made the thing with this id.
    Repeat(Uuid),
}

/// Claims an `Idempotency-Key` for the thing that the same transaction is about to create. Two requests
/// at once with one key wait for each other here.
///
/// # Errors
/// 422 where the key came before with another body.
pub async fn claim(
    tx: &mut TenantTx,
    operation: &'static str,
    key: Option<&str>,
    request_sha256: &[u8; 32],
) -> Result<Claim, Problem> {
    let fresh = ApiKeyId::fresh().uuid();
    let earlier = match key {
        Some(key) => store::claim(tx, operation, key, request_sha256, fresh).await?,
        None => None,
    };
    claimed(fresh, earlier, request_sha256)
}

/// The same for what an operator creates, who has no tenant.
///
/// # Errors
/// 422 where the key came before with another body.
pub async fn claim_of_operator(
    tx: &mut SystemTx,
    operation: &'static str,
    key: Option<&str>,
    request_sha256: &[u8; 32],
) -> Result<Claim, Problem> {
    let fresh = ApiKeyId::fresh().uuid();
    let earlier = match key {
        Some(key) => store::claim_of_operator(tx, operation, key, request_sha256, fresh).await?,
        None => None,
    };
    claimed(fresh, earlier, request_sha256)
}

/// What becomes of a key that an earlier request may have come with.
fn claimed(
    fresh: Uuid,
    earlier: Option<store::IdempotencyRow>,
    request_sha256: &[u8; 32],
) -> Result<Claim, Problem> {
    let Some(earlier) = earlier else {
        return Ok(Claim::New(fresh));
    };
    if earlier.request_sha256 != request_sha256 {
        return Err(Problem::unprocessable(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another body. Use a new key for a new request.",
        ));
    }
    Ok(Claim::Repeat(earlier.resource_id))
}
