//! A sign-in, until there is a credential: it is begun, the browser comes back, and whoever began it confirms.

use super::{
    CONFIRMATIONS_MAX, Held, OPEN_SIGN_INS_MAX, Provider, STEP_TIME, Status, client_secret, field,
    opened, parse_url, provider, redirect_uri, renew_at, still_wanted,
    store::{self, GrantRow, Step},
};
use crate::{
    app::App,
    caller::Caller,
    db::TenantTx,
    id::{CredentialId, GrantId, SkillConfigId, TenantId, random_bytes},
    plugins::{self, OauthField},
    problem::Problem,
    vault::{self, NewValue},
};
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

/// Bytes of chance in a state and in a verifier.
const RANDOM_BYTES: usize = 32;
/// Bytes of what a browser brings back.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// What the code of the page is made of: no letter that is taken for another (Crockford's base 32).
const CONFIRMATION_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CONFIRMATION_CHARS: usize = 8;
/// Parameters that a plugin may add to an authorization request, their bytes together, and which: those that say how a
/// person is asked, or for which of the provider's services a token is. Any other could widen what is granted past the
/// scopes that were consented to (`user_scope`, `authorization_details`), or change where the answer goes.
const ADDED_PARAMS_MAX: usize = 16;
const ADDED_PARAMS_BYTES_MAX: usize = 2 << 10;
const ADDED_PARAMS: [&str; 17] = [
    "access_type",
    "acr_values",
    "allow_signup",
    "approval_prompt",
    "audience",
    "display",
    "domain_hint",
    "duration",
    "force_verify",
    "hd",
    "login_hint",
    "max_age",
    "owner",
    "prompt",
    "resource",
    "token_access_type",
    "ui_locales",
];
/// Parameters of the authorization request that are ours, whatever a provider's URL holds.
const RESERVED: [&str; 11] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
    "registration",
];

/// A sign-in that was begun.
pub struct Begun {
    pub id: GrantId,
    /// Holds the state: for whoever signs in, and nobody else.
    pub authorization_url: String,
    pub expires_at: OffsetDateTime,
}

/// Begins a sign-in for a field of a skill.
pub async fn begin(app: &App, caller: &Caller, skill: &str, key: &str) -> Result<Begun, Problem> {
    let redirect_uri = redirect_uri(app)?;
    let now = app.clock().now();
    let mut tx = app.db().tenant(caller.tenant).await?;
    let config = installed_config(&mut tx, skill).await?;
    let field = field(app, &mut tx, skill, key).await?;
    let provider = registered(app, &mut tx, config, key, &field).await?;
    if store::open_sign_ins(&mut tx).await? >= OPEN_SIGN_INS_MAX {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_sign_ins",
            format!("{OPEN_SIGN_INS_MAX} sign-ins are on their way. Finish one, or wait until one has run out."),
        )
        .with_retry_after(STEP_TIME.unsigned_abs()));
    }
    let id = GrantId::fresh();
    let state = random_text();
    let verifier = random_text();
    let authorization_url = authorization_url(&provider, &field, &redirect_uri, &state, &verifier)?;
    let held = Held {
        verifier: Some(verifier),
        ..Held::default()
    };
    let sealed = held.seal(app, &mut tx, id, 0).await?;
    let expires_at = now + STEP_TIME;
    let new = store::NewGrant {
        id,
        config,
        key,
        provider: &provider,
        redirect_uri: &redirect_uri,
        by: &caller.name,
        by_key: caller.key,
        by_user: caller.user,
        state_sha256: &Sha256::digest(state.as_bytes()),
        sealed: &sealed,
        expires_at,
    };
    store::insert(&mut tx, new).await?;
    tx.commit().await?;
    Ok(Begun {
        id,
        authorization_url,
        expires_at,
    })
}

pub(super) async fn installed_config(
    tx: &mut TenantTx,
    skill: &str,
) -> Result<SkillConfigId, Problem> {
    let config = vault::config_of_skill(tx, skill).await?;
    config.ok_or_else(|| Problem::not_found("skill; install its plugin first"))
}

