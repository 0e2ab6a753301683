//! Who is asking: a [`Caller`] acts inside one tenant, an [`Operator`] runs the gateway.
//!
//! Both come from `Authorization: Bearer`. A handler that takes one of them cannot be reached without.

use crate::{
    app::App,
    extract::only,
    id::{ApiKeyId, OperatorKeyId, TenantId, UserId},
    problem::Problem,
    shares::Held,
    tenants::{self, keys},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When to come again where one's organization has all of its places.
const SHARE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What somebody may do inside their tenant.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, other owners included.
    Owner,
    /// Instances, plugins, credentials, rules, keys.
    Admin,
    /// Creates tasks and calls skills.
    Member,
    /// Decides what waits for a person.
    Approver,
    /// Reads everything but credentials, changes nothing.
    Auditor,
}

impl Role {
    pub const ALL: [Self; 5] = [
        Self::Owner,
        Self::Admin,
        Self::Member,
        Self::Approver,
        Self::Auditor,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// What an operation needs; each names the roles that have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// See tasks, traces, agents, instances, configuration.
    Read,
    /// Create and cancel tasks, call skills.
    Act,
    /// Decide what waits for a person.
    Approve,
    /// Instances, plugins, credentials, rules, agents.
    Manage,
    /// Users and keys.
    ManagePeople,
}

impl Permission {
    fn roles(self) -> &'static [Role] {
        use Role::{Admin, Approver, Auditor, Member, Owner};
        match self {
            Self::Read => &[Owner, Admin, Member, Approver, Auditor],
            Self::Act => &[Owner, Admin, Member],
            Self::Approve => &[Owner, Admin, Approver],
            Self::Manage | Self::ManagePeople => &[Owner, Admin],
        }
    }
}

/// Somebody inside a tenant.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub user: Option<UserId>,
    /// How traces name them: the key's name and prefix. It tells keys apart, and not persons (`tenants::person`).
    pub name: String,
    pub roles: Vec<Role>,
}

impl Caller {
    pub fn may(&self, permission: Permission) -> bool {
        self.roles
            .iter()
            .any(|role| permission.roles().contains(role))
    }

    /// Refuses with the roles that would do.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.may(permission) {
            return Ok(());
        }
        let roles: Vec<_> = permission
            .roles()
            .iter()
            .map(|role| role.as_str())
            .collect();
        Err(Problem::forbidden(
            "missing_role",
            format!(
                "This needs one of the roles {}. Ask an owner of your organization for a key that has one.",
                roles.join(", ")
            ),
        ))
    }

    pub fn is_owner(&self) -> bool {
        self.roles.contains(&Role::Owner)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = keys::parse(bearer(&parts.headers)?).ok_or_else(unauthorized)?;
        if key.kind == keys::Kind::Operator {
            return Err(Problem::forbidden(
                "operator_key",
                "This is an operator's key; it acts inside no tenant. Use an API key of the tenant's own.",
            ));
        }
        let shares = app.request_shares();
        let Some(caller) = tenants::authenticate(app, &key).await? else {
            shares.forget(&key.secret_sha256).await;
            return Err(unauthorized());
        };
        // `routes::bound` gives the place back.
        if let Some(held) = parts.extensions.get::<Held>()
            && !shares.hold(held, key.secret_sha256, caller.tenant).await
        {
            return Err(too_many_at_once(app));
        }
        Ok(caller)
    }
}

/// One of the places of the tenant whose key the request comes with, where that is remembered.
///
/// # Errors
/// 429 where the tenant has none left.
pub async fn foresee_share(app: &App, headers: &HeaderMap, held: &Held) -> Result<(), Problem> {
    let Some(key) = bearer(headers).ok().and_then(keys::parse) else {
        return Ok(());
    };
    match app.request_shares().foresee(held, &key.secret_sha256).await {
        true => Ok(()),
        false => Err(too_many_at_once(app)),
    }
}

fn too_many_at_once(app: &App) -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_requests_at_once",
        format!(
            "{} requests of your organization are being served, as many as may be at once. Nothing was done; send it again after the time in Retry-After, and fewer at a time.",
            app.request_shares().each()
        ),
    )
    .with_retry_after(SHARE_RETRY_AFTER)
}

/// Somebody who runs the gateway: creates tenants, and acts inside one only by an owner's key that they make for it.
#[derive(Debug, Clone)]
pub struct Operator {
    pub key: OperatorKeyId,
    pub name: String,
}

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = keys::parse(bearer(&parts.headers)?).ok_or_else(unauthorized)?;
        if key.kind == keys::Kind::Tenant {
            // Like anything else that this caller may not know of.
            return Err(Problem::not_found("operation for this key"));
        }
        tenants::authenticate_operator(app, &key)
            .await?
            .ok_or_else(unauthorized)
    }
}

/// Somebody of a tenant, or an operator, where both may ask.
#[derive(Debug, Clone)]
pub enum Party {
    Tenant(Caller),
    Operator(Operator),
}

impl Party {
    /// Refuses a tenant's key whose roles would not do.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        match self {
            Self::Tenant(caller) => caller.require(permission),
            Self::Operator(_) => Ok(()),
        }
    }

    /// How what they did is signed.
    pub fn name(&self) -> String {
        match self {
            Self::Tenant(caller) => caller.name.clone(),
            Self::Operator(operator) => format!("operator {}", operator.name),
        }
    }

    /// The tenant, where it is not an operator.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(caller) => Some(caller.tenant),
            Self::Operator(_) => None,
        }
    }
}

impl FromRequestParts<App> for Party {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = keys::parse(bearer(&parts.headers)?).ok_or_else(unauthorized)?;
        match key.kind {
            keys::Kind::Tenant => Caller::from_request_parts(parts, app)
                .await
                .map(Self::Tenant),
            keys::Kind::Operator => Operator::from_request_parts(parts, app)
                .await
                .map(Self::Operator),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    only(headers, header::AUTHORIZATION.as_str())?
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(unauthorized)
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Send `Authorization: Bearer <API key>` with a key that is neither expired nor revoked.",
    )
}
