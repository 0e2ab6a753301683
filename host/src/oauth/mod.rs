//! # OAuth
//!
//! ## What it is
//! Credentials that a person grants by signing in at the service, where a plugin's field says how: OAuth 2.0,
//! authorization code (RFC 6749) with PKCE (RFC 7636). An administrator registers the client once; then somebody signs
//! in, the gateway gets the tokens and renews them. The access token is a credential like any other ([`crate::vault`]);
//! the refresh token never leaves this slice.
//!
//! ## Life
//! asked -> exchanging -> granted -> active -> to_renew | ending -> ended. [`flow`] brings it to `active`: the browser
//! comes back with a code (`exchanging`), the provider gives the tokens (`granted`), and whoever began it confirms with
//! the code that the page showed. [`renew`] keeps it so, and ends it: revoking or replacing the credential makes it
//! `ending` (`vault::store`), and the sweep tells the provider, until it answers.
//!
//! ## Always true
//! - A state is good once, for ten minutes, for the tenant, person and field that it was made for; only its hash is
//!   stored (`oauth::a_state_is_good_once_and_for_a_time`).
//! - Tokens come to be a credential only when whoever began the sign-in says so, with what the browser was shown
//!   (`oauth::only_who_began_it_confirms_and_with_the_code_of_the_page`).
//! - One process renews at a time, over all hosts; who was overtaken writes nothing (`oauth::two_hosts_renew_once`).
//! - The rotated refresh token and the access token are one write (`renew::settle`).
//! - Tokens that came are kept, or are revoked at the provider; so is what a removed skill leaves behind
//!   (`oauth::what_a_removed_skill_was_granted_is_revoked`). Only what a new sign-in at the same client took the place
//!   of is left to the provider, where both are often one.
//! - Locks are taken in one order, also by `vault::store` and `plugins::store`: that of the skill
//!   (`vault::lock_of_skill`), sign-ins, credentials (`oauth::who_renews_and_who_revokes_do_not_wait_for_each_other`).
//! - Tokens go to the endpoints that an administrator agreed to, as they were when the sign-in began, and nowhere else.
//!
//! ## To change
//! - What an answer of a provider may look like: [`provider`].
//! - When a token is renewed: [`RENEW_AHEAD_MAX`], `vault::RENEW_BEFORE_USE`.

pub mod flow;
pub mod http;
pub mod page;
pub mod provider;
pub mod renew;
mod store;

pub use provider::Provider;
pub use renew::{renew_for_use, sweep};

use crate::{
    app::App,
    db::TenantTx,
    id::{GrantId, TenantId},
    plugins::{self, OauthField},
    problem::Problem,
    vault::{Renewal, SealedValue},
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use tsunami_sealed::Aad;
use url::Url;
use zeroize::Zeroizing;

/// How long each step of a sign-in may take a person.
pub const STEP_TIME: Duration = Duration::minutes(10);
/// Sign-ins of a tenant that are on their way at once.
pub const OPEN_SIGN_INS_MAX: i64 = 20;
/// Wrong codes before a sign-in is ended.
pub const CONFIRMATIONS_MAX: i32 = 5;
/// The sweep renews this long before the token expires, or when half of its life is over.
pub const RENEW_AHEAD_MAX: Duration = Duration::minutes(5);
/// Where browsers come back to, below `http.public_url`.
pub const CALLBACK_PATH: &str = "/api/v1/skill-creds/oauth/callback";

/// Where a sign-in stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Asked,
    Exchanging,
    Granted,
    Active,
    ToRenew,
    Ending,
    Ended,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Exchanging => "exchanging",
            Self::Granted => "granted",
            Self::Active => "active",
            Self::ToRenew => "to_renew",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "asked" => Self::Asked,
            "exchanging" => Self::Exchanging,
            "granted" => Self::Granted,
            "active" => Self::Active,
            "to_renew" => Self::ToRenew,
            "ending" => Self::Ending,
            _ => Self::Ended,
        }
    }
}

/// What is sealed of a sign-in: the verifier until the tokens are there, then the tokens.
#[derive(Serialize, Deserialize, Default)]
struct Held {
    verifier: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    /// The client's, as it was when the tokens were had: to revoke them where it is stored no more.
    client_secret: Option<Zeroizing<String>>,
    /// Of the access token, in seconds since 1970.
    expires_at: Option<i64>,
}

impl Held {
    fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
            .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
    }

    async fn seal(
        &self,
        app: &App,
        tx: &mut TenantTx,
        id: GrantId,
        version: i32,
    ) -> Result<SealedValue, Problem> {
        let text = Zeroizing::new(serde_json::to_vec(self).map_err(|e| Problem::internal(&e))?);
        let about = grant_aad(tx.tenant(), id, version);
        app.vault().seal(tx, &about, &text).await
    }

    /// What a grant holds; nothing where it was taken out.
    async fn open(app: &App, tx: &mut TenantTx, row: &store::GrantRow) -> Result<Self, Problem> {
        let (Some(data_key), Some(bytes)) = (row.data_key_id, row.sealed.clone()) else {
            return Ok(Self::default());
        };
        let about = grant_aad(tx.tenant(), row.id, row.sealed_version);
        let sealed = SealedValue { data_key, bytes };
        let text = app.vault().open(tx, &about, &sealed).await?;
        // What serde says of a text repeats it.
        serde_json::from_slice(&text).map_err(|_| Problem::internal(&"a grant holds no tokens"))
    }
}

