//! PostgreSQL, with the tenant in the transaction.
//!
//! [`TenantTx`] is the only way to a tenant's rows: it names the tenant to PostgreSQL, whose row-level
//! security then shows that tenant's rows alone, to every query, also to one that forgets its `where`.
//! [`SystemTx`] is the visibly different way for the few jobs that span tenants; ARCHITECTURE.md lists
//! them. Neither role owns a table or may bypass the rules (`migrations/*_ground_roles.sql`).

use crate::{
    config::DatabaseConfig,
    id::TenantId,
    problem::{Problem, RETRY_AFTER_DEFAULT},
    shares::TENANT_SHARE_PARTS,
};
use moka::sync::Cache;
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for a connection before it is told to come back.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Tenants whose share is kept track of, and for how long after they were last served.
const SHARES_MAX: u64 = 100_000;
const SHARE_IDLE: Duration = Duration::from_secs(60);
const ONE_PLAN: &str = "; set local plan_cache_mode = force_generic_plan";
/// No statement of the product runs longer; one that does is a mistake.
const STATEMENT_TIMEOUT: &str = "15s";
/// A connection that was used this short ago is taken to work, and not asked first: that would be a round trip more
/// for every transaction.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Two pools: one for tenants' requests, one for the jobs that span tenants.
#[derive(Clone, Debug)]
pub struct Db {
    app: PgPool,
    system: PgPool,
    shares: Cache<TenantId, Arc<Semaphore>>,
    share: usize,
}

