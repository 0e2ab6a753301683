//! PostgreSQL, with the tenant in the transaction.
//!
//! [`TenantTx`] is the only way to a tenant's rows: it names the tenant to PostgreSQL, whose row-level
//! security then shows that tenant's rows alone, to every query, also to one that forgets its `where`.
//! [`SystemTx`] is the visibly different way for the few jobs that span tenants; ARCHITECTURE.md lists
//! them. Neither role owns a table or may bypass the rules (`migrations/*_ground_roles.sql`).

use crate::{
    config::DatabaseConfig,
    id::TenantId,
    pool::{ACQUIRE_TIMEOUT, Connections, Held, Left},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    shares::TENANT_SHARE_PARTS,
};
use moka::sync::Cache;
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgListener},
};
use std::{
    collections::HashSet,
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tenants whose share is kept track of, and for how long after they were last served.
const SHARES_MAX: u64 = 100_000;
const SHARE_IDLE: Duration = Duration::from_secs(60);
const ONE_PLAN: &str = "; set local plan_cache_mode = force_generic_plan";
/// No statement of the product runs longer; one that does is a mistake.
const STATEMENT_TIMEOUT: &str = "15s";

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Two pools: one for tenants' requests, one for the jobs that span tenants.
#[derive(Clone, Debug)]
pub struct Db {
    app: Connections,
    system: Connections,
    shares: Cache<TenantId, Arc<Semaphore>>,
    share: usize,
}

impl Db {
    /// Opens no connection yet: a server that is not up answers the first requests with 503.
    pub fn lazy(config: &DatabaseConfig) -> Result<Self, sqlx::Error> {
        let connections = |url: &str, max: u32| -> Result<Connections, sqlx::Error> {
            let options = PgConnectOptions::from_str(url)?
                .options([("statement_timeout", STATEMENT_TIMEOUT)])
                .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
            Ok(Connections::lazy(options, max))
        };
        Ok(Self {
            shares: Cache::builder()
                .max_capacity(SHARES_MAX)
                .time_to_idle(SHARE_IDLE)
                .build(),
            share: share_of(config.connections_max),
            app: connections(config.url.expose(), config.connections_max)?,
            system: connections(config.system_url.expose(), config.system_connections_max)?,
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
        let tx = Tx::begin(&self.app, Some(share), begin).await?;
        Ok(TenantTx { tx, tenant })
    }

    /// A connection for one statement that is a transaction of its own, in one round trip: for the SQL functions that
    /// name the tenant themselves. Any other statement sees no rows over it.
    pub async fn tenant_at_once(&self, tenant: TenantId) -> Result<AtOnce, sqlx::Error> {
        let share = self.share(tenant).await?;
        AtOnce::on(&self.app, Some(share)).await
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
        Ok(SystemTx(
            Tx::begin(&self.system, None, "begin".into()).await?,
        ))
    }

    /// A connection over all tenants for one statement that is a transaction of its own, for the same jobs.
    pub async fn system_at_once(&self) -> Result<AtOnce, sqlx::Error> {
        AtOnce::on(&self.system, None).await
    }

    /// A transaction of the role behind [`Db::tenant`] that names no tenant, and so sees no tenant's rows.
    pub async fn nobody(&self) -> Result<AtOnce, sqlx::Error> {
        AtOnce::on(&self.app, None).await
    }

    /// Hears of what is notified.
    pub async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        self.app.listener().await
    }

    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.nobody().await?;
        sqlx::query("select 1").execute(&mut *connection).await?;
        Ok(())
    }
}

/// At least two, so that a tenant is served while one of its own is slow.
fn share_of(connections_max: u32) -> usize {
    usize::try_from(connections_max).map_or(2, |max| (max / TENANT_SHARE_PARTS).max(2))
}

/// A transaction over a connection of a pool.
#[derive(Debug)]
struct Tx(Held);

impl Tx {
    async fn begin(
        connections: &Connections,
        share: Option<OwnedSemaphorePermit>,
        statements: String,
    ) -> Result<Self, sqlx::Error> {
        let mut held = connections.get(share).await?;
        held.leaves(Some(Left::Transaction));
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&mut *held)
            .await?;
        Ok(Self(held))
    }

    async fn commit(mut self) -> Result<(), sqlx::Error> {
        let ended = sqlx::raw_sql("commit").execute(&mut *self.0).await;
        if ended.is_ok() {
            self.0.leaves(None);
        }
        ended.map(drop)
    }
}

/// See [`Db::tenant`].
#[derive(Debug)]
pub struct TenantTx {
    tx: Tx,
    tenant: TenantId,
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
            .execute(&mut *self)
            .await?;
        self.tx.commit().await
    }
}

impl Deref for TenantTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx.0
    }
}
impl DerefMut for TenantTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx.0
    }
}

/// A connection for one statement that is a transaction of its own.
#[derive(Debug)]
pub struct AtOnce(Held);

impl AtOnce {
    async fn on(
        connections: &Connections,
        share: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, sqlx::Error> {
        let mut held = connections.get(share).await?;
        held.leaves(Some(Left::Statement));
        Ok(Self(held))
    }

    /// Gives the connection back: the statement was answered.
    pub fn done(mut self) {
        self.0.leaves(None);
    }
}

impl Deref for AtOnce {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0
    }
}
impl DerefMut for AtOnce {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// See [`Db::system`].
#[derive(Debug)]
pub struct SystemTx(Tx);

impl SystemTx {
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}
impl Deref for SystemTx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0.0
    }
}
impl DerefMut for SystemTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.0
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
        // class 08 connection, 53 resources, 57P shutting down or starting, 25P03 a time-out between statements
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            ["08", "53", "57P", "25P03"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Whether the transaction met another one and was rolled back (class 40: deadlocks, serialization).
pub fn is_rolled_back(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("40"))
}

/// Whether a statement ran into [`STATEMENT_TIMEOUT`]: the server is there, and has too much to do.
pub fn is_timed_out(error: &sqlx::Error) -> bool {
    const QUERY_CANCELED: &str = "57014";
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(QUERY_CANCELED)
}

/// JSON as jsonb holds it: without U+0000, neither in texts nor in names.
pub fn without_nul(mut value: Value) -> Value {
    clean(&mut value);
    value
}

/// In place: next to nothing has one.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = shown(text),
        Value::Array(all) => all.iter_mut().for_each(clean),
        Value::Object(all) => {
            if all.keys().any(|name| name.contains('\0')) {
                let named = std::mem::take(all).into_iter();
                *all = named.map(|(name, value)| (shown(&name), value)).collect();
            }
            all.values_mut().for_each(clean);
        }
        _ => {}
    }
}

fn shown(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
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

/// Whether the database has all migrations that this program has. (It may have more, of a later one.)
///
/// # Errors
/// Where it could not be asked.
pub async fn is_migrated(db: &Db) -> Result<bool, sqlx::Error> {
    let mut connection = db.nobody().await?;
    let applied = sqlx::query_scalar("select version from _sqlx_migrations where success")
        .fetch_all(&mut *connection)
        .await;
    match applied {
        Ok(applied) => {
            let applied: HashSet<i64> = applied.into_iter().collect();
            Ok(MIGRATOR.iter().all(|m| applied.contains(&m.version)))
        }
        // 42P01 there is no such table; 42501 it is of before the migration that lets it be read
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42P01" | "42501")) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
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