fn grant_aad(tenant: TenantId, id: GrantId, version: i32) -> Aad {
    Aad::new("oauth-grant")
        .field(tenant.uuid().as_bytes())
        .field(id.uuid().as_bytes())
        .field(&version.to_be_bytes())
}

/// When the sweep renews a token; never where it cannot be, or does not expire.
fn renew_at(held: &Held, now: OffsetDateTime) -> Option<OffsetDateTime> {
    held.refresh_token.as_ref()?;
    let expires_at = held.expires_at()?;
    Some(expires_at - RENEW_AHEAD_MAX.min((expires_at - now) / 2))
}

/// The field of an installed skill that is had by signing in.
///
/// # Errors
/// 409 where the plugin that describes it is not run any more; 422 where there is none.
async fn field(
    app: &App,
    tx: &mut TenantTx,
    skill: &str,
    key: &str,
) -> Result<OauthField, Problem> {
    let fields = plugins::admitted_fields(app, tx, skill).await?;
    let with_oauth = fields.iter().filter(|field| field.oauth.is_some());
    let keys: Vec<_> = with_oauth.map(|field| field.key.clone()).collect();
    let found = fields.into_iter().find(|field| field.key == key);
    if let Some(oauth) = found.and_then(|field| field.oauth) {
        return Ok(oauth);
    }
    Err(match keys.is_empty() {
        true => Problem::invalid_field(
            "/skill",
            "has no credential that is had by signing in; store one with POST /api/v1/skill-creds",
        ),
        false => Problem::invalid_field(
            "/key",
            &format!(
                "is none of the credentials that are had by signing in: {}",
                keys.join(", ")
            ),
        ),
    })
}

/// The skill that a grant is for; none where it was removed with its configuration.
async fn skill_of(tx: &mut TenantTx, row: &store::GrantRow) -> Result<Option<String>, Problem> {
    match row.skill_config_id {
        Some(config) => Ok(store::skill_of(tx, config).await?),
        None => Ok(None),
    }
}

/// Whether the plugin that described the credential is still run: it may have named where codes, tokens and the client's
/// secret go.
///
/// # Errors
/// 409 where it was revoked.
async fn admitted(app: &App, tx: &mut TenantTx, row: &store::GrantRow) -> Result<(), Problem> {
    match skill_of(tx, row).await? {
        Some(skill) => plugins::admit_credentials(app, tx, &skill).await,
        None => Ok(()),
    }
}

/// Whether the credential of a sign-in still is one that is had by signing in.
///
/// # Errors
/// As [`field`]; 404 where nothing is installed for the skill.
async fn still_wanted(app: &App, tx: &mut TenantTx, row: &store::GrantRow) -> Result<(), Problem> {
    match skill_of(tx, row).await? {
        Some(skill) => field(app, tx, &skill, &row.credential_key).await.map(drop),
        None => Ok(()),
    }
}

/// Where browsers are sent back to.
fn redirect_uri(app: &App) -> Result<String, Problem> {
    match app.config().http.public_url.as_str() {
        "" => Err(Problem::conflict(
            "public_url_not_set",
            "Nobody can sign in while the gateway does not know its own address. Ask its operator to set http.public_url (TSUNAMI_HTTP__PUBLIC_URL).",
        )),
        url => Ok(format!("{url}{CALLBACK_PATH}")),
    }
}

/// The client's secret, as it is stored now; an empty one for a public client. It must be the client that the
/// tokens belong to. Whoever sends it somewhere asks [`admitted`] or [`still_wanted`] first.
async fn client_secret(
    app: &App,
    tx: &mut TenantTx,
    row: &store::GrantRow,
) -> Result<Zeroizing<String>, Problem> {
    let provider = &row.provider.0;
    let config = row.skill_config_id.ok_or_else(|| {
        Problem::conflict(
            "oauth_client_missing",
            "The skill that this sign-in was for was removed, with its client.",
        )
    })?;
    let id = opened(app, tx, config, &provider.client_id_key).await?;
    if *id != provider.client_id {
        return Err(Problem::conflict(
            "oauth_client_replaced",
            "The client was replaced by another since this sign-in. Sign in again: POST /api/v1/skill-creds/oauth/start.",
        ));
    }
    match &provider.client_secret_key {
        Some(key) => opened(app, tx, config, key).await,
        None => Ok(Zeroizing::new(String::new())),
    }
}

async fn opened(
    app: &App,
    tx: &mut TenantTx,
    config: crate::id::SkillConfigId,
    key: &str,
) -> Result<Zeroizing<String>, Problem> {
    let keys = [key.to_owned()];
    let closed = app.vault().closed(tx, config).await?;
    let opened = closed.open(app, &keys, Renewal::Tried)?;
    let opened = opened.map_err(|unusable| {
        Problem::conflict(
            "oauth_client_missing",
            format!("{unusable} It is part of the client: PUT /api/v1/skill-creds/oauth/client."),
        )
    })?;
    let mut opened = opened.into_iter();
    opened
        .next()
        .map(|credential| credential.value)
        .ok_or_else(|| Problem::internal(&"a credential was opened and is not there"))
}

fn parse_url(text: &str) -> Result<Url, Problem> {
    Url::parse(text).map_err(|_| Problem::internal(&"an endpoint that was agreed to is no URL"))
}