impl Db {
    /// Opens no connection yet: a server that is not up answers the first requests with 503.
    pub fn lazy(config: &DatabaseConfig) -> Result<Self, sqlx::Error> {
        let pool = |url: &str, max: u32| -> Result<PgPool, sqlx::Error> {
            let options = PgConnectOptions::from_str(url)?
                .options([("statement_timeout", STATEMENT_TIMEOUT)])
                .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
            Ok(PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(Duration::from_secs(300))
                .test_before_acquire(false)
                .before_acquire(|connection, about| {
                    Box::pin(async move {
                        if about.idle_for > TRUSTED_FOR {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .connect_lazy_with(options))
        };
        Ok(Self {
            shares: Cache::builder()
                .max_capacity(SHARES_MAX)
                .time_to_idle(SHARE_IDLE)
                .build(),
            share: share_of(config.connections_max),
            app: pool(config.url.expose(), config.connections_max)?,
            system: pool(config.system_url.expose(), config.system_connections_max)?,
        })
    }

    /// A transaction that sees the rows of `tenant` and no others. It rolls back when dropped.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantTx, sqlx::Error> {
        self.begin(tenant, "").await
    }

    /// The same, for statements that find their rows by keys alone: one plan serves them all, and is made once for a
    /// connection and not for the values of each.
    pub async fn tenant_by_keys(&self, tenant: TenantId) -> Result<TenantTx, sqlx::Error> {
        self.begin(tenant, ONE_PLAN).await
    }

    /// As [`Db::tenant_by_keys`], and its commit does not wait for the disk: for what a later commit follows before anybody is told of it
    /// or anything leaves. Commits reach the disk in their order, so whoever finds the later one finds this one too.
    pub async fn tenant_followed(&self, tenant: TenantId) -> Result<TenantTx, sqlx::Error> {
        let settings = format!("{ONE_PLAN}; set local synchronous_commit = off");
        self.begin(tenant, &settings).await
    }

    async fn begin(&self, tenant: TenantId, settings: &str) -> Result<TenantTx, sqlx::Error> {
        // One round trip for all; the id is hexadecimal and dashes, so it may stand in the text.
        let begin = format!(
            "begin; set local tsunami.tenant_id = '{}'{settings}",
            tenant.uuid()
        );
        let share = self.share(tenant).await?;
        let tx = self.app.begin_with(sqlx::AssertSqlSafe(begin)).await?;
        Ok(TenantTx {
            tx,
            tenant,
            _share: share,
        })
    }

    /// A connection for one statement that is a transaction of its own, in one round trip: for the SQL functions that
    /// name the tenant themselves. Any other statement sees no rows over it.
    pub async fn tenant_at_once(&self, tenant: TenantId) -> Result<TenantConnection, sqlx::Error> {
        let share = self.share(tenant).await?;
        Ok(TenantConnection {
            connection: self.app.acquire().await?,
            tenant,
            _share: share,
        })
    }

    async fn share(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        let share = self
            .shares
            .get_with(tenant, || Arc::new(Semaphore::new(self.share)));
        tokio::time::timeout(ACQUIRE_TIMEOUT, share.acquire_owned())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)
    }

    /// A transaction over all tenants, for the jobs that ARCHITECTURE.md lists.
    pub async fn system(&self) -> Result<SystemTx, sqlx::Error> {
        Ok(SystemTx(self.system.begin().await?))
    }

    /// A connection over all tenants for one statement that is a transaction of its own, for the same jobs.
    pub async fn system_at_once(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.system.acquire().await
    }

    /// The pool behind [`Db::tenant`], with no tenant named: for a listener, and for tests that show
    /// that it sees nothing.
    pub fn app_pool(&self) -> &PgPool {
        &self.app
    }

    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("select 1").execute(&self.app).await.map(|_| ())
    }
}

/// At least two, so that a tenant is served while one of its own is slow.
fn share_of(connections_max: u32) -> usize {
    usize::try_from(connections_max).map_or(2, |max| (max / TENANT_SHARE_PARTS).max(2))
}

/// See [`Db::tenant`].
#[derive(Debug)]
pub struct TenantTx {
    // Before the share, so that the connection is back when another may have it.
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    _share: OwnedSemaphorePermit,
}

impl TenantTx {
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
    /// Commits, and waits for the disk however the transaction was begun.
    pub async fn commit_to_disk(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("set local synchronous_commit = on")
            .execute(&mut *self.tx)
            .await?;
        self.tx.commit().await
    }
}

impl Deref for TenantTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}
impl DerefMut for TenantTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// See [`Db::tenant_at_once`].
#[derive(Debug)]
pub struct TenantConnection {
    // As in [`TenantTx`].
    connection: PoolConnection<Postgres>,
    tenant: TenantId,
    _share: OwnedSemaphorePermit,
}

impl TenantConnection {
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl Deref for TenantConnection {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}
impl DerefMut for TenantConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// See [`Db::system`].
#[derive(Debug)]
pub struct SystemTx(Transaction<'static, Postgres>);

impl SystemTx {
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
impl Deref for SystemTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0
    }
}
impl DerefMut for SystemTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Whether the server is away, rather than the query wrong: the same request may work later.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::WorkerCrashed => true,
        // class 08 connection, 53 resources, 57P shutting down or starting, 25P03 a time-out between statements,
        // 40 serialization
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            ["08", "53", "57P", "25P03", "40"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Whether a statement ran into [`STATEMENT_TIMEOUT`]: the server is there, and has too much to do.
pub fn is_timed_out(error: &sqlx::Error) -> bool {
    const QUERY_CANCELED: &str = "57014";
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(QUERY_CANCELED)
}

/// JSON as jsonb holds it: without U+0000, neither in texts nor in names.
pub fn without_nul(value: Value) -> Value {
    let clean = |text: String| match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(all) => all.into_iter().map(without_nul).collect(),
        Value::Object(all) => all
            .into_iter()
            .map(|(name, value)| (clean(name), without_nul(value)))
            .collect(),
        other => other,
    }
}

/// JSON as it comes back from jsonb, whose numbers know no negative zero: what is worked out from it before it is kept is
/// worked out the same afterwards.
pub fn as_kept(value: Value) -> Value {
    match value {
        Value::Number(number) if number.as_f64() == Some(0.0) && number.is_f64() => json!(0.0),
        Value::Array(all) => all.into_iter().map(as_kept).collect(),
        Value::Object(all) => all
            .into_iter()
            .map(|(name, value)| (name, as_kept(value)))
            .collect(),
        other => other,
    }
}

/// The name of the constraint that a write ran into, so that it can be turned into a sentence.
pub fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Which migrations this program has and the database lacks, and the other way round.
pub async fn migrations_pending(pool: &PgPool) -> Result<usize, sqlx::Error> {
    let applied: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
        .fetch_one(pool)
        .await?;
    Ok(MIGRATOR
        .iter()
        .count()
        .saturating_sub(usize::try_from(applied).unwrap_or(0)))
}

/// What to say while the database is away.
pub fn unavailable() -> Problem {
    Problem::unavailable("The database", RETRY_AFTER_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_jsonb_cannot_hold_is_replaced_and_nothing_else() {
        let said = json!({ "a\0": ["b\0c", "\\u0000", 1, null], "d": { "e": "\0" } });
        let kept =
            json!({ "a\u{fffd}": ["b\u{fffd}c", "\\u0000", 1, null], "d": { "e": "\u{fffd}" } });
        assert_eq!(without_nul(said), kept);
    }
}