/// The client that is registered for a field, with the endpoints that were agreed to: if they are still the plugin's.
async fn registered(
    app: &App,
    tx: &mut TenantTx,
    config: SkillConfigId,
    key: &str,
    field: &OauthField,
) -> Result<Provider, Problem> {
    let row = store::client(tx, config, key).await?.ok_or_else(|| {
        Problem::conflict(
            "oauth_client_missing",
            "No client is registered for this credential. Register one with PUT /api/v1/skill-creds/oauth/client.",
        )
    })?;
    let agreed = row.provider.0;
    let named = of_field(field);
    let same_keys = agreed.client_id_key == named.client_id_key
        && agreed.client_secret_key == named.client_secret_key;
    let same_endpoints = agreed.authorize_url == named.authorize_url
        && agreed.token_url == named.token_url
        && agreed.revoke_url == named.revoke_url;
    if !same_keys || (agreed.issuer.is_none() && !same_endpoints) {
        return Err(Problem::conflict(
            "oauth_client_changed",
            "The plugin names other endpoints than those that were agreed to. Look at them with GET /api/v1/skill-creds/oauth/client, and register the client again.",
        ));
    }
    let client_id = opened(app, tx, config, &agreed.client_id_key).await?;
    Ok(Provider {
        client_id: client_id.to_string(),
        ..agreed
    })
}

/// The provider as the plugin names it.
pub(super) fn of_field(field: &OauthField) -> Provider {
    Provider {
        issuer: None,
        iss_required: false,
        authorize_url: field.authorize_url.clone(),
        token_url: field.token_url.clone(),
        revoke_url: field.revoke_url.clone(),
        client_authentication: match field.client_authentication.as_str() {
            "basic" => provider::Authentication::Basic,
            _ => provider::Authentication::Body,
        },
        client_id: String::new(),
        client_id_key: field.client_id.clone(),
        client_secret_key: field.client_secret.clone(),
    }
}

