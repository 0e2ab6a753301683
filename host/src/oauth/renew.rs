//! Tokens are renewed before they expire, and revoked at the provider when they are used no more. Both are done under
//! a lease: one process at a time, over all hosts.

use super::{
    Held, Status, admitted, client_secret,
    provider::{self, TokenError, Tokens},
    renew_at,
    store::{self, GrantRow, Step},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{GrantId, TenantId},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    vault::{self, RENEW_BEFORE_USE, SIGN_IN_ENDED, Unusable},
};
use futures::{StreamExt, stream};
use std::time::Duration as StdDuration;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// How long one process has a grant to itself: longer than a request to a provider takes (`outbound::REQUEST_TIMEOUT`).
const LEASE: Duration = Duration::seconds(30);
/// How often whoever waits for another looks.
const LOOK: StdDuration = StdDuration::from_millis(50);
/// How often the sweep looks.
const SWEEP_INTERVAL: StdDuration = StdDuration::from_secs(15);
/// Grants that a sweep takes, and at once.
const SWEEP_BATCH: i64 = 200;
const SWEEPS_AT_ONCE: usize = 8;
/// Pauses after failures: this, twice as long each time, up to the longest.
const PAUSE_FIRST: Duration = Duration::seconds(30);
const PAUSE_MAX: Duration = Duration::hours(1);
/// Attempts at telling a provider that is away: about a week of them.
const REVOCATIONS_MAX: i32 = 170;

/// What a grant is looked at for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A call is about to use it.
    Use,
    /// The sweep found it due.
    Sweep,
}

/// What is under way with a grant that was taken.
struct Leased {
    row: GrantRow,
    fence: i32,
    held: Held,
    client_secret: Zeroizing<String>,
}

/// Sees to it that a token can be used, where it expires soon: renews it, or waits for whoever does.
///
/// # Errors
/// 409 where a person must sign in again; 503 where the provider is away and the token has expired.
pub async fn renew_for_use(app: &App, tenant: TenantId, id: GrantId) -> Result<(), Problem> {
    renew(app, tenant, id, Wanted::Use).await
}

async fn renew(app: &App, tenant: TenantId, id: GrantId, wanted: Wanted) -> Result<(), Problem> {
    let mut waited_for = None;
    loop {
        let now = app.clock().now();
        let mut tx = app.db().tenant(tenant).await?;
        let Some(row) = store::lock(&mut tx, id).await? else {
            return Err(Problem::not_found("sign-in"));
        };
        if row.status() != Status::Active {
            return Err(stopped(row.status(), &row.credential_key));
        }
        if !is_due(&row, wanted, now) {
            return Ok(());
        }
        if row.is_leased(now) {
            if wanted == Wanted::Sweep {
                return Ok(());
            }
            drop(tx);
            waited_for.get_or_insert(row.failures);
            tokio::time::sleep(LOOK).await;
            continue;
        }
        if waited_for.is_some_and(|failures| row.failures > failures) {
            // Whoever was waited for has just failed: asking again at once would only add to it.
            return match row.expires_at.is_some_and(|at| at > now) {
                true => Ok(()),
                false => Err(away()),
            };
        }
        let held = Held::open(app, &mut tx, &row).await?;
        if held.refresh_token.is_none() {
            return without_refresh_token(tx, &row, now).await;
        }
        let secret = async {
            admitted(app, &mut tx, &row).await?;
            client_secret(app, &mut tx, &row).await
        };
        let secret = match secret.await {
            Ok(secret) => secret,
            Err(problem) if problem.status().is_client_error() => {
                return failed(tx, &row, now, problem).await;
            }
            Err(problem) => return Err(problem),
        };
        let fence = store::lease(&mut tx, id, now + LEASE).await?;
        tx.commit().await?;
        let token = held.refresh_token.clone().unwrap_or_default();
        let renewed = provider::refresh(app.outbound(), &row.provider.0, &secret, &token).await;
        let leased = Leased {
            row,
            fence,
            held,
            client_secret: secret,
        };
        if settle(app, tenant, leased, renewed).await? {
            return Ok(());
        }
    }
}

