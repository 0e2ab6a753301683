//! Connections that are kept open, and given back.
//!
//! sqlx has a pool too. It asks the server after each use whether the connection still works: a round trip besides those
//! of the transaction, for each of them, on a connection that somebody else could have meanwhile.

use deadpool::{
    Runtime,
    managed::{
        Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
    },
};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{
    fmt,
    io::ErrorKind,
    ops::{Deref, DerefMut},
    time::Duration,
};
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

/// How long one waits for a connection before it is told to come back.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was used this short ago is taken to work, and not asked first: that would be a round trip more
/// for every transaction.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Closed when nobody used it for so long, or when it is so old: what the server keeps for one grows.
const IDLE_MAX: Duration = Duration::from_secs(300);
const AGE_MAX: Duration = Duration::from_secs(1800);
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Between two attempts at a server that is starting.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long it may take until what was left under way has ended: longer than any statement runs.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections(Pool<Connecting>);

struct Connecting {
    options: PgConnectOptions,
}

impl Connections {
    /// Opens none yet.
    pub fn lazy(options: PgConnectOptions, max: u32) -> Self {
        let pool = Pool::builder(Connecting { options })
            .max_size(usize::try_from(max).unwrap_or(usize::MAX))
            // The connection that was used last: what the server keeps for it is warm, and those that are not needed
            // grow idle.
            .queue_mode(QueueMode::Lifo)
            .timeouts(Timeouts {
                wait: Some(ACQUIRE_TIMEOUT),
                create: Some(ACQUIRE_TIMEOUT),
                recycle: Some(ACQUIRE_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is named");
        if let Ok(runtime) = Handle::try_current() {
            let pool = pool.weak();
            runtime.spawn(async move {
                let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
                loop {
                    sweep.tick().await;
                    let Some(pool) = pool.upgrade() else { return };
                    pool.retain(|_, connection| connection.last_used() < IDLE_MAX);
                }
            });
        }
        Self(pool)
    }

    pub async fn get(&self, share: Option<OwnedSemaphorePermit>) -> Result<Held, sqlx::Error> {
        let connection = self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            _ => sqlx::Error::PoolTimedOut,
        })?;
        Ok(Held {
            connection: Some(connection),
            share,
            left: None,
        })
    }

    /// A connection of its own that hears of notifications.
    pub async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        let options = self.0.manager().options.clone();
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None);
        PgListener::connect_with(&own.connect_lazy_with(options)).await
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0.status();
        write!(f, "Connections({} of {})", status.size, status.max_size)
    }
}

impl Manager for Connecting {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        loop {
            // Apart: it is large, and most find a connection that is open.
            match Box::pin(PgConnection::connect_with(&self.options)).await {
                // Until whoever waits has waited long enough.
                Err(error) if is_starting(&error) => tokio::time::sleep(CONNECT_PAUSE).await,
                connected => return connected,
            }
        }
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if metrics.age() > AGE_MAX {
            return Err(RecycleError::message("it is too old"));
        }
        if metrics.last_used() > TRUSTED_FOR {
            Box::pin(connection.ping()).await?;
        }
        Ok(())
    }
}

/// Whether the server will be there in a moment.
fn is_starting(error: &sqlx::Error) -> bool {
    /// What PostgreSQL says while it starts, or recovers.
    const CANNOT_CONNECT_NOW: &str = "57P03";
    match error {
        sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.code().as_deref() == Some(CANNOT_CONNECT_NOW),
        _ => false,
    }
}

/// What whoever drops a connection leaves behind on it.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// A statement, perhaps, whose answer was not read.
    Statement,
    /// A transaction that was not committed.
    Transaction,
}

/// A connection that somebody uses, and the share that it takes. Dropped with something left on it, it is cleared before
/// anybody else has it, and closed where that fails.
pub(crate) struct Held {
    /// There until it is dropped.
    connection: Option<Object<Connecting>>,
    share: Option<OwnedSemaphorePermit>,
    left: Option<Left>,
}

impl Held {
    /// Says what is left if it were dropped now.
    pub fn leaves(&mut self, left: Option<Left>) {
        self.left = left;
    }
}

impl Deref for Held {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect("held until dropped")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect("held until dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // With nothing left on it, it goes back as it is.
        let Some(left) = self.left else { return };
        let Some(connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(cleared(connection, left, self.share.take()))),
            Err(_) => drop(Object::take(connection)),
        }
    }
}

async fn cleared(
    mut connection: Object<Connecting>,
    left: Left,
    share: Option<OwnedSemaphorePermit>,
) {
    let clear = async {
        match left {
            Left::Transaction => sqlx::raw_sql("rollback")
                .execute(&mut *connection)
                .await
                .map(drop),
            Left::Statement => connection.ping().await,
        }
    };
    if !matches!(timeout(CLEAR_TIMEOUT, clear).await, Ok(Ok(()))) {
        drop(Object::take(connection));
    }
    drop(share);
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}
