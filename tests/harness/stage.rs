//! Stops the gateway at a step of its own, to kill it there: a trigger lets one write of one row wait for a lock that
//! the test holds. So a moment is chosen by what is about to be written, and not by the clock.

use crate::{LOOK, PATIENCE, gateway::Gateway};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Any number that nobody else uses.
const LOCK: i64 = 7_313_301;

/// One write: of which table, which operation, and of which rows (`new` and `old` may be named).
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub name: &'static str,
    pub table: &'static str,
    /// `insert`, `update` or `delete`
    pub operation: &'static str,
    pub rows: &'static str,
}

/// A write that waits, or will.
pub struct Stage {
    holder: PgConnection,
    moment: Moment,
}

impl Stage {
    /// From now on the moment's write waits, until [`Stage::clear`].
    pub async fn set(gateway: &Gateway, moment: Moment) -> Self {
        let mut holder = gateway.database("tsunami_owner").await;
        let Moment {
            table,
            operation,
            rows,
            ..
        } = moment;
        let row = if operation == "delete" { "old" } else { "new" };
        let set = format!(
            "create function stage() returns trigger language plpgsql as $$ begin
                 if {rows} then perform pg_advisory_xact_lock({LOCK}); end if;
                 return {row};
             end $$;
             create trigger stage before {operation} on {table} for each row execute function stage();"
        );
        holder.execute(AssertSqlSafe(set)).await.expect("a trigger");
        sqlx::query("select pg_advisory_lock($1)")
            .bind(LOCK)
            .execute(&mut holder)
            .await
            .expect("the lock");
        Self { holder, moment }
    }

    /// Waits until the write has come and waits.
    pub async fn reached(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.is_reached().await {
            let what = self.moment.name;
            assert!(
                tokio::time::Instant::now() < deadline,
                "not reached: {what}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_reached(&mut self) -> bool {
        sqlx::query_scalar(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted)",
        )
        .fetch_one(&mut self.holder)
        .await
        .expect("the locks")
    }

    /// Lets the write go on, if anybody is left to want it, and later ones pass.
    pub async fn clear(mut self) {
        sqlx::query("select pg_advisory_unlock($1)")
            .bind(LOCK)
            .execute(&mut self.holder)
            .await
            .expect("the lock is ours");
        let clear = format!(
            "drop trigger stage on {}; drop function stage();",
            self.moment.table
        );
        self.holder
            .execute(AssertSqlSafe(clear))
            .await
            .expect("the trigger is gone");
        let _ = self.holder.close().await;
    }
}