fn is_due(row: &GrantRow, wanted: Wanted, now: OffsetDateTime) -> bool {
    match wanted {
        Wanted::Use => row
            .expires_at
            .is_some_and(|at| at - RENEW_BEFORE_USE <= now),
        Wanted::Sweep => row.due_at.is_some_and(|at| at <= now),
    }
}

/// What the next call is told.
fn stopped(status: Status, key: &str) -> Problem {
    let unusable = match status {
        Status::ToRenew => Unusable::SignInEnded(key.to_owned()),
        _ => Unusable::Revoked(key.to_owned()),
    };
    Problem::conflict(unusable.code(), unusable.to_string())
}

/// It is good until it expires, and then a person signs in again.
async fn without_refresh_token(
    mut tx: TenantTx,
    row: &GrantRow,
    now: OffsetDateTime,
) -> Result<(), Problem> {
    if row.expires_at.is_none_or(|at| at > now) {
        return Ok(());
    }
    let why = "the token has expired, and the provider gave none to renew it with";
    to_renew(&mut tx, row, why).await?;
    tx.commit().await?;
    Err(stopped(Status::ToRenew, &row.credential_key))
}

/// A person must sign in again: nothing that is held is good for anything.
async fn to_renew(tx: &mut TenantTx, row: &GrantRow, why: &str) -> Result<(), Problem> {
    let step = Step {
        status: Status::ToRenew,
        expires_at: None,
        due_at: None,
        failures: 0,
        error: Some(why),
    };
    store::step(tx, row.id, step).await?;
    store::seal(tx, row.id, None, row.sealed_version).await?;
    if let Some(credential) = row.credential_id {
        vault::expire(tx, credential).await?;
    }
    Ok(())
}

/// It could not be renewed this time. Whoever has a token that is still good goes on with it.
async fn failed(
    mut tx: TenantTx,
    row: &GrantRow,
    now: OffsetDateTime,
    problem: Problem,
) -> Result<(), Problem> {
    let step = Step {
        status: row.status(),
        expires_at: row.expires_at,
        due_at: Some(now + pause(row.failures)),
        failures: row.failures.saturating_add(1),
        error: Some(problem.detail()),
    };
    store::step(&mut tx, row.id, step).await?;
    tx.commit().await?;
    tracing::warn!(grant = %row.id, code = problem.code(), "a token was not renewed");
    match row.expires_at.is_some_and(|at| at > now) {
        true => Ok(()),
        false => Err(problem),
    }
}

fn pause(failures: i32) -> Duration {
    let doubled = 2i32.saturating_pow(failures.clamp(0, 16).unsigned_abs());
    PAUSE_MAX.min(PAUSE_FIRST.saturating_mul(doubled))
}