fn random_text() -> Zeroizing<String> {
    let bytes = Zeroizing::new(random_bytes::<RANDOM_BYTES>());
    Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// What a plugin adds to an authorization request: by its field, and in an endpoint of its own.
fn added_params(provider: &Provider, field: &OauthField) -> Result<Vec<(String, String)>, Problem> {
    let mut added = Vec::new();
    if provider.issuer.is_none() {
        let url = parse_url(&provider.authorize_url)?;
        added.extend(url.query_pairs().into_owned());
    }
    added.extend(field.authorize_params.iter().cloned());
    let bytes: usize = added.iter().map(|(n, v)| n.len() + v.len()).sum();
    let refused = |why: String| {
        let next = "Ask whoever publishes the plugin to leave that out.";
        Problem::conflict("oauth_parameters_refused", format!("{why} {next}"))
    };
    if added.len() > ADDED_PARAMS_MAX || bytes > ADDED_PARAMS_BYTES_MAX {
        return Err(refused(format!(
            "The plugin adds {} parameters of {bytes} bytes to the authorization request; it may add {ADDED_PARAMS_MAX} of {ADDED_PARAMS_BYTES_MAX}.",
            added.len()
        )));
    }
    match added
        .iter()
        .find(|(name, _)| !ADDED_PARAMS.contains(&name.as_str()))
    {
        None => Ok(added),
        Some((name, _)) => Err(refused(format!(
            "The plugin adds the parameter {name:?} to the authorization request; it may add {}.",
            ADDED_PARAMS.join(", ")
        ))),
    }
}

/// Where a person signs in.
fn authorization_url(
    provider: &Provider,
    field: &OauthField,
    redirect_uri: &str,
    state: &str,
    verifier: &str,
) -> Result<String, Problem> {
    let mut url = parse_url(&provider.authorize_url)?;
    let added = added_params(provider, field)?;
    // Of an issuer that an administrator named, and not the plugin's.
    let mut of_the_issuer = Vec::new();
    if provider.issuer.is_some() {
        of_the_issuer.extend(url.query_pairs().into_owned());
        of_the_issuer.retain(|(name, _)| !RESERVED.contains(&name.as_str()));
    }
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.extend_pairs(&of_the_issuer);
    pairs.extend_pairs(&added);
    pairs.append_pair("response_type", "code");
    pairs.append_pair("client_id", &provider.client_id);
    pairs.append_pair("redirect_uri", redirect_uri);
    if !field.scopes.is_empty() {
        pairs.append_pair("scope", &field.scopes.join(" "));
    }
    pairs.append_pair("state", state);
    pairs.append_pair("code_challenge", &challenge);
    pairs.append_pair("code_challenge_method", "S256");
    url.set_query(Some(&pairs.finish()));
    Ok(url.into())
}

/// What a browser brought back, each parameter at most once.
#[derive(Default)]
struct Returned {
    state: Option<String>,
    code: Option<Zeroizing<String>>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Returned {
    fn parse(query: &str) -> Option<Self> {
        if query.len() > QUERY_BYTES_MAX {
            return None;
        }
        let mut returned = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (name, value) = (name.as_ref(), value.into_owned());
            if name == "code" {
                if returned.code.replace(Zeroizing::new(value)).is_some() {
                    return None;
                }
                continue;
            }
            let place = match name {
                "state" => &mut returned.state,
                "iss" => &mut returned.iss,
                "error" => &mut returned.error,
                "error_description" => &mut returned.error_description,
                // Providers add parameters of their own.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(returned)
    }
}

/// What a browser that comes back is told.
pub enum Arrival {
    /// The tokens are there; whoever began it confirms with this.
    Confirm(String),
    /// The state is unknown, was used, or ran out.
    Unknown,
    /// Why it came to nothing, as it may be shown.
    Failed(String),
}

/// Takes what a browser brings back from the provider.
///
/// # Errors
/// What is ours, and not the provider's.
pub async fn come_back(app: &App, query: &str) -> Result<Arrival, Problem> {
    let Some(returned) = Returned::parse(query) else {
        return Ok(Arrival::Unknown);
    };
    let Some(state) = &returned.state else {
        return Ok(Arrival::Unknown);
    };
    let mut system = app.db().system().await?;
    let found = store::by_state(&mut system, &Sha256::digest(state.as_bytes())).await?;
    system.commit().await?;
    let Some((id, tenant)) = found else {
        return Ok(Arrival::Unknown);
    };
    let Some(taken) = take(app, tenant, id, &returned).await? else {
        return Ok(Arrival::Unknown);
    };
    let ready = match taken {
        Ok(ready) => ready,
        Err(why) => return Ok(Arrival::Failed(why)),
    };
    let exchanged = provider::exchange(
        app.outbound(),
        &ready.provider,
        &ready.client_secret,
        &ready.code,
        &ready.verifier,
        &ready.redirect_uri,
    )
    .await;
    match exchanged {
        Ok(tokens) => granted(app, tenant, id, tokens, ready.client_secret).await,
        Err(error) => {
            let why = error.to_string();
            let mut tx = app.db().tenant(tenant).await?;
            end(&mut tx, id, &why).await?;
            tx.commit().await?;
            Ok(Arrival::Failed(why))
        }
    }
}

/// What exchanging a code takes.
struct Ready {
    provider: Provider,
    client_secret: Zeroizing<String>,
    code: Zeroizing<String>,
    verifier: Zeroizing<String>,
    redirect_uri: String,
}

/// Uses the state up: nobody else exchanges a code for it, whatever comes of this one.
async fn take(
    app: &App,
    tenant: TenantId,
    id: GrantId,
    returned: &Returned,
) -> Result<Option<Result<Ready, String>>, Problem> {
    let now = app.clock().now();
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, id).await? else {
        return Ok(None);
    };
    if row.status() != Status::Asked || row.expires_at.is_none_or(|at| at <= now) {
        return Ok(None);
    }
    let ready = match usable(&row, returned) {
        Err(why) => Err(why),
        Ok(code) => match secret_for(app, &mut tx, &row).await {
            Err(problem) if problem.status().is_client_error() => Err(problem.detail().to_owned()),
            Err(problem) => return Err(problem),
            Ok(client_secret) => {
                let held = Held::open(app, &mut tx, &row).await?;
                let verifier = held
                    .verifier
                    .ok_or_else(|| Problem::internal(&"a sign-in has no verifier"))?;
                Ok(Ready {
                    provider: row.provider.0.clone(),
                    client_secret,
                    code,
                    verifier,
                    redirect_uri: row.redirect_uri.clone(),
                })
            }
        },
    };
    match &ready {
        Ok(_) => {
            let step = Step {
                status: Status::Exchanging,
                expires_at: row.expires_at,
                // The sweep forgets it after this, which must not be while the code is exchanged.
                due_at: Some(now + STEP_TIME),
                failures: 0,
                error: None,
            };
            store::step(&mut tx, id, step).await?;
        }
        Err(why) => end(&mut tx, id, why).await?,
    }
    tx.commit().await?;
    Ok(Some(ready))
}

/// The client's secret, for a sign-in that still is one of the skill's.
async fn secret_for(
    app: &App,
    tx: &mut TenantTx,
    row: &GrantRow,
) -> Result<Zeroizing<String>, Problem> {
    still_wanted(app, tx, row).await?;
    client_secret(app, tx, row).await
}

/// The code, where it is from whom it should be.
fn usable(row: &GrantRow, returned: &Returned) -> Result<Zeroizing<String>, String> {
    let provider = &row.provider.0;
    if !is_from(provider, returned.iss.as_deref()) {
        return Err(
            "The answer is not from the provider that was asked (RFC 9207). Begin again, and tell whoever runs the gateway if it happens twice.".to_owned(),
        );
    }
    if let Some(error) = &returned.error {
        let code = returned.code.as_deref().map_or("", |code| code.as_str());
        let state = returned.state.as_deref().unwrap_or_default();
        let description = returned.error_description.as_deref();
        return Err(provider::in_its_words(error, description, &[code, state]));
    }
    match &returned.code {
        Some(code) if !code.is_empty() => Ok(code.clone()),
        _ => Err("The provider sent no code.".to_owned()),
    }
}

/// Whether an answer is from the provider that was asked, as far as it says from whom it is. Where no issuer is known,
/// it must be of a host that was agreed to.
fn is_from(provider: &Provider, iss: Option<&str>) -> bool {
    match (&provider.issuer, iss) {
        (Some(issuer), Some(iss)) => iss == issuer,
        (Some(_), None) => !provider.iss_required,
        (None, None) => true,
        (None, Some(iss)) => Url::parse(iss)
            .is_ok_and(|iss| hosts(provider).contains(&crate::outbound::host_of(&iss))),
    }
}

/// It came to nothing, and holds nothing any more.
async fn end(tx: &mut TenantTx, id: GrantId, why: &str) -> Result<(), Problem> {
    let step = Step {
        status: Status::Ended,
        expires_at: None,
        due_at: None,
        failures: 0,
        error: Some(why),
    };
    store::step(tx, id, step).await?;
    store::seal(tx, id, None, 0).await?;
    Ok(())
}

/// Keeps the tokens until whoever began the sign-in confirms.
async fn granted(
    app: &App,
    tenant: TenantId,
    id: GrantId,
    tokens: provider::Tokens,
    client_secret: Zeroizing<String>,
) -> Result<Arrival, Problem> {
    let now = app.clock().now();
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, id).await? else {
        return Ok(Arrival::Unknown);
    };
    let held = Held {
        verifier: None,
        access_token: Some(tokens.access_token),
        refresh_token: tokens.refresh_token,
        client_secret: Some(client_secret),
        expires_at: tokens.lifetime.map(|life| (now + life).unix_timestamp()),
    };
    let version = row.sealed_version + 1;
    let sealed = held.seal(app, &mut tx, id, version).await?;
    store::seal(&mut tx, id, Some(&sealed), version).await?;
    if row.status() != Status::Exchanging {
        let why = "The sign-in was ended meanwhile: its skill was removed.";
        let step = Step {
            status: Status::Ending,
            expires_at: None,
            due_at: Some(now),
            failures: 0,
            error: Some(why),
        };
        store::step(&mut tx, id, step).await?;
        tx.commit().await?;
        return Ok(Arrival::Failed(why.to_owned()));
    }
    let code = confirmation();
    store::ask_to_confirm(&mut tx, id, &Sha256::digest(code.as_bytes())).await?;
    let step = Step {
        status: Status::Granted,
        expires_at: Some(now + STEP_TIME),
        due_at: Some(now + STEP_TIME),
        failures: 0,
        error: None,
    };
    store::step(&mut tx, id, step).await?;
    tx.commit().await?;
    let (first, second) = code.split_at(CONFIRMATION_CHARS / 2);
    Ok(Arrival::Confirm(format!("{first}-{second}")))
}

fn confirmation() -> String {
    random_bytes::<CONFIRMATION_CHARS>()
        .iter()
        .map(|byte| char::from(CONFIRMATION_ALPHABET[usize::from(*byte) % 32]))
        .collect()
}

/// As people type it: in any case, with or without the dash, and with the letters that are taken for digits.
fn normal(code: &str) -> String {
    let typed = code.chars().filter(|c| !c.is_whitespace() && *c != '-');
    typed
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

/// Makes the tokens of a sign-in the skill's credential: whoever began it says so, with what the browser was shown.
pub async fn confirm(
    app: &App,
    caller: &Caller,
    id: GrantId,
    code: &str,
) -> Result<CredentialId, Problem> {
    let now = app.clock().now();
    let mut tx = app.db().tenant(caller.tenant).await?;
    if let Some(config) = store::config_of(&mut tx, id).await? {
        vault::lock_of_skill(&mut tx, config).await?;
    }
    let row = store::lock(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("sign-in"))?;
    let same_person = match (row.started_by_user, caller.user) {
        (Some(began), Some(confirms)) => began == confirms,
        _ => row.started_by_key == caller.key,
    };
    if !same_person {
        return Err(Problem::forbidden(
            "not_your_sign_in",
            "Somebody else began this sign-in, and must confirm it. Begin one of your own: POST /api/v1/skill-creds/oauth/start.",
        ));
    }
    if row.status() != Status::Granted || row.expires_at.is_none_or(|at| at <= now) {
        return Err(Problem::conflict(
            "sign_in_not_waiting",
            "This sign-in does not wait for a confirmation: nobody came back from the provider yet, or it was confirmed, failed or ran out. Begin another: POST /api/v1/skill-creds/oauth/start.",
        ));
    }
    let shown: [u8; 32] = Sha256::digest(normal(code).as_bytes()).into();
    if row.confirm_sha256.as_deref() != Some(&shown[..]) {
        return Err(wrong_code(tx, &row, now).await?);
    }
    still_wanted(app, &mut tx, &row).await?;
    let credential = adopt(app, &mut tx, &row, now).await?;
    tx.commit().await?;
    Ok(credential)
}

/// Counts it; after some of them the sign-in ends, and its tokens are revoked.
async fn wrong_code(
    mut tx: TenantTx,
    row: &GrantRow,
    now: OffsetDateTime,
) -> Result<Problem, Problem> {
    store::count_confirmation(&mut tx, row.id).await?;
    let left = CONFIRMATIONS_MAX - row.confirm_attempts - 1;
    if left <= 0 {
        let step = Step {
            status: Status::Ending,
            expires_at: None,
            due_at: Some(now),
            failures: 0,
            error: Some("too many wrong codes"),
        };
        store::step(&mut tx, row.id, step).await?;
    }
    tx.commit().await?;
    Ok(match left {
        1.. => Problem::invalid_field(
            "/code",
            &format!("is not what the page showed; {left} more may be wrong"),
        ),
        _ => Problem::conflict(
            "sign_in_ended",
            "The code was wrong too often, and the sign-in has ended. Begin another: POST /api/v1/skill-creds/oauth/start.",
        ),
    })
}

async fn adopt(
    app: &App,
    tx: &mut TenantTx,
    row: &GrantRow,
    now: OffsetDateTime,
) -> Result<CredentialId, Problem> {
    let held = Held::open(app, tx, row).await?;
    let Some(access_token) = &held.access_token else {
        return Err(Problem::internal(&"a granted sign-in holds no token"));
    };
    let provider = &row.provider.0;
    let (Some(config), key) = (row.skill_config_id, &row.credential_key) else {
        return Err(Problem::internal(&"a granted sign-in is for no skill"));
    };
    // The same person at the same client is often one grant at the provider: revoking the old token would end the new.
    store::supersede(tx, config, key, &provider.token_url, &provider.client_id).await?;
    let credential = CredentialId::fresh();
    let value = NewValue {
        config,
        key,
        kind: vault::CredentialType::OauthToken.as_str(),
        value: access_token,
        expires_at: held.expires_at(),
        grant: Some(row.id),
    };
    app.vault().keep(tx, credential, &value).await?;
    store::belongs_to(tx, row.id, credential).await?;
    let step = Step {
        status: Status::Active,
        expires_at: held.expires_at(),
        due_at: renew_at(&held, now),
        failures: 0,
        error: None,
    };
    store::step(tx, row.id, step).await?;
    Ok(credential)
}

/// What an administrator registers.
pub struct NewClient<'a> {
    pub skill: &'a str,
    pub key: &'a str,
    pub client_id: &'a str,
    /// The stored one where it is left out.
    pub client_secret: Option<&'a str>,
    pub issuer: Option<&'a str>,
    /// The hosts that are agreed to.
    pub hosts: &'a [String],
}

/// Registers the client of a field, and writes down which endpoints were agreed to.
pub async fn register(app: &App, caller: &Caller, new: &NewClient<'_>) -> Result<(), Problem> {
    let mut tx = app.db().tenant(caller.tenant).await?;
    let config = installed_config(&mut tx, new.skill).await?;
    let field = field(app, &mut tx, new.skill, new.key).await?;
    tx.commit().await?;
    let mut provider = of_field(&field);
    if let Some(issuer) = new.issuer {
        let found = provider::discover(app.outbound(), issuer, &provider).await;
        provider = found.map_err(|why| Problem::invalid_field("/issuer", &why))?;
    }
    agree(app, &provider, new.hosts)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    vault::lock_of_skill(&mut tx, config).await?;
    match (&field.client_secret, new.client_secret) {
        (None, Some(_)) => {
            return Err(Problem::invalid_field(
                "/client_secret",
                "is not taken: the plugin knows this client as a public one",
            ));
        }
        (Some(key), Some(secret)) => {
            store_part(
                app,
                &mut tx,
                (config, new.skill),
                key,
                secret,
                "/client_secret",
            )
            .await?;
        }
        (Some(key), None) => drop(opened(app, &mut tx, config, key).await?),
        (None, None) => {}
    }
    let of_skill = (config, new.skill);
    store_part(
        app,
        &mut tx,
        of_skill,
        &field.client_id,
        new.client_id,
        "/client_id",
    )
    .await?;
    let now = app.clock().now();
    store::put_client(&mut tx, config, new.key, &provider, &caller.name, now).await?;
    tx.commit().await?;
    Ok(())
}

/// The client's id or secret is a credential of the skill's own, under the key that the plugin names.
async fn store_part(
    app: &App,
    tx: &mut TenantTx,
    (config, skill): (SkillConfigId, &str),
    key: &str,
    value: &str,
    pointer: &str,
) -> Result<(), Problem> {
    if value.is_empty() || value.len() > vault::VALUE_BYTES_MAX {
        let max = vault::VALUE_BYTES_MAX;
        return Err(Problem::invalid_field(
            pointer,
            &format!("must have 1 to {max} bytes"),
        ));
    }
    plugins::check_credential(app, tx, skill, key, value)
        .await
        .map_err(|problem| match problem.code() {
            "invalid_body" => {
                let said = problem.detail().trim_start_matches("/value ");
                Problem::invalid_field(pointer, said.trim_end_matches('.'))
            }
            _ => problem,
        })?;
    let new = NewValue {
        config,
        key,
        kind: vault::CredentialType::Secret.as_str(),
        value,
        expires_at: None,
        grant: None,
    };
    app.vault().keep(tx, CredentialId::fresh(), &new).await
}

/// The hosts of a provider's endpoints.
pub fn hosts(provider: &Provider) -> Vec<String> {
    let urls = [&provider.authorize_url, &provider.token_url];
    let urls = urls.into_iter().chain(&provider.revoke_url);
    let mut hosts: Vec<_> = urls
        .filter_map(|url| Url::parse(url).ok())
        .map(|url| crate::outbound::host_of(&url))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Whether the hosts that somebody agreed to are those that will be asked, and may be.
fn agree(app: &App, provider: &Provider, agreed: &[String]) -> Result<(), Problem> {
    for endpoint in [&provider.authorize_url, &provider.token_url]
        .into_iter()
        .chain(&provider.revoke_url)
    {
        let url = parse_url(endpoint)?;
        app.outbound()
            .check(&url)
            .map_err(|e| Problem::unprocessable("oauth_endpoint_refused", format!("{e}.")))?;
    }
    let hosts = hosts(provider);
    let mut agreed = agreed.to_vec();
    agreed.sort();
    agreed.dedup();
    if agreed == hosts {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "hosts_not_agreed",
        format!(
            "Whoever signs in is sent to, and tokens are had from, {}. If that is right, send these as `hosts`.",
            hosts.join(", ")
        ),
    )
    .with("hosts", hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field() -> OauthField {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        OauthField {
            authorize_url: "https://idp.example/a?hd=acme.example".into(),
            token_url: "https://idp.example/t".into(),
            revoke_url: None,
            scopes: vec!["one".into(), "two".into()],
            authorize_params: vec![pair("access_type", "offline")],
            client_id: "client_id".into(),
            client_secret: None,
            client_authentication: "basic".into(),
        }
    }

    #[test]
    fn a_plugin_adds_parameters_to_those_that_are_ours() {
        let provider = Provider {
            client_id: "me&you".into(),
            ..of_field(&field())
        };
        let url =
            authorization_url(&provider, &field(), "https://gw.example/cb", "S", "V").unwrap();
        let url = Url::parse(&url).unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(b"V"));
        let expected = [
            ("hd", "acme.example"),
            ("access_type", "offline"),
            ("response_type", "code"),
            ("client_id", "me&you"),
            ("redirect_uri", "https://gw.example/cb"),
            ("scope", "one two"),
            ("state", "S"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_plugin_adds_no_parameter_that_is_ours_or_widens_what_is_granted() {
        let url = |field: &OauthField| {
            authorization_url(&of_field(field), field, "https://gw.example/cb", "S", "V")
        };
        let refused = |field: &OauthField, name: &str| {
            let problem = url(field).expect_err(name);
            assert_eq!(problem.code(), "oauth_parameters_refused");
        };
        let others = [
            "user_scope",
            "authorization_details",
            "claims",
            "",
            "Prompt",
        ];
        for name in RESERVED.into_iter().chain(others) {
            let mut by_list = field();
            by_list.authorize_params.push((name.to_owned(), "x".into()));
            refused(&by_list, name);
            let mut by_url = field();
            by_url.authorize_url = format!("https://idp.example/a?{name}=x");
            refused(&by_url, name);
        }
        let prompts = |count: usize, bytes: usize| OauthField {
            authorize_params: vec![("prompt".to_owned(), "x".repeat(bytes)); count],
            ..field()
        };
        assert!(url(&prompts(ADDED_PARAMS_MAX - 1, 1)).is_ok());
        refused(&prompts(ADDED_PARAMS_MAX, 1), "too many");
        refused(&prompts(1, ADDED_PARAMS_BYTES_MAX), "too long");
    }

    #[test]
    fn the_endpoint_of_an_issuer_replaces_no_parameter_of_ours() {
        let discovered = Provider {
            issuer: Some("https://idp.example".into()),
            authorize_url: "https://idp.example/a?p=policy&request_uri=theirs&state=theirs".into(),
            ..of_field(&field())
        };
        let url = authorization_url(&discovered, &field(), "https://gw.example/cb", "S", "V");
        let url = Url::parse(&url.unwrap()).unwrap();
        let of = |name: &str| {
            let found = url.query_pairs().filter(|(key, _)| key == name);
            found
                .map(|(_, value)| value.into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (of("p"), of("state")),
            (vec!["policy".to_owned()], vec!["S".to_owned()])
        );
        assert!(of("request_uri").is_empty());
    }

    #[test]
    fn an_answer_says_from_whom_it_is() {
        let plugins_own = of_field(&field());
        let discovered = Provider {
            issuer: Some("https://idp.example".into()),
            iss_required: true,
            ..of_field(&field())
        };
        assert!(is_from(&plugins_own, None));
        assert!(is_from(&plugins_own, Some("https://idp.example")));
        assert!(!is_from(&plugins_own, Some("https://other.example")));
        assert!(!is_from(&plugins_own, Some("nonsense")));
        assert!(is_from(&discovered, Some("https://idp.example")));
        assert!(!is_from(&discovered, Some("https://idp.example/")));
        assert!(!is_from(&discovered, None));
    }

    #[test]
    fn what_comes_back_twice_or_is_too_long_is_not_taken() {
        assert!(Returned::parse("state=a&code=b&session_state=c&session_state=d").is_some());
        assert!(Returned::parse("state=a&state=b").is_none());
        assert!(Returned::parse("state=a&code=b&code=b").is_none());
        assert!(Returned::parse(&"x".repeat(QUERY_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_code_is_taken_as_people_type_it() {
        let code = confirmation();
        assert_eq!(code.len(), CONFIRMATION_CHARS);
        assert_eq!(
            normal(&format!(" {}-{} ", &code[..4], code[4..].to_lowercase())),
            code
        );
        assert_eq!(normal("oIl0-1xyz"), "01101XYZ");
    }
}