/// Writes down what the provider answered; says whether the grant was still ours. The access token, the refresh token
/// that may have taken the place of the old one, and the credential are one write.
async fn settle(
    app: &App,
    tenant: TenantId,
    leased: Leased,
    renewed: Result<Tokens, TokenError>,
) -> Result<bool, Problem> {
    let now = app.clock().now();
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, leased.row.id).await? else {
        return Ok(false);
    };
    if row.fence != leased.fence {
        // Somebody took it after our lease had run out: what they have is newer.
        tracing::warn!(grant = %row.id, "a token was renewed by somebody else meanwhile");
        return Ok(false);
    }
    let tokens = match renewed {
        Ok(tokens) => tokens,
        Err(error) if row.status() != Status::Active => {
            tracing::info!(grant = %row.id, %error, "a token that is used no more was not renewed");
            release(&mut tx, &row).await?;
            tx.commit().await?;
            return Ok(false);
        }
        Err(error) if error.is_final() => {
            to_renew(&mut tx, &row, &error.to_string()).await?;
            tx.commit().await?;
            return Err(stopped(Status::ToRenew, &row.credential_key));
        }
        Err(error) => {
            failed(tx, &row, now, not_renewed(&error)).await?;
            return Ok(true);
        }
    };
    if row.status() == Status::Ended {
        // A new sign-in at the same client took its place: what came is not used, and so not kept. To revoke it could
        // end the new one (`store::supersede`).
        release(&mut tx, &row).await?;
        tx.commit().await?;
        return Ok(false);
    }
    let held = Held {
        verifier: None,
        access_token: Some(tokens.access_token),
        refresh_token: tokens.refresh_token.or(leased.held.refresh_token),
        client_secret: Some(leased.client_secret),
        expires_at: tokens.lifetime.map(|life| (now + life).unix_timestamp()),
    };
    let version = row.sealed_version + 1;
    let sealed = held.seal(app, &mut tx, row.id, version).await?;
    store::seal(&mut tx, row.id, Some(&sealed), version).await?;
    if row.status() != Status::Active {
        // It was revoked meanwhile. What the provider knows is the new token: that one is to be revoked there.
        release(&mut tx, &row).await?;
        tx.commit().await?;
        return Ok(false);
    }
    let step = Step {
        status: Status::Active,
        expires_at: held.expires_at(),
        due_at: renew_at(&held, now),
        failures: 0,
        error: None,
    };
    store::step(&mut tx, row.id, step).await?;
    if let (Some(credential), Some(token)) = (row.credential_id, &held.access_token) {
        let vault = app.vault();
        vault
            .renew(&mut tx, credential, token, held.expires_at())
            .await?;
    }
    tx.commit().await?;
    tracing::info!(grant = %row.id, "a token was renewed");
    Ok(true)
}

async fn release(tx: &mut TenantTx, row: &GrantRow) -> Result<(), Problem> {
    let step = Step {
        status: row.status(),
        expires_at: row.expires_at,
        due_at: row.due_at,
        failures: row.failures,
        error: None,
    };
    Ok(store::step(tx, row.id, step).await?)
}

fn away() -> Problem {
    Problem::unavailable(
        "The provider that renews the credential",
        RETRY_AFTER_DEFAULT,
    )
}

fn not_renewed(error: &TokenError) -> Problem {
    match error {
        TokenError::Away(_) => away(),
        other => Problem::conflict(
            "credential_not_renewed",
            format!(
                "The credential has expired, and was not renewed: {other}. Look at the client (GET /api/v1/skill-creds/oauth/client), or sign in again."
            ),
        ),
    }
}

/// Looks after what is due, for ever. Several processes may do so at once.
pub async fn sweep(app: App) {
    loop {
        if let Err(problem) = sweep_once(&app).await {
            tracing::warn!(%problem, "sign-ins: the database cannot be reached, trying again");
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// One round: renews what expires soon, ends what ran out, and tells providers what is used no more.
pub async fn sweep_once(app: &App) -> Result<(), Problem> {
    let mut tx = app.db().system().await?;
    let due = store::due(&mut tx, app.clock().now(), SWEEP_BATCH).await?;
    tx.commit().await?;
    stream::iter(due)
        .for_each_concurrent(SWEEPS_AT_ONCE, |(id, tenant)| async move {
            match look_after(app, tenant, id).await {
                Err(problem) if problem.code() != SIGN_IN_ENDED => {
                    tracing::info!(grant = %id, %problem, "a sign-in was not looked after");
                }
                _ => {}
            }
        })
        .await;
    Ok(())
}

async fn look_after(app: &App, tenant: TenantId, id: GrantId) -> Result<(), Problem> {
    let now = app.clock().now();
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, id).await? else {
        return Ok(());
    };
    if row.is_leased(now) || row.due_at.is_none_or(|at| at > now) {
        return Ok(());
    }
    match row.status() {
        // Nobody came back in time; or who exchanged the code died over it.
        Status::Asked | Status::Exchanging => {
            store::forget(&mut tx, id).await?;
            Ok(tx.commit().await?)
        }
        // Nobody confirmed.
        Status::Granted => {
            let step = Step {
                status: Status::Ending,
                expires_at: None,
                due_at: Some(now),
                failures: 0,
                error: Some("nobody confirmed it"),
            };
            store::step(&mut tx, id, step).await?;
            tx.commit().await?;
            Box::pin(look_after(app, tenant, id)).await
        }
        Status::Active => {
            drop(tx);
            renew(app, tenant, id, Wanted::Sweep).await
        }
        Status::Ending => tell(app, tx, row, now).await,
        Status::ToRenew | Status::Ended => {
            let step = Step {
                status: row.status(),
                expires_at: None,
                due_at: None,
                failures: 0,
                error: None,
            };
            store::step(&mut tx, id, step).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// Has the provider revoke what is used no more (RFC 7009): the refresh token, which most take to mean all that came
/// with it; without one, the access token.
async fn tell(
    app: &App,
    mut tx: TenantTx,
    row: GrantRow,
    now: OffsetDateTime,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let held = Held::open(app, &mut tx, &row).await?;
    let refresh = held.refresh_token.as_ref().map(|t| ("refresh_token", t));
    let access = held.access_token.as_ref().map(|t| ("access_token", t));
    let url = row.provider.0.revoke_url.clone();
    let (Some(url), Some((hint, token))) = (url, refresh.or(access)) else {
        return finished(tx, &row, None).await;
    };
    if let Err(problem) = admitted(app, &mut tx, &row).await {
        return match problem.status().is_client_error() {
            true => finished(tx, &row, Some(problem.detail())).await,
            false => Err(problem),
        };
    }
    let secret = match client_secret(app, &mut tx, &row).await {
        Ok(secret) => secret,
        Err(problem) if problem.status().is_client_error() => match held.client_secret.clone() {
            Some(secret) => secret,
            None => return finished(tx, &row, Some(problem.detail())).await,
        },
        Err(problem) => return Err(problem),
    };
    let fence = store::lease(&mut tx, row.id, now + LEASE).await?;
    tx.commit().await?;
    let provider = &row.provider.0;
    let told = provider::revoke(app.outbound(), provider, &secret, &url, (hint, token)).await;
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, row.id).await? else {
        return Ok(());
    };
    if row.fence != fence {
        return Ok(());
    }
    match told {
        Ok(()) => finished(tx, &row, None).await,
        Err(error) if row.failures + 1 >= REVOCATIONS_MAX => {
            finished(tx, &row, Some(&error.to_string())).await
        }
        Err(TokenError::Refused { said, .. }) => finished(tx, &row, Some(&said)).await,
        Err(error) => {
            let step = Step {
                status: Status::Ending,
                expires_at: None,
                due_at: Some(app.clock().now() + pause(row.failures)),
                failures: row.failures + 1,
                error: Some(&error.to_string()),
            };
            store::step(&mut tx, row.id, step).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// Nothing is left to be done, nor held.
async fn finished(mut tx: TenantTx, row: &GrantRow, error: Option<&str>) -> Result<(), Problem> {
    if let Some(error) = error {
        tracing::warn!(grant = %row.id, error, "a token was not revoked at its provider");
    }
    let step = Step {
        status: Status::Ended,
        expires_at: None,
        due_at: None,
        failures: row.failures,
        error,
    };
    store::step(&mut tx, row.id, step).await?;
    store::seal(&mut tx, row.id, None, row.sealed_version).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        assert_eq!(pause(0), PAUSE_FIRST);
        assert_eq!(pause(3), PAUSE_FIRST * 8);
        assert_eq!(pause(40), PAUSE_MAX);
    }

    #[test]
    fn a_lease_outlives_the_request_that_it_is_for() {
        assert!(LEASE > crate::outbound::REQUEST_TIMEOUT * 2);
        assert!(LEASE < super::super::STEP_TIME);
    }
}
